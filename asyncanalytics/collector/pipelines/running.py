"""The router as a program: until a signal ends it, and with reloads meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from asyncanalytics.errors import AnalyticsError, describe
from asyncanalytics.signals import StopOnSignal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

logger: logging.Logger = logging.getLogger("asyncanalytics")

_COLLECTION: Final = (20_000, 20, 20)
_LOOK: Final = 1.0  # seconds between two looks at a file


class Reloadable(Protocol):
    """A router, as it is seen from here."""

    def serve(
        self, host: str | None = None, port: int | None = None
    ) -> AbstractAsyncContextManager[str]:
        """Serve for the time of a block."""

    async def reload(self) -> None:
        """Take up the configuration as it is now."""


def run(
    router: Reloadable,
    host: str | None,
    port: int | None,
    *,
    watched: Any,
    on_start: Callable[[str], Any] | None,
) -> None:
    """Serve until SIGTERM or SIGINT, and return after the drain."""

    async def serve() -> None:
        async with StopOnSignal(), _reloading(router, watched), router.serve(host, port) as url:
            if on_start is not None:
                on_start(url)
            await asyncio.Event().wait()  # until the block is cancelled

    collect_less()
    asyncio.run(serve())


def collect_less() -> None:
    """Have Python look for garbage less often: an event is some twenty objects, and no cycle."""
    gc.freeze()  # what is there by now stays
    gc.set_threshold(*_COLLECTION)


@contextlib.asynccontextmanager
async def _reloading(router: Reloadable, watched: Any) -> AsyncIterator[None]:
    """Reload at SIGHUP, and when a file changes, one reload after the other."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    hangup = getattr(signal, "SIGHUP", None)
    with contextlib.suppress(NotImplementedError):
        if hangup is not None:
            loop.add_signal_handler(hangup, asked.set)
    tasks = [asyncio.create_task(_reload_when(asked, router))]
    if isinstance(watched, str | os.PathLike):
        tasks.append(asyncio.create_task(_watch(watched, asked)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _reload_when(asked: asyncio.Event, router: Reloadable) -> None:
    while True:
        await asked.wait()
        asked.clear()
        try:
            await router.reload()
        except (AnalyticsError, OSError) as error:
            logger.error(  # noqa: TRY400 - the error says what is wrong, a trace would not
                "the new configuration is refused, and the old one goes on:\n%s", error
            )
        except Exception as error:  # noqa: BLE001 - later reloads go on, whatever one met
            logger.error(  # noqa: TRY400 - a trace would show what the file holds
                "the reload has failed, and the old configuration goes on: %s", describe(error)
            )
        else:
            logger.info("the new configuration is in use")


async def _watch(path: str | os.PathLike[str], changed: asyncio.Event) -> None:
    seen = await asyncio.to_thread(_look_of, path)
    while True:
        await asyncio.sleep(_LOOK)
        now = await asyncio.to_thread(_look_of, path)
        if now is not None and now != seen:
            seen = now
            changed.set()


def _look_of(path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    """Return what changes with a file; None while it is not there."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
