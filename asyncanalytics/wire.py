"""The hot path: from a call's fields straight to the dict that goes out.

The fields of each call stand here as pydantic's core checks them, with no model built or dumped on
the way. The models of `calls.py` have the same: a test holds both ways side by side. There, what
each field means is written; here, nothing is imported or derived that takes long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.alias_generators import to_camel
from pydantic_core import SchemaValidator, ValidationError, core_schema

from asyncanalytics.errors import InvalidCall
from asyncanalytics.values import (
    MAX_MESSAGE_ID,
    RESERVED,
    Wired,
    as_id,
    as_object,
    as_switches,
    as_timestamp,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from pydantic_core import CoreSchema, ErrorDetails

    from asyncanalytics.calls import Call
    from asyncanalytics.values import CallType

# --------------------------------------------------------------------------------- what a field is

_EITHER = "either"  # in an error's place: no field has this name


def _either(usual: CoreSchema, function: Callable[[Any], Any]) -> CoreSchema:
    """What is of the usual kind stays as it is, and a function of Python sees to all else."""
    other = core_schema.no_info_plain_validator_function(function)
    choices: list[CoreSchema | tuple[CoreSchema, str]] = [(usual, _EITHER), (other, _EITHER)]
    return core_schema.union_schema(choices, mode="left_to_right")


ID = _either(core_schema.str_schema(strict=True, min_length=1), as_id)
OBJECT = _either(core_schema.is_instance_schema(dict), as_object)
SWITCHES = core_schema.no_info_plain_validator_function(as_switches)
TIMESTAMP = core_schema.no_info_plain_validator_function(as_timestamp)
TEXT = core_schema.str_schema(coerce_numbers_to_str=True)
NAME = core_schema.str_schema(min_length=1)
MESSAGE_ID = core_schema.str_schema(min_length=1, max_length=MAX_MESSAGE_ID)
FLAG = core_schema.bool_schema()
NUMBER = core_schema.union_schema([core_schema.int_schema(), core_schema.float_schema()])


def _members(
    fields: Mapping[str, CoreSchema],
    needed: Collection[str] = (),
    *,
    others: core_schema.ExtraBehavior = "allow",
) -> CoreSchema:
    """Return an object with these members, under their wire names.

    `others` says what becomes of any others.
    """
    return core_schema.typed_dict_schema(
        {
            to_camel(name): core_schema.typed_dict_field(kind, required=name in needed)
            for name, kind in fields.items()
        },
        extra_behavior=others,
    )


def _part(**fields: CoreSchema) -> CoreSchema:
    """Return an object within a call, which may be a mapping or a model, in either spelling."""
    return core_schema.no_info_before_validator_function(_normaliser(fields), _members(fields))


def _normaliser(fields: Mapping[str, CoreSchema]) -> Callable[[object], dict[Any, Any]]:
    """Return what a model does with names: either spelling of a field, and none that is None."""
    aliases = {name: to_camel(name) for name in fields}
    known = frozenset(aliases.values())

    def normalise(value: object) -> dict[Any, Any]:
        given = as_object(value)
        found = {
            name: each if name in known or not isinstance(each, Wired) else each.wire()
            for name, each in given.items()
            if aliases.get(name, name) == name and (each is not None or name not in known)
        }
        for name in aliases.keys() & given.keys() - found.keys():
            if given[name] is not None:
                found.setdefault(aliases[name], given[name])
        return found

    return normalise


# ------------------------------------------------------------------------ which fields there are

CONTEXT = _part(
    active=FLAG,
    app=_part(name=TEXT, version=TEXT, build=TEXT, namespace=TEXT),
    campaign=_part(name=TEXT, source=TEXT, medium=TEXT, term=TEXT, content=TEXT),
    channel=TEXT,
    consent=_part(category_preferences=OBJECT),
    device=_part(
        id=TEXT,
        advertising_id=TEXT,
        ad_tracking_enabled=FLAG,
        manufacturer=TEXT,
        model=TEXT,
        name=TEXT,
        type=TEXT,
        version=TEXT,
        token=TEXT,
    ),
    group_id=ID,
    ip=TEXT,
    library=_part(name=TEXT, version=TEXT),
    locale=TEXT,
    network=_part(bluetooth=FLAG, carrier=TEXT, cellular=FLAG, wifi=FLAG),
    os=_part(name=TEXT, version=TEXT),
    page=_part(path=TEXT, referrer=TEXT, search=TEXT, title=TEXT, url=TEXT),
    referrer=_part(id=TEXT, type=TEXT, name=TEXT, url=TEXT, link=TEXT),
    screen=_part(width=NUMBER, height=NUMBER, density=NUMBER),
    timezone=TEXT,
    traits=OBJECT,
    user_agent=TEXT,
    user_agent_data=OBJECT,
)

_COMMON = {
    "message_id": MESSAGE_ID,
    "user_id": ID,
    "anonymous_id": ID,
    "timestamp": TIMESTAMP,
    "context": CONTEXT,
    "integrations": SWITCHES,
}
_VIEW = {"name": TEXT, "category": TEXT, "section": TEXT, "properties": OBJECT}

FIELDS: dict[CallType, dict[str, CoreSchema]] = {
    "identify": {**_COMMON, "traits": OBJECT},
    "track": {**_COMMON, "event": NAME, "properties": OBJECT},
    "page": {**_COMMON, **_VIEW},
    "screen": {**_COMMON, **_VIEW},
    "group": {**_COMMON, "group_id": ID, "traits": OBJECT},
    "alias": {**_COMMON, "previous_id": ID},
}
"""Each call's fields, in the order in which they are checked."""

