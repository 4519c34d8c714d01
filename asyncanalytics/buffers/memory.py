"""The buffer in memory, bounded in events and in bytes: what it holds ends with the process.

What was put and is not settled counts against the bounds, whether it waits or is in flight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncanalytics.buffers.base import Buffer

if TYPE_CHECKING:
    from asyncanalytics.receipts import Receipt


class MemoryBuffer(Buffer):
    """Accepted calls of one destination, in memory."""

    def offer(self, receipt: Receipt) -> bool:
        """Take in a call that can be sent and fits, if nobody waits for room before it."""
        # Every call's straight way: what `has_room` and `put_all` do, without their calls.
        size, held = len(receipt.body), self._held_events
        if size > self.largest or self._waiters:
            return False
        if held and (held >= self._max_events or self._held_bytes + size > self._max_bytes):
            return False
        self._queue.add(receipt)
        self._put += 1
        self._held_events = held + 1
        self._held_bytes += size
        self._waiting_bytes = waiting = self._waiting_bytes + size + self._per_event
        if waiting >= self._batch_bytes or self._put - self._taken >= self._batch_events:
            self.ready.set()
        return True
