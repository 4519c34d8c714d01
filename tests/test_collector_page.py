"""The pages say what was kept, and take nothing of it for markup."""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import re
import time
from html import unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jinja2")

from asyncanalytics.collector import Collector
from asyncanalytics.collector.page import addresses, pages
from asyncanalytics.collector.page.assets import FOLDER
from asyncanalytics.collector.page.tree import Node, tree
from asyncanalytics.collector.store import RequestRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from asyncanalytics.collector.store import EventRow

EVIL = '"><img src=x onerror="window.pwned=1"><script>window.pwned=2</script>{{7*7}}\u202e\'`<hx-x>'
ASCII = EVIL.replace("\u202e", "")
FIRST = 1 << 20
NOW = "2026-11-01T10:00:00.000Z"
PAGES = {
    "live": "/",
    "filtered": "/?call=track&event=Signed+Up&user=u1&text=plan&verdict=good",
    "event": f"/page/events/{FIRST}",
    "request": "/page/requests/1",
    "names": "/page/names",
    "schema": "/page/schema?call=track&event=Signed+Up",
    "user": "/page/users?id=u1",
    "ask": "/page/users",
}
each_page = pytest.mark.parametrize("path", PAGES.values(), ids=PAGES)


def track(name: str = "Signed Up", **fields: Any) -> dict[str, Any]:
    """Make a good event."""
    number = next(_numbers)
    return {"type": "track", "event": name, "userId": "u1", "messageId": f"m{number}", **fields}


_numbers = iter(range(10**9))


def client(collector: Collector) -> httpx.AsyncClient:
    """Make a client that reaches the collector in process."""
    transport = httpx.ASGITransport(app=collector)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:8010")


async def send(collector: Collector, *events: Any, **headers: str) -> None:
    """Send a batch."""
    async with client(collector) as http:
        headers = {"content-type": "application/json"} | headers
        content = json.dumps({"batch": events}).encode()
        assert (await http.post("/v1/batch", content=content, headers=headers)).is_success


async def get(collector: Collector, path: str, status: int = 200) -> str:
    """Get a page."""
    async with client(collector) as http:
        answer = await http.get(path)
    assert answer.status_code == status
    return answer.text


class Page(HTMLParser):
    """A page taken apart: its elements, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data

    def rows(self) -> list[str]:
        """Return what the events of a table are called."""
        return [a["title"] for tag, a in self.elements if tag == "a" and a.get("class") == "open"]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector in memory that lets everyone in."""
    with Collector() as made:
        yield made


@pytest.fixture
async def filled(collector: Collector) -> Collector:
    """A collector with a few events, one of them bad."""
    good = track(properties={"plan": "pro"}, context={"ip": "192.0.2.7"})
    await send(collector, good, track("", properties={"plan": 7}), "no object")
    return collector


# Pages


@each_page
async def test_a_page(filled: Collector, path: str) -> None:
    """Each is HTML that is kept nowhere and may load nothing but the collector's own files."""
    async with client(filled) as http:
        answer = await http.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = dict(
        each.split(" ", 1) for each in answer.headers["content-security-policy"].split("; ")
    )
    assert policy.pop("default-src") == policy.pop("base-uri") == "'none'"
    assert policy.pop("frame-ancestors") == "'none'"
    assert set(policy.values()) == {"'self'"}


@each_page
async def test_nothing_stands_inline(filled: Collector, path: str) -> None:
    """No script, style or handler is part of a page, and each file it names is there."""
    page = Page(await get(filled, path))
    files = set()
    for tag, attributes in page.elements:
        assert tag != "style"
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        if tag in ("script", "img", "link"):
            files.add(attributes.get("src") or attributes["href"])
    assert len(files) >= 5
    for file in files:
        assert file.startswith("/page/static/")
        assert await get(filled, file)


