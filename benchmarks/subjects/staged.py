"""The way of an event, cut into stages that are timed one by one.

Times are those of the CPU, except for calls, which are timed as their caller sees them.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from collections import Counter, defaultdict
from http import HTTPStatus
from statistics import median
from typing import TYPE_CHECKING, Any

import _load
import _subject
from _bare import Wire
from _bare import encode as bare_encode
from _nowhere import Nowhere

from asyncanalytics import AsyncClient, Batching, Sending
from asyncanalytics.encoding import Envelope, encode
from asyncanalytics.transport import Transport
from asyncanalytics.wire import TRACK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BLOCKS: dict[_load.Size, int] = {"full": 600, "small": 1_600}  # events: about a request of each
_PLACES = {
    "1st of a burst": slice(0, 1),
    "2nd": slice(1, 2),
    "3rd to 20th": slice(2, 20),
    "21st to 200th": slice(20, None),
}
_COLD = 5  # bursts that are not counted
_SOME = range(100)  # numbers
_HEADERS = {"content-type": "application/json", "authorization": "Basic a2V5Og=="}

Calls = list[tuple[str, dict[str, Any]]]


# ------------------------------------------------------------------------------------- an event


class _Clock:
    """Seconds of CPU time for each event, by stage: the median of the blocks."""

    def __init__(self, block: int) -> None:
        self._block = block
        self._times: dict[str, list[float]] = defaultdict(list)

    def time(self, stage: str, work: Callable[[], Any]) -> Any:
        """Do a block's work."""
        start = time.process_time()
        found = work()
        self.add(stage, start)
        return found

    def add(self, stage: str, start: float) -> None:
        """Count what was done since then."""
        self._times[stage].append((time.process_time() - start) / self._block)

    def read(self) -> dict[str, float]:
        """Return the figures."""
        return {stage: median(times) for stage, times in self._times.items()}


async def stages(url: str, events: int, size: _load.Size) -> _subject.Answer:
    """Time each stage by itself, and then all of them as they are in the client."""
    _subject.keep_memory()
    event, calls, width = _load.EVENTS[size], _load.calls(events, size), _BLOCKS[size]
    blocks = [calls[start : start + width] for start in range(0, events, width)]
    clock = _Clock(width)
    wire = Wire(url)
    nowhere = AsyncClient(destinations=[Nowhere("nowhere")], batching=Batching(linger=60))
    ways = {
        "httpx": Transport(Sending(), connections=1),
        "aiohttp in its place": Transport(Sending(http_library="aiohttp"), connections=1),
    }
    async with nowhere, AsyncClient("key", endpoint=url) as whole:
        for transport in ways.values():
            await transport.open()
        for block in blocks:
            await _called(clock, nowhere, event, block)
            for way, transport in ways.items():
                bodies = _made(clock, event, block)
                await _posted(clock, way, transport, f"{url}/v1/batch", bodies)
            _bare(clock, wire, event, block)
            await _whole(clock, whole, event, block)
        for transport in ways.values():
            await transport.aclose()
    return {"stages": clock.read(), "sent": 4 * events}


def _made(clock: _Clock, event: str, block: Calls) -> list[bytes]:
    fields = [{"event": event, "userId": user, "properties": each} for user, each in block]
    wires = clock.time("check", lambda: [TRACK.validate(each) for each in fields])
    made = clock.time("encode", lambda: [encode("track", each) for each in wires])
    return [body for _, body in made]


async def _called(clock: _Clock, client: AsyncClient, event: str, block: Calls) -> None:
    """Call without letting the loop run; then let all go nowhere."""
    start = time.process_time()
    for user_id, properties in block:
        client.track_nowait(event, user_id=user_id, properties=properties)
    clock.add("call", start)
    start = time.process_time()
    await client.flush()
    clock.add("drain and account", start)


async def _posted(
    clock: _Clock, way: str, transport: Transport, url: str, bodies: list[bytes]
) -> None:
    content = clock.time("join", lambda: _ENVELOPE.pack(bodies, "ids"))
    start = time.process_time()
    answer = await transport.post(url, _HEADERS, content)
    clock.add(way, start)
    if answer.status != HTTPStatus.OK:
        sys.exit(f"the sink said {answer.status}")


def _bare(clock: _Clock, wire: Wire, event: str, block: Calls) -> None:
    bodies = clock.time("control: bytes", lambda: [bare_encode(*each, event) for each in block])
    start = time.process_time()
    wire.post(bodies)
    wire.settle()
    clock.add("control: join and send", start)


async def _whole(clock: _Clock, client: AsyncClient, event: str, block: Calls) -> None:
    start = time.process_time()
    for user_id, properties in block:
        await client.track(event, user_id=user_id, properties=properties)
    await client.flush()
    clock.add("all together", start)


_ENVELOPE = Envelope(in_body={}, in_event={})


# --------------------------------------------------------------------------------------- a call


