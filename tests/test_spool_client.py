"""A client with a spool: what is on disk when, what comes back, and what the disk does to it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from asyncanalytics import (
    AsyncClient,
    BaseDestination,
    Batching,
    Client,
    Closed,
    ConfigurationError,
    DeliveryTimeout,
    Destination,
    InvalidCall,
    LifecycleError,
    NotDelivered,
    QueueFull,
    Queueing,
    Retrying,
    Sealing,
    Spooling,
    Track,
    forks,
)
from asyncanalytics.retrying import Delivered
from asyncanalytics.spool import left_in, visit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from conftest import Lab, Live, WatchedClient

    from asyncanalytics import Outcome, Receipt
    from asyncanalytics.batching import Batch, Limits

QUICK = Retrying(base=0.02, cap=0.05)
SMALL = Queueing(max_events=20)
SIZE = 1_000  # of a call's property, in the tests of the quota


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where calls are kept."""
    return tmp_path / "spool"


def on_disk(folder: Path, destination: str = "custom") -> list[str]:
    """Return the ids that wait in all files of a folder, as another process sees them."""
    found: list[str] = []
    for path in left_in(folder):
        with visit(path) as visited:
            after = 0
            while rows := visited.read(destination, after):
                found += [row.message_id for row in rows]
                after = rows[-1].seq
    return found


def looked_at(folder: Path) -> tuple[list[int], list[str], bytes]:
    """Return the rights of a folder and of its files, their names, and all that is in them."""
    files = list(folder.iterdir())
    modes = [each.stat().st_mode & 0o777 for each in [folder, *files]]
    return modes, [each.name for each in files], b"".join(each.read_bytes() for each in files)


def dead(folder: Path) -> list[Any]:
    """Return the dead letters of a folder."""
    found: list[Any] = []
    for path in left_in(folder):
        with visit(path) as visited:
            found += visited.dead(limit=10_000)
    return found


def ids(server: Any) -> list[str]:
    """Return the ids in the order in which a server took them."""
    return [each for request in server.requests for each in request.ids]


async def until(is_so: Callable[[], object]) -> None:
    """Wait for the disk, whose thread tells no test when it has done something."""
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


async def many(client: AsyncClient, count: int, **properties: Any) -> list[str]:
    """Make calls together, and return their ids once they are durable."""
    calls = (
        client.track("Added File", user_id=f"u{n}", properties={"n": n, **properties})
        for n in range(count)
    )
    return [receipt.message_id for receipt in await asyncio.gather(*calls)]


# ------------------------------------------------------------------------------ what is on disk


async def test_an_awaited_call_is_on_disk(lab: Lab, folder: Path) -> None:
    """On return another process finds it there; when it is delivered it is gone."""
    server = lab.script(503, then=200)
    async with lab.client(server, spool=folder, retrying=QUICK) as client:
        receipt = await client.track("Added File", user_id="u1")
        assert on_disk(folder) == [receipt.message_id]
        assert receipt.number > 0
        assert (await receipt.settled()).delivered
    assert on_disk(folder) == []
    assert left_in(folder) == []


async def test_calls_that_are_refused_let_others_run(lab: Lab, folder: Path) -> None:
    """A task beside them has a turn in 512 calls, although none of them waits for the disk."""
    turns = 0

    async def beside() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with lab.client(lab.script(), spool=folder) as client, asyncio.TaskGroup() as group:
        task = group.create_task(beside())
        for _ in range(1_024):
            with pytest.raises(InvalidCall):
                await client.track("Call")
        assert turns >= 2
        task.cancel()


async def test_a_nowait_call_is_on_disk_soon(lab: Lab, folder: Path) -> None:
    """`_nowait` returns before the disk has the call, which follows by itself."""
    server = lab.script(then=503)
    client = lab.client(server, spool=folder, retrying=QUICK, shutdown_timeout=0.05)
    async with client:
        receipts = lab.burst(client, 10)
        assert client.stats().pending == 10
        await client._journal.landing(None)  # type: ignore[union-attr]
        assert on_disk(folder) == [each.message_id for each in receipts]


async def test_a_folder_is_for_its_owner_only(lab: Lab, folder: Path) -> None:
    """No other user of the machine may look into it, and no name of a file says a key."""
    async with lab.client(lab.script(), spool=folder) as client:
        await lab.track(client)
        modes, names, content = looked_at(folder)
        assert modes[0] == 0o700
        assert set(modes[1:]) == {0o600}
        assert not any(lab.KEY in name for name in names)
        assert lab.KEY.encode() not in content
        assert lab.MARK.encode() in content


