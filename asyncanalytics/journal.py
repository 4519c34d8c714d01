"""The event loop's side of a spool: calls go to the disk in groups, and their buffers hear of it.

Invariants:
- Everything here runs on the client's loop; the disk is another thread's.
- Calls are told of in the order in which they were put: those that go together land together.
- While the disk refuses, calls land without a number: their buffers keep them in memory. That is
  logged once, and so is its end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from asyncanalytics.aside import beside
from asyncanalytics.errors import AnalyticsError, ConfigurationError, describe
from asyncanalytics.spool import OVERHEAD, Entry, Spool, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future
    from typing import Any

    from asyncanalytics.receipts import Outcome, Receipt
    from asyncanalytics.settings import Sealing, Spooling
    from asyncanalytics.spool import Fields, Row, SpoolStats

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("asyncanalytics")

_GROUP: Final = 1 << 20  # bytes that go to the disk at once
_PIECE_EVENTS: Final = 500  # read back at a time
_PIECE_BYTES: Final = 1 << 20
_LOOK_AROUND: Final = 10.0  # seconds from one look at what dead processes have left to the next
_TRY_AGAIN: Final = 1.0  # seconds
_PATIENCE: Final = 5.0  # seconds for the disk at the end


class Depositor(Protocol):
    """A buffer, as it is seen from here."""

    name: str
    """Its destination's."""

    def land(self, receipts: Sequence[Receipt], numbers: Sequence[int]) -> None:
        """Take calls that are on disk, each under a number, or that could not be kept: 0.

        Below 0 one with the same id is there already.
        """

    def find(self, count: int) -> None:
        """Learn of calls on disk that others have put there."""

    def read_back(self, rows: Sequence[Row] | None) -> None:
        """Take calls from the disk; None if it could not be read."""

    def let_in(self) -> None:
        """Look whether those who wait for room have it by now."""


class _Group:
    """Calls that go to the disk together."""

    __slots__ = ("calls", "future", "has_landed", "is_refused", "results", "waiters", "weight")

    def __init__(self) -> None:
        self.calls: dict[Depositor, list[Receipt]] = {}
        self.weight = 0
        self.future: Future[Sequence[int]] | None = None
        self.is_refused = False  # at once: it lands when those before it have
        self.has_landed = False
        self.waiters: list[asyncio.Future[Any]] = []
        self.results: list[Any] = []  # what each of them brings

    def entries(self) -> list[Fields]:
        """Return them as the spool takes them."""
        now = time.time()
        found: list[Fields] = []
        for buffer, receipts in self.calls.items():
            name = buffer.name
            found += [(name, each.call, each.message_id, each.body, now) for each in receipts]
        return found

    def split(self) -> _Group:
        """Take out the first half of several calls; those who wait go on waiting for the rest."""
        first, left = _Group(), sum(map(len, self.calls.values())) // 2
        for buffer, receipts in [*self.calls.items()]:
            moved, rest = receipts[:left], receipts[left:]
            left -= len(moved)
            if moved:
                first.calls[buffer] = moved
                self.calls[buffer] = rest
            if not rest:
                del self.calls[buffer]
        return first

    def land(self, numbers: Sequence[int]) -> None:
        """Tell the buffers, and those who wait, where the calls are; no numbers: not on disk."""
        calls, self.calls = self.calls, {}
        start = 0
        for buffer, receipts in calls.items():
            end = start + len(receipts)
            buffer.land(receipts, numbers[start:end] or [0] * len(receipts))
            start = end
        self.has_landed = True
        waiters, self.waiters = self.waiters, []
        results, self.results = self.results, []
        for waiter, result in zip(waiters, results, strict=True):
            if not waiter.done():
                waiter.set_result(result)
        self.future = None  # it knows of the group: whoever waited would stay for the collector


class Journal:
    """The spool of one client, while it is open."""

    def __init__(self, spooling: Spooling) -> None:
        """Nothing is opened before `open`."""
        self.spooling: Spooling = spooling
        self.is_failing: bool = False
        """Whether the disk refused what was put last."""
        self._buffers: dict[str, Depositor] = {}
        self._spool: Spool | None = None
        self._figures: SpoolStats | None = None
        self._since = 0.0
        self.promised: int = 0
        self.refused: int = 0
        """Calls so far that did not get onto the disk."""

    # -------------------------------------------------------------------------------------- life

    def attach(self, buffer: Depositor) -> None:
        """Make a buffer known; what is on disk for its destination is told to it."""
        self._buffers[buffer.name] = buffer

    async def open(self) -> None:
        """Open the spool, in a thread. Raises ConfigurationError."""
        self._loop = asyncio.get_running_loop()
        self._group = _Group()
        self._under_way: list[_Group] = []
        self._last = _Group()  # of what was put last
        self._last.land([])
        self._spare = 0.0  # bytes that the quota leaves, or fewer
        self.promised = 0  # of them, to callers whose turn has come
        self._early: list[Mapping[str, int]] = []  # found before the spool was here
        self._timer: asyncio.TimerHandle | None = None
        self.is_failing = self._is_hanging = False
        opening = asyncio.ensure_future(beside(self._opened))
        try:
            self._spool = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_let_go)
            raise
        for counts in self._early:
            self._found(counts)
        if self._open.stats().damaged:
            self._open.mend()  # they may only have been sealed with what was not given then
        self._look_around()

    async def aclose(self) -> None:
        """Let the file go, with all that is in it."""
        spool, self._spool = self._spool, None
        if spool is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        if not await beside(spool.close, _PATIENCE):
            logger.error("the spool's disk did not answer within %g s of the close", _PATIENCE)
        self._figures = spool.stats()

    def abandon(self) -> None:
        """Let the file go without waiting, when the loop has ended before the close."""
        if self._spool is not None:
            self._spool.close(0)

    def stats(self) -> SpoolStats | None:
        """Return the spool's figures, as of its last commit; None before it was opened."""
        if self._spool is not None:
            self._figures = self._spool.stats()
        return self._figures

    # ------------------------------------------------------------------------------------ writing

    def has_room(self, weight: int) -> bool:
        """Whether the quota leaves so many bytes."""
        # One call may go to each of the buffers, and each looks for itself.
        wanted = (weight * len(self._buffers) + self.promised) * self._swell
        if wanted <= self._spare:
            return True
        self._spare = self._open.room - self._group.weight * self._swell
        return wanted <= self._spare or (
            # What would be too much for all of them must not wait for ever for one.
            weight * self._swell <= self._spare and self._is_idle
        )

    def put(self, buffer: Depositor, receipts: Sequence[Receipt], size: int) -> None:
        """Have calls written with the next group; `size` is the bytes of their bodies."""
        group = self._last = self._group
        if not group.calls and not self._under_way:
            self._loop.call_soon(self._write)  # with what others put until then
        calls = group.calls.get(buffer)
        if calls is None:
            calls = group.calls[buffer] = []
        calls += receipts
        weight = size + len(receipts) * OVERHEAD
        group.weight += weight
        self._spare -= weight * self._swell
        if group.weight >= _GROUP:
            self._write()

    def landing(self, result: T) -> asyncio.Future[T]:
        """Return what is done once all that was put so far is on disk, or could not be kept.

        It brings the result that is given. Cancelling it, as its waiting task does when it is
        cancelled, leaves the calls alone.
        """
        waiter: asyncio.Future[T] = self._loop.create_future()
        if self._last.has_landed:
            waiter.set_result(result)
        else:
            self._last.waiters.append(waiter)
            self._last.results.append(result)
        return waiter

    async def settle_down(self) -> None:
        """Wait for the disk a last time; what it does not answer in time lands without a number."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self.landing(None)
        self._is_hanging = self._is_hanging or not self._last.has_landed
        for group in [*self._under_way, self._group]:
            if group.future is not None:
                group.future.cancel()  # else it may turn up after all
            self._land(group, [])

    async def save(self, destination: str, receipts: Sequence[Receipt]) -> None:
        """Try again to have calls written that the disk had refused, unless it does not answer."""
        if self._is_hanging:
            return
        now = time.time()
        entries = [
            Entry(destination, each.call, each.message_id, each.body, now) for each in receipts
        ]
        try:
            async with asyncio.timeout(_PATIENCE):
                numbers = await asyncio.wrap_future(self._open.append(entries))
        except TimeoutError:
            self._is_hanging = True
        except Exception as error:  # noqa: BLE001 - also the user's own functions, which seal
            self._note(error)
        else:
            for receipt, number in zip(receipts, numbers, strict=True):
                receipt.number = abs(number)  # it may be there after all

    def remove(self, receipts: Iterable[Receipt]) -> None:
        """Forget calls that have ended."""
        numbers = [receipt.number for receipt in receipts if receipt.number]
        if numbers:
            freed = sum([len(each.body) for each in receipts if each.number])
            freed += len(numbers) * OVERHEAD
            self._open.remove(numbers, freed=freed)
            self._let_in()

    def bury(self, receipts: Iterable[Receipt], outcome: Outcome) -> None:
        """Keep calls that have ended badly as dead letters."""
        numbers = [receipt.number for receipt in receipts if receipt.number]
        if numbers:
            verdict = Verdict(
                outcome.kind, outcome.status, outcome.reason, outcome.detail, time.time()
            )
            self._open.bury(numbers, verdict)

    def _write(self) -> None:
        if self._group.calls and self._spool is not None:
            group, self._group = self._group, _Group()
            self._hand_over(group)

    def _hand_over(self, group: _Group) -> None:
        """Give calls to the disk; one that the user's function does not seal stays behind alone."""
        try:
            future = self._open.append(group.entries())
        except Exception as error:  # noqa: BLE001 - also the user's own functions, which seal
            first = None if isinstance(error, AnalyticsError) else group.split()
            if first is not None and first.calls:
                self._hand_over(first)
                self._hand_over(group)
                return
            self._note(error)
            group.is_refused = True
            self._under_way.append(group)
            self._land_refused()
        else:
            group.future = future
            self._under_way.append(group)
            self._tell(future, lambda done: self._written(group, done))

    def _written(self, group: _Group, done: Future[Sequence[int]]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        self._note(error)
        self._land(group, [] if error else done.result())
        self._land_refused()
        if not self._under_way:
            self._write()

    def _land_refused(self) -> None:
        while self._under_way and self._under_way[0].is_refused:
            self._land(self._under_way[0], [])

    def _land(self, group: _Group, numbers: Sequence[int]) -> None:
        if group.has_landed and not group.calls:
            return  # given up meanwhile
        self.refused += 0 if numbers else sum(map(len, group.calls.values()))
        if group in self._under_way:
            self._under_way.remove(group)
        group.land(numbers)
        self._spare = 0  # others may have taken of it
        self._let_in()

    # ------------------------------------------------------------------------------------ reading

    def read(
        self, destination: str, buffer: Depositor, after: int, *, events: int, size: int
    ) -> None:
        """Have calls of a destination read back, beyond a number: so many, of so many bytes."""
        future = self._open.read(
            destination,
            after,
            max_events=min(events, _PIECE_EVENTS),
            max_bytes=min(size, _PIECE_BYTES),
        )
        self._tell(future, lambda done: self._read(buffer, done))

    def _read(self, buffer: Depositor, done: Future[list[Row]]) -> None:
        if done.exception() is None:
            buffer.read_back(done.result())
        elif self._spool is not None:
            self._loop.call_later(_TRY_AGAIN, buffer.read_back, None)

    def _look_around(self) -> None:
        """Take over what dead processes have left, piece by piece."""
        if self._spool is not None:
            self._tell(self._spool.adopt(), self._looked)

    def _looked(self, done: Future[int]) -> None:
        if self._spool is None:
            return
        self._let_in()  # someone may have purged dead letters
        if done.exception() is None and done.result():
            self._look_around()
        else:
            self._timer = self._loop.call_later(_LOOK_AROUND, self._look_around)

    def _found(self, counts: Mapping[str, int]) -> None:
        if self._spool is None:
            self._early.append(counts)
            return
        for destination, count in counts.items():
            if destination in self._buffers:
                self._buffers[destination].find(count)

    # ------------------------------------------------------------------------------------- within

    @property
    def _is_idle(self) -> bool:
        """Whether nothing waits on disk, or is on its way there or promised."""
        is_moving = self._under_way or self._group.calls or self.promised
        return not is_moving and self._open.stats().events == 0

    @property
    def _open(self) -> Spool:
        assert self._spool is not None  # noqa: S101 - the client is open
        return self._spool

    def _opened(self) -> Spool:
        def found(counts: Mapping[str, int]) -> None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._found, dict(counts))

        spooling = self.spooling
        self._swell = _swell(spooling.sealing)
        return Spool(
            spooling.folder,
            max_bytes=spooling.max_bytes,
            sealing=spooling.sealing,
            destinations=set(self._buffers),
            on_found=found,
        )

    def _tell(self, future: Future[Any], callback: Callable[[Future[Any]], None]) -> None:
        def done(future: Future[Any]) -> None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(callback, future)

        future.add_done_callback(done)

    def _let_in(self) -> None:
        for buffer in self._buffers.values():
            buffer.let_in()

    def _note(self, error: BaseException | None) -> None:
        """Say once that the disk refuses, and once that it does so no more."""
        if error is not None and not self.is_failing:
            self.is_failing, self._since = True, self._loop.time()
            said = error if isinstance(error, AnalyticsError) else describe(error)
            logger.error("%s; calls are kept in memory only until it takes them again", said)
            self._loop.call_later(_TRY_AGAIN, self._probe)
        elif error is None and self.is_failing:
            self.is_failing = False
            seconds = self._loop.time() - self._since
            logger.warning("the spool takes calls again after %.1f s", seconds)
            self._let_in()

    def _probe(self) -> None:
        """Ask whether the disk takes calls again: while memory is full, nobody puts one."""
        if self._spool is None or not self.is_failing:
            return
        try:
            if self.spooling.sealing is not None:
                self.spooling.sealing.seal(b"")
        except Exception:  # noqa: BLE001 - the user's own function
            self._loop.call_later(_TRY_AGAIN, self._probe)
        else:
            self._tell(self._spool.append([]), self._probed)

    def _probed(self, done: Future[Sequence[int]]) -> None:
        self._note(done.exception())
        if self.is_failing:
            self._loop.call_later(_TRY_AGAIN, self._probe)


def _swell(sealing: Sealing | None) -> float:
    """Try the user's functions once, and return how much longer they make what they seal."""
    if sealing is None:
        return 1.0
    most = 1.0
    for size in (1, 1_000, 32_000):
        given = os.urandom(size)
        try:
            sealed = memoryview(sealing.seal(given))
            is_whole = sealing.open(bytes(sealed)) == given
        except Exception as error:  # noqa: BLE001 - the user's own functions
            raise ConfigurationError(f"Sealing: its functions raised {describe(error)}") from None
        if not is_whole:
            raise ConfigurationError("Sealing: open must give back what seal was given")
        most = max(most, (sealed.nbytes + OVERHEAD) / (size + OVERHEAD))
    return most


def _let_go(opening: asyncio.Future[Spool]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close(0)
