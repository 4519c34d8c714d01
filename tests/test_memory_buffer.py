"""The buffer in memory: bounds, order, waiting for room, and what flush waits for."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from asyncanalytics import Closed, Outcome, Queueing, Receipt
from asyncanalytics.batching import Batch, Limits
from asyncanalytics.buffers import MemoryBuffer

DELIVERED = Outcome(kind="delivered", destination="custom", status=200)
LIMITS = Limits(max_events=3, max_bytes=2_000, max_event_bytes=1_500, envelope=50, per_event=2)


def buffer(max_events: int = 5, max_bytes: int = 40_000) -> MemoryBuffer:
    """Make a buffer with small bounds."""
    return MemoryBuffer(Queueing(max_events=max_events, max_bytes=max_bytes), LIMITS)


def receipt(size: int = 10) -> Receipt:
    """Make a call of so many bytes."""
    return Receipt("track", "id", b"x" * size)


async def settle_loop() -> None:
    """Let everything that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_first_in_first_out() -> None:
    """Calls come out in the order in which they were put, in batches within the limits."""
    held = buffer(max_events=100)
    put = [receipt() for _ in range(8)]
    for each in put:
        held.put(each)
    taken = [held.take(), held.take(), held.take()]
    assert [len(batch.receipts) for batch in taken if batch] == [3, 3, 2]
    assert [each for batch in taken if batch for each in batch.receipts] == put
    assert held.take() is None


async def test_what_is_in_flight_counts_until_it_is_settled() -> None:
    """Room is freed by settling, not by taking; a batch may be settled bit by bit."""
    held = buffer(max_events=3)
    for _ in range(3):
        held.put(receipt(100))
    batch = held.take()
    assert batch is not None
    assert (held.pending, held.pending_bytes, held.has_room(1)) == (3, 300, False)
    held.settle(batch.first, batch.receipts[1:], DELIVERED)
    assert (held.pending, held.pending_bytes, held.has_room(1)) == (1, 100, True)
    assert held.first_pending == batch.first
    held.settle(batch.first, batch.receipts[:1], DELIVERED)
    assert (held.pending, held.pending_bytes, held.first_pending) == (0, 0, 3)


async def test_one_call_always_fits_alone() -> None:
    """An empty buffer takes a call that is larger than its bound of bytes."""
    held = buffer(max_bytes=32_768)
    assert held.fits(10**6)
    held.put(receipt())
    assert not held.fits(32_768)


async def test_room_is_given_in_the_order_of_asking() -> None:
    """Who asked first gets room first, and nobody who comes later passes by."""
    held = buffer(max_events=2)
    held.put(receipt())
    held.put(receipt())
    order: list[int] = []

    async def ask(number: int) -> None:
        await held.room(10)
        order.append(number)
        held.put(receipt())

    tasks = [asyncio.create_task(ask(number)) for number in range(4)]
    await settle_loop()
    assert not held.has_room(1)
    for _ in range(2):
        batch = held.take()
        assert batch is not None
        for each in batch.receipts:
            held.settle(batch.first, [each], DELIVERED)
            assert not held.has_room(1)  # it is kept for who waits
            await settle_loop()
    assert order == [0, 1, 2, 3]
    await asyncio.gather(*tasks)


async def test_a_large_call_is_not_starved_by_small_ones() -> None:
    """A call that waits for many bytes holds back smaller ones that came after it."""
    held = buffer(max_events=100, max_bytes=32_768)
    held.put(receipt(20_000))
    large = asyncio.create_task(held.room(20_000))
    await settle_loop()
    assert not held.has_room(1)
    batch = held.take()
    assert batch is not None
    held.settle(batch.first, batch.receipts, DELIVERED)
    await large
    assert held.has_room(1)


