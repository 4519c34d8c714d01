r"""Paths to members of a call, and changes along them that leave what was there as it was.

A path is names as they are on the wire, with dots between them: `properties.total`. A dot within a
name has a backslash before it: `properties.a\.b`. Where a list is on the way, the path goes into
each of its items.

- Nothing is changed in place: what changes is copied, the rest is shared.
- Any data can be gone through: a path that leads nowhere changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from pydantic.alias_generators import to_camel

from asyncanalytics.errors import ConfigurationError
from asyncanalytics.wire import FIELDS

Path = tuple[str, ...]
Members = dict[str, Any]
Change = Callable[[Members], Members]
"""From a dict to another one, or to itself where there is nothing to change."""

MISSING: Final = object()

_NAMES: Final = re.compile(r"(?:[^.\\]|\\.)+", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_FIXED: Final = ("type", "messageId")
_WIRE_NAMES: Final = {
    name: to_camel(name) for fields in FIELDS.values() for name in fields if to_camel(name) != name
}


def parse(text: object) -> Path:
    """Read a path; ConfigurationError for text that is none."""
    if not isinstance(text, str) or not text:
        raise ConfigurationError("a path is text such as properties.total")
    names = tuple(_ESCAPED.sub(r"\1", each) for each in _NAMES.findall(text))
    if ".".join(_NAMES.findall(text)) != text:
        raise ConfigurationError(f"{text!r} is no path: each name between two dots needs a letter")
    if names[0] in _WIRE_NAMES:
        raise ConfigurationError(f"{text!r}: write {_WIRE_NAMES[names[0]]}, as it is on the wire")
    return names


def parse_changeable(text: object) -> Path:
    """Read a path to what may be changed: a call's type and its id stay as they are."""
    path = parse(text)
    if path[0] in _FIXED:
        raise ConfigurationError(f"{path[0]} cannot be changed: it is how a call is known")
    return path


def get(members: Members, path: Path) -> Any:
    """Return what a path leads to without going through a list; `MISSING` if there is nothing."""
    found: Any = members
    for name in path:
        if not isinstance(found, dict) or name not in found:
            return MISSING
        found = found[name]
    return found


def edit(members: Members, path: Path, change: Change, *, create: bool = False) -> Members:
    """Return the members with a change made to each dict that a path leads to.

    With `create` dicts are made where nothing, or null, is on the way.
    """
    edited: Members = _edited(members, path, change, create=create)
    return edited


def _edited(value: Any, path: Path, change: Change, *, create: bool) -> Any:
    if isinstance(value, list):
        items = [_edited(each, path, change, create=create) for each in value]
        return items if any(map(_differs, items, value)) else value
    if not isinstance(value, dict):
        return value
    if not path:
        return change(value)
    inner = value.get(path[0])
    if inner is None:
        if not create:
            return value
        inner = {}
    new = _edited(inner, path[1:], change, create=create)
    return value if new is value.get(path[0]) else {**value, path[0]: new}


def _differs(new: object, old: object) -> bool:
    return new is not old


def replace(members: Members, path: Path, new: Callable[[Any], Any]) -> Members:
    """Return the members with each value at a path replaced by what is made of it."""
    name = path[-1]

    def change(parent: Members) -> Members:
        if name not in parent:
            return parent
        made = new(parent[name])
        return parent if made is parent[name] else {**parent, name: made}

    return edit(members, path[:-1], change)


def put(members: Members, path: Path, value: Callable[[], Any]) -> Members:
    """Return the members with a value at a path, whatever was there."""
    name = path[-1]
    return edit(members, path[:-1], lambda parent: {**parent, name: value()}, create=True)


def without(members: Members, path: Path) -> Members:
    """Return the members without what is at a path."""
    name = path[-1]

    def change(parent: Members) -> Members:
        if name not in parent:
            return parent
        return {each: value for each, value in parent.items() if each != name}

    return edit(members, path[:-1], change)


def text_of(value: Any) -> str | None:
    """Return a text, a number or a boolean as the text that JSON has for it; None for others."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        return str(value) if isinstance(value, int | float) else None
    except ValueError:  # an integer of too many digits
        return None
