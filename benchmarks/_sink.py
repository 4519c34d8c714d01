"""The sink: an HTTP server in a process of its own that keeps what it gets and counts it later.

Promises:
- A request is answered as soon as it is read, or after the latency that was asked for; nothing
  is parsed or inflated before `GET /count`.
- `GET /count` answers with what came since the last count: requests, bytes of their bodies,
  events, distinct ids, the fewest of them that came with any one key, events that are there again
  with the same key, and events whose name or properties are not those that were sent; and for how
  many seconds a request was held at most.
- `GET /latency/0.05` makes it answer each request 50 ms after it came. After `GET /hold` it
  answers none, until `GET /release` answers all of them.
- It reads the wire form of each client that is measured: see `_DIALECTS`.

It prints its port, and runs until it is ended.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qs

import _load
import orjson

# What all of the clients take for success.
_OK = b'{"success":true,"status":1,"code":200}'
_START = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a client writes down its events."""

    events: str = "batch"
    """The member of the body that holds them; empty: a form's `data` is the list of them."""
    id: str
    event: str = "event"
    properties: str = "properties"
    exact: bool = True
    """Whether the client adds nothing of its own to the properties."""

    def read(self, body: bytes) -> list[dict[str, Any]]:
        """Return the events of a body."""
        if not self.events:
            (data,) = parse_qs(body)[b"data"]
            found = orjson.loads(data)
            return [{**each, self.id: each["properties"][self.id]} for each in found]
        return cast("list[dict[str, Any]]", orjson.loads(body)[self.events])

    def is_altered(self, event: dict[str, Any]) -> bool:
        """Whether an event is not what was sent."""
        name, wanted = _load.expected(event[self.properties])
        found = event[self.properties]
        if not self.exact:
            found = {key: value for key, value in found.items() if key in wanted}
        return bool(event[self.event] != name or found != wanted)


_DIALECTS = {
    b"/v1/batch": Dialect(id="messageId"),  # Segment, RudderStack, ours, the control
    b"/batch": Dialect(id="uuid", exact=False),  # PostHog
    b"/2/httpapi": Dialect(  # Amplitude
        events="events", id="insert_id", event="event_type", properties="event_properties"
    ),
    b"/track": Dialect(events="", id="$insert_id", exact=False),  # Mixpanel
}


class Inbox:
    """The bodies that came since the last count."""

    def __init__(self) -> None:
        self._bodies: list[tuple[Dialect, bytes, bool, bytes]] = []

    def put(self, path: bytes, body: bytes, *, key: bytes, compressed: bool) -> None:
        """Keep a body as it came. What is sent to another path holds no events."""
        dialect = _DIALECTS.get(path.partition(b"?")[0].rstrip(b"/"))
        if dialect is not None:
            self._bodies.append((dialect, key, compressed, body))

    def count(self) -> dict[str, int]:
        """Return the figures, and forget the bodies."""
        bodies, self._bodies = self._bodies, []
        ids: dict[bytes, set[str]] = {}
        events = altered = 0
        for dialect, key, compressed, body in bodies:
            batch = dialect.read(gzip.decompress(body) if compressed else body)
            events += len(batch)
            ids.setdefault(key, set()).update(event[dialect.id] for event in batch)
            altered += sum(map(dialect.is_altered, batch))
        return {
            "requests": len(bodies),
            "bytes": sum(len(body) for *_, body in bodies),
            "events": events,
            "distinct": len(set().union(*ids.values())),
            "fewest": min(map(len, ids.values()), default=0),
            "again": events - sum(map(len, ids.values())),
            "altered": altered,
        }


class Manner:
    """When requests are answered."""

    def __init__(self) -> None:
        self._latency = 0.0
        self._holds = False
        self._held: list[tuple[asyncio.Transport, float]] = []
        self._longest = 0.0

    def wait(self, seconds: float) -> None:
        """Answer each request so long after it came."""
        self._latency = seconds

    def hold(self) -> None:
        """Answer none."""
        self._holds = True

    def release(self) -> None:
        """Answer those that are held, and the next as ever."""
        self._holds = False
        held, self._held = self._held, []
        now = time.monotonic()
        for transport, came in held:
            self._longest = max(self._longest, now - came)
            _answer(transport)

    def longest(self) -> float:
        """Return for how many seconds a request was held at most, since this was asked."""
        longest, self._longest = self._longest, 0.0
        return longest

    def acknowledge(self, transport: asyncio.Transport) -> None:
        """Answer a request, in its time."""
        if self._holds:
            self._held.append((transport, time.monotonic()))
        elif self._latency:
            asyncio.get_running_loop().call_later(self._latency, _answer, transport)
        else:
            _answer(transport)


def _answer(transport: asyncio.Transport, content: bytes = _OK) -> None:
    if not transport.is_closing():
        transport.write(_START + str(len(content)).encode() + b"\r\n\r\n" + content)


class Connection(asyncio.Protocol):
    """One connection: requests with a Content-Length, one after the other."""

    def __init__(self, inbox: Inbox, manner: Manner) -> None:
        self._inbox = inbox
        self._manner = manner
        self._data = bytearray()
        self._head: bytes | None = None
        self._length = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take each request that is complete."""
        self._data += data
        while self._has_request():
            self._take()

    def _has_request(self) -> bool:
        if self._head is None:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return False
            self._head, self._data = bytes(head), rest
            self._length = int(_header(self._head, b"content-length") or b"0")
        return len(self._data) >= self._length

    def _take(self) -> None:
        head, self._head = self._head or b"", None
        body = bytes(memoryview(self._data)[: self._length])
        del self._data[: self._length]
        method, path, _ = head.split(b" ", 2)
        if method == b"GET":
            _answer(self._transport, self._told(path.decode()))
        else:
            compressed = b"\r\ncontent-encoding: gzip" in head.lower()
            key = _header(head, b"authorization")
            self._inbox.put(path, body, key=key, compressed=compressed)
            self._manner.acknowledge(self._transport)

    def _told(self, path: str) -> bytes:
        if path == "/count":
            return orjson.dumps(self._inbox.count() | {"held": self._manner.longest()})
        if path.startswith("/latency/"):
            self._manner.wait(float(path.removeprefix("/latency/")))
        elif path == "/hold":
            self._manner.hold()
        elif path == "/release":
            self._manner.release()
        return _OK


def _header(head: bytes, name: bytes) -> bytes:
    _, found, rest = head.lower().partition(b"\r\n" + name + b":")
    return head[len(head) - len(rest) :].partition(b"\r\n")[0].strip() if found else b""


async def main() -> None:
    """Serve on a free port of this machine."""
    inbox, manner = Inbox(), Manner()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(inbox, manner), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
