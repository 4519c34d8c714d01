"""A write key is shown nowhere, however it came and whatever became of its request."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import sqlite3
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jinja2")

from asyncanalytics.collector import Collector
from asyncanalytics.collector.masking import MAX_KEYS

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "Zk9vQx7LmT2pRwcanary"
LETTERS = "LettersAlone"
TELLING = (CANARY[:12], LETTERS, base64.b64encode(f"{CANARY}:".encode()).decode()[:16])
JSON = {"content-type": "application/json"}
MAX_BODY = 4_000


def basic(key: str) -> str:
    """Write the Authorization header of a key."""
    return "Basic " + base64.b64encode(f"{key}:".encode()).decode()


# Where nothing but the collector's caution hides it: no one knows it for a key.
UNKNOWN = {
    "odd header": {"headers": {"x-astronomer": CANARY}},
    "odd header with more": {"headers": {"x-source": f"app {CANARY}; v=1"}},
    "referer": {"headers": {"referer": f"http://{CANARY}@x.example/?w={CANARY}"}},
    "cookie": {"headers": {"cookie": f"a=b; w={CANARY}"}},
    "odd parameter": {"query": f"?w={CANARY}"},
    "escaped parameter": {"query": f"?a=b&w=%5A{CANARY[1:]}"},
    "query": {"query": f"?{CANARY}"},
    "name of a parameter": {"query": f"?{CANARY}=1"},
    "letters as a name of a parameter": {"query": f"?{LETTERS}=1"},
    "semicolons": {"query": f"?a=b;w={CANARY}"},
}
# Where keys belong, so that copies in the events are hidden too.
KNOWN = {
    "Basic": {"headers": {"authorization": basic(CANARY)}},
    "Bearer": {"headers": {"authorization": f"Bearer {CANARY}"}},
    "alone": {"headers": {"authorization": CANARY}, "path": "/api/public/apps/batch"},
    "X-Write-Key": {"headers": {"x-write-key": CANARY}},
    "X-API-Key": {"headers": {"x-api-key": CANARY}},
    "writeKey parameter": {"query": f"?writeKey={CANARY}"},
    "envelope": {"envelope": {"writeKey": CANARY}},
    "envelope's appId": {"envelope": {"appId": CANARY}},
    "envelope beside another": {
        "envelope": {"writeKey": CANARY, "appId": "other-one-altogether"},
        "headers": {"authorization": basic("still-another-one")},
    },
    "event": {"event": {"writeKey": CANARY}},
    "event beside another": {
        "event": {"appId": CANARY, "writeKey": "other-one-altogether"},
        "headers": {"authorization": basic("still-another-one")},
    },
}
COPIES: dict[str, Any] = {
    "userId": CANARY,
    "properties": {"url": f"https://x.example/?w={CANARY}", CANARY: [CANARY]},
}
WAYS: dict[str, dict[str, Any]] = {
    **UNKNOWN,
    **{name: {**way, "copies": COPIES} for name, way in KNOWN.items()},
    "within an event": {"event": {"context": {"writeKey": CANARY}}},
}


def batch(way: dict[str, Any]) -> dict[str, Any]:
    """Make the body of a way."""
    event = {"type": "track", "event": "E", "userId": "u1", "messageId": "m1"}
    event |= way.get("copies", {}) | way.get("event", {})
    return {"batch": [event], **way.get("envelope", {})}


# What becomes of it: the status, headers, and what stands in place of the body.
FATES: dict[str, tuple[int, dict[str, str], Any]] = {
    "taken": (200, JSON, None),
    "no JSON": (415, {"content-type": "text/plain"}, None),
    "no JSON, with more": (415, {"content-type": f"text/plain; w={CANARY};{CANARY}"}, None),
    "unknown encoding": (415, JSON | {"content-encoding": "br"}, None),
    "too large": (413, JSON, lambda body: body + b" " * MAX_BODY),
    "no gzip": (400, JSON | {"content-encoding": "gzip"}, None),
    "broken": (400, JSON, lambda body: body[:-1]),
    "unknown key": (401, JSON, None),
    "fault": (503, JSON, None),
}


async def send(http: httpx.AsyncClient, way: dict[str, Any], fate: str) -> int:
    """Send a request in this way and to this fate, and return the answer's status."""
    _, headers, bend = FATES[fate]
    content = json.dumps(batch(way)).encode()
    address = way.get("path", "/v1/batch") + way.get("query", "")
    answer = await http.post(
        address,
        content=bend(content) if bend else content,
        headers=headers | way.get("headers", {}),
    )
    assert CANARY not in answer.text
    return answer.status_code


