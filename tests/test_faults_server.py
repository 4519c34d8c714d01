"""Faults of the server and of the way to it, over real sockets: what the catalogue promises.

What one answer means is in test_retrying.py and test_outcomes.py, poison in test_poison.py, and
broken, endless and slow answers in test_transport.py. Here is the rest: the way there (names,
connections that never come about, certificates), redirects of every kind, headers that lie, and
what happens when a server comes back.
"""

from __future__ import annotations

import asyncio
import email.utils
import gzip
import itertools
import logging
import os
import socket
import ssl
import struct
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trustme
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asyncanalytics import Batching, Retrying

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from pathlib import Path

    from conftest import Lab, Peer

pytestmark = pytest.mark.long

SOAK = 50 if "SOAK" in os.environ else 1  # times as many examples
QUICK = Retrying(max_attempts=10_000, base=0.01, cap=0.01)
AT_ONCE = Batching(linger=0)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


async def well(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
    """Take everything."""
    await peer.serve_on(reader, writer)


def answering(answers: list[bytes]) -> Any:
    """Make a server that gives these answers, one a request, and then takes everything.

    It takes the calls of an answer that is a success; after each it goes on with the connection.
    """

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        while (request := await peer.read(reader)) is not None:
            if not answers:
                await peer.answer(writer, request)
                continue
            answer = answers.pop(0)
            if answer[9:10] == b"2":
                peer.take(request)
            writer.write(answer)
            await writer.drain()

    return handle


async def gets_through(lab: Lab, client: Any) -> None:
    """Assert that a fresh call is delivered."""
    async with asyncio.timeout(10):
        (fresh,) = await lab.track(client)
        assert (await fresh.settled()).delivered


async def has_failed(client: Any, times: int = 2) -> None:
    """Wait until requests have failed so often."""
    async with asyncio.timeout(10):
        # The client is at work: there is nothing to await.
        while client.stats().destinations["custom"].retries < times:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


# ------------------------------------------------------------------------------------- the key


@pytest.mark.looptime
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_stops_the_destination(
    lab: Lab, logged: pytest.LogCaptureFixture, status: int
) -> None:
    """It is said once; no more requests go out until it is tried again, and then all is well."""
    server = lab.script(status, then=200)
    retrying = Retrying(cap=30)
    async with lab.client(server, retrying=retrying, batching=AT_ONCE) as client:
        for _ in range(5):
            outcome = await (await lab.track(client))[0].settled()
            assert (outcome.kind, outcome.status) == ("rejected", status)
        assert len(server.requests) == 1
        await asyncio.sleep(31)
        await gets_through(lab, client)
    said = [each.getMessage() for each in logged.records if each.levelno == logging.ERROR]
    assert len(said) == 1
    assert f"status {status}" in said[0]


# ------------------------------------------------------------------------------------ redirects


async def test_no_redirect_of_any_code_is_followed(lab: Lab) -> None:
    """Whatever 3xx, and however it names the other host, that host sees no body and no key."""
    async with lab.listening(well, host="127.0.0.2") as thief:
        place = f"127.0.0.2:{thief.port}"
        forms = [
            f"location: http://{place}/v1/batch",
            f"location: //{place}/",
            f"location: http://{place}/\r\nlocation: http://{place}/2",
            f"content-location: http://{place}/\r\nrefresh: 0; url=http://{place}/",
            f'link: <http://{place}/>; rel="canonical"\r\nalt-svc: http/1.1="{place}"',
            f"location: http://user:pass@{place}/\r\nconnection: close",
        ]
        answers = [
            f"HTTP/1.1 {status} Go\r\n{forms[status % len(forms)]}\r\ncontent-length: 0\r\n\r\n"
            for status in range(300, 400)
        ]
        left = [each.encode() for each in answers]
        async with (
            lab.listening(answering(left)) as peer,
            lab.client(peer, retrying=Retrying(max_attempts=1000, base=0, cap=0)) as client,
        ):
            outcome = await (await lab.track(client))[0].settled()
            await gets_through(lab, client)
        assert (outcome.kind, outcome.attempts) == ("delivered", 101)
        assert len({tuple(each.ids) for each in peer.requests}) == 2
        assert thief.connections == 0


async def test_a_success_that_points_elsewhere_is_a_success(lab: Lab) -> None:
    """A 201 with a `Location` is an answer like any 2xx: nobody goes there."""
    async with lab.listening(well, host="127.0.0.2") as thief:
        place = f"http://127.0.0.2:{thief.port}/".encode()
        answer = b"HTTP/1.1 201 Made\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n" % place
        async with lab.listening(answering([answer])) as peer, lab.client(peer) as client:
            assert (await (await lab.track(client))[0].settled()).attempts == 1
            await gets_through(lab, client)
        assert thief.connections == 0


# --------------------------------------------------------------------------- the way to the server


async def test_a_name_that_is_not_found(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing lookup is tried again; once the name is there, so are the calls."""
    name, found = "collector.invalid", False
    real = socket.getaddrinfo

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        there = found and host in (name, name.encode())
        return real("127.0.0.1" if there else host, *args, **kwargs)

    # The name of RFC 2606 fails by itself; only what it leads to later is made here.
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    async with lab.listening(well) as peer:
        endpoint = lab.endpoint(peer, insecure=True)
        base = f"http://{name}:{peer.port}"
        object.__setattr__(endpoint, "base", base)
        lab._servers[base] = peer
        async with lab.client(peer, endpoint=endpoint, retrying=QUICK) as client:
            receipts = lab.burst(client, 3)
            await has_failed(client)
            found = True
            async with asyncio.timeout(10):
                outcomes = [await each.settled() for each in receipts]
            await gets_through(lab, client)
    assert {each.kind for each in outcomes} == {"delivered"}
    assert len(peer.requests) == 2


async def test_a_connection_that_never_comes_about(lab: Lab) -> None:
    """Getting a connection has a limit of its own, far below that of the whole request."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    place = listener.getsockname()
    # Who fills the backlog leaves others unanswered: no accept, and no refusal.
    waiting = []
    for _ in range(3):
        filler = socket.socket()
        filler.setblocking(False)  # noqa: FBT003 - it has no name
        filler.connect_ex(place)
        waiting.append(filler)
    async with lab.listening(well) as peer:
        where, peer.port = peer.port, place[1]
        sending = {"connect_timeout": 0.1, "timeout": 1_000.0}
        client = lab.client(peer, retrying=QUICK, sending=sending)
        peer.port = where
        async with client:
            receipts = lab.burst(client, 3)
            await has_failed(client)
            for each in (*waiting, listener):
                each.close()

            async def connected(reader: StreamReader, writer: StreamWriter) -> None:
                await peer.serve_on(reader, writer)
                writer.close()

            server = await asyncio.start_server(connected, *place, reuse_address=True)
            async with asyncio.timeout(10):
                assert {(await each.settled()).kind for each in receipts} == {"delivered"}
            await gets_through(lab, client)
        server.close()


async def test_a_server_that_reads_nothing(lab: Lab) -> None:
    """A request that cannot be written ends in its total time, and goes out again, unchanged."""
    deaf = [2]

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        if deaf[0]:
            deaf[0] -= 1
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(1_000)
        await peer.serve_on(reader, writer)

    small = {"x": "x" * 30_000}
    async with lab.listening(handle) as peer:
        sending = {"timeout": 0.2}
        async with lab.client(peer, retrying=QUICK, sending=sending) as client:
            receipts = [
                client.track_nowait("Added File", user_id="u", properties=small) for _ in range(15)
            ]
            async with asyncio.timeout(10):
                assert {(await each.settled()).kind for each in receipts} == {"delivered"}
            await gets_through(lab, client)
    assert client.stats().destinations["custom"].retries == 2
    assert {len(each) for each in peer.arrived.values()} == {1}


async def _say_nothing(_: StreamWriter) -> None:
    await asyncio.sleep(1_000)


async def _drip(writer: StreamWriter, head: bytes, drop: bytes) -> None:
    writer.write(head)
    while True:
        writer.write(drop)
        await writer.drain()
        await asyncio.sleep(0.03)


SLOW: dict[str, Any] = {
    "silent": _say_nothing,
    "status line": lambda writer: _drip(writer, b"HTTP/1.1 200 ", b"O"),
    "headers": lambda writer: _drip(writer, b"HTTP/1.1 200 OK\r\nx: ", b"y"),
    "interim answers": lambda writer: _drip(writer, b"", b"HTTP/1.1 102 Wait\r\n\r\n"),
    "body": lambda writer: _drip(writer, OK[:-7] + b"9999\r\n\r\n", b"{"),
    "chunks": lambda writer: _drip(writer, CHUNKED, b"1\r\n{\r\n"),
    "until the end": lambda writer: _drip(writer, b"HTTP/1.1 200 OK\r\n\r\n", b"{"),
}


@pytest.mark.parametrize("phase", SLOW)
async def test_an_answer_that_drips_for_ever(lab: Lab, phase: str) -> None:
    """Each byte is in time and the whole is not: the request ends, and goes out again."""
    slow = [2]

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        while (request := await peer.read(reader)) is not None:
            if slow[0]:
                slow[0] -= 1
                await SLOW[phase](writer)
            await peer.answer(writer, request)

    async with lab.listening(handle) as peer:
        sending = {"timeout": 0.2}
        async with lab.client(peer, retrying=QUICK, sending=sending) as client:
            async with asyncio.timeout(10):
                outcome = await (await lab.track(client))[0].settled()
            await gets_through(lab, client)
    assert (outcome.kind, outcome.attempts) == ("delivered", 3)
    moments = [request.at for request in peer.requests]
    assert all(0.15 < after - before < 2 for before, after in itertools.pairwise(moments[:3]))


async def test_a_reset_while_the_request_is_sent(lab: Lab) -> None:
    """A connection that is reset in the middle of a body: the same calls go out again."""
    resets = [3]

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        if resets[0]:
            resets[0] -= 1
            await reader.readexactly(100)
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return
        await peer.serve_on(reader, writer)

    async with lab.listening(handle) as peer, lab.client(peer, retrying=QUICK) as client:
        receipts = [
            client.track_nowait("Added File", user_id="u", properties={"x": "x" * 30_000})
            for _ in range(15)
        ]
        async with asyncio.timeout(10):
            outcomes = [await each.settled() for each in receipts]
        await gets_through(lab, client)
    assert {(each.kind, each.attempts) for each in outcomes} == {("delivered", 4)}


async def test_a_server_that_is_restarted(lab: Lab) -> None:
    """It is there, it is refused, it is there again: kept connections and calls outlast that."""
    async with lab.listening(well) as peer:
        port = peer.port
        client = lab.client(peer, retrying=QUICK, batching=AT_ONCE)
        await client.start()
        await gets_through(lab, client)
    (receipt,) = await lab.track(client)  # its connection is closed, and its port refuses
    await has_failed(client)

    async def connected(reader: StreamReader, writer: StreamWriter) -> None:
        await peer.serve_on(reader, writer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    async with asyncio.timeout(10):
        assert (await receipt.settled()).delivered
    await gets_through(lab, client)
    await client.aclose()
    server.close()


# ---------------------------------------------------------------------------------------------- TLS


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A certificate authority that this process trusts."""
    made = trustme.CA()
    root = tmp_path / "root.pem"
    made.cert_pem.write_to_path(root)
    monkeypatch.setenv("SSL_CERT_FILE", str(root))
    return made


def secured(lab: Lab, peer: Peer) -> Any:
    """Return an endpoint that reaches a peer by TLS."""
    endpoint = lab.endpoint(peer)
    object.__setattr__(endpoint, "base", peer.url.replace("http:", "https:"))
    lab._servers[endpoint.base] = peer
    return endpoint


@pytest.mark.parametrize("trouble", ["expired", "name", "unknown"])
async def test_a_certificate_that_is_mended(lab: Lab, authority: trustme.CA, trouble: str) -> None:
    """Nothing is sent under a bad certificate, and all of it once there is a good one."""
    good = authority.issue_cert("127.0.0.1")
    bad = {
        "expired": authority.issue_cert(
            "127.0.0.1", not_after=datetime.now(UTC) - timedelta(days=1)
        ),
        "name": authority.issue_cert("example.test", "127.0.0.2"),
        "unknown": trustme.CA().issue_cert("127.0.0.1"),
    }[trouble]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    bad.configure_cert(context)
    async with lab.listening(well, tls=context) as peer:
        endpoint = secured(lab, peer)
        async with lab.client(peer, endpoint=endpoint, retrying=QUICK) as client:
            receipts = lab.burst(client, 3)
            await has_failed(client, 3)
            assert not peer.requests
            good.configure_cert(context)  # new connections get this one
            async with asyncio.timeout(10):
                assert {(await each.settled()).kind for each in receipts} == {"delivered"}
            await gets_through(lab, client)


async def test_tls_is_never_given_up(lab: Lab, authority: trustme.CA) -> None:
    """A server that answers TLS with plain HTTP gets no request, however often it is tried."""
    heard: list[bytes] = []
    secure = False

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        if secure:
            await peer.serve_on(reader, writer)
            return
        heard.append(await reader.read(5))
        place = f"http://127.0.0.1:{peer.port}/v1/batch"
        writer.write(f"HTTP/1.1 307 Go\r\nlocation: {place}\r\n\r\n".encode())

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with lab.listening(handle) as peer:
        endpoint = secured(lab, peer)
        async with lab.client(peer, endpoint=endpoint, retrying=QUICK) as client:
            (receipt,) = await lab.track(client)
            await has_failed(client, 3)
            assert {each[:2] for each in heard} == {b"\x16\x03"}  # a TLS handshake, each time
            assert not peer.requests
            # The same place speaks TLS now.
            async with lab.listening(well, tls=context) as other:
                object.__setattr__(endpoint, "base", other.url.replace("http:", "https:"))
                lab._servers[endpoint.base] = other
                async with asyncio.timeout(10):
                    assert (await receipt.settled()).delivered
                await gets_through(lab, client)


async def test_old_versions_of_tls_are_refused(lab: Lab, authority: trustme.CA) -> None:
    """A server that only speaks TLS 1.1 gets nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with lab.listening(well, tls=context) as peer:
        endpoint = secured(lab, peer)
        async with lab.client(peer, endpoint=endpoint, retrying=QUICK) as client:
            (receipt,) = await lab.track(client)
            await has_failed(client, 3)
            assert not peer.requests
            context.maximum_version = ssl.TLSVersion.TLSv1_3
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            async with asyncio.timeout(10):
                assert (await receipt.settled()).delivered
            await gets_through(lab, client)


# ---------------------------------------------------------------------------------- Retry-After


class Pairs(dict[str, str]):
    """Headers in which a name may come twice."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        super().__init__(pairs)
        self._pairs = pairs

    def items(self) -> Any:
        """Give all of them."""
        return self._pairs


_START = 1_800_000_000
SECONDS = st.integers(-(10**12), 10**12).map(str)
DATES = st.integers(-(10**6), 10**9).map(
    lambda away: email.utils.formatdate(_START + away, usegmt=True)
)
GARBAGE = st.text(
    st.characters(blacklist_characters="\r\n\x00", blacklist_categories=["Cs"]), max_size=30
) | st.sampled_from(["1e9", "+5", "0x10", "inf", "nan", "9" * 5_000, "5;q=1", "٣", "5 s", ""])
WAITS = st.lists(SECONDS | DATES | GARBAGE, min_size=1, max_size=3)


def asked_for(values: list[str]) -> float:
    """Return the seconds that a header asks for, as the protocol's page says; 0 for none."""
    if len(values) > 1:
        return -1.0  # what several of them ask for is nobody's to say
    text = values[0].strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(max(float(text), 1.0), 300.0)
    return 0.0


@pytest.mark.looptime
@pytest.mark.timeout(60 * SOAK)
@settings(max_examples=150 * SOAK, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=WAITS, status=st.sampled_from([408, 410, 429, 460, 500, 503, 529]))
@example(values=["120"], status=503)
@example(values=["Fri, 15 Jan 2027 08:02:00 GMT"], status=429)
@example(values=["5", "7"], status=503)
@example(values=["Fri", "15 Jan 2027 08:02:00 GMT"], status=503)
async def test_any_retry_after_is_a_bounded_pause(
    new_lab: type[Lab], values: list[str], status: int
) -> None:
    """Whatever the header says, the calls go out again after at most 300 s and the jitter."""
    loop = asyncio.get_running_loop()
    with new_lab() as lab:
        headers = Pairs(*(("retry-after", each) for each in values))
        server = lab.script(lab.reply(status, headers=headers), then=200)
        async with lab.client(server) as client:
            start = loop.time()
            outcome = await (await lab.track(client))[0].settled()
            took = loop.time() - start
            await gets_through(lab, client)
    assert (outcome.kind, outcome.attempts) == ("delivered", 2)
    assert 0 <= took <= 300.5
    asked = asked_for(values)
    if asked > 0:
        assert asked <= took <= asked + 0.5
    elif asked == 0 and not any(each.isdigit() for each in values[0]):
        assert took <= 0.5


# -------------------------------------------------------------------------------- headers that lie

LINES = [
    b"content-length: 0",
    b"content-length: 1",
    b"content-length: 2",
    b"content-length: 1000",
    b"content-length: -1",
    b"content-length: 2, 2",
    b"content-length: 2, 3",
    b"content-length: 0x2",
    b"content-length: " + b"9" * 40,
    b"transfer-encoding: chunked",
    b"transfer-encoding: chunked, chunked",
    b"transfer-encoding: gzip",
    b"transfer-encoding: identity",
    b"Transfer-Encoding : chunked",
    b"content-encoding: gzip",
    b"content-encoding: br, zstd, deflate",
    b"connection: close",
    b"connection: upgrade\r\nupgrade: h2c",
    b"trailer: retry-after",
    b"x: " + b"y" * 20_000,
    b" folded: line",
    b"x: a\r\n\tb",
    b"set-cookie: " + b"a=b; " * 500,
    b"retry-after: 0",
    b"x-\xff\xfe: \x80",
]
BODIES = [
    b"",
    b"{}",
    b"{",
    b"2\r\n{}\r\n0\r\n\r\n",
    b"2\r\n{}\r\n0\r\nretry-after: 9\r\n\r\n",
    b"2;ext=1\r\n{}\r\n0\r\n\r\n",
    b"-2\r\n{}\r\n0\r\n\r\n",
    b"2\r\n{}",
    b"0x2\r\n{}\r\n0\r\n\r\n",
    b"2\n{}\n0\n\n",
    gzip.compress(b"{}"),
    gzip.compress(b"{}")[:9],
    b"{}" * 500,
]
INTERIM = [
    b"",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\n\r\n" * 3,
    b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
    b"HTTP/1.1 199 Odd\r\ncontent-length: 2\r\n\r\n",
]


@pytest.mark.timeout(60 * SOAK)
@settings(max_examples=60 * SOAK, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    interim=st.sampled_from(INTERIM),
    status=st.sampled_from([200, 202, 204, 207, 301, 304, 400, 404, 413, 429, 500, 503]),
    lines=st.lists(st.sampled_from(LINES), max_size=4),
    body=st.sampled_from(BODIES),
    ends=st.booleans(),
)
@example(interim=INTERIM[4], status=200, lines=LINES[1:2], body=b"{}", ends=False)
@example(interim=b"", status=503, lines=LINES[9:10], body=BODIES[6], ends=False)
async def test_headers_that_lie(
    new_lab: type[Lab], interim: bytes, status: int, lines: list[bytes], body: bytes, *, ends: bool
) -> None:
    """Lengths, chunks and encodings that are not so: the calls end, and the next get through."""
    head = b"HTTP/1.1 %d Odd\r\n" % status + b"".join(line + b"\r\n" for line in lines)
    answer, left = interim + head + b"\r\n" + body, [1]

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        while (request := await peer.read(reader)) is not None:
            if not left[0]:
                await peer.answer(writer, request)
                continue
            left[0] -= 1
            if 200 <= status < 300:
                peer.take(request)
            writer.write(answer)
            await writer.drain()
            if ends:
                return

    with new_lab() as lab:
        async with (
            httpx.AsyncClient(verify=False) as http,  # noqa: S501 - no TLS here, and quick to make
            lab.listening(handle) as peer,
            lab.client(
                peer,
                retrying=QUICK,
                batching=AT_ONCE,
                sending={"http_client": http, "timeout": 0.15},
            ) as client,
        ):
            receipts = lab.burst(client, 2)
            async with asyncio.timeout(10):
                kinds = Counter([(await each.settled()).kind for each in receipts])
            for _ in range(2):
                await gets_through(lab, client)
        assert kinds.total() == 2


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("surplus", [OK, b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", b"\r\n"])
async def test_an_answer_to_nothing_is_no_answer(
    lab: Lab, authority: trustme.CA, surplus: bytes, *, secure: bool
) -> None:
    """What a server says beyond its answer is not taken for the answer to the next request."""
    context = None
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        while (request := await peer.read(reader)) is not None:
            if peer.connections > 1:
                await peer.answer(writer, request)
            elif not peer.arrived:
                peer.take(request)
                writer.write(OK + surplus)
            else:
                return  # it does not take the second one

    async with lab.listening(handle, tls=context) as peer:
        endpoint = secured(lab, peer) if secure else lab.endpoint(peer)
        settings = {"retrying": QUICK, "batching": AT_ONCE}
        async with lab.client(peer, endpoint=endpoint, **settings) as client:
            for _ in range(3):
                await gets_through(lab, client)
    assert peer.connections == 2
