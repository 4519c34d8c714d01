"""Server-sent events: their form, and an answer that goes on until one of both ends it."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final

from starlette.responses import Response, StreamingResponse

from asyncanalytics.collector.answers import Refused
from asyncanalytics.collector.parameters import cursor, position

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from asyncanalytics.collector.store import Store

RETRY: Final = 1_000
"""Milliseconds after which a browser connects again."""
_LINE_END: Final = re.compile(r"\r\n|\r|\n")


def frame(
    data: str | None = None,
    *,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the format's name
    retry: int | None = None,
    comment: str | None = None,
) -> str:
    """Write one event of a stream. Without data it is none, and only moves the reader's id."""
    lines = [] if comment is None else [f": {comment}"]
    lines += [f"{name}: {value}" for name, value in (("event", event), ("id", id)) if value]
    lines += [] if retry is None else [f"retry: {retry}"]
    lines += [] if data is None else [f"data: {line}" for line in _LINE_END.split(data)]
    return "\n".join([*lines, "", ""])


class EventSource(StreamingResponse):
    """An answer of server-sent events: text that is sent as it comes, until the client is gone."""

    media_type = "text/event-stream"

    def __init__(self, chunks: AsyncGenerator[str]) -> None:
        """Send these; they are closed at the end, however that comes."""
        super().__init__(chunks)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and notice at once when the client is gone."""
        if scope["method"] == "HEAD":  # which ends with the headers, though the stream would not
            await self._chunks.aclose()
            await Response(headers=dict(self.headers))(scope, receive, send)
            return
        # Under later versions a client that is gone is noticed only when something is sent.
        asgi = {**scope.get("asgi", {}), "spec_version": "2.3"}
        async with contextlib.aclosing(self._chunks):
            await super().__call__({**scope, "asgi": asgi}, receive, send)


def place(store: Store, at: int) -> str:
    """Write a position for a reader: with the mark of the store whose position it is."""
    return f"{cursor(at)}.{store.mark}"


def resume_point(request: Request, store: Store, after: int | None = None) -> int | None:
    """Return the position to follow on after: that of Last-Event-ID before any other.

    A reader who comes from another store (a collector in memory begins anew with each start)
    begins at the beginning: all of this one is new to it.
    """
    text = request.headers.get("last-event-id")
    if not text:
        return after
    try:
        at = position(text)
    except ValueError:
        raise Refused(400, "bad_parameter", "Last-Event-ID must be an id of this stream") from None
    return at if text.partition(".")[2] in ("", store.mark) else 0
