"""The client's life, and all that its verbs, receipts and settings promise."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import pickle
import random
import threading
import uuid
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from asyncanalytics import (
    AsyncClient,
    BaseDestination,
    Batching,
    Closed,
    ConfigurationError,
    Destination,
    FanOut,
    FileDestination,
    FlushTimeout,
    Identify,
    InvalidCall,
    LifecycleError,
    NotStarted,
    Outcome,
    QueueFull,
    Queueing,
    Retrying,
    Sending,
    State,
    TooLarge,
    Track,
    Unserialisable,
    Unsupported,
    WrongLoop,
    bound_context,
    endpoints,
)
from asyncanalytics.batching import Limits
from asyncanalytics.retrying import Delivered, Retry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Lab

looptime = pytest.mark.looptime


def now() -> float:
    """The loop's clock."""
    return asyncio.get_running_loop().time()


class Place(BaseDestination):
    """A destination of a user's own, with doors that a test opens."""

    refuses = frozenset({"alias"})

    def __init__(self, name: str = "place") -> None:
        super().__init__(name)
        self.opening, self.may_open = asyncio.Event(), asyncio.Event()
        self.may_open.set()
        self.fails_to_open = False
        self.fails_to_close = False
        self.closed = 0

    def limits(self, batching: Batching) -> Limits:
        """Take what the user allows."""
        return Limits(
            max_events=batching.max_events,
            max_bytes=batching.max_bytes,
            max_event_bytes=1_000,
            envelope=0,
            per_event=2,
        )

    async def open(self, *_: Any) -> None:
        """Wait until the test lets it open."""
        self.opening.set()
        await self.may_open.wait()
        if self.fails_to_open:
            raise OSError("no such place")

    async def deliver(self, _: Any) -> Delivered:
        """Take everything."""
        return Delivered()

    async def aclose(self) -> None:
        """Count it."""
        self.closed += 1
        if self.fails_to_close:
            raise OSError("cannot close")


