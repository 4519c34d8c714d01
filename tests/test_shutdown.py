"""Whatever ends a program in the middle of its work, what was accepted is sent or counted."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import TYPE_CHECKING, Any

import anyio
import pytest

import asyncanalytics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from conftest import Lab, Live

    Example = Callable[[str, str], Path]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")

PATIENCE = 30.0  # seconds for what takes less than one on a machine that has time


# ------------------------------------------------------------------------------ processes and load


class Child:
    """A process, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[bytes], said: Path) -> None:
        """Take a process that writes to a file."""
        self.process = process
        self._said = said

    @property
    def said(self) -> str:
        """What it has written, to stdout and stderr."""
        return self._said.read_text("utf-8", "replace")

    def wait_for(self, text: str, count: int = 1) -> list[Any]:
        """Wait until it has said something so many times, and return what it was."""
        until = time.monotonic() + PATIENCE
        while len(found := re.findall(text, self.said)) < count:
            assert time.monotonic() < until, self.said
            assert self.process.poll() is None, self.said
            time.sleep(0.02)  # another process is at work: there is nothing to await
        return found

    def end(self) -> int:
        """Wait for its end, and return its code."""
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(self.said)

    def stats(self) -> list[dict[str, Any]]:
        """Return the figures that it has printed, of each of its workers."""
        text, decode = self.said, json.JSONDecoder().raw_decode
        return [decode(text, each.start())[0] for each in re.finditer(r'\{"state"', text)]


@contextmanager
def running(*command: str, live: Live, place: Path) -> Iterator[Child]:
    """Run a Python module in a folder, in a process group of its own, against the collector."""
    said = place / "said.txt"
    path = str(Path(asyncanalytics.__file__).parents[1])
    with (
        said.open("wb") as out,
        subprocess.Popen(  # noqa: S603 - our own words
            [sys.executable, *command],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**live.environ, "PYTHONPATH": path},
            cwd=place,
            start_new_session=True,
            preexec_fn=_listen_to_ctrl_c,  # noqa: PLW1509
        ) as process,
    ):
        try:
            yield Child(process, said)
        finally:
            _kill(process)


def _listen_to_ctrl_c() -> None:
    signal.signal(SIGINT, signal.default_int_handler)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # it has ended, with all its workers
        os.killpg(process.pid, signal.SIGKILL)


class Traffic:
    """Requests from a few threads, one after the other, until the server is gone."""

    def __init__(self, port: str) -> None:
        """Begin."""
        self.ids: list[str] = []
        self.errors: list[str] = []
        self.is_ending = False
        self._is_over = False
        self._port = int(port)
        self._connections: list[HTTPConnection] = []
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(4)]
        for each in self._threads:
            each.start()

    def wait_for(self, count: int) -> None:
        """Wait until so many requests were answered."""
        until = time.monotonic() + PATIENCE
        while len(self.ids) < count:
            assert time.monotonic() < until
            assert not self.errors
            time.sleep(0.01)  # threads are at work: there is nothing to await

    def pause(self) -> None:
        """Send no more, and wait until all requests are answered; connections stay open."""
        self._is_over = True
        for each in self._threads:
            each.join(PATIENCE)

    def end(self) -> set[str]:
        """Wait until the server is gone, and return what it has said to have accepted."""
        for each in self._threads:
            each.join(PATIENCE)
        for connection in self._connections:
            connection.close()
        assert not self.errors
        assert len(self.ids) == len(set(self.ids))
        return set(self.ids)

    def _run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        self._connections.append(connection)
        try:
            while not self._is_over:
                connection.request("POST", "/orders")
                self.ids.append(json.load(connection.getresponse())["messageId"])
        except (OSError, HTTPException, ValueError) as error:  # cut off, or answered with no JSON
            if not self.is_ending:
                self.errors.append(repr(error))


def serve_until(
    child: Child, port: str, stop: Callable[[], None], *, requests: int = 60, quiet: bool = False
) -> set[str]:
    """Send requests, stop the server amid them or after, and return what it has accepted."""
    traffic = Traffic(port)
    traffic.wait_for(requests)
    if quiet:
        traffic.pause()
    traffic.is_ending = True
    stop()
    child.end()
    return traffic.end()


