"""The stream gives what is kept, as it is kept: no gap, no repeat, in order, and nobody waits."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import tracemalloc
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jinja2")

from asyncanalytics.collector import Collector
from asyncanalytics.collector.records import EVERYTHING, Filter
from asyncanalytics.collector.store import RequestRow, Store
from asyncanalytics.collector.stream import Piece, Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

HEADERS = {"content-type": "application/json"}


def keep(store: Store, count: int = 1, *, kind: str = "track", size: int = 0) -> None:
    """Keep a request of so many events."""
    payload = json.dumps({"type": kind, "text": "x" * size}).encode()
    rows = [(n, f"m{n}", kind, None, "u1", None, "E", "E", None, payload) for n in range(count)]
    store.add(RequestRow(received_at="2026-11-01T10:00:00.000Z"), rows)


@pytest.fixture
def store() -> Iterator[Store]:
    """An empty store in memory."""
    made = Store()
    yield made
    made.close()


async def pieces_until(
    stream: Stream, store: Store, where: Filter = EVERYTHING, **options: Any
) -> list[Piece]:
    """Follow from the beginning up to what is kept last."""
    found = []
    async with aclosing(stream.follow(where, after=0, every=0.0, **options)) as pieces:
        async for piece in pieces:
            found.append(piece)
            if piece.last >= store.last:
                break
    return found


def positions(found: list[Piece]) -> list[int]:
    """Return where the events of pieces are."""
    return [each.position for piece in found for each in piece.events]


# In process


batches = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from(["track", "page"]), st.booleans()), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(batches=batches, most=st.none() | st.integers(1, 20), kind=st.none() | st.just("page"))
async def test_sent_and_skipped_is_what_was_kept(
    batches: list[tuple[int, str, bool]], most: int | None, kind: str | None
) -> None:
    """Whenever events come: in order, each once, and what is left out is counted."""
    store = Store()
    stream, where = Stream(store), Filter(type=kind)
    keep(store, 3)  # before it begins: not of interest
    pieces, found = stream.follow(where, most=most, every=0.0), list[Piece]()

    async def read() -> None:
        async for piece in pieces:
            found.append(piece)

    start = store.last
    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    for count, each, pause in batches:
        keep(store, count, kind=each)
        if pause:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0)
    stream.close()
    await asyncio.wait_for(reading, 5)
    kept = store.positions(Filter(type=kind, after=start))
    sent = positions(found)
    assert sent == sorted(set(sent))
    assert set(sent) <= set(kept)
    assert len(sent) + sum(each.skipped for each in found) == len(kept)
    assert all(len(each.events) <= (most or 500) for each in found)
    ends = [each.last for each in found]
    assert ends == sorted(ends)
    assert store.positions(Filter(type=kind, after=ends[-1])) == []
    if most is None:
        assert sent == kept
    store.close()


async def test_a_choice_is_even(store: Store) -> None:
    """Of many events those that are sent come from all over, none twice."""
    keep(store, 10_000)
    (empty, piece) = await pieces_until(Stream(store), store, most=40)
    assert (empty.events, empty.skipped, empty.last) == ([], 0, 0)
    assert (len(piece.events), piece.skipped, piece.last) == (40, 9_960, store.last)
    places = [each.position & 0xFFFFF for each in piece.events]
    steps = [after - before for before, after in pairwise(places)]
    assert max(steps) < 4 * min(steps)


async def test_a_stalled_reader_costs_no_memory(store: Store) -> None:
    """It holds up nobody; when it reads on it gets a choice of all that came meanwhile."""
    async with aclosing(Stream(store).follow()) as pieces:
        await anext(pieces)
        tracemalloc.start()
        for _ in range(20):
            keep(store, 1_000, size=1_000)
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 4_000_000  # what SQLite has is not Python's
        tracemalloc.reset_peak()
        piece = await anext(pieces)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (len(piece.events), piece.skipped) == (40, 19_960)
    assert peak < 4_000_000


async def test_every_event_in_pieces(store: Store) -> None:
    """Where none is skipped a piece is bounded, by events and by bytes."""
    keep(store, 1_200)
    for _ in range(5):
        keep(store, 1, size=600_000)
    found = await pieces_until(Stream(store), store, most=None)
    assert positions(found) == store.positions(EVERYTHING)
    assert [len(each.events) for each in found][:4] == [0, 500, 500, 201]
    assert all(sum(len(one.payload) for one in each.events) < 1_100_000 for each in found)


async def test_large_events_are_skipped(store: Store) -> None:
    """A choice is bounded by bytes too: what is beyond is counted, and one is always sent."""
    for size in (600_000, 300_000, 600_000, 10):
        keep(store, 1, size=size)
    keep(store, 1)
    (_, piece) = await pieces_until(Stream(store), store)
    assert (len(piece.events), piece.skipped, piece.last) == (2, 3, store.last)
    keep(store, 1, size=3_000_000)
    async with aclosing(Stream(store).follow(after=piece.last)) as pieces:
        await anext(pieces)
        piece = await anext(pieces)
        assert (len(piece.events), piece.skipped) == (1, 0)


async def test_what_the_filter_does_not_mean_moves_the_place(store: Store) -> None:
    """A reader whose filter means nothing still learns where it is, and that all is well."""
    pieces = Stream(store).follow(Filter(type="page"), idle=0.05)
    first = await anext(pieces)
    keep(store, 5)
    second = await anext(pieces)
    assert (second.events, second.skipped) == ([], 0)
    assert second.last == store.last > first.last
    third = await anext(pieces)
    assert third == second
    keep(store, 1, kind="page")
    assert len((await anext(pieces)).events) == 1
    await pieces.aclose()


async def test_pieces_keep_their_distance(store: Store) -> None:
    """The first event comes at once, and the next piece not before its time."""
    async with aclosing(Stream(store).follow(every=0.5)) as pieces:
        await anext(pieces)
        keep(store)
        began = time.monotonic()
        assert len((await anext(pieces)).events) == 1
        assert time.monotonic() - began < 0.4
        keep(store)
        keep(store)
        assert len((await anext(pieces)).events) == 2
        assert time.monotonic() - began > 0.49


@pytest.mark.parametrize("how", ["cancelled", "closed", "forgotten"])
async def test_a_reader_that_goes_away_leaves_nothing(store: Store, how: str) -> None:
    """Whatever becomes of it, the store does not know of it any more."""
    pieces = Stream(store).follow()
    await anext(pieces)
    waiting = asyncio.ensure_future(anext(pieces))
    await asyncio.sleep(0.01)
    assert len(store.bell._waiting) == 1
    waiting.cancel()
    await asyncio.wait([waiting])
    assert store.bell._waiting == []
    if how == "closed":
        await pieces.aclose()
    del pieces
    keep(store)


async def test_many_readers(store: Store) -> None:
    """Each gets all of it, and one that is slow holds up no other."""
    stream = Stream(store)
    readers = [stream.follow(most=None) for _ in range(20)]
    for each in readers:
        await anext(each)
    keep(store, 10)
    found = await asyncio.gather(*(anext(each) for each in readers))
    assert [len(each.events) for each in found] == [10] * 20
    for each in readers:
        await each.aclose()


async def test_events_from_another_thread_wake(store: Store) -> None:
    """A collector may be driven from a thread, and looked at in another."""
    async with aclosing(Stream(store).follow()) as pieces:
        await anext(pieces)
        thread = threading.Thread(target=lambda: (time.sleep(0.05), keep(store, 2)))
        thread.start()
        assert len((await asyncio.wait_for(anext(pieces), 5)).events) == 2
        thread.join()


@pytest.mark.parametrize("most", [1, None])
async def test_closing_ends_it_after_what_was_kept(store: Store, most: int | None) -> None:
    """Nothing that was kept before is lost by it, and it waits for nothing."""
    stream = Stream(store)
    pieces = stream.follow(most=most, every=60.0)
    await anext(pieces)
    keep(store)
    await anext(pieces)
    keep(store, 1_300)
    began = time.monotonic()
    stream.close()
    rest = [each async for each in pieces]
    assert sum(len(each.events) + each.skipped for each in rest) == 1_300
    assert time.monotonic() - began < 5
    async with aclosing(stream.follow()) as again:  # it is for those that follow now
        assert (await anext(again)).last == store.last


async def test_deleted_events_are_not_sent(store: Store) -> None:
    """A place stays right whatever was deleted, also where nothing is left."""
    keep(store, 5)
    place = store.last
    keep(store, 5)
    store.delete()
    keep(store, 2)
    async with aclosing(Stream(store).follow(after=place)) as pieces:
        await anext(pieces)
        assert len((await anext(pieces)).events) == 2


async def test_deleting_wakes(store: Store) -> None:
    """A reader learns at once that events went, though nothing came; and not if none went."""
    keep(store, 3)
    async with aclosing(Stream(store).follow(every=0.0)) as pieces:
        await anext(pieces)
        store.delete(Filter(type="page"))
        # It begins to wait before this comes: if that woke it, its next piece has no event.
        asyncio.get_running_loop().call_later(0.05, keep, store)
        second = await asyncio.wait_for(anext(pieces), 5)
        assert [each.position for each in second.events] == [store.last]
        waiting = asyncio.ensure_future(anext(pieces))
        await asyncio.sleep(0)
        store.delete(Filter(type="track"))
        piece = await asyncio.wait_for(waiting, 5)
    assert (piece.events, piece.skipped, piece.last) == ([], 0, second.last)


async def test_a_place_that_was_never_given(store: Store) -> None:
    """It is another store's: all that is here is new to who comes with it."""
    keep(store, 5)
    async with aclosing(Stream(store).follow(after=99 << 20)) as pieces:
        assert (await anext(pieces)).last == 0
        assert len((await anext(pieces)).events) == 5


