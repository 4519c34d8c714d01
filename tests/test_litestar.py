"""Litestar: the plugin starts, binds, injects and closes, in a real app under its own clients."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("litestar")

from litestar import Litestar, Request, WebSocket, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.di import Provide
from litestar.events import listener
from litestar.response import Response, Stream
from litestar.testing import AsyncTestClient, TestClient, create_test_client

from asyncanalytics import AsyncClient, BoundClient, Client, ConfigurationError
from asyncanalytics.asgi import Privacy
from asyncanalytics.integrations.litestar import Analytics, AnalyticsPlugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from asyncanalytics import Stats

BROWSER = {"user-agent": "Browser/1", "referer": "https://example.com/?q=secret"}


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """An app sets up the root logger: put back what the other tests had."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def delivered(stats: Stats, live: Any) -> list[dict[str, Any]]:
    """Assert the law over a client that has closed, and return what arrived."""
    events: list[dict[str, Any]] = live.events
    assert stats.is_balanced
    assert stats.accepted == stats.delivered == len(events)
    assert len({event["messageId"] for event in events}) == len(events)
    return events


@post("/track")
async def track(request: Request[Any, Any, Any], analytics: Analytics) -> None:
    """Send one call, named by the query."""
    await asyncio.sleep(0)
    await analytics.track(request.query_params["name"])


def app_of(client: AsyncClient, *handlers: Any, **settings: Any) -> Litestar:
    """Make an app with the plugin."""
    plugin = AnalyticsPlugin(client, user=lambda scope: scope["path"])
    return Litestar(list(handlers), plugins=[plugin], openapi_config=None, **settings)


# ------------------------------------------------------------------------------ what the page shows


def test_the_page_s_app_works_twice(live: Any, example: Callable[..., Path]) -> None:
    """The app of docs/litestar.md sends with the request's context, each time it is entered."""
    example("litestar", "shop.py")
    shop = importlib.import_module("shop")
    client = AsyncClient()
    app = shop.create_app(client)
    for _ in range(2):
        with TestClient(app) as http:
            assert http.post("/orders", headers=BROWSER).json() == {"status": "ok"}
        assert client.stats().state == "closed"
    first, second = delivered(client.stats(), live)
    assert first["event"] == second["event"] == "Order Completed"
    assert first["anonymousId"] != second["anonymousId"]
    assert first["context"]["userAgent"] == "Browser/1"
    assert first["context"]["page"]["path"] == "/orders"
    assert "secret" not in str(first)


def test_the_page_s_other_apps_are_made(live: Any, example: Callable[..., Path]) -> None:
    """Sync handlers send with the request's context, and the settings shown are accepted."""
    for name in ("private.py", "threads.py"):
        example("litestar", name)
    importlib.import_module("private")
    threads = importlib.import_module("threads")
    for _ in range(2):
        with TestClient(threads.app) as http:
            assert http.post("/orders", headers=BROWSER).status_code == 201
    events = delivered(threads.analytics.stats(), live)
    assert [event["context"]["userAgent"] for event in events] == ["Browser/1"] * 2


def test_the_page_s_test_passes(live: Any, example: Callable[..., Path]) -> None:
    """What the page says about tests works, and nothing is sent."""
    for name in ("shop.py", "test_shop.py"):
        example("litestar", name)
    importlib.import_module("test_shop").test_an_order_is_tracked()
    assert live.events == []


# ------------------------------------------------------------------------------------ its own life


