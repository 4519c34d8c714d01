"""The load on a server: a client in a process of its own that sends batches as they are answered.

Promises:
- Every body is made before anything is timed, and every event has an id of its own: a UUID of
  version 4, as most SDKs make them. `ids` tells those of a batch to whoever counts afterwards.
- It sends over kept-alive connections, each with one request under way, and nothing is pipelined.
- Where it is told to, it ends a share of the connections in the middle of a request or right after
  it, by a reset or by closing them, and sends that request again on a new one. An answer that is
  not 200 ends it.

It is run with its options as JSON, prints a line when it is ready, starts when it gets one, and
prints one JSON object: the seconds, and the numbers of the batches that were answered.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import selectors
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from random import Random
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import _load
import _subject
from _bare import encode

BATCH = 100  # events
_LONGEST = 1 << 24  # bytes of what it prints

_HEAD = (
    "POST /v1/batch HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic a2V5Og==\r\n"
    "Content-Type: application/json\r\n{}Content-Length: {}\r\n\r\n"
)
_NONE = -1  # no batch is under way
_RESET = struct.pack("ii", 1, 0)  # lingers for no time: what is on the way is thrown away


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is sent, and how."""

    url: str
    batches: int
    first: int = 0
    """The number of the first batch."""
    connections: int = 8
    gzip: bool = False
    cuts: float = 0.0
    """The share of requests that are cut."""
    again: bool = False
    """Whether what is answered with 503 is sent again, where anything but 200 else is an error."""
    core: int | None = None
    """Where the process runs, if the system can pin it."""

    @property
    def numbers(self) -> range:
        """The numbers of the batches."""
        return range(self.first, self.first + self.batches)

    def command(self) -> list[str]:
        """Return what runs it."""
        return [sys.executable, __file__, json.dumps(asdict(self))]


def ids(batch: int) -> list[str]:
    """Return the messageIds of a batch."""
    chance = Random(batch)
    return [str(UUID(int=chance.getrandbits(128), version=4)) for _ in range(BATCH)]


def body(batch: int) -> bytes:
    """Return a batch of full events."""
    events = [
        encode(user_id, properties, message_id=message_id)
        for message_id, (user_id, properties) in zip(ids(batch), _CALLS, strict=True)
    ]
    return b'{"batch":[' + b",".join(events) + b'],"sentAt":"2026-11-01T10:00:00.000Z"}'


_CALLS = _load.calls(BATCH)


class _Connection:
    """One connection, and the request that is under way on it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.batch = _NONE
        self.status = b""
        """Of the last answer."""
        self._heard = b""

    def cut(self, part: bytes, *, reset: bool) -> None:
        """Send a part of a request, and be gone."""
        self.socket.sendall(part)
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.socket.close()

    def is_answered(self) -> bool:
        """Read what is there, and tell whether the answer is complete."""
        heard = self.socket.recv(65_536)
        self._heard += heard
        head, end, content = self._heard.partition(b"\r\n\r\n")
        if not heard:
            raise ConnectionError("the connection was closed in place of an answer")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if not end or len(content) < length:
            return False
        self._heard, self.status = b"", head.split(b" ", 2)[1]
        return True


class _Sender:
    """All connections."""

    def __init__(self, load: Load) -> None:
        where = urlsplit(load.url)
        self._load = load
        self._address = (where.hostname or "", where.port or 0)
        self._requests = {each: _request(where.netloc, each, load) for each in load.numbers}
        self._waiting = deque(load.numbers)
        self._chance = Random(load.first)
        self._selector = selectors.DefaultSelector()
        self.cut = self.refused = 0
        self.answered: list[int] = []
        for _ in range(load.connections):
            self._connect()

    def _connect(self) -> _Connection:
        made = _Connection(self._address)
        self._selector.register(made.socket, selectors.EVENT_READ, made)
        return made

    def send_all(self) -> None:
        """Return when every batch is answered."""
        for key in list(self._selector.get_map().values()):
            self._send(key.data)
        while len(self.answered) < self._load.batches:
            for key, _ in self._selector.select():
                if key.data.batch == _NONE:  # it was idle, and the server closed it
                    self._selector.unregister(key.fileobj)
                elif key.data.is_answered():
                    self._note(key.data)
                    self._send(key.data)

    def _note(self, connection: _Connection) -> None:
        if connection.status == b"200":
            self.answered.append(connection.batch)
        elif connection.status == b"503" and self._load.again:
            self.refused += 1
            self._waiting.append(connection.batch)
        else:
            raise ConnectionError(f"not the answer 200, but {connection.status!r}")
        connection.batch = _NONE

    def _send(self, connection: _Connection) -> None:
        while self._waiting:
            batch = self._waiting.popleft()
            request = self._requests[batch]
            if self._chance.random() >= self._load.cuts:
                connection.batch = batch
                connection.socket.sendall(request)
                return
            self.cut += 1
            self._waiting.append(batch)
            self._selector.unregister(connection.socket)
            end = self._chance.randint(0, 2 * len(request))  # beyond it: nothing is missing
            connection.cut(request[:end], reset=self._chance.random() < 0.5)
            connection = self._connect()


def _request(host: str, batch: int, load: Load) -> bytes:
    content = body(batch)
    encoding = ""
    if load.gzip:
        content, encoding = gzip.compress(content, 6), "Content-Encoding: gzip\r\n"
    return _HEAD.format(host, encoding, len(content)).encode() + content


async def send(load: Load) -> dict[str, Any]:
    """Have a load sent by a process of its own, and return what that prints.

    Beside it, `cpu_seconds`: what it took here meanwhile.
    """
    pipe = asyncio.subprocess.PIPE
    sender = await asyncio.create_subprocess_exec(
        *load.command(), stdin=pipe, stdout=pipe, limit=_LONGEST
    )
    assert sender.stdout is not None  # noqa: S101 - it is piped
    await sender.stdout.readline()
    watch = _subject.Stopwatch()
    said, _ = await sender.communicate(b"go\n")
    cpu = watch.read()["cpu_seconds"]
    if sender.returncode:
        raise RuntimeError("the load was not sent: see above")
    found: dict[str, Any] = json.loads(said)
    return found | {"cpu_seconds": cpu}


def main() -> None:
    """Be ready, send when told to, and tell what came of it."""
    options: dict[str, Any] = json.loads(sys.argv[1])
    load = Load(**options)
    if load.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {load.core})
    sender = _Sender(load)
    print("ready", flush=True)
    sys.stdin.readline()
    start = time.perf_counter()
    sender.send_all()
    seconds = time.perf_counter() - start
    told = {"answered": sender.answered, "cut": sender.cut, "refused": sender.refused}
    print(json.dumps({"seconds": seconds, **told}))


if __name__ == "__main__":
    main()
