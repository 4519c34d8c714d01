"""The collector's figures, added up stretch by stretch."""
# ruff: noqa: S608 - what is put into statements here are constants; values are bound

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from asyncanalytics.collector.records import CollectorStats
from asyncanalytics.collector.schema import PLACE_BITS
from asyncanalytics.collector.search import condition

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from asyncanalytics.collector.records import Filter

_MANY: Final = 20_000  # requests that are added up at a time
_EVENTS: Final = """
    SELECT coalesce(type, 'unknown'), reason, count(*), min(position), max(position), sum(EXISTS (
        SELECT 1 FROM events AS earlier
        WHERE earlier.message_id = events.message_id AND earlier.position < events.position
    )), count(message_id) FROM events WHERE {} GROUP BY 1, 2
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
        self._bytes = self._duplicates = self._identified = 0
        self._positions: list[int] = []
        self._request = 0  # the last one of which events were added

    def add(self, stretch: Filter, *, requests: bool) -> None:
        """Add the events of a stretch, which comes after those before, and their requests."""
        expression, values = condition(stretch)
        rows = self._db.execute(_EVENTS.format(expression), values).fetchall()
        for kind, reason, count, first, last, again, identified in rows:
            self._by_type[kind] += count
            if reason is not None:
                self._reasons[reason] += count
            self._duplicates += again
            self._identified += identified
            self._positions += [first, last]
        if requests:
            among = f"number IN (SELECT position >> {PLACE_BITS} FROM events WHERE {expression})"
            self._add_requests(f"number > {self._request} AND {among}", values)
            self._request = max(self._positions, default=0) >> PLACE_BITS
        self._positions = [f(self._positions) for f in (min, max) if self._positions]

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
            distinct=self._identified - self._duplicates,
            duplicates=self._duplicates,
            by_type=dict(sorted(self._by_type.items())),
            reasons=dict(sorted(self._reasons.items())),
            bytes=self._bytes,
            first_at=self._received_at(0),
            last_at=self._received_at(-1),
        )

    def _received_at(self, end: int) -> str | None:
        if not self._positions:
            return None
        sql = "SELECT received_at FROM requests WHERE number = ?"
        row = self._db.execute(sql, (self._positions[end] >> PLACE_BITS,)).fetchone()
        return row and str(row[0])
