"""The door for threads and sync code: `Client`, with the same verbs as plain functions.

One background thread runs a loop with an `AsyncClient` on it. A call is checked and encoded in its
caller's thread and handed over; it waits only where its awaited sibling would wait: for room.

Promises:
- Any number of threads may use one client. It starts by itself at its first call.
- At the end of the program, when the main thread and all others that Python waits for are done,
  it is closed, within `shutdown_timeout`. A process that is killed, or that leaves by `os._exit`,
  does not come to that.
- After a fork the child's client is empty and starts anew with its first call; what the parent has
  accepted, the parent delivers.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack

import anyio
import anyio.to_thread
from anyio.from_thread import BlockingPortal

from asyncanalytics import encoding, forks, process
from asyncanalytics.binding import current
from asyncanalytics.client import AsyncClient
from asyncanalytics.errors import Closed, InvalidCall, LifecycleError
from asyncanalytics.handover import Handover
from asyncanalytics.plain import PlainVerbs
from asyncanalytics.receipts import Receipt
from asyncanalytics.secret import Secret, stripped
from asyncanalytics.transport import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from asyncanalytics.calls import Call
    from asyncanalytics.destinations import BaseDestination
    from asyncanalytics.endpoints import Endpoint
    from asyncanalytics.middleware import Middleware
    from asyncanalytics.oauth import OAuth
    from asyncanalytics.receipts import Outcome, SettleHook
    from asyncanalytics.settings import Batching, Queueing, Retrying, Sending, Spooling
    from asyncanalytics.stats import Stats
    from asyncanalytics.wire import CallWire

    Result = TypeVar("Result")


load()  # now: a first call may be a signal handler's, who would wait for an import that it is amid

_LAST_BREATH = 1.0  # seconds


class ClientSettings(TypedDict, total=False):
    """What `AsyncClient` takes beside the key; see there."""

    endpoint: Endpoint | str | None
    destinations: Iterable[BaseDestination] | None
    name: str | None
    oauth: OAuth | None
    middleware: Iterable[Middleware]
    batching: Batching | None
    queueing: Queueing | None
    retrying: Retrying | None
    sending: Sending | None
    spool: str | os.PathLike[str] | Spooling | None
    on_settle: SettleHook | None
    shutdown_timeout: float
    disabled: bool | None


class _Background:
    """An `AsyncClient` on a loop of its own, in a thread."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self.handover: Handover | None = None
        self._ready: Future[BlockingPortal] = Future()
        self._thread = threading.Thread(target=self._run, name="asyncanalytics", daemon=True)

    def start(self) -> None:
        """Start the thread, and wait until the client is open."""
        self._thread.start()
        self._portal = self._ready.result()

    def give_up(self) -> None:
        """Let a start end that a signal's exception has come into; one that is over, at once."""
        if not self._ready.cancel() and self._ready.exception() is None:
            self._portal = self._ready.result()
            self.close(0)

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread, if it was started."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            with ExitStack() as start:
                start.enter_context(process.starting())
                anyio.run(self._serve, start, backend_options={"loop_factory": process.new_loop})
        except BaseException as error:  # noqa: BLE001 - raised where the start was asked for
            if not self._ready.done() and self._ready.set_running_or_notify_cancel():
                self._ready.set_exception(error)

    async def _serve(self, start: ExitStack) -> None:
        await self._client.start()
        async with BlockingPortal() as portal:
            straight = self._client._straight  # noqa: SLF001 - its own facade
            if straight is not None:
                self.handover = Handover(straight, asyncio.get_running_loop())
            start.close()
            if self._ready.set_running_or_notify_cancel():
                self._ready.set_result(portal)
                await portal.sleep_until_stopped()
            else:
                await self._client.aclose(0)

    @property
    def is_here(self) -> bool:
        """Whether this is the background thread itself."""
        return threading.current_thread() is self._thread

    def must_not_be_here(self) -> None:
        """Raise in the background thread, which cannot wait for itself."""
        if self.is_here:
            raise LifecycleError(
                "this waits for the client's own background thread, in which on_settle hooks run: "
                "do it in another thread"
            )

    def run(self, function: Callable[[], Awaitable[Result]]) -> Result:
        """Await a function on the loop, after what was handed over before it."""
        self.must_not_be_here()
        forks.stand_back()

        async def moved() -> Result:
            self._move()
            try:
                return await function()
            except BaseException as error:  # noqa: BLE001 - raised again below
                held = [error]
            raise stripped(held)

        try:
            future = self._portal.start_task_soon(moved)
            try:
                return future.result()
            except BaseException:
                future.cancel()  # a signal's exception ends the waiting here, and so there
                raise
        except RuntimeError as error:
            if isinstance(error, LifecycleError) or self._client.stats().state != "closed":
                raise
            raise Closed from None  # meanwhile, by another thread

    def submit(self, wire: CallWire, fields: dict[str, Any]) -> Receipt:
        """Accept a call that could not be handed over: wait as long as it takes."""
        client = self._client
        if self.is_here:
            return client._submit_nowait(wire, fields)  # noqa: SLF001 - its own facade
        with process.waiting(client._shutdown_timeout):  # noqa: SLF001 - the same
            return self.run(lambda: client._submit(wire, fields))  # noqa: SLF001 - the same

    def stats(self) -> Stats:
        """Return the figures, from any thread."""

        async def stats() -> Stats:
            return self._client.stats()

        if self.is_here:
            self._move()
            return self._client.stats()
        try:
            return self.run(stats)
        except Closed:
            return self._client.stats()

    def begin_to_close(self) -> None:
        """Let the client close, and do not wait for it."""
        self._portal.start_task_soon(self._close, None)

    def close(self, timeout: float | None) -> None:
        """Close the client and end the thread."""
        with suppress(Closed):  # its end has begun, by a close that a signal came into
            self.run(lambda: self._close(timeout))
            self.run(self._portal.stop)
        # A loop ends after what a destination of the user's has in threads, which may hang.
        self._thread.join(_LAST_BREATH)

    async def _close(self, timeout: float | None) -> None:
        if self.handover is not None:
            self.handover.close()
        await self._client.aclose(timeout)

    def _move(self) -> None:
        if self.handover is not None:
            self.handover.move()


