"""Serverless handlers: what an invocation has tracked is sent before its answer goes out."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("starlette")

from asyncanalytics import Client, bound_context
from asyncanalytics.integrations.aws_lambda import flushed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Remaining:
    """What a handler is given as its context: the invocation's time."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """Return what is left."""
        return max(0, int((self._until - time.monotonic()) * 1000))


@pytest.fixture
def analytics(live: Any) -> Iterator[Client]:
    """A client of the live collector; at its end the law holds."""
    with Client() as client:
        yield client
    stats = client.stats()
    assert stats.is_balanced
    assert stats.accepted == stats.delivered == len(live.events)


@pytest.fixture
def stuck() -> Iterator[Client]:
    """A client whose endpoint never answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:
        client = Client("KEY", endpoint=f"http://127.0.0.1:{silent.server_address[1]}")
        client.start()
        yield client
        stats = client.close(0)
    assert stats.is_balanced
    assert stats.dropped == stats.accepted == 1


# ------------------------------------------------------------------------------- the decorator


def test_an_invocation_is_flushed_before_it_returns(analytics: Client, live: Any) -> None:
    """Calls that would linger have arrived; the answer is the handler's own."""

    @flushed(analytics)
    def handler(event: dict[str, Any], _context: object) -> str:
        """Greet."""
        for name in event["names"]:
            with bound_context(user_id=name):
                analytics.track("Greeted")
        return "done"

    for round_number in (1, 2):
        assert handler({"names": ["ann", "bob"]}, Remaining(10)) == "done"
        assert len(live.events) == 2 * round_number
    assert (handler.__name__, handler.__doc__) == ("handler", "Greet.")


def test_an_async_handler_is_run(analytics: Client, live: Any) -> None:
    """The runtime calls it as a plain function; it may await what it likes."""

    @flushed(analytics)
    async def handler(event: str, _context: object) -> str:
        await asyncio.gather(*(asyncio.to_thread(analytics.track, event, user_id=7) for _ in "ab"))
        return event

    assert handler("Greeted", Remaining(10)) == "Greeted"
    assert len(live.events) == 2


def test_the_handlers_exception_wins(analytics: Client, live: Any) -> None:
    """What was tracked before it is delivered all the same."""

    @flushed(analytics)
    def handler(event: str, _context: object) -> None:
        analytics.track(event, user_id="u1")
        raise LookupError(event)

    with pytest.raises(LookupError, match="Failed Early"):
        handler("Failed Early", Remaining(10))
    assert len(live.events) == 1


@pytest.mark.parametrize(
    ("limits", "remaining"),
    [({"timeout": 0.05}, 60), ({"margin": 0.5}, 0.55), ({}, 0.1), ({"timeout": 0.05}, None)],
)
def test_the_flush_ends_in_time(
    stuck: Client,
    caplog: pytest.LogCaptureFixture,
    limits: dict[str, float],
    remaining: float | None,
) -> None:
    """Whichever limit comes first; the answer stands, the calls stay, and the log says so."""

    @flushed(stuck, **limits)
    def handler(event: str, _context: object) -> str:
        stuck.track(event, user_id="u1")
        return "done"

    since = time.monotonic()
    assert handler("Greeted", None if remaining is None else Remaining(remaining)) == "done"
    assert time.monotonic() - since < 1
    assert stuck.stats().pending == 1
    assert "1 events were still pending" in caplog.text


def test_a_client_that_is_closed_does_no_harm(live: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that has closed it has its answer."""
    client = Client()

    @flushed(client)
    def handler(event: str, _context: object) -> str:
        client.track(event, user_id="u1")
        client.close()
        return "done"

    assert handler("Greeted", None) == "done"
    assert "closed" in caplog.text
    assert client.stats().is_balanced
    assert client.stats().delivered == len(live.events) == 1


# ----------------------------------------------------------------------- the runtime's own program


class Runtime:
    """AWS's Runtime API: hands out invocations, and notes what had arrived at each answer."""

    def __init__(self, invocations: list[dict[str, Any]], live: Any) -> None:
        self.answers: list[tuple[str, dict[str, Any], list[dict[str, Any]]]] = []
        self.ended = Event()
        self._live = live
        self._invocations = list(enumerate(invocations))
        self._over = Event()

    def handler(self) -> type[BaseHTTPRequestHandler]:
        """Return the class that serves it."""
        runtime = self

        class Api(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                assert self.path == "/2018-06-01/runtime/invocation/next"
                if not runtime._invocations:
                    runtime.ended.set()
                    runtime._over.wait(30)  # as the real one does, while the function is frozen
                    self.close_connection = True
                    return
                number, event = runtime._invocations.pop(0)
                self.send_response(200)
                self.send_header("Lambda-Runtime-Aws-Request-Id", str(number))
                deadline = int((time.time() + 10) * 1000)
                self.send_header("Lambda-Runtime-Deadline-Ms", str(deadline))
                self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:::f")
                self.reply(json.dumps(event).encode())

            def do_POST(self) -> None:
                arrived = runtime._live.events
                body = self.rfile.read(int(self.headers["content-length"]))
                kind = self.path.rpartition("/")[2]
                runtime.answers.append((kind, json.loads(body), arrived))
                self.send_response(202)
                self.reply(b"")

            def reply(self, body: bytes) -> None:
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        return Api

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve it on a socket."""
        with ThreadingHTTPServer(("127.0.0.1", 0), self.handler()) as server:
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield f"127.0.0.1:{server.server_address[1]}"
            finally:
                self._over.set()
                server.shutdown()
                thread.join()


@contextmanager
def function(path: Path, api: str, environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """AWS's own program around a handler, killed at the end as an environment is."""
    command = [sys.executable, "-m", "awslambdaric", f"{path.stem}.handler"]
    process = subprocess.Popen(  # noqa: S603 - the command is written above
        command,
        cwd=path.parent,
        env=environ | {"AWS_LAMBDA_RUNTIME_API": api, "PYTHONPATH": str(path.parent)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


SYNC = [{"user": f"u{n}", "total": n} for n in range(3)]
ASYNC = [{"user": f"u{n}", "parts": [1.5, 2.5]} for n in range(3)]


@pytest.mark.parametrize(
    ("name", "invocations", "calls"),
    [("lambda_function.py", SYNC, 1), ("lambda_async.py", ASYNC, 2)],
)
def test_the_functions_of_the_page(
    example: Callable[..., Path],
    live: Any,
    name: str,
    invocations: list[dict[str, Any]],
    calls: int,
) -> None:
    """In AWS's runtime, each invocation's calls are at the collector before its answer is."""
    pytest.importorskip("awslambdaric")
    pytest.importorskip("runtime_client", reason="awslambdaric has no client for this Python")
    failing = {"user": "u3"}  # what the handler looks for is not in it
    runtime = Runtime([*invocations, failing], live)
    path = example("serverless", name)
    with runtime.serving() as api, function(path, api, live.environ) as process:
        while not runtime.ended.wait(0.1):
            assert process.poll() is None
    assert [kind for kind, _, _ in runtime.answers] == ["response"] * 3 + ["error"]
    assert [body for _, body, _ in runtime.answers[:3]] == [{"statusCode": 200}] * 3
    for number, (_, _, arrived) in enumerate(runtime.answers[:3], start=1):
        users = [event["userId"] for event in arrived]
        assert users == [f"u{n}" for n in range(number) for _ in range(calls)]
    assert runtime.answers[3][1]["errorType"] == "KeyError"
    assert len({event["messageId"] for event in live.events}) == 3 * calls
