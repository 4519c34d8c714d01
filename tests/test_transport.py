"""The transport over real sockets: every way in which a request can fail, and what comes after."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import logging
import math
import os
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import respx
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncanalytics import Batching, ConfigurationError, Retrying, Sending, endpoints
from asyncanalytics._version import __version__
from asyncanalytics.errors import NoAnswer
from asyncanalytics.retrying import MAX_ANSWER
from asyncanalytics.transport import Transport

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Callable, Iterator

    from conftest import Lab, Peer

QUICK = Retrying(max_attempts=50, base=0.01, cap=0.01)
NEVER = Retrying(base=1_000, cap=1_000)  # a retry that is not at once does not come in a test
LIBRARIES = ["httpx", "aiohttp"]
by_each_library = pytest.mark.parametrize("lab", LIBRARIES, indirect=True)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def reset(writer: StreamWriter) -> None:
    """Close a connection the hard way: the other side gets a reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def first_then_well(misbehave: Any, times: int = 1) -> Any:
    """Make a server that misbehaves on its first requests, and then takes everything."""
    left = [times]

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        while (request := await peer.read(reader)) is not None:
            if left[0] > 0:
                left[0] -= 1
                await misbehave(writer)
                return
            await peer.answer(writer, request)

    return handle


def first_well_then(misbehave: Any, times: int = sys.maxsize) -> Any:
    """Answer the first request; then so many, on whichever connection, get something else."""
    numbers = itertools.count()

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        while (request := await peer.read(reader)) is not None:
            if 1 <= next(numbers) <= times:
                await misbehave(writer)
                return
            await peer.answer(writer, request)

    return handle


