"""The store keeps what a request looked like, finds quickly, and takes up files of version 1."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import itertools
import json
import sqlite3
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jinja2")

from asyncanalytics.collector import Collector, search
from asyncanalytics.collector.records import EVERYTHING, Filter
from asyncanalytics.collector.store import RequestRow, Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncanalytics.collector.store import EventRow

KEY = "a-key-that-opens-nothing"
OTHER = "another-one-altogether"  # which HTTP clients may log
MASK = "••••hing"
JSON = {"content-type": "application/json"}


def basic(key: str) -> str:
    """Write the Authorization header of a key."""
    return "Basic " + base64.b64encode(f"{key}:".encode()).decode()


def client(collector: Collector) -> httpx.AsyncClient:
    """Make a client that reaches the collector in process."""
    transport = httpx.ASGITransport(app=collector)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


async def post(collector: Collector, body: Any, path: str = "/v1/batch", **headers: str) -> int:
    """Post JSON, or bytes as they are, and return the status."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client(collector) as http:
        return (await http.post(path, content=content, headers=JSON | headers)).status_code


async def get(collector: Collector, path: str, **params: Any) -> Any:
    """Get JSON that must be there."""
    async with client(collector) as http:
        return (await http.get(path, params=params)).raise_for_status().json()


def event(**fields: Any) -> dict[str, Any]:
    """Make a good event."""
    known = {"type": "track", "messageId": str(uuid.uuid4()), "userId": "u1"}
    return known | ({} if "type" in fields else {"event": "E"}) | fields


