"""Finding events among many, in stretches: a bounded number of positions at a time.

A filter that few events fulfil would else hold the loop while all of them are looked at. So one
statement reads so many positions only, and how many is learned from how long the last one took.
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
from functools import cache
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
_LONGEST_LIKE: Final = 1_000  # characters
_LIKE: Final = "CAST(payload AS TEXT) LIKE ? ESCAPE '\\'"  # some builds let LIKE fit no BLOB
# Of ASCII, without the letters that others are folded to as well, such as `ß` to `ss`.
_PLAIN: Final = re.compile(r"[\x01-`bcdegmopqruvxz{-\x7f]+")
_CASELESS: Final = 0x1E944  # from here on, no letter has another case
_HOLDS: Final = "holds(payload, ?, ?)"
_BEYOND: Final = (1 << 63) - 1

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
    # LIKE knows the capitals of ASCII only, and no long patterns; but it is quick.
    if needle.isascii() and len(needle) <= _LONGEST_LIKE:
        return _LIKE, [_like(needle)]
    folded = needle.casefold()
    others = bytes(set(range(256)).difference(_bytes_of(folded)))
    plain = max(_PLAIN.findall(folded), key=len, default="")[:_LONGEST_LIKE]
    if not plain:
        return _HOLDS, [folded, others]
    return f"{_LIKE} AND {_HOLDS}", [_like(plain), folded, others]


def _bytes_of(folded: str) -> set[int]:
    """Return each byte of all that may be folded to a text."""
    letters = set(folded + folded.upper())
    return set("".join(letters.union(*(_sources().get(each, ()) for each in folded))).encode())


@cache
def _sources() -> dict[str, set[str]]:
    """Return, for each letter, those beyond ASCII that are folded to it or to more with it."""
    found: dict[str, set[str]] = {}
    for letter in map(chr, range(128, _CASELESS)):
        folded = letter.casefold()
        if folded != letter:
            for each in folded:
                found.setdefault(each, set()).add(letter)
    return found


def _like(text: str) -> str:
    for each in "\\%_":
        text = text.replace(each, f"\\{each}")
    return f"%{text}%"


def add_functions(db: sqlite3.Connection) -> None:
    """Give a connection what the conditions call."""
    db.create_function("holds", 3, _payload_holds, deterministic=True)
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute(_LISTS)


def _payload_holds(payload: bytes, folded: str, others: bytes) -> bool:
    """Tell whether a text is in a payload, in capitals or not; `others` are bytes not in it.

    Folding takes longest: what cannot be a part of the text is left out at first.
    """
    if payload.isascii():
        return folded.isascii() and folded.encode() in payload.lower()
    if folded not in _folded(payload.translate(None, others)):
        return False
    return folded.encode() in payload or folded in _folded(payload)


def _folded(payload: bytes) -> str:
    return payload.decode("utf-8", "replace").casefold()


def storable(value: Any) -> Any:
    """Return the value as SQLite's text can hold it, which is UTF-8."""
    return utf8_text(value) if isinstance(value, str) else value


class Stretches:
    """The stretches of positions that a filter can mean, each as a filter of its own.

    The loop runs between two of them. What is done with one is timed, so it should not wait.
    """

    def __init__(
        self, db: sqlite3.Connection, where: Filter, *, newest_first: bool = False, most: int = MOST
    ) -> None:
        """Begin at the end that is asked for.

        `most`: positions in a stretch; fewer where some events take much longer than others.
        """
        self._db = db
        self._rest: Filter | None = where
        self._down = newest_first
        self._most = most
        self._size = min(_FIRST, most)
        self._began: float | None = None

    def __aiter__(self) -> Self:
        """Give what there is to go through: itself."""
        return self

    async def __anext__(self) -> Filter:
        """Let the loop run, and give the next stretch."""
        if self._began is not None:
            self._fit(time.perf_counter() - self._began)
            await asyncio.sleep(0)
        if self._rest is None:
            raise StopAsyncIteration
        self._began = time.perf_counter()
        return self._cut(self._rest)

    def _cut(self, where: Filter) -> Filter:
        edge = self._edge(where)
        if edge is None:  # this is the last stretch
            self._rest = None
            return where
        if self._down:
            self._rest = replace(where, before=edge)
            return replace(where, after=edge - 1)
        self._rest = replace(where, after=edge)
        return replace(where, before=edge + 1)

    def _edge(self, where: Filter) -> int | None:
        sql = (
            "SELECT position FROM events WHERE position > ? AND position < ?"
            f" ORDER BY position {'DESC' if self._down else ''} LIMIT 1 OFFSET ?"
        )
        after = -1 if where.after is None else where.after
        before = _BEYOND if where.before is None else where.before
        row = self._db.execute(sql, (after, before, self._size - 1)).fetchone()
        return None if row is None else int(row[0])

    def _fit(self, seconds: float) -> None:
        """Learn from how long the last stretch took how large the next one may be."""
        if seconds > _STEP:
            self._size = max(_FEWEST, int(self._size * _STEP / seconds))
        elif seconds < _STEP / 2:
            self._size = min(self._most, self._size * 2)
