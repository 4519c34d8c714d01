"""The control of the spool: the same bytes in a bare SQLite file, with no client and no thread.

Rows are written and removed as the spool does it, 1,000 in a transaction, write-ahead log and
`synchronous=FULL`. A wait is one row's own transaction; a lag is that of a loop that does nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _load
import _pace
import _subject
from _bare import encode

if TYPE_CHECKING:
    from collections.abc import Sequence

_EVENTS = 20_000  # by scale
_SECONDS = 1.0  # by scale


def _opened(folder: str) -> sqlite3.Connection:
    db = sqlite3.connect(Path(folder) / "control", isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    db.execute("CREATE TABLE calls (seq INTEGER PRIMARY KEY, body BLOB NOT NULL)")
    return db


def _write(db: sqlite3.Connection, bodies: Sequence[bytes]) -> None:
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT INTO calls (body) VALUES (?)", ((each,) for each in bodies))
    db.execute("COMMIT")


def durable(db: sqlite3.Connection, *, scale: int, callers: int, is_down: bool) -> _subject.Answer:
    """Time encoding and writing, and removing where calls would be delivered meanwhile."""
    calls = _load.calls(_EVENTS * scale)
    watch = _subject.Stopwatch()
    for start in range(0, len(calls), callers):
        _write(db, [encode(*each) for each in calls[start : start + callers]])
        if not is_down:
            db.execute("DELETE FROM calls WHERE seq <= ?", [start])
    return watch.read() | {"events": len(calls), "sent": 0}


def wait(db: sqlite3.Connection, *, scale: int, rate: int) -> _subject.Answer:
    """Time a transaction for each row: what a disk takes at least."""
    calls = _load.calls(round(rate * _SECONDS * scale / 10))
    times = []
    started = time.perf_counter()
    for each in calls:
        start = time.perf_counter()
        _write(db, [encode(*each)])
        times.append(time.perf_counter() - start)
    took = time.perf_counter() - started
    return _subject.quantiles(times) | {"calls_per_second": len(calls) / took, "sent": 0}


def lag(_: sqlite3.Connection, *, scale: int, rate: int) -> _subject.Answer:
    """Measure a loop on which nothing happens."""

    async def nothing(*_: object) -> None:
        pass

    found = asyncio.run(_pace.measure(nothing, rate=rate, seconds=_SECONDS * scale))
    return found | {"sent": 0}


def outage(db: sqlite3.Connection, *, scale: int, events: int) -> _subject.Answer:
    """Weigh a process that has written all of them."""
    del scale
    idle = _subject.resident()
    group: list[bytes] = []
    for each in _load.fresh(events):
        group.append(encode(*each))
        if len(group) == 1_000:
            _write(db, group)
            group.clear()
    _write(db, group)
    return {"added": _subject.resident() - idle, "events": events, "sent": 0}


_MEASURES = {"durable": durable, "wait": wait, "lag": lag, "outage": outage}


def spool(url: str, measure: str, **options: Any) -> _subject.Answer:
    """Measure one thing."""
    del url
    with tempfile.TemporaryDirectory() as folder:
        db = _opened(folder)
        try:
            return _MEASURES[measure](db, **options)
        finally:
            db.close()


if __name__ == "__main__":
    _subject.answer((), {"spool": spool})
