"""One ingest request, from its arrival to its answer.

The order is always the same: a fault is drawn, the body is read within its caps, the fault may
answer in place of the rest; then the keys are checked, each event is judged, and what is kept
is kept in one transaction before the answer is given.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from asyncanalytics.collector.answers import Mode, Refused, bad_events
from asyncanalytics.collector.envelope import (
    Delivery,
    Route,
    open_envelope,
    payload_of,
    pixel_body,
)
from asyncanalytics.collector.judge import CALLS, MAX_BATCH_EVENTS, Reason, judge
from asyncanalytics.collector.keys import KeyRing, Keys
from asyncanalytics.collector.masking import (
    Hiding,
    body_keys,
    masked_headers,
    masked_path,
    request_keys,
    write_keys_of,
)
from asyncanalytics.collector.reading import (
    Body,
    Caps,
    keys_in,
    parse,
    read_body,
    take_key,
    utf8_text,
)
from asyncanalytics.collector.records import NAME_FIELDS
from asyncanalytics.collector.store import EventRow, RequestRow, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncanalytics.collector.faults import Fault, Faults

_MAX_RETRY_COUNT_DIGITS: Final = 9
_CLIENT_CLOSED_REQUEST: Final = 499


class Intake:
    """Takes ingest requests in."""

    def __init__(
        self, store: Store, faults: Faults, *, keys: KeyRing, mode: Mode, caps: Caps
    ) -> None:
        """Keep what comes in the store, and misbehave as the faults say."""
        self._store = store
        self._faults = faults
        self._keys = keys
        self._mode = mode
        self.caps = caps

    async def post(self, request: Request, route: Route) -> Response:
        """Answer a POST."""
        fault = self._faults.draw()
        try:
            body = await read_body(request, self.caps)
        except Refused as refused:
            return await self._misbehave(request, route, refused, fault)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_CLOSED_REQUEST)  # nobody is there to read it
        return await self._misbehave(request, route, body, fault)

    async def pixel(self, request: Request, route: Route) -> Response:
        """Answer a GET whose query holds the event."""
        fault = self._faults.draw()
        return await self._misbehave(request, route, pixel_body(request), fault)

    async def _misbehave(
        self, request: Request, route: Route, body: Body | Refused, fault: Fault | None
    ) -> Response:
        """Do the work, but for what the fault takes away from it."""
        if fault is None:
            return self._work(request, route, body)
        if fault.after:
            answer = self._work(request, route, body, fault)
            await fault.wait(request.receive)
            return fault.response() if fault.answers else answer
        await fault.wait(request.receive)
        if not fault.answers:
            return self._work(request, route, body)
        row = _request_row(request, body, status=fault.answered, keys=Keys(self._keys))
        self._store.add(row)
        return fault.response()

    def _work(
        self, request: Request, route: Route, body: Body | Refused, fault: Fault | None = None
    ) -> Response:
        """Judge, keep and answer; a fault is what the client will be told in its place."""
        keys = Keys(self._keys)
        try:
            delivery = open_envelope(request, route, body)
            rows = list(self._judged(delivery, keys.fingerprint, _beside(request, body)))
        except Refused as refused:
            told = _told(refused.status, fault)
            row = _request_row(request, body, status=told, keys=keys)
            self._store.add(replace(row, refusal=refused.reason))
            return refused.response()
        bad = [row for row in rows if row[3] is not None]
        answer = self._answer(route, bad)
        told = _told(answer.status_code, fault)
        row = _request_row(request, body, status=told, keys=keys, sent_at=delivery.sent_at)
        self._store.add(row, bad if bad and self._mode == "strict" else rows)
        return answer

    def _judged(
        self,
        delivery: Delivery,
        fingerprint: Callable[[str | None], str | None],
        beside: list[str],
    ) -> Iterator[EventRow]:
        """Judge each event, and hide in it the keys that it has and those beside it."""
        own = [keys_in(event) if isinstance(event, dict) else [] for event in delivery.events]
        hiding = Hiding(itertools.chain([delivery.key or ""], delivery.named, beside, *own))
        if delivery.key is not None or not delivery.events:
            fingerprint(delivery.key)  # refuses a request whose own key is unknown
        excess: Reason | None = None
        if len(delivery.events) > MAX_BATCH_EVENTS:
            excess = "too_many_events"
        for place, event in enumerate(delivery.events):
            key = (take_key(event) if isinstance(event, dict) else None) or delivery.key
            payload, too_deep = payload_of(event, delivery.parsed)
            reason = excess or too_deep or judge(event, size=len(payload))
            shown = hiding.payload(payload, own[place])
            if shown is not payload and isinstance(event, dict):
                event = parse(shown).value  # noqa: PLW2901 - its columns are to hide it as well
            yield _row(place, event, reason, fingerprint(key), shown)

    def _answer(self, route: Route, bad: list[EventRow]) -> Response:
        errors = [
            {"index": place, "messageId": message_id and utf8_text(message_id), "reason": reason}
            for place, message_id, _, reason, *_ in bad
        ]
        return bad_events(self._mode, errors, route.success)


def _told(status: int, fault: Fault | None) -> int:
    return fault.answered if fault is not None and fault.answers else status


def _beside(request: Request, body: Body | Refused) -> list[str]:
    written = write_keys_of(body.data) if isinstance(body, Body) else []
    return request_keys(request) + written


def _request_row(
    request: Request, body: Body | Refused, *, status: int, keys: Keys, sent_at: str | None = None
) -> RequestRow:
    plain = {*keys.plain(), *request_keys(request)}
    if isinstance(body, Body):
        plain |= body_keys(body.data)
    count = request.headers.get("x-retry-count", "")
    is_count = count.isdecimal() and len(count) <= _MAX_RETRY_COUNT_DIGITS
    return RequestRow(
        received_at=moment(datetime.now(UTC)),
        sent_at=sent_at,
        retry_count=int(count) if is_count else None,
        bytes=0 if isinstance(body, Refused) else body.received,
        inflated=None if isinstance(body, Refused) else len(body.data),
        status=status,
        method=request.method,
        path=masked_path(request, plain),
        headers=masked_headers(request.headers.items(), plain),
        masks=keys.masks(),
    )


def moment(when: datetime) -> str:
    """Write a moment as `received_at` is written."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _row(
    place: int, event: Any, reason: Reason | None, fingerprint: str | None, payload: bytes
) -> EventRow:
    if not isinstance(event, dict):
        return place, None, None, reason, None, None, None, None, fingerprint, payload
    kind = _text(event.get("type"))
    return (
        place,
        _text(event.get("messageId")),
        kind if kind in CALLS else None,
        reason,
        _text(event.get("userId")),
        _text(event.get("anonymousId")),
        _text(event.get("event")),
        _text(event.get(NAME_FIELDS.get(kind or "", "event"))),
        fingerprint,
        payload,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
