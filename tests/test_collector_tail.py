"""`asyncanalytics tail` shows what a collector keeps, whatever becomes of it: each event once."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("uvicorn")
pytest.importorskip("jinja2")

import asyncanalytics
from asyncanalytics.cli import run
from asyncanalytics.cli.exits import Failure
from asyncanalytics.cli.reading import BEGINNING, Gone, NoCollector, Reader
from asyncanalytics.collector import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "a-key-that-opens-nothing"
TOKEN = "a-token-of-its-own"
POSIX = pytest.mark.skipif(os.name != "posix", reason="Ctrl-C cannot be sent there")


class Served(NamedTuple):
    """A collector on a socket, in a thread of its own."""

    collector: Collector
    url: str
    stop: Callable[[], None]


@contextlib.contextmanager
def served(port: int = 0, **settings: Any) -> Iterator[Served]:
    """Serve a collector until the block ends, or until it is stopped."""
    ready: Queue[tuple[str, Callable[[], None]]] = Queue()

    async def stay(collector: Collector) -> None:
        end = asyncio.Event()
        async with collector.serve(port=port) as url:
            loop = asyncio.get_running_loop()
            ready.put((url, lambda: loop.call_soon_threadsafe(end.set) and None))
            await end.wait()

    with Collector(**settings) as collector:
        thread = threading.Thread(target=lambda: asyncio.run(stay(collector)))
        thread.start()
        url, end = ready.get()

        def stop() -> None:
            if thread.is_alive():
                end()
            thread.join()

        try:
            yield Served(collector, url, stop)
        finally:
            stop()


def send(url: str, *events: dict[str, Any], **headers: str) -> None:
    """Send a batch."""
    body = json.dumps({"batch": events}).encode()
    request = urllib.request.Request(  # noqa: S310 - it is our own
        f"{url}/v1/batch", body, {"content-type": "application/json", **headers}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - the same
        assert answer.status == 200


def call(number: int, **fields: Any) -> dict[str, Any]:
    """Make a call that is told by its number."""
    event = {"type": "track", "messageId": str(number), "userId": "u1", "event": f"E{number}"}
    return event | fields


class Tail:
    """A process that shows events. What it shows is read at once: a full pipe would hold it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Read what this process says."""
        self.process = process
        self._said = {"stdout": Queue[str](), "stderr": Queue[str]()}
        for name, said in self._said.items():
            threading.Thread(target=self._read, args=(getattr(process, name), said)).start()

    def _read(self, pipe: Any, said: Queue[str]) -> None:
        for line in pipe:
            said.put(line.rstrip("\n"))

    def lines(self, count: int) -> list[str]:
        """Return the next so many lines of what it shows."""
        return [self._said["stdout"].get(timeout=20) for _ in range(count)]

    def ids(self, count: int) -> list[str]:
        """Return the messageIds of so many events that it shows as JSON."""
        return [json.loads(each)["message_id"] for each in self.lines(count)]

    def note(self) -> str:
        """Return the next line of what it says beside."""
        return self._said["stderr"].get(timeout=20)

    def interrupt(self) -> tuple[int, int]:
        """End it as Ctrl-C does, and return how many lines are left of what it showed and said."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(10) == 0
        return self._said["stdout"].qsize(), self._said["stderr"].qsize()


