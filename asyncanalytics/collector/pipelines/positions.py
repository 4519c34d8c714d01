"""Where in a TOML file each of its members stands: `tomllib` reads values, and no positions.

A path is that of the parsed data: names, and numbers in lists. What stands nowhere by itself has
the position of what is around it.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncanalytics.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tree_sitter import Node

Path = tuple[str | int, ...]

_KEYS: Final = ("bare_key", "quoted_key", "dotted_key")


class Position(NamedTuple):
    """A place in a text, counted from 1 in characters."""

    line: int
    column: int


def _parsed(content: bytes) -> Node:
    try:
        import tree_sitter_toml
        from tree_sitter import Language, Parser
    except ImportError:
        raise MissingExtra("a configuration in TOML", "router") from None
    return Parser(Language(tree_sitter_toml.language())).parse(content).root_node


class Positions:
    """The positions of all members of one text, which must be valid TOML."""

    def __init__(self, text: str) -> None:
        """Read the text."""
        self._content = text.encode()
        self._lines = self._content.split(b"\n")
        self._found: dict[Path, Position] = {}
        self._last: dict[Path, int] = {}  # of an array of tables, the one that is being filled
        for node in _parsed(self._content).named_children:
            self._statement(node)

    def of(self, path: Sequence[str | int]) -> Position | None:
        """Return where a member begins, or the nearest that there is around it."""
        for end in range(len(path), 0, -1):
            found = self._found.get(tuple(path[:end]))
            if found is not None:
                return found
        return None

    # ------------------------------------------------------------------------------------- within

    def _statement(self, node: Node) -> None:
        if node.type == "pair":
            self._pair((), node)
            return
        if node.type not in {"table", "table_array_element"}:
            return  # a comment
        key, *members = node.named_children
        path = self._put((), self._names(key), key)
        if node.type == "table_array_element":
            number = self._last[path] = self._last.get(path, -1) + 1
            path = (*path, number)
            self._found[path] = self._position(key)
        for each in members:
            if each.type == "pair":
                self._pair(path, each)

    def _pair(self, path: Path, node: Node) -> None:
        key, value = [each for each in node.named_children if each.type != "comment"][:2]
        self._value(self._put(path, self._names(key), key), value)

    def _value(self, path: Path, node: Node) -> None:
        inner = [each for each in node.named_children if each.type != "comment"]
        if node.type == "inline_table":
            for each in inner:
                self._pair(path, each)
        elif node.type == "array":
            for number, each in enumerate(inner):
                self._found[*path, number] = self._position(each)
                self._value((*path, number), each)

    def _put(self, path: Path, names: Sequence[str], node: Node) -> Path:
        """Note where a key stands, and return its path: into the last table of each array."""
        for place, name in enumerate(names):
            if path in self._last:
                path = (*path, self._last[path])
            path = (*path, name)
            is_whole = place == len(names) - 1 and path not in self._last
            if path not in self._found or is_whole:
                self._found[path] = self._position(node)
        return path

    def _names(self, key: Node) -> list[str]:
        if key.type == "dotted_key":
            return [name for each in key.named_children for name in self._names(each)]
        text = self._content[key.start_byte : key.end_byte].decode()
        return list(tomllib.loads(f"{text} = 0")) if key.type == "quoted_key" else [text]

    def _position(self, node: Node) -> Position:
        row, column = node.start_point
        return Position(row + 1, len(self._lines[row][:column].decode()) + 1)
