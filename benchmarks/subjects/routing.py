"""A router between a load and the sink, for two integrations, or a control in its place.

It runs on one core; what loads it and what it sends to are on another.
"""

from __future__ import annotations

import asyncio
import gzip
import tempfile
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import _loader
import _subject
import orjson
from _bare import Wire
from starlette.requests import Request
from starlette.responses import Response

from asyncanalytics.collector import router, serving
from asyncanalytics.collector.pipelines import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

WARM_UP = 20  # batches
_USERS = ("cGxhaW46", "Y2hhbmdlZDo=")  # those of the keys below, as Basic authentication has them

_ANSWERS = {200, 499, 503}  # a cut connection is 499; the load judges 503

Server = AbstractAsyncContextManager[tuple[str, "Callable[[], int]"]]
"""Gives an address, and a function that says how many events the last integration has."""


def _config(sink: str, folder: str | None, room: int) -> dict[str, Any]:
    integrations = [
        {"name": "plain", "to": sink, "key": "plain"},
        {
            "name": "changed",
            "to": sink,
            "key": "changed",  # by their keys the sink counts them apart
            "transform": [{"drop": ["context.channel"]}],
        },
    ]
    pipeline = {"name": "shop", "write_key": "key", "integrations": integrations}
    pipeline["queueing"] = {"max_events": room}
    if folder is not None:
        pipeline["spool"] = {"folder": folder, "max_bytes": 4 << 30}
    return {"pipelines": [pipeline]}


@asynccontextmanager
async def _router(
    sink: str, folder: str | None, room: int
) -> AsyncIterator[tuple[str, Callable[[], int]]]:
    made = router(_config(sink, folder, room))

    def delivered() -> int:
        integrations = made.stats().pipelines["shop"].integrations
        return min(each.delivered for each in integrations.values())

    async with made.serve(port=0) as url:
        yield url, delivered
    stats = made.stats()
    if not stats.is_balanced or not stats.answers.keys() <= _ANSWERS:
        raise RuntimeError(f"the router did not take all: {stats}")


@asynccontextmanager
async def _control(sink: str, _: str | None) -> AsyncIterator[tuple[str, Callable[[], int]]]:
    """Parse, write each event twice, and send each request on to two: nothing checked or queued."""
    wires = [Wire(sink, user=each) for each in _USERS]
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        request = Request(scope, receive)
        body = await request.body()
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        events = orjson.loads(body)["batch"]
        for wire in wires:
            wire.post([orjson.dumps(each) for each in events])
        sent += len(events)
        await Response(b'{"success":true}', media_type="application/json")(scope, receive, send)

    async with serving.serve(app, host="127.0.0.1", port=0) as url:
        yield url, lambda: sent
    for wire in wires:
        wire.settle()


async def _arrived(delivered: Callable[[], int], events: int) -> None:
    async with asyncio.timeout(60):
        while delivered() < events:  # noqa: ASYNC110 - it is the figure that is waited for
            await asyncio.sleep(0.01)


async def _route(server: Server, events: int, **load: Any) -> _subject.Answer:
    """Time from the first request until the sink has every event, from both integrations."""
    batches = events // _loader.BATCH
    sent = (WARM_UP + batches) * _loader.BATCH
    async with server as (url, delivered):
        await _loader.send(_loader.Load(url=url, batches=WARM_UP, **load))
        await _arrived(delivered, WARM_UP * _loader.BATCH)
        watch = _subject.Stopwatch()
        said = await _loader.send(_loader.Load(url=url, batches=batches, first=WARM_UP, **load))
        await _arrived(delivered, sent)
        found = watch.read()
    taken = events / said["seconds"]
    told = {each: said[each] for each in ("cut", "refused")}
    return found | told | {"events": events, "sent": sent, "taken_per_second": taken}


def route(url: str, server: str, room: int = 100_000, **options: Any) -> _subject.Answer:
    """Answer for one of the servers; `room`: events that an integration's queue holds."""
    running.collect_less()
    with tempfile.TemporaryDirectory() as folder:
        if server == "control":
            return asyncio.run(_route(_control(url, None), **options))
        spool = f"{folder}/spool" if server == "spooled" else None
        return asyncio.run(_route(_router(url, spool, room), **options))


if __name__ == "__main__":
    _subject.answer(("asyncanalytics", "starlette", "uvicorn", "httpx"), {"router": route})
