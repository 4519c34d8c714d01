"""The collector takes in all that the protocol has, judges it, keeps it and shows it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import sqlite3
import stat
import subprocess
import sys
import tracemalloc
import uuid
import zlib
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jinja2")

from asyncanalytics.collector import Collector
from asyncanalytics.collector.judge import CALLS, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = "a-key-that-opens-nothing"
BASIC = {"authorization": "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()}
JSON = {"content-type": "application/json"}
NEEDS: dict[str, dict[str, Any]] = {
    "identify": {"userId": "u1", "traits": {"name": "Arthur Dent"}},
    "track": {"userId": "u1", "event": "Added File", "properties": {"fileSize": "42kb"}},
    "page": {"anonymousId": "a1", "name": "Home"},
    "screen": {"anonymousId": "a1", "name": "Login"},
    "group": {"userId": "u1", "groupId": "g1"},
    "alias": {"userId": "u1", "previousId": "a1"},
}
SHORT = {"i": "identify", "t": "track", "p": "page", "s": "screen", "g": "group", "a": "alias"}


def event(kind: str = "track", **fields: Any) -> dict[str, Any]:
    """Make a good event with a messageId of its own."""
    return {"type": kind, "messageId": str(uuid.uuid4()), **NEEDS[kind], **fields}


def client(collector: Collector, **options: Any) -> httpx.AsyncClient:
    """Make a client that reaches the collector in process."""
    transport = httpx.ASGITransport(app=collector)
    return httpx.AsyncClient(transport=transport, **{"base_url": "http://localhost", **options})


async def post(collector: Collector, path: str, content: Any, **headers: str) -> httpx.Response:
    """Post JSON, or bytes as they are."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    async with client(collector) as http:
        return await http.post(path, content=body, headers=JSON | headers)


async def get(collector: Collector, path: str, **params: Any) -> Any:
    """Get JSON that must be there."""
    async with client(collector) as http:
        return (await http.get(path, params=params)).raise_for_status().json()


async def reasons(collector: Collector, *events: Any) -> list[str | None]:
    """Send a batch, and return what was kept as each event's reason."""
    await post(collector, "/v1/batch", {"batch": events})
    return [each.reason for each in collector.events()]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector in memory that lets everyone in."""
    with Collector() as made:
        yield made


# Routes


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/import", "/v1/b"])
async def test_batches(collector: Collector, path: str) -> None:
    """Every call in one batch is good, and keeps its order, its payload and its request's facts."""
    batch = [event(kind) for kind in NEEDS]
    sent_at = "2026-11-01T10:00:00.000Z"
    answer = await post(
        collector, path, {"batch": batch, "sentAt": sent_at}, **BASIC, **{"x-retry-count": "3"}
    )
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    kept = collector.events()
    assert [each.payload for each in kept] == batch
    assert [each.message_id for each in kept] == collector.message_ids()
    assert {each.type for each in kept} == CALLS
    assert {(each.sent_at, each.retry_count, each.batch_id) for each in kept} == {(sent_at, 3, 1)}
    assert {each.key_fingerprint for each in kept} == {collector.fingerprint(KEY)}


@pytest.mark.parametrize(
    ("name", "call"), [*SHORT.items(), *((call, call) for call in SHORT.values())]
)
async def test_single_calls(collector: Collector, name: str, call: str) -> None:
    """The body of a single call is the event, and the path says its type."""
    sent = event(call)
    del sent["type"]
    answer = await post(collector, f"/v1/{name}", sent)
    (kept,) = collector.events()
    assert answer.status_code == 200
    assert (kept.type, kept.verdict, kept.payload) == (call, "good", sent | {"type": call})


@pytest.mark.parametrize("message_id", [{}, {"messageId": None}, {"messageId": ""}])
async def test_single_calls_without_an_id(collector: Collector, message_id: dict[str, Any]) -> None:
    """A call that was written by hand gets an id of its own, as at the real endpoints."""
    sent = {"userId": "u1", "event": "Added File", **message_id}
    for _ in range(2):
        await post(collector, "/v1/track", sent)
    first, second = collector.events(verdict="good")
    assert first.payload == sent | {"type": "track", "messageId": first.message_id}
    assert len({first.message_id, second.message_id, None, ""}) == 4


