"""The thread that works on a spool's file, and the commits that its callers share.

Invariants:
- Only this thread touches the file. A future is resolved when what it stands for is on disk.
- What arrives while a commit runs shares the next one. All additions of a commit fail or succeed
  together; a removal that fails is made good with a later commit.
- The figures are up to date before a future is resolved, and what was found is told before too.
- Every future is resolved, whatever the disk does. One that its caller cancels before its commit
  begins is left out of it; later ones go on.
"""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar

from asyncanalytics import forks
from asyncanalytics.errors import describe
from asyncanalytics.spool.errors import (
    SpoolBroken,
    SpoolClosed,
    SpoolDiskFull,
    SpoolError,
    SpoolFull,
    SpoolUnavailable,
)
from asyncanalytics.spool.rows import OVERHEAD
from asyncanalytics.spool.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from asyncanalytics.spool.keeper import Keeper
    from asyncanalytics.spool.rows import StoredFields, Waiting

T = TypeVar("T")

_GROUP_BYTES: Final = 1 << 20  # of one commit: the reserve must hold what the log may grow by
_IDLE: Final = 1.0  # seconds without work before chores are done
_BREATH: Final = 0.1  # seconds from one piece of them to the next


@dataclass(slots=True, eq=False)
class Job:
    """One thing to do, and who waits for it."""

    kind: Literal["append", "remove", "change", "alone"]
    """`change` is done within the commit, `alone` after it."""
    rows: Sequence[StoredFields] = ()
    numbers: Sequence[int] = ()
    work: Callable[[Store], Any] | None = None
    weight: int = 0
    """Of the rows, against the quota: less than nothing where they are removed."""
    future: Future[Any] = field(default_factory=Future)

    def do(self, store: Store) -> Any:
        """Do the work."""
        assert self.work is not None  # noqa: S101 - of a change, or alone
        return self.work(store)


@dataclass(frozen=True, slots=True)
class Published:
    """The figures as of the last commit."""

    by_destination: Mapping[str, Waiting] = field(default_factory=dict)
    weight: int = 0
    damaged: int = 0


class _Done(NamedTuple):
    """What a commit has done: what it found is told before its appends, or after them."""

    before: Mapping[str, int]
    numbers: Sequence[int]
    after: Mapping[str, int]
    results: list[Any]


