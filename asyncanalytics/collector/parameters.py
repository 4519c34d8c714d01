"""What a query says: filters, positions, numbers.

A parameter that is not known, or there twice, is refused, so that a misspelt filter never shows,
or deletes, more than was meant.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from asyncanalytics.collector.answers import Refused
from asyncanalytics.collector.records import Filter

if TYPE_CHECKING:
    from starlette.requests import Request

Reader = Callable[[str], Any]


def cursor(position: int) -> str:
    """Write a position as the opaque text that users pass on."""
    return base64.urlsafe_b64encode(position.to_bytes(8, "big")).decode("ascii").rstrip("=")


def position(text: str) -> int:
    """Read a cursor, with a store's mark after it or without; ValueError for text that is none."""
    raw = base64.b64decode(text.partition(".")[0] + "=", altchars=b"-_", validate=True)
    if len(raw) != 8 or raw[0] > 0x7F:
        raise ValueError("not a cursor")
    return int.from_bytes(raw, "big")


def utc_moment(text: str) -> str:
    """Write a moment of ISO 8601 as `received_at` is written; a naive one is taken as UTC."""
    when = datetime.fromisoformat(text)
    try:
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except OverflowError:
        raise ValueError("before the year 1, or after 9999") from None
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _some(text: str) -> str:
    if not text:  # it would mean everything
        raise ValueError("empty")
    return text


def one_of(*names: str) -> Reader:
    """Make a reader of one of these words."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(text)
        return text

    return read


def number(most: int) -> Reader:
    """Make a reader of a number from 1 to `most`."""

    def read(text: str) -> int:
        if text.isascii() and text.isdecimal() and len(text) <= len(str(most)):
            found = int(text)
            if 1 <= found <= most:
                return found
        raise ValueError(text)

    return read


FILTERS: Final[Mapping[str, Reader]] = {
    **dict.fromkeys(("type", "event", "name", "user", "user_id", "anonymous_id"), str),
    "message_id": str,
    "text": _some,
    "verdict": one_of("good", "bad"),
    "since": utc_moment,
    "after": position,
    "before": position,
}
MAX_PAGE: Final = 1_000
PAGE: Final[Mapping[str, Reader]] = {
    "limit": number(MAX_PAGE),
    "order": one_of("oldest", "newest"),
}
_FORMS: Final = {
    "after": "a cursor, as next or last gave it",
    "before": "a cursor, as next or last gave it",
    "every": "0 or 1",
    "limit": f"a number from 1 to {MAX_PAGE:,}",
    "order": "oldest or newest",
    "seconds": "a number from 1 to 3,600",
    "since": "a moment of ISO 8601",
    "text": "some text",
    "verdict": "good or bad",
}


def read_query(request: Request, known: Mapping[str, Reader]) -> dict[str, Any]:
    """Return what the query says; `Refused` with 400 for what is not known, or not so."""
    given = request.query_params.multi_items()
    names = [name for name, _ in given]
    if not known.keys() >= set(names) or len(set(names)) < len(names):
        allowed = ", ".join(sorted(known)) or "none"
        raise Refused(400, "bad_parameter", f"each parameter at most once, of these: {allowed}")
    return {name: _value(name, text, known[name]) for name, text in given}


def _value(name: str, text: str, read: Reader) -> Any:
    try:
        return read(text)
    except ValueError:
        raise Refused(400, "bad_parameter", f"{name} must be {_FORMS[name]}") from None


def read_filter(request: Request) -> Filter:
    """Return the filter that the query is, with nothing else in it."""
    return Filter(**read_query(request, FILTERS))
