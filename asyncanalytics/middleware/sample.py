"""Send the calls of a share of the users, always the same ones."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Literal

from pydantic.alias_generators import to_camel

from asyncanalytics.errors import ConfigurationError
from asyncanalytics.middleware.base import OnWire, Wire

if TYPE_CHECKING:
    from asyncanalytics.calls import Call

By = Literal["user_id", "anonymous_id", "message_id"]
_WHOLE = 2.0**64


def sample(rate: float, *, by: By = "user_id") -> OnWire:
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

    return _Sample(rate, by)


class _Sample(OnWire):
    def __init__(self, rate: float, by: By) -> None:
        self._rate = rate
        self._by = by
        self._name = to_camel(by)

    def __call__(self, call: Call) -> Call | None:
        key = getattr(call, self._by) or call.user_id or call.anonymous_id or ""
        return call if _place(str(key)) < self._rate else None

    def apply(self, wire: Wire) -> Wire | None:
        key = wire.get(self._name) or wire.get("userId") or wire.get("anonymousId") or ""
        return wire if _place(str(key)) < self._rate else None


def _place(key: str) -> float:
    """Return where a key falls between 0 and 1: anywhere, and always there."""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / _WHOLE
