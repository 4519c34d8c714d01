"""Calls go to the disk in groups: what becomes of the others where one call is in the way."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from asyncanalytics import Queueing, Retrying, Sealing, Spooling, forks, journal
from asyncanalytics.spool import left_in, visit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Lab, WatchedClient

LARGE = {"x": "y" * 1_000}
PATIENT = Retrying(base=0.05, cap=0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where calls are kept."""
    return tmp_path / "spool"


def rows(folder: Path, sealing: Sealing | None = None) -> list[str]:
    """Return the ids that wait in the files of a folder."""
    found: list[str] = []
    for path in left_in(folder):
        with visit(path, sealing=sealing) as visited:
            found += [row.message_id for row in visited.read("custom", limit=100_000)]
    return found


def picky() -> Sealing:
    """Seal everything but what says that it is poison."""

    def seal(data: bytes) -> bytes:
        if b'"poison"' in data:
            raise ValueError("poison")
        return data

    return Sealing(seal=seal, open=bytes)


async def test_one_call_that_is_not_sealed_is_alone(lab: Lab, folder: Path) -> None:
    """All others of its group are on disk when they return, and it is in memory."""
    sealing = picky()
    spool = Spooling(folder, sealing=sealing)
    server = lab.script(then=503)
    async with lab.client(server, spool=spool, retrying=PATIENT, shutdown_timeout=0) as client:
        calls = (
            client.track("poison" if n == 30 else "fine", user_id="u1", message_id=f"m{n}")
            for n in range(100)
        )
        receipts = await asyncio.gather(*calls)
        assert [each.message_id for each in receipts if not each.number] == ["m30"]
        assert rows(folder, sealing) == [f"m{n}" for n in range(100) if n != 30]
        server.then = 200
        await client.flush(10)
    assert client.stats().delivered == 100


async def test_what_is_refused_at_once_keeps_its_turn(lab: Lab, folder: Path) -> None:
    """A group that never gets to the disk does not go before one that is on its way there."""
    server = lab.script()
    async with lab.client(server, spool=Spooling(folder, sealing=picky())) as client:
        for n in range(2_000):  # of 1 MiB and more
            event = "poison" if n == 1_200 else "fine"
            client.track_nowait(event, user_id="u1", message_id=f"m{n}", properties=LARGE)
        await client.flush(20)
    arrived = [each for request in server.requests for each in request.ids]
    assert arrived == [f"m{n}" for n in range(2_000)]


async def test_ids_that_come_again_in_an_outage(lab: Lab, folder: Path) -> None:
    """Memory stays bounded: what does not fit is dropped as a duplicate, and its id arrives."""
    server = lab.script(then=503)
    client = lab.client(
        server, spool=folder, retrying=PATIENT, queueing=Queueing(max_events=50, max_bytes=100_000)
    )
    async with client:
        for _ in range(5):
            calls = (client.track("E", user_id="u1", message_id=f"m{n}") for n in range(200))
            await asyncio.gather(*calls)
        before = client.stats().destinations["custom"]
        assert before.pending_bytes <= 100_000
        assert (before.pending, before.dropped_by) == (200, {"duplicate": 800})
        server.then = 200
        await client.flush(20)
    arrived = {each for request in server.requests for each in request.ids}
    assert arrived == {f"m{n}" for n in range(200)}
    assert client.stats().delivered == 200


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Let a test hold up the disk of a client; it is let go at the end."""
    monkeypatch.setattr(journal, "_PATIENCE", 0.3)
    held: list[Any] = []
    yield held
    for gate in held:
        gate.release()


def hold_up(client: WatchedClient, held: list[Any]) -> Any:
    """Let the disk of a client hang."""
    assert client._journal is not None
    writer = client._journal._open._writer
    forks.disk.alone.acquire()
    held.append(forks.disk.alone)
    return writer


async def test_what_was_given_up_does_not_turn_up(
    lab: Lab, folder: Path, hanging: list[Any]
) -> None:
    """Calls that a hanging disk had not begun with at the close are dropped, and are not there."""
    client = lab.client(lab.script(then=503), spool=folder, retrying=PATIENT, shutdown_timeout=0)
    await client.start()
    writer = hold_up(client, hanging)
    for n in range(3_000):
        client.track_nowait("E", user_id="u1", message_id=f"m{n}", properties=LARGE)
    await asyncio.sleep(0.05)
    dropped = (await client.aclose()).dropped
    hanging.pop().release()
    await asyncio.to_thread(writer._thread.join)
    assert dropped == 3_000
    assert len(rows(folder)) <= 1_000  # of the group that the disk may have begun with


async def test_a_group_is_of_a_megabyte(lab: Lab, folder: Path, hanging: list[Any]) -> None:
    """However many calls are made at once: the disk keeps room for that much, and no more."""
    async with lab.client(lab.script(), spool=folder) as client:
        writer = hold_up(client, hanging)
        for n in range(3_000):
            client.track_nowait("E", user_id="u1", message_id=f"m{n}", properties=LARGE)
        assert client._journal is not None
        weights = [group.weight for group in client._journal._under_way]
        hanging.pop().release()
        await client.flush(20)
    del writer
    assert len(weights) == 4
    assert max(weights) < 1_100_000


async def test_a_group_leaves_nothing_to_the_collector_of_garbage(lab: Lab, folder: Path) -> None:
    """Nobody who waited for a group is in a cycle with it."""
    async with lab.client(lab.script(), spool=folder) as client:
        await client.track("E", user_id="u1")
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await asyncio.gather(*(client.track("E", user_id="u1") for _ in range(500)))
            gc.collect()
            waiters = [each for each in gc.garbage if isinstance(each, asyncio.Future)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
        assert len(waiters) < 50  # 500 waited
