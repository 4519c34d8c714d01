"""The spool when the disk fails, fills up, rots, or is taken away; and commits that are shared."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from asyncanalytics import forks
from asyncanalytics.spool import (
    OVERHEAD,
    Entry,
    Spool,
    SpoolBroken,
    SpoolDiskFull,
    SpoolReadOnly,
    Verdict,
    keeper,
    writer,
)
from asyncanalytics.spool.writer import Job

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

BAD = Verdict("rejected", 400, "rejected", "", 9.5)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An open spool."""
    with Spool(tmp_path / "spool") as opened:
        yield opened


def entries(*names: object, size: int = 100) -> list[Entry]:
    """Return calls with these ids."""
    return [Entry("crm", "track", f"m{name}", body(f"m{name}", size), 1.5) for name in names]


def body(name: str, size: int = 100) -> bytes:
    """Return the body that belongs to an id."""
    return f"{name:>{size}}".encode()


def waiting(spool: Spool) -> list[str]:
    """Return the ids of the calls that wait, whose bodies must be whole."""
    rows = spool.read("crm", max_events=99_999, max_bytes=1 << 40).result()
    assert all(row.body == body(row.message_id, len(row.body)) for row in rows)
    return [row.message_id for row in rows]


def database(spool: Spool) -> sqlite3.Connection:
    """Return the connection, to play tricks on."""
    store = spool._keeper.store
    assert store is not None
    return store.db


# --------------------------------------------------------------------------------- shared commits


def test_what_waits_shares_one_commit(spool: Spool) -> None:
    """A hundred appends and their neighbours are on disk after two commits at most."""
    said: list[str] = []
    numbers = spool.append(entries(*range(100))).result()
    database(spool).set_trace_callback(said.append)
    with forks.disk.alone:
        futures = [spool.append(entries(f"new{each}")) for each in range(100)]
        removals = [spool.remove([number]) for number in numbers]
        buried = spool.bury([*numbers[:0]], BAD)
    assert [len(future.result()) for future in futures] == [1] * 100
    assert [removal.result() for removal in removals] == [None] * 100
    assert buried.result() == 0
    assert said.count("COMMIT") <= 2
    assert waiting(spool) == [f"mnew{each}" for each in range(100)]


def test_forks_wait_for_all_that_is_done_within_sqlite(tmp_path: Path) -> None:
    """Whatever the thread does there, and at its end too, a fork that comes then waits for it."""
    said: list[tuple[str, bool]] = []
    with Spool(tmp_path / "spool") as spool:
        database(spool).set_trace_callback(
            lambda sql: said.append((sql.split()[0], bool(forks.disk._under_way)))
        )
        numbers = spool.append(entries(1, 2)).result()
        spool.read("crm").result()
        spool.remove(numbers[:1]).result()
        spool._keeper.is_full = True  # as after a full disk: it looks for room, and so at the log
        spool.append(entries(3)).result()
    assert all(waits for _, waits in said), [sql for sql, waits in said if not waits]
    assert {"INSERT", "SELECT", "DELETE", "PRAGMA"} <= {sql for sql, _ in said}


def test_a_cancelled_append_is_left_out(spool: Spool) -> None:
    """The others of its commit are kept."""
    with forks.disk.alone:
        futures = [spool.append(entries(each)) for each in range(10)]
        gone = [future.cancel() for future in futures[1::2]]
    assert [future.result()[0] > 0 for future in futures[2::2]] == [True] * 4
    assert gone == [True] * 5
    assert waiting(spool) == ["m0", "m2", "m4", "m6", "m8"]


