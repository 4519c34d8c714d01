"""Where accepted calls wait for their flusher.

Every buffer keeps the same protocol: `put` takes one in, `take` gives a batch out, `settle` frees
what was given out, and `leave` says at the end what can wait for the next start.
"""

from asyncanalytics.buffers.base import Buffer
from asyncanalytics.buffers.memory import MemoryBuffer

__all__ = ["Buffer", "MemoryBuffer"]
