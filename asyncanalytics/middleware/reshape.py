"""Give calls another shape: rename, keep, drop, assign, cast and template.

Each takes paths: see `asyncanalytics.paths`. None of them changes what the caller passed in, and
none fails on any data: where a path leads nowhere, or to what cannot be changed so, all stays as it
is.
"""

from __future__ import annotations

import re
from copy import deepcopy
from math import isfinite
from string import Formatter
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import orjson

from asyncanalytics import paths
from asyncanalytics.errors import ConfigurationError
from asyncanalytics.middleware.base import OnWire, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asyncanalytics.paths import Members, Path

Kind = Literal["text", "int", "float", "bool"]
"""What a value can be cast to."""

_ESSENTIAL: Final = frozenset(
    {
        *("type", "messageId", "timestamp", "originalTimestamp", "integrations"),
        *("userId", "anonymousId", "previousId", "groupId", "event", "name", "category", "section"),
    }
)
_NUMBER: Final = re.compile(r"\s*[+-]?\d+(\.\d*)?([eE][+-]?\d+)?\s*", re.ASCII)
_WHOLE: Final = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
_TRUTHS: Final = {
    **dict.fromkeys(("true", "yes", "on", "1", 1), True),
    **dict.fromkeys(("false", "no", "off", "0", 0), False),
}


class _Steps(OnWire):
    """Changes, one after the other."""

    def __init__(self, steps: Sequence[Callable[[Wire], Wire]]) -> None:
        self._steps = tuple(steps)

    def apply(self, wire: Wire) -> Wire:
        for step in self._steps:
            wire = step(wire)
        return wire


def rename(names: Mapping[str, str]) -> OnWire:
    """Move members to other names: `rename({"properties.total": "properties.revenue"})`.

    What was at the new name is replaced. Within a list, a member is renamed in each item; it moves
    to another parent only where no list is on its way.

    Raises:
        ConfigurationError: if there is no name, or one that is no path.
    """
    pairs = [
        (paths.parse_changeable(old), paths.parse_changeable(new)) for old, new in _some(names)
    ]
    return _Steps([_renamer(old, new) for old, new in pairs])


def _renamer(old: Path, new: Path) -> Callable[[Wire], Wire]:
    first, last = old[-1], new[-1]

    def within(parent: Members) -> Members:
        if first not in parent or first == last:
            return parent
        return {
            last if name == first else name: value for name, value in parent.items() if name != last
        }

    def across(wire: Wire) -> Wire:
        value = paths.get(wire, old)
        if value is paths.MISSING:
            return wire
        rest = paths.without(wire, old)
        moved = paths.put(rest, new, lambda: value)
        return wire if moved is rest else moved  # nowhere to go

    if old[:-1] == new[:-1]:
        return lambda wire: paths.edit(wire, old[:-1], within)
    return across


def keep(*members: str) -> OnWire:
    """Keep the members at these paths, and no others.

    Beside them what makes a call stays: its type, ids, times, `integrations`, and its event, name,
    category and section. All else goes, context and members that are not known included.

    Raises:
        ConfigurationError: if no path is given, or one that is none.
    """
    tree: dict[str, Any] = dict.fromkeys(_ESSENTIAL, _ALL)
    for path in sorted((paths.parse(each) for each in _some_of(members)), key=len):
        _plant(tree, path)
    return _Steps([lambda wire: _pruned(wire, tree)])


_ALL: Final[dict[str, Any]] = {}  # the whole of what is there


def _plant(tree: dict[str, Any], path: Path) -> None:
    for name in path[:-1]:
        if tree.get(name) is _ALL:
            return  # it is kept altogether
        tree = tree.setdefault(name, {})
    tree[path[-1]] = _ALL


def _pruned(value: Any, tree: dict[str, Any]) -> Any:
    """Return what a tree names of a dict, or of each dict in a list."""
    if tree is _ALL:
        return value
    if isinstance(value, dict):
        found = {name: _pruned(value[name], inner) for name, inner in tree.items() if name in value}
        return {name: each for name, each in found.items() if each is not paths.MISSING}
    if isinstance(value, list):
        items = [_pruned(each, tree) for each in value]
        return [each for each in items if each is not paths.MISSING]
    return paths.MISSING


def drop(*members: str) -> OnWire:
    """Take out the members at these paths.

    Raises:
        ConfigurationError: if no path is given, or one that is none.
    """
    found = [paths.parse_changeable(each) for each in _some_of(members)]
    return _Steps([_dropper(path) for path in found])


def _dropper(path: Path) -> Callable[[Wire], Wire]:
    return lambda wire: paths.without(wire, path)


