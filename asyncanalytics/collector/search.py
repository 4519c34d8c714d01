"""Finding events among many, in stretches: a bounded number of positions at a time.

A filter that few events fulfil would else hold the loop while all of them are looked at. So one
statement reads so many positions only, and how many is learned from how long the last one took.
What was learned says little of events that are far larger than those before: where payloads are
read, a stretch has a bounded number of their bytes as well, or is one event. Nor does any text
cost more than a bounded time for each byte.
No index is needed, not even of the messageIds: a stretch of thousands costs milliseconds, and an
index would cost every event on its way in.
"""
# ruff: noqa: S608 - what is put into statements here are constants; values are bound

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, Final, Self

import orjson

from asyncanalytics.collector.reading import utf8_text
from asyncanalytics.collector.schema import PLACE_BITS

if TYPE_CHECKING:
    import sqlite3

    from asyncanalytics.collector.records import Filter

_STEP: Final = 0.006  # seconds that one stretch should take
MOST: Final = 8_192
"""Positions in a stretch at most, unless told otherwise."""
_FEWEST, _FIRST = 32, 256
_MOST_BYTES: Final = 512 * 1024  # of payloads that a stretch looks into
_LONGEST_LIKE: Final = 16  # characters
_LIKE: Final = "CAST(payload AS TEXT) LIKE ? ESCAPE '\\'"  # some builds let LIKE fit no BLOB
# Of ASCII, without the letters that others are folded to as well, such as `ß` to `ss`.
_PLAIN: Final = re.compile(r"[\x01-`bcdegmopqruvxz{-\x7f]+")
_HOLDS: Final = "holds(payload, ?)"
_BEYOND: Final = (1 << 63) - 1
_BETWEEN: Final = "events WHERE position > ? AND position < ?"

_CONDITIONS: Final = {
    "type": "type = ?",
    "event": "event = ?",
    "name": "name = ?",
    "user": "? IN (user_id, anonymous_id)",
    "users": "EXISTS (SELECT 1 FROM temp.ids WHERE list = ? AND id IN (user_id, anonymous_id))",
    "user_id": "user_id = ?",
    "anonymous_id": "anonymous_id = ?",
    "message_id": "message_id = ?",
    "verdict": "verdict = ?",
    "since": (f"(SELECT received_at FROM requests WHERE number = position >> {PLACE_BITS}) >= ?"),
    "after": "position > ?",
    "before": "position < ?",
}
_LISTS: Final = (
    "CREATE TEMP TABLE ids (list INTEGER, id TEXT, PRIMARY KEY (list, id)) WITHOUT ROWID"
)


def condition(where: Filter) -> tuple[str, list[Any]]:
    """Write a filter as an SQL expression over `events`, and the values that it needs."""
    parts, values = [], []
    for name, sql in _CONDITIONS.items():
        value = getattr(where, name)
        if value is not None:
            parts.append(sql)
            values.append(storable(value))
    if where.text:
        sql, needles = _holds(where.text)
        parts.append(sql)
        values += needles
    return " AND ".join(parts) or "1", values


def _holds(text: str) -> tuple[str, list[Any]]:
    """Look for the text as it is and as JSON writes it within a string."""
    plain = utf8_text(text)
    needles = {orjson.dumps(plain)[1:-1].decode(), json.dumps(text)[1:-1]}
    if "\0" not in plain:  # JSON never holds one, and LIKE would look for what is before it only
        needles.add(plain)
    tests = [_test(each) for each in sorted(needles)]
    return f"({' OR '.join(sql for sql, _ in tests)})", [each for _, some in tests for each in some]


def _test(needle: str) -> tuple[str, list[Any]]:
    """Let LIKE go ahead: it is quick, but knows the capitals of ASCII only.

    It may look at a place as often as its pattern is long, so the pattern is short.
    """
    is_ascii = needle.isascii()
    folded = needle.lower() if is_ascii else needle.casefold()
    plain = folded if is_ascii else max(_PLAIN.findall(folded), key=len, default="")
    tests: list[tuple[str, Any]] = [(_LIKE, _like(plain[:_LONGEST_LIKE]))] if plain else []
    if not is_ascii or len(needle) > _LONGEST_LIKE:
        tests.append((_HOLDS, folded.encode() if is_ascii else folded))
    return " AND ".join(sql for sql, _ in tests), [value for _, value in tests]


