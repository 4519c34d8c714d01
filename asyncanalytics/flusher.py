"""The engine: one flusher for each destination takes calls, batches, sends and settles them.

Invariants:
- Every accepted call is settled exactly once, with a named outcome.
- At most `max_in_flight` batches are out of the buffer, and after a failure one request at a time
  goes out until one succeeds; then two, four, and so on.
- Requests run in tasks that the flusher owns: cancelling a caller cancels none of them.
- Nothing that an endpoint answers, and nothing that a user's hook or destination raises, ends it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from asyncanalytics.batching import Batch, due_in
from asyncanalytics.buffers import MemoryBuffer
from asyncanalytics.errors import QueueFull, describe
from asyncanalytics.pace import Pace
from asyncanalytics.receipts import Outcome, Receipt, SettleHook
from asyncanalytics.retrying import Delivered, Halt, Rejected, Retry, Split, Verdict, backoff
from asyncanalytics.stats import DestinationStats, Ledger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Sequence

    from asyncanalytics.breath import Breath
    from asyncanalytics.buffers import Buffer
    from asyncanalytics.destinations import BaseDestination
    from asyncanalytics.journal import Journal
    from asyncanalytics.settings import Batching, Queueing, Retrying
    from asyncanalytics.stats import DropReason

logger: logging.Logger = logging.getLogger("asyncanalytics")

_INTENDED = frozenset(
    {"middleware", "filtered", "no_consent", "disabled", "opted_out"}
)  # drops that were asked for: not logged
_OUTAGE = frozenset({"retry", "halt", "expired"})  # trouble that a delivery ends
_QUIET = 60.0  # seconds after which other trouble is a new one
_REVIVAL = 0.1  # seconds: longer than a loop takes to end, so that nothing is started in one
_GRACE = 1.0  # seconds for last hooks to end


class Flusher:
    """Carries the calls of one destination from its buffer to their outcomes."""

    def __init__(
        self,
        destination: BaseDestination,
        *,
        batching: Batching,
        queueing: Queueing,
        retrying: Retrying,
        max_in_flight: int,
        on_settle: SettleHook | None,
        breath: Breath,
        journal: Journal | None = None,
    ) -> None:
        """Make the buffer; nothing runs before `start`. With a journal it stands on a disk."""
        self.destination = destination
        self.name: str = destination.name
        self.batching: Batching = destination.batching or batching
        self.queueing: Queueing = destination.queueing or queueing
        self.retrying: Retrying = destination.retrying or retrying
        self.ledger: Ledger = Ledger()
        self._makes_room = self.queueing.when_full in ("drop_newest", "drop_oldest")
        self._max_in_flight = max_in_flight
        self._on_settle = on_settle
        self._journal = journal
        self._breath = breath
        self._renew()

    def _renew(self) -> None:
        """Make what belongs to one start; the ledger outlives it."""
        self.buffer: Buffer = self._new_buffer()
        self.hooks: set[asyncio.Future[None]] = set()
        """Async hooks that are running."""
        self._pace = Pace(self._max_in_flight)
        self._sends: dict[asyncio.Task[None], Batch] = {}
        self._orphans: list[Batch] = []  # what is left of sends that others cancelled
        self._last_sent = float("-inf")
        self._halted: tuple[float, Outcome] | None = None  # until when, and what ends calls so
        self._trouble: dict[str, float] = {}  # kind → when it last came up, or was said
        self._outage_since: float | None = None
        self._running: asyncio.Task[None] | None = None
        self._last_success = float("-inf")
        self._is_stopping = False

    def _new_buffer(self) -> Buffer:
        limits = self.destination.limits(self.batching)
        if self._journal is None:
            return MemoryBuffer(self.queueing, limits)
        from asyncanalytics.buffers.spool import SpoolBuffer

        return SpoolBuffer(
            self.name,
            self.queueing,
            limits,
            self._journal,
            found=self._found,
            lost=self._lost,
            doubled=lambda receipt: self._drop([receipt], "duplicate"),
        )

    @property
    def is_busy(self) -> bool:
        """Whether calls are pending or hooks run."""
        return bool(self.buffer.pending or self.hooks)

    # ---------------------------------------------------------------------------------- taking in

    def refusal(self, call: str, body: bytes) -> DropReason | None:
        """Say why an encoded call cannot go here, if so."""
        if call in self.destination.refuses:
            return "unsupported"
        return None if len(body) <= self.buffer.largest else "too_large"

    def has_room(self, size: int) -> bool:
        """Whether a call can be accepted now, with nobody who waits passed over."""
        return self._makes_room or self.buffer.has_room(size)

    def fits(self, size: int) -> bool:
        """Whether a call can be accepted now, for one that has waited its turn."""
        return self._makes_room or self.buffer.fits(size)

    def has_room_for(self, size: int, events: int) -> bool:
        """Whether so many calls can be accepted now, with nobody who waits passed over."""
        return self._makes_room or self.buffer.has_room_for(size, events)

    def fits_all(self, size: int, events: int) -> bool:
        """Whether so many calls can be accepted now, for those that have waited their turn."""
        return self._makes_room or self.buffer.fits_all(size, events)

    async def room(self, size: int, since: float, events: int = 1) -> None:
        """Wait for room for so many calls as the policy says, or raise `QueueFull`.

        `since` is the moment of the loop's clock from which `max_wait` counts.
        """
        if self.queueing.when_full == "raise":
            raise self.queue_full()
        if (quota := self._spool_bytes()) is not None and not self.buffer.has_room(size):
            text = (
                "calls wait for room in the spool (%d bytes): raise the max_bytes of Spooling, or "
                "purge dead letters (asyncanalytics spool purge)"
            )
            self._say("spool_wait", logging.ERROR, text, quota)
        try:
            most = self.queueing.max_wait
            async with asyncio.timeout_at(None if most is None else since + most):
                await self.buffer.room(size, events)
        except TimeoutError:
            raise self.queue_full() from None

    def hold(self, size: int, events: int) -> None:
        """Keep room for so many calls, or, below 0, keep it no more."""
        if not self._makes_room:
            self.buffer.hold(size, events)

    def queue_full(self) -> QueueFull:
        """Return the error that names this queue and its limits."""
        queueing = self.queueing
        return QueueFull(
            self.name,
            max_events=queueing.max_events,
            max_bytes=queueing.max_bytes,
            spool_bytes=self._spool_bytes(),
        )

    def _spool_bytes(self) -> int | None:
        """Return the quota, if that is what bounds the queue at the moment."""
        journal = self._journal
        if journal is None or journal.is_failing or journal.has_room(self.buffer.largest):
            return None
        return journal.spooling.max_bytes

    def offer(self, receipt: Receipt) -> bool:
        """Take a call in if that asks nothing: it can be sent, and there is room for it."""
        if not self.buffer.takes(len(receipt.body)):
            return False
        self.ledger.accepted += 1
        self.buffer.put(receipt)
        return True

    def has_room_behind(self, events: int, waiting: int, size: int) -> bool:
        """Whether a call of `size` bytes goes in straight, behind others that are on their way."""
        return size <= self.buffer.largest and self.buffer.has_room(waiting + size, events)

    def take_in(self, receipts: Sequence[Receipt]) -> None:
        """Take calls in for which there was room when they came."""
        self.ledger.accepted += len(receipts)
        self.buffer.put_all(receipts)

    def accept(self, receipt: Receipt) -> None:
        """Take a call in. One that finds no room meets the policy, and is counted."""
        while self._makes_room and not self.buffer.fits(len(receipt.body)):
            full: DropReason = "queue_full" if self._spool_bytes() is None else "spool_full"
            oldest = self.queueing.when_full == "drop_oldest"
            victim = self.buffer.evict() if oldest else None
            if victim is None:
                self.refuse([receipt], full)
                return
            self._drop([victim], full)
        self.ledger.accepted += 1
        self.buffer.put(receipt)

    def accept_all(self, receipts: Sequence[Receipt]) -> None:
        """Take calls in together for which there is room, or which meet the policy."""
        if not self._makes_room:
            self.take_in(receipts)
            return
        for receipt in receipts:
            self.accept(receipt)

    def refuse(self, receipts: Sequence[Receipt], reason: DropReason) -> None:
        """Count calls that this destination will not get."""
        self.ledger.accepted += len(receipts)
        self._drop(receipts, reason)

    # -------------------------------------------------------------------------------------- life

    def prepare(self) -> None:
        """Get ready to start, again after a stop. What was left to the spool is its own now."""
        self._clock = asyncio.get_running_loop().time
        # Also after a start that failed: what it had found is found again.
        self.ledger.accepted -= self.buffer.pending
        self.ledger.recovered -= 0 if self._is_stopping else self.buffer.pending
        self._renew()

    def start(self) -> None:
        """Begin to send, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._revive()

    async def drain(self, *, hooks: bool) -> None:
        """Send without lingering until all that was put so far, and their hooks, have ended."""
        await self.buffer.flushed()
        if hooks and self.hooks:
            await asyncio.wait(set(self.hooks))

    async def stop(self) -> None:
        """Stop now: what is still pending stays in the spool, or is dropped as `closed`."""
        self._is_stopping = True
        tasks = [*self._sends, *filter(None, [self._running])]
        await _cancel(tasks, self.destination.grace)
        await self.buffer.prepare_to_stop()
        for batch in [*self._sends.values(), *self._orphans]:
            left = [receipt for receipt in batch.receipts if receipt.outcome is None]
            await self._leave(replace(batch, receipts=left))
        while (last := self.buffer.take()) is not None:
            await self._leave(last)
        for receipt in self.buffer.absent():
            receipt.settle(self._kept())
        self.buffer.end_flushes()
        if self.hooks:
            await asyncio.wait(self.hooks, timeout=_GRACE)
            await _cancel(self.hooks, _GRACE)

    async def _leave(self, batch: Batch) -> None:
        """End a batch with the client's own end."""
        lost = await self.buffer.leave(batch.first, batch.receipts) if batch.receipts else ()
        self._settle(batch, lost, self._dropped("closed", attempts=batch.attempts))
        for receipt in batch.receipts:
            if receipt.outcome is None:
                receipt.settle(self._kept(attempts=batch.attempts))

    def _kept(self, attempts: int = 0) -> Outcome:
        return Outcome(kind="kept", destination=self.name, reason="closed", attempts=attempts)

    def _found(self, count: int) -> None:
        """Take in calls that another process, or an earlier life, has left on disk."""
        self.ledger.accepted += count
        self.ledger.recovered += count

    def _lost(self, count: int, receipts: Sequence[Receipt]) -> None:
        """Book calls that were on disk and are damaged; the callers of some may be known."""
        text = "dropped %d events: their rows in the spool were damaged"
        self._say("spool_corrupt", logging.ERROR, text, count)
        outcome = self._dropped("spool_corrupt")
        self.ledger.settle(outcome, count - len(receipts))
        if receipts:
            self._book(receipts, outcome)

    def stats(self) -> DestinationStats:
        """Return the figures as they are now."""
        ledger, buffer = self.ledger, self.buffer
        return DestinationStats(
            name=self.name,
            accepted=ledger.accepted,
            delivered=ledger.delivered,
            rejected=ledger.rejected_by.total(),
            dropped=ledger.dropped_by.total(),
            pending=buffer.pending,
            pending_bytes=buffer.pending_bytes,
            rejected_by=dict(ledger.rejected_by),
            dropped_by=dict(ledger.dropped_by),
            requests=ledger.requests,
            retries=ledger.retries,
            hook_errors=ledger.hook_errors,
            recovered=ledger.recovered,
        )

    # --------------------------------------------------------------------------------- its tasks

    def _revive(self) -> None:
        """Run, and send again what a cancelled task left."""
        if self._is_stopping:
            return
        if self._running is None or self._running.done():
            name = f"asyncanalytics flusher {self.name}"
            self._running = self._loop.create_task(self._run(), name=name)
            self._running.add_done_callback(self._ended)
        while self._orphans:
            self._send(self._orphans.pop())

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Book the end of a task.

        Only `stop` ends one before its time. Where others cancel all the loop's tasks, what was
        theirs goes on a little later, if the loop still runs by then.
        """
        batch = self._sends.pop(task, None)
        left = [] if batch is None else [each for each in batch.receipts if each.outcome is None]
        crash = None if task.cancelled() else task.exception()
        if crash is not None:
            self._say("crash", logging.ERROR, "its task raised %s", describe(crash))
        if batch is not None and left and crash is not None:
            # Not sent again: what raised once would raise each time.
            self._settle(batch, left, self._dropped("expired", attempts=batch.attempts))
        elif batch is not None and left:
            self._orphans.append(replace(batch, receipts=left))
        if (self._orphans or batch is None) and not self._is_stopping:
            self._loop.call_later(_REVIVAL, self._revive)

    # ------------------------------------------------------------------------------- one batch on

    async def _run(self) -> None:
        while True:
            await self.buffer.wait()
            await self._linger()
            while len(self._sends) >= self._max_in_flight:
                await asyncio.wait(self._sends, return_when=asyncio.FIRST_COMPLETED)
            batch = self.buffer.take()
            if batch is None:
                continue  # dropped meanwhile, to make room
            self._breath.ask(self._loop)
            if self._halted and self._clock() < self._halted[0]:
                self._settle(batch, batch.receipts, self._halted[1])
                await asyncio.sleep(0)
            else:
                self._send(batch)

    async def _linger(self) -> None:
        delay = due_in(self._clock(), self._last_sent, self.batching.linger)
        if delay and not self.buffer.ready.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self.buffer.ready.wait()

    def _send(self, batch: Batch) -> None:
        self._last_sent = self._clock()
        task = asyncio.create_task(self._deliver(batch), name=f"asyncanalytics send {self.name}")
        self._sends[task] = batch
        task.add_done_callback(self._ended)

    async def _deliver(self, batch: Batch) -> None:
        failures = held_against = 0
        failed_at = self._clock() if batch.since is None else batch.since
        if batch.since is None:
            batch.since = self._clock()
        while isinstance(verdict := self._patiently(await self._attempt(batch)), Retry):
            if verdict.after is None and not _is_hiccup(verdict, batch):
                failures += 1
                # With a spool only those count that others have got through between.
                held_against += not self.buffer.keeps or self._last_success > failed_at
                failed_at = self._clock()
            delay = self._delay(verdict, batch, failures)
            if self._is_over(batch, held_against, delay):
                break
            if verdict.after is not None:
                self._pace.pause_until(self._clock() + delay)
            batch.retries += 1
            await asyncio.sleep(delay)
        if isinstance(verdict, Split) and len(batch.receipts) > 1:
            await self._deliver_halves(batch, verdict)
        else:
            self._conclude(batch, verdict)

    def _patiently(self, verdict: Verdict) -> Verdict:
        """With a spool, wait for a refused key to be put right instead of refusing the events."""
        if not (isinstance(verdict, Halt) and self.buffer.keeps):
            return verdict
        text = "%s; events are kept in the spool, and it is tried again every %g s"
        self._say("halt", logging.ERROR, text, _problem(verdict), self.retrying.cap)
        return Retry("the key is refused", status=verdict.status, after=self.retrying.cap)

    def _is_over(self, batch: Batch, failures: int, delay: float) -> bool:
        """Whether a batch has been tried often and long enough."""
        assert batch.since is not None  # noqa: S101 - set at its first attempt
        has_tried = failures > self.retrying.max_attempts
        if self.buffer.keeps:  # nothing is given up in an outage
            return has_tried and self._last_success > batch.since
        return has_tried or self._clock() + delay - batch.since > self.retrying.max_elapsed

    async def _deliver_halves(self, batch: Batch, verdict: Split) -> None:
        if verdict.status == 413:
            self.buffer.lower(sum(len(receipt.body) for receipt in batch.receipts))
        for half in batch.halves():
            await self._deliver(half)

    async def _attempt(self, batch: Batch) -> Verdict:
        async with self._pace.turn():
            self.ledger.requests += 1
            self.ledger.retries += batch.retries > 0
            batch.attempts += 1
            try:
                verdict = await self.destination.deliver(batch)
                if not isinstance(verdict, Verdict):
                    raise TypeError("deliver() must return a verdict")  # noqa: TRY301 - said below
            except (Exception, asyncio.CancelledError) as error:
                # A destination may be the user's own code; a cancellation of this task goes on.
                if _is_cancelled():
                    raise
                verdict = Retry(f"its code raised {describe(error)}")
        self._breath.ask(self._loop)
        if _is_hiccup(verdict, batch):
            return verdict  # says nothing about the server
        self._pace.note(succeeded=not isinstance(verdict, Retry))
        if isinstance(verdict, Retry):
            text = "%s; trying again; pending: %d"
            self._say("retry", logging.WARNING, text, verdict.reason, self.buffer.pending)
        return verdict

    def _delay(self, verdict: Retry, batch: Batch, failures: int) -> float:
        if _is_hiccup(verdict, batch):
            return 0.0
        # Jitter on top of Retry-After too: many clients were told the same moment.
        jitter = backoff(self.retrying, max(failures - 1, 0), random.random())  # noqa: S311 - jitter is no secret
        return (verdict.after or 0.0) + jitter

    # --------------------------------------------------------------------------------- settling

    def _conclude(self, batch: Batch, verdict: Verdict) -> None:
        attempts = batch.attempts
        if isinstance(verdict, Delivered):
            self._book_delivered(batch, verdict)
        elif isinstance(verdict, Retry):
            outcome = self._dropped("expired", status=verdict.status, attempts=attempts)
            self._say("expired", logging.ERROR, "gave up on a batch after %d attempts", attempts)
            self._settle(batch, batch.receipts, outcome)
        elif isinstance(verdict, Split) and verdict.status == 413:
            outcome = self._dropped("too_large", status=413, attempts=attempts)
            self._settle(batch, batch.receipts, outcome)
        elif isinstance(verdict, Halt):
            self._halt(batch, verdict)
        else:
            text = "refused events with status %d"
            self._say("rejected", logging.WARNING, text, verdict.status)
            self._settle(batch, batch.receipts, self._rejected(verdict, attempts))

    def _book_delivered(self, batch: Batch, verdict: Delivered) -> None:
        arrived = batch.receipts
        if verdict.failed:
            refused = [each for each in arrived if each.message_id in verdict.failed]
            arrived = [each for each in arrived if each.message_id not in verdict.failed]
            self._say("partial", logging.WARNING, "refused %d events of a batch", len(refused))
            for receipt in refused:
                said = Rejected(verdict.status or 0, verdict.failed[receipt.message_id])
                self._settle(batch, [receipt], self._rejected(said, batch.attempts))
        self._calm()
        self._last_success = self._clock()
        outcome = Outcome(
            kind="delivered",
            destination=self.name,
            status=verdict.status,
            attempts=batch.attempts,
        )
        self._settle(batch, arrived, outcome)

    def _halt(self, batch: Batch, verdict: Halt) -> None:
        text = "%s; events are rejected, and it is tried again every %g s"
        self._say("halt", logging.ERROR, text, _problem(verdict), self.retrying.cap)
        outcome = self._rejected(Rejected(verdict.status), batch.attempts)
        never_sent = self._rejected(Rejected(verdict.status), 0)
        self._halted = (self._clock() + self.retrying.cap, never_sent)
        self._settle(batch, batch.receipts, outcome)

    def _rejected(self, verdict: Rejected | Split, attempts: int) -> Outcome:
        return Outcome(
            kind="rejected",
            destination=self.name,
            reason="rejected",
            status=verdict.status,
            attempts=attempts,
            detail=verdict.detail,
        )

    def _dropped(
        self, reason: DropReason, *, status: int | None = None, attempts: int = 0
    ) -> Outcome:
        return Outcome(
            kind="dropped",
            destination=self.name,
            reason=reason,
            status=status,
            attempts=attempts,
        )

    def _drop(self, receipts: Sequence[Receipt], reason: DropReason) -> None:
        """End calls that are not in the buffer."""
        if reason not in _INTENDED:
            text = "dropped an event: %s; more are only counted"
            self._say(reason, logging.WARNING, text, reason)
        self._book(receipts, self._dropped(reason))

    def _settle(self, batch: Batch, receipts: Sequence[Receipt], outcome: Outcome) -> None:
        """End calls that were given out in a batch."""
        if receipts:
            self.buffer.settle(batch.first, receipts, outcome)
            self._book(receipts, outcome)

    def _book(self, receipts: Sequence[Receipt], outcome: Outcome) -> None:
        self.ledger.settle(outcome, len(receipts))
        for receipt in receipts:
            receipt.settle(outcome)
        if self._on_settle is not None:
            self._call_hook(outcome, receipts)

    def _call_hook(self, outcome: Outcome, receipts: Sequence[Receipt]) -> None:
        try:
            result = self._on_settle(outcome, receipts)  # type: ignore[misc]
        except BaseException as error:
            if _ends_the_program(error):
                raise
            # Nothing was awaited, so a cancellation here is not this task's: delivery goes on.
            self._hook_failed(error)
            return
        if inspect.isawaitable(result):
            # A task of its own, and nothing around it that could end before it has begun.
            task = asyncio.ensure_future(result if _is_main() else _contained(result))
            self.hooks.add(task)
            task.add_done_callback(self._hook_ended)

    def _hook_ended(self, task: asyncio.Future[None]) -> None:
        self.hooks.discard(task)
        if not task.cancelled():
            error = task.exception()
        elif isinstance(task, asyncio.Task) and not task.cancelling():
            error = asyncio.CancelledError()  # its own: nobody has cancelled it
        else:
            error = None
        if error is not None:
            self._hook_failed(error)

    def _hook_failed(self, error: BaseException) -> None:
        self.ledger.hook_errors += 1
        self._say("hook", logging.ERROR, "on_settle raised %s", describe(error))

    # ------------------------------------------------------------------------------------ saying

    def _say(self, about: str, level: int, text: str, *details: object) -> None:
        """Log a kind of trouble once: as long as an outage lasts, or until it has kept quiet."""
        now = self._clock()
        is_new = now - self._trouble.get(about, float("-inf")) > _QUIET
        if about in _OUTAGE:
            is_new = is_new and (self._outage_since is None or about not in self._trouble)
            if is_new and self._outage_since is None:
                self._outage_since = now
        if is_new or about not in _OUTAGE:
            self._trouble[about] = now
        if is_new:
            logger.log(level, f"destination %r: {text}", self.name, *details)  # noqa: G004 - the texts are this file's own

    def _calm(self) -> None:
        """Log that an outage is over."""
        if self._outage_since is not None:
            seconds = self._clock() - self._outage_since
            self._outage_since = None
            logger.info("destination %r: delivering again after %.1f s", self.name, seconds)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _is_hiccup(verdict: Verdict, batch: Batch) -> bool:
    """Whether a kept-alive connection had gone stale: tried again at once, once."""
    return isinstance(verdict, Retry) and verdict.at_once and not batch.retries


def _problem(verdict: Halt) -> str:
    return verdict.problem or (
        f"the write key is refused (status {verdict.status}): check the key and the endpoint's "
        "region"
    )


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _ends_the_program(error: BaseException) -> bool:
    """Whether that is what the error is for; in another thread it would end only our loop."""
    return isinstance(error, KeyboardInterrupt | SystemExit) and _is_main()


async def _contained(hook: Awaitable[None]) -> None:
    try:
        await hook
    except (KeyboardInterrupt, SystemExit) as error:
        raise RuntimeError("a hook must not end its thread") from error


async def _cancel(tasks: Collection[asyncio.Future[None]], grace: float) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=grace)