async def well(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
    """Take everything."""
    await peer.serve_on(reader, writer)


async def comes_to_rest(peer: Peer, *, requests: int) -> None:
    """Wait for so many requests, and assert that no more come at once."""
    async with asyncio.timeout(5):
        while len(peer.requests) < requests:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert len(peer.requests) == requests


# -------------------------------------------------------------------------------------- failures


@by_each_library
async def test_refused_until_the_server_is_there(lab: Lab) -> None:
    """A closed port is tried again, and the calls arrive once something listens there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with lab.listening(well) as peer:
        where = peer.port
        peer.port = port
        client = lab.client(peer, retrying=QUICK)
        peer.port = where
        await client.start()
        receipts = lab.burst(client, 3)
        await asyncio.sleep(0.05)
        assert client.stats().destinations["custom"].retries > 0

        async def connected(reader: StreamReader, writer: StreamWriter) -> None:
            await peer.serve_on(reader, writer)
            writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", port)
        assert (await receipts[0].settled()).delivered
        await client.aclose()
        server.close()
    assert client.stats().delivered == 3


async def _reset(writer: StreamWriter) -> None:
    reset(writer)


async def _close(writer: StreamWriter) -> None:
    writer.close()


async def _half_close(writer: StreamWriter) -> None:
    writer.write_eof()
    await asyncio.sleep(5)


async def _partial_headers(writer: StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-le")


async def _partial_body(writer: StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}")


async def _partial_chunk(writer: StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\n{}")


async def _reset_in_the_body(writer: StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}")
    await writer.drain()
    await asyncio.sleep(0.02)
    reset(writer)


BROKEN = [_reset, _close, _half_close, _partial_headers, _partial_body, _partial_chunk]


@by_each_library
@pytest.mark.parametrize("misbehave", [*BROKEN, _reset_in_the_body])
@pytest.mark.parametrize("times", [1, 3])
async def test_a_broken_answer_is_tried_again(lab: Lab, misbehave: Any, times: int) -> None:
    """Whether the calls arrived is unknown, so they are sent again, with the same ids."""
    async with (
        lab.listening(first_then_well(misbehave, times)) as peer,
        lab.client(peer, retrying=QUICK) as client,
    ):
        receipts = lab.burst(client, 3)
        outcomes = [await receipt.settled() for receipt in receipts]
    assert {(each.kind, each.attempts) for each in outcomes} == {("delivered", times + 1)}
    assert len({tuple(request.ids) for request in peer.requests}) == 1
    counts = [request.headers.get("x-retry-count") for request in peer.requests]
    assert counts == [None, *map(str, range(1, times + 1))]


@by_each_library
@pytest.mark.parametrize("misbehave", [_reset, _close, _half_close, _partial_headers])
async def test_a_stale_connection_is_tried_again_at_once(lab: Lab, misbehave: Any) -> None:
    """A kept connection that ends under a request says nothing of the server: no pause, no log."""
    handle = first_well_then(misbehave, times=1)
    async with (
        lab.listening(handle) as peer,
        lab.client(peer, retrying=NEVER, batching=Batching(linger=0)) as client,
    ):
        await (await lab.track(client))[0].settled()
        async with asyncio.timeout(2):
            outcome = await (await lab.track(client))[0].settled()
    assert (outcome.kind, outcome.attempts) == ("delivered", 2)
    assert peer.connections == 2


@by_each_library
@pytest.mark.parametrize("misbehave", [_reset, _close])
async def test_a_stale_connection_is_tried_again_at_once_but_once(
    lab: Lab, logged: pytest.LogCaptureFixture, misbehave: Any
) -> None:
    """If the new connection breaks too, it is trouble like any other: a pause, and a line."""
    handle = first_well_then(misbehave)
    async with lab.listening(handle) as peer:
        client = lab.client(peer, retrying=NEVER, batching=Batching(linger=0))
        await client.start()
        await (await lab.track(client))[0].settled()
        (receipt,) = await lab.track(client)
        await comes_to_rest(peer, requests=3)
        await client.aclose(0)
    assert receipt.outcome is not None
    assert receipt.outcome.reason == "closed"
    assert [each.levelname for each in logged.records] == ["WARNING", "ERROR"]


@by_each_library
@pytest.mark.parametrize("misbehave", [_reset, _close])
async def test_a_new_connection_that_breaks_is_not_stale(
    lab: Lab, logged: pytest.LogCaptureFixture, misbehave: Any
) -> None:
    """A server that accepts and hangs up is not hammered: it is met with the usual pause."""
    async with lab.listening(first_then_well(misbehave, 10**6)) as peer:
        client = lab.client(peer, retrying=NEVER)
        await client.start()
        await lab.track(client)
        await comes_to_rest(peer, requests=1)
        await client.aclose(0)
    assert logged.records[0].levelno == logging.WARNING


@by_each_library
@pytest.mark.parametrize("misbehave", [_partial_body, _partial_chunk, _reset_in_the_body])
async def test_a_kept_connection_that_breaks_in_an_answer_is_not_stale(
    lab: Lab, misbehave: Any
) -> None:
    """The server was at work on the request: nothing is tried again at once."""
    handle = first_well_then(misbehave)
    async with lab.listening(handle) as peer, lab.client(peer) as client:
        await client._transport.post(peer.url, {}, b'{"batch":[]}')
        with pytest.raises(NoAnswer) as caught:
            await client._transport.post(peer.url, {}, b'{"batch":[]}')
    assert peer.connections == 1
    assert not caught.value.stale


@by_each_library
async def test_a_connection_closed_while_idle_is_no_failure(lab: Lab) -> None:
    """A server that closes after each answer costs a new connection, and no attempt."""

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        request = await peer.read(reader)
        if request is not None:
            await peer.answer(writer, request)

    async with (
        lab.listening(handle) as peer,
        lab.client(peer, retrying=NEVER, batching=Batching(linger=0)) as client,
    ):
        for _ in range(3):
            outcome = await (await lab.track(client))[0].settled()
            assert outcome.attempts == 1
            await asyncio.sleep(0.02)
    assert peer.connections == 3


@by_each_library
@pytest.mark.parametrize("later", [False, True], ids=["with-it", "while-idle"])
async def test_an_answer_that_nobody_asked_for_is_none(lab: Lab, *, later: bool) -> None:
    """What a server says beyond an answer does not deliver the calls of the next request."""

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        while (request := await peer.read(reader)) is not None:
            if peer.connections > 1:
                await peer.answer(writer, request)
                continue
            peer.take(request)
            writer.write(OK)
            if later:
                await writer.drain()
                await asyncio.sleep(0.02)
            writer.write(OK)
            if await peer.read(reader) is not None:  # and nothing of it is taken
                await reader.read()

    async with (
        lab.listening(handle) as peer,
        lab.client(peer, retrying=NEVER, batching=Batching(linger=0)) as client,
    ):
        await (await lab.track(client))[0].settled()
        await asyncio.sleep(0.05)
        async with asyncio.timeout(2):
            outcome = await (await lab.track(client))[0].settled()
    assert outcome.delivered
    assert peer.connections == 2
    assert len(peer.arrived) == 2


@contextmanager
def beside(serve: Callable[[socket.socket], object]) -> Iterator[str]:
    """Let a server run in a thread, so that it goes on while the loop does not; yield its URL.

    The function has one connection after the other.
    """
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while not over.is_set():
                with suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    "unasked",
    [OK, b"HTTP/1.1 408 Idle\r\ncontent-length: 0\r\n\r\n", b""],
    ids=["ok", "408", "end"],
)
async def test_what_comes_while_the_loop_stands_still(
    new_lab: type[Lab], library: Any, unasked: bytes
) -> None:
    """It is there before the next request, but not read yet: that has another connection."""
    said = threading.Event()
    answers = iter([b"first", b"second"])

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s"
        body = next(answers)
        connection.sendall(answer % (len(body), body))
        if body == b"first":
            time.sleep(0.1)  # by then it is read
            connection.sendall(unasked)
            said.set()
            if not unasked:
                return
        connection.recv(65_536)

    with beside(serve) as url, new_lab(library):
        transport = Transport(Sending(http_library=library), connections=1)
        await transport.open()
        first = await transport.post(url, {}, b"{}")
        assert said.wait(5)  # the loop stands still
        time.sleep(0.05)  # noqa: ASYNC251 - the same
        second = await transport.post(url, {}, b"{}")
        await transport.aclose()
    assert (first.body, second.body) == (b"first", b"second")


@pytest.mark.parametrize("library", LIBRARIES)
async def test_a_new_connection_after_one_that_was_no_good_is_not_stale(
    new_lab: type[Lab], library: Any
) -> None:
    """Where it breaks too, there is trouble: nothing is tried again at once."""
    answers = iter([OK])

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        if answer := next(answers, b""):
            connection.sendall(answer)
            time.sleep(0.05)
            connection.sendall(answer)  # unasked
            connection.recv(65_536)

    with beside(serve) as url, new_lab(library):
        transport = Transport(Sending(http_library=library), connections=1)
        await transport.open()
        await transport.post(url, {}, b"{}")
        await asyncio.sleep(0.2)
        with pytest.raises(NoAnswer) as caught:
            await transport.post(url, {}, b"{}")
        await transport.aclose()
    assert not caught.value.stale


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 413 Large\r\ncontent-length: 0\r\n\r\n"], ids=["mute", "early"]
)
async def test_a_server_that_does_not_read_keeps_no_connection(
    new_lab: type[Lab], library: Any, said: bytes
) -> None:
    """After its answer or the total time it is let go of, whatever is left to be written."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        time.sleep(0.1)  # by then the client waits for room to write
        connection.sendall(said)
        over.wait(30)

    with beside(serve) as url, new_lab(library):
        transport = Transport(Sending(http_library=library, timeout=0.3), connections=1)
        await transport.open()
        unanswered = []
        for _ in range(2):
            try:
                assert (await transport.post(url, {}, b"x" * (8 << 20))).status == 413
            except NoAnswer as error:
                unanswered.append(str(error))
        await transport.aclose()
        for _ in range(5):
            await asyncio.sleep(0)
        transports = asyncio.get_running_loop()._transports.values()  # type: ignore[attr-defined]
        ends = [each.get_extra_info("peername")[1] for each in transports if has_socket(each)]
        over.set()
    assert int(url.rpartition(":")[2]) not in ends
    # httpx writes all before it reads; the second connection is never taken.
    assert len(unanswered) == (1 if said and library == "aiohttp" else 2)


def has_socket(transport: asyncio.BaseTransport) -> bool:
    """Whether it is connected, or has been and is not closed yet."""
    return bool(transport.get_extra_info("peername")) and (
        transport.get_extra_info("socket").fileno() >= 0
    )


@by_each_library
async def test_an_answer_may_have_a_long_header(lab: Lab) -> None:
    """Policies and cookies can be long; the answer is as good as any."""

    async def misbehave(writer: StreamWriter) -> None:
        line = b"x-policy: " + b"p" * 40_000
        writer.write(b"HTTP/1.1 200 OK\r\n" + line + b"\r\ncontent-length: 2\r\n\r\n{}")

    async with lab.listening(first_then_well(misbehave)) as peer, lab.client(peer) as client:
        answer = await client._transport.post(peer.url, {}, b'{"batch":[]}')
    assert (answer.status, len(answer.headers["x-policy"])) == (200, 40_000)


@by_each_library
@pytest.mark.parametrize("path", ["/a%2Fb?c=%2F%41&d=%7E", "/?next=/x", "/ü ?q=ä"])
async def test_a_url_goes_out_as_it_was_given(lab: Lab, path: str) -> None:
    """A receiver may sign it: only what HTTP does not allow is escaped."""
    async with lab.listening(well) as peer, lab.client(peer) as client:
        await client._transport.post(peer.url + path, {}, b'{"batch":[]}')
    assert peer.requests[0].path == path.replace("ü ", "%C3%BC%20").replace("ä", "%C3%A4")


# -------------------------------------------------------------------------------- endless and slow


async def _endless(writer: StreamWriter, head: bytes, piece: bytes) -> None:
    writer.write(head)
    while True:
        writer.write(piece)
        await writer.drain()


@by_each_library
@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10_000),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", b"x" * 10_000),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            b"2710\r\n%s\r\n" % (b"x" * 10_000),
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n", gzip.compress(b"x" * 10**6)),
    ],
    ids=["to-the-end", "length", "chunked", "compressed"],
)
async def test_an_endless_body_is_read_to_a_limit(lab: Lab, head: bytes, piece: bytes) -> None:
    """At most 64 KiB of an answer is read, nothing is inflated, and the connection is closed."""
    gone = asyncio.Event()

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        request = await peer.read(reader)
        if request is not None:
            peer.take(request)
            try:
                await _endless(writer, head, piece)
            finally:
                gone.set()

    async with lab.listening(handle) as peer, lab.client(peer, retrying=NEVER) as client:
        answer = await client._transport.post(peer.url + "/v1/batch", {}, b'{"batch":[]}')
        assert len(answer.body) == MAX_ANSWER
        if b"gzip" in head:
            assert answer.body == (piece * MAX_ANSWER)[:MAX_ANSWER]
        await asyncio.wait_for(gone.wait(), 5)
        async with asyncio.timeout(5):
            outcome = await (await lab.track(client))[0].settled()
    assert outcome.delivered


