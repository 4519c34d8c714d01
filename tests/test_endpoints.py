"""Every known system, pinned by the exact request that reaches a server on this machine."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import gc
import gzip
import json
import re
import threading
import uuid
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from asyncanalytics import (
    AsyncClient,
    Batching,
    Destination,
    Retrying,
    Sending,
    encoding,
    endpoints,
)
from asyncanalytics._version import __version__
from asyncanalytics.aside import Worker
from asyncanalytics.batching import Batch
from asyncanalytics.errors import ConfigurationError
from asyncanalytics.receipts import Receipt
from asyncanalytics.retrying import Delivered
from asyncanalytics.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from asyncanalytics.endpoints import Endpoint
    from asyncanalytics.retrying import Verdict

KEY = "a-key-that-opens-nothing"
BASIC = "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
USUAL = {
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "host",
    "user-agent",
}


@dataclass
class Request:
    """One request as it came over the wire."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        """The JSON, inflated where it was compressed."""
        packed = self.headers.get("content-encoding") == "gzip"
        return json.loads(gzip.decompress(self.body) if packed else self.body)


class Server:
    """A server that keeps each request and answers 200 to all."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.url = ""
        self.connections: list[asyncio.Task[Any] | None] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read requests until the other side leaves."""
        self.connections.append(asyncio.current_task())
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *rest = head.strip().split("\r\n")
                pairs = [each.split(": ", 1) for each in rest]
                headers = {name.lower(): value for name, value in pairs}
                assert len(headers) == len(pairs), "a header came twice"
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append(Request(line, headers, body))
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """Run a server on this machine."""
    server = Server()
    listener = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield server
    await asyncio.gather(*filter(None, server.connections))


def call(kind: str = "track", **properties: Any) -> Receipt:
    """Encode a call as the client does."""
    fields = {"userId": "u1", "properties": properties, "event": "Added File"}
    return Receipt(kind, *encoding.encode(kind, fields))


async def requests_of(
    endpoint: Endpoint, *batches: Batch, key: str = KEY, gzip: bool | None = False
) -> list[Request]:
    """Deliver batches to a system whose host is on this machine; return what it got."""
    async with serving() as server:
        prefix = re.sub("^https?://[^/]+", "", endpoint.base)
        here = dataclasses.replace(endpoint, base=server.url + prefix)
        destination = Destination(key, endpoint=here)
        transport = Transport(Sending(gzip=gzip), connections=1)
        await transport.open()
        await destination.open(transport, Sending(gzip=gzip), Retrying())
        try:
            verdicts: list[Verdict] = [await destination.deliver(batch) for batch in batches]
        finally:
            await destination.aclose()
            await transport.aclose()
    assert verdicts == [Delivered(200)] * len(batches)
    return server.requests


async def request_of(endpoint: Endpoint, *receipts: Receipt, **options: Any) -> Request:
    """Deliver one batch."""
    [request] = await requests_of(endpoint, Batch(0, receipts), **options)
    return request


def event_of(receipt: Receipt) -> dict[str, Any]:
    """Return a call as it was encoded."""
    event: dict[str, Any] = json.loads(b"{" + receipt.body)
    return event


# ------------------------------------------------------------------------------ one row, one test


@dataclass
class Row:
    """What the documentation of a system says."""

    endpoint: Endpoint
    base: str
    path: str = "/v1/batch"
    authorization: str = BASIC
    in_body: dict[str, str] = dataclasses.field(default_factory=dict)
    in_event: dict[str, str] = dataclasses.field(default_factory=dict)
    envelope_id: bool = False
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    gzip: bool = False
    refuses: frozenset[str] = frozenset()
    max_event_bytes: int = 32_000
    max_batch_bytes: int = 475_000


ROWS = {
    "segment": Row(
        endpoints.segment(), "https://api.segment.io", in_body={"writeKey": KEY}, gzip=True
    ),
    "segment in the EU": Row(
        endpoints.segment(region="eu"),
        "https://events.eu1.segmentapis.com",
        in_body={"writeKey": KEY},
        gzip=True,
    ),
    "astronomer": Row(
        endpoints.astronomer(), "https://api.astronomer.io", in_event={"appId": KEY}, gzip=True
    ),
    "dreamdata": Row(endpoints.dreamdata(), "https://api.dreamdata.cloud", envelope_id=True),
    "metarouter": Row(
        endpoints.metarouter("e.example.com"),
        "https://e.example.com",
        in_event={"writeKey": KEY},
        max_event_bytes=15_000,
    ),
    "rudderstack": Row(
        endpoints.rudderstack("https://rudder.example.com/"),
        "https://rudder.example.com",
        in_event={"channel": "server"},
        max_batch_bytes=4_000_000,
        gzip=True,
    ),
    "jitsu": Row(endpoints.jitsu("https://e.example.com/s"), "https://e.example.com/s"),
    "customerio": Row(
        endpoints.customerio(), "https://cdp.customer.io", headers={"x-strict-mode": "1"}
    ),
    "customerio in the EU, lenient": Row(
        endpoints.customerio(region="eu", strict=False), "https://cdp-eu.customer.io"
    ),
    "hightouch": Row(
        endpoints.hightouch(),
        "https://us-east-1.hightouch-events.com",
        in_body={"writeKey": KEY},
    ),
    "dittofeed": Row(
        endpoints.dittofeed("d.example.com"),
        "https://d.example.com",
        path="/api/public/apps/batch",
        authorization=KEY,
        refuses=frozenset({"alias"}),
    ),
}
each_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


@each_row
async def test_the_exact_request(row: Row) -> None:
    """Method, path, headers and body are what the system's documentation asks for."""
    calls = [call(number=1), call("identify", name="Arthur Dent")]
    request = await request_of(row.endpoint, *calls)
    prefix = row.base.partition("://")[2].partition("/")[2]
    assert request.line == f"POST {'/' + prefix if prefix else ''}{row.path} HTTP/1.1"
    assert set(request.headers) == USUAL | set(row.headers)
    assert request.headers.items() >= row.headers.items()
    assert request.headers["authorization"] == row.authorization
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == f"asyncanalytics/{__version__}"
    content = json.loads(request.body)
    assert content.pop("batch") == [row.in_event | event_of(each) for each in calls]
    assert re.fullmatch(STAMP, content.pop("sentAt"))
    if row.envelope_id:
        assert uuid.UUID(content.pop("messageId")).version == 5
    assert content == row.in_body


