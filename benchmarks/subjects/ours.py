"""asyncanalytics, with its default settings."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import _load
import _pace
import _subject

from asyncanalytics import AsyncClient, Client


async def _warm(client: AsyncClient) -> int:
    for user_id, properties in _load.calls(_subject.WARM_UP):
        await client.track(_load.EVENT, user_id=user_id, properties=properties)
    await client.flush()
    return _subject.WARM_UP


async def throughput(url: str, events: int) -> _subject.Answer:
    """Time from the first call until the sink has acknowledged the last event."""
    calls = _load.calls(events)
    async with AsyncClient("key", endpoint=url) as client:
        warm = await _warm(client)
        watch = _subject.Stopwatch()
        for user_id, properties in calls:
            await client.track(_load.EVENT, user_id=user_id, properties=properties)
        await client.flush()
        return watch.read() | {"sent": warm + events}


def call_time(url: str, calls: int, verb: str) -> _subject.Answer:
    """Time each call: awaited, not awaited, or from a thread."""
    if verb == "sync":
        return call_time_sync(url, calls)
    return asyncio.run(call_time_on_loop(url, calls, verb))


async def call_time_on_loop(url: str, calls: int, verb: str) -> _subject.Answer:
    """Time each call, awaited or not, in bursts."""
    async with AsyncClient("key", endpoint=url) as client:
        warm = await _warm(client)
        measure = _awaited if verb == "awaited" else _nowait
        times = await measure(client, _load.calls(calls))
    return _subject.call_times(times) | {"sent": warm + calls}


async def _awaited(client: AsyncClient, calls: list[tuple[str, dict[str, Any]]]) -> list[float]:
    clock, times = time.perf_counter, []
    for number, (user_id, properties) in enumerate(calls, 1):
        start = clock()
        await client.track(_load.EVENT, user_id=user_id, properties=properties)
        times.append(clock() - start)
        if number % _subject.BURST == 0:
            await asyncio.sleep(_subject.PAUSE)
    return times


async def _nowait(client: AsyncClient, calls: list[tuple[str, dict[str, Any]]]) -> list[float]:
    clock, times = time.perf_counter, []
    for number, (user_id, properties) in enumerate(calls, 1):
        start = clock()
        client.track_nowait(_load.EVENT, user_id=user_id, properties=properties)
        times.append(clock() - start)
        if number % _subject.BURST == 0:
            await asyncio.sleep(_subject.PAUSE)
    return times


def call_time_sync(url: str, calls: int) -> _subject.Answer:
    """Time each call of the sync facade, from the main thread, in bursts."""
    clock, times = time.perf_counter, []
    with Client("key", endpoint=url) as client:
        for user_id, properties in _load.calls(_subject.WARM_UP):
            client.track(_load.EVENT, user_id=user_id, properties=properties)
        client.flush()
        for number, (user_id, properties) in enumerate(_load.calls(calls), 1):
            start = clock()
            client.track(_load.EVENT, user_id=user_id, properties=properties)
            times.append(clock() - start)
            if number % _subject.BURST == 0:
                time.sleep(_subject.PAUSE)
    return _subject.call_times(times) | {"sent": _subject.WARM_UP + calls}


async def loop_lag(url: str, rate: int, seconds: float) -> _subject.Answer:
    """Measure the loop while calls are awaited on it."""
    async with AsyncClient("key", endpoint=url) as client:
        warm = await _warm(client)

        async def track(user_id: str, properties: dict[str, Any]) -> None:
            await client.track(_load.EVENT, user_id=user_id, properties=properties)

        found = await _pace.measure(track, rate=rate, seconds=seconds)
    return found | {"sent": warm + round(rate * seconds)}


if __name__ == "__main__":
    _subject.answer(
        ("asyncanalytics", "httpx", "orjson", "pydantic"),
        {
            "throughput": lambda **options: asyncio.run(throughput(**options)),
            "call_time": call_time,
            "loop_lag": lambda **options: asyncio.run(loop_lag(**options)),
        },
    )
