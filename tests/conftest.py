"""What the tests of the engine share: a laboratory that hands out servers and clients.

Nothing of the package is replaced: its clients send real requests, in process to an ASGI app or
over sockets to a scripted peer. After each test the laboratory asserts the law of the house: the
figures add up and agree with every receipt, each delivered call is at its server with what it
carried, no server has an id that was never accepted, and no log line shows a key or a payload.
"""

from __future__ import annotations

import asyncio
import gzip
import inspect
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, settings

from asyncanalytics import AsyncClient, BoundClient, Call, Destination, FanOut, Sending, endpoints
from asyncanalytics.verbs import Verbs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from asyncanalytics import Receipt
    from asyncanalytics.collector import Collector
    from asyncanalytics.endpoints import Endpoint

# Otherwise looptime has the first sync test make a loop that nobody closes.
asyncio.set_event_loop(None)

# Both look at the clock, and would fail a test for what else the machine does.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def _load(name: str) -> Any:
    """Load a file beside this one: tests/ is on no path."""
    spec = spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


canaries = _load("canaries")
KEY: str = canaries.KEY
MARK: str = canaries.MARK
_EPOCH = 1_800_000_000 * 1_000_000_000


def pytest_configure(config: pytest.Config) -> None:
    """Have the whole suite watched for its key and its property; let it know more fixtures."""
    config.pluginmanager.register(canaries, "canaries")
    config.pluginmanager.register(_load("switchyard"), "switchyard")


# ---------------------------------------------------------------------------- what clients accept

_VERBS = ("identify", "track", "page", "screen", "group", "alias", "send")
_WIRE_NAMES = {
    "user_id": "userId",
    "anonymous_id": "anonymousId",
    "group_id": "groupId",
    "previous_id": "previousId",
    "message_id": "messageId",
}


@dataclass
class Taken:
    """One accepted call: its receipt, and what must be found at the server."""

    receipt: Receipt
    expected: dict[str, Any]

    @property
    def parts(self) -> Sequence[Receipt]:
        """The receipt of each destination."""
        return self.receipt.parts if isinstance(self.receipt, FanOut) else [self.receipt]


class WatchedClient(AsyncClient):
    """The client, with a list of what its verbs have returned. Nothing in it works otherwise."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.taken: list[Taken] = []
        self.keeps_payloads = not settings.get("middleware")
        super().__init__(*args, **settings)

    def bind(self, **bound: Any) -> BoundClient:
        """Bind, and watch what is called there too."""
        return WatchedBoundClient(self, super().bind(**bound)._source)


class WatchedBoundClient(BoundClient):
    """A bound client that lists its calls with those of its client."""

    @property
    def taken(self) -> list[Taken]:
        """The client's list."""
        return self._client.taken  # type: ignore[attr-defined, no-any-return]


