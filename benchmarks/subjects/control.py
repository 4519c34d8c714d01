"""The controls: what is left of each figure where there is no client.

Throughput, latency and growth: the bare limit, see `_bare`. Memory: a list of the events' bytes.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import _load
import _pace
import _subject
from _bare import Wire, Wires, encode, send

if TYPE_CHECKING:
    from array import array


_UNDER_WAY = 8  # requests at most: as by ours, on its defaults


def throughput(
    url: str,
    events: int,
    *,
    size: _load.Size = "full",
    gzip: bool = False,
) -> _subject.Answer:
    """Time from the first event until the sink has acknowledged the last."""
    calls, name = _load.calls(events, size), _load.EVENTS[size]
    wire = Wire(url, gzip=gzip)
    send(wire, _load.calls(_subject.WARM_UP, size), name)
    watch = _subject.Stopwatch()
    send(wire, calls, name)
    return watch.read() | {"events": events, "sent": _subject.WARM_UP + events}


def latency(url: str, events: int, latency: float) -> _subject.Answer:
    """Time the same at a sink that takes its time, with several requests under way."""
    del latency  # the sink has been told
    calls, wires = _load.calls(events), Wires(url, _UNDER_WAY)
    watch = _subject.Stopwatch()
    send(wires, calls)
    return watch.read() | {"events": events, "sent": events}


def memory(url: str, events: int) -> _subject.Answer:  # noqa: ARG001 - sends nothing
    """Weigh the events' bytes in a list, each as long as it has to be."""
    idle = _subject.resident()
    waiting = [bytes(bytearray(encode(*each))) for each in _load.fresh(events)]
    found = {"idle": idle, "waiting": _subject.resident(), "events": len(waiting)}
    return found | {"sent": 0}


def growth(url: str, events: int) -> _subject.Answer:
    """Send any number of small events, and look at the rate and the memory."""
    calls, name = _load.calls(events, "small"), _load.EVENTS["small"]
    wire = Wire(url)
    send(wire, _load.calls(_subject.WARM_UP, "small"), name)
    idle = _subject.resident()
    _subject.forget_peak()
    watch = _subject.Stopwatch()
    send(wire, calls, name)
    found = watch.read() | {"events": events, "sent": _subject.WARM_UP + events}
    return found | {"peak": _subject.peak() - idle, "after": _subject.resident() - idle}


async def _nothing(event: str, *, user_id: str, properties: dict[str, Any]) -> None:
    """Stand for a client that does nothing."""


async def _empty_calls(calls: list[tuple[str, dict[str, Any]]], *, in_a_row: bool) -> array[float]:
    clock, times = time.perf_counter, _subject.room(len(calls))
    for number, (user_id, properties) in enumerate(calls):
        if _subject.pauses(number, in_a_row=in_a_row):
            await asyncio.sleep(_subject.PAUSE)
        start = clock()
        await _nothing(_load.EVENT, user_id=user_id, properties=properties)
        times[number] = clock() - start
    return times


def _encodings(calls: list[tuple[str, dict[str, Any]]], *, in_a_row: bool) -> array[float]:
    clock, times = time.perf_counter, _subject.room(len(calls))
    for number, (user_id, properties) in enumerate(calls):
        if _subject.pauses(number, in_a_row=in_a_row):
            time.sleep(_subject.PAUSE)
        start = clock()
        encode(user_id, properties)
        times[number] = clock() - start
    return times


def call_time(
    url: str,  # noqa: ARG001 - sends nothing
    calls: int,
    what: str,
    *,
    in_a_row: bool = False,
) -> _subject.Answer:
    """Time awaited calls that do nothing, or only the making of each event's bytes."""
    made = _load.calls(calls)
    if what == "empty":
        times = asyncio.run(_empty_calls(made, in_a_row=in_a_row))
    else:
        times = _encodings(made, in_a_row=in_a_row)
    return _subject.call_times(times, in_a_row=in_a_row) | {"sent": 0}


def loop_lag(url: str, rate: int, seconds: float) -> _subject.Answer:  # noqa: ARG001 - as above
    """Measure a loop that is idle but for the ticker, and the pace of calls that do nothing."""

    async def track(user_id: str, properties: dict[str, Any]) -> None:
        await _nothing(_load.EVENT, user_id=user_id, properties=properties)

    return asyncio.run(_pace.measure(track, rate=rate, seconds=seconds)) | {"sent": 0}


if __name__ == "__main__":
    _subject.answer(
        ("orjson",),
        {
            "throughput": throughput,
            "latency": latency,
            "call_time": call_time,
            "loop_lag": loop_lag,
            "memory": memory,
            "growth": growth,
        },
    )