async def test_a_cancelled_waiter_leaves_its_place() -> None:
    """Once the call that held others back is cancelled, those that fit go on at once."""
    held = buffer(max_events=100, max_bytes=32_768)
    held.put(receipt(20_000))
    large = asyncio.create_task(held.room(20_000))
    await settle_loop()
    small = asyncio.create_task(held.room(10))
    await settle_loop()
    large.cancel()
    await settle_loop()
    assert small.done()
    assert held.pending_bytes == 20_000


@pytest.mark.parametrize("turns", range(4))
async def test_cancelling_a_waiter_at_any_moment_keeps_the_books(turns: int) -> None:
    """Before its turn, with it, or after it: what was kept for a cancelled waiter is passed on."""
    held = buffer(max_events=1)
    held.put(receipt())
    first = asyncio.create_task(held.room(10))
    second = asyncio.create_task(held.room(10))
    await settle_loop()
    batch = held.take()
    assert batch is not None
    if turns == 0:
        first.cancel()
    held.settle(batch.first, batch.receipts, DELIVERED)
    for _ in range(turns - 1):
        await asyncio.sleep(0)
    first.cancel()
    await settle_loop()
    if turns < 2:
        assert first.cancelled()
        assert second.done()
    elif not second.done():
        assert not first.cancelled()  # it had its room, and did not use it
        second.cancel()
        await settle_loop()
    assert (held.pending, held.pending_bytes) == (0, 0)
    assert held.has_room(1)


async def test_a_waiter_turned_away_and_cancelled_keeps_the_books() -> None:
    """A waiter that is cancelled in the moment in which it is turned away frees nothing twice."""
    held = buffer(max_events=1)
    held.put(receipt(100))
    waiting = asyncio.create_task(held.room(10))
    await settle_loop()
    held.turn_away(Closed)
    waiting.cancel()
    await settle_loop()
    assert waiting.done()
    assert (held.pending, held.pending_bytes) == (1, 100)


async def test_turning_away_raises_in_every_waiter() -> None:
    """All who wait get the error, each its own."""
    held = buffer(max_events=1)
    held.put(receipt())
    tasks = [asyncio.create_task(held.room(10)) for _ in range(3)]
    await settle_loop()
    held.turn_away(Closed)
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(error) for error in errors} == {Closed}
    assert len({id(error) for error in errors}) == 3


async def test_ready_is_set_by_a_full_batch() -> None:
    """The flusher is told when a batch's number of calls or of bytes waits."""
    held = buffer(max_events=100)
    for _ in range(2):
        held.put(receipt())
    assert not held.ready.is_set()
    held.put(receipt())
    assert held.ready.is_set()
    held.take()
    assert not held.ready.is_set()
    held.put(receipt(1_000))
    held.put(receipt(1_000))
    assert held.ready.is_set()


async def test_flushed_waits_for_what_was_put_before() -> None:
    """A flush ends when the calls before it are settled, whatever came after."""
    held = buffer(max_events=100)
    await held.flushed()
    for _ in range(3):
        held.put(receipt())
    flush = asyncio.create_task(held.flushed())
    await settle_loop()
    assert held.ready.is_set()
    for _ in range(3):
        held.put(receipt())
    first, second = held.take(), held.take()
    assert first is not None
    assert second is not None
    held.settle(second.first, second.receipts, DELIVERED)
    await settle_loop()
    assert not flush.done()
    held.settle(first.first, first.receipts, DELIVERED)
    await flush


async def test_flushed_counts_what_is_evicted() -> None:
    """A call that is given up to make room is not waited for."""
    held = buffer(max_events=100)
    held.put(receipt())
    flush = asyncio.create_task(held.flushed())
    await settle_loop()
    held.evict()
    await flush


async def test_a_cancelled_flush_leaves_the_others() -> None:
    """Cancelling one flush does not end another."""
    held = buffer(max_events=100)
    held.put(receipt())
    one, other = asyncio.create_task(held.flushed()), asyncio.create_task(held.flushed())
    await settle_loop()
    one.cancel()
    await settle_loop()
    batch = held.take()
    assert batch is not None
    held.settle(batch.first, batch.receipts, DELIVERED)
    await other
    assert one.cancelled()


