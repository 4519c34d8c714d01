"""Calls from other threads on their way to a client's loop.

A call is checked and encoded in its own thread, handed over here, and moved to the queue by the
loop, which is woken for the first call after a quiet time and looks again by itself while calls
go on coming: waking a loop costs more than a call.

Invariants:
- What is handed over counts against the queue's bounds at once.
- The calls of one thread keep their order.
- Nothing waits here: what finds no room, or callers who wait for some, is not taken.
"""

from __future__ import annotations

from threading import Lock
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
        self._lock = Lock()
        self._receipts: list[Receipt] = []
        self._bytes = 0
        self._is_looking = False  # whether the loop will look here by itself
        self._is_open = True

    def offer(self, receipt: Receipt) -> bool:
        """Take a call if there is room for it. From any thread."""
        size = len(receipt.body)
        with self._lock:
            ahead = len(self._receipts)
            if not (self._is_open and self._flusher.has_room_behind(ahead, self._bytes, size)):
                return False
            self._receipts.append(receipt)
            self._bytes += size
            if self._is_looking:
                return True
            self._is_looking = True
        self._loop.call_soon_threadsafe(self._look)
        return True

    def move(self) -> None:
        """Put into the queue what has been taken. On the loop."""
        with self._lock:
            self._move()

    def close(self) -> None:
        """Take no more, and put what was taken into the queue. On the loop."""
        with self._lock:
            self._is_open = False
            self._move()

    def _look(self) -> None:
        with self._lock:
            if self._move():
                self._loop.call_later(_LOOK_AGAIN, self._look)
            else:
                self._is_looking = False

    def _move(self) -> bool:
        receipts, self._receipts, self._bytes = self._receipts, [], 0
        self._flusher.take_in(receipts)
        return bool(receipts)
