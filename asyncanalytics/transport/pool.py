"""What a client's destinations post with: time, failures and pools, whichever library it is."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import anyio

from asyncanalytics.errors import ConfigurationError, MissingExtra, NoAnswer, describe
from asyncanalytics.secret import Unpicklable, stripped
from asyncanalytics.transport import by_httpx
from asyncanalytics.transport.loading import is_there, load, off_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from asyncanalytics.settings import Sending
    from asyncanalytics.transport.way import Answer, Way

_CLOSE_WITHIN = 1.0  # seconds

# What the libraries let through: sockets, TLS, and a pool that its owner has closed.
_LET_THROUGH = (OSError, RuntimeError, anyio.BrokenResourceError, anyio.ClosedResourceError)


@dataclass(slots=True)
class _Pool:
    way: Way
    requests: int = 0
    retired: bool = False


class Transport(Unpicklable):
    """The pool that a client's destinations share."""

    def __init__(self, sending: Sending, *, connections: int) -> None:
        """Take the settings, and how many requests may be under way at a time in all.

        Raises:
            ConfigurationError: if what they name cannot be used, or is not installed.
        """
        if asyncio._get_running_loop() is None:  # noqa: SLF001 - documented, as low-level
            load()
        self._sending = sending
        self._connections = connections
        _check(sending)
        self._own = sending.http_client is None
        self._pool: _Pool | None = None

    async def open(self) -> None:
        """Make the pool. What would block the loop, reading certificates, runs in a thread.

        Raises:
            ConfigurationError: if the environment names a proxy that cannot be used.
        """
        library: Any = by_httpx
        if self._sending.http_library == "aiohttp":
            library = await off_loop(_by_aiohttp)
        self._make: Callable[[], Way] = await library.prepare(self._sending, self._connections)
        self._pool = _Pool(self._make())

    async def post(self, url: str, headers: Mapping[str, str], content: bytes) -> Answer:
        """Send one request and return its answer, or raise `NoAnswer`.

        Names of headers are in lower case, here and in the answer.
        """
        pool = self._pool
        assert pool is not None  # noqa: S101 - `open` has made it
        pool.requests += 1
        try:
            async with asyncio.timeout(self._sending.timeout):
                return await pool.way.exchange(url, headers, content)
        except NoAnswer as error:
            held: list[BaseException] = [error]
        except TimeoutError:
            self._retire(pool)
            held = [NoAnswer(f"no whole answer within {self._sending.timeout:g} s")]
        except _LET_THROUGH as error:
            held = [NoAnswer(type(error).__name__)]
        except Exception as error:  # noqa: BLE001 - the hooks and transports of a user's own client
            held = [NoAnswer(f"the HTTP client raised {describe(error)}")]
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
        if self._own and self._pool is not None:
            await _close(self._pool)

    def _retire(self, pool: _Pool) -> None:
        """Let a fresh pool take over, if one can be made; the old closes with its last request."""
        if self._own and pool is self._pool:
            with suppress(ConfigurationError):  # what is in the environment now cannot be used
                self._pool = _Pool(self._make())
                pool.retired = True


def _check(sending: Sending) -> None:
    """Raise where this cannot work; importing what is there would take long."""
    if sending.http_library == "aiohttp" and not is_there("aiohttp"):
        raise MissingExtra("aiohttp", "aiohttp")
    if sending.http2 and not is_there("h2"):
        raise MissingExtra("HTTP/2", "http2")
    if sending.http_client is not None:
        by_httpx.library_of(sending.http_client)


def _by_aiohttp() -> ModuleType:
    return import_module("asyncanalytics.transport.by_aiohttp")


async def _close(pool: _Pool) -> None:
    with suppress(TimeoutError, *_LET_THROUGH):
        async with asyncio.timeout(_CLOSE_WITHIN):
            await pool.way.aclose()
