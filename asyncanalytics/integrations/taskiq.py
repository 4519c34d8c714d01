"""taskiq: a middleware that starts the client with the broker and closes it with it.

    broker.add_middlewares(AnalyticsMiddleware(AsyncClient("WRITE_KEY")))

    @broker.task
    async def ship(analytics: Annotated[AsyncClient, TaskiqDepends(get_analytics)]) -> None: ...

Invariants:
- It is the same in a worker and in a program that sends tasks: `broker.startup()` starts the
  client, `broker.shutdown()` closes it.
- A client that runs already, as with the app that sends the tasks, is left to who started it.
- The client is open for what runs at the broker's shutdown events, and after all of the tasks.
"""

from __future__ import annotations

from typing import Any, cast

from asyncanalytics.client import AsyncClient  # noqa: TC001 - taskiq reads the annotations
from asyncanalytics.errors import ConfigurationError, MissingExtra
from asyncanalytics.integrations.base import check_async

try:
    from taskiq import Context, TaskiqDepends, TaskiqMiddleware
except ImportError:
    raise MissingExtra("the taskiq integration", "taskiq") from None

_KEY = "analytics"
_CONTEXT: Any = TaskiqDepends()


class AnalyticsMiddleware(TaskiqMiddleware):
    """Gives a broker a client; tasks ask for it with `get_analytics`."""

    def __init__(self, client: AsyncClient, *, timeout: float | None = 4.0) -> None:
        """Take the client.

        Args:
            client: is started and closed with the broker, unless it is open before.
            timeout: seconds that the closing gives to what is pending; None: the client's own
                `shutdown_timeout`. A worker cuts its shutdown off after `--shutdown-timeout`,
                which is 5 seconds unless told.
        """
        super().__init__()
        check_async(client, "AnalyticsMiddleware()")
        self._client = client
        self._timeout = timeout
        self._started = False

    async def startup(self) -> None:
        """Start the client and keep it where `get_analytics` finds it."""
        if self._client.stats().state != "open":
            await self._client.start()
            self._started = True
        self.broker.state[_KEY] = self._client

    async def shutdown(self) -> None:
        """Close the client, if it was started here."""
        if self._started:
            self._started = False
            await self._client.aclose(self._timeout)


def get_analytics(context: Context = _CONTEXT) -> AsyncClient:
    """Return the broker's client, for `TaskiqDepends(get_analytics)`.

    Raises:
        ConfigurationError: if the broker has no `AnalyticsMiddleware`.
    """
    client = context.state.get(_KEY)
    if client is None:
        raise ConfigurationError(
            "this broker has no client: broker.add_middlewares(AnalyticsMiddleware(client))"
        )
    return cast("AsyncClient", client)
