"""The form of one kind of event: which fields, of which types, how often.

It is a tree of the fields that were seen. Neither deep nor large events are a danger: nothing
recurses, an event larger than an event may be is only counted, and the tree has its limit.
"""

from __future__ import annotations

import json
import re
from collections import deque
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
_AT_ONCE: Final = 256  # events that are read before the loop runs
_EXAMPLES: Final = 3
_LONGEST_EXAMPLE: Final = 60  # characters
_PLAIN_NAME: Final = re.compile(r"[\w$-]+")
_HOLDING: Final = frozenset({"array", "object"})
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

    __slots__ = (
        *("changed_at", "count", "elements", "examples", "fields", "last", "last_of", "types"),
    )

    def __init__(self, *, many: bool) -> None:
        """Begin with nothing; `many`: one event may have many values of it, being in a list."""
        self.count = 0
        self.types: dict[str, int] = {}
        self.last = 0  # the number of the event that was counted last
        self.last_of: dict[str, int] | None = {} if many else None  # the same for each type
        self.changed_at: str | None = None
        self.examples: list[Any] = []
        self.fields: dict[str, _Field] = {}
        self.elements: _Field | None = None

    def meet(self, kind: str, number: int) -> bool:
        """Count an event that has a value of a type; tell whether the type is new here."""
        if self.last_of is not None and self.last_of.get(kind) == number:
            return False
        if self.last_of is not None:
            self.last_of[kind] = number
        if self.last != number:
            self.last = number
            self.count += 1
        count = self.types.get(kind, 0)
        self.types[kind] = count + 1
        return not count

    def show(self, value: Any) -> None:
        """Take a value as an example, unless it is one already."""
        if isinstance(value, str) and len(value) > _LONGEST_EXAMPLE:
            value = value[: _LONGEST_EXAMPLE - 1] + "…"
        if value not in self.examples:
            self.examples.append(value)

    def grow(self, name: str | None) -> _Field:
        """Add a field within it; None is the elements of a list."""
        child = _Field(many=name is None or self.last_of is not None)
        if name is None:
            self.elements = child
        else:
            self.fields[name] = child
        return child


def _example(value: Any) -> str:
    text = utf8_text(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 2 * _LONGEST_EXAMPLE else text[: 2 * _LONGEST_EXAMPLE - 1] + "…"


class Shape(Learner):
    """Learns the form of one kind of event."""

    def __init__(self, store: Store, kind: str | None, name: str | None) -> None:
        """Learn from the events of this type and this name; None is a kind of its own."""
        super().__init__(store, most=_AT_ONCE)
        self._kind = storable(kind)
        self._name = storable(name)
        self.forget()

    def forget(self) -> None:
        """Know nothing."""
        self._root = _Field(many=False)
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
        number, waiting = self._read, deque([(self._root, event)])
        while waiting:
            field, value = waiting.popleft()
            for child, inner in self._within(field, value):
                kind = _TYPES[type(inner)]
                if child.meet(kind, number):
                    self._note_change(child, position)
                if kind in _HOLDING:
                    waiting.append((child, inner))
                elif len(child.examples) < _EXAMPLES:
                    child.show(inner)

    def _within(self, field: _Field, value: Any) -> Iterator[tuple[_Field, Any]]:
        """Yield what an object or a list holds, each with its field, as long as there is room."""
        if isinstance(value, list):
            elements = field.elements or (self._new_field(field, None) if value else None)
            if elements is not None:
                yield from ((elements, each) for each in value)
            return
        for name, inner in value.items():
            child = field.fields.get(name) or self._new_field(field, name)
            if child is not None:
                yield child, inner

    def _new_field(self, field: _Field, name: str | None) -> _Field | None:
        if self._fields == MAX_FIELDS:
            self._more = True
            return None
        self._fields += 1
        return field.grow(name)

    def _note_change(self, field: _Field, position: int) -> None:
        if field.changed_at is None and len(field.types.keys() - {"null"}) > 1:
            field.changed_at = self.store.received_at(position)

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
    types = sorted(field.types.items(), key=lambda each: (-each[1], each[0]))
    return FieldSeen(
        path=path,
        types=dict(types),
        count=field.count,
        share=field.count / read,
        examples=tuple(_example(each) for each in field.examples),
        changed=field.changed_at is not None,
        changed_at=field.changed_at,
    )
