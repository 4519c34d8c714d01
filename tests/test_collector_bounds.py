"""Odd and hostile input costs the collector little, and never means more than it says."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jinja2")

from asyncanalytics.collector import Collector
from asyncanalytics.collector.page.assets import Assets
from asyncanalytics.collector.page.feed import Feed
from asyncanalytics.collector.page.rendering import Templates
from asyncanalytics.collector.page.wanted import Wanted
from asyncanalytics.collector.records import Filter
from asyncanalytics.collector.store import RequestRow, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncanalytics.collector.store import EventRow

JSON = {"content-type": "application/json"}
NOW = "2026-11-01T10:00:00.000Z"


def client(collector: Collector, **options: Any) -> httpx.AsyncClient:
    """Make a client that reaches the collector in process."""
    transport = httpx.ASGITransport(app=collector)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", **options)


def track(**fields: Any) -> dict[str, Any]:
    """Make a good event."""
    return {"type": "track", "messageId": "m1", "userId": "u1", "event": "E"} | fields


async def post(
    collector: Collector, body: Any, path: str = "/v1/batch", **headers: str
) -> httpx.Response:
    """Post JSON, or bytes as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client(collector) as http:
        return await http.post(path, content=content, headers=JSON | headers)


async def get(collector: Collector, path: str, **headers: str) -> httpx.Response:
    """Get whatever is there."""
    async with client(collector) as http:
        return await http.get(path, headers=headers)


def row(place: int, payload: dict[str, Any]) -> EventRow:
    """Make a row as intake makes it."""
    ids = (payload.get("userId"), payload.get("anonymousId"))
    data = json.dumps(payload, ensure_ascii=False).encode()
    return (place, f"m{place}", payload["type"], None, *ids, None, None, None, data)


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector in memory that lets everyone in."""
    with Collector() as made:
        yield made


async def test_a_filter_that_is_a_nul_means_only_events_with_one(collector: Collector) -> None:
    """What SQLite would cut at a NUL deletes nothing else."""
    await post(collector, {"batch": [track(), track(messageId="m2", event="a\0b")]})
    async with client(collector) as http:
        assert (await http.delete("/events?text=%00")).json() == {"deleted": 1}
        assert (await http.delete("/events?text=E%00x")).json() == {"deleted": 0}
    assert collector.message_ids() == ["m1"]


@pytest.mark.parametrize(
    ("sent_at", "kept"),
    [
        (NOW, NOW),
        ("2026-11-01T10:00:00." + "0" * 60 + "Z", None),
        ("2" * 100_000, None),
        ("yesterday", None),
        (1, None),
    ],
    ids=["iso", "long", "huge", "words", "number"],
)
async def test_the_moment_of_sending_is_a_moment(
    collector: Collector, sent_at: Any, kept: str | None
) -> None:
    """A sentAt is kept if it is short and ISO 8601: it is shown beside each event."""
    await post(collector, {"batch": [track()], "sentAt": sent_at})
    assert [each.sent_at for each in collector.events()] == [kept]


async def test_a_page_of_events_is_bounded_with_its_columns() -> None:
    """What is shown beside the payloads counts as well."""
    store = Store()
    store.add(
        RequestRow(received_at=NOW, sent_at="x" * 10_000), [row(n, track()) for n in range(50)]
    )
    page = await store.search(Filter(), limit=50, max_bytes=100_000)
    assert len(page.events) == 9
    assert page.more
    store.close()


async def test_a_user_with_thousands_of_ids(collector: Collector) -> None:
    """What a user's page costs grows with the ids as the events do, not with their product."""
    calls = [
        {"type": "alias", "userId": "u", "previousId": f"p{n}", "messageId": f"m{n}"}
        for n in range(10_000)
    ]
    collector._store.add(RequestRow(received_at=NOW), [row(n, c) for n, c in enumerate(calls)])
    began = time.process_time()
    timeline = (await get(collector, "/users/u?limit=1")).json()
    assert len(timeline["ids"]) == 10_001
    assert time.process_time() - began < 1.5


