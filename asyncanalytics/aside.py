"""Work beside the loop that may hang, as files, disks and lookups of names do.

Promises:
- Each piece has a thread of its own: nothing that hangs takes one from others.
- Who is cancelled is free at once, and the piece under way goes on.
- No thread holds up the end of the process.
- Where no thread can be started, as at the end of a program in some Pythons, the loop's does it,
  and what hangs then holds up the loop.
- No lock is taken that all threads' pools of the process share, as `asyncio.to_thread` takes one:
  who waits for a loop may be a signal's handler, and its thread may hold that. Nor is a thread of
  the user's pool taken, where all may be waiting for the loop.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_NAME = "asyncanalytics aside"

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


async def beside(
    function: Callable[_Params, _Result], *args: _Params.args, **named: _Params.kwargs
) -> _Result:
    """Return what a function returns, called in a thread of its own."""
    return await asyncio.wrap_future(begin(function, *args, **named))


def begin(
    function: Callable[_Params, _Result], *args: _Params.args, **named: _Params.kwargs
) -> Future[_Result]:
    """Call a function in a thread of its own; any number of waits may share its end."""
    running: Future[_Result] = Future()
    work = _settling(running, partial(function, *args, **named))
    if not _has_started(Thread(target=work, name=_NAME, daemon=True)):
        work()
    return running


class Aside:
    """Runs functions one after the other: who waits for its turn waits on the loop."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._last: Future[Any] | None = None

    async def run(
        self,
        function: Callable[_Params, _Result],
        *args: _Params.args,
        **named: _Params.kwargs,
    ) -> _Result:
        """Return what a function returns, in its turn, also after one that was cancelled."""
        while self._last is not None and not self._last.done():
            await asyncio.wait([asyncio.wrap_future(self._last)])
        running = begin(function, *args, **named)
        self._last = running
        return await asyncio.wrap_future(running)


class Worker:
    """A thread that stays, for short work that comes again and again: to begin one takes a moment.

    It ends when this is let go of.
    """

    def __init__(self) -> None:
        """Begin no thread before there is work."""
        self._todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._is_there = False

    async def run(
        self,
        function: Callable[_Params, _Result],
        *args: _Params.args,
        **named: _Params.kwargs,
    ) -> _Result:
        """Return what a function returns, after those that came before it."""
        running: Future[_Result] = Future()
        work = _settling(running, partial(function, *args, **named))
        if not self._is_there:
            thread = Thread(target=_work_off, args=(self._todo,), name=_NAME, daemon=True)
            self._is_there = _has_started(thread)
        if self._is_there:
            self._todo.put(work)
        else:
            work()
        return await asyncio.wrap_future(running)

    def __del__(self) -> None:
        """Let the thread end."""
        self._todo.put(None)


def _work_off(todo: SimpleQueue[Callable[[], None] | None]) -> None:
    while (work := todo.get()) is not None:
        work()
        del work  # while it waits for the next


def _settling(running: Future[_Result], function: Callable[[], _Result]) -> Callable[[], None]:
    running.set_running_or_notify_cancel()  # from now on it cannot be cancelled

    def work() -> None:
        try:
            running.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            running.set_exception(error)

    return work


def _has_started(thread: Thread) -> bool:
    try:
        thread.start()
    except RuntimeError:
        return False
    return True
