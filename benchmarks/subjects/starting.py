"""What it takes until a client has sent its first event, step by step.

Imports are timed in a process that has imported nothing else: this one has asyncio already. The
other steps run on a loop with a ticker beside them, so it shows what each keeps the loop from.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - the loop would import it for its first thread
import inspect
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _load
import _pace
import _subject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _peer import Peer

    Step = Callable[[], Any]

_REST = 0.005  # seconds after a step, in which a tick that it held up is seen
_COUNTS = 0.06  # seconds; a start of ours takes about as long
_TURN = 0.001  # seconds, as in a start of ours

# What is imported of a client, after what its application most likely has as well.
_IMPORTS: dict[str, tuple[Sequence[str], str]] = {
    "ours": (("httpx", "pydantic"), "asyncanalytics"),
    "ours_before": (("httpx", "pydantic"), "asyncanalytics"),
    "segment_python": ((), "segment.analytics"),
    "rudder_python": ((), "rudderstack.analytics.client"),
    "posthog_python": ((), "posthog"),
    "posthog_async": (("httpx",), "posthog"),
    "amplitude_python": ((), "amplitude"),
    "mixpanel_python": ((), "mixpanel"),
    "control": ((), "_bare"),
    "control_thread": ((), "_bare"),
}


class _Ours:
    """Asyncanalytics, as a peer is driven."""

    packages = ("asyncanalytics", "httpx", "pydantic")
    sends = 1

    def __init__(self, url: str) -> None:
        self._library = import_module("asyncanalytics")
        self._url = url

    def steps(self) -> dict[str, Step]:
        """Return the steps, in order."""
        return {"make": self._make, "start": self._start, "first event": self._first}

    def _make(self) -> None:
        self._client = self._library.AsyncClient("key", endpoint=self._url)

    async def _start(self) -> None:
        await self._client.start()

    async def _first(self) -> None:
        await self._client.track(_load.EVENT, user_id="user-000000", properties=_load.order(0))
        await self._client.flush()

    async def close(self) -> None:
        """Stop what runs."""
        await self._client.aclose()


class _OursBefore(_Ours):
    """The same, made before the loop runs: that imports what a start would."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._make()

    def steps(self) -> dict[str, Step]:
        """Return those on the loop."""
        return {"start": self._start, "first event": self._first}


class _Peers:
    """A peer; it starts itself when it is made."""

    sends = 1

    def __init__(self, program: str, url: str) -> None:
        sys.path.insert(0, str(Path(__file__).parent))
        self._peer: Peer = import_module(program).PEER
        self.packages = self._peer.packages
        self._url = url

    def steps(self) -> dict[str, Step]:
        """Return the steps, in order."""
        return {"make": self._make, "first event": self._first}

    def _make(self) -> None:
        self._client = self._peer.make(self._url)

    async def _first(self) -> None:
        self._peer.track(self._client, _load.EVENT, "user-000000", _load.order(0))
        flushed = self._peer.flush(self._client)
        if inspect.isawaitable(flushed):
            await flushed

    async def close(self) -> None:
        """Leave it to the process's end."""


class _Control:
    """The bare limit: a socket, and one event on it."""

    packages = ("orjson",)
    sends = 1

    def __init__(self, url: str) -> None:
        self._bare = import_module("_bare")
        self._url = url

    def steps(self) -> dict[str, Step]:
        """Return the steps, in order."""
        return {"make": self._make, "first event": self._first}

    def _make(self) -> None:
        self._wire = self._bare.Wire(self._url)

    def _first(self) -> None:
        self._bare.send(self._wire, _load.calls(1))

    async def close(self) -> None:
        """Leave it to the process's end."""


class _ControlThread(_Control):
    """For a start a thread of plain Python, which imports, reads and sends nothing."""

    sends = 0

    def steps(self) -> dict[str, Step]:
        """Return the one step."""
        return {"start": self._start}

    async def _start(self) -> None:
        usual = sys.getswitchinterval()
        sys.setswitchinterval(_TURN)
        try:
            await asyncio.to_thread(_count)
        finally:
            sys.setswitchinterval(usual)


def _count() -> None:
    end = time.perf_counter() + _COUNTS
    while time.perf_counter() < end:
        pass


def _open(client: str, url: str) -> _Ours | _Peers | _Control:
    kinds: dict[str, type[_Ours | _Control]] = {
        "ours": _Ours,
        "ours_before": _OursBefore,
        "control": _Control,
        "control_thread": _ControlThread,
    }
    return kinds[client](url) if client in kinds else _Peers(client, url)


async def _run(step: Step) -> tuple[float, float]:
    """Return how long a step took, and how late the loop was at worst."""
    lags: list[float] = []
    ticker = asyncio.create_task(_pace.tick(lags))
    await asyncio.sleep(_REST)
    before = len(lags)
    start = time.perf_counter()
    done = step()
    if inspect.isawaitable(done):
        await done
    took = time.perf_counter() - start
    await asyncio.sleep(_REST)
    ticker.cancel()
    return took, max(lags[before:])


async def _steps(found: _Ours | _Peers | _Control) -> _subject.Answer:
    answer: _subject.Answer = {}
    blocks: dict[str, float] = {}
    for name, step in found.steps().items():
        answer[name], blocks[name] = await _run(step)
    await found.close()
    worst = max(blocks, key=lambda name: blocks[name])
    return answer | {"block": blocks[worst], "worst": worst, "blocks": blocks}


def _imported(shared: Sequence[str], own: str) -> tuple[float, float]:
    """Return the seconds that both imports take, one after the other, in a process of their own."""
    steps = [
        "from time import perf_counter as now",
        "begun = now()",
        *(f"import {each}" for each in shared),
        "between = now()",
        f"import {own}",
        "print(between - begun, now() - between)",
    ]
    command = [sys.executable, "-c", "; ".join(steps)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603 - our own words
    before, after = map(float, done.stdout.split())
    return before, after


def start(url: str, client: str) -> _subject.Answer:
    """Time the imports, and each step to the first event."""
    shared, own = _imported(*_IMPORTS[client])
    found = _open(client, url)
    _packages.extend(found.packages)
    return {"shared": shared, "own": own, "sent": found.sends} | asyncio.run(_steps(found))


_packages: list[str] = []

if __name__ == "__main__":
    _subject.answer(_packages, {"start": start})
