"""The terminal, or any text stream: for seeing in development what would be sent."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO, Unpack

from asyncanalytics.destinations.base import BaseDestination, Rules, own_limits
from asyncanalytics.retrying import Delivered, Retry, Verdict

if TYPE_CHECKING:
    from asyncanalytics.batching import Batch, Limits
    from asyncanalytics.settings import Batching, Retrying, Sending
    from asyncanalytics.transport import Transport


class ConsoleDestination(BaseDestination):
    """Writes calls to a stream, one JSON object a line. Whole payloads: not for production."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        name: str = "console",
        **rules: Unpack[Rules],
    ) -> None:
        """Take the stream; standard error, as it is at the time, unless given."""
        super().__init__(name, **rules)
        self._stream = stream

    def limits(self, batching: Batching) -> Limits:
        """Return the user's limits."""
        return own_limits(batching)

    async def open(self, transport: Transport, sending: Sending, retrying: Retrying) -> None:
        """Nothing to make ready."""

    async def deliver(self, batch: Batch) -> Verdict:
        """Print a batch."""
        text = "".join(f"{{{receipt.body.decode()}\n" for receipt in batch.receipts)
        stream = sys.stderr if self._stream is None else self._stream
        try:
            _write(stream, text)
            stream.flush()
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            return Retry(type(error).__name__)
        return Delivered()


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:
        stream.write(_ascii(text))


def _ascii(lines: str) -> str:
    """Escape what an old terminal cannot show, as JSON does; all of it is within strings."""
    units = lines.encode("utf-16-be")
    codes = [units[i] << 8 | units[i + 1] for i in range(0, len(units), 2)]
    return "".join(chr(code) if code < 0x80 else f"\\u{code:04x}" for code in codes)
