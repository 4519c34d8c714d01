"""`StopOnSignal` ends a block at a signal, and only the block, and leaves no trace."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

import asyncanalytics
from asyncanalytics import ConfigurationError
from asyncanalytics.signals import StopOnSignal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Live

POSIX = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and forks")
each_signal = pytest.mark.parametrize("sent", [SIGTERM, SIGINT])


@pytest.fixture(autouse=True)
def handlers() -> Iterator[dict[Signals, object]]:
    """The process's handlers: the usual ones before each test, and the same after each block."""
    # A background job may have been started with SIGINT ignored, and that is inherited.
    usual = {SIGTERM: signal.SIG_DFL, SIGINT: signal.default_int_handler}
    before = {each: signal.signal(each, handler) for each, handler in usual.items()}
    yield usual
    left = {each: signal.getsignal(each) for each in usual}
    for each, handler in before.items():
        signal.signal(each, handler)
    assert left == usual


async def meet(sent: Signals) -> None:
    """Get a signal, and wait for what it does."""
    signal.raise_signal(sent)
    await asyncio.sleep(60)


# ------------------------------------------------------------------------------------- async with


@each_signal
async def test_a_signal_ends_the_block(sent: Signals) -> None:
    """The body is cancelled, the block ends without an error, and says which signal it was."""
    ended = False
    async with StopOnSignal() as stop:
        try:
            await meet(sent)
        finally:
            ended = True
    assert ended
    assert (stop.signal, stop.exit_code) == (sent, 128 + sent)
    await asyncio.sleep(0)  # whoever is around the block goes on


async def test_no_signal() -> None:
    """A block that ends by itself says so, also where the object was used before."""
    stop = StopOnSignal()
    async with stop:
        await meet(SIGTERM)
    async with stop:
        await asyncio.sleep(0)
    assert (stop.signal, stop.exit_code) == (None, 0)


async def test_an_exception_in_the_body_goes_on() -> None:
    """What the body raises comes out, with and without a signal."""
    with pytest.raises(ZeroDivisionError):
        async with StopOnSignal():
            raise ZeroDivisionError
    stop = StopOnSignal()

    async def fail_to_clean_up() -> None:
        try:
            await meet(SIGTERM)
        finally:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with stop:
            await fail_to_clean_up()
    assert stop.signal is SIGTERM


