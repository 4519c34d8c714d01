"""What an app has decided may be known of its requests, checked where it was written.

Invariants:
- A wrong setting fails when it is made, never in a request.
- What the app's own functions raise or wrongly return reaches no request: it is logged once for
  each kind, without its text, and the request goes on without their word.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Literal

from asyncanalytics.asgi.addresses import Proxies
from asyncanalytics.errors import ConfigurationError, describe
from asyncanalytics.values import as_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asyncanalytics.asgi.types import Scope
    from asyncanalytics.binding import UserId
    from asyncanalytics.client import AsyncClient

logger: logging.Logger = logging.getLogger("asyncanalytics")

Effect = Literal["ignore", "anonymous", "drop"]
"""What a visitor's signal does to the calls of the request.

- `ignore`: nothing.
- `anonymous`: they go out without address, browser, client hints, user and cookies' ids.
- `drop`: they are dropped, and counted as `opted_out`.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Privacy:
    """What of a request may be known."""

    ip: Literal["full", "truncated", "dropped"] = "full"
    """`truncated`: an IPv4 address without its last octet, an IPv6 address without all but 48
    bits."""
    query: Literal["utm", "full", "dropped"] = "utm"
    """Of the page's address and of its referrer alike. `utm`: only parameters that begin with
    `utm_`. `dropped`: no parameter, and so no campaign."""
    gpc: Effect = "ignore"
    """What `Sec-GPC: 1` does (Global Privacy Control)."""
    dnt: Effect = "ignore"
    """What `DNT: 1` does (Do Not Track)."""

    def __post_init__(self) -> None:
        _one_of("ip", self.ip, "full", "truncated", "dropped")
        _one_of("query", self.query, "utm", "full", "dropped")
        _one_of("gpc", self.gpc, "ignore", "anonymous", "drop")
        _one_of("dnt", self.dnt, "ignore", "anonymous", "drop")

    def effect(self, *, gpc: bool, dnt: bool) -> Effect:
        """Return the strongest of what the visitor's signals do."""
        found = {self.gpc if gpc else "ignore", self.dnt if dnt else "ignore"}
        return "drop" if "drop" in found else "anonymous" if "anonymous" in found else "ignore"


class Policy:
    """How requests are read: privacy, proxies, and the app's own word on consent and user."""

    __slots__ = ("_consent", "_said", "_user", "client", "names_user", "privacy", "proxies")

    def __init__(
        self,
        *,
        privacy: Privacy | None = None,
        trusted_proxies: Iterable[str] = (),
        consent: Callable[[Scope], Mapping[str, bool] | None] | None = None,
        user: Callable[[Scope], UserId | None] | None = None,
        client: AsyncClient | None = None,
    ) -> None:
        """See `AnalyticsMiddleware`.

        Raises:
            ConfigurationError: if a setting cannot work.
        """
        if not isinstance(privacy, Privacy | None):
            raise ConfigurationError("privacy must be a Privacy(...)")
        _check_hook("consent", consent)
        _check_hook("user", user)
        self.privacy: Privacy = privacy or Privacy()
        self.proxies: Proxies = Proxies(trusted_proxies)
        self.client: AsyncClient | None = client
        self.names_user: bool = user is not None
        """Whether the app alone says who the user is, and not a cookie."""
        self._consent = consent
        self._user = user
        self._said: set[tuple[str, type[Exception]]] = set()

    def consent(self, scope: Scope) -> dict[str, bool] | None:
        """Ask the app what the visitor has agreed to."""
        if self._consent is None:
            return None
        try:
            found = self._consent(scope)
            return None if found is None else _preferences(found)
        except Exception as error:  # noqa: BLE001 - the app's own code; the request goes on
            self._say("consent", error)
            return None

    def user(self, scope: Scope) -> str | None:
        """Ask the app who the user is."""
        try:
            found = None if self._user is None else self._user(scope)
            return None if found is None else as_id(found)
        except Exception as error:  # noqa: BLE001 - the app's own code; the request goes on
            self._say("user", error)
            return None

    def _say(self, hook: str, error: Exception) -> None:
        kind = (hook, type(error))
        if kind not in self._said:
            self._said.add(kind)
            text = "AnalyticsMiddleware: %s raised %s; requests go on without it"
            logger.error(text, hook, describe(error))


def _one_of(name: str, value: str, *known: str) -> None:
    if value not in known:
        raise ConfigurationError(f"Privacy: {name} must be one of {', '.join(known)}")


def _check_hook(name: str, hook: object) -> None:
    if hook is not None and (not callable(hook) or iscoroutinefunction(hook)):
        raise ConfigurationError(f"{name} must be a plain function that takes the ASGI scope")


def _preferences(value: Mapping[str, bool]) -> dict[str, bool]:
    preferences: dict[Any, Any] = dict(value)
    if not all(isinstance(key, str) and isinstance(preferences[key], bool) for key in preferences):
        raise TypeError("consent must be a mapping of category names to booleans")
    return preferences
