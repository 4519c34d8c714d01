"""A spool and forks: each process has its own file, and none touches another's while that lives."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import asyncanalytics
from asyncanalytics.spool import SpoolBusy, left_in, visit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Live

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
]

PATIENCE = 30.0  # seconds for what takes a tenth of one

COMMON = """
import asyncio, gc, hashlib, json, multiprocessing, os, signal, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of any fork beside threads
from pathlib import Path
from asyncanalytics import AsyncClient, Client, Forked, Queueing, Retrying
from asyncanalytics.spool import left_in, visit

folder = Path(sys.argv[1])
settings = dict(
    spool=folder, retrying=Retrying(base=0.02, cap=0.05), queueing=Queueing(max_events=5)
)

def say(*what):
    print(json.dumps(what), flush=True)

def ask(*what):
    say(*what)
    sys.stdin.readline()

def figures(stats):
    found = stats.destinations["custom"]
    return [stats.is_balanced, found.accepted, found.recovered, found.delivered, found.pending]

def owned():
    found = []
    for path in left_in(folder):
        with visit(path) as visited:
            found.append(visited.is_owned)
    return found
"""


@contextmanager
def program(script: str, folder: Path, live: Live) -> Iterator[Conversation]:
    """Run a script that says things in JSON and waits for answers; it must end well, in silence."""
    with live.program("-c", COMMON + textwrap.dedent(script), str(folder)) as process:
        yield Conversation(process)
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        assert not without_own_words(errors), errors


class Conversation:
    """What a program says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Take it."""
        self._process = process

    def hear(self) -> list[Any]:
        """Return what it says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._process.communicate(timeout=PATIENCE)[1]
        said: list[Any] = json.loads(line)
        return said

    def answer(self) -> None:
        """Let it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


def without_own_words(errors: str) -> str:
    """Return what was said beyond the warnings of the package itself."""
    own = ("destination 'custom'", "closed at the deadline", "closed with its loop")
    return "\n".join(line for line in errors.splitlines() if not line.startswith(own))


def assert_arrived_once(live: Live, **counts: int) -> None:
    """Each call is there, once."""
    names = [event["event"] for event in live.events]
    assert {each: names.count(each) for each in counts} == counts
    assert len(names) == sum(counts.values())
    assert len({event["messageId"] for event in live.events}) == len(names)


def assert_a_fresh_one_gets_through(live: Live, folder: Path) -> None:
    """A client that comes later delivers, and leaves nothing behind."""
    with asyncanalytics.Client(spool=folder) as client:
        client.track("Fresh", user_id="u1")
        until = time.monotonic() + PATIENCE
        while len(left_in(folder)) > 1 and time.monotonic() < until:
            time.sleep(0.02)  # another thread is at work: there is nothing to await
    stats = client.stats()
    assert stats.is_balanced
    assert stats.pending == 0
    assert "Fresh" in {event["event"] for event in live.events}
    assert left_in(folder) == []


# ---------------------------------------------------------------------------- a client on a loop

ON_A_LOOP = """
client = AsyncClient(**settings)

async def child():
    refused = 0
    for use in (client.start, client.flush, client.aclose, lambda: client.track("No", user_id="u")):
        try:
            await use()
        except Forked:
            refused += 1
    assert refused == 4
    async with AsyncClient(**settings, shutdown_timeout=0) as own:
        for _ in range(10):
            await own.track("From Child", user_id="u")
        say("child", sorted(owned()), client.stats().pending)
    say("child", *figures(own.stats()))

def in_child():
    global client
    asyncio._set_running_loop(None)
    asyncio.run(child())
    del client
    gc.collect()

def fork():
    pid = os.fork()
    if not pid:
        in_child()
        LEAVE
    assert os.waitpid(pid, 0)[1] == 0

def process():
    made = multiprocessing.get_context("fork").Process(target=in_child)
    made.start()
    made.join()
    assert made.exitcode == 0

async def main():
    async with client:
        await asyncio.gather(*(client.track("From Parent", user_id="u") for _ in range(20)))
        START
        for _ in range(5):
            await client.track("From Parent", user_id="u")
        say("parent", *figures(client.stats()))
        ask("up")
        client._journal._look_around()
        while len(left_in(folder)) > 1 or client.stats().pending:
            await asyncio.sleep(0.02)
    say("parent", *figures(client.stats()))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("start", "leave"),
    [
        ("fork()", "os._exit(0)"),
        ("await asyncio.to_thread(fork)", "os._exit(0)"),
        ("process()", ""),
    ],
    ids=["_exit", "from a thread", "multiprocessing"],
)
def test_a_fork_beside_an_async_client(live: Live, tmp_path: Path, start: str, leave: str) -> None:
    """The child is told to make its own, which has its own file; the parent goes on with its."""
    live.collector.misbehave(503)
    script = ON_A_LOOP.replace("START", start).replace("LEAVE", leave or "pass")
    with program(script, tmp_path / "spool", live) as told:
        assert told.hear() == ["child", [True, True], 20]
        assert told.hear() == ["child", True, 10, 0, 0, 10]
        assert told.hear() == ["parent", True, 25, 0, 0, 25]
        assert told.hear() == ["up"]
        live.collector.behave()
        told.answer()
        assert told.hear() == ["parent", True, 35, 10, 35, 0]
    assert_arrived_once(live, **{"From Parent": 25, "From Child": 10})
    assert_a_fresh_one_gets_through(live, tmp_path / "spool")