@each_row
def test_the_documented_host_and_limits(row: Row) -> None:
    """Where it goes, how much it takes, and what it does not take."""
    assert row.endpoint.base == row.base
    assert row.endpoint.batch_url == row.base + row.path
    assert row.endpoint.refuses == row.refuses == Destination(KEY, endpoint=row.endpoint).refuses
    assert row.endpoint.max_batch_events == 2_500
    assert row.endpoint.max_event_bytes == row.max_event_bytes
    assert row.endpoint.max_batch_bytes == row.max_batch_bytes


@each_row
async def test_compression(row: Row) -> None:
    """Where gzip is known to be taken, a batch is compressed: the content stays the same."""
    calls = [call(text="x" * 2_000)]
    request = await request_of(row.endpoint, *calls, gzip=None)
    assert request.headers.get("content-encoding") == ("gzip" if row.gzip else None)
    assert request.content["batch"] == [row.in_event | event_of(calls[0])]
    assert len(request.body) < 2_000 or not row.gzip


@each_row
async def test_what_is_sent_is_as_long_as_foreseen(row: Row) -> None:
    """The limits that batches are cut by count every byte of the request."""
    calls = [call(number=number) for number in range(5)]
    limits = Destination(KEY, endpoint=row.endpoint).limits(Batching())
    request = await request_of(row.endpoint, *calls)
    bodies = sum(len(each.body) + limits.per_event for each in calls)
    assert len(request.body) == limits.envelope + bodies
    largest = max(len(json.dumps(each)) for each in request.content["batch"])
    assert largest <= limits.max_event_bytes


@pytest.mark.parametrize(("gzip", "length"), [(True, 2_000), (False, 2_000), (True, 10)])
async def test_compression_as_the_user_says(*, gzip: bool, length: int) -> None:
    """The setting wins over the endpoint; what is shorter than a packet is never compressed."""
    calls = [call(text="x" * length)]
    for endpoint in (endpoints.segment(), endpoints.dreamdata()):
        request = await request_of(endpoint, *calls, gzip=gzip)
        assert ("content-encoding" in request.headers) == (gzip and length > 1_000)
        assert request.content["batch"] == [event_of(calls[0])]


