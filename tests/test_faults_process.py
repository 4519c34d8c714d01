"""Faults of the process that a client lives in: what the catalogue promises.

Signals are in test_signals.py and test_shutdown.py, other loops and threads in test_client.py, and
forks of the sync client in test_sync.py. Here is the rest: cancellation at every single step,
forks beside an `AsyncClient`, programs that end without a close, a wall clock that jumps, users'
code that raises what is no Exception, and a day without a server for a thousand clients at once.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import random
import ssl
import sys
import textwrap
import time
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import anyio
import httpx
import pytest
import trustme

from asyncanalytics import (
    AsyncClient,
    BaseDestination,
    Batching,
    FlushTimeout,
    QueueFull,
    Queueing,
    Retrying,
    Sending,
    State,
)
from asyncanalytics.batching import Limits
from asyncanalytics.retrying import Delivered, Retry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Lab, Peer

pytestmark = pytest.mark.long

SOAK = "SOAK" in os.environ
looptime = pytest.mark.looptime
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def now() -> float:
    """The loop's clock."""
    return asyncio.get_running_loop().time()


# ------------------------------------------------------------------- cancellation after k steps


class Steps:
    """Counts the steps of a loop, and cancels at one of them and at as many more after it."""

    def __init__(self, cancel: Callable[[], object], at: int, times: int) -> None:
        self._loop: Any = asyncio.get_running_loop()
        self._run_once = self._loop._run_once
        self._cancel, self._due = cancel, range(at, at + times)
        self._steps = 0
        self.has_cancelled = False
        """Whether there was still something to cancel."""

    def __enter__(self) -> Self:
        self._loop._run_once = self._step
        return self

    def __exit__(self, *_: object) -> None:
        del self._loop._run_once

    def _step(self) -> None:
        if self._steps in self._due and self._cancel():
            self.has_cancelled = True
        self._steps += 1
        self._run_once()


async def caller(lab: Lab, client: Any) -> None:
    """Call until calls wait for room, flush, wait for an outcome, close."""
    await lab.track(client, 5)
    await client.bind(user_id="u").track("Added File")
    (receipt,) = await lab.track(client)
    await client.flush()
    await receipt.settled()
    await lab.track(client, 2)
    await client.aclose()


async def group(lab: Lab, client: Any) -> None:
    """Several callers under one roof."""
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(lab.track(client, 3))
        tasks.create_task(client.flush())
    await client.flush()


async def block(lab: Lab, client: Any) -> None:
    """The client's whole life."""
    async with client:
        await lab.track(client, 5)
        lab.burst(client, 1) if client._flushers[0].has_room(500) else None
        await client.flush()
        await lab.track(client, 2)


async def afterwards(lab: Lab, client: AsyncClient) -> None:
    """Assert that a fresh call is delivered, whatever became of the client, and close it."""
    if client.stats().state == State.CLOSING.value:
        await client.aclose()
    if client.stats().state != State.OPEN.value:
        await client.start()
    (fresh,) = await lab.track(client)
    await client.flush(timeout=100)
    assert (await fresh.settled()).delivered
    await client.aclose()
    left = [each.get_name() for each in asyncio.all_tasks()]
    assert not [name for name in left if name.startswith("asyncanalytics")]


async def hook(*_: object) -> None:
    """Take a moment."""
    await asyncio.sleep(0.01)


