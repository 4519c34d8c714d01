"""How a peer that is written in Python is asked each question.

A peer is a program in `subjects/` that says how its client is made, called and flushed; the rest
is here, so that all of them are asked in the same way. A client of plain code is called on a
loop that has nothing else to do: its threads do its work, and the loop costs it nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import _load
import _pace
import _subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A client, as its users use it."""

    packages: Sequence[str]
    make: Callable[..., Any]
    """Given the sink's address and settings: a client that is ready."""
    track: Callable[[Any, str, str, dict[str, Any]], Any]
    """Given the client, an event's name, a user id and properties: makes one call."""
    flush: Callable[[Any], Any]
    """Given the client: returns, or returns an awaitable that ends, when all is acknowledged."""
    best: Mapping[str, Any] = field(default_factory=dict)
    """The settings that it is measured at, beside those that a question itself asks for."""
    roomy: Mapping[str, Any] = field(default_factory=dict)
    """The settings without which it drops what it finds no room for."""
    gzip: Callable[[bool], Mapping[str, Any]] = lambda _: {}
    """The setting that turns compression on or off."""
    breath: int = 1_000_000_000
    """Calls after which its user lets the loop run."""


class _Asked:
    """One client that is asked one question."""

    def __init__(self, peer: Peer, url: str, settings: Mapping[str, Any]) -> None:
        self._peer = peer
        self.client = peer.make(url, **settings)
        self.breath = peer.breath
        self.sent = 0

    async def send(self, calls: Iterable[tuple[str, dict[str, Any]]], event: str) -> None:
        client, track, breath = self.client, self._peer.track, self.breath
        number = 0
        for number, (user_id, properties) in enumerate(calls, 1):
            track(client, event, user_id, properties)
            if number % breath == 0:
                await asyncio.sleep(0)
        self.sent += number

    async def flush(self) -> None:
        flushed = self._peer.flush(self.client)
        if inspect.isawaitable(flushed):
            await flushed

    async def warm(self, size: _load.Size = "full") -> None:
        await self.send(_load.calls(_subject.WARM_UP, size), _load.EVENTS[size])
        await self.flush()

    async def start_off(self) -> None:
        """Connect, and leave no memory behind that later events would take."""
        await self.send(_load.fresh(1), _load.EVENT)
        await self.flush()


class Questions:
    """What a peer can be asked."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def _ready(self, url: str, settings: Mapping[str, Any] | None, *, gzip: bool) -> _Asked:
        peer = self._peer
        found = {**peer.roomy, **peer.best, **peer.gzip(gzip), **(settings or {})}
        return _Asked(peer, url, found)

    def _usual(self, url: str, *, gzip: bool = False) -> _Asked:
        return _Asked(self._peer, url, {**self._peer.roomy, **self._peer.gzip(gzip)})

    async def throughput(
        self,
        url: str,
        events: int,
        *,
        size: _load.Size = "full",
        gzip: bool = False,
        settings: Mapping[str, Any] | None = None,
        breath: int | None = None,
    ) -> _subject.Answer:
        """Time from the first call until the sink has acknowledged the last event."""
        calls = _load.calls(events, size)
        asked = self._ready(url, settings, gzip=gzip)
        asked.breath = breath or self._peer.breath
        await asked.warm(size)
        watch = _subject.Stopwatch()
        await asked.send(calls, _load.EVENTS[size])
        await asked.flush()
        return watch.read() | {"events": events, "sent": asked.sent}

    async def latency(self, url: str, events: int, latency: float) -> _subject.Answer:
        """Time the same on the default settings, at a sink that takes its time."""
        del latency  # the sink has been told
        calls = _load.calls(events)
        asked = self._usual(url)
        await asked.start_off()
        watch = _subject.Stopwatch()
        await asked.send(calls, _load.EVENT)
        await asked.flush()
        return watch.read() | {"events": events, "sent": asked.sent}

    async def call_time(self, url: str, calls: int, *, in_a_row: bool = False) -> _subject.Answer:
        """Time each call, in bursts or in a row."""
        asked = self._ready(url, None, gzip=False)
        await asked.warm()
        client, track = asked.client, self._peer.track
        clock, times = time.perf_counter, _subject.room(calls)
        for number, (user_id, properties) in enumerate(_load.calls(calls)):
            if _subject.pauses(number, in_a_row=in_a_row):
                await asyncio.sleep(_subject.PAUSE)
            start = clock()
            track(client, _load.EVENT, user_id, properties)
            times[number] = clock() - start
        await asked.flush()
        return _subject.call_times(times, in_a_row=in_a_row) | {"sent": asked.sent + calls}

    async def loop_lag(self, url: str, rate: int, seconds: float) -> _subject.Answer:
        """Measure a loop on which it is called, as in an async view."""
        asked = self._ready(url, None, gzip=False)
        await asked.warm()

        async def track(user_id: str, properties: dict[str, Any]) -> None:
            self._peer.track(asked.client, _load.EVENT, user_id, properties)

        found = await _pace.measure(track, rate=rate, seconds=seconds)
        await asked.flush()
        return found | {"sent": asked.sent + found["calls"]}

    async def memory(self, url: str, events: int) -> _subject.Answer:
        """Weigh what waits while the sink answers nothing; then let it go, and see it arrive."""
        asked = self._ready(url, None, gzip=False)
        await asked.start_off()
        await asyncio.to_thread(_subject.tell, url, "hold")
        idle = _subject.resident()
        await asked.send(_load.fresh(events), _load.EVENT)
        waiting = _subject.resident()
        await asyncio.to_thread(_subject.tell, url, "release")
        await asked.flush()
        return {"idle": idle, "waiting": waiting, "events": events, "sent": asked.sent}

    async def growth(self, url: str, events: int) -> _subject.Answer:
        """Send any number of small events, and look at the rate and the memory."""
        asked = self._ready(url, None, gzip=False)
        await asked.warm("small")
        calls = _load.calls(events, "small")
        idle = _subject.resident()
        _subject.forget_peak()
        watch = _subject.Stopwatch()
        await asked.send(calls, _load.EVENTS["small"])
        await asked.flush()
        found = watch.read() | {"events": events, "sent": asked.sent}
        peak = _subject.peak() - idle
        return found | {"peak": peak, "after": _subject.resident() - idle}


def answer(peer: Peer) -> None:
    """Answer the question on the command line."""
    questions = Questions(peer)

    def ask(name: str) -> Callable[..., _subject.Answer]:
        return lambda **options: asyncio.run(getattr(questions, name)(**options))

    names = ("throughput", "latency", "call_time", "loop_lag", "memory", "growth")
    _subject.answer(peer.packages, {name: ask(name) for name in names})