def _watched(name: str) -> Callable[..., Any]:
    verb = getattr(Verbs, name)
    first = list(inspect.signature(verb).parameters)[1]

    def expected(args: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
        fields = {**dict(zip([first], args, strict=False)), **given}
        call = fields.pop("call", None)
        if isinstance(call, Call):
            fields = call.wire()
        named = {_WIRE_NAMES.get(key, key): value for key, value in fields.items()}
        ids = _WIRE_NAMES.values()
        texts = {key: str(each) if key in ids else each for key, each in named.items()}
        compared = (*ids, "event", "name", "category", "properties", "traits")
        kept = {key: texts[key] for key in compared if texts.get(key) not in (None, "None")}
        return json.loads(json.dumps(kept, default=str))  # a copy of this moment

    async def call(self: Any, *args: Any, **given: Any) -> Receipt:
        want = expected(args, given)
        receipt = await verb(self, *args, **given)
        self.taken.append(Taken(receipt, want))
        return receipt

    def call_nowait(self: Any, *args: Any, **given: Any) -> Receipt:
        want = expected(args, given)
        receipt = verb(self, *args, **given)
        self.taken.append(Taken(receipt, want))
        return receipt

    return call_nowait if name.endswith("_nowait") else call


for _verb in (*_VERBS, *(f"{each}_nowait" for each in _VERBS)):
    setattr(WatchedClient, _verb, _watched(_verb))
    setattr(WatchedBoundClient, _verb, _watched(_verb))


# ------------------------------------------------------------------------------ what servers have


@dataclass
class Reply:
    """One scripted answer."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    delay: float = 0.0
    drop: bool = False
    """Fail without an answer."""


@dataclass
class Request:
    """One request as a server got it."""

    path: str
    headers: dict[str, str]
    content: bytes
    """Inflated, where it was compressed."""
    at: float
    """By the loop's clock."""

    @property
    def body(self) -> dict[str, Any]:
        """The JSON that came."""
        parsed: dict[str, Any] = json.loads(self.content)
        return parsed

    @property
    def events(self) -> list[dict[str, Any]]:
        """The calls in it; a webhook's array is nothing but these."""
        body: Any = self.body
        return list(body if isinstance(body, list) else body.get("batch", [body]))

    @property
    def ids(self) -> list[str]:
        """Their messageIds."""
        return [event["messageId"] for event in self.events]


class Arrivals:
    """What a server was sent, and what of it it took."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.arrived: dict[str, list[dict[str, Any]]] = {}
        """messageId → the call, as often as it was acknowledged."""

    @property
    def seen(self) -> set[str]:
        """Every messageId that came, taken or not."""
        return {each for request in self.requests for each in request.ids}

    def take(self, request: Request) -> None:
        """Keep the calls of a request that is answered with success."""
        for event in request.events:
            self.arrived.setdefault(event["messageId"], []).append(event)

    def note(self, path: str, headers: dict[str, str], content: bytes) -> Request:
        """Keep a request as it came."""
        if headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        request = Request(path, headers, content, asyncio.get_running_loop().time())
        self.requests.append(request)
        return request


Scripted = int | Reply


class Script(Arrivals):
    """An ASGI app that answers by a script: one entry a request, and then always `then`.

    An entry is a status, a `Reply`, or a function from the request to one of them.
    """

    def __init__(self, *replies: Any, then: Any = 200) -> None:
        super().__init__()
        self.replies = list(replies)
        self.then = then
        self.under_way = 0
        self.peak = 0
        self.arrival = asyncio.Event()
        """Set whenever a request comes; for tests to clear."""

    def _next(self, request: Request) -> Reply:
        chosen = self.replies.pop(0) if self.replies else self.then
        while not isinstance(chosen, Scripted):
            chosen = chosen(request)
        return Reply(chosen) if isinstance(chosen, int) else chosen

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        try:
            await self._answer(scope, receive, send)
        finally:
            self.under_way -= 1

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        content, more = b"", True
        while more:
            message = await receive()
            content += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        request = self.note(scope["path"], headers, content)
        self.arrival.set()
        reply = self._next(request)
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if reply.drop:
            raise ConnectionResetError
        if 200 <= reply.status < 300:
            self.take(request)
        sent = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": sent})
        await send({"type": "http.response.body", "body": reply.body})


class Peer(Arrivals):
    """A server of bytes on a socket: each connection is handed to a scripted coroutine.

    `connections` counts them; the coroutine gets the peer, a reader and a writer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.connections = 0
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    async def read(self, reader: asyncio.StreamReader) -> Request | None:
        """Read one request; None if the other side has closed."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        return self.note(first.split(" ")[1], headers, content)

    async def answer(
        self, writer: asyncio.StreamWriter, request: Request, *, close: bool = False
    ) -> None:
        """Take a request, and say so."""
        self.take(request)
        head = b"HTTP/1.1 200 OK\r\n" + (b"connection: close\r\n" if close else b"")
        writer.write(head + b"content-length: 2\r\n\r\n{}")
        await writer.drain()

    async def serve_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take all that comes on a connection."""
        while (request := await self.read(reader)) is not None:
            await self.answer(writer, request)


@asynccontextmanager
async def _listening(
    handle: Callable[[Peer, asyncio.StreamReader, asyncio.StreamWriter], Any],
    *,
    host: str = "127.0.0.1",
    tls: Any = None,
) -> AsyncIterator[Peer]:
    peer = Peer()
    running: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.current_task())  # type: ignore[arg-type]
        peer.connections += 1
        try:
            await handle(peer, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(connected, host, 0, ssl=tls)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


# ------------------------------------------------------------------------------ the laboratory


class Lab:
    """Hands out servers and clients, and asserts the law over them at its end."""

    KEY = KEY
    MARK = MARK

    def __init__(self, http_library: str = "httpx") -> None:
        if http_library != "httpx":
            pytest.importorskip(http_library)
        self.http_library = http_library
        self.clients: list[WatchedClient] = []
        self._servers: dict[str, Any] = {}
        self._unbalanced: list[str] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._open:
            if kind is None:
                self.check()

    # servers

    def script(self, *replies: Any, then: Any = 200) -> Script:
        """Make a scripted app."""
        return Script(*replies, then=then)

    def collector(self, **settings: Any) -> Collector:
        """Make a real collector, in memory."""
        pytest.importorskip("starlette")
        from asyncanalytics.collector import Collector

        return self._open.enter_context(Collector(**settings))

    def reply(self, status: int = 200, **details: Any) -> Reply:
        """Make an answer for a script."""
        return Reply(status, **details)

    listening = staticmethod(_listening)

    def endpoint(self, server: Any, **fields: Any) -> Endpoint:
        """Give a server an address in this process, or on its socket, and return it."""
        url = server.url if isinstance(server, Peer) else f"http://127.0.0.{len(self._servers) + 1}"
        self._servers[url] = server
        return endpoints.custom(url, **fields)

    def destination(self, server: Any, name: str = "custom", **rules: Any) -> Destination:
        """Make a destination that is a server in this process."""
        return Destination(KEY, endpoint=self.endpoint(server, name=name), **rules)

    def http(self) -> httpx.AsyncClient:
        """Make an HTTP client that reaches the servers in this process."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=self._dispatch))

    async def _dispatch(self, scope: Any, receive: Any, send: Any) -> None:
        host = next(value for name, value in scope["headers"] if name == b"host").decode()
        self._weigh()
        await self._servers[f"http://{host}"](scope, receive, send)
        self._weigh()

    def _weigh(self) -> None:
        """Look whether the law holds at this moment too."""
        for client in self.clients:
            if not client.stats().is_balanced:
                self._unbalanced.append(str(client.stats()))

    # clients

    def client(self, server: Any = None, **settings: Any) -> WatchedClient:
        """Make a client for one server, or for `destinations`."""
        if "destinations" in settings:
            args: tuple[str, ...] = ()
        else:
            args = (settings.pop("key", KEY),)
            if "endpoint" not in settings:
                settings["endpoint"] = self.endpoint(server)
        sending = settings.pop("sending", {})
        if isinstance(sending, dict):
            if not isinstance(server, Peer):
                sending = {"http_client": self.http(), **sending}
            if "http_client" not in sending:
                sending = {"http_library": self.http_library, **sending}
            sending = Sending(**sending)
        client = WatchedClient(*args, sending=sending, **settings)
        self.clients.append(client)
        return client

    @staticmethod
    def burst(client: AsyncClient, count: int, **fields: Any) -> list[Receipt]:
        """Make calls that wait together, and so go out together."""
        return [
            client.track_nowait(
                "Added File", user_id=f"u{n}", properties={"n": n, "mark": MARK}, **fields
            )
            for n in range(count)
        ]

    @staticmethod
    async def track(client: AsyncClient, count: int = 1, **fields: Any) -> list[Receipt]:
        """Make calls one by one."""
        return [
            await client.track(
                "Added File", user_id=f"u{n}", properties={"n": n, "mark": MARK}, **fields
            )
            for n in range(count)
        ]

    # the law

    def check(self) -> None:
        """Assert the law over every client and every server."""
        assert not self._unbalanced
        for client in self.clients:
            self._check_figures(client)
            self._check_delivered(client)
        for url, server in self._servers.items():
            accepted = {each.receipt.message_id for one in self.clients for each in one.taken}
            accepted |= {
                part.message_id for one in self.clients for each in one.taken for part in each.parts
            }
            seen, _ = _found(server)
            assert seen <= accepted, f"{url} saw calls that were never accepted"

    @staticmethod
    def _check_figures(client: WatchedClient) -> None:
        stats = client.stats()
        assert stats.is_balanced, stats
        kinds: Counter[str] = Counter()
        for each in client.taken:
            for part in each.parts:
                if part.outcome is None or part.outcome.kind == "kept":
                    kinds["pending"] += 1
                elif part.outcome.reason != "unrouted":
                    kinds[part.outcome.kind] += 1
        if any(each.recovered for each in stats.destinations.values()):
            return  # calls of an earlier life, whose receipts ended with it
        assert kinds == +Counter(
            delivered=stats.delivered,
            rejected=stats.rejected,
            dropped=stats.dropped,
            pending=stats.pending,
        )
        assert stats.accepted == kinds.total()
        if stats.state == "closed" and stats.spool is None:
            assert stats.pending == 0
            assert [each.pending_bytes for each in stats.destinations.values()] == [0] * len(
                stats.destinations
            )

    def _check_delivered(self, client: WatchedClient) -> None:
        for flusher in client._flushers:
            place = flusher.destination
            if not isinstance(place, Destination) or place.endpoint.base not in self._servers:
                continue
            _, arrived = _found(self._servers[place.endpoint.base])
            for each in client.taken:
                for part in each.parts:
                    outcome = part.outcome
                    if outcome and outcome.delivered and outcome.destination == place.name:
                        assert part.message_id in arrived
                        if client.keeps_payloads and not place.middleware:
                            for payload in arrived[part.message_id]:
                                assert {**payload, **each.expected} == payload


def _found(server: Any) -> tuple[set[str], dict[str, list[dict[str, Any]]]]:
    """Return the ids that a server saw, and the calls that it took."""
    if isinstance(server, Arrivals):
        return server.seen, server.arrived
    arrived: dict[str, list[dict[str, Any]]] = {}
    for event in server.events():
        arrived.setdefault(event.message_id, []).append(event.payload)
    return set(arrived), arrived


@pytest.fixture(scope="session")
def new_lab() -> type[Lab]:
    """The laboratory's class, for tests that need a fresh one for each of many examples."""
    return Lab


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the package logs."""
    caplog.set_level(logging.DEBUG, logger="asyncanalytics")
    return caplog


@pytest.fixture
def no_new_thread() -> Iterator[None]:
    """Have no thread start, as at the limit of threads: there is no room for its stack."""
    try:
        before = threading.stack_size(1 << 60)
    except (OverflowError, ValueError):
        pytest.skip("this system refuses such a stack at once")
    try:
        with pytest.raises(RuntimeError):
            threading.Thread().start()
        yield
    finally:
        threading.stack_size(before)


@pytest.fixture
def lab(
    logged: pytest.LogCaptureFixture,  # noqa: ARG001 - its level is set
    request: pytest.FixtureRequest,
) -> Iterator[Lab]:
    """A laboratory that asserts the law at the end of the test.

    Its parameter is the library by which requests go to servers on sockets.
    """
    with Lab(getattr(request, "param", "httpx")) as made:
        yield made
    canaries.watch.look_through(*made.clients, *(client.stats() for client in made.clients))


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], str]:
    """Let the wall clock go with the loop's, so that stamps move under virtual time.

    The fixture is a function from a moment of the loop's clock to its stamp.
    """
    real = time.time_ns

    def now() -> int:
        try:
            return _EPOCH + int(asyncio.get_running_loop().time() * 1e9)
        except RuntimeError:
            return real()

    monkeypatch.setattr(time, "time_ns", now)
    monkeypatch.setattr(time, "time", lambda: now() / 1e9)

    def stamp(moment: float) -> str:
        seconds = (_EPOCH + int(moment * 1e9)) // 1_000_000 / 1e3
        text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
        return text.replace("+00:00", "Z")

    return stamp


# --------------------------------------------------------------------- frameworks and processes

DOCS = Path(__file__).parents[1] / "docs"


class Live:
    """A collector on a socket, in a thread of its own: other threads and processes reach it."""

    def __init__(self, collector: Collector, url: str) -> None:
        self.collector = collector
        self.url = url

    @property
    def environ(self) -> dict[str, str]:
        """An environment in which `AsyncClient()` and child processes send here."""
        place = {"ASYNCANALYTICS_ENDPOINT": self.url, "ASYNCANALYTICS_WRITE_KEY": KEY}
        return {**os.environ, **place, "PYTHONUNBUFFERED": "1"}

    @property
    def events(self) -> list[dict[str, Any]]:
        """The calls that have arrived, oldest first."""
        return [event.payload for event in self.collector.events()]

    @contextmanager
    def program(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        """Run Python there; where something is amiss, neither it nor its children stay behind."""
        with subprocess.Popen(  # noqa: S603 - our own words
            [sys.executable, "-W", "error", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environ,
            start_new_session=True,
        ) as process:
            try:
                yield process
            except BaseException:
                with suppress(ProcessLookupError):  # all have ended
                    if hasattr(os, "killpg"):
                        os.killpg(process.pid, signal.SIGKILL)
                    else:
                        process.kill()
                raise

    def wait_for(self, count: int, *, seconds: float = 20.0) -> list[dict[str, Any]]:
        """Wait until so many calls have arrived, and return them."""
        until = time.monotonic() + seconds
        while len(self.events) < count and time.monotonic() < until:
            time.sleep(0.02)  # another thread or process is at work: there is nothing to await
        assert len(self.events) >= count
        return self.events


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    """A live collector; the environment's endpoint and key are set to it."""
    pytest.importorskip("starlette")
    from asyncanalytics.collector import Collector

    with (
        Collector() as collector,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(collector.serve()) as url,
    ):
        found = Live(collector, url)
        for name in ("ASYNCANALYTICS_ENDPOINT", "ASYNCANALYTICS_WRITE_KEY"):
            monkeypatch.setenv(name, found.environ[name])
        yield found


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a page's Python blocks to importable files, as a reader would.

    `example("django", "views.py")` finds, in docs/django.md, the block whose first line is the
    comment `# views.py`, writes it to a file of that name, and returns the path. The folder is
    put on sys.path; modules of the test's are forgotten at its end.
    """
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(page: str, name: str) -> Path:
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            if block.startswith(f"# {name}\n"):
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block, encoding="utf-8")
                return path
        raise LookupError(f"docs/{page}.md has no block that begins with # {name}")

    yield write  # type: ignore[misc]
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