@pytest.mark.parametrize("prefix", ["", "Bearer ", "bearer "])
async def test_dittofeed(prefix: str) -> None:
    """Its batch path takes the key alone or as Bearer, and says 204."""
    with Collector(write_keys=[KEY]) as collector:
        body = {"batch": [event()]}
        answer = await post(
            collector, "/api/public/apps/batch", body, authorization=f"{prefix}{KEY}"
        )
        assert (answer.status_code, answer.content) == (204, b"")
        assert collector.stats().good == 1


async def test_dittofeeds_own_keys() -> None:
    """The key is all that Dittofeed shows, `Basic` and a secret with its password included."""
    key = _basic("an-id:a-secret")["authorization"]
    with Collector(write_keys=[key]) as collector:
        for authorization, status in ((key, 204), (_basic("an-id:other")["authorization"], 401)):
            answer = await post(
                collector,
                "/api/public/apps/batch",
                {"batch": [event()]},
                authorization=authorization,
            )
            assert answer.status_code == status
        (kept,) = collector.events()
        assert kept.key_fingerprint == collector.fingerprint(key)


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padding", ["=", ""])
async def test_pixel(collector: Collector, encode: Callable[[bytes], bytes], padding: str) -> None:
    """A pixel's data is an event in base64, and the answer an image of one point."""
    sent = event(properties={"odd": "ÿþ>>>???"}, writeKey=KEY)
    data = encode(json.dumps(sent, ensure_ascii=False).encode()).decode()
    async with client(collector) as http:
        answer = await http.get(f"/v1/pixel/track?data={data.rstrip('=' if not padding else '')}")
    assert answer.headers["content-type"] == "image/gif"
    assert answer.content[:10] == b"GIF89a\x01\x00\x01\x00"
    (kept,) = collector.events(verdict="good")
    assert kept.payload["properties"] == sent["properties"]
    assert kept.key_fingerprint == collector.fingerprint(KEY)


@pytest.mark.parametrize("query", ["", "?data=", "?data=!", "?data=bm90IGpzb24="])
async def test_pixel_without_an_event(collector: Collector, query: str) -> None:
    """A pixel whose data is none is refused."""
    async with client(collector) as http:
        assert (await http.get("/v1/pixel/t" + query)).status_code == 400
    assert collector.stats().answers == {400: 1}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/batch", 405),
        ("POST", "/v1/unknown", 404),
        ("POST", "/v1/batch/", 404),
        ("POST", "/", 405),
        ("OPTIONS", "/v1/batch", 405),
    ],
)
async def test_no_such_route(collector: Collector, method: str, path: str, status: int) -> None:
    """What is not there is refused in the one form, and never redirected."""
    async with client(collector) as http:
        answer = await http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["success"] is False


# Judging


JUDGED: list[tuple[str, dict[str, Any], str | None]] = [
    ("track", {}, None),
    ("track", {"timestamp": None, "properties": None, "context": None}, None),
    ("track", {"type": None}, "missing_type"),
    ("track", {"type": "click"}, "unknown_type"),
    ("track", {"type": ["track"]}, "unknown_type"),
    ("track", {"userId": 7}, "user_id_not_a_string"),
    ("track", {"userId": 0}, "user_id_not_a_string"),
    ("track", {"anonymousId": 7}, "anonymous_id_not_a_string"),
    ("alias", {"previousId": 7}, "previous_id_not_a_string"),
    ("group", {"groupId": {}}, "group_id_not_a_string"),
    *((kind, {"userId": "", "anonymousId": None}, "missing_user") for kind in (*NEEDS,)[:5]),
    ("alias", {"userId": "", "anonymousId": "a1"}, "missing_user_id"),
    ("alias", {"previousId": ""}, "missing_previous_id"),
    ("group", {"groupId": ""}, "missing_group_id"),
    ("track", {"event": ""}, "missing_event"),
    ("track", {"event": None}, "missing_event"),
    ("track", {"event": 5}, "event_not_a_string"),
    ("page", {"messageId": None}, "missing_message_id"),
    ("page", {"messageId": ""}, "missing_message_id"),
    ("page", {"messageId": 12}, "message_id_not_a_string"),
    ("page", {"messageId": "é" * 100}, None),
    ("page", {"messageId": "x" * 101}, "message_id_too_long"),
    *(
        ("page", {"timestamp": good}, None)
        for good in ("2026-11-01", "2026-11-01T10:00:00.123456789+01:00", "20261101T100000Z")
    ),
    *(
        ("page", {"timestamp": bad}, "timestamp_not_iso_8601")
        for bad in ("", "yesterday", "2026-13-01", "2026-11-01 10:00:00", "20261101T1")
    ),
    ("page", {"timestamp": 1700000000}, "timestamp_not_iso_8601"),
    *(
        ("screen", {field: wrong}, f"{field}_not_an_object")
        for field in ("properties", "traits", "context", "integrations")
        for wrong in (["x"], "text", 1)
    ),
    ("track", {"properties": {str(each): 0 for each in range(10_001)}}, "event_too_large"),
]


