"""Requests by aiohttp, which takes less CPU for one than httpx does (extra `aiohttp`)."""

from __future__ import annotations

import os
import selectors
from contextvars import ContextVar
from functools import lru_cache, partial
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.request import (  # type: ignore[attr-defined]
    getproxies,
    proxy_bypass_environment,
)
from weakref import WeakSet

import httpx

from asyncanalytics.errors import MissingExtra, NoAnswer
from asyncanalytics.retrying import MAX_ANSWER
from asyncanalytics.transport.loading import off_loop, trust
from asyncanalytics.transport.proxies import check_proxy, complete
from asyncanalytics.transport.way import HEADERS, KEEP_ALIVE, LOOPBACK, Answer, bounded, lowered

try:
    import aiohttp
    from yarl import URL
except ImportError:
    raise MissingExtra("aiohttp", "aiohttp") from None

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Callable, Mapping

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from asyncanalytics.settings import Sending
    from asyncanalytics.transport.way import Way

_LARGE = 1 << 20  # bytes: of more than this aiohttp wants to be given a stream, and warns
_SCHEMES = ("http", "https")
# Not the system's default: that of Linux takes a file descriptor, and there may be none left.
_Selector: Any = getattr(selectors, "PollSelector", selectors.SelectSelector)


async def prepare(sending: Sending, connections: int) -> Callable[[], Way]:
    """Return what makes a pool, of which it can have so many connections."""
    return partial(_Aiohttp, sending, connections, await off_loop(trust))


class _Aiohttp:
    """A session of aiohttp."""

    def __init__(self, sending: Sending, connections: int, tls: ssl.SSLContext) -> None:
        _check_proxies()
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
            max_line_size=MAX_ANSWER,
            max_field_size=MAX_ANSWER,
            timeout=aiohttp.ClientTimeout(
                # It cannot compute with infinity; and beyond the request's own time it is never up.
                connect=sending.connect_timeout
                if sending.connect_timeout < sending.timeout
                else None
            ),
        )
        self._target = lru_cache(partial(_target, getproxies()))

    async def exchange(self, url: str, headers: Mapping[str, str], content: bytes) -> Answer:
        where, proxy = self._target(url)
        met = _Met()
        _met.set(met)
        try:
            async with self._session.post(
                where,
                headers={**HEADERS, **headers},
                data=content if len(content) <= _LARGE else BytesIO(content),
                allow_redirects=False,
                proxy=proxy,
            ) as response:
                met.is_stale = False
                body = await bounded(response.content.iter_any())
                met.is_over = response.content.at_eof()
            return Answer(response.status, lowered(response.headers), body)
        except aiohttp.ClientError as error:
            raise NoAnswer(type(error).__name__, stale=met.is_stale) from None
        finally:
            met.hang_up()

    async def aclose(self) -> None:
        await self._session.close()


class _Met:
    """What a request has met."""

    __slots__ = ("is_over", "is_stale", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.is_stale = False
        """Whether it has a kept-alive connection, which a server may have closed meanwhile."""
        self.is_over = False
        """Whether it was answered, and all of the answer was read."""

    def hang_up(self) -> None:
        """End a connection that will not serve again, which aiohttp would first write to its end.

        A server that does not read would keep it open for ever.
        """
        if self.transport is not None and (not self.is_over or self.transport.is_closing()):
            self.transport.abort()


_met: ContextVar[_Met] = ContextVar("_met")


class _Connector(aiohttp.TCPConnector):
    """Uses no connection again on which a server has said something unasked.

    A forked child leaves its parent's alone: to close one there would take it from the epoll that
    both have, so that the parent hears nothing of it any more.
    """

    def __init__(self, **settings: Any) -> None:
        self._pid = os.getpid()
        super().__init__(**settings)
        self._known: WeakSet[ResponseHandler] = WeakSet()

    @property
    def closed(self) -> bool:
        """Whether there is nothing to close, as in a child."""
        return super().closed or os.getpid() != self._pid

    def __del__(self, *_: Any) -> None:
        if not self.closed:
            super().__del__()

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Note for the request which connection it has, and whether it had served before."""
        met = _met.get()
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol, met.transport = connection.protocol, connection.transport
            if protocol is None or protocol not in self._known:
                break
            if not protocol.should_close and not _is_readable(met.transport):
                met.is_stale = True  # if anything ends it now
                break
            connection.close()
        if protocol is not None:
            self._known.add(protocol)
        return connection


def _is_readable(transport: asyncio.Transport | None) -> bool:
    """Whether something has come that the loop has not read yet, an end included."""
    if transport is None or (sock := transport.get_extra_info("socket")) is None:
        return False
    with _Selector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(0))


def _check_proxies() -> None:
    if getproxies().get("no") == "*":
        return  # none is used
    for scheme in _SCHEMES:
        name = scheme if getproxies().get(scheme) else "all"
        check_proxy(name, _take, "aiohttp", "give one that is http:// or https://")


def _take(proxy: str) -> None:
    where = URL(proxy)
    if where.scheme not in _SCHEMES or not where.host:
        raise ValueError


def _target(proxies: Mapping[str, str], url: str) -> tuple[URL, str | None]:
    """Parse a URL, and find the proxy for it, where httpx finds them too.

    `proxy_bypass` of the standard library would look hosts up on some systems.
    """
    where = URL(str(httpx.URL(url)), encoded=True)  # as by httpx: yarl would change more of it
    proxy = proxies.get(where.scheme) or proxies.get("all")
    if (
        not proxy
        or where.host in LOOPBACK
        or proxy_bypass_environment(where.authority, dict(proxies))
    ):
        return where, None
    return where, complete(proxy)
