"""One stored event as the pages show it: what it is called, whose it is, what it says.

Everything here is text, and is escaped where it is put into a page.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from asyncanalytics.collector.reading import parse, utf8_text
from asyncanalytics.collector.schema import PLACE_BITS
from asyncanalytics.collector.store import RefusedRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asyncanalytics.collector.store import Found

_MAX_READ: Final = 64 * 1024
"""Bytes of a payload that is read only to be shown in a row: a bad one may have half a megabyte."""
_MAX_MEMBERS: Final = 8
_MAX_VALUE: Final = 40
_MAX_TITLE: Final = 200
_MAX_GROWTH: Final = 8
_MAX_TEXT: Final = 256 * 1024
"""Characters of an event's JSON that its page has; the rest is in the collector's own JSON."""


@dataclass(frozen=True)
class Row:
    """One event. What costs more than a look at its columns is made when it is asked for."""

    found: Found

    def __getattr__(self, name: str) -> Any:
        """Give a column of the store's."""
        try:
            return self.found.columns[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def position(self) -> int:
        """Its place in the order of all."""
        return self.found.position

    @property
    def place(self) -> int:
        """Its place in its request, from 1."""
        return (self.position & ((1 << PLACE_BITS) - 1)) + 1

    @property
    def size(self) -> int:
        """Bytes of its JSON."""
        return len(self.found.payload)

    @property
    def user(self) -> str | None:
        """Whoever it is about."""
        columns = self.found.columns
        return columns["user_id"] or columns["anonymous_id"] or None

    @cached_property
    def payload(self) -> dict[str, Any]:
        """The event as it was sent."""
        value: dict[str, Any] = parse(self.found.payload).value
        return value

    @property
    def title(self) -> str:
        """What stands for it in a list."""
        return self._glance[0]

    @property
    def preview(self) -> str:
        """The beginning of what the caller said, in one line."""
        return self._glance[1]

    @cached_property
    def _glance(self) -> tuple[str, str]:
        # The payload is not kept: a hundred large ones would keep the garbage collector busy.
        said = parse(self.found.payload).value if self.size <= _MAX_READ else {}
        parts = (said.get(each) for each in ("properties", "traits"))
        preview = "  ".join(members(each) for each in parts if isinstance(each, dict))
        return self._title(said), preview

    def _title(self, said: Mapping[str, Any]) -> str:
        if self.type == "alias":
            return f"{_brief(said.get('previousId'))} → {self.user_id}"[:_MAX_TITLE]
        if self.name:
            return str(self.name)[:_MAX_TITLE]
        traits = said.get("traits")
        known = [traits.get(each) for each in ("name", "email")] if isinstance(traits, dict) else []
        return next((_brief(each) for each in known if each), "(no name)")

    @cached_property
    def text(self) -> str:
        """Its JSON, to be copied; of a very long one the beginning."""
        most = min(_MAX_GROWTH * self.size, _MAX_TEXT)
        return _indented(self.payload, most) or utf8_text(self.found.payload.decode())[:_MAX_TEXT]

    @property
    def is_cut(self) -> bool:
        """Whether the text is only the beginning."""
        return len(self.found.payload) > _MAX_TEXT


AnyRow = Row | RefusedRequest


def newest_first(events: Iterable[Found], refused: Iterable[RefusedRequest] = ()) -> list[AnyRow]:
    """Make rows of both, in the order in which they came, the other way round."""
    rows: list[AnyRow] = [*map(Row, events), *refused]
    return sorted(rows, key=lambda each: each.position, reverse=True)


def made_in(seconds: float, rows: list[AnyRow]) -> list[AnyRow]:
    """Read the events of rows, and return the first rows for which there was time: one at least.

    Where JSON of many small lists is large, reading a hundred takes longer than finding them.
    """
    end = perf_counter() + seconds
    for count, row in enumerate(rows, 1):
        if isinstance(row, Row):
            _ = row.preview
        if perf_counter() >= end:
            return rows[:count]
    return rows


def _indented(value: Any, most: int) -> str | None:
    """Write JSON for people; None where it is so deep that it would be mostly blanks."""
    parts, size = [], 0
    for part in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(value):
        parts.append(part)
        size += len(part)
        if size > most:
            return None
    return "".join(parts)


def members(said: Mapping[str, Any]) -> str:
    """Return the first of some members in one line."""
    shown = islice(said.items(), _MAX_MEMBERS)
    return "  ".join(f"{_brief(name)}={_brief(value)}" for name, value in shown)


def _brief(value: Any) -> str:
    if isinstance(value, dict | list):
        left, right = "{}" if isinstance(value, dict) else "[]"
        return f"{left}{len(value):,}{right}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]}…"