def assert_nothing_lost(child: Child, live: Live, accepted: set[str], *, workers: int = 1) -> None:
    """Every accepted call is at the collector once, and the figures say the same.

    A request that was cut off has been accepted or not: nobody was told.
    """
    arrived = live.collector.message_ids()
    assert len(arrived) == len(set(arrived))
    assert accepted
    assert accepted <= set(arrived)
    figures = child.stats()
    assert len(figures) == workers, child.said
    for each in figures:
        assert each["accepted"] == each["delivered"], each
        assert (each["rejected"], each["dropped"], each["pending"]) == (0, 0, 0), each
        assert each["state"] in {"closed", "new"}  # a worker that got no request has not started
    assert sum(each["delivered"] for each in figures) == len(arrived)


# ----------------------------------------------------------------------------------------- uvicorn

UVICORN = ("-m", "uvicorn", "web:app", "--port", "0", "--no-access-log")


@contextmanager
def uvicorn(live: Live, example: Example, deadline: str = "5") -> Iterator[tuple[Child, str]]:
    """Serve the page's app with uvicorn, and give its process and its port."""
    pytest.importorskip("uvicorn")
    path = example("shutdown", "web.py")
    text = path.read_text("utf-8")
    assert "shutdown_timeout=5" in text
    path.write_text(text.replace("timeout=5", f"timeout={deadline}"), "utf-8")
    options = ("--timeout-graceful-shutdown", "10")
    with running(*UVICORN, *options, live=live, place=path.parent) as child:
        (port,) = child.wait_for(r"running on http://127\.0\.0\.1:(\d+)")
        yield child, port


def test_uvicorn(live: Live, example: Example) -> None:
    """SIGTERM amid requests loses nothing that they were told is accepted."""
    with uvicorn(live, example) as (child, port):
        accepted = serve_until(child, port, lambda: child.process.send_signal(SIGTERM))
        assert_nothing_lost(child, live, accepted)


def test_uvicorn_with_a_slow_endpoint(live: Live, example: Example) -> None:
    """Nor does SIGINT: the server's end waits for the drain."""
    live.collector.misbehave(None, delay=0.3)
    arrived: list[int] = []
    with uvicorn(live, example) as (child, port):

        def stop() -> None:
            arrived.append(len(live.events))
            child.process.send_signal(SIGINT)

        accepted = serve_until(child, port, stop)
        assert_nothing_lost(child, live, accepted)
    assert arrived[0] < len(accepted)


def test_uvicorn_with_a_dead_endpoint(live: Live, example: Example) -> None:
    """At the deadline the server ends; what is lost is counted, and logged."""
    live.collector.misbehave(drop=True)
    with uvicorn(live, example, deadline="0.2") as (child, port):
        accepted = serve_until(child, port, lambda: child.process.send_signal(SIGTERM))
        (stats,) = child.stats()
        lost = stats["destinations"]["custom"]["dropped_by"]
        assert lost == {"closed": stats["accepted"]}
        assert stats["accepted"] >= len(accepted)
        assert (stats["delivered"], stats["pending"]) == (0, 0)
        text = f"closed at the deadline of 0.2 s with {lost['closed']} events not delivered"
        assert child.said.count(text) == 1
    assert live.events == []


# ---------------------------------------------------------------------------------------- gunicorn


@contextmanager
def gunicorn(live: Live, place: Path, *options: str, started: str) -> Iterator[tuple[Child, str]]:
    """Serve with gunicorn and two workers, and give the master and the port."""
    pytest.importorskip("gunicorn")
    command = ("-m", "gunicorn", "-b", "127.0.0.1:0", "-w", "2", "--no-control-socket")
    with running(*command, *options, live=live, place=place) as child:
        (port,) = child.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")
        child.wait_for(started, 2)
        yield child, port


def stop_by(how: str, master: int) -> None:
    """Send what stops gunicorn: SIGTERM or SIGINT to its master, or SIGINT to all, as Ctrl-C."""
    if how.endswith("ctrl-c"):
        os.killpg(master, SIGINT)
    else:
        os.kill(master, SIGTERM if how.endswith("term") else SIGINT)


OURS = "asyncanalytics.integrations.gunicorn.UvicornWorker"
PLAIN = "uvicorn_worker.UvicornWorker"