async def test_a_single_call_is_bounded_as_a_batch_is(collector: Collector) -> None:
    """Beyond 500 KB a call is refused with 400, and nothing of it is kept."""
    answer = await post(collector, track(properties={"x": "x" * 512_000}), "/v1/track")
    assert (answer.status_code, answer.json()["reason"]) == (400, "call_too_large")
    assert collector.stats().events == 0


async def test_a_long_event_is_shown_in_part(collector: Collector) -> None:
    """Its page has the beginning of its text, and leads to the rest."""
    many = [[[each] * 2] for each in range(25_000)]
    await post(collector, track(properties={"many": many}), "/v1/track")
    (position,) = collector._store.positions(Filter())
    html = (await get(collector, f"/page/events/{position}")).text
    assert len(html) < 500_000
    address = html.partition("This is the beginning.")[2].partition('href="')[2].partition('"')[0]
    (event,) = (await get(collector, address.replace("&amp;", "&"))).json()["events"]
    assert event["payload"]["properties"]["many"] == many


def test_a_collector_served_in_one_loop_after_the_other(collector: Collector) -> None:
    """What waits in one event loop is not in the way of those in the next."""

    async def ask() -> None:
        await post(collector, {"batch": [track()] * 200})
        answers = await asyncio.gather(*[get(collector, "/names") for _ in range(5)])
        assert {each.status_code for each in answers} == {200}

    asyncio.run(ask())
    asyncio.run(ask())


LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
FRAME = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
IMAGE = {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("path", "how", "status"),
    [
        ("/v1/pixel/track?data=e30", IMAGE, 403),
        ("/v1/pixel/track?data=e30", LINK, 403),
        ("/events?text=x", IMAGE, 403),
        ("/events", LINK, 403),
        ("/page/names", IMAGE, 403),
        ("/", FRAME, 403),
        ("/", LINK, 200),
        ("/page/names", LINK, 200),
    ],
    ids=lambda each: str(each.get("sec-fetch-dest")) if isinstance(each, dict) else str(each),
)
async def test_what_another_website_asks_for(
    collector: Collector, site: str, path: str, how: dict[str, str], status: int
) -> None:
    """Nothing but a link to a page comes through, and nothing is kept."""
    assert (await get(collector, path, **how, **{"sec-fetch-site": site})).status_code == status
    assert collector.stats().requests == 0


@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_what_a_reader_asks_for_itself(collector: Collector, site: str) -> None:
    """The pages' own requests and typed addresses are let in."""
    for path in ("/v1/pixel/track?data=e30", "/events"):
        answer = await get(collector, path, **IMAGE, **{"sec-fetch-site": site})
        assert answer.status_code == 200


async def refuse(collector: Collector, count: int) -> None:
    """Send requests that are refused as a whole."""
    for _ in range(count):
        assert (await post(collector, b"{")).status_code == 400


async def test_refused_requests_are_shown_among_the_bad_ones(collector: Collector) -> None:
    """The live page has them in the order in which they came, each with its reason and request."""
    await post(collector, {"batch": [track(event="Before")]})
    await refuse(collector, 1)
    await post(collector, {"batch": [track(event="After")]})
    html = (await get(collector, "/")).text
    places = [html.index(each) for each in (">After<", "/page/requests/2", ">Before<")]
    assert places == sorted(places)
    assert "invalid json" in html
    assert "refused: invalid json" in (await get(collector, "/page/requests/2")).text
    assert (await get(collector, "/requests/2")).json()["refusal"] == "invalid_json"
    assert (await get(collector, "/requests/1")).json()["refusal"] is None