def test_threads_share_a_spool(spool: Spool) -> None:
    """Each caller gets the numbers of its own calls."""
    found: dict[str, int] = {}

    def work(thread: int) -> None:
        for each in range(40):
            rows = entries(f"{thread}-{each}a", f"{thread}-{each}b")
            numbers = spool.append(rows).result()
            found.update(zip([row.message_id for row in rows], numbers, strict=True))

    threads = [threading.Thread(target=work, args=(each,)) for each in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = spool.read("crm", max_events=999).result()
    assert {row.message_id: row.seq for row in rows} == found
    assert len(found) == 400


def test_a_mistake_of_ours_leaves_nobody_waiting(spool: Spool) -> None:
    """The callers of that commit get an error, and the thread goes on."""
    futures = [spool._put(Job(kind, work=lambda _: 1 / 0)) for kind in ("change", "alone")]
    for future in futures:
        with pytest.raises(SpoolBroken, match="ZeroDivisionError"):
            future.result()
    assert len(spool.append(entries(1)).result()) == 1


# ------------------------------------------------------------------------------ a disk that refuses


def test_a_read_only_file_recovers(spool: Spool) -> None:
    """Those who wait get the named error; the next commit opens the file again."""
    numbers = spool.append(entries(1, 2)).result()
    database(spool).execute("PRAGMA query_only = ON")
    with forks.disk.alone:
        futures: list[Any] = [spool.append(entries(3)), spool.remove(numbers[:1])]
    for future in futures:
        with pytest.raises(SpoolReadOnly, match=r"SQLITE_READONLY"):
            future.result()
    assert spool.append(entries(4)).result()
    assert waiting(spool) == ["m2", "m4"]  # the removal was made good


def test_a_removal_that_fails_takes_its_room_back(spool: Spool) -> None:
    """What was counted as free counts again, until the removal is made good."""
    numbers = spool.append(entries(1, 2)).result()
    room = spool.room
    database(spool).execute("PRAGMA query_only = ON")
    removal = spool.remove(numbers, freed=2 * (100 + OVERHEAD))
    with pytest.raises(SpoolReadOnly):
        removal.result()
    assert spool.room == room
    spool.append(entries(3)).result()
    assert waiting(spool) == ["m3"]
    assert spool.room == spool.max_bytes - (100 + OVERHEAD)


def test_damage_on_a_read_only_disk_is_passed_over(spool: Spool) -> None:
    """It is not set aside there, and neither returned nor taken for a broken file."""
    numbers = spool.append(entries(*range(20))).result()
    database(spool).execute("UPDATE waiting SET body = x'00' WHERE seq % 2")
    database(spool).execute("PRAGMA query_only = ON")
    path = spool.path
    for _ in range(2):
        assert len(spool.read("crm", max_events=4).result()) == 2
        assert len(spool.read("crm").result()) == 10
    database(spool).execute("PRAGMA query_only = OFF")
    database(spool).execute("UPDATE waiting SET body = x'00'")
    database(spool).execute("PRAGMA query_only = ON")
    assert spool.read("crm").result() == []
    assert spool.stats().damaged == 0
    database(spool).execute("PRAGMA query_only = OFF")
    assert spool.read("crm", max_events=3).result() == []
    assert spool.stats().damaged == len(numbers)
    assert spool.path == path


def test_a_removal_that_failed_is_made_good_at_rest(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else has to be asked for; then the thread sleeps without waking."""
    monkeypatch.setattr(writer, "_IDLE", 0.02)
    numbers = spool.append(entries(1, 2)).result()
    database(spool).execute("PRAGMA query_only = ON")
    with pytest.raises(SpoolReadOnly):
        spool.remove(numbers).result()
    until = time.monotonic() + 10
    while spool.stats().events and time.monotonic() < until:
        time.sleep(0.01)  # a thread is at work: there is nothing to await
    assert spool.stats().events == 0


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at once whether a full disk has room again."""
    monkeypatch.setattr(keeper, "_REGAIN", 0.0)


@pytest.mark.usefixtures("no_delay")
def test_a_full_file_can_still_be_emptied(spool: Spool) -> None:
    """Appends fail, alone or beside removals; reading, burying and removing go on."""
    numbers = spool.append(entries(*range(200), size=2_000)).result()
    pages = database(spool).execute("PRAGMA page_count").fetchone()[0]
    database(spool).execute(f"PRAGMA max_page_count = {pages}")
    with forks.disk.alone:
        append = spool.append(entries(*range(200, 300), size=9_000))
        removal = spool.remove(numbers[:50])
        burial = spool.bury(numbers[50:60], BAD)
    with pytest.raises(SpoolDiskFull, match="SQLITE_FULL"):
        append.result()
    removal.result()
    assert burial.result() == 10
    assert len(waiting(spool)) == 140
    assert spool.stats().is_disk_full
    spool.remove(numbers).result()
    database(spool).execute("PRAGMA max_page_count = 1000000")
    assert len(spool.append(entries("new")).result()) == 1
    assert not spool.stats().is_disk_full
    assert waiting(spool) == ["mnew"]


def test_a_folder_that_is_gone_is_made_again(spool: Spool) -> None:
    """What was in it is lost, and what comes after is kept: numbers go on."""
    (number,) = spool.append(entries(1)).result()
    assert spool.path is not None
    shutil.rmtree(spool.path.parent)
    (later,) = spool.append(entries(2)).result()
    assert later > number
    assert spool.path.exists()
    assert waiting(spool) == ["m2"]


LIMITED = """
import resource, signal, sys
from asyncanalytics.spool import *

def rows(first):
    return [Entry("crm", "track", f"m{first + each}", b"x" * 690, 1.5) for each in range(100)]

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
with Spool(sys.argv[1]) as spool:
    try:
        spool.append(rows(0)).result()
    except SpoolBroken:
        assert spool.stats().events == 0
    else:
        raise AssertionError("written with a limit of nothing")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    spool.append(rows(0)).result()
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    kept, failed = 100, 0
    while failed < 5:
        try:
            spool.append(rows(kept)).result(10)
            kept += 100
        except SpoolUnavailable as error:
            assert isinstance(error, SpoolBroken), error
            failed += 1
    assert kept > 200
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    spool.append(rows(100_000)).result(10)
    left = spool.read("crm", max_events=99_999, max_bytes=1 << 30).result()
    found = {row.message_id for row in left}
    assert {f"m{each}" for each in range(kept)} <= found
    assert {f"m{100_000 + each}" for each in range(100)} <= found
"""

SMALL = """
import os, sys, time
from asyncanalytics.spool import *

place = sys.argv[1]
hog = os.path.join(place, "hog")

def fill():
    out = os.open(hog, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        while True:
            os.write(out, bytes(4096))
    except OSError:
        os.close(out)

with Spool(os.path.join(place, "spool")) as spool:
    for turn in range(2):
        kept, failed = set(), 0
        while not failed:
            names = [f"{turn}-{len(kept) + each}" for each in range(100)]
            rows = [Entry("crm", "track", name, b"x" * 690, 1.5) for name in names]
            try:
                spool.append(rows).result(10)
                kept.update(names)
            except SpoolDiskFull:
                failed += 1
        assert len(kept) > 3_000
        fill()  # others take what the reserve gave back
        while rows := spool.read("crm", max_events=100).result(10):
            kept -= {row.message_id for row in rows}
            spool.remove([row.seq for row in rows]).result(10)
        assert not kept
        os.unlink(hog)
        time.sleep(1.05)  # a full disk is looked at once a second
    spool.append([Entry("crm", "track", "last", b"{}", 1.5)]).result(10)
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command."""
    return subprocess.run(  # noqa: S603 - written in this file
        command, capture_output=True, text=True, timeout=50, check=False
    )


@pytest.mark.skipif(sys.platform == "win32", reason="a limit of POSIX")
def test_an_input_output_error_recovers(tmp_path: Path) -> None:
    """Each caller gets the named error; nothing acknowledged is lost, and it goes on by itself."""
    done = run(sys.executable, "-c", LIMITED, str(tmp_path / "spool"))
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_a_full_disk_does_not_wedge_the_spool(tmp_path: Path) -> None:
    """With not a byte left on a real, small disk, everything can be read and removed."""
    unshare, mount = (shutil.which(name) for name in ("unshare", "mount"))
    if unshare is None or mount is None:
        pytest.skip("needs unshare and mount")
    (tmp_path / "disk").mkdir()
    script = f'{mount} -t tmpfs -o size=20m tmpfs {tmp_path}/disk || exit 77; exec "$@"'
    command = [sys.executable, "-c", SMALL, f"{tmp_path}/disk"]
    done = run(unshare, "-rm", "sh", "-c", script, "sh", *command)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("may not mount a disk here")
    assert done.returncode == 0, done.stderr
