"""FastStream: the client lives around the brokers, and handlers get it."""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import sys
import time
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("faststream")
pytest.importorskip("fakeredis")

from fakeredis import TcpFakeServer
from faststream import Depends, FastStream, TestApp
from faststream.redis import RedisBroker, TestRedisBroker

from asyncanalytics import AsyncClient, ConfigurationError, MissingExtra, bound_context
from asyncanalytics.integrations.faststream import get_analytics, lifespan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Client = Annotated[AsyncClient, Depends(get_analytics)]

LINGERING = "AsyncClient(batching=__import__('asyncanalytics').Batching(linger=60))"
WATCHED = """

import json, pathlib

@app.after_startup
async def ready():
    pathlib.Path("started").touch()

@app.on_shutdown
async def leave(analytics: Annotated[AsyncClient, Depends(get_analytics)]):
    global client
    client = analytics

async def run(*args, inner=app.run, **options):
    await inner(*args, **options)
    pathlib.Path("stats.json").write_text(json.dumps(client.stats().as_dict()))

app.run = run
"""


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A Redis in a thread of this process, on a socket."""
    server = TcpFakeServer(("127.0.0.1", 0))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"redis://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def app_of(client: AsyncClient, started: Any) -> tuple[FastStream, RedisBroker]:
    """An app whose handler tracks with the client it is given."""
    broker = RedisBroker()

    @broker.subscriber("orders")
    async def ship(user_id: str, analytics: Client) -> None:
        with bound_context(user_id=user_id):
            await analytics.track("Order Shipped")

    return FastStream(broker, lifespan=started(client)), broker


async def test_handlers_get_the_client(live: Any) -> None:
    """It is open while the app runs, and closed after it; an app may run again."""
    client = AsyncClient()
    app, broker = app_of(client, lifespan)
    for _ in range(2):
        async with TestRedisBroker(broker), TestApp(app, run_extra_options={"worker_id": None}):
            await broker.publish("u1", "orders")
            assert client.stats().state == "open"
        assert client.stats().state == "closed"
    stats = client.stats()
    assert stats.is_balanced
    assert stats.accepted == stats.delivered == len(live.events) == 2
    assert [event["userId"] for event in live.events] == ["u1", "u1"]


async def test_the_client_is_open_in_the_apps_hooks(live: Any) -> None:
    """What is tracked at startup and at shutdown is delivered."""
    client = AsyncClient()
    app, broker = app_of(client, lifespan)

    async def note(analytics: Client) -> None:
        await analytics.track("Noted", anonymous_id="w1")

    for hook in (app.on_startup, app.after_startup, app.on_shutdown, app.after_shutdown):
        hook(note)
    async with TestRedisBroker(broker), TestApp(app):
        pass
    stats = client.stats()
    assert stats.is_balanced
    assert stats.accepted == stats.delivered == len(live.events) == 4


async def test_the_clients_own_lifespan_will_do(live: Any) -> None:
    """An app whose handlers can import the client needs nothing from here."""
    client = AsyncClient()
    broker = RedisBroker()

    @broker.subscriber("orders")
    async def ship(user_id: str) -> None:
        await client.track("Order Shipped", user_id=user_id)

    app = FastStream(broker, lifespan=client.lifespan)
    async with TestRedisBroker(broker), TestApp(app, run_extra_options={"worker_id": None}):
        await broker.publish("u1", "orders")
    stats = client.stats()
    assert stats.is_balanced
    assert stats.accepted == stats.delivered == len(live.events) == 1


async def test_an_app_without_the_lifespan() -> None:
    """A handler that asks for the client is told what is missing."""
    client = AsyncClient("KEY")
    app, broker = app_of(client, lambda client: client.lifespan)
    async with TestRedisBroker(broker), TestApp(app):
        with pytest.raises(ConfigurationError, match="lifespan"):
            await broker.publish("u1", "orders")


def wait_for(path: Path) -> None:
    """Wait until a file is there."""
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.02)  # another process is at work: there is nothing to await


async def test_the_app_of_the_page(
    example: Callable[..., Path], live: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real worker, ended by SIGTERM, leaves with everything delivered exactly once."""
    path = example("workers", "faststream_app.py")
    text = path.read_text("utf-8")
    path.write_text(text.replace("AsyncClient()", LINGERING) + WATCHED, "utf-8")
    monkeypatch.setenv("REDIS_URL", redis_url)
    users = [f"u{n}" for n in range(20)]
    command = [sys.executable, "-m", "faststream", "run", "faststream_app:app"]
    worker = await asyncio.create_subprocess_exec(
        *command, cwd=path.parent, env=live.environ | {"REDIS_URL": redis_url}
    )
    try:
        await asyncio.to_thread(wait_for, path.parent / "started")
        async with asyncio.timeout(20):
            async with importlib.import_module("faststream_app").broker as sender:
                for user in users:
                    await sender.publish(user, "orders")
                await sender.request("last", "orders", timeout=5)
            worker.send_signal(signal.SIGTERM)
            assert await worker.wait() == 0
    finally:
        if worker.returncode is None:
            worker.kill()
    stats = json.loads((path.parent / "stats.json").read_text("utf-8"))
    assert stats["state"] == "closed"
    assert stats["accepted"] == stats["delivered"] == 21
    assert sorted(event["userId"] for event in live.events) == sorted([*users, "last"])


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where FastStream is missing, the error names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "faststream", None)
    monkeypatch.delitem(sys.modules, "asyncanalytics.integrations.faststream")
    with pytest.raises(MissingExtra, match=r"asyncanalytics\[faststream\]"):
        importlib.import_module("asyncanalytics.integrations.faststream")
