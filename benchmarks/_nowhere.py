"""Destinations that show what is the client's own work: one sends nothing, one by a bare socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from _bare import Wire

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


class ByBareSocket(Nowhere):
    """Sends as the control does, and so by the cheapest transport that there can be.

    It blocks the loop, tries nothing again, and reads an answer before the next request only.
    """

    def __init__(self, name: str, url: str) -> None:
        """Connect at once."""
        super().__init__(name)
        self._wire = Wire(url)

    async def deliver(self, batch: Batch) -> Verdict:
        """Send it, and take it for delivered."""
        bodies = [receipt.body for receipt in batch.receipts]  # each without its first brace
        bodies[0] = b"{" + bodies[0]
        self._wire.post(bodies, between=b",{")
        return Delivered()

    async def aclose(self) -> None:
        """See the last answer."""
        self._wire.settle()