async def cancelled_at(
    step: int, lab: Lab, server: Any, work: Callable[[Lab, Any], Any], *, times: int, scope: bool
) -> bool:
    """Cancel a piece of work at a step of the loop; return whether it was still under way.

    Afterwards the law holds (the laboratory's end asserts it too), and a fresh call gets through.
    """
    client = lab.client(
        server,
        queueing=Queueing(max_events=3),
        batching=Batching(linger=0.02, max_events=2),
        retrying=Retrying(base=0.01, cap=0.01),
        sending={"max_in_flight": 2},
        on_settle=hook,
    )
    if work is not block:
        await client.start()
    around = anyio.CancelScope()

    async def scoped() -> None:
        with around:
            await work(lab, client)

    task = asyncio.create_task(scoped() if scope else work(lab, client))

    def cancel() -> bool:
        if not scope:
            return task.cancel()
        around.cancel()
        return not task.done()

    with Steps(cancel, step, times) as steps:
        async with asyncio.timeout(1_000):
            await asyncio.wait([task])
    # What was cancelled ends as cancelled: nobody has swallowed it.
    if scope:
        assert not task.cancelled()  # anyio takes its own cancellation off
    else:
        assert task.cancelled() == steps.has_cancelled
    assert task.cancelled() or task.exception() is None
    assert client.stats().is_balanced
    getattr(server, "replies", []).clear()
    await afterwards(lab, client)
    return steps.has_cancelled


@looptime
@pytest.mark.parametrize("how", ["task", "task twice", "scope"])
@pytest.mark.parametrize("work", [caller, group, block])
async def test_cancelled_at_every_step(
    new_lab: type[Lab], work: Callable[[Lab, Any], Any], how: str
) -> None:
    """Whoever is cancelled and whenever, each call is in one place, and the client goes on."""
    times = 2 if how == "task twice" else 1
    for step in range(5_000):
        with new_lab() as lab:
            server = lab.script(503, lab.reply(200, delay=0.5), 400, then=200)
            if not await cancelled_at(step, lab, server, work, times=times, scope=how == "scope"):
                break
    assert step > 20  # there was something to cancel


