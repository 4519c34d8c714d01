"""Reading on: what was learned from events is kept, and only later events are read for the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from asyncanalytics.collector.bell import Bell
from asyncanalytics.collector.records import EVERYTHING
from asyncanalytics.collector.search import MOST

if TYPE_CHECKING:
    from asyncanalytics.collector.records import Filter
    from asyncanalytics.collector.store import Store


class Learner:
    """Learns from each event of a store once, in their order, when it is asked to read on.

    Where events were deleted it forgets, and begins anew.
    """

    def __init__(self, store: Store, where: Filter = EVERYTHING, *, most: int = MOST) -> None:
        """Learn from these events, from so many at a time at most."""
        self.store: Store = store
        self._where = where
        self._most = most
        self._erased = store.erased
        self._position = 0
        self._is_reading = False
        self._done = Bell()

    async def read_on(self) -> None:
        """Learn from what was kept since the last time, and let the loop run in between."""
        # No lock of asyncio's: it would be of one loop, and the collector may be served in many.
        while self._is_reading:
            await self._done.until(lambda: not self._is_reading)
        self._is_reading = True
        try:  # who comes second finds it done
            while not await self._reach_the_end():
                pass
        finally:
            self._is_reading = False
            self._done.ring()

    async def _reach_the_end(self) -> bool:
        if self._erased != self.store.erased:
            self._erased, self._position = self.store.erased, 0
            self.forget()
        where = replace(self._where, after=self._position)
        async for stretch in self.store.stretches(where, most=self._most):
            if self._erased != self.store.erased:
                return False
            self.learn(stretch)
            self._position = stretch.before - 1 if stretch.before else self._position
        return True

    def learn(self, stretch: Filter) -> None:
        """Learn from the events of one stretch; it is called once for each."""
        raise NotImplementedError

    def forget(self) -> None:
        """Know nothing, as in the beginning."""
        raise NotImplementedError