def contents(folder: Path) -> bytes:
    """Read all files of a folder."""
    return b"".join(each.read_bytes() for each in folder.iterdir())


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector in memory that lets everyone in."""
    with Collector() as made:
        yield made


# What a request looked like


async def test_a_request_as_it_was(tmp_path: Path) -> None:
    """Over a socket: the method, the path, the headers in their order, the sizes, the status."""
    with Collector(tmp_path / "events.db") as collector:
        async with collector.serve() as url, httpx.AsyncClient(base_url=url) as http:
            headers = [
                ("Authorization", basic(KEY)),
                ("X-Twice", "one"),
                ("X-Twice", "two"),
                ("User-Agent", "a test"),
            ]
            await http.post("/v1/batch?debug=1", json={"batch": [event(), 5]}, headers=headers)
            shown = (await http.get("/requests/1")).json()
            await http.post("/v1/batch", content=b"{", headers=JSON)
        kept = collector._store.request(1)
    assert kept is not None
    assert (kept.method, kept.path, kept.status) == ("POST", "/v1/batch?debug=1", 200)
    assert (kept.events, kept.bad, kept.bytes) == (2, 1, kept.inflated)
    assert kept.headers is not None
    wanted = ("authorization", "x-twice", "user-agent")
    assert [each for each in kept.headers if each[0] in wanted] == [
        ("authorization", f"Basic {MASK}"),
        ("x-twice", "one"),
        ("x-twice", "two"),
        ("user-agent", "a test"),
    ]
    assert shown["headers"] == [list(each) for each in kept.headers]
    assert {**shown, "headers": None} == {
        name: None if name == "headers" else getattr(kept, name) for name in kept.__slots__
    }


async def test_inflated_and_compressed_bytes(collector: Collector) -> None:
    """Both sizes of a compressed body are kept; of one that was not read, neither."""
    body = json.dumps({"batch": [event(properties={"text": "x" * 9_000})]}).encode()
    packed = gzip.compress(body)
    await post(collector, packed, **{"content-encoding": "gzip"})
    await post(collector, b"broken", **{"content-encoding": "gzip"})
    first, second = [await get(collector, f"/requests/{each}") for each in (1, 2)]
    assert (first["bytes"], first["inflated"]) == (len(packed), len(body))
    assert (second["bytes"], second["inflated"], second["status"]) == (0, None, 400)


HIDING = [
    ({"authorization": basic(KEY)}, "authorization", f"Basic {MASK}"),
    ({"authorization": f"Bearer {KEY}"}, "authorization", f"Bearer {MASK}"),
    ({"authorization": f"bearer {KEY}"}, "authorization", f"bearer {MASK}"),
    ({"authorization": KEY}, "authorization", MASK),
    ({"authorization": f"{KEY} {KEY}"}, "authorization", MASK),
    ({"authorization": "Basic " + KEY}, "authorization", "Basic ••••"),
    ({"authorization": basic(f"user:{KEY}")}, "authorization", "Basic ••••"),
    ({"authorization": "Bearer short"}, "authorization", "Bearer ••••"),
    ({"proxy-authorization": basic(KEY)}, "proxy-authorization", f"Basic {MASK}"),
    ({"cookie": f"a={KEY}; b; session={KEY}"}, "cookie", "a=••••; ••••; session=••••"),
    ({"x-api-key": KEY}, "x-api-key", MASK),
    ({"X-Auth-Token": KEY[:11]}, "x-auth-token", "••••"),
    ({"user-agent": f"is {KEY}!", "authorization": basic(KEY)}, "user-agent", "is ••••!"),
    ({"via": f"Bearer {KEY}", "authorization": f"Bearer {KEY}"}, "via", "Bearer ••••"),
    ({"x-other": KEY}, "x-other", "••••"),
    ({"x-other": "short"}, "x-other", "short"),
    ({"referer": f"http://x.example/y?token={KEY}"}, "referer", "http://x.example/y?••••"),
    (
        {"content-type": f"application/json;charset=utf-8; x={KEY}; {KEY}"},
        "content-type",
        "application/json; charset=utf-8; x=••••; ••••",
    ),
    ({"via": "x" * 5_000}, "via", "x" * 999 + "…"),
]


@pytest.mark.parametrize(("headers", "name", "shown"), HIDING, ids=[each[2] for each in HIDING])
async def test_keys_in_headers_are_hidden(
    tmp_path: Path, headers: dict[str, str], name: str, shown: str
) -> None:
    """What is secret by its name, or is the request's own key, is nowhere in the file."""
    with Collector(tmp_path / "events.db") as collector:
        await post(collector, {"batch": [event()]}, **headers)
        kept = collector._store.request(1)
        assert kept is not None
        assert dict(kept.headers or ())[name] == shown
    assert KEY.encode() not in contents(tmp_path)
    assert base64.b64encode(KEY.encode())[:20] not in contents(tmp_path)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        (f"?writeKey={OTHER}&a=b", "?writeKey=••••&a=b"),
        (f"?appId={OTHER}", "?appId=••••"),
        (f"?x={OTHER}", "?x=••••"),
        (f"?x=%61{OTHER[1:]}", "?x=••••"),
        (f"?{OTHER}", "?••••"),
        (f"?{OTHER}=1&x", "?••••=1&x"),
        ("?w=not-that-one&x=short", "?w=••••&x=short"),
        ("?flag&x=1", "?flag&x=1"),
        ("?LettersAlone=1&abcde=1", "?••••=1&abcde=1"),
        ("", ""),
    ],
    ids=[
        "writeKey",
        "appId",
        "another name",
        "escaped",
        "alone",
        "as a name",
        "another key",
        "nothing secret",
        "letters as a name",
        "no query",
    ],
)
async def test_keys_in_the_path_are_hidden(collector: Collector, query: str, shown: str) -> None:
    """Parameters that are secret by their names, or hold the request's key, show nothing."""
    await post(collector, {"batch": [event(writeKey=OTHER)]}, f"/v1/batch{query}")
    kept = collector._store.request(1)
    assert kept is not None
    assert kept.path == f"/v1/batch{shown}"


async def test_a_pixel_keeps_no_query(collector: Collector) -> None:
    """A pixel's query is its event, which is kept as such."""
    data = base64.b64encode(json.dumps(event(writeKey=KEY)).encode()).decode()
    async with client(collector) as http:
        await http.get("/v1/pixel/track", params={"data": data})
    kept = collector._store.request(1)
    assert kept is not None
    assert (kept.method, kept.path, kept.events) == ("GET", "/v1/pixel/track", 1)


@pytest.mark.parametrize("write_keys", [None, [OTHER]])
@pytest.mark.parametrize("place", ["authorization", "envelope", "event"])
async def test_keys_of_each_place_are_hidden(
    tmp_path: Path, place: str, write_keys: list[str] | None
) -> None:
    """A key that also stands in another header is hidden there, let in or refused."""
    with Collector(tmp_path / "events.db", write_keys=write_keys) as collector:
        body: dict[str, Any] = {"batch": [event(), event()]}
        headers = {"x-copy": f"<{KEY}>"}
        if place == "authorization":
            headers["authorization"] = basic(KEY)
        elif place == "envelope":
            body["writeKey"] = KEY
        else:
            body["batch"][1]["appId"] = KEY
            headers["authorization"] = basic(OTHER)
        status = await post(collector, body, **headers)
        assert status == (200 if write_keys is None else 401)
        masks = {each.key_mask for each in collector.events()}
        assert masks <= {MASK, "••••ther"}
        assert bool(masks) == (write_keys is None)
    assert KEY.encode() not in contents(tmp_path)


