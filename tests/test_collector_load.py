"""What the collector answers with 200 is there: under overload, with cut connections, after a kill.

How quick it is, `benchmarks/ingest.py` measures, with more of the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from asyncanalytics.collector import Collector

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.long

EVENTS: Final = 25  # in a request
CUTS: Final = 5  # one request in so many is cut before it is sent

SERVE: Final = """
import sys
from asyncanalytics.collector import Collector
Collector(sys.argv[1]).run(port=0, on_start=lambda url: print(url, flush=True))
"""


def _ids(number: int) -> list[str]:
    return [f"{number}-{place}" for place in range(EVENTS)]


def _request(number: int) -> bytes:
    events = [
        {"type": "track", "event": "Added File", "userId": "u1", "messageId": each}
        for each in _ids(number)
    ]
    body = json.dumps({"batch": events}).encode()
    head = "POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Sender:
    """One user of the collector, who sends again what was cut."""

    def __init__(self, url: str, answered: set[int]) -> None:
        self._port = httpx.URL(url).port
        self._answered = answered

    async def send(self, numbers: range) -> None:
        """Send these requests over one connection, and over new ones where it is cut."""
        reader, writer = await self._connect()
        try:
            for number in numbers:
                if number % CUTS == 0:
                    await self._cut(writer, number)
                    reader, writer = await self._connect()
                writer.write(_request(number))
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2][:2]))
                assert head.startswith(b"HTTP/1.1 200 ")
                self._answered.add(number)
        finally:
            writer.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    @staticmethod
    async def _cut(writer: asyncio.StreamWriter, number: int) -> None:
        """End the connection within the head, within the body, or before the answer."""
        request = _request(number)
        end = (20, len(request) // 2, len(request))[number // CUTS % 3]
        writer.write(request[:end])
        await writer.drain()
        if number // CUTS % 2:
            writer.transport.abort()
        else:
            writer.close()
            await writer.wait_closed()


@pytest.mark.parametrize("in_file", [False, True], ids=["memory", "file"])
async def test_overload(tmp_path: Path, *, in_file: bool) -> None:
    """Of many at once, some of them cut, all that is answered is there, and nothing unknown."""
    answered: set[int] = set()
    with Collector(tmp_path / "events.db" if in_file else None) as collector:
        async with collector.serve() as url:
            sender = Sender(url, answered)
            parts = [range(first, first + 8) for first in range(0, 800, 8)]
            await asyncio.gather(*(sender.send(each) for each in parts))
        assert answered == set(range(800))
        seen = Counter(collector.message_ids())
        assert set(seen) == {each for number in answered for each in _ids(number)}
        assert max(seen.values()) <= 2
        stats = collector.stats()
    assert (stats.bad, set(stats.answers)) == (0, {200})
    assert stats.duplicates == (stats.requests - 800) * EVENTS


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
async def test_a_kill(tmp_path: Path) -> None:
    """After `kill -9` under load the file has all that was answered, each request whole or not."""
    path, answered = tmp_path / "events.db", set[int]()
    with subprocess.Popen(  # noqa: S603, ASYNC220 - our own words
        [sys.executable, "-c", SERVE, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        sender = Sender(process.stdout.readline().strip(), answered)
        parts = [range(first, first + 1_000) for first in range(0, 20_000, 1_000)]
        sending = [asyncio.create_task(sender.send(each)) for each in parts]
        while len(answered) < 300:  # noqa: ASYNC110 - a turn, not a wait
            await asyncio.sleep(0)
        process.kill()
        ends: list[Any] = await asyncio.gather(*sending, return_exceptions=True)
    assert all(isinstance(each, OSError | EOFError) for each in ends), ends
    with Collector(path) as collector:
        seen = Counter(each.partition("-")[0] for each in collector.message_ids())
    assert {str(number) for number in answered} <= set(seen)
    assert {count % EVENTS for count in seen.values()} == {0}
