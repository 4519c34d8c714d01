"""What a call meets when a queue is full: to wait, an error, or a counted drop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from asyncanalytics import Batching, Closed, QueueFull, Queueing, Retrying

if TYPE_CHECKING:
    from conftest import Lab, Script

    from asyncanalytics import AsyncClient, Receipt

pytestmark = pytest.mark.looptime

BOUNDS = {
    "events": {"max_events": 4},
    "bytes": {"max_bytes": 40_000},  # four of the calls below
}
ROOM = 4
TEXT = "x" * 9_000


def slow(lab: Lab) -> Script:
    """A server whose answers take ten seconds."""
    return lab.script(then=lab.reply(200, delay=10))


def client(lab: Lab, server: Any, when_full: str, bound: str, **more: Any) -> AsyncClient:
    """A client with room for four calls, that sends them one by one."""
    queueing = Queueing(when_full=when_full, **BOUNDS[bound], **more)  # type: ignore[arg-type]
    batching = Batching(linger=0, max_events=1)
    return lab.client(server, queueing=queueing, batching=batching, sending={"max_in_flight": 1})


async def call(client: AsyncClient, number: int = 0) -> Receipt:
    """Make a call that waits."""
    return await client.track("Added File", user_id=f"u{number}", properties={"x": TEXT})


def call_nowait(client: AsyncClient, number: int = 0) -> Receipt:
    """Make a call that does not."""
    return client.track_nowait("Added File", user_id=f"u{number}", properties={"x": TEXT})


def users(server: Script) -> list[str]:
    """Whose calls arrived, in order."""
    return [event["userId"] for request in server.requests for event in request.events]


@pytest.mark.parametrize("bound", BOUNDS)
async def test_wait(lab: Lab, bound: str) -> None:
    """The awaited verb waits until a call has been delivered; nothing is lost."""
    server = slow(lab)
    async with client(lab, server, "wait", bound) as analytics:
        for number in range(ROOM):
            await call(analytics, number)
        assert asyncio.get_running_loop().time() == 0
        await call(analytics, ROOM)
        assert asyncio.get_running_loop().time() == 10
        assert analytics.stats().pending == ROOM
        await analytics.flush()
    assert users(server) == [f"u{number}" for number in range(ROOM + 1)]


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("when_full", ["wait", "raise"])
async def test_nowait_raises(lab: Lab, when_full: str, bound: str) -> None:
    """The twin never waits: it raises, names the queue, and accepts nothing."""
    server = slow(lab)
    async with client(lab, server, when_full, bound) as analytics:
        for number in range(ROOM):
            call_nowait(analytics, number)
        with pytest.raises(QueueFull, match="'custom' is full") as caught:
            call_nowait(analytics)
        assert lab.KEY not in str(caught.value)
        stats = analytics.stats()
        assert (stats.accepted, stats.refused, stats.pending) == (ROOM, 1, ROOM)
        await analytics.flush()
        call_nowait(analytics)
        await analytics.flush()
    assert analytics.stats().delivered == ROOM + 1


@pytest.mark.parametrize("bound", BOUNDS)
async def test_raise(lab: Lab, bound: str) -> None:
    """With `raise` the awaited verb does not wait either."""
    server = slow(lab)
    async with client(lab, server, "raise", bound) as analytics:
        for number in range(ROOM):
            await call(analytics, number)
        with pytest.raises(QueueFull) as caught:
            await call(analytics)
        assert (caught.value.destination, asyncio.get_running_loop().time()) == ("custom", 0)
        await analytics.flush()
    assert (analytics.stats().delivered, analytics.stats().refused) == (ROOM, 1)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("awaited", [True, False])
async def test_drop_newest(lab: Lab, bound: str, *, awaited: bool) -> None:
    """The call that finds no room is dropped and counted, and its receipt says so."""
    server = slow(lab)
    async with client(lab, server, "drop_newest", bound) as analytics:
        receipts = [
            await call(analytics, number) if awaited else call_nowait(analytics, number)
            for number in range(7)
        ]
        assert asyncio.get_running_loop().time() == 0
        outcomes = [receipt.outcome for receipt in receipts]
        assert outcomes[:ROOM] == [None] * ROOM
        assert {each.reason for each in outcomes[ROOM:] if each} == {"queue_full"}
        await analytics.flush()
    assert users(server) == ["u0", "u1", "u2", "u3"]
    assert analytics.stats().destinations["custom"].dropped_by == {"queue_full": 3}


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("awaited", [True, False])
async def test_drop_oldest(lab: Lab, bound: str, *, awaited: bool) -> None:
    """The call that has waited longest is dropped for the new one; those under way are kept."""
    server = slow(lab)
    async with client(lab, server, "drop_oldest", bound) as analytics:
        receipts = [await call(analytics, 0)]
        await server.arrival.wait()
        receipts += [
            await call(analytics, number) if awaited else call_nowait(analytics, number)
            for number in range(1, 7)
        ]
        assert asyncio.get_running_loop().time() == 0
        await analytics.flush()
        reasons = [receipt.outcome and receipt.outcome.reason for receipt in receipts]
    assert reasons == ["", "queue_full", "queue_full", "queue_full", "", "", ""]
    assert users(server) == ["u0", "u4", "u5", "u6"]


async def test_drop_oldest_with_everything_under_way(lab: Lab) -> None:
    """When all that is pending is under way, the new call is the one that goes."""
    server = slow(lab)
    queueing = Queueing(when_full="drop_oldest", max_events=3)
    async with lab.client(server, queueing=queueing) as analytics:
        lab.burst(analytics, 3)
        await server.arrival.wait()
        (extra,) = lab.burst(analytics, 1)
        assert extra.outcome is not None
        assert extra.outcome.reason == "queue_full"
        await analytics.flush()
    assert analytics.stats().delivered == 3


async def test_drop_oldest_for_a_large_call(lab: Lab) -> None:
    """A large call takes the room of as many old ones as it needs."""
    server = slow(lab)
    analytics = client(lab, server, "drop_oldest", "bytes")
    async with analytics:
        await call(analytics, 0)
        await server.arrival.wait()
        for number in range(1, 4):
            await call(analytics, number)
        await analytics.track("Added File", user_id="large", properties={"x": "x" * 25_000})
        await analytics.flush()
    assert users(server) == ["u0", "large"]
    assert analytics.stats().dropped == 3


async def test_max_wait(lab: Lab) -> None:
    """After `max_wait` the caller gets `QueueFull`, and the call is accepted nowhere."""
    server = slow(lab)
    async with client(lab, server, "wait", "events", max_wait=3.0) as analytics:
        for number in range(ROOM):
            await call(analytics, number)
        with pytest.raises(QueueFull):
            await call(analytics, 99)
        assert asyncio.get_running_loop().time() == pytest.approx(3)
        await asyncio.sleep(5)
        await call(analytics, ROOM)
        assert asyncio.get_running_loop().time() == pytest.approx(10)
        await analytics.flush()
    assert (analytics.stats().delivered, analytics.stats().refused) == (ROOM + 1, 1)
    assert "u99" not in users(server)


async def test_max_wait_0_does_not_wait(lab: Lab) -> None:
    """No time to wait is the same as not waiting."""
    async with client(lab, slow(lab), "wait", "events", max_wait=0.0) as analytics:
        for number in range(ROOM):
            await call(analytics, number)
        with pytest.raises(QueueFull):
            await call(analytics)
        assert asyncio.get_running_loop().time() == 0
        await analytics.flush()


@pytest.mark.parametrize("bound", BOUNDS)
async def test_fairness(lab: Lab, bound: str) -> None:
    """Callers get room in the order in which they asked, and `_nowait` does not pass them."""
    server = slow(lab)
    async with client(lab, server, "wait", bound) as analytics:
        for number in range(ROOM):
            await call(analytics, number)
        waiting = []
        for number in range(ROOM, ROOM + 6):
            waiting.append(asyncio.create_task(call(analytics, number)))
            await asyncio.sleep(0)
        for _ in range(6):
            await asyncio.sleep(10)
            if not all(task.done() for task in waiting):
                with pytest.raises(QueueFull):
                    call_nowait(analytics, 99)
        await asyncio.gather(*waiting)
        await analytics.flush()
    assert users(server) == [f"u{number}" for number in range(ROOM + 6)]


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("steps", range(12))
async def test_cancelling_a_waiter_at_any_moment(lab: Lab, bound: str, steps: int) -> None:
    """A cancelled caller's call is accepted nowhere or at its place; the others go on."""
    server = lab.script(then=lab.reply(200, delay=1e-9))
    async with client(lab, server, "wait", bound) as analytics:
        for number in range(ROOM):
            call_nowait(analytics, number)
        numbers = range(ROOM, ROOM + 3)
        waiting = [asyncio.create_task(call(analytics, number)) for number in numbers]
        for _ in range(steps):
            await asyncio.sleep(0)
        waiting[0].cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        await analytics.flush()
    accepted = [f"u{ROOM + at}" for at, each in enumerate(results) if hasattr(each, "message_id")]
    assert users(server) == ["u0", "u1", "u2", "u3", *accepted]
    assert {"u5", "u6"} <= set(accepted)
    assert analytics.stats().destinations["custom"].pending_bytes == 0


@pytest.mark.parametrize("steps", range(6))
async def test_max_wait_ending_with_the_turn(lab: Lab, steps: int) -> None:
    """A wait that ends in the moment in which room comes loses no room."""
    server = lab.script(then=lab.reply(200, delay=3.0 + steps * 1e-9))
    async with client(lab, server, "wait", "events", max_wait=3.0) as analytics:
        for number in range(ROOM):
            await call(analytics, number)
        waiting = [asyncio.create_task(call(analytics, ROOM + number)) for number in range(2)]
        await asyncio.gather(*waiting, return_exceptions=True)
        await analytics.flush()
        assert analytics.stats().destinations["custom"].pending_bytes == 0
        for number in range(ROOM):
            call_nowait(analytics, number)
        await analytics.flush()


async def test_closing_while_callers_wait(lab: Lab) -> None:
    """Callers that wait for room when the client closes get `Closed`, and are not accepted."""
    server = slow(lab)
    async with client(lab, server, "wait", "events") as analytics:
        for number in range(ROOM):
            await call(analytics, number)
        waiting = [asyncio.create_task(call(analytics, ROOM + number)) for number in range(3)]
        await asyncio.sleep(1)
        closing = asyncio.create_task(analytics.aclose(60))
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert asyncio.get_running_loop().time() == 1  # not when the server has answered
        await closing
    assert {type(result) for result in results} == {Closed}
    assert users(server) == ["u0", "u1", "u2", "u3"]
    assert analytics.stats().delivered == ROOM