@pytest.fixture
def no_isal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compress as where the extra is missing."""
    monkeypatch.setattr("asyncanalytics.destinations.http.COMPRESSES_QUICKLY", False)


@pytest.mark.usefixtures("no_isal", "no_new_thread")
async def test_a_batch_stays_whole_at_the_limit_of_threads() -> None:
    """Without isal a thread compresses, or the loop's where none starts."""
    calls = [call(number=number) for number in range(300)]
    request = await request_of(endpoints.segment(), *calls, gzip=True)
    assert request.headers["content-encoding"] == "gzip"
    assert request.content["batch"] == [event_of(each) for each in calls]


@pytest.mark.usefixtures("no_isal")
async def test_compression_takes_no_thread_of_the_users() -> None:
    """All of the loop's pool may be busy, or waiting for room in the queue."""
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asyncio.get_running_loop().set_default_executor(pool)
        pool.submit(over.wait, 60)
        async with asyncio.timeout(30):
            request = await request_of(endpoints.segment(), call(text="x" * 2_000), gzip=True)
        over.set()
    assert request.headers["content-encoding"] == "gzip"


@pytest.mark.usefixtures("no_isal")
async def test_one_thread_compresses_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the loop's, and it is gone when the client is closed."""
    threads = []

    def compress(pieces: Iterable[bytes]) -> bytes:
        threads.append(threading.current_thread())
        return encoding.compress(pieces)

    monkeypatch.setattr("asyncanalytics.destinations.http.compress", compress)
    async with serving() as server:
        sending = Sending(gzip=True)
        async with AsyncClient(KEY, endpoint=server.url, sending=sending) as client:
            for _ in range(3):
                await client.track("Added File", user_id="u1", properties={"text": "x" * 2_000})
                await client.flush()
    assert client.stats().delivered == 3
    assert client.stats().is_balanced
    assert len(threads) == 3
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()
    threads[0].join(10)
    assert not threads[0].is_alive()


async def test_a_thread_that_compresses_lets_go_of_what_it_has_done() -> None:
    """A batch is large, and the next one may be long in coming."""

    class Pieces(list[bytes]):
        """They can be watched."""

    pieces = Pieces([b"x" * 2_000])
    watch = weakref.ref(pieces)
    worker = Worker()
    assert gzip.decompress(await worker.run(encoding.compress, pieces)) == pieces[0]
    del pieces
    assert await worker.run(int) == 0  # by then it has done with the first
    gc.collect()
    assert watch() is None


# -------------------------------------------------------------------------------- the single form


@pytest.mark.parametrize("kind", ["identify", "track", "page", "group", "alias"])
async def test_astronomer_one_call_a_request(kind: str) -> None:
    """The form that Astronomer's guide documents: each call at a route of its own."""
    receipt = call(kind, text="x" * 2_000)
    request = await request_of(endpoints.astronomer(form="single"), receipt, gzip=None)
    assert request.line == f"POST /v1/{kind} HTTP/1.1"
    assert set(request.headers) == USUAL
    assert request.headers["authorization"] == BASIC
    content = json.loads(request.body)
    assert re.fullmatch(STAMP, content.pop("sentAt"))
    assert content == {"appId": KEY, **event_of(receipt)}


async def test_astronomer_has_no_route_for_a_screen() -> None:
    """A screen call goes as a batch of one, instead of to a route that answers 404."""
    receipt = call("screen")
    request = await request_of(endpoints.astronomer(form="single"), receipt)
    assert request.line == "POST /v1/batch HTTP/1.1"
    assert request.content["batch"] == [{"appId": KEY, **event_of(receipt)}]


def test_the_single_form_sends_one_call_at_a_time() -> None:
    """A batch would not fit a route for one call."""
    destination = Destination(KEY, endpoint=endpoints.astronomer(form="single"))
    assert destination.limits(Batching()).max_events == 1


async def test_the_single_form_sends_a_key_in_the_body_too() -> None:
    """A host that looks for the key in the body finds it there in either form."""
    endpoint = endpoints.custom(
        "https://e.example.com", form="single", auth="none", key_in_body="writeKey"
    )
    request = await request_of(endpoint, call())
    assert request.content["writeKey"] == KEY


