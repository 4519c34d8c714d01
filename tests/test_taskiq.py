"""taskiq: the client lives as long as the broker, in a worker and where tasks are sent."""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("taskiq")
pytest.importorskip("zmq")

from taskiq import InMemoryBroker, TaskiqDepends, TaskiqEvents, TaskiqState, ZeroMQBroker
from taskiq.kicker import AsyncKicker

from asyncanalytics import AsyncClient, ConfigurationError, MissingExtra, bound_context
from asyncanalytics.integrations.taskiq import AnalyticsMiddleware, get_analytics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

Client = Annotated[AsyncClient, TaskiqDepends(get_analytics)]

# So that what a task tracks waits for the shutdown, and what the process has done is seen.
LINGERING = "AsyncClient(batching=__import__('asyncanalytics').Batching(linger=60))"
WATCHED = """

import json, pathlib
from taskiq import TaskiqMiddleware

class Watching(TaskiqMiddleware):
    async def post_execute(self, message, result):
        with open("done", "a") as file:
            file.write(f"{message.args[0]}\\n")

    async def shutdown(self):
        stats = broker.state["analytics"].stats()
        pathlib.Path("stats.json").write_text(json.dumps(stats.as_dict()))

broker.add_middlewares(Watching())
"""


@pytest.fixture
async def broker() -> AsyncIterator[Any]:
    """A broker that runs tasks in this process, shut down at the end if that is still to do."""
    made = InMemoryBroker()
    yield made
    made.executor.shutdown()


def counted(client: AsyncClient) -> tuple[int, int]:
    """The law holds; return how many calls were accepted, and how many delivered."""
    stats = client.stats()
    assert stats.is_balanced
    return stats.accepted, stats.delivered


async def test_tasks_get_the_client(broker: Any, live: Any) -> None:
    """It is started and closed with the broker, and what a task binds is bound."""
    client = AsyncClient()
    broker.add_middlewares(AnalyticsMiddleware(client))

    @broker.task
    async def greet(name: str, analytics: Client) -> None:
        with bound_context(user_id=name):
            await analytics.track("Greeted")

    await broker.startup()
    await asyncio.gather(*[greet.kiq(name) for name in ("ann", "bob")])
    await broker.wait_all()
    assert client.stats().state == "open"
    await broker.shutdown()
    assert client.stats().state == "closed"
    assert counted(client) == (2, 2)
    assert sorted(event["userId"] for event in live.events) == ["ann", "bob"]


async def test_the_client_is_open_at_the_brokers_own_shutdown_events(
    broker: Any, live: Any
) -> None:
    """A handler of the user's can still track, and that is delivered."""
    client = AsyncClient()
    broker.add_middlewares(AnalyticsMiddleware(client))

    @broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
    async def leave(state: TaskiqState) -> None:
        await state.analytics.track("Worker Left", anonymous_id="w1")

    await broker.startup()
    await broker.shutdown()
    assert counted(client) == (1, 1)
    assert [event["event"] for event in live.events] == ["Worker Left"]


async def test_a_client_that_runs_already_is_left_to_its_owner(broker: Any, live: Any) -> None:
    """An app that sends tasks and has the same client keeps it open."""
    async with AsyncClient() as client:
        broker.add_middlewares(AnalyticsMiddleware(client))
        await broker.startup()
        await broker.shutdown()
        await client.track("Order Placed", user_id="u1")
    assert counted(client) == (1, 1)
    assert len(live.events) == 1


async def test_a_broker_without_the_middleware(broker: Any) -> None:
    """A task that asks for the client is told what is missing."""

    @broker.task
    async def ship(analytics: Client) -> None:
        await analytics.track("Order Shipped", user_id="u1")

    await broker.startup()
    task = await ship.kiq()
    result = await task.wait_result(timeout=5)
    assert isinstance(result.error, ConfigurationError)
    assert "add_middlewares" in str(result.error)
    await broker.shutdown()


async def test_closing_ends_before_the_worker_cuts_it_off(broker: Any, lab: Any) -> None:
    """What cannot be delivered in time is dropped and counted, within the middleware's timeout."""
    client = lab.client(lab.script(then=503))
    broker.add_middlewares(AnalyticsMiddleware(client, timeout=0.05))
    await broker.startup()
    await client.track("Order Shipped", user_id="u1")
    await asyncio.wait_for(broker.shutdown(), timeout=2)
    assert client.stats().dropped == 1


async def test_the_worker_of_the_page(
    example: Callable[..., Path], live: Any, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    """A real worker, ended by SIGTERM, leaves with everything delivered exactly once."""
    path = example("workers", "taskiq_app.py")
    text = path.read_text("utf-8")
    path.write_text(text.replace("AsyncClient()", LINGERING) + WATCHED, "utf-8")
    url = f"tcp://127.0.0.1:{unused_tcp_port}"
    monkeypatch.setenv("TASKS_URL", url)
    sender = ZeroMQBroker(url, url)
    await sender.startup()
    command = [sys.executable, "-m", "taskiq", "worker", "-w", "1", "taskiq_app:broker"]
    worker = await asyncio.create_subprocess_exec(
        *command, cwd=path.parent, env=live.environ | {"TASKS_URL": url}
    )
    try:
        ids = await _ship(sender, path.parent / "done", 5)
        worker.send_signal(signal.SIGTERM)
        assert await _leave(sender, worker) == 0
    finally:
        if worker.returncode is None:
            worker.kill()
        await sender.shutdown()
        sender.context.destroy(linger=0)
    stats = json.loads((path.parent / "stats.json").read_text("utf-8"))
    shipped = [event["properties"]["orderId"] for event in live.events]
    assert stats["state"] == "closed"
    assert stats["accepted"] == stats["delivered"] == len(shipped)
    assert sorted(shipped) == sorted(ids)


async def _ship(sender: Any, done: Path, count: int) -> list[int]:
    """Send tasks until so many have run; what is sent before the worker listens is lost."""
    ship = AsyncKicker(task_name="taskiq_app:ship", broker=sender, labels={})
    async with asyncio.timeout(20):
        for order in range(10_000):
            await ship.kiq(order, f"u{order}")
            await asyncio.sleep(0.05)  # another process is at work: there is nothing to await
            ran = lines(done)
            if len(ran) >= count and ran[-1] == str(order):
                return [int(each) for each in ran]
    raise AssertionError


def lines(path: Path) -> list[str]:
    """Return what a file has so far."""
    return path.read_text("utf-8").split() if path.exists() else []


async def _leave(sender: Any, worker: asyncio.subprocess.Process) -> int:
    """Knock until the worker has left: an idle one sees a signal only when a message comes."""
    knock = AsyncKicker(task_name="nobody:home", broker=sender, labels={})
    async with asyncio.timeout(20):
        left = asyncio.ensure_future(worker.wait())
        while not left.done():
            await knock.kiq()
            await asyncio.wait({left}, timeout=0.1)
    return left.result()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where taskiq is missing, the error names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "taskiq", None)
    monkeypatch.delitem(sys.modules, "asyncanalytics.integrations.taskiq")
    with pytest.raises(MissingExtra, match=r"asyncanalytics\[taskiq\]"):
        importlib.import_module("asyncanalytics.integrations.taskiq")
