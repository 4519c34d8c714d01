"""A destination that takes everything and sends nothing: what is left is the client's own work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncanalytics.batching import Batch, Limits
from asyncanalytics.destinations import BaseDestination
from asyncanalytics.retrying import Delivered, Verdict

if TYPE_CHECKING:
    from asyncanalytics.settings import Batching


class Nowhere(BaseDestination):
    """Takes everything, and sends nothing."""

    def limits(self, batching: Batching) -> Limits:
        """Return those of an endpoint."""
        return Limits(
            max_events=batching.max_events,
            max_bytes=batching.max_bytes,
            max_event_bytes=32_000,
            envelope=60,
            per_event=2,
        )

    async def open(self, *_: object) -> None:
        """Nothing to make ready."""

    async def deliver(self, batch: Batch) -> Verdict:  # noqa: ARG002 - all of them
        """Have it, at once."""
        return Delivered()
