"""Events that others made: complete, to all their queues or to none, and durable with a spool."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncanalytics import (
    AsyncClient,
    Call,
    Closed,
    Destination,
    QueueFull,
    Queueing,
    Sealing,
    Sending,
    Spooling,
    Track,
    endpoints,
    forks,
)
from asyncanalytics.errors import NotDurable, Unserialisable
from asyncanalytics.forwarding import Event, Forwarding, event, take
from asyncanalytics.middleware import OnWire, assign, drop, enrich, keep, redact, rename, where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from conftest import Lab

KEY = "a-key-that-opens-nothing"
ODD: dict[str, Any] = {
    "type": "track",
    "messageId": "m-1",
    "userId": "u1",
    "event": "Ordered",
    "timestamp": "2026-11-01T10:00:00+02:00",
    "originalTimestamp": "2026-11-01T08:00:00Z",
    "version": 2,
    "channel": "web",
    "_metadata": {"bundled": ["a"]},
    "properties": {"total": 12.5, "huge": 10**40, "deep": [[{"a": None}]]},
    "context": {"screen": {"width": "1024 px"}, "library": {"name": "analytics.js"}, "x": []},
    "integrations": {"crm": {"option": 1}, "Elsewhere": False},
}


class Yard:
    """Clients whose destinations are scripted servers in this process, by name."""

    def __init__(self, **servers: Any) -> None:
        self.servers: dict[str, Any] = servers
        self._hosts = {f"127.0.0.{n}": name for n, name in enumerate(servers, 1)}

    async def _dispatch(self, scope: Any, receive: Any, send: Any) -> None:
        host = next(value for name, value in scope["headers"] if name == b"host").decode()
        await self.servers[self._hosts[host]](scope, receive, send)

    def client(self, rules: Any = None, **settings: Any) -> AsyncClient:
        """Make a client for all the servers; `rules` are those of each destination by name."""
        rules = rules or {}
        destinations = [
            Destination(
                KEY, endpoint=endpoints.custom(f"http://{host}", name=name), **rules.get(name, {})
            )
            for host, name in self._hosts.items()
        ]
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app=self._dispatch))
        sending = Sending(http_client=http)
        return AsyncClient(destinations=destinations, sending=sending, **settings)

    def got(self, name: str) -> list[dict[str, Any]]:
        """Return the events that a server has taken."""
        return [each for request in self.servers[name].requests for each in request.events]


def track(number: int = 0, **members: Any) -> Event:
    """Make an event."""
    return event("track", {"event": "E", "userId": "u", "messageId": f"m{number}", **members})


async def put(client: AsyncClient, *events: Event, patience: float = 5.0) -> None:
    """Take events into one client."""
    way = Forwarding(client)
    try:
        await take([await way.plan(events)], patience=patience)
    finally:
        assert client.stats().is_balanced


# ------------------------------------------------------------------------------------ as they are


@pytest.mark.looptime
async def test_an_event_arrives_as_it_was_written(lab: Lab) -> None:
    """With members that no model knows and values that none would take; ours are not put in."""
    yard = Yard(crm=lab.script())
    async with yard.client() as client:
        sent = deepcopy(ODD) | {"sentAt": "x", "writeKey": KEY, "appId": KEY}
        await put(client, event("track", sent))
    assert yard.got("crm") == [ODD]
    assert client.stats().delivered == 1


@pytest.mark.looptime
async def test_what_is_missing_is_filled_in(lab: Lab) -> None:
    """An id, a time and a context; a time of the sender's own goes before ours."""
    yard = Yard(crm=lab.script())
    bare = {"userId": "u", "event": "E"}
    async with yard.client() as client:
        await put(
            client,
            event("track", {**bare, "messageId": "", "context": None}),
            event("track", {**bare, "originalTimestamp": "2026-11-01T08:00:00Z"}),
        )
    one, two = yard.got("crm")
    assert one["messageId"] != two["messageId"]
    assert one["timestamp"].endswith("Z")
    assert two["timestamp"] == "2026-11-01T08:00:00Z"
    assert one["context"]["library"]["name"] == "asyncanalytics"
    assert "channel" not in one["context"]


