"""What a caller holds after a call: the receipt, and in time its outcome.

A receipt is the queue's own entry, so keeping one costs nothing extra. Each is settled exactly
once, with one outcome, and an outcome is shared by all the calls that met it together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from asyncanalytics.secret import Unpicklable


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a call ended at one destination."""

    kind: Literal["delivered", "rejected", "dropped", "kept"]
    """`kept`: the client closed first; the call is in the spool, for the next start."""
    destination: str
    """The destination's name."""
    reason: str = ""
    """Empty when delivered, `rejected`, or one of `DropReason`."""
    status: int | None = None
    """The last HTTP status, where there was one."""
    attempts: int = 0
    """Requests that carried the call; 0 when it never left."""
    detail: str = field(default="", repr=False)
    """What the endpoint said, cut to 200 characters. It may quote the call: do not log it."""

    @property
    def delivered(self) -> bool:
        """Whether the endpoint has the call."""
        return self.kind == "delivered"


class Receipt(Unpicklable):
    """One accepted call. `message_id` is the id it has on the wire."""

    __slots__ = ("__weakref__", "_waiter", "body", "call", "message_id", "number", "outcome")

    def __init__(self, call: str, message_id: str, body: bytes) -> None:
        """Made by the client; `body` is the encoded call without its opening brace."""
        self.call: str = call
        self.message_id: str = message_id
        self.body: bytes = body
        self.number: int = 0  # of its row in the spool, if it has one
        self.outcome: Outcome | None = None
        """None while the call is pending."""
        self._waiter: asyncio.Event | None = None

    async def settled(self) -> Outcome:
        """Wait until the call has ended, and return how.

        Several tasks may wait. Cancelling one of them leaves the call and the others alone.
        """
        if self.outcome is None:
            if self._waiter is None:
                self._waiter = asyncio.Event()
            await self._waiter.wait()
        assert self.outcome is not None  # noqa: S101 - settle() sets it before it wakes anyone
        return self.outcome

    def settle(self, outcome: Outcome) -> None:
        """Book the outcome and wake who waits. Called once, by the engine."""
        self.outcome = outcome
        self.body = b""  # a kept receipt does not keep the payload
        if self._waiter is not None:
            self._waiter.set()

    def __repr__(self) -> str:
        """Name the call and where it stands, never what it carries."""
        state = self.outcome.kind if self.outcome else "pending"
        return f"<Receipt {self.call} {self.message_id} {state}>"


class FanOut(Receipt):
    """The receipt of a call that went to several destinations: one part for each."""

    __slots__ = ("parts",)

    def __init__(self, call: str, message_id: str, parts: Sequence[Receipt]) -> None:
        """Made by the client when a call has more than one destination, or none."""
        self.call = call
        self.message_id = message_id
        self.body = b""
        self.parts: tuple[Receipt, ...] = tuple(parts)

    @property
    def outcome(self) -> Outcome | None:  # type: ignore[override]
        """The first outcome that is not `delivered`, or the last; None while a part is pending."""
        outcomes = [part.outcome for part in self.parts if part.outcome is not None]
        if len(outcomes) < len(self.parts):
            return None
        return next((each for each in outcomes if not each.delivered), outcomes[-1])

    async def settled(self) -> Outcome:
        """Wait until every part has ended, and return `outcome`."""
        outcomes = [await part.settled() for part in self.parts]
        return self.outcome or outcomes[-1]


SettleHook = Callable[[Outcome, Sequence[Receipt]], Awaitable[None] | None]
"""Called with an outcome and the receipts of the calls that ended so together."""
