"""What fits in a request, when a request is due, and how a batch is cut. Rules only: no clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

    from asyncanalytics.receipts import Receipt


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """One destination's limits, after its endpoint's and the user's."""

    max_events: int
    max_bytes: int
    """Of one request's JSON, `envelope` included."""
    max_event_bytes: int
    """Of one event's JSON."""
    envelope: int
    """Bytes around the events of a request."""
    per_event: int
    """Bytes that each event takes in a request beyond those kept for it: `,{` at least."""

    def event_size(self, body: bytes) -> int:
        """Return what an encoded call weighs against `max_event_bytes`."""
        return len(body) + self.per_event - 1

    @property
    def max_body(self) -> int:
        """Bytes of the longest encoded call that can be sent at all."""
        alone = self.max_bytes - self.envelope - 1
        return min(self.max_event_bytes, alone) - self.per_event + 1

    def lowered(self, size: int) -> Limits:
        """Return the limits after a request of `size` bytes was too large for the endpoint."""
        least = self.envelope + self.max_event_bytes + 1
        return replace(self, max_bytes=min(self.max_bytes, max(least, size // 2)))


@dataclass(slots=True)
class Batch:
    """The calls of one request, in order."""

    first: int
    """The number of the first call of the batch as it was taken from its buffer."""
    receipts: Sequence[Receipt]
    attempts: int = 0
    """Requests that have carried these calls."""
    retries: int = 0
    """How often just this batch has been tried again."""
    since: float | None = None
    """The moment of the loop's clock at which the first of those requests began."""

    def halves(self) -> tuple[Batch, Batch]:
        """Cut a batch of two or more in two, in order."""
        middle = len(self.receipts) // 2
        left, right = self.receipts[:middle], self.receipts[middle:]
        return replace(self, receipts=left, retries=0), replace(self, receipts=right, retries=0)


def fill(limits: Limits, waiting: deque[Receipt]) -> tuple[list[Receipt], int]:
    """Take from the left what one request holds; return it, and the bytes of the bodies.

    The first always goes in: whatever was accepted fits alone. A batch is never over a limit.
    """
    batch: list[Receipt] = []
    room = most = limits.max_bytes - limits.envelope
    per_event, max_events = limits.per_event, limits.max_events
    while waiting and len(batch) < max_events:
        left = room - len(waiting[0].body) - per_event
        if left < 0 and batch:
            break
        batch.append(waiting.popleft())
        room = left
    return batch, most - room - per_event * len(batch)


def due_in(now: float, last_sent: float, linger: float) -> float:
    """Return the seconds to wait before a request that is not full may go.

    After a quiet time of `linger` it goes at once. In between, what follows the last request
    gathers until `linger` has passed: at most one small request for each `linger`.
    """
    return max(0.0, last_sent + linger - now)
