"""A JSON value as a tree to be folded, bounded in depth, breadth and length.

What is left out is said where it would be. Nothing here waits or raises on any JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

_MAX_NODES: Final = 2_000
_MAX_DEPTH: Final = 24
_MAX_TEXT: Final = 2_000
_FEW: Final = 4
_OF_THE_SDK: Final = ("context", "integrations")


@dataclass(slots=True)
class Node:
    """One value: a fold where it has children, else a leaf."""

    key: str | None
    """Its name in an object, or its number in an array."""
    kind: str
    """The JSON type, or `cut` for what says that something is left out."""
    text: str
    """A leaf's JSON; of a fold, how many children it has."""
    children: list[Node] = field(default_factory=list)
    open: bool = False


def tree(value: Any) -> Node:
    """Make the tree of a value."""
    return _Planter().plant(None, value, 0)


class _Planter:
    def __init__(self) -> None:
        self._left = _MAX_NODES

    def plant(self, key: str | None, value: Any, depth: int) -> Node:
        self._left -= 1
        if isinstance(value, dict | list):
            return self._fold(key, value, depth)
        kind = _kind(value)
        return Node(key, kind, _text(value))

    def _fold(self, key: str | None, value: dict[str, Any] | list[Any], depth: int) -> Node:
        is_object = isinstance(value, dict)
        kind, brackets = ("object", "{}") if is_object else ("array", "[]")
        if not value:
            return Node(key, kind, brackets)
        fold = Node(key, kind, f"{brackets[0]}{len(value):,}{brackets[1]}")
        fold.open = _is_open(key, len(value), depth)
        items = value.items() if isinstance(value, dict) else enumerate(value)
        if depth == _MAX_DEPTH:
            fold.children.append(Node(None, "cut", "nested deeper: see the text"))
            return fold
        for place, (name, each) in enumerate(items):
            if self._left <= 0:
                more = f"{len(value) - place:,} more: see the text"
                fold.children.append(Node(None, "cut", more))
                break
            fold.children.append(self.plant(str(name), each, depth + 1))
        return fold


def _is_open(key: str | None, size: int, depth: int) -> bool:
    """Open what the caller said, and leave shut what the SDK adds and what is long."""
    if depth == 1:
        return key not in _OF_THE_SDK
    return depth == 0 or size <= _FEW


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def _text(value: Any) -> str:
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        more = len(value) - _MAX_TEXT
        return f"{_text(value[:_MAX_TEXT])} and {more:,} more characters"
    return json.dumps(value, ensure_ascii=False)