@pytest.mark.parametrize(
    ("query", "count"),
    [("", 1), ("verdict=bad", 1), ("verdict=good", 0), ("user=u1", 0), ("text=json", 0)],
)
async def test_refused_requests_and_filters(collector: Collector, query: str, count: int) -> None:
    """They are bad, and no other filter can mean them."""
    await refuse(collector, 1)
    assert (await get(collector, f"/?{query}")).text.count(">refused</a>") == count


async def test_refused_requests_page_by_page(collector: Collector) -> None:
    """Each of them is on one page, whatever is between them."""
    for _ in range(3):
        await refuse(collector, 60)
        await post(collector, {"batch": [track()] * 70})
    shown, address = list[str](), "/"
    while address:
        html = (await get(collector, address)).text
        shown += re.findall(r'data-position="(\d+)"', html)
        address = html.partition('id="older" href="')[2].partition('"')[0].replace("&amp;", "&")
    assert len(shown) == len(set(shown)) == 390
    assert shown == sorted(shown, key=int, reverse=True)


async def test_refused_requests_as_they_arrive(collector: Collector) -> None:
    """A page that follows is told of them, and goes on after them."""
    feed = Feed(collector._store, collector._stream, Templates(Assets()))
    async with aclosing(feed.messages(Wanted(), feed.place(0))) as messages:
        begun = [await anext(messages) for _ in range(2)]
        assert "retry" in begun[0]
        await refuse(collector, 1)
        message = await anext(messages)
    assert "/page/requests/1" in message
    assert f"id: {feed.place(1 << 20)}" in message


def test_a_text_beyond_ascii_is_found_quickly() -> None:
    """Most payloads are left out by what its ASCII letters are."""
    store = Store()
    many = [track(event=f"Größe {n}", properties={"x": "lorem ipsum " * 20}) for n in range(20_000)]
    for first in range(0, len(many), 2_000):
        part = many[first : first + 2_000]
        store.add(RequestRow(received_at=NOW), [row(n, each) for n, each in enumerate(part)])
    began = time.process_time()
    assert store.count(Filter(text="GRÖSSER")) == 0
    assert store.count(Filter(text="öße 19999")) == 1
    assert time.process_time() - began < 0.2
    assert store.count(Filter(text="GRÖßE 1999")) == 11
    store.close()


KEY = "another-one-altogether"  # which HTTP clients may log


def basic(text: str) -> str:
    """Write a Basic header, of any text."""
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        ({"writeKey": KEY, "batch": "none"}, {}),
        ({"writeKey": KEY, "x": "x" * 600_000}, {}),
        ({"writeKey": KEY, "appId": "second-one-altogether", "batch": [track()]}, {}),
        ({"writeKey": "second-one-altogether", "appId": KEY, "batch": [track()]}, {}),
        ({"batch": [track()]}, {"authorization": KEY}),
        ({"batch": [track()]}, {"authorization": basic(KEY)}),
        ({"batch": [track()]}, {"authorization": basic(f"{KEY}:"), "content-type": "text/plain"}),
        (
            {"batch": [track(properties={"k": [KEY]}, userId=KEY)]},
            {"authorization": basic(f"{KEY}:")},
        ),
    ],
    ids=["no batch", "too large", "first", "second", "no scheme", "no colon", "unread", "nested"],
)
@pytest.mark.parametrize("fault", [False, True], ids=["", "fault"])
async def test_no_key_stays_in_clear(
    collector: Collector,
    body: dict[str, Any],
    headers: dict[str, str],
    fault: bool,  # noqa: FBT001 - its parameter
) -> None:
    """Neither where a request is refused or a fault answers, nor where the key is elsewhere."""
    if fault:
        collector.misbehave()
    await post(collector, body, f"/v1/batch?w={KEY}&a=b", **headers, **{"x-w": f"w {KEY}"})
    kept = (await get(collector, "/requests/1")).text
    assert "x-w" in kept
    assert "a=b" in kept
    assert KEY not in kept
    assert KEY not in str(collector.events())


