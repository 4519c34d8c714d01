"""Celery: each of a worker's processes closes its own client when it ends."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("celery")

from celery import signals

from asyncanalytics import Client, MissingExtra
from asyncanalytics.integrations.celery import close_with_worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# The rest of the worker's settings: a broker of files, which needs no server. What a task tracks
# waits for the shutdown; what each process has done is seen in a file of its own.
WATCHED = """

import json, pathlib
from celery.signals import task_postrun, worker_process_shutdown, worker_shutdown

here = pathlib.Path(__file__).parent
queue = here / os.environ.get("QUEUE", "queue")
app.conf.broker_transport_options = {
    "data_folder_in": str(queue),
    "data_folder_out": str(queue),
    "control_folder": str(here / f"{queue.name}-control"),
    "polling_interval": 0.02,
}
app.conf.worker_enable_remote_control = False

@task_postrun.connect
def done(args, **_):
    with open(here / f"{queue.name}-done", "a") as file:
        file.write(f"{args[0]}\\n")

@worker_process_shutdown.connect
@worker_shutdown.connect
def tell(**_):
    stats = analytics.stats().as_dict()
    (here / f"{queue.name}-{os.getpid()}.json").write_text(json.dumps(stats))
"""
LINGERING = "Client(batching=__import__('asyncanalytics').Batching(linger=60))"
TASKS = 20


@pytest.fixture(autouse=True)
def _signals_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test connects is gone after it."""
    for each in (signals.worker_process_shutdown, signals.worker_shutdown, signals.task_postrun):
        monkeypatch.setattr(each, "receivers", [])


@pytest.fixture
def celery_app(example: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page's module, with a broker of files."""
    monkeypatch.setenv("BROKER_URL", "filesystem://")
    path = example("workers", "celery_app.py")
    text = path.read_text("utf-8")
    path.write_text(text.replace("(Client())", f"({LINGERING})") + WATCHED, "utf-8")
    return importlib.import_module("celery_app")


@contextmanager
def working(folder: Path, pool: str, environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A real worker, killed at the end if it still runs."""
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "-P", pool, "-c", "2"]
    alone = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    environ = environ | {"BROKER_URL": "filesystem://", "QUEUE": pool}
    worker = subprocess.Popen([*command, *alone], cwd=folder, env=environ)  # noqa: S603 - ours
    try:
        yield worker
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


@pytest.mark.long
def test_every_pool_ends_with_everything_delivered(
    live: Any, celery_app: Any, tmp_path: Path
) -> None:
    """Real workers, ended by SIGTERM: what their tasks have tracked arrives exactly once.

    They run side by side, as a worker takes its time to start and to end.
    """
    pools = ("prefork", "threads", "solo")
    for pool in pools:
        (tmp_path / pool).mkdir()
        put(celery_app, tmp_path / pool, "celery_app.ship", *[(n, pool) for n in range(TASKS)])
    with ExitStack() as stack:
        workers = [stack.enter_context(working(tmp_path, each, live.environ)) for each in pools]
        for pool in pools:
            wait_for_tasks(tmp_path / f"{pool}-done")
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        until = time.monotonic() + 30
        while time.monotonic() < until and any(worker.poll() is None for worker in workers):
            for pool in pools:
                # A worker that waits for messages sees the signal when its wait ends.
                put(celery_app, tmp_path / pool, "nobody.home", ())
            time.sleep(0.1)  # other processes are at work: there is nothing to await
        assert [worker.poll() for worker in workers] == [0, 0, 0]
    for pool in pools:
        told = [json.loads(path.read_text("utf-8")) for path in tmp_path.glob(f"{pool}-*.json")]
        assert len(told) == (3 if pool == "prefork" else 1)  # two children and the one above them
        assert {stats["state"] for stats in told if stats["accepted"]} == {"closed"}
        assert [stats["pending"] for stats in told] == [0] * len(told)
        assert sum(stats["accepted"] for stats in told) == TASKS
        assert sum(stats["delivered"] for stats in told) == TASKS
        events = [event for event in live.events if event["userId"] == pool]
        assert sorted(event["properties"]["orderId"] for event in events) == list(range(TASKS))


def put(celery_app: Any, queue: Path, task: str, *calls: tuple[Any, ...]) -> None:
    """Put tasks into a queue."""
    options = {"data_folder_in": str(queue), "data_folder_out": str(queue)}
    options |= {"control_folder": f"{queue}-control"}
    with celery_app.app.connection_for_write(transport_options=options) as connection:
        for args in calls:
            celery_app.app.send_task(task, args, connection=connection)


def wait_for_tasks(done: Path) -> None:
    """Wait until all tasks of a queue have run."""
    until = time.monotonic() + 30
    while not done.exists() or len(done.read_text("utf-8").split()) < TASKS:
        assert time.monotonic() < until
        time.sleep(0.02)  # another process is at work: there is nothing to await


@pytest.mark.parametrize("name", ["worker_process_shutdown", "worker_shutdown"])
def test_either_signal_closes_the_client(live: Any, name: str) -> None:
    """What is pending is delivered, and a second signal does no harm."""
    client = close_with_worker(Client(), timeout=5)
    client.track("Order Shipped", user_id="u1")
    getattr(signals, name).send(sender=None, pid=1, exitcode=0)
    getattr(signals, name).send(sender=None, pid=1, exitcode=0)
    stats = client.stats()
    assert stats.state == "closed"
    assert stats.is_balanced
    assert stats.accepted == stats.delivered == len(live.events) == 1


def test_a_worker_without_calls_closes_nothing() -> None:
    """A client that never started needs no thread to be closed."""
    client = close_with_worker(Client("KEY"))
    signals.worker_shutdown.send(sender=None)
    assert client.stats().accepted == 0


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Celery is missing, the error names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "celery.signals", None)
    monkeypatch.delitem(sys.modules, "asyncanalytics.integrations.celery")
    with pytest.raises(MissingExtra, match=r"asyncanalytics\[celery\]"):
        importlib.import_module("asyncanalytics.integrations.celery")