async def test_masks_tell_keys_apart(collector: Collector) -> None:
    """An event shows the end of its own key beside the fingerprint; of a short key nothing."""
    batch = [event(writeKey=f"{n}{KEY}{n}") for n in range(3)] + [event(writeKey="tiny"), event()]
    await post(collector, {"batch": batch})
    kept = collector.events()
    assert [each.key_mask for each in kept] == [
        *("••••ing0", "••••ing1", "••••ing2"),
        *("••••", None),
    ]
    assert len({each.key_fingerprint for each in kept}) == 5
    assert collector.clear() == 5
    assert collector._store._one("count(*)", "keys") == (0,)


async def test_no_such_request(collector: Collector) -> None:
    """A number that was never given, or is forgotten, is not found."""
    await post(collector, {"batch": [event()]})
    assert collector._store.request(1) is not None
    collector.clear()
    async with client(collector) as http:
        assert (await http.get("/requests/1")).status_code == 404
        assert (await http.get("/requests/99999999999999999999")).status_code == 404
        assert (await http.get("/requests/1?x=1")).status_code == 400


# A file of version 1

VERSION_1 = """
BEGIN;
CREATE TABLE requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at TEXT NOT NULL,
    sent_at TEXT,
    retry_count INTEGER,
    bytes INTEGER NOT NULL,
    status INTEGER NOT NULL
);
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    message_id TEXT,
    type TEXT,
    reason TEXT,
    user_id TEXT,
    anonymous_id TEXT,
    event TEXT,
    key_fingerprint TEXT,
    payload BLOB NOT NULL,
    verdict TEXT AS (iif(reason IS NULL, 'good', 'bad')) VIRTUAL,
    request INTEGER AS (position >> 20) VIRTUAL
);
CREATE INDEX events_by_message_id ON events (message_id);
PRAGMA application_id = 1094804342;PRAGMA user_version = 1;
COMMIT;
"""
OLD = [
    {"type": "track", "messageId": "m1", "userId": "u1", "event": "Old"},
    {"type": "page", "messageId": "m2", "userId": "u1", "name": "Home"},
    {"type": "group", "messageId": "m3", "userId": "u1", "groupId": "g1", "event": "no name"},
    {"type": "identify", "messageId": "m4", "userId": "u1"},
    {"type": "screen", "messageId": "m5", "userId": 5, "name": "\ud83d", "huge": 2**70},
    {"type": "page", "messageId": "m6", "userId": "u1", "name": 7},
]


def make_version_1(path: Path, *payloads: bytes) -> None:
    """Write a file as version 1 did."""
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(VERSION_1)
    db.execute("PRAGMA journal_mode = WAL")
    moments = [("2026-11-01T10:00:00.000Z", None, 3, 99, 200), ("2026-11-01T10:00:01.000Z",) * 2]
    db.execute("INSERT INTO requests VALUES (1, ?, ?, ?, ?, ?)", moments[0])
    db.execute("INSERT INTO requests VALUES (2, ?, ?, NULL, 5, 401)", moments[1])
    for place, payload in enumerate(payloads):
        fields = json.loads(payload)
        name = fields.get("event")
        reason = None if isinstance(fields.get("userId"), str) else "user_id_not_a_string"
        row = (fields["messageId"], fields["type"], reason, "u1", None, name, "f" * 12, payload)
        db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (1 << 20 | place, *row))
    db.close()


