"""Work beside the loop that may hang, as files, disks and lookups of names do.

Promises:
- Each piece has a thread of its own: nothing that hangs takes one from others.
- Who is cancelled is free at once, and the piece under way goes on.
- No thread holds up the end of the process.
- Where no thread can be started, as at the end of a program in some Pythons, the loop's does it,
  and what hangs then holds up the loop.
- No lock is taken that all threads' pools of the process share, as `asyncio.to_thread` takes one:
  who waits for a loop may be a signal's handler, and its thread may hold that. But a thread takes a
  moment to begin, for which the loop waits: not for what is done again and again.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


async def beside(
    function: Callable[_Params, _Result], *args: _Params.args, **named: _Params.kwargs
) -> _Result:
    """Return what a function returns, called in a thread of its own."""
    running: Future[_Result] = Future()
    _start(running, partial(function, *args, **named))
    return await asyncio.wrap_future(running)


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
        running: Future[_Result] = Future()
        self._last = running
        _start(running, partial(function, *args, **named))
        return await asyncio.wrap_future(running)


def _start(running: Future[_Result], function: Callable[[], _Result]) -> None:
    running.set_running_or_notify_cancel()  # from now on it cannot be cancelled

    def work() -> None:
        try:
            running.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised where it is awaited
            running.set_exception(error)

    try:
        Thread(target=work, name="asyncanalytics aside", daemon=True).start()
    except RuntimeError:
        work()