@pytest.mark.parametrize(("kind", "fields", "reason"), JUDGED)
async def test_each_rule(
    collector: Collector, kind: str, fields: dict[str, Any], reason: str | None
) -> None:
    """Each rule has its reason; null is the same as absent."""
    assert await reasons(collector, event(kind, **fields)) == [reason]


async def test_events_that_are_no_objects(collector: Collector) -> None:
    """Anything in a batch is kept, so that it can be looked at."""
    assert await reasons(collector, 5, None, ["x"], "track") == ["not_an_object"] * 4
    payloads = [each.payload["value"] for each in collector.events(verdict="bad")]
    assert payloads == [5, None, ["x"], "track"]
    assert collector.stats().by_type == {"unknown": 4}


async def test_event_size(collector: Collector) -> None:
    """32 KB of JSON are good, one byte more is not."""
    sizing = event(properties={"text": ""})
    room = 32 * 1024 - len(json.dumps(sizing, separators=(",", ":")))
    fits, over = (event(properties={"text": "x" * (room + more)}) for more in (0, 1))
    assert await reasons(collector, fits, over) == [None, "event_too_large"]


async def test_deep_events(collector: Collector) -> None:
    """An event nested too deep is bad; what is flat in it is kept, and the others are good."""
    deep = '{"a":' * 400 + "1" + "}" * 400
    bad = json.dumps(event(messageId="deep", properties={})).replace("{}", deep)
    body = f'{{"batch":[{bad},{json.dumps(event())}]}}'.encode()
    assert (await post(collector, "/v1/batch", body)).status_code == 200
    first, second = collector.events()
    assert (first.reason, first.message_id, second.reason) == ("too_deep", "deep", None)
    assert "properties" not in first.payload


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    max_leaves=8,
)
names = st.sampled_from(
    [
        *("type", "userId", "anonymousId", "previousId", "groupId", "event", "messageId"),
        *("timestamp", "properties", "traits", "context", "integrations", "writeKey", "appId"),
    ]
)
plausible = st.dictionaries(names, json_values | st.sampled_from([*CALLS, "2026-11-01T10:00:00Z"]))


@given(value=json_values | plausible, size=st.integers(0, 40_000))
def test_judge_never_raises(value: Any, size: int) -> None:
    """Whatever JSON an event is, it gets a reason or none."""
    reason = judge(value, size=size)
    assert reason is None or reason.isidentifier()


@settings(max_examples=40, deadline=None)
@given(batch=st.lists(json_values | plausible, max_size=4))
async def test_any_batch_is_taken(batch: list[Any]) -> None:
    """Whatever is in a batch, it is answered, kept and shown; only NaN is no JSON."""
    body = json.dumps({"batch": batch})
    is_json = "NaN" not in body and "Infinity" not in body
    with Collector() as collector:
        answer = await post(collector, "/v1/batch", body.encode())
        assert answer.status_code == 200 if is_json else answer.status_code in (200, 400)
        kept = collector.events()
        shown = (await get(collector, "/events"))["events"]
        assert len(kept) == len(shown) == (len(batch) if answer.status_code == 200 else 0)


async def test_values_are_kept_exactly(collector: Collector) -> None:
    """Huge numbers, lone surrogates and NUL characters come back as they were sent."""
    strange = {"huge": 2**80, "low": -(2**70), "lone": "\ud83d!", "nul": "\0", "pi": 3.25}
    sent = event(event="\ud83d", userId="\udc00", properties=strange)
    assert await reasons(collector, sent) == [None]
    (kept,) = collector.events(user_id="\udc00")
    assert kept.payload == sent


# Limits


