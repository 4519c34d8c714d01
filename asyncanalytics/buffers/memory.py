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
        """Take in a call that can be sent, if it fits and nobody waits for room before it."""
        # The straight way of every call: what `has_room` and `fits` say, without their calls.
        size, held = len(receipt.body), self._held_events
        is_full = held >= self._max_events or self._held_bytes + size > self._max_bytes
        if size > self.largest or self._waiters or (is_full and held):
            return False
        self.put(receipt)
        return True
