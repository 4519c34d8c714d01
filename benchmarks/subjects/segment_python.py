"""segment-analytics-python, called as its users call it: from plain code, sent by its thread.

Its best settings: see SETTINGS. Its flush cannot hurry the thread, which waits for a batch to
fill until `upload_interval` is over: so a shorter interval serves it better here.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import _load
import _pace
import _subject
from segment.analytics import Client

SETTINGS: dict[str, Any] = {
    "upload_size": 1_000,  # a batch then ends at its limit of 475,000 bytes
    "upload_interval": 0.1,
    "max_queue_size": 1_000_000,  # it drops what finds no room
    "gzip": False,
}


def _client(url: str) -> Client:
    client = Client("key", host=url, **SETTINGS)
    for user_id, properties in _load.calls(_subject.WARM_UP):
        client.track(user_id, _load.EVENT, properties)
    client.flush()
    return client


def throughput(url: str, events: int) -> _subject.Answer:
    """Time from the first call until the sink has acknowledged the last event."""
    calls = _load.calls(events)
    client = _client(url)
    watch = _subject.Stopwatch()
    for user_id, properties in calls:
        client.track(user_id, _load.EVENT, properties)
    client.flush()
    return watch.read() | {"sent": _subject.WARM_UP + events}


def call_time(url: str, calls: int) -> _subject.Answer:
    """Time each call, in bursts."""
    client = _client(url)
    clock, times = time.perf_counter, []
    for number, (user_id, properties) in enumerate(_load.calls(calls), 1):
        start = clock()
        client.track(user_id, _load.EVENT, properties)
        times.append(clock() - start)
        if number % _subject.BURST == 0:
            time.sleep(_subject.PAUSE)
    client.flush()
    return _subject.call_times(times) | {"sent": _subject.WARM_UP + calls}


def loop_lag(url: str, rate: int, seconds: float) -> _subject.Answer:
    """Measure a loop on which it is called, as in an async view."""
    client = _client(url)

    async def track(user_id: str, properties: dict[str, Any]) -> None:
        client.track(user_id, _load.EVENT, properties)

    found = asyncio.run(_pace.measure(track, rate=rate, seconds=seconds))
    client.flush()
    return found | {"sent": _subject.WARM_UP + round(rate * seconds)}


if __name__ == "__main__":
    _subject.answer(
        ("segment-analytics-python",),
        {"throughput": throughput, "call_time": call_time, "loop_lag": loop_lag},
    )
