"""What is learned of names, forms, users and the rate is so, and is forgotten with the events."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jinja2")

from asyncanalytics.collector import Collector
from asyncanalytics.collector.insights import Insights
from asyncanalytics.collector.records import NAME_FIELDS, Filter
from asyncanalytics.collector.shapes import MAX_FIELDS
from asyncanalytics.collector.store import RequestRow, Store

if TYPE_CHECKING:
    from collections.abc import Iterator

MOMENT = "2026-11-01T10:00:{:02}.000Z"


def client(collector: Collector) -> httpx.AsyncClient:
    """Make a client that reaches the collector in process."""
    transport = httpx.ASGITransport(app=collector)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


async def post(collector: Collector, *events: Any) -> None:
    """Post a batch."""
    body = json.dumps({"batch": events}).encode()
    async with client(collector) as http:
        answer = await http.post(
            "/v1/batch", content=body, headers={"content-type": "application/json"}
        )
    assert answer.status_code == 200


async def get(collector: Collector, path: str, **params: Any) -> Any:
    """Get JSON that must be there."""
    async with client(collector) as http:
        return (await http.get(path, params=params or None)).raise_for_status().json()


def call(kind: str = "track", **fields: Any) -> dict[str, Any]:
    """Make a good call, with as little as it needs."""
    needs = {
        "track": {"event": "E"},
        "group": {"groupId": "g1"},
        "alias": {"previousId": "a1"},
    }
    return (
        {"type": kind, "messageId": str(uuid.uuid4()), "userId": "u1"}
        | needs.get(kind, {})
        | fields
    )


def keep(store: Store, *events: Any, second: int = 0) -> None:
    """Keep events that are good, in a request of their own."""
    rows = [
        (
            *(place, None, each.get("type"), None, each.get("userId"), each.get("anonymousId")),
            *(each.get("event"), each.get(NAME_FIELDS.get(each.get("type"), "event"))),
            *(None, json.dumps(each, ensure_ascii=False).encode()),
        )
        for place, each in enumerate(events)
    ]
    store.add(RequestRow(received_at=MOMENT.format(second)), rows)


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector in memory that lets everyone in."""
    with Collector() as made:
        yield made


# Names


async def test_names(collector: Collector) -> None:
    """Each kind of event is counted, the bad ones too, with when it was seen first and last."""
    await post(collector, *(call() for _ in range(3)), call(userId=7), call("page", name="E"))
    await post(collector, call("identify"), call("group"), 5, call(event="F"))
    first = collector.events()[0].received_at
    names = (await get(collector, "/names"))["names"]
    found = {(each["type"], each["name"]): (each["count"], each["bad"]) for each in names}
    assert found == {
        ("track", "E"): (4, 1),
        ("track", "F"): (1, 0),
        ("page", "E"): (1, 0),
        ("identify", None): (1, 0),
        ("group", "g1"): (1, 0),
        (None, None): (1, 1),
    }
    assert (names[0]["count"], names[0]["first_at"]) == (4, first)
    assert names[0]["last_at"] == first
    assert len((await get(collector, "/names", limit=2))["names"]) == 2


async def test_names_are_read_on(collector: Collector) -> None:
    """What comes later is added, once, whoever asks at the same time; and the last time moves."""
    store, insights = collector._store, collector._insights
    for second in range(3):
        keep(store, *(call() for _ in range(1_000)), second=second)
        found = await asyncio.gather(*(insights.names() for _ in range(5)))
        (name,) = found[0]
        assert found == [[name]] * 5
        assert name.count == 1_000 * (second + 1)
        assert (name.first_at, name.last_at) == (MOMENT.format(0), MOMENT.format(second))


def test_names_in_one_loop_after_another(collector: Collector) -> None:
    """A collector that is served again learns on, also when several ask at once."""

    async def ask() -> list[int]:
        keep(collector._store, *(call() for _ in range(600)))
        found = await asyncio.gather(*(collector._insights.names() for _ in range(3)))
        return [name.count for (name,) in found]

    with ThreadPoolExecutor(1) as thread:  # whose loops are not pytest's
        for count in (600, 1_200, 1_800):
            assert thread.submit(asyncio.run, ask()).result() == [count] * 3


