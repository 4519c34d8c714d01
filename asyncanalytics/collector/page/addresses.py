"""Where each page is: the one place that writes addresses.

Ids and names stand in the query, since in a path `..` and `/` would be something else.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from asyncanalytics.collector.parameters import cursor


def _with(path: str, parameters: dict[str, Any]) -> str:
    query = urlencode(parameters, errors="backslashreplace")
    return f"{path}?{query}" if query else path


def live(**wanted: Any) -> str:
    """Return where the events that are wanted are shown as they arrive."""
    return _with("/", _given(**wanted))


def stream(**wanted: Any) -> str:
    """Return where the rows of the events that are wanted come from."""
    return _with("/page/stream", _given(**wanted))


def rate() -> str:
    """Return where the figures of the chart come from."""
    return "/page/rate"


def event(position: int) -> str:
    """Return where one event is shown."""
    return f"/page/events/{position}"


def json(position: int) -> str:
    """Return where the whole JSON of one event is."""
    return _with("/events", {"after": cursor(position - 1), "limit": 1})


def request(number: int) -> str:
    """Return where one request is shown."""
    return f"/page/requests/{number}"


def names() -> str:
    """Return where the names of events are counted."""
    return "/page/names"


def schema(call: str | None, name: str | None) -> str:
    """Return where the fields of an event are shown. An empty name is a name."""
    parts = {"call": call, "event": name}
    return _with("/page/schema", {key: part for key, part in parts.items() if part is not None})


def user(user_id: str = "", *, before: int | None = None) -> str:
    """Return where all of a user's events are shown, or where to ask for them."""
    return _with("/page/users", _given(id=user_id, before=before))


def _given(**parameters: Any) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value}
