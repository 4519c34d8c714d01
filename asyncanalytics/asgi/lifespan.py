"""The client's life around an app's own: started before the app starts, closed after it has.

Invariants:
- Whatever the app does on its lifespan, the client is closed once, before the server is told
  that the shutdown, or a failed startup, is done.
- An app that knows no lifespan, because it returns, raises or answers something else, has one
  here. A failure that the app itself reports goes on to the server.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from asyncanalytics.errors import AnalyticsError, describe

if TYPE_CHECKING:
    from asyncanalytics.asgi.types import ASGIApp, Receive, Scope, Send
    from asyncanalytics.client import AsyncClient
    from asyncanalytics.sync import Client

logger: logging.Logger = logging.getLogger("asyncanalytics")


class Lifespan:
    """One run of an app, between the server and the app."""

    def __init__(
        self, client: AsyncClient | Client, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Take what the server calls an app with."""
        self._client = client
        self._open = AsyncExitStack()
        self._scope = scope
        self._from_server = receive
        self._to_server = send
        self._startup: Any = None
        self._asked = False
        """Whether the app has been told to shut down."""
        self._started = False
        """Whether the server has been told that the app is up."""
        self._ended = False
        """Whether the server has been told that the app is down, or never came up."""

    async def run(self, app: ASGIApp) -> None:
        """Start the client, run the app's own lifespan, and close the client."""
        self._startup = await self._from_server()
        if not await self._start():
            return
        try:
            await self._run(app)
        finally:
            await self._open.aclose()

    async def _start(self) -> bool:
        try:
            state = await self._open.enter_async_context(self._client.lifespan())
        except Exception as error:  # noqa: BLE001 - whatever it is, the server must be told
            known = isinstance(error, AnalyticsError)
            text = f"the analytics client does not start: {error if known else describe(error)}"
            await self._to_server({"type": "lifespan.startup.failed", "message": text})
            return False
        if "state" in self._scope:
            self._scope["state"].update(state or {})
        return True

    async def _run(self, app: ASGIApp) -> None:
        failure: Exception | None = None
        try:
            await app(self._scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - the app's own code; it goes on below
            failure = error
        if not self._started and not self._ended:
            if failure is not None:
                logger.info("the app has no lifespan of its own: %s", describe(failure))
            failure = None
            await self._tell("startup.complete")
        if not self._ended:
            if not self._asked:
                await self._from_server()  # the server goes on, and so must the client
            if failure is None:
                await self._tell("shutdown.complete")
        if failure is not None:
            raise failure

    async def _tell(self, what: str) -> None:
        await self._send({"type": f"lifespan.{what}"})

    async def _receive(self) -> Any:
        message, self._startup = self._startup, None
        if message is None:
            message = await self._from_server()
            self._asked = True
        return message

    async def _send(self, message: Any) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self._started = True
        elif kind in _ENDS:
            self._ended = True
            await self._open.aclose()
        else:
            raise RuntimeError("an app sent a message that no lifespan has")
        await self._to_server(message)


_ENDS = ("lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed")
