"""Serving the collector on a socket with uvicorn, inside a running loop or on its own.

No signal handler is installed and no logger is configured by `serve`, so that it can stand
beside anything in a test. The connection can be reset by the app, which uvicorn alone does not
offer: `Connection` puts the means into the scope.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from asyncanalytics.collector.faults import ABORT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from starlette.types import ASGIApp, Receive, Scope, Send

_BACKLOG: Final = 2_048
_GRACE: Final = 1.0
"""Seconds that requests under way get at the end, before they are cut off."""

_TURNS: Final = 4
"""Turns of the loop that a connection needs from its acceptance to its protocol, and to spare."""


class Connection(AutoHTTPProtocol):  # type: ignore[valid-type,misc]
    """Uvicorn's HTTP protocol, whose app can reset the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Give this connection's requests the means, and keep them out of the access log."""
        super().connection_made(transport)
        self.app: ASGIApp = _abortable(self.app, transport.abort)
        self.access_log = False  # a pixel's address holds its event


def _abortable(app: ASGIApp, abort: Callable[[], None]) -> ASGIApp:
    async def with_abort(scope: Scope, receive: Receive, send: Send) -> None:
        extensions = {**scope.get("extensions", {}), ABORT: abort}
        await app({**scope, "extensions": extensions}, receive, send)

    return with_abort


@contextlib.asynccontextmanager
async def serve(
    app: ASGIApp, *, host: str, port: int, on_stop: Callable[[], None] = lambda: None
) -> AsyncIterator[str]:
    """Serve the app until the block ends, and give its base URL.

    OSError where the address cannot be had. At the end `on_stop` is called once no more requests
    begin, for it to end those that would last; those under way have a second.
    """
    with contextlib.closing(_listen(host, port)) as listener:
        server = await _start(app, listener)
        try:
            yield _url(listener)
        finally:
            await _stop(server, on_stop)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    # Connections inherit it. An answer goes out in two writes, and waits for 40 ms without it.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _url(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - any is no address
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


async def _start(app: ASGIApp, listener: socket.socket) -> uvicorn.Server:
    server = uvicorn.Server(_config(app))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    # Not server.serve(): that takes over the process's signals.
    await server.startup(sockets=[listener])
    return server


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        server_header=False,
        date_header=False,
    )


async def _stop(server: uvicorn.Server, on_stop: Callable[[], None]) -> None:
    # Not server.shutdown(): it polls, and complains aloud of what it has to cut off.
    state = server.server_state
    await _accept_no_more(server.servers)
    for each in server.servers:
        each.close()
    for connection in list(state.connections):
        connection.shutdown()
    on_stop()
    if state.tasks:
        await asyncio.wait(state.tasks, timeout=_GRACE)
    for connection in list(state.connections):
        connection.transport.abort()
    # Nothing here outlives its connection: each wait is for the client, or ends with it.
    await asyncio.gather(*state.tasks, return_exceptions=True)
    for each in server.servers:
        await each.wait_closed()
    await asyncio.sleep(0)  # before Python 3.12 the line above does not wait for connections


async def _accept_no_more(servers: list[asyncio.Server]) -> None:
    """Let connections that were just accepted begin: closing now would leave them half made."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows has no readers
        for each in servers:
            for listener in each.sockets:
                loop.remove_reader(listener)
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def run(
    app: ASGIApp,
    *,
    host: str,
    port: int,
    on_start: Callable[[str], Any] | None,
    on_stop: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGINT or SIGTERM, and return then."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(serve(app, host=host, port=port, on_stop=on_stop), on_start))


async def _run(
    served: AbstractAsyncContextManager[str], on_start: Callable[[str], Any] | None
) -> None:
    stop = asyncio.Event()
    async with served as url:
        # asyncio.run() itself turns SIGINT into a cancellation; Windows has no SIGTERM to handle.
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        if on_start is not None:
            on_start(url)
        await stop.wait()