class Silent(Place):
    """One that answers when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[asyncio.Future[None]] = []
        self.is_silent = True

    async def deliver(self, _: Any) -> Delivered:
        """Take everything, some time."""
        if self.is_silent:
            self.answers.append(asyncio.get_running_loop().create_future())
            await self.answers[-1]
        return Delivered()

    def answer(self) -> None:
        """Answer all."""
        self.is_silent = False
        for each in self.answers:
            if not each.done():
                each.set_result(None)


# ----------------------------------------------------------------------------------- the six calls


@looptime
async def test_every_verb_arrives(lab: Lab) -> None:
    """Each of the six calls, awaited or not, comes out at the collector as it was given."""
    collector = lab.collector()
    async with lab.client(collector) as client:
        for twin in ("", "_nowait"):
            for verb, args, fields in (
                ("identify", ("u1",), {"traits": {"name": "Arthur Dent"}}),
                ("track", ("Added File",), {"user_id": 7, "properties": {"fileSize": "42kb"}}),
                ("page", ("Home",), {"anonymous_id": uuid.UUID(int=5), "category": "Start"}),
                ("screen", ("Login",), {"user_id": "u1", "anonymous_id": "a1"}),
                ("group", ("g1",), {"user_id": "u1", "traits": {"plan": "pro"}}),
                ("alias", ("u2",), {"previous_id": "u1"}),
            ):
                receipt = getattr(client, verb + twin)(*args, **fields)
                receipt = receipt if twin else await receipt
                assert receipt.call == verb
                assert (await receipt.settled()).delivered
    assert collector.stats().by_type == dict.fromkeys(
        ("identify", "track", "page", "screen", "group", "alias"), 2
    )
    assert collector.stats().bad == 0


@looptime
async def test_calls_that_never_wait_let_others_run(lab: Lab) -> None:
    """A task beside them has four turns in 512 calls; one whose caller waits costs no turn more.

    Calls in between that cannot wait change nothing.
    """
    turns = 0

    async def beside() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with lab.client(lab.script()) as client, asyncio.TaskGroup() as group:
        task = group.create_task(beside())
        for _ in range(1_024):
            await client.track("Call", user_id="u1")
        assert 8 <= turns <= 12
        turns = 0
        for _ in range(1_024):
            await client.track("Call", user_id="u1")
            await asyncio.sleep(0)
        assert turns <= 1_025
        turns = 0
        for _ in range(896 + 512):
            await client.track("Call", user_id="u1")
            client.track_nowait("Call", user_id="u1")
        assert 8 <= turns <= 12
        task.cancel()


class Turns:
    """How many calls were made by each turn that the loop gave a task beside them."""

    def __init__(self) -> None:
        self.calls = 0
        self.at: list[int] = []

    async def note(self) -> None:
        """Take each turn that there is."""
        while True:
            self.at.append(self.calls)
            await asyncio.sleep(0)

    def longest(self) -> int:
        """Return the most calls between two turns, or since the last."""
        return max(after - before for before, after in itertools.pairwise([*self.at, self.calls]))


@looptime
async def test_how_long_calls_hold_the_loop(lab: Lab) -> None:
    """512 calls of one task, and 896 where the loop had run before; where it runs, no turn more."""
    turns = Turns()

    async def make(count: int, *, pause: int | None = None) -> None:
        for _ in range(count):
            await client.track("Call", user_id="u1")
            turns.calls += 1
            if pause is not None and turns.calls % pause == 0:
                await asyncio.sleep(0)

    async with lab.client(lab.script()) as client, asyncio.TaskGroup() as group:
        task = group.create_task(turns.note())
        await make(3_000)
        assert 256 <= turns.longest() <= 512
        await make(1_000, pause=200)
        turns.at.clear()
        await make(6_400, pause=200)
        assert len(turns.at) == 32
        turns.at[:] = [turns.calls]
        await make(896)
        assert 512 < turns.longest() <= 896
        turns.at[:] = turns.at[-1:]
        await make(2_000)
        assert 256 <= turns.longest() <= 512
        task.cancel()


@looptime
@pytest.mark.parametrize("shown_by", ["takes", "answers"])
async def test_batches_show_that_the_loop_runs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, shown_by: str
) -> None:
    """Where they are taken or answered, a call asks for nothing but to wake the flusher."""
    loop = asyncio.get_running_loop()
    asked = list[str]()
    call_soon = loop.call_soon

    def note(callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        if is_calling:
            asked.append(getattr(callback, "__qualname__", ""))
        return call_soon(callback, *args, context=context)

    place = Silent()
    batching = Batching(max_events=300 if shown_by == "takes" else 10_000, linger=60)
    sending = Sending(max_in_flight=100)
    async with lab.client(destinations=[place], batching=batching, sending=sending) as client:
        flushes = list[asyncio.Task[Any]]()
        for _ in range(0 if shown_by == "takes" else 20):
            await client.track("Call", user_id="u1")
            flushes.append(asyncio.create_task(client.flush()))
            await asyncio.sleep(0.01)
        monkeypatch.setattr(loop, "call_soon", note)
        for number in range(4_000):
            is_calling = True
            await client.track("Call", user_id="u1")
            is_calling = False
            if number % 200 == 199:
                if shown_by == "answers":
                    place.answers[number // 200].set_result(None)
                await asyncio.sleep(0.05)
        assert len(place.answers) == (13 if shown_by == "takes" else 22)
        place.answer()
    await asyncio.gather(*flushes)
    assert asked
    assert {*asked} == {"Task.task_wakeup"}


@looptime
async def test_how_long_calls_of_several_tasks_hold_the_loop(lab: Lab) -> None:
    """256 calls more for each task that is amid its calls; and none is passed over."""
    turns = Turns()
    made = [0] * 4

    async def make(task: int) -> None:
        for _ in range(2_000):
            await client.track("Call", user_id="u1")
            turns.calls += 1
            made[task] += 1
        assert min(made) >= 700

    async with lab.client(lab.script()) as client:
        task = asyncio.create_task(turns.note())
        await asyncio.gather(*(make(task) for task in range(4)))
        task.cancel()
    assert 512 < turns.longest() <= 5 * 256


@looptime
@pytest.mark.parametrize(("count", "calls", "most"), [(4, 2_000, 896 + 3 * 256), (6, 200, 896)])
async def test_answers_between_tasks_do_not_let_them_hold_the_loop(
    lab: Lab, count: int, calls: int, most: int
) -> None:
    """Several that come within one turn are one sign that the loop runs.

    So it is where no task makes as many calls as would have it wait, too.
    """
    turns, place = Turns(), Silent()
    goes = [asyncio.get_running_loop().create_future() for _ in range(count)]

    async def make(go: asyncio.Future[None]) -> None:
        await go
        for _ in range(calls):
            await client.track("Call", user_id="u1")
            turns.calls += 1

    batching, sending = Batching(max_events=10, linger=0), Sending(max_in_flight=100)
    async with lab.client(destinations=[place], batching=batching, sending=sending) as client:
        tasks = [asyncio.create_task(make(go)) for go in goes]
        for _ in goes:
            await client.track("Call", user_id="u1")
            await asyncio.sleep(0.01)
        assert len(place.answers) == len(goes)
        tasks.append(asyncio.create_task(turns.note()))
        for go, answer in zip(goes, place.answers, strict=True):
            go.set_result(None)
            answer.set_result(None)
        await asyncio.sleep(0)
        place.answer()
        await asyncio.gather(*tasks[:-1])
        tasks[-1].cancel()
    assert 512 < turns.longest() <= most


@looptime
async def test_an_answer_takes_no_call_away(lab: Lab) -> None:
    """Where the loop has just run, an answer leaves what calls may go on for as it is."""
    turns, place = Turns(), Silent()
    go = asyncio.get_running_loop().create_future()

    async def make() -> None:
        await go
        for _ in range(600):
            await client.track("Call", user_id="u1")
            turns.calls += 1

    batching = Batching(max_events=10_000, linger=0)
    async with lab.client(destinations=[place], batching=batching) as client:
        made = asyncio.create_task(make())
        await client.track("Call", user_id="u1")
        await asyncio.sleep(0.01)
        noted = asyncio.create_task(turns.note())
        place.answer()
        go.set_result(None)
        await made
        noted.cancel()
    assert turns.longest() == 600


@looptime
async def test_closed_while_a_call_lets_the_loop_run(lab: Lab) -> None:
    """It is not accepted any more; those before it are delivered."""

    async def make() -> None:
        for _ in range(512):
            await client.track("Call", user_id="u1")

    async with lab.client(lab.script()) as client:
        made = asyncio.create_task(make())
        await asyncio.sleep(0)
        assert client.stats().accepted == 511
        closing = asyncio.create_task(client.aclose())
        with pytest.raises(Closed):
            await made
        assert (await closing).delivered == client.stats().accepted == 511


@looptime
async def test_ready_models_arrive(lab: Lab) -> None:
    """`send` takes a model, and its twin does too."""
    collector = lab.collector()
    async with lab.client(collector) as client:
        await client.send(Track(event="Added File", user_id="u1", properties={"a": [1]}))
        client.send_nowait(Identify(user_id="u1", traits={"name": "Arthur"}))
    assert [event.type for event in collector.events()] == ["track", "identify"]


@looptime
async def test_a_model_that_was_given_a_field_of_the_servers_is_refused(lab: Lab) -> None:
    """Set after the model was checked, it does not get out, and is counted."""
    call = Track(event="Added File", user_id="u1")
    setattr(call, "receivedAt", "now")  # noqa: B010 - it is no field of the model
    async with lab.client(lab.script()) as client:
        with pytest.raises(InvalidCall, match="receivedAt"):
            await client.send(call)
        with pytest.raises(InvalidCall, match="receivedAt"):
            client.send_nowait(call)
        assert (client.stats().refused, client.stats().accepted) == (2, 0)


@looptime
async def test_what_the_caller_changes_later_does_not_change_the_call(lab: Lab) -> None:
    """A call is a snapshot of the moment it was made, and the caller's data stay as they are."""
    server = lab.script()
    properties: dict[str, Any] = {"items": [{"sku": 1}]}
    context: dict[str, Any] = {"app": {"name": "shop"}}
    async with lab.client(server) as client:
        await client.track("Ordered", user_id="u", properties=properties, context=context)
        assert properties == {"items": [{"sku": 1}]}
        assert context == {"app": {"name": "shop"}}
        properties["items"][0]["sku"] = 2
        context["app"]["name"] = "other"
        await client.flush()
    (event,) = server.requests[0].events
    assert event["properties"] == {"items": [{"sku": 1}]}
    assert event["context"]["app"] == {"name": "shop"}
    assert event["context"]["library"]["name"] == "asyncanalytics"


