"""Reading events back from a collector, over its HTTP API, as any other program would.

It blocks: it is for a thread, or for a command that does nothing else. Proxies of the
environment are not used.
"""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

from asyncanalytics.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PAGE: Final = 1_000
_TIMEOUT: Final = 10.0  # seconds for one answer
_SILENCE: Final = 45.0
"""Seconds without a word, after which a stream is taken for dead: a live one speaks oftener."""

_JSON: Final = "application/json"
_STREAM: Final = "text/event-stream"

BEGINNING: Final = "AAAAAAAAAAA"
"""The place before the first event."""

Event = dict[str, Any]


class Gone(Exception):
    """The collector cannot be reached, or is no longer there."""


class NoCollector(Failure):
    """What answers does not answer as a collector does."""

    def __init__(self, path: str, status: int) -> None:
        """Say what it answered."""
        super().__init__(f"the collector answers {status} to {path}", Exit.UNPROVEN)
        self.status = status


class Told(NamedTuple):
    """What a stream says."""

    place: str
    """Where to go on from, should it end now."""
    event: Event | None
    """None where only the place has changed."""


class Reader:
    """One connection to a collector at a base URL such as `http://127.0.0.1:8010`.

    Its read token, if it has one, may be in the URL as `?token=`.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        parse_float: Callable[[str], Any] = float,
    ) -> None:
        """Connect when it is first used; `parse_float` reads the numbers with a fraction."""
        parts = urlsplit(url)
        kinds: dict[str, type[http.client.HTTPConnection]] = {
            "http": http.client.HTTPConnection,
            "https": http.client.HTTPSConnection,
        }
        if parts.scheme not in kinds or not parts.hostname:
            raise ValueError("it must begin with http:// or https://, and name a host")
        self._connection = kinds[parts.scheme](parts.hostname, parts.port, timeout=_TIMEOUT)
        self._base = parts.path.rstrip("/")
        self._where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{self._base}"
        token = token or parse_qs(parts.query).get("token", [None])[0]
        if token and not (token.isascii() and token.isprintable()):
            raise ValueError("its token must be of ASCII characters")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._parse_float = parse_float
        self._after: str | None = None

    @property
    def where(self) -> str:
        """The address without what may be secret in it."""
        return self._where

    @property
    def has_token(self) -> bool:
        """Whether it was given a token to read with."""
        return bool(self._headers)

    def close(self) -> None:
        """Close the connection; it opens again when it is used."""
        self._connection.close()

    def events(self, **filters: str) -> Iterator[Event]:
        """Yield the events that were not yielded before, in the order of their arrival.

        Raises `Failure` where it cannot be reached, and `NoCollector`.
        """
        more: str | None = "to begin with"
        while more:
            position = {} if self._after is None else {"after": self._after}
            try:
                page = self._page({"limit": str(_PAGE)} | position | filters)
            except Gone as error:
                reason = f"the collector cannot be read: {error}"
                raise Failure(reason, Exit.UNPROVEN) from None
            self._after, more = page["last"], page["next"]
            yield from page["events"]

    def newest(self, count: int, **filters: str) -> list[Event]:
        """Return so many events at most, those that arrived last, in the order of their arrival.

        Raises `Gone` where nobody is there, and `NoCollector`.
        """
        found: list[Event] = []
        position: dict[str, str] = {}
        while len(found) < count:
            size = {"order": "newest", "limit": str(min(_PAGE, count - len(found)))}
            page = self._page(size | position | filters)
            found += page["events"]
            if page["next"] is None:
                break
            position = {"before": page["next"]}
        return found[::-1]

    def stream(self, place: str | None, **filters: str) -> Iterator[Told]:
        """Yield what is told of each event that is kept, from a place on; None: from now on.

        It ends where the collector ends it. Raises `Gone` where nobody is there (any more), and
        `NoCollector`.
        """
        more = {} if place is None else {"Last-Event-ID": place}
        self.close()
        try:
            self._connection.connect()
            self._connection.sock.settimeout(_SILENCE)
            with self._answer("/stream", {"every": "1"} | filters, more, _STREAM) as response:
                yield from self._told(response)
        except (OSError, http.client.HTTPException) as error:
            raise Gone(type(error).__name__) from None
        finally:
            self.close()

    def _told(self, response: http.client.HTTPResponse) -> Iterator[Told]:
        fields: dict[bytes, bytes] = {}
        while line := response.readline():
            name, _, value = line.rstrip(b"\r\n").partition(b": ")
            if name:
                fields[name] = value
                continue
            if b"id" in fields:
                is_event = fields.get(b"event") == b"event"
                event = self._parsed(fields[b"data"]) if is_event else None
                yield Told(fields[b"id"].decode(), event)
            fields = {}

    def _page(self, query: dict[str, str]) -> Any:
        try:
            body = self._answer("/events", query, {}, _JSON).read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Gone(type(error).__name__) from None
        page = self._parsed(body)
        if not (isinstance(page, dict) and page.keys() >= {"events", "next", "last"}):
            raise NoCollector("/events", http.client.OK)
        return page

    def _parsed(self, data: bytes) -> Any:
        return json.loads(data, parse_float=self._parse_float)

    def _answer(
        self, path: str, query: dict[str, str], headers: dict[str, str], form: str
    ) -> http.client.HTTPResponse:
        address = f"{self._base}{path}?{urlencode(query)}"
        self._connection.request("GET", address, headers=self._headers | headers)
        response = self._connection.getresponse()
        is_so = response.headers.get_content_type() == form
        if response.status != http.client.OK or not is_so:
            response.close()
            self.close()
            raise NoCollector(path, response.status)
        return response