async def test_batch_of_too_many_events(collector: Collector) -> None:
    """2,500 events are taken; of 2,501 the answer is 200, and every one is bad."""
    tiny = [{"type": "page", "userId": "u", "messageId": str(each)} for each in range(2_501)]
    assert (await post(collector, "/v1/batch", {"batch": tiny[:-1]})).status_code == 200
    assert collector.stats().good == 2_500
    assert (await post(collector, "/v1/batch", {"batch": tiny})).status_code == 200
    assert collector.stats().reasons == {"too_many_events": 2_501}


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
async def test_batch_of_too_many_bytes(
    collector: Collector, compress: Callable[[bytes], bytes]
) -> None:
    """500 KB of JSON are taken, one byte more is refused with 400; compression does not count."""
    body = json.dumps({"batch": [event()]}).encode()
    encoding = {"content-encoding": "gzip"} if compress is gzip.compress else {}
    fits = body.ljust(500 * 1024)
    assert (await post(collector, "/v1/batch", compress(fits), **encoding)).status_code == 200
    answer = await post(collector, "/v1/batch", compress(fits + b" "), **encoding)
    assert (answer.status_code, answer.json()["reason"]) == (400, "batch_too_large")
    assert collector.stats().events == 1


async def test_caps() -> None:
    """Beyond the caps a body is refused with 413, as it comes and inflated."""
    with Collector(max_body=2_000, max_inflated=5_000) as collector:
        body = json.dumps({"batch": [event()]}).encode()
        gz = {"content-encoding": "gzip"}
        assert (await post(collector, "/v1/batch", body.ljust(2_000))).status_code == 200
        answer = await post(collector, "/v1/batch", body.ljust(2_001))
        assert (answer.status_code, answer.json()["reason"]) == (413, "body_too_large")
        fits, over = (gzip.compress(body.ljust(size)) for size in (5_000, 5_001))
        assert (await post(collector, "/v1/batch", fits, **gz)).status_code == 200
        answer = await post(collector, "/v1/batch", over, **gz)
        assert (answer.status_code, answer.json()["reason"]) == (413, "inflated_too_large")
        assert collector.stats().answers == {200: 2, 413: 2}


async def test_bomb(collector: Collector) -> None:
    """128 MB packed into half a megabyte stop at the cap, and memory never holds them."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(1024 * 1024)) for _ in range(128)) + packer.flush()
    tracemalloc.start()
    answer = await post(collector, "/v1/batch", bomb, **{"content-encoding": "gzip"})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status_code == 413
    assert peak < 40 * 1024 * 1024


GZIPPED = gzip.compress(b'{"batch":[]}', mtime=0)


@pytest.mark.parametrize(
    "body", [b"", b"not gzip", GZIPPED[:-1], GZIPPED + b"x", GZIPPED + GZIPPED, GZIPPED[:9]]
)
async def test_broken_gzip(collector: Collector, body: bytes) -> None:
    """A body that is not one whole gzip member is refused with 400."""
    answer = await post(collector, "/v1/batch", body, **{"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["reason"]) == (400, "bad_gzip")


async def test_a_compressed_body_may_be_called_a_form(collector: Collector) -> None:
    """As RudderStack's SDK for Node calls it; no form on a web page can compress."""
    body = gzip.compress(json.dumps({"batch": [event()]}).encode())
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert (await post(collector, "/v1/batch", body, **form)).status_code == 415
    answer = await post(collector, "/v1/batch", body, **form, **{"content-encoding": "gzip"})
    assert (answer.status_code, collector.stats().good) == (200, 1)


@pytest.mark.parametrize("pieces", [1, 3, 10_000])
async def test_bodies_in_pieces(collector: Collector, pieces: int) -> None:
    """A compressed body may come in pieces of any size."""
    batch = [event() for _ in range(20)]
    body = gzip.compress(json.dumps({"batch": batch}).encode())

    async def stream() -> Any:
        for start in range(0, len(body), pieces):
            yield body[start : start + pieces]

    async with client(collector) as http:
        headers = JSON | {"content-encoding": "gzip"}
        await http.post("/v1/batch", content=stream(), headers=headers)
    assert [each.payload for each in collector.events()] == batch


