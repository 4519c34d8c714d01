"""What is kept, in SQLite: one row for each request and one for each arrival of an event.

An event's position is its request's number and its place in it, `number << 20 | place`: it
grows, is never given twice (the numbers are AUTOINCREMENT) and needs no column of its own for
the batch. A file is in WAL mode with `synchronous=NORMAL`: what was answered survives the end
of the process, and all but the last moments a loss of power.

Keeping is short and blocks: an event costs microseconds. Looking through everything is not:
`search`, `forget` and `figures` let the loop run in between. Write keys never get here.
"""
# ruff: noqa: S608 - what is put into statements here are constants; values are bound

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from asyncanalytics.collector.bell import Bell
from asyncanalytics.collector.figures import Tally
from asyncanalytics.collector.keys import kept_salt
from asyncanalytics.collector.reading import parse
from asyncanalytics.collector.records import (
    EVERYTHING,
    CollectorStats,
    Filter,
    StoredEvent,
    StoredRequest,
    Verdict,
)
from asyncanalytics.collector.schema import PLACE_BITS, open_database
from asyncanalytics.collector.search import MOST, Stretches, add_functions, condition, storable

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping, Sequence

MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
"""Of one page, unless told otherwise: a bad event may have half a megabyte."""

_FOUND_COLUMNS: Final = (
    *("message_id", "type", "verdict", "reason", "user_id", "anonymous_id", "event", "name"),
    *("key_fingerprint", "key_mask", "batch_id", "received_at", "sent_at", "retry_count"),
)
_SOURCES: Final = {"key_mask": "mask", "batch_id": "number"}
_COLUMNS: Final = ", ".join(
    ["position", "payload", *(_SOURCES.get(each, each) for each in _FOUND_COLUMNS)]
)
_JOINED: Final = (
    f"events JOIN requests ON number = position >> {PLACE_BITS}"
    " LEFT JOIN keys ON fingerprint = key_fingerprint"
)
_INSERT_REQUEST: Final = (
    "INSERT INTO requests (received_at, sent_at, retry_count, bytes, status, inflated, method,"
    " path, headers, refusal) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_EVENT: Final = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_BEYOND: Final = 1 << 63 - PLACE_BITS  # no request has this number, or a larger one
_MANY_KEYS: Final = 10_000
_INSERT_KEY: Final = "INSERT OR IGNORE INTO keys VALUES (?, ?)"
_COUNT_ERASURE: Final = (
    "INSERT INTO erasures VALUES (0, 1) ON CONFLICT (only) DO UPDATE SET count = count + 1"
)
_REQUEST_COLUMNS: Final = (
    *("received_at", "sent_at", "retry_count", "method", "path", "headers"),
    *("bytes", "inflated", "status", "refusal"),
)
_SELECT_REQUEST: Final = f"SELECT {', '.join(_REQUEST_COLUMNS)} FROM requests WHERE number = ?"

_SELECT_REFUSED: Final = (
    "SELECT number, received_at, refusal FROM requests WHERE refusal IS NOT NULL"
    " AND number > ? AND number <= ? ORDER BY number DESC LIMIT ?"
)

_Text = str | None
EventRow = tuple[int, _Text, _Text, _Text, _Text, _Text, _Text, _Text, _Text, bytes]
"""Place in the request, messageId, type, reason, userId, anonymousId, event, name, key's
fingerprint, payload."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestRow:
    """One ingest request, as it is kept."""

    received_at: str
    sent_at: str | None = None
    retry_count: int | None = None
    bytes: int = 0
    status: int = 200
    """0 for a dropped connection."""
    inflated: int | None = None
    method: str | None = None
    path: str | None = None
    headers: Sequence[tuple[str, str]] | None = None
    refusal: str | None = None
    """Why it was refused as a whole."""
    masks: Mapping[str, str] = field(default_factory=dict)
    """What may be shown of the events' keys, by fingerprint."""


@dataclass(frozen=True, slots=True)
class Found:
    """One event with its place in the order, and its payload as it is kept."""

    position: int
    columns: dict[str, Any]
    """All of `StoredEvent` but the payload."""
    payload: bytes

    @property
    def size(self) -> int:
        """Bytes of the payload, and characters of what is shown beside it."""
        texts = (each for each in self.columns.values() if isinstance(each, str))
        return len(self.payload) + sum(map(len, texts))


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """One request that was refused as a whole, so that it has no events."""

    number: int
    received_at: str
    refusal: str

    @property
    def position(self) -> int:
        """Its place among the events."""
        return self.number << PLACE_BITS


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the events that a filter means."""

    events: list[Found]
    reached: int | None
    """Where it ends, which the next page begins `after`, or `before`; None if it is the last."""

    @property
    def more(self) -> bool:
        """Whether it may be that others are beyond these."""
        return self.reached is not None


class Store:
    """One SQLite database. `path` None keeps it in memory."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Open or make the database; ValueError for a file that is something else."""
        self._db = open_database(path)
        # A store that is forgotten is closed without a warning: there is nothing left to lose.
        self._finalizer = weakref.finalize(self, self._db.close)
        add_functions(self._db)
        self._lists = 0
        self._masked = set[str]()  # fingerprints whose masks are kept
        self.bell: Bell = Bell()
        """Rings when events were kept or deleted, or a request refused."""
        self.last: int = self._last_given()
        """The position of what was kept last, or one that nothing kept is beyond."""
        self.mark: str = self._one("mark", "marks")[0]
        """Tells this store from any other, for who comes back with a position."""
        self.salt: bytes = kept_salt(self._db)
        """Of the fingerprints of keys; it lasts as long as the events."""
        self.erased: int = self._one("coalesce(max(count), 0)", "erasures")[0]
        """How often events were deleted: what was learned from them is no longer so."""

    def close(self) -> None:
        """Close the database. It may be called twice."""
        self._finalizer()

    def checkpoint(self) -> None:
        """Bring what is in a file's WAL into the file itself."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    # --------------------------------------------------------------------------------- keeping

    def add(self, request: RequestRow, events: Sequence[EventRow] = ()) -> None:
        """Keep one request and its events: all of it or nothing."""
        try:
            self._insert(request, events)
        except UnicodeEncodeError:  # SQLite's text is UTF-8, which has no lone surrogates
            request = replace(request, sent_at=storable(request.sent_at))
            self._insert(request, [_storable_event(each) for each in events])
        if events or request.refusal:
            self.bell.ring()

    def _insert(self, request: RequestRow, events: Sequence[EventRow]) -> None:
        with self._db:
            self._db.execute("BEGIN")
            base = self._insert_request(request) << PLACE_BITS
            self._db.executemany(_INSERT_EVENT, ((base | row[0], *row[1:]) for row in events))
            if unknown := request.masks.keys() - self._masked:
                self._db.executemany(_INSERT_KEY, request.masks.items())
        if unknown:
            self._note_masked(unknown)
        if events or request.refusal:
            self.last = base | (events[-1][0] if events else 0)

    def _note_masked(self, fingerprints: Iterable[str]) -> None:
        if len(self._masked) >= _MANY_KEYS:
            self._masked.clear()
        self._masked.update(fingerprints)

    def _insert_request(self, row: RequestRow) -> int:
        headers = None if row.headers is None else orjson.dumps(row.headers).decode()
        values = (
            *(row.received_at, row.sent_at, row.retry_count, row.bytes, row.status),
            *(row.inflated, row.method, row.path, headers, row.refusal),
        )
        number = self._db.execute(_INSERT_REQUEST, values).lastrowid
        assert number is not None  # noqa: S101 - an INSERT always has one
        return number

    def _last_given(self) -> int:
        (number,) = self._one("coalesce(max(seq), -1)", "sqlite_sequence")
        return (int(number) + 1 << PLACE_BITS) - 1 if number >= 0 else 0

    # ------------------------------------------------------------------------- finding events

    @contextlib.contextmanager
    def listed(self, ids: Iterable[str]) -> Iterator[int]:
        """Hold a list of ids for the time of a block; its number is what `Filter.users` takes.

        A user may have thousands: no statement is to bring them all along.
        """
        self._lists += 1
        number = self._lists
        rows = ((number, storable(each)) for each in ids)
        with self._db:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT INTO temp.ids VALUES (?, ?)", rows)
        try:
            yield number
        finally:
            with contextlib.suppress(sqlite3.ProgrammingError):  # closed meanwhile: it is gone
                self._db.execute("DELETE FROM temp.ids WHERE list = ?", (number,))

    def find(
        self, where: Filter = EVERYTHING, *, limit: int | None = None, newest_first: bool = False
    ) -> Iterator[Found]:
        """Yield the events that the filter means, in the order of their arrival or the other.

        It blocks while it looks: `search` is for where others wait.
        """
        expression, values = condition(where)
        sql = (
            f"SELECT {_COLUMNS} FROM {_JOINED} WHERE {expression}"
            f" ORDER BY position {'DESC' if newest_first else ''} LIMIT ?"
        )
        for row in self._db.execute(sql, [*values, -1 if limit is None else limit]):
            yield _found(row)

    async def search(
        self,
        where: Filter = EVERYTHING,
        *,
        limit: int,
        newest_first: bool = False,
        max_bytes: int = MAX_PAGE_BYTES,
        max_seconds: float | None = None,
    ) -> Page:
        """Find as `find` does, and let the loop run in between.

        A page ends at the limit, or before the event that would bring it, with what is shown
        beside the payloads, beyond `max_bytes`; it has one event at least, if there is one.
        It ends as well with the stretch in which `max_seconds` are over, whatever it has. What
        is kept meanwhile is not looked at.
        """
        page, size = list[Found](), 0
        stretches = self.stretches(where, newest_first=newest_first, max_seconds=max_seconds)
        async for stretch in stretches:
            wanted = limit + 1 - len(page)
            for each in self.find(stretch, limit=wanted, newest_first=newest_first):
                size += each.size
                if len(page) == limit or (page and size > max_bytes):
                    return Page(page, page[-1].position)
                page.append(each)
        return Page(page, stretches.reached)

    def stretches(
        self,
        where: Filter = EVERYTHING,
        *,
        newest_first: bool = False,
        most: int = MOST,
        max_seconds: float | None = None,
    ) -> Stretches:
        """Cut what is kept by now into stretches that are short to look through."""
        before = self.last + 1 if where.before is None else where.before
        return Stretches(
            self._db,
            replace(where, before=before),
            newest_first=newest_first,
            most=most,
            max_seconds=max_seconds,
        )

    def positions(self, where: Filter) -> list[int]:
        """Return where the events are that the filter means."""
        expression, values = condition(where)
        sql = f"SELECT position FROM events WHERE {expression} ORDER BY position"
        return [each for (each,) in self._db.execute(sql, values)]

    def at(self, position: int) -> Found | None:
        """Return the event at a position; None where it was deleted."""
        where = Filter(after=position - 1, before=position + 1)
        return next(self.find(where, limit=1), None)

    def select(
        self,
        what: str,
        where: Filter,
        *,
        also: str = "1",
        values: Sequence[Any] = (),
        rest: str = "",
    ) -> list[tuple[Any, ...]]:
        """Return what a statement says of the events that the filter means.

        `also` is a further condition, with its values; `rest` is what follows it. Only words
        of our own are put there.
        """
        expression, bound = condition(where)
        sql = f"SELECT {what} FROM events WHERE {expression} AND {also} {rest}"
        return self._db.execute(sql, [*bound, *values]).fetchall()

    def received_at(self, position: int) -> str | None:
        """Return when the event at a position was received; None where nobody knows any more."""
        sql = "SELECT received_at FROM requests WHERE number = ?"
        row = self._db.execute(sql, (position >> PLACE_BITS,)).fetchone()
        return row and str(row[0])

    def count(self, where: Filter) -> int:
        """Count the events that the filter means."""
        counted: int = self.select("count(*)", where)[0][0]
        return counted

    def message_ids(self, verdict: Verdict | None) -> list[str]:
        """Return the messageIds, each as often as it arrived, in the order of arrival."""
        rows = self.select("message_id", Filter(verdict=verdict), rest="ORDER BY position")
        return [each for (each,) in rows if each is not None]

    # ---------------------------------------------------------------------------- one request

    def request(self, number: int) -> StoredRequest | None:
        """Return what a request looked like; None where there is none of this number."""
        row = None
        if number < _BEYOND:
            row = self._db.execute(_SELECT_REQUEST, (number,)).fetchone()
        if row is None:
            return None
        first = number << PLACE_BITS
        where = Filter(after=first - 1, before=first + (1 << PLACE_BITS))
        events, bad = self.select("count(*), count(reason)", where)[0]
        columns = dict(zip(_REQUEST_COLUMNS, row, strict=True))
        headers = columns.pop("headers")
        pairs = headers and tuple((name, value) for name, value in orjson.loads(headers))
        return StoredRequest(number=number, **columns, headers=pairs, events=events, bad=bad)

    def refused(self, after: int, before: int, *, limit: int) -> list[RefusedRequest]:
        """Return the requests between two positions that were refused as a whole, newest first."""
        span = (after >> PLACE_BITS, (before - 1) >> PLACE_BITS, limit)
        return [RefusedRequest(*row) for row in self._db.execute(_SELECT_REFUSED, span)]

    # ------------------------------------------------------------------------------ forgetting

    def delete(self, where: Filter = EVERYTHING) -> int:
        """Forget the events that are meant, and return how many; all of them: the requests too."""
        expression, values = condition(where)
        with self._db:
            self._db.execute("BEGIN")
            if where == EVERYTHING:  # without a condition a table is emptied at once
                deleted = self._db.execute("DELETE FROM events").rowcount
                self._db.execute("DELETE FROM requests")
                self._db.execute("DELETE FROM keys")
                self._masked.clear()
            else:
                sql = f"DELETE FROM events WHERE {expression}"
                deleted = self._db.execute(sql, values).rowcount
            if is_erasure := deleted > 0 or where == EVERYTHING:
                self._db.execute(_COUNT_ERASURE)
        if is_erasure:
            self.erased += 1
            self.bell.ring()
        return deleted

    async def forget(self, where: Filter) -> int:
        """Delete as `delete` does, and let the loop run in between.

        What is kept meanwhile stays.
        """
        if where == EVERYTHING:
            return self.delete()
        return sum([self.delete(stretch) async for stretch in self.stretches(where)])

    # --------------------------------------------------------------------------------- figures

    def stats(self) -> CollectorStats:
        """Count everything anew. It blocks: `figures` is for where others wait."""
        tally = Tally(self._db)
        tally.add(EVERYTHING, requests=False)
        for _ in tally.add_requests():
            pass
        return tally.stats()

    async def figures(self, where: Filter = EVERYTHING) -> CollectorStats:
        """Count the events that are meant, and the requests that brought them.

        Where all are meant, the requests without events count too.
        """
        tally = Tally(self._db)
        async for stretch in self.stretches(where):
            tally.add(stretch, requests=where != EVERYTHING)
        if where == EVERYTHING:
            for _ in tally.add_requests():
                await asyncio.sleep(0)
        return tally.stats()

    def _one(self, what: str, source: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] = self._db.execute(f"SELECT {what} FROM {source}").fetchone()
        return row


def _storable_event(row: EventRow) -> EventRow:
    return tuple(storable(each) for each in row)


def _found(row: tuple[Any, ...]) -> Found:
    return Found(row[0], dict(zip(_FOUND_COLUMNS, row[2:], strict=True)), row[1])


def stored_events(found: Iterable[Found]) -> list[StoredEvent]:
    """Make the records that users get."""
    return [StoredEvent(payload=parse(each.payload).value, **each.columns) for each in found]
