"""Calls from other threads on their way to a client's loop.

A call is checked and encoded in its own thread, handed over here, and moved to the queue by the
loop, which is woken for the first call after a quiet time and looks again by itself while calls
go on coming: waking a loop costs more than a call.

Invariants:
- There is no lock: a signal handler, a `__del__` or a logging handler that comes in the middle of
  a call may call, flush and close.
- What is handed over counts against the queue's bounds, to within one call for each thread.
- The calls of one thread keep their order.
- Nothing waits here: what finds no room, or callers who wait for some, is not taken.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from asyncanalytics.flusher import Flusher
    from asyncanalytics.receipts import Receipt

_LOOK_AGAIN = 0.01  # seconds: a fraction of what calls linger in the queue anyway


class Handover:
    """Takes encoded calls from any thread for one flusher."""

    def __init__(self, flusher: Flusher, loop: AbstractEventLoop) -> None:
        """Made on the loop."""
        self._flusher = flusher
        self._loop = loop
        self._receipts: deque[Receipt] = deque()
        self._bytes = 0  # an update that is lost between threads is made good by the next move
        self._moving = 0
        self._is_woken = False
        self._is_open: bool = True

    def offer(self, receipt: Receipt) -> bool:
        """Take a call if there is room for it. From any thread."""
        size, ahead = len(receipt.body), len(self._receipts) + self._moving
        if not (self._is_open and self._flusher.has_room_behind(ahead, self._bytes, size)):
            return False
        self._bytes += size
        self._receipts.append(receipt)
        if not self._is_woken:
            self._wake()
        # Closed meanwhile: it was moved, or it is taken back.
        return self._still_open() or not self._take_back(receipt)

    def _still_open(self) -> bool:
        return self._is_open

    def move(self) -> None:
        """Put into the queue what has been taken. On the loop."""
        self._move()

    def close(self) -> None:
        """Take no more, and put what was taken into the queue. On the loop."""
        self._is_open = False
        self._move()

    def _wake(self) -> None:
        try:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._look)
        except BaseException as error:
            self._is_woken = False  # a signal's exception may come here: the next call wakes it
            if self._is_open or not isinstance(error, RuntimeError):
                raise  # else the loop has ended, and what was taken had been moved

    def _take_back(self, receipt: Receipt) -> bool:
        try:
            self._receipts.remove(receipt)
        except ValueError:
            return False
        return True

    def _look(self) -> None:
        if not self._move():
            self._is_woken = False
            if not self._receipts:  # looked at again: one may have come before the line above
                return
            self._is_woken = True
        self._loop.call_later(_LOOK_AGAIN, self._look)

    def _move(self) -> bool:
        count = self._moving = len(self._receipts)  # still counted, until they are in the queue
        self._bytes = 0
        receipts: list[Receipt] = []
        with suppress(IndexError):  # one was taken back
            for _ in range(count):
                receipts.append(self._receipts.popleft())  # noqa: PERF401 - keeps what it has got
        self._flusher.take_in(receipts)
        self._moving = 0
        return bool(receipts)
