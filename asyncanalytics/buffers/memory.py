"""The buffer in memory, bounded in events and in bytes: what it holds ends with the process.

What was put and is not settled counts against the bounds, whether it waits or is in flight.
"""

from __future__ import annotations

from asyncanalytics.buffers.base import Buffer


class MemoryBuffer(Buffer):
    """Accepted calls of one destination, in memory."""

    def takes(self, size: int) -> bool:
        """Whether a call can be sent, fits, and nobody waits for room before it."""
        # Every call's straight way: what `has_room` and `fits` say, without their calls.
        if size > self.largest or self._waiters:
            return False
        held = self._held_events
        return not held or (held < self._max_events and self._held_bytes + size <= self._max_bytes)