@pytest.mark.parametrize(
    ("headers", "body", "status", "reason"),
    [
        ({"content-type": "text/plain"}, b"{}", 415, "not_json"),
        ({"content-type": ""}, b"{}", 415, "not_json"),
        ({"content-encoding": "br"}, b"{}", 415, "unknown_encoding"),
        ({}, b"", 400, "invalid_json"),
        ({}, b"{", 400, "invalid_json"),
        ({}, b'{"batch":[NaN]}', 400, "invalid_json"),
        ({}, b'{"batch":[1e999]}', 400, "invalid_json"),
        ({}, b'{"batch":["\xff"]}', 400, "invalid_json"),
        ({}, b"[" * 200_000, 400, "invalid_json"),
        ({}, b"[]", 400, "not_an_object"),
        ({}, b"{}", 400, "no_batch"),
        ({}, b'{"batch":{}}', 400, "no_batch"),
    ],
)
async def test_requests_that_are_refused(
    collector: Collector, headers: dict[str, str], body: bytes, status: int, reason: str
) -> None:
    """A request that cannot be understood is refused as a whole, with its reason."""
    answer = await post(collector, "/v1/batch", body, **headers)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert (collector.stats().events, collector.stats().answers) == (0, {status: 1})


async def test_an_empty_batch(collector: Collector) -> None:
    """Nothing is a good batch; so is JSON with a charset."""
    answer = await post(
        collector, "/v1/batch", {"batch": []}, **{"content-type": "application/json; charset=utf-8"}
    )
    assert answer.status_code == 200
    assert collector.stats().as_dict()["answers"] == {"200": 1}


# Keys


def _basic(credentials: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(credentials.encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "envelope", "fields", "status"),
    [
        (BASIC, {}, {}, 200),
        ({"authorization": f"Bearer {KEY}"}, {}, {}, 200),
        ({}, {"writeKey": KEY}, {}, 200),
        ({}, {"appId": KEY}, {}, 200),
        ({}, {}, {"writeKey": KEY}, 200),
        ({}, {}, {"appId": KEY}, 200),
        (BASIC, {"writeKey": KEY}, {"appId": KEY}, 200),
        ({}, {}, {}, 401),
        (_basic("wrong:"), {}, {}, 401),
        (_basic(KEY), {}, {}, 401),
        (_basic(f"{KEY}:password"), {}, {}, 401),
        (_basic(":"), {}, {}, 401),
        ({"authorization": "Basic !"}, {}, {}, 401),
        ({"authorization": KEY}, {}, {}, 401),
        ({"authorization": "Bearer"}, {}, {}, 401),
        ({}, {"writeKey": "wrong"}, {"writeKey": KEY}, 401),
        ({}, {"writeKey": KEY}, {"writeKey": "wrong"}, 401),
        ({}, {"writeKey": 5}, {}, 401),
    ],
)
async def test_keys(
    headers: dict[str, str], envelope: dict[str, Any], fields: dict[str, Any], status: int
) -> None:
    """A key may be in each of the places, and every key that is there must be known."""
    with Collector(write_keys=[KEY]) as collector:
        body = {"batch": [event(**fields), event(**fields)], **envelope}
        answer = await post(collector, "/v1/batch", body, **headers)
        assert answer.status_code == status
        assert collector.stats().events == (2 if status == 200 else 0)
        assert (status == 200) == answer.json()["success"]
        assert {each.key_fingerprint for each in collector.events()} <= {collector.fingerprint(KEY)}


async def test_keys_of_an_empty_batch_and_of_single_calls() -> None:
    """A key is needed where there is no event, and a single call has it in its body."""
    with Collector(write_keys=[KEY]) as collector:
        assert (await post(collector, "/v1/batch", {"batch": []})).status_code == 401
        assert (await post(collector, "/v1/track", event())).status_code == 401
        assert (await post(collector, "/v1/track", event(writeKey=KEY))).status_code == 200


async def test_keys_are_kept_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """The key is in no file, repr, payload, log line or answer."""
    path = tmp_path / "events.db"
    with Collector(path, write_keys=[KEY]) as collector:
        async with collector.serve() as url, httpx.AsyncClient(base_url=url) as http:
            body = {"batch": [event(writeKey=KEY, appId=KEY)], "writeKey": KEY}
            answers = [
                await http.post("/v1/batch", json=body, headers=BASIC),
                await http.post("/v1/batch", json=body, headers=_basic(f"{KEY}:x")),
                await http.post("/v1/batch", json=body | {"batch": 1, "writeKey": KEY}),
                await http.get("/events"),
                await http.get("/stats"),
            ]
        assert [each.status_code for each in answers] == [200, 401, 400, 200, 200]
        seen = [repr(collector), repr(collector.events()), *(each.text for each in answers)]
        seen += [caplog.text, *capfd.readouterr()]
        assert not [each for each in seen if KEY in each]
    assert KEY.encode() not in _contents(tmp_path)


def _contents(folder: Path) -> bytes:
    return b"".join(each.read_bytes() for each in folder.iterdir())