# ---------------------------------------------------------------------------------- keys and auth


@pytest.mark.parametrize(
    ("auth", "header"),
    [("basic", BASIC), ("bearer", f"Bearer {KEY}"), ("raw", KEY), ("none", None)],
)
async def test_where_the_key_goes(auth: Any, header: str | None) -> None:
    """Each way to sign a request."""
    endpoint = endpoints.custom("https://e.example.com", auth=auth)
    request = await request_of(endpoint, call())
    assert request.headers.get("authorization") == header
    assert KEY not in request.body.decode()


async def test_the_key_of_the_guide() -> None:
    """Astronomer's and Dreamdata's own examples of a header."""
    first = await request_of(endpoints.astronomer(), call(), key="bXlhcHA6")
    assert first.headers["authorization"] == "Basic YlhsaGNIQTY6"
    second = await request_of(endpoints.dreamdata(), call(), key="abc123")
    assert second.headers["authorization"] == "Basic YWJjMTIzOg=="


async def test_an_odd_key_is_carried_whole() -> None:
    """A key may hold what JSON and formatting treat specially."""
    key = '50%s"\\é'
    endpoint = endpoints.custom("https://e.example.com", key_in_body="a", key_in_event="b")
    request = await request_of(endpoint, call(), key=key)
    assert base64.b64decode(request.headers["authorization"][6:]).decode() == key + ":"
    assert request.content["a"] == request.content["batch"][0]["b"] == key


async def test_custom_says_all_of_it() -> None:
    """Any other host: path, keys, headers and limits as given."""
    endpoint = endpoints.custom(
        "https://e.example.com/in/",
        name="ours",
        batch_path="/v2/import",
        key_in_body="writeKey",
        key_in_event="apiKey",
        headers={"X-Tenant": "t1"},
        gzip=True,
        max_event_bytes=1_000,
        max_batch_bytes=9_000,
        max_batch_events=7,
    )
    receipt = call()
    request = await request_of(endpoint, receipt)
    assert request.line == "POST /in/v2/import HTTP/1.1"
    assert request.headers["x-tenant"] == "t1"
    assert request.content["writeKey"] == KEY
    assert request.content["batch"] == [{"apiKey": KEY, **event_of(receipt)}]
    limits = Destination(KEY, endpoint=endpoint).limits(Batching())
    assert (limits.max_event_bytes, limits.max_bytes, limits.max_events) == (1_000, 9_000, 7)
    assert Destination(KEY, endpoint=endpoint).name == "ours"


async def test_a_header_of_the_users_own_replaces_the_usual_one() -> None:
    """No header goes out twice, however it is spelled; the server here would refuse that."""
    headers = {"User-Agent": "ours/1", "AUTHORIZATION": "Token t"}
    endpoint = endpoints.custom("https://e.example.com", headers=headers)
    request = await request_of(endpoint, call())
    assert request.headers["user-agent"] == "ours/1"
    assert request.headers["authorization"] == "Token t"


async def test_the_users_limits_win_where_they_are_lower() -> None:
    """An endpoint's own limits are never passed."""
    destination = Destination(KEY, endpoint=endpoints.segment())
    limits = destination.limits(Batching(max_events=10, max_bytes=5_000))
    assert (limits.max_events, limits.max_bytes) == (10, 5_000)
    limits = destination.limits(Batching(max_events=9_999, max_bytes=9_999_999))
    assert (limits.max_events, limits.max_bytes) == (2_500, 475_000)


async def test_only_a_retry_says_so() -> None:
    """`X-Retry-Count` is there on retries only, and a retry is the same envelope, stamped anew."""
    receipt = call()
    batch, retry = Batch(0, [receipt]), Batch(0, [receipt], attempts=1, retries=2)
    first, again = await requests_of(endpoints.dreamdata(), batch, retry)
    assert "x-retry-count" not in first.headers
    assert again.headers["x-retry-count"] == "2"
    assert first.content["messageId"] == again.content["messageId"]
    assert first.content["batch"] == again.content["batch"]
    assert first.content["sentAt"] <= again.content["sentAt"]