@pytest.mark.parametrize("where", [{}, {"text": "gone"}])
async def test_deleted_events_are_forgotten(collector: Collector, where: dict[str, str]) -> None:
    """Whatever was learned is learned anew from what is left."""
    await post(collector, call(event="Gone", properties={"text": "gone"}))
    await post(collector, call("identify", userId="u1", anonymousId="gone", traits={"a": 1}))
    await post(collector, call("page", userId="u1", name="Stays"))
    for path in ("/names", "/schema?type=track&name=Gone", "/users/gone", "/rate"):
        await get(collector, path)
    async with client(collector) as http:
        assert (await http.delete("/events", params=where)).json()["deleted"] == (2 if where else 3)
        assert (await http.get("/schema?type=track&name=Gone")).status_code == 404
        assert (await http.get("/users/gone")).status_code == 404
    left = len(where)
    assert len((await get(collector, "/names"))["names"]) == left
    assert sum(each["good"] for each in (await get(collector, "/rate"))["rate"]) == left
    if left:
        assert (await get(collector, "/users/u1"))["ids"] == ["u1"]


# Forms


async def schema_of(*events: Any) -> Any:
    """Learn the form of some tracks of one name."""
    store = Store()
    for number, each in enumerate(events):
        keep(store, call(**each), second=number % 60)
    schema = await Insights(store).schema("track", "E")
    store.close()
    return schema


async def test_a_form() -> None:
    """Fields have paths, types, shares and a few examples; lists are one field."""
    schema = await schema_of(
        {"properties": {"price": 1, "items": [{"sku": "A"}, {"sku": "B", "n": 1}], "a.b": None}},
        {"properties": {"price": 2.5, "items": [], "flag": True}},
        {"properties": {"price": 2.5, "flag": False, "text": "x" * 100}},
        {"context": {"page": {"path": "/"}}, "properties": None},
    )
    fields = {each.path: each for each in schema.fields}
    assert (schema.seen, schema.unread, schema.more) == (4, 0, False)
    assert list(fields) == sorted(fields, key=lambda path: path.replace('"', "").split("."))
    shown = {path: (dict(each.types), each.count, each.share) for path, each in fields.items()}
    assert (
        shown.items()
        >= {
            "userId": ({"string": 4}, 4, 1.0),
            "properties": ({"object": 3, "null": 1}, 4, 1.0),
            "properties.price": ({"number": 3}, 3, 0.75),
            "properties.items": ({"array": 2}, 2, 0.5),
            "properties.items[]": ({"object": 1}, 1, 0.25),
            "properties.items[].sku": ({"string": 1}, 1, 0.25),
            "properties.items[].n": ({"number": 1}, 1, 0.25),
            'properties."a.b"': ({"null": 1}, 1, 0.25),
            "properties.flag": ({"boolean": 2}, 2, 0.5),
            "context.page.path": ({"string": 1}, 1, 0.25),
        }.items()
    )
    assert fields["properties.price"].examples == ("1", "2.5")
    assert fields["properties.items[].sku"].examples == ('"A"', '"B"')
    assert fields["properties.text"].examples == ('"' + "x" * 59 + '…"',)
    assert fields["properties"].examples == ("null",)
    assert not [each for each in schema.fields if each.changed]


@pytest.mark.parametrize(
    ("values", "changed_at"),
    [
        ([1, 2, "3", 4, "5"], 2),
        ([1, None, None, {"a": 1}], 3),
        ([None, 1, 2.5, None], None),
        ([True, 1], 1),
        (["a", ["a"]], 1),
        ([[1], [], ["x"]], None),
    ],
)
async def test_a_type_that_changed(values: list[Any], changed_at: int | None) -> None:
    """A second type is flagged, with when it was first seen; null is none, and 1 is like 1.5."""
    schema = await schema_of(*({"properties": {"value": each}} for each in values))
    (field,) = [each for each in schema.fields if each.path == "properties.value"]
    assert field.changed == (changed_at is not None)
    assert field.changed_at == (None if changed_at is None else MOMENT.format(changed_at))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda each: (
        st.lists(each, max_size=4) | st.dictionaries(st.sampled_from("ab\0.é"), each, max_size=4)
    ),
    max_leaves=12,
)


def seen_in(event: Any) -> set[tuple[tuple[str, ...], str]]:
    """Say which types there are at which places of an event, in the plainest way."""
    kinds = {type(None): "null", bool: "boolean", int: "number", float: "number", str: "string"}
    if isinstance(event, dict):
        inner = ((f".{name}", each) for name, each in event.items())
    elif isinstance(event, list):
        inner = (("[]", each) for each in event)
    else:
        return {((), kinds[type(event)])}
    found = {((), "object" if isinstance(event, dict) else "array")}
    for name, each in inner:
        found |= {((name, *path), kind) for path, kind in seen_in(each)}
    return found


