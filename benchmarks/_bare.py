"""The bare limit: no client, nothing checked, queued, counted or tried again.

Each event has an id and a time of its own, made in the fastest way there is; orjson makes its
bytes, a join makes the request, and a raw socket takes it.
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from itertools import cycle
from typing import Any
from urllib.parse import urlsplit

import _load
import orjson
from uuid_utils import uuid7

try:
    from isal.igzip import compress
except ImportError:
    from functools import partial
    from gzip import compress as compress_slowly

    compress = partial(compress_slowly, mtime=0)

MAX_BYTES = 475_000  # of a request, as for the clients

_HEAD = "POST /v1/batch HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {}\r\n"
_GZIP = "Content-Encoding: gzip\r\n"
_LENGTH = "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n"


class Wire:
    """One kept-alive connection: the answer to a request is read before the next is sent."""

    def __init__(self, url: str, *, gzip: bool = False, user: str = "a2V5Og==") -> None:
        """Connect. `user` is who sends, as Basic authentication has it."""
        where = urlsplit(url)
        self._gzip = gzip
        self._head = _HEAD.format(where.netloc, user) + (_GZIP if gzip else "")
        self._socket = socket.create_connection((where.hostname, where.port))
        self._owed = False

    def post(self, bodies: list[bytes], between: bytes = b",") -> None:
        """Send a batch, and leave its answer until later: the sink reads while we encode.

        The list is used up by it. `between` stands between two bodies.
        """
        bodies[0] = b'{"batch":[' + bodies[0]
        bodies[-1] += b'],"sentAt":"' + _now().encode() + b'"}'
        if self._gzip:
            bodies = [compress(between.join(bodies), compresslevel=1)]
        size = sum(map(len, bodies)) + (len(bodies) - 1) * len(between)
        # One join, with the head in it: a second copy would cost far more than the first.
        bodies[0] = (self._head + _LENGTH.format(size)).encode() + bodies[0]
        self.settle()
        self._socket.sendall(between.join(bodies))
        self._owed = True

    def settle(self) -> None:
        """Read the answer that is still to come, which is short and comes at once."""
        if self._owed and not self._socket.recv(65_536).startswith(b"HTTP/1.1 200 "):
            raise ConnectionError("the sink did not answer with 200")
        self._owed = False


class Wires:
    """Several of them, which take turns: as many requests can be under way."""

    def __init__(self, url: str, count: int) -> None:
        self._wires = [Wire(url) for _ in range(count)]
        self._turns = cycle(self._wires)

    def post(self, bodies: list[bytes]) -> None:
        """Send a batch, when the answer to the one before it on the same wire is there."""
        next(self._turns).post(bodies)

    def settle(self) -> None:
        """Read the answers that are still to come."""
        for each in self._wires:
            each.settle()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def encode(
    user_id: str,
    properties: dict[str, Any],
    name: str = _load.EVENT,
    *,
    message_id: str | None = None,
) -> bytes:
    """Return one event's bytes."""
    event = {
        "type": "track",
        "event": name,
        "userId": user_id,
        "messageId": message_id or str(uuid7()),
        "timestamp": datetime.now(UTC),
        "context": {"library": {"name": "control", "version": "1.0.0"}, "channel": "server"},
        "properties": properties,
    }
    return orjson.dumps(event)


def send(
    wire: Wire | Wires, calls: list[tuple[str, dict[str, Any]]], name: str = _load.EVENT
) -> None:
    """Send the calls, and return when the last is acknowledged."""
    bodies: list[bytes] = []
    size = 0
    for user_id, properties in calls:
        body = encode(user_id, properties, name)
        size += len(body) + 1
        if size > MAX_BYTES - 100:  # what is around them
            wire.post(bodies)
            bodies, size = [], len(body) + 1
        bodies.append(body)
    wire.post(bodies)
    wire.settle()
