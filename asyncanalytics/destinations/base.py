"""What every destination has: a name, rules of its own, and one way to be handed a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypedDict, Unpack

from asyncanalytics.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncanalytics.batching import Batch, Limits
    from asyncanalytics.middleware import Middleware
    from asyncanalytics.retrying import Verdict
    from asyncanalytics.settings import Batching, Queueing, Retrying, Sending
    from asyncanalytics.transport import Transport


class Rules(TypedDict, total=False):
    """What may be chosen for one destination; what is left out is the client's."""

    middleware: Iterable[Middleware]
    """Runs for this destination only, after the client's own."""
    batching: Batching | None
    queueing: Queueing | None
    retrying: Retrying | None


class BaseDestination(ABC):
    """One place that calls go to, with a buffer and a flusher of its own.

    A destination belongs to one client at a time.
    """

    refuses: frozenset[str] = frozenset()
    """Kinds of calls that it does not take."""

    def __init__(self, name: str, **rules: Unpack[Rules]) -> None:
        """Name it as `integrations` and stats will name it."""
        if not name or name == "All":
            raise ConfigurationError("a destination's name must be text other than 'All'")
        self.name = name
        self.middleware: tuple[Middleware, ...] = tuple(rules.get("middleware", ()))
        self.batching: Batching | None = rules.get("batching")
        self.queueing: Queueing | None = rules.get("queueing")
        self.retrying: Retrying | None = rules.get("retrying")
        self._owner: object = None

    def claim(self, owner: object) -> None:
        """Take the destination for one client, or say that another has it."""
        if self._owner is not None:
            raise ConfigurationError(
                f"destination {self.name!r} is in use by another client: make one for each client"
            )
        self._owner = owner

    def release(self) -> None:
        """Let another client have it."""
        self._owner = None

    @abstractmethod
    def limits(self, batching: Batching) -> Limits:
        """Return the limits under the user's settings."""

    @abstractmethod
    async def open(self, transport: Transport, sending: Sending, retrying: Retrying) -> None:
        """Get ready. Called once, at the client's start."""

    @abstractmethod
    async def deliver(self, batch: Batch) -> Verdict:
        """Try once to hand over a batch, and say how that went."""

    async def aclose(self) -> None:  # noqa: B027 - most have nothing to close
        """Let go of what `open` took."""

    def __repr__(self) -> str:
        """Name the destination; a key never shows."""
        name = getattr(self, "name", "")  # a constructor that fails is shown in tracebacks
        return f"<{type(self).__name__} {name!r}>"
