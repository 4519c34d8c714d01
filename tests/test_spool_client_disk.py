"""A client whose disk fills up, fails, hangs, or loses what was on it: the client goes on."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from asyncanalytics import Batching, Destination, QueueFull, Queueing, Retrying, forks, journal
from asyncanalytics.spool import SpoolBusy, files, left_in, visit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from conftest import Lab, Live, WatchedClient

pytestmark = pytest.mark.long

QUICK = Retrying(base=0.02, cap=0.05)
SMALL = Queueing(max_events=20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where calls are kept."""
    return tmp_path / "spool"


async def until(is_so: Callable[[], object]) -> None:
    """Wait for the disk, whose thread tells no test when it has done something."""
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


async def many(client: WatchedClient, count: int, size: int = 10) -> list[str]:
    """Make calls together, and return their ids."""
    calls = (
        client.track("Added File", user_id=f"u{n}", properties={"x": "y" * size})
        for n in range(count)
    )
    return [receipt.message_id for receipt in await asyncio.gather(*calls)]


def on_disk(folder: Path) -> set[str]:
    """Return the ids that wait, as another process sees them."""
    found: set[str] = set()
    for path in left_in(folder):
        with visit(path) as visited:
            found |= {row.message_id for row in visited.read("custom", limit=9_999)}
    return found


# ---------------------------------------------------------------------------- a disk that fills up

FULL = """
import asyncio, json, logging, os, sys
from asyncanalytics import *

place = sys.argv[1]
hog = os.path.join(place, "hog")
said, made = [], []
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("asyncanalytics").addHandler(handler)

def fill():
    out = os.open(hog, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        while True:
            os.write(out, bytes(4096))
    except OSError:
        os.close(out)

async def call(client):
    calls = [client.track("Added File", user_id="u1", properties={"x": "y" * 2_000})
             for _ in range(50)]
    made.extend([each.message_id for each in await asyncio.gather(*calls)])

async def ask(what):
    print(what, flush=True)
    await asyncio.to_thread(sys.stdin.readline)

async def main():
    client = AsyncClient(
        spool=os.path.join(place, "spool"),
        retrying=Retrying(base=0.02, cap=0.05, max_attempts=1_000),
        batching=Batching(max_events=100),
        queueing=Queueing(max_events=5_000),
    )
    async with client:
        await call(client)
        fill()
        while not client._journal.is_failing:
            await call(client)
        await call(client)
        fill()  # what the reserve gave back
        await call(client)
        full = client.stats()
        await ask("full")  # the endpoint is up from here on
        await client.flush(20)
        async with asyncio.timeout(20):
            while client.stats().spool.events:  # the last ones leave with a commit of their own
                await asyncio.sleep(0.01)
        os.unlink(hog)
        while client._journal.is_failing:
            await call(client)
            await asyncio.sleep(0.1)
        await client.flush(20)
        await ask("free")  # the endpoint is down from here on
        fresh = await client.track("Fresh", user_id="u1")
        made.append(fresh.message_id)
        kept = client.stats().spool.events
        await ask("kept")  # up again
        await client.flush(20)
    stats = client.stats()
    print(json.dumps(dict(
        made=made, said=said, balanced=stats.is_balanced, accepted=stats.accepted,
        delivered=stats.delivered, pending_when_full=full.pending, accepted_when_full=full.accepted,
        is_disk_full=full.spool.is_disk_full, kept=kept,
    )))

asyncio.run(main())
"""