def test_calls_work_wherever_the_app_runs_code(live: Any) -> None:
    """The client is started before the app's own lifespan and closed after all of it."""
    client = AsyncClient()

    async def note(event: str) -> None:
        await client.track(event, user_id="app")

    def own(_: Litestar) -> AbstractAsyncContextManager[None]:
        return span()

    @asynccontextmanager
    async def span() -> AsyncIterator[None]:
        await note("lifespan begins")
        yield
        await note("lifespan ends")

    async def up() -> None:
        await note("on_startup")

    async def down() -> None:
        await note("on_shutdown")

    @listener("ordered")
    async def heard() -> None:
        await asyncio.sleep(0.01)
        await note("listener")

    @get("/")
    async def root(request: Request[Any, Any, Any]) -> None:
        request.app.emit("ordered")

    app = app_of(
        client, root, lifespan=[own], on_startup=[up], on_shutdown=[down], listeners=[heard]
    )
    with TestClient(app) as http:
        assert http.get("/").status_code == 200
    events = {event["event"] for event in delivered(client.stats(), live)}
    assert events == {
        "lifespan begins",
        "on_startup",
        "listener",
        "lifespan ends",
        "on_shutdown",
    }


async def test_a_startup_that_fails_leaves_nothing_open(live: Any) -> None:
    """If the app's own startup raises, the client is closed, with what it has accepted."""
    client = AsyncClient()

    async def up() -> None:
        await client.track("Tried", user_id="app")
        raise LookupError("no database")

    with pytest.raises((LookupError, ExceptionGroup)):
        async with app_of(client, on_startup=[up]).lifespan():
            pass
    assert client.stats().state == "closed"
    (event,) = delivered(client.stats(), live)
    assert event["event"] == "Tried"


# ----------------------------------------------------------------------------------- what is bound


async def test_requests_at_the_same_time_are_told_apart(live: Any) -> None:
    """Each call carries the context of its own request."""
    client = AsyncClient()
    async with AsyncTestClient(app_of(client, track)) as http:
        await asyncio.gather(
            *(
                http.post("/track", params={"name": f"n{n}"}, headers={"user-agent": f"n{n}"})
                for n in range(20)
            )
        )
    events = delivered(client.stats(), live)
    assert {event["event"] for event in events} == {f"n{n}" for n in range(20)}
    assert all(event["context"]["userAgent"] == event["event"] for event in events)
    assert {event["userId"] for event in events} == {"/track"}


@pytest.mark.filterwarnings("ignore:.*Inferred dependency field 'needed'")
def test_everything_of_a_request_is_bound(live: Any) -> None:
    """Guards, dependencies, hooks, background tasks and streams have the request's context."""
    client = AsyncClient()

    async def guard(*_: object) -> None:
        await client.track("guard")

    async def needed() -> str:
        await client.track("dependency")
        return "x"

    async def after(_: Request[Any, Any, Any]) -> None:
        await client.track("after_response")

    async def parts() -> AsyncIterator[str]:
        await client.track("stream")
        yield "done"

    @get("/stream", guards=[guard], dependencies={"needed": Provide(needed)}, after_response=after)
    async def stream(needed: str) -> Stream:
        assert needed == "x"
        return Stream(parts())

    @get("/task")
    async def task() -> Response[None]:
        return Response(None, background=BackgroundTask(client.track, "background"))

    with TestClient(app_of(client, stream, task)) as http:
        assert http.get("/stream").text == "done"
        assert http.get("/task").status_code == 200
    events = {event["event"]: event["userId"] for event in delivered(client.stats(), live)}
    streamed = dict.fromkeys(["guard", "dependency", "after_response", "stream"], "/stream")
    assert events == {**streamed, "background": "/task"}


def test_a_websocket_is_bound(live: Any) -> None:
    """A websocket's handler is given the client, with the handshake's context."""
    client = AsyncClient()

    @websocket("/chat")
    async def chat(socket: WebSocket[Any, Any, Any], analytics: Analytics) -> None:
        await socket.accept()
        await analytics.track("Said", properties={"text": await socket.receive_text()})
        await socket.close()

    with (
        TestClient(app_of(client, chat)) as http,
        http.websocket_connect("/chat", headers=BROWSER) as connection,
    ):
        connection.send_text("hello")
    (event,) = delivered(client.stats(), live)
    assert event["userId"] == "/chat"
    assert event["context"]["userAgent"] == "Browser/1"


