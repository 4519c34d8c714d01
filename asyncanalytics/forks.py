"""What forks wait for.

A child has one thread of its parent's, and the state of all: what another was amid stays half done
there, and its locks are held for ever. So a fork waits while a client starts, while one looks up
the name of a host, while a module is imported that is left for its first use, and while a spool is
within SQLite.

While it waits for one of these it holds none of the others: who has that one may need them, in
another thread too. Spools come last, one after the other: within SQLite nobody needs the others.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - its hooks, and those of logging, run after ours
import os
import threading
import weakref
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    Found = TypeVar("Found")

_PATIENCE: Final = 5.0  # seconds that a fork waits for a disk that hangs


class _Lock(Protocol):
    def acquire(self, blocking: bool = ...) -> bool: ...  # noqa: FBT001 - as a lock has it

    def release(self) -> None: ...


class Lookups:
    """Calls into the C library that a fork must not come into the middle of.

    Each has a lock of its own, so they go on side by side, however slow one is. All locks belong to
    a thread, so a fork from within a call, or from within another fork's waiting, does not wait for
    itself.
    """

    def __init__(self) -> None:
        self._gate = threading.RLock()
        self._under_way: set[threading.RLock] = set()
        self._stopped: list[ExitStack] = []

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

    def acquire(self, blocking: bool = True) -> bool:  # noqa: FBT001, FBT002 - the same
        """Wait until all calls have ended, and let none begin; or say that some have not."""
        if not self._gate.acquire(blocking):
            return False
        with ExitStack() as stopped:
            stopped.callback(self._gate.release)
            for each in list(self._under_way):
                if not each.acquire(blocking):
                    return False
                stopped.callback(each.release)
            self._stopped.append(stopped.pop_all())
        return True

    def release(self) -> None:
        """Let them begin again."""
        self._stopped.pop().close()


starts: threading.RLock = threading.RLock()
"""Held while a client starts, which imports modules in its thread."""
lookups: Lookups = Lookups()
"""Those of the loops that serve `Client`s. A slow one holds up no start of another client."""
imports: threading.RLock = threading.RLock()
"""Held while a module of the package is imported that is left for its first use."""
loads: threading.RLock = threading.RLock()
"""Held while what httpx leaves for its first use is imported and made."""
_gates: set[weakref.ref[threading.RLock]] = set()  # unlike a WeakSet, copied in one step


def gate() -> threading.RLock:
    """Return a lock to hold while a thread is within SQLite."""
    made = threading.RLock()
    _gates.add(weakref.ref(made, _gates.discard))
    return made


class _Forks(threading.local):
    """What this thread holds for the forks that it is about to make.

    They are several if a signal handler forks while its thread waits to.
    """

    def __init__(self) -> None:
        self.held: list[ExitStack] = []


_forks = _Forks()


def _before_fork() -> None:
    held, given_up, raised = ExitStack(), set[_Lock | None](), list[BaseException]()
    _forks.held.append(held)
    while True:
        busy = None
        try:
            busy = _take_all(held, given_up)
            if busy is None:
                break
            busy.acquire()
            held.callback(busy.release)
        except BaseException as error:  # noqa: BLE001 - a signal's, which ends this one's waiting
            given_up.add(busy)
            raised.append(error)
    for each in [found() for found in list(_gates)]:
        if each is not None and each.acquire(timeout=_PATIENCE):
            held.callback(each.release)
    if raised:
        raise raised[0]  # Python reports it, and goes on with the fork


def _take_all(held: ExitStack, given_up: Container[_Lock | None]) -> _Lock | None:
    """Take what there is to take, or return what another thread has, and hold nothing."""
    locks: list[_Lock] = [starts, lookups, imports, loads]
    for each in locks:
        if each in given_up:
            continue
        if not each.acquire(blocking=False):
            held.close()
            return each
        held.callback(each.release)
    return None


def _after_fork() -> None:
    if _forks.held:
        _forks.held.pop().close()


def _after_fork_in_child() -> None:
    global lookups, starts, imports, loads
    _after_fork()
    # Others may hold the parent's for ever.
    lookups, starts, imports, loads = Lookups(), *(threading.RLock() for _ in range(3))
    _gates.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )
