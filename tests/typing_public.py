"""What type checkers must see of the public API. Checked, not run."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import assert_type
from uuid import uuid4

from asyncanalytics import (
    AsyncClient,
    Batching,
    Call,
    Context,
    Destination,
    FileDestination,
    Outcome,
    Queueing,
    Receipt,
    Stats,
    Track,
    endpoints,
)


def on_settle(outcome: Outcome, receipts: Sequence[Receipt]) -> None:
    """A plain hook."""
    assert_type(outcome.status, int | None)
    assert_type([receipt.message_id for receipt in receipts], list[str])


async def on_settle_later(outcome: Outcome, receipts: Sequence[Receipt]) -> None:
    """An async hook."""
    on_settle(outcome, receipts)


def no_tests(call: Call) -> Call | None:
    """A middleware."""
    return None if call.user_id == "test" else call


async def verbs() -> None:
    """Every verb, its twin, and what they return."""
    async with AsyncClient("KEY", endpoint="https://example.com", on_settle=on_settle) as client:
        assert_type(client, AsyncClient)
        assert_type(await client.identify(uuid4(), traits={"name": "Arthur Dent"}), Receipt)
        receipt = await client.track("Added File", user_id=7, timestamp=datetime.now(UTC))
        assert_type(await receipt.settled(), Outcome)
        assert_type(
            client.page_nowait("Home", anonymous_id="a", context=Context(ip="::1")), Receipt
        )
        await client.screen("Home", user_id="u", context={"ip": "::1"}, integrations={"All": False})
        await client.group("g", user_id="u", traits={"plan": "pro"})
        await client.alias("new", previous_id="old")
        await client.send(Track(event="Added File", user_id="u", properties={"fileSize": "42kb"}))
        assert_type(await client.flush(timeout=1.5), Stats)
        assert_type((await client.aclose()).delivered, int)


async def several() -> None:
    """Several destinations with settings of their own."""
    client = AsyncClient(
        destinations=[
            Destination("KEY", endpoint=endpoints.dreamdata(), batching=Batching(linger=0.1)),
            FileDestination("events.jsonl", queueing=Queueing(when_full="drop_oldest")),
        ],
        middleware=[no_tests],
        on_settle=on_settle_later,
    )
    await client.start()
    await client.aclose()


def misuse(client: AsyncClient) -> None:
    """What a checker must refuse."""
    client.track_nowait(user_id="u")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    client.track_nowait("e", userId="u")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    client.alias_nowait("u", previous_id=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Queueing(when_full="explode")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
