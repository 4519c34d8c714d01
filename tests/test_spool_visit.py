"""A spool file that another process changes while its owner runs."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from asyncanalytics import forks
from asyncanalytics.errors import ConfigurationError
from asyncanalytics.spool import (
    Entry,
    Spool,
    SpoolBusy,
    SpoolUnavailable,
    Verdict,
    left_in,
    schema,
    visit,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BAD = Verdict("rejected", 400, "rejected", "", 9.5)

RETRIES = """
import sys
from asyncanalytics.spool import visit, visiting

visiting._BREATH = 0.001  # more of it in the time there is
with visit(sys.argv[1]) as seen:
    assert seen.is_owned
    print("ready", flush=True)
    while True:
        for ids in seen.matching():
            seen.retry(ids[:20])
            seen.purge(ids[20:25])
"""

HOLDS = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("ready", flush=True)
sys.stdin.readline()
"""

OWNS = """
import sys
from asyncanalytics.spool import Entry, Spool, Verdict

def told(counts):
    print("told", counts["crm"], flush=True)

with Spool(sys.argv[1], on_found=told) as spool:
    rows = [Entry("crm", "track", f"m{each}", b"{}", 1.5) for each in range(1_300)]
    numbers = spool.append(rows).result()
    spool.bury(numbers[:1_200], Verdict("rejected", 400, "rejected", "", 9.5)).result()
    print("ready", flush=True)
    while sys.stdin.readline():
        spool.adopt().result()
        figures = spool.stats().by_destination["crm"]
        print("figures", figures.events, figures.dead_events, flush=True)
    assert spool.append(rows[:1]).result() == [-(max(numbers) + 1 + (1 << 20))]
"""


def entries(first: int, count: int) -> list[Entry]:
    """Return calls with ids of their own."""
    return [
        Entry("crm", "track", f"m{each}", f"{each}".encode() * 50, 1.5)
        for each in range(first, first + count)
    ]


