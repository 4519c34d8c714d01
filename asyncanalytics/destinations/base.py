"""What every destination has: a name, rules of its own, and one way to be handed a batch."""

from __future__ import annotations

import asyncio
import re
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypedDict, Unpack

from asyncanalytics.aside import Aside
from asyncanalytics.batching import Limits
from asyncanalytics.errors import ConfigurationError
from asyncanalytics.retrying import Delivered, Retry, judge
from asyncanalytics.secret import Unpicklable, stripped

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable

    from asyncanalytics.batching import Batch
    from asyncanalytics.middleware import Middleware
    from asyncanalytics.retrying import Verdict
    from asyncanalytics.settings import Batching, Queueing, Retrying, Sending
    from asyncanalytics.transport import Answer, Transport

_MOMENT = 0.5  # seconds for what is being written at a close
_DISK = 5.0  # seconds for a disk that is making it final
WRITE_GRACE = _MOMENT + _DISK + 0.5
CALLED_OFF = "it was called off"
_TABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


Write: TypeAlias = "Callable[[Batch, Callable[[], bool]], str | None]"
"""Writes a batch in a thread, and returns what went wrong. At the last moment it asks whether to go
on; if not, it leaves nothing behind. From then on it cannot be called off."""


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


class _Write:
    """One batch on its way into a file, which can be called off until it begins to be there.

    `final` decides which of the two came first, and later has what went wrong, or None.
    """

    def __init__(self, write: Write, batch: Batch) -> None:
        self._write = write
        self._batch = batch
        self._has_begun = False
        self.final: Future[str | None] = Future()

    def __call__(self) -> str | None:
        """Do it, in a thread."""
        self._has_begun = True
        problem: str | None = "its code raised"
        try:
            problem = self._write(self._batch, self.final.set_running_or_notify_cancel)
        finally:
            with suppress(InvalidStateError):  # called off
                self.final.set_result(problem)
        return problem

    async def is_there(self) -> bool:
        """Give it a moment, call it off, or, where it is too late for that, see how it ends."""
        if self._has_begun:
            await self._ended(_MOMENT)
        if self.final.cancel():
            return False
        await self._ended(_DISK)
        return self.final.done() and self.final.result() is None

    async def _ended(self, seconds: float) -> None:
        """Wait for the end, however often that is cancelled: it is bounded, and counts."""
        ended = asyncio.wrap_future(self.final)
        now = asyncio.get_running_loop().time
        until = now() + seconds
        while not ended.done() and now() < until:
            with suppress(asyncio.CancelledError):  # the first one is raised in the end
                await asyncio.wait([ended], timeout=until - now())


async def written(aside: Aside, write: Write, batch: Batch) -> Verdict:
    """Have a batch written beside the loop.

    At a close what is being written has a moment, and what waits for its turn has none. It counts
    by what really happened, unless the disk hangs at the very end: then it may be there after all.
    """
    writing = _Write(write, batch)
    try:
        problem = await aside.run(writing)
    except asyncio.CancelledError:
        if not await writing.is_there():
            raise
        problem = None
    return Delivered() if problem is None else Retry(problem)


class BaseDestination(ABC):
    """One place that calls go to, with a buffer and a flusher of its own.

    A destination belongs to one client at a time.
    """

    refuses: frozenset[str] = frozenset()
    """Kinds of calls that it does not take."""
    grace: float = 1.0
    """Seconds that a delivery has to end when the close cancels it."""

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


class PostingDestination(BaseDestination, Unpicklable):
    """An HTTP server. No error shows what was to be sent to it."""

    async def open(self, transport: Transport, sending: Sending, retrying: Retrying) -> None:  # noqa: ARG002 - of use to some
        """Use the client's pool."""
        self._transport = transport
        self._max_retry_after = retrying.max_retry_after

    async def deliver(self, batch: Batch) -> Verdict:
        """Post a batch as of now, and judge the answer."""
        try:
            return await self._deliver(batch)
        except BaseException as error:  # noqa: BLE001 - raised below, without what was to be sent
            held = [error]
        raise stripped(held)

    @abstractmethod
    async def _deliver(self, batch: Batch) -> Verdict:
        """Post a batch, and judge the answer."""

    def _judged(self, batch: Batch, answer: Answer) -> Verdict:
        return judge(
            answer.status,
            answer.headers,
            answer.body,
            batch=batch.receipts,
            now=time.time(),
            max_retry_after=self._max_retry_after,
        )


class TableDestination(BaseDestination):
    """A table in a file of this machine, filled in a thread; what cannot be written is retried."""

    kind: str
    grace = WRITE_GRACE

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
    def _insert(self, batch: Batch, may_commit: Callable[[], bool]) -> str | None:
        """Insert a batch, or say why not: an error would take the events along in its frames."""
