"""The door for threads and sync code: `Client`, with the same verbs as plain functions.

One background thread runs a loop with an `AsyncClient` on it. A call is checked and encoded in its
caller's thread and handed over; it waits only where its awaited sibling would wait: for room.

Promises:
- Any number of threads may use one client. It starts by itself at its first call.
- At the end of the program it is closed, within `shutdown_timeout`. A process that is killed, or
  that leaves by `os._exit`, does not come to that.
- After a fork the child's client is empty and starts anew with its first call; what the parent has
  accepted, the parent delivers.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - registers its own end, which must come after ours
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack
from weakref import WeakSet

import anyio
import anyio.to_thread
from anyio.from_thread import start_blocking_portal

from asyncanalytics import encoding
from asyncanalytics.binding import current
from asyncanalytics.client import AsyncClient
from asyncanalytics.errors import Closed, InvalidCall, LifecycleError
from asyncanalytics.handover import Handover
from asyncanalytics.plain import PlainVerbs
from asyncanalytics.receipts import Receipt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from asyncanalytics.destinations import BaseDestination
    from asyncanalytics.endpoints import Endpoint
    from asyncanalytics.middleware import Middleware
    from asyncanalytics.receipts import Outcome, SettleHook
    from asyncanalytics.settings import Batching, Queueing, Retrying, Sending
    from asyncanalytics.stats import Stats
    from asyncanalytics.wire import CallWire

    Result = TypeVar("Result")


class ClientSettings(TypedDict, total=False):
    """What `AsyncClient` takes beside the key; see there."""

    endpoint: Endpoint | str | None
    destinations: Iterable[BaseDestination] | None
    name: str | None
    middleware: Iterable[Middleware]
    batching: Batching | None
    queueing: Queueing | None
    retrying: Retrying | None
    sending: Sending | None
    on_settle: SettleHook | None
    shutdown_timeout: float
    disabled: bool | None


class _Background:
    """An `AsyncClient` on a loop of its own, in a thread."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._exit = ExitStack()
        portal = start_blocking_portal(name="asyncanalytics")
        self._portal = self._exit.enter_context(portal)
        try:
            self.handover, self._thread = self._portal.call(self._start)
        except BaseException:
            # A signal may have come while the start was under way, which goes on.
            self._portal.call(self._client.aclose, 0)
            self._exit.close()
            raise

    async def _start(self) -> tuple[Handover | None, int]:
        await self._client.start()
        straight = self._client._straight  # noqa: SLF001 - its own facade
        loop = asyncio.get_running_loop()
        handover = None if straight is None else Handover(straight, loop)
        return handover, threading.get_ident()

    def run(self, function: Callable[[], Awaitable[Result]]) -> Result:
        """Await a function on the loop, after what was handed over before it."""
        if threading.get_ident() == self._thread:
            raise LifecycleError(
                "this waits for the client's own background thread, in which on_settle hooks run: "
                "do it in another thread"
            )

        async def moved() -> Result:
            if self.handover is not None:
                self.handover.move()
            return await function()

        try:
            return self._portal.call(moved)
        except RuntimeError as error:
            if isinstance(error, LifecycleError) or self._client.stats().state != "closed":
                raise
            raise Closed from None  # meanwhile, by another thread

    def submit(self, wire: CallWire, fields: dict[str, Any]) -> Receipt:
        """Accept a call that could not be handed over: wait as long as it takes."""
        if threading.get_ident() == self._thread:
            return self._client._submit_nowait(wire, fields)  # noqa: SLF001 - its own facade
        return self.run(lambda: self._client._submit(wire, fields))  # noqa: SLF001 - the same

    def close(self, timeout: float | None) -> None:
        """Close the client and end the thread."""

        async def close() -> None:
            if self.handover is not None:
                self.handover.close()
            await self._client.aclose(timeout)

        try:
            self.run(close)
        finally:
            self._exit.close()