# ------------------------------------------------------------------------- a client for threads

FOR_THREADS = """
client = Client(**settings, shutdown_timeout=0.05)
for _ in range(20):
    client.track("From Parent", user_id="u")

def work(number):
    for _ in range(5):
        assert client.track("From Child", user_id="u").number
    files = owned()
    assert files.count(True) >= 2, files
    if number == 2:
        ask("up")
        client.flush(20)
    client.close(20 if number == 2 else 0)

def fork(number):
    pid = os.fork()
    if not pid:
        work(number)
        LEAVE
    return pid

START
for _ in range(5):
    client.track("From Parent", user_id="u")
say("parent", *figures(client.flush(20)))
"""

BY_FORK = "for number in range(3): assert os.waitpid(fork(number), 0)[1] == 0"
BY_MULTIPROCESSING = """
fork = multiprocessing.get_context("fork")
for number in range(3):
    made = fork.Process(target=work, args=(number,))
    made.start()
    made.join()
    assert made.exitcode == 0
"""


@pytest.mark.parametrize(
    ("start", "leave"),
    [
        (BY_FORK, "os._exit(0)"),
        (BY_FORK, "sys.exit(0)"),
        (BY_MULTIPROCESSING, "pass"),
    ],
    ids=["_exit", "exit", "multiprocessing"],
)
def test_a_fork_beside_a_client_for_threads(
    live: Live, tmp_path: Path, start: str, leave: str
) -> None:
    """The child's begins anew with its own file, and takes over what other children have left."""
    live.collector.misbehave(503)
    script = FOR_THREADS.replace("START", start).replace("LEAVE", leave)
    with program(script, tmp_path / "spool", live) as told:
        assert told.hear() == ["up"]
        live.collector.behave()
        told.answer()
        name, is_balanced, accepted, recovered, delivered, _ = told.hear()
        assert (name, is_balanced) == ("parent", True)
        assert accepted == delivered == 25 + recovered
    assert_a_fresh_one_gets_through(live, tmp_path / "spool")
    assert_arrived_once(live, **{"From Parent": 25, "From Child": 15, "Fresh": 1})


AMID_CALLS = """
client = Client(**settings, shutdown_timeout=20)
client.start()
is_over = threading.Event()
counts = [0, 0, 0]

def call(number):
    while not is_over.is_set():
        client.track("From Parent", user_id="u")
        counts[number] += 1

threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
for number in range(12):
    pid = os.fork()
    if not pid:
        for _ in range(3):
            client.track("From Child", user_id="u")
        os._exit(0)  # nothing is closed: what it has called is in its file
    assert os.waitpid(pid, 0)[1] == 0
is_over.set()
for thread in threads:
    thread.join()
client.flush(20)
stats = client.close(20)
say(sum(counts), *figures(stats))
"""


def test_forks_amid_calls(live: Live, tmp_path: Path) -> None:
    """However often, and in whatever moment of the disk's thread: no child hangs, nothing is lost.

    A call may come twice, where its child had sent it and did not come to removing it.
    """
    with program(AMID_CALLS, tmp_path / "spool", live) as told:
        count, is_balanced, accepted, recovered, delivered, pending = told.hear()
        assert is_balanced
        assert (accepted, pending) == (count + recovered, 0)
        assert delivered == accepted
    assert_a_fresh_one_gets_through(live, tmp_path / "spool")
    by_id = {event["messageId"]: event["event"] for event in live.events}
    names = list(by_id.values())
    assert (names.count("From Parent"), names.count("From Child")) == (count, 36)


# ------------------------------------------------------- a child that takes over its parent's file

ORPHANED = """
client = Client(**settings, shutdown_timeout=0)
for _ in range(200):
    client.track("From Parent", user_id="u")

gone, end = os.pipe()
if not os.fork():
    os.close(end)
    assert os.read(gone, 1) == b""  # the parent has ended
    for _ in range(30):
        assert client.track("From Child", user_id="u").number
    ask("child")
    for _ in range(10):
        assert client.track("Behind", user_id="u").number
    say("behind")
    os.kill(os.getpid(), signal.SIGKILL)
LEAVE
"""


