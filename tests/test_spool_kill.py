"""`kill -9` at random moments, in a loop: what was acknowledged arrives, and nothing else does.

Whole clients run in processes of their own, each on the same folder, and send to a live collector.
Each writes down what it is about to call, and what was acknowledged; so what is known outlives it.
The long form is in tests/soak.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from asyncanalytics.spool import left_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Live

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here"),
]

FORKS = """
import asyncio, json, os, random, sys, threading, traceback
from pathlib import Path
from asyncanalytics import *
from asyncanalytics import endpoints
from asyncanalytics.journal import Journal
from asyncanalytics.buffers.spool import SpoolBuffer
from asyncanalytics.spool import left_in

folder, url, destinations = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
settings = dict(
    spool=folder,
    retrying=Retrying(base=0.01, cap=0.05, max_attempts=1_000),
    batching=Batching(max_events=20, linger=0.01),
    shutdown_timeout=30,
)

def places():
    return [
        Destination(f"key-{n}", endpoint=endpoints.parse(url), name=f"place-{n}")
        for n in range(destinations)
    ]

class Work:
    def __init__(self, mark):
        self.mark, self.count = mark, 0
        self.out = os.open(f"{folder}-said/{mark}", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        self.chance = random.Random(mark)

    def say(self, kind, what):
        os.write(self.out, f"{kind} {what}\\n".encode())

    def call(self):
        self.count += 1
        name = f"{self.mark}-{self.count}"
        self.say("calling", name)
        content = {"name": name, "filler": "x" * self.chance.choice((1, 200, 3_000))}
        return dict(event="Paid", user_id="u1", message_id=name, properties=content)

    async def caller(self, client):
        while True:
            kind = self.chance.random()
            if kind < 0.2:
                client.track_nowait(**self.call())
            elif kind < 0.3:
                calls = [self.call() for _ in range(self.chance.choice((2, 30)))]
                await asyncio.gather(*(client.track(**call) for call in calls))
                for call in calls:
                    self.say("acknowledged", call["message_id"])
            else:
                receipt = await client.track(**self.call())
                self.say("acknowledged", receipt.message_id)
            await asyncio.sleep(self.chance.choice((0, 0.001, 0.01)))

    async def work(self, queueing):
        async with AsyncClient(destinations=places(), queueing=queueing, **settings) as client:
            self.say("started", "-")
            async with asyncio.TaskGroup() as tasks:
                for _ in range(4):
                    tasks.create_task(self.caller(client))

    def work_in_threads(self):
        client = Client(destinations=places(), **settings)
        client.start()
        self.say("started", "-")
        lock = threading.Lock()

        def run():
            while True:
                with lock:
                    call = self.call()
                receipt = client.track(**call)
                self.say("acknowledged", receipt.message_id)

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    async def drain(self):
        client = AsyncClient(destinations=places(), **settings)
        async with client:
            await client.track(**self.call())
            while len(left_in(folder)) > 1 or client.stats().pending:
                await asyncio.sleep(0.02)
        stats = client.stats()
        self.say("acknowledged", f"{self.mark}-1")
        self.say("stats", json.dumps([
            stats.is_balanced, stats.accepted, stats.delivered, stats.pending,
            sum(each.recovered for each in stats.destinations.values()),
        ]))

def run(mark, kind):
    work = Work(mark)
    if kind == "threads":
        work.work_in_threads()
    elif kind == "drain":
        asyncio.run(work.drain())
    else:
        asyncio.run(work.work(Queueing(max_events=30) if kind == "small" else None))

for line in sys.stdin:
    mark, kind = line.split()
    if mark == "reap":
        print(os.waitpid(int(kind), 0)[1], flush=True)
        continue
    child = os.fork()
    if not child:
        code = 3
        try:
            run(mark, kind)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    print(child, flush=True)
"""


class Forks:
    """Processes that are forked from one that has imported everything, and what they said."""

    def __init__(self, process: subprocess.Popen[str], said: Path) -> None:
        """Made by `forks`."""
        self._process = process
        self._said = said

    def _ask(self, *words: object) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(self, mark: str, kind: str) -> int:
        """Start a child, and return its number."""
        return self._ask(mark, kind)

    def wait_for(self, mark: str) -> None:
        """Wait until a child's client has started, where it comes to that within ten seconds."""
        until = time.monotonic() + 10
        place = self._said / mark
        while not (place.exists() and place.stat().st_size) and time.monotonic() < until:
            time.sleep(0.002)  # another process is at work: there is nothing to await

    def kill(self, child: int) -> None:
        """Kill a child."""
        os.kill(child, signal.SIGKILL)
        assert self._ask("reap", child) == signal.SIGKILL

    def end(self, child: int) -> None:
        """Wait for a child's own end."""
        assert self._ask("reap", child) == 0

    def said(self, kind: str) -> list[str]:
        """Return what all children have said of a kind."""
        lines = (line for each in self._said.iterdir() for line in each.read_text().splitlines())
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{kind} ")]


@contextmanager
def forks(folder: Path, live: Live, destinations: int) -> Iterator[Forks]:
    """Run the process that forks."""
    said = folder.with_name(f"{folder.name}-said")
    said.mkdir()
    command = [sys.executable, "-W", "error", "-c", FORKS, str(folder), live.url, str(destinations)]
    with subprocess.Popen(  # noqa: S603 - the command is written above
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Forks(process, said)
        assert process.stdin is not None
        process.stdin.close()


FAULTS: tuple[dict[str, Any] | None, ...] = (
    None,
    {"status": 503},
    {"status": 503, "share": 0.5},
    {"drop": True},
    {"drop": True, "after": True, "share": 0.5},  # the events arrive, and the answer does not
    {"status": None, "delay": 0.1},
    {"status": 401},
)


def kill_in_a_loop(
    live: Live,
    folder: Path,
    rounds: int,
    *,
    seed: int,
    kinds: tuple[str, ...] = ("plain", "small"),
    destinations: int = 1,
    is_often_down: bool = False,
) -> dict[str, int]:
    """Kill children on one folder, drain it with a last one, and return the figures."""
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    with forks(folder, live, destinations) as children:
        for each in range(rounds):
            live.collector.behave()
            if is_often_down and (fault := chance.choice(FAULTS)):
                live.collector.misbehave(fault["status"], **without_status(fault)) if (
                    "status" in fault
                ) else live.collector.misbehave(**fault)
            twins = chance.choice((1, 1, 1, 2))
            marks = [f"{each}.{twin}" for twin in range(twins)]
            running = [(mark, children.start(mark, chance.choice(kinds))) for mark in marks]
            for mark, child in running:
                if chance.random() < 0.8:  # the others are killed while they start
                    children.wait_for(mark)
                time.sleep(chance.uniform(0.005, 0.4))  # the moment is what is tested
                children.kill(child)
        live.collector.behave()
        children.end(children.start("last", "drain"))
        return checked(live, folder, children, destinations)


def without_status(fault: dict[str, Any]) -> dict[str, Any]:
    """Return the rest of a fault."""
    return {name: value for name, value in fault.items() if name != "status"}


def checked(live: Live, folder: Path, children: Forks, destinations: int) -> dict[str, int]:
    """Assert what must hold after all, and return the figures."""
    called, kept = children.said("calling"), children.said("acknowledged")
    assert len(set(called)) == len(called)
    arrived: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for event in live.collector.events():
        arrived[event.key_fingerprint or "", event.message_id or ""].append(event.payload)
    for number in range(destinations):
        fingerprint = live.collector.fingerprint(f"key-{number}")
        here = {name for key, name in arrived if key == fingerprint}
        assert not set(kept) - here, "lost"
        assert not here - set(called), "unknown"
    for (_, name), payloads in arrived.items():
        contents = [{**each, "sentAt": None} for each in payloads]
        assert all(each == contents[0] for each in contents), "another payload"
        assert contents[0]["properties"]["name"] == name
    ((is_balanced, accepted, delivered, pending, recovered),) = map(
        json.loads, children.said("stats")
    )
    assert is_balanced
    assert (pending, delivered, recovered) == (0, accepted, accepted - destinations)
    assert left_in(folder) == []
    return {
        "called": len(called),
        "acknowledged": len(kept),
        "started": len(children.said("started")),
        "arrived": len(arrived),
        "twice": sum(len(each) > 1 for each in arrived.values()),
        "by the last": recovered,
    }


def test_killed_while_the_endpoint_is_up(live: Live, tmp_path: Path) -> None:
    """Calls are on their way to the disk, to the endpoint, and out of the file."""
    found = kill_in_a_loop(live, tmp_path / "spool", 8, seed=1)
    assert found["acknowledged"] > 0, found


def test_killed_while_the_endpoint_is_often_down(live: Live, tmp_path: Path) -> None:
    """What nobody could send is taken over from one to the next."""
    found = kill_in_a_loop(live, tmp_path / "spool", 6, seed=2, is_often_down=True)
    assert found["acknowledged"] > 0, found
    assert found["by the last"] > 0, found


def test_killed_with_several_destinations(live: Live, tmp_path: Path) -> None:
    """Each of them gets every call."""
    found = kill_in_a_loop(live, tmp_path / "spool", 4, seed=3, destinations=2, is_often_down=True)
    assert found["acknowledged"] > 0, found


def test_killed_while_threads_call(live: Live, tmp_path: Path) -> None:
    """The client for threads acknowledges no sooner."""
    found = kill_in_a_loop(live, tmp_path / "spool", 3, seed=4, kinds=("threads",))
    assert found["acknowledged"] > 0, found
