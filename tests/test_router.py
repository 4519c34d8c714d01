"""The router: what comes with a write key arrives, whole, at each place that it is for."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import logging
import os
import sqlite3
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jmespath")
pytest.importorskip("tree_sitter_toml")

from asyncanalytics import Batching, LifecycleError, Retrying
from asyncanalytics.collector import InvalidConfiguration, router
from asyncanalytics.collector.pipelines import intake

if TYPE_CHECKING:
    from pathlib import Path

    from switchyard import Switchyard

    from asyncanalytics.collector.pipelines.figures import IntegrationStats

KEY = "a-key-that-opens-nothing"
JSON = {"content-type": "application/json"}
NEEDS: dict[str, dict[str, Any]] = {
    "identify": {"userId": "u1", "traits": {"name": "Arthur Dent"}},
    "track": {"userId": "u1", "event": "Added File", "properties": {"fileSize": "42kb"}},
    "page": {"anonymousId": "a1", "name": "Home"},
    "screen": {"anonymousId": "a1", "name": "Login"},
    "group": {"userId": "u1", "groupId": "g1"},
    "alias": {"userId": "u1", "previousId": "a1"},
}


def event(kind: str = "track", number: int = 0, **members: Any) -> dict[str, Any]:
    """Make an event as an SDK writes it."""
    common = {"messageId": f"{kind}-{number}", "timestamp": "2026-11-01T10:00:00.000Z"}
    library = {"context": {"library": {"name": "another", "version": "1"}}}
    return {"type": kind, **common, **library, **NEEDS[kind], **members}


async def post(url: str, body: Any, path: str = "/v1/batch", **headers: str) -> httpx.Response:
    """Post JSON with the key of the pipeline."""
    basic = "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with httpx.AsyncClient(mounts={"all://": None}) as http:
        told = {**JSON, "authorization": basic, **headers}
        return await http.post(url + path, content=content, headers=told)


async def batch(url: str, *events: Any, **envelope: Any) -> httpx.Response:
    """Post a batch."""
    return await post(url, {"batch": events, "sentAt": "2026-11-01T10:00:01.000Z", **envelope})


# ------------------------------------------------------------------------------ events that pass


async def test_every_call_arrives_at_each_place(yard: Switchyard) -> None:
    """Sent by a real client to real collectors, each in the form that its integration gives it."""
    plain, warehouse, crm = [await yard.receiver() for _ in range(3)]
    places = {
        "plain": plain,
        "warehouse": {
            "to": warehouse,
            "calls": ["track", "page"],
            "events": ["Order *"],
            "when": "properties.total > `100` || type == 'page'",
            "transform": [
                {"rename": {"properties.total": "properties.revenue"}},
                {"cast": {"properties.revenue": "text"}},
                {"set": {"context.app.name": "shop"}},
            ],
        },
        "crm": {
            "to": crm,
            "transform": [
                {"hash": ["userId", "traits.email"], "hash_key": "sixteen bytes or more"},
                {"drop": ["properties"]},
            ],
        },
    }
    async with yard.serving(yard.config(places)) as (_, url), yard.sender(url) as sender:
        sent = [
            await sender.track("Order Completed", user_id="u1", properties={"total": 250}),
            await sender.track("Order Completed", user_id="u1", properties={"total": 50}),
            await sender.track("Cart Viewed", user_id="u1", properties={"total": 500}),
            await sender.identify("u1", traits={"email": "arthur@example.com"}),
            await sender.page("Home", anonymous_id="a1"),
            await sender.screen("Login", anonymous_id="a1"),
            await sender.group("g1", user_id="u1", traits={"plan": "pro"}),
            await sender.alias("u2", previous_id="u1"),
        ]
        outcomes = [await each.settled() for each in sent]
    assert {each.status for each in outcomes} == {200}
    ids = [each.message_id for each in sent]
    assert [each["messageId"] for each in plain.events] == ids
    assert plain.events[0]["properties"] == {"total": 250}
    assert [each["messageId"] for each in warehouse.events] == [ids[0], ids[4]]
    assert warehouse.events[0]["properties"] == {"revenue": "250"}
    assert warehouse.events[0]["context"]["app"] == {"name": "shop"}
    assert [each["messageId"] for each in crm.events] == ids
    assert "properties" not in crm.events[0]
    assert len(crm.events[3]["traits"]["email"]) == 64
    assert crm.events[0]["userId"] == crm.events[3]["userId"] != "u1"
    figures = yard.routers[0].stats().pipelines["shop"]
    assert figures.events == 8
    assert figures.integrations["warehouse"].dropped == {"filtered": 6}
    assert {each.delivered for each in figures.integrations.values()} == {8, 2}


async def test_an_event_arrives_as_its_sdk_wrote_it(yard: Switchyard) -> None:
    """Members that nobody knows, an id and a time of its own, and values of any type."""
    place = await yard.receiver()
    odd = event(
        originalTimestamp="2026-11-01T09:59:59.000Z",
        channel="web",
        _metadata={"bundled": []},
        context={"screen": {"width": "1024 px"}, "library": {"name": "analytics.js"}},
        integrations={"place": {"option": [1]}, "Other": False},
        properties={"huge": 10**30, "float": 1.5, "null": None, "deep": [[{}]]},
    )
    async with yard.serving(yard.config({"place": place})) as (_, url):
        answer = await batch(url, {**odd, "sentAt": "then", "writeKey": KEY})
        assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert place.events == [odd]


@pytest.mark.parametrize("way", ["/v1/{}", "/v1/pixel/{}", "/v1/import", "/v1/b"])
async def test_every_way_in(yard: Switchyard, way: str) -> None:
    """Single calls, pixels and batches under all their names."""
    place = await yard.receiver()
    sent = [event(call) for call in NEEDS]
    async with yard.serving(yard.config({"place": place})) as (_, url):
        for each in sent:
            answer = await _sent(yard, url, way.format(each["type"]), each)
            assert answer.status_code == 200
    assert place.events == sent


async def _sent(yard: Switchyard, url: str, path: str, call: dict[str, Any]) -> httpx.Response:
    """Send an event as its path wants it."""
    if "pixel" in path:
        data = base64.b64encode(json.dumps({**call, "writeKey": KEY}).encode()).decode()
        async with yard.http(url, None) as http:
            answer = await http.get(path, params={"data": data})
        assert answer.headers["content-type"] == "image/gif"
        return answer
    if call["type"] in path:
        return await post(url, call, path)
    content = gzip.compress(json.dumps({"batch": [call]}).encode())
    return await post(url, content, path, **{"content-encoding": "gzip"})


async def test_what_a_hand_written_call_lacks(yard: Switchyard) -> None:
    """Without an id, a time and a context an event is good: the router gives them."""
    place = await yard.receiver()
    async with yard.serving(yard.config({"place": place})) as (_, url):
        answer = await post(url, {"userId": "1234qwerty", "event": "Added File"}, "/v1/track")
        assert answer.status_code == 200
    (got,) = place.events
    assert got["messageId"]
    assert got["context"]["library"]["name"] == "asyncanalytics"
    when = datetime.fromisoformat(got["timestamp"])
    assert abs(datetime.now(UTC) - when) < timedelta(minutes=1)


async def test_what_a_batch_says_for_all(yard: Switchyard) -> None:
    """Its context and its integrations are each event's, which may say otherwise."""
    one, two = [await yard.receiver() for _ in range(2)]
    async with yard.serving(yard.config({"one": one, "two": two})) as (_, url):
        await batch(
            url,
            event(number=1, context={"ip": "1.1.1.1"}),
            event(number=2, integrations={"two": True}),
            context={"ip": "2.2.2.2", "app": {"name": "shop"}},
            integrations={"two": False},
        )
    assert [each["messageId"] for each in one.events] == ["track-1", "track-2"]
    assert [each["messageId"] for each in two.events] == ["track-2"]
    assert one.events[0]["context"] == {"ip": "1.1.1.1", "app": {"name": "shop"}}
    assert one.events[1]["context"]["ip"] == "2.2.2.2"


