"""The file and the console: what is written, and what happens when it cannot be."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import stat
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncanalytics import (
    Batching,
    ConfigurationError,
    ConsoleDestination,
    Destination,
    FileDestination,
    Retrying,
    Sending,
    endpoints,
)

if TYPE_CHECKING:
    from conftest import Lab

QUICK = Retrying(max_attempts=2, base=0.01, cap=0.01)


def needs(path: str) -> pytest.MarkDecorator:
    """Skip a test where there is no such file."""
    return pytest.mark.skipif(not Path(path).exists(), reason=f"needs {path}")


def lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ----------------------------------------------------------------------------------------- file


async def test_calls_are_appended_as_json_lines(lab: Lab, tmp_path: Path) -> None:
    """Every call is one line, in order, after what was there before."""
    path = tmp_path / "events.jsonl"
    path.write_text('{"before": true}\n', encoding="utf-8")
    async with lab.client(destinations=[FileDestination(path)]) as client:
        receipts = [await client.track("Größe", user_id="u", properties={"n": n}) for n in range(5)]
        outcome = await receipts[0].settled()
        receipts.append(await client.identify("u", traits={"name": "Arthur\nDent"}))
    before, *written = lines(path)
    assert before == {"before": True}
    assert [each["messageId"] for each in written] == [each.message_id for each in receipts]
    assert written[0]["event"] == "Größe"
    assert written[5]["traits"] == {"name": "Arthur\nDent"}
    assert (outcome.kind, outcome.destination, outcome.status) == ("delivered", "file", None)


async def test_a_new_file_is_private(lab: Lab, tmp_path: Path) -> None:
    """A file that is made here is readable by its owner only."""
    path = tmp_path / "events.jsonl"
    async with lab.client(destinations=[FileDestination(path)]) as client:
        await lab.track(client)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_batch_is_within_the_users_limits(lab: Lab, tmp_path: Path) -> None:
    """A line may be long, if a batch may: the wire's 32 KB do not bind a file."""
    path = tmp_path / "events.jsonl"
    batching = Batching(max_bytes=3_000_000)
    async with lab.client(destinations=[FileDestination(path)], batching=batching) as client:
        await client.track("Ordered", user_id="u", properties={"x": "x" * 1_000_000})
    assert len(lines(path)[0]["properties"]["x"]) == 1_000_000


@pytest.mark.parametrize(
    "where",
    [
        ".",
        "missing/events.jsonl",
        "file/events.jsonl",
        "x" * 300,
        pytest.param("/proc/version", marks=needs("/proc/version")),
    ],
    ids=["directory", "no-folder", "file-as-folder", "name-too-long", "read-only"],
)
async def test_a_path_that_cannot_be_written(
    lab: Lab, tmp_path: Path, logged: pytest.LogCaptureFixture, where: str
) -> None:
    """The trouble is said once, without hanging; calls that outlast the retries are expired."""
    (tmp_path / "file").touch()
    path = tmp_path / where
    destination = FileDestination(path, retrying=QUICK)
    async with lab.client(destinations=[destination]) as client:
        outcome = await (await lab.track(client))[0].settled()
    assert (outcome.kind, outcome.reason, outcome.attempts) == ("dropped", "expired", 3)
    assert [each.levelname for each in logged.records] == ["WARNING", "ERROR"]
    assert "cannot write" in logged.records[0].getMessage()


@pytest.mark.usefixtures("no_new_thread")
async def test_a_file_at_the_limit_of_threads(lab: Lab, tmp_path: Path) -> None:
    """Where no thread starts, the loop's own appends."""
    path = tmp_path / "calls.jsonl"
    async with lab.client(destinations=[FileDestination(path)]) as client:
        for _ in range(2):
            await lab.track(client)
            await client.flush(timeout=60)
    assert len(path.read_bytes().splitlines()) == 2


