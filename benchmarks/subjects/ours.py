"""asyncanalytics, with its default settings.

Only `memory` differs: a queue that has room for what is to wait.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import _load
import _pace
import _subject
from _nowhere import ByBareSocket, Nowhere

from asyncanalytics import AsyncClient, Client, Queueing, Sending

if TYPE_CHECKING:
    from array import array
    from collections.abc import AsyncIterator

_ROOMY = Queueing(max_events=10_000_000, max_bytes=4 << 30)


async def _warm(client: AsyncClient, size: _load.Size = "full") -> int:
    for user_id, properties in _load.calls(_subject.WARM_UP, size):
        await client.track(_load.EVENTS[size], user_id=user_id, properties=properties)
    await client.flush()
    return _subject.WARM_UP


async def _start_off(client: AsyncClient) -> None:
    """Connect, and leave no memory behind that later events would take."""
    await client.track(_load.EVENT, user_id="user-000000", properties=_load.order(0))
    await client.flush()


@asynccontextmanager
async def _client(url: str, http: Any, *, gzip: bool) -> AsyncIterator[AsyncClient]:
    """Make a client that sends as it does by default, otherwise, or not at all."""
    if http == "none":
        client = AsyncClient(destinations=[Nowhere("nowhere")])
    elif http == "socket":
        client = AsyncClient(destinations=[ByBareSocket("socket", url)])
    else:
        sending = Sending(gzip=gzip or None, http_library=http)
        client = AsyncClient("key", endpoint=url, sending=sending)
    async with client:
        yield client


async def throughput(
    url: str,
    events: int,
    *,
    size: _load.Size = "full",
    gzip: bool = False,
    http: str = "httpx",
) -> _subject.Answer:
    """Time from the first call until the sink has acknowledged the last event."""
    calls, event = _load.calls(events, size), _load.EVENTS[size]
    async with _client(url, http, gzip=gzip) as client:
        warm = await _warm(client, size)
        watch = _subject.Stopwatch()
        for user_id, properties in calls:
            await client.track(event, user_id=user_id, properties=properties)
        await client.flush()
        sent = 0 if http == "none" else warm + events
        return watch.read() | {"events": events, "sent": sent}


async def latency(url: str, events: int, latency: float) -> _subject.Answer:
    """Time the same at a sink that takes its time."""
    del latency  # the sink has been told
    calls = _load.calls(events)
    async with AsyncClient("key", endpoint=url) as client:
        await _start_off(client)
        watch = _subject.Stopwatch()
        for user_id, properties in calls:
            await client.track(_load.EVENT, user_id=user_id, properties=properties)
        await client.flush()
        return watch.read() | {"events": events, "sent": 1 + events}


async def memory(url: str, events: int) -> _subject.Answer:
    """Weigh what waits while the sink answers nothing; then let it go, and see it arrive."""
    async with AsyncClient("key", endpoint=url, queueing=_ROOMY) as client:
        await _start_off(client)
        await asyncio.to_thread(_subject.tell, url, "hold")
        idle = _subject.resident()
        for user_id, properties in _load.fresh(events):
            await client.track(_load.EVENT, user_id=user_id, properties=properties)
        waiting = _subject.resident()
        pending = client.stats().pending
        await asyncio.to_thread(_subject.tell, url, "release")
        await client.flush()
    return {"idle": idle, "waiting": waiting, "events": pending, "sent": 1 + events}


async def growth(url: str, events: int) -> _subject.Answer:
    """Send any number of small events, and look at the rate and the memory."""
    async with AsyncClient("key", endpoint=url) as client:
        warm = await _warm(client, "small")
        calls, event = _load.calls(events, "small"), _load.EVENTS["small"]
        idle = _subject.resident()
        _subject.forget_peak()
        watch = _subject.Stopwatch()
        for user_id, properties in calls:
            await client.track(event, user_id=user_id, properties=properties)
        await client.flush()
        found = watch.read() | {"events": events, "sent": warm + events}
        peak = _subject.peak() - idle
        return found | {"peak": peak, "after": _subject.resident() - idle}


def call_time(url: str, calls: int, verb: str, *, in_a_row: bool = False) -> _subject.Answer:
    """Time each call: awaited, not awaited, or from a thread."""
    if verb == "sync":
        return call_time_sync(url, calls, in_a_row=in_a_row)
    return asyncio.run(call_time_on_loop(url, calls, verb, in_a_row=in_a_row))


async def call_time_on_loop(url: str, calls: int, verb: str, *, in_a_row: bool) -> _subject.Answer:
    """Time each call, awaited or not, in bursts or in a row."""
    async with AsyncClient("key", endpoint=url) as client:
        warm = await _warm(client)
        measure = _awaited if verb == "awaited" else _nowait
        times = await measure(client, _load.calls(calls), in_a_row=in_a_row)
    return _subject.call_times(times, in_a_row=in_a_row) | {"sent": warm + calls}


async def _awaited(
    client: AsyncClient, calls: list[tuple[str, dict[str, Any]]], *, in_a_row: bool
) -> array[float]:
    clock, times = time.perf_counter, _subject.room(len(calls))
    for number, (user_id, properties) in enumerate(calls):
        if _subject.pauses(number, in_a_row=in_a_row):
            await asyncio.sleep(_subject.PAUSE)
        start = clock()
        await client.track(_load.EVENT, user_id=user_id, properties=properties)
        times[number] = clock() - start
    return times


async def _nowait(
    client: AsyncClient, calls: list[tuple[str, dict[str, Any]]], *, in_a_row: bool
) -> array[float]:
    clock, times = time.perf_counter, _subject.room(len(calls))
    for number, (user_id, properties) in enumerate(calls):
        if _subject.pauses(number, in_a_row=in_a_row):
            await asyncio.sleep(_subject.PAUSE)
        start = clock()
        client.track_nowait(_load.EVENT, user_id=user_id, properties=properties)
        times[number] = clock() - start
    return times


def call_time_sync(url: str, calls: int, *, in_a_row: bool) -> _subject.Answer:
    """Time each call of the sync facade, from the main thread."""
    clock, times = time.perf_counter, _subject.room(calls)
    with Client("key", endpoint=url) as client:
        for user_id, properties in _load.calls(_subject.WARM_UP):
            client.track(_load.EVENT, user_id=user_id, properties=properties)
        client.flush()
        for number, (user_id, properties) in enumerate(_load.calls(calls)):
            if _subject.pauses(number, in_a_row=in_a_row):
                time.sleep(_subject.PAUSE)
            start = clock()
            client.track(_load.EVENT, user_id=user_id, properties=properties)
            times[number] = clock() - start
    return _subject.call_times(times, in_a_row=in_a_row) | {"sent": _subject.WARM_UP + calls}


async def loop_lag(url: str, rate: int, seconds: float) -> _subject.Answer:
    """Measure the loop while calls are awaited on it."""
    async with AsyncClient("key", endpoint=url) as client:
        warm = await _warm(client)

        async def track(user_id: str, properties: dict[str, Any]) -> None:
            await client.track(_load.EVENT, user_id=user_id, properties=properties)

        found = await _pace.measure(track, rate=rate, seconds=seconds)
    return found | {"sent": warm + found["calls"]}


if __name__ == "__main__":
    _subject.answer(
        ("asyncanalytics", "httpx", "orjson", "pydantic"),
        {
            "throughput": lambda **options: asyncio.run(throughput(**options)),
            "latency": lambda **options: asyncio.run(latency(**options)),
            "call_time": call_time,
            "loop_lag": lambda **options: asyncio.run(loop_lag(**options)),
            "memory": lambda **options: asyncio.run(memory(**options)),
            "growth": lambda **options: asyncio.run(growth(**options)),
        },
    )