async def test_a_file_of_version_1_is_taken_up(tmp_path: Path) -> None:
    """Its events get their names, its requests have no look, and new ones are kept beside them."""
    path = tmp_path / "events.db"
    make_version_1(path, *(json.dumps(each).encode() for each in OLD))
    for _ in range(2):
        with Collector(path) as collector:
            kept = collector.events(verdict="good") + collector.events(message_id="m5")
            names = {each.message_id: each.name for each in kept if each.key_fingerprint}
            request = collector._store.request(1)
            stats = collector.stats()
            await post(collector, {"batch": [event(messageId="new")]}, authorization=basic(KEY))
            assert collector.events(message_id="new")[-1].key_mask == MASK
            collector.clear(message_id="new")
    assert [each.payload for each in kept if each.message_id != "m5"] == OLD[:4] + OLD[5:]
    assert names == {"m1": "Old", "m2": "Home", "m3": "g1", "m4": None, "m5": "\\ud83d", "m6": None}
    assert kept[-1].payload == OLD[4]
    assert request is not None
    assert (request.status, request.events, request.headers, request.path) == (200, 6, None, None)
    assert (stats.answers[401], stats.events, stats.bad) == (1, 6, 1)


def test_nothing_is_left_of_the_fingerprints_of_version_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They had no salt: they are overwritten, also where SQLite leaves what is deleted."""
    path, connect = tmp_path / "events.db", sqlite3.connect

    def connect_leaving_all(*args: Any, **options: Any) -> sqlite3.Connection:
        db = connect(*args, **options)
        db.execute("PRAGMA secure_delete = OFF")
        return db

    monkeypatch.setattr(sqlite3, "connect", connect_leaving_all)
    make_version_1(path, *([json.dumps(OLD[0]).encode()] * 3_000))
    assert b"f" * 12 in contents(tmp_path)
    with Collector(path) as collector:
        assert collector.stats().events == 3_000
    assert b"f" * 12 not in contents(tmp_path)


def test_a_file_of_version_1_is_taken_up_whole_or_not_at_all(tmp_path: Path) -> None:
    """Where it cannot be brought up to date it stays as it is."""
    path = tmp_path / "events.db"
    make_version_1(path, *(json.dumps(each).encode() for each in OLD))
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE events SET payload = 'no JSON' WHERE message_id = 'm2'")
    with pytest.raises(sqlite3.OperationalError):
        Collector(path)
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    tables = "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite%' ORDER BY 1"
    assert db.execute(tables).fetchall() == [
        *(("events",), ("events_by_message_id",), ("requests",)),
    ]
    assert db.execute("SELECT count(*) FROM events").fetchone() == (6,)
    db.close()


async def test_an_index_of_an_earlier_file_is_dropped(tmp_path: Path) -> None:
    """Files of this version once had one of the messageIds; what is in them stays."""
    path = tmp_path / "events.db"
    with Collector(path) as collector:
        await post(collector, {"batch": [event(messageId="m")] * 2})
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("CREATE INDEX events_by_message_id ON events (message_id)")
    with Collector(path) as collector:
        indices = db.execute("SELECT name FROM sqlite_master WHERE type = 'index'").fetchall()
        assert ("events_by_message_id",) not in indices
        assert (collector.stats().events, collector.stats().duplicates) == (2, 1)
    db.close()


def test_a_file_that_did_not_count_erasures(tmp_path: Path) -> None:
    """Files of this version once did not; from now on it does."""
    path = tmp_path / "events.db"
    Collector(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("DROP TABLE erasures")
    for count in range(3):
        with contextlib.closing(Store(path)) as store:
            assert store.erased == count
            store.delete(Filter(type="page"))  # of which there is none
            store.delete()


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    """What this version does not know it leaves alone."""
    path = tmp_path / "events.db"
    Collector(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 3")
    db.close()
    with pytest.raises(ValueError, match="choose another path"):
        Collector(path)


# Finding


FOUND: list[tuple[str, dict[str, Any], bool]] = [
    ("hello", {"a": "Say HELLO"}, True),
    ("HELLO", {"a": {"b": ["x", {"c": "hello"}]}}, True),
    ("hello", {"hello": 1}, True),
    ("hello", {"a": "hell"}, False),
    ("100%", {"a": "100% sure"}, True),
    ("100%s", {"a": "1000s"}, False),
    ("a_b", {"a": "a_b"}, True),
    ("a_b", {"a": "axb"}, False),
    ("\\d", {"a": "\\d"}, True),
    ('say "hi"', {"a": 'they say "hi"'}, True),
    ("two\nlines", {"a": "two\nlines"}, True),
    ("Éclair", {"a": "éclair"}, True),
    ("éclair", {"a": "eclair"}, False),
    ("STRASSE", {"a": "straße"}, False),
    ("Straße", {"a": "STRASSE é"}, True),
    ("strasse", {"a": "Straße"}, False),
    ("é", {"a": "é", "lone": "\ud83d"}, True),
    ("É", {"a": "é", "lone": "\ud83d"}, False),
    ("\ud83d", {"a": "\ud83d"}, True),
    ("\U0001f600", {"a": "\U0001f600"}, True),
    ("14.99", {"a": 14.99}, True),
    ("x" * 2_000, {"a": "X" * 2_001}, True),
    ("x" * 2_000, {"a": "x" * 1_999}, False),
    ("é" * 2_000, {"a": "É" * 2_001}, True),
    ("\0", {"a": "\0"}, True),
    ("a long text of Words", {"a": "é: A LONG TEXT of words"}, True),
    ("a long text of Words", {"a": "A LONG TEXT of wor"}, False),
    ("the strasse there is", {"a": "the straße there is"}, False),
    ("The Straße there is", {"a": "the strasse there is"}, True),
]


@pytest.mark.parametrize(
    ("text", "properties", "found"), FOUND, ids=[f"{n}" for n in range(len(FOUND))]
)
async def test_text(
    collector: Collector, text: str, properties: dict[str, Any], *, found: bool
) -> None:
    """A text is found anywhere in an event, in capitals or not, and its signs mean themselves."""
    await post(collector, {"batch": [event(properties=properties)]})
    assert len(collector.events(text=text)) == found
    page = await collector._store.search(Filter(text=text), limit=1)
    assert len(page.events) == found
    if "\ud83d" not in text:
        assert len((await get(collector, "/events", text=text))["events"]) == found


def holds(payload: bytes, text: str) -> bool:
    """Look for a text in a payload as plainly as it can be done."""
    found = payload.decode()
    for needle in (text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]):
        if needle.isascii() and needle.encode().lower() in payload.lower():
            return True
        if not needle.isascii() and needle.casefold() in found.casefold():
            return True
    return False


# Letters that are folded to one, to two or three, to those of ASCII, and what JSON escapes.
letters = st.text('aAkKsSıİéÉëßẞſﬁﬃŉǰΐΐᾳσςΣжЖ日本\U0001f600\u0301\u212a "\\1', max_size=5)  # noqa: RUF001 - they are meant


@settings(max_examples=150, deadline=None)
@given(values=st.lists(letters, min_size=1, max_size=6), text=letters, escaped=st.booleans())
def test_text_of_any_letters(
    values: list[str],
    text: str,
    escaped: bool,  # noqa: FBT001 - Hypothesis gives it by its name
) -> None:
    """What is found is what a plain search finds, whether JSON was written with escapes or not."""
    payloads = [json.dumps({"x": each}, ensure_ascii=escaped).encode() for each in values]
    store = Store()
    rows = [(place, *[None] * 8, each) for place, each in enumerate(payloads)]
    store.add(RequestRow(received_at="2026"), rows)
    for wanted in (text, *values):
        expected = [each for each in payloads if holds(each, wanted)] if wanted else payloads
        assert [each.payload for each in store.find(Filter(text=wanted))] == expected
    store.close()


NAMED = [
    {"type": "track", "event": "A", "userId": "u1"},
    {"type": "page", "name": "A", "anonymousId": "u1"},
    {"type": "screen", "name": "B", "userId": "u2", "anonymousId": "u1"},
    {"type": "group", "groupId": "A", "userId": "u2"},
    {"type": "identify", "userId": "u3", "name": "A"},
    {"type": "page", "userId": "u3", "name": ["A"]},
    {"type": "click", "userId": "u3", "event": "A"},
]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"name": "A"}, [0, 1, 3, 6]),
        ({"name": "A", "type": "page"}, [1]),
        ({"event": "A"}, [0, 6]),
        ({"user": "u1"}, [0, 1, 2]),
        ({"user": "u2"}, [2, 3]),
        ({"user": "u1", "user_id": "u2"}, [2]),
        ({"user": "nobody"}, []),
        ({"text": "SCREEN"}, [2]),
        ({"text": "u3", "verdict": "good"}, [4, 5]),
    ],
)
async def test_names_and_users(
    collector: Collector, where: dict[str, Any], expected: list[int]
) -> None:
    """The same filters find, count and delete the same, over JSON and in Python."""
    batch = [{"messageId": str(n), **each} for n, each in enumerate(NAMED)]
    await post(collector, {"batch": batch})
    ids = [str(each) for each in expected]
    assert [each.message_id for each in collector.events(**where)] == ids
    shown = await get(collector, "/events", **where, order="newest")
    assert [each["message_id"] for each in shown["events"]] == ids[::-1]
    assert (await get(collector, "/stats", **where))["events"] == len(ids)
    async with client(collector) as http:
        assert (await http.delete("/events", params=where)).json() == {"deleted": len(ids)}
    assert collector.events(**where) == []
    assert collector.stats().events == len(batch) - len(ids)


async def test_paging_backwards(collector: Collector) -> None:
    """From the newest on, `next` is what to come before, and `cursor` is each event's own."""
    await post(collector, {"batch": [event(messageId=str(n)) for n in range(25)]})
    seen: list[str] = []
    query: dict[str, Any] = {"order": "newest", "limit": 10}
    page = await get(collector, "/events", **query)
    first = page["events"][0]["cursor"]
    while True:
        seen += [each["message_id"] for each in page["events"]]
        assert page["last"] == page["events"][-1]["cursor"]
        if page["next"] is None:
            break
        page = await get(collector, "/events", **query, before=page["next"])
    assert seen == [str(n) for n in reversed(range(25))]
    later = await get(collector, "/events", after=first)
    assert later == {"events": [], "next": None, "last": first}
    between = await get(collector, "/events", before=first, after=page["last"])
    assert [each["message_id"] for each in between["events"]] == [str(n) for n in range(1, 24)]


