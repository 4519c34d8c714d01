"""The demo shows the main job, proves it, and fails when it cannot."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest

import asyncanalytics
from asyncanalytics import AsyncClient

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


from asyncanalytics.cli.demo import plain, problems
from asyncanalytics.cli.play import Plan, Play
from asyncanalytics.cli.proof import Proof, carries, prove
from asyncanalytics.cli.reading import Reader
from asyncanalytics.cli.shop import Said, Shop
from asyncanalytics.cli.view import LiveView
from asyncanalytics.collector import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncanalytics.stats import Stats

CALLS = {"identify", "track", "page", "screen", "group", "alias"}
POSIX = pytest.mark.skipif(os.name != "posix", reason="Ctrl-C cannot be sent there")


@contextmanager
def demo(*args: object, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run the demo as a process of its own."""
    with subprocess.Popen(  # noqa: S603 - it is our own
        [sys.executable, "-m", "asyncanalytics", "demo", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
        cwd=Path(asyncanalytics.__file__).parents[1],
        preexec_fn=_listen_to_ctrl_c if os.name == "posix" else None,  # noqa: PLW1509
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _listen_to_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def assert_law(stats: Stats) -> None:
    """The law holds, and nothing is left pending."""
    assert stats.is_balanced
    assert stats.pending == 0


# -------------------------------------------------------------------------------- the command


def test_the_demo_proves_itself() -> None:
    """In time, through an outage and past the environment's proxies, all is read back."""
    began = time.monotonic()
    nowhere = "http://127.0.0.1:9"
    with demo(
        *("--visitors", 200, "--outage", 0.8, "--json"), HTTP_PROXY=nowhere, http_proxy=nowhere
    ) as process:
        out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert time.monotonic() - began < 15
    told = json.loads(out)
    assert (told["ok"], told["problems"]) == (True, [])
    client, collector, back = told["client"], told["collector"], told["read_back"]
    assert client["accepted"] == client["delivered"] == sum(told["calls"].values())
    assert client["rejected"] == client["dropped"] == client["pending"] == 0
    assert back["whole"] == back["delivered"] == client["delivered"]
    assert back["missing"] == back["altered"] == back["strangers"] == 0
    assert back["arrivals"] == collector["events"] == collector["good"]
    assert back["repeated"] == collector["duplicates"]
    assert collector["distinct"] == client["delivered"]
    assert set(told["calls"]) == CALLS
    assert set(collector["answers"]) - {"200"}, "no request met the outage"
    assert client["destinations"]["collector"]["retries"] > 0
    assert told["outage"]["calls"] > 0
    assert told["law"]["checks"] > 10
    assert told["law"]["broken"] == 0


@pytest.mark.long
def test_the_demo_fails_when_events_are_gone() -> None:
    """Events that vanish from the collector make the exit code 5, and one line says how many."""
    with demo("--visitors", 20, "--outage", 0) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        next(each for each in process.stdout if "the shop opens" in each)
        while _get(f"{url}/stats")["events"] < 20:
            time.sleep(0.01)
        gone = _get(f"{url}/events", method="DELETE")["deleted"]
        out, err = process.communicate(timeout=30)
    assert process.returncode == 5
    assert err.count("\n") == 1
    assert err.startswith("error: the demo failed: ")
    assert f"{gone:,} delivered calls are not in the collector" in err
    assert "accepted = delivered + rejected + dropped + pending" in out


def _get(url: str, *, method: str = "GET") -> Any:
    with urlopen(Request(url, method=method), timeout=5) as answer:  # noqa: S310 - it is our own
        return json.load(answer)


@POSIX
def test_ctrl_c_ends_the_demo() -> None:
    """Ctrl-C ends it at once with 130, and no traceback."""
    with demo("--outage", 60) as process:
        assert process.stdout is not None
        next(each for each in process.stdout if "the shop opens" in each)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, "")


# ----------------------------------------------------------------------------------- the play


async def test_the_live_view_follows_the_play(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal of 80 columns the figures move, and no line is wider."""
    terminal = StringIO()
    for name, value in (("FORCE_COLOR", "1"), ("COLUMNS", "80"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", terminal)
    plan = Plan(visitors=20, outage=0.4)
    view = LiveView(plan)
    with view.shown(), Collector() as collector:
        outcome = await Play(plan, view).run(collector)
        view.overhear("the client's own words")
    assert_law(outcome.stats)
    assert problems(outcome) == plain(outcome)["problems"] == []
    assert plain(outcome)["client"] == outcome.stats.as_dict()
    shown = terminal.getvalue()
    for text in ("the shop opens", "the endpoint is back", "visitors", "of 20", "pending"):
        assert text in shown
    assert "the client's own words" in shown


# ----------------------------------------------------------------------------------- the shop


def _story(said: list[Said]) -> list[dict[str, Any]]:
    """What was said, without what differs from run to run."""
    return [{k: v for k, v in each.fields.items() if k != "timestamp"} for each in said]


async def _visits(analytics: AsyncClient, *, seed: int = 1, visitors: int = 30) -> Shop:
    """Let visitors come one after the other, none of whom hesitates."""
    shop = Shop(analytics, seed=seed, pace=0.0)
    for number in range(1, visitors + 1):
        await shop.visit(number)
    return shop


async def test_a_seed_makes_the_visitors() -> None:
    """The same seed tells the same story, another one another, and all six calls are in it."""
    async with AsyncClient(disabled=True) as analytics:
        once, again = await _visits(analytics), await _visits(analytics)
        other = await _visits(analytics, seed=2)
    assert_law(analytics.stats())
    assert _story(once.said) == _story(again.said)
    assert _story(once.said) != _story(other.said)
    assert {each.fields["type"] for each in once.said} == CALLS
    assert all(each.receipt.outcome for each in once.said)


# ---------------------------------------------------------------------------------- the proof


async def _proof(*, spoil: str = "") -> tuple[Proof, AsyncClient]:
    """Let visitors come, spoil the record in one way, and prove what is left."""
    with Collector() as collector:
        async with collector.serve() as url, AsyncClient("key", endpoint=url) as analytics:
            shop = await _visits(analytics, visitors=5)
            await analytics.flush(5)
            one = shop.said[3].receipt.message_id
            if spoil == "missing":
                collector.clear(message_id=one)
            elif spoil == "altered":
                await analytics.track("Another", user_id="u1", message_id=one)
            elif spoil == "stranger":
                await analytics.track("Another", user_id="u1")
            elif spoil == "refused":
                collector.misbehave(400)
                await shop.visit(6)
            await analytics.flush(5)
            reader = Reader(url, parse_float=Decimal)
            arrivals = await asyncio.to_thread(lambda: list(reader.events()))
            reader.close()
    assert_law(analytics.stats())
    return prove(shop.said, analytics.stats(), arrivals), analytics


async def test_what_arrived_whole_is_proved() -> None:
    """With nothing spoilt every delivered call is found whole."""
    proof, analytics = await _proof()
    assert proof.holds
    assert proof.whole == proof.delivered == analytics.stats().delivered > 0


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        ("missing", "1 delivered calls are not in the collector"),
        ("altered", "1 calls came back altered"),
        ("stranger", "1 events in the collector were never accepted"),
        ("refused", "calls were not delivered"),
    ],
)
async def test_what_is_not_so_is_not_proved(spoil: str, problem: str) -> None:
    """An event that is missing, altered, unknown or refused is a problem with a number."""
    proof, _ = await _proof(spoil=spoil)
    assert not proof.holds
    assert any(problem in each for each in proof.problems)


NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("stored", "given", "is_carried"),
    [
        ({"a": 1, "more": 2}, {"a": 1}, True),
        ({"more": 2}, {"a": 1}, False),
        ({"a": {"b": [1, {"c": "d"}]}}, {"a": {"b": [1, {"c": "d"}]}}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": [1]}, {"a": [2]}, False),
        (["a"], {"a": 1}, False),
        ("a", ["a"], False),
        (Decimal("19.90"), Decimal("19.9"), True),
        (Decimal("19.91"), Decimal("19.90"), False),
        (38, Decimal("38.00"), True),
        ("38", Decimal(38), False),
        ("2026-01-02T03:04:05.678Z", NOW, True),
        ("2026-01-02T03:04:05.679Z", NOW, False),
        (5, NOW, False),
        (True, True, True),
        (1, True, False),
        ("1", 1, False),
        (None, "a", False),
    ],
)
def test_carrying(stored: Any, given: Any, is_carried: bool) -> None:  # noqa: FBT001 - parametrised
    """Stored JSON carries what was given if every member is there with its value and kind."""
    assert carries(stored, given) is is_carried
