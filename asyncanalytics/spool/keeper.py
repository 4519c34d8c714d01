"""The one file that a spool owns: opened, kept usable, and replaced when it is beyond repair.

Invariants:
- Whatever SQLite or the system reports comes out as one named error, and the next use tries anew.
- A file that SQLite finds malformed is set aside; what can be read of it goes on in a fresh one,
  under the same numbers.
- Nothing is added while the disk is full and the reserve is gone: what the reserve gave back
  belongs to the removals.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from asyncanalytics.errors import ConfigurationError
from asyncanalytics.spool import files
from asyncanalytics.spool.errors import (
    SpoolBusy,
    SpoolDiskFull,
    SpoolUnavailable,
    is_corrupt,
    named,
)
from asyncanalytics.spool.news import News
from asyncanalytics.spool.salvage import salvage
from asyncanalytics.spool.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from asyncanalytics.settings import Sealing
    from asyncanalytics.spool.files import SpoolFile

T = TypeVar("T")

_REGAIN: Final = 1.0  # seconds between two looks at whether a full disk has room again
_PIECES: Final = 10  # of tidying at a time


class Keeper:
    """Owns one file at a time. For one thread at a time."""

    def __init__(
        self, folder: Path, sealing: Sealing | None, destinations: Collection[str] | None
    ) -> None:
        """Own a file that was left behind and is only for these destinations, or a new one.

        Raises what is wrong with the settings; a disk that refuses is tried again at each use.
        """
        self.folder: Path = folder
        self.sealing: Sealing | None = sealing
        self.destinations: Collection[str] | None = destinations
        self.file: SpoolFile | None = None
        self.store: Store | None = None
        self.corrupt_files: int = 0
        self.is_full: bool = False
        self.news: News = News()
        self._next_seq = 1
        self._lost = 0  # by stores that are closed
        self._regain_at = 0.0
        try:
            self.use(lambda store: store)
        except SpoolUnavailable:
            return

    @property
    def lost(self) -> int:
        """Rows that were counted once and are not to be found any more."""
        return self._lost + (self.store.lost if self.store else 0)

    def use(self, work: Callable[[Store], T]) -> T:
        """Let some work be done on the store, and name what goes wrong.

        Where the file turns out to be malformed, the work is done again on its successor: what
        it leaves behind must be in a transaction.
        """
        try:
            try:
                return work(self._ready())
            except sqlite3.DatabaseError as error:
                if self.file is None or not is_corrupt(error):
                    raise
                self._replace(self.file)
                return work(self._ready())
        except (sqlite3.Error, OSError) as error:
            trouble = named(error)
            self._suffer(trouble)
            raise trouble from error

    def can_add(self) -> bool:
        """Whether rows may be added; after a full disk, once the reserve stands again."""
        now = time.monotonic()
        if self.is_full and now >= self._regain_at:
            self._regain_at = now + _REGAIN
            self._shrink()
            self.is_full = self.file is not None and not self.file.keep_reserve()
        return not self.is_full

    def close(self) -> None:
        """Let the file go, and remove it if nothing is in it."""
        is_empty = self.store is not None and self.store.is_empty
        self._drop()
        file, self.file = self.file, None
        if file is not None and is_empty:
            file.delete()
        elif file is not None:
            file.release()  # with its reserve: who opens it again may find the disk full

    # ------------------------------------------------------------------------------------- within

    def _suffer(self, trouble: SpoolUnavailable) -> None:
        if isinstance(trouble, SpoolDiskFull):
            self.is_full = True
            self._regain_at = time.monotonic() + _REGAIN
            self._use_reserve()
        elif not isinstance(trouble, SpoolBusy):
            self._drop()

    def _use_reserve(self) -> None:
        """Bring what is in the log into the file before others take the disk's last room.

        After that, removals write over the log from its start, and need no more of the disk.
        """
        if self.file is not None:
            self.file.drop_reserve()
        if self.store is not None:
            self.store.checkpoint()

    def _shrink(self) -> None:
        """Give the disk what the file does not need: the reserve may have to stand on it."""
        store = self.store
        if store is not None:
            with suppress(sqlite3.Error):
                any(not store.tidy() for _ in range(_PIECES))

    def _drop(self) -> None:
        """Close the store; the file stays ours, and the next use opens it again."""
        store, self.store = self.store, None
        if store is not None:
            self._next_seq = max(self._next_seq, store.next_seq)
            self._lost += store.lost
            store.close()

    def _ready(self) -> Store:
        if self.file is not None and not self.file.stands():
            self._drop()  # someone has removed it, and what was in it
            self.file.release()
            self.file = None
        if self.store is None:
            self._open()
        assert self.store is not None  # noqa: S101 - just opened
        return self.store

    def _open(self) -> None:
        if self.file is not None:
            self.store = self._opened(self.file)
        elif self._next_seq > 1 or not self._claim():
            self._create()  # and no other's file, once numbers were given that could be in it too
        assert self.store is not None  # noqa: S101 - just opened
        self.store.next_seq = max(self.store.next_seq, self._next_seq)
        if self.file is not None and not self.file.keep_reserve():
            self.is_full = True

    def _claim(self) -> bool:
        folder = files.prepare_folder(self.folder)
        files.sweep(folder)
        for path in files.left_in(folder):
            file = files.claim(path)
            if file is None:
                continue
            try:
                store = self._opened(file)
                self._check_sealing(store)
            except ConfigurationError:
                file.release()
                raise
            except sqlite3.Error:
                file.release()  # left for adoption, which can take its time
                continue
            if self.destinations is None or set(store.by_destination()) <= set(self.destinations):
                self.file, self.store = file, store
                return True
            store.close()
            file.release()
        return False

    def _check_sealing(self, store: Store) -> None:
        if self.sealing is None and store.is_sealed:
            store.close()
            raise ConfigurationError(
                f"calls in the spool's folder {str(self.folder)!r} are sealed: give the Sealing "
                "that they were sealed with, or name another folder"
            )

    def _opened(self, file: SpoolFile) -> Store:
        try:
            return Store(file.path, self.sealing)
        except sqlite3.OperationalError:
            # SQLite needs a little room even to read, and has several names for its lack.
            if not file.drop_reserve():
                raise
            return Store(file.path, self.sealing)

    def _create(self) -> None:
        self.file = files.create(files.prepare_folder(self.folder))
        self.store = Store(self.file.path, self.sealing)

    def _replace(self, ruin: SpoolFile) -> None:
        self._drop()
        self.file = None
        try:
            self._create()
            assert self.store is not None  # noqa: S101 - just opened
            self.store.next_seq = self._next_seq
            self.news.own_ruins.add(ruin.path)
            with self.news.no_news(self.store):
                salvage(self.store, ruin.path, below=self._next_seq)
            self.corrupt_files += 1
            ruin.set_aside()
        finally:
            ruin.release()  # if it still has its name, adoption finds it