async def _silent(_: StreamWriter) -> None:
    await asyncio.sleep(10)


async def _slow_headers(writer: StreamWriter) -> None:
    for byte in OK[:-3]:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.04)


async def _slow_body(writer: StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    for _ in range(1000):
        writer.write(b"x")
        await asyncio.sleep(0.04)


@by_each_library
@pytest.mark.parametrize("misbehave", [_silent, _slow_headers, _slow_body])
@pytest.mark.parametrize("in_flight", [1, 4])
async def test_a_slow_answer_meets_the_total_time(lab: Lab, misbehave: Any, in_flight: int) -> None:
    """However it drips, a request ends in time; the pool is as good as new, again and again."""
    async with lab.listening(first_then_well(misbehave, 2 * in_flight)) as peer:
        sending = {"timeout": 0.15, "max_in_flight": in_flight}
        batching = Batching(max_events=1)
        async with lab.client(peer, retrying=QUICK, sending=sending, batching=batching) as client:
            async with asyncio.timeout(10):
                outcomes = [await each.settled() for each in lab.burst(client, 2 * in_flight)]
                assert {each.kind for each in outcomes} == {"delivered"}
                assert {(await (await lab.track(client))[0].settled()).attempts} == {1}


@by_each_library
async def test_a_timeout_does_not_disturb_the_other_requests(lab: Lab) -> None:
    """While one request times out and its pool retires, another on it goes on to its end."""
    turns = iter([_silent])

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        while (request := await peer.read(reader)) is not None:
            if (misbehave := next(turns, None)) is not None:
                await misbehave(writer)
                return
            await asyncio.sleep(0.2)
            await peer.answer(writer, request)

    async with lab.listening(handle) as peer:
        sending = {"timeout": 0.3}
        async with lab.client(
            peer, retrying=QUICK, sending=sending, batching=Batching(linger=0)
        ) as client:
            (first,) = await lab.track(client)
            await asyncio.sleep(0.2)
            (second,) = await lab.track(client)
            outcome = await second.settled()
            assert (outcome.kind, outcome.attempts) == ("delivered", 1)
            assert (await first.settled()).attempts == 2


@by_each_library
async def test_nothing_of_a_pool_is_used_after_a_timeout(lab: Lab) -> None:
    """After a timeout not even the idle connections of its pool serve again: one may be stuck."""
    hangs = asyncio.Event()

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        while (request := await peer.read(reader)) is not None:
            if hangs.is_set():
                hangs.clear()
                await reader.read()  # until the client hangs up
                return
            await asyncio.sleep(0.02)
            await peer.answer(writer, request)

    async with lab.listening(handle) as peer:
        sending, batching = {"timeout": 0.5}, Batching(linger=0, max_events=1)
        async with lab.client(peer, retrying=QUICK, sending=sending, batching=batching) as client:
            lab.burst(client, 2)
            await client.flush()
            assert peer.connections == 2
            hangs.set()
            assert (await (await lab.track(client))[0].settled()).attempts == 2
            assert peer.connections == 3


@by_each_library
async def test_all_connections_are_closed_with_the_client(lab: Lab) -> None:
    """After the close no connection is open, those of retired pools included."""
    open_now: set[Any] = set()

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        open_now.add(writer)
        misbehaves = peer.connections == 1
        while (request := await peer.read(reader)) is not None:
            if misbehaves:
                assert not await reader.read()  # until the client hangs up
                break
            await peer.answer(writer, request)
        open_now.discard(writer)

    async with lab.listening(handle) as peer:
        sending = {"timeout": 0.1}
        async with lab.client(
            peer, retrying=QUICK, sending=sending, batching=Batching(linger=0)
        ) as client:
            await (await lab.track(client))[0].settled()
            await (await lab.track(client))[0].settled()
        for _ in range(10):
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        assert not open_now


@by_each_library
async def test_a_connection_has_a_time_of_its_own(lab: Lab) -> None:
    """A server that never says a word of TLS is given up long before the request's own time."""

    async def mute(_: Peer, reader: StreamReader, __: StreamWriter) -> None:
        await reader.read(-1)

    async with lab.listening(mute) as peer:
        sending = {"connect_timeout": 0.2, "timeout": 30.0}
        async with lab.client(peer, sending=sending) as client:
            began = asyncio.get_running_loop().time()
            with pytest.raises(NoAnswer, match="Timeout") as caught:
                await client._transport.post(peer.url.replace("http:", "https:"), {}, b"{}")
            assert asyncio.get_running_loop().time() - began < 5
    assert not caught.value.stale


@by_each_library
@pytest.mark.parametrize("endless", [["connect_timeout"], ["connect_timeout", "timeout"]])
async def test_an_endless_time(lab: Lab, endless: list[str]) -> None:
    """It is one for the libraries too."""
    sending = dict.fromkeys(endless, math.inf)
    async with lab.listening(well) as peer, lab.client(peer, sending=sending) as client:
        assert (await client._transport.post(peer.url, {}, b'{"batch":[]}')).status == 200


@by_each_library
async def test_a_kept_connection_needs_no_file_descriptor(lab: Lab) -> None:
    """Where the process has none left, requests go out on the connection that is there."""
    resource = pytest.importorskip("resource")
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with lab.listening(well) as peer, lab.client(peer) as client:
        await client._transport.post(peer.url, {}, b'{"batch":[]}')
        with open(os.devnull) as lowest_that_is_free:  # noqa: ASYNC230, PTH123 - for its number
            left = lowest_that_is_free.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (left, usual[1]))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(0)
            answer = await client._transport.post(peer.url, {}, b'{"batch":[]}')
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, usual)
    assert (answer.status, peer.connections) == (200, 1)