def _like(text: str) -> str:
    for each in "\\%_":
        text = text.replace(each, f"\\{each}")
    return f"%{text}%"


def add_functions(db: sqlite3.Connection) -> None:
    """Give a connection what the conditions call."""
    db.create_function("holds", 2, _payload_holds, deterministic=True)
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute(_LISTS)


def _payload_holds(payload: bytes, folded: bytes | str) -> bool:
    """Tell whether a text is in a payload, in capitals or not; one of ASCII comes as bytes."""
    if isinstance(folded, bytes):
        return folded in payload.lower()
    if payload.isascii():
        return folded.isascii() and folded.encode() in payload.lower()
    return folded.encode() in payload or folded in payload.decode("utf-8", "replace").casefold()


def storable(value: Any) -> Any:
    """Return the value as SQLite's text can hold it, which is UTF-8."""
    return utf8_text(value) if isinstance(value, str) else value


class Stretches:
    """The stretches of positions that a filter can mean, each as a filter of its own.

    The loop runs between two of them. What is done with one is timed, so it should not wait.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        where: Filter,
        *,
        newest_first: bool = False,
        most: int = MOST,
        max_seconds: float | None = None,
    ) -> None:
        """Begin at the end that is asked for.

        - `most`: positions in a stretch; fewer where some events take much longer than others.
        - `max_seconds`: after so many from now on no further stretch is given; the first one is.
        """
        self.reached: int | None = None
        """Where the last stretch that was given ends; None where nothing is beyond it."""
        self._db = db
        self._rest: Filter | None = where
        self._down = newest_first
        self._most = most
        self._size = min(_FIRST, most)
        self._fits = most  # what of events like the last ones has not too many bytes
        self._end = time.perf_counter() + (inf if max_seconds is None else max_seconds)
        self._began: float | None = None

    def __aiter__(self) -> Self:
        """Give what there is to go through: itself."""
        return self

    async def __anext__(self) -> Filter:
        """Let the loop run, and give the next stretch."""
        if self._began is not None:
            now = time.perf_counter()
            self._fit(now - self._began)
            if now >= self._end:
                raise StopAsyncIteration
            await asyncio.sleep(0)
        if self._rest is None:
            raise StopAsyncIteration
        self._began = time.perf_counter()
        return self._cut(self._rest)

    def _cut(self, where: Filter) -> Filter:
        self.reached = self._edge(where)
        stretch, self._rest = self._parts(where, self.reached)
        return stretch

    def _parts(self, where: Filter, edge: int | None) -> tuple[Filter, Filter | None]:
        if edge is None:  # this is the last stretch
            return where, None
        if self._down:
            return replace(where, after=edge - 1), replace(where, before=edge)
        return replace(where, before=edge + 1), replace(where, after=edge)

    def _edge(self, where: Filter) -> int | None:
        """Find where as many positions end as may be looked through at once."""
        while True:
            edge = self._nth(where)
            if not where.text:  # then no payload is looked into
                return edge
            count, size = self._weigh(self._parts(where, edge)[0])
            self._fits = max(1, count * _MOST_BYTES * 7 // (size * 8 + 1))
            if size <= _MOST_BYTES or count == 1:
                return edge
            self._size = self._fits

    def _nth(self, where: Filter) -> int | None:
        sql = (
            f"SELECT position FROM {_BETWEEN}"
            f" ORDER BY position {'DESC' if self._down else ''} LIMIT 1 OFFSET ?"
        )
        row = self._db.execute(sql, (*_bounds(where), self._size - 1)).fetchone()
        return None if row is None else int(row[0])

    def _weigh(self, where: Filter) -> tuple[int, int]:
        sql = f"SELECT count(*), coalesce(sum(length(payload)), 0) FROM {_BETWEEN}"
        count, size = self._db.execute(sql, _bounds(where)).fetchone()
        return count, size

    def _fit(self, seconds: float) -> None:
        """Learn from how long the last stretch took how large the next one may be."""
        if seconds > _STEP:
            self._size = max(_FEWEST, int(self._size * _STEP / seconds))
        elif seconds < _STEP / 2:
            self._size = min(self._most, self._size * 2)
        self._size = min(self._size, self._fits)


def _bounds(where: Filter) -> tuple[int, int]:
    after, before = where.after, where.before
    return -1 if after is None else after, _BEYOND if before is None else before
