"""FastAPI: the client of an app as a dependency, and the page's examples, run for real."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

import anyio
import httpx
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from asyncanalytics import AsyncClient, BoundClient, Client, ConfigurationError
from asyncanalytics.integrations.fastapi import (
    Analytics,
    AnalyticsMiddleware,
    Privacy,
    get_analytics,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from asyncanalytics import Stats

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


def browser(app: Any) -> TestClient:
    """Open an app as a browser's visitor does."""
    client = TestClient(app, "https://shop.example", client=(IP, 1))
    client.cookies.update(COOKIES)
    return client


def an_app(client: AsyncClient, **settings: Any) -> FastAPI:
    """Make an app whose endpoints make calls in every way there is."""
    app = FastAPI(lifespan=client.lifespan)
    app.add_middleware(AnalyticsMiddleware, **settings)
    app.include_router(endpoints(client))
    return app


def endpoints(client: AsyncClient) -> APIRouter:  # noqa: C901 - a list of endpoints
    """Make a router whose endpoints make calls on the client, and on the dependency."""
    router = APIRouter()

    @router.get("/bound")
    async def bound(analytics: Analytics) -> None:
        await analytics.track("Seen")

    @router.get("/deep")
    async def deep() -> None:
        async def deeper() -> None:
            await client.track("Seen")

        await deeper()

    @router.get("/thread")
    def thread() -> None:
        anyio.from_thread.run(client.track, "Seen")

    @router.get("/thread-bound")
    def thread_bound(analytics: Analytics) -> None:
        anyio.from_thread.run(analytics.track, "Seen")

    @router.get("/background")
    async def background(tasks: BackgroundTasks, analytics: Analytics) -> None:
        tasks.add_task(analytics.track, "Seen")

    @router.get("/background-thread")
    async def background_thread(tasks: BackgroundTasks) -> None:
        tasks.add_task(lambda: anyio.from_thread.run(client.track, "Seen"))

    @router.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "a"
            await client.track("Seen")
            yield "b"

        return StreamingResponse(parts())

    @router.websocket("/socket")
    async def socket(websocket: WebSocket, analytics: Analytics) -> None:
        await websocket.accept()
        await analytics.track("Seen")
        await websocket.close()

    return router


# ------------------------------------------------------------------------------ what the page shows


def test_the_page_s_app_works_twice(live: Any, example: Callable[..., Path]) -> None:
    """The first example runs, again and again under test clients."""
    example("fastapi", "app.py")
    shop = importlib.import_module("app")
    for _ in range(2):
        with browser(shop.app) as http:
            assert http.post("/orders?utm_campaign=spring").json() == {"status": "ok"}
    events = delivered(shop.client.stats(), live)
    assert len(events) == 2
    for event in events:
        assert (event["event"], event["anonymousId"]) == ("Order Completed", "a1")
        assert event["context"]["ip"] == IP
        assert event["context"]["campaign"] == {"name": "spring"}
        assert event["context"]["page"]["path"] == "/orders"


SERVE = """
import json, sys, threading
import uvicorn
from app import app, client

server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))

def tell():
    while not server.started:
        threading.Event().wait(0.01)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    sys.stdin.readline()
    server.should_exit = True

threading.Thread(target=tell, daemon=True).start()
server.run()
stats = client.stats()
print(json.dumps({"state": stats.state, "accepted": stats.accepted, "delivered": stats.delivered}))
"""


def test_the_page_s_app_under_a_real_server(live: Any, example: Callable[..., Path]) -> None:
    """Under uvicorn, in a process of its own, all that was accepted arrives before it ends."""
    pytest.importorskip("uvicorn")
    where = example("fastapi", "app.py").parent
    command = [sys.executable, "-W", "error", "-c", SERVE]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environ = {**live.environ, "PYTHONPATH": str(where)}
    with subprocess.Popen(command, env=environ, **pipes) as process:  # noqa: S603 - written above
        assert process.stdout is not None
        url = f"http://127.0.0.1:{process.stdout.readline().strip()}/orders"
        with httpx.Client(
            headers={"user-agent": "Browser/1", "x-forwarded-for": "6.6.6.6"}
        ) as http:
            for _ in range(20):
                assert http.post(url).status_code == 200
        out, _ = process.communicate("\n", timeout=30)
    assert json.loads(out) == {"state": "closed", "accepted": 20, "delivered": 20}
    assert len({event["messageId"] for event in live.events}) == 20
    assert {event["context"]["userAgent"] for event in live.events} == {"Browser/1"}