# Modes


def _bad_and_good() -> list[dict[str, Any]]:
    return [event(messageId="good"), event(messageId="bad", userId=5), event(messageId=None)]


async def test_strict() -> None:
    """One bad event makes it 400: the good ones are not kept, the bad ones are, as bad."""
    with Collector(mode="strict") as collector:
        answer = await post(collector, "/v1/batch", {"batch": _bad_and_good()})
        assert answer.status_code == 400
        assert [each["index"] for each in answer.json()["Errors"]] == [1, 2]
        assert collector.message_ids() == []
        assert [each.message_id for each in collector.events()] == ["bad", None]
        assert (await post(collector, "/v1/batch", {"batch": [event()]})).status_code == 200
        assert (await post(collector, "/v1/page", event("page", userId=7))).status_code == 400


async def test_partial() -> None:
    """207 names the bad events; the good ones are kept as good."""
    with Collector(mode="partial") as collector:
        answer = await post(collector, "/v1/batch", {"batch": _bad_and_good()})
        assert answer.status_code == 207
        assert answer.json() == {
            "Errors": [
                {"index": 1, "messageId": "bad", "reason": "user_id_not_a_string"},
                {"index": 2, "messageId": None, "reason": "missing_message_id"},
            ]
        }
        assert collector.message_ids() == ["good"]
        assert collector.message_ids("bad") == ["bad"]
        lone = await post(collector, "/v1/track", event(messageId="\ud83d", userId=5))
        assert lone.json()["Errors"][0]["messageId"] == "\\ud83d"


