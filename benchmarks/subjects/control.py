"""The controls: what is left of each figure where there is no client.

Throughput: orjson, join and a raw socket; no model, no queue, nothing checked, nothing counted,
nothing tried again. Each event has an id and a time of its own, made in the fastest way there is.
"""

from __future__ import annotations

import asyncio
import socket
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import _load
import _pace
import _subject
import orjson
from uuid_utils import uuid7

MAX_BYTES = 475_000  # of a request, as for the clients

_HEAD = "POST /v1/batch HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic a2V5Og==\r\n"
_LENGTH = "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n"


class _Wire:
    """One kept-alive connection: the answer to a request is read before the next is sent."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._head = _HEAD.format(where.netloc)
        self._socket = socket.create_connection((where.hostname, where.port))
        self._owed = False

    def post(self, bodies: list[bytes]) -> None:
        """Send a batch, and leave its answer until later: the sink reads while we encode."""
        self.settle()
        content = b'{"batch":[' + b",".join(bodies) + b'],"sentAt":"' + _now().encode() + b'"}'
        head = (self._head + _LENGTH.format(len(content))).encode()
        self._socket.sendall(head + content)
        self._owed = True

    def settle(self) -> None:
        """Read the answer that is still to come, which is short and comes at once."""
        if self._owed and not self._socket.recv(65_536).startswith(b"HTTP/1.1 200 "):
            raise ConnectionError("the sink did not answer with 200")
        self._owed = False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _encode(user_id: str, properties: dict[str, Any]) -> bytes:
    event = {
        "type": "track",
        "event": _load.EVENT,
        "userId": user_id,
        "messageId": str(uuid7()),
        "timestamp": datetime.now(UTC),
        "context": {"library": {"name": "control", "version": "1.0.0"}, "channel": "server"},
        "properties": properties,
    }
    return orjson.dumps(event)


def _send(wire: _Wire, calls: list[tuple[str, dict[str, Any]]]) -> None:
    bodies: list[bytes] = []
    size = 0
    for user_id, properties in calls:
        body = _encode(user_id, properties)
        size += len(body) + 1
        if size > MAX_BYTES - 100:  # what is around them
            wire.post(bodies)
            bodies, size = [], len(body) + 1
        bodies.append(body)
    wire.post(bodies)
    wire.settle()


def throughput(url: str, events: int) -> _subject.Answer:
    """Time from the first event until the sink has acknowledged the last."""
    calls = _load.calls(events)
    wire = _Wire(url)
    _send(wire, _load.calls(_subject.WARM_UP))
    watch = _subject.Stopwatch()
    _send(wire, calls)
    return watch.read() | {"sent": _subject.WARM_UP + events}


async def _nothing(event: str, *, user_id: str, properties: dict[str, Any]) -> None:
    """Stand for a client that does nothing."""


async def _empty_calls(calls: list[tuple[str, dict[str, Any]]]) -> list[float]:
    clock, times = time.perf_counter, []
    for number, (user_id, properties) in enumerate(calls, 1):
        start = clock()
        await _nothing(_load.EVENT, user_id=user_id, properties=properties)
        times.append(clock() - start)
        if number % _subject.BURST == 0:
            await asyncio.sleep(_subject.PAUSE)
    return times


def _encodings(calls: list[tuple[str, dict[str, Any]]]) -> list[float]:
    clock, times = time.perf_counter, []
    for number, (user_id, properties) in enumerate(calls, 1):
        start = clock()
        _encode(user_id, properties)
        times.append(clock() - start)
        if number % _subject.BURST == 0:
            time.sleep(_subject.PAUSE)
    return times


def call_time(url: str, calls: int, what: str) -> _subject.Answer:  # noqa: ARG001 - sends nothing
    """Time awaited calls that do nothing, or only the making of each event's bytes."""
    made = _load.calls(calls)
    times = asyncio.run(_empty_calls(made)) if what == "empty" else _encodings(made)
    return _subject.call_times(times) | {"sent": 0}


def loop_lag(url: str, rate: int, seconds: float) -> _subject.Answer:  # noqa: ARG001 - as above
    """Measure a loop that is idle but for the ticker, and the pace of calls that do nothing."""

    async def track(user_id: str, properties: dict[str, Any]) -> None:
        await _nothing(_load.EVENT, user_id=user_id, properties=properties)

    return asyncio.run(_pace.measure(track, rate=rate, seconds=seconds)) | {"sent": 0}


if __name__ == "__main__":
    _subject.answer(
        ("orjson",), {"throughput": throughput, "call_time": call_time, "loop_lag": loop_lag}
    )
