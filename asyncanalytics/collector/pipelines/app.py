"""The router itself: an ASGI app that takes events in and hands them to its pipelines.

Invariants of a reload:
- A configuration that cannot work changes nothing.
- New pipelines are started before any request sees them; then all keys change at once.
- A pipeline that is replaced or removed takes nothing more, and drains in the background. Who was
  waiting at it goes on with the new one. What its spool still holds after a time, the new one takes
  over; without a spool it drains until nothing is left.
- A pipeline that is the same goes on with its client; figures go on in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from asyncanalytics.aside import Aside
from asyncanalytics.collector import serving
from asyncanalytics.collector.answers import EXCEPTION_HANDLERS, Refused, json_response
from asyncanalytics.collector.guard import Guard
from asyncanalytics.collector.paths import intake_routes
from asyncanalytics.collector.pipelines import running
from asyncanalytics.collector.pipelines.figures import PipelineFigures, RouterStats
from asyncanalytics.collector.pipelines.intake import Intake
from asyncanalytics.collector.pipelines.line import Line
from asyncanalytics.collector.pipelines.loading import Loaded, Source, load
from asyncanalytics.collector.pipelines.metrics import CONTENT_TYPE, exposition
from asyncanalytics.errors import LifecycleError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from starlette.requests import Request
    from starlette.types import Message, Receive, Scope, Send

    from asyncanalytics.collector.pipelines.config import Config, Server

logger: logging.Logger = logging.getLogger("asyncanalytics")

_OWN_PATHS: Final = ("/health", "/ready", "/metrics")

State = Literal["new", "starting", "serving", "stopping", "stopped"]


class Router:
    """Takes events in over HTTP and hands them to pipelines. An ASGI app.

    Made of a configuration: a TOML file, or data of the same form. Under a server of its own it is
    `serve`d or `run`; under another one, it starts and closes with the app's lifespan.
    """

    def __init__(self, source: Source) -> None:
        """Read the configuration; `InvalidConfiguration` says all that is wrong with it."""
        self._source: Source = _absolute(source)
        self._loaded = load(self._source)
        self._answers: Counter[int] = Counter()
        self._state: State = "new"
        self._reloads: Counter[str] = Counter(taken=0, refused=0)
        self._figures: dict[str, PipelineFigures] = {}
        self._lines: dict[str, Line] = {}  # by the name of the pipeline
        self._by_key: dict[str, Line] = {}  # by the digest of the write key
        self._retiring: dict[Line, asyncio.Task[None]] = {}
        self._looks: set[asyncio.Task[None]] = set()
        self._reading = Aside()
        self._changing = asyncio.Lock()
        self._ending = asyncio.Event()
        self._served: set[str] = set()
        self._app = Starlette(
            routes=[*intake_routes(Intake(self)), *self._own_routes()],
            exception_handlers=dict(EXCEPTION_HANDLERS),
            lifespan=self._lifespan,
        )
        self._app.router.redirect_slashes = False  # clients follow no redirects
        self._guard = self._new_guard()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI wants it."""
        is_own = scope["type"] != "http" or scope["path"] in _OWN_PATHS
        await self._guard(scope, receive, send if is_own else self._counted(send))

    # -------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Start all pipelines. If one fails, none stays open."""
        if self._state not in ("new", "stopped"):
            raise LifecycleError("this router is started already")
        self._state = "starting"
        self._ending.clear()
        try:
            async with self._changing:
                await self._take_up(self._loaded)
        except BaseException:
            self._state = "stopped"
            raise
        for line in self._lines.values():
            self._look(line)
        self._state = "serving"

    async def aclose(self) -> None:
        """Take no more events, and give every pipeline its time to deliver what it has."""
        if self._state not in ("serving", "stopping"):
            return
        self._turn_away()
        async with self._changing:
            lines, self._lines, self._by_key = self._lines, {}, {}
            for line in lines.values():
                self._retire(line)
            self._ending.set()
            for look in self._looks:
                look.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.gather(*self._retiring.values())
                await asyncio.gather(*self._looks, return_exceptions=True)
            self._state = "stopped"

    async def reload(self, source: Source | None = None) -> None:
        """Take up another configuration, or the same file as it is now.

        What has not changed goes on as it is. Host and port are those of the start. If the new one
        cannot work, `InvalidConfiguration` is raised, and the old one goes on.
        """
        self._need_to_serve()
        try:
            # Reading may hang, with a module of the user's: it holds up no end.
            loaded = await self._reading.run(load, self._source if source is None else source)
            async with self._changing:
                self._need_to_serve()
                await self._take_up(loaded)
                self._note(loaded, source)
        except BaseException:
            self._reloads["refused"] += 1
            raise

    def _need_to_serve(self) -> None:
        if self._state != "serving":
            raise LifecycleError("this router is not started: there is nothing to reload")

    def _note(self, loaded: Loaded, source: Source | None) -> None:
        """Have what was taken up be what is in use."""
        self._source = self._source if source is None else _absolute(source)
        self._loaded = loaded
        self._guard = self._new_guard()
        self._reloads["taken"] += 1

    @contextlib.asynccontextmanager
    async def serve(self, host: str | None = None, port: int | None = None) -> AsyncIterator[str]:
        """Serve on a socket in the running loop for the time of an `async with` block.

        The block gets the base URL. Host and port are the configuration's, unless given; port 0
        takes a free one. At the end requests under way have a second, and then pipelines drain.
        """
        server = self.server
        host = server.host if host is None else host
        self._allow(host)
        await self.start()
        try:
            listening = serving.serve(self, host=host, port=server.port if port is None else port)
            url = await listening.__aenter__()
            try:
                yield url
            finally:
                self._turn_away()
                with anyio.CancelScope(shield=True):
                    await listening.__aexit__(None, None, None)
        finally:
            with anyio.CancelScope(shield=True):
                await self.aclose()

    def run(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        watch: bool = False,
        on_start: Callable[[str], Any] | None = None,
    ) -> None:
        """Serve until SIGTERM or SIGINT, and drain.

        SIGHUP reloads the configuration, and with `watch` so does a change of its file. `on_start`
        gets the base URL once it can be used.
        """
        watched = self._source if watch else None
        running.run(self, host, port, watched=watched, on_start=on_start)

    # ------------------------------------------------------------------------------------ figures

    def stats(self) -> RouterStats:
        """Return the figures as they are now."""
        lines = [*self._retiring, *self._lines.values()]
        return RouterStats(
            state=self._state,
            answers=dict(self._answers),
            reloads=dict(self._reloads),
            troubles={name: line.trouble for name, line in self._lines.items() if line.trouble},
            pipelines={
                name: figures.now(
                    line.client.stats() for line in dict.fromkeys(lines) if line.config.name == name
                )
                for name, figures in self._figures.items()
            },
        )

    def __repr__(self) -> str:
        """Name the pipelines; never a key."""
        names = ", ".join(each.name for each in self._loaded.config.pipelines)
        return f"<Router {names} {self._state}>"

    # ------------------------------------------------------------------------ what requests see

    @property
    def config(self) -> Config:
        """The configuration that is in use."""
        return self._loaded.config

    @property
    def server(self) -> Server:
        """How events come in, as it is configured now."""
        return self._loaded.config.server

    def line(self, key: str | None) -> Line:
        """Return the pipeline of a write key; `Refused` if there is none, or none any more."""
        if self._state != "serving":
            raise Refused(503, self._state, "this router takes no events: send them again later")
        line = None if key is None else self._by_key.get(_digest(key))
        if line is None:
            reason = "missing_write_key" if key is None else "unknown_write_key"
            raise Refused(401, reason, "every request needs the write key of a pipeline")
        return line

    def _counted(self, send: Send) -> Send:
        """Count an answer by its status, whoever gives it."""

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._answers[message["status"]] += 1
            await send(message)

        return counting

    def _own_routes(self) -> Iterable[Route]:
        for path, answer in zip(
            _OWN_PATHS, (self._health, self._ready, self._metrics), strict=True
        ):
            yield Route(path, answer, methods=["GET"])

    async def _health(self, _: Request) -> Response:
        return json_response({"status": "ok"})

    async def _ready(self, _: Request) -> Response:
        stats = self.stats()
        is_ready = stats.state == "serving" and not stats.troubles
        said = {"ready": is_ready, "state": stats.state, "troubles": stats.troubles}
        return json_response(said, 200 if is_ready else 503)

    async def _metrics(self, _: Request) -> Response:
        return Response(exposition(self.stats()), headers={"content-type": CONTENT_TYPE})

    # ------------------------------------------------------------------------------------- within

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        await self.start()
        try:
            yield
        finally:
            await self.aclose()

    async def _take_up(self, loaded: Loaded) -> None:
        """Start what is new, have requests see it, and retire what is replaced."""
        config, folder = loaded.config, loaded.folder
        lines: dict[str, Line] = {}
        for pipeline in config.pipelines:
            old = self._lines.get(pipeline.name)
            if old is not None and old.is_made_of(pipeline, folder):
                lines[pipeline.name] = old
            else:
                figures = self._figures.get(pipeline.name) or PipelineFigures()
                lines[pipeline.name] = Line(pipeline, config.server, folder, figures)
        await _start_all(
            [line for name, line in lines.items() if line is not self._lines.get(name)]
        )
        # From here to the end of this function nothing is awaited.
        replaced = [line for name, line in self._lines.items() if lines.get(name) is not line]
        self._lines = lines
        for line in lines.values():
            line.heed(config.server)
        self._figures |= {name: line.figures for name, line in lines.items()}
        self._by_key = {
            _digest(each.write_key.get_secret_value()): lines[each.name]
            for each in config.pipelines
        }
        for line in replaced:
            self._retire(line)

    def _retire(self, line: Line) -> None:
        line.way.close()
        task = asyncio.create_task(self._drain(line), name="asyncanalytics drain")
        self._retiring[line] = task

    async def _drain(self, line: Line) -> None:
        """Let a line deliver what it has, in its time or in that which the router has left."""
        ending = asyncio.create_task(self._ending.wait())
        draining = asyncio.create_task(line.client.flush(line.drain_timeout))
        await asyncio.wait([ending, draining], return_when=asyncio.FIRST_COMPLETED)
        for each in (ending, draining):
            each.cancel()
        await asyncio.gather(ending, draining, return_exceptions=True)
        seconds = line.config.shutdown_timeout if self._ending.is_set() else 0.0
        line.figures.absorb(await line.client.aclose(seconds))
        del self._retiring[line]
        successor = self._lines.get(line.config.name)
        if successor is not None and not self._ending.is_set():
            self._look(successor)

    def _look(self, line: Line) -> None:
        """See beside all else what the line's spool holds for nobody who is here."""
        task = asyncio.create_task(line.look_for_strays(), name="asyncanalytics strays")
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    def _turn_away(self) -> None:
        """Take no more requests, and let those go that wait for room."""
        if self._state == "serving":
            self._state = "stopping"
        for line in self._lines.values():
            line.way.close()

    def _allow(self, host: str) -> None:
        self._served.add(host)
        self._guard.allow(host)

    def _new_guard(self) -> Guard:
        guard = Guard(self._app, self.server.allowed_hosts)
        for host in self._served:
            guard.allow(host)
        return guard


async def _start_all(lines: list[Line]) -> None:
    """Start clients, all of them or none."""
    started: list[Line] = []
    try:
        for line in lines:
            await line.client.start()
            started.append(line)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*(line.client.aclose(0) for line in started))
        raise


def _absolute(source: Source) -> Source:
    """Let a file be found again from elsewhere."""
    return Path(source).absolute() if isinstance(source, str | os.PathLike) else source


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
