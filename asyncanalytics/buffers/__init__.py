"""Where accepted calls wait for their flusher.

Every buffer keeps the same protocol: `put` takes one in, `take` gives a batch out, `settle` frees
what was given out.
"""

from asyncanalytics.buffers.memory import MemoryBuffer

__all__ = ["MemoryBuffer"]
