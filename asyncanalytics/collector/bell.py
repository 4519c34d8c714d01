"""A bell: those who wait for it are woken, in whichever loop and thread each of them is."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Bell:
    """A ring costs next to nothing while nobody waits, and who goes away leaves nothing."""

    def __init__(self) -> None:
        """Hang it up."""
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def ring(self) -> None:
        """Wake all who wait now."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for loop, rung in waiting:
                with contextlib.suppress(RuntimeError):  # that loop is closed
                    loop.call_soon_threadsafe(rung.set)

    async def until(self, fulfilled: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until it is so, looking after each ring, or until the time is up; tell if it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    with self._heard() as rung:
                        if fulfilled():  # only now: a ring before this would not have been heard
                            return True
                        await rung.wait()
        return fulfilled()

    @contextlib.contextmanager
    def _heard(self) -> Iterator[asyncio.Event]:
        waiter = (asyncio.get_running_loop(), asyncio.Event())
        self._waiting.append(waiter)
        try:
            yield waiter[1]
        finally:
            with contextlib.suppress(ValueError):  # it has rung
                self._waiting.remove(waiter)
