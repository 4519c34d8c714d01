"""What forks wait for.

A child has one thread of its parent's, and the state of all: what another was amid stays half done
there, and its locks are held for ever. So a fork waits while a client starts, while one looks up
the name of a host, while a module is imported that is left for its first use, and while a spool is
within SQLite.

While it waits for one of these, for more than a moment, it holds up none of the others: who is at
that one may need them, in another thread too, as a `Sealing` may that a spool calls.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - its hooks, and those of logging, run after ours
import math
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Found = TypeVar("Found")
    Given = TypeVarTuple("Given")

_MOMENT: Final = 0.1  # seconds


class Work:
    """Work that a fork must not come into the middle of.

    What is done `with work.alone` is done by one thread at a time. What is done with
    `work.beside()` goes on side by side, however slow one is. All locks belong to a thread, so a
    fork from within the work, or from within another fork's waiting, does not wait for itself.
    """

    def __init__(self, patience: float = math.inf) -> None:
        """Let a fork wait for so many seconds."""
        self.patience = patience
        self.begin_anew()

    def begin_anew(self) -> None:
        """Know of nothing, as in a child: others may hold the parent's locks for ever."""
        self.alone: threading.RLock = threading.RLock()
        self._under_way: set[threading.RLock] = set()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Let forks wait until the end of this."""
        mine = threading.RLock()
        with mine:
            with self.alone:  # not while a fork is going on
                self._under_way.add(mine)
            try:
                yield
            finally:
                self._under_way.discard(mine)

    def run(self, function: Callable[[*Given], Found], *args: *Given) -> Found:
        """Call a function, beside others."""
        with self.beside():
            return function(*args)

    def locks(self) -> Iterator[threading.RLock]:
        """Name the locks of what is going on. Who holds the first lets nothing else begin."""
        yield self.alone
        yield from list(self._under_way)


starts: Work = Work()
"""Clients', which import modules: side by side."""
lookups: Work = Work()
"""Those of the loops that serve `Client`s: side by side."""
imports: Work = Work()
"""Of modules of the package that are left for their first use: alone."""
loads: Work = Work()
"""What httpx leaves for its first use is imported and made: alone."""
disk: Work = Work(patience=5.0)
"""A spool's, within SQLite: side by side. It may hang."""

_all: Final = (starts, lookups, imports, loads, disk)


class _Fork:
    """A fork that this thread is about to make, and what it holds for it."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._held: list[threading.RLock] = []
        self._has_all = False
        self._given_up: list[threading.RLock] = []
        self._raised: list[BaseException] = []
        self._until: dict[Work, float] = {}  # when patience is over, for what was waited for

    def prepare(self) -> None:
        """Wait until none of the work is going on, and let none begin."""
        while not self._has_all:
            self._has_all = True
            if busy := self._take_all():
                until = self._until.setdefault(busy, time.monotonic() + busy.patience)
                for lock in self._locks(busy):
                    self._wait_for(lock, until)
        if self._raised:
            raise self._raised[0]  # Python reports it, and goes on with the fork

    def _locks(self, work: Work) -> Iterator[threading.RLock]:
        return (lock for lock in work.locks() if lock not in self._given_up)

    def _take_all(self) -> Work | None:
        """Take what there is to take, or return what others are at, and hold nothing."""
        for work in _all:
            # Spools that write all the time seldom rest at once, and each soon.
            seconds = _MOMENT if work is disk else 0
            for lock in self._locks(work):
                if not self._take(lock, seconds):
                    self.let_go()
                    return work
        return None

    def _wait_for(self, lock: threading.RLock, until: float) -> None:
        while not self._take(lock, max(0, min(_MOMENT, until - time.monotonic()))):
            # In a child that a signal's handler has forked meanwhile, it may never be free.
            if time.monotonic() >= until or os.getpid() != self._pid:
                self._given_up.append(lock)
                break

    def _take(self, lock: threading.RLock, seconds: float) -> bool:
        """Take a lock, unless a signal's exception ends the wait for this one."""
        try:
            if not lock.acquire(timeout=seconds):
                return False
            self._held.append(lock)
        except BaseException as error:  # noqa: BLE001 - raised when the others were waited for
            self._given_up.append(lock)
            self._raised.append(error)
        return True

    def let_go(self) -> None:
        """Let all of it go on."""
        self._has_all = False
        while self._held:
            self._held.pop().release()


class _Mine(threading.local):
    def __init__(self) -> None:
        self.forks: list[_Fork] = []
        """Several if a signal handler forks while its thread waits to."""


_mine = _Mine()


def let_go() -> None:
    """Hold nothing for a fork: this thread, in a signal's handler, is to wait for a client."""
    for fork in _mine.forks:
        fork.let_go()


def _before_fork() -> None:
    fork = _Fork()
    _mine.forks.append(fork)
    fork.prepare()


def _after_fork() -> None:
    if _mine.forks:
        _mine.forks.pop().let_go()


def _after_fork_in_child() -> None:
    try:
        _after_fork()
    finally:
        for work in _all:
            work.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )
