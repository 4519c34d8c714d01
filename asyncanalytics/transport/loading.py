"""What takes long before a first request: it is imported and made in threads of its own.

A signal handler comes into the main thread, wherever that is, and may wait there for another
client's start: what that needs must not be held by the main thread.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

import h11  # noqa: F401 - a part of what `load` imports, so that a loop notices less of it
import httpx

from asyncanalytics import forks

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    Made = TypeVar("Made")

_TURN = 0.001  # seconds; Python's own is five times as long
_PATIENCE = 5.0  # seconds

_is_loaded = False


def load() -> None:
    """Import what httpx and anyio leave for their first use, and wait for it, but not for ever.

    Where a signal handler has come into the midst of such an import, that goes on after it.
    """
    if not _is_loaded:
        with suppress(TimeoutError):
            _in_thread(_load).result(_PATIENCE)


async def loaded() -> None:
    """Have that done, and let the loop run meanwhile."""
    if not _is_loaded:
        await asyncio.wrap_future(_in_thread(_load))


def is_there(package: str) -> bool:
    """Whether a package can be imported, without importing it."""
    try:
        return find_spec(package) is not None
    except ImportError:
        return False
    except ValueError:
        return True  # something that stands in for it


def trust() -> ssl.SSLContext:
    """Read the certificates that are trusted here."""
    return httpx.create_ssl_context()


async def off_loop(function: Callable[[], Made]) -> Made:
    """Import or make something, with all of that loaded, and let the loop run meanwhile."""

    def run() -> Made:
        _load()
        with forks.loads.alone, _short_turns():
            return function()

    return await asyncio.wrap_future(_in_thread(run))


def _load() -> None:
    global _is_loaded  # noqa: PLW0603 - modules are loaded once in a process
    with forks.loads.alone, _short_turns():
        import anyio._backends._asyncio  # noqa: F401 - each is found again by who needs it
        import httpcore._backends.anyio  # noqa: F401 - the same

        _is_loaded = True


def _in_thread(function: Callable[[], Made]) -> Future[Made]:
    """Run it in a thread of its own, or here, where the program is ending and no thread starts."""
    made: Future[Made] = Future()

    def run() -> None:
        if made.set_running_or_notify_cancel():
            try:
                made.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                made.set_exception(error)

    try:
        threading.Thread(target=run, name="asyncanalytics import").start()
    except RuntimeError:
        run()
    return made


@contextmanager
def _short_turns() -> Iterator[None]:
    """Let a thread that waits for its turn, as a loop's does, wait less long for it."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(min(_TURN, usual))
    try:
        yield
    finally:
        if sys.getswitchinterval() == _TURN:  # nobody else has set it meanwhile
            sys.setswitchinterval(usual)
