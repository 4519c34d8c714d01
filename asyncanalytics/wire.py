"""The hot path's twin of `calls.py`: from a call's fields straight to the dict that goes out.

For each model a TypedDict with the same fields under their wire names is derived, and pydantic
validates into that: the result is the wire's own dict, with no model built or dumped on the way.
Both ways come from one definition, so they agree; a test holds them side by side.
"""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, NotRequired, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    with_config,
)
from pydantic_core import CoreSchema
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from asyncanalytics.calls import MODELS, RESERVED, Call, as_object
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
        fields[field.alias or name] = kind if field.is_required() else NotRequired[kind]
    return with_config(_CONFIG)(TypedDict(model.__name__, fields))  # type: ignore[operator]


Model = type[Call]


class CallWire:
    """One call type: its model, and the validator derived from it."""

    __slots__ = ("_validate", "model", "type")

    def __init__(self, model: Model) -> None:
        """Derive the validator. Done once for each type, at import."""
        self.model: Model = model
        self.type: str = model.model_fields["type"].default
        adapter: TypeAdapter[dict[str, Any]] = TypeAdapter(_typed_dict(model))
        self._validate: Callable[[Any], dict[str, Any]] = adapter.validator.validate_python

    def validate(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the wire's dict for fields under their wire names, or raise `InvalidCall`."""
        try:
            wire = self._validate(fields)
        except ValidationError as error:
            raise self.refusal(error) from None
        if "userId" not in wire and "anonymousId" not in wire:
            raise InvalidCall(self.type, "user_id", _NO_USER)
        if not RESERVED.isdisjoint(wire):
            return self.build(wire).wire()  # which refuses it
        return wire

    def build(self, fields: dict[str, Any]) -> Call:
        """Return the model for the same fields, or raise the same `InvalidCall`."""
        try:
            return self.model.model_validate(fields)
        except ValidationError as error:
            raise self.refusal(error) from None

    def refusal(self, error: ValidationError) -> InvalidCall:
        """Say which field is wrong and why, without the value."""
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "user":
            return InvalidCall(self.type, "user_id", _NO_USER)
        where = (first["ctx"]["name"],) if first["type"] == "reserved" else first["loc"]
        path = ".".join(str(part) for part in where)
        message = first["msg"]
        return InvalidCall(self.type, self._python_name(path), message[:1].lower() + message[1:])

    def _python_name(self, path: str) -> str:
        head, dot, rest = path.partition(".")
        names = {field.alias: name for name, field in self.model.model_fields.items()}
        return f"{names.get(head, head)}{dot}{rest}" or "call"


_NO_USER = "give user_id or anonymous_id: a non-empty string, a UUID or a number but 0"

WIRES: dict[str, CallWire] = {name: CallWire(model) for name, model in MODELS.items()}
"""Each call's wire by its type."""

IDENTIFY, TRACK, PAGE, SCREEN, GROUP, ALIAS = WIRES.values()