async def test_waiting_is_not_lost_when_cancelled() -> None:
    """A flusher that is cancelled while it waits takes no call with it."""
    held = buffer()
    waiting = asyncio.create_task(held.wait())
    await settle_loop()
    held.put(receipt())
    waiting.cancel()
    await settle_loop()
    assert held.pending == 1
    assert held.take() is not None


class Books(RuleBasedStateMachine):
    """Whatever is put, taken, settled and evicted, the buffer's figures are right."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = buffer(max_events=20)
        self.waiting: list[Receipt] = []
        self.out: list[tuple[Batch, list[Receipt]]] = []

    @rule(size=st.integers(min_value=0, max_value=1_400))
    def put(self, size: int) -> None:
        """Put a call if it fits."""
        if self.buffer.fits(size):
            self.waiting.append(receipt(size))
            self.buffer.put(self.waiting[-1])

    @rule()
    def take(self) -> None:
        """Take a batch: the oldest calls, and no fewer than fit."""
        batch = self.buffer.take()
        taken = [] if batch is None else list(batch.receipts)
        assert taken == self.waiting[: len(taken)]
        assert bool(taken) == bool(self.waiting)
        del self.waiting[: len(taken)]
        if batch is not None:
            self.out.append((batch, taken))

    @rule()
    def evict(self) -> None:
        """Evict the oldest call that waits."""
        assert self.buffer.evict() is (self.waiting.pop(0) if self.waiting else None)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """Settle a part of any batch."""
        at = data.draw(st.integers(min_value=0, max_value=len(self.out) - 1))
        batch, left = self.out[at]
        number = data.draw(st.integers(min_value=1, max_value=len(left)))
        self.buffer.settle(batch.first, left[:number], DELIVERED)
        del left[:number]
        if not left:
            del self.out[at]

    @invariant()
    def figures_are_right(self) -> None:
        """Compare with what is known."""
        known = [*self.waiting, *(each for _, left in self.out for each in left)]
        assert self.buffer.pending == len(known)
        assert self.buffer.pending_bytes == sum(len(each.body) for each in known)
        full = len(self.waiting) >= 3 or sum(len(each.body) + 2 for each in self.waiting) >= 1_950
        assert self.buffer.ready.is_set() == full


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@given(sizes=st.lists(st.integers(min_value=0, max_value=1_400), max_size=30))
@settings(max_examples=50, deadline=None)
def test_batches_are_within_the_limits(sizes: list[int]) -> None:
    """No batch is over a limit, none could have held the next call, and none is empty."""
    held = MemoryBuffer(Queueing(), LIMITS)
    for size in sizes:
        held.put(receipt(size))
    batches: list[list[int]] = []
    while (batch := held.take()) is not None:
        batches.append([len(each.body) for each in batch.receipts])
    assert [size for batch in batches for size in batch] == sizes
    for at, inside in enumerate(batches):
        weight = LIMITS.envelope + sum(size + LIMITS.per_event for size in inside)
        assert inside
        assert len(inside) <= LIMITS.max_events
        assert weight <= LIMITS.max_bytes
        if at + 1 < len(batches) and len(inside) < LIMITS.max_events:
            assert weight + batches[at + 1][0] + LIMITS.per_event > LIMITS.max_bytes


async def test_a_turn_that_is_not_used_passes_on() -> None:
    """A caller whose turn came, and who then puts nothing, holds nobody up behind it."""
    held = buffer(max_events=1)
    held.put(receipt())
    first = asyncio.create_task(held.room(10))
    second = asyncio.create_task(held.room(10))
    await settle_loop()
    batch = held.take()
    assert batch is not None
    held.settle(batch.first, batch.receipts, DELIVERED)
    await settle_loop()
    assert first.done()
    assert second.done()
    assert held.pending_bytes == 0