@pytest.mark.looptime
async def test_what_not_everybody_reads_is_mended(lab: Lab) -> None:
    """Lone surrogates become U+FFFD in the event, its id and what is made of them."""
    yard = Yard(crm=lab.script(), own=lab.script())
    odd = event("track", {"userId": "\ud800", "event": "E\udfff", "messageId": "m\ud800"})
    async with yard.client({"own": {"middleware": [assign({"properties.a": 1})]}}) as client:
        await put(client, odd)
    for name in ("crm", "own"):
        (got,) = yard.got(name)
        assert (got["userId"], got["event"], got["messageId"]) == ("\ufffd", "E\ufffd", "m\ufffd")
    assert odd.message_id == "m\ufffd"


def test_what_is_nested_too_deeply() -> None:
    """It is an error with a name, and not a crash."""
    deep: Any = []
    for _ in range(600):
        deep = [deep]
    with pytest.raises(Unserialisable, match="too deeply"):
        event("track", {"userId": "u", "event": "E", "properties": {"a": deep}})


# ------------------------------------------------------------------------- transformed, selected


@pytest.mark.looptime
async def test_each_destination_transforms_the_event_as_it_came(lab: Lab) -> None:
    """What one makes of it no other sees, whichever way a middleware works."""

    def in_place(call: Call) -> Call:
        assert isinstance(call, Track)
        assert call.properties is not None
        call.properties["deep"]["changed"] = True
        return call

    names = ("plain", "own", "function", "none")
    yard = Yard(**{name: lab.script() for name in names})
    rules = {
        "own": {"middleware": [rename({"properties.total": "properties.revenue"}), drop("x")]},
        "function": {"middleware": [in_place, enrich(context={"app": {"name": "shop"}})]},
        "none": {"middleware": [where(calls=["identify"])]},
    }
    given_event = track(properties={"total": 1, "deep": {}}, x=2, receivedAt="then")
    async with yard.client(rules, middleware=[assign({"properties.all": 3})]) as client:
        await put(client, given_event)
    stats = client.stats().destinations
    got = {name: yard.got(name) for name in names}
    assert got["plain"][0]["properties"] == {"total": 1, "deep": {}, "all": 3}
    assert got["own"][0]["properties"] == {"revenue": 1, "deep": {}, "all": 3}
    assert got["function"][0]["properties"] == {"total": 1, "deep": {"changed": True}, "all": 3}
    assert got["function"][0]["context"]["app"] == {"name": "shop"}
    assert got["function"][0]["receivedAt"] == "then"
    assert [("x" in each[0]) for each in got.values() if each] == [True, False, True]
    assert stats["none"].dropped_by == {"filtered": 1}
    assert given_event.wire["properties"] == {"total": 1, "deep": {}}


@pytest.mark.looptime
async def test_null_in_an_event_is_as_good_as_absent(lab: Lab) -> None:
    """A sender's own null does not keep a changed event back; one that a middleware makes does."""
    yard = Yard(crm=lab.script())
    renames = rename({"properties.total": "properties.revenue", "properties.none": "timestamp"})
    async with yard.client(middleware=[renames]) as client:
        await put(
            client,
            track(1, anonymousId=None, properties={"total": 1}),
            track(2, userId=None, anonymousId="a", context=None, properties={"total": 2}),
            track(3, userId=None, anonymousId=None, properties={"total": 3}),
            track(4, properties={"none": None}),
        )
    assert [each["properties"] for each in yard.got("crm")] == [{"revenue": 1}, {"revenue": 2}]
    assert client.stats().destinations["crm"].dropped_by == {"middleware_error": 2}


@pytest.mark.looptime
async def test_many_events_for_many_destinations_keep_apart(lab: Lab) -> None:
    """Each destination gets its own form of each event, however memory is used anew."""
    yard = Yard(**{f"d{n}": lab.script() for n in range(4)})
    rules = {f"d{n}": {"middleware": [assign({"properties.to": n})]} for n in range(4)}
    async with yard.client(rules) as client:
        await put(client, *(track(n, properties={"n": n}) for n in range(600)))
        gc.collect()
    for name in yard.servers:
        wanted = [{"n": n, "to": int(name[1:])} for n in range(600)]
        assert [each["properties"] for each in yard.got(name)] == wanted