async def test_a_cancellation_from_outside_goes_on() -> None:
    """What others cancel, the block does not take for its own, not even after a signal."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0), StopOnSignal() as stop:
            await asyncio.sleep(60)
    assert stop.signal is None

    async def work() -> None:
        async with stop:
            asyncio.get_running_loop().call_soon(task.cancel)
            await meet(SIGTERM)

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stop.signal is SIGTERM


async def test_a_signal_in_the_last_moment() -> None:
    """One that comes when the body has ended is named, and cancels nobody."""
    async with StopOnSignal() as stop:
        signal.raise_signal(SIGTERM)
    assert stop.signal is SIGTERM
    await asyncio.sleep(0.01)


async def test_a_shield_lets_a_job_end() -> None:
    """What is shielded runs to its end; the next await is cancelled."""
    done: list[str] = []
    async with StopOnSignal():
        with anyio.CancelScope(shield=True):
            signal.raise_signal(SIGTERM)
            await asyncio.sleep(0.02)
            done.append("job")
        await asyncio.sleep(60)
        done.append("next job")
    assert done == ["job"]


async def test_the_innermost_block_gets_the_signal() -> None:
    """It ends alone; the one around it goes on, and gets the next."""
    async with StopOnSignal() as outer:
        async with StopOnSignal() as inner:
            await meet(SIGTERM)
        assert (outer.signal, inner.signal) == (None, SIGTERM)
        await meet(SIGTERM)
    assert outer.signal is SIGTERM


async def test_one_signal_of_each_kind() -> None:
    """The first counts. One of another kind does not disturb what it has begun."""
    cleaned = False
    async with StopOnSignal() as stop:
        try:
            await meet(SIGINT)
        finally:
            signal.raise_signal(SIGTERM)
            with anyio.CancelScope(shield=True):
                await asyncio.sleep(0.01)
            cleaned = True
    assert cleaned
    assert stop.signal is SIGINT


async def test_chosen_signals() -> None:
    """Other signals may be chosen; the usual ones are left alone then."""
    before = signal.getsignal(SIGINT)
    async with StopOnSignal(SIGTERM) as stop:
        assert signal.getsignal(SIGINT) is before
        await meet(SIGTERM)
    assert stop.signal is SIGTERM


async def test_what_is_ignored_stays_ignored() -> None:
    """A program that was started with SIGINT ignored goes on through one."""
    before = signal.signal(SIGINT, signal.SIG_IGN)
    try:
        async with StopOnSignal() as stop:
            signal.raise_signal(SIGINT)
            await asyncio.sleep(0.01)
        assert stop.signal is None
        assert signal.getsignal(SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(SIGINT, before)


@POSIX
async def test_a_handler_of_the_loops_works_again() -> None:
    """What `loop.add_signal_handler` has set works within the block and after it."""
    loop = asyncio.get_running_loop()
    heard = asyncio.Queue[str]()
    loop.add_signal_handler(SIGTERM, heard.put_nowait, "heard")
    try:
        async with StopOnSignal() as stop:
            await meet(SIGTERM)
        assert stop.signal is SIGTERM
        assert await heard.get() == "heard"
        signal.raise_signal(SIGTERM)
        assert await heard.get() == "heard"
    finally:
        loop.remove_signal_handler(SIGTERM)


class LoopWithoutSignals(asyncio.SelectorEventLoop):
    """A loop as Windows has it: it cannot add signal handlers."""

    def add_signal_handler(self, sig: int, callback: object, *args: object) -> None:
        """Refuse."""
        raise NotImplementedError


@each_signal
def test_a_loop_without_signal_handlers(sent: Signals) -> None:
    """Where the loop knows no signals, as on Windows, they are handled all the same."""

    async def main() -> int:
        async with StopOnSignal() as stop:
            # From another thread, so that the loop is asleep when the signal comes.
            raising = threading.Timer(0.05, os.kill, (os.getpid(), sent))
            raising.start()
            await asyncio.sleep(60)
        await anyio.to_thread.run_sync(raising.join)
        return stop.exit_code

    with asyncio.Runner(loop_factory=LoopWithoutSignals) as runner:
        assert runner.run(main()) == 128 + sent


# ------------------------------------------------------------------------------------ plain with


@each_signal
def test_a_signal_ends_a_plain_block(sent: Signals) -> None:
    """`SystemExit` with the right code runs through the body, and ends with the block."""
    codes: list[object] = []
    with StopOnSignal() as stop:
        try:
            signal.raise_signal(sent)
        except SystemExit as ending:
            codes.append(ending.code)
            raise
    assert codes == [128 + sent]
    assert (stop.signal, stop.exit_code) == (sent, 128 + sent)


def test_a_plain_block_that_ends_by_itself() -> None:
    """It names no signal, and what its body raises comes out, even a `SystemExit`."""
    with StopOnSignal() as stop:
        pass
    assert (stop.signal, stop.exit_code) == (None, 0)
    with pytest.raises(SystemExit, match="3"), stop:
        sys.exit(3)
    with pytest.raises(ZeroDivisionError), stop:
        raise ZeroDivisionError


@pytest.mark.parametrize("how", ["with", "async with"])
async def test_another_thread(how: str) -> None:
    """Outside the main thread it says where it works, and changes nothing."""

    def block() -> None:
        with StopOnSignal():
            pytest.fail("not reached")

    async def async_block() -> None:
        async with StopOnSignal():
            pytest.fail("not reached")

    with pytest.raises(ConfigurationError, match="main thread"):
        await asyncio.to_thread(block if how == "with" else lambda: asyncio.run(async_block()))


async def test_a_plain_block_in_a_coroutine() -> None:
    """A plain `with` would break the loop: it says what to write instead."""
    with pytest.raises(ConfigurationError, match="async with"), StopOnSignal():
        pytest.fail("not reached")


def test_signals_that_cannot_be_handled(handlers: dict[Signals, object]) -> None:
    """Where one of the signals cannot be had, the others are given back."""
    if os.name == "nt":
        pytest.skip("SIGKILL")
    with pytest.raises(OSError, match="Invalid"), StopOnSignal(SIGTERM, signal.SIGKILL):
        pytest.fail("not reached")
    assert signal.getsignal(SIGTERM) == handlers[SIGTERM]


# ------------------------------------------------------------------------------- whole processes


@contextmanager
def running(code: str, environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run code of a test's in a Python of its own."""
    path = str(Path(asyncanalytics.__file__).parents[1])
    with subprocess.Popen(  # noqa: S603 - our own words
        [sys.executable, "-W", "error", "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**environ, "PYTHONPATH": path},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """Read one line of what a process says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


ENDLESS = """
import asyncio, sys
from asyncanalytics import AsyncClient
from asyncanalytics.signals import StopOnSignal

async def main():
    async with StopOnSignal(), AsyncClient(shutdown_timeout=600) as analytics:
        await analytics.track("Hello", user_id="u1")
        try:
            print("open")
            await asyncio.sleep(600)
        finally:
            print("closing")

asyncio.run(main())
"""


@POSIX
def test_a_second_signal_ends_the_process_at_once(live: Live) -> None:
    """However long the drain would take, who asks twice does not wait for it."""
    live.collector.misbehave(503)
    with running(ENDLESS, live.environ) as process:
        assert line(process) == "open"
        process.send_signal(SIGINT)
        assert line(process) == "closing"
        process.send_signal(SIGINT)
        assert process.wait(timeout=20) == -SIGINT


DRAINING = """
import asyncio, json, sys
from asyncanalytics import AsyncClient
from asyncanalytics.signals import StopOnSignal

analytics = AsyncClient()

async def main():
    async with StopOnSignal() as stop, analytics:
        await analytics.track("Hello", user_id="u1")
        print("closing")
    print(json.dumps(analytics.stats().as_dict()))
    return stop.exit_code

sys.exit(asyncio.run(main()))
"""


@POSIX
def test_a_signal_during_the_drain(live: Live) -> None:
    """The drain goes on, and the program ends as one that was told to."""
    live.collector.misbehave(None, delay=0.3)
    with running(DRAINING, live.environ) as process:
        assert line(process) == "closing"
        assert live.events == []
        process.send_signal(SIGTERM)
        stats = json.loads(line(process))
        assert process.wait(timeout=20) == 128 + SIGTERM
    assert (stats["accepted"], stats["delivered"], stats["pending"]) == (1, 1, 0)
    assert len(live.collector.message_ids()) == 1


FORKING = """
import os, signal, sys, time
from asyncanalytics.signals import StopOnSignal

with StopOnSignal() as stop:
    pid = os.fork()
    if pid == 0:
        print(os.getpid())
        time.sleep(600)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    print("reaped", stop.signal)
    time.sleep(600)
print("ended")
sys.exit(stop.exit_code)
"""


@POSIX
def test_a_forked_child_dies_of_a_signal(live: Live) -> None:
    """The block is the parent's: a child that is told to end does, and the parent goes on."""
    with running(FORKING, live.environ) as process:
        os.kill(int(line(process)), SIGTERM)
        assert line(process) == "reaped None"
        process.send_signal(SIGTERM)
        assert line(process) == "ended"
        assert process.wait(timeout=20) == 128 + SIGTERM


AT_EXIT = """
import sys, time
from asyncanalytics import Client
from asyncanalytics.signals import StopOnSignal

analytics = Client()
with StopOnSignal() as stop:
    for _ in range(100):
        print(analytics.track("Hello", user_id="u1").message_id)
    print("open")
    time.sleep(600)
sys.exit(stop.exit_code)
"""


@POSIX
def test_a_client_that_is_closed_by_the_interpreter(live: Live) -> None:
    """Within the block a signal leads to the interpreter's own end, and so to the client's."""
    with running(AT_EXIT, live.environ) as process:
        ids = list(iter(lambda: line(process), "open"))
        process.send_signal(SIGTERM)
        assert process.wait(timeout=20) == 128 + SIGTERM
    assert len(ids) == 100
    assert sorted(live.collector.message_ids()) == sorted(ids)


@pytest.mark.parametrize("wrong", ["TERM", 15.0, None])
def test_what_is_no_signal(wrong: object) -> None:
    """It is said where it is written."""
    with pytest.raises(ConfigurationError, match=r"signal\.SIGTERM"):
        StopOnSignal(wrong)  # type: ignore[arg-type]
