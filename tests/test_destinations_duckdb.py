"""The DuckDB table: what is in it, each event once, and what happens when it cannot be written."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("duckdb")

import duckdb

from asyncanalytics import Batching, DuckdbDestination, MissingExtra, Retrying
from asyncanalytics.batching import Batch
from asyncanalytics.receipts import Receipt

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Lab

QUICK = Retrying(max_attempts=2, base=0.01, cap=0.01)
PATIENT = Retrying(max_attempts=1_000, base=0.01, cap=0.05)


def rows(path: Path, what: str) -> list[Any]:
    """Read what is in the table."""
    with duckdb.connect(path, config={"threads": 1}) as db:
        found: list[Any] = db.execute(f"SELECT {what} FROM events ORDER BY ALL").fetchall()  # noqa: S608
    return found


async def test_calls_are_rows(lab: Lab, tmp_path: Path) -> None:
    """Each call is a row with its whole payload, and with columns that are read out of it."""
    path = tmp_path / "events.duckdb"
    async with lab.client(destinations=[DuckdbDestination(path)]) as client:
        receipts = lab.burst(client, 1_200)
        await client.group("g1", user_id="u", traits={"name": "Arthur\nDënt", "big": 10**30})
    ids = sorted(each.message_id for each in receipts)
    tracked = rows(path, "message_id, type, event, group_id")[: len(ids)]
    assert len(rows(path, "message_id")) == 1_201
    assert [each[0] for each in tracked if each[1] == "track"] == ids[: len(tracked)]
    assert {each[1:] for each in tracked if each[1] == "track"} == {("track", "Added File", None)}
    found = rows(path, "group_id, payload ->> '$.traits.name', payload ->> '$.traits.big'")
    assert ("g1", "Arthur\nDënt", str(10**30)) in found
    assert rows(path, "count(*)") == rows(path, 'count("timestamp" || stored_at)') == [(1_201,)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_an_id_is_there_once(lab: Lab, tmp_path: Path) -> None:
    """What is sent again, by this client or another, is not stored again; the first one stays."""
    path = tmp_path / "events.duckdb"
    for n in range(2):
        async with lab.client(destinations=[DuckdbDestination(path)]) as client:
            for _ in range(3):
                await client.track("Ordered", user_id=f"u{n}", message_id="m1")
            await client.track("Ordered", user_id="u", message_id=f"other {n}")
    assert rows(path, "message_id, user_id") == [("m1", "u0"), ("other 0", "u"), ("other 1", "u")]


async def test_two_clients_at_once(lab: Lab, tmp_path: Path) -> None:
    """Both write into the same new file, at the same time."""
    path = tmp_path / "events.duckdb"
    clients = [
        lab.client(destinations=[DuckdbDestination(path)], retrying=PATIENT) for _ in range(2)
    ]
    async with clients[0], clients[1]:
        for _ in range(3):
            await asyncio.gather(*(lab.track(each, 20) for each in clients))
            await asyncio.gather(*(each.flush() for each in clients))
    assert len(rows(path, "message_id")) == 120


@pytest.mark.parametrize("where", [".", "missing/events.duckdb", "text", "other"])
async def test_a_file_that_cannot_be_used(
    lab: Lab, tmp_path: Path, logged: pytest.LogCaptureFixture, where: str
) -> None:
    """The trouble is said once, without hanging; what was there before stays as it is."""
    (tmp_path / "text").write_text("not a database" * 400)
    with duckdb.connect(tmp_path / "other", config={"threads": 1}) as db:
        db.execute("CREATE TABLE events (number INTEGER)")
    before = (tmp_path / "text").read_bytes()
    destination = DuckdbDestination(tmp_path / where, retrying=QUICK)
    async with lab.client(destinations=[destination]) as client:
        outcome = await (await lab.track(client))[0].settled()
    assert (outcome.kind, outcome.reason, outcome.attempts) == ("dropped", "expired", 3)
    assert [each.levelname for each in logged.records] == ["WARNING", "ERROR"]
    assert "cannot insert" in logged.records[0].getMessage()
    assert (tmp_path / "text").read_bytes() == before


async def test_inserts_that_a_close_interrupts(lab: Lab, tmp_path: Path) -> None:
    """Wherever it meets them: what is there is counted as delivered, and nothing else."""
    path = tmp_path / "events.duckdb"
    batching = Batching(max_events=50, linger=0)
    delivered = 0
    for n in range(8):
        client = lab.client(
            destinations=[DuckdbDestination(path)], retrying=PATIENT, batching=batching
        )
        await client.start()
        lab.burst(client, 400)
        await asyncio.sleep(0.02 * n)
        stats = (await client.aclose(0)).destinations["duckdb"]
        assert stats.delivered + stats.dropped_by["closed"] == 400
        delivered += stats.delivered
    assert not path.exists() or rows(path, "count(*)") == [(delivered,)]


def test_an_insert_that_is_called_off(tmp_path: Path) -> None:
    """It leaves nothing behind; the same one goes on later as if nothing had been."""
    path = tmp_path / "events.duckdb"
    batch = Batch(0, [Receipt("track", "m1", b'"messageId":"m1"}')])
    destination = DuckdbDestination(path)
    assert destination._insert(batch, lambda: False)
    assert destination._insert(batch, lambda: True) is None
    assert rows(path, "message_id") == [("m1",)]


_HOLD = "import duckdb, sys; db = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"


async def test_a_file_that_another_process_holds(lab: Lab, tmp_path: Path) -> None:
    """While another program has the file, calls wait; then they are there."""
    path = tmp_path / "events.duckdb"
    async with lab.client(destinations=[DuckdbDestination(path)], retrying=PATIENT) as client:
        await (await lab.track(client))[0].settled()
        with subprocess.Popen(  # noqa: ASYNC220, S603 - a program of this test's
            [sys.executable, "-c", _HOLD, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other:
            assert await asyncio.to_thread(other.stdout.readline) == "held\n"  # type: ignore[union-attr]
            receipts = lab.burst(client, 5)
            await asyncio.sleep(0.1)
            assert not any(each.outcome for each in receipts)
            other.communicate("\n")
        await receipts[-1].settled()
    assert len(rows(path, "message_id")) == 6


def test_without_duckdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which extra brings it."""
    monkeypatch.setattr("asyncanalytics.destinations.duckdb.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"asyncanalytics\[duckdb\]"):
        DuckdbDestination(tmp_path / "events.duckdb")
