"""What turned up in a file: rows that wait there, and that its owner has neither put there nor met.

Numbers only grow, whoever adds rows. So what is above the highest number that the owner knows is
news to it, once; and where there is none, nothing has to be counted.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncanalytics.spool.store import Store


class News:
    """What an owner knows of its rows, whichever file they are in. For one thread at a time."""

    def __init__(self) -> None:
        """Know nothing."""
        self.own_ruins: set[Path] = set()
        """Files that were the owner's: where one could not be salvaged at once, it is adopted."""
        self._known = 0  # the highest number of those that are known
        self._kept: Counter[str] = Counter()  # under numbers that are known, and yet to be told

    def since_known(self, store: Store) -> dict[str, int]:
        """Count what the owner does not know, by destination."""
        found = self.since(store, self._known)
        return dict(self._kept + Counter(found)) if self._kept else found

    def since(self, store: Store, number: int) -> dict[str, int]:
        """Count what waits above a number, and below the store's next one."""
        if number + 1 >= store.next_seq:
            return {}
        if not number:
            return {
                name: each.events for name, each in store.by_destination().items() if each.events
            }
        return store.count(number + 1, store.next_seq - 1)

    def is_known(self, store: Store) -> None:
        """Take everything as known: the owner was told of it, or has put it there."""
        self._known = store.next_seq - 1
        self._kept.clear()

    @contextmanager
    def no_news(self, store: Store) -> Iterator[None]:
        """Take what comes within as known: rows of the owner's that come again, out of a ruin.

        Those that keep a number which it did not know stay unknown.
        """
        below = store.next_seq
        try:
            yield
        finally:  # what fails in the middle may have brought some
            if self._known:
                self._kept.update(store.count(self._known + 1, below - 1))
                self._known = store.next_seq - 1
