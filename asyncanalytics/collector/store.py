"""What is kept, in SQLite: one row for each request and one for each arrival of an event.

An event's position is its request's number and its place in it, `number << 20 | place`: it
grows, is never given twice (the numbers are AUTOINCREMENT) and needs no column of its own for
the batch. A file is in WAL mode with `synchronous=NORMAL`: what was answered survives the end
of the process, and all but the last moments a loss of power.

The index of the messageIds is kept apart for each run of 16 requests. They come in no order,
so in one index over all of them each event would change a page of its own. A messageId is looked
for in every run, which takes microseconds each.

Calls are short and block: an event costs microseconds. Write keys never get here.
"""
# ruff: noqa: S608 - what is put into statements here are constants; values are bound

from __future__ import annotations

import contextlib
import sqlite3
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncanalytics.collector.reading import parse, utf8_text
from asyncanalytics.collector.records import (
    EVERYTHING,
    CollectorStats,
    Filter,
    StoredEvent,
    Verdict,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

_PLACE_BITS: Final = 20
_RUN_BITS: Final = _PLACE_BITS + 4
_MARKS: Final = {"application_id": 0x41416376, "user_version": 1}
_WAL_PAGES: Final = 8_000
_CACHED_PAGES: Final = 8_000

_SCHEMA: Final = f"""
BEGIN;
CREATE TABLE requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at TEXT NOT NULL,
    sent_at TEXT,
    retry_count INTEGER,
    bytes INTEGER NOT NULL,
    status INTEGER NOT NULL
);
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    message_id TEXT,
    type TEXT,
    reason TEXT,
    user_id TEXT,
    anonymous_id TEXT,
    event TEXT,
    key_fingerprint TEXT,
    payload BLOB NOT NULL,
    verdict TEXT AS (iif(reason IS NULL, 'good', 'bad')) VIRTUAL,
    request INTEGER AS (position >> {_PLACE_BITS}) VIRTUAL
);
CREATE INDEX events_by_message_id ON events (position >> {_RUN_BITS}, message_id);
{"".join(f"PRAGMA {name} = {value};" for name, value in _MARKS.items())}
COMMIT;
"""
_COLUMNS: Final = (
    "position, message_id, type, verdict, reason, user_id, anonymous_id, event,"
    " key_fingerprint, payload, number, received_at, sent_at, retry_count"
)
_JOINED: Final = "events JOIN requests ON number = position >> 20"
_INSERT_REQUEST: Final = (
    "INSERT INTO requests (received_at, sent_at, retry_count, bytes, status) VALUES (?, ?, ?, ?, ?)"
)
_INSERT_EVENT: Final = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

EventRow = tuple[
    int, str | None, str | None, str | None, str | None, str | None, str | None, str | None, bytes
]
"""Place in the request, messageId, type, reason, userId, anonymousId, event, key's fingerprint,
payload."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestRow:
    """One ingest request, as it is kept."""

    received_at: str
    sent_at: str | None = None
    retry_count: int | None = None
    bytes: int = 0
    status: int = 200
    """0 for a dropped connection."""


@dataclass(frozen=True, slots=True)
class Found:
    """One event with its place in the order, and its payload as it is kept."""

    position: int
    columns: dict[str, Any]
    """All of `StoredEvent` but the payload."""
    payload: bytes


class Store:
    """One SQLite database. `path` None keeps it in memory."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Open or make the database; ValueError for a file that is something else."""
        self._db = _open(path)
        # A store that is forgotten is closed without a warning: there is nothing left to lose.
        self._finalizer = weakref.finalize(self, self._db.close)

    def close(self) -> None:
        """Close the database. It may be called twice."""
        self._finalizer()

    def checkpoint(self) -> None:
        """Bring what is in a file's WAL into the file itself."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def add(self, request: RequestRow, events: Sequence[EventRow] = ()) -> None:
        """Keep one request and its events: all of it or nothing."""
        try:
            self._insert(request, events)
        except UnicodeEncodeError:  # SQLite's text is UTF-8, which has no lone surrogates
            request = replace(request, sent_at=_storable(request.sent_at))
            self._insert(request, [_storable_event(each) for each in events])

    def _insert(self, request: RequestRow, events: Sequence[EventRow]) -> None:
        with self._db:
            self._db.execute("BEGIN")
            base = self._insert_request(request) << _PLACE_BITS
            self._db.executemany(_INSERT_EVENT, ((base | row[0], *row[1:]) for row in events))

    def _insert_request(self, row: RequestRow) -> int:
        values = (row.received_at, row.sent_at, row.retry_count, row.bytes, row.status)
        number = self._db.execute(_INSERT_REQUEST, values).lastrowid
        assert number is not None  # noqa: S101 - an INSERT always has one
        return number

    def find(self, where: Filter = EVERYTHING, *, limit: int | None = None) -> Iterator[Found]:
        """Yield the events that the filter means, in the order of their arrival."""
        condition, values = _condition(where)
        sql = f"SELECT {_COLUMNS} FROM {_JOINED} WHERE {condition} ORDER BY position LIMIT ?"
        for row in self._db.execute(sql, [*values, -1 if limit is None else limit]):
            yield _found(row)

    def count(self, where: Filter) -> int:
        """Count the events that the filter means."""
        condition, values = _condition(where)
        sql = f"SELECT count(*) FROM events WHERE {condition}"
        counted: int = self._db.execute(sql, values).fetchone()[0]
        return counted

    def message_ids(self, verdict: Verdict | None) -> list[str]:
        """Return the messageIds, each as often as it arrived, in the order of arrival."""
        condition, values = _condition(Filter(verdict=verdict))
        sql = (
            f"SELECT message_id FROM events WHERE message_id IS NOT NULL AND {condition}"
            " ORDER BY position"
        )
        return [each for (each,) in self._db.execute(sql, values)]

    def delete(self, where: Filter = EVERYTHING) -> int:
        """Forget the events that are meant, and return how many; all of them: the requests too."""
        condition, values = _condition(where)
        with self._db:
            self._db.execute("BEGIN")
            deleted = self._db.execute(f"DELETE FROM events WHERE {condition}", values).rowcount
            if where == EVERYTHING:
                self._db.execute("DELETE FROM requests")
        return deleted

    def stats(self) -> CollectorStats:
        """Count everything anew."""
        by_type = self._counts("coalesce(type, 'unknown')", "events")
        reasons = self._counts("reason", "events WHERE reason IS NOT NULL")
        answers = self._counts("status", "requests")
        distinct, identified = self._identified()
        events, bad = sum(by_type.values()), sum(reasons.values())
        first, last = self._span()
        return CollectorStats(
            requests=sum(answers.values()),
            answers=answers,
            events=events,
            good=events - bad,
            bad=bad,
            distinct=distinct,
            duplicates=identified - distinct,
            by_type=by_type,
            reasons=reasons,
            bytes=self._one("coalesce(sum(bytes), 0)", "requests")[0],
            first_at=first,
            last_at=last,
        )

    def _counts(self, what: str, source: str) -> dict[Any, int]:
        sql = f"SELECT {what}, count(*) FROM {source} GROUP BY 1 ORDER BY 1"
        return dict(self._db.execute(sql).fetchall())

    def _identified(self) -> tuple[int, int]:
        """Count the different messageIds, and all; a set is quicker at it than SQLite."""
        rows = self._db.execute("SELECT message_id FROM events WHERE message_id IS NOT NULL")
        ids = [hash(each) for (each,) in rows]  # of 64 bits: the ids would take far more memory
        return len(set(ids)), len(ids)

    def _one(self, what: str, source: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._db.execute(f"SELECT {what} FROM {source}").fetchone()
        return row

    def _span(self) -> tuple[str | None, str | None]:
        ends = "(SELECT min(position) >> 20 FROM events), (SELECT max(position) >> 20 FROM events)"
        rows = self._db.execute(
            f"SELECT received_at FROM requests WHERE number IN ({ends}) ORDER BY number"
        ).fetchall()
        return (rows[0][0], rows[-1][0]) if rows else (None, None)


def _open(path: str | os.PathLike[str] | None) -> sqlite3.Connection:
    if path is not None:
        # Events are personal data. SQLite gives the WAL the rights of the file.
        Path(path).touch(mode=0o600)
    # Used by one thread at a time, but not always by the one that made it.
    where = ":memory:" if path is None else Path(path).absolute()
    db = sqlite3.connect(where, isolation_level=None, check_same_thread=False)
    with contextlib.ExitStack() as undo:
        undo.callback(db.close)
        _prepare(db)
        undo.pop_all()
    return db


def _prepare(db: sqlite3.Connection) -> None:
    if not _is_ours(db):
        raise ValueError(
            "the file at this path was not made by this version of the collector: "
            "choose another path"
        )
    # Only now: the file of another program is left as it was.
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    # A page that changes again and again is brought into the file once for 32 MB of WAL, not 4.
    db.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    db.execute(f"PRAGMA cache_size = {_CACHED_PAGES}")


def _is_ours(db: sqlite3.Connection) -> bool:
    try:
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            db.executescript(_SCHEMA)
        found = [db.execute(f"PRAGMA {each}").fetchone()[0] for each in _MARKS]
    except sqlite3.OperationalError:  # locked, or no right to it
        raise
    except sqlite3.DatabaseError:  # not SQLite's at all
        return False
    return found == list(_MARKS.values())


_RUNS: Final = f"""
WITH RECURSIVE runs(number) AS (
    SELECT min(position) >> {_RUN_BITS} FROM events
    UNION ALL SELECT number + 1 FROM runs
    WHERE number < (SELECT max(position) >> {_RUN_BITS} FROM events)
) SELECT number FROM runs
"""
_CONDITIONS: Final = {
    "type": "type = ?",
    "event": "event = ?",
    "user_id": "user_id = ?",
    "anonymous_id": "anonymous_id = ?",
    "message_id": f"message_id = ? AND position >> {_RUN_BITS} IN ({_RUNS})",
    "verdict": "verdict = ?",
    "since": "position >> 20 IN (SELECT number FROM requests WHERE received_at >= ?)",
    "after": "position > ?",
}


def _condition(where: Filter) -> tuple[str, list[Any]]:
    given = {name: getattr(where, name) for name in _CONDITIONS}
    given = {name: _storable(value) for name, value in given.items() if value is not None}
    return " AND ".join([_CONDITIONS[name] for name in given] or ["1"]), list(given.values())


def _storable(value: Any) -> Any:
    return utf8_text(value) if isinstance(value, str) else value


def _storable_event(row: EventRow) -> EventRow:
    return tuple(_storable(each) for each in row)


def _found(row: tuple[Any, ...]) -> Found:
    names = (
        *("message_id", "type", "verdict", "reason", "user_id", "anonymous_id", "event"),
        *("key_fingerprint", "batch_id", "received_at", "sent_at", "retry_count"),
    )
    return Found(row[0], dict(zip(names, (*row[1:9], *row[10:]), strict=True)), row[9])


def stored_events(found: Iterable[Found]) -> list[StoredEvent]:
    """Make the records that users get."""
    return [StoredEvent(payload=parse(each.payload).value, **each.columns) for each in found]