@looptime
async def test_ids_and_timestamps_are_kept(lab: Lab) -> None:
    """A message id and a timestamp of the caller's own go out as they are."""
    server = lab.script()
    moment = datetime(2026, 11, 1, 12, 0, 0, 5000, tzinfo=UTC)
    async with lab.client(server) as client:
        receipt = await client.track("Ordered", user_id="u", message_id="m-1", timestamp=moment)
        assert receipt.message_id == "m-1"
    (event,) = server.requests[0].events
    assert (event["messageId"], event["timestamp"]) == ("m-1", "2026-11-01T12:00:00.005Z")


BAD: list[tuple[type[InvalidCall], str, dict[str, Any]]] = [
    (InvalidCall, "user_id", {}),
    (InvalidCall, "user_id", {"user_id": ""}),
    (InvalidCall, "user_id", {"user_id": 0}),
    (InvalidCall, "user_id", {"user_id": True}),
    (InvalidCall, "properties", {"user_id": "u", "properties": [1]}),
    (InvalidCall, "timestamp", {"user_id": "u", "timestamp": "yesterday"}),
    (InvalidCall, "message_id", {"user_id": "u", "message_id": "x" * 101}),
    (InvalidCall, "integrations", {"user_id": "u", "integrations": {"crm": "yes"}}),
    (Unserialisable, "properties.a", {"user_id": "u", "properties": {"a": object()}}),
    (TooLarge, "size", {"user_id": "u", "properties": {"a": "x" * 40_000}}),
]


@looptime
@pytest.mark.parametrize("twin", [False, True])
@pytest.mark.parametrize("middleware", [(), (lambda call: call,)])
@pytest.mark.parametrize(("error", "field", "fields"), BAD)
async def test_bad_input_raises_at_the_call(
    lab: Lab,
    error: type[InvalidCall],
    field: str,
    fields: dict[str, Any],
    middleware: tuple[Callable[[Any], Any], ...],
    *,
    twin: bool,
) -> None:
    """What cannot be sent is refused in the caller, names its field, and is accepted nowhere."""
    server = lab.script()
    async with lab.client(server, middleware=middleware) as client:
        with pytest.raises(error) as caught:  # noqa: PT012 - one of two ways to do one thing
            if twin:
                client.track_nowait("Ordered", **fields)
            else:
                await client.track("Ordered", **fields)
        assert caught.value.field == field
        assert (client.stats().refused, client.stats().accepted) == (1, 0)
        await lab.track(client)
    assert client.stats().delivered == 1


@looptime
async def test_a_call_too_large_for_the_users_own_limit(lab: Lab) -> None:
    """The limit that the error names is the one that was passed."""
    async with lab.client(lab.script(), batching=Batching(max_bytes=2_000)) as client:
        with pytest.raises(TooLarge) as caught:
            await client.track("Ordered", user_id="u", properties={"a": "x" * 3_000})
        assert caught.value.limit < 2_000 < caught.value.size


@looptime
async def test_a_call_that_no_destination_takes(lab: Lab) -> None:
    """A kind of call that is taken nowhere raises, and names who refuses it."""
    async with lab.client(destinations=[Place("crm")]) as client:
        with pytest.raises(Unsupported, match="crm takes no alias calls"):
            await client.alias("u2", previous_id="u1")
    assert client.stats().accepted == 0


# -------------------------------------------------------------------------------------- lifecycle


@looptime
async def test_not_started(lab: Lab) -> None:
    """Before its start a client takes no calls and says how it is started."""
    client = lab.client(lab.script())
    with pytest.raises(NotStarted, match="async with"):
        await lab.track(client)
    with pytest.raises(NotStarted):
        lab.burst(client, 1)
    with pytest.raises(NotStarted):
        await client.flush()
    assert client.stats().state == "new"


def test_no_loop_at_all(lab: Lab) -> None:
    """Where no loop runs, a client that is not started refuses calls just as well."""
    client = lab.client(lab.script())
    with pytest.raises(NotStarted):
        lab.burst(client, 1)


def test_no_loop_any_more(lab: Lab) -> None:
    """After its loop has ended, a closed client refuses calls from sync code."""
    client = lab.client(lab.script())

    async def live() -> None:
        async with client:
            await lab.track(client)

    asyncio.run(live())
    with pytest.raises(Closed):
        lab.burst(client, 1)
    assert client.stats().delivered == 1


@looptime
async def test_closed(lab: Lab) -> None:
    """After its close a client takes no calls, and says so."""
    async with lab.client(lab.script()) as client:
        await lab.track(client)
    for call in (lab.track(client), client.flush()):
        with pytest.raises(Closed):
            await call
    with pytest.raises(Closed):
        lab.burst(client, 1)
    assert client.stats().state == "closed"


@looptime
async def test_started_twice(lab: Lab) -> None:
    """A second start is an error, while starting and after; the client goes on working."""
    place = Place()
    place.may_open.clear()
    client = lab.client(destinations=[place])
    starting = asyncio.create_task(client.start())
    await place.opening.wait()
    with pytest.raises(LifecycleError, match="already"):
        await client.start()
    place.may_open.set()
    await starting
    with pytest.raises(LifecycleError, match="already"):
        await client.start()
    await lab.track(client)
    await client.aclose()


@looptime
async def test_never_started_and_closed(lab: Lab) -> None:
    """Closing what was never started is quick; it may still be started."""
    client = lab.client(lab.script())
    assert (await client.aclose()).state == "closed"
    with pytest.raises(Closed):
        await lab.track(client)
    async with client:
        await lab.track(client)


@looptime
async def test_started_again(lab: Lab) -> None:
    """A closed client starts again, with new queues and the old figures."""
    server = lab.script(503, 503, then=200)
    client = lab.client(server, queueing=Queueing(max_events=3))
    for number in (1, 2, 3):
        async with client:
            await lab.track(client, 3)
        assert client.stats().delivered == 3 * number
        assert client.stats().state == "closed"
    assert len(server.arrived) == 9


def test_started_again_on_another_loop(lab: Lab, tmp_path: Path) -> None:
    """Each run of a loop may have the client, one after the other."""
    client = lab.client(destinations=[FileDestination(tmp_path / "calls.jsonl")])

    async def run() -> None:
        async with client:
            await lab.track(client, 2)

    for runs in (1, 2):
        asyncio.run(run())
        assert client.stats().delivered == 2 * runs
    assert len((tmp_path / "calls.jsonl").read_text().splitlines()) == 4


@looptime
async def test_closed_while_it_starts(lab: Lab) -> None:
    """A client that is closed during its start does not come to life afterwards."""
    place = Place()
    place.may_open.clear()
    client = lab.client(destinations=[place])
    starting = asyncio.create_task(client.start())
    await place.opening.wait()
    closing = asyncio.create_task(client.aclose())
    await asyncio.sleep(1)
    place.may_open.set()
    await asyncio.gather(starting, closing, return_exceptions=True)
    with pytest.raises(Closed):
        await lab.track(client)
    assert client.stats().state == "closed"
    assert place.closed == 1


@looptime
@pytest.mark.parametrize("how", ["fails", "cancelled"])
async def test_a_start_that_does_not_succeed(lab: Lab, how: str) -> None:
    """A start that fails or is cancelled leaves nothing open, and may be tried again."""
    place = Place()
    place.fails_to_open = how == "fails"
    place.may_open.clear()
    client = lab.client(destinations=[place])
    starting = asyncio.create_task(client.start())
    await place.opening.wait()
    if how == "fails":
        place.may_open.set()
    else:
        starting.cancel()
    with pytest.raises(OSError if how == "fails" else asyncio.CancelledError):
        await starting
    assert place.closed == 1
    with pytest.raises(NotStarted):
        await lab.track(client)
    place.fails_to_open = False
    place.may_open.set()
    async with client:
        await lab.track(client)
    assert client.stats().delivered == 1


async def test_another_loop(lab: Lab) -> None:
    """From another loop or thread every call says which loop the client is on, and none hangs."""
    errors: list[BaseException] = []
    async with lab.client(lab.script()) as client:

        async def elsewhere() -> None:
            for call in (
                lambda: lab.track(client),
                client.flush,
                client.aclose,
                client.start,
            ):
                try:
                    await call()
                except LifecycleError as error:
                    errors.append(error)

        def run() -> None:
            asyncio.run(elsewhere())
            try:
                lab.burst(client, 1)
            except LifecycleError as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        await asyncio.to_thread(thread.join)
        await lab.track(client)
    assert [type(error) for error in errors] == [
        WrongLoop,
        WrongLoop,
        WrongLoop,
        LifecycleError,
        WrongLoop,
    ]
    assert client.stats().delivered == 1


def test_a_loop_that_goes_on_in_another_thread(new_lab: type[Lab]) -> None:
    """A client goes where its loop goes. Calls from elsewhere, or while it stands, are refused."""
    loop = asyncio.new_event_loop()
    with new_lab() as lab:
        client = lab.client(lab.script())

        async def call() -> None:
            await lab.track(client)

        def misuse() -> None:
            with pytest.raises(WrongLoop):
                lab.burst(client, 1)
            with pytest.raises(WrongLoop):
                asyncio.run(call())

        loop.run_until_complete(client.start())
        loop.run_until_complete(call())
        misuse()
        elsewhere = threading.Thread(target=loop.run_forever, daemon=True)
        elsewhere.start()
        asyncio.run_coroutine_threadsafe(call(), loop).result()
        misuse()
        asyncio.run_coroutine_threadsafe(client.aclose(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        elsewhere.join()
        loop.close()
        assert client.stats().delivered == 2


@looptime
async def test_calls_while_it_closes(lab: Lab) -> None:
    """From the first step of a close on, calls are refused, and what came before is delivered."""
    client = lab.client(lab.script(then=lab.reply(200, delay=1)))
    await client.start()
    lab.burst(client, 3)
    closing = asyncio.create_task(client.aclose())
    for _ in range(5):
        await asyncio.sleep(0)
        with pytest.raises(Closed):
            lab.burst(client, 1)
        with pytest.raises(Closed):
            await lab.track(client)
    assert client.stats().state == "closing"
    assert (await closing).delivered == client.stats().accepted == 3


@looptime
async def test_close_twice_and_together(lab: Lab) -> None:
    """Closing again, or from several tasks, gives the same figures to all."""
    server = lab.script(then=lab.reply(200, delay=1))
    client = lab.client(server)
    await client.start()
    lab.burst(client, 3)
    results = await asyncio.gather(*(client.aclose() for _ in range(3)))
    results.append(await client.aclose())
    assert all(result == results[0] for result in results)
    assert (results[0].delivered, results[0].state) == (3, "closed")


@looptime
async def test_a_cancelled_close_goes_on(lab: Lab) -> None:
    """Who cancels a close gets their cancellation; the close itself runs to its end."""
    server = lab.script(then=lab.reply(200, delay=5))
    client = lab.client(server)
    await client.start()
    (receipt,) = await lab.track(client)
    closing = asyncio.create_task(client.aclose())
    await asyncio.sleep(1)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert (await client.aclose()).delivered == 1
    assert receipt.outcome is not None


@looptime
async def test_an_exception_in_the_body_goes_on(lab: Lab) -> None:
    """What the body raises comes out, after what is pending was sent."""
    client = lab.client(lab.script())

    async def work() -> None:
        async with client:
            lab.burst(client, 3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    assert client.stats().delivered == 3


@looptime
async def test_a_cancelled_body_is_drained(lab: Lab) -> None:
    """A task that is cancelled inside the block still sends what it has."""
    server = lab.script(then=lab.reply(200, delay=1))

    async def work() -> None:
        async with lab.client(server) as client:
            lab.burst(client, 3)
            await asyncio.sleep(1000)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lab.clients[0].stats().delivered == 3


@looptime
@pytest.mark.parametrize("given", ["argument", "setting"])
@pytest.mark.parametrize("server", ["hangs", "fails", "drops"])
@pytest.mark.parametrize("deadline", [0.0, 0.5, 7.0])
async def test_a_close_keeps_its_deadline(
    lab: Lab, logged: pytest.LogCaptureFixture, deadline: float, server: str, given: str
) -> None:
    """With a dead server the close ends in time; the rest is counted, logged, and receipts wake."""
    dead = lab.script(
        then={
            "hangs": lab.reply(200, delay=1e9),
            "fails": 503,
            "drops": lab.reply(drop=True),
        }[server]
    )
    settings: dict[str, Any] = {"shutdown_timeout": deadline} if given == "setting" else {}
    client = lab.client(dead, sending={"timeout": 1e6}, retrying=Retrying(base=50), **settings)
    await client.start()
    receipts = lab.burst(client, 3)
    await asyncio.sleep(100)
    receipts += lab.burst(client, 4)
    waiting = asyncio.create_task(receipts[0].settled())
    start = now()
    stats = await (client.aclose(deadline) if given == "argument" else client.aclose())
    assert now() - start <= deadline + 0.1
    outcome = await waiting
    assert (outcome.kind, outcome.reason) == ("dropped", "closed")
    assert {each.outcome.reason for each in receipts if each.outcome} == {"closed"}
    assert stats.destinations["custom"].dropped_by == {"closed": 7}
    errors = [each.getMessage() for each in logged.records if each.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "7 events" in errors[0]


@looptime
async def test_a_destination_that_cannot_close(lab: Lab, logged: pytest.LogCaptureFixture) -> None:
    """What a destination's own close raises is logged, and the client is closed all the same."""
    place, other = Place(), Place("other")
    place.fails_to_close = True
    async with lab.client(destinations=[place, other]) as client:
        await lab.track(client)
    assert client.stats().state == "closed"
    assert other.closed == 1
    assert [each.levelname for each in logged.records] == ["ERROR"]


async def test_nothing_is_left_running(lab: Lab) -> None:
    """After the close no task of the client's is left."""
    before = asyncio.all_tasks()
    async with lab.client(lab.script()) as client:
        await lab.track(client, 5)
    assert asyncio.all_tasks() == before


def test_an_unclosed_client_warns() -> None:
    """A client that is started and forgotten warns, with the number of its pending calls."""

    async def forget() -> None:
        client = AsyncClient("KEY", destinations=None, endpoint="http://127.0.0.1:1")
        await client.start()
        client.track_nowait("Ordered", user_id="u")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(forget())
        gc.collect()
    texts = [str(each.message) for each in caught if each.category is ResourceWarning]
    assert "unclosed AsyncClient with 1 events pending: await client.aclose()" in texts


def test_a_client_that_was_never_started_does_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    """Making a client costs nothing and leaves nothing."""
    AsyncClient("KEY")
    gc.collect()
    assert not recwarn.list


def test_many_clients_one_after_another(lab: Lab) -> None:
    """Each loop may have a client of its own."""
    for _ in range(3):

        async def live() -> None:
            async with lab.client(lab.script()) as client:
                await lab.track(client)
            assert client.stats().delivered == 1

        asyncio.run(live())


# ------------------------------------------------------------------------------------------ flush


@looptime
async def test_flush_does_not_linger(lab: Lab) -> None:
    """A flush sends what lingers, and returns when all of it is settled."""
    server = lab.script(then=lab.reply(200, delay=1))
    async with lab.client(server, batching=Batching(linger=100)) as client:
        await lab.track(client)
        await asyncio.sleep(5)
        await lab.track(client, 3)
        stats = await client.flush()
        assert now() == 6
        assert (stats.delivered, stats.pending, stats.state) == (4, 0, "open")


@looptime
async def test_flush_hurries_all_that_waits(lab: Lab) -> None:
    """What is left over after the full batches does not linger either."""
    server = lab.script(then=lab.reply(200, delay=1))
    batching, sending = Batching(linger=100, max_events=3), {"max_in_flight": 1}
    async with lab.client(server, batching=batching, sending=sending) as client:
        lab.burst(client, 7)
        await asyncio.sleep(0.5)
        assert (await client.flush()).delivered == 7
        assert now() == 3


@looptime
async def test_flush_times_out(lab: Lab) -> None:
    """A flush that takes too long says how much is pending; delivery goes on."""
    server = lab.script(then=lab.reply(200, delay=5))
    async with lab.client(server) as client:
        receipts = lab.burst(client, 3)
        with pytest.raises(FlushTimeout, match="3 events") as caught:
            await client.flush(timeout=2)
        assert (now(), caught.value.pending, caught.value.timeout) == (2, 3, 2)
        assert (await receipts[0].settled()).delivered
        assert now() == 5


@looptime
@pytest.mark.parametrize("timeout", [0, 0.0, None, 5])
async def test_flush_of_nothing(lab: Lab, timeout: float | None) -> None:
    """With nothing pending a flush succeeds at once, however little time it has."""
    async with lab.client(lab.script()) as client:
        assert (await client.flush(timeout)).pending == 0
        await lab.track(client, 3)
        await client.flush()
        assert (await client.flush(timeout)).delivered == 3
        assert now() == 0


@looptime
async def test_flush_does_not_wait_for_later_calls(lab: Lab) -> None:
    """Calls that are made during a flush do not prolong it."""
    server = lab.script(then=lab.reply(200, delay=1))
    sending, batching = {"max_in_flight": 1}, Batching(linger=0)
    async with lab.client(server, sending=sending, batching=batching) as client:

        async def load() -> None:
            for _ in range(40):
                await lab.track(client)
                await asyncio.sleep(0.25)

        loading = asyncio.create_task(load())
        await asyncio.sleep(3.1)
        start = now()
        await client.flush()
        assert now() - start <= 2
        assert client.stats().pending > 0
        await loading


@looptime
async def test_flushes_together(lab: Lab) -> None:
    """Several flushes at a time all return, a cancelled one disturbs none."""
    server = lab.script(then=lab.reply(200, delay=1))
    async with lab.client(server) as client:
        await lab.track(client, 3)
        flushes = [asyncio.create_task(client.flush()) for _ in range(4)]
        await asyncio.sleep(0.5)
        flushes[1].cancel()
        results = await asyncio.gather(*flushes, return_exceptions=True)
    assert [type(each).__name__ for each in results] == [
        "Stats",
        "CancelledError",
        "Stats",
        "Stats",
    ]


@looptime
async def test_flush_while_closing(lab: Lab) -> None:
    """A flush under way when the client closes ends with it."""
    server = lab.script(then=lab.reply(200, delay=1e9))
    async with lab.client(server, sending={"timeout": 1e6}) as client:
        await lab.track(client)
        flushing = asyncio.create_task(client.flush())
        await asyncio.sleep(1)
        await client.aclose(2)
        assert (await flushing).pending == 0


# --------------------------------------------------------------------------------------- receipts


@looptime
async def test_a_receipt_tells_its_outcome_to_all_who_wait(lab: Lab) -> None:
    """Several tasks may wait for one receipt; one that is cancelled disturbs none."""
    server = lab.script(then=lab.reply(200, delay=5))
    async with lab.client(server) as client:
        (receipt,) = await lab.track(client)
        assert receipt.outcome is None
        assert repr(receipt) == f"<Receipt track {receipt.message_id} pending>"
        waiting = [asyncio.create_task(receipt.settled()) for _ in range(4)]
        await asyncio.sleep(1)
        waiting[0].cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1] is results[2] is results[3] is receipt.outcome
        assert await receipt.settled() is receipt.outcome
    assert receipt.outcome == Outcome(
        kind="delivered", destination="custom", status=200, attempts=1
    )
    assert receipt.body == b""
    assert repr(receipt) == f"<Receipt track {receipt.message_id} delivered>"


@looptime
async def test_a_fan_out_tells_the_outcome_of_every_part(lab: Lab) -> None:
    """The receipt of a call for several destinations has a part for each, and sums them up."""
    good, bad = lab.script(), lab.script(then=404)
    destinations = [lab.destination(good, "good"), lab.destination(bad, "bad")]
    async with lab.client(destinations=destinations) as client:
        (receipt,) = await lab.track(client)
        assert isinstance(receipt, FanOut)
        assert {part.message_id for part in receipt.parts} == {receipt.message_id}
        outcome = await receipt.settled()
        assert (outcome.kind, outcome.destination, outcome.status) == ("rejected", "bad", 404)
        kinds = [part.outcome.kind for part in receipt.parts if part.outcome]
        assert kinds == ["delivered", "rejected"]


@looptime
async def test_a_fan_out_has_its_outcome_without_being_awaited(lab: Lab) -> None:
    """Once every part has ended, so has the whole, whether or not anyone has waited for it."""
    destinations = [lab.destination(lab.script(), "one"), lab.destination(lab.script(), "two")]
    async with lab.client(destinations=destinations) as client:
        (receipt,) = await lab.track(client)
        assert receipt.outcome is None
    assert receipt.outcome is not None
    assert receipt.outcome.delivered
    assert "delivered" in repr(receipt)


# ---------------------------------------------------------------------------------- destinations


@looptime
@pytest.mark.parametrize(
    ("integrations", "expected"),
    [
        (None, {"crm", "mail"}),
        ({}, {"crm", "mail"}),
        ({"All": True}, {"crm", "mail"}),
        ({"All": False}, set()),
        ({"All": False, "crm": True}, {"crm"}),
        ({"All": False, "crm": {"list": 7}}, {"crm"}),
        ({"crm": False}, {"mail"}),
        ({"CRM": False}, {"crm", "mail"}),  # names are case-sensitive
        ({"All": True, "mail": False}, {"crm"}),
        ({"crm": False, "mail": False}, set()),
        ({"Salesforce": False}, {"crm", "mail"}),
    ],
)
async def test_integrations_select(
    lab: Lab, integrations: dict[str, Any] | None, expected: set[str]
) -> None:
    """`integrations` choose among destinations by name, with `All` for the rest, and travel."""
    servers = {"crm": lab.script(), "mail": lab.script()}
    destinations = [lab.destination(server, name) for name, server in servers.items()]
    async with lab.client(destinations=destinations) as client:
        receipt = await client.track("Ordered", user_id="u", integrations=integrations)
        outcome = await receipt.settled()
    assert {name for name, server in servers.items() if server.requests} == expected
    assert client.stats().accepted == len(expected)
    assert client.stats().unrouted == (not expected)
    if not expected:
        assert (outcome.kind, outcome.reason) == ("dropped", "unrouted")
    for server in servers.values():
        for request in server.requests:
            assert request.events[0].get("integrations") == integrations


@looptime
async def test_one_destination_gets_every_call(lab: Lab) -> None:
    """With one destination `integrations` only travel."""
    server = lab.script()
    async with lab.client(server) as client:
        await client.track("Ordered", user_id="u", integrations={"All": False})
    assert server.requests[0].events[0]["integrations"] == {"All": False}


@looptime
async def test_a_call_too_large_for_one_destination(lab: Lab) -> None:
    """A destination that takes no such call counts it; the other gets it."""
    server = lab.script()
    async with lab.client(destinations=[Place("small"), lab.destination(server)]) as client:
        receipt = await client.track("Ordered", user_id="u", properties={"a": "x" * 2_000})
        alias = await client.alias("u2", previous_id="u1")
        assert (await receipt.settled()).reason == "too_large"
        assert (await alias.settled()).reason == "unsupported"
    stats = client.stats().destinations
    assert stats["small"].dropped_by == {"too_large": 1, "unsupported": 1}
    assert stats["custom"].delivered == 2


@looptime
async def test_each_destination_has_rules_of_its_own(lab: Lab) -> None:
    """Batching, queueing and retrying may differ from one destination to the next."""
    one, two = lab.script(then=500), lab.script(then=500)
    destinations = [
        lab.destination(one, "one", retrying=Retrying(max_attempts=1)),
        lab.destination(two, "two", batching=Batching(max_events=1)),
    ]
    retrying = Retrying(max_attempts=0)
    async with lab.client(destinations=destinations, retrying=retrying) as client:
        lab.burst(client, 3)
    assert [len(request.ids) for request in one.requests] == [3, 3]
    assert [len(request.ids) for request in two.requests] == [1, 1, 1]


@looptime
async def test_a_destination_in_use(lab: Lab) -> None:
    """A destination serves one client at a time, and another afterwards."""
    destination = lab.destination(lab.script())
    async with lab.client(destinations=[destination]):
        with pytest.raises(ConfigurationError, match="in use"):
            await lab.client(destinations=[destination]).start()
    async with lab.client(destinations=[destination]) as client:
        await lab.track(client)
    assert client.stats().delivered == 1


@looptime
async def test_the_first_client_goes_on_when_a_second_wants_its_destination(lab: Lab) -> None:
    """A second client that is refused a destination does not take it from the first."""
    destination = lab.destination(lab.script())
    async with lab.client(destinations=[destination]) as client:
        with pytest.raises(ConfigurationError):
            await lab.client(destinations=[destination]).start()
        (receipt,) = await lab.track(client)
        assert (await receipt.settled()).delivered


# --------------------------------------------------------------------------- settings, environment


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"write_key": ""},
        {"write_key": " key"},
        {"write_key": "key\n"},
        {"write_key": "key", "endpoint": "nowhere"},
        {"write_key": "key", "endpoint": "http://example.com"},
        {"write_key": "key", "endpoint": "https://key@example.com"},
        {"destinations": []},
        {"write_key": "key", "destinations": [Destination("key")]},
        {"destinations": [Destination("a"), Destination("b")]},
        {"write_key": "key", "name": "All"},
        {"write_key": "key", "name": ""},
        {"write_key": "key", "sending": Sending(http_client=object())},
    ],
)
def test_settings_that_cannot_work(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """They fail where they are written, and never show the key."""
    monkeypatch.delenv("ASYNCANALYTICS_WRITE_KEY", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        AsyncClient(**settings)
    assert "key@" not in str(caught.value)


@pytest.mark.parametrize(
    ("group", "fields"),
    [
        (Batching, {"max_events": 0}),
        (Batching, {"max_bytes": 10}),
        (Batching, {"linger": -1}),
        (Queueing, {"max_events": 0}),
        (Queueing, {"max_bytes": 1}),
        (Queueing, {"when_full": "explode"}),
        (Queueing, {"max_wait": -1}),
        (Queueing, {"when_full": "raise", "max_wait": 1}),
        (Retrying, {"max_attempts": -1}),
        (Retrying, {"base": 5, "cap": 1}),
        (Retrying, {"max_elapsed": -1}),
        (Retrying, {"max_retry_after": 0}),
        (Sending, {"max_in_flight": 0}),
        (Sending, {"connect_timeout": 0}),
        (Sending, {"timeout": 0}),
    ],
)
def test_groups_check_themselves(group: type, fields: dict[str, Any]) -> None:
    """A wrong setting fails where it is made, and names its group."""
    with pytest.raises(ConfigurationError, match=group.__name__):
        group(**fields)


@looptime
async def test_the_environment_gives_what_is_left_out(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key and endpoint come from the environment unless they are given."""
    server, other = lab.script(), lab.script()
    there, here = lab.endpoint(server), lab.endpoint(other)
    monkeypatch.setenv("ASYNCANALYTICS_WRITE_KEY", "environment")
    monkeypatch.setenv("ASYNCANALYTICS_ENDPOINT", there.base)
    async with lab.client(key=None, endpoint=None) as client:
        await lab.track(client)
    async with lab.client(key="argument", endpoint=here) as client:
        await lab.track(client)
    assert server.requests[0].headers["authorization"] == "Basic ZW52aXJvbm1lbnQ6"
    assert other.requests[0].headers["authorization"] == "Basic YXJndW1lbnQ6"


@pytest.mark.parametrize(
    ("value", "disabled"),
    [("1", True), ("true", True), ("Yes", True), (" on ", True), ("0", False), ("", False)],
)
@looptime
async def test_disabled(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, value: str, *, disabled: bool
) -> None:
    """A disabled client needs no key, checks and counts calls, and sends nothing."""
    monkeypatch.setenv("ASYNCANALYTICS_DISABLED", value)
    server = lab.script()
    key = None if disabled else lab.KEY
    async with lab.client(server, key=key) as client:
        (receipt,) = await lab.track(client)
        with pytest.raises(InvalidCall):
            await client.track("Ordered")
        outcome = await receipt.settled()
        await client.flush()
    assert bool(server.requests) is not disabled
    assert (outcome.reason == "disabled") is disabled
    assert client.stats().refused == 1


@looptime
async def test_an_argument_wins_over_the_environment(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`disabled=False` sends, whatever the environment says."""
    monkeypatch.setenv("ASYNCANALYTICS_DISABLED", "1")
    server = lab.script()
    async with lab.client(server, disabled=False) as client:
        await lab.track(client)
    assert len(server.requests) == 1


def test_keys_do_not_show(lab: Lab) -> None:
    """No repr of a client, a destination or a setting shows a key."""
    client = lab.client(lab.script())
    destination = client._flushers[0].destination
    texts = [repr(client), repr(destination), str(client.stats()), repr(vars(destination))]
    assert not [text for text in texts if lab.KEY in text]


@looptime
async def test_stats_are_a_record_of_their_moment(lab: Lab) -> None:
    """Figures that were taken do not change, and can be written as JSON."""
    server = lab.script(200, 404, then=413)
    async with lab.client(server, batching=Batching(linger=0)) as client:
        before = client.stats()
        for _ in range(3):
            await (await lab.track(client))[0].settled()
        after = client.stats()
    assert (before.accepted, before.delivered) == (0, 0)
    assert (after.accepted, after.delivered, after.rejected, after.dropped) == (3, 1, 1, 1)
    plain = json.loads(json.dumps(after.as_dict()))
    assert plain["destinations"]["custom"]["rejected_by"] == {"404": 1}
    assert plain["destinations"]["custom"]["dropped_by"] == {"too_large": 1}
    assert plain["state"] == "open"


# ------------------------------------------------------------------------------------ under load


@looptime
async def test_many_tasks_one_client(lab: Lab) -> None:
    """Hundreds of tasks call at once, the server is shaky, and every call arrives."""
    server = lab.script(then=200)
    statuses = itertools.cycle([200, 503, 200, 429, 200, 500, 408])
    server.then = lambda _: lab.reply(next(statuses), delay=0.01)
    queueing, retrying = Queueing(max_events=50), Retrying(max_attempts=1000, cap=1)
    async with lab.client(
        server, queueing=queueing, retrying=retrying, batching=Batching(max_events=10)
    ) as client:
        await asyncio.gather(*(lab.track(client, 5) for _ in range(200)))
        assert (await client.flush()).delivered == 1000
    assert {len(each) for each in server.arrived.values()} == {1}
    assert server.peak <= Sending().max_in_flight


@looptime
async def test_awaited_calls_let_the_loop_run(lab: Lab) -> None:
    """A task that only makes calls does not keep the others, or the sending, from running."""
    server = lab.script()
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    async with lab.client(server) as client:
        beating = asyncio.create_task(beat())
        await lab.track(client, 6_000)
        assert beats >= 10
        assert server.requests
        beating.cancel()


@looptime
@pytest.mark.parametrize("seed", range(10))
async def test_callers_cancelled_at_random(lab: Lab, seed: int) -> None:
    """Whatever callers are cancelled and whenever, each call is in one place or none."""
    chance = random.Random(seed)  # noqa: S311 - chance, not secrecy
    server = lab.script(then=lambda _: lab.reply(chance.choice([200, 503]), delay=chance.random()))
    queueing = Queueing(max_events=10)
    retrying = Retrying(max_attempts=1000, base=0.1, cap=0.1)
    async with lab.client(
        server, queueing=queueing, retrying=retrying, batching=Batching(linger=0.1)
    ) as client:
        tasks = [asyncio.create_task(lab.track(client)) for _ in range(100)]
        for task in tasks:
            await asyncio.sleep(chance.random() * 0.05)
            if chance.random() < 0.5:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.flush()
    assert 0 < client.stats().delivered <= 100
    assert client.stats().pending == 0


@looptime
async def test_closing_under_load(lab: Lab) -> None:
    """Calls that race a close are delivered or get `Closed`, and none is lost between."""
    server = lab.script(then=lab.reply(200, delay=0.01))
    client = lab.client(server, queueing=Queueing(max_events=20), batching=Batching(linger=0.02))
    await client.start()
    errors: list[type] = []

    async def load() -> None:
        try:
            while True:
                await lab.track(client)
        except (Closed, QueueFull) as error:
            errors.append(type(error))

    tasks = [asyncio.create_task(load()) for _ in range(10)]
    await asyncio.sleep(1)
    stats = await client.aclose(5)
    await asyncio.gather(*tasks)
    assert set(errors) == {Closed}
    assert stats.delivered == stats.accepted > 100


@looptime
async def test_closing_with_a_batch_half_done(lab: Lab) -> None:
    """At the deadline a batch that was cut in two keeps what has ended of it."""
    server = lab.script(400, 200, then=lab.reply(200, delay=1e9))
    client = lab.client(server, sending={"timeout": 1e6})
    await client.start()
    receipts = lab.burst(client, 4)
    await receipts[0].settled()
    stats = await client.aclose(1)
    assert (stats.delivered, stats.dropped, stats.pending) == (2, 2, 0)
    reasons = [each.outcome.reason for each in receipts if each.outcome]
    assert reasons == ["", "", "closed", "closed"]


@looptime
async def test_closing_in_the_moment_of_a_call(lab: Lab) -> None:
    """A call that has paused for the loop's sake when the client closes is not accepted."""
    client = lab.client(lab.script())
    await client.start()
    calls = [asyncio.create_task(lab.track(client)) for _ in range(1_000)]
    closing = asyncio.create_task(client.aclose())
    results = await asyncio.gather(*calls, return_exceptions=True)
    stats = await closing
    refused = [each for each in results if isinstance(each, Closed)]
    assert refused
    assert stats.delivered == stats.accepted == 1_000 - len(refused)


@looptime
async def test_an_http_client_that_is_closed(lab: Lab) -> None:
    """A closed `httpx.AsyncClient` is refused at the start."""
    http = lab.http()
    await http.aclose()
    client = lab.client(lab.script(), sending={"http_client": http})
    with pytest.raises(ConfigurationError, match="closed"):
        await client.start()


def test_endpoint_as_text() -> None:
    """A client takes the text that `endpoints.parse` reads."""
    client = AsyncClient("key", endpoint="segment@eu")
    destination = client._flushers[0].destination
    assert isinstance(destination, Destination)
    assert destination.endpoint == endpoints.segment(region="eu")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"destinations": ["key"]}, "destinations must be"),
        ({"destinations": Destination("key")}, "destinations must be"),
        ({"write_key": "key", "middleware": print}, "middleware must be"),
        ({"write_key": "key", "middleware": ["redact"]}, "middleware must be"),
        ({"write_key": "key", "batching": {"linger": 1}}, r"batching must be a Batching\(...\)"),
        ({"write_key": "key", "sending": Queueing()}, r"sending must be a Sending\(...\)"),
        ({"write_key": "key", "endpoint": endpoints.segment}, "endpoint must be"),
        ({"write_key": "key", "on_settle": 3}, "on_settle must be"),
        ({"write_key": 123}, "the write key must be text"),
        ({"write_key": "key", "shutdown_timeout": "soon"}, "shutdown_timeout must be"),
        ({"write_key": "key", "shutdown_timeout": -1.0}, "shutdown_timeout must be"),
    ],
)
def test_what_is_of_the_wrong_kind_is_refused(settings: dict[str, Any], text: str) -> None:
    """A mistake in the constructor is named there, in words of the public API."""
    with pytest.raises(ConfigurationError, match=text):
        AsyncClient(**settings)


def test_a_loop_that_ended_without_a_close(tmp_path: Path) -> None:
    """A client that was left behind says so, however it is used."""
    client = AsyncClient(destinations=[FileDestination(tmp_path / "calls.jsonl")])
    asyncio.run(client.start())
    for use in (client.start, client.flush, client.aclose, lambda: client.track("A", user_id="u")):
        with pytest.raises(LifecycleError, match="ended without aclose"):
            asyncio.run(use())
    client._state = State.CLOSED  # so that nothing warns of it


@looptime
async def test_a_hook_is_not_bound_to_the_place_of_the_start(lab: Lab) -> None:
    """Who started the client, in whatever request, has no part in what a hook calls."""
    server = lab.script()
    client = lab.client(server, on_settle=lambda *_: follow())

    def follow() -> None:
        if len(client.taken) == 1:
            client.track_nowait("Followed Up", anonymous_id="a1")

    with bound_context(user_id="first", context={"ip": "192.0.2.7"}):
        await client.start()
        await client.track("Added File")
    await client.flush()
    await client.aclose()
    first, second = (event for request in server.requests for event in request.events)
    assert first["context"]["ip"] == "192.0.2.7"
    assert "ip" not in second["context"]


def test_a_destination_cannot_be_pickled() -> None:
    """A pickle would hold the key."""
    with pytest.raises(TypeError, match="holds a key"):
        pickle.dumps(Destination("a-key-that-opens-nothing"))


def test_a_client_that_was_never_made_whole_has_a_repr() -> None:
    """What shows the locals of a failed constructor must not fail on them."""
    assert "AsyncClient" in repr(AsyncClient.__new__(AsyncClient))


@looptime
async def test_who_still_looks_for_room_at_a_close(lab: Lab) -> None:
    """With room at one destination, and none at another, a caller hears of it at once."""

    class Closing(Place):
        """Begins to close as it makes room."""

        async def deliver(self, _: Any) -> Delivered:
            await asyncio.sleep(0.2)
            closing.append(asyncio.ensure_future(client.aclose(5)))
            await asyncio.sleep(0)
            return Delivered()

    class Down(Place):
        """Takes nothing."""

        async def deliver(self, _: Any) -> Any:
            return Retry("down")

    closing: list[asyncio.Future[Any]] = []
    queueing = Queueing(max_events=1)
    client = lab.client(destinations=[Closing("closing"), Down("down")], queueing=queueing)
    await client.start()
    await client.track("First", user_id="u1")
    clock = asyncio.get_running_loop().time
    since = clock()
    with pytest.raises(Closed):
        await client.track("Second", user_id="u1")
    assert clock() - since < 1
    await closing[0]