def test_the_page_s_user(live: Any, example: Callable[..., Path]) -> None:
    """`with_user` names the user and keeps the cookie's anonymous id."""
    example("fastapi", "accounts.py")
    accounts = importlib.import_module("accounts")
    with browser(accounts.app) as http:
        assert http.post("/orders", headers={"x-user": "u7"}).status_code == 200
    (event,) = delivered(accounts.client.stats(), live)
    assert (event["userId"], event["anonymousId"]) == ("u7", "a1")


def test_the_page_s_own_lifespan(live: Any, example: Callable[..., Path]) -> None:
    """A lifespan around the client's gives its own state beside the client."""
    example("fastapi", "own_lifespan.py")
    module = importlib.import_module("own_lifespan")
    with browser(module.app) as http:
        assert http.get("/").json() == {"greeting": "hello"}
    started, greeted = delivered(module.client.stats(), live)
    assert (started["event"], started["anonymousId"]) == ("Started", "shop")
    assert (greeted["event"], greeted["anonymousId"]) == ("Greeted", "a1")


def test_the_page_s_thread(live: Any, example: Callable[..., Path]) -> None:
    """The sync client, in an endpoint that is run in a thread, has the request's context."""
    example("fastapi", "threads.py")
    module = importlib.import_module("threads")
    with browser(module.app) as http:
        assert http.post("/orders").json() == {"status": "ok"}
    (event,) = delivered(module.analytics.close(), live)
    assert event["anonymousId"] == "a1"
    assert event["context"]["ip"] == IP


def test_the_page_s_test(live: Any, example: Callable[..., Path]) -> None:
    """The test that the page shows passes, and sends nothing."""
    example("fastapi", "app.py")
    example("fastapi", "test_app.py")
    importlib.import_module("test_app").test_an_order_is_tracked()
    assert delivered(importlib.import_module("app").client.stats(), live) == []


@pytest.mark.parametrize("name", ["asgi_app", "private", "behind_proxy"])
def test_the_page_on_requests(live: Any, example: Callable[..., Path], name: str) -> None:
    """The apps of the page on requests run; what each is told to withhold is withheld."""
    example("asgi", "asgi_app.py")
    example("asgi", f"{name}.py")
    module = importlib.import_module(name)
    with browser(module.app) as http:
        forwarded = {"x-forwarded-for": "198.51.100.1"}
        assert http.post("/orders?utm_source=a", headers=forwarded).status_code == 204
    (event,) = delivered(module.client.stats(), live)
    assert event["anonymousId"] == "a1"
    assert event["context"]["ip"] == ("203.0.113.0" if name == "private" else IP)
    assert ("campaign" in event["context"]) == (name != "private")
    assert ("consent" in event["context"]) == (name == "private")


# -------------------------------------------------------------------------------------- endpoints

WAYS = ["bound", "deep", "thread", "thread-bound", "background", "background-thread", "stream"]


@pytest.mark.parametrize("way", [*WAYS, "socket"])
def test_every_way_a_call_is_made(live: Any, way: str) -> None:
    """Each has the request's address, page and ids."""
    client = AsyncClient()
    with browser(an_app(client)) as http:
        if way == "socket":
            with http.websocket_connect("wss://shop.example/socket") as socket:
                assert socket.receive()["type"] == "websocket.close"
        else:
            assert http.get(f"/{way}").status_code == 200
    (event,) = delivered(client.stats(), live)
    assert event["anonymousId"] == "a1"
    assert event["context"]["ip"] == IP
    assert event["context"]["page"]["url"].endswith(f"://shop.example/{way}")


def test_a_mounted_app(live: Any) -> None:
    """An app within the app finds the client, and its page is the whole path."""
    client = AsyncClient()
    app = an_app(client)
    inner = FastAPI()
    inner.include_router(endpoints(client))
    app.mount("/inner", inner)
    with browser(app) as http:
        assert http.get("/inner/bound").status_code == 200
    (event,) = delivered(client.stats(), live)
    assert event["context"]["page"]["path"] == "/inner/bound"