@pytest.mark.parametrize(
    "key", ["", " ", "canary\n", " canary", "c\nanary", "canary\r", "\x00", "canary\x7f"]
)
def test_keys_that_cannot_be_sent(key: str) -> None:
    """A key with a line break comes from a file that was not stripped; it is not shown."""
    with pytest.raises(ConfigurationError, match="key") as caught:
        Destination(key)
    assert "anary" not in str(caught.value)


@pytest.mark.parametrize("auth", ["bearer", "raw"])
def test_a_key_in_a_header_is_ascii(auth: Any) -> None:
    """What a header cannot carry is refused at the start, not with every request."""
    with pytest.raises(ConfigurationError, match="ASCII"):
        Destination("clé", endpoint=endpoints.custom("https://e.example.com", auth=auth))


def test_no_repr_shows_a_key() -> None:
    """Neither a destination's, nor an endpoint's whose headers carry a token."""
    endpoint = endpoints.custom("https://e.example.com", headers={"X-Token": KEY})
    assert KEY not in repr(endpoint)
    assert KEY not in repr(Destination(KEY, endpoint=endpoint))
    assert KEY not in repr(vars(Destination(KEY)))


# ------------------------------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    "url",
    [
        "https://e.example.com",
        "https://e.example.com:8443/in",
        "HTTPS://E.example.com",
        "https://exämple.com",
        "http://localhost",
        "http://LOCALHOST:8000",
        "http://127.0.0.1:8000",
        "http://127.9.9.9",
        "http://[::1]:8000",
    ],
)
def test_urls(url: str) -> None:
    """TLS to anywhere, and plain HTTP to this machine."""
    assert endpoints.custom(url + "//").batch_url == url + "/v1/batch"


@pytest.mark.parametrize(
    "url",
    [
        "http://e.example.com",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://[fe80::1]",
    ],
)
def test_plain_http_must_be_allowed(url: str) -> None:
    """The key would travel in the clear: that takes a word of the user's."""
    with pytest.raises(ConfigurationError, match=r"insecure=True"):
        endpoints.custom(url)
    assert endpoints.custom(url, insecure=True).base == url


@pytest.mark.parametrize(
    "url",
    [
        *["", "e.example.com", "//e.example.com", "ftp://e.example.com", "https://", "https:///x"],
        *["https://e.example.com:99999", "https://e.example.com:port", "https://[::1"],
        *["https://e.example .com", " https://e.example.com", "https://e.example.com/\n"],
        *[
            "https://canary@e.example.com",
            "https://:canary@e.example.com",
            "https://@e.example.com",
        ],
        *["https://e.example.com?canary", "https://e.example.com#canary", "https://e.example.com?"],
        *["https://e.example.com#", "https://e.example.com\\@canary.example.com"],
        *["http://localhost@e.example.com", "file:///canary"],
    ],
)
def test_what_is_no_base_url(url: str) -> None:
    """A URL that would send the key elsewhere or nowhere is refused, and not shown."""
    with pytest.raises(ConfigurationError, match=r"^endpoint custom: ") as caught:
        endpoints.custom(url)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "about"),
    [
        ({"batch_path": "v1/batch"}, "slash"),
        ({"batch_path": ".evil.example.com/"}, "slash"),
        ({"batch_path": ""}, "slash"),
        ({"auth": "digest"}, "auth"),
        ({"form": "stream"}, "form"),
        ({"headers": {"X-A": "a\r\nX-B: b"}}, "header"),
        ({"headers": {"X-A\n": "a"}}, "header"),
        ({"headers": {"X-A": "é"}}, "header"),
        ({"max_event_bytes": 0}, "limit"),
        ({"max_batch_bytes": -1}, "limit"),
        ({"max_batch_events": 0}, "limit"),
    ],
)
def test_custom_refuses_what_cannot_work(options: dict[str, Any], about: str) -> None:
    """A mistake in an endpoint fails where it is written."""
    with pytest.raises(ConfigurationError, match=about):
        endpoints.custom("https://e.example.com", **options)


def test_a_route_of_its_own_must_begin_with_a_slash() -> None:
    """A path that lengthened the host's name would hand the key to another host."""
    with pytest.raises(ConfigurationError, match="slash"):
        dataclasses.replace(endpoints.segment(), call_paths={"track": ".evil.example.com/"})


