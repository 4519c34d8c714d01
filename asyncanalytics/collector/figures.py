"""The collector's figures, added up stretch by stretch."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from asyncanalytics.collector.records import CollectorStats
from asyncanalytics.collector.schema import PLACE_BITS
from asyncanalytics.collector.search import condition

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator

    from asyncanalytics.collector.records import Filter

_MANY: Final = 20_000  # requests that are added up at a time
_AT_ONCE: Final = 256  # events that are held at a time: their ids may be long
_EVENTS: Final = """
    SELECT position, coalesce(type, 'unknown'), reason, message_id
    FROM events WHERE {} ORDER BY position
"""
_REQUESTS: Final = "SELECT status, count(*), sum(bytes) FROM requests WHERE {} GROUP BY 1"


class Tally:
    """Adds up: each event once, and each request once."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Begin with nothing."""
        self._db = db
        self._by_type = Counter[str]()
        self._reasons = Counter[str]()
        self._answers = Counter[int]()
        self._bytes = self._identified = 0
        self._distinct = set[int]()  # hashes of 64 bits of the ids
        self._ends: tuple[int, int] | None = None  # the first position and the last
        self._request = 0  # the last one of which events were added

    def add(self, stretch: Filter, *, requests: bool) -> None:
        """Add the events of a stretch, which comes after those before, and their requests."""
        expression, values = condition(stretch)
        found = self._db.execute(_EVENTS.format(expression), values)
        while rows := found.fetchmany(_AT_ONCE):
            positions = self._add_events(rows)
            if requests:
                self._add_requests_of(positions)

    def _add_events(self, rows: list[tuple[Any, ...]]) -> tuple[int, ...]:
        positions, kinds, reasons, ids = zip(*rows, strict=True)
        self._by_type.update(kinds)
        self._reasons.update(each for each in reasons if each is not None)
        known = [hash(each) for each in ids if each is not None]
        self._identified += len(known)
        self._distinct.update(known)
        self._ends = (self._ends or positions)[0], positions[-1]
        return positions

    def _add_requests_of(self, positions: Iterable[int]) -> None:
        numbers = {each >> PLACE_BITS for each in positions} - {self._request}
        if numbers:  # else they are of the last one
            self._add_requests(f"number IN ({', '.join(map(str, numbers))})", [])
            self._request = max(numbers)

    def add_requests(self) -> Iterator[None]:
        """Add all requests, refused ones and those without events too, a part at each step."""
        (last,) = self._db.execute("SELECT coalesce(max(number), 0) FROM requests").fetchone()
        for first in range(0, last, _MANY):
            self._add_requests("number > ? AND number <= ?", [first, first + _MANY])
            yield

    def _add_requests(self, expression: str, values: list[Any]) -> None:
        rows = self._db.execute(_REQUESTS.format(expression), values)
        for status, count, size in rows.fetchall():
            self._answers[status] += count
            self._bytes += size

    def stats(self) -> CollectorStats:
        """Return the sums."""
        events, bad = self._by_type.total(), self._reasons.total()
        return CollectorStats(
            requests=self._answers.total(),
            answers=dict(sorted(self._answers.items())),
            events=events,
            good=events - bad,
            bad=bad,
            distinct=len(self._distinct),
            duplicates=self._identified - len(self._distinct),
            by_type=dict(sorted(self._by_type.items())),
            reasons=dict(sorted(self._reasons.items())),
            bytes=self._bytes,
            first_at=self._received_at(0),
            last_at=self._received_at(1),
        )

    def _received_at(self, end: int) -> str | None:
        if self._ends is None:
            return None
        sql = "SELECT received_at FROM requests WHERE number = ?"
        row = self._db.execute(sql, (self._ends[end] >> PLACE_BITS,)).fetchone()
        return row and str(row[0])
