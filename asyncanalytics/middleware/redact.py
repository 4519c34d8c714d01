"""Take what must not leave out of calls, wherever it is in them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from asyncanalytics.calls import Context
from asyncanalytics.encoding import convert
from asyncanalytics.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncanalytics.calls import Call
    from asyncanalytics.middleware.base import Middleware


def redact(*names: str, replacement: str = "[redacted]") -> Middleware:
    """Replace the values of members by their names, in properties, traits and context.

    A name is looked for at every depth, in lists, models and dataclasses too, and case counts.
    One with dots is the end of a path: `card.number` is the number of any card, and no other.
    Names are those on the wire, such as `userAgent`. What the caller passed in is not changed.

    A context's field that takes no text, such as a screen's width, is left out instead.

    Raises:
        ConfigurationError: if no name is given, or an empty one.
    """
    if not names or not all(names):
        raise ConfigurationError("redact: name at least one member, such as redact('email')")
    cut = _Redaction(tuple(f".{name}" for name in names), replacement)

    def apply(call: Call) -> Call:
        found: dict[str, Any] = {}
        for part in ("properties", "traits"):
            given = getattr(call, part, None)
            if given is not None and (clean := cut.of(given, "")) is not given:
                found[part] = clean
        if call.context is not None:
            given = call.context.wire()
            if (clean := cut.of(given, "")) is not given:
                found["context"] = _context(clean)
        return call.model_copy(update=found) if found else call

    return apply


class _Redaction:
    """Walks data, and copies what it must change; the rest is handed on as it is."""

    def __init__(self, ends: tuple[str, ...], replacement: str) -> None:
        self._ends = ends
        self._replacement = replacement

    def of(self, value: Any, path: str) -> Any:
        inner = _opened(value)
        if isinstance(inner, dict):
            clean = {
                name: self._member(each, f"{path}.{_wire_name(name)}")
                for name, each in inner.items()
            }
            same = all(each is inner[name] for name, each in clean.items())
            return value if same else clean
        if isinstance(inner, list):
            items = [self.of(each, path) for each in inner]
            same = all(new is old for new, old in zip(items, inner, strict=True))
            return value if same else items
        return value

    def _member(self, value: Any, path: str) -> Any:
        return self._replacement if path.endswith(self._ends) else self.of(value, path)


def _wire_name(name: object) -> object:
    return name.value if isinstance(name, Enum) else name


def _opened(value: Any) -> Any:
    """Return a container's contents as the dict or list that is sent for it."""
    if value is None or isinstance(value, (str, int, float, dict, list)):
        return value
    if isinstance(value, tuple):
        return list(value)
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value) if not field.name.startswith("_")]
        return {name: getattr(value, name) for name in names}
    try:
        return convert(value)
    except TypeError:  # nothing that holds others; whether it can be sent is seen when it is
        return value


def _context(clean: Mapping[str, Any]) -> Context:
    """Make a context, without the fields that cannot hold a text."""
    members = dict(clean)
    while True:
        try:
            return Context.model_validate(members)
        except ValidationError as error:
            for problem in error.errors(include_url=False, include_input=False):
                members = _without(members, problem["loc"])


def _without(members: Mapping[str, Any], path: tuple[int | str, ...]) -> dict[str, Any]:
    name, rest = path[0], path[1:]
    inner = members.get(str(name))
    if rest and isinstance(inner, dict):
        return {**members, str(name): _without(inner, rest)}
    return {key: value for key, value in members.items() if key != name}
