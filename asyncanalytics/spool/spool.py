"""A spool: calls on disk until they are delivered.

What `append` has resolved survives the end of the process and a loss of power. What is read is
still there until it is removed; so after a crash a call may go out twice, with the same id.
Methods return at once, with a future for what the disk must do first; they may be called from any
thread. The folder may be shared: each spool owns a file in it, and `adopt` brings over what dead
ones have left.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from asyncanalytics import forks
from asyncanalytics.errors import ConfigurationError
from asyncanalytics.spool import damage, letters
from asyncanalytics.spool.adoption import Adoption
from asyncanalytics.spool.errors import SpoolForked
from asyncanalytics.spool.files import prepare_folder
from asyncanalytics.spool.keeper import Keeper
from asyncanalytics.spool.rows import OVERHEAD, SEALED, SpoolStats, stored
from asyncanalytics.spool.writer import Job, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from asyncanalytics.settings import Sealing
    from asyncanalytics.spool.rows import DeadLetter, Fields, Row, Verdict
    from asyncanalytics.spool.store import Store

_LEAST: Final = 1 << 20
_LARGEST: Final = (1 << 63) - 1


class Spool(AbstractContextManager["Spool"]):
    """Calls of one client on disk, for all its destinations."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        max_bytes: int = 512 << 20,
        sealing: Sealing | None = None,
        destinations: Collection[str] | None = None,
        on_found: Callable[[Mapping[str, int]], None] | None = None,
    ) -> None:
        """Open a file in the folder, and start the thread that works on it.

        `max_bytes` bounds what waits and what is dead, with what the file needs around it. With
        `destinations` only the calls for these are taken over from dead processes. Raises
        ConfigurationError; a disk that refuses shows when something is appended. Close it.

        `on_found` hears, by destination, how many calls wait in the file that were not appended
        here: what was in it, what is adopted, mended or retried, and what another process lets
        wait again. Each is told once, before the future of what found it, and between those of
        the appends with lower numbers and those with higher ones. It is called in this thread or
        in that of the spool, and must be quick; what it raises is dropped.
        """
        if max_bytes < _LEAST:
            raise ConfigurationError(f"a spool's max_bytes must be at least {_LEAST:,}")
        self.max_bytes: int = max_bytes
        self._sealing = sealing
        self._pid = os.getpid()
        place = prepare_folder(folder)
        self._keeper = forks.disk.run(Keeper, place, sealing, destinations)
        self._adoption = Adoption(place, destinations, self._keeper.news)
        self._writer = Writer(self._keeper, at_end=self._adoption.close, on_found=on_found)

    # ------------------------------------------------------------------------------------- calls

    def append(self, entries: Iterable[Fields]) -> Future[Sequence[int]]:
        """Keep calls, all of them or none; the future has a number for each once they are durable.

        A call whose id waits already at its destination is kept once; the number of the one that
        waits is returned below 0. Raises SpoolFull at once. The future fails with a
        SpoolUnavailable, where what failed may still be found after a restart; if it can be
        cancelled, nothing is kept. An append of nothing says whether the disk takes anything.
        """
        self._check()
        rows = stored(entries, self._sealing)
        weight = sum([len(row[3]) for row in rows]) + len(rows) * OVERHEAD
        job = Job("append", rows=rows, weight=weight)
        return self._writer.put(job, max_bytes=self.max_bytes)

    def remove(self, numbers: Iterable[int], *, freed: int = 0) -> Future[None]:
        """Forget calls that have ended. There is no need to wait.

        `freed` is what they weigh, `OVERHEAD` and body each: there is room for as much at once,
        since what is appended from now on is not committed before they are removed. Where the
        disk refuses, the future fails, and they are removed as soon as it lets it.
        """
        return self._put(Job("remove", numbers=_checked(numbers), weight=-freed))

    def read(
        self, destination: str, after: int = 0, *, max_events: int = 500, max_bytes: int = 1 << 20
    ) -> Future[list[Row]]:
        """Return the next calls of a destination that wait, in order, and leave them there.

        At least one if there is any. Damaged ones are set aside, counted and not returned.
        """

        def work(store: Store) -> list[Row]:
            return store.read(destination, after, max_events=max_events, max_bytes=max_bytes)

        return self._alone(work)

    def adopt(self) -> Future[int]:
        """Take over a piece of what dead processes left: the number of rows, 0 when none are left.

        They are appended as new ones are. No more are taken while the spool is half full; the rest
        stays where it is. It costs little where nothing is left, and sees what other processes
        have changed in the file: ask every few seconds.
        """

        def work(store: Store) -> int:
            store.refresh()
            has_room = store.weight * 2 < self.max_bytes and self._keeper.can_add()
            return self._adoption.piece(store) if has_room else 0

        return self._alone(work)

    def mend(self) -> Future[int]:
        """Look at the damaged rows again, for a `Sealing` that was put right; how many are whole.

        They wait again, under new numbers.
        """
        return self._alone(damage.mend)

    # ------------------------------------------------------------------------------ dead letters

    def bury(self, numbers: Iterable[int], verdict: Verdict) -> Future[int]:
        """Move calls that wait to the dead letters; the future has how many there were."""
        checked = _checked(numbers)
        detail = verdict.detail.encode("utf-8", "replace")
        if self._sealing is not None:
            try:
                detail = SEALED + self._sealing.seal(detail)
            except Exception:  # noqa: BLE001 - the user's own function: what it refuses is left out
                detail = b""
        return self._change(lambda store: letters.bury(store, checked, verdict, detail))

    def dead(
        self, after: int = 0, *, limit: int = 100, destination: str | None = None
    ) -> Future[list[DeadLetter]]:
        """Return the next dead letters, in the order of their burial."""
        return self._alone(
            lambda store: letters.dead(store, after, limit=limit, destination=destination)
        )

    def retry(self, ids: Iterable[int]) -> Future[int]:
        """Let dead letters wait again, under new numbers; how many did."""
        checked = _checked(ids)
        return self._change(lambda store: letters.retry(store, checked))

    def purge(
        self,
        ids: Iterable[int] | None = None,
        *,
        destination: str | None = None,
        before: float | None = None,
    ) -> Future[int]:
        """Delete dead letters: those named, or all that fit; how many did.

        `before` is a time: those buried earlier go.
        """
        checked = None if ids is None else _checked(ids)
        return self._change(
            lambda store: letters.purge(store, checked, destination=destination, before=before)
        )

    # ---------------------------------------------------------------------------------- standing

    @property
    def room(self) -> int:
        """Bytes that the quota leaves; each row takes `OVERHEAD` with its body."""
        return max(0, self.max_bytes - max(0, self._writer.held))

    @property
    def path(self) -> Path | None:
        """The file; None while the disk gives none."""
        file = self._keeper.file
        return None if file is None else file.path

    def stats(self) -> SpoolStats:
        """Return the figures as of the last commit."""
        published = self._writer.published
        return SpoolStats(
            by_destination=published.by_destination,
            held_bytes=max(0, self._writer.held),
            max_bytes=self.max_bytes,
            damaged=published.damaged,
            lost=self._keeper.lost,
            corrupt_files=self._keeper.corrupt_files + self._adoption.corrupt_files,
            is_disk_full=self._keeper.is_full,
        )

    def close(self, timeout: float | None = None) -> bool:
        """Finish what was asked for, and let the file go; whether that was done in time.

        The file stays for the next process, and is removed if nothing is in it. In a forked child
        this does nothing: the spool is the parent's.
        """
        if os.getpid() != self._pid:
            return False
        return self._writer.end(timeout)

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Name the file."""
        return f"<Spool {self.path}>"

    # ------------------------------------------------------------------------------------- within

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise SpoolForked

    def _put(self, job: Job) -> Future[Any]:
        self._check()
        return self._writer.put(job, max_bytes=self.max_bytes)

    def _change(self, work: Callable[[Store], int]) -> Future[int]:
        return self._put(Job("change", work=work))

    def _alone(self, work: Callable[[Store], Any]) -> Future[Any]:
        return self._put(Job("alone", work=work))


def _checked(numbers: Iterable[int]) -> list[int]:
    found = list(numbers)
    if found and not 0 <= min(found) <= max(found) <= _LARGEST:
        raise ValueError("numbers must be those that the spool gave")
    return found