async def test_what_is_sealed_cannot_be_read(lab: Lab, folder: Path) -> None:
    """With functions of the user's, payloads are on disk as these make them, and go out whole."""

    def flip(data: bytes) -> bytes:
        return bytes(each ^ 0x5A for each in data)

    spool = Spooling(folder, sealing=Sealing(seal=flip, open=flip))
    server = lab.script(503, then=200)
    client = lab.client(server, spool=spool, retrying=QUICK, queueing=SMALL)
    async with client:
        made = await many(client, 100, mark=lab.MARK)
        _, _, content = looked_at(folder)
        assert lab.MARK.encode() not in content
        assert flip(lab.MARK.encode()) in content
        await client.flush()
    assert sorted(server.arrived) == sorted(made)


async def test_a_sealing_that_does_not_work_is_refused(lab: Lab, folder: Path) -> None:
    """It is tried at the start, and the error says where it failed and not on what."""

    def fail(data: bytes) -> bytes:
        raise ValueError(data)

    for seal, opened, problem in [
        (fail, bytes, "raised ValueError at test_spool_client.py"),
        (bytes, lambda _: b"else", "give back what seal was given"),
        (lambda _: "text", bytes, "raised TypeError"),
    ]:
        spool = Spooling(folder, sealing=Sealing(seal=seal, open=opened))  # type: ignore[arg-type]
        client = lab.client(lab.script(), spool=spool)
        with pytest.raises(ConfigurationError, match=problem):
            await client.start()
        assert client.stats().state == "new"


async def test_a_seal_that_fails_later_keeps_calls_in_memory(
    lab: Lab, folder: Path, logged: Any
) -> None:
    """They are delivered all the same, and said so once; dead letters go without the detail."""
    is_broken = False

    def seal(data: bytes) -> bytes:
        if is_broken:
            raise ValueError(data)
        return data

    server = lab.script(then=503)
    spool = Spooling(folder, sealing=Sealing(seal=seal, open=bytes))
    async with lab.client(server, spool=spool, retrying=QUICK) as client:
        await lab.track(client)
        is_broken = True
        await lab.track(client, 3)
        await asyncio.sleep(1.2)  # in which the disk is asked again
        assert [each.levelname for each in logged.records].count("ERROR") == 1
        assert "ValueError at test_spool_client.py" in logged.text
        server.then = 422
        await client.flush(10)
    assert client.stats().rejected == 4
    with visit(left_in(folder)[0], sealing=spool.sealing) as visited:
        assert [each.verdict.detail for each in visited.dead()] == [""]


async def test_sealed_calls_are_never_sent_as_they_are(lab: Lab, folder: Path) -> None:
    """Where the sealing was forgotten the start says so; with it, all of them arrive."""

    def flip(data: bytes) -> bytes:
        return bytes(each ^ 0x5A for each in data)

    def with_other_key(data: bytes) -> bytes:
        if next(tried, 0):
            return flip(data)
        raise ValueError

    right = Spooling(folder, sealing=Sealing(seal=flip, open=flip))
    server = lab.script(then=503)
    client = lab.client(server, spool=right, retrying=QUICK, shutdown_timeout=0)
    endpoint = client._flushers[0].destination.endpoint  # type: ignore[attr-defined]
    async with client:
        made = await many(client, 5)
    server.then = 200
    plain = lab.client(endpoint=endpoint, spool=folder)
    with pytest.raises(ConfigurationError, match="sealed: give the Sealing"):
        await plain.start()
    tried = iter([1, 1, 1])  # at the start, which it passes
    wrong = Sealing(seal=flip, open=with_other_key)
    async with lab.client(endpoint=endpoint, spool=Spooling(folder, sealing=wrong)) as client:
        await client.flush(10)
    assert client.stats().destinations["custom"].dropped_by == {"spool_corrupt": 5}
    assert not server.arrived
    async with lab.client(endpoint=endpoint, spool=right) as client:
        await until(lambda: len(server.arrived) == 5)
        await client.flush(10)
    assert sorted(server.arrived) == sorted(made)


async def test_plain_calls_are_sent_where_a_sealing_is_new(lab: Lab, folder: Path) -> None:
    """Who begins to encrypt loses nothing."""
    server = lab.script(then=503)
    client = lab.client(server, spool=folder, retrying=QUICK, shutdown_timeout=0)
    endpoint = client._flushers[0].destination.endpoint  # type: ignore[attr-defined]
    async with client:
        made = await many(client, 5)
    server.then = 200
    sealing = Sealing(seal=bytes, open=bytes)
    async with lab.client(endpoint=endpoint, spool=Spooling(folder, sealing=sealing)) as client:
        await client.flush(10)
    assert sorted(server.arrived) == sorted(made)


