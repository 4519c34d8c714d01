"""The sync facade: threads, forks, the end of a program, and what it says when it is misused."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import httpx
import pytest

pytest.importorskip("starlette")

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from asyncanalytics import (
    AsyncClient,
    BaseDestination,
    Client,
    Closed,
    ConfigurationError,
    Destination,
    FlushTimeout,
    InvalidCall,
    LifecycleError,
    QueueFull,
    Queueing,
    Sending,
    Track,
    bound_context,
    endpoints,
    process,
)
from asyncanalytics.asgi import AnalyticsMiddleware
from asyncanalytics.destinations.base import own_limits
from asyncanalytics.retrying import Delivered, Verdict
from asyncanalytics.sync import ClientSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from conftest import Live

    from asyncanalytics import Batching, Receipt, Stats
    from asyncanalytics.batching import Batch, Limits

VERBS = ("identify", "track", "page", "screen", "group", "alias", "send")


def agrees(stats: Stats, live: Live, delivered: int) -> None:
    """Assert the law, and that what is counted as delivered is what has arrived, once."""
    assert stats.is_balanced
    assert (stats.accepted, stats.delivered, stats.pending) == (delivered, delivered, 0)
    ids = [event["messageId"] for event in live.events]
    assert len(ids) == len(set(ids)) == delivered


def background_threads() -> int:
    """Return how many clients have a thread."""
    return sum(thread.name == "asyncanalytics" for thread in threading.enumerate())


# ------------------------------------------------------------------------------------- the calls


def test_every_verb(live: Live) -> None:
    """Each verb returns a receipt, and its call arrives."""
    with Client() as client:
        receipts = [
            client.identify("u1", traits={"plan": "pro"}),
            client.track("Added File", user_id="u1", properties={"n": 1}),
            client.page("Home", category="Docs", user_id="u1"),
            client.screen("Home", section="Top", user_id="u1", properties={"n": 1}),
            client.group("g1", user_id="u1", traits={"name": "A"}),
            client.alias("u1", previous_id="a1"),
            client.send(Track(event="Added File", user_id="u1")),
        ]
        outcomes = [client.settled(receipt, timeout=10) for receipt in receipts]
    assert all(outcome.delivered for outcome in outcomes)
    assert [event["type"] for event in live.events] == [*VERBS[:6], "track"]
    assert [event["messageId"] for event in live.events] == [each.message_id for each in receipts]
    agrees(client.stats(), live, 7)


@pytest.mark.parametrize("verb", VERBS)
def test_the_verbs_are_the_same(verb: str) -> None:
    """A sync verb takes what its awaited sibling takes, and is described alike."""
    ours, theirs = getattr(Client, verb), getattr(AsyncClient, verb)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert inspect.getdoc(ours) == inspect.getdoc(theirs)


def test_the_settings_are_the_same() -> None:
    """What `AsyncClient` can be told, `Client` can be told too."""
    parameters = inspect.signature(AsyncClient.__init__).parameters
    names = [name for name in parameters if name not in ("self", "write_key")]
    assert list(ClientSettings.__annotations__) == names


def test_it_starts_by_itself(live: Live) -> None:
    """No thread runs before the first call; the first call finds everything ready."""
    before = background_threads()
    client = Client()
    assert background_threads() == before
    assert client.flush().accepted == 0
    assert background_threads() == before
    receipt = client.track("Added File", user_id="u1")
    assert background_threads() > before
    assert client.settled(receipt, timeout=10).delivered
    agrees(client.close(), live, 1)
    assert "closed" in repr(client)


def test_a_bad_call_is_refused_in_its_thread(live: Live) -> None:
    """What is wrong raises at the call and is counted as refused, not as accepted."""
    with Client() as client:
        with pytest.raises(InvalidCall, match="user_id"):
            client.track("Added File")
        with pytest.raises(InvalidCall, match="properties"):
            client.track("Added File", user_id="u1", properties=7)  # type: ignore[arg-type]
        assert client.stats().refused == 2
    agrees(client.stats(), live, 0)


def test_the_binding_of_the_calling_thread_counts(live: Live) -> None:
    """A block binds the calls of its own thread, and opting out is counted there too."""
    with Client() as client:
        with bound_context(user_id="u1", context={"ip": "192.0.2.7"}):
            client.track("Added File")
            thread = threading.Thread(target=client.track, args=("Plain",), kwargs={"user_id": "x"})
            thread.start()
            thread.join()
        client.flush(timeout=10)
    bound, plain = live.events
    assert (bound["userId"], bound["context"]["ip"]) == ("u1", "192.0.2.7")
    assert "ip" not in plain["context"]
    agrees(client.stats(), live, 2)


def test_several_destinations_and_middleware(live: Live) -> None:
    """Where a call has no straight way it goes the long one, with the same promises."""
    places = [
        Destination("one", endpoint=endpoints.custom(live.url), name="one"),
        Destination("two", endpoint=endpoints.custom(live.url), name="two"),
    ]
    with Client(destinations=iter(places), middleware=iter([lambda call: call])) as client:
        for number in range(20):
            client.track("Added File", user_id=f"u{number}")
        with pytest.raises(InvalidCall):
            client.track("", user_id="u1")
        stats = client.flush(timeout=10)
        assert stats.refused == 1
    assert stats.is_balanced
    assert {name: each.delivered for name, each in stats.destinations.items()} == {
        "one": 20,
        "two": 20,
    }


# -------------------------------------------------------------------------------------- threads


def test_many_threads(live: Live) -> None:
    """Calls from many threads all arrive once, each thread's in its order."""
    in_order = Sending(max_in_flight=1)
    with Client(sending=in_order) as client, ThreadPoolExecutor(8) as threads:

        def work(thread: int) -> None:
            for number in range(500):
                client.track("Added File", user_id=f"t{thread}", properties={"n": number})

        list(threads.map(work, range(8)))
        stats = client.flush(timeout=20)
    agrees(stats, live, 4_000)
    for thread in range(8):
        own = [each for each in live.events if each["userId"] == f"t{thread}"]
        assert [each["properties"]["n"] for each in own] == list(range(500))


@pytest.mark.parametrize("bound", [{"max_events": 40}, {"max_bytes": 32_768}])
def test_a_full_queue_makes_threads_wait(live: Live, bound: dict[str, int]) -> None:
    """With little room the threads wait; the queue's bound holds, and nothing is lost."""
    live.collector.misbehave(None, delay=0.02)
    highest = 0
    with Client(queueing=Queueing(**bound)) as client, ThreadPoolExecutor(4) as threads:

        def work(thread: int) -> None:
            nonlocal highest
            for number in range(50):
                client.track("Added File", user_id=f"t{thread}", properties={"n": number})
                if number % 10 == 0:
                    (stats,) = client.stats().destinations.values()
                    highest = max(highest, stats.pending)

        list(threads.map(work, range(4)))
        stats = client.flush(timeout=20)
    agrees(stats, live, 200)
    assert 0 < highest <= 40 + 4 if "max_events" in bound else highest > 0


def test_a_full_queue_may_raise(live: Live) -> None:
    """With `raise` a thread gets QueueFull at once, and what was accepted is delivered."""
    live.collector.misbehave(None, delay=0.3)
    with Client(queueing=Queueing(max_events=10, when_full="raise")) as client:
        for number in range(10):
            client.track("Added File", user_id=f"u{number}")
        with pytest.raises(QueueFull, match="full"):
            client.track("Added File", user_id="one too many")
        assert client.stats().refused == 1
    agrees(client.stats(), live, 10)


def test_from_a_running_loop(live: Live) -> None:
    """Async code may call it too: it does not touch the loop that runs there."""

    async def main(client: Client) -> None:
        for number in range(10):
            client.track("Added File", user_id=f"u{number}")
            await asyncio.sleep(0)

    with Client() as client:
        asyncio.run(main(client))
    agrees(client.stats(), live, 10)


