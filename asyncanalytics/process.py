"""The process that clients with a thread of their own live in: its forks, and its end.

Promises:
- A program is over when its main thread and all others that Python waits for are done. Then each
  client is closed, all at the same time, and further calls are refused.
- A thread that waits for room in a queue holds that up no longer than `shutdown_timeout`.
- A forked child has nothing of its parent's, and touches nothing of it.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - registers its own end, which must come after ours
import os
import socket
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from weakref import WeakSet

from asyncanalytics import forks
from asyncanalytics.aside import begin, beside
from asyncanalytics.errors import FlushTimeout, LifecycleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

_LAST_FLUSH = 2.0  # seconds
_MOMENT = 0.05  # seconds
_LONG_LOOKUP = 30.0  # seconds, after which a first one may as well hang for ever
_LONGEST_LOOKUP = 600.0  # seconds, after which one may that began beside others


class Living(Protocol):
    """A client, as it is seen from here."""

    def flush(self, timeout: float | None = None) -> object:
        """Send what is pending."""

    def begin_to_close(self) -> None:
        """Let its deadline begin."""

    def close(self) -> object:
        """End within its own deadline."""

    def forget(self) -> None:
        """Begin anew in a forked child, once."""


clients: WeakSet[Living] = WeakSet()
"""Every client."""
running: set[Living] = set()
"""Those with a thread; kept, so that none is lost with what it has accepted."""
inherited: list[object] = []
"""What is the parent's, kept in a forked child: to let go of it would touch its sockets."""

_starting: set[threading.Thread] = set()
_ending: set[int] = set()  # this process, at its end: a lock could stay held in a child
_waiting: dict[int, float] = {}  # threads that wait for room → until when that is no wonder


def must_be_able_to_start() -> None:
    """Raise where a client must not be started."""
    if os.getpid() in _ending:
        raise LifecycleError(
            "the program is ending, and nothing would send the call any more: make it before the "
            "last thread ends; an exit handler is too late"
        )
    if threading.current_thread() in _starting:
        raise LifecycleError(
            "this call is made by the start of a client, as a logging handler's may be, and would "
            "wait for itself"
        )


@contextmanager
def starting() -> Iterator[None]:
    """Let forks wait while a client starts in this thread; one from this thread does not."""
    me = threading.current_thread()
    _starting.add(me)
    try:
        with forks.starts.beside():
            yield
    finally:
        _starting.discard(me)


@contextmanager
def waiting(seconds: float) -> Iterator[None]:
    """Let the end of the program be held up by this thread for so long, if it waits within."""
    me = threading.get_ident()
    _waiting[me] = time.monotonic() + seconds
    try:
        yield
    finally:
        del _waiting[me]


# ---------------------------------------------------------------------------------------- the end


def _others() -> list[threading.Thread]:
    """Return the threads for whose end Python waits, and that do not wait for the close."""
    mine = (threading.main_thread(), threading.current_thread())
    now = time.monotonic()
    return [
        thread
        for thread in threading.enumerate()
        if not (thread.daemon or thread in mine or _serves_a_loop(thread))
        and _waiting.get(thread.ident or 0, now) >= now
    ]


def _serves_a_loop(thread: threading.Thread) -> bool:
    return type(thread).__module__.startswith("anyio.") or thread.name.startswith("asyncio_")


def _at_exit() -> None:
    """Close all clients, or see to it that the last thread's end does.

    Threads that outlive the main one cannot be waited for here: they may wait for its end. But
    after this no pool of threads takes anything, as a destination of the user's may need one.
    """
    try:
        if not (_others() and _leave_to_last()):
            _end()
    except BaseException:  # a signal's, and a child of multiprocessing has no exit handler later
        _end()
        raise


def _leave_to_last() -> bool:
    for client in list(running):
        with suppress(FlushTimeout, LifecycleError):
            client.flush(_LAST_FLUSH)
    try:
        threading.Thread(target=_end_with_the_last, name="asyncanalytics end").start()
    except RuntimeError:  # Python 3.12.0 and 3.12.1 start no thread any more
        return False
    return True


def _end_with_the_last() -> None:
    while threads := _others():
        threads[0].join(_MOMENT)
    _end()


def _end() -> None:
    _ending.add(os.getpid())
    with ExitStack() as last_first:  # and each, also where another raises something
        # Also those that another thread is just starting: each is closed once it has started.
        for client in {*running, *clients}:
            last_first.callback(client.close)
        for client in list(running):
            last_first.callback(client.begin_to_close)  # so that all deadlines run together


# What a signal's exception has ended on the way, an exit handler proper ends.
atexit.register(_end)
# Otherwise those come too late: by then no thread can be started, as a first call needs one. What
# threading offers its own library for that runs earlier, also in multiprocessing's children.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)

# ------------------------------------------------------------------------------------------ forks


class _Lookup(NamedTuple):
    """One that is under way; if it takes longer than `patience`, another may do better."""

    found: Future[Any]
    start: float
    patience: float  # twice that of the last one, up to a limit: each that hangs keeps a thread


def new_loop() -> asyncio.AbstractEventLoop:
    """Make a loop, of the kind that is usual here, whose lookups of names a fork waits for."""
    loop = asyncio.new_event_loop()
    under_way: dict[object, _Lookup] = {}

    def forget(what: object, found: Future[Any]) -> None:
        last = under_way.get(what)
        if last is not None and last.found is found:  # and no later one
            under_way.pop(what, None)

    async def getaddrinfo(host: Any, port: Any, **hints: int) -> Any:
        what = (host, port, *sorted(hints.items()))
        now = time.monotonic()
        last = under_way.get(what)
        if last is None or now >= last.start + last.patience:  # else who tries again waits for it
            found = begin(forks.lookups.run, partial(socket.getaddrinfo, host, port, **hints))
            patience = _LONG_LOOKUP if last is None else min(2 * last.patience, _LONGEST_LOOKUP)
            last = under_way[what] = _Lookup(found, now, patience)
            found.add_done_callback(partial(forget, what))
        return await asyncio.wrap_future(last.found)

    async def getnameinfo(address: Any, flags: int = 0) -> Any:
        return await beside(forks.lookups.run, socket.getnameinfo, address, flags)

    # On this loop alone: a class of our own would have to know on which it can be based.
    loop.getaddrinfo = getaddrinfo  # type: ignore[method-assign]
    loop.getnameinfo = getnameinfo  # type: ignore[assignment, method-assign]
    return loop


def _after_fork_in_child() -> None:
    _waiting.clear()
    _starting.clear()  # a start that forks goes on in the parent
    _ending.clear()
    for client in list(clients):
        client.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
    # Once more, for what a handler's exception has kept the first from.
    os.register_at_fork(after_in_child=_after_fork_in_child)
