"""What every buffer has: an `asyncio.Queue` of receipts, and callers who wait for room.

Invariants:
- First in, first out. Calls are numbered as they enter the queue; `first_pending` is the number of
  the oldest one that is not settled.
- `put` never waits. Waiting for room is apart from it, so that a call for several destinations
  can wait for all of them before it is put into any.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from asyncanalytics.batching import Batch, Limits, fill

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncanalytics.receipts import Outcome, Receipt
    from asyncanalytics.settings import Queueing


class _Waiter(NamedTuple):
    turn: asyncio.Future[None]
    size: int
    events: int


class CallQueue(asyncio.Queue["Receipt"]):
    """An `asyncio.Queue` without bounds of its own, from which a whole batch is taken at once.

    One task waits for calls, and only while there are none: the first that comes wakes it.
    """

    def _init(self, maxsize: int) -> None:  # noqa: ARG002 - the hook's
        self.waiting: deque[Receipt] = deque()
        """The calls that wait. While there are any, nobody waits for one: more may be appended."""
        self._queue = self.waiting

    def put_all(self, receipts: Sequence[Receipt]) -> None:
        """Put calls in order."""
        if receipts and not self.waiting:
            self.put_nowait(receipts[0])
            receipts = receipts[1:]
        self.waiting.extend(receipts)

    async def wait(self) -> None:
        """Wait until there is one."""
        if not self.waiting:
            self.waiting.appendleft(await self.get())

    def take(self, limits: Limits) -> tuple[list[Receipt], int]:
        """Take as many as one request holds, and return the bytes of their bodies too."""
        return fill(limits, self.waiting)


class Buffer:
    """Accepted calls of one destination, with those that are next in memory."""

    keeps: bool = False
    """Whether what is left at the close waits for the next start."""

    def __init__(self, queueing: Queueing, limits: Limits) -> None:
        """Bound what is in memory; `ready` is set once a batch of `limits` waits."""
        self._limit(limits)
        self._max_events = queueing.max_events
        self._max_bytes = queueing.max_bytes
        self._queue = CallQueue()
        self._waiting = self._queue.waiting
        # A batch's first number → its events that are not settled, and their bytes.
        self._in_flight: dict[int, tuple[int, int]] = {}
        self._held_events = 0  # in memory, and room kept for callers whose turn has come
        self._held_bytes = 0
        self._promised_events = 0  # just that room
        self._promised_bytes = 0
        self._waiting_bytes = 0  # as they will weigh in a request
        self._put = 0
        self._taken = 0
        self._hurry_to = 0
        self._waiters: deque[_Waiter] = deque()
        self._turned_away: type[Exception] | None = None
        self._flushes: list[tuple[int, asyncio.Future[None]]] = []
        self.ready: asyncio.Event = asyncio.Event()
        """Set while what waits should go out without lingering."""

    # -------------------------------------------------------------------------------- going in

    def fits(self, size: int, ahead: int = 0) -> bool:
        """Whether a call of so many bytes is within the bounds; one alone always is.

        `ahead` calls that are on their way go before it; their bytes are in `size` too.
        """
        held = self._held_events + ahead
        return held < self._max_events and (self._held_bytes + size <= self._max_bytes or held == 0)

    def has_room(self, size: int, ahead: int = 0) -> bool:
        """Whether a call fits and nobody waits for room before it."""
        return not self._waiters and self.fits(size, ahead)

    def fits_all(self, size: int, events: int) -> bool:
        """Whether so many calls fit, of so many bytes together; where there is none, any do."""
        return self.fits(size, events - 1) or not self._held_events

    def has_room_for(self, size: int, events: int) -> bool:
        """Whether so many calls fit and nobody waits for room before them."""
        return not self._waiters and self.fits_all(size, events)

    async def room(self, size: int, events: int = 1) -> None:
        """Wait until so many calls fit, of so many bytes together, in the order of asking.

        On return they fit until the next await. Cancelling leaves no trace.
        """
        if self.has_room_for(size, events):
            return
        if self._turned_away is not None:
            raise self._turned_away
        waiter = _Waiter(asyncio.get_running_loop().create_future(), size, events)
        self._waiters.append(waiter)
        try:
            await waiter.turn
        except asyncio.CancelledError:
            self._leave(waiter)
            raise
        self.hold(-size, -events)

    def hold(self, size: int, events: int) -> None:
        """Keep room for so many calls that fit, or, below 0, keep it no more."""
        self._promise(events, size)
        if events < 0:
            # Less may be put than was kept for, or nothing: the next one looks after it.
            asyncio.get_running_loop().call_soon(self.let_in)

    def turn_away(self, error: type[Exception]) -> None:
        """Raise an error in each who waits for room, and who would from now on."""
        self._turned_away = error
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.turn.done():
                waiter.turn.set_exception(error())

    def takes(self, size: int) -> bool:
        """Whether a call can be sent, fits, and nobody waits for room before it."""
        return size <= self.largest and self.has_room(size)

    def put(self, receipt: Receipt) -> None:
        """Take in a call that fits."""
        # As `put_all` does it, without a call more for each.
        size = len(receipt.body)
        if self._waiting:
            self._waiting.append(receipt)
        else:
            self._queue.put_nowait(receipt)
        self._put += 1
        self._held_events += 1
        self._held_bytes += size
        self._waiting_bytes = waiting = self._waiting_bytes + size + self._per_event
        if waiting >= self._batch_bytes or self._put - self._taken >= self._batch_events:
            self.ready.set()

    def put_all(self, receipts: Sequence[Receipt]) -> None:
        """Take in calls that fit."""
        self._queue.put_all(receipts)
        size = sum([len(receipt.body) for receipt in receipts])
        self._put += len(receipts)
        self._held_events += len(receipts)
        self._held_bytes += size
        self._waiting_bytes += size + len(receipts) * self._per_event
        if self._has_batch():
            self.ready.set()

    def let_in(self) -> None:
        """Look whether those who wait for room have it by now."""
        while self._waiters and self.fits_all(self._waiters[0].size, self._waiters[0].events):
            waiter = self._waiters.popleft()
            if not waiter.turn.done():
                # Held until the caller runs, so that nobody takes it meanwhile.
                self._promise(waiter.events, waiter.size)
                waiter.turn.set_result(None)

    # ------------------------------------------------------------------------------- going out

    async def wait(self) -> None:
        """Wait until there is something to take."""
        await self._queue.wait()

    def take(self) -> Batch | None:
        """Give out, in order, as many calls as one request holds; None if none are left."""
        receipts, size = self._queue.take(self.limits)
        if not receipts:
            return None
        batch = Batch(self._taken, receipts)
        self._took(len(receipts), size)
        self._in_flight[batch.first] = len(receipts), size
        return batch

    def evict(self) -> Receipt | None:
        """Give up the oldest call that is not in flight, and return it."""
        if self._queue.empty():
            return None
        receipt = self._queue.get_nowait()
        size = len(receipt.body)
        self._took(1, size)
        self._free(1, size)
        return receipt

    def settle(self, first: int, receipts: Sequence[Receipt], outcome: Outcome) -> None:  # noqa: ARG002 - of use on a disk
        """Free the room of calls that were given out in the batch that began with `first`."""
        self._release(first, receipts)

    async def prepare_to_stop(self) -> None:
        """Get ready for the end. Nothing is put any more."""

    async def leave(self, first: int, receipts: Sequence[Receipt]) -> Sequence[Receipt]:  # noqa: ARG002 - the same
        """Leave calls of a batch for the next start; return those that cannot be left."""
        return receipts

    def absent(self) -> Sequence[Receipt]:
        """Return what is known of pending calls that are not in memory."""
        return ()

    # -------------------------------------------------------------------------------- standing

    @property
    def pending(self) -> int:
        """Calls waiting or in flight, counted where they are."""
        return self._queue.qsize() + sum(events for events, _ in self._in_flight.values())

    @property
    def pending_bytes(self) -> int:
        """What the pending calls weigh, and the room kept for callers whose turn has come."""
        return self._held_bytes

    @property
    def first_pending(self) -> int:
        """The number of the oldest call that is not settled."""
        return min(self._in_flight, default=self._taken)

    async def flushed(self) -> None:
        """Hurry what has been put so far, and wait until all of it is settled."""
        target = self._end
        if self.first_pending >= target:
            return
        self.hurry()
        flush: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._flushes.append((target, flush))
        try:
            await flush
        finally:
            self._flushes = [each for each in self._flushes if each[1] is not flush]

    def hurry(self) -> None:
        """Let all that has been put so far go out without lingering."""
        if self.first_pending < self._end:
            self._hurry_to = self._end
            self.ready.set()

    def lower(self, size: int) -> None:
        """Remember that a request of so many bytes was too large for the endpoint."""
        self._limit(self.limits.lowered(size))

    # --------------------------------------------------------------------------------- within

    @property
    def _end(self) -> int:
        """The number that a call accepted now will have."""
        return self._put

    def _limit(self, limits: Limits) -> None:
        self.limits = limits
        self._per_event = limits.per_event
        self._batch_events = limits.max_events
        self._batch_bytes = limits.max_bytes - limits.envelope
        self.largest: int = limits.max_body

    def _release(self, first: int, receipts: Sequence[Receipt]) -> None:
        events, size = self._in_flight.pop(first)
        if len(receipts) < events:
            part = sum([len(receipt.body) for receipt in receipts])
            self._in_flight[first] = events - len(receipts), size - part
            size = part
        self._free(len(receipts), size)

    def _has_batch(self) -> bool:
        return (
            self._waiting_bytes >= self._batch_bytes
            or self._put - self._taken >= self._batch_events
        )

    def _took(self, events: int, size: int) -> None:
        self._taken += events
        self._waiting_bytes -= size + events * self._per_event
        if self._taken >= self._hurry_to and not self._has_batch():
            self.ready.clear()

    def _free(self, events: int, size: int) -> None:
        self._held_events -= events
        self._held_bytes -= size
        self.let_in()
        self._wake_flushes()

    def _promise(self, events: int, size: int) -> None:
        self._held_events += events
        self._held_bytes += size
        self._promised_events += events
        self._promised_bytes += size

    def _leave(self, waiter: _Waiter) -> None:
        """Take back the place of a waiter that is cancelled, and let others have it."""
        turn = waiter.turn
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            self.let_in()  # those behind it may fit
        elif turn.done() and not turn.cancelled() and turn.exception() is None:
            self._promise(-waiter.events, -waiter.size)  # its turn had come
            self.let_in()

    def end_flushes(self) -> None:
        """Let those go who wait for what will not come before the next start."""
        for _, flush in self._flushes:
            if not flush.done():
                flush.set_result(None)

    def _skip(self, count: int) -> None:
        """Count calls as put and taken that will not come."""
        self._put += count
        self._taken += count
        self._wake_flushes()

    def _delay_flushes(self, beyond: int, count: int, until: float = math.inf) -> None:
        """Let flushes wait for calls that came in before the last ones of theirs.

        Those whose target is above `until` count them already.
        """
        self._flushes = [
            (target + count if beyond < target <= until else target, flush)
            for target, flush in self._flushes
        ]
        if beyond < self._hurry_to <= until:
            self._hurry_to += count

    def _wake_flushes(self) -> None:
        if not self._flushes:
            return
        reached = self.first_pending
        for target, flush in self._flushes:
            if target <= reached and not flush.done():
                flush.set_result(None)
        self._flushes = [each for each in self._flushes if not each[1].done()]
