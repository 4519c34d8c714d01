"""The router as a program: signals, reloads, `kill -9`, and what it says on the command line."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("typer")
pytest.importorskip("jmespath")
pytest.importorskip("tree_sitter_toml")

from asyncanalytics import Batching, Retrying
from asyncanalytics.cli.app import run
from asyncanalytics.spool import left_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from switchyard import Switchyard

KEY = "a-key-that-opens-nothing"
QUICK = {"base": 0.01, "cap": 0.1, "max_attempts": 100_000}


class Program:
    """A router in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def end(self) -> dict[str, Any]:
        """End it, and return the figures that it prints."""
        self.process.terminate()
        said, _ = await self.process.communicate()
        assert self.process.returncode == 0, said
        found: dict[str, Any] = json.loads(said.splitlines()[-1])["stats"]
        return found

    async def kill(self) -> None:
        """End it without a warning."""
        self.process.kill()
        await self.process.wait()

    async def metrics(self) -> str:
        """Return what it tells Prometheus."""
        async with httpx.AsyncClient(mounts={"all://": None}) as http:
            return (await http.get(f"{self.url}/metrics")).text


@asynccontextmanager
async def program(path: Path, *options: str, **environ: str) -> AsyncIterator[Program]:
    """Run `asyncanalytics route` until the block ends."""
    command = (sys.executable, "-W", "error", "-m", "asyncanalytics", "route", path, "--json")
    process = await asyncio.create_subprocess_exec(
        *command,
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environ},
    )
    try:
        assert process.stdout is not None
        line = await process.stdout.readline()
        yield Program(process, json.loads(line)["listening"])
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def is_balanced(stats: dict[str, Any]) -> bool:
    """Whether the law holds in printed figures."""
    return all(
        each["accepted"] + each["recovered"]
        == each["delivered"]
        + sum(each["rejected"].values())
        + sum(each["dropped"].values())
        + each["pending"]
        + each["left"]
        for pipeline in stats["pipelines"].values()
        for each in pipeline["integrations"].values()
    )


@pytest.mark.long
async def test_a_signal_in_the_middle_of_traffic(yard: Switchyard) -> None:
    """It drains: all that was answered with 200 is there, and the figures say so."""
    place = await yard.receiver()
    place.collector.misbehave(None, delay=0.05)
    taken: set[str] = set()
    async with program(yard.file(yard.config({"place": place}))) as router:

        async def send(worker: int) -> None:
            async with yard.http(router.url) as http:
                for n in range(10_000):
                    event = {"type": "track", "event": "E", "userId": "u"}
                    event["messageId"] = f"{worker}-{n}"
                    try:
                        answer = await http.post("/v1/batch", json={"batch": [event]})
                    except httpx.TransportError:
                        return
                    if answer.status_code != 200:
                        return
                    taken.add(event["messageId"])

        senders = [asyncio.create_task(send(each)) for each in range(4)]
        await yard.until(lambda: len(taken) > 100)
        stats = await router.end()
        await asyncio.gather(*senders)
    assert is_balanced(stats)
    assert taken <= place.ids.keys()
    assert stats["pipelines"]["shop"]["integrations"]["place"]["delivered"] == len(place.ids)


@pytest.mark.long
async def test_a_changed_file_is_taken_up(yard: Switchyard) -> None:
    """By itself, and at SIGHUP; one that cannot work is said, and the old one goes on."""
    place = await yard.receiver()
    config = yard.config({"place": place})
    path = yard.file(config)
    async with program(path, "--watch") as router, yard.http(router.url) as http:

        async def told(outcome: str, times: int) -> None:
            async with asyncio.timeout(20):
                while f'{{outcome="{outcome}"}} {times}' not in await router.metrics():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

        path.write_text(path.read_text() + "nmae = 7\n")
        await told("refused", 1)
        body = {"batch": [{"type": "identify", "userId": "u", "messageId": "m1"}]}
        assert (await http.post("/v1/batch", json=body)).status_code == 200
        config["pipelines"][0]["integrations"][0]["calls"] = ["track"]
        yard.file(config)
        await told("taken", 1)
        body["batch"][0]["messageId"] = "m2"
        assert (await http.post("/v1/batch", json=body)).status_code == 200
        router.process.send_signal(signal.SIGHUP)
        await told("taken", 2)
        stats = await router.end()
    assert is_balanced(stats)
    assert place.ids == {"m1": 1}


@pytest.mark.long
async def test_kill_9_loses_nothing_that_was_answered(yard: Switchyard) -> None:
    """With a spool: whatever was answered with 200, before whichever kill, is there in the end."""
    places = [await yard.receiver() for _ in range(2)]
    for place in places:
        place.collector.misbehave(503, share=0.5)
    there = {f"p{n}": {"to": each, "retrying": QUICK} for n, each in enumerate(places)}
    path = yard.file(yard.config(there, spool="spool", shutdown_timeout=30))
    taken: set[str] = set()
    chance = random.Random(6)  # noqa: S311 - to be the same each time
    for life in range(2):
        async with program(path) as router:

            async def send(worker: int, url: str = router.url, life: int = life) -> None:
                async with yard.http(url) as http:
                    for n in range(10_000):
                        ids = [f"{life}-{worker}-{n}-{each}" for each in range(20)]
                        events = [
                            {"type": "track", "event": "E", "userId": "u", "messageId": each}
                            for each in ids
                        ]
                        try:
                            answer = await http.post("/v1/batch", json={"batch": events})
                        except httpx.TransportError:
                            return
                        assert answer.status_code == 200
                        taken.update(ids)

            before = len(taken)
            senders = [asyncio.create_task(send(each)) for each in range(3)]
            await yard.until(lambda before=before: len(taken) > before + 300)  # type: ignore[misc]
            await asyncio.sleep(chance.random() * 0.1)
            await router.kill()
            await asyncio.gather(*senders)
    for place in places:
        place.collector.behave()
    async with program(path) as router:
        await yard.until(lambda: all(taken <= each.ids.keys() for each in places), seconds=30)
        stats = await router.end()
    assert is_balanced(stats)
    assert left_in(yard.folder / "spool") == []


