"""A step of a transformation, as a table says it, and the middleware that it becomes."""

import importlib
import json
from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, SecretStr, model_validator

from asyncanalytics.collector.pipelines.pointing import wrong
from asyncanalytics.errors import describe
from asyncanalytics.middleware import (
    Middleware,
    assign,
    cast,
    drop,
    keep,
    pseudonymise,
    rename,
    template,
)
from asyncanalytics.middleware.reshape import Kind
from asyncanalytics.secret import Secret


class Strict(BaseModel):
    """A table: names that it does not know are refused, and errors show no values."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", hide_input_in_errors=True, frozen=True
    )


def function(text: str) -> Middleware:
    """Return the function that a text such as `shop.rules:clean` names; ValueError if none."""
    module, colon, name = text.partition(":")
    if not (module and colon and name):
        raise ValueError("a function is named as module:function")
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the module is the user's code
        missing = getattr(error, "name", None) if isinstance(error, ImportError) else None
        why = f"there is no module {missing}" if missing else describe(error)
        raise ValueError(f"{module} cannot be imported: {why}") from None
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError("the module has no function of that name")  # noqa: TRY004 - pydantic takes no other
    if iscoroutinefunction(found):
        raise ValueError("the function is async, and must not wait: write it with a plain def")
    made: Middleware = found
    return made


def _of_json(values: dict[str, Any]) -> dict[str, Any]:
    """Return values that JSON has; ValueError if one would become something else on the way."""
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError(
            "JSON has no such value: write dates and times as text, and no nan or inf"
        ) from None
    return values


_MAKERS: Final[dict[str, Callable[[Any], Middleware]]] = {
    "rename": rename,
    "keep": lambda paths: keep(*paths),
    "drop": lambda paths: drop(*paths),
    "set": lambda values: assign(_of_json(values)),
    "hash": lambda paths: pseudonymise(*paths, key=bytes(16)),  # to check the paths
    "cast": cast,
    "template": template,
    "function": function,
}


def _tried(name: str) -> AfterValidator:
    """Have a value checked by what will use it."""

    def check(value: Any) -> Any:
        _MAKERS[name](value)
        return value

    return AfterValidator(check)


def _hash_key(key: SecretStr) -> SecretStr:
    pseudonymise("userId", key=Secret(key.get_secret_value()))
    return key


class Transform(Strict):
    """One step, which is one of these."""

    rename: Annotated[dict[str, str] | None, _tried("rename")] = None
    keep: Annotated[list[str] | None, _tried("keep")] = None
    drop: Annotated[list[str] | None, _tried("drop")] = None
    set: Annotated[dict[str, Any] | None, _tried("set")] = None
    hash: Annotated[list[str] | None, _tried("hash")] = None
    hash_key: Annotated[SecretStr, AfterValidator(_hash_key)] | None = None
    cast: Annotated[dict[str, Kind] | None, _tried("cast")] = None
    template: Annotated[dict[str, str] | None, _tried("template")] = None
    function: Annotated[str | None, _tried("function")] = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        steps = self.model_fields_set - {"hash_key"}
        if len(steps) != 1:
            raise ValueError(f"a step is one of {', '.join(_MAKERS)}; each has a header of its own")
        if ("hash" in steps) != (self.hash_key is not None):
            raise wrong("hash_key", "hash and hash_key go together: the key is at least 16 bytes")
        return self

    def middleware(self) -> Middleware:
        """Return what does it."""
        (name,) = self.model_fields_set - {"hash_key"}
        value = getattr(self, name)
        if self.hash_key is not None:
            return pseudonymise(*value, key=Secret(self.hash_key.get_secret_value()))
        return _MAKERS[name](value)
