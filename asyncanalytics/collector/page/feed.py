"""The rows of the live page as server-sent events: what was kept, from where the reader is.

A message's id is a place in the order of all events of this very store. So a reader who comes
back misses nothing and gets nothing twice, and one whose place is in another store (a collector
in memory begins anew with each start) is told to begin anew as well. So is one who shows what was
deleted since: a place is good for as long as nothing is, and a file keeps count of it.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import orjson

from asyncanalytics.collector.page.rows import newest_first
from asyncanalytics.collector.parameters import position
from asyncanalytics.collector.sse import RETRY, frame, place

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from asyncanalytics.collector.page.rendering import Templates
    from asyncanalytics.collector.page.wanted import Wanted
    from asyncanalytics.collector.store import Store
    from asyncanalytics.collector.stream import Piece, Stream

_ANEW: Final = frame("elsewhere", event="reset")


class Feed:
    """Makes messages of what is followed."""

    def __init__(self, store: Store, stream: Stream, templates: Templates) -> None:
        """Show rows of this store as these templates have them."""
        self._store = store
        self._stream = stream
        self._templates = templates

    def place(self, at: int) -> str:
        """Write a position down for a reader."""
        return f"{place(self._store, at)}.{self._store.erased}"

    def _position(self, text: str) -> int | None:
        """Read what was written down; None where it is not of this store as it is now."""
        try:
            at = position(text.partition(".")[0])
        except ValueError:
            return None
        return at if text == self.place(at) else None

    async def messages(self, wanted: Wanted, after: str) -> AsyncGenerator[str]:
        """Yield messages for a reader who is at a place, until one of the two goes away."""
        yield frame(retry=RETRY)
        at, erased = self._position(after), self._store.erased
        if at is None:
            yield _ANEW
            return
        pieces = self._stream.follow(wanted.filter(), after=at, refused=wanted.refusals)
        async with aclosing(pieces):
            async for piece in pieces:
                if erased != self._store.erased:
                    yield _ANEW
                    return
                yield self._message(piece)

    def _message(self, piece: Piece) -> str:
        rows = newest_first(piece.events, piece.refused)
        html = self._templates.rows(rows)
        data = {"html": html, "events": len(rows), "skipped": piece.skipped}
        return frame(orjson.dumps(data).decode(), event="rows", id=self.place(piece.last))
