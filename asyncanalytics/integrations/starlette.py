"""Starlette: the client of the app, bound to the request.

app = Starlette(routes=routes, lifespan=client.lifespan)
app.add_middleware(AnalyticsMiddleware)

async def endpoint(request):
    analytics = await get_analytics(request)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncanalytics.asgi import AnalyticsMiddleware, Privacy, bound_client
from asyncanalytics.errors import MissingExtra

try:
    import starlette as _starlette  # noqa: F401 - whether it is there
except ImportError:
    raise MissingExtra("the Starlette integration", "starlette") from None

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

    from asyncanalytics.bound import BoundClient

__all__ = ["AnalyticsMiddleware", "Privacy", "get_analytics"]


async def get_analytics(connection: HTTPConnection[Any]) -> BoundClient:
    """Return the app's client, bound to a request or a websocket.

    Raises:
        ConfigurationError: if the app has no client.
    """
    return bound_client(connection.scope)
