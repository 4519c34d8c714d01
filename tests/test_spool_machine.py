"""A client with a spool against a machine of calls, faults, kills and restarts, and a model of it.

The client lives in a process of its own, which is told over a socket what to do, and is killed for
real. What must hold is the law while it lives, and in the end: each acknowledged call has arrived
or is a dead letter, each dead letter is one that the endpoint refuses, and nothing else arrived.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from asyncanalytics.spool import left_in, visit

SOAK = "SOAK" in os.environ
PATIENCE = 20.0  # seconds for what takes a tenth of one

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here"),
    pytest.mark.timeout(3_600 if SOAK else 300),
]

FORKS = """
import asyncio, json, os, socket, sys, traceback
from pathlib import Path
from asyncanalytics import *
from asyncanalytics.journal import Journal
from asyncanalytics.buffers.spool import SpoolBuffer
from asyncanalytics.spool import left_in


def client(folder, url):
    return AsyncClient(
        "key",
        endpoint=url,
        spool=folder,
        retrying=Retrying(base=0.005, cap=0.02, max_attempts=10_000),
        batching=Batching(max_events=7, linger=0.01),
        queueing=Queueing(max_events=10),
    )

def figures(client):
    stats = client.stats()
    found = stats.destinations["custom"]
    return dict(
        balanced=stats.is_balanced, accepted=found.accepted, delivered=found.delivered,
        rejected=found.rejected, dropped=found.dropped, pending=found.pending,
        recovered=found.recovered,
    )

async def do(client, kind, given):
    calls = [
        dict(event="Paid", user_id="u1", message_id=each, properties={"x": "y" * 300})
        for each in given.get("ids", ())
    ]
    if kind == "call":
        await asyncio.gather(*(client.track(**call) for call in calls))
    elif kind == "nowait":
        for call in calls:
            client.track_nowait(**call)
    elif kind == "flush":
        try:
            await client.flush(given["timeout"])
        except FlushTimeout:
            pass
    elif kind == "look":
        client._journal._look_around()
    elif kind == "drain":
        while client.stats().pending or len(left_in(Path(given["folder"]))) > 1:
            client._journal._look_around()
            await asyncio.sleep(0.02)
    elif kind == "close":
        await client.aclose(given["timeout"])

async def run(port, folder, url):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    made = client(folder, url)
    await made.start()
    writer.write(json.dumps(figures(made)).encode() + b"\\n")
    while line := await reader.readline():
        given = json.loads(line)
        await do(made, given["do"], given)
        writer.write(json.dumps(figures(made)).encode() + b"\\n")
        await writer.drain()
        if given["do"] == "close":
            break
    writer.close()
    await writer.wait_closed()

for line in sys.stdin:
    kind, what, *rest = line.split()
    if kind == "reap":
        print(os.waitpid(int(what), 0)[1], flush=True)
        continue
    child = os.fork()
    if not child:
        code = 3
        try:
            asyncio.run(run(int(what), *rest))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    print(child, flush=True)
