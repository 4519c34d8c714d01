"""Lines of a file or a pipe, for a loop that must not be blocked by either.

Reading happens in a thread of its own, which nobody waits for: a pipe that stays silent cannot
keep the process from ending. At most `MAX_LINE` bytes of a line are held.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from asyncanalytics.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MAX_LINE: Final = 1024 * 1024
"""Bytes of a line; a longer one comes cut to one byte more than this."""
_STDIN: Final = 0
_CHUNK: Final = 64 * 1024
_AHEAD: Final = 4  # chunks that are read before they are needed


def open_input(path: str) -> int:
    """Return what `lines` reads: a file, or standard input for `-`."""
    if path == "-":
        return _STDIN
    try:
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        os.read(file, 0)  # a folder can be opened, and not be read
    except (OSError, ValueError) as error:
        raise _unreadable(error) from None
    return file


async def lines(file: int) -> AsyncIterator[bytes]:
    """Yield the lines of an open file, without their ends, and close it."""
    rest = b""
    async for chunk in _chunks(file):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        rest = rest[: MAX_LINE + 1]
    if rest:
        yield rest


async def _chunks(file: int) -> AsyncIterator[bytes]:
    queue: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    ahead = threading.Semaphore(_AHEAD)
    pump = (file, asyncio.get_running_loop(), queue, ahead)
    threading.Thread(target=_pump, args=pump, daemon=True).start()
    while chunk := await queue.get():
        if isinstance(chunk, OSError):
            raise _unreadable(chunk)
        ahead.release()
        yield chunk


def _pump(
    file: int,
    loop: asyncio.AbstractEventLoop,
    queue: asyncio.Queue[bytes | OSError],
    ahead: threading.Semaphore,
) -> None:
    more = True
    with suppress(RuntimeError):  # the loop has ended: nobody reads on
        while more:
            ahead.acquire()
            chunk = _read(file)
            more = isinstance(chunk, bytes) and bool(chunk)
            loop.call_soon_threadsafe(queue.put_nowait, chunk)
    if file != _STDIN:
        os.close(file)


def _read(file: int) -> bytes | OSError:
    # Not sys.stdin: a thread that is stuck inside of it makes the interpreter abort at its end.
    try:
        return os.read(file, _CHUNK)
    except OSError as error:
        return error


def _unreadable(error: OSError | ValueError) -> Failure:
    reason = error.strerror if isinstance(error, OSError) else "that is no path"
    return Failure(f"cannot read the input: {reason}", Exit.USAGE)
