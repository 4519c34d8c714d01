"""An app that serves a browser's request in this process, without a socket.

It is served bare; `bound` to its request, by the middleware alone or by FastAPI's dependency too;
or so bound and with one `call`, for which the request is read.
"""

from __future__ import annotations

import asyncio
import time
from itertools import cycle
from typing import TYPE_CHECKING, Any

import _load
import _subject
from fastapi import FastAPI

from asyncanalytics import AsyncClient
from asyncanalytics.integrations.fastapi import Analytics, AnalyticsMiddleware

if TYPE_CHECKING:
    from array import array

_HEADERS = {
    "host": "shop.example",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Safari/537.36",
    "accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
    "accept-encoding": "gzip, deflate, br, zstd",
    "accept-language": "en-GB,en;q=0.9,de;q=0.8",
    "cookie": "session=5e884898da28047151d0e56f8dc62927; theme=dark; "
    "ajs_anonymous_id=39ee7ea5-b6d8-4174-b612-04e1ef3fa952; ajs_user_id=user-000007",
    "referer": "https://search.example/results",
    "sec-ch-ua": '"Chromium";v="140", "Google Chrome";v="140", "Not=A?Brand";v="24"',
    "sec-ch-ua-mobile": "?0",
    "sec-ch-ua-platform": '"Linux"',
    "sec-fetch-dest": "document",
    "sec-fetch-mode": "navigate",
    "sec-fetch-site": "cross-site",
    "upgrade-insecure-requests": "1",
}
_SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "https",
    "path": "/basket",
    "raw_path": b"/basket",
    "root_path": "",
    "query_string": b"utm_source=news&utm_medium=email&utm_campaign=spring&item=7",
    "client": ("203.0.113.77", 40_000),
    "server": ("192.0.2.1", 443),
    "headers": [(name.encode(), value.encode()) for name, value in _HEADERS.items()],
}
_ORDERS = cycle(_load.orders())


async def _receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(_: Any) -> None:
    """Take the response."""


def _asgi_app(client: AsyncClient, what: str) -> Any:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        if what == "call":
            await client.track(_load.EVENT, properties=next(_ORDERS))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return app if what == "bare" else AnalyticsMiddleware(app)


def _fastapi_app(_: AsyncClient, what: str) -> FastAPI:
    app = FastAPI(openapi_url=None)
    if what != "bare":
        app.add_middleware(AnalyticsMiddleware)
    app.get("/basket")({"bare": _bare, "bound": _bound, "call": _call}[what])
    return app


async def _bare() -> None:
    """Answer."""


async def _bound(_analytics: Analytics) -> None:
    """Answer, with a client at hand."""


async def _call(analytics: Analytics) -> None:
    await analytics.track(_load.EVENT, properties=next(_ORDERS))


async def _times(app: Any, client: AsyncClient, count: int) -> array[float]:
    clock, times = time.perf_counter, _subject.room(count)
    for number in range(count):
        if number % _subject.BURST == 0:
            await asyncio.sleep(_subject.PAUSE)
        # As a server gives them: a scope of its own, and a copy of the lifespan's state.
        scope = {**_SCOPE, "state": {"analytics": client}}
        start = clock()
        await app(scope, _receive, _send)
        times[number] = clock() - start
    return times


async def request_time(url: str, requests: int, framework: str, what: str) -> _subject.Answer:
    """Time each request, in bursts."""
    async with AsyncClient("key", endpoint=url) as client:
        app = (_asgi_app if framework == "asgi" else _fastapi_app)(client, what)
        times = await _times(app, client, _subject.WARM_UP + requests)
    sent = len(times) if what == "call" else 0
    return _subject.quantiles(times[_subject.WARM_UP :]) | {"sent": sent}


if __name__ == "__main__":
    _subject.answer(
        ("asyncanalytics", "fastapi", "starlette"),
        {"request_time": lambda **options: asyncio.run(request_time(**options))},
    )