class Writer:
    """Runs jobs on a keeper's store, in a thread of its own."""

    def __init__(
        self,
        keeper: Keeper,
        *,
        at_end: Callable[[], None],
        on_found: Callable[[Mapping[str, int]], None] | None,
    ) -> None:
        """Start the thread. From here on the keeper is its own; so is what `at_end` lets go."""
        self.published: Published = Published()
        self.held: int = 0
        """What counts against the quota, with what is under way."""
        self._keeper = keeper
        self._on_found = on_found
        self._at_end = at_end
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()  # for what follows
        self._queued = 0
        self._is_ending = False
        self._owed: list[int] = []  # to remove, as soon as the disk lets it
        self._has_chores = True
        self._begin()
        self._thread = threading.Thread(
            # A daemon: a client that is never closed must not hold up the interpreter's end.
            target=self._run,
            name="asyncanalytics spool",
            daemon=True,
        )
        self._thread.start()

    def put(self, job: Job, *, max_bytes: int) -> Future[Any]:
        """Have a job done. Raises SpoolFull where its rows would pass the quota."""
        with self._lock:
            if self._is_ending:
                raise SpoolClosed
            if job.weight > 0 and self.held + job.weight > max_bytes:
                raise SpoolFull(max_bytes=max_bytes)
            self._queued += job.weight
            self.held += job.weight
            self._queue.put(job)
        return job.future

    def end(self, timeout: float | None) -> bool:
        """Do what was put so far, and let the file go; whether that was done in time."""
        with self._lock:
            if not self._is_ending:
                self._is_ending = True
                self._queue.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # ----------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        is_last = False
        while not is_last:
            group, is_last = self._gather()
            self._serve([job for job in group if job.future.set_running_or_notify_cancel()])
            cancelled = [job for job in group if job.weight]
            if cancelled:
                self._settle(cancelled)
            self._has_chores = True
        for close in (self._at_end, self._keeper.close):
            with suppress(sqlite3.Error, OSError):  # what is in the files stays there
                forks.disk.run(close)

    def _gather(self) -> tuple[list[Job], bool]:
        """Wait for a job, and take those that came with it; say whether they are the last."""
        group: list[Job] = []
        size = 0
        job = self._first()
        while job is not None:
            group.append(job)
            size += max(0, job.weight) + len(job.numbers) * OVERHEAD
            if size >= _GROUP_BYTES:
                return group, False
            try:
                job = self._queue.get_nowait()
            except Empty:
                return group, False
        return group, True

    def _first(self) -> Job | None:
        pause: float | None = _IDLE
        while pause is not None and self._has_chores:
            try:
                return self._queue.get(timeout=pause)
            except Empty:
                pause = self._do_chores()
        self._has_chores = False
        return self._queue.get()

    def _serve(self, group: Sequence[Job]) -> None:
        kinds: dict[str, list[Job]] = {"append": [], "remove": [], "change": [], "alone": []}
        for job in group:
            kinds[job.kind].append(job)
        alone = kinds.pop("alone")
        try:
            self._write(*kinds.values())
            for job in alone:
                self._do_alone(job)
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not leave callers waiting
            self._fail(
                [job for job in group if not job.future.done()], SpoolBroken(describe(error))
            )

    def _write(self, appends: list[Job], removals: list[Job], changes: list[Job]) -> None:
        """Commit a group; on a full disk less of it, and at the least its removals."""
        if appends and not self._can_add():
            self._fail(appends, SpoolDiskFull())
            appends = []
        is_again = False
        while appends or removals or changes or self._owed:
            try:
                self._commit(appends, removals, changes)
            except SpoolDiskFull as error:
                if not appends and not changes and is_again:
                    self._owe(removals)
                    self._fail(removals, error)
                    return
                # Meanwhile the log was brought into the file, and its room can be used again.
                is_again = not appends and not changes
                self._fail(appends or changes, error)
                appends, changes = [], changes if appends else []
            except SpoolUnavailable as error:
                self._owe(removals)
                self._fail([*appends, *changes, *removals], error)
                return
            else:
                return

    def _commit(self, appends: list[Job], removals: list[Job], changes: list[Job]) -> None:
        rows = [row for job in appends for row in job.rows]
        gone = [*self._owed, *(number for job in removals for number in job.numbers)]

        def work(store: Store) -> _Done:
            with store.transaction():
                before = self._keeper.news.since_known(store)
                numbers = store.append(rows)
                if appends and not rows:
                    store.touch()
                last = store.next_seq - 1
                store.remove(gone)
                results = [job.do(store) for job in changes]
                after = self._keeper.news.since(store, last)
            self._keeper.news.is_known(store)
            return _Done(before, numbers, after, results)

        done = self._use(work)
        self._owed.clear()
        self._settle([*appends, *removals, *changes])
        self._tell(done.before)
        start = 0
        for job in appends:
            end = start + len(job.rows)
            job.future.set_result(done.numbers[start:end])
            start = end
        for job in removals:
            job.future.set_result(None)
        self._tell(done.after)
        for job, result in zip(changes, done.results, strict=True):
            job.future.set_result(result)

    def _do_alone(self, job: Job) -> None:
        def work(store: Store) -> tuple[Any, dict[str, int]]:
            result = job.do(store)
            found = self._keeper.news.since_known(store)
            self._keeper.news.is_known(store)
            return result, found

        try:
            result, found = self._use(work)
        except SpoolUnavailable as error:
            self._fail([job], error)
        else:
            self._settle([job])
            self._tell(found)
            job.future.set_result(result)

    def _can_add(self) -> bool:
        return forks.disk.run(self._keeper.can_add)

    def _use(self, work: Callable[[Store], T]) -> T:
        return forks.disk.run(self._keeper.use, work)

    def _owe(self, removals: Iterable[Job]) -> None:
        self._owed.extend(number for job in removals for number in job.numbers)

    def _do_chores(self) -> float | None:
        """Do a piece of what can wait; return the seconds to the next one, None if none is left."""
        self._write([], [], [])
        try:
            if self._use(Store.tidy):
                return _BREATH
        except SpoolUnavailable:
            pass
        finally:
            self._settle(())
        return _IDLE if self._owed else None

    def _begin(self) -> None:
        """Publish what the file holds, and tell of it."""
        self._settle(())
        store, news = self._keeper.store, self._keeper.news
        if store is not None:
            found = news.since_known(store)
            news.is_known(store)
            self._tell(found)

    def _tell(self, found: Mapping[str, int]) -> None:
        if found and self._on_found is not None:
            with suppress(Exception):  # the user's own function: the writer does not end with it
                self._on_found(found)

    def _settle(self, jobs: Iterable[Job]) -> None:
        """Publish the figures, in which these jobs are now, or never will be."""
        store = self._keeper.store
        with self._lock:
            if store is not None:
                self.published = Published(store.by_destination(), store.weight, store.damaged)
            for job in jobs:
                self._queued -= job.weight
                job.weight = 0
            self.held = self.published.weight + self._queued

    def _fail(self, jobs: Sequence[Job], error: SpoolError) -> None:
        self._settle(jobs)
        for job in jobs:
            job.future.set_exception(error)
