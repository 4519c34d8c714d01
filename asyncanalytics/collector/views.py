"""What the collector shows over HTTP: the events, the figures, and the faults that are set.

Everything is JSON. A parameter that is not known is refused, so that a misspelt filter never
shows, or deletes, more than was meant.
"""

from __future__ import annotations

import base64
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.routing import Route

from asyncanalytics.collector.answers import Refused, json_response
from asyncanalytics.collector.faults import Fault, Faults
from asyncanalytics.collector.reading import Caps, parse, read_body
from asyncanalytics.collector.records import Filter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request
    from starlette.responses import Response

    from asyncanalytics.collector.store import Found, Store

_FILTERS: Final = frozenset(each.name for each in fields(Filter))
_PAGE: Final = 100
_MAX_PAGE: Final = 1_000
_MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
"""Payloads in one page: a bad event may have half a megabyte."""


def cursor(position: int) -> str:
    """Write a position as the opaque text that users pass on."""
    return base64.urlsafe_b64encode(position.to_bytes(8, "big")).decode("ascii").rstrip("=")


def position(text: str) -> int:
    """Read a cursor; ValueError for text that is none."""
    raw = base64.b64decode(text + "=", altchars=b"-_", validate=True)
    if len(raw) != 8 or raw[0] > 0x7F:
        raise ValueError("not a cursor")
    return int.from_bytes(raw, "big")


def utc_moment(text: str) -> str:
    """Write a moment of ISO 8601 as `received_at` is written; a naive one is taken as UTC."""
    when = datetime.fromisoformat(text)
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Views:
    """The endpoints that read and rule."""

    def __init__(self, store: Store, faults: Faults, caps: Caps) -> None:
        """Show this store and these faults."""
        self._store = store
        self._faults = faults
        self._caps = caps

    def routes(self) -> list[Route]:
        """Return where each of them is found."""
        return [
            Route("/events", self.events, methods=["GET"]),
            Route("/events", self.delete_events, methods=["DELETE"]),
            Route("/events/{message_id:path}", self.event, methods=["GET"]),
            Route("/stats", self.stats, methods=["GET"]),
            Route("/faults", self.faults, methods=["GET"]),
            Route("/faults", self.add_fault, methods=["POST"]),
            Route("/faults", self.delete_faults, methods=["DELETE"]),
            Route("/healthz", self.healthz, methods=["GET"]),
        ]

    async def events(self, request: Request) -> Response:
        """Give a page of events; `next` is null on the last one, `last` is where it ended."""
        where, limit = _filter(request, more=frozenset({"limit"})), _limit(request)
        page, more = _page(self._store.find(where), limit)
        last = cursor(page[-1].position) if page else request.query_params.get("after")
        following = last if more else None
        return json_response(
            {"events": [_plain(each) for each in page], "next": following, "last": last}
        )

    async def event(self, request: Request) -> Response:
        """Give the arrivals of one messageId, the oldest first; 404 where there is none.

        `seen` counts all of them, also where they do not fit into one answer.
        """
        _filter(request, known=frozenset())
        message_id = request.path_params["message_id"]
        where = Filter(message_id=message_id)
        page, _ = _page(self._store.find(where), _MAX_PAGE)
        if not page:
            raise Refused(404, "no_such_event", "no event with this messageId is kept")
        seen, arrivals = self._store.count(where), [_plain(each) for each in page]
        return json_response({"message_id": message_id, "seen": seen, "events": arrivals})

    async def delete_events(self, request: Request) -> Response:
        """Forget the events that the filters mean, or all."""
        return json_response({"deleted": self._store.delete(_filter(request))})

    async def stats(self, _: Request) -> Response:
        """Give the figures."""
        return json_response(self._store.stats().as_dict())

    async def faults(self, _: Request) -> Response:
        """Give the faults that are set."""
        return json_response({"faults": self._faults.as_list()})

    async def add_fault(self, request: Request) -> Response:
        """Set one more fault: an object with the names of `Fault`."""
        self._faults.add(_fault(parse((await read_body(request, self._caps)).data).value))
        return json_response({"faults": self._faults.as_list()}, 201)

    async def delete_faults(self, _: Request) -> Response:
        """Behave again."""
        self._faults.clear()
        return json_response({"faults": []})

    async def healthz(self, _: Request) -> Response:
        """Say that the collector is there."""
        return json_response({"status": "ok"})


def _page(found: Iterable[Found], limit: int) -> tuple[list[Found], bool]:
    """Take what fits into one answer, and tell whether there is more."""
    page: list[Found] = []
    size = 0
    for each in found:
        size += len(each.payload)
        if len(page) == limit or (page and size > _MAX_PAGE_BYTES):
            return page, True
        page.append(each)
    return page, False


def _plain(found: Found) -> dict[str, Any]:
    return {**found.columns, "payload": orjson.Fragment(found.payload)}


def _filter(
    request: Request, *, known: frozenset[str] = _FILTERS, more: frozenset[str] = frozenset()
) -> Filter:
    given = request.query_params.multi_items()
    names = [name for name, _ in given]
    if not known | more >= set(names) or len(set(names)) < len(names):
        allowed = ", ".join(sorted(known | more)) or "none"
        raise Refused(400, "bad_parameter", f"each parameter at most once, of these: {allowed}")
    return Filter(**{name: _value(name, text) for name, text in given if name in known})


def _value(name: str, text: str) -> Any:
    try:
        return _READERS.get(name, str)(text)
    except ValueError:
        raise Refused(400, "bad_parameter", f"{name} must be {_FORMS[name]}") from None


def _verdict(text: str) -> str:
    if text not in ("good", "bad"):
        raise ValueError(text)
    return text


_READERS: Final[dict[str, Any]] = {"after": position, "since": utc_moment, "verdict": _verdict}
_FORMS: Final = {
    "after": "a cursor, as next or last gave it",
    "since": "a moment of ISO 8601",
    "verdict": "good or bad",
}


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(_PAGE))
    if text.isdecimal() and len(text) <= len(str(_MAX_PAGE)) and 1 <= int(text) <= _MAX_PAGE:
        return int(text)
    raise Refused(400, "bad_parameter", f"limit must be a number from 1 to {_MAX_PAGE:,}")


def _fault(settings: Any) -> Fault:
    if not isinstance(settings, dict):
        raise Refused(400, "bad_fault", "a fault must be a JSON object")
    names = {each.name for each in fields(Fault)}
    if not settings.keys() <= names:
        raise Refused(400, "bad_fault", f"a fault may have {', '.join(sorted(names))}")
    try:
        return Fault(**settings)
    except ValueError as error:
        raise Refused(400, "bad_fault", str(error)) from None
