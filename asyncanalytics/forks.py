"""What forks wait for.

A child has one thread of its parent's, and the state of all: what another was amid stays half done
there, and its locks are held for ever. So a fork waits while a client starts, while one looks up
the name of a host, while a module is imported that is left for its first use, and while a spool is
within SQLite.

Who is at one of these may need others, in another thread too:
- a start: all of them, and other clients' starts, as a destination's `open` may
- a spool: all of them, as the user's `Sealing` may
- an import: the loads
So while a fork waits for one, for more than a moment, it holds up none of the others. Where a
signal's handler comes into its waiting and forks too, it holds up nothing until that is over.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - its hooks, and those of logging, run after ours
import math
import os
import threading
import time
from contextlib import contextmanager, suppress
from operator import methodcaller
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple

from asyncanalytics.errors import LifecycleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Found = TypeVar("Found")
    Given = TypeVarTuple("Given")

_MOMENT: Final = 0.1  # seconds for which a fork waits with all else in hand
_LOOK_AGAIN: Final = 0.1  # seconds, for whether to wait on


class Work:
    """Work that a fork must not come into the middle of.

    It begins at a gate, which a fork shuts. What is done with `work.beside()` goes through, and on
    side by side, however slow one is. What is done `with work.alone` stays in the gate, and so is
    done by one thread at a time. All locks belong to a thread, so a fork from within the work, or
    from within another fork's waiting, does not wait for itself.
    """

    def __init__(self, patience: float = math.inf) -> None:
        """Let a fork wait for so many seconds."""
        self.patience = patience
        self.begin_anew()

    def begin_anew(self) -> None:
        """Know of nothing, as in a child: others may hold the parent's locks for ever."""
        self.gate: threading.RLock = threading.RLock()
        self._under_way: set[threading.RLock] = set()

    @property
    def alone(self) -> threading.RLock:
        """What to hold for work that nothing else of its kind may go on beside."""
        return self.gate

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Let forks wait until the end of this."""
        mine = threading.RLock()
        with mine:
            with self.gate:  # not while a fork is going on
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
        """Name the gate, and then the locks of what is under way: no more once that is shut."""
        yield self.gate
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


class _Hand(list["threading.RLock"]):
    """The locks that a fork holds.

    Each step is one call of C code, which a signal's handler cannot come into the middle of: the
    handler always finds in here what is held, and nothing else.
    """

    def take(self, lock: threading.RLock, seconds: float) -> bool:
        """Take a lock, if it is free in time."""
        self.extend(filter(methodcaller("acquire", timeout=seconds), [lock]))
        return lock in self  # a handler may have let it go already

    def let_go(self) -> None:
        """Let go of all."""
        with suppress(IndexError):  # none is left
            any(map(methodcaller("release"), iter(self.pop, None)))


class _Fork:
    """A fork that this thread is about to make, and what it holds for it."""

    def __init__(self) -> None:
        self.is_waiting = True
        self.hand = _Hand()
        self._pid = os.getpid()
        self._is_disturbed = False
        self._patience: dict[Work, float] = {}  # what is left of it, for what was waited for
        self._given_up: list[threading.RLock] = []
        self._raised: list[BaseException] = []

    def prepare(self) -> None:
        """Wait until none of the work is going on, and let none begin.

        Take all of it. If some is going on, let go of all, wait for that alone with its gate shut,
        and try again while that is in hand: it cannot be what is going on the next time. So it is
        enough that each has been waited for once, and the others rest for a moment.
        """
        while self.is_waiting:
            self._is_disturbed = False
            if busy := self._take_all():
                self._wait_for(busy)
            else:
                self.is_waiting = False  # first: from here on, no handler makes this stand back
                self.is_waiting = self._is_disturbed
        if self._raised:
            raise self._raised[0]  # Python reports it, and goes on with the fork

    def stand_back(self) -> None:
        """Let all of it go on, while a signal's handler comes into the waiting."""
        self._is_disturbed = True
        self.hand.let_go()

    def _take_all(self) -> Work | None:
        """Take what there is to take, or return what others are at, and hold nothing."""
        for work in _all:
            # Spools that write all the time seldom rest at once, and each soon.
            seconds = _MOMENT if work is disk else 0
            for lock in self._locks(work):
                if not self._take(lock, seconds):
                    self.hand.let_go()
                    return work
        return None

    def _wait_for(self, work: Work) -> None:
        """Wait until it is over, as long as there is patience, and let no more of it begin."""
        until = time.monotonic() + self._patience.get(work, work.patience)
        for lock in self._locks(work):
            while not self._take(lock, max(0, min(_LOOK_AGAIN, until - time.monotonic()))):
                # In a child that a signal's handler has forked meanwhile, it may never be free.
                if time.monotonic() >= until or os.getpid() != self._pid:
                    self._given_up.append(lock)
                    break
            if work is starts:
                self.hand.let_go()  # it may need another, which has not begun
        self._patience[work] = until - time.monotonic()

    def _locks(self, work: Work) -> Iterator[threading.RLock]:
        return (lock for lock in work.locks() if lock not in self._given_up)

    def _take(self, lock: threading.RLock, seconds: float) -> bool:
        """Take a lock. True: go on, if need be without it: a signal's exception ends the wait."""
        try:
            return self.hand.take(lock, seconds)
        except BaseException as error:  # noqa: BLE001 - raised when the others were waited for
            self._given_up.append(lock)
            self._raised.append(error)
            return True


class _Mine(threading.local):
    def __init__(self) -> None:
        # Several if a signal's handler forks while its thread waits to.
        self.forks: list[_Fork] = []


_mine = _Mine()


def stand_back() -> None:
    """Hold nothing for a fork: this thread, in a signal's handler, is to wait for a client.

    Call it before any lock of a client's is taken: who has that may wait for what the fork holds.

    Raises:
        LifecycleError: if the fork waits no longer. By then it holds locks of the standard library
            too, which the client may need, and what it has waited for must not begin again.
    """
    if not all(fork.is_waiting for fork in _mine.forks):
        raise LifecycleError(
            "this call has to wait, and comes in the midst of a fork of its thread, as a signal "
            "handler's may: make it before or after the fork"
        )
    for fork in _mine.forks:
        fork.stand_back()


def _before_fork() -> None:
    fork = _Fork()
    try:
        # Those whose waiting this one comes into: it would wait for who waits for them.
        for outer in _mine.forks:
            if outer.is_waiting:
                outer.stand_back()
        _mine.forks.append(fork)
        fork.prepare()
    finally:
        fork.is_waiting = False


def _after_fork() -> None:
    # One that waits still is another, which a handler has come into and forked from; the hook above
    # has failed then.
    while _mine.forks and not _mine.forks[-1].is_waiting:
        if _mine.forks[-1].hand:
            _mine.forks[-1].hand.let_go()
        _mine.forks.pop()


def _after_fork_in_child() -> None:
    try:
        _after_fork()
    finally:
        for work in _all:
            work.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)
    os.register_at_fork(after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
    # Once more, for what a handler's exception has kept the first from.
    os.register_at_fork(after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
