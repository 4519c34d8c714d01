"""Where events come in: every path of the protocol, long and short."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.routing import Route as Path

from asyncanalytics.collector.envelope import BATCH, DITTOFEED, Route, pixel_route

Handler = Callable[[Request, Route], Awaitable[Response]]

_SHORT: Final = {
    "i": "identify",
    "t": "track",
    "p": "page",
    "s": "screen",
    "g": "group",
    "a": "alias",
}
_CALL_NAMES: Final = {**_SHORT, **{call: call for call in _SHORT.values()}}
_BATCH_NAMES: Final = ("batch", "import", "b")


class Taker(Protocol):
    """What takes ingest requests in."""

    async def post(self, request: Request, route: Route) -> Response:
        """Answer a POST."""

    async def pixel(self, request: Request, route: Route) -> Response:
        """Answer a GET whose query holds the event."""


def intake_routes(taker: Taker) -> list[BaseRoute]:
    """Return the routes of all paths, each answered by the taker."""
    batches = [_post(taker, f"/v1/{name}", Route(call=BATCH)) for name in _BATCH_NAMES]
    batches.append(_post(taker, "/api/public/apps/batch", DITTOFEED))
    calls = _CALL_NAMES.items()
    singles = [_post(taker, f"/v1/{name}", Route(call=call)) for name, call in calls]
    pixels = [_pixel(taker, f"/v1/pixel/{name}", pixel_route(call)) for name, call in calls]
    return [*batches, *singles, *pixels]


def _post(taker: Taker, path: str, route: Route) -> BaseRoute:
    return Path(path, _endpoint(taker.post, route), methods=["POST"])


def _pixel(taker: Taker, path: str, route: Route) -> BaseRoute:
    return Path(path, _endpoint(taker.pixel, route), methods=["GET"])


def _endpoint(handler: Handler, route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        return await handler(request, route)

    return endpoint
