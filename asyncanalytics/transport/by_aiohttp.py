"""Requests by aiohttp, which takes less CPU for one than httpx does (extra `aiohttp`)."""

from __future__ import annotations

from functools import lru_cache, partial
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies, proxy_bypass

from asyncanalytics.errors import MissingExtra, NoAnswer
from asyncanalytics.retrying import MAX_ANSWER
from asyncanalytics.transport.loading import off_loop, trust
from asyncanalytics.transport.way import HEADERS, KEEP_ALIVE, LOOPBACK, Answer, lowered

try:
    import aiohttp
    from yarl import URL
except ImportError:
    raise MissingExtra("aiohttp", "aiohttp") from None

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from types import SimpleNamespace

    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from asyncanalytics.settings import Sending
    from asyncanalytics.transport.way import Way

_LARGE = 1 << 20  # bytes: of more than this aiohttp wants to be given a stream, and warns
_PROXIES = ("http", "https")


async def prepare(sending: Sending, connections: int) -> Callable[[], Way]:
    """Return what makes a pool, of which it can have so many connections."""
    return partial(_Aiohttp, sending, connections, await off_loop(trust))


class _Aiohttp:
    """A session of aiohttp."""

    def __init__(self, sending: Sending, connections: int, tls: ssl.SSLContext) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note)
        connector = _Connector(
            ssl=tls,
            limit=connections,
            keepalive_timeout=KEEP_ALIVE,
            # The loop's, whatever else is installed: forks wait for its lookups.
            resolver=aiohttp.ThreadedResolver(),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(connect=sending.connect_timeout),
            trace_configs=[trace],
        )
        self._target = lru_cache(_target)

    async def exchange(self, url: str, headers: Mapping[str, str], content: bytes) -> Answer:
        where, proxy = self._target(url)
        met = _Met()
        try:
            async with self._session.post(
                where,
                headers={**HEADERS, **headers},
                data=content if len(content) <= _LARGE else BytesIO(content),
                allow_redirects=False,
                proxy=proxy,
                trace_request_ctx=met,
            ) as response:
                met.is_answered = True
                # What is not read of it has its connection closed.
                body = await _read(response.content)
                return Answer(response.status, lowered(response.headers), body)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            # The usual end of a kept-alive connection that the server has closed meanwhile.
            stale = met.is_reused and not met.is_answered
            raise NoAnswer(type(error).__name__, stale=stale) from None
        except aiohttp.ClientError as error:
            raise NoAnswer(type(error).__name__) from None

    async def aclose(self) -> None:
        await self._session.close()


class _Met:
    """What a request has met."""

    __slots__ = ("is_answered", "is_reused")

    def __init__(self) -> None:
        self.is_reused = False
        self.is_answered = False


async def _note(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
    context.trace_request_ctx.is_reused = True


class _Connector(aiohttp.TCPConnector):
    """Uses no connection again on which a server has said something unasked."""

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or not connection.protocol.should_close:
                return connection
            connection.close()


async def _read(content: Any) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) >= MAX_ANSWER:
            break
    return bytes(body[:MAX_ANSWER])


def _target(url: str) -> tuple[URL, str | None]:
    """Parse a URL, and find the proxy that the environment has for it."""
    where = URL(url)
    if where.host in LOOPBACK or proxy_bypass(where.authority):
        return where, None
    found = getproxies()
    proxy = found.get(where.scheme) or found.get("all")
    if not proxy:
        return where, None
    scheme, separator, _ = proxy.partition("://")
    if not separator:
        return where, f"http://{proxy}"
    if scheme not in _PROXIES:
        raise NoAnswer(f"aiohttp knows no {scheme} proxies, and the environment names one")
    return where, proxy
