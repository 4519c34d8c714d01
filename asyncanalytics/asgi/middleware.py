"""The middleware, and the way to the client from a request's scope.

Invariants:
- A request costs two contextvar operations and a small object, unless a call is made for it.
- What is bound reaches everything that runs for the request: the endpoint, in a thread too,
  background tasks, streams and websockets. Afterwards what was bound before is bound again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncanalytics.asgi.lifespan import Lifespan
from asyncanalytics.asgi.policy import Policy, Privacy
from asyncanalytics.asgi.request import RequestSource
from asyncanalytics.binding import Nested, current
from asyncanalytics.bound import BoundClient
from asyncanalytics.client import AsyncClient
from asyncanalytics.errors import ConfigurationError
from asyncanalytics.sync import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asyncanalytics.asgi.types import ASGIApp, Receive, Scope, Send
    from asyncanalytics.binding import Source, UserId

SCOPE_KEY: str = "asyncanalytics"
"""Where a scope holds the `RequestSource` that is in force, while it is."""


class AnalyticsMiddleware:
    """Fills in every call that is made for a request with the request's context and ids.

    Made for http and websocket requests; a lifespan starts and closes the client, if one is
    given. Where two are around each other, the inner one decides alone.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        client: AsyncClient | Client | None = None,
        privacy: Privacy | None = None,
        trusted_proxies: Iterable[str] = (),
        consent: Callable[[Scope], Mapping[str, bool] | None] | None = None,
        user: Callable[[Scope], UserId | None] | None = None,
    ) -> None:
        """Wrap an ASGI app.

        Args:
            app: the app.
            client: start it with the app and close it with the app; a `Client`, for sync views,
                too. Leave it out where the app's own lifespan does that, as
                `FastAPI(lifespan=client.lifespan)`.
            privacy: what of a request may be known.
            trusted_proxies: addresses or networks of proxies whose `X-Forwarded-For` and
                `X-Forwarded-Proto` are believed; `unix` is a proxy on a Unix socket, and `*`
                believes anyone, forgers too.
            consent: asked with the scope, once a request in which a call is made, for what the
                visitor has agreed to; category names to booleans.
            user: asked likewise for the user's id. Where it is given, no cookie names a user.

        Raises:
            ConfigurationError: if a setting cannot work.
        """
        if not isinstance(client, AsyncClient | Client | None):
            raise ConfigurationError("client must be an AsyncClient, or a Client for sync views")
        self.app: ASGIApp = app
        self._client = client
        self._policy = Policy(
            privacy=privacy,
            trusted_proxies=trusted_proxies,
            consent=consent,
            user=user,
            client=client if isinstance(client, AsyncClient) else None,
        )

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind in ("http", "websocket"):
            await self._serve(scope, receive, send)
        elif kind == "lifespan" and self._client is not None:
            await Lifespan(self._client, scope, receive, send).run(self.app)
        else:
            await self.app(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        outer: RequestSource | None = scope.get(SCOPE_KEY)
        # Not within an outer one's request: it may tell what this one is told to withhold.
        around = current.get() if outer is None else outer.within
        source = scope[SCOPE_KEY] = RequestSource(scope, self._policy, within=around)
        token = current.set(source)
        try:
            await self.app(scope, receive, send)
        finally:
            current.reset(token)
            if outer is None:
                # A scope that holds what holds it would wait for the garbage collector.
                scope.pop(SCOPE_KEY, None)
            else:
                scope[SCOPE_KEY] = outer


def bound_client(scope: Scope) -> BoundClient:
    """Return the app's client, bound to the request of this scope.

    The client is the one that the lifespan has put into the state, as `AsyncClient.lifespan` and
    `AnalyticsMiddleware` do, or else the one that the middleware was given. Without the middleware
    the request is read with the default `Privacy`.

    Raises:
        ConfigurationError: if there is no client.
    """
    source: RequestSource | None = scope.get(SCOPE_KEY)
    client = (scope.get("state") or {}).get("analytics")
    if not isinstance(client, AsyncClient):
        client = None if source is None else source.policy.client
    if client is None:
        raise ConfigurationError(
            "no AsyncClient: give the app lifespan=client.lifespan, or "
            "AnalyticsMiddleware(app, client=client), and run it with its lifespan "
            "(a test client does so as a context manager only); a Client is called directly"
        )
    here = current.get()
    if source is not None:
        return BoundClient(client, here or source)
    return BoundClient(client, _alone(scope, here))


def _alone(scope: Scope, here: Source | None) -> Source:
    source = RequestSource(scope, _DEFAULT)
    return source if here is None else Nested(here.binding(), source)


_DEFAULT = Policy()