class _Broken(OnWire):
    def apply(self, wire: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError(wire["event"])


def _raising(call: Call) -> Call:
    raise ValueError(call)


def _ending(call: Call) -> Call:
    raise SystemExit(call)


def _with(**members: Any) -> Callable[[Call], Call]:
    return lambda call: call.model_copy(update=members)


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("middleware", "members"),
    [
        (_Broken(), {}),
        (_raising, {}),
        (_ending, {}),
        (_with(user_id=[7]), {}),
        (lambda _: "no call", {}),
        (drop("userId"), {}),
        (assign({"event": ""}), {}),
        (assign({"context": 7}), {}),
        (assign({"properties": []}), {}),
        (assign({"integrations": "none"}), {}),
        (lambda call: call, {"context": {"screen": {"width": "1024 px"}}}),
        (assign({"properties.a": object()}), {}),
    ],
    ids=[
        *(
            "raises on the wire",
            "raises",
            "ends the process",
            "a list for a user",
            "text",
            "no user",
            "no event",
            "no context",
            "a list",
        ),
        *("no switches", "not for a model", "no JSON"),
    ],
)
async def test_an_event_is_not_lost_in_silence(
    lab: Lab, logged: pytest.LogCaptureFixture, middleware: Any, members: dict[str, Any]
) -> None:
    """What breaks on an event drops it there alone, counted, and said once without its data."""
    yard = Yard(one=lab.script(), two=lab.script())
    async with yard.client({"one": {"middleware": [middleware]}}) as client:
        await put(client, *(track(n, **members, secret="hidden") for n in range(3)))
    stats = client.stats().destinations
    assert stats["one"].dropped_by == {"middleware_error": 3}
    assert stats["two"].delivered == 3
    errors = [each.getMessage() for each in logged.records if each.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "hidden" not in errors[0]


@pytest.mark.looptime
async def test_a_function_cannot_change_what_an_event_is(lab: Lab) -> None:
    """Its messageId stays, and an id that became a number goes out as text."""
    yard = Yard(one=lab.script())
    own = {"middleware": [_with(message_id="another", user_id=7)]}
    async with yard.client({"one": own}) as client:
        await put(client, track(1))
    (got,) = yard.got("one")
    assert (got["messageId"], got["userId"]) == (track(1).message_id, "7")


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("integrations", "wanted"),
    [
        (None, {"one", "two"}),
        ({}, {"one", "two"}),
        ({"All": True}, {"one", "two"}),
        ({"All": False}, set()),
        ({"All": False, "one": True}, {"one"}),
        ({"one": False}, {"two"}),
        ({"one": {"option": 1}, "All": False}, {"one"}),
        ({"ONE": False}, {"one", "two"}),
        ({"one": None}, {"one", "two"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
@pytest.mark.parametrize("count", [1, 2])
async def test_integrations_select(
    lab: Lab, integrations: Any, wanted: set[str], count: int
) -> None:
    """By name, also where there is one destination; what goes nowhere is counted."""
    names = ["one", "two"][:count]
    yard = Yard(**{name: lab.script() for name in names})
    async with yard.client() as client:
        await put(client, track(integrations=integrations))
    assert {name for name in names if yard.got(name)} == wanted & set(names)
    assert client.stats().unrouted == (not wanted & set(names))


@pytest.mark.looptime
async def test_middleware_may_select(lab: Lab) -> None:
    """The client's own middleware may set the switches, as for any call."""
    yard = Yard(one=lab.script(), two=lab.script())
    async with yard.client(middleware=[assign({"integrations.one": False})]) as client:
        await put(client, track())
    assert (yard.got("one"), len(yard.got("two"))) == ([], 1)


@pytest.mark.looptime
async def test_what_a_destination_does_not_take(lab: Lab) -> None:
    """Its size or its kind stops an event at that destination, by name, and nowhere else."""
    yard = Yard(one=lab.script(), two=lab.script())
    async with yard.client({"two": {"middleware": [keep("properties.b")]}}) as client:
        await put(client, track(properties={"a": "x" * 40_000, "b": 1}), track(1))
    stats = client.stats().destinations
    assert stats["one"].dropped_by == {"too_large": 1}
    assert stats["two"].delivered == 2


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(st.text(max_size=3), st.integers() | st.text()),
                "integrations": st.dictionaries(
                    st.sampled_from(["All", "one", "two"]), st.booleans()
                ),
                "context": st.dictionaries(st.text(max_size=3), st.none() | st.text()),
                "extra": st.integers(),
            },
        ),
        max_size=8,
    )
)
async def test_the_law_holds_for_any_events(new_lab: type[Lab], given_members: list[Any]) -> None:
    """Whatever comes, each event is at each destination that it was for, with what it carried."""
    with new_lab() as lab:
        yard = Yard(one=lab.script(), two=lab.script())
        events = [track(n, **deepcopy(each)) for n, each in enumerate(given_members)]
        async with yard.client({"two": {"middleware": [redact("no")]}}) as client:
            await put(client, *events)
        assert client.stats().pending == 0
    for name in ("one", "two"):
        wanted = [
            f"m{n}"
            for n, each in enumerate(given_members)
            if (switches := each.get("integrations", {})).get(name, switches.get("All", True))
        ]
        assert [each["messageId"] for each in yard.got(name)] == wanted
    for got in yard.got("one"):
        sent = json.loads(json.dumps(given_members[int(got["messageId"][1:])]))
        assert {name: got[name] for name in sent} == sent


