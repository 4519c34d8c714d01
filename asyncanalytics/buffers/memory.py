"""The buffer in memory, bounded in events and in bytes: what it holds ends with the process.

What was put and is not settled counts against the bounds, whether it waits or is in flight.
"""

from __future__ import annotations

from asyncanalytics.buffers.base import Buffer


class MemoryBuffer(Buffer):
    """Accepted calls of one destination, in memory."""