@pytest.mark.parametrize("query", ["order=up", "before=x", "text=", "name=a&name=b"])
async def test_wrong_parameters(collector: Collector, query: str) -> None:
    """What cannot be meant is refused, and nothing is deleted by it."""
    await post(collector, {"batch": [event()]})
    async with client(collector) as http:
        for method in ("GET", "DELETE"):
            assert (await http.request(method, f"/events?{query}")).status_code == 400
    assert collector.stats().events == 1


def row(place: int, number: int) -> EventRow:
    """Make a row of which every column is told by a number."""
    kind = ("track", "page", "identify", None)[number % 4]
    reason = "missing_user" if number % 7 == 0 else None
    ids = (f"u{number % 5}", f"a{number % 3}")
    payload = json.dumps({"n": number, "text": f"Word{number % 11}"}).encode()
    name = f"E{number % 6}"
    return (place, f"m{number % 900}", kind, reason, *ids, name, name, None, payload)


USERS: list[tuple[str, ...]] = [(), ("u1", "a1"), ("u4", "nobody")]


@pytest.fixture(scope="module")
def stored() -> Iterator[Store]:
    """1,500 events in requests of all sizes, some of them without any; and some lists of users."""
    store, number = Store(), 0
    for size in [1, 0, 700, 3, 0, 256, 1, 1, 500, 38]:
        rows = [row(place, number + place) for place in range(size)]
        number += size
        moment = f"2026-11-01T10:00:0{number % 10}.000Z"
        store.add(RequestRow(received_at=moment, status=200 if size else 400, bytes=size), rows)
    with contextlib.ExitStack() as lists:
        assert [lists.enter_context(store.listed(each)) for each in USERS] == [1, 2, 3]
        assert [store.count(Filter(users=each)) for each in (1, 2, 3, 4)] == [0, 700, 300, 0]
        yield store
    store.close()


