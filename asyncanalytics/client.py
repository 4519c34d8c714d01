"""The door: `AsyncClient`, its life, and the way of a call from the caller to its queues.

A client is made anywhere, lives on one event loop from `start` to `aclose`, and refuses calls
outside that span. Closed, it may be started again, on any loop. One call goes: fill in what is
bound here, validate, middleware, encode once, find room, put.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import warnings
from collections.abc import Iterable
from contextlib import asynccontextmanager
from contextvars import Context
from enum import Enum
from inspect import iscoroutinefunction
from threading import get_ident
from typing import TYPE_CHECKING, Any, Self, TypedDict
from weakref import WeakSet

import anyio

from asyncanalytics import encoding, endpoints
from asyncanalytics.binding import bound_source, current
from asyncanalytics.bound import BoundClient
from asyncanalytics.breath import SHORT, Breath
from asyncanalytics.destinations import BaseDestination, Destination
from asyncanalytics.errors import (
    Closed,
    ConfigurationError,
    FlushTimeout,
    Forked,
    InvalidCall,
    LifecycleError,
    NotStarted,
    QueueFull,
    WrongLoop,
    describe,
)
from asyncanalytics.flusher import Flusher
from asyncanalytics.receipts import FanOut, Outcome, Receipt
from asyncanalytics.routing import Route, Router
from asyncanalytics.secret import Secret, discreet
from asyncanalytics.settings import Batching, Queueing, Retrying, Sending, Spooling
from asyncanalytics.stats import Stats
from asyncanalytics.transport import Transport, loaded
from asyncanalytics.verbs import Verbs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from types import TracebackType

    from pydantic import BaseModel

    from asyncanalytics.binding import UserId
    from asyncanalytics.endpoints import Endpoint
    from asyncanalytics.journal import Journal
    from asyncanalytics.middleware import Middleware
    from asyncanalytics.oauth import OAuth
    from asyncanalytics.receipts import SettleHook
    from asyncanalytics.wire import CallWire

logger: logging.Logger = logging.getLogger("asyncanalytics")
# The running loop or None, without an exception where there is none: asyncio documents it as
# low-level, and it is what get_running_loop itself calls.
_running_loop = asyncio._get_running_loop  # noqa: SLF001


class State(Enum):
    """Where a client stands in its life."""

    NEW = "new"
    """Made, not started: calls raise `NotStarted`."""
    OPEN = "open"
    """Taking calls and sending them."""
    CLOSING = "closing"
    """Taking no more calls, sending what is pending."""
    CLOSED = "closed"
    """Done. What was still pending at the deadline has been dropped as `closed`, or is left in the
    spool."""


class LifespanState(TypedDict):
    """What `AsyncClient.lifespan` gives to an ASGI app: `request.state.analytics`."""

    analytics: AsyncClient


class _Nowhere:
    """What no running loop is, not even the lack of one."""

    _thread_id = None  # as a loop of asyncio has it that does not run


_NOWHERE = _Nowhere()
# CPython 3.11 makes a system call to tell the running loop. There a call asks the loop which thread
# it runs in; nothing public tells that, and nothing in its asyncio will change any more.
_TELLS_QUICKLY = sys.version_info >= (3, 12)


class AsyncClient(Verbs):
    """Sends identify, track, page, screen, group and alias calls without blocking the loop.

    Use it as `async with AsyncClient("WRITE_KEY") as analytics:`, or call `start` and `aclose`.
    One client serves one event loop and any number of tasks on it.

    The first one that is made outside of a loop imports what httpx needs for sending; made on a
    loop, it does so in a thread as it starts. Where those modules have no bytecode, as in an image
    that leaves it out, Python compiles them then, which holds up the loop for tens of milliseconds
    at a time: make the client before the loop runs there. Middleware needs pydantic's models, which
    are imported where the first client that has any is made, unless the program has named one.
    """

    def __init__(
        self,
        write_key: str | Secret | None = None,
        *,
        endpoint: Endpoint | str | None = None,
        destinations: Iterable[BaseDestination] | None = None,
        name: str | None = None,
        oauth: OAuth | None = None,
        middleware: Iterable[Middleware] = (),
        batching: Batching | None = None,
        queueing: Queueing | None = None,
        retrying: Retrying | None = None,
        sending: Sending | None = None,
        spool: str | os.PathLike[str] | Spooling | None = None,
        on_settle: SettleHook | None = None,
        shutdown_timeout: float = 10.0,
        disabled: bool | None = None,
    ) -> None:
        """Set up a client; nothing is sent and no task runs before it is started.

        Args:
            write_key: the source's key. Left out: `ASYNCANALYTICS_WRITE_KEY` of the environment.
            endpoint: where to send, an `Endpoint` or text as `endpoints.parse` reads it. Left
                out: `ASYNCANALYTICS_ENDPOINT`, or Segment.
            destinations: several places to send to, instead of a key and an endpoint.
            name: the destination's name in stats and logs; its endpoint's, unless given.
            oauth: an OAuth app whose tokens sign the requests in place of the key.
            middleware: functions from call to call or None, run in order on every call.
            batching: how calls are gathered into requests.
            queueing: how much may be pending for each destination, and what happens beyond.
            retrying: how often and how long a request is tried again.
            sending: how requests travel.
            spool: a folder on a local disk, or a `Spooling`: calls are kept there until they are
                delivered. When an awaited verb returns, its call survives the process and, where
                the disk honours a flush, a loss of power; a `_nowait` call does some milliseconds
                later. What a dead process left there is delivered with the same ids. Left out:
                calls are in memory only.
            on_settle: called with an outcome and the receipts of the calls that ended so, for
                each group of calls that ended together. May be async. It must be quick; what
                it raises is counted and logged, and delivery goes on.
            shutdown_timeout: seconds that `aclose` gives to what is pending, unless told.
            disabled: check and count calls, but send nothing. Left out:
                `ASYNCANALYTICS_DISABLED` of the environment.

        Raises:
            ConfigurationError: if the key, the endpoint or a setting cannot work.
        """
        key = None if write_key is None else Secret(write_key)
        del write_key  # what fails below shows this frame
        self._state = State.NEW
        self._disabled = _env_flag("ASYNCANALYTICS_DISABLED") if disabled is None else disabled
        if destinations is None:
            destinations = [self._only_destination(key, endpoint, name, oauth)]
        elif any(given is not None for given in (key, endpoint, name, oauth)):
            raise ConfigurationError(
                "give either a write key with its endpoint, name and oauth, or destinations, "
                "not both"
            )
        _require(isinstance(destinations, Iterable), "destinations must be a list of them")
        _require(isinstance(middleware, Iterable), "middleware must be a list of functions")
        destinations, middleware = list(destinations), list(middleware)
        _check_kinds(destinations, middleware, batching, queueing, retrying, sending, on_settle)
        self._journal = None if self._disabled else _journal(spool)
        _require(_is_time(shutdown_timeout), "shutdown_timeout must be 0 or more seconds")
        self._sending = sending or Sending()
        self._breath = Breath()
        self._flushers = tuple(
            Flusher(
                destination,
                batching=batching or Batching(),
                queueing=queueing or Queueing(),
                retrying=retrying or Retrying(),
                max_in_flight=self._sending.max_in_flight,
                on_settle=on_settle,
                journal=self._journal,
                breath=self._breath,
            )
            for destination in destinations
        )
        self._by_name = {flusher.name: flusher for flusher in self._flushers}
        if not self._flushers or len(self._by_name) != len(self._flushers):
            raise ConfigurationError("give at least one destination, each with its own name")
        self._router = Router(self._flushers, tuple(middleware))
        straight = None if self._disabled else self._router.straight
        self._straight = straight if self._journal is None else None
        self._durably = straight if self._journal is not None else None
        self._transport = Transport(
            self._sending, connections=self._sending.max_in_flight * len(self._flushers)
        )
        self._shutdown_timeout = shutdown_timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0  # of the process that has started it
        self._has_warned = False
        self._open_on: object = _NOWHERE  # the loop, while calls are taken
        self._asked: Any = _NOWHERE  # the same, where it is one of asyncio's own
        self._claimed: list[BaseDestination] = []
        self._closing: asyncio.Task[None] | None = None
        self._refused = 0
        self._unrouted = 0

    def _only_destination(
        self,
        key: Secret | None,
        endpoint: Endpoint | str | None,
        name: str | None,
        oauth: OAuth | None,
    ) -> Destination:
        key = key or Secret(os.environ.get("ASYNCANALYTICS_WRITE_KEY", ""))
        where = endpoint or os.environ.get("ASYNCANALYTICS_ENDPOINT") or endpoints.segment()
        if isinstance(where, str):
            where = endpoints.parse(where)
        _require(isinstance(where, endpoints.Endpoint), "endpoint must be an Endpoint or text")
        if self._disabled and not key:
            key = Secret("disabled")  # so that a development machine needs none
        return Destination(key, endpoint=where, name=name, oauth=oauth)

    # -------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Open the connection pool and begin to take calls, on the running loop.

        What would block the loop runs in a thread. If it is cancelled or fails, nothing stays
        open and the client may be started again. So may one that is closed; its figures go on.

        Raises:
            LifecycleError: if the client is started already.
        """
        if self._state not in (State.NEW, State.CLOSED) or self._loop is not None:
            raise self._started()
        self._state, self._closing = State.NEW, None
        self._loop, self._pid = asyncio.get_running_loop(), os.getpid()
        try:
            await self._take_hold()
        except BaseException:
            self._loop, self._pid = None, 0
            await self._let_go()
            raise
        for flusher in self._flushers:
            # Its tasks live as long as the client: the place of this start is not theirs.
            Context().run(flusher.start)
        self._state, self._has_warned = State.OPEN, False
        self._open_on = self._loop
        self._asked = self._loop if isinstance(self._loop, asyncio.BaseEventLoop) else _NOWHERE
        _unclosed.add(self)

    async def flush(self, timeout: float | None = None) -> Stats:
        """Send without lingering, and wait until all calls accepted before this are settled.

        Async `on_settle` hooks that run are waited for too, calls made meanwhile are not.
        Cancelling it leaves delivery alone.

        Args:
            timeout: seconds; None waits as long as retries go on.

        Raises:
            FlushTimeout: if the time ran out. Nothing is lost by that: delivery goes on.
        """
        if _running_loop() is not self._open_on:
            raise self._misuse()
        if not any(flusher.is_busy for flusher in self._flushers):
            return self.stats()
        # A hook that flushes must not wait for itself, nor for another that does.
        me = asyncio.current_task()
        hooks = not any(me in flusher.hooks for flusher in self._flushers)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(each.drain(hooks=hooks) for each in self._flushers))
        except TimeoutError:
            raise FlushTimeout(self.stats().pending, timeout or 0.0) from None
        return self.stats()

    async def aclose(self, timeout: float | None = None) -> Stats:
        """Refuse new calls, send what is pending, and stop at the deadline.

        What is still pending then is dropped as `closed`, counted and logged; with a spool it
        stays pending there, for the next start. Callers that wait for room get `Closed`. Calling it
        again, or together, gives the same result. If it is cancelled, the closing goes on to its
        deadline in a task of the client's.

        Args:
            timeout: seconds; the client's `shutdown_timeout` unless given. 0 stops at once.

        Returns:
            The final figures.
        """
        if self._state is State.NEW:
            self._state = State.CLOSED
            return self.stats()
        if self._state is State.CLOSED:
            return self.stats()
        if self._is_forked() or asyncio.get_running_loop() is not self._loop:
            raise self._misuse()
        if self._closing is None:
            self._state = State.CLOSING
            self._open_on = self._asked = _NOWHERE
            seconds = self._shutdown_timeout if timeout is None else timeout
            self._closing = self._loop.create_task(
                self._close(seconds), name="asyncanalytics close"
            )
        with anyio.CancelScope(shield=True):
            await self._closed()
        return self.stats()

    async def __aenter__(self) -> Self:
        """Start the client."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the client within `shutdown_timeout`; an exception of the body goes on."""
        await self.aclose()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[LifespanState]:  # noqa: ARG002 - the framework passes it
        """Start with an ASGI app and close with it: `FastAPI(lifespan=client.lifespan)`.

        Use it within a lifespan of your own, too: `async with client.lifespan(app) as state:`,
        and yield `{**state, ...}`. Where an app runs again in the same process, as under a test
        client, so does this client.
        """
        async with self:
            yield {"analytics": self}

    @discreet
    def bind(
        self,
        *,
        user_id: UserId | None = None,
        anonymous_id: UserId | None = None,
        context: Mapping[str, Any] | BaseModel | None = None,
    ) -> BoundClient:
        """Return the same verbs with ids and a context filled in, for one user or one job.

        It is bound within what holds where it is made: a request, or a `bound_context` block.

        Raises:
            ConfigurationError: if the context has a field of a wrong type.
        """
        source = bound_source(
            user_id=user_id, anonymous_id=anonymous_id, context=context, within=current.get()
        )
        return BoundClient(self, source)

    def stats(self) -> Stats:
        """Return the figures as they are now. Works at any time in a client's life."""
        return Stats(
            state=self._state.value,
            refused=self._refused,
            unrouted=self._unrouted,
            destinations={flusher.name: flusher.stats() for flusher in self._flushers},
            spool=self._journal.stats() if self._journal is not None else None,
        )

    async def _closed(self) -> None:
        assert self._closing is not None  # noqa: S101 - aclose() has begun it
        try:
            await asyncio.shield(self._closing)
        except asyncio.CancelledError:
            if not self._closing.cancelled():
                raise
        else:
            return
        # Others have cancelled the closing, with all the loop's tasks.
        if self._state is not State.CLOSED:  # before its first step
            self._closing = asyncio.create_task(self._close(0), name="asyncanalytics close")
            await asyncio.shield(self._closing)
        me = asyncio.current_task()
        if me is not None and me.cancelling():
            raise asyncio.CancelledError

    async def _close(self, seconds: float) -> None:
        for flusher in self._flushers:
            flusher.buffer.turn_away(Closed)
        before = self.stats()
        cancellation: asyncio.CancelledError | None = None
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(each.drain(hooks=True) for each in self._flushers))
        except TimeoutError:
            pass  # what is left is counted below
        except asyncio.CancelledError as error:
            cancellation = error  # with all the loop's tasks, as its run ends: stop, and count
        await asyncio.gather(*(flusher.stop() for flusher in self._flushers))
        await self._let_go()
        self._state, self._loop = State.CLOSED, None
        _unclosed.discard(self)
        after = self.stats()
        when = "with its loop" if cancellation else f"at the deadline of {seconds:g} s"
        if lost := _closed_drops(after) - _closed_drops(before):
            logger.error("closed %s with %d events not delivered", when, lost)
        if after.pending:
            logger.warning("closed %s with %d events left in the spool", when, after.pending)
        if cancellation is not None:
            raise cancellation

    async def _take_hold(self) -> None:
        for flusher in self._flushers:
            flusher.prepare()
        if self._disabled:
            await loaded()  # for the close
        else:
            await self._transport.open()
        if self._journal is not None:
            await self._journal.open()
        for flusher in self._flushers:
            destination = flusher.destination
            destination.claim(self)
            self._claimed.append(destination)
            await destination.open(self._transport, self._sending, flusher.retrying)
        if self._state is State.CLOSED:
            raise Closed  # meanwhile

    async def _let_go(self) -> None:
        while self._claimed:
            destination = self._claimed.pop()
            try:
                async with asyncio.timeout(1.0):
                    await destination.aclose()
            except Exception as error:  # noqa: BLE001 - a destination may be the user's own code
                text = "destination %r: its aclose raised %s"
                logger.error(text, destination.name, describe(error))  # noqa: TRY400 - a trace may show payloads
            destination.release()
        await self._transport.aclose()
        if self._journal is not None:
            await self._journal.aclose()

    def _started(self) -> LifecycleError:
        if self._is_forked():
            return Forked()
        if self._loop is not None and self._loop.is_closed():
            return self._left_behind()
        if self._state is State.CLOSING:
            return Closed()
        return LifecycleError(
            "this AsyncClient is started already: one start is enough, by `async with`, by an "
            "app's lifespan, or by a middleware or plugin that is given the client"
        )

    def _left_behind(self) -> LifecycleError:
        pending = self.stats().pending
        fate = f"and {pending} events with it"
        if self._journal is not None:
            self._journal.abandon()
            fate = f"and left {pending} events to the spool"
        return LifecycleError(
            f"the event loop of this AsyncClient ended without aclose(), {fate}: make a new "
            "client, and use it inside `async with client:`"
        )

    def _is_forked(self) -> bool:
        return self._loop is not None and self._pid != os.getpid()

    def _misuse(self) -> LifecycleError:
        if self._is_forked():
            return Forked()
        if self._state is State.NEW:
            return NotStarted()
        if self._loop is not None and self._loop.is_closed():
            return self._left_behind()
        if self._state is State.OPEN:
            return WrongLoop()
        return Closed()

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        """Warn, once, of a client that was started and never closed."""
        is_open = getattr(self, "_state", None) is State.OPEN
        if is_open and not self._has_warned and not self._is_forked():
            self._has_warned = True
            pending = self.stats().pending
            text = f"unclosed AsyncClient with {pending} events pending: await client.aclose()"
            warn(text, ResourceWarning, source=self)
            if self._journal is not None:
                self._journal.abandon()

    def __repr__(self) -> str:
        """Name the destinations and the state; keys never show."""
        by_name = getattr(self, "_by_name", {})  # a constructor that fails is shown in tracebacks
        state = getattr(self, "_state", State.NEW)
        return f"<AsyncClient {', '.join(by_name)} {state.value}>"

    # ------------------------------------------------------------------------ the way of one call

    def _try(self, wire: CallWire, fields: dict[str, Any]) -> Receipt | None:
        """Take the straight way: one destination, no middleware, room in its queue."""
        is_here = not _TELLS_QUICKLY and get_ident() == self._asked._thread_id  # noqa: SLF001 - see there
        if not is_here and _running_loop() is not self._open_on:
            raise self._misuse()
        breath = self._breath
        breath.left -= 1
        source = current.get()
        if source is not None:
            binding = source.binding()
            binding.fill(fields)
            if binding.opted_out:
                return None
        # The number is looked at here too: most calls need no other look.
        if self._straight is None or (breath.left <= 0 and not self._may_go_on()):
            return None
        return self._offer(self._straight, wire, fields)

    def _offer(self, flusher: Flusher, wire: CallWire, fields: dict[str, Any]) -> Receipt | None:
        try:
            message_id, body = encoding.encode(wire.type, wire.validate(fields))
        except InvalidCall:
            self._refused += 1
            raise
        receipt = Receipt(wire.type, message_id, body)
        return receipt if flusher.offer(receipt) else None

    def _submit(self, wire: CallWire, fields: dict[str, Any]) -> Awaitable[Receipt]:
        if self._open_on is _NOWHERE:
            raise Closed  # what came through another thread
        if self._durably is not None and self._may_go_on() and not _is_opted_out():
            receipt = self._offer(self._durably, wire, fields)
            if receipt is not None and self._journal is not None:
                return self._journal.landing(receipt)
        return self._submit_in_turn(wire, fields)

    def _may_go_on(self) -> bool:
        return self._breath.lasts(self._loop)  # type: ignore[arg-type] # the one that runs, as `_try` has seen

    async def _submit_in_turn(self, wire: CallWire, fields: dict[str, Any]) -> Receipt:
        if not self._may_go_on():
            await self._breath.take()
        route = self._route(wire, fields)
        for stop in route.stops:
            if not stop.has_room():
                await self._find_room(route)
                break
        if self._open_on is _NOWHERE:
            raise Closed  # while this call waited
        receipt = self._accept(route)
        return receipt if self._journal is None else await self._journal.landing(receipt)

    def _submit_nowait(self, wire: CallWire, fields: dict[str, Any]) -> Receipt:
        # Nothing here can let the loop run: awaited calls go on counting where they were.
        left, self._breath.left = self._breath.left, SHORT
        try:
            receipt = self._try(wire, fields)
        finally:
            self._breath.left = left
        if receipt is not None:
            return receipt
        route = self._route(wire, fields)
        for stop in route.stops:
            if not stop.has_room():
                self._refused += 1
                raise stop.flusher.queue_full()
        return self._accept(route)

    def _hurry(self) -> None:
        for flusher in self._flushers:
            flusher.buffer.hurry()

    def _route(self, wire: CallWire, fields: dict[str, Any]) -> Route:
        try:
            route = self._router.route(wire, fields)
        except InvalidCall:
            self._refused += 1
            raise
        if self._disabled:
            return route.refused("disabled")
        return route.refused("opted_out") if _is_opted_out() else route

    async def _find_room(self, route: Route) -> None:
        """Wait until all of a call's destinations have room at the same time."""
        since = asyncio.get_running_loop().time()
        lacking = [stop for stop in route.stops if not stop.has_room()]
        try:
            while lacking:
                for stop in lacking:
                    await stop.flusher.room(len(stop.receipt.body), since)
                lacking = [stop for stop in route.stops if not stop.fits()]
        except QueueFull:
            self._refused += 1
            raise

    def _accept(self, route: Route) -> Receipt:
        for flusher, receipt, refusal in route.stops:
            if refusal is not None:
                flusher.refuse([receipt], refusal)
            else:
                flusher.accept(receipt)
        if len(route.stops) == 1:
            return route.stops[0].receipt
        if not route.stops:
            self._unrouted += 1
            receipt = Receipt(route.call, route.message_id, b"")
            receipt.settle(Outcome(kind="dropped", destination="", reason="unrouted"))
            return receipt
        return FanOut(route.call, route.message_id, [stop.receipt for stop in route.stops])


