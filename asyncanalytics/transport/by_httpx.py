"""Requests by httpx: a pool of our own, or the user's client as it is."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from functools import lru_cache, partial
from http.cookiejar import CookieJar
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies

import httpx

from asyncanalytics.errors import ConfigurationError, MissingExtra, NoAnswer
from asyncanalytics.transport.loading import loaded, off_loop, trust
from asyncanalytics.transport.proxies import check_proxy
from asyncanalytics.transport.way import HEADERS, KEEP_ALIVE, LOOPBACK, Answer, bounded, lowered

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from asyncanalytics.settings import Sending
    from asyncanalytics.transport.way import Way

_ADDED = {"accept": "*/*", "connection": "keep-alive"}  # what httpx's own clients add
_LOOPBACK = [f"all://[{host}]" if ":" in host else f"all://{host}" for host in LOOPBACK]


async def prepare(sending: Sending, connections: int) -> Callable[[], Way]:
    """Return what makes a pool, of which it can have so many connections; or the user's client."""
    theirs = sending.http_client
    if theirs is None:
        return partial(_Own, sending, connections, await off_loop(partial(_tls, sending)))
    if theirs.is_closed:
        raise ConfigurationError("http_client is closed: give one that is open")
    await loaded()
    return partial(_Httpx, theirs, library_of(theirs))


class _Httpx:
    """A client of httpx, or of a library that is like it."""

    def __init__(self, client: Any, library: Any) -> None:
        self._client = client
        self._library = library

    async def exchange(self, url: str, headers: Mapping[str, str], content: bytes) -> Answer:
        library, trace = self._library, _Trace()
        try:
            request = self._request(url, {**HEADERS, **headers}, content, {"trace": trace})
            response = await self._client.send(
                request, stream=True, follow_redirects=False, auth=None
            )
        except (library.RemoteProtocolError, library.ReadError, library.WriteError) as error:
            # The usual end of a kept-alive connection that the server has closed meanwhile.
            raise NoAnswer(type(error).__name__, stale=trace.reused) from None
        except (library.HTTPError, library.StreamError) as error:
            raise NoAnswer(type(error).__name__) from None
        try:
            async with aclosing(response.aiter_raw()) as chunks:
                body = await bounded(chunks)
        except (library.HTTPError, library.StreamError) as error:
            raise NoAnswer(type(error).__name__) from None
        finally:
            await response.aclose()
        return Answer(response.status_code, lowered(response.headers), body)

    def _request(
        self, url: str, headers: Mapping[str, str], content: bytes, extensions: dict[str, Any]
    ) -> Any:
        """Make a request, to which a user's client adds what it has."""
        return self._client.build_request(
            "POST", url, headers=headers, content=content, extensions=extensions
        )

    async def aclose(self) -> None:
        await self._client.aclose()


class _Own(_Httpx):
    """A pool of our own."""

    def __init__(self, sending: Sending, connections: int, tls: ssl.SSLContext) -> None:
        _check_proxies(tls)
        client = httpx.AsyncClient(
            verify=tls,
            http2=sending.http2,
            limits=httpx.Limits(
                max_connections=connections,
                max_keepalive_connections=connections,
                keepalive_expiry=KEEP_ALIVE,
            ),
            cookies=_NoCookies(),
            mounts=dict.fromkeys(_LOOPBACK),
        )
        super().__init__(client, httpx)
        self._timeout = httpx.Timeout(sending.timeout, connect=sending.connect_timeout).as_dict()
        self._parsed = lru_cache(httpx.URL)

    def _request(
        self, url: str, headers: Mapping[str, str], content: bytes, extensions: dict[str, Any]
    ) -> httpx.Request:
        """Make a request without having httpx merge in what is known, which takes long."""
        return httpx.Request(
            "POST",
            self._parsed(url),
            headers={**_ADDED, **headers},
            content=content,
            extensions={"timeout": self._timeout, **extensions},
        )


class _Trace:
    """What httpcore tells of one request, by its `trace` extension."""

    __slots__ = ("_connected", "_sent", "_waited")

    def __init__(self) -> None:
        self._connected = False
        self._sent = False
        self._waited = False

    async def __call__(self, event: str, _: Mapping[str, Any]) -> None:
        if event.startswith("connection.connect_"):
            self._connected = True
        elif event.endswith(".send_request_headers.started"):
            self._sent = True
        elif event == "http11.receive_response_headers.started":
            asyncio.get_running_loop().call_soon(self._wait)
        elif event == "http11.receive_response_headers.complete" and not self._waited:
            # Whatever comes over a network takes a turn of the loop at least: this was here
            # already. Raised in here, it has httpcore close the connection.
            raise NoAnswer("an answer that came before its request", stale=self.reused)

    def _wait(self) -> None:
        self._waited = True

    @property
    def reused(self) -> bool:
        """Whether the request went out on a connection that was there before it."""
        return self._sent and not self._connected


class _NoCookies(CookieJar):
    def extract_cookies(self, response: object, request: object) -> None:
        """Keep none."""


def _check_proxies(tls: ssl.SSLContext) -> None:
    spared = getproxies().get("no", "").split(",")
    if "*" in map(str.strip, spared):
        return  # it uses none
    way_out = "correct it, or for SOCKS run pip install 'httpx[socks]'"
    for name in ("http", "https", "all"):
        check_proxy(
            name, lambda proxy: httpx.AsyncHTTPTransport(tls, proxy=proxy), "httpx", way_out
        )
    check_proxy("no", lambda _: httpx.AsyncClient(verify=tls), "httpx", "correct it")


def library_of(client: Any) -> ModuleType:
    """Return the library that a client is made of, importing only what is already there."""
    for name in ("httpx", "httpx2"):
        library = sys.modules.get(name)
        if library is not None and isinstance(client, library.AsyncClient):
            return library
    raise ConfigurationError(
        f"http_client is a {type(client).__name__}: give an httpx.AsyncClient or an "
        "httpx2.AsyncClient"
    )


def _tls(sending: Sending) -> ssl.SSLContext:
    if sending.http2:
        try:
            import_module("h2")
        except ImportError:  # it is there, and broken
            raise MissingExtra("HTTP/2", "http2") from None
    return trust()
