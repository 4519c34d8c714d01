"""What an ingest request holds, whatever becomes of it: its path, its envelope, its events.

Shared by all that takes events in: what keeps them, and what routes them on. Nothing here waits.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from asyncanalytics.collector.answers import Refused, json_response
from asyncanalytics.collector.judge import MAX_BATCH_BYTES, Reason, is_iso_8601
from asyncanalytics.collector.reading import (
    Body,
    Parsed,
    keys_in,
    parse,
    pixel_data,
    request_key,
    take_key,
)
from asyncanalytics.encoding import new_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

BATCH: Final = "batch"
_LONGEST_MOMENT: Final = 64  # characters
_PIXEL: Final = base64.b64decode(b"R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")


def _success() -> Response:
    return json_response({"success": True})


def _no_content() -> Response:
    return Response(status_code=204)


def _gif() -> Response:
    return Response(_PIXEL, media_type="image/gif")


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """What the path of a request says about it."""

    call: str
    """`batch`, or the call that the body is."""
    plain_key: bool = False
    """Whether the whole Authorization header is the key."""
    success: Callable[[], Response] = _success


DITTOFEED: Final = Route(call=BATCH, plain_key=True, success=_no_content)


def pixel_route(call: str) -> Route:
    """Return what a pixel's path says."""
    return Route(call=call, success=_gif)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request that was understood: its events, what wrote them, and what the envelope says."""

    events: list[Any]
    parsed: Parsed
    key: str | None
    sent_at: str | None
    named: tuple[str, ...]
    """All that stands in the envelope where a key does."""


def open_envelope(request: Request, route: Route, body: Body | Refused) -> Delivery:
    """Read what a request holds; raise `Refused` for one that is refused as a whole."""
    if isinstance(body, Refused):
        raise body
    key = request_key(request.headers, plain=route.plain_key)
    if len(body.data) > MAX_BATCH_BYTES:
        what = "batch" if route.call == BATCH else "call"
        raise Refused(400, f"{what}_too_large", f"a {what} may have {MAX_BATCH_BYTES:,} bytes")
    parsed = parse(body.data)
    envelope = parsed.value
    if not isinstance(envelope, dict):
        raise Refused(400, "not_an_object", "the body must be a JSON object")
    events = _events(envelope, route)
    # A single call's key is its own; a batch's is that of all its events.
    named = tuple(keys_in(envelope)) if route.call == BATCH else ()
    key = key or (take_key(envelope) if route.call == BATCH else None)
    return Delivery(events, parsed, key, _moment(envelope.get("sentAt")), named)


def _moment(value: object) -> str | None:
    """Return what is a moment and no longer than one: it is shown beside each event."""
    is_short = isinstance(value, str) and len(value) <= _LONGEST_MOMENT
    return str(value) if is_short and is_iso_8601(value) else None


def _events(envelope: dict[str, Any], route: Route) -> list[Any]:
    if route.call != BATCH:
        return [_single(envelope, route.call)]
    events = envelope.get("batch")
    if not isinstance(events, list):
        raise Refused(400, "no_batch", "the body must have a list of events named batch")
    return events


def _single(event: dict[str, Any], call: str) -> dict[str, Any]:
    """Add what the path says, and the id that servers give to calls which people write by hand."""
    is_new = event.get("messageId") in (None, "")
    return event | {"type": call} | ({"messageId": new_id()} if is_new else {})


def payload_of(event: Any, parsed: Parsed) -> tuple[bytes, Reason | None]:
    """Write an event as it is kept; one that is nested too deep in part, with why it is bad."""
    try:
        payload = parsed.dump(event)
    except (TypeError, ValueError, RecursionError):
        return parsed.dump(_shallow(event)), "too_deep"
    return (payload if isinstance(event, dict) else b'{"value":' + payload + b"}"), None


def _shallow(event: Any) -> dict[str, Any]:
    """Return the part of an event that can be written whatever is nested in the rest."""
    fields = event.items() if isinstance(event, dict) else ()
    return {name: value for name, value in fields if not isinstance(value, dict | list)}


def pixel_body(request: Request) -> Body | Refused:
    """Read a pixel's query as if it were a body."""
    try:
        data = pixel_data(request)
    except Refused as refused:
        return refused
    return Body(bytearray(data), len(data))