async def test_what_sealing_adds_counts(lab: Lab, folder: Path) -> None:
    """However long sealed calls are, a call is taken only if there is room for it."""
    sealing = Sealing(seal=lambda data: data * 3, open=lambda data: data[: len(data) // 3])
    spool = Spooling(folder, max_bytes=1 << 20, sealing=sealing)
    queueing = Queueing(when_full="raise")
    client = lab.client(
        lab.script(then=503), spool=spool, retrying=QUICK, queueing=queueing, shutdown_timeout=0
    )
    async with client:
        with pytest.raises(QueueFull):
            await many(client, 3_000, x="y" * SIZE)
        count = client.stats().pending
    assert client.stats().pending == count  # all of them on disk
    assert 200 < count < 350


async def test_a_start_that_failed_counts_nothing_twice(lab: Lab, folder: Path) -> None:
    """What it found in the folder is found again by the next one."""
    server = lab.script(then=503)
    first = lab.client(server, spool=folder, retrying=QUICK, shutdown_timeout=0)
    async with first:
        await many(first, 10)
    server.then = 200

    class Slow(BaseDestination):
        fails = True

        def limits(self, batching: Batching) -> Limits:
            return first._flushers[0].destination.limits(batching)

        async def open(self, *_: object) -> None:
            await asyncio.sleep(0.05)
            if self.fails:
                raise OSError("not yet")

        async def deliver(self, _: Batch) -> Delivered:
            return Delivered(200, {})

    place = Slow("custom")
    client = AsyncClient(destinations=[place], spool=folder)
    with pytest.raises(OSError, match="not yet"):
        await client.start()
    place.fails = False
    async with client:
        await client.flush(10)
    found = client.stats().destinations["custom"]
    assert (found.accepted, found.recovered, found.delivered) == (10, 10, 10)
    assert found.is_balanced


async def test_a_disabled_client_makes_no_folder(lab: Lab, folder: Path) -> None:
    """Nothing is sent, and nothing is kept."""
    async with lab.client(lab.script(), spool=folder, disabled=True) as client:
        await client.track("Added File", user_id="u1")
    assert not folder.exists()  # noqa: ASYNC240 - nothing runs beside it


# ------------------------------------------------------------------------- outages and restarts


async def test_memory_is_bounded_in_an_outage(lab: Lab, folder: Path) -> None:
    """What is beyond `Queueing` waits on disk alone, and goes out in order when it can."""
    server = lab.script(then=503)
    batching = Batching(max_events=10)
    client = lab.client(
        server, spool=folder, queueing=SMALL, retrying=QUICK, batching=batching,
        sending={"max_in_flight": 1},
    )  # fmt: skip
    async with client:
        made = await many(client, 500)
        assert client.stats().pending == 500
        held = client._flushers[0].buffer._held_events
        assert held <= 20
        order = on_disk(folder)
        assert sorted(order) == sorted(made)
        server.requests.clear()
        server.then = 200
        await client.flush(10)
        assert ids(server)[-500:] == order
    assert client.stats().delivered == 500


async def test_receipts_of_calls_on_disk_are_settled(lab: Lab, folder: Path) -> None:
    """Whoever holds a receipt learns of the end, wherever the call has waited."""
    server = lab.script(then=503)
    async with lab.client(server, spool=folder, queueing=SMALL, retrying=QUICK) as client:
        calls = (client.track("Added File", user_id=f"u{n}") for n in range(100))
        receipts = await asyncio.gather(*calls)
        assert sum(receipt.body == b"" for receipt in receipts) >= 80
        server.then = 200
        outcomes = await asyncio.gather(*(receipt.settled() for receipt in receipts))
        assert all(outcome.delivered for outcome in outcomes)


async def test_what_is_left_comes_back(lab: Lab, folder: Path) -> None:
    """At the close pending calls stay, and the next client delivers them with the same ids."""
    server = lab.script(then=503)
    settings = {"spool": folder, "queueing": SMALL, "retrying": QUICK}
    first = lab.client(server, shutdown_timeout=0.1, **settings)
    async with first:
        made = await many(first, 60)
    assert {each.receipt.outcome.kind for each in first.taken} == {"kept"}  # type: ignore[union-attr]
    assert (first.stats().pending, first.stats().dropped) == (60, 0)
    assert on_disk(folder) == made
    server.requests.clear()
    server.then = 200
    second = lab.client(endpoint=first._flushers[0].destination.endpoint, **settings)  # type: ignore[attr-defined]
    async with second:
        (fresh,) = await lab.track(second)
        await second.flush(10)
        assert ids(server)[:60] == made
        assert (await fresh.settled()).delivered
    found = second.stats().destinations["custom"]
    assert (found.accepted, found.recovered, found.delivered) == (61, 60, 61)
    assert left_in(folder) == []


async def test_a_client_started_again_takes_up_its_own(lab: Lab, folder: Path) -> None:
    """The law holds through a close and a start of the same client."""
    server = lab.script(then=503)
    client = lab.client(server, spool=folder, retrying=QUICK, shutdown_timeout=0.05)
    async with client:
        await many(client, 5)
    assert client.stats().pending == 5
    server.then = 200
    async with client:
        await client.flush(10)
    found = client.stats().destinations["custom"]
    assert found.is_balanced
    assert (found.accepted, found.delivered, found.pending) == (5, 5, 0)


async def test_two_destinations_share_a_spool(lab: Lab, folder: Path) -> None:
    """One that is down keeps its calls there; the other goes on."""
    up, down = lab.script(), lab.script(then=503)
    client = lab.client(
        destinations=[lab.destination(up, "up"), lab.destination(down, "down")],
        spool=folder,
        retrying=QUICK,
        shutdown_timeout=0.1,
    )
    async with client:
        made = await many(client, 30)
        await until(lambda: not client.stats().destinations["up"].pending)
        await until(lambda: not on_disk(folder, "up"))
        assert sorted(on_disk(folder, "down")) == sorted(made)
    assert client.stats().destinations["up"].delivered == 30
    assert client.stats().destinations["down"].pending == 30


async def test_a_dead_clients_file_is_taken_over_by_one(lab: Lab, folder: Path) -> None:
    """Two clients start beside what was left; each call goes out once."""
    server = lab.script(then=503)
    endpoint = lab.endpoint(server, name="custom")
    settings = {"spool": folder, "retrying": QUICK, "endpoint": endpoint}
    made: list[str] = []
    for _ in range(3):
        async with lab.client(shutdown_timeout=0, **settings) as client:
            made += await many(client, 20)
    server.then = 200
    async with lab.client(**settings) as one, lab.client(**settings) as two:
        await until(lambda: not on_disk(folder))
        recovered = [each.stats().destinations["custom"].recovered for each in (one, two)]
    assert sum(recovered) == 60
    arrived = [each for request in server.requests if request for each in request.ids]
    assert set(server.arrived) == set(made)
    assert all(len(payloads) == 1 for payloads in server.arrived.values()), arrived


async def test_an_outage_gives_nothing_up(lab: Lab, folder: Path) -> None:
    """However many attempts fail, calls wait, since none gets through."""
    server = lab.script(*[503] * 40, then=200)
    retrying = Retrying(base=0.001, cap=0.002, max_attempts=2, max_elapsed=0.01)
    async with lab.client(server, spool=folder, retrying=retrying) as client:
        (receipt,) = await lab.track(client)
        outcome = await receipt.settled()
    assert (outcome.kind, outcome.attempts) == ("delivered", 41)


async def test_a_refused_key_keeps_the_events(lab: Lab, folder: Path, logged: Any) -> None:
    """401 is said once, and the calls wait until the key is accepted."""
    server = lab.script(*[401] * 5, then=200)
    async with lab.client(server, spool=folder, retrying=QUICK) as client:
        await many(client, 3)
        await client.flush(10)
    assert client.stats().delivered == 3
    told = [each for each in logged.records if "write key is refused" in each.getMessage()]
    assert len(told) == 1


# ---------------------------------------------------------------------------------- dead letters


async def test_a_rejected_call_becomes_a_dead_letter(lab: Lab, folder: Path) -> None:
    """It is kept with the status, the reason and the time; the others are delivered."""

    def judge(request: Any) -> Any:
        poison = any(event["properties"]["n"] == 7 for event in request.events)
        return lab.reply(400, body=b'{"message": "no such plan"}') if poison else 200

    server = lab.script(then=judge)
    async with lab.client(server, spool=folder) as client:
        made = await many(client, 20)
        await client.flush(10)
    (letter,) = dead(folder)
    assert letter.message_id == made[7]
    assert (letter.verdict.kind, letter.verdict.status) == ("rejected", 400)
    assert client.stats().rejected == 1
    assert client.stats().spool.dead_events == 1  # type: ignore[union-attr]


async def test_a_batch_at_fault_is_given_up_alone(lab: Lab, folder: Path) -> None:
    """While others get through, a batch that always fails ends after its attempts, and is kept."""

    def judge(request: Any) -> int:
        return 500 if any(event["event"] == "Bad" for event in request.events) else 200

    server = lab.script(then=judge)
    retrying = Retrying(base=0.005, cap=0.01, max_attempts=3)
    async with lab.client(server, spool=folder, retrying=retrying) as client:
        bad = await client.track("Bad", user_id="u1")
        while bad.outcome is None:
            await client.track("Good", user_id="u1")
            client._hurry()
            await asyncio.sleep(0.01)
        assert (bad.outcome.kind, bad.outcome.reason) == ("dropped", "expired")
    assert [each.message_id for each in dead(folder)] == [bad.message_id]


async def test_a_retried_letter_goes_out(lab: Lab, folder: Path) -> None:
    """A dead letter that is retried from outside is delivered by the client that runs."""
    server = lab.script(422, then=200)
    async with lab.client(server, spool=folder) as client:
        (made,) = await many(client, 1)
        await client.flush()
        await until(lambda: dead(folder))
        with visit(left_in(folder)[0]) as visited:
            assert visited.retry([visited.dead()[0].id]) == 1
        client._journal._look_around()  # type: ignore[union-attr]
        await until(lambda: made in server.arrived)
        await client.flush()
    found = client.stats().destinations["custom"]
    assert (found.rejected, found.recovered, found.delivered) == (1, 1, 1)


# --------------------------------------------------------------------------------------- the quota


@pytest.fixture
def full(lab: Lab, folder: Path) -> Iterator[Any]:
    """Make a client whose spool is full, and whose server is down."""

    def make(**queueing: Any) -> tuple[WatchedClient, Any]:
        server = lab.script(then=503)
        spool = Spooling(folder, max_bytes=1 << 20)
        client = lab.client(
            server,
            spool=spool,
            retrying=QUICK,
            queueing=Queueing(max_events=50, **queueing),
            batching=Batching(max_events=5),
            shutdown_timeout=0.1,
        )
        return client, server

    return make  # type: ignore[return-value]


async def fill(client: WatchedClient) -> int:
    """Make calls until there is no room; return how many were taken."""
    count, buffer = 0, client._flushers[0].buffer
    while buffer.has_room(10 * (SIZE + 600), 9):
        count += len(await many(client, 10, x="y" * SIZE))
    while buffer.has_room(SIZE + 600):
        await client.track("Added File", user_id="u1", properties={"x": "y" * SIZE})
        count += 1
    return count


async def test_a_full_spool_makes_callers_wait(full: Any) -> None:
    """The caller goes on when calls have been delivered."""
    client, server = full()
    async with client:
        count = await fill(client)
        assert 400 < count < 1_000
        waiting = asyncio.create_task(many(client, 5, x="y" * SIZE))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        with pytest.raises(QueueFull, match="the spool of destination 'custom' is full"):
            client.track_nowait("Added File", user_id="u1", properties={"x": "y" * SIZE})
        server.then = 200
        await asyncio.wait_for(waiting, 10)
        await client.flush(10)
    assert client.stats().delivered == count + 5


async def test_a_full_spool_raises(full: Any) -> None:
    """With `raise` the caller hears of it at once, and after `max_wait` with `wait`."""
    client, _ = full(when_full="raise")
    async with client:
        await fill(client)
        with pytest.raises(QueueFull, match="asyncanalytics spool purge"):
            await client.track("Added File", user_id="u1", properties={"x": "y" * SIZE})


async def test_a_full_spool_drops_the_newest(full: Any) -> None:
    """The new call is dropped as `spool_full`, and counted."""
    client, _ = full(when_full="drop_newest")
    async with client:
        count = await fill(client)
        while client._flushers[0].buffer.fits(SIZE):
            await client.track("Added File", user_id="u1", properties={"x": "y" * SIZE})
            count += 1
        receipt = await client.track("Added File", user_id="u1", properties={"x": "y" * 2 * SIZE})
        assert receipt.outcome is not None
        assert (receipt.outcome.kind, receipt.outcome.reason) == ("dropped", "spool_full")
    found = client.stats().destinations["custom"]
    assert dict(found.dropped_by) == {"spool_full": 1}
    assert found.pending == count


async def test_a_full_spool_drops_the_oldest(full: Any, folder: Path) -> None:
    """The call that has waited longest makes room for the new one."""
    client, _ = full(when_full="drop_oldest")
    async with client:
        await fill(client)
        before = on_disk(folder)
        newest = await many(client, 10, x="y" * SIZE)
        after = on_disk(folder)
    dropped = client.stats().destinations["custom"].dropped_by["spool_full"]
    assert 1 <= dropped <= 30
    assert set(after[-10:]) == set(newest)
    assert len(set(before) - set(after)) == dropped


# ---------------------------------------------------------------------------------------- the disk


@contextmanager
def refusing(client: WatchedClient) -> Iterator[None]:
    """Let the disk have no room for a while."""
    db = client._journal._spool._keeper.store.db  # type: ignore[union-attr]
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    yield
    with suppress(sqlite3.ProgrammingError):  # closed meanwhile
        db.execute("PRAGMA max_page_count = 1000000")


async def test_a_disk_that_refuses_is_survived(lab: Lab, folder: Path, logged: Any) -> None:
    """Calls go on in memory, which is said once, and to the disk again when it can."""
    server = lab.script(then=503)
    async with lab.client(server, spool=folder, retrying=QUICK) as client:
        await many(client, 5)
        with refusing(client):
            made = [(await large(client)).message_id for _ in range(20)]
            assert client._journal.is_failing  # type: ignore[union-attr]
            assert set(made[-5:]).isdisjoint(on_disk(folder))
            assert client.stats().pending == 25
        await until(lambda: not client._journal.is_failing)  # type: ignore[union-attr]
        again = await large(client)
        assert again.message_id in on_disk(folder)
        server.then = 200
        await client.flush(10)
    assert client.stats().delivered == client.stats().accepted
    told = [each.getMessage() for each in logged.records if "the spool" in each.getMessage()]
    assert len(told) == 2
    assert "in memory only" in told[0]
    assert "again after" in told[1]


async def large(client: WatchedClient) -> Receipt:
    """Make a call of several pages."""
    return await client.track("Added File", user_id="u1", properties={"x": "y" * 20_000})


async def test_what_was_in_memory_only_is_kept_at_the_close(lab: Lab, folder: Path) -> None:
    """A disk that takes calls again by then has them all."""
    client = lab.client(lab.script(then=503), spool=folder, retrying=QUICK, shutdown_timeout=1.5)
    async with client:
        with refusing(client):
            made = [(await large(client)).message_id for _ in range(10)]
            assert len(on_disk(folder)) < 10
    assert sorted(on_disk(folder)) == sorted(made)
    assert client.stats().pending == 10


async def test_while_the_disk_refuses_memory_is_the_bound(lab: Lab, folder: Path) -> None:
    """Then `Queueing` holds as if there were no spool."""
    client = lab.client(
        lab.script(then=503),
        spool=folder,
        retrying=QUICK,
        queueing=Queueing(max_events=10, when_full="raise"),
        shutdown_timeout=0.05,
    )
    async with client:
        with refusing(client):
            with pytest.raises(QueueFull, match="the queue of destination"):  # noqa: PT012 - the second round is too much
                await asyncio.gather(*(large(client) for _ in range(10)))
                await asyncio.gather(*(large(client) for _ in range(10)))
            pending = client.stats().pending
            lost = pending - len(on_disk(folder))
            assert lost > 0
            await client.aclose()
    found = client.stats().destinations["custom"]
    assert (dict(found.dropped_by), found.pending) == ({"closed": lost}, pending - lost)


async def test_damaged_rows_are_counted(lab: Lab, folder: Path) -> None:
    """Rows that have rotted on disk are dropped as `spool_corrupt`; the rest is delivered."""
    server = lab.script(then=503)
    async with lab.client(server, spool=folder, retrying=QUICK, queueing=SMALL) as client:
        made = await many(client, 100)
        with sqlite3.connect(left_in(folder)[0]) as db:
            db.execute("UPDATE waiting SET body = 'rot' WHERE seq IN (50, 51, 99)")
        db.close()
        server.then = 200
        await client.flush(10)
        outcomes = [await each.receipt.settled() for each in client.taken]
    found = client.stats().destinations["custom"]
    assert dict(found.dropped_by) == {"spool_corrupt": 3}
    assert found.delivered == 97
    assert {n for n, each in enumerate(outcomes) if not each.delivered} == {49, 50, 98}
    assert set(server.arrived) == set(made) - {made[n] for n in (49, 50, 98)}


# --------------------------------------------------------------------------------- callers and life


async def test_a_cancelled_caller_leaves_its_call_in_one_place(lab: Lab, folder: Path) -> None:
    """Cancelled while it waits for the disk, the call is accepted and goes on."""
    server = lab.script()

    def watch(_: Outcome, receipts: Sequence[Receipt]) -> None:
        client.taken += [
            SimpleNamespace(receipt=each, parts=[each], expected={})  # type: ignore[misc]
            for each in receipts
        ]

    client = lab.client(server, spool=folder, on_settle=watch)
    async with client:
        task = asyncio.create_task(client.track("Added File", user_id="u1", message_id="m1"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.stats().accepted == 1
        await client.flush()
        assert list(server.arrived) == ["m1"]


async def test_the_same_id_twice(lab: Lab, folder: Path) -> None:
    """Both calls end; the endpoint may get the id twice, and only with what was given for it."""
    server = lab.script(503, then=200)
    async with lab.client(server, spool=folder, retrying=QUICK, queueing=SMALL) as client:
        calls = [client.track("Added File", user_id="u1", message_id="m1") for _ in range(2)]
        receipts = await asyncio.gather(*calls)
        await many(client, 50)
        assert all([(await receipt.settled()).delivered for receipt in receipts])
        await client.flush()
    assert client.stats().pending == 0


async def test_calls_at_the_close(lab: Lab, folder: Path) -> None:
    """A call that comes too late raises; one on its way to the disk is kept or delivered."""
    server = lab.script()
    client = lab.client(server, spool=folder)
    await client.start()
    tasks = [asyncio.create_task(lab.track(client)) for _ in range(20)]
    await asyncio.sleep(0)
    await client.aclose()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [each for each in results if isinstance(each, BaseException)]
    with pytest.raises(Closed):
        await client.track("Added File", user_id="u1")
    assert client.stats().delivered == 20


async def test_a_start_that_is_cancelled_lets_the_file_go(lab: Lab, folder: Path) -> None:
    """The same folder can be used at once, by the same client too."""
    client = lab.client(lab.script(), spool=folder)
    for steps in range(6):
        task = asyncio.create_task(client.start())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with client:
        await lab.track(client)
    assert client.stats().delivered == 1


def test_a_client_for_threads_has_a_spool_too(live: Live, folder: Path) -> None:
    """On return a call is on disk; the close delivers it."""
    with Client(spool=folder) as client:
        receipts = [client.track("Added File", user_id=f"u{n}") for n in range(20)]
        assert all(receipt.number for receipt in receipts)
        outcome = client.deliver(Track(event="Paid", user_id="u1"), timeout=10)
        assert outcome.delivered
    stats = client.stats()
    assert stats.is_balanced
    assert stats.delivered == len(live.events) == 21


@pytest.mark.parametrize("spool", [3, "", Spooling])
def test_a_wrong_spool_is_refused(spool: Any) -> None:
    """The message says what it may be."""
    with pytest.raises(ConfigurationError, match=r"folder|Spooling"):
        AsyncClient("key", spool=spool)


def test_a_wrong_setting_is_refused() -> None:
    """Each says what is asked for."""
    with pytest.raises(ConfigurationError, match="1,048,576"):
        Spooling("folder", max_bytes=10)
    with pytest.raises(ConfigurationError, match="Sealing"):
        Spooling("folder", sealing=(bytes, bytes))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="number"):
        Spooling("folder", max_bytes="1 GB")  # type: ignore[arg-type]


async def test_a_folder_that_others_may_read_is_refused(lab: Lab, folder: Path) -> None:
    """The start says what to do, and the client can be started after that."""
    os.mkdir(folder, mode=0o755)  # noqa: PTH102 - nothing runs beside it
    client = lab.client(lab.script(), spool=folder)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        await client.start()
    os.chmod(folder, 0o700)  # noqa: PTH101 - the same
    async with client:
        await lab.track(client)
    assert client.stats().delivered == 1


async def test_a_quota_is_shared_by_destinations(folder: Path) -> None:
    """A call for two waits until there is room for both, and is dropped at neither."""
    places = [
        Destination("key", endpoint="http://127.0.0.1:9", name=name) for name in ("one", "two")
    ]
    spool = Spooling(folder, max_bytes=1 << 20)
    async with AsyncClient(destinations=places, spool=spool, shutdown_timeout=0) as client:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await asyncio.gather(*(many(client, 100, x="y" * 750) for _ in range(10)))
        stats = client.stats()
    for each in stats.destinations.values():
        assert (each.dropped, each.is_balanced) == (0, True)
        assert each.pending > 300


async def test_who_waits_for_room_is_told_why(lab: Lab, folder: Path, logged: Any) -> None:
    """Dead letters may fill the quota: the log says so once, and what helps."""
    server = lab.script(then=404)
    client = lab.client(server, spool=Spooling(folder, max_bytes=1 << 20), retrying=QUICK)
    async with client:
        filling = asyncio.create_task(many(client, 1_000, x="y" * 3_000))
        await until(lambda: "wait for room in the spool" in logged.text)
        await client.flush(10)
        filling.cancel()
        assert client.stats().pending == 0
        told = [each for each in logged.records if "wait for room in the spool" in each.message]
        assert len(told) == 1
        assert "asyncanalytics spool purge" in told[0].message


async def test_a_flush_ends_with_the_client(lab: Lab, folder: Path) -> None:
    """Also where what it waits for is on disk alone."""
    client = lab.client(
        lab.script(then=503), spool=folder, retrying=QUICK, queueing=Queueing(max_events=5)
    )
    await client.start()
    await many(client, 50)
    flushing = asyncio.create_task(client.flush())
    await asyncio.sleep(0.05)
    await client.aclose(0.05)
    assert (await asyncio.wait_for(flushing, 5)).pending == 50


async def test_an_outage_is_not_held_against_a_batch(lab: Lab, folder: Path) -> None:
    """After it, a batch has all its attempts, however many it has made before."""
    met: set[str] = set()

    def once_more(request: Any) -> int:
        (message_id,) = request.ids
        is_second = message_id in met
        met.add(message_id)
        return 200 if is_second else 503

    server = lab.script(then=503)
    client = lab.client(
        server,
        spool=folder,
        batching=Batching(max_events=1, linger=0),
        retrying=Retrying(max_attempts=3, base=0.005, cap=0.01),
    )
    async with client:
        made = await many(client, 20)
        await until(lambda: len(server.requests) > 40)
        server.then = once_more
        await client.flush(20)
    assert sorted(server.arrived) == sorted(made)


async def test_a_flush_waits_for_all_that_came_before_it(lab: Lab, folder: Path) -> None:
    """Calls with an id that waits already go ahead, and do not take the place of others."""
    server = lab.script(then=503)
    client = lab.client(
        server,
        spool=folder,
        retrying=QUICK,
        queueing=Queueing(max_events=4),
        batching=Batching(max_events=1, linger=0),
        sending={"max_in_flight": 1},
    )
    async with client:
        receipts = [
            await client.track("Added File", user_id="u1", message_id=f"m{n}") for n in range(12)
        ]
        flushing = asyncio.create_task(client.flush(20))
        await asyncio.sleep(0.05)
        for _ in range(3):
            await client.track("Added File", user_id="u1", message_id="m0")
        server.then = 200
        await flushing
        assert [each.message_id for each in receipts if each.outcome is None] == []


async def test_a_disk_that_hangs_bounds_what_is_taken(lab: Lab, folder: Path) -> None:
    """What is on its way to it is in memory, and `Queueing` bounds that."""
    queueing = Queueing(max_bytes=65_536, when_full="raise")
    client = lab.client(lab.script(then=503), spool=folder, queueing=queueing, retrying=QUICK)
    async with client:
        with forks.disk.alone, pytest.raises(QueueFull, match="the queue of destination"):
            lab.burst(client, 1_000)
        assert client.stats().pending < 200
        await client.aclose(0)
    assert client.stats().is_balanced


def test_a_loop_that_ends_leaves_its_calls_to_the_next(live: Live, folder: Path) -> None:
    """A client that was never closed says where they are, and another one delivers them."""
    kept: list[AsyncClient] = []

    async def first() -> None:
        client = AsyncClient(endpoint="http://127.0.0.1:9", name="here", spool=folder)
        kept.append(client)
        await client.start()
        for _ in range(5):
            await client.track("Added File", user_id="u1")

    async def second() -> None:
        with pytest.raises(LifecycleError, match="left 5 events to the spool"):
            await kept[0].track("Added File", user_id="u1")
        async with AsyncClient(name="here", spool=folder) as client:
            await until(lambda: client.stats().recovered == 5)
            await client.flush(10)
            assert client.stats().delivered == 5

    asyncio.run(first())
    asyncio.run(second())
    assert len(live.events) == 5
    with pytest.warns(ResourceWarning, match="unclosed AsyncClient"):
        kept.pop().__del__()


# --------------------------------------------------------------------------------------- deliver


@pytest.mark.parametrize("spooled", [False, True])
async def test_deliver_returns_when_the_endpoint_has_it(
    lab: Lab, folder: Path, *, spooled: bool
) -> None:
    """It goes out at once, however long others may linger."""
    server = lab.script()
    batching = Batching(linger=600)
    async with lab.client(server, batching=batching, spool=folder if spooled else None) as client:
        (first,) = await lab.track(client)  # after which the next ones linger
        assert (await first.settled()).delivered
        (behind,) = await lab.track(client)
        call = Track(event="Order Completed", user_id="u1", message_id="m1")
        outcome = await client.deliver(call, timeout=10)
        assert outcome.delivered
        assert "m1" in server.arrived
        assert behind.outcome is not None  # it was before it


async def test_deliver_raises_what_became_of_the_call(lab: Lab) -> None:
    """The error has the outcome, and no payload."""
    server = lab.script(422)
    async with lab.client(server) as client:
        with pytest.raises(NotDelivered, match="refused it with status 422") as caught:
            await client.deliver(Track(event="Paid", user_id="u1"))
    assert caught.value.outcome.status == 422


async def test_deliver_runs_out_of_time(lab: Lab) -> None:
    """The call goes on, under the id that the error names."""
    server = lab.script(lab.reply(200, delay=0.3))
    async with lab.client(server) as client:
        with pytest.raises(DeliveryTimeout) as caught:
            await client.deliver(Track(event="Paid", user_id="u1"), timeout=0.05)
        await client.flush()
        assert list(server.arrived) == [caught.value.message_id]


async def test_deliver_to_several(lab: Lab) -> None:
    """All of them must have it."""
    up, down = lab.script(), lab.script(then=422)
    places = [lab.destination(up, "up"), lab.destination(down, "down")]
    async with lab.client(destinations=places) as client:
        with pytest.raises(NotDelivered, match="'down' refused it"):
            await client.deliver(Track(event="Paid", user_id="u1"))
        bound = client.bind(context={"locale": "de-CH"})
        with pytest.raises(NotDelivered):
            await bound.deliver(Track(event="Paid", user_id="u1"))
    assert up.requests[-1].events[0]["context"]["locale"] == "de-CH"


async def test_deliver_on_a_disabled_client_sends_nothing(lab: Lab) -> None:
    """Code of a development machine goes on, and can see why nothing was sent."""
    async with lab.client(lab.script(), disabled=True) as client:
        outcome = await client.deliver(Track(event="Paid", user_id="u1"))
    assert (outcome.kind, outcome.reason) == ("dropped", "disabled")


@pytest.mark.parametrize("given", [{"event": "Paid"}, None, "Paid"])
async def test_deliver_and_send_take_calls(lab: Lab, given: Any) -> None:
    """Anything else is refused by a sentence."""
    async with lab.client(lab.script()) as client:
        for verb in (client.deliver, client.send):
            with pytest.raises(InvalidCall, match=r"must be a call such as Track\(...\), not a"):
                await verb(given)
        with pytest.raises(InvalidCall, match=r"must be a call such as Track\(...\), not a"):
            client.send_nowait(given)