@each_page
async def test_ids_are_unique(filled: Collector, path: str) -> None:
    """Labels and scripts find what they mean."""
    ids = [a["id"] for _, a in Page(await get(filled, path)).elements if "id" in a]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    "path",
    [
        *("/page/events/1", "/page/events/x", "/page/events/9999999999999999999999"),
        *("/page/requests/7", "/page/requests/0", "/page/requests/999999999999999999"),
        *("/page/schema?call=page", "/page/schema?call=track&event=No", "/page/users?id=nobody"),
    ],
)
async def test_what_is_not_there(filled: Collector, path: str) -> None:
    """It is a page too, with 404."""
    assert "<h1" in await get(filled, path, 404)


async def test_no_event_yet(collector: Collector) -> None:
    """The first page shows how to send one, to this very collector."""
    page = Page(await get(collector, "/"))
    assert page.text.count("http://localhost:8010") == 3
    assert page.rows() == []


async def test_a_host_that_is_no_name() -> None:
    """Where any Host is let in, what it says is shown as text."""
    with Collector(allowed_hosts=["*"]) as collector:
        async with client(collector) as http:
            answer = await http.get("/", headers={"host": '"><img src=x>'})
    assert [a for tag, a in Page(answer.text).elements if tag == "img" and a["src"] == "x"] == []


# What they show


async def test_the_newest_is_first(collector: Collector) -> None:
    """A hundred are shown, and a link goes on to those before them."""
    await send(collector, *(track(f"E{number}") for number in range(150)))
    page = Page(await get(collector, "/"))
    assert page.rows() == [f"E{number}" for number in range(149, 49, -1)]
    [older] = [a["href"] for _, a in page.elements if a.get("id") == "older"]
    rest = Page(await get(collector, older))
    assert rest.rows() == [f"E{number}" for number in range(49, -1, -1)]
    assert not [a for _, a in rest.elements if "data-stream" in a]  # the past does not go on


CHOICES: dict[str, list[str]] = {
    "call=page": ["Home"],
    "event=Signed+Up": ["Signed Up"],
    "event=Home": ["Home"],
    "user=a7": ["Home"],
    "user=u1": ["(no name)", "Signed Up"],
    "text=gOLD": ["Signed Up"],
    "text=100%25_": ["Signed Up"],
    "text=caf%C3%89": ["Home"],
    "verdict=bad": ["(no name)"],
    "verdict=good": ["Home", "Signed Up"],
    "verdict=good&call=track": ["Signed Up"],
    "call=nonsense&verdict=maybe&before=x&else=1": ["Home", "(no name)", "Signed Up"],
    "text=nowhere": [],
}


@pytest.mark.parametrize(("query", "names"), CHOICES.items(), ids=CHOICES)
async def test_filters(collector: Collector, query: str, names: list[str]) -> None:
    """An address chooses, and what it does not say well chooses nothing."""
    home = {"type": "page", "name": "Home", "anonymousId": "a7", "messageId": "m"}
    await send(
        collector,
        track(properties={"plan": "Gold 100%_"}),
        track(""),
        home | {"properties": {"title": "Café"}},
    )
    assert Page(await get(collector, f"/?{query}")).rows() == names


async def test_a_bad_event_says_why(filled: Collector) -> None:
    """The reason stands in its row and on its page."""
    assert "missing event" in Page(await get(filled, "/")).text
    assert "bad: missing event" in Page(await get(filled, f"/page/events/{FIRST + 1}")).text
    assert "not an object" in Page(await get(filled, "/page/requests/1")).text


async def test_an_event(filled: Collector) -> None:
    """Its JSON is there twice: to be folded, and whole, to be copied."""
    html = await get(filled, f"/page/events/{FIRST}")
    raw = re.search(r'<pre id="raw">(.*?)</pre>', html, re.DOTALL)
    assert raw is not None
    assert json.loads(Page(raw[1]).text) == filled.events()[0].payload
    page = Page(html)
    folds = [a for tag, a in page.elements if tag == "details"]
    assert [("open" in each) for each in folds] == [True, False, False]  # context, and the text
    assert "event 1 of it" in page.text


