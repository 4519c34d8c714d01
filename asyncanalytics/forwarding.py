"""Events that others have made, taken into clients as they are: all of a request, or none of it.

Promises:
- What an SDK wrote goes on as it was written, with members that nobody knows here. Only what is
  missing is filled in: an id, a time, a context. What is each sender's own is left out: its key,
  and `sentAt`, which the next one stamps.
- `take` puts every event into the queues of all its destinations, or none into any. What has to be
  done first of all is done once there is room, which is held meanwhile.
- `integrations` selects among the destinations, where there is one too.
- With a spool, `take` returns once all of them are durable.
- A middleware that works on the wire costs no model. Whatever it does to an event is seen by
  its own destination only.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncanalytics import encoding
from asyncanalytics.calls import Call
from asyncanalytics.errors import Closed, InvalidCall, NotDurable, Unserialisable, describe
from asyncanalytics.middleware import OnWire
from asyncanalytics.receipts import Receipt
from asyncanalytics.values import RESERVED
from asyncanalytics.wire import WIRES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from asyncanalytics.client import AsyncClient
    from asyncanalytics.flusher import Flusher
    from asyncanalytics.journal import Journal
    from asyncanalytics.middleware import Middleware
    from asyncanalytics.stats import DropReason

logger: logging.Logger = logging.getLogger("asyncanalytics")

Wire = dict[str, Any]

_SENDERS_OWN: Final = ("sentAt", "writeKey", "appId")
_OBJECTS: Final = ("context", "integrations")
# Their types are the first sender's affair: what was let in goes out.
_UNCHECKED: Final = RESERVED.union(_OBJECTS)
_NEEDED: Final = frozenset({"userId", "anonymousId", "previousId", "groupId", "event"})
_BREATH: Final = 256  # events after which the loop runs


class Event(NamedTuple):
    """One event of another's, ready to go on."""

    call: str
    message_id: str
    wire: Wire
    body: bytes
    """Its JSON, without the opening brace."""


def _encoded(wire: Wire) -> Event:
    wire, body = encoding.encode_as_is(wire["type"], wire)
    return Event(wire["type"], wire["messageId"], wire, body)


def event(call: str, wire: Wire) -> Event:
    """Make an event of a call's members; they are used up by it.

    Raises `Unserialisable` where they are nested too deeply.
    """
    for name in _SENDERS_OWN:
        wire.pop(name, None)
    wire["type"] = call
    if wire.get("messageId") in (None, ""):
        wire["messageId"] = encoding.new_id()
    if wire.get("timestamp") is None:
        original = wire.get("originalTimestamp")
        wire["timestamp"] = original if isinstance(original, str) else encoding.stamp()
    if wire.get("context") is None:
        wire["context"] = {"library": encoding.LIBRARY}
    return _encoded(wire)


class Load:
    """What one destination gets of the events that are taken together."""

    __slots__ = ("flusher", "middleware", "receipts", "refused", "size")

    def __init__(self, flusher: Flusher) -> None:
        """Nothing yet."""
        self.flusher: Flusher = flusher
        self.middleware: Sequence[Middleware] = flusher.destination.middleware
        self.receipts: list[Receipt] = []
        self.size: int = 0
        self.refused: defaultdict[DropReason, list[Receipt]] = defaultdict(list)

    def add(self, event: Event) -> None:
        """Add an event, as it is for this destination."""
        reason = self.flusher.refusal(event.call, event.body)
        if reason is not None:
            self.refuse(event, reason)
            return
        self.receipts.append(Receipt(event.call, event.message_id, event.body))
        self.size += len(event.body)

    def refuse(self, event: Event, reason: DropReason) -> None:
        """Add an event that does not go there."""
        self.refused[reason].append(Receipt(event.call, event.message_id, b""))

    def has_room(self) -> bool:
        """Whether all of it can be put now."""
        return self.flusher.has_room_for(self.size, len(self.receipts))

    def fits(self) -> bool:
        """Whether all of it can be put now, having waited its turn."""
        return self.flusher.fits_all(self.size, len(self.receipts))

    def hold(self) -> None:
        """Keep the room for it, where there is such a thing as no room."""
        self.flusher.hold(self.size, len(self.receipts))

    def let_go(self) -> None:
        """Keep it no more: what is put before the next await still has it."""
        self.flusher.hold(-self.size, -len(self.receipts))

    def put(self) -> None:
        """Put it into the queue, and count what does not go there."""
        self.flusher.accept_all(self.receipts)
        for reason, receipts in self.refused.items():
            self.flusher.refuse(receipts, reason)


class Plan:
    """Where the events of one client go that are taken together."""

    def __init__(self, way: Forwarding, loads: Sequence[Load], unrouted: int) -> None:
        """Made by `Forwarding.plan`."""
        self._way = way
        self.loads: Sequence[Load] = [each for each in loads if each.receipts]
        self._all = loads
        self._unrouted = unrouted

    def check(self) -> None:
        """Raise unless all of it could be taken now, for all that is not a matter of room."""
        client, journal = self._way.client, self._way.journal
        is_open = client._open_on is asyncio.get_running_loop()  # noqa: SLF001
        if self._way.is_closed or not is_open:
            raise Closed
        if journal is not None and journal.is_failing:
            raise NotDurable

    def put(self) -> Landing | None:
        """Put all of it; the landing is of what has to get onto a disk."""
        self._way.client._unrouted += self._unrouted  # noqa: SLF001
        landing = None
        if self._way.journal is not None and self.loads:
            landing = Landing(self._way.journal)
        for load in self._all:
            load.put()
        return landing


class Landing:
    """What was put into one spool."""

    def __init__(self, journal: Journal) -> None:
        """Made before it is put."""
        self._journal = journal
        self._refused = journal.refused

    async def wait(self) -> None:
        """Return once all of it is on the disk, or raise `NotDurable`."""
        await self._journal.landing(None)
        if self._journal.refused > self._refused:  # these, or others of the same moment
            raise NotDurable


class Forwarding:
    """The way of others' events into one client."""

    def __init__(self, client: AsyncClient) -> None:
        """Use the client's destinations, its middleware and its spool."""
        self.client: AsyncClient = client
        self.journal: Journal | None = client._journal  # noqa: SLF001
        self.flushers: Sequence[Flusher] = client._flushers  # noqa: SLF001
        self._shared: Sequence[Middleware] = client._router.middleware  # noqa: SLF001
        self.is_closed: bool = False
        self._said: set[str] = set()

    def close(self) -> None:
        """Take nothing more, while the client goes on with what it has; who waits gets `Closed`."""
        self.is_closed = True
        for flusher in self.flushers:
            flusher.buffer.turn_away(Closed)

    async def plan(self, events: Iterable[Event]) -> Plan:
        """Find where each event goes, and as what. Nothing is taken yet."""
        loads = [Load(flusher) for flusher in self.flushers]
        unrouted = 0
        for number, each in enumerate(events, 1):
            unrouted += not self._add(each, loads)
            if number % _BREATH == 0:
                await asyncio.sleep(0)
        return Plan(self, loads, unrouted)

    def _add(self, given: Event, loads: Sequence[Load]) -> bool:
        """Add an event to the loads of the destinations that it is for, if there are any."""
        shared = self._changed(given, self._shared) if self._shared else given
        switches = (shared if isinstance(shared, Event) else given).wire.get("integrations")
        chosen = _selected(loads, switches) if switches else loads
        for load in chosen:
            own = shared
            if load.middleware and isinstance(own, Event):
                own = self._changed(own, load.middleware)
            if isinstance(own, Event):
                load.add(own)
            else:
                load.refuse(given, own)
        return bool(chosen)

    def _changed(self, given: Event, middleware: Sequence[Middleware]) -> Event | DropReason:
        """Return what middleware makes of an event: itself, another, or why nothing sound."""
        wire = given.wire
        try:
            for each in middleware:
                changed = each.apply(wire) if isinstance(each, OnWire) else _called(each, wire)
                if changed is None:
                    return each.reason if isinstance(each, OnWire) else "middleware"
                wire = changed
        except InvalidCall as error:
            return self._error("cannot be given an event", _said(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's code; the others go on
            return self._error("raised", describe(error))
        if wire is given.wire:
            return given
        try:
            return _encoded(_checked(wire, given.wire))
        except InvalidCall as error:
            return self._error("returned what is no valid call", _said(error))

    def _error(self, what: str, detail: str) -> DropReason:
        """Log each kind of trouble once; the events are counted."""
        if detail not in self._said:
            self._said.add(detail)
            logger.error("middleware %s: %s; the events are dropped", what, detail)
        return "middleware_error"


def _selected(loads: Sequence[Load], integrations: Any) -> Sequence[Load]:
    if not isinstance(integrations, dict):
        return loads
    rest = integrations.get("All", True)
    return [each for each in loads if integrations.get(each.flusher.name, rest) is not False]


def _called(middleware: Middleware, wire: Wire) -> Wire | None:
    """Let a function have an event as a model of its own; what a model cannot hold goes around."""
    around = {name: wire[name] for name in RESERVED & wire.keys()}
    members = {name: value for name, value in wire.items() if name not in around}
    kind = WIRES[wire["type"]]
    changed = middleware(kind.build(encoding.snapshot(kind.type, members)))
    if changed is None:
        return None
    if not isinstance(changed, Call):
        raise TypeError("a middleware returns a call or None")
    return {**around, **changed.wire(), "messageId": wire["messageId"]}


def _checked(wire: Wire, given: Wire) -> Wire:
    """Return a call with ids that are text, or raise `InvalidCall` if it is none any more.

    What has not changed was looked at before.
    """
    kind = WIRES.get(wire["type"])
    if kind is None:
        raise InvalidCall("call", "type", "is none of the six")
    is_new = kind.type != given["type"]
    sound = kind.validate(
        {
            name: value
            for name, value in wire.items()
            if (name in _NEEDED or is_new or value is not given.get(name))
            and name not in _UNCHECKED
            and not (value is None and given.get(name, "") is None)  # as good as absent
        }
    )
    for name in _OBJECTS:
        if not isinstance(wire.get(name), dict | None):
            raise InvalidCall(kind.type, name, "must be an object")
    return wire | {name: sound[name] for name in _NEEDED & sound.keys()}


def _said(error: InvalidCall) -> str:
    if isinstance(error, Unserialisable):
        return type(error).__name__  # its field is a path into the user's data
    return f"{error.call}: {error.field}: {error.problem}"


# ---------------------------------------------------------------------------------------- taking


async def take(
    plans: Sequence[Plan],
    *,
    patience: float,
    first: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Put what is planned into the queues, all of it or nothing, and onto the disk.

    It waits for room as each destination's `Queueing` says, and `patience` seconds for a disk.
    `first` is awaited as soon as there is room; what it raises is raised, and nothing was taken.

    Raises:
        QueueFull: if one of the queues has no room. Nothing was taken.
        Closed: if one of the clients takes no calls (any more). Nothing was taken.
        NotDurable: if the disk refuses. If that had been known, nothing was taken; else all was,
            and some may go out.
    """
    for plan in plans:
        plan.check()
    loads = [load for plan in plans for load in plan.loads]
    await _find_room(loads)
    if first is not None:
        with _held(loads):
            await first()
    for plan in plans:
        plan.check()
    landings = [plan.put() for plan in plans]  # no await since there was room
    try:
        async with asyncio.timeout(patience):
            for each in landings:
                if each is not None:
                    await each.wait()
    except TimeoutError:
        raise NotDurable from None


@contextmanager
def _held(loads: Sequence[Load]) -> Iterator[None]:
    for load in loads:
        load.hold()
    try:
        yield
    finally:
        for load in loads:
            load.let_go()


async def _find_room(loads: Sequence[Load]) -> None:
    """Wait until all queues have room at the same time."""
    since = asyncio.get_running_loop().time()
    lacking = [load for load in loads if not load.has_room()]
    while lacking:
        for load in lacking:
            await load.flusher.room(load.size, since, len(load.receipts))
        lacking = [load for load in loads if not load.fits()]