async def test_cancelled_at_every_step_on_sockets(
    new_lab: type[Lab], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with the client's own pool: its start in a thread, and connections that break."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "root.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))  # quicker to read than all
    for step in range(5_000):
        with new_lab() as lab:

            async def handle(peer: Peer, reader: Any, writer: Any) -> None:
                while (request := await peer.read(reader)) is not None:
                    if len(peer.requests) == 2:
                        return  # without an answer
                    await peer.answer(writer, request)

            async with lab.listening(handle) as peer:
                if not await cancelled_at(step, lab, peer, block, times=1, scope=False):
                    break
    assert step > 20


# ------------------------------------------------------------------- users' code that raises


class NoException(BaseException):
    """What test frameworks and schedulers raise: no Exception, and no order to end the program."""


RAISED = [asyncio.CancelledError, NoException, GeneratorExit]
ENDS = [KeyboardInterrupt, SystemExit]


@looptime
@pytest.mark.parametrize("raised", [ValueError, *RAISED])
@pytest.mark.parametrize("style", ["sync", "async"])
async def test_a_hook_that_raises_ends_nothing(
    lab: Lab, style: str, raised: type[BaseException]
) -> None:
    """Whatever `on_settle` raises is counted, and both halves of a batch that is cut arrive."""

    def fail(*_: object) -> None:
        raise raised

    async def fail_later(*_: object) -> None:
        raise raised

    failing = fail if style == "sync" else fail_later
    async with lab.client(lab.script(400, then=200), on_settle=failing) as client:
        receipts = lab.burst(client, 4)
        async with asyncio.timeout(100):
            assert {(await each.settled()).kind for each in receipts} == {"delivered"}
            (fresh,) = await lab.track(client)
            assert (await fresh.settled()).delivered
            await client.flush()
    assert client.stats().destinations["custom"].hook_errors == 3


@pytest.mark.parametrize("raised", ENDS)
@pytest.mark.parametrize("style", ["sync", "async"])
def test_a_hook_that_ends_the_program(lab: Lab, style: str, raised: type[BaseException]) -> None:
    """`sys.exit()` in a hook comes out of the run, and what is left is counted."""
    left = [raised]

    def leave(*_: object) -> None:
        if left:
            raise left.pop()

    async def leave_later(*_: object) -> None:
        leave()

    leaving = leave if style == "sync" else leave_later
    client = lab.client(lab.script(400, then=200), on_settle=leaving)

    async def work() -> None:
        async with client:
            receipts = lab.burst(client, 4)
            await receipts[-1].settled()
            await asyncio.sleep(60)

    with pytest.raises(raised):
        asyncio.run(work())
    stats = client.stats()
    assert stats.is_balanced
    assert (stats.accepted, stats.state) == (4, "closed")


async def test_a_hook_that_blocks(lab: Lab) -> None:
    """A plain hook that takes its time holds up the loop, and loses nothing."""
    async with lab.client(
        lab.script(then=200),
        on_settle=lambda *_: time.sleep(0.03),
        batching=Batching(linger=0, max_events=1),
    ) as client:
        lab.burst(client, 5)
    assert client.stats().delivered == 5


@looptime
@pytest.mark.parametrize("place", ["client", "destination"])
@pytest.mark.parametrize("raised", [ValueError, *RAISED, *ENDS])
async def test_middleware_that_raises(lab: Lab, raised: type[BaseException], place: str) -> None:
    """An Exception drops the call; what is none is the caller's, and the call is nowhere."""
    fails = True

    def middleware(call: Any) -> Any:
        if fails:
            raise raised
        return call

    server = lab.script()
    destinations = [
        lab.destination(server, middleware=[middleware] if place == "destination" else []),
        lab.destination(lab.script(), "other"),
    ]
    own = [middleware] if place == "client" else []
    async with lab.client(destinations=destinations, middleware=own) as client:
        if raised is ValueError:
            await lab.track(client)
            dropped = client.stats().destinations["custom"].dropped_by
            assert dropped == {"middleware_error": 1}
        else:
            for call in (lab.track(client), client.track("Added File", user_id="u")):
                with pytest.raises(raised):
                    await call
            with pytest.raises(raised):
                client.track_nowait("Added File", user_id="u")
            assert client.stats().accepted == 0
        fails = False
        (fresh,) = await lab.track(client)
        assert (await fresh.settled()).delivered


@looptime
async def test_middleware_that_is_slow(lab: Lab) -> None:
    """It runs in the caller, so a slow one costs the caller's time and nothing else."""

    def slow(call: Any) -> Any:
        time.sleep(0.02)
        return call

    async with lab.client(lab.script(503, then=200), middleware=[slow]) as client:
        receipts = lab.burst(client, 3)
        assert {(await each.settled()).kind for each in receipts} == {"delivered"}


# -------------------------------------------------------------------------- clocks that jump


class Wall:
    """The machine's wall clock, in a test's hand; it goes on with the loop's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.offset = 1_800_000_000
        monkeypatch.setattr(time, "time", lambda: self.time_ns() / 1e9)
        monkeypatch.setattr(time, "time_ns", self.time_ns)

    def time_ns(self) -> int:
        """Return nanoseconds since 1970."""
        return self.offset * 10**9 + round(asyncio.get_running_loop().time() * 1e9)

    def stamp(self) -> str:
        """Return the moment as the wire has it."""
        moment = datetime.fromtimestamp(self.time_ns() // 10**6 / 1e3, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


JUMPS = [-(10**9), -86_400, -3, 3, 86_400, 10**9]


@looptime
@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("after", ["backoff", "retry-after", "linger", "halt", "max_elapsed"])
async def test_a_wall_clock_that_jumps(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, after: str, jump: int
) -> None:
    """Every wait is as long as it would have been; stamps are the wall's, each of its moment."""
    wall = Wall(monkeypatch)
    replies = {
        "backoff": [503],
        "retry-after": [lab.reply(503, headers={"retry-after": "40"})],
        "linger": [200],
        "halt": [401],
        "max_elapsed": [503] * 100,
    }[after]
    server = lab.script(*replies, then=200)
    random.seed(7)
    retrying = Retrying(base=40, cap=40, max_elapsed=300, max_attempts=1_000)
    batching = Batching(linger=40 if after == "linger" else 0.1)
    async with lab.client(server, retrying=retrying, batching=batching) as client:
        begun = wall.stamp()
        (receipt,) = await lab.track(client)
        await asyncio.sleep(0.5)
        wall.offset += jump
        written = wall.stamp()
        (second,) = await lab.track(client)
        outcomes = [await receipt.settled(), await second.settled()]
        ended = now()
        await asyncio.sleep(50)
        server.replies.clear()
        (fresh,) = await lab.track(client)
        assert (await fresh.settled()).delivered
        assert now() < ended + 50 + 41
    events = [event for each in server.requests for event in each.events]
    stamps = {event["messageId"]: event["timestamp"] for event in events}
    assert stamps[receipt.message_id] == begun
    assert stamps.get(second.message_id, written) == written
    for request in server.requests[1:]:
        sent = datetime.fromisoformat(request.body["sentAt"]).timestamp()
        assert sent == pytest.approx(wall.offset + request.at, abs=0.002)
    kinds = [(each.kind, each.reason) for each in outcomes]
    if after == "max_elapsed":
        assert kinds == [("dropped", "expired")] * 2
        assert 200 < ended <= 350
    elif after == "halt":
        assert kinds == [("rejected", "rejected")] * 2
        assert ended <= 1
        assert len(server.requests) == 2
    else:
        assert kinds == [("delivered", "")] * 2
        assert 0.5 < ended <= 121
        moments = [each.at for each in server.requests]
        assert moments[1] >= {"retry-after": 40, "linger": 40}.get(after, 0)


@looptime
@pytest.mark.parametrize("jump", JUMPS)
async def test_a_deadline_under_a_wall_clock_that_jumps(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    """Neither a flush nor a close nor a wait for room takes longer or shorter for it."""
    wall = Wall(monkeypatch)
    dead = lab.script(then=lab.reply(200, delay=1e6))
    queueing = Queueing(max_events=1, max_wait=20)
    client = lab.client(dead, sending={"timeout": 1e6}, queueing=queueing)
    await client.start()
    await lab.track(client)
    asyncio.get_running_loop().call_later(1, lambda: setattr(wall, "offset", wall.offset + jump))
    with pytest.raises(QueueFull):
        await lab.track(client)
    assert now() == pytest.approx(20)
    with pytest.raises(FlushTimeout):
        await client.flush(30)
    assert now() == pytest.approx(50)
    await client.aclose(10)
    assert now() == pytest.approx(60, abs=0.1)
    dead.then = 200
    await afterwards(lab, client)


# ----------------------------------------------------------------------------------- the block


@looptime
@pytest.mark.parametrize("raised", [ZeroDivisionError, *RAISED, ExceptionGroup])
@pytest.mark.parametrize("server", ["slow", "dead"])
async def test_an_exception_in_the_body_wins(
    lab: Lab, server: str, raised: type[BaseException]
) -> None:
    """It comes out as it was, after a drain that keeps its deadline, whatever a hook adds."""
    original = raised("several", [KeyError()]) if raised is ExceptionGroup else raised()

    def failing(*_: object) -> None:
        raise KeyError(lab.MARK)

    delay = 1e6 if server == "dead" else 2.0
    client = lab.client(
        lab.script(then=lab.reply(200, delay=delay)),
        shutdown_timeout=5,
        sending={"timeout": 1e7},
        on_settle=failing,
    )
    caught: BaseException | None = None
    try:
        async with client:
            lab.burst(client, 3)
            raise original  # noqa: TRY301 - the body is what raises
    except BaseException as error:  # noqa: BLE001 - whatever it is
        caught = error
    assert caught is original
    assert caught.__cause__ is None
    assert now() == pytest.approx(2 if server == "slow" else 5, abs=0.1)
    stats = client.stats()
    assert (stats.delivered, stats.dropped) == ((3, 0) if server == "slow" else (0, 3))
    lab._servers[client._flushers[0].destination.endpoint.base].then = 200  # type: ignore[attr-defined]
    await afterwards(lab, client)


# ------------------------------------------------------------------------------ whole programs


async def program(
    script: str, url: str, *arguments: str, environ: dict[str, str] | None = None
) -> tuple[list[Any], str]:
    """Run a program to its end; return what it has printed, as JSON by the line, and its errors."""
    environ = {**os.environ, **(environ or {})}
    environ["ASYNCANALYTICS_ENDPOINT"] = url
    environ["ASYNCANALYTICS_WRITE_KEY"] = "KEY"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments, "-c", textwrap.dedent(script)),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            out, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        out, errors = await process.communicate()
        pytest.fail(f"it hangs: {errors.decode()}")
    assert process.returncode == 0, errors.decode()
    return [json.loads(line) for line in out.decode().splitlines()], errors.decode()


async def well(peer: Peer, reader: Any, writer: Any) -> None:
    """Take everything."""
    await peer.serve_on(reader, writer)


async def silent(_: Peer, reader: Any, __: Any) -> None:
    """Answer nothing."""
    await reader.read(-1)


LEFT = """
import asyncio, json, sys
from asyncanalytics import AsyncClient, Batching

client = AsyncClient(batching=Batching(linger=60))

async def main():
    %s
    for number in range(3):
        client.track_nowait("Added File", user_id="u")
    stats = client.stats()
    print(json.dumps([stats.accepted, stats.pending, stats.is_balanced]), flush=True)
    %s

%s
"""
RUN = "asyncio.run(main())"
UNCLOSED = {
    "returns": ("await client.start()", "pass", RUN),
    "local": ("client = AsyncClient(); await client.start()", "await asyncio.sleep(0)", RUN),
    "exits": (
        "await client.start()",
        "sys.exit(0)",
        RUN,
    ),
    "raises": (
        "await client.start()",
        "raise KeyError",
        f"try:\n    {RUN}\nexcept KeyError:\n    pass",
    ),
    "leaves the loop open": (
        "await client.start()",
        "await asyncio.sleep(0.05)",
        "asyncio.get_event_loop_policy().new_event_loop().run_until_complete(main())",
    ),
}


@pytest.mark.parametrize("how", UNCLOSED)
async def test_a_program_that_ends_without_a_close(new_lab: type[Lab], how: str) -> None:
    """It ends at once, however dead the server is, with a warning that names what is lost."""
    start = time.monotonic()
    async with new_lab.listening(silent) as peer:
        said, errors = await program(
            LEFT % UNCLOSED[how], peer.url, "-W", "always::ResourceWarning"
        )
    assert said == [[3, 3, True]]
    assert "unclosed AsyncClient with 3 events pending: await client.aclose()" in errors
    assert time.monotonic() - start < 15


# ------------------------------------------------------------------------------------------ forks

FORK = """
import asyncio, gc, json, logging, multiprocessing, os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of any fork beside threads
from asyncanalytics import AsyncClient, Batching, Forked, Sending

sending = Sending(http_library=os.environ["LIBRARY"])
client = AsyncClient(batching=Batching(linger=0), sending=sending)

def tell(name, stats):
    print(json.dumps([name, stats.accepted, stats.delivered, stats.is_balanced]), flush=True)

async def child():
    global client
    refused = 0
    for use in (client.start, client.flush, client.aclose):
        try:
            await use()
        except Forked:
            refused += 1
    try:
        client.track_nowait("From Child", user_id="u")
    except Forked:
        refused += 1
    assert refused == 4
    async with AsyncClient(sending=sending) as own:
        for number in range(10):
            await own.track("From Child", user_id="u")
    tell("child", own.stats())

def in_child():
    global client
    asyncio.run(child())
    logging.getLogger("asyncio").disabled = True  # it would tell of the parent's tasks
    client = None  # the parent's, let go of: its sockets must not end with it
    gc.collect()

def fork():
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            in_child()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0

def process():
    made = multiprocessing.get_context("fork").Process(target=in_child)
    made.start()
    made.join()
    assert made.exitcode == 0

async def main():
    await client.start()  # with no `async with`, which would hold it in the child too
    for number in range(10):
        outcome = await (await client.track("From Parent", user_id="u")).settled()
        assert outcome.attempts == 1, outcome
    for number in range(5):
        client.track_nowait("From Parent", user_id="u")  # on their way while it forks
    FORK_HERE
    await client.flush(timeout=10)
    outcome = await (await client.track("From Parent", user_id="u")).settled()
    assert outcome.attempts == 1, outcome
    tell("parent", await client.aclose())

asyncio.run(main())
"""


@forks
@pytest.mark.parametrize(
    ("how", "secure"),
    [
        ("fork()", False),
        ("fork()", True),
        ("await client.flush(); fork()", False),  # with nothing on its way
        ("await client.flush(); process()", True),
        ("await asyncio.sleep(0.1); fork()", False),  # amid a request
        ("process()", False),
        ("await asyncio.to_thread(fork)", True),
    ],
)
@pytest.mark.parametrize("library", ["httpx", "aiohttp"])
async def test_a_fork_beside_an_async_client(
    new_lab: type[Lab], tmp_path: Path, library: str, how: str, *, secure: bool
) -> None:
    """The child has a client of its own and none of the parent's; the parent delivers all of its.

    The parent's connection is there after the child has ended, and has all the parent's requests.
    """
    pytest.importorskip(library)
    environ, context = {"LIBRARY": library}, None
    if secure:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(tmp_path / "root.pem")
        environ["SSL_CERT_FILE"] = str(tmp_path / "root.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
    mine: list[set[str]] = []

    async def handle(peer: Peer, reader: Any, writer: Any) -> None:
        names: set[str] = set()
        mine.append(names)
        while (request := await peer.read(reader)) is not None:
            names.update(event["event"] for event in request.events)
            if len(request.events) > 1:
                await asyncio.sleep(0.3)
            await peer.answer(writer, request)

    async with new_lab.listening(handle, tls=context) as peer:
        url = peer.url.replace("http:", "https:") if secure else peer.url
        said, errors = await program(FORK.replace("FORK_HERE", how), url, environ=environ)
    assert errors == ""
    assert said == [["child", 10, 10, True], ["parent", 16, 16, True]]
    assert sorted(
        Counter(event["event"] for each in peer.arrived.values() for event in each).items()
    ) == [
        ("From Child", 10),
        ("From Parent", 16),
    ]
    # No connection was shared, and the parent needed no other one.
    assert sorted(map(sorted, mine)) == [["From Child"], ["From Parent"]]


# ------------------------------------------------------- a day without a server, for a thousand

DAY = 24 * 3600.0


class Server:
    """One place for many clients, in this process: down until a moment, then there."""

    def __init__(self, up_at: float, seconds: float = 0.05) -> None:
        self.up_at, self.seconds = up_at, seconds
        self.tries: Counter[str] = Counter()  # client → requests while it was down
        self.arrivals: dict[str, list[float]] = {}  # client → moments of its requests since then
        self.under_way: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()  # client → requests at the same time
        self.crowds: dict[str, list[int]] = {}  # client → how many were under way at each
        self.received: Counter[str] = Counter()

    async def request(self, who: str, ids: list[str]) -> Delivered | Retry:
        """Take a request of a client."""
        self.under_way[who] += 1
        self.peak[who] = max(self.peak[who], self.under_way[who])
        try:
            if now() < self.up_at:
                self.tries[who] += 1
                return Retry("ConnectError")
            self.arrivals.setdefault(who, []).append(now())
            self.crowds.setdefault(who, []).append(self.under_way[who])
            await asyncio.sleep(self.seconds)
            self.received.update(ids)
            return Delivered(200)
        finally:
            self.under_way[who] -= 1


class Place(BaseDestination):
    """A user's own destination, which hands its batches to a server."""

    def __init__(self, server: Server, who: str) -> None:
        super().__init__("place")
        self._server, self._who = server, who

    def limits(self, batching: Batching) -> Limits:
        """Take what the user allows."""
        return Limits(
            max_events=batching.max_events,
            max_bytes=batching.max_bytes,
            max_event_bytes=32_000,
            envelope=0,
            per_event=2,
        )

    async def open(self, *_: Any) -> None:
        """Need nothing."""

    async def deliver(self, batch: Any) -> Delivered | Retry:
        """Hand a batch over."""
        return await self._server.request(self._who, [each.message_id for each in batch.receipts])


@pytest.mark.looptime(noop_cycles=0)  # nothing here comes from outside, so no time is left for it
@pytest.mark.timeout(3600 if SOAK else 300)
async def test_a_day_without_a_server_for_a_thousand_clients(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Memory stays bounded, nobody hammers, and who comes back is not met by everybody at once.

    With SOAK in the environment it is the day as the default settings have it, some 12 million
    requests. Otherwise the pauses are up to two hours, so that there are some 100,000.
    """
    cap, most, count, room = (60.0, 4, 1_000, 10) if SOAK else (7200.0, 2, 1_000, 10)
    caplog.set_level(logging.CRITICAL, logger="asyncanalytics")  # what is kept of it grows
    server, http = Server(up_at=DAY), httpx.AsyncClient(verify=False)  # noqa: S501 - not used
    clients = [
        AsyncClient(
            destinations=[Place(server, str(number))],
            queueing=Queueing(max_events=room, when_full="drop_oldest"),
            retrying=Retrying(cap=cap, max_attempts=10**6, max_elapsed=2 * DAY),
            sending=Sending(max_in_flight=most, http_client=http),
        )
        for number in range(count)
    ]
    random.seed(11)
    async with http, AsyncExitStack() as stack:
        for client in clients:
            await stack.enter_async_context(client)
        await outlast(server, clients, cap=cap, most=most, room=room)
        for client in clients:
            client.track_nowait("Added File", user_id="u")
            assert (await client.aclose()).delivered == room + 1
            assert client.stats().is_balanced
    assert server.received.total() == count * (room + 1)


async def outlast(
    server: Server, clients: list[AsyncClient], *, cap: float, most: int, room: int
) -> None:
    """Live through the day, and assert what is promised of it and of the time after."""
    count = len(clients)
    blocks = []
    for hour in range(24):
        for client in clients:
            client.track_nowait("Added File", user_id="u", properties={"hour": hour})
        await asyncio.sleep(DAY / 24)
        gc.collect()
        blocks.append(sys.getallocatedblocks())
        assert all(client.stats().is_balanced for client in clients)
        assert max(client.stats().pending for client in clients) <= room
    # Memory: once the queues are full and have dropped something, nothing grows any more.
    assert blocks[-1] - blocks[-9] < count
    # Attempts: a pause is half the cap on average, once it has grown to it.
    assert max(server.tries.values()) < most * (2 * DAY / cap * 1.5 + 20)
    assert min(server.tries.values()) > DAY / cap
    assert sum(each.stats().destinations["place"].requests for each in clients) == (
        server.tries.total()
    )
    # The server is back. Full jitter: the thousand are spread over the longest pause.
    await asyncio.gather(*(client.flush(timeout=4 * cap) for client in clients))
    firsts = Counter(int((each[0] - DAY) / (cap / 60)) for each in server.arrivals.values())
    assert firsts.total() == count
    assert max(firsts.values()) < count * (0.03 * most + 0.06)
    seconds = Counter(int(moment) for each in server.arrivals.values() for moment in each)
    assert max(seconds.values()) < 2.5 * most * count * 2 / cap + 30
    # One probe, then more, and never over what is allowed of one client.
    assert {each[0] for each in server.crowds.values()} == {1}
    assert max(server.peak.values()) <= most
    # Everything that was kept has arrived, once.
    assert {client.stats().delivered for client in clients} == {room}
    assert {client.stats().dropped for client in clients} == {24 - room}
    assert set(server.received.values()) == {1}