@pytest.mark.long
async def test_our_own_client_through_a_router_that_is_restarted(yard: Switchyard) -> None:
    """Killed and started again under a client's calls: each is at the place, by its id."""
    place = await yard.receiver()
    port = 0
    path = yard.file(yard.config({"place": {"to": place, "retrying": QUICK}}, spool="spool"))
    retrying = Retrying(base=0.05, cap=0.2, max_attempts=1_000)
    sent = []
    async with program(path) as router:
        url = router.url
        port = int(url.rpartition(":")[2])
        sender = yard.sender(url, retrying=retrying, batching=Batching(linger=0.01))
        await sender.start()
        for _ in range(200):
            sent.append(await sender.track("E", user_id="u"))
            await asyncio.sleep(0)
        await yard.until(lambda: sender.stats().delivered)
        await router.kill()
    sent += [await sender.track("E", user_id="u") for _ in range(200)]
    async with program(path, "--port", str(port)) as router:
        await sender.flush(timeout=20)
        await sender.aclose()
        await router.end()
    assert {each.message_id for each in sent} <= place.ids.keys()


@pytest.mark.long
async def test_a_hangup_during_the_start(yard: Switchyard, tmp_path: Path) -> None:
    """It is passed over, and the start goes on."""
    path = yard.file(yard.config({"file": {"to": "file", "path": "x", "transform": "T"}}))
    path.write_text(path.read_text().replace('"T"', '[{ function = "own_signal:clean" }]'))
    (tmp_path / "own_signal.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\nclean = lambda call: call\n"
    )
    async with program(path) as router:
        assert (await router.end())["state"] == "stopped"


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no named pipes")
async def test_a_place_that_hangs_does_not_hold_up_the_end(yard: Switchyard) -> None:
    """A pipe that nobody reads has its `shutdown_timeout`, and no more."""
    os.mkfifo(yard.folder / "pipe")
    places = {"pipe": {"to": "file", "path": "pipe"}}
    async with program(yard.file(yard.config(places, shutdown_timeout=0.1))) as router:
        async with yard.http(router.url) as http:
            body = {"batch": [{"type": "identify", "userId": "u"}]}
            assert (await http.post("/v1/batch", json=body)).status_code == 200
        async with asyncio.timeout(5):
            stats = await router.end()
    assert stats["pipelines"]["shop"]["integrations"]["pipe"]["dropped"] == {"closed": 1}


# --------------------------------------------------------------------------------- what it says


def test_check_says_what_is_configured(yard_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where events go, and nothing of a key."""
    assert run(["route", str(yard_file), "--check"]) == 0
    said = capsys.readouterr()
    assert said.out.split() == ["shop", "crm", "to", "segment@eu", "file", "to", "file"]
    assert KEY not in said.out + said.err
    assert run(["route", str(yard_file), "--check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "problems": [],
        "pipelines": {"shop": {"crm": "segment@eu", "file": "file"}},
    }


def test_check_says_what_is_wrong(yard_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each problem is a line with its place, and the exit code is that of a configuration."""
    text = yard_file.read_text().replace("segment@eu", "segmnt").replace("[server]", "[sever]")
    yard_file.write_text(text)
    assert run(["route", str(yard_file), "--check"]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(".toml:")[2] for line in lines] == [
        "1:2: sever: is not known here: did you mean server?",
        "8:1: pipelines[0].integrations[0].to: is not known here: did you mean segment?",
    ]
    assert run(["route", str(yard_file), "--json"]) == 3
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert [(each["line"], each["column"]) for each in problems] == [(1, 2), (8, 1)]


def test_an_address_that_cannot_be_had(yard_file: Path) -> None:
    """It ends with one line, and leaves nothing open."""
    command = [sys.executable, "-W", "error", "-m", "asyncanalytics", "route", str(yard_file)]
    done = subprocess.run(  # noqa: S603 - the command is written above
        [*command, "--host", "192.0.2.1"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 3
    assert "cannot listen" in done.stderr
    assert "Traceback" not in done.stderr


async def test_without_json_it_says_where_and_what(yard: Switchyard) -> None:
    """A line for each pipeline at the start, and its figures at the end."""
    path = yard.file(yard.config({"file": {"to": "file", "path": "events.jsonl"}}))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-m", "asyncanalytics", "route", path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # A test run in the background of a shell ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    first = (await process.stdout.readline()).decode()
    url = first.split()[2]
    async with yard.http(url) as http:
        body = {"batch": [{"type": "identify", "userId": "u"}, {"type": "identify"}]}
        assert (await http.post("/v1/batch", json=body)).status_code == 200
    process.send_signal(signal.SIGINT)
    said, _ = await process.communicate()
    assert first.startswith("routing on http://127.0.0.1:")
    assert said.decode().splitlines() == [
        "  shop to file",
        "shop: 1 events, and 1 bad ones",
        "  file: 1 delivered, 0 rejected, 0 dropped",
    ]


@pytest.fixture
def yard_file(tmp_path: Path) -> Path:
    """A configuration's file."""
    path = tmp_path / "pipelines.toml"
    path.write_text(
        f"""[server]
port = 0
[[pipelines]]
name = "shop"
write_key = "{KEY}"
[[pipelines.integrations]]
name = "crm"
to = "segment@eu"
key = "{KEY}"
[[pipelines.integrations]]
name = "file"
to = "file"
path = "events.jsonl"
"""
    )
    return path