def test_threads_of_sync_handlers_are_bound(live: Any) -> None:
    """A sync handler gets the context in its thread, and none of it stays there."""
    outside = AsyncClient(disabled=True)
    analytics = Client()

    @post("/sync", sync_to_thread=True)
    def sync() -> None:
        analytics.track("In a thread")

    @post("/loop", sync_to_thread=False)
    def loop(bound: Analytics) -> None:
        bound.track_nowait("On the loop")

    plugin = AnalyticsPlugin(outside, user=lambda scope: scope["path"], dependency="bound")
    with TestClient(Litestar([sync, loop], plugins=[plugin])) as http:
        assert http.post("/sync").status_code == 201
        assert http.post("/loop").status_code == 201
    (event,) = delivered(analytics.close(), live)
    assert event["userId"] == "/sync"
    stats = outside.stats()
    assert stats.is_balanced
    assert stats.accepted == stats.dropped == 1


def test_the_settings_reach_the_middleware(live: Any) -> None:
    """Privacy, trusted proxies and consent are those of the plugin."""
    client = AsyncClient()
    plugin = AnalyticsPlugin(
        client,
        privacy=Privacy(ip="truncated", gpc="drop"),
        trusted_proxies=["127.0.0.1"],
        consent=lambda _: {"advertising": False},
        user=lambda _: 7,
    )
    with TestClient(Litestar([track], plugins=[plugin])) as http:
        http.post("/track", params={"name": "kept"})
        http.post("/track", params={"name": "dropped"}, headers={"Sec-GPC": "1"})
    stats = client.stats()
    assert stats.is_balanced
    assert (stats.accepted, stats.delivered, stats.dropped) == (2, 1, 1)
    (event,) = live.events
    assert event["userId"] == "7"
    assert event["context"]["consent"]["categoryPreferences"] == {"advertising": False}


# ----------------------------------------------------------------------------------- the dependency


def test_the_app_s_own_dependency_wins(live: Any) -> None:
    """A test puts another client in the plugin's place by Litestar's own means."""
    plugins_client, other = AsyncClient(), AsyncClient(disabled=True)

    async def instead() -> AsyncIterator[BoundClient]:
        async with other:
            yield other.bind(user_id="test")

    plugin = AnalyticsPlugin(plugins_client)
    given = {"analytics": Provide(instead)}
    with create_test_client([track], plugins=[plugin], dependencies=given) as http:
        assert http.post("/track", params={"name": "x"}).status_code == 201
    assert delivered(plugins_client.stats(), live) == []
    assert other.stats().accepted == other.stats().dropped == 1


TYPED = """
from __future__ import annotations
from typing import TYPE_CHECKING
from litestar import post

if TYPE_CHECKING:
    from asyncanalytics.integrations.litestar import Analytics

@post("/")
async def lazy(analytics: Analytics) -> None:
    await analytics.track("Lazily annotated", user_id="u1")
"""


def test_an_annotation_may_be_for_type_checkers_only(
    live: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler's module need not import Analytics at run time, and OpenAPI leaves it out."""
    (tmp_path / "lazily.py").write_text(TYPED, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    client = AsyncClient()
    handler = importlib.import_module("lazily").lazy
    app = Litestar([handler], plugins=[AnalyticsPlugin(client)])
    del sys.modules["lazily"]
    with TestClient(app) as http:
        assert http.post("/").status_code == 201
        schema = http.get("/schema/openapi.json").json()
    assert "analytics" not in str(schema)
    delivered(client.stats(), live)


def test_a_name_that_no_parameter_can_have_is_refused() -> None:
    """The mistake is said where it was written."""
    with pytest.raises(ConfigurationError, match="dependency"):
        AnalyticsPlugin(AsyncClient("KEY"), dependency="my analytics")