async def places(url: str, bursts: int, slow: float) -> _subject.Answer:
    """Time calls by their place in a burst, and count those above `slow`, beside two controls.

    One makes the bytes alone. The other adds numbers for as long as a call takes at the median:
    what it shows beyond that is of the machine.
    """
    calls = _load.calls(_subject.BURST)
    made: dict[str, list[_Burst]] = {"ours": [], "bytes": [], "adding": []}
    gc.callbacks.append(_collected)
    async with AsyncClient("key", endpoint=url) as client:
        for _ in range(bursts):
            made["ours"].append(await _burst(client, calls))
            await asyncio.sleep(_subject.PAUSE)
            made["bytes"].append(_bare_burst(client, calls))
            await asyncio.sleep(_subject.PAUSE)
            additions = _additions(median(made["ours"][-1].times))
            await asyncio.sleep(_subject.PAUSE)
            made["adding"].append(_adding_burst(client, additions))
            await asyncio.sleep(_subject.PAUSE)
    counted = {who: each[_COLD:] for who, each in made.items()}
    return {
        "places": {who: _by_place(each) for who, each in counted.items()},
        "slow": {who: _slow(each, slow) for who, each in counted.items()},
        "sent": bursts * len(calls),
    }


_collections = 0


def _collected(phase: str, _: object) -> None:
    global _collections  # noqa: PLW0603 - the process has one collector
    _collections += phase == "stop"


class _Burst:
    """The seconds that calls took, one after the other, and what each of them met."""

    def __init__(self, client: AsyncClient) -> None:
        self.times = _subject.room(_subject.BURST)
        self.met = [""] * _subject.BURST
        self._count = 0
        self._client = client
        self._seen = self._look()

    def _look(self) -> dict[str, int]:
        buffer = self._client._flushers[0].buffer  # noqa: SLF001 - a profile looks inside
        return {
            "a garbage collection in it": _collections,
            "the first of a millisecond": time.time_ns() // 1_000_000,
            "it fills a batch, and wakes the flusher": buffer.ready.is_set(),
            "a look whether the loop runs": self._client._breath.is_held,  # noqa: SLF001 - the same
        }

    def add(self, seconds: float) -> None:
        """Count a call that has just ended."""
        before, self._seen = self._seen, self._look()
        changed = [name for name, each in self._seen.items() if each > before[name]]
        met = changed[0] if changed else "any other"
        self.met[self._count] = met if self._count >= 2 else "one of the first two of a burst"
        self.times[self._count] = seconds
        self._count += 1


def _slow(bursts: Sequence[_Burst], limit: float) -> dict[str, float]:
    """Return the shares of all calls that took longer, by what they met."""
    slow = Counter(
        met
        for burst in bursts
        for seconds, met in zip(burst.times, burst.met, strict=True)
        if seconds > limit
    )
    calls = sum(len(burst.times) for burst in bursts)
    return {met: count / calls for met, count in slow.items()}


async def _burst(client: AsyncClient, calls: Calls) -> _Burst:
    clock, burst = time.perf_counter, _Burst(client)
    for user_id, properties in calls:
        start = clock()
        await client.track(_load.EVENT, user_id=user_id, properties=properties)
        burst.add(clock() - start)
    return burst


def _bare_burst(client: AsyncClient, calls: Calls) -> _Burst:
    clock, burst = time.perf_counter, _Burst(client)
    for user_id, properties in calls:
        start = clock()
        bare_encode(user_id, properties)
        burst.add(clock() - start)
    return burst


def _additions(seconds: float) -> range:
    """Return what to add up for so long."""
    times = []
    for _ in range(_subject.BURST):
        start = time.perf_counter()
        _add(_SOME)
        times.append(time.perf_counter() - start)
    return range(round(len(_SOME) * seconds / median(times)))


def _adding_burst(client: AsyncClient, numbers: range) -> _Burst:
    clock, burst = time.perf_counter, _Burst(client)
    for _ in range(_subject.BURST):
        start = clock()
        _add(numbers)
        burst.add(clock() - start)
    return burst


def _add(numbers: range) -> None:
    total = 0
    for each in numbers:
        total += each


def _by_place(bursts: Sequence[_Burst]) -> dict[str, dict[str, float]]:
    found = {"all": [each for burst in bursts for each in burst.times]}
    for name, place in _PLACES.items():
        found[name] = [each for burst in bursts for each in burst.times[place]]
    return {name: _subject.quantiles(times) for name, times in found.items()}


# ------------------------------------------------------------------------------- the import


def imports(url: str) -> _subject.Answer:  # noqa: ARG001 - sends nothing
    """Time what importing asyncanalytics executes beyond httpx and pydantic, module by module."""
    shared = _imported("import httpx, pydantic")
    added = {
        name: seconds
        for name, seconds in _imported("import httpx, pydantic, asyncanalytics").items()
        if name not in shared
    }
    return {"modules": added, "sent": 0}


def _imported(code: str) -> dict[str, float]:
    """Return the seconds that each module took itself, without those that it imports."""
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603 - our own words
    lines = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines()]
    return {name.strip(): int(own) / 1e6 for own, _, name in lines if own.strip().isdigit()}


_MEASURES: dict[str, Callable[..., Any]] = {
    "stages": lambda **options: asyncio.run(stages(**options)),
    "places": lambda **options: asyncio.run(places(**options)),
    "imports": imports,
}

if __name__ == "__main__":
    _subject.answer(
        ("asyncanalytics", "httpx", "orjson", "pydantic"),
        {"stages": lambda measure, **options: _MEASURES[measure](**options)},
    )
