"""arq: the client lives as long as a worker, and jobs find it in their context."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("arq")
pytest.importorskip("fakeredis")

from arq import create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker
from fakeredis import TcpFakeServer
from fakeredis._commands import command
from fakeredis.commands_mixins.server_mixin import ServerCommandsMixin

from asyncanalytics import AsyncClient, bound_context
from asyncanalytics.integrations.arq import hooks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# arq closes its connections by the name that redis has given up.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")

LINGERING = "AsyncClient(batching=__import__('asyncanalytics').Batching(linger=60))"
WATCHED = """

import json, pathlib
_close = WorkerSettings.on_shutdown

async def watched(ctx):
    await _close(ctx)
    pathlib.Path("stats.json").write_text(json.dumps(ctx["analytics"].stats().as_dict()))

async def done(ctx):
    with open("done", "a") as file:
        file.write(ctx["job_id"] + "\\n")

WorkerSettings.on_shutdown = watched
WorkerSettings.after_job_end = done
"""


@pytest.fixture
def redis_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Redis in a thread of this process, on a socket."""

    def info(self: object, *sections: bytes) -> bytes:  # noqa: ARG001 - as the server calls it
        return b"redis_version:8.0.0\r\n"

    # The one command that arq needs and this server lacks.
    served = command((), (bytes,))(info)
    monkeypatch.setattr(ServerCommandsMixin, "info", served, raising=False)
    server = TcpFakeServer(("127.0.0.1", 0))
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"redis://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


async def ship(ctx: dict[str, Any], user_id: str) -> None:
    """Track, for the user of the job."""
    with bound_context(user_id=user_id):
        await ctx["analytics"].track("Order Shipped")


async def enqueue(url: str, name: str, *jobs: tuple[Any, ...]) -> None:
    """Put jobs into the queue."""
    pool = await create_pool(RedisSettings.from_dsn(url))
    for job in jobs:
        assert await pool.enqueue_job(name, *job)
    await pool.aclose(close_connection_pool=True)


def worker_of(url: str, client: AsyncClient, **own: Any) -> Worker:
    """A worker that ends when the queue is empty."""
    started, stopped = hooks(client, **own)
    return Worker(
        [func(ship, name="ship")],
        redis_settings=RedisSettings.from_dsn(url),
        on_startup=started,
        on_shutdown=stopped,
        burst=True,
        handle_signals=False,
        poll_delay=0.02,
    )


async def test_jobs_get_the_client(redis_url: str, live: Any) -> None:
    """It is started and closed with the worker; another worker starts it again."""
    client = AsyncClient()
    for user in ("ann", "bob"):
        await enqueue(redis_url, "ship", (user,))
        worker = worker_of(redis_url, client)
        assert await worker.run_check() == 1
        assert await worker.run_check() == 1  # as often as one likes, before it is closed
        assert client.stats().state == "open"
        await worker.close()
        assert client.stats().state == "closed"
    stats = client.stats()
    assert stats.is_balanced
    assert stats.accepted == stats.delivered == 2
    assert [event["userId"] for event in live.events] == ["ann", "bob"]


async def test_hooks_of_ones_own_go_along(redis_url: str, live: Any) -> None:
    """Both find the client open, and what they track is delivered."""
    client = AsyncClient()

    async def started(ctx: dict[str, Any]) -> None:
        await ctx["analytics"].track("Worker Started", anonymous_id="w1")

    async def stopped(ctx: dict[str, Any]) -> None:
        await ctx["analytics"].track("Worker Stopped", anonymous_id="w1")

    worker = worker_of(redis_url, client, on_startup=started, on_shutdown=stopped)
    await worker.run_check()
    await worker.close()
    stats = client.stats()
    assert stats.is_balanced
    assert stats.accepted == stats.delivered == 2
    assert [event["event"] for event in live.events] == ["Worker Started", "Worker Stopped"]


async def test_a_hook_that_raises_does_not_keep_the_client_open(redis_url: str, live: Any) -> None:
    """The client is closed, with everything delivered, and the exception goes on."""
    client = AsyncClient()

    async def stopped(ctx: dict[str, Any]) -> None:
        await ctx["analytics"].track("Worker Stopped", anonymous_id="w1")
        raise LookupError

    worker = worker_of(redis_url, client, on_shutdown=stopped)
    await worker.run_check()
    with pytest.raises(LookupError):
        await worker.close()
    await worker.pool.aclose(close_connection_pool=True)
    assert client.stats().state == "closed"
    assert client.stats().is_balanced
    assert client.stats().delivered == len(live.events) == 1


def wait_for_jobs(done: Path, count: int) -> None:
    """Wait until so many jobs have run."""
    until = time.monotonic() + 20
    while not done.exists() or len(done.read_text("utf-8").split()) < count:
        assert time.monotonic() < until
        time.sleep(0.02)  # another process is at work: there is nothing to await


async def test_the_worker_of_the_page(
    example: Callable[..., Path], live: Any, redis_url: str
) -> None:
    """A real worker, ended by SIGTERM, leaves with everything delivered exactly once."""
    path = example("workers", "arq_app.py")
    text = path.read_text("utf-8")
    path.write_text(text.replace("AsyncClient()", LINGERING) + WATCHED, "utf-8")
    await enqueue(redis_url, "ship", *[(n, f"u{n}") for n in range(8)])
    command = [sys.executable, "-m", "arq", "arq_app.WorkerSettings"]
    worker = await asyncio.create_subprocess_exec(
        *command, cwd=path.parent, env=live.environ | {"REDIS_URL": redis_url}
    )
    try:
        await asyncio.to_thread(wait_for_jobs, path.parent / "done", 8)
        worker.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await worker.wait() == 0
    finally:
        if worker.returncode is None:
            worker.kill()
    stats = json.loads((path.parent / "stats.json").read_text("utf-8"))
    assert stats["state"] == "closed"
    assert stats["accepted"] == stats["delivered"] == 8
    assert sorted(event["properties"]["orderId"] for event in live.events) == list(range(8))
    assert {event["userId"] for event in live.events} == {f"u{n}" for n in range(8)}
