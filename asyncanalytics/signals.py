"""An orderly end at SIGTERM and SIGINT, for programs that no server runs.

By default Python dies of SIGTERM at once: no `finally`, no exit handler, no drain. `StopOnSignal`
makes of a signal the end of a block, so that what is open within it closes as at any other end.

Invariants:
- The first signal ends the block, and only the block: whoever is around it goes on.
- A second signal of the same kind ends the process at once, whatever it is doing. One of another
  kind does nothing: terminals and supervisors often send both for the same wish.
- After the block the handlers are those that were there before it.
- Handlers are set by `signal.signal` on every platform. `loop.add_signal_handler` does not work
  on Windows, cannot give back what it replaces, and lets a forked child wake its parent's loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from contextlib import suppress
from signal import Signals
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio._backends._asyncio  # what its first scope would import on the loop

from asyncanalytics.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

_USUAL: tuple[Signals, ...] = (signal.SIGTERM, signal.SIGINT)
if sys.platform == "win32":
    _USUAL += (signal.SIGBREAK,)


class StopOnSignal:
    """Ends a block at the first SIGTERM or SIGINT, without an error.

    - `async with StopOnSignal() as stop, AsyncClient() as analytics:` cancels the body through an
      `anyio.CancelScope`: each await in it raises, except within a shield, as the client's drain
      has one. A loop that is held up by sync code is cancelled when that returns, no sooner.
    - `with StopOnSignal() as stop, Client() as analytics:` raises `SystemExit` in the main
      thread, wherever that is. Other threads go on. As Python ignores an exception that comes
      within a `__del__` or a weak reference's callback, a loop had better ask `stop.signal` too.

    Afterwards `stop.signal` names the signal. Signals that the process was started to ignore,
    as `nohup` and shells do, stay ignored. A forked child meets each signal's default action.
    Use one object for one block at a time, in the main thread.
    """

    def __init__(self, *signals: Signals) -> None:
        """Take other signals than SIGTERM and SIGINT (on Windows, SIGBREAK too), if given."""
        if not all(isinstance(each, Signals) for each in signals):
            raise ConfigurationError("StopOnSignal takes signals, such as signal.SIGTERM")
        self.signal: Signals | None = None
        """The one that has ended the block; None if none has."""
        self._signals = signals or _USUAL
        self._previous: dict[Signals, Any] = {}
        self._stop: Callable[[], object] = _nothing
        self._pid = 0
        self._exit: SystemExit | None = None

    @property
    def exit_code(self) -> int:
        """What shells expect of a program that ends so: 128 and the signal's number, or 0."""
        return 0 if self.signal is None else 128 + self.signal

    def __enter__(self) -> Self:
        """Listen, and raise `SystemExit` in the block.

        Raises:
            ConfigurationError: outside the main thread, or in a coroutine.
        """
        with suppress(RuntimeError):
            asyncio.get_running_loop()
            raise ConfigurationError("in a coroutine, write `async with StopOnSignal()`")
        self._listen(self._raise)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Listen no more; an exception of the body goes on, unless it is this one's own."""
        self._listen_no_more()
        return error is not None and error is self._exit

    async def __aenter__(self) -> Self:
        """Listen, and cancel the block.

        Raises:
            ConfigurationError: outside the main thread.
        """
        self._scope = anyio.CancelScope()
        loop = asyncio.get_running_loop()
        self._listen(lambda: loop.call_soon_threadsafe(self._scope.cancel))
        self._scope.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Listen no more; an exception of the body goes on."""
        self._listen_no_more()
        return bool(self._scope.__exit__(kind, error, trace))

    def _listen(self, stop: Callable[[], object]) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise ConfigurationError(
                "StopOnSignal works in the main thread only, where Python handles signals"
            )
        self.signal, self._exit, self._pid, self._stop = None, None, os.getpid(), stop
        try:
            for each in self._signals:
                if signal.getsignal(each) is not signal.SIG_IGN:
                    self._previous[each] = signal.signal(each, self._handle)
        except BaseException:  # also the first signal, which may come already
            self._listen_no_more()
            raise

    def _listen_no_more(self) -> None:
        self._stop = _nothing
        while self._previous:
            each, previous = self._previous.popitem()
            # None: it was not set by Python, which cannot set it again.
            signal.signal(each, signal.SIG_DFL if previous is None else previous)

    def _handle(self, number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != self._pid:
            signal.raise_signal(number)  # the block is the parent's
        elif self.signal is None:
            self.signal = Signals(number)
            self._stop()

    def _raise(self) -> None:
        self._exit = SystemExit(self.exit_code)
        raise self._exit


def _nothing() -> None:
    """Once the block ends, there is nothing to stop."""
