"""asyncanalytics with a spool, and the same without one."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from typing import TYPE_CHECKING, Any

import _load
import _pace
import _subject

from asyncanalytics import AsyncClient, Queueing, Spooling

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOMY = Queueing(max_events=10_000_000, max_bytes=4 << 30)
_EVENTS = 20_000  # by scale
_SECONDS = 1.0  # by scale


def _client(url: str, folder: str, *, spooled: bool) -> AsyncClient:
    if not spooled:
        return AsyncClient("key", endpoint=url, queueing=_ROOMY)
    return AsyncClient("key", endpoint=url, spool=Spooling(f"{folder}/spool", max_bytes=4 << 30))


async def _call(client: AsyncClient, user_id: str, properties: dict[str, Any]) -> None:
    await client.track(_load.EVENT, user_id=user_id, properties=properties)


async def _warm(client: AsyncClient) -> int:
    await asyncio.gather(*(_call(client, *each) for each in _load.calls(_subject.WARM_UP)))
    await client.flush()
    return _subject.WARM_UP


async def durable(
    client: AsyncClient, url: str, *, scale: int, callers: int, is_down: bool
) -> _subject.Answer:
    """Time calls of many callers until all are durable; they are delivered meanwhile, or not."""
    warm = await _warm(client)
    if is_down:
        await asyncio.to_thread(_subject.tell, url, "hold")
    calls = iter(_load.calls(_EVENTS * scale))

    async def caller(mine: Iterator[tuple[str, dict[str, Any]]]) -> None:
        for user_id, properties in mine:
            await client.track(_load.EVENT, user_id=user_id, properties=properties)

    watch = _subject.Stopwatch()
    await asyncio.gather(*(caller(calls) for _ in range(callers)))  # they share what is to do
    found = watch.read()
    if is_down:
        await asyncio.to_thread(_subject.tell, url, "release")
    await client.flush()
    return found | {"events": _EVENTS * scale, "sent": warm + _EVENTS * scale}


async def wait(client: AsyncClient, url: str, *, scale: int, rate: int) -> _subject.Answer:
    """Time each call of a steady stream, every one in a task of its own."""
    del url
    warm = await _warm(client)
    times: list[float] = []
    calls = _load.calls(round(rate * _SECONDS * scale))

    async def one(user_id: str, properties: dict[str, Any]) -> None:
        start = time.perf_counter()
        await _call(client, user_id, properties)
        times.append(time.perf_counter() - start)

    started = time.perf_counter()
    made = 0
    async with asyncio.TaskGroup() as group:
        while made < len(calls):
            due = min(len(calls), int((time.perf_counter() - started) * rate) + 1)
            for each in calls[made:due]:
                group.create_task(one(*each))
            made = due
            await asyncio.sleep(_pace.TICK)
    took = time.perf_counter() - started
    found = {"calls_per_second": len(calls) / took, "sent": warm + len(calls)}
    return _subject.quantiles(times) | found


async def lag(client: AsyncClient, url: str, *, scale: int, rate: int) -> _subject.Answer:
    """Measure the loop while calls are made on it, each in a task of its own."""
    del url
    warm = await _warm(client)
    tasks: set[asyncio.Task[None]] = set()

    async def track(user_id: str, properties: dict[str, Any]) -> None:
        task = asyncio.create_task(_call(client, user_id, properties))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    found = await _pace.measure(track, rate=rate, seconds=_SECONDS * scale)
    await asyncio.gather(*tasks)
    return found | {"sent": warm + found["calls"]}


async def outage(client: AsyncClient, url: str, *, scale: int, events: int) -> _subject.Answer:
    """Weigh what waits while the sink answers nothing; then let it go, and see it arrive."""
    del scale
    warm = await _warm(client)
    await asyncio.to_thread(_subject.tell, url, "hold")
    idle = _subject.resident()
    fresh = iter(_load.fresh(events))
    while group := list(itertools.islice(fresh, 1_000)):
        await asyncio.gather(*(_call(client, *each) for each in group))
    added = _subject.resident() - idle
    pending = client.stats().pending
    await asyncio.to_thread(_subject.tell, url, "release")
    await client.flush()
    return {"added": added, "events": pending, "sent": warm + events}


_MEASURES = {"durable": durable, "wait": wait, "lag": lag, "outage": outage}


async def spool(url: str, measure: str, *, spooled: bool, **options: Any) -> _subject.Answer:
    """Measure one thing, with a spool or without."""
    with tempfile.TemporaryDirectory() as folder:
        async with _client(url, folder, spooled=spooled) as client:
            return await _MEASURES[measure](client, url, **options)


if __name__ == "__main__":
    _subject.answer(
        ("asyncanalytics", "httpx", "orjson", "pydantic"),
        {"spool": lambda **options: asyncio.run(spool(**options))},
    )
