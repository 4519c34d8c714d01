"""The SQLite table: what is in it, each event once, and what happens when it cannot be written."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest

from asyncanalytics import Batching, ConfigurationError, Retrying, SqliteDestination
from asyncanalytics.destinations import sqlite

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Lab

    from asyncanalytics import AsyncClient

QUICK = Retrying(max_attempts=2, base=0.01, cap=0.01)
PATIENT = Retrying(max_attempts=1_000, base=0.01, cap=0.01)


def rows(path: Path, what: str = "payload", table: str = "events") -> list[Any]:
    """Read what is in a table, in the order of its insertion."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        found = db.execute(f"SELECT {what} FROM {table} ORDER BY rowid").fetchall()  # noqa: S608
    return [each[0] if len(each) == 1 else each for each in found]


async def test_calls_are_rows(lab: Lab, tmp_path: Path) -> None:
    """Each call is a row with its whole payload, and with columns that are read out of it."""
    path = tmp_path / "events.db"
    async with lab.client(destinations=[SqliteDestination(path)]) as client:
        receipts = lab.burst(client, 1_200)
        receipts.append(await client.group("g1", user_id="u", traits={"name": "Arthur\nDënt\0"}))
        outcome = await receipts[0].settled()
    assert (outcome.kind, outcome.destination, outcome.status) == ("delivered", "sqlite", None)
    payloads = [json.loads(each) for each in rows(path)]
    assert [each["messageId"] for each in payloads] == [each.message_id for each in receipts]
    assert payloads[-1]["traits"] == {"name": "Arthur\nDënt\0"}
    columns = "message_id, type, event, user_id, anonymous_id, group_id, timestamp"
    first, last = rows(path, columns)[0], rows(path, columns)[-1]
    when = payloads[0]["timestamp"]
    assert first == (receipts[0].message_id, "track", "Added File", "u0", None, None, when)
    assert last[1:6] == ("group", None, "u", None, "g1")
    assert all(each.endswith("Z") for each in rows(path, "stored_at"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_an_id_is_there_once(lab: Lab, tmp_path: Path) -> None:
    """What is sent again, by this client or another, is not stored again; the first one stays."""
    path = tmp_path / "events.db"
    for n in range(2):
        async with lab.client(destinations=[SqliteDestination(path)]) as client:
            for _ in range(3):
                await client.track("Ordered", user_id=f"u{n}", message_id="m1")
            await client.track("Ordered", user_id="u", message_id=f"other {n}")
    assert rows(path, "message_id, user_id") == [("m1", "u0"), ("other 0", "u"), ("other 1", "u")]


async def test_two_clients_at_once(lab: Lab, tmp_path: Path) -> None:
    """Both write into the same new file, at the same time."""
    path = tmp_path / "events.db"
    clients = [
        lab.client(destinations=[SqliteDestination(path)], retrying=PATIENT) for _ in range(2)
    ]
    async with clients[0], clients[1]:
        for _ in range(5):
            await asyncio.gather(*(lab.track(each, 20) for each in clients))
            await asyncio.gather(*(each.flush() for each in clients))
    assert len(rows(path)) == 200


@pytest.mark.parametrize("where", [".", "missing/events.db", "text", "other"])
async def test_a_file_that_cannot_be_used(
    lab: Lab, tmp_path: Path, logged: pytest.LogCaptureFixture, where: str
) -> None:
    """The trouble is said once, without hanging; what was there before stays as it is."""
    (tmp_path / "text").write_text("not a database, but long enough to be read as one" * 20)
    with contextlib.closing(sqlite3.connect(tmp_path / "other")) as db:
        db.execute("CREATE TABLE events (number INTEGER)")
    before = (tmp_path / "text").read_bytes()
    destination = SqliteDestination(tmp_path / where, retrying=QUICK)
    async with lab.client(destinations=[destination]) as client:
        outcome = await (await lab.track(client))[0].settled()
    assert (outcome.kind, outcome.reason, outcome.attempts) == ("dropped", "expired", 3)
    assert [each.levelname for each in logged.records] == ["WARNING", "ERROR"]
    assert "cannot" in logged.records[0].getMessage()
    assert (tmp_path / "text").read_bytes() == before


async def test_a_file_that_another_holds(lab: Lab, tmp_path: Path) -> None:
    """While another program writes, calls wait; then they are there."""
    path = tmp_path / "events.db"
    async with lab.client(destinations=[SqliteDestination(path)], retrying=PATIENT) as client:
        await (await lab.track(client))[0].settled()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN EXCLUSIVE")
            receipts = lab.burst(client, 5)
            await asyncio.sleep(0.05)
            assert not any(each.outcome for each in receipts)
            db.execute("ROLLBACK")
        await receipts[-1].settled()
    assert len(rows(path)) == 6


async def test_an_insert_that_a_close_interrupts(lab: Lab, tmp_path: Path) -> None:
    """It has a moment, and what is there then is counted as delivered."""
    path = tmp_path / "events.db"
    path.touch()
    client = lab.client(destinations=[SqliteDestination(path)], retrying=PATIENT)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        await client.start()
        await lab.track(client)
        while not client.stats().destinations["sqlite"].requests:  # noqa: ASYNC110 - it is a figure
            await asyncio.sleep(0)
        closing = asyncio.create_task(client.aclose(0))
        await asyncio.sleep(0)  # it has begun; a slow machine has all of the moment
        db.execute("ROLLBACK")
        await closing
    stats = client.stats().destinations["sqlite"]
    assert (stats.delivered, stats.dropped_by, len(rows(path))) == (1, {}, 1)


async def until_it_waits(client: AsyncClient, path: Path) -> None:
    """Wait until an insert has been begun, and another program keeps it from going on."""
    while not client.stats().destinations["sqlite"].requests:  # noqa: ASYNC110 - it is a figure
        await asyncio.sleep(0)
    while not path.with_name(f"{path.name}-journal").exists():  # noqa: ASYNC110 - so is a file
        await asyncio.sleep(0.01)


async def test_an_insert_that_is_called_off(lab: Lab, tmp_path: Path) -> None:
    """What had not come to its commit when its moment is over is counted, and is never there."""
    path = tmp_path / "events.db"
    path.touch()
    client = lab.client(destinations=[SqliteDestination(path)], retrying=PATIENT)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        await client.start()
        await (await lab.track(client))[0].settled()
        db.execute("BEGIN IMMEDIATE")
        await lab.track(client)
        while client.stats().destinations["sqlite"].requests < 2:  # noqa: ASYNC110 - it is a figure
            await asyncio.sleep(0)
        await client.aclose(0)
        db.execute("ROLLBACK")
    for thread in threading.enumerate():
        if thread.name == "asyncanalytics aside":
            await asyncio.to_thread(thread.join)
    stats = client.stats().destinations["sqlite"]
    assert (stats.delivered, stats.dropped_by, len(rows(path))) == (1, {"closed": 1}, 1)


async def test_a_commit_that_is_slow_at_the_close(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be called off any more: the close waits for it, and counts what is there."""
    monkeypatch.setattr(sqlite, "_BUSY", 4.0)  # it must not fail here, however slow the machine
    path = tmp_path / "events.db"
    client = lab.client(destinations=[SqliteDestination(path)], retrying=PATIENT)
    await client.start()
    await (await lab.track(client))[0].settled()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")  # so that who reads holds up a commit
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM events").fetchone()
        await lab.track(client)
        await until_it_waits(client, path)
        closing = asyncio.create_task(client.aclose(0))
        await asyncio.sleep(0.7)  # longer than the moment that other inserts have
        assert not closing.done()
        db.execute("ROLLBACK")
        await closing
    stats = client.stats().destinations["sqlite"]
    assert (stats.delivered, stats.dropped_by, len(rows(path))) == (2, {}, 2)


async def test_inserts_that_wait_for_their_turn_at_the_close(lab: Lab, tmp_path: Path) -> None:
    """They are never begun: only the one that is under way has a moment."""
    path = tmp_path / "events.db"
    path.touch()
    batching = Batching(max_events=1, linger=0)
    client = lab.client(destinations=[SqliteDestination(path)], retrying=PATIENT, batching=batching)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        await client.start()
        await lab.track(client, 5)
        while client.stats().destinations["sqlite"].requests < 5:  # noqa: ASYNC110 - it is a figure
            await asyncio.sleep(0)
        closing = asyncio.create_task(client.aclose(0))
        await asyncio.sleep(0.05)
        db.execute("ROLLBACK")
        await closing
    stats = client.stats().destinations["sqlite"]
    assert stats.delivered == len(rows(path)) <= 1
    assert stats.delivered + stats.dropped_by["closed"] == 5


async def test_a_loop_that_ends_in_a_commit(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all tasks are cancelled, it counts by what happened, too."""
    monkeypatch.setattr(sqlite, "_BUSY", 4.0)
    path = tmp_path / "events.db"
    client = lab.client(destinations=[SqliteDestination(path)], retrying=PATIENT)
    await client.start()
    await (await lab.track(client))[0].settled()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("BEGIN")
        db.execute("SELECT count(*) FROM events").fetchone()
        await lab.track(client)
        await until_it_waits(client, path)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        closing = asyncio.create_task(client.aclose(0))
        await asyncio.sleep(0.6)
        db.execute("ROLLBACK")
        await closing
    stats = client.stats().destinations["sqlite"]
    assert (stats.delivered, stats.dropped_by, len(rows(path))) == (2, {}, 2)


async def test_a_folder_that_comes_back(lab: Lab, tmp_path: Path) -> None:
    """A disk that is gone for a while is like a server that is down."""
    path = tmp_path / "mounted" / "events.db"
    async with lab.client(destinations=[SqliteDestination(path)], retrying=PATIENT) as client:
        receipts = lab.burst(client, 5)
        await asyncio.sleep(0.05)
        path.parent.mkdir()
        await receipts[-1].settled()
    assert len(rows(path)) == 5


async def test_a_table_of_a_chosen_name(lab: Lab, tmp_path: Path) -> None:
    """Two destinations fill two tables of one file."""
    path = tmp_path / "events.db"
    both = [SqliteDestination(path, table=each, name=each) for each in ("orders", "people_2")]
    async with lab.client(destinations=both, retrying=PATIENT) as client:
        await lab.track(client, 3)
    assert len(rows(path, table="orders")) == len(rows(path, table="people_2")) == 3


@pytest.mark.parametrize("table", ["", "a b", "1a", 'x" (y', "a;--"])
def test_a_name_that_is_none(tmp_path: Path, table: str) -> None:
    """A table's name is never more than a name."""
    with pytest.raises(ConfigurationError, match="letters, digits and underscores"):
        SqliteDestination(tmp_path / "events.db", table=table)