def test_a_hook_may_call_but_not_wait(live: Live) -> None:
    """`on_settle` runs in the background thread: it may make calls, and waiting there is said."""
    problems: list[Exception] = []
    follow_ups: list[Any] = []

    def hook(*_: object) -> None:
        if not follow_ups:
            follow_ups.append(client.track("Followed Up", user_id="u1"))
            try:
                client.flush()
            except LifecycleError as error:
                problems.append(error)

    def closing(*_: object) -> None:
        hook()
        figures.append(client.stats())
        for use in (client.close, client.flush):
            with suppress(LifecycleError):
                use()
                problems.append(AssertionError("it waited for itself"))

    figures: list[Stats] = []
    client = Client(on_settle=closing)
    client.settled(client.track("Added File", user_id="u1"), timeout=10)
    client.flush(timeout=10)
    assert all("background thread" in str(problem) for problem in problems)
    assert figures[0].is_balanced
    agrees(client.close(), live, 2)


# ------------------------------------------------------------------------------------------ life


def test_after_close(live: Live) -> None:
    """A closed client refuses calls with a clear sentence, and may be started again."""
    client = Client()
    client.track("Added File", user_id="u1")
    agrees(client.close(), live, 1)
    assert client.close() == client.stats()
    for call in (lambda: client.track("Added File", user_id="u1"), client.flush):
        with pytest.raises(Closed, match="closed"):
            call()
    with client:
        client.track("Added File", user_id="u1")
        with pytest.raises(LifecycleError, match="already"):
            client.start()
    agrees(client.stats(), live, 2)


def test_closed_before_it_ran() -> None:
    """A client that made no call is closed without a thread."""
    client = Client("key")
    assert client.close().state == "closed"
    with pytest.raises(Closed):
        client.track("Added File", user_id="u1")


@pytest.mark.parametrize("is_spooled", [False, True], ids=["memory", "spool"])
def test_closing_while_threads_call(live: Live, tmp_path: Path, *, is_spooled: bool) -> None:
    """A call beside the closing is either delivered or refused with Closed."""
    receipts: list[Receipt] = []

    def work() -> None:
        try:
            while True:
                receipts.append(client.track("Added File", user_id="u1"))
        except Closed:
            pass

    spool = tmp_path / "spool" if is_spooled else None
    client = Client(queueing=Queueing(max_events=50), spool=spool)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    live.wait_for(200)
    stats = client.close(timeout=20)
    for thread in threads:
        thread.join(10)
    agrees(stats, live, len(receipts))
    assert {event["messageId"] for event in live.events} == {each.message_id for each in receipts}
    assert all(each.outcome is not None for each in receipts)


def test_closing_and_starting_together(live: Live) -> None:
    """While it closes, a second close waits for the first, and a start for both."""
    live.collector.misbehave(None, delay=0.3)
    client = Client()
    client.track("Added File", user_id="u1")
    first = threading.Thread(target=client.close)
    first.start()
    while "closing" not in repr(client):
        time.sleep(0.001)
    assert client.close().state == "closed"
    first.join()
    with pytest.raises(Closed):
        client.track("Added File", user_id="u1")
    agrees(client.stats(), live, 1)


