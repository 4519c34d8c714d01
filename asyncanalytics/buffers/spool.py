"""The buffer in front of a spool: every call is on disk, and those that are next in memory too.

A call that is put goes to the disk first. Once it is there it joins the queue, or, where the queue
in memory is at its bounds, waits on disk alone, to be read back in its turn. So memory stays
bounded however long an endpoint is down, and what is pending survives the process.

Invariants:
- A pending call is in exactly one place: on its way to the disk, on disk alone, in the queue, or
  in flight. All but the first have a row, unless the disk refused it, or another call of the same
  id waits there already.
- Calls leave in the order in which they landed: while some wait on disk alone, all that come after
  them do. Only those without a row go before them.
- What is in memory is within the bounds, also of calls whose id waits already: one that does not
  fit is dropped as a duplicate.
- A row goes when its call has ended: removed, or, where the endpoint has refused it or it was
  given up, buried as a dead letter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from asyncanalytics.buffers.base import Buffer
from asyncanalytics.receipts import Receipt
from asyncanalytics.spool import OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncanalytics.batching import Batch, Limits
    from asyncanalytics.journal import Journal
    from asyncanalytics.receipts import Outcome
    from asyncanalytics.settings import Queueing
    from asyncanalytics.spool import Row

_AHEAD: Final = 4 << 20  # bytes that wait in memory, before more are read back


class SpoolBuffer(Buffer):
    """Accepted calls of one destination, on disk."""

    keeps = True

    def __init__(
        self,
        name: str,
        queueing: Queueing,
        limits: Limits,
        journal: Journal,
        *,
        found: Callable[[int], None],
        lost: Callable[[int, Sequence[Receipt]], None],
        doubled: Callable[[Receipt], None],
    ) -> None:
        """Take a destination's name, and what to tell of calls that turn up or do not go on.

        Those are the ones that are damaged, and those for which memory has no room while another
        of the same id waits on disk.
        """
        super().__init__(queueing, limits)
        self._fits_in_memory = super().fits
        self._enqueue = super().put
        self.name: str = name
        self._journal = journal
        self._tell_found = found
        self._tell_lost = lost
        self._tell_doubled = doubled
        self._writing_events = 0  # on their way to the disk
        self._writing_bytes = 0
        self._on_disk = 0  # and nowhere else
        self._left = 0  # for the next start
        self._read_to = 0  # number of the last row that is or was in memory
        self._absent: WeakValueDictionary[str, Receipt] = WeakValueDictionary()  # of those on disk
        self._is_reading = False
        self._is_stopping = False
        journal.attach(self)

    # -------------------------------------------------------------------------------- going in

    def fits(self, size: int, ahead: int = 0) -> bool:
        """Whether the disk has room for a call; while it refuses, whether memory has."""
        if self._journal.is_failing:
            return self._fits_in_memory(size + self._writing_bytes, ahead + self._writing_events)
        weight = size + (ahead + 1) * OVERHEAD
        # What is on its way is in memory too: a disk may hang.
        on_its_way = self._writing_bytes + self._writing_events * OVERHEAD
        fits = on_its_way + weight <= self._max_bytes or not self._writing_events
        return fits and self._journal.has_room(weight)

    def fits_all(self, size: int, events: int) -> bool:
        """Whether the disk has room for so many calls."""
        return self.fits(size, events - 1)

    def put(self, receipt: Receipt) -> None:
        """Take in a call that fits, and have it written."""
        size = len(receipt.body)
        self._writing_events += 1
        self._writing_bytes += size
        self._journal.put(self, (receipt,), size)

    def put_all(self, receipts: Sequence[Receipt]) -> None:
        """Take in calls that fit, and have them written."""
        if receipts:
            size = sum([len(receipt.body) for receipt in receipts])
            self._writing_events += len(receipts)
            self._writing_bytes += size
            self._journal.put(self, receipts, size)

    def land(self, receipts: Sequence[Receipt], numbers: Sequence[int]) -> None:
        """Let calls into the queue, or leave them on disk."""
        size = 0
        for receipt, number in zip(receipts, numbers, strict=True):
            size += len(receipt.body)
            if number > 0:  # below 0 another one of the same id has the row
                receipt.number = number
        self._writing_events -= len(receipts)
        self._writing_bytes -= size
        if not self._on_disk and self._fits_in_memory(size, len(receipts) - 1):
            self._read_to = max(self._read_to, *numbers)
            super().put_all(receipts)
        else:
            for receipt, number in zip(receipts, numbers, strict=True):
                self._land(receipt, is_double=number < 0)

    def _land(self, receipt: Receipt, *, is_double: bool) -> None:
        fits = self._fits_in_memory(len(receipt.body))
        if receipt.number and (self._on_disk or not fits):
            receipt.body = b""
            self._absent[receipt.message_id] = receipt
            self._on_disk += 1
            self._refill()
            return
        if is_double and not fits:
            self._delay_flushes(-1, 1, until=self._put + self._on_disk)  # it counts for none
            self._skip(1)
            self._tell_doubled(receipt)
            return
        self._read_to = max(self._read_to, receipt.number)
        if self._on_disk:  # it goes before those
            self._delay_flushes(self._put, 1, until=self._put + self._on_disk)
        self._enqueue(receipt)

    # ------------------------------------------------------------------------------- going out

    def take(self) -> Batch | None:
        """Give out a batch, and see to it that more is there for the next one."""
        batch = super().take()
        self._refill()
        return batch

    def evict(self) -> Receipt | None:
        """Give up the oldest call in memory, and return it."""
        receipt = super().evict()
        if receipt is not None:
            self._journal.remove([receipt])
            self._refill()
        return receipt

    def settle(self, first: int, receipts: Sequence[Receipt], outcome: Outcome) -> None:
        """Free the room of calls, and let their rows go."""
        if outcome.delivered:
            self._journal.remove(receipts)
        else:
            self._journal.bury(receipts, outcome)
        super().settle(first, receipts, outcome)
        self._refill()

    async def prepare_to_stop(self) -> None:
        """Wait for the disk a last time; from here on nothing is read back."""
        self._is_stopping = True
        await self._journal.settle_down()

    async def leave(self, first: int, receipts: Sequence[Receipt]) -> Sequence[Receipt]:
        """Leave calls on disk for the next start; return those that are not there."""
        if loose := [receipt for receipt in receipts if not receipt.number]:
            await self._journal.save(self.name, loose)
        kept = [receipt for receipt in receipts if receipt.number]
        if kept:
            self._left += len(kept)
            self._release(first, kept)
        return [receipt for receipt in receipts if not receipt.number]

    def absent(self) -> Sequence[Receipt]:
        """Return what callers still hold of the calls that are on disk alone."""
        return [*self._absent.values()]

    # --------------------------------------------------------------------------------- reading

    def find(self, count: int) -> None:
        """Count calls on disk that another process has put there."""
        # They come before those that are just being written, and so before their flushes.
        self._delay_flushes(self._put + self._on_disk, count)
        self._on_disk += count
        self._tell_found(count)
        self._refill()

    def read_back(self, rows: Sequence[Row] | None) -> None:
        """Let calls that waited on disk into the queue; None if the disk refused."""
        self._is_reading = False
        if self._is_stopping:
            return
        if rows is not None and not rows:
            self._lose()
        for row in rows or ():
            receipt = self._absent.pop(row.message_id, None)
            if receipt is None:
                receipt = Receipt(row.call, row.message_id, row.body)
            receipt.body, receipt.number = row.body, row.seq
            self._read_to = row.seq
            self._on_disk -= 1
            self._enqueue(receipt)
        self._refill()

    def _refill(self) -> None:
        events = self._max_events - self._held_events
        size = self._max_bytes - self._held_bytes
        has_room = (events > 0 and size > 0) or not self._held_events
        if self._is_stopping or self._is_reading or not self._on_disk or not has_room:
            return
        if self._waiting_bytes < min(_AHEAD, self._max_bytes // 2):
            self._is_reading = True
            self._journal.read(
                self.name, self, self._read_to, events=max(1, events), size=max(1, size)
            )

    def _promise(self, events: int, size: int) -> None:
        super()._promise(events, size)
        self._journal.promised += size + events * OVERHEAD

    def _lose(self) -> None:
        """Give up the calls that should be on disk, and are not: their rows were damaged."""
        count, self._on_disk = self._on_disk, 0
        receipts = self.absent()
        self._absent.clear()
        self._skip(count)
        self._tell_lost(count, receipts)

    # -------------------------------------------------------------------------------- standing

    @property
    def pending(self) -> int:
        """Calls that have not ended, counted where they are."""
        return super().pending + self._writing_events + self._on_disk + self._left

    @property
    def pending_bytes(self) -> int:
        """What the pending calls weigh in memory: what waits on disk alone is the spool's."""
        return super().pending_bytes + self._writing_bytes

    @property
    def _end(self) -> int:
        return self._put + self._on_disk + self._writing_events