# ------------------------------------------------------------------------------- all or nothing


def _queueing(**settings: Any) -> dict[str, Any]:
    return {"queueing": Queueing(**settings)}


@pytest.mark.looptime
async def test_nothing_is_taken_where_one_queue_is_full(lab: Lab) -> None:
    """Neither the queue that is full nor the one that is not gets a part of a request."""
    down = lab.script(then=503)
    yard = Yard(up=lab.script(), down=down)
    rules = {"down": _queueing(max_events=100, max_wait=2.0)}
    async with yard.client(rules, shutdown_timeout=0) as client:
        loop = asyncio.get_running_loop()
        await put(client, *(track(n) for n in range(60)))
        before, started = client.stats().accepted, loop.time()
        with pytest.raises(QueueFull, match="'down'"):
            await put(client, *(track(n) for n in range(60, 101)))
        assert (client.stats().accepted, loop.time() - started) == (before, 2.0)
        await put(client, *(track(n) for n in range(60, 100)))
        assert client.stats().destinations["down"].pending == 100
    assert sorted(each["messageId"] for each in yard.got("up")) == sorted(
        f"m{n}" for n in range(100)
    )


@pytest.mark.looptime
async def test_a_request_waits_for_room_in_its_turn(lab: Lab) -> None:
    """Those that wait are let in together, in order, as soon as all of each one fits."""
    yard = Yard(slow=lab.script(then=lab.reply(delay=1.0)))
    rules = {"slow": _queueing(max_events=10)}
    async with yard.client(rules) as client:
        done: list[int] = []

        async def one(number: int) -> None:
            await put(client, *(track(number * 10 + n) for n in range(6)))
            done.append(number)

        await asyncio.gather(*map(one, range(5)))
    assert done == list(range(5))
    assert [each["messageId"] for each in yard.got("slow")] == [
        f"m{number * 10 + n}" for number in range(5) for n in range(6)
    ]


@pytest.mark.looptime
async def test_a_request_that_is_larger_than_a_queue(lab: Lab) -> None:
    """It goes in where nothing waits, so that it goes in at all."""
    yard = Yard(slow=lab.script(then=lab.reply(delay=1.0)))
    async with yard.client({"slow": _queueing(max_events=3)}) as client:
        await put(client, *(track(n) for n in range(10)))
        await put(client, *(track(n) for n in range(10, 20)))
    assert len(yard.got("slow")) == 20


@pytest.mark.looptime
@pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest"])
async def test_a_queue_that_drops_holds_nobody_up(lab: Lab, policy: Any) -> None:
    """What it drops is counted there, and the others get all."""
    yard = Yard(up=lab.script(), down=lab.script(then=503))
    rules = {"down": _queueing(max_events=10, when_full=policy)}
    async with yard.client(rules, shutdown_timeout=0) as client:
        await put(client, *(track(n) for n in range(50)))
        stats = client.stats().destinations
        assert stats["down"].dropped_by == {"queue_full": 40}
        await client._flushers[0].drain(hooks=True)
    assert len(yard.got("up")) == 50


