"""Bytes out, answer in: the only room that knows httpx.

Promises:
- One pool for all destinations of a client, made at start, off the event loop where it blocks.
- What httpx leaves for its first client and its first request is imported where no loop waits
  for it: with the first client that is made outside of one, or in a thread as one starts.
- A redirect is never followed, and at most `MAX_ANSWER` bytes of an answer are read, as they came
  (nothing is inflated).
- Every way in which a request can fail is a `NoAnswer`, what a user's own client raises included;
  nothing else comes out but cancellation.
- A request that outlasts its total time is cancelled, and its pool retires: httpx 0.28 can leave
  a connection of a cancelled request taken for ever, so a fresh pool takes over.
- What a server said beyond an answer is not taken for the answer to the next request.
- The own pool keeps no cookies: what an endpoint sets would only grow, and travel with the key.
- What fails shows neither a request's headers nor its content in the frames from here on down.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import Future
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from http.cookiejar import CookieJar
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import anyio
import h11  # noqa: F401 - a part of what `load` imports, so that a loop notices less of it
import httpx

from asyncanalytics import forks
from asyncanalytics._version import __version__
from asyncanalytics.errors import ConfigurationError, MissingExtra, NoAnswer, describe
from asyncanalytics.retrying import MAX_ANSWER
from asyncanalytics.secret import Unpicklable, stripped

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType
    from typing import TypeVar

    from asyncanalytics.settings import Sending

    Made = TypeVar("Made")

_KEEP_ALIVE = 55.0  # seconds: load balancers commonly close idle connections after 60
_CLOSE_WITHIN = 1.0  # seconds

# The environment's proxies are for other hosts than this machine.
_LOOPBACK = ("all://localhost", "all://127.0.0.1", "all://[::1]")

# What a request says unless its maker says otherwise, and what httpx's own clients add.
_HEADERS = {"accept-encoding": "identity", "user-agent": f"asyncanalytics/{__version__}"}
_ADDED = {"accept": "*/*", "connection": "keep-alive"}

# What httpx lets through: sockets, TLS, and a pool that its owner has closed.
_LET_THROUGH = (OSError, RuntimeError, anyio.BrokenResourceError, anyio.ClosedResourceError)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the headers' names are in lower case, the body may be cut."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(slots=True)
class _Pool:
    client: Any
    requests: int = 0
    retired: bool = False


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


class Transport(Unpicklable):
    """The pool that a client's destinations share."""

    def __init__(self, sending: Sending, *, connections: int) -> None:
        """Take the settings, and how many requests may be under way at a time in all."""
        if asyncio._get_running_loop() is None:  # noqa: SLF001 - documented, as low-level
            load()
        self._sending = sending
        self._connections = connections
        self._own = sending.http_client is None
        self._library: Any = httpx if self._own else _library_of(sending.http_client)
        self._pool = _Pool(sending.http_client)
        self._tls: ssl.SSLContext | None = None
        self._timeout = httpx.Timeout(sending.timeout, connect=sending.connect_timeout).as_dict()
        self._parsed = lru_cache(httpx.URL)

    async def open(self) -> None:
        """Make the pool. What would block the loop, reading certificates, runs in a thread."""
        if self._own:
            self._tls = await asyncio.wrap_future(_in_thread(_tls))
            if self._sending.http2:
                _import_http2()
            self._pool = self._make_pool()
        elif self._pool.client.is_closed:
            raise ConfigurationError("http_client is closed: give one that is open")
        else:
            await loaded()

    async def post(self, url: str, headers: Mapping[str, str], content: bytes) -> Answer:
        """Send one request and return its answer, or raise `NoAnswer`.

        Names of headers are in lower case, here and in the answer.
        """
        pool = self._pool
        pool.requests += 1
        try:
            async with asyncio.timeout(self._sending.timeout):
                return await self._exchange(pool.client, url, headers, content)
        except NoAnswer as error:
            held: list[BaseException] = [error]
        except TimeoutError:
            self._retire(pool)
            held = [NoAnswer(f"no whole answer within {self._sending.timeout:g} s")]
        except (self._library.HTTPError, self._library.StreamError, *_LET_THROUGH) as error:
            held = [NoAnswer(type(error).__name__)]
        except Exception as error:  # noqa: BLE001 - the hooks and transports of a user's own client
            held = [NoAnswer(f"its own client raised {describe(error)}")]
        except BaseException as error:  # noqa: BLE001 - raised below, without what was sent
            held = [error]
        finally:
            pool.requests -= 1
            if pool.retired and not pool.requests:
                await _close(pool)
        del headers, content
        raise stripped(held)

    async def aclose(self) -> None:
        """Close the pool, unless it is the user's own."""
        if self._own and self._pool.client is not None:
            await _close(self._pool)

    def _retire(self, pool: _Pool) -> None:
        """Let a fresh pool take over; the old one closes when its last request ends."""
        if self._own and pool is self._pool:
            pool.retired = True
            self._pool = self._make_pool()

    async def _exchange(
        self, client: Any, url: str, headers: Mapping[str, str], content: bytes
    ) -> Answer:
        library, trace = self._library, _Trace()
        request = self._request(client, url, headers, content, trace)
        try:
            response = await client.send(request, stream=True, follow_redirects=False, auth=None)
        except (library.RemoteProtocolError, library.ReadError, library.WriteError) as error:
            # The usual end of a kept-alive connection that the server has closed meanwhile.
            raise NoAnswer(type(error).__name__, stale=trace.reused) from None
        try:
            body = await _read(response)
        finally:
            await response.aclose()
        return Answer(response.status_code, _lowered(response.headers), body)

    def _request(
        self,
        client: Any,
        url: str,
        headers: Mapping[str, str],
        content: bytes,
        trace: _Trace,
    ) -> Any:
        """Make a request. A user's own client adds what it has; to have httpx do so takes long."""
        headers = {**_HEADERS, **headers}
        if not self._own:
            return client.build_request(
                "POST", url, headers=headers, content=content, extensions={"trace": trace}
            )
        return httpx.Request(
            "POST",
            self._parsed(url),
            headers={**_ADDED, **headers},
            content=content,
            extensions={"timeout": self._timeout, "trace": trace},
        )

    def _make_pool(self) -> _Pool:
        assert self._tls is not None  # noqa: S101 - `open` has made it
        client = httpx.AsyncClient(
            verify=self._tls,
            http2=self._sending.http2,
            limits=httpx.Limits(
                max_connections=self._connections,
                max_keepalive_connections=self._connections,
                keepalive_expiry=_KEEP_ALIVE,
            ),
            cookies=_NoCookies(),
            mounts=dict.fromkeys(_LOOPBACK),
        )
        return _Pool(client)