def test_a_router_brings_the_client(live: Any) -> None:
    """A router's lifespan starts it, beside the app's own with its state."""
    client = AsyncClient()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        yield {"own": 7}

    router = APIRouter(lifespan=client.lifespan)

    @router.get("/")
    async def endpoint(request: Request, analytics: Analytics) -> int:
        await analytics.track("Seen")
        return int(request.state.own)

    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    for _ in range(2):
        with browser(app) as http:
            assert http.get("/").json() == 7
    # Without the middleware the dependency reads the request itself.
    first, second = delivered(client.stats(), live)
    assert first["anonymousId"] == second["anonymousId"] == "a1"
    assert first["context"]["ip"] == IP


async def known(analytics: Annotated[BoundClient, Depends(get_analytics)]) -> BoundClient:
    """Depend on the dependency."""
    return analytics.with_user("u7")


def test_an_override(live: Any) -> None:
    """The app's own means to replace a dependency replaces this one, in dependants of it too."""
    client = AsyncClient()
    app = an_app(client)

    @app.get("/known")
    async def endpoint(analytics: Annotated[BoundClient, Depends(known)]) -> None:
        await analytics.track("Seen")

    app.dependency_overrides[get_analytics] = lambda: client.bind(anonymous_id="test")
    with browser(app) as http:
        assert http.get("/bound").status_code == 200
        assert http.get("/known").status_code == 200
    first, second = delivered(client.stats(), live)
    assert first["anonymousId"] == second["anonymousId"] == "test"
    assert second["userId"] == "u7"


def test_no_client(live: Any) -> None:
    """An app that was not given one, or whose lifespan did not run, says what to do."""
    app = FastAPI()
    app.include_router(endpoints(AsyncClient()))
    with pytest.raises(ConfigurationError, match=r"lifespan=client\.lifespan"):
        browser(app).get("/bound")
    assert live.events == []


def test_privacy_of_an_app(live: Any) -> None:
    """The middleware's settings hold for calls on the dependency and on the client alike."""
    client = AsyncClient()
    app = an_app(client, privacy=Privacy(ip="dropped", gpc="drop"), user=lambda _: "u7")
    with browser(app) as http:
        for way in ("bound", "deep"):
            assert http.get(f"/{way}").status_code == 200
            assert http.get(f"/{way}", headers={"sec-gpc": "1"}).status_code == 200
    stats = client.stats()
    assert stats.is_balanced
    assert (stats.accepted, stats.delivered, stats.dropped) == (4, 2, 2)
    assert len(live.events) == 2
    for event in live.events:
        assert (event["userId"], event["anonymousId"]) == ("u7", "a1")
        assert "ip" not in event["context"]


async def test_requests_at_the_same_time(live: Any) -> None:
    """In threads and on the loop, bound or not: each call belongs to its own request."""
    client, threads = AsyncClient(), Client()
    app = an_app(client)

    @app.get("/sync")
    def sync() -> None:
        threads.track("Seen")

    async def visit(http: httpx.AsyncClient, n: int) -> None:
        way = [*WAYS, "sync"][n % (len(WAYS) + 1)]
        headers = {"cookie": f"ajs_user_id=u{n}", "user-agent": f"Browser/{n}"}
        assert (await http.get(f"/{way}", headers=headers)).status_code == 200

    async with client:
        transport = httpx.ASGITransport(app=_with_state(app, client))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as http:
            await asyncio.gather(*(visit(http, n) for n in range(80)))
    stats, more = client.stats(), await asyncio.to_thread(threads.close)
    assert stats.is_balanced
    assert more.is_balanced
    assert stats.accepted + more.accepted == stats.delivered + more.delivered == len(live.events)
    users = sorted(event["userId"] for event in live.events)
    assert users == sorted(f"u{n}" for n in range(80))
    for event in live.events:
        assert event["context"]["userAgent"] == f"Browser/{event['userId'][1:]}"


def _with_state(app: FastAPI, client: AsyncClient) -> Any:
    """Give requests the state that a server with lifespan would give."""

    async def stated(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": {"analytics": client}}, receive, send)

    return stated
