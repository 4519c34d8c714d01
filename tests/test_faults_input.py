"""What callers hand in, at the door: carried to the server as it was, or refused in the caller.

The rules themselves are in test_encoding.py, test_calls.py and test_wire.py. Here each of them is
met through the client's own verbs, awaited and not, with middleware and several destinations and
without, and what counts is what arrives on the wire, in batches with others.
"""

from __future__ import annotations

import asyncio
import collections
import copy
import dataclasses
import datetime as dt
import enum
import math
import pathlib
import pickle
import traceback
import uuid
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from asyncanalytics import Batching, InvalidCall, Queueing, TooLarge, Unserialisable, bound_context

if TYPE_CHECKING:
    from conftest import Lab

pytestmark = pytest.mark.looptime

CANARY = "canary-7f3a"


class Colour(enum.Enum):
    """An enum."""

    RED = "red"


class Size(enum.IntEnum):
    """An enum of numbers."""

    LARGE = 3


@dataclasses.dataclass
class Line:
    """A dataclass."""

    sku: Any
    price: Any = None


@attrs.define
class Parcel:
    """An attrs class."""

    weight: Any


class Order(BaseModel):
    """A pydantic model, with a name on the wire of its own."""

    number: Any = Field(alias="orderNumber")
    placed: dt.datetime = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)