positions = st.none() | st.integers(0, 11 << 20)
filters = st.builds(
    Filter,
    type=st.sampled_from([None, "track", "page"]),
    name=st.sampled_from([None, "E1", "E9"]),
    user=st.sampled_from([None, "u1", "a2"]),
    users=st.sampled_from([None, *range(1, len(USERS) + 2)]),
    verdict=st.sampled_from([None, "good", "bad"]),
    text=st.sampled_from([None, "word3", "wörd"]),
    since=st.sampled_from([None, "2026-11-01T10:00:05"]),
    message_id=st.sampled_from([None, "m7"]),
    after=positions,
    before=positions,
)


@settings(max_examples=60, deadline=None)
@given(
    where=filters,
    limit=st.integers(1, 400),
    newest_first=st.booleans(),
    size=st.integers(1),
    seconds=st.sampled_from([None, 0.0, 0.0005, 60.0]),
)
async def test_a_search_finds_what_find_finds(
    stored: Store,
    *,
    where: Filter,
    limit: int,
    newest_first: bool,
    size: int,
    seconds: float | None,
) -> None:
    """Page by page, in either order, whatever the filter and the limits: each event once."""
    expected = [each.position for each in stored.find(where)]
    found, rest = [], where
    size = size % 2_000 + 20
    for _ in range(2_000):
        page = await stored.search(
            rest, limit=limit, newest_first=newest_first, max_bytes=size, max_seconds=seconds
        )
        found += [each.position for each in page.events]
        assert len(page.events) <= limit
        assert sum(len(each.payload) for each in page.events) <= size or len(page.events) == 1
        if not page.more:
            break
        end = {"before" if newest_first else "after": page.reached}
        rest = replace(rest, **end)
    assert found == (expected[::-1] if newest_first else expected)
    assert stored.count(where) == len(expected)
    assert stored.positions(where) == expected