async def test_integrations_are_honoured(yard: Switchyard) -> None:
    """By the names of the pipeline's, where there is one too; what goes nowhere is counted."""
    place = await yard.receiver()
    async with yard.serving(yard.config({"place": place})) as (made, url):
        await batch(
            url,
            event(number=1, integrations={"All": False}),
            event(number=2, integrations={"All": False, "place": True}),
            event(number=3, integrations={"place": False}),
        )
    assert list(place.ids) == ["track-2"]
    figures = made.stats().pipelines["shop"]
    assert (figures.events, figures.unrouted) == (3, 2)


async def test_a_clock_that_is_wrong(yard: Switchyard) -> None:
    """With `correct_clock` an event's time is set right by the time at which it was sent."""
    place = await yard.receiver()
    config = yard.config({"place": place}, correct_clock=True)
    async with yard.serving(config) as (_, url):
        sent_at = datetime.now(UTC) - timedelta(days=400)
        told = (sent_at - timedelta(minutes=5)).isoformat()
        await batch(url, event(timestamp=told), sentAt=sent_at.isoformat())
        await batch(url, event(number=2), sentAt="yesterday")
    one, two = place.events
    late = datetime.now(UTC) - timedelta(minutes=5) - datetime.fromisoformat(one["timestamp"])
    assert abs(late) < timedelta(seconds=30)
    assert one["originalTimestamp"] == told
    assert two["timestamp"] == "2026-11-01T10:00:00.000Z"


