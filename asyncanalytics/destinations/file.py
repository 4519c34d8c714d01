"""A JSON-lines file: one call a line, appended and written through in a thread.

For audits, for replays, and for development without an endpoint. A batch is delivered when the
operating system has it; a disk that is full or gone is tried again like a server that is down.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from asyncanalytics.aside import Aside
from asyncanalytics.destinations.base import (
    CALLED_OFF,
    WRITE_GRACE,
    BaseDestination,
    Rules,
    own_limits,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncanalytics.batching import Batch, Limits
    from asyncanalytics.retrying import Verdict
    from asyncanalytics.settings import Batching, Retrying, Sending
    from asyncanalytics.transport import Transport

_MAX_LINE = 1024 * 1024
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)


class FileDestination(BaseDestination):
    """Appends calls to a file, one JSON object a line. A new file is readable by its owner only."""

    grace = WRITE_GRACE

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str = "file",
        **rules: Unpack[Rules],
    ) -> None:
        """Name the file; its folder must exist by the time of the first call."""
        super().__init__(name, **rules)
        self._path = Path(path)
        # One append at a time: undoing a torn one must not cut off another that came after it.
        self._appending = Aside()

    def release(self) -> None:
        """Let another client have it; in a forked child, whatever the parent is doing."""
        super().release()
        self._appending = Aside()

    def limits(self, batching: Batching) -> Limits:
        """Return the user's limits; a line may have a mebibyte, if a batch may."""
        return own_limits(batching, max_event_bytes=_MAX_LINE)

    async def open(self, transport: Transport, sending: Sending, retrying: Retrying) -> None:
        """Nothing to make ready: the file is opened for each batch."""

    async def deliver(self, batch: Batch) -> Verdict:
        """Append a batch."""
        return await written(self._appending, self._append, batch)

    def _append(self, batch: Batch, may_write: Callable[[], bool]) -> str | None:
        lines = b"".join(b"{" + receipt.body + b"\n" for receipt in batch.receipts)
        problem = append(self._path, lines, may_write)
        return problem and f"cannot write: {problem}"


def append(path: Path, lines: bytes, may_write: Callable[[], bool] = lambda: True) -> str | None:
    """Append lines to a file, or say why not: an error would take the lines along in its frames."""
    try:
        with _opened(path) as file:
            if not may_write():
                return CALLED_OFF
            _write_whole(file, lines)
    except OSError as error:
        return os.strerror(error.errno or 0)
    return None


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, _APPEND, 0o600)
    try:
        yield file
    finally:
        os.close(file)


def _write_whole(file: int, lines: bytes) -> None:
    """Write all, or as far as can be told nothing: a retry writes the whole batch again."""
    start = os.fstat(file).st_size
    written = 0
    try:
        while written < len(lines):
            written += os.write(file, lines[written:])
    except OSError:
        # Not where another process has appended meanwhile, nor where nothing can be cut.
        if written and os.fstat(file).st_size == start + written:
            with suppress(OSError):
                os.ftruncate(file, start)
        raise
