"""What dead processes left behind, moved piece by piece into the file of a living one.

Invariant: a file whose rows are on their way is locked, so exactly one process moves them. When
nothing is left in it, it is removed; what is for other destinations stays for others.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, NamedTuple

from asyncanalytics.errors import ConfigurationError
from asyncanalytics.spool import files
from asyncanalytics.spool.errors import is_corrupt
from asyncanalytics.spool.moving import Move, SourceFailed
from asyncanalytics.spool.salvage import salvage
from asyncanalytics.spool.store import Store

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from asyncanalytics.spool.files import SpoolFile


class _Source(NamedTuple):
    file: SpoolFile
    store: Store
    move: Move


class Adoption:
    """Goes through the files of a folder that nobody owns. For one thread at a time."""

    def __init__(self, folder: Path, destinations: Collection[str] | None) -> None:
        """Take what is for these destinations only, or everything."""
        self.corrupt_files: int = 0
        self._folder = folder
        self._destinations = destinations
        self._source: _Source | None = None
        self._seen: set[Path] = set()

    def piece(self, store: Store) -> int:
        """Move some rows into a store; return how many, and 0 once all files were gone through.

        After that it begins again: others may have died meanwhile.
        """
        while self._source is not None or self._next(store):
            moved = self._piece(store)
            if moved:
                return moved
        self._seen.clear()
        return 0

    def close(self) -> None:
        """Let go of a file that is on its way; remove it if nothing is left in it."""
        source, self._source = self._source, None
        if source is None:
            return
        is_empty = source.store.is_empty
        source.store.close()
        if is_empty:
            source.file.delete()
        else:
            source.file.release()

    def _piece(self, store: Store) -> int:
        if self._source is None:
            return 0
        try:
            moved = self._source.move.piece(store)
        except SourceFailed as error:
            source, self._source = self._source, None
            source.store.close()
            self._failed(source.file, error.__cause__, store)
            return 0
        if not moved:
            self.close()
        return moved

    def _next(self, store: Store) -> bool:
        """Open the next file that is not owned and not seen yet; whether there is one."""
        for path in files.left_in(self._folder):
            if path in self._seen or path == store.path:
                continue
            self._seen.add(path)
            file = files.claim(path)
            if file is not None:
                self._begin(file, store)
                return True
        return False

    def _begin(self, file: SpoolFile, store: Store) -> None:
        try:
            opened = Store(file.path)
        except (sqlite3.Error, ConfigurationError) as error:
            self._failed(file, error, store)
        else:
            self._source = _Source(file, opened, Move(opened, self._destinations))

    def _failed(self, file: SpoolFile, error: BaseException | None, store: Store) -> None:
        """Save what can be read of a malformed file; leave any other for better times."""
        try:
            if isinstance(error, sqlite3.Error) and is_corrupt(error):
                salvage(store, file.path)
                self.corrupt_files += 1
                file.set_aside()
        finally:
            file.release()