async def test_a_request(collector: Collector) -> None:
    """It is shown as it looked, with what came in it, and without its key."""
    secret = "a-key-that-opens-nothing"
    await send(collector, track(), track("Other"), authorization=f"Bearer {secret}", via=ASCII)
    html = await get(collector, "/page/requests/1")
    page = Page(html)
    assert "POST /v1/batch" in page.text
    assert ASCII in page.text
    assert secret not in html
    assert f"/page/events/{FIRST + 1}" in [a.get("href") for _, a in page.elements]


async def test_names(collector: Collector) -> None:
    """Names are counted, with the first and the last time, and lead to form and events."""
    await send(collector, *(track() for _ in range(3)), track("Once"))
    page = Page(await get(collector, "/page/names"))
    assert re.sub(r"\s+", " ", page.text).count("Signed Up 3 0") == 1
    links = [a.get("href") for _, a in page.elements]
    assert "/page/schema?call=track&event=Signed+Up" in links
    assert "/?call=track&event=Signed+Up" in links


async def test_a_schema_flags_what_changed(collector: Collector) -> None:
    """A field whose type changed stands out; one that may be null does not."""
    await send(
        collector,
        *(track(properties={"price": 7, "note": None}) for _ in range(3)),
        track(properties={"price": "7", "note": "x"}),
    )
    page = Page(await get(collector, "/page/schema?call=track&event=Signed+Up"))
    assert page.text.count("type changed") == 1
    assert [a["id"] for _, a in page.elements if a.get("class") == "flagged"] == ["field-1"]
    assert "100 %" in page.text


async def test_a_user(collector: Collector) -> None:
    """The events of all of a user's ids are one timeline, with traits and groups."""
    await send(
        collector,
        {"type": "page", "name": "Home", "anonymousId": "a1", "messageId": "1"},
        {"type": "identify", "anonymousId": "a1", "userId": "u1", "messageId": "2"}
        | {"traits": {"plan": "pro"}},
        {"type": "alias", "previousId": "u1", "userId": "u2", "messageId": "3"},
        {"type": "group", "groupId": "g1", "userId": "u2", "messageId": "4"}
        | {"traits": {"name": "Megadodo"}},
        track(userId="somebody else"),
    )
    for one in ("a1", "u1", "u2"):
        page = Page(await get(collector, f"/page/users?id={one}"))
        assert len(page.rows()) == 4
        assert {"a1", "u1", "u2"} <= set(re.findall(r"\w+", page.text))
        assert "Megadodo" in page.text
        assert "plan" in page.text


async def test_a_long_timeline(collector: Collector) -> None:
    """A link goes on to what came before."""
    await send(collector, *(track(f"E{number}") for number in range(120)))
    page = Page(await get(collector, "/page/users?id=u1"))
    [older] = [a["href"] for _, a in page.elements if "before=" in a.get("href", "")]
    assert Page(await get(collector, older)).rows() == [
        f"E{number}" for number in range(19, -1, -1)
    ]


async def test_the_rate(filled: Collector) -> None:
    """The chart's figures are two minutes of seconds, good and bad apart."""
    rate = json.loads(await get(filled, "/page/rate"))
    assert rate["seconds"] == list(range(rate["seconds"][0], rate["seconds"][0] + 120))
    assert (sum(rate["good"]), sum(rate["bad"])) == (1, 2)


# Nothing is taken for markup


def evil_events() -> list[dict[str, Any]]:
    """Make events whose every text is hostile, of all that pages show in places of their own."""
    inner = {EVIL: EVIL, "list": [EVIL, {EVIL: [EVIL]}]}
    ids = {"userId": EVIL, "anonymousId": EVIL + "2"}
    return [
        track(EVIL, **ids, properties=inner, context=inner),
        {"type": "identify", **ids, "messageId": EVIL, "traits": inner},
        {"type": "group", **ids, "groupId": EVIL, "messageId": "4", "traits": inner},
        {"type": "alias", "userId": EVIL, "previousId": EVIL + "3", "messageId": "5"},
        {"type": EVIL, **ids, "event": EVIL, "name": EVIL, "messageId": "6"},
        track(EVIL, **ids, properties={EVIL: 1}, timestamp=EVIL),
    ]


