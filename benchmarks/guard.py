"""Has the way of an event become slower? Exits with 1 if by about a fifth.

Ours and a control that does the same in the barest way take turns in this process, in hundreds of
short samples. A busy machine spoils samples, and a slow one slows both: their ratio holds. It is
compared with the ratio in `guard.json`, for the same Python; `--keep` writes it anew.

- `track`, `track_nowait`: the time of a call, beside `orjson.dumps` of the same event and an id.
  The shortest samples count: others were interrupted.
- `end_to_end`: the process's CPU time from the call to the acknowledgement. Each sample is beside
  one of the bare limit, which makes the same events' bytes, joins them and sends them by a raw
  socket: memory and the system slow down otherwise than the interpreter. The middle one of their
  ratios counts.

One core is for this process and another for the sink, wherever there are two.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import _load
import _processes
import _subject
from _bare import Wire, encode, send

from asyncanalytics import AsyncClient

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = Path(__file__).with_suffix(".json")
LIMIT = 1.1  # times the kept ratio: noise stays below it, a fifth does not
ATTEMPTS = 3  # the least ratios count

_CHUNK = 100  # calls in a sample; fewer than those after which an awaited call lets the loop run
_CHUNKS = 6  # samples in a row: the first meets cold caches
_BURSTS = 60
_EVENTS = 680  # from end to end in a sample: one full request
_ENDS = 300

Calls = list[tuple[str, dict[str, Any]]]
Ratios = dict[str, float]


class _Samples:
    """The samples of each kind."""

    def __init__(self) -> None:
        self._found: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, kind: str, seconds: float) -> None:
        self._found[kind].append(seconds)

    def shortest(self, kind: str) -> float:
        return min(self._found[kind]) / min(self._found["encode"])

    def middle(self, kind: str) -> float:
        return median(self._found[kind])


def _chunks() -> list[Calls]:
    calls = _load.calls(_CHUNK * _CHUNKS)
    return [calls[start : start + _CHUNK] for start in range(0, len(calls), _CHUNK)]


def _encode_all(calls: Calls) -> None:
    for user_id, properties in calls:
        encode(user_id, properties)


def _time(samples: _Samples, kind: str, work: Callable[[Calls], None]) -> None:
    for chunk in _chunks():
        start = time.perf_counter()
        work(chunk)
        samples.add(kind, time.perf_counter() - start)


async def _time_awaited(samples: _Samples, client: AsyncClient) -> None:
    for chunk in _chunks():
        start = time.perf_counter()
        for user_id, properties in chunk:
            await client.track(_load.EVENT, user_id=user_id, properties=properties)
        samples.add("track", time.perf_counter() - start)


async def _time_calls(samples: _Samples, client: AsyncClient) -> None:
    def nowait(calls: Calls) -> None:
        for user_id, properties in calls:
            client.track_nowait(_load.EVENT, user_id=user_id, properties=properties)

    for _ in range(_BURSTS):
        await _time_awaited(samples, client)
        await client.flush()
        _time(samples, "encode", _encode_all)
        _time(samples, "track_nowait", nowait)
        await client.flush()
        _time(samples, "encode", _encode_all)


async def _time_ends(samples: _Samples, client: AsyncClient, wire: Wire) -> None:
    calls = _load.calls(_EVENTS)
    for _ in range(_ENDS):
        start = time.process_time()
        for user_id, properties in calls:
            await client.track(_load.EVENT, user_id=user_id, properties=properties)
        await client.flush()
        ours = time.process_time() - start
        start = time.process_time()
        send(wire, calls)
        samples.add("end_to_end", ours / (time.process_time() - start))


async def _measure(sink: _processes.Sink) -> Ratios:
    samples = _Samples()
    async with AsyncClient("key", endpoint=sink.url) as client:
        gc.collect()
        gc.freeze()  # what is there now is not gone through again and again
        await _time_calls(samples, client)
        await _time_ends(samples, client, Wire(sink.url))
        sent = client.stats().delivered + _ENDS * _EVENTS
    count = await asyncio.to_thread(sink.count)
    if count["distinct"] != sent or count["altered"]:
        raise _processes.BenchmarkError(f"of {sent} events {count['distinct']} arrived")
    return {
        "track": samples.shortest("track"),
        "track_nowait": samples.shortest("track_nowait"),
        "end_to_end": samples.middle("end_to_end"),
    }


def _least(one: Ratios, other: Ratios) -> Ratios:
    return {name: min(one[name], other[name]) for name in one}


def _kept() -> dict[str, Ratios]:
    found: dict[str, Ratios] = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    return found


def _keep(python: str, found: Ratios) -> None:
    rounded = {name: round(ratio, 3) for name, ratio in found.items()}
    text = json.dumps({**_kept(), python: rounded}, indent=2, sort_keys=True)
    KEPT.write_text(text + "\n", encoding="utf-8")


def _slower(found: Ratios, kept: Ratios) -> list[str]:
    return [name for name, ratio in found.items() if ratio > kept[name] * LIMIT]


def _say(found: Ratios, kept: Ratios) -> None:
    for name, ratio in found.items():
        change = ratio / kept[name] - 1
        print(f"{name:<13} {ratio:6.3f} times the control; kept: {kept[name]:.3f} ({change:+.1%})")


def check(python: str) -> int:
    """Measure until all ratios hold, or often enough; return the exit code."""
    kept = _kept().get(python)
    if kept is None:
        print(f"no ratios are kept for {python}: write them with --keep", file=sys.stderr)
        return 2
    with _processes.sink() as sink:
        found = asyncio.run(_measure(sink))
        for _ in range(ATTEMPTS - 1):
            if _slower(found, kept):
                found = _least(found, asyncio.run(_measure(sink)))
    _say(found, kept)
    slower = _slower(found, kept)
    print(f"SLOWER: {', '.join(slower)}" if slower else "no slower than it was")
    return 1 if slower else 0


def keep(python: str) -> int:
    """Measure a few times, and write the middle of the ratios."""
    with _processes.sink() as sink:
        found = [asyncio.run(_measure(sink)) for _ in range(ATTEMPTS)]
    _keep(python, {name: median(each[name] for each in found) for name in found[0]})
    print(f"{KEPT.name}: {_kept()[python]}")
    return 0


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="guard.py")
    parser.add_argument("--keep", action="store_true", help="write the ratios to compare with")
    _subject.keep_memory()
    python = f"{platform.python_implementation()} {'.'.join(platform.python_version_tuple()[:2])}"
    return keep(python) if parser.parse_args().keep else check(python)


if __name__ == "__main__":
    sys.exit(main())