def _is_opted_out() -> bool:
    source = current.get()
    return source is not None and source.binding().opted_out


_unclosed: WeakSet[AsyncClient] = WeakSet()


@atexit.register
def _warn_of_the_unclosed() -> None:
    """Warn while Python still can: where a request is under way, anyio keeps hold of its client."""
    for client in list(_unclosed):
        client.__del__()


def _in_child() -> None:
    """Have no client ask its loop: in a child the copy says that it runs, in a thread's number."""
    for client in list(_unclosed):
        client._asked = _NOWHERE  # noqa: SLF001 - this module's own


if not _TELLS_QUICKLY and hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _require(condition: bool, rule: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not condition:
        raise ConfigurationError(f"AsyncClient: {rule}")


def _journal(spool: object) -> Journal | None:
    if spool is None:
        return None
    from asyncanalytics.journal import Journal

    if isinstance(spool, str | os.PathLike):
        spool = Spooling(spool)
    if not isinstance(spool, Spooling):
        raise ConfigurationError("AsyncClient: spool must be a folder's path, or a Spooling(...)")
    return Journal(spool)


def _check_kinds(
    destinations: Sequence[object], middleware: Sequence[object], *settings: object
) -> None:
    """Refuse what is of the wrong kind where it was written, not where it would fail."""
    for destination in destinations:
        _require(
            isinstance(destination, BaseDestination),
            "destinations must be Destination(...) objects, FileDestination(...) and the like",
        )
    for each in middleware:
        _require(callable(each), "middleware must be functions from call to call or None")
        _require(not iscoroutinefunction(each), "middleware runs in the caller: it cannot be async")
    for given, kind in zip(settings, (Batching, Queueing, Retrying, Sending), strict=False):
        name = kind.__name__
        _require(given is None or isinstance(given, kind), f"{name.lower()} must be a {name}(...)")
    hook = settings[-1]
    _require(hook is None or callable(hook), "on_settle must be a function")


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and value >= 0


def _env_flag(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on")


def _closed_drops(stats: Stats) -> int:
    return sum(each.dropped_by.get("closed", 0) for each in stats.destinations.values())