"""

Mode = Literal["up", "503", "401", "drop", "late", "half"]


class Endpoint(ThreadingHTTPServer):
    """A place that misbehaves as it is told, and refuses poison unless it is told otherwise."""

    daemon_threads = True
    mode: Mode = "up"
    pardons = False

    def __init__(self) -> None:
        """Listen."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.arrived: dict[str, list[Any]] = defaultdict(list)
        self.seen: set[str] = set()
        self.count = 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that are killed."""

    def judge(self, events: list[dict[str, Any]]) -> int:
        """Return the answer's status, 0 for none."""
        names = [event["messageId"] for event in events]
        self.seen.update(names)
        self.count += 1
        if self.mode in ("503", "401"):
            return int(self.mode)
        if self.mode == "drop" or (self.mode == "half" and self.count % 2):
            return 0
        if not self.pardons and any("poison" in name for name in names):
            return 400
        for event in events:
            self.arrived[event["messageId"]].append(event)
        return 0 if self.mode == "late" and self.count % 2 else 200


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Endpoint
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Take a request."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status = self.server.judge(body["batch"])
        self.close_connection = not status
        if status:
            self.send_response(status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class World:
    """What outlives an example: the endpoint's threads, and the process that forks."""

    def __init__(self) -> None:
        """Start both."""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE)
        self.process = subprocess.Popen(  # noqa: S603 - written above
            [sys.executable, "-W", "error", "-c", FORKS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *words: object) -> int:
        """Have the process that forks do something."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        """End both."""
        self.listener.close()
        self.process.communicate()


class Child:
    """One life of the client."""

    def __init__(self, world: World, folder: Path, url: str) -> None:
        """Start it."""
        self._world = world
        port = world.listener.getsockname()[1]
        self.number = world.ask("start", port, folder, url)
        self._socket = world.listener.accept()[0]
        self._socket.settimeout(PATIENCE)
        self._lines = self._socket.makefile("r")
        self.figures: dict[str, Any] = json.loads(self._lines.readline())

    def tell(self, kind: str, **given: object) -> None:
        """Have the client do something, and do not wait for it."""
        self._socket.sendall(json.dumps({"do": kind, **given}).encode() + b"\n")

    def do(self, kind: str, **given: object) -> dict[str, Any]:
        """Have the client do something, and return its figures after it."""
        self.tell(kind, **given)
        self.figures = json.loads(self._lines.readline())
        return self.figures

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.number, signal.SIGKILL)
        assert self._world.ask("reap", self.number) == signal.SIGKILL
        self._lines.close()
        self._socket.close()

    def end(self) -> None:
        """Wait for its own end."""
        assert self._world.ask("reap", self.number) == 0
        self._lines.close()
        self._socket.close()


def dead(folder: Path) -> list[tuple[Path, int, str]]:
    """Return the dead letters: their file, their number there and their id."""
    found = []
    for path in left_in(folder):
        with visit(path) as visited:
            found += [(path, each.id, each.message_id) for each in visited.dead(limit=9_999)]
    return found


class Machine(RuleBasedStateMachine):
    """The rules, and the model."""

    world: World

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.endpoint = Endpoint()
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name) / "spool"
        self.child: Child | None = None
        self.called: set[str] = set()
        self.kept: set[str] = set()
        self.figures: dict[str, Any] = {}

    def names(self, count: int, *, poison: bool) -> list[str]:
        """Return new ids, one of which the endpoint refuses."""
        start = len(self.called)
        names = [f"m{start + each}" for each in range(count)]
        if poison:
            names[count // 2] += "-poison"
        self.called.update(names)
        return names

    def do(self, kind: str, **given: object) -> None:
        """Have the client do something, and note its figures."""
        assert self.child is not None
        self.figures = self.child.do(kind, **given)

    @initialize()
    def begin(self) -> None:
        """Start the first client."""
        self.start()

    @rule()
    @precondition(lambda self: self.child is None)
    def start(self) -> None:
        """Start a client on what is there."""
        self.child = Child(self.world, self.folder, self.endpoint.url)

    @rule(count=st.integers(1, 30), poison=st.booleans())
    @precondition(lambda self: self.child is not None)
    def call(self, count: int, *, poison: bool) -> None:
        """Make calls together, and have them acknowledged."""
        names = self.names(count, poison=poison)
        self.do("call", ids=names)
        self.kept.update(names)

    @rule(count=st.integers(1, 30), poison=st.booleans())
    @precondition(lambda self: self.child is not None)
    def call_without_waiting(self, count: int, *, poison: bool) -> None:
        """Make calls that nobody promises anything of in a kill."""
        self.do("nowait", ids=self.names(count, poison=poison))

    @rule()
    @precondition(lambda self: self.child is not None)
    def flush(self) -> None:
        """Let what waits go out."""
        self.do("flush", timeout=0.1)

    @rule(mode=st.sampled_from(["up", "503", "401", "drop", "late", "half"]))
    def behave(self, mode: Mode) -> None:
        """Let the endpoint behave so."""
        self.endpoint.mode = mode

    @rule(pardons=st.booleans())
    def judge(self, *, pardons: bool) -> None:
        """Let the endpoint take poison, or refuse it."""
        self.endpoint.pardons = pardons

    @rule(during=st.sampled_from(["call", "nowait", "flush", "close", "look", None]))
    @precondition(lambda self: self.child is not None)
    def kill(self, during: str | None) -> None:
        """Kill the client, at rest or in the middle of something."""
        assert self.child is not None
        if during is not None:
            calls = self.names(30, poison=True) if during in ("call", "nowait") else []
            self.child.tell(during, ids=calls, timeout=0.1)
        self.child.kill()
        self.child = None

    @rule(timeout=st.sampled_from([0, 0.05, 0.3]))
    @precondition(lambda self: self.child is not None)
    def close(self, timeout: float) -> None:
        """Close the client; what is pending stays."""
        assert self.child is not None
        self.do("close", timeout=timeout)
        self.check()
        self.child.end()
        self.child = None

    @rule()
    def retry(self) -> None:
        """Let every dead letter wait again, from outside."""
        by_path = defaultdict(list)
        for path, number, _ in dead(self.folder):
            by_path[path].append(number)
        for path, numbers in by_path.items():
            with visit(path) as visited:
                assert visited.retry(numbers) == len(numbers)
        if by_path and self.child is not None:
            self.do("look")

    @invariant()
    def check(self) -> None:
        """Assert the law, and that nothing unknown was sent."""
        assert self.figures.get("balanced", True), self.figures
        assert self.figures.get("dropped", 0) == 0, self.figures
        assert self.endpoint.seen <= self.called

    def teardown(self) -> None:
        """Let all go out, make a fresh call, and compare with the model."""
        try:
            self.drain()
        finally:
            if self.child is not None:
                self.child.kill()
            self.endpoint.shutdown()
            self.endpoint.server_close()
            self.place.cleanup()

    def drain(self) -> None:
        """Do so."""
        self.endpoint.mode = "up"
        if self.child is None:
            self.start()
        self.call(1, poison=False)
        self.do("drain", folder=str(self.folder))
        self.check()
        assert self.figures["pending"] == 0
        self.close(timeout=5)  # what was refused last is buried on disk by then
        arrived = set(self.endpoint.arrived)
        buried = [name for _, _, name in dead(self.folder)]
        assert self.kept <= arrived.union(buried), "lost"
        assert arrived.union(buried) <= self.called, "unknown"
        assert all("poison" in name for name in buried), "refused for nothing"
        assert len(set(buried)) == len(buried), "buried twice"
        for payloads in self.endpoint.arrived.values():
            assert all({**each, "sentAt": 0} == {**payloads[0], "sentAt": 0} for each in payloads)


def test_the_machine() -> None:
    """Whatever comes in whatever order, the law holds and nothing acknowledged is lost."""

    class InThisWorld(Machine):
        world = World()

    try:
        run_state_machine_as_test(
            InThisWorld,
            settings=settings(
                max_examples=300 if SOAK else 15,
                stateful_step_count=30 if SOAK else 15,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        InThisWorld.world.close()
