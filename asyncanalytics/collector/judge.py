"""The rules by which one event is good or bad: pure, quick, and never raising on any JSON.

An event has one reason at most: the first rule that it breaks. The needs of each call and the
limits are those of the HTTP tracking API that Segment documents and that its kin follow. Its
limit of 10,000 properties needs no rule: so many do not fit into 32 KB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Literal

MAX_EVENT_BYTES: Final = 32 * 1024
"""Bytes of one event as compact UTF-8 JSON, without its write key."""
MAX_BATCH_BYTES: Final = 500 * 1024
"""Bytes of one batch's JSON after decompression; a single call with more is refused as well."""
MAX_BATCH_EVENTS: Final = 2_500
MAX_MESSAGE_ID: Final = 100
"""Characters."""

Reason = Literal[
    "not_an_object",
    "event_too_large",
    "too_deep",
    "too_many_events",
    "missing_type",
    "unknown_type",
    "user_id_not_a_string",
    "anonymous_id_not_a_string",
    "previous_id_not_a_string",
    "group_id_not_a_string",
    "missing_user",
    "missing_user_id",
    "missing_previous_id",
    "missing_group_id",
    "missing_event",
    "event_not_a_string",
    "missing_message_id",
    "message_id_not_a_string",
    "message_id_too_long",
    "timestamp_not_iso_8601",
    "properties_not_an_object",
    "traits_not_an_object",
    "context_not_an_object",
    "integrations_not_an_object",
]
"""Why an event is bad. `missing_user` means that it has neither userId nor anonymousId;
`too_deep`, that it is nested deeper than this collector can keep (about 250 levels)."""

Event = Mapping[str, Any]
Rule = Callable[[Event], Reason | None]

_IDS: Final[tuple[tuple[str, Reason], ...]] = (
    ("userId", "user_id_not_a_string"),
    ("anonymousId", "anonymous_id_not_a_string"),
    ("previousId", "previous_id_not_a_string"),
    ("groupId", "group_id_not_a_string"),
)
_OBJECTS: Final[tuple[tuple[str, Reason], ...]] = (
    ("properties", "properties_not_an_object"),
    ("traits", "traits_not_an_object"),
    ("context", "context_not_an_object"),
    ("integrations", "integrations_not_an_object"),
)


def _anyone(event: Event) -> Reason | None:
    return None if event.get("userId") or event.get("anonymousId") else "missing_user"


def _track(event: Event) -> Reason | None:
    name = event.get("event")
    if name is not None and not isinstance(name, str):
        return "event_not_a_string"
    return _anyone(event) or (None if name else "missing_event")


def _group(event: Event) -> Reason | None:
    return _anyone(event) or (None if event.get("groupId") else "missing_group_id")


def _alias(event: Event) -> Reason | None:
    if not event.get("userId"):
        return "missing_user_id"
    return None if event.get("previousId") else "missing_previous_id"


_NEEDS: Final[Mapping[str, Rule]] = {
    "identify": _anyone,
    "track": _track,
    "page": _anyone,
    "screen": _anyone,
    "group": _group,
    "alias": _alias,
}
CALLS: Final = frozenset(_NEEDS)
"""The six calls."""


def judge(event: object, *, size: int) -> Reason | None:
    """Return why the event is bad, or None for a good one. `size` is its bytes as JSON.

    Null is the same as absent, and an empty string is no id.
    """
    if not isinstance(event, dict):
        return "not_an_object"
    if size > MAX_EVENT_BYTES:
        return "event_too_large"
    kind = event.get("type")
    needs = _NEEDS.get(kind) if isinstance(kind, str) else None
    if needs is None:
        return "missing_type" if kind is None or kind == "" else "unknown_type"
    return _ids(event) or needs(event) or _message_id(event) or _timestamp(event) or _objects(event)


def _ids(event: Event) -> Reason | None:
    for field, reason in _IDS:
        value = event.get(field)
        if value is not None and not isinstance(value, str):
            return reason
    return None


def _message_id(event: Event) -> Reason | None:
    value = event.get("messageId")
    if value is None or value == "":
        return "missing_message_id"
    if not isinstance(value, str):
        return "message_id_not_a_string"
    return "message_id_too_long" if len(value) > MAX_MESSAGE_ID else None


def _timestamp(event: Event) -> Reason | None:
    value = event.get("timestamp")
    return None if value is None or is_iso_8601(value) else "timestamp_not_iso_8601"


def is_iso_8601(value: object) -> bool:
    """Tell whether the value is text that is a date, or a date and a time, of ISO 8601."""
    if not isinstance(value, str):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    # Python takes any character between date and time; the standard knows one.
    return len(value) <= len("2026-01-01") or "T" in value


def _objects(event: Event) -> Reason | None:
    for field, reason in _OBJECTS:
        value = event.get(field)
        if value is not None and not isinstance(value, dict):
            return reason
    return None
