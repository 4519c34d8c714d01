"""A spool file seen from outside, by a command or a test.

While a process owns it, it is opened read-only and in short reads, which disturb the owner no
more than another reader of SQLite does. When none does, it is locked, and can be changed.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from asyncanalytics.spool import files, letters
from asyncanalytics.spool.errors import SpoolInUse, named
from asyncanalytics.spool.store import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

    from asyncanalytics.spool.rows import DeadLetter, Row, Sealing, Waiting


class Visit:
    """One open file."""

    def __init__(self, store: Store, *, is_owned: bool) -> None:
        """Made by `visit`."""
        self.is_owned: bool = is_owned
        """Whether a running process owns the file: then it can only be read."""
        self._store = store

    @property
    def by_destination(self) -> Mapping[str, Waiting]:
        """The figures of each destination, as they were when the file was opened."""
        return self._store.by_destination()

    @property
    def damaged(self) -> int:
        """Rows that were set aside."""
        return self._store.damaged

    def read(self, destination: str, after: int = 0, *, limit: int = 100) -> list[Row]:
        """Return the next calls of a destination that wait."""
        with _named():
            return self._store.look(destination, after, limit)

    def dead(
        self, after: int = 0, *, limit: int = 100, destination: str | None = None
    ) -> list[DeadLetter]:
        """Return the next dead letters."""
        with _named():
            return letters.dead(self._store, after, limit=limit, destination=destination)

    def retry(self, ids: Iterable[int]) -> int:
        """Let dead letters wait again for the next process; return how many do."""
        with self._changing():
            return letters.retry(self._store, ids)

    def purge(
        self,
        ids: Iterable[int] | None = None,
        *,
        destination: str | None = None,
        before: float | None = None,
    ) -> int:
        """Delete dead letters: those named, or all that fit; return how many did."""
        with self._changing():
            return letters.purge(self._store, ids, destination=destination, before=before)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        if self.is_owned:
            raise SpoolInUse
        with _named(), self._store.transaction():
            yield


@contextmanager
def visit(path: str | os.PathLike[str], *, sealing: Sealing | None = None) -> Iterator[Visit]:
    """Open a spool file. Raises FileNotFoundError, SpoolUnavailable or ConfigurationError."""
    place = Path(path).absolute()
    if not place.exists():
        raise FileNotFoundError(str(place))
    file = files.claim(place)
    try:
        with _named():
            store = Store(place, sealing, read_only=file is None)
        try:
            yield Visit(store, is_owned=file is None)
        finally:
            store.close()
    finally:
        if file is not None:
            file.release()


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise named(error) from error