class Client(PlainVerbs):
    """Sends identify, track, page, screen, group and alias calls from threads and sync code.

    Make one for a program and call its verbs; `close` it, use it as `with Client() as analytics:`,
    or let the end of the program close it. A call returns once it is accepted, and what `track`
    and the others promise is what they promise on `AsyncClient`. Where that would wait for room
    in the queue, the thread waits: on an event loop's own thread use `AsyncClient`. A signal
    handler amid a fork of its thread cannot wait: what has to raises `LifecycleError` there.
    """

    def __init__(
        self, write_key: str | Secret | None = None, **settings: Unpack[ClientSettings]
    ) -> None:
        """Set up a client as `AsyncClient` does; no thread runs before the first call.

        `on_settle` runs in the background thread. It must not wait for this client.

        Raises:
            ConfigurationError: if the key, the endpoint or a setting cannot work.
        """
        key = Secret(write_key) if write_key else None
        del write_key  # what fails below shows this frame
        if settings.get("destinations") is None:
            # Asked once: a forked child may find the environment changed.
            key = key or Secret(os.environ.get("ASYNCANALYTICS_WRITE_KEY", ""))
            endpoint = settings.get("endpoint") or os.environ.get("ASYNCANALYTICS_ENDPOINT")
            settings["endpoint"] = endpoint
        self._write_key = key
        for name in ("destinations", "middleware"):
            if isinstance(given := settings.get(name), Iterator):
                settings[name] = list(given)  # read again in a forked child
        self._settings = settings
        self._client = AsyncClient(key, **settings)
        settings["disabled"] = self._client._disabled  # noqa: SLF001 - its own facade
        self._renew(is_closed=False)
        process.clients.add(self)

    def _renew(self, *, is_closed: bool) -> None:
        # A signal handler may come to a lock that its thread holds.
        self._lock = threading.RLock()
        self._closing = threading.RLock()
        self._background: _Background | None = None
        self._given_up: _Background | None = None  # it may be ending still
        self._is_closed = is_closed
        self._refused = 0
        self._pid = os.getpid()  # last: until then a child begins anew again

    # -------------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Start the background thread now, so that the first call finds it; a closed client too.

        Raises:
            LifecycleError: if it is started already.
        """
        if self._background is not None and not self._is_closed:
            raise LifecycleError("this Client is started already: one start is enough")
        forks.stand_back()
        with self._closing:  # which ends first, if it is under way
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

        What is still pending then is dropped as `closed`, counted and logged; with a spool it
        stays there, for the next start. Calling it again, or together, gives the same result. A
        signal's exception ends the waiting alone: the closing goes on, and another `close` waits
        for it.

        Args:
            timeout: seconds; the client's `shutdown_timeout` unless given. 0 stops at once.

        Returns:
            The final figures.
        """
        if (background := self._background) is not None:
            background.must_not_be_here()
        forks.stand_back()
        with self._closing:
            with self._lock:
                self._is_closed = True
                background = self._background
            if background is not None:
                background.close(timeout)
                self._background = None
                process.running.discard(self)
            self._let_end()
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
        found = self._client.stats() if background is None else background.stats()
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

    def deliver(self, call: Call, *, timeout: float | None = None) -> Outcome:
        """Send a call at once, and return when every destination that it is for has it.

        See `AsyncClient.deliver` for what it promises and raises.
        """
        background = self._background or self._start(anew=False)
        with process.waiting(self._client._shutdown_timeout):  # noqa: SLF001 - its own facade
            return background.run(lambda: self._client.deliver(call, timeout=timeout))

    def __enter__(self) -> Self:
        """Start the client."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the client within `shutdown_timeout`; an exception of the body goes on."""
        self.close()

    def __repr__(self) -> str:
        """Name the destinations and the state; keys never show."""
        client = getattr(self, "_client", None)  # a constructor that fails is shown in tracebacks
        return "<Client>" if client is None else repr(client).replace("<AsyncClient", "<Client")

    def _start(self, *, anew: bool = True) -> _Background:
        process.must_be_able_to_start()
        forks.stand_back()
        with self._lock:
            if self._is_closed and not (anew and self._background is None):
                raise Closed
            if self._background is None:
                self._let_end()
                background = _Background(self._client)
                try:
                    background.start()
                    process.running.add(self)
                    self._background = background
                except BaseException:
                    if self._background is None:
                        self._given_up = background
                        background.give_up()
                    raise
            self._is_closed = False
            return self._background

    def _let_end(self) -> None:
        """Wait for the end of a start that was given up."""
        if self._given_up is not None:
            self._given_up.join(self._client._shutdown_timeout)  # noqa: SLF001 - its own facade
            self._given_up = None

    def begin_to_close(self) -> None:
        """Let `close` find the closing under way."""
        with self._lock:
            if self._background is not None and not self._is_closed:
                self._background.begin_to_close()

    def forget(self) -> None:
        """Begin anew in a forked child, and leave all that is the parent's alone."""
        if self._pid == os.getpid():
            return
        process.inherited.append((self._client, self._background))
        process.running.discard(self)
        for destination in self._settings.get("destinations") or ():
            destination.release()
        self._client = AsyncClient(self._write_key, **self._settings)
        self._renew(is_closed=self._is_closed)

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