def test_a_full_disk(live: Live, tmp_path: Path) -> None:
    """The client goes on in memory, empties the spool without a byte left, and recovers."""
    unshare, mount = (shutil.which(name) for name in ("unshare", "mount"))
    if unshare is None or mount is None:
        pytest.skip("needs unshare and mount")
    (tmp_path / "disk").mkdir()
    script = f'{mount} -t tmpfs -o size=20m tmpfs {tmp_path}/disk || exit 77; exec "$@"'
    command = [unshare, "-rm", "sh", "-c", script, "sh"]
    live.collector.misbehave(503)
    process = subprocess.Popen(  # noqa: S603 - written in this file
        [*command, sys.executable, "-W", "error", "-c", FULL, f"{tmp_path}/disk"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=live.environ,
    )
    lines = conversation(live, process)
    if process.returncode == 77 or "unshare" in lines[-1]:
        pytest.skip("may not mount a disk here")
    assert process.returncode == 0, lines
    found = json.loads(lines[-1])
    assert found["is_disk_full"]
    assert found["pending_when_full"] == found["accepted_when_full"]
    assert found["kept"] == 1
    assert found["balanced"]
    assert found["delivered"] == found["accepted"] == len(found["made"])
    assert {each["messageId"] for each in live.events} == set(found["made"])
    assert told(found["said"]) == (1, 1), found["said"]


def conversation(live: Live, process: subprocess.Popen[str]) -> list[str]:
    """Let the endpoint be up and down as a program asks; return its last words."""
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line in ("full\n", "kept\n"):
                live.collector.behave()
            elif line == "free\n":
                live.collector.misbehave(503)
            else:
                break
            process.stdin.write("\n")
            process.stdin.flush()
        _, errors = process.communicate(timeout=50)
    return [*lines[-1:], *([errors] if errors else [])]


def told(said: Sequence[str]) -> tuple[int, int]:
    """Count what was said of the trouble, and of its end."""
    return (
        sum("in memory only" in each for each in said),
        sum("takes calls again" in each for each in said),
    )


# ------------------------------------------------------------------------------- a disk that fails

FAILING = """
import asyncio, json, logging, sys
from asyncanalytics import *

said, made = [], []
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("asyncanalytics").addHandler(handler)

async def main():
    client = AsyncClient(spool=sys.argv[1], batching=Batching(linger=0.01))
    async with client:
        has_failed = False
        while not has_failed or client._journal.is_failing:
            made.append((await client.track("Added File", user_id="u1")).message_id)
            has_failed = has_failed or client._journal.is_failing
            await asyncio.sleep(0.01)
        fresh = await client.track("Fresh", user_id="u1")
        made.append(fresh.message_id)
        number = fresh.number
    stats = client.stats()
    print(json.dumps(dict(
        made=made, said=said, balanced=stats.is_balanced, accepted=stats.accepted,
        delivered=stats.delivered, number=number, recovered=stats.recovered,
    )))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("call", "error"),
    [("fdatasync", "EIO"), ("pwrite64", "EIO"), ("pwrite64", "EROFS"), ("pwrite64", "ENOSPC")],
)
def test_a_disk_that_fails_for_a_while(live: Live, tmp_path: Path, call: str, error: str) -> None:
    """With errors from the system itself: said once, nothing is lost, and it recovers."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace")
    inject = f"inject={call}:error={error}:when=20..40"
    command = [strace, "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", inject]
    done = subprocess.run(  # noqa: S603 - written in this file
        [*command, sys.executable, "-W", "error", "-c", FAILING, str(tmp_path / "spool")],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=live.environ,
    )
    if "PTRACE" in done.stderr or "ptrace" in done.stderr:
        pytest.skip("may not trace a process here")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["balanced"]
    # A commit that failed may turn out to be on disk after all, beside what is in memory.
    assert found["delivered"] == found["accepted"] == len(found["made"]) + found["recovered"]
    assert {each["messageId"] for each in live.events} == set(found["made"])
    assert found["number"] > 0
    failed, recovered = told(found["said"])
    assert 1 <= failed == recovered <= 3, found["said"]  # it may fail again after it has recovered
    assert left_in(tmp_path / "spool") == []


# ------------------------------------------------------------------------ a disk that is in the way


@contextmanager
def refusing(client: WatchedClient) -> Iterator[None]:
    """Let the disk have no room for a while."""
    db = client._journal._spool._keeper.store.db  # type: ignore[union-attr]
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    yield
    with suppress(sqlite3.ProgrammingError):  # closed meanwhile
        db.execute("PRAGMA max_page_count = 1000000")


async def test_the_disk_recovers_while_memory_is_full(lab: Lab, folder: Path) -> None:
    """In an outage memory is at its bound already; callers must not wait for its end."""
    server = lab.script(then=503)
    queueing = Queueing(max_events=20, when_full="raise")
    settings: dict[str, Any] = {"queueing": queueing, "shutdown_timeout": 0.1}
    async with lab.client(server, spool=folder, retrying=QUICK, **settings) as client:
        await many(client, 50)
        assert client._flushers[0].buffer._held_events == 20
        with refusing(client):
            with pytest.raises(QueueFull, match="the queue of destination"):  # noqa: PT012 - at one of them
                for _ in range(20):
                    await many(client, 1, 20_000)
            assert client._journal.is_failing  # type: ignore[union-attr]
        await until(lambda: not client._journal.is_failing)  # type: ignore[union-attr]
        (fresh,) = await many(client, 1)
        assert fresh in on_disk(folder)
        server.then = 200
        await client.flush(10)
    assert client.stats().delivered == client.stats().accepted