def assign(values: Mapping[str, Any]) -> OnWire:
    """Set members to values, whatever was there: `assign({"context.app.name": "shop"})`.

    Objects that are missing on the way are made.

    Raises:
        ConfigurationError: if no value is given, or a path that is none.
    """
    found = [(paths.parse_changeable(path), deepcopy(value)) for path, value in _some(values)]
    return _Steps([_setter(path, value) for path, value in found])


def _setter(path: Path, value: Any) -> Callable[[Wire], Wire]:
    # A copy for each call: a function further on may change it in place.
    return lambda wire: paths.put(wire, path, lambda: deepcopy(value))


def cast(kinds: Mapping[str, Kind]) -> OnWire:
    """Change the type of values: `cast({"properties.total": "float"})`.

    - `text`: numbers and booleans as JSON writes them.
    - `int`: booleans, numbers and text with a number in it, cut to the whole.
    - `float`: the same, with their fraction.
    - `bool`: 0 and 1, and the texts true, yes, on, 1, false, no, off and 0, in capitals or not.

    What cannot be cast stays as it is, and so does null.

    Raises:
        ConfigurationError: if no path is given, or one that is none, or another kind.
    """
    found = [(paths.parse_changeable(path), kind) for path, kind in _some(kinds)]
    for path, kind in found:
        if kind not in _CASTS:
            known = ", ".join(get_args(Kind))
            raise ConfigurationError(f"{'.'.join(path)}: can be cast to one of {known}")
    return _Steps([_caster(path, _CASTS[kind]) for path, kind in found])


def _caster(path: Path, change: Callable[[Any], Any]) -> Callable[[Wire], Wire]:
    return lambda wire: paths.replace(wire, path, change)


def _as_text(value: Any) -> Any:
    text = paths.text_of(value)
    return value if text is None else text


def _as_int(value: Any) -> Any:
    try:
        if isinstance(value, str) and _WHOLE.fullmatch(value):
            return int(value)
        number = _as_float(value) if isinstance(value, str) else value
        return int(number) if isinstance(number, bool | float) else value
    except (ValueError, OverflowError):  # NaN, infinite, or of too many digits
        return value


def _as_float(value: Any) -> Any:
    if isinstance(value, float) or not (
        isinstance(value, int) or (isinstance(value, str) and _NUMBER.fullmatch(value))
    ):
        return value
    try:
        number = float(value)
    except OverflowError:
        return value
    return number if isfinite(number) else value


def _as_bool(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return value
    return _TRUTHS.get(value.strip().lower() if isinstance(value, str) else value, value)


_CASTS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "text": _as_text,
    "int": _as_int,
    "float": _as_float,
    "bool": _as_bool,
}


def template(texts: Mapping[str, str]) -> OnWire:
    """Set members to texts with values in them: `template({"properties.who": "{userId} by mail"})`.

    In braces stands a path; `{{` and `}}` are braces. Objects and lists are put in as JSON. Where
    one of the values is missing or null, the member stays as it is.

    Raises:
        ConfigurationError: if no text is given, or one that cannot be read, or a path that is none.
    """
    found = [(paths.parse_changeable(path), _Text(text)) for path, text in _some(texts)]
    return _Steps([_filler(path, text) for path, text in found])


def _filler(path: Path, text: _Text) -> Callable[[Wire], Wire]:
    def fill(wire: Wire) -> Wire:
        filled = text.filled(wire)
        return wire if filled is None else paths.put(wire, path, lambda: filled)

    return fill


class _Text:
    """A text with places for values."""

    def __init__(self, text: object) -> None:
        self._parts: list[tuple[str, Path | None]] = []
        try:
            parts = list(Formatter().parse(text)) if isinstance(text, str) else []
        except ValueError:
            parts = []
        if not parts:
            raise ConfigurationError("a template is text with paths in braces, such as {event}")
        for literal, name, form, conversion in parts:
            if form or conversion:
                raise ConfigurationError(
                    f"{name!r}: in the braces of a template stands a path and nothing else"
                )
            self._parts.append((literal, None if name is None else paths.parse(name)))

    def filled(self, wire: Wire) -> str | None:
        found: list[str] = []
        for literal, path in self._parts:
            value = "" if path is None else paths.get(wire, path)
            if value is None or value is paths.MISSING:
                return None
            text = paths.text_of(value)
            found += literal, _json(value) if text is None else text
        return "".join(found)


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:
        return ""


def _some(given: Mapping[str, Any]) -> Sequence[tuple[str, Any]]:
    try:
        pairs = list(dict(given).items())
    except (TypeError, ValueError):
        pairs = []
    if not pairs:
        raise ConfigurationError("give at least one path and what becomes of it, as a mapping")
    return pairs


def _some_of(given: Sequence[str]) -> Sequence[str]:
    if not given:
        raise ConfigurationError("give at least one path, such as properties.total")
    return given