async def test_closing_and_cancelling_a_waiter_together(lab: Lab) -> None:
    """A waiter that is cancelled as the client closes keeps the figures right."""
    server = slow(lab)
    async with client(lab, server, "wait", "events") as analytics:
        for number in range(ROOM):
            await call(analytics, number)
        waiting = asyncio.create_task(call(analytics, ROOM))
        await asyncio.sleep(1)
        closing = asyncio.create_task(analytics.aclose(60))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await closing


# ------------------------------------------------------------------------- several destinations


def pair(lab: Lab, first: Any, second: Any, when_full: str = "wait") -> AsyncClient:
    """A client with two destinations; the second has room for two calls."""
    small = Queueing(max_events=2, when_full=when_full)  # type: ignore[arg-type]
    destinations = [
        lab.destination(first, "first"),
        lab.destination(second, "second", queueing=small),
    ]
    return lab.client(
        destinations=destinations,
        batching=Batching(linger=0, max_events=1),
        sending={"max_in_flight": 1, "http_client": lab.http()},
    )


async def test_a_call_waits_for_all_its_destinations(lab: Lab) -> None:
    """A call is put into all its queues or none: it waits for the fullest."""
    first, second = lab.script(), slow(lab)
    async with pair(lab, first, second) as analytics:
        await lab.track(analytics, 2)
        waiting = asyncio.create_task(lab.track(analytics, 1))
        await asyncio.sleep(5)
        assert analytics.stats().destinations["first"].accepted == 2
        with pytest.raises(QueueFull, match="'second'"):
            lab.burst(analytics, 1)
        assert analytics.stats().destinations["first"].accepted == 2
        await waiting
        assert asyncio.get_running_loop().time() == pytest.approx(10)
        await analytics.flush()
    assert [each.delivered for each in analytics.stats().destinations.values()] == [3, 3]


async def test_max_wait_is_for_all_destinations_together(lab: Lab) -> None:
    """A call that waits for one queue after the other waits no longer than `max_wait` in all."""
    servers = [lab.script(then=lab.reply(200, delay=delay)) for delay in (2.5, 100)]
    destinations = [lab.destination(server, f"d{at}") for at, server in enumerate(servers)]
    queueing = Queueing(max_events=1, max_wait=3)
    sending = {"http_client": lab.http(), "timeout": 1e6}
    async with lab.client(
        destinations=destinations, queueing=queueing, sending=sending, shutdown_timeout=1e6
    ) as analytics:
        await lab.track(analytics)
        with pytest.raises(QueueFull, match="'d1'"):
            await lab.track(analytics)
        assert asyncio.get_running_loop().time() == pytest.approx(3)


async def test_a_cancelled_call_is_in_no_destination(lab: Lab) -> None:
    """Cancelled while one of its queues is full, a call is in none."""
    first, second = lab.script(), slow(lab)
    async with pair(lab, first, second) as analytics:
        await lab.track(analytics, 2)
        waiting = asyncio.create_task(lab.track(analytics, 1))
        await asyncio.sleep(5)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await analytics.flush()
    assert [each.accepted for each in analytics.stats().destinations.values()] == [2, 2]


async def test_a_full_destination_that_drops_does_not_hold_the_others(lab: Lab) -> None:
    """A queue that drops makes no caller wait, and the other destination gets every call."""
    first, second = lab.script(), slow(lab)
    async with pair(lab, first, second, when_full="drop_newest") as analytics:
        receipts = await lab.track(analytics, 6)
        assert asyncio.get_running_loop().time() == 0
        outcomes = [await receipt.settled() for receipt in receipts]
    assert [each.kind for each in outcomes] == ["delivered"] * 2 + ["dropped"] * 4
    assert analytics.stats().destinations["first"].delivered == 6


async def test_a_dead_destination_does_not_hold_the_others(lab: Lab) -> None:
    """While one server is down, the other's calls go on as long as there is room."""
    first, second = lab.script(), lab.script(then=503)
    destinations = [lab.destination(first, "first"), lab.destination(second, "second")]
    retrying = Retrying(max_attempts=2)
    async with lab.client(destinations=destinations, retrying=retrying) as analytics:
        receipts = await lab.track(analytics, 5)
        outcomes = [await receipt.settled() for receipt in receipts]
    assert {(each.destination, each.reason) for each in outcomes} == {("second", "expired")}
    assert analytics.stats().destinations["first"].delivered == 5