def evil_pages() -> list[str]:
    """Return every page with hostile events on it, in its address too."""
    text = str(httpx.QueryParams({"call": "track", "event": EVIL, "user": EVIL, "text": EVIL}))
    user = httpx.QueryParams({"id": EVIL})
    events = [f"/page/events/{FIRST + place}" for place in range(6)]
    return [
        *("/", f"/?{text}", "/page/names", f"/page/schema?{text}", f"/page/users?{user}"),
        *("/page/requests/1", *events),
    ]


async def test_no_text_is_markup(collector: Collector) -> None:
    """Hostile names, ids, values and headers add no element to any page, nor an attribute."""
    await send(collector, *evil_events(), **{"x-evil": ASCII})
    tags = set()
    for path in evil_pages():
        html = await get(collector, path)
        page = Page(html)
        tags |= {tag for tag, _ in page.elements}
        images = [a["src"] for tag, a in page.elements if tag == "img"]
        assert images == [images[0]]  # the page's own
        assert "onerror" not in {name for _, a in page.elements for name in a}
        assert "<script>window" not in html
        assert path == "/page/users" or 'onerror="window.pwned=1"' in page.text
        assert "49" not in page.text or "{{7*7}}" in page.text
    assert "hx-x" not in tags


async def test_lone_surrogates_and_nul(collector: Collector) -> None:
    """Text that UTF-8 cannot hold is spelled out."""
    strange = {"a\ud83d": "\udc00", "nul": "\0"}
    await send(collector, track("\ud83d!", userId="\udc00", properties=strange))
    for path in ("/", "/page/names", f"/page/events/{FIRST}"):
        assert "\\ud83d!" in await get(collector, path)
    links = [a.get("href", "") for _, a in Page(await get(collector, "/")).elements]
    [user] = [each for each in links if each.startswith("/page/users?")]
    assert Page(await get(collector, user)).rows() == ["\\ud83d!"]


# Bounds


def flat(node: Node) -> Iterator[Node]:
    """Yield a node and all below it."""
    yield node
    for each in node.children:
        yield from flat(each)