async def test_a_folder_that_comes_back(lab: Lab, tmp_path: Path) -> None:
    """A disk that is gone for a while is like a server that is down: the calls arrive later."""
    path = tmp_path / "mounted" / "events.jsonl"
    retrying = Retrying(max_attempts=1000, base=0.01, cap=0.01)
    async with lab.client(destinations=[FileDestination(path)], retrying=retrying) as client:
        receipts = lab.burst(client, 5)
        await asyncio.sleep(0.05)
        path.parent.mkdir()
        await receipts[0].settled()
    assert [each["messageId"] for each in lines(path)] == [each.message_id for each in receipts]


@needs("/dev/full")
async def test_a_full_disk(lab: Lab, logged: pytest.LogCaptureFixture) -> None:
    """No space left is what the log says, and the calls end as expired."""
    destination = FileDestination("/dev/full", retrying=QUICK)
    async with lab.client(destinations=[destination]) as client:
        outcome = await (await lab.track(client))[0].settled()
    assert outcome.reason == "expired"
    assert os.strerror(errno.ENOSPC) in logged.records[0].getMessage()


def _full_after(limit: int) -> Any:
    """Make an os.write for a disk that has so many bytes left, and gets more room later."""
    real, left, lock = os.write, [limit], threading.Lock()

    def write(file: int, content: bytes) -> int:
        with lock:
            number = min(len(content), left[0])
            left[0] -= number
            if not number:
                left[0] = 10**9  # somebody has made room by the next time
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(file, content[:number])

    return write


