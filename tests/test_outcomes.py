"""Every status, alone and in a batch, with and without Retry-After: what becomes of the calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asyncanalytics import Retrying

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Lab, Script

ACCEPTED = (200, 201, 202, 204, 205, 207, 208, 226, 299)
REDIRECTS = (300, 301, 302, 303, 304, 307, 308, 399)
RETRIED = (408, 410, 429, 460, 500, 502, 503, 504, 506, 507, 508, 510, 520, 529, 530, 598, 599)
REFUSED = (402, 404, 405, 406, 409, 411, 415, 418, 421, 422, 425, 431, 451, 461, 499, 501, 505, 511)
SPLIT = (400, 413)
HALT = (401, 403)
STATUSES = sorted({*ACCEPTED, *REDIRECTS, *RETRIED, *REFUSED, *SPLIT, *HALT})

RETRYING = Retrying(max_attempts=3, base=0.5, cap=4.0, max_elapsed=60.0)


def expected_kind(status: int) -> tuple[str, str, int | None]:
    """Return how calls end that always meet this status: kind, reason, status in the outcome."""
    if status in ACCEPTED:
        return "delivered", "", status
    if status in RETRIED or status in REDIRECTS:
        return "dropped", "expired", status
    if status == 413:
        return "dropped", "too_large", status
    return "rejected", "rejected", status


def expected_requests(status: int, events: int, *, asked_to_wait: bool) -> int:
    """Return how many requests carry the batch, in all its parts, before it ends."""
    if status in SPLIT:
        return 2 * events - 1  # a batch is halved down to its single calls
    if status in RETRIED and asked_to_wait:
        return 9  # seven seconds and up to half a one each: the ninth is past the 60
    if status in RETRIED or status in REDIRECTS:
        return 1 + RETRYING.max_attempts
    return 1


def check_retries(server: Script, stamp: Callable[[float], str]) -> None:
    """Assert the headers and stamps of the attempts of one batch."""
    counts = [request.headers.get("x-retry-count") for request in server.requests]
    assert counts == [None, *map(str, range(1, len(counts)))]
    assert len({tuple(request.ids) for request in server.requests}) == 1
    assert len({str(request.events) for request in server.requests}) == 1
    for request in server.requests:
        assert request.body["sentAt"] == stamp(request.at)


@pytest.mark.looptime
@pytest.mark.parametrize("retry_after", [None, "7"])
@pytest.mark.parametrize("events", [1, 3])
@pytest.mark.parametrize("status", STATUSES)
async def test_a_status_that_stays(
    lab: Lab,
    wall: Callable[[float], str],
    status: int,
    events: int,
    retry_after: str | None,
) -> None:
    """Calls that always meet one status end as the protocol says, after so many requests."""
    headers = {} if retry_after is None else {"retry-after": retry_after}
    server = lab.script(then=lab.reply(status, headers=headers, body=b""))
    async with lab.client(server, retrying=RETRYING) as client:
        receipts = lab.burst(client, events)
        outcomes = [await receipt.settled() for receipt in receipts]
        took = asyncio.get_running_loop().time()
    assert {(each.kind, each.reason, each.status) for each in outcomes} == {expected_kind(status)}
    number = expected_requests(status, events, asked_to_wait=retry_after is not None)
    assert len(server.requests) == number
    stats = client.stats()
    assert (stats.accepted, stats.pending) == (events, 0)
    assert getattr(stats, outcomes[0].kind) == events
    figures = stats.destinations["custom"]
    if status in RETRIED and retry_after is not None:
        check_retries(server, wall)
        assert 8 * 7 <= took <= 60
        assert (figures.requests, figures.retries) == (9, 8)
    elif status in RETRIED or status in REDIRECTS:
        check_retries(server, wall)
        assert took <= 0.5 + 1 + 2
        assert (figures.requests, figures.retries) == (4, 3)
    else:
        assert took == 0
        assert (figures.requests, figures.retries) == (number, 0)
        assert all("x-retry-count" not in request.headers for request in server.requests)


@pytest.mark.looptime
@pytest.mark.parametrize("retry_after", [None, "7"])
@pytest.mark.parametrize("events", [1, 3])
@pytest.mark.parametrize("status", [*REDIRECTS, *RETRIED])
async def test_a_status_that_passes(
    lab: Lab,
    wall: Callable[[float], str],
    status: int,
    events: int,
    retry_after: str | None,
) -> None:
    """Calls that meet trouble twice are delivered by the third request, once each."""
    headers = {} if retry_after is None else {"retry-after": retry_after}
    trouble = lab.reply(status, headers=headers)
    server = lab.script(trouble, trouble, then=200)
    async with lab.client(server, retrying=RETRYING) as client:
        outcomes = [await receipt.settled() for receipt in lab.burst(client, events)]
        took = asyncio.get_running_loop().time()
    check_retries(server, wall)
    assert len(server.requests) == 3
    assert {(each.kind, each.status, each.attempts) for each in outcomes} == {("delivered", 200, 3)}
    assert {len(each) for each in server.arrived.values()} == {1}
    least = 14 if status in RETRIED and retry_after else 0
    assert least <= took <= least + 1.5


@pytest.mark.looptime
@pytest.mark.parametrize("status", [400, 413])
async def test_a_status_that_splits_and_passes(lab: Lab, status: int) -> None:
    """A batch that is refused as a whole is delivered in two halves."""
    server = lab.script(status, then=200)
    async with lab.client(server) as client:
        outcomes = [await receipt.settled() for receipt in lab.burst(client, 5)]
    assert [len(request.ids) for request in server.requests] == [5, 2, 3]
    assert {(each.kind, each.attempts) for each in outcomes} == {("delivered", 2)}


@pytest.mark.looptime
@pytest.mark.parametrize("status", range(200, 600))
async def test_no_status_hangs_the_client(lab: Lab, status: int) -> None:
    """Whatever the status, the calls end, and the next ones get through."""
    server = lab.script(status, status, status, then=200)
    retrying = Retrying(max_attempts=0, cap=1.0)
    async with lab.client(server, retrying=retrying) as client:
        outcomes = [await receipt.settled() for receipt in lab.burst(client, 2)]
        assert None not in outcomes
        await asyncio.sleep(2)  # past a halt
        server.replies.clear()
        (fresh,) = await lab.track(client)
        assert (await fresh.settled()).delivered
    assert client.stats().accepted == 3


@pytest.mark.looptime
@pytest.mark.parametrize("drops", [1, 3])
async def test_no_answer_is_tried_again(lab: Lab, drops: int) -> None:
    """A connection that breaks leads to the same calls, sent again with the same ids."""
    server = lab.script(*[lab.reply(drop=True)] * drops, then=200)
    async with lab.client(server, retrying=RETRYING) as client:
        outcomes = [await receipt.settled() for receipt in lab.burst(client, 2)]
    assert {each.attempts for each in outcomes} == {drops + 1}
    assert client.stats().delivered == 2


@pytest.mark.looptime
async def test_failures_told_in_a_success(lab: Lab) -> None:
    """Calls that a 207 names are rejected with what was said, the others delivered."""

    def partial(request: object) -> object:
        named = request.ids[1]  # type: ignore[attr-defined]
        body = b'{"Errors":[{"messageId":"%s","reason":"no such user"}]}' % named.encode()
        return lab.reply(207, body=body)

    server = lab.script(then=partial)
    async with lab.client(server) as client:
        outcomes = [await receipt.settled() for receipt in lab.burst(client, 3)]
    assert [each.kind for each in outcomes] == ["delivered", "rejected", "delivered"]
    assert "no such user" in outcomes[1].detail
    assert "no such user" not in repr(outcomes[1])
    assert client.stats().destinations["custom"].rejected_by == {207: 1}
