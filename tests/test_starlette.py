"""Starlette: the client of an app reaches its endpoints, bound to their requests."""

from __future__ import annotations

import asyncio
import importlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx2")

import anyio
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient

from asyncanalytics import AsyncClient, Client, LifespanState
from asyncanalytics.integrations.starlette import AnalyticsMiddleware, Privacy, get_analytics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from starlette.requests import HTTPConnection, Request
    from starlette.responses import Response
    from starlette.websockets import WebSocket

    from asyncanalytics import BoundClient, Receipt, Stats

COOKIES = {"ajs_anonymous_id": "a1"}
IP = "203.0.113.77"


def delivered(stats: Stats, live: Any) -> list[dict[str, Any]]:
    """Assert the law over a client that has closed, and return what arrived."""
    events: list[dict[str, Any]] = live.events
    assert stats.is_balanced
    assert stats.pending == 0
    assert stats.accepted == stats.delivered == len(events)
    assert len({event["messageId"] for event in events}) == len(events)
    return events


def browser(app: Any, **settings: Any) -> TestClient:
    """Open an app as a browser's visitor does."""
    client = TestClient(app, "https://shop.example", client=(IP, 1), **settings)
    client.cookies.update(COOKIES)
    return client


class Shop:
    """An app whose endpoints make calls in every way there is, on its own client and bound."""

    def __init__(self, **settings: Any) -> None:
        self.client = AsyncClient()
        self.seen: list[asyncio.Task[Receipt]] = []
        routes = [
            Route("/bound", self.bound),
            Route("/deep", self.deep),
            Route("/thread", self.thread),
            Route("/background", self.background),
            Route("/stream", self.stream),
            Route("/task", self.task),
            WebSocketRoute("/socket", self.socket),
        ]
        self.app = Starlette(
            routes=[
                *routes,
                Mount("/inner", routes=routes),
                Mount("/sub", Starlette(routes=routes)),
            ],
            middleware=[
                Middleware(AnalyticsMiddleware, **settings),
                Middleware(BaseHTTPMiddleware, dispatch=self.around),
            ],
            lifespan=self.client.lifespan,
        )

    async def around(self, request: Request, call_next: Any) -> Response:
        """Run what is inside in a task of its own, as such middleware does."""
        response: Response = await call_next(request)
        return response

    async def bound(self, request: Request) -> Response:
        """Make a call on the bound client."""
        analytics = await get_analytics(request)
        await analytics.track("Seen")
        return PlainTextResponse("")

    async def deep(self, _: Request) -> Response:
        """Make a call on the module's client, deep in code that knows no request."""

        async def deeper() -> None:
            await self.client.track("Seen")

        await deeper()
        return PlainTextResponse("")

    def thread(self, _: Request) -> Response:
        """Make a call in an endpoint that is run in a thread."""
        anyio.from_thread.run(self.client.track, "Seen")
        return PlainTextResponse("")

    async def background(self, _: Request) -> Response:
        """Make a call after the response."""
        return PlainTextResponse("", background=BackgroundTask(self.client.track, "Seen"))

    async def stream(self, request: Request) -> Response:
        """Make a call while the response is sent."""
        analytics = await get_analytics(request)

        async def parts() -> AsyncIterator[str]:
            yield "a"
            await analytics.track("Seen")
            yield "b"

        return StreamingResponse(parts())

    async def task(self, _: Request) -> Response:
        """Make a call in a task that goes on when the request is over."""
        self.seen.append(asyncio.create_task(self.client.track("Seen")))
        return PlainTextResponse("")

    async def socket(self, websocket: WebSocket) -> None:
        """Make a call in a websocket."""
        await websocket.accept()
        await (await get_analytics(websocket)).track("Seen")
        await websocket.close()


def test_the_page_s_app(live: Any, example: Callable[..., Path]) -> None:
    """What the page shows runs, again and again under test clients."""
    example("fastapi", "starlette_app.py")
    shop = importlib.import_module("starlette_app")
    for _ in range(2):
        with browser(shop.app) as http:
            assert http.post("/orders?utm_source=news").json() == {"status": "ok"}
    events = delivered(shop.client.stats(), live)
    assert len(events) == 2
    for event in events:
        assert event["event"] == "Order Completed"
        assert event["anonymousId"] == "a1"
        assert event["context"]["ip"] == IP
        assert event["context"]["campaign"] == {"source": "news"}


