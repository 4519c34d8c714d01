"""What a pool of connections is to the transport, whichever library it is of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from asyncanalytics._version import __version__
from asyncanalytics.retrying import MAX_ANSWER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

KEEP_ALIVE: Final = 55.0  # seconds: load balancers commonly close idle connections after 60

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
"""The environment's proxies are for other hosts than this machine."""

HEADERS: Final = {"accept-encoding": "identity", "user-agent": f"asyncanalytics/{__version__}"}
"""What a request says unless its maker says otherwise."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the headers' names are in lower case, the body may be cut."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Way(Protocol):
    """A pool of connections."""

    async def exchange(self, url: str, headers: Mapping[str, str], content: bytes) -> Answer:
        """Post once, or raise `NoAnswer`, or what the library should not have let through."""

    async def aclose(self) -> None:
        """Close its connections; the caller has ended the requests under way before."""


async def bounded(chunks: AsyncIterator[bytes]) -> bytes:
    """Read so much of an answer's body as is taken."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) >= MAX_ANSWER:
            break
    return bytes(body[:MAX_ANSWER])


def lowered(headers: Mapping[str, str]) -> dict[str, str]:
    """Name an answer's headers in lower case."""
    return {name.lower(): value for name, value in headers.items()}
