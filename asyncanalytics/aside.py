"""Work beside the loop that may hang, as files and disks do: one piece at a time.

Promises:
- Who waits for its turn waits on the loop: nothing that hangs takes a thread from others.
- Who is cancelled is free at once. The piece under way goes on, and the next one waits for its end.
- No thread holds up the end of the process.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from threading import Thread
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class Aside:
    """Runs functions in threads, one after the other."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._last: Future[Any] | None = None

    async def run(
        self,
        function: Callable[_Params, _Result],
        *args: _Params.args,
        **named: _Params.kwargs,
    ) -> _Result:
        """Return what a function returns, in its turn."""
        while self._last is not None and not self._last.done():
            await asyncio.wait([asyncio.wrap_future(self._last)])
        running: Future[_Result] = Future()
        running.set_running_or_notify_cancel()  # from now on it cannot be cancelled

        def work() -> None:
            try:
                running.set_result(function(*args, **named))
            except BaseException as error:  # noqa: BLE001 - raised where it is awaited
                running.set_exception(error)

        self._last = running
        Thread(target=work, name="asyncanalytics aside", daemon=True).start()
        return await asyncio.wrap_future(running)