@pytest.mark.parametrize("make", [endpoints.segment, endpoints.customerio])
def test_unknown_regions(make: Any) -> None:
    """The wrong region loses data without an error: so a wrong name is one."""
    with pytest.raises(ConfigurationError, match="region must be 'us' or 'eu'"):
        make(region="ap")


def test_endpoints_are_values() -> None:
    """An endpoint can be compared and varied, and does not change."""
    assert endpoints.segment() == endpoints.segment()
    assert endpoints.segment() != endpoints.segment(region="eu")
    with pytest.raises(dataclasses.FrozenInstanceError):
        endpoints.segment().base = "https://e.example.com"  # type: ignore[misc]


# ------------------------------------------------------------------------------------------ parse


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("segment", endpoints.segment()),
        ("segment@us", endpoints.segment()),
        ("segment@eu", endpoints.segment(region="eu")),
        ("astronomer", endpoints.astronomer()),
        ("astronomer@single", endpoints.astronomer(form="single")),
        ("dreamdata", endpoints.dreamdata()),
        ("metarouter@m.example.com", endpoints.metarouter("m.example.com")),
        ("rudderstack@https://r.example.com", endpoints.rudderstack("r.example.com")),
        ("jitsu@j.example.com:8443", endpoints.jitsu("j.example.com:8443")),
        ("jitsu@http://localhost:8000", endpoints.jitsu("http://localhost:8000")),
        ("customerio", endpoints.customerio()),
        ("customerio@eu", endpoints.customerio(region="eu")),
        ("hightouch", endpoints.hightouch()),
        ("hightouch@h.example.com", endpoints.hightouch(host="h.example.com")),
        ("dittofeed@d.example.com", endpoints.dittofeed("d.example.com")),
        ("https://e.example.com/in", endpoints.custom("https://e.example.com/in")),
        ("http://localhost:8000", endpoints.custom("http://localhost:8000")),
    ],
)
def test_parse(text: str, endpoint: Endpoint) -> None:
    """An endpoint can be given as text, in the environment or on the command line."""
    assert endpoints.parse(text) == endpoint


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("", "give a URL, or one of segment,"),
        ("mixpanel", "give a URL, or one of segment,"),
        ("Segment", "give a URL, or one of segment,"),
        ("@eu", "give a URL, or one of segment,"),
        ("e.example.com", "give a URL, or one of segment,"),
        ("segment@ap", "region must be 'us' or 'eu'"),
        ("segment@https://e.example.com", "region must be 'us' or 'eu'"),
        ("customerio@ap", "region must be 'us' or 'eu'"),
        ("astronomer@stream", "form must be one of"),
        ("dreamdata@eu", "nothing to choose"),
        ("metarouter", "name your own host"),
        ("rudderstack@", "name your own host"),
        ("jitsu", "name your own host"),
        ("dittofeed", "name your own host"),
        ("jitsu@http://10.0.0.1", "http:// would send all in the clear"),
        ("https://canary@e.example.com", "the key is given to the client"),
        ("http://e.example.com", "insecure=True"),
    ],
)
def test_parse_says_what_is_wrong(text: str, about: str) -> None:
    """A typo in an environment variable is answered with what may stand there."""
    with pytest.raises(ConfigurationError, match=re.escape(about)) as caught:
        endpoints.parse(text)
    assert "canary" not in str(caught.value)


def test_names() -> None:
    """The names that may be given are the functions of this room."""
    assert {"segment", "astronomer", "dreamdata", "metarouter"} <= set(endpoints.names())
    assert all(callable(getattr(endpoints, name)) for name in endpoints.names())


@pytest.mark.parametrize("key_in_body", [None, "writeKey"])
async def test_the_single_form_stays_within_the_limit(key_in_body: str | None) -> None:
    """The largest call that fits makes a request of just the limit, with all that is added."""
    endpoint = endpoints.custom(
        "https://e.example.com", form="single", key_in_body=key_in_body, max_event_bytes=2_000
    )
    limits = Destination(KEY, endpoint=endpoint).limits(Batching())
    receipt = Receipt("track", "m1", b'"type":"track","event":"x"}')
    room = limits.max_body - len(receipt.body)
    receipt.body = receipt.body.replace(b'"x"', b'"x' + b"y" * room + b'"')
    request = await request_of(endpoint, receipt)
    assert len(request.body) == 2_000