async def test_the_other_places(yard: Switchyard, capsys: pytest.CaptureFixture[str]) -> None:
    """A webhook, a file, a table and the console get the same events."""
    pytest.importorskip("duckdb")
    got: list[bytes] = []

    async def hook(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            got.append(await reader.readexactly(length))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await hook(reader, writer)
        writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    secret = "whsec_" + base64.b64encode(bytes(32)).decode()
    places = {
        "hook": {"to": "webhook", "url": f"http://127.0.0.1:{port}/in", "secret": secret},
        "file": {"to": "file", "path": "events.jsonl"},
        "table": {"to": "sqlite", "path": "events.db", "table": "calls"},
        "duck": {"to": "duckdb", "path": "events.duckdb"},
        "console": {"to": "console"},
    }
    async with server, yard.serving(yard.file(yard.config(places))) as (made, url):
        assert (await batch(url, *(event(number=n) for n in range(3)))).status_code == 200
    ids = [f"track-{n}" for n in range(3)]
    assert [json.loads(each)["messageId"] for each in got] == ids
    lines = (yard.folder / "events.jsonl").read_text().splitlines()
    assert [json.loads(each)["messageId"] for each in lines] == ids
    with contextlib.closing(sqlite3.connect(yard.folder / "events.db")) as db:
        assert db.execute("SELECT message_id FROM calls").fetchall() == [(each,) for each in ids]
    assert capsys.readouterr().err.count('"messageId":"track-') == 3
    assert {each.delivered for each in made.stats().pipelines["shop"].integrations.values()} == {3}


# ---------------------------------------------------------------------------------------- keys


async def test_a_key_is_a_pipeline(yard: Switchyard) -> None:
    """One request may hold events of several; each goes its own way."""
    one, two = [await yard.receiver() for _ in range(2)]
    config = yard.config({"place": one})
    other = yard.config({"place": two}, name="blog", write_key="another-key")
    config["pipelines"] += other["pipelines"]
    async with yard.serving(config) as (made, url):
        answer = await batch(
            url,
            event(number=1),
            event(number=2, writeKey="another-key"),
            event(number=3, appId=KEY),
        )
        assert answer.status_code == 200
        async with yard.sender(url, "another-key") as sender:
            receipt = await sender.track("E", user_id="u")
    assert list(one.ids) == ["track-1", "track-3"]
    assert set(two.ids) == {"track-2", receipt.message_id}
    assert {name: each.events for name, each in made.stats().pipelines.items()} == {
        "shop": 2,
        "blog": 2,
    }


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        ({"authorization": "Bearer another"}, {"batch": [event()]}, "unknown_write_key"),
        ({"authorization": "Basic !"}, {"batch": [event()]}, "bad_authorization"),
        ({}, {"batch": [event(), event(writeKey="another")]}, "unknown_write_key"),
        ({"authorization": "Bearer another"}, {"batch": []}, "unknown_write_key"),
    ],
    ids=["unknown", "no key", "one of them", "empty"],
)
async def test_a_key_that_is_none(
    yard: Switchyard, headers: dict[str, str], body: Any, reason: str
) -> None:
    """It is said, and nothing of the request is taken."""
    place = await yard.receiver()
    async with yard.serving(yard.config({"place": place})) as (made, url):
        answer = await post(url, body, **headers)
        assert (answer.status_code, answer.json()["reason"]) == (401, reason)
        async with yard.http(url, None) as http:
            missing = await http.post("/v1/batch", json={"batch": [event()]})
        assert (missing.status_code, missing.json()["reason"]) == (401, "missing_write_key")
        assert made.stats().answers == {401: 2}
    assert place.events == []


# ----------------------------------------------------------------------------------- bad events

BAD: dict[str, Any] = {
    "missing_user": event(userId=None),
    "missing_event": event(event=""),
    "unknown_type": {**event(), "type": "trak"},
    "missing_type": {**event(), "type": None},
    "not_an_object": ["no", "event"],
    "timestamp_not_iso_8601": event(timestamp="yesterday"),
    "message_id_too_long": event(messageId="x" * 101),
    "message_id_not_a_string": event(messageId=[1]),
    "user_id_not_a_string": event(userId=7),
    "event_too_large": event(properties={"x": "x" * 40_000}),
    "properties_not_an_object": event(properties="no"),
    "context_not_an_object": event(context=[1]),
    "integrations_not_an_object": event(integrations=True),
}


async def test_bad_events_in_lenient_mode(
    yard: Switchyard, logged: pytest.LogCaptureFixture
) -> None:
    """They are answered with 200, counted, kept in a file and said once; the good ones go on."""
    place = await yard.receiver()
    config = yard.config({"place": place}, bad_events="bad.jsonl")
    async with yard.serving(yard.file(config)) as (made, url):
        for bad in BAD.values():
            for _ in range(2):
                answer = await batch(url, event(number=1), bad, event(number=2))
                assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert place.ids == {"track-1": 2 * len(BAD), "track-2": 2 * len(BAD)}
    figures = made.stats().pipelines["shop"]
    assert (figures.events, figures.bad) == (4 * len(BAD), dict.fromkeys(BAD, 2))
    path = yard.folder / "bad.jsonl"
    kept = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [each["reason"] for each in kept] == [each for each in BAD for _ in range(2)]
    for each in kept:
        wanted = BAD[each["reason"]]
        assert {**({"value": wanted} if isinstance(wanted, list) else wanted), **each["event"]} == (
            each["event"]
        )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    said = [each.getMessage() for each in logged.records if "a bad event" in each.getMessage()]
    assert said == [f"pipeline 'shop': a bad event: {each}; more are only counted" for each in BAD]


