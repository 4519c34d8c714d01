"""The sink: an HTTP server in a process of its own that keeps what it gets and counts it later.

Promises:
- A request is answered as soon as it is read; nothing is parsed or inflated before `GET /count`.
- `GET /count` answers with what came since the last count: requests, bytes of their bodies,
  events, distinct messageIds, and events whose properties are not those that were sent.

It prints its port, and runs until it is ended.
"""

from __future__ import annotations

import asyncio
import gzip
from typing import Any, cast

import _load
import orjson

_ORDERS = {each["order_id"]: each for each in _load.orders()}


class Inbox:
    """The bodies that came since the last count."""

    def __init__(self) -> None:
        self._bodies: list[tuple[bool, bytes]] = []

    def put(self, body: bytes, *, compressed: bool) -> None:
        """Keep a body as it came."""
        self._bodies.append((compressed, body))

    def count(self) -> dict[str, int]:
        """Return the figures, and forget the bodies."""
        bodies, self._bodies = self._bodies, []
        ids: set[str] = set()
        events = altered = 0
        for compressed, body in bodies:
            batch = orjson.loads(gzip.decompress(body) if compressed else body)["batch"]
            events += len(batch)
            ids.update(event["messageId"] for event in batch)
            altered += sum(map(_is_altered, batch))
        return {
            "requests": len(bodies),
            "bytes": sum(len(body) for _, body in bodies),
            "events": events,
            "distinct": len(ids),
            "altered": altered,
        }


def _is_altered(event: dict[str, Any]) -> bool:
    properties = event["properties"]
    return bool(event["event"] != _load.EVENT or properties != _ORDERS[properties["order_id"]])


class Connection(asyncio.Protocol):
    """One connection: requests with a Content-Length, one after the other."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._data = bytearray()
        self._head: bytes | None = None
        self._length = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way to answer."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._data += data
        while self._has_request():
            self._transport.write(self._answer())

    def _has_request(self) -> bool:
        if self._head is None:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return False
            self._head, self._data = bytes(head.lower()), rest
            self._length = _content_length(self._head)
        return len(self._data) >= self._length

    def _answer(self) -> bytes:
        head, self._head = self._head or b"", None
        body = bytes(memoryview(self._data)[: self._length])
        del self._data[: self._length]
        if head.startswith(b"get /count "):
            answer = orjson.dumps(self._inbox.count())
        else:
            self._inbox.put(body, compressed=b"\r\ncontent-encoding: gzip" in head)
            answer = b'{"success":true}'
        start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
        return start + str(len(answer)).encode() + b"\r\n\r\n" + answer


def _content_length(head: bytes) -> int:
    value = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
    return int(value or b"0")


async def main() -> None:
    """Serve on a free port of this machine."""
    inbox = Inbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(inbox), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