def test_a_deadline_is_kept(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be delivered by the deadline is counted; flush says what it left."""
    live.collector.misbehave(503)
    client = Client()
    client.track("Added File", user_id="u1")
    with pytest.raises(FlushTimeout, match="1 events were still pending"):
        client.flush(timeout=0.2)
    start = time.monotonic()
    stats = client.close(timeout=0.2)
    assert time.monotonic() - start < 5
    assert stats.destinations["custom"].dropped_by == {"closed": 1}
    assert "1 events not delivered" in caplog.text
    assert stats.is_balanced


def test_waiting_for_an_outcome_has_a_limit(live: Live) -> None:
    """`settled` gives up after its time, and delivery goes on."""
    live.collector.misbehave(None, delay=0.3)
    with Client() as client:
        receipt = client.track("Added File", user_id="u1")
        with pytest.raises(TimeoutError):
            client.settled(receipt, timeout=0.01)
        assert client.settled(receipt).delivered
        assert client.settled(receipt).delivered
    agrees(client.stats(), live, 1)


@pytest.mark.parametrize("way", ["lifespan", "middleware"])
async def test_an_app_of_sync_views(live: Live, way: str) -> None:
    """It starts and closes with an ASGI app, each time that the app runs."""
    client = Client()

    async def order(_: Any) -> Any:
        await anyio.to_thread.run_sync(lambda: client.track("Added File"))
        return PlainTextResponse("ok")

    lifespan = client.lifespan if way == "lifespan" else None
    app: Any = Starlette(routes=[Route("/", order)], lifespan=lifespan)
    app = AnalyticsMiddleware(app, client=client if way == "middleware" else None)
    for run in (1, 2):
        async with alive(app), httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
            assert "open" in repr(client)
            await http.get("http://shop.example/?utm_source=x")
        assert client.stats().state == "closed"
        agrees(client.stats(), live, run)
    assert live.events[0]["context"]["campaign"] == {"source": "x"}


@asynccontextmanager
async def alive(app: Any) -> AsyncIterator[None]:
    """Run an app's lifespan as a server does."""
    asked: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    told: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    running = asyncio.create_task(app(scope, asked.get, told.put))
    for what in ("startup", "shutdown"):
        asked.put_nowait({"type": f"lifespan.{what}"})
        assert (await told.get())["type"] == f"lifespan.{what}.complete"
        if what == "startup":
            yield
    await running


def test_a_wrong_setting_is_said_at_once() -> None:
    """A client that cannot work is not made."""
    with pytest.raises(ConfigurationError, match="write key"):
        Client(endpoint="http://127.0.0.1:1", disabled=False)
    with pytest.raises(ConfigurationError, match="middleware"):
        Client("key", middleware=7)  # type: ignore[arg-type]


def test_a_start_that_fails_leaves_no_thread(live: Live) -> None:
    """A client whose destination is taken says so, and leaves no thread behind."""
    place = Destination("key", endpoint=endpoints.custom(live.url))
    before = background_threads()
    with Client(destinations=[place]):
        other = Client(destinations=[place])
        with pytest.raises(ConfigurationError, match="in use by another client"):
            other.start()
    assert background_threads() == before
    with other:
        other.track("Added File", user_id="u1")
    agrees(other.stats(), live, 1)


# ---------------------------------------------------------------------------- forks and the end


def run(script: str, live: Live, *, seconds: float = 30.0) -> Any:
    """Run a program to its end, and return what it has printed as JSON, or nothing."""
    with live.program("-c", textwrap.dedent(script)) as process:
        said, errors = process.communicate(timeout=seconds)
        assert (process.returncode, errors) == (0, "")
    return [json.loads(line) for line in said.splitlines()]


FORKING = """
import json, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of any fork beside threads
from asyncanalytics import Client

def say(what):
    print(json.dumps(what), flush=True)

def in_a_child(work):
    pid = os.fork()
    if pid == 0:
        os._exit(work() or 0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

def delivered(client):
    stats = client.close(10)
    assert stats.is_balanced
    return stats.delivered

def deliver_in_a_child(client):
    def deliver():
        client.track("From Child", user_id="u1")
        say(delivered(client))

    in_a_child(deliver)
"""


def forking(script: str, live: Live, *, seconds: float = 30.0) -> Any:
    """Run a program that forks."""
    return run(FORKING + textwrap.dedent(script), live, seconds=seconds)


def test_the_end_of_a_program_sends_what_is_left(live: Live) -> None:
    """1,000 calls and no flush: all of them arrive."""
    run(
        """
        from asyncanalytics import Client
        client = Client()
        for number in range(1000):
            client.track("Added File", user_id=f"u{number}")
        """,
        live,
    )
    assert len({event["messageId"] for event in live.events}) == 1_000


def test_the_end_of_a_program_is_bounded(live: Live) -> None:
    """With an endpoint that is down, a program still ends within its `shutdown_timeout`."""
    live.collector.misbehave(503)
    start = time.monotonic()
    run(
        """
        from asyncanalytics import Client
        client = Client(shutdown_timeout=0.5)
        client.track("Added File", user_id="u1")
        """,
        live,
    )
    assert time.monotonic() - start < 10


def test_a_name_is_still_looked_up_at_the_end(live: Live) -> None:
    """At the end of a program connections to hosts by name can still be made."""
    port = live.url.rpartition(":")[2]
    run(
        f"""
        from asyncanalytics import Client
        client = Client(endpoint="http://localhost:{port}")
        client.track("Added File", user_id="u1")
        """,
        live,
    )
    assert len(live.events) == 1


HANGING = """
import json, socket, time
from asyncanalytics import Client, Retrying, Sending, process

asked = []

def hang(host, *_, **__):
    asked.append(host)
    time.sleep(60)

socket.getaddrinfo = hang
client = Client(
    endpoint="https://far.test",
    sending=Sending(connect_timeout=0.02, timeout=0.05),
    retrying=Retrying(base=0.01, cap=0.01, max_attempts=1_000),
)
"""


def test_a_lookup_that_hangs_has_one_thread(live: Live) -> None:
    """However often its request is tried again: those that wait for the same name share it."""
    script = (
        HANGING
        + """
client.track("Added File", user_id="u1")
while next(iter(client.stats().destinations.values())).requests < 4:
    time.sleep(0.01)
print(len(asked))
assert client.close(0).is_balanced
"""
    )
    assert run(script, live) == [1]


def test_a_lookup_that_fails_late(live: Live) -> None:
    """Nobody waits for it any more, and asyncio does not log that nobody does."""
    said = run(
        """
        import gc, json, logging, socket, time
        from asyncanalytics import Client, Retrying, Sending

        class Said(logging.Handler):
            def emit(self, record):
                said.append(record.name)

        def fail(*_, **__):
            time.sleep(0.2)
            ended.append(1)
            raise socket.gaierror(-3, "Temporary failure in name resolution")

        said, ended = [], []
        logging.getLogger("asyncio").addHandler(Said())
        socket.getaddrinfo = fail
        client = Client(
            endpoint="https://far.test",
            sending=Sending(connect_timeout=0.02, timeout=0.05),
            retrying=Retrying(base=0.3, cap=0.3),
        )
        client.track("Added File", user_id="u1")
        while len(ended) < 2:
            time.sleep(0.01)
        assert client.close(0).is_balanced
        gc.collect()
        print(json.dumps(said))
        """,
        live,
    )
    assert said == [[]]


def test_a_lookup_that_never_ends(live: Live) -> None:
    """After a while another is made beside it, which may do better."""
    port = live.url.rpartition(":")[2]
    said = run(
        f"""
        import socket, time
        from asyncanalytics import Client, Retrying, Sending, process

        asked = []
        look_up = socket.getaddrinfo

        def hang_once(host, *given, **hints):
            asked.append(host)
            if len(asked) == 1:
                time.sleep(60)
            return look_up("127.0.0.1", *given, **hints)

        process._LONG_LOOKUP = 0.3
        socket.getaddrinfo = hang_once
        client = Client(
            endpoint="http://localhost:{port}",
            sending=Sending(connect_timeout=0.05),
            retrying=Retrying(base=0.01, cap=0.01),
        )
        client.track("Added File", user_id="u1")
        client.flush(20)
        print(len(asked))
        assert client.close(0).is_balanced
        """,
        live,
    )
    assert said == [2]
    assert len(live.events) == 1


def test_lookups_that_never_end(live: Live) -> None:
    """Each of them keeps a thread, so that the next is given twice the time."""
    script = (
        HANGING
        + """
process._LONG_LOOKUP = 0.1
start = time.monotonic()
client.track("Added File", user_id="u1")
while len(asked) < 4 or time.monotonic() - start < 1.2:
    time.sleep(0.01)
count = len(asked)
print(json.dumps([time.monotonic() - start, count]))
assert client.close(0).is_balanced
"""
    )
    [[took, asked]] = run(script, live)
    assert 0.1 * (2 ** (asked - 1) - 1) <= took


def test_lookups_that_never_end_do_not_put_off_the_next_for_ever(live: Live) -> None:
    """Some time after a name server is back, one of them reaches it."""
    script = (
        HANGING
        + """
process._LONG_LOOKUP = process._LONGEST_LOOKUP = 0.1
client.track("Added File", user_id="u1")
start = time.monotonic()
while len(asked) < 8 and time.monotonic() - start < 10:
    time.sleep(0.01)
print(json.dumps([time.monotonic() - start, len(asked)]))
assert client.close(0).is_balanced
"""
    )
    [[took, asked]] = run(script, live)
    assert asked >= 8
    assert took < 5


def test_a_lookup_that_ends_after_a_later_one_began(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes then waits for the later one, and makes none of its own."""
    ends = [threading.Event(), threading.Event()]
    asked = itertools.count()

    def hang(*_: object, **__: object) -> list[object]:
        ends[next(asked)].wait(30)
        return []

    async def look_up() -> None:
        monkeypatch.setattr(socket, "getaddrinfo", hang)
        monkeypatch.setattr("asyncanalytics.process._LONG_LOOKUP", 1.0)
        loop = asyncio.get_running_loop()
        first = asyncio.create_task(loop.getaddrinfo("far.test", 443))
        await asyncio.sleep(1.1)
        later = [asyncio.create_task(loop.getaddrinfo("far.test", 443))]
        await asyncio.sleep(0)
        ends[0].set()
        await first
        later.append(asyncio.create_task(loop.getaddrinfo("far.test", 443)))
        await asyncio.sleep(0)
        ends[1].set()
        assert await asyncio.gather(*later) == [[], []]

    loop = process.new_loop()
    loop.run_until_complete(look_up())
    loop.close()
    assert next(asked) == 2


@pytest.mark.parametrize("library", ["httpx", "aiohttp"])
def test_a_lookup_that_failed_keeps_nothing(live: Live, library: str) -> None:
    """Its error has frames that can hold the request, and the key in that."""
    pytest.importorskip(library)
    said = run(
        f"""
        import gc, socket
        from asyncanalytics import Client, Retrying, Sending

        def fail(*_, **__):
            raise socket.gaierror(-3, "Temporary failure in name resolution")

        socket.getaddrinfo = fail
        client = Client(
            endpoint="https://far.test",
            sending=Sending(http_library="{library}"),
            retrying=Retrying(base=0.01, cap=0.01, max_attempts=3),
        )
        receipt = client.track("Added File", user_id="u1")
        assert client.settled(receipt).kind == "dropped"
        gc.collect()
        errors = [each for each in gc.get_objects() if isinstance(each, socket.gaierror)]
        print(len(errors))
        assert client.close(0).is_balanced
        """,
        live,
    )
    assert said == [0]


INTERRUPTED = """
import atexit, json, logging, multiprocessing, signal, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of any fork beside threads

def say_what_is_left():  # asked last: handlers run in the opposite order
    stats = [client.stats() for client in clients]
    print(json.dumps([[each.is_balanced, each.pending] for each in stats]), flush=True)

clients = []
atexit.register(say_what_is_left)
from asyncanalytics import Client, process

class Said(logging.Handler):
    def emit(self, record):
        if "not delivered" in record.getMessage():
            print(json.dumps(record.levelname), flush=True)

def interrupt(*_):
    print(json.dumps("interrupted"), flush=True)
    raise KeyboardInterrupt

def work():
    clients.extend(Client(shutdown_timeout=1) for _ in range({clients}))
    for client in clients:
        client.track("Added File", user_id="u1")
    threading.Thread(target=time.sleep, args=({lives},)).start()
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.5)

logging.getLogger("asyncanalytics").addHandler(Said())
process._LAST_FLUSH = {flush}
"""


@pytest.mark.parametrize(
    ("clients", "flush", "lives"),
    [(3, 2, 1), (3, 0.05, 2), (1, 2, 0)],
    ids=["in the last flush", "while another thread lives", "in the last close"],
)
def test_a_signal_at_the_end_loses_nothing_in_silence(
    live: Live, clients: int, flush: float, lives: float
) -> None:
    """Wherever it comes: each client is closed, and says what it dropped."""
    live.collector.misbehave(503)
    script = INTERRUPTED.format(clients=clients, flush=flush, lives=lives) + "work()\n"
    with live.program("-c", script) as process:
        said, errors = process.communicate(timeout=30)
    *lines, left = map(json.loads, said.splitlines())
    assert lines == ["interrupted", *["ERROR"] * clients]
    assert left == [[True, 0]] * clients
    assert "KeyboardInterrupt" in errors  # Python reports it


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(
    ("clients", "lives"), [(3, 1), (1, 0)], ids=["in the last flush", "in the last close"]
)
def test_a_signal_at_the_end_of_a_forked_child_loses_nothing_in_silence(
    live: Live, clients: int, lives: float
) -> None:
    """Those that multiprocessing forks leave without the exit handlers of their parent."""
    live.collector.misbehave(503)
    script = (
        INTERRUPTED.format(clients=clients, flush=2, lives=lives)
        + """
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join()
"""
    )
    *lines, left = run(script, live)
    assert lines == ["interrupted", *["ERROR"] * clients]
    assert left == []  # the parent's


def test_a_file_is_still_written_at_the_end(live: Live, tmp_path: Path) -> None:
    """Also in a Python that starts no thread any more by then."""
    path = tmp_path / "calls.jsonl"
    run(
        f"""
        from asyncanalytics import Client, FileDestination
        client = Client(destinations=[FileDestination({str(path)!r})], shutdown_timeout=3)
        for _ in range(3):
            client.track("Added File", user_id="u1")
        """,
        live,
    )
    assert len(path.read_bytes().splitlines()) == 3


def test_too_late(live: Live) -> None:
    """A call in an exit handler is refused, whether the client ran before or not."""
    said = run(
        """
        import atexit, json
        from asyncanalytics import Client, LifecycleError
        used, fresh = Client(), Client()
        used.track("Added File", user_id="u1")

        @atexit.register
        def late():
            for client in (used, fresh):
                try:
                    client.track("Too Late", user_id="u1")
                except LifecycleError as error:
                    print(json.dumps(str(error)), flush=True)
        """,
        live,
    )
    assert all(each.startswith("the program is ending") for each in said)
    assert len(said) == 2
    assert [event["event"] for event in live.events] == ["Added File"]


@pytest.mark.parametrize(
    ("start", "wait"),
    [
        ("threading.Thread(target=work).start()", "threading.main_thread().join()"),
        (
            "from concurrent.futures import ThreadPoolExecutor; ThreadPoolExecutor(2).submit(work)",
            "time.sleep(0.3)",
        ),
    ],
    ids=["thread", "pool"],
)
def test_threads_that_outlive_the_main_one(live: Live, start: str, wait: str) -> None:
    """A program ends with its last thread: what those call meanwhile is sent too, also by name."""
    if (3, 12) <= sys.version_info < (3, 12, 2):
        pytest.skip("this Python starts no thread once the main one has ended")
    run(
        f"""
        import threading, time
        from asyncanalytics import Client
        local = {live.url.replace("127.0.0.1", "localhost")!r}
        used, idle, fresh = Client(), Client(endpoint=local), Client(endpoint=local)
        used.track("Early", user_id="u1")
        idle.start()

        def work():
            {wait}
            for client in (used, idle, fresh):
                client.track("Late", user_id="u1")
            time.sleep(0.2)
            used.track("Later", user_id="u1")

        {start}
        """,
        live,
    )
    assert sorted(event["event"] for event in live.events) == ["Early", *["Late"] * 3, "Later"]


def test_a_thread_that_waits_for_room_does_not_hold_up_the_end(live: Live) -> None:
    """With a dead endpoint and a full queue, a thread that waits is let go at the deadline."""
    live.collector.misbehave(503)
    (said,) = run(
        """
        import json, threading
        from asyncanalytics import Client, Closed, Queueing
        client = Client(queueing=Queueing(max_events=1), shutdown_timeout=0.3)
        client.track("Added File", user_id="u1")

        def work():
            try:
                client.track("Added File", user_id="u1")
            except Closed:
                print(json.dumps("closed"), flush=True)

        threading.Thread(target=work).start()
        """,
        live,
    )
    assert said == "closed"


def test_clients_end_together(live: Live) -> None:
    """Several clients with a dead endpoint take one deadline, not one each."""
    live.collector.misbehave(503)
    (seconds,) = run(
        """
        import atexit, json, time
        from asyncanalytics import Client
        for _ in range(4):
            Client(shutdown_timeout=1.0).track("Added File", user_id="u1")
        end = time.monotonic()
        atexit.register(lambda: print(json.dumps(time.monotonic() - end), flush=True))
        """,
        live,
    )
    assert 1.0 <= seconds < 3.5


@pytest.mark.parametrize("when", ["calling", "starting"])
def test_a_signal_handler_that_closes(live: Live, when: str) -> None:
    """It does so in the middle of a call or of a start, and nothing hangs or is lost."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("this system has no interval timers")
    (counts,) = run(
        f"""
        import json, signal, sys
        from asyncanalytics import Client
        client, accepted = Client(), 0

        def handle(*_):
            stats = client.close()
            raise SystemExit

        if "{when}" == "calling":
            client.start()
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.02 if "{when}" == "calling" else 0.001)
        try:
            while True:
                client.track("Added File", user_id="u1")
                accepted += 1
        except SystemExit:
            pass
        stats = client.close()
        print(json.dumps([accepted, stats.accepted, stats.delivered]), flush=True)
        """,
        live,
    )
    returned, accepted, delivered = counts
    # The call that the signal came into may have been accepted, and never returned.
    assert returned <= accepted <= returned + 1
    assert delivered == accepted == len({event["messageId"] for event in live.events})


class SlowToOpen(BaseDestination):
    """Takes half a second to open."""

    def limits(self, batching: Batching) -> Limits:
        """Return those of a place that has none of its own."""
        return own_limits(batching)

    async def open(self, *_: object) -> None:
        """Wait."""
        await asyncio.sleep(0.5)

    async def deliver(self, batch: Batch) -> Verdict:  # noqa: ARG002 - all of them
        """Take everything."""
        return Delivered()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_a_signal_s_exception_amid_a_start() -> None:
    """The next call waits for the start that was given up, and makes one anew."""

    def handle(*_: object) -> None:
        raise KeyboardInterrupt

    others = background_threads()
    before = signal.signal(signal.SIGALRM, handle)
    client = Client(destinations=[SlowToOpen("slow")])
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            client.track("Added File", user_id="u1")
        client.track("Added File", user_id="u1")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        stats = client.close()
    assert (stats.accepted, stats.delivered, stats.state) == (1, 1, "closed")
    assert background_threads() == others


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_a_signal_s_exception_amid_a_close(live: Live) -> None:
    """The closing goes on, and may be waited for; the client tells its figures and starts again."""

    def handle(*_: object) -> None:
        raise KeyboardInterrupt

    live.collector.misbehave(None, delay=0.5, count=1)
    others = background_threads()
    before = signal.signal(signal.SIGALRM, handle)
    client = Client()
    try:
        client.track("Added File", user_id="u1")
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            client.close()
        assert client.stats().is_balanced
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        stats = client.close()
    assert (stats.delivered, stats.state) == (1, "closed")
    client.start()
    client.track("Added File", user_id="u1")
    agrees(client.close(), live, 2)
    assert background_threads() == others


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_a_signal_s_exception_amid_the_end(live: Live) -> None:
    """It ends the wait for one client, and takes no other along; Python tells of it."""
    live.collector.misbehave(503, count=5)
    said = run(
        """
        import json, signal, sys
        from asyncanalytics import Client
        sys.unraisablehook = lambda found: print(json.dumps(found.exc_type.__name__), flush=True)

        def handle(*_):
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, handle)
        for _ in range(5):
            Client().track("Added File", user_id="u1")
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        """,
        live,
    )
    assert said == ["KeyboardInterrupt"]
    assert len(live.events) >= 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_after_the_environment_has_changed(live: Live) -> None:
    """The child sends where its parent did."""
    counts = forking(
        """
        client = Client()
        client.track("From Parent", user_id="u1")
        for name in ("ASYNCANALYTICS_WRITE_KEY", "ASYNCANALYTICS_ENDPOINT"):
            del os.environ[name]
        deliver_in_a_child(client)
        """,
        live,
    )
    assert counts == [1]
    assert sorted(event["event"] for event in live.events) == ["From Child", "From Parent"]


def test_an_interrupted_wait_accepts_nothing(live: Live) -> None:
    """A call that an exception ends while it waits for room is not accepted later."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("this system has no interval timers")
    live.collector.misbehave(None, delay=1.0, count=1)
    (accepted,) = run(
        """
        import json, signal
        from asyncanalytics import Client, Queueing

        def interrupt(*_):
            raise KeyboardInterrupt

        with Client(queueing=Queueing(max_events=1)) as client:
            client.track("Added File", user_id="u1")
            signal.signal(signal.SIGALRM, interrupt)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            try:
                client.track("Interrupted", user_id="u1")
            except KeyboardInterrupt:
                client.flush(timeout=10)
        print(json.dumps(client.stats().accepted), flush=True)
        """,
        live,
    )
    assert accepted == 1
    assert [event["event"] for event in live.events] == ["Added File"]


def test_a_logging_handler_may_call(live: Live) -> None:
    """Also one that hears what a start itself has to say: nothing waits for itself."""

    class Tracking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == "asyncio":
                with suppress(LifecycleError):
                    client.track("Logged", user_id="u1")

    client, handler = Client(), Tracking()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        client.track("Added File", user_id="u1")
        stats = client.close()
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert stats.is_balanced
    assert "Added File" in {event["event"] for event in live.events}


def test_a_call_within_a_call(live: Live) -> None:
    """A signal handler may make a call while its thread makes one."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("this system has no interval timers")
    (counts,) = run(
        """
        import json, signal
        from asyncanalytics import Client
        client, handled = Client(), 0

        def handle(*_):
            global handled
            client.track("From Handler", user_id="u1")
            handled += 1

        client.start()
        signal.signal(signal.SIGALRM, handle)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
        for _ in range(5_000):
            client.track("Added File", user_id="u1")
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps([handled, client.close().delivered]), flush=True)
        """,
        live,
    )
    handled, delivered = counts
    assert handled > 5
    assert delivered == 5_000 + handled == len({event["messageId"] for event in live.events})


@pytest.mark.parametrize("begin", ["pass", "client.start()"])
@pytest.mark.parametrize("is_spooled", [False, True])
def test_a_handler_amid_the_work_of_a_pool(
    live: Live, tmp_path: Path, begin: str, *, is_spooled: bool
) -> None:
    """Its thread holds a lock that all pools share: to start, to send and to close need none."""
    spool = str(tmp_path / "spool") if is_spooled else None
    said = run(
        f"""
        import json, signal
        from concurrent.futures import ThreadPoolExecutor
        from asyncanalytics import Client, Sending
        from asyncanalytics.destinations import http

        http.COMPRESSES_QUICKLY = False

        class Name:
            def __str__(self):  # asked for while the pool starts a thread
                signal.raise_signal(signal.SIGINT)
                return "pool"

        def handle(*_):
            client.track("From Handler", user_id="u1", properties={{"text": "x" * 2_000}})
            stats = client.close()
            assert stats.is_balanced
            print(json.dumps(stats.delivered), flush=True)

        client = Client(
            endpoint={live.url.replace("127.0.0.1", "localhost")!r},
            sending=Sending(gzip=True),
            spool={spool!r},
        )
        {begin}
        signal.signal(signal.SIGINT, handle)
        with ThreadPoolExecutor(thread_name_prefix=Name()) as pool:
            pool.submit(int)
        """,
        live,
        seconds=10,
    )
    assert said == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("delay", [0.0, 0.02, pytest.param(0.05, marks=pytest.mark.long)])
def test_a_fork_while_a_client_starts(live: Live, delay: float) -> None:
    """A fork waits until a start that is under way is done, so the child can start its own."""
    counts = forking(
        f"""
        client = Client()

        def work():
            for _ in range(100):
                client.track("From Parent", user_id="u1")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        time.sleep({delay})
        deliver_in_a_child(client)
        for thread in threads: thread.join()
        say(delivered(client))
        """,
        live,
    )
    assert counts == [1, 400]
    assert len({event["messageId"] for event in live.events}) == 401


WITHIN = """
from asyncanalytics import forks
within = []

def write(seconds):
    within.append(seconds)
    time.sleep(seconds)
    within.remove(seconds)

def begin(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("lookups", [0, 3])
def test_a_fork_beside_spools_that_write_all_the_time(live: Live, lookups: int) -> None:
    """It waits for each once, however seldom all of them rest at the same moment."""
    script = (
        WITHIN
        + """
def go_on(work, seconds):
    while True:
        work.run(write, seconds)

for _ in range(5):
    begin(go_on, forks.disk, 0.01)
for _ in range(LOOKUPS):
    begin(go_on, forks.lookups, 0.2)
began = time.monotonic()
for _ in range(5):
    in_a_child(lambda: say(len(within)))
say(time.monotonic() - began < 5)
os._exit(0)
"""
    )
    assert forking(script.replace("LOOKUPS", str(lookups)), live) == [0, 0, 0, 0, 0, True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_spool_that_comes_while_a_fork_waits(live: Live, tmp_path: Path) -> None:
    """It waits for the fork, and is opened after it."""
    script = (
        WITHIN
        + f"""
from asyncanalytics.spool import Spool

opened, over = [], []

def open_soon():
    while not over and forks.disk.gate.acquire(blocking=False):
        forks.disk.gate.release()
        time.sleep(0.01)
    time.sleep(0.2)  # by then the fork, which has begun, waits for the disk alone
    opened.append(Spool({str(tmp_path / "spool")!r}))

begin(forks.disk.run, write, 1.0)
while not within:
    time.sleep(0.01)
opening = begin(open_soon)
in_a_child(lambda: say([len(within), len(opened)]))
over.append(True)
opening.join()
opened[0].close()
"""
    )
    assert forking(script, live) == [[0, 0]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_gives_up_a_disk_that_hangs(live: Live) -> None:
    """It waits for all of them together no longer than for one, and gives up no other."""
    script = (
        WITHIN
        + """
forks.disk.patience = 2.0
for _ in range(3):
    begin(forks.disk.run, write, 60)
begin(forks.disk.run, write, 0.1)
while len(within) < 4:
    time.sleep(0.01)
began = time.monotonic()
in_a_child(lambda: say(within))
say(2 <= time.monotonic() - began < 5)
os._exit(0)
"""
    )
    assert forking(script, live) == [[60, 60, 60], True]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_a_signal_ends_only_one_of_the_waits_for_spools(live: Live) -> None:
    """What it raises leaves out the one that is waited for then; the others are waited for."""
    script = (
        WITHIN
        + """
sys.unraisablehook = lambda found: say(found.exc_type.__name__)
for _ in range(3):
    begin(forks.disk.run, write, 0.6)
while len(within) < 3:
    time.sleep(0.01)

def handle(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.1)
in_a_child(lambda: say(len(within)))
"""
    )
    error, count = forking(script, live)
    assert error == "KeyboardInterrupt"
    assert count <= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_at_the_end_of_the_stack(live: Live) -> None:
    """However little is left: the fork goes on, and holds nothing afterwards."""
    script = (
        WITHIN
        + """
sys.unraisablehook = id  # which takes none of the stack
sys.setrecursionlimit(200)

def fork_at(depth):
    if depth:
        return fork_at(depth - 1)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return pid

def use_all():
    with forks.starts.gate, forks.imports.alone, forks.loads.alone:
        forks.disk.run(forks.lookups.run, ended.append, depth)

ended, forked = [], []
for depth in range(180, 200):
    try:
        os.waitpid(fork_at(depth), 0)
    except RecursionError:
        break
    forked.append(depth)
    begin(use_all).join(5)
say([len(forked) > 5, ended == forked])
os._exit(0)
"""
    )
    assert forking(script, live) == [[True, True]]


OWN = """
import asyncio
from asyncanalytics import BaseDestination
from asyncanalytics.destinations.base import own_limits
from asyncanalytics.retrying import Delivered

class Own(BaseDestination):
    def limits(self, batching):
        return own_limits(batching)

    async def open(self, *_):
        OPENING

    async def deliver(self, batch):
        return Delivered()

client, other = Client(destinations=[Own("own")]), Client()
client.track("Added File", user_id="u1")
say([delivered(each) for each in (client, other)])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_start_that_forks(live: Live) -> None:
    """As a destination of one's own may: it does not wait for itself, and its child is no hang."""
    script = OWN.replace("OPENING", 'in_a_child(lambda: say("forked"))')
    assert forking(script, live, seconds=10) == ["forked", [1, 0]]


def test_starts_go_on_side_by_side(live: Live) -> None:
    """One may wait for another: no client's start is held up by that of another client."""
    script = OWN.replace("OPENING", 'await asyncio.to_thread(other.track, "Opened", user_id="u1")')
    assert forking(script, live, seconds=10) == [[1, 1]]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
@pytest.mark.parametrize("begin", ["client.start()", "pass"])
def test_a_handler_calls_while_a_fork_waits(live: Live, tmp_path: Path, begin: str) -> None:
    """What the fork holds by then, and the call needs, it lets go, and takes again."""
    script = (
        WITHIN
        + f"""
client = Client(spool={str(tmp_path / "spool")!r})
{begin}

def handle(*_):
    client.track("From Handler", user_id="u1")
    say(len(within))

begin(forks.disk.run, write, 1.0)
while not within:
    time.sleep(0.01)
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.2)
in_a_child(lambda: say(len(within)))
say(delivered(client))
"""
    )
    assert forking(script, live, seconds=10) == [1, 0, 1]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_a_handler_forks_while_a_fork_waits(live: Live) -> None:
    """Its fork waits for a start, and what that waits for is not held for the other fork."""
    script = (
        WITHIN
        + """
def start_soon():
    time.sleep(0.3)  # by then the fork waits for the disk, and lets no more of it begin
    forks.starts.run(forks.disk.run, write, 0)

def handle(*_):
    in_a_child(lambda: say(len(within)))

begin(forks.disk.run, write, 1.0)
while not within:
    time.sleep(0.01)
begin(start_soon)
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.6)
in_a_child(lambda: say(len(within)))
"""
    )
    assert forking(script, live, seconds=10) == [0, 0]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_a_child_of_a_handler_goes_on_with_the_fork_it_came_into(live: Live) -> None:
    """It waits no longer for what is the parent's, even where its own fork has given that up."""
    script = (
        WITHIN
        + """
sys.unraisablehook = lambda found: None
go, parent, inner = threading.Event(), os.getpid(), []

def interrupt(*_):
    raise KeyboardInterrupt

def handle(*_):
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    inner.append(os.fork())
    if inner[0]:
        go.set()

def hold():
    with forks.starts.gate:
        within.append("start")
        go.wait(60)

begin(hold)
while not within:
    time.sleep(0.01)
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.1)
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
if os.getpid() != parent:
    os._exit(7)
say(os.waitstatus_to_exitcode(os.waitpid(inner[0], 0)[1]))
"""
    )
    assert forking(script, live, seconds=10) == [7]


AT_EACH_STEP = """
from asyncanalytics import LifecycleError, forks

gates = [work.gate for work in (forks.starts, forks.lookups, forks.disk)]
free, asked, told = [], threading.Semaphore(0), threading.Semaphore(0)

def look():
    while True:
        asked.acquire()
        taken = [gate.acquire(timeout=0.5) for gate in gates]
        for gate, is_taken in zip(gates, taken):
            if is_taken:
                gate.release()
        free.append(all(taken))
        told.release()

def is_free():
    asked.release()
    told.acquire()
    return free.pop()

def handle(*_):
    if os.getpid() != parent:
        return
    try:
        forks.stand_back()
    except LifecycleError:
        RAISED
    else:
        said.add(is_free())

def trace(frame, event, arg):
    global left
    if frame.f_code.co_filename != forks.__file__:
        return None
    frame.f_trace_opcodes = True
    left -= 1
    if left == 0:
        signal.raise_signal(signal.SIGUSR1)
    return trace

sys.unraisablehook = lambda found: said.add(found.exc_type.__name__)
signal.signal(signal.SIGUSR1, handle)
threading.Thread(target=look, daemon=True).start()
parent, said, step, left = os.getpid(), set(), 0, 0
while left <= 0:
    step += 1
    left = step
    is_over = threading.Event()
    if step % 2:  # another is at work, or not
        begun = threading.Event()
        threading.Thread(
            target=forks.lookups.run, args=[lambda: (begun.set(), is_over.wait(0.002))]
        ).start()
        begun.wait()
    sys.settrace(trace)
    pid = os.fork()
    sys.settrace(None)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    is_over.set()
    said.add("after" if is_free() else step)
say(step > 300)
say(sorted(map(str, said)))
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("raised", ["pass", "raise"])
def test_a_handler_comes_into_each_step_of_a_fork(live: Live, raised: str) -> None:
    """It finds all let go if it may wait, else it is told; after the fork all is let go anyway."""
    is_long, said = forking(AT_EACH_STEP.replace("RAISED", raised), live, seconds=60)
    assert is_long
    assert said == ["LifecycleError", "True", "after"][raised == "pass" :]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
@pytest.mark.parametrize(("begin", "use"), [("pass", "track"), ("client.start()", "close")])
def test_a_handler_beside_a_thread_that_waits_for_the_same(
    live: Live, tmp_path: Path, begin: str, use: str
) -> None:
    """What the fork holds is let go before the handler waits for what that thread has."""
    script = (
        WITHIN
        + f"""
client = Client(spool={str(tmp_path / "spool")!r})
{begin}

def use():
    if {use!r} == "close":
        client.close()
    else:
        client.track("Added File", user_id="u1")

def handle(*_):
    use()
    say(len(within))

begin(forks.disk.run, write, 1.0)
while not within:
    time.sleep(0.01)
threading.Timer(0.2, use).start()
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.5)
in_a_child(lambda: say(len(within)))
say(delivered(client))
"""
    )
    assert forking(script, live, seconds=10) == [1, 0, 2 if use == "track" else 0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_beside_a_start_that_waits_for_another(live: Live) -> None:
    """The other may begin while the fork waits for the first."""
    script = OWN.replace("OPENING", "await asyncio.to_thread(call_soon)").replace(
        "client.track(",
        """