@contextlib.contextmanager
def started(*args: object, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command line as a process of its own, where Ctrl-C does what it does in a shell."""
    with subprocess.Popen(  # noqa: S603 - it is our own
        [sys.executable, "-m", "asyncanalytics", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "80", **environ},
        cwd=Path(asyncanalytics.__file__).parents[1],
        preexec_fn=_listen_to_ctrl_c if os.name == "posix" else None,  # noqa: PLW1509
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _listen_to_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def tail(*args: object, **environ: str) -> Iterator[Tail]:
    """Run `tail`."""
    with started("tail", *args, **environ) as process:
        yield Tail(process)


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Shell = Callable[..., Ran]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs `tail` in this process, for what ends by itself."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("ASYNCANALYTICS_READ_TOKEN", raising=False)
    monkeypatch.setenv("COLUMNS", "300")

    def command(*args: object) -> Ran:
        # In a thread, since asyncio.run() in the main one puts away a loop of pytest-asyncio's.
        with ThreadPoolExecutor(1) as thread:
            code = thread.submit(run, ["tail", *map(str, args)]).result()
        return Ran(code, *capsys.readouterr())

    return command


# Real processes


@POSIX
def test_it_shows_what_comes() -> None:
    """As lines for people: the time, the verdict, the call, who, what, and why it is bad."""
    with served() as (_, url, _), tail(url, "--last", 3) as tailed:
        send(url, call(1), call(2, type="page", name="Home\x1b[31m"), call(3, userId=5))
        first, second, third = tailed.lines(3)
        assert first.endswith("good  track    u1  E1")
        assert second.endswith("good  page     u1  Home\N{REPLACEMENT CHARACTER}[31m")
        assert third.endswith("bad   track    nobody  E3  user_id_not_a_string")
        assert tailed.interrupt() == (0, 0)


@POSIX
@pytest.mark.long
def test_a_collector_that_is_restarted(tmp_path: Path) -> None:
    """What it kept before, meanwhile and after: each event is shown once, and it is said why."""
    path, number = tmp_path / "events.db", 10
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(served(port, path=path))
        send(url, *(call(n) for n in range(number)))
        tailed = stack.enter_context(tail(url, "--last", 5, "--json"))
        assert tailed.ids(5) == [str(n) for n in range(5, number)]
        followed(first.collector)
        send(url, *(call(n) for n in range(number, 700)))
        first.stop()
        for count in (690, 300, 1):
            assert f"{url} has gone: waiting" in tailed.note()
            with served(port, path=path) as again:
                send(url, *(call(n) for n in range(number + count, number + count + 50)))
                assert "it is back" in tailed.note()
                assert tailed.ids(count + 50) == [
                    str(n) for n in range(number, number + count + 50)
                ]
                number += count + 50
                following = {690: 300, 300: 1, 1: 0}[count]
                followed(again.collector)
                send(url, *(call(n) for n in range(number, number + following)))
        assert "has gone" in tailed.note()
        assert tailed.interrupt() == (0, 0)


def followed(collector: Collector) -> None:
    """Wait until somebody waits for news."""
    until = time.monotonic() + 10
    while not collector._store.bell._waiting and time.monotonic() < until:
        time.sleep(0.01)
    assert collector._store.bell._waiting


@POSIX
@pytest.mark.long
def test_a_collector_in_memory_that_is_restarted() -> None:
    """All that the new one has is new, though its positions are the old one's."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(served(port))
        tailed = stack.enter_context(tail(first.url, "--json", "--last", 5))
        send(first.url, call(1), call(2))
        assert tailed.ids(2) == ["1", "2"]
        first.stop()
        with served(port) as again:
            send(again.url, *(call(n) for n in range(3, 8)))
            assert tailed.ids(5) == list("34567")
            tailed.interrupt()


@POSIX
@pytest.mark.long
def test_filters() -> None:
    """Each of them is passed on; what they do not mean is not shown."""
    args = (
        "--type",
        "track",
        "--event",
        "E",
        "--user",
        "u1",
        "--text",
        "BLUE",
        "--verdict",
        "good",
    )
    blue = {"event": "E", "properties": {"colour": "blue"}}
    with served() as (_, url, _):
        send(url, call(0, **blue))
        with tail(url, "--json", "--last", 3, *args) as tailed:
            assert tailed.ids(1) == ["0"]
            send(
                url,
                *(
                    call(1, event="E"),
                    call(2, **blue, type="page"),
                    call(3, properties={"a": "blue"}),
                ),
                *(call(4, **blue, userId="u2"), call(5, **blue, timestamp="x"), call(6, **blue)),
            )
            (line,) = tailed.lines(1)
            shown = json.loads(line)
            assert shown["message_id"] == "6"
            assert shown["payload"] == call(6, **blue)
            assert tailed.interrupt() == (0, 0)


@POSIX
@pytest.mark.long
@pytest.mark.parametrize("form", ["--json", None])
def test_a_closed_pipe(form: str | None) -> None:
    """When nobody reads any more it ends, without a word."""
    with served() as (_, url, _):
        send(url, call(1))
        with started("tail", url, "--last", 1, *([form] if form else [])) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.stdout.close()
            for number in range(2, 100):
                send(url, call(number))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
                    break
            assert (process.returncode, process.stderr.read()) == (0, "")


@POSIX
@pytest.mark.long
def test_the_token_from_the_environment() -> None:
    """The token need not be on the command line, and it is in the address that collect prints."""
    with served(write_keys=None, read_token=TOKEN) as (collector, url, _):
        send(url, call(1))
        for args, environ in (
            ((url,), {"ASYNCANALYTICS_READ_TOKEN": TOKEN}),
            ((f"{url}/?token={TOKEN}",), {}),
        ):
            with tail(*args, "--last", 1, "--json", **environ) as tailed:
                assert tailed.ids(1) == ["1"]
                assert tailed.interrupt() == (0, 0)
        assert collector.read_token == TOKEN


@POSIX
@pytest.mark.long
def test_collect_beyond_loopback_prints_the_way_in() -> None:
    """With write keys it listens everywhere, prints the address to open, and tails itself."""
    anywhere = "0.0.0.0"  # noqa: S104 - what is tested
    with started(
        *("collect", "--host", anywhere, "--port", 0, "--write-key", KEY, "--tail")
    ) as process:
        tailed = Tail(process)
        said = tailed.lines(6)
        address = said[4].split()[1]
        url, _, token = address.partition("/?token=")
        port = url.removeprefix("http://127.0.0.1:")
        assert said[0] == f"collecting on {url} until Ctrl-C"
        assert said[1].startswith(f"  bound to 0.0.0.0:{port}: all IPv4 addresses of this machine")
        assert f"Bearer {token}" in said[5]
        send(url, call(1), authorization=f"Bearer {KEY}")
        assert tailed.lines(1)[0].endswith("good  track    u1  E1")
        with contextlib.closing(Reader(address)) as reader:
            (event,) = reader.newest(5)
        assert event["key_mask"] == "••••hing"
        assert tailed.interrupt()[1] == 0
        assert tailed.lines(1) == ["1 requests, 1 events (1 good, 0 bad)"]


# What cannot work


def test_nobody_is_there(shell: Shell) -> None:
    """It is said in one line, with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    for more in ((), ("--last", 3)):
        ran = shell(f"{url}/?token={TOKEN}", *more)
        assert (ran.code, ran.out) == (3, "")
        assert ran.err.startswith(f"error: nobody listens at {url}: start a collector with")
        assert ran.err.count("\n") == 1
        assert TOKEN not in ran.err


@pytest.mark.parametrize("args", [["localhost:8010"], ["ftp://localhost"], ["http://:8010"]])
def test_what_is_no_address(shell: Shell, args: list[str]) -> None:
    """What is no URL is told from a collector that is not there."""
    ran = shell(*args)
    assert (ran.code, ran.out) == (2, "")
    assert "http://" in ran.err
    assert shell("http://127.0.0.1:99999").code == 2


class _Other(http.server.BaseHTTPRequestHandler):
    """Answers as no collector does."""

    body = b"{}"
    media_type = "application/json"
    status = 200

    def do_GET(self) -> None:
        """Answer anything."""
        self.send_response(self.status)
        self.send_header("content-type", self.media_type)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("status", "media_type", "last", "said"),
    [
        (200, "text/html", 0, "is no collector"),
        (200, "text/html", 3, "is no collector"),
        (200, "application/json", 3, "is no collector"),
        (404, "text/html", 0, "is no collector"),
        (500, "text/event-stream", 0, "is no collector"),
        (401, "application/json", 0, "needs a token"),
        (401, "application/json", 3, "needs a token"),
        (421, "application/json", 0, "--allow-host"),
    ],
)
def test_something_else_is_there(
    shell: Shell, status: int, media_type: str, last: int, said: str
) -> None:
    """What answers there is named for what it is not, and what to do is said."""
    handler = type("Handler", (_Other,), {"status": status, "media_type": media_type})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        ran = shell(f"http://127.0.0.1:{server.server_port}", "--last", last)
        server.shutdown()
        thread.join()
    assert (ran.code, ran.out) == (3, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    "args", [["--verdict", "ugly"], ["--last", "-1"], ["--last", "x"], ["a", "b"]]
)
def test_wrong_options(shell: Shell, args: list[str]) -> None:
    """They are refused before anything is connected to."""
    assert shell(*args).code == 2


# The reader


def test_the_newest_over_pages() -> None:
    """Any number of the newest come in their order, as many as there are."""
    with served() as (_, url, _):
        send(url, *(call(n) for n in range(1_300)))
        reader = Reader(url)
        assert [each["message_id"] for each in reader.newest(1_200)] == [
            str(n) for n in range(100, 1_300)
        ]
        assert len(reader.newest(2_000)) == 1_300
        assert reader.newest(5, type="page") == []
        reader.close()


def test_a_stream_that_ends() -> None:
    """A stream ends with the server; then nobody is there, and reading on is refused."""
    with served() as (_, url, stop):
        send(url, call(1))
        reader = Reader(url)
        told = reader.stream(BEGINNING)
        assert next(told).event is None
        event = next(told).event
        assert event is not None
        assert event["message_id"] == "1"
        stop()
        assert [each.event for each in told] == [None]
        with pytest.raises(Gone):
            next(reader.stream(None))
        with pytest.raises(Gone):
            reader.newest(1)
        with pytest.raises(Failure, match="cannot be read"):
            next(reader.events())


def test_a_stream_that_is_refused() -> None:
    """A filter that the collector does not know is no stream."""
    with served() as (_, url, _), pytest.raises(NoCollector) as raised:
        next(Reader(url).stream(None, colour="blue"))
    assert raised.value.status == 400