# Over HTTP


class Sent(dict[str, str]):
    """One event of a stream: its fields; `:` is a comment."""

    @property
    def payload(self) -> Any:
        """The payload in its data."""
        return json.loads(self["data"])["payload"]


async def sent(response: httpx.Response) -> AsyncIterator[Sent]:
    """Read a stream as a browser does: its lines end with a line feed, and nothing else does."""
    rest = ""
    async for text in response.aiter_text():
        *whole, rest = (rest + text).split("\n\n")
        for each in whole:
            pairs = (line.partition(":") for line in each.split("\n"))
            yield Sent({name or ":": value.strip() for name, _, value in pairs})


@asynccontextmanager
async def serving(collector: Collector) -> AsyncIterator[httpx.AsyncClient]:
    """Serve, and give a client."""
    async with httpx.AsyncClient(timeout=5) as http, collector.serve() as url:
        http.base_url = httpx.URL(url)
        yield http


@asynccontextmanager
async def following(
    http: httpx.AsyncClient, place: str | None = None, **params: Any
) -> AsyncIterator[AsyncIterator[Sent]]:
    """Open a stream, read up to where it says where it begins, and give what comes."""
    headers = {} if place is None else {"last-event-id": place}
    async with http.stream("GET", "/stream", params=params, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = sent(response)
        assert await anext(stream) == {"retry": "1000"}
        assert (await anext(stream)).keys() == {":", "id"}
        yield stream


async def send(http: httpx.AsyncClient, *events: Any) -> None:
    """Send a batch."""
    answer = await http.post("/v1/batch", json={"batch": list(events)})
    assert answer.status_code == 200


def call(number: int, **fields: Any) -> dict[str, Any]:
    """Make an event that is told by its number."""
    event = {"type": "track", "messageId": str(number), "userId": "u1", "event": "E"}
    return event | fields


async def some(stream: AsyncIterator[Sent], count: int) -> list[Sent]:
    """Take so many events, and the moves between them for what they are."""
    found: list[Sent] = []
    while len(found) < count:
        each = await asyncio.wait_for(anext(stream), 5)
        if each.get("event") == "event":
            found.append(each)
    return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector in memory that lets everyone in."""
    with Collector() as made:
        yield made


async def test_events_as_the_api_gives_them(collector: Collector) -> None:
    """An event of the stream is the JSON that GET /events gives, good or bad, and odd."""
    async with serving(collector) as http, following(http) as stream:
        odd = call(1, event="line\nbreak\r \u2028 <img src=x onerror=alert(1)>")
        await send(http, odd, 5, call(2, properties={"huge": 2**70}))
        found = await some(stream, 3)
        shown = (await http.get("/events")).json()["events"]
    assert [json.loads(each["data"]) for each in found] == shown
    assert [each["id"] for each in found] == [each["cursor"] for each in shown]


async def test_it_goes_on_after_the_last_id(collector: Collector) -> None:
    """Who comes back with any event's id gets what followed it, and nothing else."""
    async with serving(collector) as http:
        async with following(http, every=1) as stream:
            await send(http, *(call(n) for n in range(5)))
            await send(http, *(call(n) for n in range(5, 9)))
            found = await some(stream, 9)
        for number, each in enumerate(found[:-1]):
            async with following(http, each["id"], after="AAAAAAAAAAA", every=1) as stream:
                rest = await some(stream, 8 - number)
            assert rest == found[number + 1 :]
        cursor = (await http.get("/events?limit=3")).json()["last"]
        async with following(http, after=cursor) as stream:
            assert [each["id"] for each in await some(stream, 6)] == [
                each["id"] for each in found[3:]
            ]


async def test_a_place_in_another_store(collector: Collector) -> None:
    """Who followed a collector that is gone gets all that the new one has."""
    with Collector() as other:
        async with serving(other) as http, following(http) as stream:
            await send(http, call(1))
            (last,) = await some(stream, 1)
    async with serving(collector) as http:
        await send(http, *(call(n) for n in range(5)))
        async with following(http, last["id"]) as stream:
            assert [each.payload["messageId"] for each in await some(stream, 5)] == list("01234")


async def test_too_many_are_skipped(collector: Collector) -> None:
    """At most 40 come at a time, and how many were left out is said; `every=1` gives them all."""
    async with (
        serving(collector) as http,
        following(http) as choice,
        following(http, every=1) as every,
    ):
        await send(http, *(call(n) for n in range(100)))
        assert len(await some(every, 100)) == 100
        assert len(await some(choice, 40)) == 40
        told = await anext(choice)
        assert (told["event"], told["data"]) == ("skipped", "60")
        await send(http, call(101))
        assert [each.payload["messageId"] for each in await some(choice, 1)] == ["101"]


async def test_filters(collector: Collector) -> None:
    """The stream takes the filters of GET /events."""
    wanted = {"name": "Wanted", "text": "BLUE", "verdict": "good"}
    async with serving(collector) as http, following(http, **wanted) as stream:
        blue = {"properties": {"colour": "blue"}}
        await send(
            http,
            call(1, event="Wanted"),
            call(2, **blue),
            call(3, event="Wanted", userId=7, **blue),
            call(4, event="Wanted", **blue),
        )
        assert (await some(stream, 1))[0].payload["messageId"] == "4"


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?every=2", {}),
        ("?limit=5", {}),
        ("?after=x", {}),
        ("?typ=track", {}),
        ("", {"last-event-id": "x"}),
        ("", {"last-event-id": "AAAAAAAAAAAA.mark"}),
    ],
)
async def test_wrong_streams(collector: Collector, query: str, headers: dict[str, str]) -> None:
    """What cannot be meant is refused, before anything is sent."""
    async with serving(collector) as http:
        answer = await http.get(f"/stream{query}", headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (400, "bad_parameter")


async def readers(collector: Collector, count: int) -> None:
    """Wait until so many are waiting for news."""
    while len(collector._store.bell._waiting) != count:  # noqa: ASYNC110 - it is not told
        await asyncio.sleep(0.01)


async def test_a_client_that_hangs_up(collector: Collector) -> None:
    """At once nothing of it is left, though nothing was to be sent."""
    async with serving(collector) as http:
        async with following(http):
            await asyncio.wait_for(readers(collector, 1), 5)
        await asyncio.wait_for(readers(collector, 0), 5)


async def test_head(collector: Collector) -> None:
    """HEAD gets the headers of a stream, and no stream is begun for it."""
    async with serving(collector) as http:
        answer = await http.head("/stream")
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        await asyncio.wait_for(readers(collector, 0), 5)
        assert (await http.get("/stats")).status_code == 200


async def test_the_end_of_the_server_ends_the_streams(collector: Collector) -> None:
    """Promptly, with what was kept until then, and as an end, not as a failure."""
    async with httpx.AsyncClient(timeout=5) as http:
        async with collector.serve() as url:
            http.base_url = httpx.URL(url)
            reading = [asyncio.create_task(_read_all(http)) for _ in range(5)]
            await asyncio.wait_for(readers(collector, 5), 5)
            await send(http, *(call(n) for n in range(30)))
            began = time.monotonic()
        assert time.monotonic() - began < 0.9
        assert await asyncio.gather(*reading) == [30] * 5


async def _read_all(http: httpx.AsyncClient) -> int:
    async with following(http) as stream:
        return len([each async for each in stream if each.get("event") == "event"])


@pytest.mark.long
async def test_a_client_that_does_not_read(collector: Collector) -> None:
    """It holds up neither the ingest nor the end of the server."""
    async with httpx.AsyncClient(timeout=5) as http:
        async with collector.serve() as url:
            http.base_url = httpx.URL(url)
            host, port = url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port), limit=1_024)
            writer.write(b"GET /stream?every=1 HTTP/1.1\r\nhost: localhost\r\n\r\n")
            await writer.drain()
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            text = {"properties": {"text": "x" * 20_000}}
            for number in range(40):
                await send(http, *(call(number * 20 + n, **text) for n in range(20)))
            assert collector.stats().events == 800
            began = time.monotonic()
        assert time.monotonic() - began < 3
        writer.close()
