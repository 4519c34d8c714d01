"""The hot path's twin of `calls.py`: from a call's fields straight to the dict that goes out.

For each model a TypedDict with the same fields under their wire names is derived, and pydantic
validates into that: the result is the wire's own dict, with no model built or dumped on the way.
Both ways come from one definition, so they agree; a test holds them side by side.
"""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, NotRequired, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    with_config,
)
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from asyncanalytics.calls import MODELS, RESERVED, Call, as_id, as_object
from asyncanalytics.errors import InvalidCall

_CONFIG = ConfigDict(extra="allow", hide_input_in_errors=True)


def _twin(annotation: Any) -> Any:
    """Return a field's type without None, and with models turned into TypedDicts."""
    options = [option for option in get_args(annotation) if option is not type(None)]
    if type(None) in get_args(annotation) and len(options) == 1:
        return _twin(options[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _ready(annotation)
    return annotation


class _Ready:
    """A schema that is made already: pydantic would make it anew wherever its type is named."""

    def __init__(self, schema: CoreSchema) -> None:
        self._schema = schema

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> CoreSchema:
        return self._schema


_EITHER = "either"  # in an error's place: no field has this name


def _either(usual: CoreSchema, function: Callable[[Any], Any]) -> _Ready:
    """What is of the usual kind stays as it is, and a function of Python sees to all else."""
    other = core_schema.no_info_plain_validator_function(function)
    choices: list[CoreSchema | tuple[CoreSchema, str]] = [(usual, _EITHER), (other, _EITHER)]
    return _Ready(core_schema.union_schema(choices, mode="left_to_right"))


_QUICK: dict[object, _Ready] = {
    as_id: _either(core_schema.str_schema(strict=True, min_length=1), as_id),
    as_object: _either(core_schema.is_instance_schema(dict), as_object),
}


def _quickly(kind: Any) -> Any:
    """Return a field's type with the quick way in the place of its function."""
    if get_origin(kind) is not Annotated:
        return kind
    of, *more = get_args(kind)
    return Annotated[(of, *(_QUICK.get(getattr(each, "func", None), each) for each in more))]


@cache
def _ready(model: type[BaseModel]) -> Any:
    """Return a model's TypedDict; its schema is made once for all the calls that have it."""
    twin: Any = Annotated[_typed_dict(model), BeforeValidator(_as_fields_of(model))]
    return Annotated[dict[str, Any], _Ready(TypeAdapter(twin).core_schema)]


def _as_fields_of(model: type[BaseModel]) -> Callable[[object], dict[Any, Any]]:
    """Return what a model does with names: either spelling of a field, and none that is None."""
    aliases = {name: field.alias or name for name, field in model.model_fields.items()}
    known = frozenset(aliases.values())

    def normalise(value: object) -> dict[Any, Any]:
        given = as_object(value)
        found = {
            name: each
            for name, each in given.items()
            if aliases.get(name, name) == name and (each is not None or name not in known)
        }
        for name in aliases.keys() & given.keys() - found.keys():
            if given[name] is not None:
                found.setdefault(aliases[name], given[name])
        return found

    return normalise


def _typed_dict(model: type[BaseModel]) -> Any:
    fields: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kind = _twin(field.annotation)
        if field.metadata:
            kind = Annotated[(kind, *field.metadata)]
        kind = _quickly(kind)
        fields[field.alias or name] = kind if field.is_required() else NotRequired[kind]
    return with_config(_CONFIG)(TypedDict(model.__name__, fields))  # type: ignore[operator]


@cache
def _validator(model: type[Call]) -> Callable[[Any], dict[str, Any]]:
    """Return what makes the wire's dict; made once for each type, at import."""
    adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(_typed_dict(model))
    return adapter.validator.validate_python


Model = type[Call]


class CallWire:
    """One call type: its model, and the validator derived from it.

    For fields that a verb has named: none of them can be the server's.
    """

    __slots__ = ("_validate", "model", "type")

    def __init__(self, model: Model) -> None:
        """Take the model."""
        self.model: Model = model
        self.type: str = model.model_fields["type"].default
        self._validate: Callable[[Any], dict[str, Any]] = _validator(model)

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
        try:
            return self.model.model_validate(fields)
        except ValidationError as error:
            raise self.refusal(error) from None

    def refusal(self, error: ValidationError) -> InvalidCall:
        """Say which field is wrong and why, without the value."""
        errors = error.errors(include_url=False, include_input=False)
        # Where there are two ways for a value, the last one says what is wrong.
        first = [each for each in errors if each["loc"] == errors[0]["loc"]][-1]
        if first["type"] == "user":
            return InvalidCall(self.type, "user_id", _NO_USER)
        where = (first["ctx"]["name"],) if first["type"] == "reserved" else first["loc"]
        path = ".".join(str(part) for part in where if part != _EITHER)
        message = first["msg"]
        return InvalidCall(self.type, self._python_name(path), message[:1].lower() + message[1:])

    def _python_name(self, path: str) -> str:
        head, dot, rest = path.partition(".")
        names = {field.alias: name for name, field in self.model.model_fields.items()}
        return f"{names.get(head, head)}{dot}{rest}" or "call"


_NO_USER = "give user_id or anonymous_id: a non-empty string, a UUID or a number but 0"


class AnyCallWire(CallWire):
    """The same for fields of any name: those of a model, or of a call that others made."""

    __slots__ = ()

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the wire's dict, or raise `InvalidCall`, for a field of the server's too."""
        wire = super().validate(fields)
        if not RESERVED.isdisjoint(wire):
            return self.build(wire).wire()  # which refuses it
        return wire


IDENTIFY, TRACK, PAGE, SCREEN, GROUP, ALIAS = map(CallWire, MODELS.values())
"""For the verbs alone."""

WIRES: dict[str, AnyCallWire] = {name: AnyCallWire(model) for name, model in MODELS.items()}
"""Each call's wire by its type."""
