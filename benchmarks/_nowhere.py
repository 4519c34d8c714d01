"""A destination that takes everything and sends nothing: what is left is the client's own work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncanalytics.destinations import BaseDestination
from asyncanalytics.destinations.base import own_limits
from asyncanalytics.retrying import Delivered, Verdict

if TYPE_CHECKING:
    from asyncanalytics.batching import Batch, Limits
    from asyncanalytics.settings import Batching


class Nowhere(BaseDestination):
    """Takes everything, and sends nothing."""

    def limits(self, batching: Batching) -> Limits:
        """Return those of an endpoint."""
        return own_limits(batching, max_event_bytes=32_000, around=60)

    async def open(self, *_: object) -> None:
        """Nothing to make ready."""

    async def deliver(self, batch: Batch) -> Verdict:  # noqa: ARG002 - all of them
        """Have it, at once."""
        return Delivered()
