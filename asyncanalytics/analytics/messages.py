"""The message that a call answers with: all its fields, those that are None too, as theirs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncanalytics._version import __version__
from asyncanalytics.binding import current
from asyncanalytics.encoding import stamp

LIBRARY: dict[str, str] = {"name": "analytics-python", "version": __version__}
"""`context.library` of every message: the name that reports already know, with our version."""

_JUST_NOW = timedelta(seconds=5)


def compose(call: str, **given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a call's fields as the client takes them, and its message.

    Both have what the place of the call is bound to. The message's objects are copies, so that
    `on_error` gets what was sent, also where the caller fills one dict again and again.
    """
    fields = {name: value for name, value in given.items() if value is not None}
    source = current.get()
    if source is not None:
        source.binding().fill(fields)
    message = {"type": call, **given, **fields}
    message |= {name: dict(value) for name, value in message.items() if isinstance(value, dict)}
    for name in ("userId", "anonymousId"):
        message[name] = None if message[name] is None else str(message[name])
    return fields, message


def moment(timestamp: object) -> object:
    """Return a datetime as text. One without a zone is local if it is of just now, and else UTC."""
    if not isinstance(timestamp, datetime):
        return stamp() if timestamp is None else timestamp
    if timestamp.tzinfo is None:
        now = datetime.now()  # noqa: DTZ005 - compared with what datetime.now() gave the caller
        local = abs(now - timestamp) < _JUST_NOW
        return (timestamp.astimezone() if local else timestamp.replace(tzinfo=UTC)).isoformat()
    return timestamp.isoformat()


def with_library(context: object) -> object:
    """Return a context with the library that made the call, unless it names another."""
    if isinstance(context, Mapping):
        return {"library": dict(LIBRARY), **context}
    return context or {"library": dict(LIBRARY)}  # the call's own check refuses what is no mapping