@by_each_library
async def test_closing_with_a_dead_socket_keeps_its_deadline(lab: Lab) -> None:
    """A server that says nothing does not hold up the close."""
    async with lab.listening(first_then_well(_silent, 100)) as peer:
        client = lab.client(peer)
        await client.start()
        receipts = lab.burst(client, 3)
        await asyncio.sleep(0.05)
        loop = asyncio.get_running_loop()
        start = loop.time()
        stats = await client.aclose(0.1)
        assert loop.time() - start < 1
    assert stats.destinations["custom"].dropped_by == {"closed": 3}
    assert all(each.outcome for each in receipts)


# ------------------------------------------------------------------------------------------ hostile

HOSTILE = [
    b"",
    b"\r\n\r\n",
    b"\x00" * 1_000,
    b"\xff\xfe\xfd" * 100,
    b"SSH-2.0-OpenSSH_9.9\r\n",
    b"<html>HTTP/0.9</html>",
    b"HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 99 Low\r\n\r\n",
    b"HTTP/1.1 1000 High\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 -200 OK\r\n\r\n",
    b"HTTP/9.9 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/2.0 200\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000,
    b"HTTP/1.1 503 " + b"x" * 200_000 + b"\r\n\r\n",
    b"HTTP/1.1 503 No\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
    b"HTTP/1.1 503 No\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
    b"HTTP/1.1 503 No\r\nno colon here\r\n\r\n",
    b"HTTP/1.1 503 No\r\n: empty\r\n\r\n",
    b"HTTP/1.1 503 No\r\nx: a\x00b\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 503 No\r\nx\xff: \xff\xfe\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 503 No\r\nretry-after: \xff\xfe\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 503 No\r\nretry-after: " + b"9" * 5_000 + b"\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 503 No\r\nretry-after: " + "٣".encode() + b"\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 503 No\r\nretry-after: Mon, 99 Foo 99999 99:99:99 GMT\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: rot13\r\n\r\n{}",
    b"HTTP/1.1 307 Go\r\nlocation: \xff://\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 503 No\r\nset-cookie: " + b"=;=;" * 1_000 + b"\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 503 No\r\nset-cookie: a=b; expires=never; domain=..\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 503 No\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
]


