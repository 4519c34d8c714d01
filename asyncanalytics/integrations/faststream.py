"""FastStream: a lifespan that starts the client before the brokers and closes it after them.

    app = FastStream(broker, lifespan=lifespan(AsyncClient("WRITE_KEY")))

    @broker.subscriber("orders")
    async def ship(analytics: Annotated[AsyncClient, Depends(get_analytics)]) -> None: ...

`FastStream(broker, lifespan=client.lifespan)` does too, where handlers need no dependency because
they can import the client.

Invariants:
- The client is open in the app's hooks for startup and shutdown, and in every handler.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from asyncanalytics.client import AsyncClient  # noqa: TC001 - FastStream reads the annotations
from asyncanalytics.errors import ConfigurationError, MissingExtra
from asyncanalytics.integrations.base import check_async

try:
    from faststream import Context, ContextRepo
except ImportError:
    raise MissingExtra("the FastStream integration", "faststream") from None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

_KEY = "analytics"
_FOUND = Context(_KEY, default=None)


def lifespan(client: AsyncClient) -> Callable[..., AbstractAsyncContextManager[None]]:
    """Return a lifespan for `FastStream(broker, lifespan=...)`.

    For a lifespan of your own: `async with client.lifespan():` within it, and for `get_analytics`
    `context.set_global("analytics", client)`.

    Raises:
        ConfigurationError: if the client is of another kind.
    """
    check_async(client, "lifespan()")

    @asynccontextmanager
    async def started(context: ContextRepo) -> AsyncIterator[None]:
        async with client:
            context.set_global(_KEY, client)
            try:
                yield
            finally:
                context.reset_global(_KEY)

    return started


def get_analytics(analytics: Any = _FOUND) -> AsyncClient:
    """Return the app's client, for `Depends(get_analytics)`.

    Raises:
        ConfigurationError: if the app's lifespan has given none.
    """
    if analytics is None:
        raise ConfigurationError(
            "this app has no client: FastStream(broker, lifespan=lifespan(client))"
        )
    return cast("AsyncClient", analytics)
