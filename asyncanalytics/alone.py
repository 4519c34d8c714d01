"""Work that one thread at a time does, and that forks wait for.

A child has one thread of its parent's, and the state of all: what another was amid stays half done
there, and its locks are held for ever.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress


class Alone:
    """A lock for such work; the thread that holds it may take it again, and may fork."""

    def __init__(self) -> None:
        """Have all forks from now on wait for who holds it. It is never forgotten again."""
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self.__enter__,
                after_in_parent=self._after_fork,
                after_in_child=self._after_fork_in_child,
            )

    def __enter__(self) -> None:
        """Wait for one's turn."""
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        """Let the next one in."""
        self._lock.release()

    def _after_fork(self) -> None:
        with suppress(RuntimeError):  # a signal's exception has ended the waiting, not the fork
            self._lock.release()

    def _after_fork_in_child(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            self._lock = threading.RLock()
