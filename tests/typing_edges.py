"""What type checkers must see where the client meets frameworks and threads. Checked, not run."""

from typing import assert_type

from fastapi import FastAPI
from starlette.requests import Request

import asyncanalytics.analytics as drop_in
from asyncanalytics import (
    AsyncClient,
    BoundClient,
    Client,
    LifespanState,
    Outcome,
    Receipt,
    Stats,
    bound_context,
)
from asyncanalytics.asgi import AnalyticsMiddleware, Privacy
from asyncanalytics.integrations.fastapi import Analytics
from asyncanalytics.integrations.starlette import get_analytics
from asyncanalytics.signals import StopOnSignal


class State(LifespanState):
    """A lifespan state with more in it."""

    name: str


client = AsyncClient("KEY", endpoint="https://example.com")
app = FastAPI(lifespan=client.lifespan)
app.add_middleware(AnalyticsMiddleware, privacy=Privacy(ip="truncated", gpc="drop"))


async def endpoint(request: Request[State], analytics: Analytics) -> None:
    """A request knows its client, bound or not."""
    assert_type(request.state["analytics"], AsyncClient)
    assert_type(await get_analytics(request), BoundClient)
    assert_type(analytics.with_user(7), BoundClient)
    assert_type(await analytics.with_user("u1").track("Added File"), Receipt)
    assert_type(client.bind(context={"ip": "::1"}), BoundClient)


def threads() -> None:
    """The sync facade takes the same settings and the same fields."""
    with StopOnSignal() as stop, Client("KEY", shutdown_timeout=2.0) as sync:
        assert_type(sync, Client)
        with bound_context(user_id="u1"):
            assert_type(sync.settled(sync.track("Added File"), timeout=1.0), Outcome)
        assert_type(sync.flush(timeout=1.5), Stats)
        assert_type(stop.exit_code, int)


def misuse(sync: Client) -> None:
    """What a checker must refuse."""
    sync.track(user_id="u")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    Client("KEY", shutdown="soon")  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    Privacy(ip="half")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def moved() -> None:
    """The drop-in's functions answer as Segment's do."""
    success, _ = drop_in.track("u1", "Added File", {"n": 1})
    assert_type(success, bool)
