"""arq: hooks that start the client with a worker, put it into `ctx`, and close it at the end.

    class WorkerSettings:
        functions = [ship]
        on_startup, on_shutdown = hooks(AsyncClient("WRITE_KEY"))

A job finds the client as `ctx["analytics"]`. Nothing of arq is imported here.

Invariants:
- The client is open in startup and shutdown hooks of your own, and in every job.
- It is closed after the last job, even where your shutdown hook raises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncanalytics.integrations.base import check_async

if TYPE_CHECKING:
    from asyncanalytics.client import AsyncClient

Hook = Callable[[dict[Any, Any]], Awaitable[Any]]
"""What arq calls at the start and at the end of a worker, with its `ctx`."""


class Hooks(NamedTuple):
    """The two hooks of a worker's settings, in the order of their names there."""

    on_startup: Hook
    on_shutdown: Hook


def hooks(
    client: AsyncClient, *, on_startup: Hook | None = None, on_shutdown: Hook | None = None
) -> Hooks:
    """Return both hooks for a worker's settings.

    Args:
        client: is started and closed with the worker, as often as the worker runs.
        on_startup: a hook of your own, called once the client is open.
        on_shutdown: a hook of your own, called while the client is still open.

    Raises:
        ConfigurationError: if the client is of another kind.
    """
    check_async(client, "hooks()")

    async def start(ctx: dict[Any, Any]) -> None:
        # `Worker.async_run` may run again without a shutdown between.
        if client.stats().state != "open":
            await client.start()
        ctx["analytics"] = client
        if on_startup is not None:
            await on_startup(ctx)

    async def close(ctx: dict[Any, Any]) -> None:
        try:
            if on_shutdown is not None:
                await on_shutdown(ctx)
        finally:
            await client.aclose()

    return Hooks(start, close)
