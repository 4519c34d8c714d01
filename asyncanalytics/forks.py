"""What forks wait for.

A child has one thread of its parent's, and the state of all: what another was amid stays half done
there, and its locks are held for ever. So a fork waits while a client starts, while one looks up
the name of a host, and while a module is imported that is left for its first use.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - a fork takes its lock, and logging's, after ours
import os
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Found = TypeVar("Found")


class Lookups:
    """Calls into the C library that a fork must not come into the middle of.

    Each has a lock of its own, so they go on side by side, however slow one is. All locks belong to
    a thread, so a fork from within a call, or from within another fork's waiting, does not wait for
    itself.
    """

    def __init__(self) -> None:
        self._gate = threading.RLock()
        self._under_way: set[threading.RLock] = set()

    def run(self, function: Callable[..., Found], *args: Any) -> Found:
        """Call a function, and let forks wait for its end."""
        mine = threading.RLock()
        with mine:
            with self._gate:  # not while a fork is going on
                self._under_way.add(mine)
            try:
                return function(*args)
            finally:
                self._under_way.discard(mine)

    @contextmanager
    def none_under_way(self) -> Iterator[None]:
        """Wait until all calls have ended, and let none begin."""
        with self._gate, ExitStack() as ended:
            for each in list(self._under_way):
                ended.enter_context(each)
            yield


# A fork takes their locks in this order. So who holds one of them may wait for a later one, also in
# another thread, and for no earlier one.

starts: threading.RLock = threading.RLock()
"""Held while a client starts, which imports modules in its thread."""
lookups: Lookups = Lookups()
"""Those of the loops that serve `Client`s. A slow one holds up no start of another client."""
imports: threading.RLock = threading.RLock()
"""Held while a module of the package is imported that is left for its first use."""
loads: threading.RLock = threading.RLock()
"""Held while what httpx leaves for its first use is imported and made."""


class _Forks(threading.local):
    """What this thread holds for the forks that it is about to make.

    They are several if a signal handler forks while its thread waits to.
    """

    def __init__(self) -> None:
        self.held: list[ExitStack] = []


_forks = _Forks()


def _before_fork() -> None:
    held = ExitStack()
    _forks.held.append(held)
    # A signal's exception may end the waiting. Python goes on with the fork all the same, and what
    # comes after it lets go of what there is.
    held.enter_context(starts)
    held.enter_context(lookups.none_under_way())
    held.enter_context(imports)
    held.enter_context(loads)


def _after_fork() -> None:
    if _forks.held:
        _forks.held.pop().close()


def _after_fork_in_child() -> None:
    global lookups, starts, imports, loads
    _after_fork()
    # Others may hold the parent's for ever.
    lookups, starts, imports, loads = Lookups(), *(threading.RLock() for _ in range(3))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )
