"""The engine: when requests go, how trouble is met, and what is said of it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncanalytics import (
    AsyncClient,
    BaseDestination,
    Batching,
    Outcome,
    Queueing,
    Receipt,
    Retrying,
    Sending,
)
from asyncanalytics.batching import Limits
from asyncanalytics.retrying import Delivered, Halt, backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from conftest import Lab, Request

pytestmark = pytest.mark.looptime


def now() -> float:
    """The loop's clock."""
    return asyncio.get_running_loop().time()


class Place(BaseDestination):
    """A user's own destination: what it does is given to it."""

    def __init__(self, deliver: Callable[[Any], Any], name: str = "place") -> None:
        super().__init__(name)
        self._deliver = deliver
        self.opened = asyncio.Event()
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.closed = 0

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
        """Wait until the test lets it open."""
        self.opened.set()
        await self.may_open.wait()

    async def deliver(self, batch: Any) -> Any:
        """Do what was given."""
        return await self._deliver(batch)

    async def aclose(self) -> None:
        """Count it."""
        self.closed += 1


# ------------------------------------------------------------------------------------- linger


async def test_the_first_call_after_quiet_goes_at_once(lab: Lab) -> None:
    """A call that follows nothing waits for nothing; one after a long quiet does not either."""
    server = lab.script()
    async with lab.client(server, batching=Batching(linger=10)) as client:
        for moment in (0, 25, 40):
            await asyncio.sleep(moment - now())
            (receipt,) = await lab.track(client)
            await receipt.settled()
            assert now() == moment
    assert [request.at for request in server.requests] == [0, 25, 40]


async def test_later_calls_gather_for_the_linger_at_most(lab: Lab) -> None:
    """What follows a request soon goes together, `linger` after it."""
    server = lab.script()
    async with lab.client(server, batching=Batching(linger=9)) as client:
        for _ in range(8):
            await lab.track(client)
            await asyncio.sleep(2)
        await client.flush()
    assert [(request.at, len(request.ids)) for request in server.requests] == [
        (0, 1),
        (9, 4),  # of the moments 2 to 8
        (16, 3),  # hurried by the flush
    ]


async def test_a_full_batch_does_not_linger(lab: Lab) -> None:
    """A batch that can take no more goes at once, by count or by bytes."""
    server = lab.script()
    async with lab.client(server, batching=Batching(linger=100, max_events=3)) as client:
        await (await lab.track(client))[0].settled()
        receipts = await lab.track(client, 7)
        await receipts[5].settled()
        assert now() == 0
        await receipts[6].settled()
        assert now() == 100
    assert [len(request.ids) for request in server.requests] == [1, 3, 3, 1]
    server = lab.script()
    async with lab.client(server, batching=Batching(linger=100, max_bytes=5_000)) as client:
        start = now()
        await (await lab.track(client))[0].settled()
        receipts = lab.burst(client, 40)
        await receipts[10].settled()
        assert now() == start


async def test_nothing_lingers_when_linger_is_0(lab: Lab) -> None:
    """With no linger every call goes as soon as the loop turns."""
    server = lab.script()
    async with lab.client(server, batching=Batching(linger=0)) as client:
        for receipt in [(await lab.track(client))[0] for _ in range(5)]:
            await receipt.settled()
        assert now() == 0


async def test_busy_batches_grow(lab: Lab) -> None:
    """While requests are slow, what waits gathers into large batches."""
    server = lab.script(then=lab.reply(200, delay=1.0))
    sending = {"max_in_flight": 1}
    async with lab.client(server, batching=Batching(linger=0), sending=sending) as client:
        for _ in range(100):
            await lab.track(client)
            await asyncio.sleep(0.05)
        await client.flush()
    assert len(server.requests) <= 8
    assert server.peak == 1


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(min_value=0, max_value=3_000), min_size=1, max_size=40),
    max_events=st.integers(min_value=1, max_value=10),
    max_bytes=st.integers(min_value=4_000, max_value=9_000),
)
async def test_no_request_is_over_a_limit(
    new_lab: type[Lab], sizes: list[int], max_events: int, max_bytes: int
) -> None:
    """On the wire, no request has more calls or bytes than allowed; order is kept."""
    with new_lab() as lab:
        server = lab.script()
        batching = Batching(max_events=max_events, max_bytes=max_bytes)
        sending = {"max_in_flight": 1}
        async with lab.client(server, batching=batching, sending=sending) as client:
            receipts = [
                client.track_nowait("Added File", user_id="u", properties={"x": "x" * size})
                for size in sizes
            ]
    assert all(len(request.ids) <= max_events for request in server.requests)
    assert all(len(request.content) <= max_bytes for request in server.requests)
    assert [each for request in server.requests for each in request.ids] == [
        receipt.message_id for receipt in receipts
    ]


# ----------------------------------------------------------------------------------- retrying


@pytest.mark.parametrize("seed", range(5))
async def test_backoff_stays_within_its_bounds(lab: Lab, seed: int) -> None:
    """Each pause is at most base times two to the failures, and never over the cap."""
    random.seed(seed)
    server = lab.script(then=503)
    retrying = Retrying(max_attempts=8, base=0.5, cap=6.0)
    async with lab.client(server, retrying=retrying) as client:
        await (await lab.track(client))[0].settled()
    moments = [request.at for request in server.requests]
    pauses = [after - before for before, after in itertools.pairwise(moments)]
    bounds = [0.5, 1, 2, 4, 6, 6, 6, 6]
    assert len(pauses) == 8
    assert all(0 <= pause <= bound + 1e-6 for pause, bound in zip(pauses, bounds, strict=True))
    assert len(set(pauses)) == 8  # jitter


@given(
    failures=st.integers(min_value=0, max_value=10**6), fraction=st.floats(0, 1, allow_nan=False)
)
def test_backoff_has_no_bad_values(failures: int, fraction: float) -> None:
    """However often it failed, the pause is between nothing and the cap."""
    assert 0 <= backoff(Retrying(), failures, fraction) <= Retrying().cap


@pytest.mark.parametrize("value", ["5", "0", "-3", "soon", "999999999999", "1e3", "86400", ""])
async def test_retry_after_values(lab: Lab, value: str) -> None:
    """Seconds are clamped to 1 and 300; anything else leaves it to the backoff."""
    server = lab.script(lab.reply(503, headers={"retry-after": value}), then=200)
    async with lab.client(server) as client:
        await (await lab.track(client))[0].settled()
        took = now()
    least = {"5": 5.0, "0": 1.0, "86400": 300.0}.get(value, 0.0)
    assert least <= took <= least + 0.5


async def test_a_retry_after_date(lab: Lab, wall: Callable[[float], str]) -> None:
    """A date is as good as seconds."""
    assert wall(0) == "2027-01-15T08:00:00.000Z"
    headers = {"retry-after": "Fri, 15 Jan 2027 08:01:30 GMT"}
    server = lab.script(lab.reply(429, headers=headers), then=200)
    async with lab.client(server) as client:
        await (await lab.track(client))[0].settled()
        assert 90 <= now() <= 90.5


async def test_retry_after_pauses_the_whole_destination(lab: Lab) -> None:
    """While one answer's Retry-After runs, no other batch of that destination goes out."""
    asked = lab.reply(429, headers={"retry-after": "30"})
    slow, other = lab.script(asked, then=200), lab.script()
    destinations = [lab.destination(slow, "slow"), lab.destination(other, "other")]
    batching = Batching(linger=0)
    async with lab.client(destinations=destinations, batching=batching) as client:
        for _ in range(10):
            await lab.track(client)
            await asyncio.sleep(1)
        assert len(slow.requests) == 1
        assert len(other.requests) == 10
        await client.flush()
        assert 30 <= now() < 31.5
    assert min(request.at for request in slow.requests[1:]) >= 30


async def test_max_elapsed_bounds_retry_after_for_ever(lab: Lab) -> None:
    """A server that asks to wait again and again gets the batch no longer than the budget."""
    server = lab.script(then=lab.reply(503, headers={"retry-after": "300"}))
    retrying = Retrying(max_elapsed=3600, max_attempts=2)
    async with lab.client(server, retrying=retrying) as client:
        outcome = await (await lab.track(client))[0].settled()
        assert now() <= 3600
    assert (outcome.kind, outcome.reason, outcome.status) == ("dropped", "expired", 503)
    assert len(server.requests) == 12
    assert client.stats().destinations["custom"].dropped_by == {"expired": 1}


async def test_max_attempts_0_tries_once(lab: Lab) -> None:
    """Without retries a failure is final."""
    server = lab.script(then=500)
    async with lab.client(server, retrying=Retrying(max_attempts=0)) as client:
        outcome = await (await lab.track(client))[0].settled()
    assert (outcome.reason, outcome.attempts, len(server.requests)) == ("expired", 1, 1)


@pytest.mark.parametrize("in_flight", [1, 2, 4, 7])
async def test_no_more_requests_than_allowed(lab: Lab, in_flight: int) -> None:
    """Up to `max_in_flight` requests are under way, and never more."""
    server = lab.script(then=lab.reply(200, delay=0.5))
    batching, sending = Batching(max_events=1), {"max_in_flight": in_flight}
    async with lab.client(server, batching=batching, sending=sending) as client:
        lab.burst(client, 30)
        await client.flush()
    assert server.peak == in_flight
    assert now() == pytest.approx(0.5 * -(-30 // in_flight))


async def test_recovery_begins_with_one_probe(lab: Lab) -> None:
    """A server that comes back meets one request, then two, and never more than allowed."""
    under_way: list[tuple[float, int]] = []
    up_at = 100.0

    def judge(_: Request) -> Any:
        under_way.append((now(), server.under_way))
        return lab.reply(200 if now() >= up_at else 503, delay=1.0)

    server = lab.script(then=judge)
    retrying = Retrying(base=1, cap=10, max_attempts=1000)
    batching, sending = Batching(max_events=1), {"max_in_flight": 4}
    async with lab.client(server, batching=batching, sending=sending, retrying=retrying) as client:
        lab.burst(client, 40)
        await client.flush()
    outage = [number for moment, number in under_way if 15 < moment < up_at]
    assert outage
    assert set(outage) == {1}
    after = [number for moment, number in under_way if moment >= up_at]
    assert after[:2] == [1, 1]  # a probe; what follows it begins after it has ended
    assert max(after) == 4
    assert server.peak == 4
    assert client.stats().delivered == 40


async def test_a_wrong_key_halts_and_recovers(lab: Lab, logged: pytest.LogCaptureFixture) -> None:
    """A refused key is said once; calls are rejected unsent; after `cap` it is tried again."""
    server = lab.script(then=401)
    retrying, batching = Retrying(cap=60), Batching(linger=0)
    async with lab.client(server, retrying=retrying, batching=batching) as client:
        first = await (await lab.track(client))[0].settled()
        assert (first.kind, first.status, first.attempts) == ("rejected", 401, 1)
        for _ in range(59):
            outcome = await (await lab.track(client))[0].settled()
            assert (outcome.kind, outcome.status, outcome.attempts) == ("rejected", 401, 0)
            await asyncio.sleep(1)
        assert len(server.requests) == 1
        await asyncio.sleep(2)
        await (await lab.track(client))[0].settled()
        assert len(server.requests) == 2
        server.then = 200
        await asyncio.sleep(61)
        assert (await (await lab.track(client))[0].settled()).delivered
    errors = [record for record in logged.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "key" in errors[0].getMessage()
    assert client.stats().destinations["custom"].rejected_by == {401: 61}


async def test_a_halted_destination_tries_the_key_with_few_requests(lab: Lab) -> None:
    """After `cap` no more than what may be in flight tries the key, however much waits for it."""
    server = lab.script(then=lab.reply(401, delay=0.5))
    retrying, batching = Retrying(cap=60), Batching(linger=0, max_events=1)
    async with lab.client(server, retrying=retrying, batching=batching) as client:
        await (await lab.track(client))[0].settled()
        assert len(server.requests) == 1
        await asyncio.sleep(70)
        for receipt in lab.burst(client, 30):
            await receipt.settled()
    assert 2 <= len(server.requests) <= 1 + Sending().max_in_flight
    assert client.stats().rejected == 31


async def test_order_is_kept_with_one_request_at_a_time(lab: Lab) -> None:
    """With `max_in_flight` 1, trouble does not change the order in which calls arrive."""
    server = lab.script(503, 200, 500, 500, 200, lab.reply(drop=True), then=200)
    batching, sending = Batching(max_events=3), {"max_in_flight": 1}
    async with lab.client(server, batching=batching, sending=sending) as client:
        receipts = lab.burst(client, 20)
        await client.flush()
    assert list(server.arrived) == [receipt.message_id for receipt in receipts]


async def test_a_day_without_a_server(lab: Lab) -> None:
    """Through an outage of a day memory stays bounded, and what was kept arrives at its end."""
    up_at = 24 * 3600.0
    server = lab.script(then=lambda _: 200 if now() >= up_at else lab.reply(drop=True))
    queueing = Queueing(max_events=50, when_full="drop_oldest")
    retrying = Retrying(max_attempts=10**6, max_elapsed=48 * 3600.0, cap=900)
    async with lab.client(server, queueing=queueing, retrying=retrying) as client:
        for _ in range(24 * 6):
            lab.burst(client, 3)
            assert client.stats().pending <= 50
            await asyncio.sleep(600)
        stats = await client.flush()
        assert now() <= up_at + 4 * 900
    assert (stats.delivered, stats.pending) == (50, 0)
    assert stats.destinations["custom"].dropped_by == {"queue_full": 24 * 6 * 3 - 50}


async def test_a_413_teaches_smaller_batches(lab: Lab) -> None:
    """After a request was too large, later batches are cut before they are sent."""
    server = lab.script(then=lambda request: 413 if len(request.content) > 90_000 else 200)
    async with lab.client(server) as client:
        for _ in range(2):
            for _ in range(40):
                client.track_nowait("Added File", user_id="u", properties={"x": "x" * 5_000})
            await client.flush()
            sizes = [len(request.content) for request in server.requests]
            server.requests.clear()
    assert max(sizes) <= 90_000


# --------------------------------------------------------------------------------- what is said


async def test_an_outage_is_said_once_and_its_end_too(
    lab: Lab, logged: pytest.LogCaptureFixture
) -> None:
    """However many requests fail, one line says so, and one says that it is over."""
    server = lab.script(then=503)
    retrying, batching = Retrying(base=1, cap=5, max_attempts=100), Batching(max_events=1)
    async with lab.client(server, retrying=retrying, batching=batching) as client:
        lab.burst(client, 20)
        await asyncio.sleep(60)
        server.then = 200
        await client.flush()
    levels = [record.levelname for record in logged.records if record.name == "asyncanalytics"]
    assert levels == ["WARNING", "INFO"]


async def test_each_outage_is_said(lab: Lab, logged: pytest.LogCaptureFixture) -> None:
    """A second outage, a while after a recovery, is said again."""
    server = lab.script(503, 503, 200, 503, 503, 200)
    async with lab.client(server) as client:
        for _ in range(2):
            await (await lab.track(client))[0].settled()
            await asyncio.sleep(61)
    assert [record.levelname for record in logged.records] == ["WARNING", "INFO"] * 2


async def test_a_server_that_flaps_is_said_once_a_minute(
    lab: Lab, logged: pytest.LogCaptureFixture
) -> None:
    """Failures and successes in turn are one period of trouble."""
    server = lab.script(*[503, 200] * 40)
    async with lab.client(server, batching=Batching(linger=0)) as client:
        for _ in range(40):
            await (await lab.track(client))[0].settled()
    assert [record.levelname for record in logged.records] == ["WARNING", "INFO"]


@pytest.mark.parametrize("answer", ["slow", "failing", "idle"])
async def test_cancelling_all_tasks_of_the_loop_loses_nothing(lab: Lab, answer: str) -> None:
    """A shutdown handler that cancels every task on the loop stops none of the deliveries."""
    script = {"slow": [lab.reply(200, delay=5)], "failing": [503, 503, 503], "idle": []}[answer]
    async with lab.client(lab.script(*script)) as client:
        receipts = [] if answer == "idle" else await lab.track(client, 3)
        await asyncio.sleep(0.01)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if task.get_name().startswith("asyncanalytics"):
                task.cancel()
        await asyncio.sleep(0)
        receipts += await lab.track(client, 2)
        await client.flush()
        assert [(await receipt.settled()).kind for receipt in receipts] == ["delivered"] * len(
            receipts
        )


async def test_cancelling_the_close_still_counts_what_is_left(lab: Lab) -> None:
    """Where the closing itself is cancelled by others, it ends at once, with the law kept."""
    client = lab.client(lab.script(then=lab.reply(200, delay=100)))
    await client.start()
    receipts = await lab.track(client, 3)
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(client.aclose(60))
    await asyncio.sleep(1)
    for task in asyncio.all_tasks():
        if task.get_name().startswith("asyncanalytics"):
            task.cancel()
    stats = await closing
    assert (stats.state, stats.pending, stats.dropped) == ("closed", 0, 3)
    assert {(await receipt.settled()).reason for receipt in receipts} == {"closed"}


async def test_a_connection_that_always_breaks_is_said(
    lab: Lab, logged: pytest.LogCaptureFixture
) -> None:
    """Failures without an answer are logged like others."""
    server = lab.script(then=lab.reply(drop=True))
    async with lab.client(server, retrying=Retrying(max_attempts=2)) as client:
        await (await lab.track(client))[0].settled()
    assert [record.levelname for record in logged.records] == ["WARNING", "ERROR"]


async def test_partial_failures_are_said_once(lab: Lab, logged: pytest.LogCaptureFixture) -> None:
    """A server that refuses one call of every batch leads to one line, not to one a batch."""

    def partial(request: Request) -> Any:
        body = b'{"Errors":[{"messageId":"%s"}]}' % request.ids[0].encode()
        return lab.reply(207, body=body)

    server = lab.script(then=partial)
    async with lab.client(server, batching=Batching(linger=0)) as client:
        for _ in range(10):
            for receipt in lab.burst(client, 2):
                await receipt.settled()
    warnings = [each for each in logged.records if each.levelno >= logging.WARNING]
    assert len(warnings) == 1


async def test_poison_is_said_once(lab: Lab, logged: pytest.LogCaptureFixture) -> None:
    """Many poisonous calls among good ones lead to one line."""
    bad: set[str] = set()
    server = lab.script(then=lambda request: 400 if bad.intersection(request.ids) else 200)
    async with lab.client(server) as client:
        receipts = lab.burst(client, 32)
        bad.update(each.message_id for each in receipts[::2])
        await client.flush()
    warnings = [each for each in logged.records if each.levelno >= logging.WARNING]
    assert len(warnings) == 1


async def test_a_burst_of_drops_is_said_once(lab: Lab, logged: pytest.LogCaptureFixture) -> None:
    """A queue that stays full while calls are delivered leads to one line, not to one a batch."""
    server = lab.script(then=lab.reply(200, delay=1.0))
    queueing = Queueing(max_events=10, when_full="drop_newest")
    batching, sending = Batching(linger=0, max_events=5), {"max_in_flight": 1}
    async with lab.client(server, queueing=queueing, batching=batching, sending=sending) as client:
        for _ in range(40):
            lab.burst(client, 5)
            await asyncio.sleep(0.5)
    assert client.stats().dropped > 50
    warnings = [each for each in logged.records if each.levelno >= logging.WARNING]
    assert len(warnings) == 1


# ------------------------------------------------------------------------------ users' own code


async def _delivered(_: object) -> Delivered:
    return Delivered()


@pytest.mark.parametrize("trouble", [ValueError("x"), None, "sent", 200, {"ok": True}])
async def test_a_destination_that_misbehaves_does_not_end_the_engine(
    lab: Lab, trouble: object
) -> None:
    """A destination that raises or returns nonsense is tried again; the next calls go on."""
    answers: list[object] = [trouble, trouble, Delivered()]

    async def deliver(_: object) -> object:
        answer = answers.pop(0) if answers else Delivered()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with lab.client(destinations=[Place(deliver)]) as client:
        receipts = lab.burst(client, 3)
        assert {(await each.settled()).kind for each in receipts} == {"delivered"}
        assert (await (await lab.track(client))[0].settled()).delivered


async def test_a_destination_of_ones_own_may_halt(lab: Lab) -> None:
    """Verdicts of a user's destination count like those of an answer."""

    async def deliver(_: object) -> Halt:
        return Halt(403)

    async with lab.client(destinations=[Place(deliver)]) as client:
        outcome = await (await lab.track(client))[0].settled()
    assert (outcome.kind, outcome.status) == ("rejected", 403)


async def test_the_hook_gets_every_outcome(lab: Lab) -> None:
    """`on_settle` is called with each group of calls that ended together, in every way."""
    found: dict[str, str] = {}

    def hook(outcome: Outcome, receipts: Sequence[Receipt]) -> None:
        for receipt in receipts:
            assert receipt.message_id not in found
            assert receipt.outcome is outcome
            found[receipt.message_id] = outcome.reason or outcome.kind

    server = lab.script(200, 404, 413, then=500)
    retrying, batching = Retrying(max_attempts=1), Batching(linger=0)
    async with lab.client(server, on_settle=hook, retrying=retrying, batching=batching) as client:
        receipts = [(await lab.track(client))[0]]
        for _ in range(3):
            await receipts[-1].settled()
            receipts += await lab.track(client)
        await receipts[-1].settled()
        receipts += await lab.track(client)
        await client.aclose(0)
    assert [found[each.message_id] for each in receipts] == [
        "delivered",
        "rejected",
        "too_large",
        "expired",
        "closed",
    ]


async def test_an_async_hook_is_waited_for_by_flush_and_close(lab: Lab) -> None:
    """What an async hook does for the calls so far is done when flush or close return."""
    done: list[str] = []

    async def hook(_: Outcome, receipts: Sequence[Receipt]) -> None:
        await asyncio.sleep(3)
        done.extend(receipt.message_id for receipt in receipts)

    server = lab.script()
    async with lab.client(server, on_settle=hook) as client:
        receipts = await lab.track(client)
        await client.flush()
        assert done == [each.message_id for each in receipts]
        receipts += await lab.track(client)
    assert done == [each.message_id for each in receipts]


async def test_a_slow_hook_does_not_slow_delivery(lab: Lab) -> None:
    """An async hook runs beside the sending, and one that never ends does not stop the close."""

    async def hook(*_: object) -> None:
        await asyncio.sleep(1e6)

    server = lab.script()
    async with lab.client(server, on_settle=hook, batching=Batching(linger=0)) as client:
        for _ in range(5):
            await (await lab.track(client))[0].settled()
        assert now() == 0
        await client.aclose(2)
    assert now() <= 2 + 2
    assert client.stats().delivered == 5


async def test_flush_does_not_wait_for_the_hooks_of_later_calls(lab: Lab) -> None:
    """Under a steady load with an async hook, a flush still comes back."""

    async def hook(*_: object) -> None:
        await asyncio.sleep(2)

    server = lab.script()
    async with lab.client(server, on_settle=hook, batching=Batching(linger=0)) as client:

        async def load() -> None:
            for _ in range(30):
                await lab.track(client)
                await asyncio.sleep(1)

        task = asyncio.create_task(load())
        await asyncio.sleep(3)
        start = now()
        await client.flush()
        assert now() - start <= 3
        await task


async def test_a_hook_may_flush(lab: Lab) -> None:
    """A flush within a hook does not wait for that hook itself."""
    flushed: list[float] = []

    async def hook(*_: object) -> None:
        async with asyncio.timeout(100):
            await client.flush()
        flushed.append(now())

    server = lab.script()
    async with lab.client(server, on_settle=hook) as client:
        await (await lab.track(client))[0].settled()
        await asyncio.sleep(1)
        assert flushed == [0]


@pytest.mark.parametrize("style", ["sync", "async"])
async def test_a_hook_that_raises_is_counted(
    lab: Lab, logged: pytest.LogCaptureFixture, style: str
) -> None:
    """What a hook raises is counted and said once; delivery goes on."""

    def fail(*_: object) -> None:
        raise RuntimeError(lab.MARK)

    async def fail_later(*_: object) -> None:
        raise RuntimeError(lab.MARK)

    hook = fail if style == "sync" else fail_later
    server = lab.script()
    async with lab.client(server, on_settle=hook, batching=Batching(linger=0)) as client:
        for _ in range(3):
            assert (await (await lab.track(client))[0].settled()).delivered
    assert client.stats().destinations["custom"].hook_errors == 3
    assert sum(record.levelno == logging.ERROR for record in logged.records) == 1


async def test_a_hook_that_raises_a_cancellation_ends_nothing(lab: Lab) -> None:
    """A `CancelledError` out of a plain function is that function's: the batch goes on."""

    def hook(*_: object) -> None:
        raise asyncio.CancelledError

    server = lab.script(400, then=200)
    async with lab.client(server, on_settle=hook) as client:
        for receipt in lab.burst(client, 4):
            async with asyncio.timeout(10):
                assert (await receipt.settled()).delivered
    assert client.stats().destinations["custom"].hook_errors == 2


async def test_a_destination_that_raises_a_cancellation_is_tried_again(lab: Lab) -> None:
    """A destination that meets a cancelled task of its own has failed, and the calls stay."""
    left = [asyncio.CancelledError(), asyncio.CancelledError()]

    async def deliver(_: object) -> Delivered:
        if left:
            raise left.pop()
        return Delivered()

    async with lab.client(destinations=[Place(deliver)]) as client:
        for receipt in lab.burst(client, 3):
            async with asyncio.timeout(10):
                assert (await receipt.settled()).delivered


async def test_a_verdict_that_cannot_be_booked_ends_its_batch(
    logged: pytest.LogCaptureFixture,
) -> None:
    """A destination whose verdict breaks the booking loses that batch, loudly, and no other."""
    handed: list[str] = []

    async def deliver(batch: Any) -> Delivered:
        handed.extend(receipt.message_id for receipt in batch.receipts)
        no_mapping: Any = handed[:]
        return Delivered(failed=no_mapping) if len(handed) == 1 else Delivered()

    async with AsyncClient(destinations=[Place(deliver)], batching=Batching(linger=0)) as client:
        first = await (await client.track("Ordered", user_id="u")).settled()
        await asyncio.sleep(5)
        second = await (await client.track("Ordered", user_id="u")).settled()
        stats = client.stats()
    assert (first.kind, first.reason, second.kind) == ("dropped", "expired", "delivered")
    assert (len(handed), stats.accepted, stats.pending) == (2, 2, 0)
    assert stats.is_balanced
    assert any("TypeError" in record.getMessage() for record in logged.records)
