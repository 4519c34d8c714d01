"""Turns to send: how many at a time, when none, and how the number grows again."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncanalytics.pace import Pace

pytestmark = pytest.mark.looptime


async def turns(pace: Pace) -> int:
    """Count the turns that can be had at once."""
    async with AsyncExitStack() as held:
        for number in range(100):
            try:
                async with asyncio.timeout(0.001):
                    await held.enter_async_context(pace.turn())
            except TimeoutError:
                return number
    return 100


async def test_as_many_as_allowed() -> None:
    """When all is well, `most` turns can be had, and each that ends lets another begin."""
    pace = Pace(3)
    assert await turns(pace) == 3
    assert await turns(pace) == 3


async def test_one_after_a_failure_then_twice_as_many() -> None:
    """A failure leaves one turn; each success doubles them, up to the limit."""
    pace = Pace(5)
    pace.note(succeeded=False)
    found = [await turns(pace)]
    for _ in range(4):
        pace.note(succeeded=True)
        found.append(await turns(pace))
    assert found == [1, 2, 4, 5, 5]


async def test_a_pause_holds_everyone_back() -> None:
    """No turn is given before the moment, and a shorter pause does not end a longer one."""
    pace, loop = Pace(2), asyncio.get_running_loop()
    pace.pause_until(30)
    pace.pause_until(10)
    async with pace.turn():
        assert loop.time() == pytest.approx(30, abs=1e-6)


async def test_a_pause_that_grows_while_one_waits() -> None:
    """Who waits for a pause's end waits for the new end too."""
    pace, loop = Pace(2), asyncio.get_running_loop()
    pace.pause_until(10)
    loop.call_at(5, pace.pause_until, 20)

    async def enter() -> float:
        async with pace.turn():
            return loop.time()

    assert await asyncio.gather(enter(), enter()) == pytest.approx([20, 20], abs=1e-6)


@pytest.mark.parametrize("paused", [False, True])
async def test_a_cancelled_turn_is_given_back(*, paused: bool) -> None:
    """Cancelling who waits for a turn, or who holds one, loses none."""
    pace = Pace(1)
    if paused:
        pace.pause_until(1)

    async def hold() -> None:
        async with pace.turn():
            await asyncio.sleep(100)

    tasks = [asyncio.create_task(hold()) for _ in range(3)]
    await asyncio.sleep(2)
    for task in tasks:
        task.cancel()
        await asyncio.sleep(0.1)
    assert await turns(pace) == 1


async def test_an_error_within_a_turn_gives_it_back() -> None:
    """A request that raises does not keep its turn."""
    pace = Pace(1)
    with pytest.raises(ZeroDivisionError):
        async with pace.turn():
            raise ZeroDivisionError
    assert await turns(pace) == 1


@given(
    lengths=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=30),
    fates=st.lists(st.booleans(), min_size=30, max_size=30),
    most=st.integers(min_value=1, max_value=5),
)
@settings(max_examples=30, deadline=None)
async def test_never_more_than_most_and_everyone_gets_a_turn(
    lengths: list[float], fates: list[bool], most: int
) -> None:
    """Whatever succeeds or fails, no more than `most` hold a turn, and nobody waits for ever."""
    pace, held, peak, ended = Pace(most), 0, 0, 0

    async def request(length: float, *, succeeds: bool) -> None:
        nonlocal held, peak, ended
        async with pace.turn():
            held += 1
            peak = max(peak, held)
            await asyncio.sleep(length)
            held -= 1
        pace.note(succeeded=succeeds)
        ended += 1

    pairs = zip(lengths, fates, strict=False)
    async with asyncio.timeout(1000):
        await asyncio.gather(*(request(length, succeeds=fate) for length, fate in pairs))
    assert peak <= most
    assert ended == len(lengths)


async def test_a_pause_that_ends_between_two_ticks_of_the_clock() -> None:
    """What is left of a pause may be less than the clock can tell: nobody spins for it."""
    pace, loop = Pace(1), asyncio.get_running_loop()
    pace.pause_until(5.0000004)
    async with pace.turn():
        assert loop.time() == pytest.approx(5, abs=1e-5)
