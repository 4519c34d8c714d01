"""Following what is kept, as it is kept: for pages, terminals and whoever else looks on.

A reader asks for the next piece when it has done with the last one. Nothing is put aside for it:
what came meanwhile is read back from the store. So a slow reader holds up nobody and costs no
memory, and one that goes away leaves nothing behind. What it was sent and what it was told that
was skipped is exactly what was kept, in the order in which it was kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Final

from asyncanalytics.collector.bell import Bell
from asyncanalytics.collector.records import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncanalytics.collector.records import Filter
    from asyncanalytics.collector.store import Found, RefusedRequest, Store

MOST: Final = 40
"""Events in a piece at most, unless told otherwise."""
EVERY: Final = 0.25
"""Seconds between two pieces, unless told otherwise."""
IDLE: Final = 15.0
"""Seconds after which a reader without news gets an empty piece, unless told otherwise."""

_PIECE: Final = 500  # events in a piece where none is skipped
_PIECE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """What was kept between the last piece and this one."""

    events: list[Found]
    """In the order of their arrival."""
    skipped: int
    """How many more the filter means, which are left out because there were too many."""
    last: int
    """Where it ends: whoever follows on after this position misses nothing and gets nothing twice.

    It grows also where the filter means nothing of what was kept."""
    refused: list[RefusedRequest] = field(default_factory=list)
    """Where it was asked for: the last of the requests that were refused meanwhile."""

    @property
    def has_news(self) -> bool:
        """Whether it tells of anything."""
        return bool(self.events or self.skipped or self.refused)


class Stream:
    """The events of a store as they are kept."""

    def __init__(self, store: Store) -> None:
        """Follow this store."""
        self._store = store
        self._closing = Bell()
        self._closings = 0

    def close(self) -> None:
        """End those that follow now, each after what was kept until now."""
        self._closings += 1
        self._closing.ring()
        self._store.bell.ring()

    async def follow(
        self,
        where: Filter = EVERYTHING,
        *,
        after: int | None = None,
        most: int | None = MOST,
        every: float = EVERY,
        idle: float = IDLE,
        refused: bool = False,
    ) -> AsyncGenerator[Piece]:
        """Yield pieces until the stream is closed.

        - `after`: the position to begin after; None for what is kept from now on. One that this
          store cannot have given, since it is another's, stands for the beginning.
        - `most`: events in a piece at most; of more an even choice is sent and the rest is
          counted as skipped. None sends every event.
        - `every`: seconds from one piece to the next at least; of no effect where all are sent.
        - `idle`: seconds after which an empty piece is yielded where there is no news.
        - `refused`: whether the requests that are refused as a whole are told of as well.

        The first piece comes at once, is empty, and tells where it begins. Where events are
        deleted a piece comes too, though it may have no news.
        """
        closings, position, erased = self._closings, self._start(after), self._store.erased
        yield Piece([], 0, position)
        told = monotonic()
        while True:
            closing = await self._news(position, closings, erased, told + idle - monotonic())
            piece = await self._piece(where, position, most)
            if refused:
                piece.refused.extend(self._store.refused(position, piece.last + 1, limit=MOST))
            position = piece.last
            if piece.has_news or erased != self._store.erased or monotonic() >= told + idle:
                erased = self._store.erased
                yield piece
                told = monotonic()
            if closing and position >= self._store.last:
                return
            if most is not None:
                await self._closing.until(lambda: closings != self._closings, every)

    def _start(self, after: int | None) -> int:
        if after is None:
            return self._store.last
        return after if after <= self._store.last else 0

    async def _news(self, position: int, closings: int, erased: int, seconds: float) -> bool:
        """Wait for what comes or goes, for the end or for the time; tell whether it is the end."""
        store = self._store

        def is_news() -> bool:
            return store.last > position or store.erased != erased or closings != self._closings

        await store.bell.until(is_news, max(0.0, seconds))
        return closings != self._closings

    async def _piece(self, where: Filter, after: int, most: int | None) -> Piece:
        until = self._store.last
        where = replace(where, after=after, before=until + 1)
        if most is None:
            page = await self._store.search(where, limit=_PIECE, max_bytes=_PIECE_BYTES)
            return Piece(page.events, 0, page.events[-1].position if page.more else until)
        chosen = _Sample(most)
        async for stretch in self._store.stretches(where):
            chosen.add(self._store.positions(stretch))
        events = self._read(chosen.positions())
        return Piece(events, chosen.seen - len(events), until)

    def _read(self, positions: list[int]) -> list[Found]:
        """Read events, up to the bytes that a piece may have; one at least."""
        events: list[Found] = []
        size = 0
        for each in filter(None, map(self._store.at, positions)):
            size += len(each.payload)
            if events and size > _PIECE_BYTES:
                break
            events.append(each)
        return events


class _Sample:
    """An even choice of so many out of a row whose length is not known before its end."""

    def __init__(self, most: int) -> None:
        self.seen = 0
        self._most = most
        self._stride = 1
        self._chosen: list[int] = []

    def add(self, positions: list[int]) -> None:
        """Go on with these."""
        skip = -self.seen % self._stride
        self._chosen += positions[skip :: self._stride]
        self.seen += len(positions)
        while len(self._chosen) > 2 * self._most:
            self._chosen = self._chosen[::2]
            self._stride *= 2

    def positions(self) -> list[int]:
        """Return the choice, in order."""
        count = len(self._chosen)
        if count <= self._most:
            return self._chosen
        return [self._chosen[each * count // self._most] for each in range(self._most)]