async def test_a_disk_that_hangs_holds_up_the_close_a_bounded_time(
    lab: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many calls it should still take; they are counted as `closed`."""
    monkeypatch.setattr(journal, "_PATIENCE", 0.3)
    client = lab.client(
        lab.script(then=503),
        spool=folder,
        retrying=QUICK,
        batching=Batching(max_events=1),
        shutdown_timeout=0.1,
    )
    await client.start()
    await many(client, 5)
    thread = client._journal._spool._writer._thread  # type: ignore[union-attr]
    with forks.disk.alone:
        lab.burst(client, 100)
        began = asyncio.get_running_loop().time()
        stats = await client.aclose()
        assert asyncio.get_running_loop().time() - began < 3
    assert stats.destinations["custom"].dropped_by == {"closed": 100}
    assert stats.pending == 5
    await asyncio.to_thread(thread.join)


def test_a_file_that_is_just_being_made(folder: Path) -> None:
    """Whoever looks into it in that moment is told to try again."""
    file = files.create(files.prepare_folder(folder))
    with pytest.raises(SpoolBusy, match="try again"), visit(file.path):
        pass
    file.release()
    with visit(file.path) as visited:
        assert not visited.by_destination


# -------------------------------------------------------------------------- what is taken away


@pytest.mark.parametrize("when", ["at rest", "while calls come"])
async def test_a_folder_that_is_removed(lab: Lab, folder: Path, when: str) -> None:
    """What was on disk alone is lost and counted; what comes later is kept again."""
    server = lab.script(then=503)
    async with lab.client(server, spool=folder, retrying=QUICK, queueing=SMALL) as client:
        made = await many(client, 100)
        calls = asyncio.create_task(many(client, 200)) if when != "at rest" else None
        if calls:
            await asyncio.sleep(0)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():  # noqa: ASYNC240 - a file came meanwhile
            shutil.rmtree(folder)
        made += await calls if calls else []
        later = await many(client, 30)
        assert on_disk(folder) >= set(later)
        server.then = 200
        await client.flush(10)
        (fresh,) = await lab.track(client)
        await client.flush(10)
        assert fresh.outcome is not None
        assert fresh.outcome.delivered
        outcomes = {each.receipt.message_id: await each.receipt.settled() for each in client.taken}
    found = client.stats().destinations["custom"]
    assert all(outcomes[each].delivered for each in later)
    lost = sum(not each.delivered for each in outcomes.values())
    assert dict(found.dropped_by) == {"spool_corrupt": lost}
    assert 0 < lost <= len(made) - 20
    assert found.delivered == found.accepted - lost


class Slow(Destination):
    """A place that takes its time to open."""

    async def open(self, *given: Any) -> None:
        """Wait until the spool was read."""
        await super().open(*given)
        await asyncio.sleep(0.3)


async def test_what_was_left_is_damaged(lab: Lab, folder: Path) -> None:
    """It is counted even before the client has started, and the client starts."""
    server = lab.script(then=503)
    settings: dict[str, Any] = {"spool": folder, "retrying": QUICK, "shutdown_timeout": 0.1}
    endpoint = lab.endpoint(server, name="custom")
    async with lab.client(endpoint=endpoint, **settings) as client:
        await many(client, 10)
    with closing(sqlite3.connect(left_in(folder)[0])) as db, db:
        db.execute("UPDATE waiting SET body = 'rot'")
    server.then = 200
    place = Slow(lab.KEY, endpoint=endpoint)
    async with lab.client(destinations=[place], **settings) as second:
        (fresh,) = await lab.track(second)
        await second.flush(10)
        assert fresh.outcome is not None
        assert fresh.outcome.delivered
    found = second.stats().destinations["custom"]
    assert (found.accepted, found.recovered, found.delivered) == (11, 10, 1)
    assert found.dropped_by == {"spool_corrupt": 10}


def overwritten(path: Path, how: str, chance: random.Random) -> None:
    """Damage a file that is open elsewhere."""
    target = path.with_name(f"{path.name}-wal") if how == "no log" else path
    size = target.stat().st_size
    with target.open("r+b") as file:
        if how in ("cut", "no log"):
            file.truncate(0 if how == "no log" else size // 2 // 4096 * 4096)
        elif how == "all":
            file.write(chance.randbytes(size))
        elif how == "header":
            file.write(chance.randbytes(100))
        else:
            for _ in range(size // 4096):
                file.seek(chance.randrange(4096, size))
                file.write(chance.randbytes(64))


@pytest.mark.parametrize("how", ["all", "header", "here and there", "cut", "no log"])
async def test_a_file_that_is_damaged(lab: Lab, folder: Path, how: str) -> None:
    """What cannot be read any more is counted, and the client goes on with another file."""
    server = lab.script(then=503)
    async with lab.client(server, spool=folder, retrying=QUICK, queueing=SMALL) as client:
        made = await many(client, 300, 500)
        store = client._journal._spool._alone  # type: ignore[union-attr]
        if how != "no log":
            await asyncio.wrap_future(store(lambda store: store.checkpoint()))
        overwritten(left_in(folder)[0], how, random.Random(7))  # noqa: S311 - damage, not a secret
        later = await many(client, 30, 500)
        server.then = 200
        await client.flush(20)
        (fresh,) = await lab.track(client)
        await client.flush(20)
        assert fresh.outcome is not None
        assert fresh.outcome.delivered
        outcomes = {each.receipt.message_id: await each.receipt.settled() for each in client.taken}
    stats = client.stats().destinations["custom"]
    lost = {name for name, each in outcomes.items() if not each.delivered}
    assert dict(stats.dropped_by) == ({"spool_corrupt": len(lost)} if lost else {})
    assert stats.accepted == stats.delivered + len(lost)
    assert set(server.arrived) == set(outcomes) - lost
    assert len(lost & set(made)) <= 280
    assert not [each for each in left_in(folder) if on_disk(folder)]
    assert set(later) <= set(outcomes)