async def read_stream(http: httpx.AsyncClient, address: str, count: int) -> str:
    """Read so many messages of a stream."""
    text = ""
    async with http.stream("GET", address) as answer:
        async for line in answer.aiter_lines():
            text += line + "\n"
            count -= line.startswith("data: ")
            if count <= 0:
                break
    return text


async def everything_shown(url: str, requests: int) -> str:
    """Read all that the collector shows over HTTP."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        paths = ["/", "/events?limit=1000", "/events/m1", "/stats", "/names", "/page/names"]
        paths += ["/schema?type=track&name=E", "/page/schema?call=track&event=E"]
        paths += ["/users/u1", "/page/users?id=u1", "/?verdict=bad"]
        numbers = range(1, requests + 1)
        paths += [f"{path}/{n}" for path in ("/requests", "/page/requests") for n in numbers]
        events = (await http.get("/events?limit=1000")).json()["events"]
        paths += [f"/page/events/{each['batch_id'] << 20}" for each in events]
        texts = [(await http.get(path)).text for path in paths]
        texts.append(str((await http.get("/requests/1")).raise_for_status().json()))
        if events:
            texts.append(await read_stream(http, "/stream?every=1&after=AAAAAAAAAAA", len(events)))
        rows = (await http.get("/")).text.partition('data-after="')[2].partition('"')[0]
        mark, count = rows.partition(".")[2], 2 if events else 1  # nothing more comes for none
        texts.append(await read_stream(http, f"/page/stream?after=AAAAAAAAAAA.{mark}", count))
    return "\n".join(texts)


async def tailed(url: str, events: int) -> str:
    """Run `tail` for people and for machines, until each has shown so many events."""
    shown = ""
    for more in ((), ("--json",)):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "asyncanalytics", "tail", url, "--last", "1000", *more),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        for _ in range(events):
            shown += (await process.stdout.readline()).decode()
        process.terminate()
        await process.communicate()
    return shown


def contents(folder: Path) -> bytes:
    """Read all files of a folder."""
    return b"".join(each.read_bytes() for each in folder.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("fate", FATES)
async def test_no_key_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture, fate: str) -> None:
    """Neither the file nor a page, the JSON, a stream, the tail or a log has it."""
    caplog.set_level(logging.DEBUG)
    keys = ["not-that-one"] if fate == "unknown key" else None
    with Collector(tmp_path / "events.db", write_keys=keys, max_body=MAX_BODY) as collector:
        if fate == "fault":
            collector.misbehave(503)
        async with collector.serve() as url:
            async with httpx.AsyncClient(base_url=url) as http:
                for name, way in WAYS.items():
                    status = 204 if fate == "taken" and "path" in way else FATES[fate][0]
                    assert await send(http, way, fate) == status, name
            kept = collector.events()
            assert len(kept) == (len(WAYS) if fate == "taken" else 0)
            shown = await everything_shown(url, len(WAYS))
            if kept:
                shown += await tailed(url, len(kept))
        shown += repr(kept) + repr(collector) + repr(collector.stats())
    assert "x-astronomer" in shown  # the requests are shown
    logged = [
        each for each in caplog.records if each.name.startswith(("asyncanalytics", "uvicorn"))
    ]
    shown += "\n".join(each.getMessage() for each in logged)
    file = contents(tmp_path)
    for telling in TELLING:
        assert telling not in shown
        assert telling.encode() not in file


async def test_a_word_that_has_a_short_key_in_it(tmp_path: Path) -> None:
    """A key that may be a part of a word is hidden as a text of its own, and the word stays."""
    event = {"type": "track", "event": "E", "userId": "any-key", "messageId": "m1"}
    event |= {"properties": {"a": "any-keyboard", "b": 1e5, "c": 2**70, "d\n": "\\any-key"}}
    with Collector(tmp_path / "events.db") as collector:
        transport = httpx.ASGITransport(app=collector)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            headers = {"authorization": basic("any-key")}
            await http.post("/v1/batch", json={"batch": [event]}, headers=headers)
        (kept,) = collector.events()
    assert kept.payload == event | {"userId": "••••"}
    assert kept.user_id == "••••"


@pytest.mark.parametrize(
    "key", ["nice-key-of-some-length", "u00e9-abcdef-0123", 'quo"ted\\key-of-length']
)
async def test_a_key_beside_an_escape(key: str) -> None:
    """What looks like the key in JSON, but is not it in the text, stays; the rest is JSON still."""
    properties = {"a": f"\n{key[1:]}", "b": f"\\{key}", "c": f"<{key}>", "d": f"\x00{key}"}
    event = {"type": "track", "event": "E", "userId": "u1", "messageId": "m1"}
    with Collector() as collector:
        transport = httpx.ASGITransport(app=collector)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            body = {"writeKey": key, "batch": [event | {"properties": properties}]}
            await http.post("/v1/batch", json=body)
        (kept,) = collector.events()
    hidden = {"b": "\\••••", "c": "<••••>", "d": "\x00••••"}
    assert kept.payload["properties"] == properties | hidden


@pytest.mark.parametrize(
    "key",
    ["schlüssel-ÄÖÜ-123456", "clé-été", "key-\U0001f511-of-some-length", "del-\x7f-of-length"],
    ids=["long", "short", "beyond the BMP", "delete"],
)
@pytest.mark.parametrize("beside", ["\ud800", "plain"], ids=["surrogate", "plain"])
async def test_a_key_beyond_ascii(key: str, beside: str) -> None:
    """It is hidden also where a lone surrogate makes the event be written in ASCII."""
    properties = {"x": beside, "y": key}
    body = {"userId": "u1", "event": "E", "writeKey": key, "properties": properties}
    with Collector() as collector:
        transport = httpx.ASGITransport(app=collector)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            await http.post("/v1/track", content=json.dumps(body), headers=JSON)
        (kept,) = collector.events()
    assert kept.payload["properties"] == {"x": beside, "y": "••••"}


async def kept_of(body: dict[str, Any], query: str = "", **headers: str) -> list[dict[str, Any]]:
    """Send a batch, and return the properties that are kept of its events."""
    with Collector() as collector:
        transport = httpx.ASGITransport(app=collector)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            await http.post(f"/v1/batch{query}", json=body, headers=headers)
            request = (await http.get("/requests/1")).text
        kept = [each.payload["properties"] for each in collector.events()]
    for key in headers.values():
        assert key not in request
    return kept


def track(**more: Any) -> dict[str, Any]:
    """Make an event."""
    return {"type": "track", "event": "E", "userId": "u1", **more}


async def test_a_key_of_another_event() -> None:
    """The key of an event is hidden in all events of its batch, before it and after it."""
    event = track(properties={"x": f"<{CANARY}>"})
    batch = [event, track(writeKey=CANARY, properties={}), event]
    assert await kept_of({"batch": batch}) == [{"x": "<••••>"}, {}, {"x": "<••••>"}]


async def test_a_key_within_another() -> None:
    """Of the longer of two keys nothing is left, whichever comes first."""
    batch = [track(writeKey=CANARY, appId=CANARY + "more", properties={"x": CANARY + "more"})]
    assert await kept_of({"batch": batch}) == [{"x": "••••"}]


@pytest.mark.parametrize("place", ["envelope", "event"])
async def test_a_key_that_another_replaces(place: str) -> None:
    """Where an object has two members named `writeKey`, the one that is not read is hidden too."""
    twice = f'"writeKey": "{CANARY}", "writeKey": "other-one-altogether"'
    event = json.dumps(track(properties={"x": CANARY}))
    batch = f'{{"batch": [{event}], {twice}}}'
    if place == "event":
        batch = f'{{"batch": [{event[:-1]}, {twice}}}]}}'
    with Collector() as collector:
        transport = httpx.ASGITransport(app=collector)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            await http.post("/v1/batch", content=batch, headers=JSON)
        (kept,) = collector.events()
    assert kept.payload["properties"] == {"x": "••••"}


@pytest.mark.parametrize("place", ["query", "headers", "events"])
async def test_more_keys_than_are_looked_for(place: str) -> None:
    """The first keys are hidden in all events, and each event's own in itself whatever they are."""
    own = f"{CANARY}-own"
    given = [f"{CANARY}-{n:03}" for n in range(MAX_KEYS + 20)]
    batch = [track(writeKey=own, properties={"x": [*given, own]})]
    query, headers = "", dict[str, str]()
    if place == "query":
        query = "?" + "&".join(f"apikey={key}" for key in given)
    elif place == "headers":
        headers = {f"x-{n}-api-key": key for n, key in enumerate(given)}
    else:
        batch[:0] = [track(writeKey=key, properties={"x": [key]}) for key in given]
    *others, kept = await kept_of({"batch": batch}, query, **headers)
    assert kept == {"x": ["••••"] * MAX_KEYS + given[MAX_KEYS:] + ["••••"]}
    assert others == [{"x": ["••••"]} for _ in others]


