"""Errors that are also of the kind which Segment's package raises for the same cause.

A program that catches `AssertionError` or `RuntimeError` around its calls goes on to work, and
one that catches `AnalyticsError` or `InvalidCall` catches these too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncanalytics.errors import AnalyticsError, ConfigurationError, InvalidCall, TooLarge

if TYPE_CHECKING:
    from asyncanalytics.receipts import Outcome


class BadSetting(ConfigurationError, AssertionError):
    """The key, or another setting, cannot work as given."""


class InvalidMessage(InvalidCall, AssertionError):
    """A call was refused before it was accepted."""


class CallTooLarge(TooLarge, RuntimeError):
    """A call encodes to more bytes than the endpoint takes."""


def as_theirs(error: InvalidCall) -> InvalidCall:
    """Return a refusal as the one that is of their kind too."""
    if isinstance(error, TooLarge):
        return CallTooLarge(error.call, size=error.size, limit=error.limit)
    return InvalidMessage(error.call, error.field, error.problem)


class APIError(AnalyticsError):
    """Calls that were accepted will not be delivered. `message` may quote them: do not log it."""

    def __init__(self, outcome: Outcome) -> None:
        """Take how the calls ended."""
        status = "" if outcome.status is None else f", status {outcome.status}"
        times = "1 request" if outcome.attempts == 1 else f"{outcome.attempts} requests"
        super().__init__(f"not delivered: {outcome.reason}{status}, after {times}")
        self.status: int | None = outcome.status
        """The last HTTP status, where there was one."""
        self.code: str = outcome.reason
        """`rejected`, or one of `DropReason`."""
        self.message: str = outcome.detail
        """What the endpoint said, cut to 200 characters."""
