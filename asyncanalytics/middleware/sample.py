"""Send the calls of a share of the users, always the same ones."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

from asyncanalytics.errors import ConfigurationError

if TYPE_CHECKING:
    from asyncanalytics.calls import Call
    from asyncanalytics.middleware.base import Middleware

By = Literal["user_id", "anonymous_id", "message_id"]
_WHOLE = 2.0**64


def sample(rate: float, *, by: By = "user_id") -> Middleware:
    """Keep a share of the calls, and drop the others as `middleware`.

    The choice hangs on nothing but the id, so a user is in or out for good: in every process, and
    still in when `rate` is raised. A call without the id is chosen by its other user id.

    Args:
        rate: the share to keep, from 0 to 1.
        by: the id that decides; `message_id` samples single calls instead of users.

    Raises:
        ConfigurationError: if there is no such share or id.
    """
    if not 0 <= rate <= 1:
        raise ConfigurationError("sample: rate must be a share from 0 to 1")
    if by not in ("user_id", "anonymous_id", "message_id"):
        raise ConfigurationError("sample: by must be 'user_id', 'anonymous_id' or 'message_id'")

    def keep(call: Call) -> Call | None:
        key = getattr(call, by) or call.user_id or call.anonymous_id or ""
        return call if _place(str(key)) < rate else None

    return keep


def _place(key: str) -> float:
    """Return where a key falls between 0 and 1: anywhere, and always there."""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / _WHOLE