async def test_the_request_s_own_key_comes_first() -> None:
    """However many keys are beside it, the one that a request is taken with is hidden."""
    many = {f"x-{n}-api-key": f"{n:03}-of-some-length" for n in range(MAX_KEYS)}
    body = {"batch": [track(properties={"x": CANARY})]}
    assert await kept_of(body, **many, authorization=f"Bearer {CANARY}") == [{"x": "••••"}]


async def test_a_key_that_tells_nothing() -> None:
    """A key of fewer than six characters is not looked for: it may be any word."""
    body = {"batch": [track(writeKey="abcde", properties={"x": "abcde", "writeKey": "abcde"})]}
    assert await kept_of(body) == [{"x": "abcde", "writeKey": "••••"}]


# Fingerprints


async def keep(collector: Collector, key: str) -> str | None:
    """Send an event with this key, and return the fingerprint that it is kept with."""
    transport = httpx.ASGITransport(app=collector)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        await http.post("/v1/track", json={"userId": "u1", "event": "E", "writeKey": key})
    return collector.events()[-1].key_fingerprint


def unsalted(key: str) -> str:
    """Return what a fingerprint was when it had no salt."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


async def test_fingerprints_are_salted(tmp_path: Path) -> None:
    """A key has one as long as its events are kept, and another one in any other collector."""
    path = tmp_path / "events.db"
    with Collector(path) as collector:
        first = await keep(collector, CANARY)
        assert first == await keep(collector, CANARY) == collector.fingerprint(CANARY)
        assert first != await keep(collector, "another-key")
        collector.clear()
        assert first == await keep(collector, CANARY)
    with Collector(path) as collector, Collector() as other, Collector() as another:
        assert first == await keep(collector, CANARY)
        elsewhere = {await keep(each, CANARY) for each in (other, another)}
    assert len({first, unsalted(CANARY), *elsewhere}) == 4
    assert first is not None
    assert len(first) == 12
    assert int(first, 16) >= 0


async def test_fingerprints_of_before_are_salted(tmp_path: Path) -> None:
    """A file from before gets a salt: its keys keep their masks, and nothing of it is as it was."""
    path = tmp_path / "events.db"
    with Collector(path) as collector:
        for key in (CANARY, CANARY, "short"):
            await keep(collector, key)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TABLE salts")
        for key, mask in ((CANARY, "••••nary"), ("short", "••••")):
            row = db.execute("SELECT fingerprint FROM keys WHERE mask = ?", (mask,)).fetchone()
            change = (unsalted(key), *row)
            db.execute("UPDATE events SET key_fingerprint = ? WHERE key_fingerprint = ?", change)
            db.execute("UPDATE keys SET fingerprint = ? WHERE fingerprint = ?", change)
    assert unsalted(CANARY).encode() in contents(tmp_path)
    with Collector(path) as collector:
        shown = [(each.key_fingerprint, each.key_mask) for each in collector.events()]
        long, short = (collector.fingerprint(key) for key in (CANARY, "short"))
        assert await keep(collector, CANARY) == long
    assert shown == [(long, "••••nary"), (long, "••••nary"), (short, "••••")]
    assert unsalted(CANARY).encode() not in contents(tmp_path)
