"""AWS Lambda and its like: what an invocation has tracked is sent before its answer goes out.

    @flushed(analytics)
    def handler(event, context): ...

Between two invocations the environment is frozen: nothing is sent then, and it may never thaw.
Nothing of AWS is imported here.

Promises:
- The client is flushed after every invocation, also after one that raises. What the handler has
  returned or raised goes on unchanged.
- The flush ends by itself: after `timeout` seconds, and in any case `margin` seconds before the
  environment would end the invocation. What is pending then stays queued, and goes out with the
  next invocation.
"""

from __future__ import annotations

import asyncio
import logging
from functools import wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from asyncanalytics.errors import AnalyticsError
from asyncanalytics.integrations.base import check_sync

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncanalytics.sync import Client

    Handler = Callable[[Any, Any], Any]

logger: logging.Logger = logging.getLogger("asyncanalytics")


def flushed(
    client: Client, *, timeout: float = 5.0, margin: float = 0.5
) -> Callable[[Handler], Handler]:
    """Return a decorator for handlers, which flushes the client before an invocation ends.

    An `async def` handler is run to its end in an event loop of its own; the runtime itself knows
    plain functions only.

    Args:
        client: made once, beside the handler; it keeps its connections between invocations.
        timeout: seconds that an invocation waits for the endpoint at most. While the endpoint is
            down, each invocation takes that much longer.
        margin: seconds that are left of the invocation's own time after the flush.

    Raises:
        ConfigurationError: if the client is of another kind.
    """
    check_sync(client, "flushed()")

    def decorate(handler: Handler) -> Handler:
        run = _running(handler) if iscoroutinefunction(handler) else handler

        @wraps(handler)
        def invoked(event: Any, context: Any) -> Any:
            try:
                return run(event, context)
            finally:
                _flush(client, min(timeout, _remaining(context) - margin))

        return invoked

    return decorate


def _running(handler: Handler) -> Handler:
    def run(event: Any, context: Any) -> Any:
        return asyncio.run(handler(event, context))

    return run


def _remaining(context: Any) -> float:
    """Return the invocation's seconds; no end where the runtime names none."""
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    return float("inf") if remaining is None else remaining() / 1000


def _flush(client: Client, seconds: float) -> None:
    try:
        client.flush(max(seconds, 0.0))
    except AnalyticsError as error:  # it must not stand in for what the handler has done
        logger.warning("at the end of an invocation: %s", error)
