"""A server on one core, under load from another: the collector, or a control in its place.

Afterwards its events are counted. Those of each batch that was answered with 200 must be there and
good, and none may be there twice but where its request was cut and sent again.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import _loader
import _sink
import _subject
from starlette.requests import Request
from starlette.responses import Response

from asyncanalytics.collector import Collector, serving

WARM_UP = 20  # batches

Count = Callable[[Collection[int]], dict[str, int]]
"""Given the numbers of the batches that were answered with 200: what is there of them."""
Server = Callable[[], AbstractAsyncContextManager[tuple[str, Count]]]


# ---------------------------------------------------------------------------------- the collector


def _counted(collector: Collector) -> Count:
    def count(answered: Collection[int]) -> dict[str, int]:
        kept = set(collector.message_ids())
        missing = sum(each not in kept for batch in answered for each in _loader.ids(batch))
        stats = collector.stats()
        return {"missing": missing, "duplicates": stats.duplicates, "bad": stats.bad}

    return count


@asynccontextmanager
async def _memory() -> AsyncIterator[tuple[str, Count]]:
    with Collector() as collector:
        async with collector.serve() as url:
            yield url, _counted(collector)


@asynccontextmanager
async def _file() -> AsyncIterator[tuple[str, Count]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Collector(Path(folder) / "events.db") as collector,
    ):
        async with collector.serve() as url:
            yield url, _counted(collector)


# ------------------------------------------------------------------------------------ the controls


def _nothing(_: Collection[int]) -> dict[str, int]:
    return {}


async def _unread(scope: Any, receive: Any, send: Any) -> None:
    request = Request(scope, receive)
    async for _ in request.stream():
        pass
    await Response(b'{"success":true}', media_type="application/json")(scope, receive, send)


@asynccontextmanager
async def _server() -> AsyncIterator[tuple[str, Count]]:
    async with serving.serve(_unread, host="127.0.0.1", port=0) as url:
        yield url, _nothing


@asynccontextmanager
async def _bare() -> AsyncIterator[tuple[str, Count]]:
    inbox, manner = _sink.Inbox(), _sink.Manner()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _sink.Connection(inbox, manner), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", _nothing
    server.close()


SERVERS: dict[str, Server] = {"memory": _memory, "file": _file, "server": _server, "bare": _bare}
"""By name, what is put under load: each gives its address, and a function that counts."""


# ------------------------------------------------------------------------------------- the question


def _require(there: dict[str, int], cut: int) -> None:
    """Believe no figure if an event is missing, or there more often than it was sent."""
    missing, bad, twice = (there.get(each, 0) for each in ("missing", "bad", "duplicates"))
    if missing or bad or twice > cut * _loader.BATCH:
        raise RuntimeError(f"of {cut} cut requests: {there}")


async def ingest(url: str, events: int, core: int, server: str, **options: Any) -> _subject.Answer:
    """Take in so many events, and tell how long it took and what of them is there."""
    del url  # nothing goes to the sink
    batches = events // _loader.BATCH
    async with SERVERS[server]() as (there, count):
        load = {"url": there, "core": core, **options}
        warm = await _loader.send(_loader.Load(batches=WARM_UP, first=batches, **load))
        found = await _loader.send(_loader.Load(batches=batches, **load))
        counted = count([*warm["answered"], *found.pop("answered")])
    _require(counted, warm["cut"] + found["cut"])
    return {**found, **counted, "events": events, "sent": 0}


if __name__ == "__main__":
    _subject.answer(
        ("asyncanalytics", "orjson", "starlette", "uvicorn"),
        {"ingest": lambda **options: asyncio.run(ingest(**options))},
    )