@pytest.mark.parametrize(("seconds", "count"), [(0.0, 256), (0.003, 256 + 512), (60.0, None)])
async def test_a_search_ends_when_its_time_is_over(
    stored: Store, monkeypatch: pytest.MonkeyPatch, seconds: float, count: int | None
) -> None:
    """It ends with a stretch, one at least, and says where; the next one is twice as long."""
    moments = itertools.count(step=0.001)  # it looks when it begins, and around each stretch
    monkeypatch.setattr(search.time, "perf_counter", lambda: next(moments))
    page = await stored.search(Filter(type="alias"), limit=9, max_seconds=seconds)
    assert page.events == []
    assert page.reached == (count and stored.positions(EVERYTHING)[count - 1])
    assert page.more == (count is not None)


@pytest.mark.parametrize("newest_first", [False, True])
async def test_stretches_of_large_events_are_short(*, newest_first: bool) -> None:
    """Where a text is looked for a stretch has half a megabyte, or one event, however it began."""
    store = Store()
    for count, size in ((900, 300), (9, 490_000), (40, 30_000), (2, 900_000), (900, 300)):
        rows = [(place, *[None] * 8, b"x" * size) for place in range(count)]
        store.add(RequestRow(received_at="2026"), rows)
    seen = list[int]()
    async for stretch in store.stretches(Filter(text="y"), newest_first=newest_first):
        found = list(store.find(replace(stretch, text=None), newest_first=newest_first))
        assert sum(each.size for each in found) <= 530_000 or len(found) == 1
        seen += [each.position for each in found]
    assert seen == sorted(store.positions(EVERYTHING), reverse=newest_first)
    store.close()


@pytest.mark.parametrize("text", ["a" * 15 + "b", "a" * 999 + "b", "a" * 400 + '"é' + "a" * 400])
def test_no_text_takes_long(text: str) -> None:
    """Not even one that nearly stands at each place of a large event."""
    store = Store()
    store.add(RequestRow(received_at="2026"), [(0, *[None] * 8, b"a" * 500_000)])
    began = time.process_time()
    assert store.count(Filter(text=text)) == 0
    assert time.process_time() - began < 0.15
    store.close()


@settings(max_examples=40, deadline=None)
@given(where=filters)
async def test_figures_of_a_filter(stored: Store, where: Filter) -> None:
    """They are what can be counted in the events that it means."""
    found = list(stored.find(where))
    stats = await stored.figures(where)
    reasons = [each.columns["reason"] for each in found]
    ids = [each.columns["message_id"] for each in found]
    assert (stats.events, stats.bad) == (len(found), sum(each is not None for each in reasons))
    assert sum(stats.by_type.values()) == stats.events
    assert sum(stats.reasons.values()) == stats.bad
    if where != EVERYTHING:
        assert stats.requests == len({each.columns["batch_id"] for each in found})
        assert sum(stats.answers.values()) == stats.requests
    assert (stats.distinct, stats.duplicates) == (len(set(ids)), len(ids) - len(set(ids)))
    moments = [each.columns["received_at"] for each in found]
    assert (stats.first_at, stats.last_at) == ((moments[0], moments[-1]) if found else (None, None))


async def test_figures_of_all(stored: Store) -> None:
    """They are the same step by step as at once, requests without events included."""
    assert await stored.figures() == stored.stats()
    assert stored.stats().answers == {200: 8, 400: 2}
    assert (stored.stats().distinct, stored.stats().duplicates) == (900, 600)