async def test_the_user_of_an_address_is_hidden(collector: Collector) -> None:
    """A name and a password in an address are none of the collector's business."""
    address = "https://arthur:towel@example.org/a"
    await post(collector, {"batch": []}, f"/v1/batch?u={address}", referer=address)
    kept = (await get(collector, "/requests/1")).text
    assert "example.org" in kept
    assert "towel" not in kept


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/events?since=0001-01-01T00:00:00%2B14:00", 400),
        ("/events?since=9999-12-31T23:59:59-14:00", 400),
        (f"/requests/{'9' * 5_000}", 404),
        ("/requests/%C2%B2", 404),
        ("/stream?before=AAAAAAAAAAA", 400),
    ],
    ids=["early", "late", "digits", "superscript", "before"],
)
async def test_what_cannot_be_meant_is_refused(
    collector: Collector, path: str, status: int
) -> None:
    """It is the asker's mistake, and is answered so."""
    assert (await get(collector, path)).status_code == status


@pytest.mark.parametrize("name", ["content-length", "Content-Length", "transfer-encoding"])
async def test_a_fault_does_not_say_how_long_its_body_is(collector: Collector, name: str) -> None:
    """No server can send an answer of another length."""
    async with client(collector) as http:
        answer = await http.post("/faults", json={"headers": {name: "5"}})
    assert (answer.status_code, answer.json()["reason"]) == (400, "bad_fault")


async def test_the_cookie_is_not_the_token() -> None:
    """Whoever sees the cookie does not know the token."""
    token = "+&#% a-token-that-opens"
    with Collector(read_token=token) as collector:
        async with client(collector) as http:
            answer = await http.get("/", params={"token": token})
            (cookie,) = http.cookies.jar
            assert answer.status_code == 303
            assert token not in str(cookie.value)
            assert (await http.get("/")).status_code == 200
            wrong = {"authorization": f"Bearer {cookie.value}"}
            http.cookies.clear()
            assert (await http.get("/", headers=wrong)).status_code == 401


def test_the_greeting_of_collect(capsys: pytest.CaptureFixture[str]) -> None:
    """Its addresses can be opened whatever is in the token, and a key that is demanded is yours."""
    collect = pytest.importorskip("asyncanalytics.cli.collect")
    collect._say_hello("http://127.0.0.1:8010", "+&#% a-token-that-opens", key="YOUR_WRITE_KEY")
    said = capsys.readouterr().out
    assert "?token=%2B%26%23%25%20a-token-that-opens" in said
    assert "any-key" not in said


def test_a_short_token_is_called_as_the_option_is() -> None:
    """What is wrong is said in the words of the command."""
    collect = pytest.importorskip("asyncanalytics.cli.collect")
    refused = pytest.raises(collect.Failure, match=r"^--token must have")
    with refused, collect._collector(collect.Collecting(token="short"), seed=None):
        pytest.fail("it must be refused")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--type", "trak"], "trak"),
        (["--token", "to\u20acken"], "token must be of ASCII"),
        (["--token", "a-wrong-token-of-all"], "not the token"),
        (["/nowhere", "--token", "{token}"], "there is no collector at"),
    ],
    ids=["type", "ascii", "wrong", "path"],
)
def test_tail_says_what_is_wrong(options: list[str], said: str) -> None:
    """It neither waits for ever nor shows a traceback."""
    app = pytest.importorskip("asyncanalytics.cli.app")
    testing = pytest.importorskip("typer.testing")
    token = "a-token-that-opens"
    with (
        Collector(read_token=token) as collector,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(collector.serve()) as url,
    ):
        path, options = ("", options) if options[0][0] == "-" else (options[0], options[1:])
        given = [each.format(token=token) for each in options]
        result = testing.CliRunner().invoke(app.app, ["tail", f"{url}{path}", *given])
    assert result.exit_code != 0
    assert said in " ".join(result.output.split()) + str(result.exception)
