"""What dead processes left behind, moved piece by piece into the file of a living one.

Invariant: a file whose rows are on their way is locked, so exactly one process moves them. When
nothing is left in it, it is removed; what is for other destinations stays for others.

It may be asked for often: a file that has nothing for it is opened again only when it has changed.
"""

from __future__ import annotations

import sqlite3
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from asyncanalytics.errors import ConfigurationError
from asyncanalytics.spool import files
from asyncanalytics.spool.errors import is_corrupt
from asyncanalytics.spool.moving import Move, SourceFailed
from asyncanalytics.spool.salvage import salvage
from asyncanalytics.spool.store import Store

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextlib import AbstractContextManager
    from pathlib import Path

    from asyncanalytics.spool.files import SpoolFile
    from asyncanalytics.spool.news import News


class _Source(NamedTuple):
    file: SpoolFile
    store: Store
    move: Move


class Adoption:
    """Goes through the files of a folder that nobody owns. For one thread at a time."""

    def __init__(self, folder: Path, destinations: Collection[str] | None, news: News) -> None:
        """Take what is for these destinations only, or everything."""
        self.corrupt_files: int = 0
        self._folder = folder
        self._destinations = destinations
        self._news = news
        self._source: _Source | None = None
        self._seen: set[Path] = set()
        self._useless: dict[Path, list[tuple[int, int]]] = {}  # and in which state

    def piece(self, store: Store) -> int:
        """Move some rows into a store; return how many, and 0 once all files were gone through.

        After that it begins again: others may have died meanwhile.
        """
        while self._source is not None or self._next(store):
            moved = self._piece(store)
            if moved:
                return moved
        self._useless = {each: self._useless[each] for each in self._seen & self._useless.keys()}
        self._seen.clear()
        return 0

    def close(self) -> None:
        """Let go of a file that is on its way; remove it if nothing is left in it."""
        source, self._source = self._source, None
        if source is None:
            return
        is_empty, has_ours = source.store.is_empty, self._has_ours(source.store)
        source.store.close()
        if is_empty:
            source.file.delete()
            return
        if not has_ours:
            self._useless[source.file.path] = files.state(source.file.path)
        source.file.release()

    def _has_ours(self, source: Store) -> bool:
        return self._destinations is None or any(
            name in self._destinations for name in source.by_destination()
        )

    def _piece(self, store: Store) -> int:
        if self._source is None:
            return 0
        try:
            with self._told(self._source.file.path, store):
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
            if file is not None and self._useless.get(path) == files.state(path):
                file.release()
            elif file is not None:
                self._begin(file, store)
                return True
        return False

    def _begin(self, file: SpoolFile, store: Store) -> None:
        try:
            opened = Store(file.path)
            if store.sealing is None and opened.is_sealed:
                opened.close()
                raise ConfigurationError("sealed")  # noqa: TRY301 - left for who can open it
        except (sqlite3.Error, ConfigurationError) as error:
            self._failed(file, error, store)
        else:
            self._source = _Source(file, opened, Move(opened, self._destinations))

    def _failed(self, file: SpoolFile, error: BaseException | None, store: Store) -> None:
        """Save what can be read of a malformed file; leave any other for better times."""
        try:
            if isinstance(error, sqlite3.Error) and is_corrupt(error):
                with self._told(file.path, store):
                    salvage(store, file.path)
                self.corrupt_files += 1
                file.set_aside()
            elif isinstance(error, ConfigurationError):
                self._useless[file.path] = files.state(file.path)
        finally:
            file.release()

    def _told(self, path: Path, store: Store) -> AbstractContextManager[None]:
        """Have rows taken as found, but not those of a file that was the spool's own."""
        return self._news.no_news(store) if path in self._news.own_ruins else nullcontext()