CARRIED: dict[str, tuple[Any, Any]] = {
    "datetime": (dt.datetime(2026, 1, 2, 3, 4, 5, 6000, dt.UTC), "2026-01-02T03:04:05.006000Z"),
    "naive datetime": (dt.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05Z"),  # noqa: DTZ001 - that is UTC
    "date": (dt.date(2026, 1, 2), "2026-01-02"),
    "time": (dt.time(3, 4, 5), "03:04:05"),
    "timedelta": (dt.timedelta(days=1, seconds=2.5), "P1DT2.5S"),
    "uuid": (uuid.UUID(int=7), str(uuid.UUID(int=7))),
    "decimal": (Decimal("19.90"), 19.9),
    "enum": (Colour.RED, "red"),
    "int enum": (Size.LARGE, 3),
    "set": ({5}, [5]),
    "frozenset": (frozenset("a"), ["a"]),
    "bytes": ("grün".encode(), "grün"),
    "bytearray": (bytearray(b"ab"), "ab"),
    "tuple": ((1, (2,)), [1, [2]]),
    "deque": (collections.deque([1]), [1]),
    "dataclass": (Line({"a": Decimal(1)}), {"sku": {"a": 1}, "price": None}),
    "attrs": (Parcel([Parcel(b"x")]), {"weight": [{"weight": "x"}]}),
    "model": (Order(orderNumber={1}), {"orderNumber": [1], "placed": "2026-01-02T00:00:00Z"}),
    "path": (pathlib.PurePosixPath("/a/b"), "/a/b"),
    "nan": (math.nan, None),
    "infinity": ([math.inf, -math.inf], [None, None]),
    "huge integer": (2**200, 2**200),
    "surrogate": ("a\ud800b", "a\ufffdb"),
    "pair of surrogates": ("\ud83d\ude00", "😀"),
    "keys": ({1: 2, 2.5: 3, None: 4}, {"1": 2, "2.5": 3, "null": 4}),
}


def unchanged(call: Any) -> Any:
    """Do nothing, as middleware: its presence alone sends calls another way."""
    return call


WAYS = ["straight", "middleware", "several", "both"]


def on_way(lab: Lab, way: str, server: Any, **more: Any) -> Any:
    """Make a client whose calls go one of the ways there are."""
    middleware = [unchanged] if way in ("middleware", "both") else []
    if way in ("straight", "middleware"):
        return lab.client(server, middleware=middleware, **more)
    other = lab.script()
    destinations = [lab.destination(server), lab.destination(other, "other")]
    return lab.client(destinations=destinations, middleware=middleware, **more)


@pytest.mark.parametrize("way", WAYS)
async def test_every_type_arrives(lab: Lab, way: str) -> None:
    """In properties, traits and the context, and beside each other in one batch."""
    given_, arrives = ({key: each[at] for key, each in CARRIED.items()} for at in (0, 1))
    collector = lab.collector()
    client = on_way(lab, way, collector)
    client.keeps_payloads = False  # what is compared below is compared as JSON
    async with client:
        client.track_nowait("Added File", user_id="u", properties=given_)
        await client.track("Added File", user_id="u", properties=given_)
        client.identify_nowait("u", traits=given_)
        await client.group("g", user_id="u", traits=given_)
        client.page_nowait("Home", user_id="u", properties=given_)
        await client.screen("Home", user_id="u", properties=given_)
        client.track_nowait("Added File", user_id="u", context={"mine": given_})
        with bound_context(context={"mine": given_}):
            await client.alias("u2", previous_id="u")
        for key, (value, _) in CARRIED.items():
            client.track_nowait("One", user_id="u", properties={key: value})
    events = [event.payload for event in collector.events()]
    assert len(events) == 8 + len(CARRIED)
    for event in events[:6]:
        assert event.get("properties", event.get("traits")) == arrives
    for event in events[6:8]:
        assert event["context"]["mine"] == arrives
    for event, (key, (_, value)) in zip(events[8:], CARRIED.items(), strict=True):
        assert event["properties"] == {key: value}
    assert collector.stats().bad == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("odd", ["surrogate", "huge integer", "nan", "decimal"])
async def test_an_odd_value_does_not_break_its_batch(lab: Lab, way: str, odd: str) -> None:
    """A hundred calls around one with such a value arrive with it, in one request."""
    server = lab.script()
    client = on_way(lab, way, server)
    client.keeps_payloads = False
    async with client:
        lab.burst(client, 50)
        client.page_nowait("\ud800", user_id="\ud800", properties={"\udfff": "\udfff"})
        client.track_nowait("Odd", user_id="u", properties={"x": CARRIED[odd][0]})
        lab.burst(client, 50)
    assert [len(request.ids) for request in server.requests] == [102]
    assert client.stats().destinations["custom"].delivered == 102


# --------------------------------------------------------------------------------------- refused


def circular() -> dict[str, Any]:
    """Make a dict that contains itself."""
    found: dict[str, Any] = {"secret": CANARY}
    found["again"] = [found]
    return found


def deep(levels: int) -> Any:
    """Make a dict that is so deep."""
    found: Any = CANARY
    for _ in range(levels):
        found = {"k": found}
    return found


class Hidden:
    """A value with no JSON form, whose text must not show."""

    def __repr__(self) -> str:
        return CANARY


class Faulty(collections.UserDict[str, Any]):
    """A mapping whose own code fails as it is read."""

    def __getitem__(self, _: str) -> Any:
        raise ValueError(CANARY)


Refusal = tuple[type[InvalidCall], str, str, tuple[Any, ...], dict[str, Any]]
USER = {"user_id": CANARY}
REFUSED: dict[str, Refusal] = {
    "no id": (InvalidCall, "user_id", "track", (CANARY,), {}),
    "empty id": (InvalidCall, "user_id", "track", (CANARY,), {"user_id": ""}),
    "zero": (InvalidCall, "user_id", "identify", (0,), {"traits": {"a": CANARY}}),
    "no identity": (InvalidCall, "user_id", "identify", (), {"traits": {"a": CANARY}}),
    "no id of a page": (InvalidCall, "user_id", "page", (CANARY,), {}),
    "no id of a screen": (InvalidCall, "user_id", "screen", (CANARY,), {}),
    "no id of a group's": (InvalidCall, "user_id", "group", (CANARY,), {}),
    "no group": (InvalidCall, "group_id", "group", ("",), USER),
    "no previous id": (InvalidCall, "previous_id", "alias", (CANARY,), {"previous_id": ""}),
    "no new id": (InvalidCall, "user_id", "alias", ("",), {"previous_id": CANARY}),
    "empty event": (InvalidCall, "event", "track", ("",), USER),
    "no text as event": (InvalidCall, "event", "track", ([CANARY],), USER),
    "a list of properties": (
        *(InvalidCall, "properties", "track", ("e",)),
        {**USER, "properties": [CANARY]},
    ),
    "text as traits": (InvalidCall, "traits", "identify", ("u",), {"traits": CANARY}),
    "a timestamp": (InvalidCall, "timestamp", "track", ("e",), {**USER, "timestamp": CANARY}),
    "a long id": (
        *(InvalidCall, "message_id", "track", ("e",)),
        {**USER, "message_id": CANARY * 20},
    ),
    "integrations": (
        *(InvalidCall, "integrations", "track", ("e",)),
        {**USER, "integrations": {"crm": CANARY}},
    ),
    "over the size limit": (
        *(TooLarge, "size", "track", ("e",)),
        {**USER, "properties": {"a": CANARY * 4_000}},
    ),
    "many small ones over the limit": (
        *(TooLarge, "size", "identify", ("u",)),
        {"traits": {f"{CANARY}{n}": n for n in range(3_000)}},
    ),
    "circular": (Unserialisable, "*", "track", ("e",), {**USER, "properties": circular()}),
    "circular traits": (Unserialisable, "*", "identify", ("u",), {"traits": circular()}),
    "circular context": (
        *(Unserialisable, "*", "track", ("e",)),
        {**USER, "context": {"mine": circular()}},
    ),
    "over-deep": (Unserialisable, "*", "track", ("e",), {**USER, "properties": deep(400)}),
    "far over-deep": (Unserialisable, "*", "track", ("e",), {**USER, "properties": deep(9_000)}),
    "an object": (
        *(Unserialisable, "properties.a.b[1]", "track", ("e",)),
        {**USER, "properties": {"a": {"b": [1, Hidden()]}}},
    ),
    "bytes": (
        *(Unserialisable, "traits.a", "identify", ("u",)),
        {"traits": {"a": b"\xff" + CANARY.encode()}},
    ),
    "a key": (
        *(Unserialisable, "properties", "track", ("e",)),
        {**USER, "properties": {Hidden(): 1}},
    ),
    "what fails": (
        *(Unserialisable, "properties.a", "track", ("e",)),
        {**USER, "properties": {"a": Faulty(k=1)}},
    ),
    "in the context": (
        *(Unserialisable, "context.mine", "track", ("e",)),
        {**USER, "context": {"mine": Hidden()}},
    ),
    "a function": (
        *(Unserialisable, "properties.a", "page", ("e",)),
        {**USER, "properties": {"a": print}},
    ),
}


@pytest.mark.parametrize("way", ["straight", "both"])
@pytest.mark.parametrize("twin", [False, True])
@pytest.mark.parametrize("what", REFUSED)
async def test_bad_input_is_refused_in_the_caller(
    lab: Lab, logged: pytest.LogCaptureFixture, what: str, way: str, *, twin: bool
) -> None:
    """The error names the call and the field, nothing shows the payload, nothing is accepted."""
    kind, field, verb, args, fields = REFUSED[what]
    async with on_way(lab, way, lab.script()) as client:
        call = getattr(super(type(client), client), verb + ("_nowait" if twin else ""))
        with pytest.raises(kind) as caught:
            await _maybe(call(*args, **fields))
        error = caught.value
        assert type(error) is kind
        assert error.call == verb
        assert field in (error.field, "*") or error.field.startswith(field)
        shown = [str(error), repr(error), str(vars(error)), *traceback.format_exception(error)]
        shown.append(str(pickle.loads(pickle.dumps(error))))  # noqa: S301 - our own
        shown.append(str(error.__cause__))
        shown += [each.getMessage() for each in logged.records]
        assert not [text for text in shown if CANARY in text]
        stats = client.stats()
        assert (stats.refused, stats.accepted, stats.pending) == (1, 0, 0)
        (fresh,) = await lab.track(client)
        assert (await fresh.settled()).delivered


async def _maybe(found: Any) -> Any:
    return await found if asyncio.iscoroutine(found) else found


# ------------------------------------------------------------------------- the caller's own data


def mutable() -> dict[str, Any]:
    """Make data of every kind that can be changed."""
    return {
        "dict": {"a": {"b": 1}},
        "list": [[1], {"k": 2}],
        "set": {1},
        "bytes": bytearray(b"one"),
        "deque": collections.deque([1]),
        "dataclass": Line(sku=["one"]),
        "attrs": Parcel(weight=[1]),
        "model": Order(orderNumber=[1]),
    }


def change(data: dict[str, Any]) -> None:
    """Change all of it, at every depth."""
    data["dict"]["a"]["b"] = 2
    data["dict"]["new"] = 1
    data["list"][0].append(2)
    data["list"][1]["k"] = 3
    data["set"].add(2)
    data["bytes"][:] = b"two"
    data["deque"].append(2)
    data["dataclass"].sku[0] = "two"
    data["attrs"].weight.append(2)
    data["model"].number.append(2)
    data["more"] = 1


CARRIES = {
    "dict": {"a": {"b": 1}},
    "list": [[1], {"k": 2}],
    "set": [1],
    "bytes": "one",
    "deque": [1],
    "dataclass": {"sku": ["one"], "price": None},
    "attrs": {"weight": [1]},
    "model": {"orderNumber": [1], "placed": "2026-01-02T00:00:00Z"},
}


@pytest.mark.parametrize("way", WAYS)
async def test_what_the_caller_changes_later_changes_no_event(lab: Lab, way: str) -> None:
    """The event is of the moment of its call, while it waits for room, in a queue, in a retry."""
    server = lab.script(503, 503, then=200)
    client = on_way(lab, way, server, queueing=Queueing(max_events=2), batching=Batching(linger=1))
    client.keeps_payloads = False
    async with client:
        tasks: list[asyncio.Task[Any]] = []
        given_ = []
        for number in range(6):
            data, context, switches = mutable(), {"mine": mutable()}, {"crm": {"a": [1]}}
            copies = copy.deepcopy((data, context, switches))
            fields = {"properties": data, "context": context, "integrations": switches}
            task = asyncio.create_task(client.track(f"e{number}", user_id="u", **fields))
            await asyncio.sleep(0)  # the last four wait for room now
            assert (data, context, switches) == copies
            tasks.append(task)
            given_.append((data, context, switches))
        assert not tasks[-1].done()
        for data, context, switches in given_:
            change(data)
            change(context["mine"])
            switches["crm"]["a"].append(2)
            switches["all"] = False
        await asyncio.gather(*tasks)
    events = {each["event"]: each for (each,) in server.arrived.values()}
    assert len(events) == 6
    for event in events.values():
        assert event["properties"] == CARRIES
        assert event["context"]["mine"] == CARRIES
        assert event["integrations"] == {"crm": {"a": [1]}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.uuids(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.builds(Line, inner)
    ),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    properties=st.dictionaries(st.text(max_size=5), JSON, max_size=4),
    mine=JSON,
    way=st.sampled_from(WAYS),
    bound=st.booleans(),
)
async def test_the_callers_data_are_never_changed(
    new_lab: type[Lab], properties: dict[str, Any], mine: Any, way: str, *, bound: bool
) -> None:
    """Whatever was given is the same object with the same content, bound or not, sent or not."""
    context = {"mine": mine, "app": {"name": "shop"}}
    traits = {**properties, "deep": {"list": [mine]}}
    before = repr((properties, context, traits))
    with new_lab() as lab:
        server = lab.script(503, 400, then=200)
        client = on_way(lab, way, server)
        client.keeps_payloads = False
        async with client:
            with bound_context(user_id="b", context={"app": {"version": "1"}, "mine": 1}):
                source = client.bind(context=context) if bound else client
                await source.track("e", user_id="u", properties=properties, context=context)
                source.identify_nowait("u", traits=traits, context=context)
            await client.flush()
    assert repr((properties, context, traits)) == before
