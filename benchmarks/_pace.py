"""How late an event loop runs what is due, while calls are made at a steady pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import _load
import _subject

TICK = 0.001  # seconds between two looks at the loop

Track = Callable[[str, dict[str, Any]], Awaitable[Any]]


async def measure(track: Track, *, rate: int, seconds: float) -> _subject.Answer:
    """Make `rate` calls a second for a while, and return the lags that a ticker met."""
    calls = _load.calls(round(rate * seconds))
    lags: list[float] = []
    ticker = asyncio.create_task(tick(lags))
    started = time.perf_counter()
    await _pace(track, calls, rate)
    took = time.perf_counter() - started
    ticker.cancel()
    found = {"calls": len(calls), "calls_per_second": len(calls) / took}
    return _subject.quantiles(lags) | found


async def tick(lags: list[float]) -> None:
    """Be due every tick, whatever happened before: a loop that stood still is late for each."""
    due = time.perf_counter()
    while True:
        due += TICK
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        lags.append(time.perf_counter() - due)


async def _pace(track: Track, calls: Sequence[tuple[str, dict[str, Any]]], rate: int) -> None:
    """Make the calls that are due, a few at a time; after a delay it catches up."""
    started = time.perf_counter()
    made = 0
    while made < len(calls):
        due = min(len(calls), int((time.perf_counter() - started) * rate) + 1)
        for user_id, properties in calls[made:due]:
            await track(user_id, properties)
        made = due
        await asyncio.sleep(TICK)
