"""Reading events back from a collector, over its JSON API, as any other program would.

It blocks: it is for a thread. Proxies of the environment are not used.
"""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from asyncanalytics.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PAGE = 1_000
_TIMEOUT = 10.0  # seconds for one answer


class Reader:
    """One connection to a collector at a base URL such as `http://127.0.0.1:8010`."""

    def __init__(self, url: str, *, parse_float: Callable[[str], Any] = float) -> None:
        """Connect when it is first used; `parse_float` reads the numbers with a fraction."""
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=_TIMEOUT
        )
        self._parse_float = parse_float
        self._after: str | None = None

    def close(self) -> None:
        """Close the connection; it opens again when it is used."""
        self._connection.close()

    def events(self, **filters: str) -> Iterator[dict[str, Any]]:
        """Yield the events that were not yielded before, in the order of their arrival.

        Raises `Failure` where the collector does not answer as it should.
        """
        more: str | None = "to begin with"
        while more:
            position = {} if self._after is None else {"after": self._after}
            page = self._get("/events", {"limit": str(_PAGE)} | position | filters)
            self._after, more = page["last"], page["next"]
            yield from page["events"]

    def _get(self, path: str, query: dict[str, str]) -> Any:
        try:
            self._connection.request("GET", f"{path}?{urlencode(query)}")
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            reason = f"the collector cannot be read: {type(error).__name__}"
            raise Failure(reason, Exit.UNPROVEN) from None
        if response.status != http.client.OK:
            raise Failure(f"the collector answers {response.status} to {path}", Exit.UNPROVEN)
        return json.loads(body, parse_float=self._parse_float)
