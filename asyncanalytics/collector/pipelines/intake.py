"""One request to the router, from its arrival to its answer.

- A success is answered once every good event is in all its queues, and on the disk of each pipeline
  that has a spool. Otherwise nothing is claimed, and in most cases nothing was taken.
- All keys are checked before anything is taken.
- Bad events are kept before the good ones are taken, and once there is room for those: a request
  that comes again for want of room finds nothing of it kept.
- What waits for room is bounded: in time by `max_wait`, in number by `max_waiting`.
- A reload in the middle of a request has it go on with the new pipelines.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from asyncanalytics.collector.answers import Refused, bad_events
from asyncanalytics.collector.envelope import (
    BATCH,
    Delivery,
    Route,
    open_envelope,
    payload_of,
    pixel_body,
)
from asyncanalytics.collector.judge import CALLS, MAX_BATCH_EVENTS, is_iso_8601, judge
from asyncanalytics.collector.pipelines.line import Bad
from asyncanalytics.collector.reading import Body, Caps, read_body, take_key, utf8_text
from asyncanalytics.errors import Closed, NotDurable, QueueFull, Unserialisable
from asyncanalytics.forwarding import Event, Plan, event, take
from asyncanalytics.values import filled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncanalytics.collector.judge import Reason
    from asyncanalytics.collector.pipelines.config import Server
    from asyncanalytics.collector.pipelines.line import Line

logger: logging.Logger = logging.getLogger("asyncanalytics")

_CLIENT_CLOSED_REQUEST: Final = 499
_DISK: Final = 5.0  # seconds that a disk has at least
_PERSISTENCE: Final = 10  # reloads that one request may meet
_BREATH: Final = 256  # events after which the loop runs
_SHARED: Final = ("context", "integrations")  # what a batch may say for all its events

Shares = defaultdict[str | None, list[Event]]
"""Good events by the write key that they came with."""


class Desk(Protocol):
    """The router, as a request sees it."""

    @property
    def server(self) -> Server:
        """How events come in."""

    def line(self, key: str | None) -> Line:
        """Return the pipeline of a key; `Refused` with 401 if there is none."""


class Intake:
    """Takes ingest requests in."""

    def __init__(self, desk: Desk) -> None:
        """Hand events to the lines that the desk knows."""
        self._desk = desk
        self._waiting = 0
        self._said: set[tuple[str, Reason]] = set()

    async def post(self, request: Request, route: Route) -> Response:
        """Answer a POST."""
        server = self._desk.server
        caps = Caps(max_body=server.max_body, max_inflated=server.max_inflated)
        body: Body | Refused
        try:
            body = await read_body(request, caps)
        except Refused as refused:
            body = refused
        except ClientDisconnect:
            return Response(status_code=_CLIENT_CLOSED_REQUEST)  # nobody is there to read it
        return await self._answered(request, route, body)

    async def pixel(self, request: Request, route: Route) -> Response:
        """Answer a GET whose query holds the event."""
        return await self._answered(request, route, pixel_body(request))

    async def _answered(self, request: Request, route: Route, body: Body | Refused) -> Response:
        try:
            answer = await self._work(request, route, body)
        except Refused as refused:
            answer = refused.response()
            if refused.status == 503:
                answer.headers["retry-after"] = str(self._desk.server.retry_after)
        return answer

    async def _work(self, request: Request, route: Route, body: Body | Refused) -> Response:
        mode = self._desk.server.mode
        delivery = open_envelope(request, route, body)
        sorting = _Sorting(self._desk, delivery, is_batch=route.call == BATCH)
        await sorting.sort()
        if sorting.bad and mode == "strict":
            await self._keep(sorting.bad)
        else:
            await self._submit(sorting.good, dict(sorting.bad))
        self._count_bad(sorting.bad)
        return bad_events(mode, sorting.errors(), route.success)

    async def _keep(self, bad: dict[Line, list[Bad]]) -> None:
        for line, events in bad.items():
            await line.keep(events, patience=self._patience)

    def _count_bad(self, bad: dict[Line, list[Bad]]) -> None:
        for line, events in bad.items():
            line.figures.bad.update(each.reason for each in events)
            for kind in {(line.config.name, each.reason) for each in events} - self._said:
                self._said.add(kind)
                logger.warning("pipeline %r: a bad event: %s; more are only counted", *kind)

    async def _submit(self, shares: Shares, bad: dict[Line, list[Bad]]) -> None:
        """Have all events taken, by the pipelines that there are when there is room.

        The bad ones are kept just before, once, however many pipelines take turns.
        """

        async def keep() -> None:
            await self._keep(bad)
            bad.clear()

        for _ in range(_PERSISTENCE):
            lines = {key: self._desk.line(key) for key in shares}
            try:
                plans = [await lines[key].way.plan(events) for key, events in shares.items()]
                await self._take(plans, first=keep if bad else None)
            except Closed:
                continue  # replaced meanwhile: the desk knows by what, or that it is over
            except QueueFull as error:
                full = f"the queue of {error.destination!r} is full: send it again later"
                raise Refused(503, "queue_full", full) from None
            except NotDurable:
                said = "the disk does not take events: send it again later, with the same ids"
                raise Refused(503, "not_durable", said) from None
            for key, events in shares.items():
                lines[key].figures.events += len(events)
            return
        raise Refused(503, "stopping", "send it again later")

    @property
    def _patience(self) -> float:
        """Seconds that a disk has."""
        return max(self._desk.server.max_wait, _DISK)

    async def _take(
        self, plans: list[Plan], *, first: Callable[[], Awaitable[None]] | None
    ) -> None:
        server = self._desk.server
        has_room = all(load.has_room() for plan in plans for load in plan.loads)
        if not has_room and self._waiting >= server.max_waiting:
            raise Refused(503, "too_many_wait", "too many requests wait: send it again later")
        self._waiting += 1
        try:
            await take(plans, patience=self._patience, first=first)
        finally:
            self._waiting -= 1


class _Sorting:
    """The events of one request, good ones and bad ones apart."""

    def __init__(self, desk: Desk, delivery: Delivery, *, is_batch: bool) -> None:
        self.good: Shares = defaultdict(list)
        self.bad: defaultdict[Line, list[Bad]] = defaultdict(list)
        self._desk = desk
        self._delivery = delivery
        self._lines: dict[str | None, Line] = {}
        self._late = _lateness(delivery.sent_at)
        self._is_batch = is_batch
        self._shared = _shared(delivery.parsed.value) if is_batch else {}
        if len(delivery.events) > MAX_BATCH_EVENTS:
            most = f"a batch may have {MAX_BATCH_EVENTS:,} events"
            raise Refused(400, "too_many_events", most)
        if delivery.key is not None or not delivery.events:
            self._line(delivery.key)  # refuses a request whose own key is unknown

    async def sort(self) -> None:
        """Judge each event, and make the good ones ready to go on."""
        for place, given in enumerate(self._delivery.events):
            if place % _BREATH == _BREATH - 1:
                await asyncio.sleep(0)
            key = (take_key(given) if isinstance(given, dict) else None) or self._delivery.key
            line = self._line(key)
            own_id = self._id(given)
            made = self._made(given, line)
            if isinstance(made, Event):
                self.good[key].append(made)
            else:
                self.bad[line].append(self._bad(place, given, made, own_id))

    def errors(self) -> list[dict[str, Any]]:
        """Return what is told of the bad events, in their order."""
        found = sorted(each for events in self.bad.values() for each in events)
        return [
            {
                "index": each.place,
                "messageId": each.message_id and utf8_text(each.message_id),
                "reason": each.reason,
            }
            for each in found
        ]

    def _line(self, key: str | None) -> Line:
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = self._desk.line(key)
        return line

    def _made(self, given: Any, line: Line) -> Event | Reason:
        """Return an event that is ready to go on, or why it is bad."""
        kind = given.get("type") if isinstance(given, dict) else None
        if not isinstance(kind, str) or kind not in CALLS:
            return judge(given, size=0) or "unknown_type"
        for name, more in self._shared.items():
            own = given.get(name)
            if isinstance(own, dict | None):  # else it is bad
                given[name] = filled(own or {}, more)
        if line.config.correct_clock and self._late is not None:
            _correct(given, self._late)
        try:
            made = event(kind, given)
        except Unserialisable:
            return "too_deep"
        return judge(made.wire, size=len(made.body) + 1) or made

    def _id(self, given: Any) -> Any:
        """Return the id that an event came with: a single call has been given one by now."""
        came = given if self._is_batch else self._delivery.parsed.value
        return came.get("messageId") if isinstance(came, dict) else None

    def _bad(self, place: int, given: Any, reason: Reason, own_id: Any) -> Bad:
        if own_id in (None, "") and isinstance(given, dict):
            given.pop("messageId", None)  # it was made up here, and would tell nobody anything
        payload, _ = payload_of(given, self._delivery.parsed)
        return Bad(place, own_id if isinstance(own_id, str) else None, reason, payload)


def _shared(envelope: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a batch says for all its events."""
    found = {name: envelope.get(name) for name in _SHARED}
    return {name: each for name, each in found.items() if isinstance(each, dict) and each}


def _lateness(sent_at: str | None) -> timedelta | None:
    """Return how far the sender's clock is behind, with the time that the request took."""
    if sent_at is None or not is_iso_8601(sent_at):
        return None
    return datetime.now(UTC) - _moment(sent_at)


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _correct(wire: dict[str, Any], late: timedelta) -> None:
    """Set an event's time right by its sender's clock, as the protocol's servers do."""
    told = wire.get("timestamp", wire.get("originalTimestamp"))
    if not isinstance(told, str) or not is_iso_8601(told):
        return
    try:
        corrected = _moment(told) + late
    except OverflowError:
        return
    wire.setdefault("originalTimestamp", told)
    wire["timestamp"] = corrected.isoformat(timespec="milliseconds").replace("+00:00", "Z")