@settings(max_examples=80, deadline=None)
@given(values=st.lists(json_values, min_size=1, max_size=6))
async def test_the_form_of_any_json(values: list[Any]) -> None:
    """Counts are right whatever is in the events, and everything can be shown."""
    with Collector() as collector:
        await post(collector, *(call(properties={"x": each}) for each in values))
        schema = await get(collector, "/schema", type="track", name="E")
    expected: dict[str, Counter[str]] = {}
    for each in values:
        for path, kind in seen_in(each):
            expected.setdefault(_path(("properties", "x"), path), Counter())[kind] += 1
    found = {each["path"]: each["types"] for each in schema["fields"]}
    shown = {path: types for path, types in found.items() if path.startswith("properties.x")}
    assert shown == expected
    for each in schema["fields"]:
        kinds = each["types"].keys() - {"null"}
        assert each["changed"] == (len(kinds) > 1)
        assert 1 <= each["count"] <= min(len(values), sum(each["types"].values()))
        assert each["share"] == each["count"] / len(values)
        assert len(each["examples"]) <= 3


def _path(start: tuple[str, ...], path: tuple[str, ...]) -> str:
    text = ".".join(start)
    for each in path:
        name = each.removeprefix(".")
        quoted = name if name in "abé" else json.dumps(name, ensure_ascii=False)
        text += each if each == "[]" else f".{quoted}"
    return text


async def test_names_made_of_data() -> None:
    """The tree of fields has its limit, which is told; events beyond it still count."""
    many = [{"properties": {f"user_{n}_{m}": 1 for m in range(500)}} for n in range(4)]
    schema = await schema_of(*many)
    assert (len(schema.fields), schema.seen, schema.more) == (MAX_FIELDS, 4, True)
    assert {each.count for each in schema.fields if each.path == "userId"} <= {4}


async def test_events_too_large_are_only_counted() -> None:
    """They are bad, and reading them could take long."""
    schema = await schema_of({"properties": {"text": "x" * 40_000}}, {"properties": {"a": 1}})
    assert (schema.seen, schema.unread) == (2, 1)
    assert "properties.text" not in {each.path for each in schema.fields}
    assert {each.share for each in schema.fields} == {1.0}
    only = await schema_of({"properties": {"text": "x" * 40_000}})
    assert (only.seen, only.unread, only.fields) == (1, 1, ())


async def test_kinds_without_a_name_or_a_type(collector: Collector) -> None:
    """No name and an empty one are two kinds, and so is no type."""
    await post(collector, call("identify"), call(event=""), call("click", event="E"), 5)
    assert (await get(collector, "/schema", type="identify"))["seen"] == 1
    assert (await get(collector, "/schema", type="track", name=""))["seen"] == 1
    assert (await get(collector, "/schema", name="E"))["type"] is None
    assert (await get(collector, "/schema"))["fields"][0]["path"] == "value"
    async with client(collector) as http:
        assert (await http.get("/schema?type=identify&name=")).status_code == 404
        assert (await http.get("/schema?kind=track")).status_code == 400


async def test_many_kinds(collector: Collector) -> None:
    """More kinds than are kept in mind are learned anew, and rightly."""
    await post(collector, *(call(event=f"E{n}") for n in range(150)))
    for _ in range(2):
        for number in range(150):
            schema = await collector._insights.schema("track", f"E{number}")
            assert schema is not None
            assert schema.seen == 1
    assert len(collector._insights._shapes) == 64


# Users


async def test_a_timeline(collector: Collector) -> None:
    """Identify and alias join ids; traits and groups gather; every event is there, in order."""
    await post(
        collector,
        call("page", userId=None, anonymousId="a1", messageId="1"),
        call("identify", anonymousId="a1", messageId="2", traits={"name": "A", "plan": "free"}),
        call("track", userId="old", messageId="3"),
        call("alias", previousId="old", messageId="4"),
        call("group", anonymousId="a1", userId=None, messageId="5", traits={"size": 1, "x": 1}),
        call("group", groupId="g2", messageId="6"),
        call("track", userId="other", anonymousId="a1", messageId="7"),
        call("identify", userId="other", messageId="8", traits={"name": "B"}),
        call("identify", messageId="9", traits={"plan": "paid"}),
        call("group", messageId="10", traits={"size": 2}),
        call("identify", anonymousId="bad", messageId=None, traits={"plan": "bad"}),
    )
    for user in ("u1", "a1", "old"):
        timeline = await get(collector, f"/users/{user}")
        assert timeline["user"] == user
        assert timeline["ids"] == ["a1", "u1", "old"]
        assert timeline["traits"] == {"name": "A", "plan": "paid"}
        groups = {each["group_id"]: each["traits"] for each in timeline["groups"]}
        assert groups == {"g1": {"size": 2, "x": 1}, "g2": {}}
        shown = [each["message_id"] for each in timeline["events"]]
        assert shown == ["1", "2", "3", "4", "5", "6", "7", "9", "10", None]
        assert (timeline["total"], timeline["next"]) == (10, None)
    assert (await get(collector, "/users/other"))["ids"] == ["other"]
    async with client(collector) as http:
        assert (await http.get("/users/nobody")).status_code == 404
        assert (await http.get("/users/g1")).status_code == 404
        assert (await http.get("/users/u1?user=u1")).status_code == 400


