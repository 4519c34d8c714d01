"""The demo's play: a shop that is open, an endpoint that goes down and comes back, the books.

The collector listens on a real socket of this machine. The outage has two halves: answers with
503 and Retry-After, then connections closed without an answer, the first of them after the
events were kept, as happens when a server dies between its commit and its answer.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from asyncanalytics import endpoints
from asyncanalytics.cli.proof import Proof, prove
from asyncanalytics.cli.reading import Reader
from asyncanalytics.cli.shop import Said, Shop
from asyncanalytics.client import AsyncClient
from asyncanalytics.errors import FlushTimeout
from asyncanalytics.settings import Retrying

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncanalytics.collector import Collector, CollectorStats
    from asyncanalytics.stats import Stats

_TICK = 0.05  # seconds between two looks at the figures
_PATIENCE = 30.0  # seconds in which everything must be delivered in the end


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be played."""

    visitors: int = 1_500
    seed: int = 1
    outage: float = 2.0
    """Seconds; 0 for none."""

    @property
    def calm(self) -> float:
        """Seconds before the outage, and after it: enough to see the difference."""
        return min(max(0.6 * self.outage, 0.5), 1.5)

    @property
    def opening_hours(self) -> float:
        """Seconds in which visitors come."""
        return 2 * self.calm + self.outage


class Watcher(Protocol):
    """Whoever looks on."""

    def phase(self, text: str) -> None:
        """Something begins."""

    def overhear(self, text: str) -> None:
        """The client has logged something."""

    def tick(self, shop: Shop, stats: Stats, seconds: float) -> None:
        """Some time has passed."""


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What came of the play: figures that were measured, counted or read."""

    plan: Plan
    seconds: float = 0.0
    """From the first call until everything was delivered."""
    calls: dict[str, int] = field(default_factory=dict)
    held_up: float = 0.0
    """Seconds that a call held its caller up, at the median."""
    held_up_in_outage: float = 0.0
    calls_in_outage: int = 0
    most_pending: int = 0
    caught_up: float = 0.0
    """Seconds from the end of the outage until all calls made before it were delivered."""
    checks: int = 0
    """How often the law was checked while the shop was open."""
    broken: int = 0
    """How often it did not hold."""
    stats: Stats
    collected: CollectorStats
    proof: Proof
    read_back: float = 0.0
    """Seconds that reading back took."""


class Play:
    """One run."""

    def __init__(self, plan: Plan, watcher: Watcher) -> None:
        """Plan it; nothing runs yet."""
        self._plan = plan
        self._watcher = watcher
        self._figures: dict[str, Any] = {"checks": 0, "broken": 0, "most_pending": 0}

    async def run(self, collector: Collector) -> Outcome:
        """Play it against a collector, and return what came of it."""
        async with collector.serve() as url:
            self._watcher.phase(f"a collector listens on {url}")
            client = AsyncClient(
                "demo-key",
                endpoint=endpoints.custom(url, name="collector", gzip=True),
                retrying=Retrying(base=0.2, cap=1.0, max_attempts=100_000),
            )
            with _without_proxies():
                await client.start()
            shop = Shop(client, seed=self._plan.seed)
            try:
                await self._open(shop, client, collector)
            finally:
                stats = await client.aclose(0)
            self._watcher.tick(shop, stats, self._figures["seconds"])
            self._watcher.phase("everything is read back")
            began = time.monotonic()
            proof = await asyncio.to_thread(_read_back, url, shop.said, stats)
            self._figures["read_back"] = time.monotonic() - began
        return Outcome(
            plan=self._plan,
            calls=dict(Counter(each.fields["type"] for each in shop.said)),
            stats=stats,
            collected=collector.stats(),
            proof=proof,
            **self._figures,
        )

    async def _open(self, shop: Shop, client: AsyncClient, collector: Collector) -> None:
        began = time.monotonic()
        looking = asyncio.create_task(self._look(shop, client, began))
        try:
            async with asyncio.TaskGroup() as tasks:
                self._watcher.phase("the shop opens")
                tasks.create_task(self._let_visitors_in(shop))
                tasks.create_task(self._weather(shop, client, collector))
            self._watcher.phase("the shop closes, the rest is delivered")
            with suppress(FlushTimeout):
                await client.flush(_PATIENCE)
        finally:
            looking.cancel()
            self._figures["seconds"] = time.monotonic() - began

    async def _let_visitors_in(self, shop: Shop) -> None:
        began, every = time.monotonic(), self._plan.opening_hours / self._plan.visitors
        async with asyncio.TaskGroup() as visits:
            for number in range(1, self._plan.visitors + 1):
                visits.create_task(shop.visit(number))
                await asyncio.sleep(max(0.0, began + number * every - time.monotonic()))

    async def _weather(self, shop: Shop, client: AsyncClient, collector: Collector) -> None:
        """Let the endpoint go down, and up again, while the shop goes on."""
        await asyncio.sleep(self._plan.calm)
        before = len(shop.said)
        self._note_callers(shop.said[:before], [])
        if self._plan.outage:
            self._watcher.phase("outage: the endpoint answers 503 with Retry-After: 1")
            collector.misbehave(503, retry_after=1)
            await asyncio.sleep(self._plan.outage / 2)
            self._watcher.phase("outage: the endpoint drops connections")
            collector.behave()
            collector.misbehave(drop=True, after=True, count=1)
            collector.misbehave(drop=True)
            await asyncio.sleep(self._plan.outage / 2)
            collector.behave()
            self._watcher.phase("the endpoint is back")
            self._note_callers(shop.said[:before], shop.said[before:])
            await self._catch_up(client)

    async def _catch_up(self, client: AsyncClient) -> None:
        began = time.monotonic()
        with suppress(FlushTimeout):
            await client.flush(_PATIENCE)
        self._figures["caught_up"] = time.monotonic() - began

    def _note_callers(self, before: list[Said], during: list[Said]) -> None:
        self._figures["held_up"] = _median(before)
        self._figures["held_up_in_outage"] = _median(during)
        self._figures["calls_in_outage"] = len(during)

    async def _look(self, shop: Shop, client: AsyncClient, began: float) -> None:
        figures = self._figures
        while True:
            stats = client.stats()
            figures["checks"] += 1
            figures["broken"] += not stats.is_balanced
            figures["most_pending"] = max(figures["most_pending"], stats.pending)
            self._watcher.tick(shop, stats, time.monotonic() - began)
            await asyncio.sleep(_TICK)


def _median(said: list[Said]) -> float:
    return statistics.median(each.seconds for each in said) if said else 0.0


def _read_back(url: str, said: list[Said], stats: Stats) -> Proof:
    """Read all events over the collector's API, and compare. It blocks."""
    reader = Reader(url, parse_float=Decimal)
    try:
        return prove(said, stats, reader.events())
    finally:
        reader.close()


@contextmanager
def _without_proxies() -> Iterator[None]:
    """Keep the environment's proxies out of what goes to this machine itself."""
    before = {name: os.environ.get(name) for name in ("NO_PROXY", "no_proxy")}
    os.environ.update(dict.fromkeys(before, "127.0.0.1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
