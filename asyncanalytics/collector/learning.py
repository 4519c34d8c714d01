"""Reading on: what was learned from events is kept, and only later events are read for the rest."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

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
        self._turn: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    async def read_on(self) -> None:
        """Learn from what was kept since the last time, and let the loop run in between."""
        async with self._my_turn():  # who comes second finds it done
            while not await self._reach_the_end():
                pass

    def _my_turn(self) -> asyncio.Lock:
        """Return the lock of the running loop: a collector may see several, one after another."""
        loop = asyncio.get_running_loop()
        if self._turn is None or self._turn[0] is not loop:
            self._turn = loop, asyncio.Lock()
        return self._turn[1]

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