@pytest.mark.parametrize("left", [0, 1, 100, 1_000])
async def test_a_disk_that_fills_up_within_a_batch(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """What was written of a batch is taken back: after the retry each call is there once, whole."""
    path = tmp_path / "events.jsonl"
    path.write_text('{"messageId": "before"}\n', encoding="utf-8")
    monkeypatch.setattr(os, "write", _full_after(left))
    retrying = Retrying(base=0.01, cap=0.01)
    async with lab.client(destinations=[FileDestination(path)], retrying=retrying) as client:
        receipts = lab.burst(client, 20)
        await client.flush()
    ids = [each.message_id for each in receipts]
    assert [each["messageId"] for each in lines(path)] == ["before", *ids]


async def test_batches_at_a_time_do_not_tear_each_other(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking back a torn batch never takes another one that was written meanwhile."""
    path = tmp_path / "events.jsonl"
    real, calls, lock = os.write, [0], threading.Lock()

    def write(file: int, content: bytes) -> int:
        with lock:
            calls[0] += 1
            turn = calls[0] % 4
        if turn == 1:
            return real(file, content[: len(content) // 2])
        if turn == 2:
            threading.Event().wait(0.002)  # let others write in between, if they can
            raise OSError(errno.EIO, "a bad sector")
        return real(file, content)

    monkeypatch.setattr(os, "write", write)
    retrying = Retrying(max_attempts=1000, base=0.001, cap=0.001)
    batching = Batching(max_events=5, linger=0)
    async with lab.client(
        destinations=[FileDestination(path)], retrying=retrying, batching=batching
    ) as client:
        receipts = lab.burst(client, 200)
        stats = await client.flush()
    assert stats.delivered == 200
    assert sorted(each["messageId"] for each in lines(path)) == sorted(
        each.message_id for each in receipts
    )


async def test_a_file_beside_an_endpoint(lab: Lab, tmp_path: Path) -> None:
    """A file may keep what an endpoint gets, for an audit."""
    server, path = lab.script(), tmp_path / "events.jsonl"
    destinations = [lab.destination(server), FileDestination(path, name="audit")]
    async with lab.client(destinations=destinations) as client:
        receipts = await lab.track(client, 3)
        await client.track("Secret", user_id="u", integrations={"audit": False})
    assert [each["messageId"] for each in lines(path)] == [each.message_id for each in receipts]
    assert len(server.arrived) == 4


# -------------------------------------------------------------------------------------- console


async def test_the_console_shows_what_would_be_sent(lab: Lab) -> None:
    """One call is one line of JSON on the stream."""
    stream = io.StringIO()
    async with lab.client(destinations=[ConsoleDestination(stream)]) as client:
        receipts = await lab.track(client, 3)
    found = [json.loads(line)["messageId"] for line in stream.getvalue().splitlines()]
    assert found == [each.message_id for each in receipts]


async def test_the_console_is_standard_error_as_it_is_then(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a stream it writes to what `sys.stderr` is at the time."""
    destination = ConsoleDestination()
    async with lab.client(destinations=[destination]) as client:
        await lab.track(client)
    assert json.loads(capsys.readouterr().err)["event"] == "Added File"


async def test_a_console_that_knows_ascii_only(lab: Lab) -> None:
    """What an old terminal cannot show is escaped, and is the same JSON."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    async with lab.client(destinations=[ConsoleDestination(stream)]) as client:
        await client.track("Größe 🐘", user_id="ü")
    written = json.loads(raw.getvalue())
    assert (written["event"], written["userId"]) == ("Größe 🐘", "ü")
    assert client.stats().delivered == 1


async def test_a_closed_stream(lab: Lab, logged: pytest.LogCaptureFixture) -> None:
    """A stream that is closed is trouble like any other."""
    stream = io.StringIO()
    stream.close()
    destination = ConsoleDestination(stream, retrying=QUICK)
    async with lab.client(destinations=[destination]) as client:
        outcome = await (await lab.track(client))[0].settled()
    assert outcome.reason == "expired"
    assert logged.records[0].levelname == "WARNING"


@pytest.mark.parametrize("name", ["", "All"])
def test_names_that_a_destination_cannot_have(name: str) -> None:
    """A name must be one that `integrations` can use."""
    for make in (
        lambda: ConsoleDestination(name=name),
        lambda: FileDestination("x", name=name),
        lambda: Destination("key", name=name),
    ):
        with pytest.raises(ConfigurationError, match="name"):
            make()


def test_reprs_name_the_destination() -> None:
    """They show the kind and the name, and nothing else."""
    assert repr(ConsoleDestination(sys.stderr)) == "<ConsoleDestination 'console'>"
    assert repr(FileDestination("secret/path")) == "<FileDestination 'file'>"
    assert repr(Destination("key", endpoint=endpoints.jitsu("h.test"))) == "<Destination 'jitsu'>"


def test_a_file_that_is_appended_to_while_the_process_forks(tmp_path: Path) -> None:
    """The child's file is not held up by an append of its parent's, which it cannot see end."""
    place = FileDestination(tmp_path / "calls.jsonl")
    place._appending._last = Future()  # as a thread of the parent's has it
    place.release()  # as the child does
    assert place._appending._last is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no named pipes")
async def test_places_that_hang_hold_up_neither_others_nor_the_end(
    lab: Lab, tmp_path: Path
) -> None:
    """A pipe that nobody reads: each batch would keep a thread, and the close would wait."""
    pipes = [tmp_path / f"pipe{n}" for n in range(6)]
    for each in pipes:
        os.mkfifo(each)
    places = [FileDestination(each, name=each.name) for each in pipes]
    sound = FileDestination(tmp_path / "calls.jsonl")
    settings = {"batching": Batching(max_events=1), "sending": Sending(max_in_flight=8)}
    client = lab.client(destinations=[*places, sound], **settings)
    await client.start()
    for n in range(8):
        await client.track("E", user_id=f"u{n}")
    async with asyncio.timeout(5):
        while client.stats().destinations["file"].delivered < 8:  # noqa: ASYNC110 - it is on disk
            await asyncio.sleep(0.01)
        await client.aclose(0)
    assert client.stats().destinations["pipe0"].dropped_by == {"closed": 8}
    for each in pipes:  # a reader, for the threads to end
        os.close(os.open(each, os.O_RDONLY | os.O_NONBLOCK))
