"""Litestar: a plugin that starts, closes, binds and injects the client.

    app = Litestar([order], plugins=[AnalyticsPlugin(AsyncClient("WRITE_KEY"))])

    @post("/orders")
    async def order(analytics: Analytics) -> None:
        await analytics.track("Order Completed")

Invariants:
- The client is started before the app's own lifespan managers and closed after them and after the
  app's shutdown hooks and event listeners, so calls work in all of these.
- Each request and each websocket is bound, for handlers, dependencies, guards, hooks, background
  tasks and streams alike. What the app itself provides under the dependency's name wins.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, get_args

from asyncanalytics.asgi import AnalyticsMiddleware, Privacy
from asyncanalytics.binding import Binding, current
from asyncanalytics.bound import BoundClient
from asyncanalytics.errors import ConfigurationError, MissingExtra
from asyncanalytics.integrations.base import check_async

try:
    from litestar import di
    from litestar.middleware import DefineMiddleware
    from litestar.plugins import InitPlugin
except ImportError:
    raise MissingExtra("the Litestar integration", "litestar") from None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from litestar.config.app import AppConfig

    from asyncanalytics.asgi import Scope
    from asyncanalytics.binding import UserId
    from asyncanalytics.client import AsyncClient

__all__ = ["Analytics", "AnalyticsPlugin", "Privacy"]

# Litestar 2.23 and later ask for a mark; before, a dependency is known by its name alone.
_named = getattr(di, "NamedDependency", None)
_MARK = "named" if _named is None else get_args(_named[BoundClient])[1]

Analytics = Annotated[BoundClient, _MARK]
"""The type of a parameter that gets the client: `analytics: Analytics`."""


class AnalyticsPlugin(InitPlugin):
    """Gives an app a client; handlers ask for it as `analytics: Analytics`."""

    def __init__(
        self,
        client: AsyncClient,
        *,
        privacy: Privacy | None = None,
        trusted_proxies: Iterable[str] = (),
        consent: Callable[[Scope], Mapping[str, bool] | None] | None = None,
        user: Callable[[Scope], UserId | None] | None = None,
        dependency: str = "analytics",
    ) -> None:
        """Take the client, and what `asgi.AnalyticsMiddleware` takes beside it.

        Args:
            client: is started and closed with the app; an app that runs again starts it again.
            privacy: what of a request is kept.
            trusted_proxies: addresses and networks whose forwarding headers are believed.
            consent: from a scope to the categories that the visitor has agreed to.
            user: from a scope to the user's id, such as `lambda scope: scope["user"].id`.
            dependency: the name under which handlers get the client.

        Raises:
            ConfigurationError: if the client is of another kind, or the dependency's name cannot
                be that of a parameter.
        """
        check_async(client, "AnalyticsPlugin()")
        if not dependency.isidentifier():
            raise ConfigurationError("AnalyticsPlugin: dependency must be a parameter's name")
        self._client = client
        self._dependency = dependency
        self._middleware = DefineMiddleware(
            AnalyticsMiddleware,
            client=client,
            privacy=privacy,
            trusted_proxies=tuple(trusted_proxies),
            consent=consent,
            user=user,
        )

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the client's life, the middleware and the dependency to an app."""
        app_config.lifespan.insert(0, self._start)
        # A lifespan manager's end would come before the app's shutdown hooks.
        app_config.on_shutdown.append(self._close)
        app_config.middleware.insert(0, self._middleware)
        provide = di.Provide(self._bound, sync_to_thread=False)
        app_config.dependencies.setdefault(self._dependency, provide)
        # So that a handler's module may import the names for type checkers only.
        for name, kind in (("Analytics", Analytics), ("BoundClient", BoundClient)):
            app_config.signature_namespace.setdefault(name, kind)
        return app_config

    @asynccontextmanager
    async def _start(self, app: object) -> AsyncIterator[None]:  # noqa: ARG002 - Litestar passes it
        await self._client.start()
        yield

    async def _close(self) -> None:
        await self._client.aclose()

    def _bound(self) -> BoundClient:
        return BoundClient(self._client, current.get() or Binding())
