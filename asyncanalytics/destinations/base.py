"""What every destination has: a name, rules of its own, and one way to be handed a batch."""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from asyncanalytics.aside import Aside
from asyncanalytics.batching import Limits
from asyncanalytics.errors import ConfigurationError
from asyncanalytics.retrying import Delivered, Retry

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from asyncanalytics.batching import Batch
    from asyncanalytics.middleware import Middleware
    from asyncanalytics.retrying import Verdict
    from asyncanalytics.settings import Batching, Queueing, Retrying, Sending
    from asyncanalytics.transport import Transport

_MOMENT = 0.5  # seconds: less than the engine waits for what it has cancelled
_TABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Rules(TypedDict, total=False):
    """What may be chosen for one destination; what is left out is the client's."""

    middleware: Iterable[Middleware]
    """Runs for this destination only, after the client's own."""
    batching: Batching | None
    queueing: Queueing | None
    retrying: Retrying | None


def own_limits(
    batching: Batching, *, max_event_bytes: int | None = None, around: int = 0
) -> Limits:
    """Return the user's limits, for a place that has none of its own.

    An event may be as large as a batch, or `max_event_bytes`; `around` is what stands around all.
    """
    largest = batching.max_bytes - around - 1
    return Limits(
        max_events=batching.max_events,
        max_bytes=batching.max_bytes,
        max_event_bytes=largest if max_event_bytes is None else min(max_event_bytes, largest),
        envelope=around,
        per_event=2,
    )


async def written(aside: Aside, write: Callable[[Batch], str | None], batch: Batch) -> Verdict:
    """Have a batch written beside the loop; `write` returns what went wrong.

    At a close what is being written has a moment: it would be there, and counted as if it were not.
    """
    writing = asyncio.ensure_future(aside.run(write, batch))
    try:
        problem = await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait([writing], timeout=_MOMENT)
        if writing.cancel() or writing.cancelled() or writing.exception() or writing.result():
            raise
        problem = None
    return Delivered() if problem is None else Retry(problem)


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


class TableDestination(BaseDestination):
    """A table in a file of this machine, filled in a thread; what cannot be written is retried."""

    kind: str

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        table: str = "events",
        name: str | None = None,
        **rules: Unpack[Rules],
    ) -> None:
        """Name the file, and the table in it: letters, digits and underscores."""
        super().__init__(self.kind if name is None else name, **rules)
        if not _TABLE_NAME.fullmatch(table):
            raise ConfigurationError(
                f"destination {self.name!r}: a table's name is letters, digits and underscores"
            )
        self._path = Path(path)
        self._table = table
        self._inserting = Aside()  # one insert at a time: they would only wait inside

    def release(self) -> None:
        """Let another client have it; in a forked child, whatever the parent is doing."""
        super().release()
        self._inserting = Aside()

    def limits(self, batching: Batching) -> Limits:
        """Return the user's limits."""
        return own_limits(batching)

    async def open(self, transport: Transport, sending: Sending, retrying: Retrying) -> None:
        """Nothing to make ready: the file is opened for each batch."""

    async def deliver(self, batch: Batch) -> Verdict:
        """Insert a batch."""
        return await written(self._inserting, self._insert, batch)

    @abstractmethod
    def _insert(self, batch: Batch) -> str | None:
        """Insert a batch, or say why not: an error would take the events along in its frames."""