async def test_a_timeline_in_pages(collector: Collector) -> None:
    """It is paged as the events are, from either end."""
    await post(collector, *(call(messageId=str(n)) for n in range(25)))
    for order, key in (("oldest", "after"), ("newest", "before")):
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 10, "order": order}
        while True:
            page = await get(collector, "/users/u1", **query)
            seen += [each["message_id"] for each in page["events"]]
            assert page["total"] == 25
            if page["next"] is None:
                break
            query[key] = page["next"]
        numbers = [str(n) for n in range(25)]
        assert seen == (numbers if order == "oldest" else numbers[::-1])


ids = st.sampled_from(["a", "b", "c", "d", "e", "a\0", "é"])
links = st.lists(st.tuples(st.sampled_from(["identify", "alias", "track"]), ids, ids), max_size=14)


@settings(max_examples=120, deadline=None)
@given(links=links)
async def test_whom_ids_join(links: list[tuple[str, str, str]]) -> None:
    """Whatever the order, two ids are one user's exactly if a chain of calls joins them."""
    store = Store()
    for kind, one, other in links:
        joined = {"previousId": one} if kind == "alias" else {"anonymousId": one}
        keep(store, call(kind, userId=other, **joined))
    insights = Insights(store)
    groups = [{each} for each in ("a", "b", "c", "d", "e", "a\0", "é")]
    for kind, one, other in links:
        if kind != "track":
            both = [each for each in groups if each & {one, other}]
            groups = [each for each in groups if each not in both] + [set().union(*both)]
    for group in groups:
        events = [
            found.position
            for found in store.find(Filter())
            if {found.columns["user_id"], found.columns["anonymous_id"]} & group
        ]
        for each in group:
            timeline = await insights.timeline(each, limit=1_000)
            if timeline is None:
                assert events == []
                continue
            assert set(timeline.ids) == group
            assert [found.position for found in timeline.events] == events
            assert timeline.total == len(events)
    store.close()


async def test_odd_users(collector: Collector) -> None:
    """Ids and traits may be anything that JSON can hold."""
    traits = {"huge": 2**80, "lone": "\ud83d", "deep": json.loads("[" * 230 + "]" * 230)}
    await post(
        collector,
        call("identify", userId="a/b?c", anonymousId="\ud83d", traits=traits),
        call("identify", userId="a/b?c", traits=None),
        call("group", userId="a/b?c", groupId="\ud83d", traits=traits),
    )
    timeline = await get(collector, "/users/a%2Fb%3Fc")
    assert timeline["ids"] == ["\\ud83d", "a/b?c"]
    assert timeline["traits"] == traits
    assert timeline["groups"][0]["traits"] == traits
    assert (await get(collector, "/users/%5Cud83d"))["total"] == 3


async def test_a_user_of_many_ids(collector: Collector) -> None:
    """An id that was used for everyone joins them all, and still answers."""
    await post(
        collector, *(call("identify", userId=f"u{n}", anonymousId="all") for n in range(2_000))
    )
    timeline = await get(collector, "/users/u1999")
    assert (len(timeline["ids"]), timeline["total"]) == (2_001, 2_000)


# The rate


async def test_the_rate(collector: Collector) -> None:
    """Each of the last seconds has its count, good and bad, the empty ones too."""
    await post(collector, call(), call(), call(userId=5))
    rate = (await get(collector, "/rate", seconds=30))["rate"]
    assert len(rate) == 30
    seconds = [each["second"] for each in rate]
    assert seconds == list(range(seconds[0], seconds[0] + 30))
    assert abs(seconds[-1] - time.time()) < 5
    assert sum(each["good"] for each in rate) == 2
    assert sum(each["bad"] for each in rate) == 1
    assert len((await get(collector, "/rate"))["rate"]) == 60
    async with client(collector) as http:
        for wrong in ("0", "3601", "x"):
            assert (await http.get(f"/rate?seconds={wrong}")).status_code == 400


async def test_the_rate_forgets_after_an_hour(collector: Collector) -> None:
    """Old seconds are not held in memory."""
    for second in range(50):
        keep(collector._store, call(), second=second)
    await post(collector, call())
    rate = await collector._insights.rate(10_000)
    assert len(rate) == 3_600
    assert sum(each.good for each in rate) == len(collector._insights._rate._seen) == 1
