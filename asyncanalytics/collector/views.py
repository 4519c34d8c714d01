"""What the collector shows over HTTP: the events, the figures, and the faults that are set.

Everything is JSON. A parameter that is not known is refused, so that a misspelt filter never
shows, or deletes, more than was meant.
"""

from __future__ import annotations

import contextlib
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.routing import Route

from asyncanalytics.collector.answers import Refused, json_response
from asyncanalytics.collector.faults import Fault, Faults
from asyncanalytics.collector.parameters import (
    FILTERS,
    MAX_PAGE,
    PAGE,
    one_of,
    read_filter,
    read_query,
)
from asyncanalytics.collector.reading import Caps, parse, read_body
from asyncanalytics.collector.records import Filter
from asyncanalytics.collector.sse import RETRY, EventSource, frame, place, resume_point
from asyncanalytics.collector.stream import MOST

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from starlette.requests import Request
    from starlette.responses import Response

    from asyncanalytics.collector.store import Found, Store
    from asyncanalytics.collector.stream import Piece, Stream

HEALTH: Final = "/healthz"
_PAGE: Final = 100
_STREAM: Final = {
    **{name: read for name, read in FILTERS.items() if name != "before"},  # it has no end
    "every": one_of("0", "1"),
}


class Views:
    """The endpoints that read and rule."""

    def __init__(self, store: Store, stream: Stream, faults: Faults, caps: Caps) -> None:
        """Show this store and these faults."""
        self._store = store
        self._stream = stream
        self._faults = faults
        self._caps = caps

    def routes(self) -> list[Route]:
        """Return where each of them is found."""
        return [
            Route("/events", self.events, methods=["GET"]),
            Route("/events", self.delete_events, methods=["DELETE"]),
            Route("/events/{message_id:path}", self.event, methods=["GET"]),
            Route("/stream", self.stream, methods=["GET"]),
            Route("/stats", self.stats, methods=["GET"]),
            Route("/faults", self.faults, methods=["GET"]),
            Route("/faults", self.add_fault, methods=["POST"]),
            Route("/faults", self.delete_faults, methods=["DELETE"]),
            Route(HEALTH, self.healthz, methods=["GET"]),
        ]

    async def events(self, request: Request) -> Response:
        """Give a page of events; `next` is null on the last one, `last` is where it ended.

        They are the cursors to go on from: with `after`, or with `before` if the order is
        `newest`.
        """
        query = read_query(request, {**FILTERS, **PAGE})
        limit, newest_first = query.pop("limit", _PAGE), query.pop("order", "") == "newest"
        where = Filter(**query)
        page = await self._store.search(where, limit=limit, newest_first=newest_first)
        given = where.before if newest_first else where.after
        end = page.events[-1].position if page.events else given
        last = None if end is None else place(self._store, end)
        events = [plain(self._store, each) for each in page.events]
        return json_response({"events": events, "next": last if page.more else None, "last": last})

    async def event(self, request: Request) -> Response:
        """Give the arrivals of one messageId, the oldest first; 404 where there is none.

        `seen` counts all of them, also where they do not fit into one answer.
        """
        read_query(request, {})
        message_id = request.path_params["message_id"]
        where = Filter(message_id=message_id)
        page = await self._store.search(where, limit=MAX_PAGE)
        if not page.events:
            raise Refused(404, "no_such_event", "no event with this messageId is kept")
        seen = len(page.events)
        if page.more:
            rest = self._store.stretches(replace(where, after=page.events[-1].position))
            seen += sum([self._store.count(each) async for each in rest])
        arrivals = [plain(self._store, each) for each in page.events]
        return json_response({"message_id": message_id, "seen": seen, "events": arrivals})

    async def delete_events(self, request: Request) -> Response:
        """Forget the events that the filters mean, or all."""
        return json_response({"deleted": await self._store.forget(read_filter(request))})

    async def stream(self, request: Request) -> Response:
        """Give events as they are kept, as server-sent events.

        With `every=1` all of them, as fast as the client reads; else a choice, and how many
        were left out.
        """
        query = read_query(request, _STREAM)
        most = None if query.pop("every", "0") == "1" else MOST
        after = resume_point(request, self._store, query.pop("after", None))
        return EventSource(self._frames(Filter(**query), after, most))

    async def _frames(
        self, where: Filter, after: int | None, most: int | None
    ) -> AsyncGenerator[str]:
        yield frame(retry=RETRY)
        pieces = self._stream.follow(where, after=after, most=most)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                yield "".join(self._piece_frames(piece))

    def _piece_frames(self, piece: Piece) -> Iterator[str]:
        for each in piece.events:
            data = orjson.dumps(plain(self._store, each)).decode()
            yield frame(data, event="event", id=place(self._store, each.position))
        last = place(self._store, piece.last)
        if piece.skipped:
            yield frame(str(piece.skipped), event="skipped", id=last)
        else:
            yield frame(id=last, comment=None if piece.events else "nothing new")

    async def stats(self, request: Request) -> Response:
        """Give the figures, of all or of what the filters mean."""
        return json_response((await self._store.figures(read_filter(request))).as_dict())

    async def faults(self, _: Request) -> Response:
        """Give the faults that are set."""
        return json_response({"faults": self._faults.as_list()})

    async def add_fault(self, request: Request) -> Response:
        """Set one more fault: an object with the names of `Fault`."""
        self._faults.add(_fault(parse((await read_body(request, self._caps)).data).value))
        return json_response({"faults": self._faults.as_list()}, 201)

    async def delete_faults(self, _: Request) -> Response:
        """Behave again."""
        self._faults.clear()
        return json_response({"faults": []})

    async def healthz(self, _: Request) -> Response:
        """Say that the collector is there."""
        return json_response({"status": "ok"})


def plain(store: Store, found: Found) -> dict[str, Any]:
    """Return an event as it is shown: ready for JSON."""
    columns = found.columns
    return {
        "cursor": place(store, found.position),
        **columns,
        "payload": orjson.Fragment(found.payload),
    }


def _fault(settings: Any) -> Fault:
    if not isinstance(settings, dict):
        raise Refused(400, "bad_fault", "a fault must be a JSON object")
    names = {each.name for each in fields(Fault)}
    if not settings.keys() <= names:
        raise Refused(400, "bad_fault", f"a fault may have {', '.join(sorted(names))}")
    try:
        return Fault(**settings)
    except ValueError as error:
        raise Refused(400, "bad_fault", str(error)) from None
