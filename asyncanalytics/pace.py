"""How many requests of one destination may be under way, and from when on.

After a failure one request goes out at a time, as a probe; each success doubles the number, up to
the limit. So a server that comes back is not met by everybody at once.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_AN_INSTANT = 0.001  # seconds: less than a coarse clock can wait for, again and again


class Pace:
    """Hands out turns to send."""

    def __init__(self, most: int) -> None:
        """Allow `most` requests at a time when all is well."""
        self._most = most
        self._allowed = most
        self._under_way = 0
        self._paused_until = float("-inf")
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and hold it."""
        loop = asyncio.get_running_loop()
        while True:
            if (delay := self._paused_until - loop.time()) > _AN_INSTANT:
                await asyncio.sleep(delay)
            elif self._under_way >= self._allowed:
                self._changed.clear()
                await self._changed.wait()
            else:
                break
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._changed.set()

    def note(self, *, succeeded: bool) -> None:
        """Say how a request ended. Any final answer, a refusal too, is a success here."""
        self._allowed = min(self._most, self._allowed * 2) if succeeded else 1
        self._changed.set()

    def pause_until(self, moment: float) -> None:
        """Give no turn before a moment of the loop's clock."""
        self._paused_until = max(self._paused_until, moment)
