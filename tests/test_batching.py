"""What fits in a request: as much as the limits allow, in order, and never more."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from asyncanalytics.batching import Batch, Limits, due_in, fill
from asyncanalytics.encoding import Envelope
from asyncanalytics.receipts import Receipt

ENVELOPES = st.sampled_from(
    [
        Envelope(in_body={}, in_event={}),
        Envelope(in_body={"writeKey": "k" * 20}, in_event={}),
        Envelope(in_body={}, in_event={"appId": "key-é", "channel": "server"}, message_id=True),
    ]
)
SIZES = st.lists(st.integers(2, 400), min_size=1, max_size=40)


def receipts_of(sizes: list[int]) -> list[Receipt]:
    """Make encoded calls of so many bytes; a body is a call without its opening brace."""
    bodies = [b'"a":"' + b"x" * (size - 7) + b'"}' if size > 7 else b"}" * size for size in sizes]
    return [Receipt("track", str(number), body) for number, body in enumerate(bodies)]


def limits_of(envelope: Envelope, *, max_events: int, max_bytes: int) -> Limits:
    """Make limits as a destination does."""
    return Limits(
        max_events=max_events,
        max_bytes=max_bytes,
        max_event_bytes=32_000,
        envelope=envelope.size,
        per_event=envelope.per_event,
    )


def packed(envelope: Envelope, batch: list[Receipt]) -> bytes:
    """Write the request that a batch becomes."""
    return envelope.pack([receipt.body for receipt in batch], "a b 2")


def cut(limits: Limits, receipts: list[Receipt]) -> list[list[Receipt]]:
    """Fill batch after batch until none are left; the bytes that are said are those taken."""
    waiting, batches = deque(receipts), list[list[Receipt]]()
    while waiting:
        batch, size = fill(limits, waiting)
        assert size == sum(len(each.body) for each in batch)
        batches.append(batch)
    return batches


@settings(max_examples=300, deadline=None)
@given(SIZES, ENVELOPES, st.integers(1, 12), st.integers(0, 1_500))
def test_batches(sizes: list[int], envelope: Envelope, max_events: int, more: int) -> None:
    """Batches lose nothing, keep the order, stay within both limits, and are as large as can be."""
    limits = limits_of(
        envelope,
        max_events=max_events,
        max_bytes=envelope.size + envelope.per_event + max(sizes) + more,
    )
    receipts = receipts_of(sizes)
    batches = cut(limits, receipts)
    assert [each for batch in batches for each in batch] == receipts
    for batch in batches:
        assert len(batch) <= limits.max_events
        assert len(packed(envelope, batch)) <= limits.max_bytes
    for batch, following in pairwise(batches):
        one_more = [*batch, following[0]]
        too_many = len(one_more) > limits.max_events
        assert too_many or len(packed(envelope, one_more)) > limits.max_bytes


@settings(deadline=None)
@given(SIZES, ENVELOPES)
def test_a_limit_that_is_met_to_the_byte_is_not_passed(
    sizes: list[int], envelope: Envelope
) -> None:
    """Calls that fill a request exactly go in one; with one byte less, in two."""
    assume(len(sizes) > 1)
    receipts = receipts_of(sizes)
    exact = len(packed(envelope, receipts))
    limits = limits_of(envelope, max_events=100, max_bytes=exact)
    assert cut(limits, receipts) == [receipts]
    assert len(cut(replace(limits, max_bytes=exact - 1), receipts)) == 2


def test_the_first_call_always_goes() -> None:
    """A call that was accepted before the limits fell is still sent, alone."""
    limits = limits_of(Envelope(in_body={}, in_event={}), max_events=9, max_bytes=100)
    receipts = receipts_of([400, 10])
    assert cut(limits, receipts) == [[receipts[0]], [receipts[1]]]


def test_filling_takes_no_more_than_it_needs() -> None:
    """What does not go out waits where it was, and nothing is taken from nothing."""
    waiting = deque(receipts_of([10] * 9))
    limits = limits_of(Envelope(in_body={}, in_event={}), max_events=3, max_bytes=10_000)
    batch, size = fill(limits, waiting)
    assert (len(batch), size, len(waiting)) == (3, 30, 6)
    assert fill(limits, deque()) == ([], 0)


# ------------------------------------------------------------------------------------ one call's


@given(ENVELOPES, st.integers(1_000, 40_000), st.integers(500, 40_000))
def test_the_longest_call_fits_alone_and_a_longer_one_does_not(
    envelope: Envelope, max_bytes: int, max_event_bytes: int
) -> None:
    """`max_body` is exact: the longest call that keeps both limits, alone in a request."""
    limits = replace(
        limits_of(envelope, max_events=9, max_bytes=max_bytes), max_event_bytes=max_event_bytes
    )

    def keeps(body: bytes) -> bool:
        is_small = limits.event_size(body) <= max_event_bytes
        return is_small and len(packed(envelope, [Receipt("track", "1", body)])) <= max_bytes

    assert keeps(b"x" * limits.max_body)
    assert not keeps(b"x" * (limits.max_body + 1))


@given(ENVELOPES, st.integers(7, 500))
def test_an_events_size_is_that_of_its_json(envelope: Envelope, size: int) -> None:
    """An event is measured as the server will: with its brace and the members it carries."""
    [receipt] = receipts_of([size])
    alone = packed(envelope, [receipt]).partition(b'"batch":[')[2].removesuffix(b"]}")
    limits = limits_of(envelope, max_events=1, max_bytes=1_000)
    assert limits.event_size(receipt.body) == len(alone)


# --------------------------------------------------------------------------------------- lowered


@given(ENVELOPES, st.integers(1_000, 500_000), st.integers(1, 600_000))
def test_lowered_limits(envelope: Envelope, max_bytes: int, size: int) -> None:
    """After a 413 requests become smaller, never larger, and never too small for one event."""
    limits = limits_of(envelope, max_events=9, max_bytes=max_bytes)
    lowered = limits.lowered(size)
    assert lowered.max_bytes <= limits.max_bytes
    assert lowered.max_body == limits.max_body
    assert replace(lowered, max_bytes=max_bytes) == limits
    largest = limits.envelope + limits.max_event_bytes + 1
    assert lowered.max_bytes <= max(size // 2, largest)


def test_lowering_again_and_again_ends_at_one_event() -> None:
    """A server that refuses everything is met by requests of one large event at the least."""
    limits = limits_of(Envelope(in_body={}, in_event={}), max_events=9, max_bytes=475_000)
    seen = [limits.max_bytes]
    for _ in range(8):
        limits = limits.lowered(limits.max_bytes)
        seen.append(limits.max_bytes)
    assert seen[:5] == [475_000, 237_500, 118_750, 59_375, limits.envelope + 32_001]
    assert len(set(seen[4:])) == 1


# ---------------------------------------------------------------------------------------- halves


@given(st.integers(2, 50), st.integers(0, 9), st.integers(0, 9))
def test_halves(count: int, attempts: int, retries: int) -> None:
    """A batch is cut in two that are there, in order; what carried it carried both."""
    receipts = receipts_of([10] * count)
    left, right = Batch(7, receipts, attempts, retries).halves()
    assert [*left.receipts, *right.receipts] == receipts
    assert 0 <= len(right.receipts) - len(left.receipts) <= 1
    assert left.receipts
    for half in (left, right):
        assert (half.first, half.attempts, half.retries) == (7, attempts, 0)


@given(st.integers(1, 200))
def test_halving_finds_each_call_in_few_steps(count: int) -> None:
    """A batch of 2,500 is down to single calls after 12 cuts."""

    def depth(batch: Batch) -> int:
        if len(batch.receipts) == 1:
            return 0
        return 1 + max(depth(half) for half in batch.halves())

    assert depth(Batch(0, receipts_of([10] * count))) == math.ceil(math.log2(count))


# ---------------------------------------------------------------------------------------- due_in

MOMENTS = st.floats(0, 1e9)


@pytest.mark.parametrize(
    ("now", "last_sent", "linger", "wait"),
    [
        (100.0, -math.inf, 0.5, 0.0),
        (100.0, 90.0, 0.5, 0.0),
        (100.0, 99.75, 0.5, 0.25),
        (100.0, 100.0, 0.5, 0.5),
        (100.0, 100.0, 0.0, 0.0),
    ],
)
def test_due_in(now: float, last_sent: float, linger: float, wait: float) -> None:
    """The first call after a quiet time goes at once; what follows gathers."""
    assert due_in(now, last_sent, linger) == wait


@given(MOMENTS, MOMENTS, st.floats(0, 60))
@example(0.0, 0.0, 0.0)
def test_a_wait_is_never_negative_nor_longer_than_the_linger(
    now: float, ago: float, linger: float
) -> None:
    """However the clock stands, no call gathers for longer than it may."""
    assert 0.0 <= due_in(now, now - ago, linger) <= linger + 1e-6
