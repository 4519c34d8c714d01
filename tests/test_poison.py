"""One bad call takes no other with it: exactly the bad ones of a batch are rejected."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from conftest import Lab

POISON = st.lists(st.booleans(), min_size=1, max_size=60)
SIZES = st.lists(st.integers(min_value=0, max_value=4_000), min_size=1, max_size=60)


@pytest.mark.looptime
@settings(max_examples=40, deadline=None)
@given(poison=POISON)
async def test_any_subset_of_poison(new_lab: type[Lab], poison: list[bool]) -> None:
    """Whatever calls of a batch are poison, exactly those are rejected; the rest arrive once."""
    bad: set[str] = set()
    with new_lab() as lab:
        server = lab.script(then=lambda request: 400 if bad.intersection(request.ids) else 200)
        async with lab.client(server) as client:
            receipts = lab.burst(client, len(poison))
            bad.update(
                each.message_id for each, is_bad in zip(receipts, poison, strict=True) if is_bad
            )
            outcomes = [await receipt.settled() for receipt in receipts]
    assert [each.kind for each in outcomes] == [
        "rejected" if is_bad else "delivered" for is_bad in poison
    ]
    assert {each.status for each in outcomes} <= {200, 400}
    assert list(server.arrived) == [
        each.message_id for each in receipts if each.message_id not in bad
    ]
    assert {len(each) for each in server.arrived.values()} <= {1}
    assert len(server.requests) <= 1 + 2 * sum(poison) * max(1, len(poison).bit_length())


@pytest.mark.looptime
@settings(max_examples=40, deadline=None)
@given(sizes=SIZES, limit=st.integers(min_value=600, max_value=20_000))
async def test_any_subset_too_large(new_lab: type[Lab], sizes: list[int], limit: int) -> None:
    """With a server that takes so many bytes, exactly what is larger alone is given up."""
    with new_lab() as lab:
        server = lab.script(then=lambda request: 413 if len(request.content) > limit else 200)
        async with lab.client(server) as client:
            receipts = [
                client.track_nowait("Added File", user_id="u", properties={"x": "x" * size})
                for size in sizes
            ]
            outcomes = [await receipt.settled() for receipt in receipts]
        alone = {
            request.ids[0]: len(request.content)
            for request in server.requests
            if len(request.ids) == 1
        }
    for receipt, outcome in zip(receipts, outcomes, strict=True):
        if outcome.delivered:
            assert len(server.arrived[receipt.message_id]) == 1
        else:
            assert (outcome.kind, outcome.reason, outcome.status) == ("dropped", "too_large", 413)
            assert alone[receipt.message_id] > limit


@pytest.mark.looptime
@settings(max_examples=30, deadline=None)
@given(poison=POISON, names=st.sampled_from(["index", "messageId", "text"]))
async def test_any_subset_named_by_a_207(
    new_lab: type[Lab], poison: list[bool], names: str
) -> None:
    """Whatever calls a 207 names, by place or by id, exactly those are rejected, in one request."""

    def error(index: int, message_id: str) -> Any:
        return {
            "index": {"index": index, "reason": "bad"},
            "messageId": {"messageId": message_id, "reason": "bad"},
            "text": f"event {message_id} is bad",
        }[names]

    with new_lab() as lab:

        def judge(request: Any) -> Any:
            marked = zip(request.ids, poison, strict=True)
            errors = [error(at, each) for at, (each, is_bad) in enumerate(marked) if is_bad]
            return lab.reply(207 if errors else 200, body=json.dumps({"Errors": errors}).encode())

        server = lab.script(then=judge)
        async with lab.client(server) as client:
            outcomes = [await each.settled() for each in lab.burst(client, len(poison))]
    assert [each.kind for each in outcomes] == [
        "rejected" if is_bad else "delivered" for is_bad in poison
    ]
    assert len(server.requests) == 1


@pytest.mark.looptime
@pytest.mark.parametrize("mode", ["strict", "partial"])
@pytest.mark.parametrize("bad", [{0}, {3, 4}, {0, 9}, {1, 3, 5, 7, 9}, set(range(10))])
async def test_the_real_collector_finds_poison(lab: Lab, bad: set[int], mode: Any) -> None:
    """Calls that the collector refuses are rejected here and bad there; all others are good."""
    collector = lab.collector(mode=mode)
    endpoint = lab.endpoint(collector, max_event_bytes=60_000)
    async with lab.client(endpoint=endpoint) as client:
        receipts = [
            client.track_nowait(
                "Added File", user_id="u", properties={"x": "x" * (40_000 if n in bad else 9)}
            )
            for n in range(10)
        ]
        outcomes = [await receipt.settled() for receipt in receipts]
    good = [each.message_id for n, each in enumerate(receipts) if n not in bad]
    assert collector.message_ids("good") == good
    assert set(collector.stats().reasons) == {"event_too_large"}
    assert [each.kind for each in outcomes] == [
        "rejected" if n in bad else "delivered" for n in range(10)
    ]
