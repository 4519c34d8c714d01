"""FastAPI: the client of the app as a dependency, bound to the request.

app = FastAPI(lifespan=client.lifespan)
app.add_middleware(AnalyticsMiddleware)

@app.post("/orders")
async def order(analytics: Analytics):
    await analytics.track("Order Completed")
"""

from typing import Annotated

from asyncanalytics.asgi import AnalyticsMiddleware, Privacy, bound_client
from asyncanalytics.bound import BoundClient
from asyncanalytics.errors import MissingExtra

try:
    from fastapi import Depends
    from fastapi.requests import HTTPConnection
except ImportError:
    raise MissingExtra("the FastAPI integration", "fastapi") from None

__all__ = ["Analytics", "AnalyticsMiddleware", "Privacy", "get_analytics"]


# A plain function would be run in a thread.
async def get_analytics(connection: HTTPConnection) -> BoundClient:
    """Return the app's client, bound to a request or a websocket: a dependency.

    Raises:
        ConfigurationError: if the app has no client.
    """
    return bound_client(connection.scope)


Analytics = Annotated[BoundClient, Depends(get_analytics)]
"""The type of a parameter that gets it."""