class _NoCookies(CookieJar):
    def extract_cookies(self, response: object, request: object) -> None:
        """Keep none."""


async def _close(pool: _Pool) -> None:
    with suppress(TimeoutError, *_LET_THROUGH):
        async with asyncio.timeout(_CLOSE_WITHIN):
            await pool.client.aclose()


def _library_of(client: Any) -> ModuleType:
    """Return the library that a client is made of, importing only what is already there."""
    for name in ("httpx", "httpx2"):
        library = sys.modules.get(name)
        if library is not None and isinstance(client, library.AsyncClient):
            return library
    raise ConfigurationError(
        f"http_client is a {type(client).__name__}: give an httpx.AsyncClient or an "
        "httpx2.AsyncClient"
    )


def check_http2() -> None:
    """Raise `MissingExtra` unless what HTTP/2 takes is there; importing it would take long."""
    try:
        is_there = find_spec("h2") is not None
    except ImportError:
        is_there = False
    except ValueError:
        is_there = True  # something that stands in for it
    if not is_there:
        raise MissingExtra("HTTP/2", "http2")


def _import_http2() -> None:
    """Raise `MissingExtra` where that is there and broken; if it is sound, `load` has had it."""
    try:
        import_module("h2")
    except ImportError:
        raise MissingExtra("HTTP/2", "http2") from None


async def _read(response: Any) -> bytes:
    body = bytearray()
    async with aclosing(response.aiter_raw()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) >= MAX_ANSWER:
                break
    return bytes(body[:MAX_ANSWER])


def _lowered(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


# ---------------------------------------------------------------------------------- what takes long
# It runs in threads of its own. A signal handler comes into the main thread, wherever that is, and
# may wait there for another client's start: what that needs must not be held by the main thread.

_TURN = 0.001  # seconds; Python's own is five times as long
_PATIENCE = 5.0  # seconds

_is_loaded = False


def load() -> None:
    """Import what httpx and anyio leave for their first use, and wait for it, but not for ever.

    Where a signal handler has come into the midst of such an import, that goes on after it.
    """
    if not _is_loaded:
        with suppress(TimeoutError):
            _in_thread(_load).result(_PATIENCE)


async def loaded() -> None:
    """Have that done, and let the loop run meanwhile."""
    if not _is_loaded:
        await asyncio.wrap_future(_in_thread(_load))


def _load() -> None:
    global _is_loaded  # noqa: PLW0603 - modules are loaded once in a process
    with forks.loads.alone, _short_turns():
        import anyio._backends._asyncio  # noqa: F401 - each is found again by who needs it
        import httpcore._backends.anyio  # noqa: F401 - the same

        _is_loaded = True


def _tls() -> ssl.SSLContext:
    _load()
    with forks.loads.alone, _short_turns():
        return httpx.create_ssl_context()


def _in_thread(function: Callable[[], Made]) -> Future[Made]:
    """Run it in a thread of its own, or here, where the program is ending and no thread starts."""
    made: Future[Made] = Future()

    def run() -> None:
        if made.set_running_or_notify_cancel():
            try:
                made.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                made.set_exception(error)

    try:
        threading.Thread(target=run, name="asyncanalytics import").start()
    except RuntimeError:
        run()
    return made


@contextmanager
def _short_turns() -> Iterator[None]:
    """Let a thread that waits for its turn, as a loop's does, wait less long for it."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(min(_TURN, usual))
    try:
        yield
    finally:
        if sys.getswitchinterval() == _TURN:  # nobody else has set it meanwhile
            sys.setswitchinterval(usual)