def nested(depth: int) -> Any:
    """Make lists within lists."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


BOUNDED: dict[str, Any] = {
    "deep": nested(240),
    "wide": list(range(30_000)),
    "wide and deep": {str(key): {"a": [1, 2, 3]} for key in range(3_000)},
    "long": "x" * 500_000,
}


@pytest.mark.parametrize("value", BOUNDED.values(), ids=BOUNDED)
def test_a_tree_is_bounded(value: Any) -> None:
    """What is too deep, too wide or too long is cut, and where it is cut is said."""
    nodes = list(flat(tree(value)))
    assert len(nodes) < 2_100
    assert sum(len(each.text) for each in nodes) < 60_000
    assert [each for each in nodes if each.kind == "cut" or "more characters" in each.text]


async def test_pages_are_bounded(collector: Collector) -> None:
    """Events whose every text is long make no page that a browser could not show."""
    long = [f"{number}{chr(120) * 20_000}" for number in range(40)]
    for each in long:
        ids = {"userId": each, "anonymousId": f"a{each}"}
        await send(
            collector,
            track(each, **ids, properties={each: each}, messageId=each),
            {"type": "identify", "userId": "u1", "anonymousId": each, "messageId": "m"},
            {"type": "group", "groupId": each, "userId": "u1", "messageId": "m"},
        )
    paths = ("/", "/page/names", "/page/users?id=u1", "/page/requests/1", f"/page/events/{FIRST}")
    for path in paths:
        assert len(await get(collector, path)) < 200_000, path


async def test_deep_events_are_shown_as_they_came(collector: Collector) -> None:
    """Text that would be mostly blanks once it is indented is not."""
    await send(collector, track(properties=[nested(230)] * 60))
    html = await get(collector, f"/page/events/{FIRST}")
    assert len(html) < 300_000
    raw = re.search(r'<pre id="raw">(.*?)</pre>', html, re.DOTALL)
    assert raw is not None
    assert json.loads(Page(raw[1]).text) == collector.events()[0].payload


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    max_leaves=12,
)


@pytest.mark.long
@settings(max_examples=25, deadline=None)
@given(value=json_values, name=st.text(), user=st.text())
async def test_any_event_is_shown(value: Any, name: str, user: str) -> None:
    """Whatever JSON an event is, each page is made."""
    with Collector() as collector:
        event = track(name, userId=user, properties=value, traits=value)
        await send(collector, event, value)
        for path in ("/", f"/page/events/{FIRST}", f"/page/events/{FIRST + 1}", "/page/names"):
            await get(collector, path)
        for kind in collector.events():
            await get(collector, addresses.schema(kind.type, kind.name))


A_LOT: dict[str, tuple[str, int, list[str]]] = {
    "ASCII": ("lorem ipsum dolor " * 12, 100_000, ["no", "noé", "lorem ipsum dolor x", "needle"]),
    "umlauts": ("äöü ëê ß" * 40, 100_000, ["öß", "näe", "скидки", "needle"]),
    "Cyrillic": ("скидка на всё " * 20, 100_000, ["скидки", "ё" * 300, "needle"]),
    "CJK": ("日本語の文字列" * 30, 100_000, ["日語", "é", "needle"]),
    "32 KB": ("äöü" * 5_000, 2_000, ["öß", "näe", "ä" * 99 + "ö", "needle"]),
    "500 KB": ("a" * 490_000, 100, ["a" * 15 + "b", "a" * 999 + '"é', "aé", "needle"]),
}


@pytest.mark.long
@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("content", A_LOT)
async def test_a_filter_answers_in_200_ms(content: str) -> None:
    """Each answer does, and together they find it, among many events and where few of them fit."""
    filler, count, texts = A_LOT[content]
    with Collector() as collector:
        fill(collector, count, filler)
        filters: list[dict[str, str]] = [{"text": text} for text in texts]
        filters += [{}, {"user": "u5"}, {"event": "Rare", "verdict": "good"}]
        for each in filters:
            address = addresses.live(**each)
            while address:
                html = await get_quickly(collector, address)
                address = further(html)
            assert ("Signed Up" in html) == (each in ({}, {"text": "needle"}, {"user": "u5"}))


async def get_quickly(collector: Collector, address: str) -> str:
    """Get a page in 200 ms of the processor, in one of three attempts: the machine may be busy."""
    for _ in range(3):
        began = time.process_time()
        html = await get(collector, address)
        if time.process_time() - began < 0.2:
            return html
    pytest.fail(f"{address[:99]} took longer")


@pytest.fixture
def _alone() -> Iterator[None]:
    """Have the garbage collector leave out what other tests have left."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def further(html: str) -> str:
    """Return where a page goes on looking; an empty text where it does not."""
    return next((a["hx-get"] for _, a in Page(html).elements if a.get("id") == "further"), "")


def fill(collector: Collector, count: int, filler: str) -> None:
    """Keep many events, past HTTP."""

    def row(place: int, number: int) -> EventRow:
        plan = "needle" if number == 5 else "pro"
        event = track(userId=f"u{number}", properties={"plan": plan, "n": number, "x": filler})
        payload = json.dumps(event, ensure_ascii=False).encode()
        ids = (f"u{number}", None)
        return (place, event["messageId"], "track", None, *ids, *["Signed Up"] * 2, None, payload)

    step = min(count, 1_000)
    for start in range(0, count, step):
        rows = [row(place, start + place) for place in range(step)]
        collector._store.add(RequestRow(received_at="2026-11-01T10:00:00.000Z"), rows)