@pytest.mark.long
@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize(
    ("worker", "how"),
    [(OURS, "term"), (OURS, "int"), (OURS, "ctrl-c"), (PLAIN, "term"), (PLAIN, "ctrl-c")],
)
def test_gunicorn(live: Live, example: Example, worker: str, how: str, *, preload: bool) -> None:
    """Both workers drain; with the package's own also at a SIGINT to the master alone."""
    pytest.importorskip("uvicorn_worker")
    place = example("shutdown", "web.py").parent
    options = ["-k", worker, "web:app", *(["--preload"] if preload else [])]
    with gunicorn(live, place, *options, started="startup complete") as (child, port):
        accepted = serve_until(child, port, lambda: stop_by(how, child.process.pid))
        assert_nothing_lost(child, live, accepted, workers=2)


@pytest.mark.parametrize("how", ["term", "int"])
def test_gunicorn_with_a_slow_endpoint(live: Live, example: Example, how: str) -> None:
    """What is pending when the signal comes is sent before the worker ends."""
    pytest.importorskip("uvicorn_worker")
    live.collector.misbehave(None, delay=0.3)
    place = example("shutdown", "web.py").parent
    arrived: list[int] = []
    with gunicorn(live, place, "-k", OURS, "web:app", started="startup complete") as (child, port):

        def stop() -> None:
            arrived.append(len(live.events))
            stop_by(how, child.process.pid)

        accepted = serve_until(child, port, stop)
        assert_nothing_lost(child, live, accepted, workers=2)
    assert arrived[0] < len(accepted)


HANGING = """
import asyncio
from starlette.routing import Route
from web import app

async def hang(request):
    print("hanging")
    await asyncio.sleep(60)

app.routes.append(Route("/hang", hang))
"""


@pytest.mark.long
def test_gunicorn_with_a_request_that_hangs(live: Live, example: Example) -> None:
    """It gets its part of the time that gunicorn gives, and the drain gets the rest."""
    pytest.importorskip("uvicorn_worker")
    live.collector.misbehave(None, delay=0.3)
    place = example("shutdown", "web.py").parent
    (place / "hanging.py").write_text(HANGING, "utf-8")
    options = ("-k", OURS, "hanging:app", "--graceful-timeout", "3")
    with gunicorn(live, place, *options, started="startup complete") as (child, port):
        connection = HTTPConnection("127.0.0.1", int(port), timeout=PATIENCE)
        connection.request("GET", "/hang")
        child.wait_for("hanging")
        accepted = serve_until(child, port, lambda: stop_by("int", child.process.pid))
        connection.close()
        assert "Cancel 1 running task" in child.said
        assert_nothing_lost(child, live, accepted, workers=2)


LIMITS = """
from gunicorn.config import Config
from gunicorn.glogging import Logger
from asyncanalytics.integrations.gunicorn import UvicornWorker

class Patient(UvicornWorker):
    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "timeout_graceful_shutdown": 25}

class Endless(UvicornWorker):
    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "timeout_graceful_shutdown": None}

for kind, seconds in ((UvicornWorker, 30), (UvicornWorker, 7), (Patient, 30), (Endless, 30)):
    config = Config()
    config.set("graceful_timeout", seconds)
    worker = kind(1, 0, [], None, 30, config, Logger(config))
    print("limit", worker.config.timeout_graceful_shutdown)
"""


def test_how_long_requests_may_take_under_gunicorn(live: Live, tmp_path: Path) -> None:
    """Twelve seconds are left for the drain, or half the time; a class of one's own may differ."""
    pytest.importorskip("uvicorn_worker")
    with running("-c", LIMITS, live=live, place=tmp_path) as child:
        child.end()
        assert re.findall("limit (.*)", child.said) == ["18", "3", "25", "None"]


# Figures are printed after the interpreter has closed the client, which is what is tested.
FIGURES = """
import atexit, json

def post_worker_init(worker):
    import wsgi
    atexit.register(lambda: print(json.dumps(wsgi.analytics.stats().as_dict())))
    print("worker is ready")  # from here on it hears of signals
"""