async def _survives(lab: Lab, answer: bytes) -> None:
    """Assert that after this answer the calls are delivered, or have ended by it."""

    async def hostile(writer: StreamWriter) -> None:
        writer.write(answer)

    async with lab.listening(first_then_well(hostile)) as peer:
        http = httpx.AsyncClient(verify=False)  # noqa: S501 - no TLS here, and quick to make
        sending = {"timeout": 5.0}
        if lab.http_library == "httpx":
            sending["http_client"] = http
        settings = {"retrying": QUICK, "sending": sending, "batching": Batching(linger=0)}
        async with http, lab.client(peer, **settings) as client:
            receipts = lab.burst(client, 2)
            async with asyncio.timeout(10):
                outcomes = [await receipt.settled() for receipt in receipts]
                fresh = await (await lab.track(client))[0].settled()
        assert fresh.delivered or fresh.status in (401, 403)
        for receipt, outcome in zip(receipts, outcomes, strict=True):
            if outcome.delivered and receipt.message_id not in peer.arrived:
                assert b" 200" in answer  # the server said so
                peer.arrived[receipt.message_id] = []


@by_each_library
@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_answers(lab: Lab, answer: bytes) -> None:
    """No status line or header hangs the client or ends its flusher."""
    await _survives(lab, answer)


LINES = st.lists(
    st.sampled_from(
        [
            b"content-length: 0",
            b"content-length: 5",
            b"transfer-encoding: chunked",
            b"connection: close",
            b"retry-after: 1e9",
            b"content-type: \xe9",
            b"",
        ]
    )
    | st.binary(max_size=30),
    max_size=5,
)