async def test_what_is_kept_meanwhile_stays(collector: Collector) -> None:
    """A long deletion by a filter takes what was there when it began."""
    store = collector._store
    for number in range(8):
        store.add(RequestRow(received_at="2026"), [row(each, number) for each in range(500)])
    deletion = asyncio.create_task(store.forget(Filter(text="word")))
    await asyncio.sleep(0)
    store.add(RequestRow(received_at="2026"), [row(0, 1)])
    assert await deletion == 4_000
    assert store.stats().events == 1
    assert store.last >> 20 == 9


# Depth


@pytest.mark.parametrize("slowly", [False, True], ids=["quick", "slow"])
@pytest.mark.parametrize("depth", [10, 252, 253, 900, 1_100, 20_000])
@pytest.mark.parametrize("brackets", [('{"a":', "}"), ("[", "]")], ids=["objects", "lists"])
async def test_depth(
    collector: Collector, *, depth: int, slowly: bool, brackets: tuple[str, str]
) -> None:
    """However deep an event is nested, it is kept or refused, and everything can be read."""
    begin, end = brackets
    deep = begin * depth + ("12345678901234567890123" if slowly else "1") + end * depth
    traits = json.dumps(event(type="identify", messageId="deep", traits={"t": 0}))
    bad = traits.replace('"t": 0', f'"t": {deep}')
    status = await post(collector, f'{{"batch":[{bad},{json.dumps(event())}]}}'.encode())
    kept = collector.events()
    if depth > 1_000:  # how much more can be read at all is the interpreter's
        assert (status, len(kept)) in ((200, 2), (400, 0))
        return
    assert [each.verdict for each in kept] == ["good" if depth <= 252 else "bad", "good"]
    async with client(collector) as http:
        for path in (
            *("/events", "/events/deep", "/events?text=deep", "/stats", "/names", "/users/u1"),
            *("/schema?type=identify", "/schema?type=track&name=E", "/requests/1", "/rate"),
        ):
            assert (await http.get(path)).status_code == 200, path
    pieces = collector._stream.follow(after=0, every=0.0)
    assert (await anext(pieces)).events == []
    assert len((await anext(pieces)).events) == 2
    await pieces.aclose()


# Many


class Watch:
    """Tells the longest time that the loop was held, and how often it was not."""

    longest = 0.0
    turns = 0

    async def look(self) -> None:
        """Look on until cancelled."""
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            self.turns += 1
            now = time.perf_counter()
            self.longest, last = max(self.longest, now - last), now


async def test_many_arrivals_of_one_message_id(collector: Collector) -> None:
    """All are counted, though they do not fit into one answer, and others get their turns."""
    store = collector._store
    turns = list[int]()
    for ids in ([1] * 1_500, [2] * 40_000 + [1]):
        store.add(
            RequestRow(received_at="2026-11-01T10:00:00.000Z"),
            [row(place, number) for place, number in enumerate(ids)],
        )
        watch = Watch()
        looking = asyncio.create_task(watch.look())
        found = await get(collector, "/events/m1")
        looking.cancel()
        turns.append(watch.turns)
        assert len(found["events"]) == 1_000
    assert found["seen"] == 1_501
    assert turns[1] - turns[0] >= 4  # of 8,192 positions each at most


@pytest.mark.long
async def test_100_000_events(collector: Collector) -> None:
    """A filter that nothing fulfils answers soon, and others get their turn meanwhile.

    It takes a fraction of these bounds on a quiet machine; they are for a busy one.
    """
    store, text = collector._store, "x" * 560
    for number in range(1_000):
        rows = [row(place, number * 100 + place) for place in range(100)]
        full = [(*each[:-1], each[-1][:-1] + f', "more": "{text}"}}'.encode()) for each in rows]
        store.add(RequestRow(received_at="2026-11-01T10:00:00.000Z"), full)
    watch = Watch()
    looking = asyncio.create_task(watch.look())
    for where in (
        *({"type": "alias"}, {"name": "none"}, {"user": "none"}, {"user_id": "none"}),
        *({"anonymous_id": "none"}, {"message_id": "none"}, {"since": "2999-01-01"}),
        *({"text": "none"}, {"text": "näe"}, {"verdict": "bad", "type": "alias"}),
    ):
        began = time.perf_counter()
        assert (await get(collector, "/events", **where))["events"] == []
        assert time.perf_counter() - began < 2.0, where
    await collector._insights.names()
    await collector._insights.rate()
    await collector._insights.schema("track", "E1")
    await collector._insights.timeline("u1")
    looking.cancel()
    assert watch.longest < 0.5
