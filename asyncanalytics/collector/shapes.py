"""The form of one kind of event: which fields, of which types, how often.

It is a tree of the fields that were seen. Neither deep nor large events are a danger: nothing
recurses, an event larger than an event may be is only counted, and the tree has its limit.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asyncanalytics.collector.judge import MAX_EVENT_BYTES
from asyncanalytics.collector.learning import Learner
from asyncanalytics.collector.reading import parse, utf8_text
from asyncanalytics.collector.search import storable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asyncanalytics.collector.records import Filter
    from asyncanalytics.collector.store import Store

MAX_FIELDS: Final = 1_000
"""Fields that one kind of event is shown to have."""
_EXAMPLES: Final = 3
_LONGEST_EXAMPLE: Final = 60  # characters
_PLAIN_NAME: Final = re.compile(r"[\w$-]+")
_TYPES: Final[Mapping[type, str]] = {
    type(None): "null",
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldSeen:
    """One field of one kind of event."""

    path: str
    """From the event down: `properties.items[].sku`; `[]` stands for each element of a list."""
    types: Mapping[str, int]
    """JSON types (`null`, `boolean`, `number`, `string`, `array`, `object`), with how many events
    have a value of this type there; the most frequent first."""
    count: int
    """How many events have the field, be it null."""
    share: float
    """The same as a part of the events that were read."""
    examples: tuple[str, ...]
    """Up to three different values as JSON, shortened; none for lists and objects."""
    changed: bool
    """Whether it has had values of different types, null aside."""
    changed_at: str | None
    """When the second type was first received."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EventSchema:
    """The form of one kind of event, as far as it can be told from what was sent."""

    type: str | None
    name: str | None
    seen: int
    """How many events there are of this kind, good and bad."""
    unread: int
    """How many of them were not read, because they are larger than an event may be."""
    fields: tuple[FieldSeen, ...]
    """In the order of their paths."""
    more: bool
    """Whether there are more fields than are shown: then some have names made of data."""


class _Field:
    """One field, and those within it."""

    __slots__ = ("changed_at", "count", "elements", "examples", "fields", "last", "types")

    def __init__(self) -> None:
        self.count = 0
        self.last = 0  # the number of the event that was counted last
        self.types: dict[str, list[int]] = {}  # how many events, and the last one's number
        self.changed_at: str | None = None
        self.examples: list[str] = []
        self.fields: dict[str, _Field] = {}
        self.elements: _Field | None = None

    def meet(self, kind: str, number: int) -> bool:
        """Count a value of an event; tell whether it is the first of a second type."""
        if self.last != number:
            self.last = number
            self.count += 1
        seen = self.types.get(kind)
        if seen is None:
            self.types[kind] = [1, number]
            return kind != "null" and len(self.types.keys() - {"null"}) == 2
        if seen[1] != number:
            seen[:] = seen[0] + 1, number
        return False

    def show(self, value: Any) -> None:
        """Take a value as an example, while there is room."""
        if len(self.examples) < _EXAMPLES and (text := _example(value)) not in self.examples:
            self.examples.append(text)


def _example(value: Any) -> str:
    if isinstance(value, str) and len(value) > _LONGEST_EXAMPLE:
        value = value[: _LONGEST_EXAMPLE - 1] + "…"
    text = utf8_text(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 2 * _LONGEST_EXAMPLE else text[: 2 * _LONGEST_EXAMPLE - 1] + "…"


class Shape(Learner):
    """Learns the form of one kind of event."""

    def __init__(self, store: Store, kind: str | None, name: str | None) -> None:
        """Learn from the events of this type and this name; None is a kind of its own."""
        super().__init__(store)
        self._kind = storable(kind)
        self._name = storable(name)
        self.forget()

    def forget(self) -> None:
        """Know nothing."""
        self._root = _Field()
        self._read = self._unread = self._fields = 0
        self._more = False

    def learn(self, stretch: Filter) -> None:
        """Read the events of one stretch."""
        rows = self.store.select(
            f"position, iif(length(payload) > {MAX_EVENT_BYTES}, NULL, payload)",
            stretch,
            also="type IS ? AND name IS ?",
            values=(self._kind, self._name),
            rest="ORDER BY position",
        )
        for position, payload in rows:
            if payload is None:
                self._unread += 1
            else:
                self._read += 1
                self._walk(parse(payload).value, position)

    def _walk(self, event: Any, position: int) -> None:
        number, waiting = self._read, [(self._root, event)]
        while waiting:
            field, value = waiting.pop()
            kind = _TYPES[type(value)]
            if field.meet(kind, number):
                field.changed_at = self.store.received_at(position)
            if kind == "object":
                for name, inner in value.items():
                    child = field.fields.get(name) or self._new_field(field, name)
                    if child is not None:
                        waiting.append((child, inner))
            elif kind == "array":
                if value and (elements := field.elements or self._new_elements(field)):
                    waiting += [(elements, each) for each in value]
            elif len(field.examples) < _EXAMPLES:
                field.show(value)

    def _new_field(self, field: _Field, name: str) -> _Field | None:
        child = self._new()
        if child is not None:
            field.fields[name] = child
        return child

    def _new_elements(self, field: _Field) -> _Field | None:
        field.elements = self._new()
        return field.elements

    def _new(self) -> _Field | None:
        if self._fields == MAX_FIELDS:
            self._more = True
            return None
        self._fields += 1
        return _Field()

    def schema(self) -> EventSchema | None:
        """Return what was learned; None where there was nothing to learn from."""
        if not self._read + self._unread:
            return None
        return EventSchema(
            type=self._kind,
            name=self._name,
            seen=self._read + self._unread,
            unread=self._unread,
            fields=tuple(_seen(path, field, self._read) for path, field in _tree(self._root)),
            more=self._more,
        )


def _tree(root: _Field) -> Iterator[tuple[str, _Field]]:
    waiting = [("", root)]
    while waiting:
        path, field = waiting.pop()
        if path:
            yield path, field
        inner = [(_joined(path, name), each) for name, each in sorted(field.fields.items())]
        if field.elements is not None:
            inner.append((f"{path}[]", field.elements))
        waiting += reversed(inner)


def _joined(path: str, name: str) -> str:
    text = name if _PLAIN_NAME.fullmatch(name) else utf8_text(json.dumps(name, ensure_ascii=False))
    return f"{path}.{text}" if path else text


def _seen(path: str, field: _Field, read: int) -> FieldSeen:
    types = sorted(((kind, count) for kind, (count, _) in field.types.items()), key=_by_count)
    return FieldSeen(
        path=path,
        types=dict(types),
        count=field.count,
        share=field.count / read,
        examples=tuple(field.examples),
        changed=field.changed_at is not None,
        changed_at=field.changed_at,
    )


def _by_count(each: tuple[str, int]) -> tuple[int, str]:
    return -each[1], each[0]