async def test_bad_events_in_strict_mode(yard: Switchyard) -> None:
    """One of them makes it 400 for all, and nothing is taken."""
    place = await yard.receiver()
    async with yard.serving(yard.config({"place": place}, {"mode": "strict"})) as (made, url):
        answer = await batch(url, event(), BAD["missing_user"], BAD["missing_event"])
        assert answer.status_code == 400
        assert [(each["index"], each["reason"]) for each in answer.json()["Errors"]] == [
            (1, "missing_user"),
            (2, "missing_event"),
        ]
        assert (await batch(url, event())).status_code == 200
        assert made.stats().pipelines["shop"].bad == {"missing_user": 1, "missing_event": 1}
    assert place.ids == {"track-0": 1}


async def test_bad_events_in_partial_mode(yard: Switchyard) -> None:
    """207 names them, and our own client takes that for what it is."""
    place = await yard.receiver()
    async with yard.serving(yard.config({"place": place}, {"mode": "partial"})) as (_, url):
        answer = await batch(url, event(), BAD["missing_user"])
        assert (answer.status_code, len(answer.json()["Errors"])) == (207, 1)
        assert (await batch(url, event(number=1))).status_code == 200
    assert list(place.ids) == ["track-0", "track-1"]


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/track"])
async def test_a_bad_event_without_an_id(yard: Switchyard, path: str) -> None:
    """It is told and kept as it came: nobody could find it by an id that was made up."""
    place = await yard.receiver()
    bad = {"type": "track", "event": "E"}
    config = yard.config({"place": place}, {"mode": "strict"}, bad_events="bad.jsonl")
    async with yard.serving(yard.file(config)) as (_, url):
        answer = await post(url, {"batch": [bad]} if path == "/v1/batch" else bad, path)
    assert answer.json()["Errors"][0]["messageId"] is None
    assert "messageId" not in json.loads((yard.folder / "bad.jsonl").read_text())["event"]


async def test_a_file_for_bad_events_that_cannot_be_written(yard: Switchyard) -> None:
    """They are not lost in silence: the request is to come again, and nothing of it was taken."""
    place = await yard.receiver()
    config = yard.config({"place": place}, bad_events="missing/bad.jsonl")
    async with yard.serving(yard.file(config)) as (made, url):
        answer = await batch(url, event(), BAD["missing_user"])
        assert (answer.status_code, answer.json()["reason"]) == (503, "not_kept")
        assert made.stats().pipelines["shop"].bad == {}
        (yard.folder / "missing").mkdir()
        assert (await batch(url, event(), BAD["missing_user"])).status_code == 200
    assert place.ids == {"track-0": 1}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no named pipes")
