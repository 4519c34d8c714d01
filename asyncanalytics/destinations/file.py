"""A JSON-lines file: one call a line, appended and written through in a thread.

For audits, for replays, and for development without an endpoint. A batch is delivered when the
operating system has it; a disk that is full or gone is tried again like a server that is down.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import anyio.to_thread

from asyncanalytics.batching import Batch, Limits
from asyncanalytics.destinations.base import BaseDestination, Rules
from asyncanalytics.retrying import Delivered, Retry, Verdict

if TYPE_CHECKING:
    from asyncanalytics.settings import Batching, Retrying, Sending
    from asyncanalytics.transport import Transport

_MAX_LINE = 1024 * 1024


class FileDestination(BaseDestination):
    """Appends calls to a file, one JSON object a line. A new file is readable by its owner only."""

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

    def limits(self, batching: Batching) -> Limits:
        """Return the user's limits; a line may have a mebibyte, if a batch may."""
        largest = min(_MAX_LINE, batching.max_bytes - 1)
        return Limits(
            max_events=batching.max_events,
            max_bytes=batching.max_bytes,
            max_event_bytes=largest,
            envelope=0,
            per_event=2,
        )

    async def open(self, transport: Transport, sending: Sending, retrying: Retrying) -> None:
        """Nothing to make ready: the file is opened for each batch."""

    async def deliver(self, batch: Batch) -> Verdict:
        """Append a batch."""
        lines = b"".join(b"{" + receipt.body + b"\n" for receipt in batch.receipts)
        try:
            await anyio.to_thread.run_sync(self._append, lines)
        except OSError as error:
            return Retry(f"cannot write: {os.strerror(error.errno or 0)}")
        return Delivered()

    def _append(self, lines: bytes) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            start = os.fstat(file).st_size
            written = 0
            try:
                while written < len(lines):
                    written += os.write(file, lines[written:])
            except OSError:
                os.truncate(file, start)  # a retry writes the whole batch again
                raise
        finally:
            os.close(file)