@pytest.mark.looptime
async def test_several_clients_at_once(lab: Lab) -> None:
    """A request for two clients is in both, or in neither."""
    yards = [Yard(up=lab.script()), Yard(down=lab.script(then=503))]
    rules = {"down": _queueing(max_events=5, when_full="raise")}
    async with yards[0].client() as one, yards[1].client(rules, shutdown_timeout=0) as two:
        ways = [Forwarding(one), Forwarding(two)]

        async def both(*events: Event) -> None:
            await take([await way.plan(events) for way in ways], patience=1)

        await both(*(track(n) for n in range(3)))
        with pytest.raises(QueueFull):
            await both(*(track(n) for n in range(3, 6)))
        assert [each.stats().accepted for each in (one, two)] == [3, 3]


@pytest.mark.looptime
async def test_a_client_that_closes_takes_nothing(lab: Lab) -> None:
    """Who waits for room while it closes is told, and so is who comes later."""
    yard = Yard(down=lab.script(then=503))
    client = yard.client({"down": _queueing(max_events=5)})
    await client.start()
    await put(client, *(track(n) for n in range(5)))
    waiting = asyncio.create_task(put(client, track(5)))
    await asyncio.sleep(0.1)
    await client.aclose(0)
    with pytest.raises(Closed):
        await waiting
    with pytest.raises(Closed):
        await put(client, track(6))
    assert client.stats().accepted == 5


# -------------------------------------------------------------------------------------- the disk


async def test_a_request_shares_its_writes(lab: Lab, tmp_path: Path) -> None:
    """All of a request's events go to the disk together, for all destinations."""
    yard = Yard(one=lab.script(), two=lab.script())
    async with yard.client(spool=tmp_path / "spool") as client:
        assert client._journal is not None
        spool = client._journal._spool
        assert spool is not None
        appended: list[int] = []
        append = spool.append

        def watched(entries: Iterable[Any]) -> Any:
            rows = list(entries)
            appended.append(len(rows))
            return append(rows)

        spool.append = watched  # type: ignore[method-assign]
        await put(client, *(track(n) for n in range(100)))
        assert appended == [200]
        assert client.stats().spool is not None


async def test_what_the_disk_refuses_is_not_durable(lab: Lab, tmp_path: Path) -> None:
    """The request in whose time it fails is told so; those that come meanwhile leave no trace."""
    full = False

    def seal(content: bytes) -> bytes:
        if full:
            raise OSError("no space left")
        return content

    yard = Yard(one=lab.script(then=503))
    sealing = Sealing(seal=seal, open=lambda content: content)
    spool = Spooling(tmp_path / "spool", sealing=sealing)
    async with yard.client(spool=spool, shutdown_timeout=0) as client:
        await put(client, track(0))
        full = True
        with pytest.raises(NotDurable):
            await put(client, track(1))
        accepted = client.stats().accepted
        with pytest.raises(NotDurable):
            await put(client, track(2))
        assert client.stats().accepted == accepted == 2
        full = False
        while client._journal.is_failing:  # type: ignore[union-attr]  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # it looks again by itself
        await put(client, track(3))
    assert client.stats().pending == 3


async def test_a_disk_that_hangs(lab: Lab, tmp_path: Path) -> None:
    """Patience has an end, and then the events are not known to be durable."""
    yard = Yard(one=lab.script())
    async with yard.client(spool=tmp_path / "spool") as client:
        with forks.disk.alone, pytest.raises(NotDurable):
            await put(client, track(0), patience=0.1)
        await put(client, track(1))
    assert client.stats().delivered == 2


async def test_a_request_that_an_empty_spool_has_room_for(lab: Lab, tmp_path: Path) -> None:
    """It is taken, though as much for each of the destinations would be too much."""
    yard = Yard(one=lab.script(), two=lab.script(), three=lab.script())
    spool = Spooling(tmp_path / "spool", max_bytes=1 << 20)
    async with yard.client(spool=spool) as client:
        members = {"properties": {"x": "y" * 1_000}, "integrations": {"All": False, "one": True}}
        async with asyncio.timeout(20):
            await put(client, *(track(n, **deepcopy(members)) for n in range(300)))
            await client.flush()
    assert len(yard.got("one")) == 300
    assert client.stats().is_balanced