@pytest.mark.parametrize(
    "wrong",
    [{"mode": "loose"}, {"max_body": 0}, {"write_keys": "key"}, {"allowed_hosts": "localhost"}],
)
def test_wrong_settings(wrong: dict[str, Any]) -> None:
    """A setting that cannot work is refused when the collector is made."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Collector(**wrong)


# Reading back


async def _fill(collector: Collector) -> None:
    first = [event(messageId=f"m{each}", event=f"E{each % 2}") for each in range(6)]
    await post(collector, "/v1/batch", {"batch": first})
    await post(collector, "/v1/page", event("page", messageId="m0", anonymousId="someone"))
    await post(collector, "/v1/group", event("group", messageId="m7", userId="u2", groupId=1))


FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["m0", "m1", "m2", "m3", "m4", "m5", "m0", "m7"]),
    ({"type": "page"}, ["m0"]),
    ({"event": "E1"}, ["m1", "m3", "m5"]),
    ({"event": "E1", "verdict": "bad"}, []),
    ({"user_id": "u2"}, ["m7"]),
    ({"anonymous_id": "someone"}, ["m0"]),
    ({"message_id": "m0"}, ["m0", "m0"]),
    ({"verdict": "bad"}, ["m7"]),
    ({"since": "2999-01-01T00:00:00Z"}, []),
    ({"since": "2020-01-01T00:00:00+01:00", "type": "track", "limit": 2}, ["m0", "m1"]),
]


@pytest.mark.parametrize(("where", "expected"), FILTERS)
async def test_filters(collector: Collector, where: dict[str, Any], expected: list[str]) -> None:
    """The same filters give the same events over JSON and in Python."""
    await _fill(collector)
    shown = (await get(collector, "/events", **where))["events"]
    kept = collector.events(**where)
    assert [each["message_id"] for each in shown] == expected
    assert [each.message_id for each in kept] == expected
    assert [each["payload"] for each in shown] == [each.payload for each in kept]


@pytest.mark.parametrize(
    ("where", "expected"), [each for each in FILTERS if "limit" not in each[0]]
)
async def test_deleting(collector: Collector, where: dict[str, Any], expected: list[str]) -> None:
    """Exactly what a filter means is deleted, over JSON and in Python."""
    for by_http in (True, False):
        await _fill(collector)
        if by_http:
            async with client(collector) as http:
                deleted = (await http.delete("/events", params=where)).json()["deleted"]
        else:
            deleted = collector.clear(**where)
        assert deleted == len(expected)
        assert collector.events(**where) == []
        assert collector.stats().events == 8 - deleted
        collector.clear()
        assert collector.stats().requests == 0


async def test_paging(collector: Collector) -> None:
    """Following `next` gives each event once, and `last` goes on with what comes later."""
    await post(collector, "/v1/batch", {"batch": [event(messageId=str(n)) for n in range(25)]})
    seen, page = [], await get(collector, "/events", limit=10)
    while True:
        seen += [each["message_id"] for each in page["events"]]
        if page["next"] is None:
            break
        page = await get(collector, "/events", limit=10, after=page["next"])
    assert seen == [str(n) for n in range(25)]
    collector.clear()
    await post(collector, "/v1/batch", {"batch": [event(messageId="later")]})
    later = await get(collector, "/events", after=page["last"])
    assert [each["message_id"] for each in later["events"]] == ["later"]
    assert (await get(collector, "/events", after=later["last"]))["last"] == later["last"]


async def test_pages_of_large_events(collector: Collector) -> None:
    """A page stops at some megabytes too, and the next goes on from there."""
    for number in range(20):
        huge = {"batch": [event(messageId=str(number), properties={"text": "x" * 500_000})]}
        await post(collector, "/v1/batch", huge)
    first = await get(collector, "/events", limit=1_000)
    assert 1 < len(first["events"]) < 20
    rest = await get(collector, "/events", limit=1_000, after=first["next"])
    shown = [each["message_id"] for each in first["events"] + rest["events"]]
    assert (shown, rest["next"]) == ([str(number) for number in range(20)], None)


async def test_a_message_id_among_many_requests(collector: Collector) -> None:
    """Each arrival is found and counted, also where those in between were deleted."""
    for number in range(70):
        fields = {"messageId": "same" if number % 23 == 0 else str(number), "event": f"E{number}"}
        await post(collector, "/v1/track", event(**fields))
    collector.clear(event="E46")
    for number in range(47, 64):
        assert collector.clear(message_id=str(number)) == 1
    assert [each.event for each in collector.events(message_id="same")] == ["E0", "E23", "E69"]
    assert (await get(collector, "/events/same"))["seen"] == 3
    assert (collector.stats().distinct, collector.stats().duplicates) == (50, 2)


WRONG_QUERIES = (
    "limit=0 limit=1001 limit=x limit=² after=x after=AAAAAAAAAAAA since=now verdict=ugly usr=u1"
    " type=page&type=track"
)


@pytest.mark.parametrize("query", WRONG_QUERIES.split())
async def test_wrong_parameters(collector: Collector, query: str) -> None:
    """A parameter that is unknown, repeated or wrong is refused, in GET and in DELETE."""
    await _fill(collector)
    async with client(collector) as http:
        for method in ("GET", "DELETE"):
            answer = await http.request(method, f"/events?{query}")
            assert (answer.status_code, answer.json()["reason"]) == (400, "bad_parameter")
        assert (await http.delete("/events?limit=1")).status_code == 400
        assert (await http.get("/events/m0?limit=1")).status_code == 400
    assert collector.stats().events == 8


async def test_one_event(collector: Collector) -> None:
    """Every arrival of a messageId is shown; one that never came is not found."""
    await _fill(collector)
    await post(collector, "/v1/page", event("page", messageId="a/b c"))
    found = await get(collector, "/events/m0")
    assert (found["seen"], [each["type"] for each in found["events"]]) == (2, ["track", "page"])
    assert (await get(collector, "/events/a%2Fb%20c"))["seen"] == 1
    async with client(collector) as http:
        assert (await http.get("/events/never")).status_code == 404


async def test_stats(collector: Collector) -> None:
    """Totals, distinct ids and duplicates are told apart, and both faces tell the same."""
    await _fill(collector)
    stats = collector.stats()
    assert (stats.requests, stats.events, stats.good, stats.bad) == (3, 8, 7, 1)
    assert (stats.distinct, stats.duplicates) == (7, 1)
    assert stats.by_type == {"group": 1, "page": 1, "track": 6}
    assert stats.reasons == {"group_id_not_a_string": 1}
    assert stats.bytes > 500
    assert stats.first_at is not None
    assert stats.last_at is not None
    assert stats.first_at <= stats.last_at
    assert await get(collector, "/stats") == stats.as_dict()
    collector.clear()
    assert collector.stats() == Collector().stats()


async def test_health(collector: Collector) -> None:
    """A probe gets a short answer that is not counted."""
    assert await get(collector, "/healthz") == {"status": "ok"}
    assert collector.stats().requests == 0


# Hosts, origins, headers


HOSTS: list[tuple[str, list[str] | None, int]] = [
    ("localhost", None, 200),
    ("LOCALHOST:8010", None, 200),
    ("127.0.0.1:8010", None, 200),
    ("[::1]:8010", None, 200),
    ("[::1]", None, 200),
    ("evil.example", None, 421),
    ("localhost.evil.example", None, 421),
    ("evil.example:127.0.0.1", None, 421),
    ("", None, 421),
    ("tests.internal:80", ["tests.internal"], 200),
    ("evil.example", ["*"], 200),
]


@pytest.mark.parametrize(("host", "allowed", "status"), HOSTS)
async def test_hosts(host: str, allowed: list[str] | None, status: int) -> None:
    """A name that is not known as the collector's own is refused, whatever it resolves to."""
    with Collector(allowed_hosts=allowed) as collector:
        async with client(collector) as http:
            assert (await http.get("/stats", headers={"host": host})).status_code == status
            answer = await http.post("/v1/track", json=event(), headers={"host": host})
        assert (answer.status_code, collector.stats().requests) == (status, int(status == 200))


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost", 200),
        ("https://LOCALHOST", 200),
        ("http://localhost:3000", 403),
        ("http://127.0.0.1", 403),
        ("https://evil.example", 403),
        ("http://[", 403),
        ("null", 403),
        ("", 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
async def test_origins(collector: Collector, method: str, origin: str, status: int) -> None:
    """A request of another origin is refused before anything is done, and gets no CORS header."""
    await _fill(collector)
    async with client(collector) as http:
        answer = await http.request(method, "/events", headers={"origin": origin})
    assert answer.status_code == (405 if (method, status) == ("OPTIONS", 200) else status)
    assert collector.stats().events == (0 if (method, status) == ("DELETE", 200) else 8)
    assert not [each for each in answer.headers if each.startswith("access-control")]


@pytest.mark.parametrize("path", ["/stats", "/nowhere", "/events?x=1", "/v1/pixel/t"])
@pytest.mark.parametrize("host", ["localhost", "evil.example"])
async def test_security_headers(collector: Collector, path: str, host: str) -> None:
    """Every answer, good or bad, forbids a browser to make anything of it."""
    async with client(collector) as http:
        headers = (await http.get(path, headers={"host": host})).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"


# The file, the process


async def test_a_file_is_taken_up_again(tmp_path: Path) -> None:
    """Events outlive the collector in a file that only its owner may read."""
    path = tmp_path / "events.db"
    with Collector(path) as collector:
        await _fill(collector)
        before, ids = collector.stats(), collector.message_ids()
        assert path.with_name("events.db-wal").stat().st_mode & 0o077 == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Collector(path) as collector:
        assert (collector.stats(), collector.message_ids()) == (before, ids)
        await post(collector, "/v1/page", event("page", messageId="new"))
        assert collector.events()[-1].batch_id == before.requests + 1
        collector.close()


def test_files_of_others(tmp_path: Path) -> None:
    """A file that is something else is refused and left as it was."""
    text, other = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("not a database, " * 100)
    db = sqlite3.connect(other)
    db.execute("CREATE TABLE mine (x)")
    db.close()
    before = text.read_bytes(), other.read_bytes()
    for path in (text, other):
        with pytest.raises(ValueError, match="choose another path"):
            Collector(path)
    assert (text.read_bytes(), other.read_bytes()) == before


async def test_lifespan(tmp_path: Path) -> None:
    """As an app under any server it starts and stops, and at the end the file is whole."""
    path = tmp_path / "events.db"
    inbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    outbox: list[str] = []

    async def send(message: Any) -> None:
        outbox.append(message["type"])

    with Collector(path) as collector:
        await _fill(collector)
        inbox.put_nowait({"type": "lifespan.startup"})
        inbox.put_nowait({"type": "lifespan.shutdown"})
        await collector({"type": "lifespan", "asgi": {}, "state": {}}, inbox.get, send)
        assert outbox == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert path.with_name("events.db-wal").stat().st_size == 0
        assert collector.stats().events == 8


def test_without_the_extra() -> None:
    """Where starlette or uvicorn is missing the error says which extra to install."""
    for missing in ("starlette", "uvicorn"):
        code = (
            f"import sys; sys.modules[{missing!r}] = None\n"
            "from asyncanalytics.errors import MissingExtra\n"
            "try:\n    import asyncanalytics.collector\n"
            "except MissingExtra as error:\n    print(error)"
        )
        run = subprocess.run(  # noqa: S603 - our own words
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert "asyncanalytics[collector]" in run.stdout
