"""What can be learned from the events: their names, their form, their users, their rate.

Nothing is learned while events come in. Who asks makes this room read on from where it was left,
in stretches between which the loop runs; what was learned is kept until events are deleted.
"""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncanalytics.collector.learning import Learner
from asyncanalytics.collector.shapes import EventSchema, Shape
from asyncanalytics.collector.timelines import Timeline, Timelines

if TYPE_CHECKING:
    from asyncanalytics.collector.records import Filter
    from asyncanalytics.collector.store import Store

LONGEST_RATE: Final = 3_600
"""Seconds for which the rate is known."""
_SHAPES: Final = 64  # kinds of events whose form is kept in mind


@dataclass(frozen=True, kw_only=True, slots=True)
class NameSeen:
    """One kind of event."""

    type: str | None
    """One of the six calls, or None."""
    name: str | None
    """As in `StoredEvent.name`; None for calls without one, such as an identify."""
    count: int
    bad: int
    """How many of them are bad."""
    first_at: str
    """When the first of them was received, and the last."""
    last_at: str


class Second(NamedTuple):
    """What came in one second."""

    second: int
    """Since 1970."""
    good: int
    bad: int


class Insights:
    """What is learned from one store."""

    def __init__(self, store: Store) -> None:
        """Learn from this store, when asked."""
        self._store = store
        self._names = _Names(store)
        self._rate = _Rate(store)
        self._timelines = Timelines(store)
        self._shapes = OrderedDict[tuple[str | None, str | None], Shape]()

    async def names(self, *, limit: int = 1_000) -> list[NameSeen]:
        """Return the kinds of events, the most frequent first."""
        await self._names.read_on()
        return self._names.most_frequent(limit)

    async def schema(
        self,
        type: str | None,  # noqa: A002 - the protocol's name
        name: str | None,
    ) -> EventSchema | None:
        """Return the form of one kind of event; None where there is none of it.

        A kind is what `names` returns: None as a name means the events without one.
        """
        shape = self._shapes.pop((type, name), None) or Shape(self._store, type, name)
        self._shapes[type, name] = shape  # the one asked for last is last
        if len(self._shapes) > _SHAPES:
            self._shapes.popitem(last=False)
        await shape.read_on()
        return shape.schema()

    async def timeline(
        self,
        user: str,
        *,
        limit: int = 100,
        after: int | None = None,
        before: int | None = None,
        newest_first: bool = False,
    ) -> Timeline | None:
        """Return what is known of a user by one of its ids; None where nothing is.

        The events are a page: the next one begins `after` the last position, or `before` it.
        """
        return await self._timelines.timeline(
            user, limit=limit, after=after, before=before, newest_first=newest_first
        )

    async def rate(self, seconds: int = 60) -> list[Second]:
        """Return how many events came in each of the last seconds, the present one included.

        At most an hour is known.
        """
        await self._rate.read_on()
        return self._rate.last(min(seconds, LONGEST_RATE))


class _Names(Learner):
    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.forget()

    def forget(self) -> None:
        self._seen: dict[tuple[str | None, str | None], list[int]] = {}

    def learn(self, stretch: Filter) -> None:
        what = "type, name, count(*), count(reason), min(position), max(position)"
        for kind, name, count, bad, first, last in self.store.select(
            what, stretch, rest="GROUP BY type, name"
        ):
            seen = self._seen.setdefault((kind, name), [0, 0, first, last])
            seen[:] = seen[0] + count, seen[1] + bad, seen[2], last

    def most_frequent(self, limit: int) -> list[NameSeen]:
        return [
            NameSeen(
                type=kind,
                name=name,
                count=count,
                bad=bad,
                first_at=self.store.received_at(first) or "",
                last_at=self.store.received_at(last) or "",
            )
            for (kind, name), (count, bad, first, last) in heapq.nlargest(
                limit, self._seen.items(), key=lambda each: each[1][0]
            )
        ]


class _Rate(Learner):
    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.forget()

    def forget(self) -> None:
        self._seen: dict[int, tuple[int, int]] = {}

    def learn(self, stretch: Filter) -> None:
        rows = self.store.select(
            "substr((SELECT received_at FROM requests WHERE number = request), 1, 19) AS second,"
            " count(*), count(reason)",
            stretch,
            rest="GROUP BY second",
        )
        oldest = int(time.time()) - LONGEST_RATE
        for text, count, bad in rows:
            second = int(datetime.fromisoformat(f"{text}+00:00").timestamp())
            good, bad_before = self._seen.get(second, (0, 0))
            if second > oldest:
                self._seen[second] = good + count - bad, bad_before + bad
        self._seen = {at: seen for at, seen in self._seen.items() if at > oldest}

    def last(self, seconds: int) -> list[Second]:
        now = int(time.time())
        nothing = (0, 0)
        return [
            Second(each, *self._seen.get(each, nothing))
            for each in range(now - seconds + 1, now + 1)
        ]