NEEDED: dict[CallType, tuple[str, ...]] = {
    "track": ("event",),
    "group": ("group_id",),
    "alias": ("user_id", "previous_id"),
}
"""Those that a call cannot be without; nor can it be without any id of the user."""

# ------------------------------------------------------------------------------------- the calls

_CONFIG = core_schema.CoreConfig(hide_input_in_errors=True)


class CallWire:
    """One call type: what checks its fields.

    For fields that a verb has named: there are no others, and none of them can be the server's.
    """

    __slots__ = ("_names", "_validate", "type")

    def __init__(self, kind: CallType) -> None:
        """Take the call's type."""
        self.type: CallType = kind
        self._names: dict[str, str] = {to_camel(name): name for name in FIELDS[kind]}
        checking = SchemaValidator(self._schema(), _CONFIG)
        self._validate: Callable[[Any], dict[str, Any]] = checking.validate_python

    def _schema(self) -> CoreSchema:
        # To look for others as well would be a good part of the check.
        return _members(FIELDS[self.type], NEEDED.get(self.type, ()), others="ignore")

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the wire's dict for fields under their wire names, or raise `InvalidCall`."""
        try:
            wire = self._validate(fields)
        except ValidationError as error:
            raise self.refusal(error) from None
        if "userId" not in wire and "anonymousId" not in wire:
            raise InvalidCall(self.type, "user_id", _NO_USER)
        return wire

    def build(self, fields: dict[str, Any]) -> Call:
        """Return the model for the same fields, or raise the same `InvalidCall`."""
        from asyncanalytics.calls import MODELS

        try:
            return MODELS[self.type].model_validate(fields)
        except ValidationError as error:
            raise self.refusal(error) from None

    def refusal(self, error: ValidationError) -> InvalidCall:
        """Say which field is wrong and why, without the value."""
        errors = error.errors(include_url=False, include_input=False)
        # Where there are two ways for a value, the last one says what is wrong.
        first = [each for each in errors if each["loc"] == errors[0]["loc"]][-1]
        if first["type"] == "user":
            return InvalidCall(self.type, "user_id", _NO_USER)
        path = first["ctx"]["name"] if first["type"] == "reserved" else path_of(first)
        message = first["msg"]
        return InvalidCall(self.type, self._python_name(path), message[:1].lower() + message[1:])

    def _python_name(self, path: str) -> str:
        head, dot, rest = path.partition(".")
        return f"{self._names.get(head, head)}{dot}{rest}" or "call"


_NO_USER = "give user_id or anonymous_id: a non-empty string, a UUID or a number but 0"


class AnyCallWire(CallWire):
    """The same for fields of any name: those of a model, or of a call that others made."""

    __slots__ = ()

    def _schema(self) -> CoreSchema:
        fields = {"type": core_schema.literal_schema([self.type]), **FIELDS[self.type]}
        return _members(fields, NEEDED.get(self.type, ()))

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the wire's dict, or raise `InvalidCall`, for a field of the server's too."""
        wire = super().validate(fields)
        if not RESERVED.isdisjoint(wire):
            return self.build(wire).wire()  # which refuses it
        return wire


def path_of(problem: ErrorDetails) -> str:
    """Return where a problem is, in the wire's spelling."""
    return ".".join(str(part) for part in problem["loc"] if part != _EITHER)


context_wire: Callable[[Any], dict[str, Any]] = SchemaValidator(CONTEXT, _CONFIG).validate_python
"""Makes the wire's dict of a context; raises pydantic's `ValidationError`."""

IDENTIFY, TRACK, PAGE, SCREEN, GROUP, ALIAS = map(CallWire, FIELDS)
"""For the verbs alone."""

WIRES: dict[str, AnyCallWire] = {kind: AnyCallWire(kind) for kind in FIELDS}
"""Each call's wire by its type."""
