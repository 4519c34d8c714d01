"""What the collector tells about its events over HTTP: requests, names, forms, users, the rate."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from orjson import Fragment
from starlette.routing import Route

from asyncanalytics.collector.answers import Refused, json_response
from asyncanalytics.collector.insights import LONGEST_RATE
from asyncanalytics.collector.parameters import (
    FILTERS,
    MAX_PAGE,
    PAGE,
    number,
    read_query,
)
from asyncanalytics.collector.reading import dump
from asyncanalytics.collector.sse import place
from asyncanalytics.collector.views import plain

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from asyncanalytics.collector.insights import Insights
    from asyncanalytics.collector.store import Store
    from asyncanalytics.collector.timelines import GroupSeen, Timeline

_MOST_DIGITS: Final = 18
_NAMES: Final = {"limit": number(MAX_PAGE)}
_SCHEMA: Final = {"type": str, "name": str}
_USER: Final = {**PAGE, "after": FILTERS["after"], "before": FILTERS["before"]}
_RATE: Final = {"seconds": number(LONGEST_RATE)}


def _whole(text: str) -> int:
    """Read a number of a request; 0, which none has, for text that is none."""
    is_one = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
    return int(text) if is_one else 0


class Reports:
    """The endpoints that tell what was learned."""

    def __init__(self, store: Store, insights: Insights) -> None:
        """Tell of this store."""
        self._store = store
        self._insights = insights

    def routes(self) -> list[Route]:
        """Return where each of them is found."""
        return [
            Route("/requests/{number}", self.request, methods=["GET"]),
            Route("/names", self.names, methods=["GET"]),
            Route("/schema", self.schema, methods=["GET"]),
            Route("/users/{user:path}", self.user, methods=["GET"]),
            Route("/rate", self.rate, methods=["GET"]),
        ]

    async def request(self, request: Request) -> Response:
        """Give what a request looked like, by the `batch_id` of its events."""
        read_query(request, {})
        found = self._store.request(_whole(request.path_params["number"]))
        if found is None:
            raise Refused(404, "no_such_request", "no request with this number is kept")
        return json_response(asdict(found))

    async def names(self, request: Request) -> Response:
        """Give the kinds of events, the most frequent first."""
        names = await self._insights.names(**read_query(request, _NAMES))
        return json_response({"names": [asdict(each) for each in names]})

    async def schema(self, request: Request) -> Response:
        """Give the form of one kind of event; without a name, of those that have none."""
        query = read_query(request, _SCHEMA)
        schema = await self._insights.schema(query.get("type") or None, query.get("name"))
        if schema is None:
            raise Refused(404, "no_such_events", "no events of this type and name are kept")
        return json_response(asdict(schema))

    async def user(self, request: Request) -> Response:
        """Give the timeline of one user, by any of its ids; paged as the events are."""
        query = read_query(request, _USER)
        newest_first = query.pop("order", "oldest") == "newest"
        found = await self._insights.timeline(
            request.path_params["user"], **query, newest_first=newest_first
        )
        if found is None:
            raise Refused(404, "no_such_user", "no event of a user with this id is kept")
        return json_response(_timeline(self._store, found))

    async def rate(self, request: Request) -> Response:
        """Give how many events came in each of the last seconds."""
        rate = await self._insights.rate(**read_query(request, _RATE))
        return json_response({"rate": [each._asdict() for each in rate]})


def _group(found: GroupSeen) -> dict[str, Any]:
    return {
        "group_id": found.group_id,
        "traits": Fragment(dump(found.traits)),
        "first_at": found.first_at,
        "last_at": found.last_at,
    }


def _timeline(store: Store, found: Timeline) -> dict[str, Any]:
    last = place(store, found.events[-1].position) if found.events else None
    return {
        "user": found.user,
        "ids": found.ids,
        "traits": Fragment(dump(found.traits)),
        "groups": [_group(each) for each in found.groups],
        "total": found.total,
        "events": [plain(store, each) for each in found.events],
        "next": last if found.more else None,
    }
