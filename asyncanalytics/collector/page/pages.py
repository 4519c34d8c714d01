"""The pages and what feeds them: each is one route, and reads only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.routing import Route

from asyncanalytics.collector.answers import json_response
from asyncanalytics.collector.page.assets import Assets
from asyncanalytics.collector.page.feed import Feed
from asyncanalytics.collector.page.rendering import Templates
from asyncanalytics.collector.page.rows import Row, made_in, newest_first
from asyncanalytics.collector.page.tree import tree
from asyncanalytics.collector.page.wanted import Wanted, number
from asyncanalytics.collector.records import Filter
from asyncanalytics.collector.schema import PLACE_BITS
from asyncanalytics.collector.sse import EventSource

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from asyncanalytics.collector.insights import Insights
    from asyncanalytics.collector.store import Page, RefusedRequest, Store
    from asyncanalytics.collector.stream import Stream

_PAGE: Final = 100
# Seconds for one answer. The last stretch may take longer, and so may the last row.
_LOOKING: Final = 0.07
_MAKING: Final = 0.03
_SECONDS: Final = 120
_CALLS: Final = ("identify", "track", "page", "screen", "group", "alias")


class Pages:
    """The live page and the pages about one event, request, user, name and schema."""

    def __init__(self, store: Store, stream: Stream, insights: Insights) -> None:
        """Show what this store has, what arrives in it, and what is learned from it."""
        self._store = store
        self._insights = insights
        self._assets = Assets()
        self._templates = Templates(self._assets)
        self._feed = Feed(store, stream, self._templates)

    def routes(self) -> list[Route]:
        """Return where each of them is found."""
        return [
            Route("/", self.live, methods=["GET"]),
            Route("/page/stream", self.stream, methods=["GET"]),
            Route("/page/rate", self.rate, methods=["GET"]),
            Route("/page/events/{position}", self.event, methods=["GET"]),
            Route("/page/requests/{number}", self.request, methods=["GET"]),
            Route("/page/names", self.names, methods=["GET"]),
            Route("/page/schema", self.schema, methods=["GET"]),
            Route("/page/users", self.user, methods=["GET"]),
            self._assets.route(),
        ]

    def open_paths(self) -> list[str]:
        """Return what the page that asks for the token consists of."""
        return [self._assets.address(each) for each in ("icon.svg", "page.css", "events.css")]

    def asking(self, is_wrong: bool) -> Response:  # noqa: FBT001 - a callback's only argument
        """Ask for the read token; nothing of the request is in the answer."""
        return self._templates.page("asking", status=401, is_wrong=is_wrong)

    async def live(self, request: Request) -> Response:
        """Show the events that are wanted, the newest first, and then those that come.

        Where there was not the time to find a page of them, it has what was found, and the
        address that goes on from there.
        """
        wanted = Wanted.read(request.query_params)
        shown = number(request.query_params.get("shown", ""))  # by those that this one goes on from
        most = max(1, _PAGE - shown)
        last = self._store.last  # before the search: what comes during it is sent afterwards
        after = self._feed.place(last)
        page = await self._store.search(
            wanted.filter(), limit=most, newest_first=True, max_seconds=_LOOKING
        )
        found = newest_first(page.events, self._refused(wanted, page, last))
        rows = made_in(_MAKING, found[:most])
        reached = rows[-1].position if len(rows) < len(found) else page.reached
        return self._templates.page(
            "live",
            place="Live",
            wanted=wanted,
            calls=_CALLS,
            events=rows,
            shown=shown + len(rows),
            most=_PAGE,
            reached=reached,
            reached_at=reached and self._store.received_at(reached),
            after=after,
            base=str(request.base_url).rstrip("/"),
        )

    def _refused(self, wanted: Wanted, page: Page, last: int) -> list[RefusedRequest]:
        """Find the refused requests that come before the end of a page."""
        if not wanted.refusals:
            return []
        after = page.reached or 0
        return self._store.refused(after, wanted.before or last + 1, limit=_PAGE + 1)

    async def stream(self, request: Request) -> Response:
        """Send rows as they come: of the events that are wanted, from the reader's place on."""
        query = request.query_params
        # A browser that comes back by itself asks for the old address, and says where it was.
        place = request.headers.get("last-event-id") or query.get("after", "")
        return EventSource(self._feed.messages(Wanted.read(query), place))

    async def rate(self, _: Request) -> Response:
        """Give the chart's figures, second by second."""
        seconds, good, bad = zip(*await self._insights.rate(_SECONDS), strict=True)
        return json_response({"seconds": seconds, "good": good, "bad": bad})

    async def event(self, request: Request) -> Response:
        """Show one event whole."""
        found = self._store.at(number(request.path_params["position"]))
        if found is None:
            return self._missing("There is no such event.")
        row = Row(found)
        return self._templates.page("event", place="", event=row, tree=tree(row.payload))

    async def request(self, request: Request) -> Response:
        """Show what a request looked like, and what came in it."""
        found = self._store.request(number(request.path_params["number"]))
        if found is None:
            return self._missing("There is no such request.")
        first = found.number << PLACE_BITS
        where = Filter(after=first - 1, before=first + (1 << PLACE_BITS))
        events = [Row(each) for each in self._store.find(where, limit=_PAGE)]
        return self._templates.page("request", place="", request=found, events=events)

    async def names(self, _: Request) -> Response:
        """Count the events by name."""
        names = await self._insights.names()
        return self._templates.page("names", place="Names", names=names)

    async def schema(self, request: Request) -> Response:
        """Show the fields of the events of one name."""
        query = request.query_params
        schema = await self._insights.schema(query.get("call"), query.get("event"))
        if schema is None:
            return self._missing("There is no event of this name.")
        fields = sorted(schema.fields, key=lambda each: _weight(each.path))
        return self._templates.page("schema", place="Names", schema=schema, fields=fields)

    async def user(self, request: Request) -> Response:
        """Show all that is known of one user."""
        asked = request.query_params.get("id", "")
        before = number(request.query_params.get("before", "")) or None
        timeline = asked and await self._insights.timeline(
            asked, limit=_PAGE, before=before, newest_first=True
        )
        if not timeline:
            status = 404 if asked else 200
            return self._templates.page(
                "user", status=status, place="Users", asked=asked, timeline=None
            )
        return self._templates.page(
            "user",
            place="Users",
            asked=asked,
            timeline=timeline,
            traits=tree(timeline.traits),
            most=_PAGE,
            events=[Row(each) for each in timeline.events],
            older=timeline.events[-1].position if timeline.more else None,
        )

    def _missing(self, what: str) -> Response:
        return self._templates.page("missing", status=404, place="", what=what)


def _weight(path: str) -> int:
    """Put first what the caller said, and last what the SDK adds by itself."""
    part = path.partition(".")[0]
    return {"properties": 0, "traits": 0, "context": 2, "integrations": 2}.get(part, 1)