LARGE: dict[str, dict[str, Any]] = {
    "lists": {"properties": {"x": [[]] * 20_000}},
    "lists and a lone surrogate": {"properties": {"s": "\ud800", "x": [[]] * 20_000}},
    "objects": {"properties": {str(number): {} for number in range(6_000)}},
    "numbers": {"properties": {str(number): 2**70 for number in range(2_000)}},
    "an id": {"userId": "<" * 60_000},
}


@pytest.mark.long
@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("large", LARGE.values(), ids=LARGE)
async def test_rows_of_large_events_are_made_in_200_ms(
    collector: Collector, large: dict[str, Any]
) -> None:
    """Where that takes longer for a page of them, an answer has fewer, and goes on."""
    event = track(**large)
    payload = json.dumps(event, separators=(",", ":")).encode()
    row = (None, "track", None, event["userId"], None, "E", "E", None, payload)
    collector._store.add(RequestRow(received_at=NOW), [(place, *row) for place in range(150)])
    found, address = list[str](), "/"
    while address:
        html = await get_quickly(collector, address)
        found += positions(html)
        address = further(html)
    assert found == [str(FIRST + place) for place in range(149, 49, -1)]


def positions(html: str) -> list[str]:
    """Return where the events and requests of a table stand in the order of all."""
    return [a["data-position"] for _, a in Page(html).elements if "data-position" in a]


@pytest.mark.parametrize(
    ("query", "count"),
    [("", 909), ("verdict=bad", 138), ("text=word", 102)],
    ids=["all", "bad", "text"],
)
async def test_a_search_in_pieces(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, query: str, count: int
) -> None:
    """Where no time is left, each answer has one stretch; all of them have each row once."""
    for number in range(3):
        async with client(collector) as http:
            for _ in range(3):
                await http.post("/v1/batch", content=b"broken")
        payloads = [b'{"x": "%s"}' % (b"" if n % 9 else b"word") for n in range(300)]
        rows = [
            (n, None, "track", None if n % 7 else "bad", *[None] * 5, each)
            for n, each in enumerate(payloads)
        ]
        collector._store.add(RequestRow(received_at=f"{NOW[:-2]}{number}Z"), rows)
    whole = await pieces(collector, f"/?{query}")
    monkeypatch.setattr(pages, "_LOOKING", 0.0)
    if query:
        monkeypatch.setattr(pages, "_MAKING", 0.0)
    found = await pieces(collector, f"/?{query}")
    assert found == whole == sorted(set(found), key=int, reverse=True)
    assert len(found) == count


async def pieces(collector: Collector, address: str) -> list[str]:
    """Go on as scripts do to the end of each page, then as the reader does."""
    found = list[str]()
    while address:
        before = len(found)
        while address:
            html = await get(collector, address)
            found += positions(html)
            address = further(html)
            assert not address or "No event fits" not in html
        links = [a for _, a in Page(html).elements if a.get("id") == "older"]
        address = "" if "hidden" in links[0] else links[0]["href"]
        assert len(found) - before == 100 or not address
    return found