class Client(PlainVerbs):
    """Sends identify, track, page, screen, group and alias calls from threads and sync code.

    Make one for a program and call its verbs; `close` it, use it as `with Client() as analytics:`,
    or let the end of the program close it. A call returns once it is accepted, and what `track`
    and the others promise is what they promise on `AsyncClient`. Where that would wait for room
    in the queue, the thread waits: on an event loop's own thread use `AsyncClient`.
    """

    def __init__(self, write_key: str | None = None, **settings: Unpack[ClientSettings]) -> None:
        """Set up a client as `AsyncClient` does; no thread runs before the first call.

        `on_settle` runs in the background thread. It must not wait for this client.

        Raises:
            ConfigurationError: if the key, the endpoint or a setting cannot work.
        """
        self._write_key = write_key
        for name in ("destinations", "middleware"):
            if isinstance(given := settings.get(name), Iterator):
                settings[name] = list(given)  # read again in a forked child
        self._settings = settings
        self._client = AsyncClient(write_key, **settings)
        self._renew()
        _clients.add(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._background: _Background | None = None
        self._is_closed = False
        self._refused = 0

    # -------------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Start the background thread now, so that the first call finds it; a closed client too.

        Raises:
            LifecycleError: if it is started already.
        """
        if self._background is not None:
            raise LifecycleError("this Client is started already: one start is enough")
        self._start()

    def flush(self, timeout: float | None = None) -> Stats:
        """Send without lingering, and wait until all calls accepted before this are settled.

        Args:
            timeout: seconds; None waits as long as retries go on.

        Raises:
            FlushTimeout: if the time ran out. Nothing is lost by that: delivery goes on.
        """
        if self._is_closed:
            raise Closed
        if (background := self._background) is not None:
            background.run(lambda: self._client.flush(timeout))
        return self.stats()

    def close(self, timeout: float | None = None) -> Stats:
        """Refuse new calls, send what is pending, and stop at the deadline.

        What is still pending then is dropped as `closed`, counted and logged. Calling it again
        gives the same result.

        Args:
            timeout: seconds; the client's `shutdown_timeout` unless given. 0 stops at once.

        Returns:
            The final figures.
        """
        with self._lock:
            self._is_closed = True
            background, self._background = self._background, None
        if background is not None:
            background.close(timeout)
            _open.discard(self)
        return self.stats()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:  # noqa: ARG002 - the framework passes it
        """Start with an ASGI app and close with it, for an app whose views are sync.

        A server that a signal ends may never come to the end of the program.
        """
        await anyio.to_thread.run_sync(self._start)
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.close)

    def stats(self) -> Stats:
        """Return the figures as they are now. Works at any time in a client's life."""
        background = self._background
        found = self._client.stats() if background is None else background.run(self._stats)
        never = self._is_closed and found.state == "new"  # closed before it ran
        state = "closed" if never else found.state
        return replace(found, state=state, refused=found.refused + self._refused)

    def settled(self, receipt: Receipt, timeout: float | None = None) -> Outcome:
        """Wait until a call has ended, and return how.

        Raises:
            TimeoutError: if that took longer than `timeout` seconds. Delivery goes on.
        """
        background = self._background
        if receipt.outcome is not None or background is None:
            return _outcome(receipt)

        async def wait() -> Outcome:
            async with asyncio.timeout(timeout):
                return await receipt.settled()

        return background.run(wait)

    def __enter__(self) -> Self:
        """Start the client."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the client within `shutdown_timeout`; an exception of the body goes on."""
        self.close()

    def __repr__(self) -> str:
        """Name the destinations and the state; keys never show."""
        return repr(self._client).replace("<AsyncClient", "<Client")

    async def _stats(self) -> Stats:
        return self._client.stats()

    def _start(self, *, anew: bool = True) -> _Background:
        with self._lock:
            if _is_over.is_set() or (self._is_closed and not anew):
                raise Closed  # at the program's end nothing would send the call any more
            self._is_closed = False
            if self._background is None:
                self._background = _Background(self._client)
                _open.add(self)
            return self._background

    def _forget(self) -> None:
        """Begin anew in a forked child, and leave all that is the parent's alone."""
        _inherited.append((self._client, self._background))
        for destination in self._settings.get("destinations") or ():
            destination.release()
        was_closed = self._is_closed
        self._client = AsyncClient(self._write_key, **self._settings)
        self._renew()
        self._is_closed = was_closed

    # ------------------------------------------------------------------------ the way of one call

    def _take(self, wire: CallWire, fields: dict[str, Any]) -> Receipt:
        background = self._background or self._start(anew=False)
        source = current.get()
        opted_out = False
        if source is not None:
            binding = source.binding()
            binding.fill(fields)
            opted_out = binding.opted_out
        if background.handover is None or opted_out:
            return background.submit(wire, fields)
        try:
            message_id, body = encoding.encode(wire.type, wire.validate(fields))
        except InvalidCall:
            with self._lock:
                self._refused += 1
            raise
        receipt = Receipt(wire.type, message_id, body)
        return receipt if background.handover.offer(receipt) else background.submit(wire, fields)


def _outcome(receipt: Receipt) -> Outcome:
    if receipt.outcome is None:
        raise LifecycleError("this receipt is not from a call of this Client")
    return receipt.outcome


# ------------------------------------------------------------------------------- forks and the end

_clients: WeakSet[Client] = WeakSet()
_open: set[Client] = set()
"""Those with a thread; kept, so that none is lost with what it has accepted."""
_is_over = threading.Event()
"""Set once the program has come to its end."""
_inherited: list[object] = []
"""What is the parent's, kept in a forked child: to let go of it would touch its sockets."""


def _after_fork() -> None:
    _open.clear()
    _is_over.clear()
    for client in _clients:
        client._forget()  # noqa: SLF001 - this file's own


def _at_exit() -> None:
    _is_over.set()
    for client in list(_open):
        client.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
# Exit handlers proper come too late: by then no thread can be started, and so no name looked up.
# What threading offers its own library for that runs earlier, also in multiprocessing's children.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
