"""What all figures rest on: that the benchmarks' sink finds what is lost, doubled or changed."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson
import pytest

HERE = Path(__file__).resolve().parents[1] / "benchmarks"
SENT = 20


@pytest.fixture(name="parts")
def _parts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    return {name: import_module(name) for name in ("_bench", "_load", "_sink")}


@pytest.fixture(name="events")
def _events(parts: Any) -> list[dict[str, Any]]:
    calls = parts["_load"].calls(SENT)
    return [
        {"messageId": str(number), "event": "Order Completed", "properties": properties}
        for number, (_, properties) in enumerate(calls)
    ]


def judged(
    parts: Any,
    *requests: list[dict[str, Any]],
    key: bytes = b"",
    cut: bool = False,
    held: float = 0.0,
) -> Any:
    """Return whether the run may be believed, and what the sink has counted."""
    inbox = parts["_sink"].Inbox()
    for number, events in enumerate(requests):
        body = gzip.compress(orjson.dumps({"batch": events}))
        inbox.put(b"/v1/batch", body, key=key * number, compressed=True)
    count = inbox.count()
    assert inbox.count()["events"] == 0  # each is counted once
    return parts["_bench"]._is_right(count | {"held": held}, SENT, is_cut=cut), count


def test_all_events_once_and_unchanged_are_right(parts: Any, events: list[dict[str, Any]]) -> None:
    """However they are spread over requests."""
    is_right, count = judged(parts, events[:7], events[7:])

    assert is_right
    assert (count["requests"], count["distinct"], count["again"]) == (2, SENT, 0)


def test_each_integration_has_all_of_them(parts: Any, events: list[dict[str, Any]]) -> None:
    """By its key: what one has does not stand for what another lacks."""
    assert judged(parts, events, events, key=b"k")[0]
    assert not judged(parts, events, events[1:], key=b"k")[0]


def test_a_lost_event_is_found(parts: Any, events: list[dict[str, Any]]) -> None:
    """No figure is shown then."""
    is_right, count = judged(parts, events[1:])

    assert not is_right
    assert count["distinct"] == SENT - 1


def test_an_event_that_came_twice_is_found(parts: Any, events: list[dict[str, Any]]) -> None:
    """A client that sends twice is not faster."""
    is_right, count = judged(parts, events, events[:1])

    assert not is_right
    assert count["again"] == 1


def test_it_may_come_twice_where_requests_are_cut(parts: Any, events: list[dict[str, Any]]) -> None:
    """They are sent again; but none may be missing."""
    assert judged(parts, events, events[:1], cut=True)[0]
    assert not judged(parts, events[1:], events[1:], cut=True)[0]


def test_it_may_come_twice_where_requests_wait_long(
    parts: Any, events: list[dict[str, Any]]
) -> None:
    """Clients give them up then; before that none may send again, and none may be missing."""
    assert judged(parts, events, events[:1], held=16.0)[0]
    assert not judged(parts, events, events[:1], held=9.0)[0]
    assert not judged(parts, events[1:], events[1:], held=16.0)[0]


async def test_the_sink_says_how_long_it_held_requests(parts: Any) -> None:
    """Not for how long it held any: a request that came late was held for less."""
    sink = parts["_sink"]
    inbox, manner = sink.Inbox(), sink.Manner()
    made, lost = itertools.count(), asyncio.Semaphore(0)

    class Connection(sink.Connection):  # type: ignore[misc, name-defined]
        """One whose end can be waited for."""

        def connection_lost(self, _: Exception | None) -> None:
            """Count it."""
            lost.release()

    def accept() -> asyncio.Protocol:
        next(made)
        return Connection(inbox, manner)

    server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def told(path: str) -> Any:
        asking, asked = await asyncio.open_connection("127.0.0.1", port)
        asked.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        head = await asking.readuntil(b"\r\n\r\n")
        body = await asking.readexactly(int(head.rpartition(b":")[2]))
        asked.close()
        return orjson.loads(body)

    await told("/hold")
    await asyncio.sleep(0.3)
    writer.write(b'POST /v1/batch HTTP/1.1\r\nContent-Length: 12\r\n\r\n{"batch":[]}')
    came = time.monotonic()
    await asyncio.sleep(0.1)
    await told("/release")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    held = (await told("/count"))["held"]
    assert 0.09 < held < time.monotonic() - came
    assert (await told("/count"))["held"] == 0.0  # each is told once
    writer.close()
    server.close()
    for _ in range(next(made)):
        await lost.acquire()


def test_a_changed_event_is_found(parts: Any, events: list[dict[str, Any]]) -> None:
    """One property is enough."""
    events[3]["properties"] = {**events[3]["properties"], "total": 0}

    is_right, count = judged(parts, events)

    assert not is_right
    assert count["altered"] == 1