@pytest.mark.parametrize("mounted", ["", "/inner", "/sub"])
@pytest.mark.parametrize(
    "way", ["bound", "deep", "thread", "background", "stream", "task", "socket"]
)
def test_every_way_a_call_is_made(live: Any, way: str, mounted: str) -> None:
    """Each has the request's address, page and ids, in mounted apps too."""
    shop = Shop()
    with browser(shop.app) as http:
        if way == "socket":
            with http.websocket_connect(f"wss://shop.example{mounted}/socket") as socket:
                assert socket.receive()["type"] == "websocket.close"
        else:
            assert http.get(f"{mounted}/{way}").status_code == 200
    (event,) = delivered(shop.client.stats(), live)
    assert event["anonymousId"] == "a1"
    assert event["context"]["ip"] == IP
    assert event["context"]["page"]["path"] == f"{mounted}/{way}"
    scheme = "wss" if way == "socket" else "https"
    assert event["context"]["page"]["url"] == f"{scheme}://shop.example{mounted}/{way}"


def test_the_sync_client_in_a_thread(live: Any) -> None:
    """An endpoint that is run in a thread may use the sync client; its calls are bound too."""
    client = Client()

    def endpoint(_: Request) -> Response:
        client.track("Seen")
        return PlainTextResponse("")

    middleware = [Middleware(AnalyticsMiddleware)]
    with browser(Starlette(routes=[Route("/", endpoint)], middleware=middleware)) as http:
        assert http.get("/").status_code == 200
    (event,) = delivered(client.close(), live)
    assert event["anonymousId"] == "a1"
    assert event["context"]["ip"] == IP


@pytest.mark.parametrize("added", [True, False])
def test_the_middleware_starts_the_client(live: Any, added: bool) -> None:  # noqa: FBT001 - a row
    """Given the client, it needs no lifespan of the app's, whether it is added or around."""
    client = AsyncClient()

    async def endpoint(request: Request) -> Response:
        await (await get_analytics(request)).track("Seen")
        return PlainTextResponse("")

    inner = Starlette(routes=[Route("/", endpoint)])
    if added:
        inner.add_middleware(AnalyticsMiddleware, client=client)
    app = inner if added else AnalyticsMiddleware(inner, client=client)
    for _ in range(2):
        with browser(app) as http:
            assert http.get("/").status_code == 200
    assert len(delivered(client.stats(), live)) == 2


def test_an_app_that_does_not_start(live: Any) -> None:
    """Its failure reaches the server, and the client is closed."""
    client = AsyncClient()

    def failing(_: Starlette) -> Any:
        raise LookupError("no database")

    app = AnalyticsMiddleware(Starlette(lifespan=failing), client=client)
    with pytest.raises(LookupError, match="no database"), browser(app):
        pass
    assert client.stats().state == "closed"
    assert delivered(client.stats(), live) == []


class Header(AuthenticationBackend):
    """Whoever says who they are is believed."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        """Read the header `user`."""
        name = conn.headers.get("user")
        return (AuthCredentials(), SimpleUser(name)) if name else None


@pytest.mark.parametrize("outside", [True, False])
def test_the_user_of_starlettes_own_authentication(live: Any, outside: bool) -> None:  # noqa: FBT001 - a row
    """It is asked for when a call is made, so either middleware may be the outer one."""
    client = AsyncClient()

    def user(scope: Any) -> str | None:
        return scope["user"].display_name or None

    async def endpoint(_: Request) -> Response:
        await client.track("Seen")
        return PlainTextResponse("")

    analytics = Middleware(AnalyticsMiddleware, user=user, privacy=Privacy(ip="truncated"))
    known = Middleware(AuthenticationMiddleware, backend=Header())
    app = Starlette(
        routes=[Route("/", endpoint)],
        middleware=[analytics, known] if outside else [known, analytics],
        lifespan=client.lifespan,
    )
    with browser(app) as http:
        http.get("/", headers={"user": "u7"})
        http.get("/")
    first, second = delivered(client.stats(), live)
    assert (first["userId"], first["anonymousId"]) == ("u7", "a1")
    assert "userId" not in second
    assert first["context"]["ip"] == "203.0.113.0"


# ------------------------------------------------------------------------------------ typed state


class State(LifespanState):
    """What the lifespan of this app gives to its requests."""

    name: str


async def typed(request: Request[State]) -> Response:
    """Reach the client through the typed state: a type checker knows what it is."""
    client: AsyncClient = request.state["analytics"]
    name: str = request.state["name"]
    receipt: Receipt = await client.track("Seen", properties={"name": name})
    analytics: BoundClient = await get_analytics(request)
    again: Receipt = await analytics.track("Seen")
    return PlainTextResponse(f"{receipt.message_id} {again.message_id}")


def test_the_typed_state(live: Any) -> None:
    """A state that extends `LifespanState` has the client under its type."""
    client = AsyncClient()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[State]:
        async with client.lifespan(app) as state:
            yield {**state, "name": "shop"}

    app = Starlette(
        routes=[Route("/", typed)], middleware=[Middleware(AnalyticsMiddleware)], lifespan=lifespan
    )
    with browser(app) as http:
        ids = http.get("/").text.split()
    events = delivered(client.stats(), live)
    assert ids == [event["messageId"] for event in events]
    assert events[0]["properties"] == {"name": "shop"}
