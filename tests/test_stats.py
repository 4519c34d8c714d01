"""The ledger books each outcome once, and the figures keep the law of the house."""

from __future__ import annotations

import dataclasses
import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncanalytics.receipts import Outcome
from asyncanalytics.stats import DestinationStats, DropReason, Ledger, Stats

OUTCOMES = st.one_of(
    st.just(Outcome(kind="delivered", destination="d", status=200)),
    st.sampled_from([400, 401, 404, None]).map(
        lambda status: Outcome(kind="rejected", destination="d", reason="rejected", status=status)
    ),
    st.sampled_from(get_args(DropReason)).map(
        lambda reason: Outcome(kind="dropped", destination="d", reason=reason)
    ),
)


def figures(ledger: Ledger, *, name: str = "d", pending: int = 0) -> DestinationStats:
    """Make the record of a ledger, as a flusher does."""
    return DestinationStats(
        name=name,
        accepted=ledger.accepted,
        delivered=ledger.delivered,
        rejected=ledger.rejected_by.total(),
        dropped=ledger.dropped_by.total(),
        pending=pending,
        pending_bytes=pending * 100,
        rejected_by=dict(ledger.rejected_by),
        dropped_by=dict(ledger.dropped_by),
        requests=ledger.requests,
        retries=ledger.retries,
        hook_errors=ledger.hook_errors,
    )


def stats(**destinations: DestinationStats) -> Stats:
    """Make a client's record."""
    return Stats(state="open", refused=2, unrouted=1, destinations=destinations)


@given(st.lists(st.tuples(OUTCOMES, st.integers(0, 50))), st.integers(0, 9))
def test_the_law_holds_for_any_outcomes(settled: list[tuple[Outcome, int]], pending: int) -> None:
    """Whatever ends calls, each is counted in exactly one place."""
    ledger = Ledger(accepted=sum(count for _, count in settled) + pending)
    for outcome, count in settled:
        ledger.settle(outcome, count)
    assert figures(ledger, pending=pending).is_balanced
    assert not figures(ledger, pending=pending + 1).is_balanced


def test_outcomes_are_booked_by_status_and_reason() -> None:
    """The figures tell one refusal from another, and one drop from another."""
    ledger = Ledger()
    ledger.settle(Outcome(kind="delivered", destination="d"), 5)
    ledger.settle(Outcome(kind="rejected", destination="d", reason="rejected", status=400), 2)
    ledger.settle(Outcome(kind="rejected", destination="d", reason="rejected", status=403), 1)
    ledger.settle(Outcome(kind="dropped", destination="d", reason="expired"), 3)
    ledger.settle(Outcome(kind="dropped", destination="d", reason="expired"), 4)
    assert ledger.delivered == 5
    assert ledger.rejected_by == {400: 2, 403: 1}
    assert ledger.dropped_by == {"expired": 7}


def test_reasons_that_the_catalogue_names() -> None:
    """Each way in which an accepted call can be given up has its name."""
    assert {
        "queue_full",
        "too_large",
        "unserialisable",
        "middleware",
        "middleware_error",
        "expired",
        "closed",
        "spool_full",
        "spool_corrupt",
        "duplicate",
    } <= set(get_args(DropReason))


def two_destinations() -> Stats:
    """Make a record with two destinations that differ."""
    first, second = Ledger(accepted=10), Ledger(accepted=7)
    first.settle(Outcome(kind="delivered", destination="crm"), 6)
    first.settle(Outcome(kind="rejected", destination="crm", status=400), 3)
    second.settle(Outcome(kind="dropped", destination="lake", reason="closed"), 5)
    return stats(
        crm=figures(first, name="crm", pending=1), lake=figures(second, name="lake", pending=2)
    )


def test_sums() -> None:
    """A client's figures are the sums of its destinations'."""
    total = two_destinations()
    assert (total.accepted, total.delivered, total.rejected) == (17, 6, 3)
    assert (total.dropped, total.pending) == (5, 3)
    assert total.is_balanced


def test_one_destination_out_of_balance_shows() -> None:
    """Two wrongs that cancel out in the sums are still two wrongs."""
    over = dataclasses.replace(figures(Ledger(accepted=5)), delivered=6)
    under = dataclasses.replace(figures(Ledger(accepted=5)), delivered=4)
    assert not stats(over=over, under=under).is_balanced


def test_as_dict_is_plain_data() -> None:
    """The figures survive JSON as they are."""
    plain = two_destinations().as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["state"] == "open"
    assert (plain["refused"], plain["unrouted"], plain["accepted"]) == (2, 1, 17)
    assert plain["destinations"]["crm"]["rejected_by"] == {"400": 3}
    assert plain["destinations"]["lake"]["dropped_by"] == {"closed": 5}


def test_figures_are_frozen() -> None:
    """What was read at one moment stays what it was."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        two_destinations().refused = 0  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        figures(Ledger()).delivered = 1  # type: ignore[misc]