def call_soon():
    begun.set()
    time.sleep(0.2)  # by then the fork waits
    other.track("Opened", user_id="u1")

begun = threading.Event()
starting = threading.Thread(target=client.start)
starting.start()
begun.wait(10)
in_a_child(int)
starting.join()
client.track(""",
    )
    assert forking(script, live, seconds=10) == [[1, 1]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_the_child_of_a_start_may_call(live: Live) -> None:
    """That start is the parent's: in the child it is in the way of no other client."""
    script = OWN.replace("OPENING", "deliver_in_a_child(other)")
    assert forking(script, live, seconds=10) == [1, [1, 0]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_patience_with_spools_is_for_them_alone(live: Live) -> None:
    """A lookup that takes longer than that leaves them the whole of it."""
    script = (
        WITHIN
        + """
forks.disk.patience = 0.5

def go_on():
    while True:
        forks.disk.run(write, 0.25)
        time.sleep(0.002)

def look_up():
    time.sleep(0.15)  # by then the fork waits for the spool
    forks.lookups.run(time.sleep, 1.0)

begin(go_on)
begin(look_up)
while not within:
    time.sleep(0.01)
in_a_child(lambda: say(len(within)))
os._exit(0)
"""
    )
    assert forking(script, live) == [0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_call_amid_a_fork(live: Live) -> None:
    """What only hands over is taken; what would have to wait is refused, and no spool goes on."""
    script = (
        WITHIN
        + """
def call():
    client.track("Amid", user_id="u1")
    refused = 0
    for use in (client.flush, client.close, client.stats, Client().start):
        try:
            use()
        except LifecycleError:
            refused += 1
    say([refused, len(within)])

def go_on():
    while True:
        forks.disk.run(write, 0.02)

from asyncanalytics import LifecycleError
client = Client()
client.start()
begin(go_on)
hooked.append(call)
in_a_child(lambda: say(len(within)))
say(delivered(client))
os._exit(0)
"""
    )
    early = """
import os
hooked = []
os.register_at_fork(before=lambda: [hook() for hook in hooked])  # the first comes last
"""
    assert run(early + FORKING + script, live) == [[4, 0], 0, 1]


HALF = """
from asyncanalytics import later

def import_module(name):
    begun.set()
    until = time.monotonic() + 0.4
    while time.monotonic() < until:  # where a handler can come in
        time.sleep(0.01)
    imported.append(name)

later.import_module = import_module
imported, begun = [], threading.Event()

def fork():
    in_a_child(lambda: say(imported))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_while_certificates_are_read(live: Live) -> None:
    """It waits for that too, where a client starts on a loop of the program's own."""
    script = (
        HALF
        + """
import asyncio, httpx
from asyncanalytics import AsyncClient
create_ssl_context = httpx.create_ssl_context

def slowly():
    import_module("it")
    return create_ssl_context()

async def main():
    async with AsyncClient():
        pass

httpx.create_ssl_context = slowly
threading.Thread(target=asyncio.run, args=[main()]).start()
begun.wait(10)
fork()
"""
    )
    assert forking(script, live) == [["it"]]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_a_signal_ends_only_one_of_the_waits_of_a_fork(live: Live) -> None:
    """What it raises ends the wait for a client's start; a late import is waited for still."""
    script = (
        HALF
        + """
import asyncio
sys.unraisablehook = lambda found: say(found.exc_type.__name__)
new_event_loop, starting, ends = asyncio.new_event_loop, threading.Event(), threading.Event()

def late():
    starting.set()
    ends.wait(10)
    return new_event_loop()

asyncio.new_event_loop = late
client = Client()
threading.Thread(target=client.start).start()
starting.wait(10)
threading.Thread(target=later.load, args=["it"]).start()
begun.wait(10)

def handle(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.05)
fork()
ends.set()
"""
    )
    assert forking(script, live) == ["KeyboardInterrupt", ["it"]]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
def test_a_handler_starts_a_client_while_another_thread_forks(live: Live) -> None:
    """Amid a late import of its thread: the fork waits for that, and holds up no start."""
    script = (
        HALF
        + """
client = Client()

def handle(*_):
    time.sleep(0.1)  # by then the fork waits
    client.start()
    say("started")

def fork_then():
    begun.wait(10)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    fork()

signal.signal(signal.SIGALRM, handle)
forking = threading.Thread(target=fork_then)
forking.start()
later.load("it")
forking.join()
"""
    )
    assert forking(script, live) == ["started", ["it"]]


SLOW = """
import socket

library, looked_up = threading.Lock(), socket.getaddrinfo
begun, go = threading.Event(), threading.Event()

def getaddrinfo(*args, **hints):
    with library:  # as those in the C library, it is not made anew in a child
        begun.set()
        go.wait(%s)
        return looked_up(*args, **hints)

socket.getaddrinfo = getaddrinfo
client, other = (Client(endpoint="http://localhost:%s") for _ in range(2))
for each in (client, other):
    each.track("From Parent", user_id="u1")
begun.wait()
"""


def slow(live: Live, seconds: float = 0.3) -> str:
    """Return a script whose clients look names up for so long, or until `go` is set."""
    return SLOW % (seconds, live.url.rpartition(":")[2])


LATE = """
import asyncio
from asyncanalytics import destinations

begun, waits = threading.Event(), threading.Event()
new_event_loop = asyncio.new_event_loop

def late():
    begun.set()
    waits.wait()
    time.sleep(0.1)  # until when the fork has all that it can have now
    destinations.WebhookDestination
    return new_event_loop()

asyncio.new_event_loop = late
os.register_at_fork(before=waits.set)
client = Client()
threading.Thread(target=client.start).start()
begun.wait(10)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_amid_a_start(live: Live) -> None:
    """What the fork holds while it waits is nothing that the rest of the start waits for."""
    assert forking(LATE + "deliver_in_a_child(client)", live) == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_amid_a_start_with_a_spool(live: Live, tmp_path: Path) -> None:
    """It waits until the spool is made, and then for its writer: no child is amid SQLite's work."""
    folder = str(tmp_path / "spool")
    script = (
        LATE.replace("Client()", f"Client(spool={folder!r})")
        + f"""
from pathlib import Path
from asyncanalytics import forks
from asyncanalytics.spool import left_in

def look():
    other = threading.Thread(target=look_from_there)
    other.start()
    other.join()

def look_from_there():
    is_free = forks.disk.gate.acquire(timeout=0.2)
    say([is_free, len(left_in(Path({folder!r})))])
    if is_free:
        forks.disk.gate.release()

os.register_at_fork(after_in_parent=look)
in_a_child(int)
look()
"""
    )
    early = "import os\nos.register_at_fork(before=lambda: look())  # the first comes last\n"
    assert run(early + FORKING + script, live) == [[False, 1], [True, 1], [True, 1]]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_while_names_are_looked_up(live: Live) -> None:
    """A fork waits for the lookups of all clients, so no child inherits a lock of theirs."""
    counts = forking(
        slow(live)
        + """
deliver_in_a_child(client)
say([delivered(client), delivered(other)])
""",
        live,
    )
    assert counts == [1, [1, 1]]
    assert len({event["messageId"] for event in live.events}) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_slow_lookup_holds_up_no_start(live: Live) -> None:
    """While one client looks a name up, another starts, and looks one up beside it."""
    script = (
        slow(live, 20.0)
        + """
with Client(endpoint="http://localhost:1") as third:
    say(library.locked())
    go.set()
    for each in (client, other):
        each.close()
say(client.stats().delivered + other.stats().delivered)
"""
    )
    assert forking(script, live) == [True, 2]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
@pytest.mark.parametrize("raised", ["pass", "raise KeyboardInterrupt"])
def test_a_signal_while_a_fork_waits(live: Live, raised: str) -> None:
    """Its handler may fork too; what it raises is Python's to say, and the child begins anew."""
    script = (
        slow(live, 20.0)
        + f"""
said, children = [], []
sys.unraisablehook = lambda found: said.append(found.exc_type.__name__)

def ring():
    if not go.is_set():  # at the first fork alone, which waits from now on
        signal.setitimer(signal.ITIMER_REAL, 0.05)

def handle(*_):
    go.set()
    if os.getpid() == parent:
        in_a_child(int)
        children.append(1)
    {raised}

parent = os.getpid()
signal.signal(signal.SIGALRM, handle)
os.register_at_fork(before=ring)
in_a_child(lambda: say(client.stats().accepted))
say([len(children), len(said), delivered(client), delivered(other)])
"""
    )
    assert forking(script, live) == [0, [1, int(raised != "pass"), 1, 1]]


MANY = """
import random

def deliver():
    client.track("From Child", user_id="u1")
    return int(client.close(5).delivered != 1)

def fork_soon():
    client.track("From Parent", user_id="u1")
    time.sleep(random.random() * 0.003)
    in_a_child(deliver)
    return int(client.close(5).delivered != 1)

Client().start()  # imports what each would import
for _ in range(25):  # each in a process that has not looked up a name before
    client = Client(endpoint="http://localhost:%s")
    in_a_child(fork_soon)
"""


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forks_in_the_first_moments(live: Live) -> None:
    """Whenever a fork comes after the first call, its child delivers."""
    assert forking(MANY % live.url.rpartition(":")[2], live, seconds=55) == []
    assert len({event["messageId"] for event in live.events}) == 50


FORK = """
import json, os, sys, threading
from asyncanalytics import Client

client = Client(%s)
for number in range(10):
    client.track("From Parent", user_id=f"u{number}")

def fork():
    pid = os.fork()
    if pid == 0:
        accepted = [client.track("From Child", user_id=f"u{n}").message_id for n in range(10)]
        stats = client.flush(timeout=10)
        print(json.dumps([stats.accepted, stats.delivered]), flush=True)
        %s
    os.waitpid(pid, 0)

%s
for number in range(10):
    client.track("From Parent", user_id=f"u{number}")
stats = client.close()
print(json.dumps([stats.accepted, stats.delivered]), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(
    ("settings", "leave", "start"),
    [
        ("", "os._exit(0)", "fork()"),
        ("", "sys.exit(0)", "fork()"),
        ("", "os._exit(0)", "t = threading.Thread(target=fork); t.start(); t.join()"),
        (
            "destinations=[asyncanalytics.Destination('k', endpoint=ENDPOINT)]",
            "sys.exit(0)",
            "fork()",
        ),
    ],
    ids=["_exit", "exit", "from a thread", "destinations"],
)
def test_a_forked_child_begins_anew(live: Live, settings: str, leave: str, start: str) -> None:
    """The child delivers its own calls and none of its parent's; the parent delivers all of its."""
    script = FORK % (settings, leave, start)
    script = script.replace("ENDPOINT", f"asyncanalytics.endpoints.custom({live.url!r})")
    script = script.replace("import json,", "import asyncanalytics, json,", 1)
    if sys.version_info >= (3, 12):  # Python warns of any fork beside threads
        script = "import warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n" + script
    child, parent = run(script, live)
    assert (child, parent) == ([10, 10], [20, 20])
    names = [event["event"] for event in live.events]
    assert (names.count("From Child"), names.count("From Parent")) == (10, 20)
    assert len({event["messageId"] for event in live.events}) == 30


IN_A_CHILD = """
from asyncanalytics import process, sync

def handle(*_):
    raise KeyboardInterrupt

def trace(frame, event, arg):
    global left
    code = frame.f_code
    if os.getpid() == parent or code.co_filename not in files or code.co_name not in names:
        return None
    left -= event == "line"
    if left == 0:
        signal.raise_signal(signal.SIGUSR1)
    return trace

files = (process.__file__, sync.__file__)
names = ("_after_fork_in_child", "forget", "_renew")
sys.unraisablehook = lambda found: None
signal.signal(signal.SIGUSR1, handle)
clients = [Client(), Client()]
for client in clients:
    client.start()
parent, step, left = os.getpid(), 0, 0

def deliver():
    sys.settrace(None)
    for client in clients:
        client.track("From Child", user_id="u1")
    say([left <= 0, len(process.running), *map(delivered, clients)])

while step < 50:
    step += 1
    left = step
    sys.settrace(trace)
    in_a_child(deliver)
    sys.settrace(None)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_signal_s_exception_while_a_child_begins_anew(live: Live) -> None:
    """Wherever it comes, each of the child's clients has nothing of its parent's, and delivers."""
    said = forking(IN_A_CHILD, live, seconds=40)
    hits = said.index([False, 2, 1, 1])  # from there on it has come nowhere
    assert hits > 30
    assert said[:hits] == [[True, 2, 1, 1]] * hits


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_of_multiprocessing_flushes_at_its_end(live: Live) -> None:
    """Children that multiprocessing forks send what is left when they end."""
    script = """
    import multiprocessing, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    from asyncanalytics import Client
    client = Client()
    client.track("From Parent", user_id="u1")

    def work(number):
        client.track("From Child", user_id=f"u{number}")

    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=work, args=(number,)) for number in range(3)]
    for child in children: child.start()
    for child in children: child.join()
    """
    run(script, live)
    assert len({event["messageId"] for event in live.events}) == 4


def test_an_async_client_in_a_forked_child_says_so(live: Live) -> None:
    """The parent's client is not the child's: each use there says where to make one."""
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    script = """
    import asyncio, json, os, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    from asyncanalytics import AsyncClient, Forked

    async def child(client):
        said = []
        track = lambda: client.track("Added File", user_id="u1")
        for use in (client.start, client.flush, client.aclose, track):
            try:
                await use()
            except Forked as error:
                said.append(str(error))
        return said

    async def main():
        client = AsyncClient()
        async with client:
            await client.track("From Parent", user_id="u1")
            pid = os.fork()
            if pid == 0:
                asyncio._set_running_loop(None)
                print(json.dumps(asyncio.run(child(client))), flush=True)
                os._exit(0)
            os.waitpid(pid, 0)
        stats = client.stats()
        print(json.dumps([stats.accepted, stats.delivered]), flush=True)

    asyncio.run(main())
    """
    said, parent = run(script, live)
    assert len(said) == 4
    assert all("after the fork" in each for each in said)
    assert parent == [1, 1]


def test_a_client_that_is_let_go_still_delivers(live: Live) -> None:
    """Dropping the last reference to a client that runs loses nothing."""
    Client().track("Added File", user_id="u1")
    gc.collect()
    live.wait_for(1)

    (client,) = [each for each in process.running if each.stats().accepted == 1]
    agrees(client.close(), live, 1)


# ------------------------------------------------------------------------------------ the examples


@pytest.mark.parametrize(
    ("name", "events"), [("script.py", 1_001), ("worker_thread.py", 1), ("nightly.py", 2)]
)
def test_an_example_of_the_docs_runs(
    live: Live, example: Callable[..., Path], name: str, events: int
) -> None:
    """Each program of docs/threads.md runs as it stands, and what it sends arrives."""
    done = subprocess.run(  # noqa: S603 - our own text
        [sys.executable, "-W", "error", str(example("threads", name))],
        env=live.environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(live.events) == events
    assert {event["userId"] for event in live.events} >= {"u1"}
    if name == "nightly.py":
        assert {event["context"]["locale"] for event in live.events} == {"de-CH"}


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_hook_that_would_end_its_thread(
    live: Live, kind: type[BaseException], *, is_async: bool
) -> None:
    """It is counted as one that failed; delivery goes on, and so do later calls."""

    def leave(*_: object) -> None:
        raise kind

    async def leave_later(*_: object) -> None:
        leave()

    with Client(on_settle=leave_later if is_async else leave) as client:
        for number in range(3):
            receipt = client.track("Job Done", user_id=f"u{number}")
            assert client.settled(receipt, timeout=10).delivered
    stats = client.stats()
    assert stats.is_balanced
    assert (stats.delivered, len(live.events)) == (3, 3)
    assert [each.hook_errors for each in stats.destinations.values()] == [3]
