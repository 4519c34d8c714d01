"""Drop calls of users who have not agreed to what a destination does with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncanalytics import paths
from asyncanalytics.errors import ConfigurationError
from asyncanalytics.middleware.base import OnWire, Wire

if TYPE_CHECKING:
    from collections.abc import Sequence

_PREFERENCES = ("context", "consent", "categoryPreferences")


class _Consent(OnWire):
    reason = "no_consent"

    def __init__(self, categories: Sequence[str], *, unknown: bool) -> None:
        self._categories = tuple(categories)
        self._unknown = unknown

    def apply(self, wire: Wire) -> Wire | None:
        preferences: Any = paths.get(wire, _PREFERENCES)
        if not isinstance(preferences, dict):
            return wire if self._unknown else None
        is_agreed = all(preferences.get(each) is True for each in self._categories)
        return wire if is_agreed else None


def consent(*categories: str, unknown: bool = False) -> OnWire:
    """Let a call through if its user has agreed to all of these categories: `consent("analytics")`.

    What was agreed to is in `context.consent.categoryPreferences`; all else is dropped as
    `no_consent`. A call that has no preferences at all passes only with `unknown`.

    Raises:
        ConfigurationError: if no category is given.
    """
    if not categories or "" in categories:
        raise ConfigurationError(
            "consent: name at least one category, such as consent('analytics')"
        )
    return _Consent(categories, unknown=unknown)