@pytest.mark.long
@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
@pytest.mark.parametrize("how", ["term", "int"])
def test_gunicorn_with_threads(live: Live, example: Example, how: str, *, preload: bool) -> None:
    """The sync client of each worker drains at the worker's end.

    The SIGINT comes in a quiet moment: as a request or a connection's end is handed to the pool,
    gunicorn's own handler may wait for a lock that its thread holds.
    """
    place = example("shutdown", "wsgi.py").parent
    (place / "figures.py").write_text(FIGURES, "utf-8")
    options = ["-k", "gthread", "--threads", "4", "-c", "figures.py", "wsgi:app"]
    options += ["--preload"] if preload else []
    with gunicorn(live, place, *options, started="worker is ready") as (child, port):
        quiet = how == "int"
        accepted = serve_until(child, port, lambda: stop_by(how, child.process.pid), quiet=quiet)
        assert_nothing_lost(child, live, accepted, workers=2)
    assert not quiet or len(accepted) == len(live.events)


# ----------------------------------------------------------------------------- workers of one's own


@pytest.mark.parametrize(
    ("name", "sent"), [("worker.py", SIGTERM), ("worker.py", SIGINT), ("threads.py", SIGTERM)]
)
def test_a_worker_of_ones_own(
    live: Live, example: Example, name: str, sent: signal.Signals
) -> None:
    """What a worker, or its threads, had accepted when the signal came arrives."""
    place = example("shutdown", name).parent
    with running(name, live=live, place=place) as child:
        child.wait_for(r"[0-9a-f-]{36}", 20)
        child.process.send_signal(sent)
        assert child.end() == 128 + sent
        assert_nothing_lost(child, live, set(re.findall(r"[0-9a-f-]{36}", child.said)))


# --------------------------------------------------------------------------- ends within a process


async def _timeout(body: Coroutine[Any, Any, None]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await body


async def _wait_for(body: Coroutine[Any, Any, None]) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(body, 0.5)


async def _scope(body: Coroutine[Any, Any, None]) -> None:
    with anyio.move_on_after(0.5) as scope:
        await body
    assert scope.cancelled_caught


async def _fail() -> None:
    await asyncio.sleep(0.5)
    raise ZeroDivisionError


async def _sibling(body: Coroutine[Any, Any, None]) -> None:
    with pytest.raises(ZeroDivisionError):
        await _together(body, _fail())


async def _together(*coroutines: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for each in coroutines:
                group.create_task(each)
    except ExceptionGroup as several:
        raise several.exceptions[0] from None


@pytest.mark.looptime
@pytest.mark.parametrize("leave", [_timeout, _wait_for, _scope, _sibling])
async def test_a_body_that_is_cut_off(
    lab: Lab, leave: Callable[[Coroutine[Any, Any, None]], Awaitable[None]]
) -> None:
    """Timeouts, scopes and siblings that fail: the block drains before they have their way."""
    client = lab.client(lab.script(then=lab.reply(200, delay=1)))

    async def body() -> None:
        async with client:
            lab.burst(client, 3)
            await asyncio.sleep(1000)

    await leave(body())
    assert client.stats().delivered == 3


@pytest.fixture
def _usual_ctrl_c() -> Iterator[None]:
    # A background job may have been started with SIGINT ignored, and that is inherited.
    before = signal.signal(SIGINT, signal.default_int_handler)
    yield
    signal.signal(SIGINT, before)


@pytest.mark.usefixtures("_usual_ctrl_c")
@pytest.mark.parametrize("how", ["pressed", KeyboardInterrupt, SystemExit])
def test_an_interrupted_run(lab: Lab, how: str | type[BaseException]) -> None:
    """Ctrl-C under `asyncio.run`, and an exit from within the body, come after the drain."""
    client = lab.client(lab.script(then=lab.reply(200, delay=0.1)))

    async def main() -> None:
        async with client:
            lab.burst(client, 3)
            if isinstance(how, type):
                raise how
            signal.raise_signal(SIGINT)
            await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt if how == "pressed" else how):
        asyncio.run(main())
    assert client.stats().delivered == 3


@pytest.mark.usefixtures("_usual_ctrl_c")
@pytest.mark.parametrize("before", ["in the body", "not at all"])
def test_ctrl_c_during_the_drain(lab: Lab, before: str) -> None:
    """Under `asyncio.run` it cuts the drain off at once; what is left is counted as closed."""
    client = lab.client(lab.script(then=lab.reply(200, delay=60)))

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.1, signal.raise_signal, SIGINT)
        async with client:
            lab.burst(client, 3)
            if before == "in the body":
                signal.raise_signal(SIGINT)
                await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert client.stats().destinations["custom"].dropped_by == {"closed": 3}
    assert client.stats().state == "closed"
