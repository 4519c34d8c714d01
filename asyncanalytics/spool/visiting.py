"""A spool file seen from outside, by a command or a test.

While a process owns it, it is opened read-only and in short reads, which disturb the owner no
more than another reader of SQLite does; it is opened to be written once something is to be
changed. That is done in short transactions with a pause after each: the owner waits for one at
the most, and sees what has changed at its next. When no process owns the file, it is locked.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncanalytics.spool import files, letters
from asyncanalytics.spool.errors import named
from asyncanalytics.spool.store import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from asyncanalytics.settings import Sealing
    from asyncanalytics.spool.rows import DeadLetter, Row, Waiting

_PIECE: Final = 500  # letters that are changed in one transaction
_BREATH: Final = 0.03  # seconds for the owner, at the least, after each


class Visit:
    """One open file."""

    def __init__(self, store: Store, *, is_owned: bool) -> None:
        """Made by `visit`."""
        self.is_owned: bool = is_owned
        """Whether a running process owns the file."""
        self._store = store
        self.passed_over: int = 0
        """Rows that waited among those read, and were damaged or could not be opened."""
        self._can_change = not is_owned

    @property
    def by_destination(self) -> Mapping[str, Waiting]:
        """The figures of each destination: when the file was opened, or after one's own change."""
        return self._store.by_destination()

    @property
    def damaged(self) -> int:
        """Rows that were set aside."""
        return self._store.damaged

    def oldest(self) -> float | None:
        """Return when the call that is first in line was given to the disk; None if none waits."""
        with _named():
            return self._store.oldest()

    def read(self, destination: str, after: int = 0, *, limit: int = 100) -> list[Row]:
        """Return the next calls of a destination that wait."""
        with _named():
            found, passed_over = self._store.look(destination, after, limit)
        self.passed_over += passed_over
        return found

    def dead(
        self, after: int = 0, *, limit: int = 100, destination: str | None = None
    ) -> list[DeadLetter]:
        """Return the next dead letters."""
        with _named():
            return letters.dead(self._store, after, limit=limit, destination=destination)

    def last(self) -> int:
        """Return the highest id of a dead letter. Those of later ones are higher."""
        with _named():
            return letters.last(self._store)

    def matching(
        self,
        *,
        destination: str | None = None,
        before: float | None = None,
        until: int | None = None,
    ) -> Iterator[list[int]]:
        """Yield the ids of the dead letters that fit, some at a time.

        Where they may come back meanwhile, as retried ones may, they end: at `until`, or at the
        last of now.
        """
        after, until = 0, self.last() if until is None else until
        while piece := self._matching(after, until, destination, before):
            yield piece
            after = piece[-1]

    def retry(self, ids: Iterable[int]) -> int:
        """Let dead letters wait again, for the owner or for the next one; how many do."""
        return self._in_pieces(ids, lambda piece: letters.retry(self._store, piece))

    def purge(
        self,
        ids: Iterable[int] | None = None,
        *,
        destination: str | None = None,
        before: float | None = None,
    ) -> int:
        """Delete dead letters: those named, or all that fit; how many were."""

        def work(piece: list[int]) -> int:
            return letters.purge(self._store, piece, destination=destination, before=before)

        if ids is None:
            ids = chain.from_iterable(self.matching(destination=destination, before=before))
        return self._in_pieces(ids, work)

    def close(self) -> None:
        """Close the file."""
        self._store.close()

    def _matching(
        self, after: int, until: int, destination: str | None, before: float | None
    ) -> list[int]:
        with _named():
            return letters.matching(
                self._store, after, until, limit=_PIECE, destination=destination, before=before
            )

    def _in_pieces(self, ids: Iterable[int], work: Callable[[list[int]], int]) -> int:
        changed, left = 0, iter(ids)
        while piece := list(islice(left, _PIECE)):
            began = time.monotonic()
            with _named():
                changed += self._change(piece, work)
            if self.is_owned:
                time.sleep(max(_BREATH, time.monotonic() - began))
        return changed

    def _change(self, piece: list[int], work: Callable[[list[int]], int]) -> int:
        if not self._can_change:
            read_only, self._store = self._store, _shared(self._store)
            read_only.close()
            self._can_change = True
        with self._store.transaction():
            return work(piece)


def _shared(store: Store) -> Store:
    shared = Store(store.path, store.sealing, access="share")
    shared.shows_sealed = store.shows_sealed
    return shared


@contextmanager
def visit(path: str | os.PathLike[str], *, sealing: Sealing | None = None) -> Iterator[Visit]:
    """Open a spool file. Raises FileNotFoundError, SpoolUnavailable or ConfigurationError."""
    place = Path(path).absolute()
    if not place.exists():
        raise FileNotFoundError(str(place))
    with _named():
        file = files.claim(place)
    try:
        with _named():
            where = place if file is None else file.path  # another one after a fork
            store = Store(where, sealing, access="own" if file else "read")
            store.shows_sealed = True
        visited = Visit(store, is_owned=file is None)
        try:
            yield visited
        finally:
            visited.close()
    finally:
        if file is not None:
            file.release()


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise named(error) from error
