"""The collector misbehaves when it is told to, and serves on real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from asyncanalytics.collector import Collector, ConnectionDropped

if TYPE_CHECKING:
    from collections.abc import Iterator

EVENT = {"type": "page", "userId": "u1", "messageId": "m1"}
BATCH = {"batch": [EVENT]}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector in memory, with chances that come up the same each time."""
    with Collector(seed=42) as made:
        yield made


def client(collector: Collector) -> httpx.AsyncClient:
    """Make a client that reaches the collector in process."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=collector), base_url="http://localhost"
    )


async def post(collector: Collector, content: Any = BATCH) -> httpx.Response:
    """Post one batch in process."""
    async with client(collector) as http:
        return await http.post("/v1/batch", json=content)


async def test_a_status(collector: Collector) -> None:
    """The answer is as it was told to be, nothing is kept, and the request is counted."""
    collector.misbehave(status=429, retry_after="7", headers={"x-reason": "test"})
    answer = await post(collector)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert (answer.headers["x-reason"], answer.json()["reason"]) == ("test", "misbehaving")
    stats = collector.stats()
    assert (stats.events, stats.requests, stats.answers) == (0, 1, {429: 1})
    assert stats.bytes == len(answer.request.content)
    collector.behave()
    assert (await post(collector)).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "content", "media_type"),
    [
        ("gone", 410, b"gone", "text/plain; charset=utf-8"),
        (b"\x00\x01", 500, b"\x00\x01", "application/octet-stream"),
        ({"ok": False}, 200, b'{"ok":false}', "application/json"),
        ([], 207, b"[]", "application/json"),
        ("ignored", 204, b"", None),
    ],
)
async def test_bodies(
    collector: Collector, body: Any, status: int, content: bytes, media_type: str | None
) -> None:
    """The body may be text, bytes or JSON; where there can be none there is none."""
    collector.misbehave(status=status, body=body)
    answer = await post(collector)
    assert (answer.status_code, answer.content) == (status, content)
    assert answer.headers.get("content-type") == media_type


async def test_a_count(collector: Collector) -> None:
    """A fault with a count applies to that many requests; the next in order takes over."""
    collector.misbehave(status=500, count=2)
    collector.misbehave(status=502, count=1)
    collector.misbehave(status=504, retry_after=1.5)
    answers = [await post(collector) for _ in range(5)]
    assert [each.status_code for each in answers] == [500, 500, 502, 504, 504]
    assert answers[-1].headers["retry-after"] == "1.5"


async def test_a_share() -> None:
    """A share applies by chance, the same each time for the same seed."""
    runs = []
    for seed in (1, 1, 2):
        with Collector(seed=seed) as collector:
            collector.misbehave(share=0.25)
            runs.append([(await post(collector)).status_code for _ in range(200)])
    assert runs[0] == runs[1] != runs[2]
    assert 25 < runs[0].count(503) < 75


async def test_only_ingest_misbehaves(collector: Collector) -> None:
    """What reads, and what is no route, goes on as ever; each ingest route misbehaves."""
    collector.misbehave()
    async with client(collector) as http:
        for path in ("/events", "/stats", "/faults", "/healthz"):
            assert (await http.get(path)).status_code == 200
        assert (await http.get("/nowhere")).status_code == 404
        for path in ("/v1/batch", "/v1/t", "/v1/page", "/v1/import", "/api/public/apps/batch"):
            assert (await http.post(path, json={})).status_code == 503
        assert (await http.get("/v1/pixel/track")).status_code == 503
        assert (await http.post("/v1/batch", content=b"no JSON at all")).status_code == 503


@pytest.mark.looptime
async def test_a_delay(collector: Collector) -> None:
    """A delayed answer takes its time; a status of None leaves it right."""
    loop = asyncio.get_running_loop()
    collector.misbehave(delay=5.0, count=1)
    collector.misbehave(status=None, delay=30.0, count=1)
    began = loop.time()
    assert (await post(collector)).status_code == 503
    assert loop.time() - began == pytest.approx(5.0)
    assert (await post(collector)).status_code == 200
    assert loop.time() - began == pytest.approx(35.0)
    assert collector.message_ids() == ["m1"]


async def test_an_answer_lost_after_the_work(collector: Collector) -> None:
    """With `after` the events are kept, and the client is told otherwise."""
    collector.misbehave(status=503, after=True, count=1)
    collector.misbehave(drop=True, after=True, count=1)
    assert (await post(collector)).status_code == 503
    with pytest.raises(ConnectionDropped):
        await post(collector)
    collector.misbehave(status=None, after=True)
    assert (await post(collector)).status_code == 200
    collector.behave()
    collector.misbehave(status=502, after=True)
    assert (await post(collector, {})).status_code == 502
    stats = collector.stats()
    assert (stats.events, stats.duplicates) == (3, 2)
    assert stats.answers == {0: 1, 200: 1, 502: 1, 503: 1}


async def test_a_drop_in_process(collector: Collector) -> None:
    """Where there is no connection to close the client sees an OSError."""
    collector.misbehave(drop=True, count=1)
    with pytest.raises(OSError, match="dropped the connection") as raised:
        await post(collector)
    assert raised.type is ConnectionDropped
    assert (collector.stats().events, collector.stats().answers) == (0, {0: 1})
    assert (await post(collector)).status_code == 200


async def test_faults_over_http(collector: Collector) -> None:
    """Faults are set, shown with how often they were applied, and taken away over HTTP."""
    async with client(collector) as http:
        sent = {"status": 429, "retry_after": "9", "count": 3, "body": {"a": 1}, "share": 1}
        answer = await http.post("/faults", json=sent)
        assert answer.status_code == 201
        await http.post("/faults", json={"drop": True, "delay": 0.5})
        assert (await http.post("/v1/batch", json=BATCH)).json() == {"a": 1}
        first, second = (await http.get("/faults")).json()["faults"]
        assert sent.items() <= first.items()
        assert (first["applied"], first["left"]) == (1, 2)
        assert (second["drop"], second["delay"], second["left"]) == (True, 0.5, None)
        assert (await http.delete("/faults")).json() == {"faults": []}
        assert (await http.post("/v1/batch", json=BATCH)).status_code == 200


WRONG: list[Any] = [
    {"status": 199},
    {"status": 600},
    {"status": True},
    {"status": "503"},
    {"delay": -1},
    {"delay": 3601},
    {"delay": "1"},
    {"share": 0},
    {"share": 1.5},
    {"count": 0},
    {"count": 1.5},
    {"drop": 1},
    {"after": None},
    {"retry_after": []},
    {"retry_after": "1\r\nx: y"},
    {"headers": []},
    {"headers": {"x y": "z"}},
    {"headers": {"x": "a\nb"}},
    {"headers": {"x": 1}},
]


@pytest.mark.parametrize("wrong", WRONG)
async def test_wrong_faults(collector: Collector, wrong: dict[str, Any]) -> None:
    """What cannot be done is refused, naming the setting, over HTTP and in Python."""
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        collector.misbehave(**wrong)
    async with client(collector) as http:
        answer = await http.post("/faults", json=wrong)
        assert (answer.status_code, answer.json()["reason"]) == (400, "bad_fault")
        assert name in answer.json()["message"]
        assert (await http.get("/faults")).json() == {"faults": []}


async def test_wrong_requests_for_faults(collector: Collector) -> None:
    """Only a JSON object of known names, sent as JSON, sets a fault."""
    with pytest.raises(ValueError, match="body"):
        collector.misbehave(body=object())
    async with client(collector) as http:
        assert (await http.post("/faults", json=[])).status_code == 400
        assert (await http.post("/faults", json={"statsu": 500})).status_code == 400
        assert (await http.post("/faults", content=b"{}")).status_code == 415
        evil = {"origin": "https://evil.example"}
        assert (await http.post("/faults", json={}, headers=evil)).status_code == 403
        assert (await http.get("/faults")).json() == {"faults": []}


# Real sockets


async def test_serving(collector: Collector) -> None:
    """It serves on a free port of loopback, and the port can be had again at once."""
    async with collector.serve() as url, httpx.AsyncClient(base_url=url) as http:
        port = httpx.URL(url).port
        assert url == f"http://127.0.0.1:{port}"
        assert (await http.post("/v1/batch", json=BATCH)).status_code == 200
        with pytest.raises(OSError, match="in use"):
            await collector.serve(port=port or 0).__aenter__()
    with pytest.raises(httpx.ConnectError):
        async with httpx.AsyncClient() as http:
            await http.get(url)
    async with collector.serve(port=port or 0) as again, httpx.AsyncClient() as http:
        assert again == url
        assert (await http.get(f"{again}/stats")).json()["events"] == 1


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
async def test_serving_other_addresses() -> None:
    """IPv6 and all addresses are served under a URL that works."""
    for host, name in (("::1", "[::1]"), ("localhost", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")):  # noqa: S104
        with Collector(write_keys=["key"]) as collector:
            async with collector.serve(host=host) as url, httpx.AsyncClient() as http:
                assert url.startswith(f"http://{name}:")
                assert (await http.get(f"{url}/healthz")).status_code == 200
                port = httpx.URL(url).port
                elsewhere = {"host": f"evil.example:{port}"}
                assert (await http.get(f"{url}/healthz", headers=elsewhere)).status_code == 421


@pytest.mark.parametrize("after", [False, True])
async def test_a_drop_on_a_socket(
    collector: Collector, caplog: pytest.LogCaptureFixture, *, after: bool
) -> None:
    """The connection ends without a byte of an answer, nobody complains, and the next works."""
    collector.misbehave(drop=True, after=after, count=1)
    request = _raw_request(json.dumps(BATCH).encode())
    async with collector.serve() as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
        writer.write(request)
        try:
            answer = await reader.read()
        except ConnectionResetError:
            answer = b""
        assert answer == b""
        writer.close()
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.post("/v1/batch", json=BATCH)).status_code == 200
            collector.misbehave(drop=True, after=after)
            with pytest.raises(httpx.TransportError):
                await http.post("/v1/batch", json=BATCH)
    assert collector.stats().answers == {0: 2, 200: 1}
    assert collector.stats().events == (3 if after else 1)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def _raw_request(body: bytes) -> bytes:
    head = "POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _applied(collector: Collector) -> None:
    """Give the server its turns until it has met the fault that is set."""
    while not collector._faults.as_list()[0]["applied"]:  # noqa: ASYNC110 - a turn, not a wait
        await asyncio.sleep(0)


async def test_too_large_on_a_socket() -> None:
    """A body far over the cap is answered, not cut off in the middle."""
    with Collector(max_body=1_000) as collector:
        async with collector.serve() as url, httpx.AsyncClient(base_url=url) as http:
            for _ in range(3):
                answer = await http.post("/v1/batch", json={"batch": ["x" * 5_000_000]})
                assert answer.status_code == 413
            assert (await http.post("/v1/batch", json=BATCH)).status_code == 200


async def test_a_client_that_leaves(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    """A client that goes away in the middle of its body leaves nothing behind."""
    async with collector.serve() as url:
        _, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
        collector.misbehave(status=None)
        writer.write(_raw_request(b"x" * 1_000)[:-500])
        await _applied(collector)
        writer.transport.abort()
        async with httpx.AsyncClient(base_url=url) as http:
            assert (await http.post("/v1/batch", json=BATCH)).status_code == 200
    assert collector.stats().answers == {200: 1}
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


async def test_the_end_of_serving(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    """Requests that are delayed past the end are cut off, quietly; signals are left alone."""
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    collector.misbehave(delay=600.0)
    async with collector.serve() as url:
        assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
        http = httpx.AsyncClient(base_url=url)
        under_way = asyncio.create_task(http.post("/v1/batch", json=BATCH))
        await _applied(collector)
    with pytest.raises(httpx.TransportError):
        await under_way
    await http.aclose()
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_running(sent: signal.Signals) -> None:
    """On its own it says where it is, serves, and ends well on a signal."""
    code = (
        "import signal\n"
        # A background job may have been started with SIGINT ignored, and that is inherited.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from asyncanalytics.collector import Collector\n"
        "Collector().run(port=0, on_start=lambda url: print(url, flush=True))\n"
        "print('ended')"
    )
    with subprocess.Popen(  # noqa: S603 - our own words
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/healthz").status_code == 200
        process.send_signal(sent)
        rest, errors = process.communicate(timeout=10)
    assert (process.returncode, rest, errors) == (0, "ended\n", "")