@pytest.mark.parametrize(
    "leave",
    ["client.close(0); os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"],
    ids=["closed", "killed"],
)
def test_a_child_takes_over_its_parents_file(live: Live, tmp_path: Path, leave: str) -> None:
    """It has inherited SQLite's idea of that file, and must not work with it."""
    folder = tmp_path / "spool"
    live.collector.misbehave(503)
    with live.program("-c", COMMON + ORPHANED.replace("LEAVE", leave), str(folder)) as process:
        told = Conversation(process)
        assert told.hear() == ["child"]
        assert sum(map(waiting, left_in(folder))) == 230  # as another process sees them
        assert {intact(path) for path in left_in(folder)} == {"ok"}
        for path in left_in(folder):
            with visit(path) as visited:  # which opens it to be written
                assert visited.retry([1]) == 0
        told.answer()
        assert told.hear() == ["behind"]
    live.collector.behave()
    assert_a_fresh_one_gets_through(live, folder)
    # What was in flight at the kill may be there twice.
    by_id = {event["messageId"]: event["event"] for event in live.events}
    counts = {"From Parent": 200, "From Child": 30, "Behind": 10, "Fresh": 1}
    assert Counter(by_id.values()) == counts


def waiting(path: Path) -> int:
    """Count the rows that wait in a file."""
    with visit(path) as visited:
        return len(visited.read("custom", limit=9_999))


def intact(path: Path) -> str:
    """Let SQLite look through a file, in a process of its own."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        return str(db.execute("PRAGMA integrity_check").fetchone()[0])


# ---------------------------------------------------------------------------------------- gunicorn

APP = """
import json
from asyncanalytics import AsyncClient, Client
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

analytics = AsyncClient(spool="spool", shutdown_timeout=0.1)

async def order(request):
    receipt = await analytics.track("Ordered", user_id="u1")
    return JSONResponse({"messageId": receipt.message_id})

app = Starlette(routes=[Route("/orders", order, methods=["POST"])], lifespan=analytics.lifespan)
"""

SYNC_APP = """
import json
from asyncanalytics import Client

analytics = Client(spool="spool", shutdown_timeout=0.1)
analytics.track("Loaded", user_id="u1")  # before the fork

def app(environ, start_response):
    receipt = analytics.track("Ordered", user_id="u1")
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps({"messageId": receipt.message_id}).encode()]
"""


@contextmanager
def gunicorn(live: Live, place: Path, *options: str) -> Iterator[tuple[int, int]]:
    """Serve with two workers, forked from a master that has loaded the app: its pid, its port."""
    said = place / "said.txt"
    path = str(Path(asyncanalytics.__file__).parents[1])
    command = ("-m", "gunicorn", "web:app", "-b", "127.0.0.1:0", "-w", "2", "--preload")
    with (
        said.open("wb") as out,
        subprocess.Popen(  # noqa: S603 - our own words
            [sys.executable, *command, "--no-control-socket", *options],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**live.environ, "PYTHONPATH": path},
            cwd=place,
            start_new_session=True,
        ) as process,
    ):
        try:
            heard(said, r"Booting worker with pid", 2)
            yield process.pid, int(heard(said, r"Listening at: http://127\.0\.0\.1:(\d+)", 1)[0])
            process.wait(PATIENCE)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def heard(said: Path, text: str, count: int) -> list[str]:
    """Wait until a program has written something so many times."""
    until = time.monotonic() + PATIENCE
    while len(found := re.findall(text, said.read_text())) < count:
        assert time.monotonic() < until, said.read_text()
        time.sleep(0.02)  # another process is at work: there is nothing to await
    return found


def order(port: int) -> str:
    """Make a request, and return the id that it answers."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("POST", "/orders")
        return str(json.load(connection.getresponse())["messageId"])


def owned_in(folder: Path) -> int:
    """Count the files that running processes own; not those that are just being made."""
    count = 0
    for path in left_in(folder):
        with suppress(SpoolBusy), visit(path) as visited:
            count += visited.is_owned
    return count


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_gunicorn_with_preload(live: Live, tmp_path: Path, kind: str) -> None:
    """Each worker has a file of its own; what they leave, the next start delivers."""
    pytest.importorskip("gunicorn")
    if kind == "async":
        pytest.importorskip("uvicorn_worker")
    (tmp_path / "web.py").write_text(APP if kind == "async" else SYNC_APP, "utf-8")
    worker = "uvicorn_worker.UvicornWorker" if kind == "async" else "sync"
    folder = tmp_path / "spool"
    live.collector.misbehave(503)
    with gunicorn(live, tmp_path, "-k", worker) as (master, port):
        files = 2 if kind == "async" else 3  # the master has one too, where it called
        ids: list[str] = []
        until = time.monotonic() + PATIENCE
        while len(ids) < 20 or owned_in(folder) < files:
            assert time.monotonic() < until, left_in(folder)
            ids.append(order(port))
        assert owned_in(folder) == len(left_in(folder)) == files
        os.kill(master, signal.SIGTERM)
    assert sum(map(waiting, left_in(folder))) == len(ids) + (kind == "sync")
    live.collector.behave()
    assert_a_fresh_one_gets_through(live, folder)
    counts = {"Ordered": len(ids), "Fresh": 1, **({"Loaded": 1} if kind == "sync" else {})}
    assert_arrived_once(live, **counts)
    assert set(ids) <= {event["messageId"] for event in live.events}