async def test_how_far_it_has_looked(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and has a link for those without scripts, which leads to the same."""
    for number in (1, 2):
        rows = [(n, *[None] * 8, b"{}") for n in range(256)]
        collector._store.add(RequestRow(received_at=f"2026-11-01T10:00:0{number}.000Z"), rows)
    monkeypatch.setattr(pages, "_LOOKING", 0.0)
    html = await get(collector, "/?text=nowhere")
    assert "Looked back to 01 Nov 10:00:02; looking on…" in " ".join(Page(html).text.split())
    link = re.search(r'<noscript>[^<]*<a href="([^"]*)">Look further back', html)
    assert link is not None
    html = await get(collector, unescape(link[1]))
    assert "No event fits" not in html
    assert "No event fits" in await get(collector, further(html))


@pytest.mark.parametrize("shown", ["99", "100", "999999", "x", "-5"])
async def test_how_many_are_shown_already(collector: Collector, shown: str) -> None:
    """An answer that goes on has the rest of a page; whatever the address says, it has a row."""
    await send(collector, *(track() for _ in range(150)))
    most = 100 if shown in ("x", "-5") else 1
    assert len(positions(await get(collector, f"/?shown={shown}"))) == most


# The stream


class Reader:
    """Reads server-sent events."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines

    async def next(self) -> dict[str, str]:
        """Return the next event that has data."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                return fields
            else:
                fields.clear()
        raise EOFError

    async def rows(self, count: int) -> tuple[list[str], str]:
        """Return the names of so many events, and the id of the last message."""
        found: list[str] = []
        while True:
            message = await self.next()
            found += reversed(Page(json.loads(message["data"])["html"]).rows())
            if len(found) >= count:
                return found, message["id"]


async def place_of(http: httpx.AsyncClient, path: str = "/") -> str:
    """Return from where a page goes on."""
    page = Page((await http.get(path)).text)
    return next(a["data-after"] for _, a in page.elements if "data-after" in a)


async def test_rows_follow_the_page() -> None:
    """What comes after the page was made is sent as rows, once, to a reader who comes back too."""
    with Collector() as collector:
        await send(collector, track("Before"))
        async with collector.serve() as url, httpx.AsyncClient(base_url=url) as http:
            after = await place_of(http)
            await send(collector, track("Between"))
            async with http.stream("GET", "/page/stream", params={"after": after}) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                reader = Reader(answer.aiter_lines())
                assert (await reader.rows(1))[0] == ["Between"]
                await send(collector, track("Now"))
                names, last = await reader.rows(1)
                assert names == ["Now"]
            await send(collector, track("While away"))
            # The address still says the old place, as a browser's does that comes back by itself.
            headers, params = {"last-event-id": last}, {"after": after}
            async with http.stream("GET", "/page/stream", params=params, headers=headers) as answer:
                assert (await Reader(answer.aiter_lines()).rows(1))[0] == ["While away"]


async def test_rows_are_filtered() -> None:
    """A stream has what its page has."""
    with Collector() as collector:
        async with collector.serve() as url, httpx.AsyncClient(base_url=url) as http:
            params = {"after": await place_of(http), "verdict": "bad"}
            await send(collector, track("Good"), track("Bad", messageId=""))
            async with http.stream("GET", "/page/stream", params=params) as answer:
                assert (await Reader(answer.aiter_lines()).rows(1))[0] == ["Bad"]


@pytest.mark.parametrize("place", ["AAAAAAAQAAA.0badcafe", "AAAAAAAQAAA", "", "x", "9" * 40])
async def test_a_place_in_another_store(place: str) -> None:
    """A reader from elsewhere is told to begin anew, and nothing else."""
    with Collector() as collector:
        await send(collector, track())
        async with collector.serve() as url, httpx.AsyncClient(base_url=url) as http:
            answer = await http.get("/page/stream", params={"after": place})
    assert "event: reset" in answer.text
    assert "event: rows" not in answer.text


@pytest.mark.parametrize("query", [{}, {"message_id": "m1"}], ids=["all", "one"])
async def test_a_reader_hears_of_what_is_deleted(query: dict[str, str]) -> None:
    """It is told to begin anew, at once or when it comes back; where nothing goes, it goes on."""
    with Collector() as collector:
        await send(collector, track(messageId="m1"), track())
        async with collector.serve() as url, httpx.AsyncClient(base_url=url) as http:
            params = {"after": await place_of(http)}
            async with http.stream("GET", "/page/stream", params=params) as answer:
                reader = Reader(answer.aiter_lines())
                await reader.next()
                await http.delete("/events", params={"message_id": "nowhere"})
                await send(collector, track("Now"))
                assert (await reader.rows(1))[0] == ["Now"]
                await http.delete("/events", params=query)
                assert (await reader.next())["event"] == "reset"
                with pytest.raises(EOFError):
                    await reader.next()
            assert "event: reset" in (await http.get("/page/stream", params=params)).text
            assert await place_of(http) != params["after"]


async def test_a_reader_comes_back_after_a_restart(tmp_path: Path) -> None:
    """Whoever shows what was deleted meanwhile begins anew; whoever does not goes on."""
    path = tmp_path / "events.db"
    with Collector(path) as collector:
        await send(collector, track("First"), track("Second"))
        async with client(collector) as http:
            stale = await place_of(http)
            await http.delete("/events", params={"name": "First"})
            fresh = await place_of(http)
    with Collector(path) as collector:
        await send(collector, track("Third"))
        async with collector.serve() as url, httpx.AsyncClient(base_url=url) as http:
            answer = await http.get("/page/stream", params={"after": stale})
            assert "event: reset" in answer.text
            async with http.stream("GET", "/page/stream", params={"after": fresh}) as answer:
                assert (await Reader(answer.aiter_lines()).rows(1))[0] == ["Third"]


async def test_too_many_are_sampled() -> None:
    """Of a burst some rows are sent, and how many are left out is said."""
    with Collector() as collector:
        async with collector.serve() as url, httpx.AsyncClient(base_url=url) as http:
            params = {"after": await place_of(http)}
            await send(collector, *(track(f"E{number}") for number in range(2_000)))
            async with http.stream("GET", "/page/stream", params=params) as answer:
                reader, shown, skipped = Reader(answer.aiter_lines()), 0, 0
                while shown + skipped < 2_000:
                    piece = json.loads((await reader.next())["data"])
                    shown, skipped = shown + piece["events"], skipped + piece["skipped"]
                    assert piece["events"] <= 40
    assert shown + skipped == 2_000
    assert skipped >= 1_900


# Files


def test_vendored_files_are_what_they_were() -> None:
    """Each has the sum that was noted when it was taken from its package."""
    folder = FOLDER / "vendor"
    noted = re.findall(r"^(\w{64})  (\S+)$", (folder / "checksums.txt").read_text(), re.MULTILINE)
    assert {name for _, name in noted} == {each.name for each in folder.iterdir()} - {
        "checksums.txt"
    }
    for digest, name in noted:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    assert {"htmx.LICENSE.txt", "uplot.LICENSE.txt"} <= {name for _, name in noted}


def test_files_name_no_other_host() -> None:
    """Nothing that the browser runs is asked to load from elsewhere."""
    own = [path for path in FOLDER.rglob("*") if path.suffix in (".js", ".css", ".svg")]
    own += list(FOLDER.with_name("templates").glob("*.html"))
    for path in own:
        if path.parent.name != "vendor":
            names = re.findall(r"https?://[^\s\"']+", path.read_text())
            assert set(names) <= {"http://www.w3.org/2000/svg"}, path.name  # a name, no address


async def test_files_are_kept_for_ever(collector: Collector) -> None:
    """A file's address changes with its content, and another version's is not there."""
    [style] = re.findall(r'"(/page/static/[^"]*/page\.css)"', await get(collector, "/"))
    async with client(collector) as http:
        answer = await http.get(style)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-type"] == "text/css; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        for other in ("/page/static/0/page.css", style + "/../../../pages.py", style + "x"):
            assert (await http.get(other)).status_code == 404


@pytest.mark.parametrize("path", ["/", "/page/names", "/page/stream", "/page/rate"])
@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "https://evil.example"}])
async def test_strangers(collector: Collector, path: str, headers: dict[str, str]) -> None:
    """No page is given to a foreign Host or Origin."""
    async with client(collector) as http:
        answer = await http.get(path, headers=headers)
    assert answer.status_code in (403, 421)
    assert "<html" not in answer.text


# The documentation


async def test_the_page_of_the_documentation(example: Callable[..., Path]) -> None:
    """What docs/collector.md shows runs as it is shown."""
    example("collector", "watch.py")
    watch = importlib.import_module("watch").watch
    assert await watch(port=0) == ["Signed Up"]