@contextmanager
def running(script: str, place: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a script until it is killed, from where it says that it is ready."""
    command = [sys.executable, "-W", "error", "-c", script, str(place)]
    with subprocess.Popen(  # noqa: S603 - written above
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


def counted(path: Path) -> tuple[int, int]:
    """Return what waits and what is dead in a file that nobody owns, by rows and by figures."""
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute(
            "SELECT (SELECT count(*) FROM waiting), (SELECT count(*) FROM dead)"
        ).fetchone()
        found = db.execute("SELECT sum(events), sum(dead_events) FROM destinations").fetchone()
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert rows == found
    return rows[0], rows[1]


@pytest.mark.long
def test_another_process_retries_while_the_owner_works(tmp_path: Path) -> None:
    """It is killed again and again. Each row is read once, and told where it is not our own."""
    chance = random.Random(5)  # noqa: S311 - when to kill is no secret
    told: Counter[str] = Counter()
    appended = read = ended = buried = last = 0
    with Spool(tmp_path / "spool", on_found=told.update) as spool:
        path = spool.path
        assert path is not None

        def work() -> None:
            nonlocal appended, read, ended, buried, last
            count = chance.randrange(1, 40)
            assert len(spool.append(entries(appended, count)).result()) == count
            appended += count
            while rows := spool.read("crm", last, max_events=chance.randrange(1, 90)).result():
                assert all(row.body == row.message_id[1:].encode() * 50 for row in rows)
                last, read = rows[-1].seq, read + len(rows)
                gone = [row.seq for row in rows if chance.random() < 0.5]
                spool.remove(gone)
                others = [row.seq for row in rows if row.seq not in gone]
                buried += spool.bury(others, BAD).result()
                ended += len(gone)

        for _ in range(4):
            with running(RETRIES, path):
                until = time.monotonic() + chance.uniform(0.1, 0.5)
                while time.monotonic() < until:
                    work()
        spool.adopt().result()
        work()
        assert read == appended + told["crm"] == ended + buried
        assert told["crm"] > 20
        assert spool.path == path
        assert spool.stats().events == 0
        assert spool.stats().damaged == spool.stats().corrupt_files == 0
        dead = spool.stats().dead_events
    assert counted(path) == (0, dead)


@pytest.mark.long
def test_an_owner_sees_what_another_process_has_changed(tmp_path: Path) -> None:
    """At the latest when it looks for what is to be adopted; numbers are given once."""
    folder = tmp_path / "spool"
    with running(OWNS, folder) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def ask() -> list[str]:
            child.stdin.write("\n")
            child.stdin.flush()
            return child.stdout.readline().split()

        (path,) = left_in(folder)
        with visit(path) as seen:
            assert seen.is_owned
            assert seen.oldest() == 1.5
            pieces = [*seen.matching()]
            assert [len(piece) for piece in pieces] == [500, 500, 200]
            ids = [each for piece in pieces for each in piece]
            assert seen.last() == ids[-1]
            assert [*seen.matching(before=9.0)] == [*seen.matching(destination="typo")] == []
            assert [*seen.matching(until=ids[10], destination="crm")] == [ids[:11]]
            began = time.monotonic()
            assert seen.retry(ids[:700]) == 700
            assert time.monotonic() - began > 0.05  # the owner gets its turns
            assert seen.by_destination["crm"].events == 800
            assert ask() == ["told", "700"]
            assert child.stdout.readline().split() == ["figures", "800", "500"]
            assert ask() == ["figures", "800", "500"]
            assert seen.purge(before=9.0) == 0
            assert seen.purge() == 500
            assert seen.retry(ids) == 0
            assert ask() == ["figures", "800", "0"]
            rows = seen.read("crm", limit=2_000)
            assert [row.message_id for row in rows[100:]] == [f"m{each}" for each in range(700)]
        child.stdin.close()
        assert child.wait(20) == 0
    assert counted(path)[1] == 0


def test_an_owner_waits_for_another_process(tmp_path: Path) -> None:
    """Not for long: after that its callers hear of it, and what it could not remove is owed."""
    with Spool(tmp_path / "spool") as spool:
        numbers = spool.append(entries(0, 3)).result()
        store = spool._keeper.store
        assert spool.path is not None
        with running(HOLDS, spool.path) as child:
            began = time.monotonic()
            with forks.disk.alone:
                append, removal = spool.append(entries(3, 1)), spool.remove(numbers[:1])
            for future in (append, removal):
                with pytest.raises(SpoolBusy, match=r"another process.*\(SQLITE_BUSY\)"):
                    future.result()
            assert 0.5 < time.monotonic() - began < 3
            assert len(spool.read("crm").result()) == 3
            append = spool.append(entries(4, 1))
            child.communicate("\n")
            assert append.result()
        rows = spool.read("crm").result()
        assert [row.message_id for row in rows] == ["m1", "m2", "m4"]
        assert spool._keeper.store is store


def test_a_visitor_that_waits_too_long_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its letters are as they were."""
    monkeypatch.setitem(schema._PATIENCE, "share", 0.1)
    with Spool(tmp_path / "spool") as spool:
        spool.bury(spool.append(entries(0, 1)).result(), BAD).result()
        assert spool.path is not None
        with running(HOLDS, spool.path), visit(spool.path) as seen:
            with pytest.raises(SpoolBusy):
                seen.retry([1])
            with pytest.raises(SpoolUnavailable):
                seen.purge()
            assert len(seen.dead()) == 1
        assert spool.retry([1]).result() == 1


def test_a_running_release_of_another_version_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is not brought up to this version under its hands."""
    with Spool(tmp_path / "spool") as spool:
        spool.bury(spool.append(entries(0, 1)).result(), BAD).result()
        assert spool.path is not None
        monkeypatch.setattr(schema, "VERSION", 2)
        with (
            pytest.raises(ConfigurationError, match="older version 1: read it with the release"),
            visit(spool.path),
        ):
            pass


def test_a_file_whose_owner_died_is_changed_alone(tmp_path: Path) -> None:
    """A visit to it owns it; what waits again, the next process finds."""
    folder = tmp_path / "spool"
    with running(OWNS, folder):
        pass
    (path,) = left_in(folder)
    with visit(path) as seen:
        assert not seen.is_owned
        began = time.monotonic()
        assert seen.retry(range(1, 601)) == 600
        assert seen.purge() == 600
        assert time.monotonic() - began < 5
    told: list[object] = []
    with Spool(folder, on_found=told.append):
        assert told == [{"crm": 700}]