@pytest.mark.parametrize("library", LIBRARIES)
@settings(max_examples=40, deadline=None)
@given(
    status=st.integers(min_value=100, max_value=999).filter(lambda each: each // 100 != 2),
    headers=LINES,
    body=st.binary(max_size=50),
)
async def test_random_answers(
    new_lab: type[Lab], library: str, status: int, headers: list[bytes], body: bytes
) -> None:
    """Whatever bytes make up an answer, the law holds and the client goes on."""
    head = b"HTTP/1.1 %d Odd\r\n" % status + b"".join(line + b"\r\n" for line in headers)
    with new_lab(library) as lab:
        await _survives(lab, head + b"\r\n" + body)


@pytest.mark.parametrize("library", LIBRARIES)
@settings(max_examples=40, deadline=None)
@given(answer=st.binary(max_size=200))
async def test_random_bytes(new_lab: type[Lab], library: str, answer: bytes) -> None:
    """Whatever bytes come back, the law holds and the client goes on."""
    with new_lab(library) as lab:
        await _survives(lab, answer)


# ---------------------------------------------------------------------------------------- redirects


@by_each_library
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("own", [True, False])
async def test_redirects_are_never_followed(lab: Lab, status: int, *, own: bool) -> None:
    """No second host sees a body or a key, not even where the user's client follows redirects."""
    async with lab.listening(well, host="127.0.0.2") as thief:
        target = f"http://127.0.0.2:{thief.port}/v1/batch".encode()

        async def redirect(writer: StreamWriter) -> None:
            head = b"HTTP/1.1 %d Go\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n"
            writer.write(head % (status, target))

        async with (
            lab.listening(first_then_well(redirect, 2)) as peer,
            httpx.AsyncClient(follow_redirects=True) as http,
        ):
            sending = {} if own else {"http_client": http}
            async with lab.client(peer, retrying=QUICK, sending=sending) as client:
                assert (await (await lab.track(client))[0].settled()).attempts == 3
        assert thief.connections == 0


# -------------------------------------------------------------------------------- the user's client


async def test_the_users_client_is_used_as_it_is_and_not_closed(lab: Lab) -> None:
    """Its headers travel, its auth does not take the key's place, and it is open afterwards."""
    async with (
        lab.listening(well) as peer,
        httpx.AsyncClient(auth=("someone", "else"), headers={"x-mine": "1"}) as http,
    ):
        async with lab.client(peer, sending={"http_client": http}) as client:
            await lab.track(client)
        assert not http.is_closed
        await http.post(peer.url, content=b'{"batch":[]}')
    request = peer.requests[0]
    assert request.headers["authorization"] == "Basic YS1rZXktdGhhdC1vcGVucy1ub3RoaW5nOg=="
    assert request.headers["x-mine"] == "1"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["content-type"] == "application/json"


async def test_httpx2_is_taken_too(lab: Lab) -> None:
    """A client of httpx2 works as one of httpx does, its failures included."""
    httpx2 = pytest.importorskip("httpx2")
    async with (
        lab.listening(first_then_well(_reset, 2)) as peer,
        httpx2.AsyncClient(follow_redirects=True) as http,
    ):
        sending = {"http_client": http}
        async with lab.client(peer, retrying=QUICK, sending=sending) as client:
            outcome = await (await lab.track(client))[0].settled()
        assert not http.is_closed
    assert (outcome.kind, outcome.attempts) == ("delivered", 3)


async def test_a_users_client_that_is_closed_meanwhile(lab: Lab) -> None:
    """When its owner closes it, the calls are tried again, and end as expired."""
    async with lab.listening(well) as peer:
        http = httpx.AsyncClient()
        retrying = Retrying(max_attempts=2, base=0.01, cap=0.01)
        async with lab.client(peer, retrying=retrying, sending={"http_client": http}) as client:
            await http.aclose()
            assert (await (await lab.track(client))[0].settled()).reason == "expired"


async def test_a_users_client_whose_hook_raises(lab: Lab) -> None:
    """What a hook of the user's client raises is met with a retry, not with the engine's end."""
    raised = iter([ValueError("mine")])

    async def hook(_: httpx.Request) -> None:
        if (error := next(raised, None)) is not None:
            raise error

    async with (
        lab.listening(well) as peer,
        httpx.AsyncClient(event_hooks={"request": [hook]}) as http,
        lab.client(peer, retrying=QUICK, sending={"http_client": http}) as client,
    ):
        assert (await (await lab.track(client))[0].settled()).attempts == 2


@pytest.mark.parametrize("client", [httpx.Client, object, dict, lambda: "https://example.com"])
def test_what_is_no_async_client_is_refused(client: Any) -> None:
    """A sync client, or anything else, is refused when the client is made, and named."""
    http = client()
    with pytest.raises(ConfigurationError, match=type(http).__name__):
        Transport(Sending(http_client=http), connections=1)
    if isinstance(http, httpx.Client):
        http.close()


# ------------------------------------------------------------------------------------ what is sent


@by_each_library
async def test_cookies_are_not_kept(lab: Lab) -> None:
    """What an endpoint sets as a cookie does not come back to it, and takes no memory."""

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        while (request := await peer.read(reader)) is not None:
            peer.take(request)
            writer.write(b"HTTP/1.1 200 OK\r\nset-cookie: a=b; path=/\r\ncontent-length: 0\r\n\r\n")

    async with lab.listening(handle) as peer:
        # By its name: an address may not set cookies, by aiohttp's usual rules.
        endpoint = endpoints.custom(f"http://localhost:{peer.port}")
        lab._servers[endpoint.base] = peer
        async with lab.client(peer, endpoint=endpoint, batching=Batching(linger=0)) as client:
            for _ in range(3):
                await (await lab.track(client))[0].settled()
            way = client._transport._pool.way
            assert not (
                way._client.cookies if lab.http_library == "httpx" else [*way._session.cookie_jar]
            )
    assert len(peer.requests) == 3
    assert not [request for request in peer.requests if "cookie" in request.headers]


@by_each_library
async def test_what_a_request_says_of_itself(lab: Lab) -> None:
    """It names the package and takes nothing compressed; what its maker says is there once."""
    async with lab.listening(well) as peer, lab.client(peer) as client:
        headers = {"accept": "text/plain", "x-own": "a", "content-type": "application/json"}
        await client._transport.post(peer.url, headers, b'{"batch":[]}')
    (request,) = peer.requests
    assert {**request.headers, "connection": "keep-alive"} == {
        **headers,
        "accept-encoding": "identity",
        "connection": "keep-alive",
        "content-length": "12",
        "host": f"127.0.0.1:{peer.port}",
        "user-agent": f"asyncanalytics/{__version__}",
    }


async def test_what_a_request_tells_httpx() -> None:
    """Its headers are there once, and each of its phases has its time."""
    transport = Transport(Sending(timeout=7, connect_timeout=3), connections=1)
    await transport.open()
    with respx.mock() as router:
        router.post("https://h.test/token").respond(200)
        await transport.post("https://h.test/token", {"accept": "text/plain", "x-own": "a"}, b"{}")
        request = router.calls.last.request
    await transport.aclose()
    assert sorted(request.headers.multi_items()) == [
        ("accept", "text/plain"),
        ("accept-encoding", "identity"),
        ("connection", "keep-alive"),
        ("content-length", "2"),
        ("host", "h.test"),
        ("user-agent", f"asyncanalytics/{__version__}"),
        ("x-own", "a"),
    ]
    times = {"connect": 3, "read": 7, "write": 7, "pool": 7}
    assert request.extensions["timeout"] == times


@by_each_library
@pytest.mark.parametrize("compress", [True, False, None])
async def test_gzip_is_a_choice(lab: Lab, *, compress: bool | None) -> None:
    """Requests are compressed where that is chosen, or where the endpoint is known to take it."""
    async with lab.listening(well) as peer:
        endpoint = lab.endpoint(peer, gzip=True)
        async with lab.client(peer, endpoint=endpoint, sending={"gzip": compress}) as client:
            lab.burst(client, 20)
    encodings = {request.headers.get("content-encoding") for request in peer.requests}
    assert encodings == ({None} if compress is False else {"gzip"})
    assert {len(request.ids) for request in peer.requests} == {20}


@by_each_library
async def test_connections_are_kept(lab: Lab) -> None:
    """Requests that follow each other share one connection."""
    async with (
        lab.listening(well) as peer,
        lab.client(peer, batching=Batching(linger=0)) as client,
    ):
        for _ in range(5):
            await (await lab.track(client))[0].settled()
    assert (len(peer.requests), peer.connections) == (5, 1)


# ---------------------------------------------------------------------------------------------- TLS


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[trustme.CA]:
    """A certificate authority that this process trusts."""
    made = trustme.CA()
    root = tmp_path / "root.pem"
    made.cert_pem.write_to_path(root)
    monkeypatch.setenv("SSL_CERT_FILE", str(root))
    return made


def tls(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """A server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@by_each_library
@pytest.mark.parametrize("trouble", ["none", "unknown", "name", "expired", "plain"])
async def test_tls(lab: Lab, authority: trustme.CA, trouble: str) -> None:
    """A certificate must be known, right and valid; without one nothing is sent, ever."""
    past = datetime.now(UTC) - timedelta(days=1)
    issuer = trustme.CA() if trouble == "unknown" else authority
    name = "example.test" if trouble == "name" else "127.0.0.1"
    expiry = past if trouble == "expired" else None
    context = None if trouble == "plain" else tls(issuer.issue_cert(name, not_after=expiry))

    async def handle(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        await peer.serve_on(reader, writer)

    retrying = Retrying(max_attempts=2, base=0.01, cap=0.01)
    async with lab.listening(handle, tls=context) as peer:
        secure = peer.url.replace("http:", "https:")
        endpoint = lab.endpoint(peer)
        object.__setattr__(endpoint, "base", secure)
        lab._servers[secure] = peer
        sending = {"connect_timeout": 0.2}
        async with lab.client(
            peer, endpoint=endpoint, sending=sending, retrying=retrying
        ) as client:
            outcome = await (await lab.track(client))[0].settled()
    if trouble == "none":
        assert outcome.delivered
    else:
        assert (outcome.reason, outcome.attempts) == ("expired", 3)
        assert not peer.requests


# ------------------------------------------------------------------------------------------ proxies

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the environment name these proxies, and no other."""

    def set_to(**proxies: str) -> None:
        for name in PROXIES:
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        for name, proxy in proxies.items():
            monkeypatch.setenv(name, proxy)

    return set_to


@by_each_library
@pytest.mark.parametrize("name", ["http_proxy", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_the_environments_proxy_is_used(
    lab: Lab, proxied: Callable[..., None], name: str, scheme: str
) -> None:
    """Requests to other machines go through it, with its own password and the endpoint's key."""
    async with lab.listening(well) as proxy:
        proxied(**{name: f"{scheme}me:word@127.0.0.1:{proxy.port}", "no_proxy": "spared.test"})
        endpoint = endpoints.custom("http://far.test:8080", insecure=True)
        lab._servers[endpoint.base] = proxy
        async with lab.client(proxy, endpoint=endpoint) as client:
            (receipt,) = await lab.track(client)
            assert (await receipt.settled()).delivered
            with pytest.raises(NoAnswer):  # there is no such host
                await client._transport.post("http://spared.test/v1/batch", {}, b"{}")
    (request,) = proxy.requests
    assert request.path == "http://far.test:8080/v1/batch"
    assert request.headers["proxy-authorization"] == "Basic bWU6d29yZA=="
    assert request.headers["authorization"] == "Basic YS1rZXktdGhhdC1vcGVucy1ub3RoaW5nOg=="


@by_each_library
async def test_a_proxy_is_asked_for_a_tunnel(lab: Lab, proxied: Callable[..., None]) -> None:
    """It learns the name of the endpoint, and neither its key nor its calls; a refusal is said."""
    heads = []

    async def refuse(_: Peer, reader: StreamReader, writer: StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()

    async with lab.listening(refuse) as proxy:
        proxied(https_proxy=f"http://me:word@127.0.0.1:{proxy.port}")
        async with lab.client(proxy) as client:
            with pytest.raises(NoAnswer, match="Proxy"):
                await client._transport.post("https://far.test/", {"authorization": "k"}, b"{}")
    first, *rest = heads[0].decode().lower().split("\r\n")
    assert first == "connect far.test:443 http/1.1"
    assert "proxy-authorization: basic bwu6d29yza==" in rest
    assert not [line for line in rest if line.startswith("authorization")]


@by_each_library
async def test_this_machine_is_reached_without_a_proxy(
    lab: Lab, proxied: Callable[..., None]
) -> None:
    """Whatever the environment says, loopback is not far."""
    async with lab.listening(well) as proxy, lab.listening(well) as peer:
        proxied(http_proxy=proxy.url, all_proxy=proxy.url)
        async with lab.client(peer) as client:
            await lab.track(client)
    assert (len(peer.requests), proxy.connections) == (1, 0)


@by_each_library
async def test_no_host_is_looked_up_for_its_proxy(
    lab: Lab, proxied: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some systems' ways to tell whether one is needed look the host up, and block the loop."""

    def looks_up(*_: object) -> bool:
        raise AssertionError

    monkeypatch.setattr(urllib.request, "proxy_bypass", looks_up)
    monkeypatch.delitem(sys.modules, "asyncanalytics.transport.by_aiohttp", raising=False)
    async with lab.listening(well) as proxy:
        proxied(http_proxy=proxy.url)
        async with lab.client(proxy) as client:
            await client._transport.post("http://far.test/v1/batch", {}, b'{"batch":[]}')
    assert len(proxy.requests) == 1


@by_each_library
@pytest.mark.parametrize(
    ("spared", "httpx_spares", "aiohttp_spares"),
    [
        ("far.test", True, True),
        (" near.test , far.test", True, True),
        ("ar.test", False, False),
        ("*", True, True),
        (".far.test", False, True),
        ("near.test,*", True, False),
        ("http://far.test", True, False),
    ],
)
async def test_which_hosts_need_no_proxy(
    lab: Lab,
    proxied: Callable[..., None],
    spared: str,
    *,
    httpx_spares: bool,
    aiohttp_spares: bool,
) -> None:
    """Each library reads NO_PROXY by rules of its own, as `Sending.http_library` says."""
    spares = httpx_spares if lab.http_library == "httpx" else aiohttp_spares
    async with lab.listening(well) as proxy:
        proxied(http_proxy=proxy.url, no_proxy=spared)
        async with lab.client(proxy) as client:
            with suppress(NoAnswer):  # there is no such host
                await client._transport.post("http://far.test/v1/batch", {}, b'{"batch":[]}')
    assert len(proxy.requests) == (not spares)


UNUSABLE = [
    ("http_proxy", "socks5://me:secret@127.0.0.1:9"),
    ("https_proxy", "http://me:sec/ret@127.0.0.1:9"),
    ("all_proxy", "ftp://me:secret@127.0.0.1:9"),
]


@by_each_library
@pytest.mark.parametrize(("name", "proxy"), UNUSABLE)
async def test_a_proxy_that_cannot_be_used_is_named(
    lab: Lab,
    proxied: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    proxy: str,
) -> None:
    """The client does not start, and what says so shows nothing of the proxy's password."""
    monkeypatch.setitem(sys.modules, "socksio", None)  # as if it were not installed
    proxied(**{name: proxy})
    async with lab.listening(well) as peer:
        client = lab.client(peer)
        with pytest.raises(
            ConfigurationError, match=f"{lab.http_library}.*{name.upper()}"
        ) as caught:
            await client.start()
    assert type(caught.value) is ConfigurationError
    assert caught.value.__context__ is None
    assert "sec" not in str(caught.value)
    for entry in caught.traceback:
        if Path(entry.path).parent.name == "transport":
            assert "sec" not in repr(entry.frame.f_locals)


async def test_a_no_proxy_that_httpx_cannot_read_is_named(
    lab: Lab, proxied: Callable[..., None]
) -> None:
    """The client does not start, by an error of this package."""
    proxied(no_proxy="[::1]")
    async with lab.listening(well) as peer:
        with pytest.raises(ConfigurationError, match="NO_PROXY"):
            await lab.client(peer).start()


@pytest.mark.parametrize("lab", ["aiohttp"], indirect=True)
async def test_a_proxy_that_is_for_no_request_need_not_be_usable(
    lab: Lab, proxied: Callable[..., None]
) -> None:
    """That for all is not, where each scheme has one."""
    async with lab.listening(well) as proxy:
        proxied(http_proxy=proxy.url, https_proxy=proxy.url, all_proxy="socks5://127.0.0.1:9")
        async with lab.client(proxy) as client:
            await client._transport.post("http://far.test/v1/batch", {}, b'{"batch":[]}')
    assert proxy.connections == 1


@by_each_library
async def test_no_proxy_need_be_usable_where_none_is_used(
    lab: Lab, proxied: Callable[..., None]
) -> None:
    """The environment may name one for other programs, and spare all hosts."""
    proxied(all_proxy="ftp://127.0.0.1:9", no_proxy="*")
    async with lab.listening(well) as peer, lab.client(peer) as client:
        await lab.track(client)
    assert len(peer.requests) == 1


@by_each_library
async def test_the_environment_changes_while_a_client_runs(
    lab: Lab, proxied: Callable[..., None]
) -> None:
    """If no fresh pool can be made after a timeout, the one that is there goes on."""
    async with (
        lab.listening(first_then_well(_silent)) as peer,
        lab.client(peer, sending={"timeout": 0.2}) as client,
    ):
        proxied(all_proxy="ftp://127.0.0.1:9")
        with pytest.raises(NoAnswer, match="within"):
            await client._transport.post(peer.url, {}, b'{"batch":[]}')
        assert (await client._transport.post(peer.url, {}, b'{"batch":[]}')).status == 200


# -------------------------------------------------------------------------------- what httpx raises


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError,
        httpx.ReadError,
        httpx.WriteError,
        httpx.CloseError,
        httpx.ConnectTimeout,
        httpx.ReadTimeout,
        httpx.WriteTimeout,
        httpx.PoolTimeout,
        httpx.ProxyError,
        httpx.UnsupportedProtocol,
        httpx.LocalProtocolError,
        httpx.RemoteProtocolError,
        httpx.DecodingError,
        httpx.TooManyRedirects,
        OSError,
        ConnectionResetError,
        ssl.SSLError,
        TimeoutError,
        RuntimeError,
    ],
)
async def test_every_failure_of_httpx_is_no_answer(error: type[Exception]) -> None:
    """Whatever httpx raises comes out as `NoAnswer`, with a reason and nothing of the request."""
    transport = Transport(Sending(), connections=1)
    await transport.open()
    with respx.mock() as router:
        router.post("https://h.test/v1/batch").mock(side_effect=error)
        with pytest.raises(NoAnswer) as caught:
            await transport.post("https://h.test/v1/batch", {"authorization": "secret"}, b"secret")
        assert "secret" not in repr(caught.value)
        assert caught.value.reason
        assert not caught.value.stale
    await transport.aclose()


@by_each_library
async def test_headers_come_back_in_lower_case(lab: Lab) -> None:
    """An answer's headers are found whatever their case was."""

    async def misbehave(writer: StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 No\r\nRetry-AFTER: 5\r\nContent-Length: 2\r\n\r\nno")

    async with lab.listening(first_then_well(misbehave)) as peer, lab.client(peer) as client:
        answer = await client._transport.post(peer.url, {}, b'{"batch":[]}')
    assert (answer.status, answer.headers["retry-after"], answer.body) == (503, "5", b"no")