async def test_a_file_for_bad_events_that_hangs(
    yard: Switchyard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request waits for it as long as for other disks; requests without bad events go on."""
    monkeypatch.setattr(intake, "_DISK", 0.1)
    place = await yard.receiver()
    os.mkfifo(yard.folder / "bad")
    config = yard.config({"place": place}, {"max_wait": 0}, bad_events="bad")
    async with yard.serving(yard.file(config)) as (_, url):
        for _ in range(2):
            answer = await batch(url, BAD["missing_user"])
            assert (answer.status_code, answer.json()["reason"]) == (503, "not_kept")
        assert (await batch(url, event())).status_code == 200
    os.close(os.open(yard.folder / "bad", os.O_RDONLY | os.O_NONBLOCK))
    assert place.ids == {"track-0": 1}


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 400, "invalid_json"),
        (b"[]", 400, "not_an_object"),
        ({"batch": {}}, 400, "no_batch"),
        (b" " * 600_000, 400, "batch_too_large"),
        (b" " * 3_000_000, 413, "body_too_large"),
    ],
    ids=["no JSON", "a list", "no batch", "too large", "far too large"],
)
async def test_requests_that_are_none(
    yard: Switchyard, body: Any, status: int, reason: str
) -> None:
    """They are refused as the collector refuses them."""
    places = {"file": {"to": "file", "path": yard.folder / "x"}}
    config = yard.config(places, {"max_body": 1_000_000})
    async with yard.serving(config) as (made, url):
        answer = await post(url, body)
        assert (answer.status_code, answer.json()["reason"]) == (status, reason)
        assert made.stats().answers == {status: 1}


async def test_too_many_events(yard: Switchyard) -> None:
    """More than the protocol allows are refused as one that is too large is: none is lost."""
    small = [{"type": "track", "userId": "u", "event": "E"}] * 2_501
    config = yard.config({"file": {"to": "file", "path": yard.folder / "x"}})
    async with yard.serving(config) as (made, url):
        answer = await batch(url, *small)
        assert (answer.status_code, answer.json()["reason"]) == (400, "too_many_events")
        assert (await batch(url, *small[:2_500])).status_code == 200
        assert made.stats().pipelines["shop"].bad == {}


async def test_an_event_that_is_nested_too_deeply(yard: Switchyard) -> None:
    """It is bad, and what can be written of it is kept."""
    place = await yard.receiver()
    deep = b'{"batch":[{"type":"track","userId":"u","event":"E","properties":{"a":%s}}]}'
    content = deep % (b"[" * 300 + b"]" * 300)
    config = yard.config({"place": place}, bad_events="bad.jsonl")
    async with yard.serving(yard.file(config)) as (made, url):
        assert (await post(url, content)).status_code == 200
        assert made.stats().pipelines["shop"].bad == {"too_deep": 1}
    (kept,) = (yard.folder / "bad.jsonl").read_text().splitlines()
    assert json.loads(kept)["event"]["userId"] == "u"
    assert place.events == []


# -------------------------------------------------------------------------------------- overload


async def test_a_full_queue_is_said_and_nothing_is_taken(yard: Switchyard) -> None:
    """503 with Retry-After; where room comes within `max_wait`, 200."""
    up, down = [await yard.receiver() for _ in range(2)]
    down.collector.misbehave(503)
    places = {
        "up": up,
        "down": {
            "to": down,
            "queueing": {"max_events": 10},
            "retrying": {"base": 0.01, "cap": 0.05, "max_attempts": 100_000},
        },
    }
    server = {"max_wait": 0.2, "retry_after": 7}
    async with yard.serving(yard.config(places, server)) as (made, url):
        assert (await batch(url, *(event(number=n) for n in range(8)))).status_code == 200
        answer = await batch(url, *(event(number=n) for n in range(8, 12)))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
        assert answer.json()["reason"] == "queue_full"
        figures = made.stats().pipelines["shop"]
        assert (figures.events, figures.integrations["up"].accepted) == (8, 8)
        await yard.until(lambda: len(up.ids) == 8)  # the others are not held up
        late = asyncio.create_task(batch(url, *(event(number=n) for n in range(8, 12))))
        await asyncio.sleep(0.05)
        down.collector.behave()
        assert (await late).status_code == 200
    assert up.ids == down.ids == {f"track-{n}": 1 for n in range(12)}


def kept(yard: Switchyard) -> list[str]:
    """Return the ids of what is in the file of bad events."""
    path = yard.folder / "bad.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line)["event"]["messageId"] for line in lines]


@pytest.mark.parametrize("reason", ["queue_full", "too_many_wait"])
async def test_a_bad_event_of_a_request_that_comes_again(yard: Switchyard, reason: str) -> None:
    """For want of room nothing of a request is kept: with the one that is taken, it is, once."""
    down = await yard.receiver()
    down.collector.misbehave(503)
    place = {"to": down, "queueing": {"max_events": 2}, "retrying": {"base": 0.01, "cap": 0.01}}
    server = {"max_wait": 0.05, "max_waiting": 1 if reason == "queue_full" else 0}
    config = yard.config({"down": place}, server, bad_events="bad.jsonl")
    request = [event(number=2), event(userId=None, messageId="bad")]
    async with yard.serving(yard.file(config)) as (made, url):
        assert (await batch(url, event(), event(number=1))).status_code == 200
        for _ in range(3):
            answer = await batch(url, *request)
            assert (answer.status_code, answer.json()["reason"]) == (503, reason)
        assert kept(yard) == []
        down.collector.behave()
        await made._lines["shop"].client.flush()
        assert (await batch(url, *request)).status_code == 200
        assert kept(yard) == ["bad"]
        assert made.stats().pipelines["shop"].bad == {"missing_user": 1}
    assert down.ids == {f"track-{n}": 1 for n in range(3)}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no named pipes")
async def test_room_is_held_while_a_bad_event_is_kept(yard: Switchyard) -> None:
    """Nobody else takes it: once its bad event is kept, no request is refused for want of room."""
    down = await yard.receiver()
    down.collector.misbehave(503)
    place = {"to": down, "queueing": {"max_events": 1}, "retrying": {"base": 0.01, "cap": 0.01}}
    path = yard.folder / "bad.jsonl"
    os.mkfifo(path)  # opening it hangs until somebody reads
    config = yard.config({"down": place}, {"max_wait": 0.1}, bad_events="bad.jsonl")
    async with yard.serving(yard.file(config)) as (made, url):
        first = asyncio.create_task(batch(url, event(), event(userId=None, messageId="bad")))
        (flusher,) = made._lines["shop"].client._flushers
        await yard.until(lambda: flusher.buffer.pending_bytes)
        assert (await batch(url, event(number=1))).json()["reason"] == "queue_full"
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        assert (await first).status_code == 200
        assert b'"messageId":"bad"' in os.read(reading, 10_000)
        os.close(reading)
        down.collector.behave()
    assert down.ids == {"track-0": 1}


async def test_a_reload_while_a_bad_event_is_kept(
    yard: Switchyard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request goes on with the new pipeline, and what it has kept is not kept again."""
    place = await yard.receiver()
    config = yard.config({"place": place}, bad_events="bad.jsonl")
    async with yard.serving(yard.file(config)) as (made, url):
        line = made._lines["shop"]
        keep = line.keep

        async def keep_and_reload(bad: Any, *, patience: float) -> None:
            await keep(bad, patience=patience)
            config["pipelines"][0]["integrations"][0]["transform"] = [{"set": {"channel": "new"}}]
            yard.file(config)
            await made.reload()

        monkeypatch.setattr(line, "keep", keep_and_reload)
        answer = await batch(url, event(), event(userId=None, messageId="bad"))
        assert answer.status_code == 200
    assert kept(yard) == ["bad"]
    assert [(each["messageId"], each["channel"]) for each in place.events] == [("track-0", "new")]


async def test_only_so_many_requests_wait(yard: Switchyard) -> None:
    """Beyond `max_waiting` a request is answered at once."""
    down = await yard.receiver()
    down.collector.misbehave(503)
    places = {"down": {"to": down, "queueing": {"max_events": 1}}}
    server = {"max_wait": 0.5, "max_waiting": 2}
    config = yard.config(places, server, shutdown_timeout=0)
    async with yard.serving(config) as (_, url):
        assert (await batch(url, event())).status_code == 200
        answers = await asyncio.gather(*(batch(url, event(number=n)) for n in range(1, 6)))
    assert {each.status_code for each in answers} == {503}
    reasons = sorted(each.json()["reason"] for each in answers)
    assert reasons == ["queue_full"] * 2 + ["too_many_wait"] * 3


async def test_a_queue_that_may_drop_holds_nothing_up(yard: Switchyard) -> None:
    """An integration that matters less loses events by name, and never answers 503."""
    up, down = [await yard.receiver() for _ in range(2)]
    down.collector.misbehave(503)
    places = {
        "up": up,
        "down": {"to": down, "queueing": {"max_events": 5, "when_full": "drop_oldest"}},
    }
    config = yard.config(places, shutdown_timeout=0.2)
    async with yard.serving(config) as (made, url):
        for n in range(20):
            assert (await batch(url, event(number=n))).status_code == 200
        await yard.until(lambda: len(up.ids) == 20)
        figures = made.stats().pipelines["shop"].integrations
        assert figures["down"].dropped == {"queue_full": 15}


async def test_overload_loses_nothing_that_was_answered(yard: Switchyard) -> None:
    """Many senders, small queues, a slow place: what was answered with 200 is there, no more."""
    place = await yard.receiver()
    place.collector.misbehave(503, share=0.3)
    place.collector.misbehave(None, delay=0.02)
    queueing = {"max_events": 50}
    places = {
        "place": {
            "to": place,
            "queueing": queueing,
            "retrying": {"base": 0.01, "max_attempts": 1_000},
        }
    }
    taken: set[str] = set()
    refused = 0
    async with yard.serving(yard.config(places, {"max_wait": 0.05})) as (_, url):
        async with yard.http(url) as http:

            async def one(sender: int) -> None:
                nonlocal refused
                for n in range(20):
                    events = [event(number=sender * 1_000 + n * 10 + each) for each in range(10)]
                    answer = await http.post("/v1/batch", json={"batch": events})
                    if answer.status_code == 200:
                        taken.update(each["messageId"] for each in events)
                    else:
                        assert answer.status_code == 503
                        refused += 1

            await asyncio.gather(*map(one, range(10)))
        place.collector.behave()
    assert refused
    assert taken
    assert set(place.ids) == taken  # and nothing that was not claimed


@pytest.mark.parametrize("spool", [None, "spool"], ids=["in memory", "with a spool"])
async def test_what_is_counted_while_a_place_answers_500(
    yard: Switchyard, spool: str | None
) -> None:
    """At every moment the law holds, and at the sink an event is doubled by retries only."""
    down, doubling, strict = [await yard.receiver() for _ in range(3)]
    down.collector.misbehave(500)
    doubling.collector.misbehave(500, after=True, count=3)  # stored, and then not acknowledged
    strict.collector.misbehave(400, count=2)
    quick = {"base": 0.01, "cap": 0.02, "max_attempts": 100_000}
    places = {
        "down": {"to": down, "retrying": quick},
        "doubling": {"to": doubling, "retrying": quick, "events": ["Added *"]},
        "strict": {"to": strict, "retrying": quick, "batching": {"max_events": 5}},
    }
    more = {} if spool is None else {"spool": spool}
    path = yard.file(yard.config(places, **more))
    async with yard.serving(path) as (made, url), yard.http(url) as http:

        def figures() -> dict[str, IntegrationStats]:
            stats = made.stats()
            assert stats.is_balanced
            return dict(stats.pipelines["shop"].integrations)

        for n in range(40):
            name = "Added File" if n % 2 else "Removed File"
            answer = await http.post("/v1/track", json=event(number=n, event=name))
            assert answer.status_code == 200
            assert {each.accepted for each in figures().values()} == {n + 1}
        await yard.until(lambda: figures()["doubling"].delivered == 20)
        await yard.until(lambda: not figures()["strict"].pending)
        assert (figures()["down"].delivered, figures()["down"].pending) == (0, 40)
        assert figures()["down"].retries
        down.collector.behave()
        await yard.until(lambda: not figures()["down"].pending)
        found = figures()
    assert (found["down"].delivered, found["doubling"].dropped) == (40, {"filtered": 20})
    assert found["strict"].delivered + sum(found["strict"].rejected.values()) == 40
    assert found["strict"].rejected.keys() == {400}
    assert down.ids == {f"track-{n}": 1 for n in range(40)}
    assert strict.ids.total() == len(strict.ids) == found["strict"].delivered
    assert set(doubling.ids) == {f"track-{n}" for n in range(1, 40, 2)}
    assert 1 < max(doubling.ids.values()) <= 1 + 3


async def test_our_own_client_rides_out_a_full_router(yard: Switchyard) -> None:
    """What it is refused it sends again, with the same ids, until all is there once."""
    place = await yard.receiver()
    place.collector.misbehave(None, delay=0.05)
    places = {"place": {"to": place, "queueing": {"max_events": 20}}}
    server = {"max_wait": 0, "retry_after": 1}
    retrying = Retrying(base=0.01, cap=0.05)
    async with yard.serving(yard.config(places, server)) as (made, url):
        batching = Batching(max_events=15, linger=0)
        async with yard.sender(url, retrying=retrying, batching=batching) as sender:
            sent = [await sender.track("E", user_id="u") for _ in range(60)]
            await sender.flush()
        assert made.stats().answers[200] >= 4
    assert place.ids == {each.message_id: 1 for each in sent}


# ------------------------------------------------------------------------ what stands around it


async def test_health_and_readiness(yard: Switchyard) -> None:
    """Both say yes while all goes well."""
    config = yard.config({"file": {"to": "file", "path": yard.folder / "x"}})
    async with yard.serving(config) as (_, url), yard.http(url, None) as http:
        health, ready = await http.get("/health"), await http.get("/ready")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    said = {"ready": True, "state": "serving", "troubles": {}}
    assert (ready.status_code, ready.json()) == (200, said)


async def test_a_spool_that_refuses(yard: Switchyard, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not ready, and answers 503, until the disk takes events again."""
    place = await yard.receiver()
    config = yard.config({"place": place}, {"max_wait": 0}, spool="spool")
    async with yard.serving(yard.file(config)) as (made, url):
        assert (await batch(url, event(number=1))).status_code == 200
        journal = made._lines["shop"].way.journal
        assert journal is not None
        append = journal._open.append

        def refuse(_: Any) -> Any:
            raise OSError("no space left on device")

        monkeypatch.setattr(journal._open, "append", refuse)
        answer = await batch(url, event(number=2))
        assert (answer.status_code, answer.json()["reason"]) == (503, "not_durable")
        async with yard.http(url, None) as http:
            ready = await http.get("/ready")
            assert (ready.status_code, list(ready.json()["troubles"])) == (503, ["shop"])
            assert (await http.get("/health")).status_code == 200
        assert (await batch(url, event(number=3))).status_code == 503
        monkeypatch.setattr(journal._open, "append", append)
        await yard.until(lambda: not journal.is_failing)
        assert (await batch(url, event(number=3))).status_code == 200
    assert {"track-1", "track-3"} <= place.ids.keys() <= {"track-1", "track-2", "track-3"}


async def test_metrics(yard: Switchyard) -> None:
    """They are what Prometheus reads, and say the same as `stats()`."""
    parser = pytest.importorskip("prometheus_client.parser")
    place = await yard.receiver()
    name = 'odd "name"\\\n'
    places = {name: place, "none": {"to": place, "consent": ["ads"]}}
    config = yard.config(places, name="the shop", spool="spool")
    async with yard.serving(yard.file(config)) as (made, url):
        await batch(url, event(), event(number=1), BAD["missing_user"])
        await post(url, b"{")
        await made._lines["the shop"].client.flush()
        async with yard.http(url, None) as http:
            answer = await http.get("/metrics")
        stats = made.stats()
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {
        (sample.name.removeprefix("asyncanalytics_"), *sorted(sample.labels.values())): sample.value
        for family in parser.text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    figures = stats.pipelines["the shop"].integrations
    assert found["ready",] == 1
    assert found["requests_total", "200"] == found["requests_total", "400"] == 1
    assert found["events_total", "the shop"] == 2
    assert found["bad_events_total", "missing_user", "the shop"] == 1
    assert found["accepted_total", name, "the shop"] == figures[name].accepted == 2
    assert found["delivered_total", name, "the shop"] == figures[name].delivered == 2
    assert found["attempts_total", name, "the shop"] == figures[name].requests == 1
    assert found["dropped_total", "no_consent", "none", "the shop"] == 2
    assert found["pending", name, "the shop"] == 0
    assert found["spool_max_bytes", "the shop"] == 512 << 20
    assert KEY not in answer.text


async def test_who_may_talk_to_it(yard: Switchyard) -> None:
    """Host and Origin are looked at as the collector does, on each path."""
    server = {"allowed_hosts": ["events.example.com"]}
    config = yard.config({"file": {"to": "file", "path": yard.folder / "x"}}, server)
    async with yard.serving(config) as (made, url), yard.http(url) as http:
        foreign = {"host": "evil.example"}
        for path in ("/v1/batch", "/metrics", "/ready"):
            assert (await http.post(path, headers=foreign, json={})).status_code == 421
        known = await http.get("/ready", headers={"host": "events.example.com"})
        origin = {"origin": "https://evil.example"}
        crossed = await http.post("/v1/batch", json={"batch": [event()]}, headers=origin)
        unknown = await http.get("/events")
    assert (known.status_code, crossed.status_code, unknown.status_code) == (200, 403, 404)
    assert made.stats().answers == {421: 1, 403: 1, 404: 1}
    assert "default-src 'none'" in known.headers["content-security-policy"]


async def test_under_another_server(yard: Switchyard) -> None:
    """As an ASGI app it starts and closes with its lifespan; before and after, it takes nothing."""
    place = await yard.receiver()
    made = yard.router(yard.config({"place": place}))
    transport = httpx.ASGITransport(app=made)
    told: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    said: asyncio.Queue[Any] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        body = {"json": {"batch": [event()]}, "auth": httpx.BasicAuth(KEY, "")}
        early = await http.post("/v1/batch", **body)  # type: ignore[arg-type]
        assert (early.status_code, early.json()["reason"]) == (503, "new")
        assert (await http.get("/ready")).status_code == 503
        life = asyncio.create_task(made(scope, told.get, said.put))
        await told.put({"type": "lifespan.startup"})
        assert (await said.get())["type"] == "lifespan.startup.complete"
        assert (await http.post("/v1/batch", **body)).status_code == 200  # type: ignore[arg-type]
        await told.put({"type": "lifespan.shutdown"})
        assert (await said.get())["type"] == "lifespan.shutdown.complete"
        await life
        late = await http.post("/v1/batch", **body)  # type: ignore[arg-type]
        assert (late.status_code, late.headers["retry-after"]) == (503, "5")
    assert place.ids == {"track-0": 1}


async def test_a_start_that_fails_leaves_nothing_open(yard: Switchyard) -> None:
    """Where one pipeline cannot start, none goes on; it can be started once that is mended."""
    place = await yard.receiver()
    (yard.folder / "file").write_text("no folder")
    config = yard.config({"place": place}, spool="spool")
    other = yard.config({"place": place}, name="blog", write_key="other", spool="file/spool")
    config["pipelines"] += other["pipelines"]
    made = yard.router(yard.file(config))
    with pytest.raises(Exception, match="spool"):
        await made.start()
    assert made.stats().state == "stopped"
    (yard.folder / "file").unlink()
    (yard.folder / "file").mkdir()
    async with made.serve() as url:
        assert (await batch(url, event())).status_code == 200
        with pytest.raises(LifecycleError):
            await made.start()
    assert place.ids == {"track-0": 1}


async def test_it_can_be_served_again(yard: Switchyard) -> None:
    """Its figures go on."""
    place = await yard.receiver()
    made = yard.router(yard.config({"place": place}))
    for n in range(2):
        async with made.serve() as url:
            await batch(url, event(number=n))
    assert made.stats().pipelines["shop"].integrations["place"].delivered == 2
    assert repr(made) == "<Router shop stopped>"


async def test_the_close_drains_within_its_time(
    yard: Switchyard, logged: pytest.LogCaptureFixture
) -> None:
    """A place that is down costs `shutdown_timeout` and is counted; who waits for room is told."""
    down = await yard.receiver()
    down.collector.misbehave(503)
    places = {"down": {"to": down, "queueing": {"max_events": 3}}}
    config = yard.config(places, {"max_wait": 60}, shutdown_timeout=0.3)
    async with yard.serving(config) as (made, url):
        await batch(url, *(event(number=n) for n in range(3)))
        waiting = asyncio.create_task(batch(url, event(number=3)))
        await yard.until(lambda: made._lines["shop"].client._flushers[0].buffer._waiters)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 3
    assert ((await waiting).status_code, made.stats().answers[503]) == (503, 1)
    assert made.stats().pipelines["shop"].integrations["down"].dropped == {"closed": 3}
    assert any(each.levelno == logging.ERROR for each in logged.records)


def test_a_router_needs_a_configuration_that_works(tmp_path: Path) -> None:
    """Otherwise it is not made."""
    with pytest.raises(InvalidConfiguration, match="cannot be read"):
        router(tmp_path / "missing.toml")
