"""Where a call goes, and as what: middleware, selection, encoding, and refusals.

Two ways lead to the same: without middleware a call's fields become the wire's dict at once; with
middleware a model is made of them first, passed through, and checked again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import ValidationError

from asyncanalytics import encoding, later
from asyncanalytics.errors import InvalidCall, TooLarge, Unserialisable, Unsupported, describe
from asyncanalytics.receipts import Receipt
from asyncanalytics.wire import WIRES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncanalytics.calls import Call
    from asyncanalytics.flusher import Flusher
    from asyncanalytics.middleware import Middleware
    from asyncanalytics.stats import DropReason
    from asyncanalytics.wire import CallWire

logger: logging.Logger = logging.getLogger("asyncanalytics")


class Stop(NamedTuple):
    """One call at one destination: its receipt, and why it stops here if it does."""

    flusher: Flusher
    receipt: Receipt
    refusal: DropReason | None

    def has_room(self) -> bool:
        """Whether the call can be accepted here now."""
        return self.refusal is not None or self.flusher.has_room(len(self.receipt.body))

    def fits(self) -> bool:
        """Whether the call can be accepted here now, after it has waited its turn."""
        return self.refusal is not None or self.flusher.fits(len(self.receipt.body))


class Route(NamedTuple):
    """Where one call goes."""

    call: str
    message_id: str
    stops: Sequence[Stop]

    def refused(self, reason: DropReason) -> Route:
        """Return the same way, with every stop's end at its beginning."""
        return self._replace(stops=[stop._replace(refusal=reason) for stop in self.stops])


class Router:
    """Finds the way of each call among a client's destinations."""

    def __init__(self, flushers: Sequence[Flusher], middleware: Sequence[Middleware]) -> None:
        """Take the destinations' flushers, and the middleware that runs for all of them."""
        self._flushers = flushers
        self.middleware: Sequence[Middleware] = middleware
        self._said: set[str] = set()
        own = any(flusher.destination.middleware for flusher in flushers)
        self._builds_models = bool(middleware) or own
        if self._builds_models:  # here, and not with the first call
            later.load("asyncanalytics.middleware")
        only = flushers[0]
        asks = len(flushers) > 1 or self._builds_models or only.destination.refuses
        self.straight: Flusher | None = None if asks else only
        """The flusher that every call goes to, no question asked, if there is one."""

    def route(self, wire: CallWire, fields: dict[str, Any]) -> Route:
        """Validate and encode a call, and find where it goes; raise `InvalidCall` if nowhere."""
        if self._builds_models:
            return self._route_model(wire, fields)
        checked = wire.validate(fields)
        flushers = self._select(checked.get("integrations"))
        message_id, body = encoding.encode(wire.type, checked)
        stops = [_stop(flusher, Receipt(wire.type, message_id, body)) for flusher in flushers]
        return Route(wire.type, message_id, _takers(wire.type, stops))

    def _route_model(self, wire: CallWire, fields: dict[str, Any]) -> Route:
        call = wire.build(encoding.snapshot(wire.type, fields))
        call.message_id = call.message_id or encoding.new_id()
        call.timestamp = call.timestamp or encoding.stamp()
        message_id, switches = call.message_id, call.integrations
        shared = self._fold(self.middleware, call)
        if not isinstance(shared, str):
            switches = shared.integrations
            message_id = shared.message_id or message_id
        stops: list[Stop] = []
        for flusher in self._select(switches):
            own = shared
            if flusher.destination.middleware and not isinstance(shared, str):
                own = self._fold_copy(flusher.destination.middleware, shared)
            stops.append(self._stop_model(flusher, wire, message_id, own, fields))
        return Route(wire.type, message_id, _takers(wire.type, stops))

    def _fold(self, middleware: Sequence[Middleware], call: Call) -> Call | DropReason:
        """Run middleware on a call; return what came out, or why nothing sound did."""
        from asyncanalytics.calls import Call
        from asyncanalytics.middleware import OnWire

        for each in middleware:
            try:
                changed: Any = each(call)
            except Exception as error:  # noqa: BLE001 - it is the user's code; the caller goes on
                return self._error("raised", describe(error))
            if changed is None:
                return each.reason if isinstance(each, OnWire) else "middleware"
            if not isinstance(changed, Call):
                return self._error("returned what is no valid call", type(changed).__name__)
            call = changed
        if middleware:
            try:
                type(call).model_validate(call.wire())
            except (ValidationError, AttributeError) as error:
                return self._error("returned what is no valid call", describe(error))
        return call

    def _fold_copy(self, middleware: Sequence[Middleware], call: Call) -> Call | DropReason:
        """Run a destination's middleware on a copy: the others get the call as it is."""
        try:
            copy = encoding.snapshot(call.type, call.wire())
        except Unserialisable:
            return self._error("returned what contains itself", call.type)
        return self._fold(middleware, type(call).model_validate(copy))

    def _error(self, what: str, detail: str) -> DropReason:
        """Log each kind of trouble once; the calls are counted."""
        if detail not in self._said:
            self._said.add(detail)
            logger.error("middleware %s: %s; the calls are dropped", what, detail)
        return "middleware_error"

    def _stop_model(
        self,
        flusher: Flusher,
        wire: CallWire,
        message_id: str,
        call: Call | DropReason,
        given: dict[str, Any],
    ) -> Stop:
        if not isinstance(call, str):
            try:
                checked = WIRES[call.type].validate(call.wire())
                return _stop(flusher, Receipt(call.type, *encoding.encode(call.type, checked)))
            except InvalidCall as error:
                encoding.encode(wire.type, wire.validate(given))  # raises if it is the caller's
                call = self._error("returned what cannot be sent", type(error).__name__)
        return Stop(flusher, Receipt(wire.type, message_id, b""), call)

    def _select(self, integrations: Mapping[str, Any] | None) -> Sequence[Flusher]:
        """Return the destinations that a call is meant for, by name, with `All` for the rest.

        With one destination `integrations` only travel: they then speak of what lies behind it.
        """
        if not integrations or len(self._flushers) == 1:
            return self._flushers
        rest = integrations.get("All", True)
        return [each for each in self._flushers if integrations.get(each.name, rest) is not False]


def _stop(flusher: Flusher, receipt: Receipt) -> Stop:
    return Stop(flusher, receipt, flusher.refusal(receipt.call, receipt.body))


def _takers(call: str, stops: list[Stop]) -> list[Stop]:
    """Return the stops, or raise if every one of them refuses the call for what it is."""
    for stop in stops:
        if stop.refusal not in {"too_large", "unsupported"}:
            return stops
    large = [stop for stop in stops if stop.refusal == "too_large"]
    if large:
        limits = [stop.flusher.buffer.limits for stop in large]
        widest = max(limits, key=lambda each: each.max_body)
        size = widest.event_size(large[0].receipt.body)
        raise TooLarge(call, size=size, limit=widest.max_body + widest.per_event - 1)
    if stops:
        raise Unsupported(call, ", ".join(stop.flusher.name for stop in stops))
    return stops
