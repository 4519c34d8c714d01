"""Transformations: what each makes of a call, and that none changes or breaks what it is given."""

from __future__ import annotations

import hashlib
import hmac
import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncanalytics import ConfigurationError, Group, Identify, Track, paths
from asyncanalytics.middleware import (
    OnWire,
    assign,
    cast,
    consent,
    drop,
    keep,
    pseudonymise,
    rename,
    sample,
    template,
)

if TYPE_CHECKING:
    from conftest import Lab

looptime = pytest.mark.looptime
KEY = "sixteen bytes at least"
MADE: dict[str, OnWire] = {
    "rename within": rename({"properties.a": "properties.b"}),
    "rename across": rename({"properties.a": "traits.deep.b", "extra": "context.extra"}),
    "keep": keep("properties.a.b", "traits", "properties.list.a"),
    "drop": drop("properties.a", "context", "userId"),
    "assign": assign({"properties.a.b.c": [1], "context.x": None}),
    "pseudonymise": pseudonymise("userId", "traits.a", "properties.list.a", key=KEY),
    "cast to text": cast({"properties.a": "text", "properties.list.a": "text"}),
    "cast to int": cast({"properties.a": "int", "properties.list.a": "int"}),
    "cast to float": cast({"properties.a": "float", "userId": "float"}),
    "cast to bool": cast({"properties.a": "bool", "traits.a": "bool"}),
    "template": template({"properties.t": "{event}: {properties.a} {{}}", "event": "{traits.a}"}),
    "sample": sample(0.5),
    "consent": consent("a"),
}

NAMES = st.sampled_from(["a", "b", "list", "deep", "x", ""])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "a", "1", "1e400", "12.7", "true", " NO ", "9" * 5_000, "ä\ud800"]),
    st.text(max_size=5),
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
CALLS = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "identify"]), "messageId": st.just("m")},
    optional=dict.fromkeys(["userId", "event", "properties", "traits", "context", "extra"], JSON),
)


# ------------------------------------------------------------------------------------- promises


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=50, deadline=None)
@given(call=CALLS)
def test_no_data_breaks_one_or_is_changed_by_it(name: str, call: dict[str, Any]) -> None:
    """Whatever JSON comes, JSON goes on; what was given is as it was, and so are type and id."""
    before = deepcopy(call)
    made = MADE[name].apply(call)
    assert call == before
    if made is not None:
        json.dumps(made)
        assert (made["type"], made["messageId"]) == (call["type"], "m")
        again = MADE[name].apply(deepcopy(call))
        assert again == made


@given(call=CALLS)
def test_what_leads_nowhere_changes_nothing(call: dict[str, Any]) -> None:
    """The call itself comes back, so that nobody encodes it anew."""
    for each in (
        rename({"properties.no": "properties.never", "traits.no": "extra.no"}),
        drop("properties.no.where", "nowhere"),
        pseudonymise("context.no", key=KEY),
        cast({"no.where": "int"}),
        template({"properties.t": "{no.where}"}),
    ):
        assert each.apply(call) is call


@given(st.lists(st.text(min_size=1), min_size=1))
def test_every_name_can_be_written_in_a_path(names: list[str]) -> None:
    """A backslash takes from a dot, and from a backslash, what it would mean."""
    text = ".".join(each.replace("\\", "\\\\").replace(".", "\\.") for each in names)
    if names[0] not in paths._WIRE_NAMES:
        assert paths.parse(text) == tuple(names)


@pytest.mark.parametrize(
    "text", ["", ".", "a.", ".a", "a..b", "a\\", None, 7, "user_id", "message_id.x"]
)
def test_what_is_no_path(text: Any) -> None:
    """It is said where it is written; Python's names of fields are told from the wire's."""
    with pytest.raises(ConfigurationError):
        drop(text)


def test_the_python_name_of_a_field() -> None:
    """Nothing is worse than a rule for personal data that does nothing."""
    with pytest.raises(ConfigurationError, match="write userId"):
        pseudonymise("user_id", key=KEY)


@pytest.mark.parametrize("path", ["type", "messageId"])
def test_how_a_call_is_known_stays(path: str) -> None:
    """Retries, receipts and destinations rely on both."""
    for make in (
        lambda: drop(path),
        lambda: assign({path: "x"}),
        lambda: rename({path: "x"}),
        lambda: rename({"x": path}),
        lambda: pseudonymise(path, key=KEY),
    ):
        with pytest.raises(ConfigurationError, match="cannot be changed"):
            make()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "make",
    [
        lambda: rename({}),
        keep,
        drop,
        lambda: assign({}),
        lambda: cast({}),
        lambda: template({}),
        lambda: pseudonymise(key=KEY),
        lambda: rename(7),  # type: ignore[arg-type]
        lambda: cast({"properties.a": "number"}),  # type: ignore[dict-item]
        lambda: template({"a": ""}),
        lambda: template({"a": "{"}),
        lambda: template({"a": "{b!r}"}),
        lambda: template({"a": "{b:3}"}),
        lambda: template({"a": "{}"}),
        lambda: pseudonymise("a", key="short"),
        lambda: pseudonymise("a", key=None),  # type: ignore[arg-type]
        consent,
    ],
)
def test_what_cannot_work(make: Any) -> None:
    """It raises where it is written."""
    with pytest.raises(ConfigurationError):
        make()


# ------------------------------------------------------------------------------------------ each


def made(middleware: OnWire, **members: Any) -> Any:
    """Apply a middleware to some members."""
    return middleware.apply({"type": "track", "messageId": "m", **members})


def test_rename() -> None:
    """Members move within their parent, across parents, and within each item of a list."""
    step = rename(
        {"properties.a": "properties.b", "properties.c": "traits.deep.c", "x": "properties.x"}
    )
    found = made(step, properties={"a": 1, "b": 2, "c": 3}, x=4)
    assert found["properties"] == {"b": 1, "x": 4}
    assert found["traits"] == {"deep": {"c": 3}}
    assert "x" not in found
    items = made(
        rename({"properties.list.a": "properties.list.b"}), properties={"list": [{"a": 1}, 2]}
    )
    assert items["properties"] == {"list": [{"b": 1}, 2]}
    inside = made(rename({"properties": "properties.all"}), properties={"a": 1})
    assert inside["properties"] == {"all": {"a": 1}}


def test_rename_loses_nothing() -> None:
    """A value that has nowhere to go stays where it is."""
    call = {"type": "track", "messageId": "m", "properties": {"a": 1}, "traits": "text"}
    assert rename({"properties.a": "traits.a"}).apply(call) is call
    assert rename({"properties.a": "properties.a"}).apply(call) == call


def test_keep() -> None:
    """What is not named goes, but for what makes a call."""
    found = made(
        keep("properties.a", "properties.list.b", "context.app"),
        userId="u",
        event="E",
        integrations={"All": True},
        timestamp="2026-11-01",
        properties={"a": 1, "z": 2, "list": [{"b": 1, "z": 2}, "text"]},
        traits={"email": "x"},
        context={"ip": "x", "app": {"name": "shop"}},
        extra=1,
    )
    assert found.keys() == {
        *("type", "messageId", "userId", "event", "integrations", "timestamp"),
        *("properties", "context"),
    }
    assert found["properties"] == {"a": 1, "list": [{"b": 1}]}
    assert found["context"] == {"app": {"name": "shop"}}


def test_keep_a_whole_beside_its_part() -> None:
    """The wider path wins, in whichever order they are given."""
    for each in (keep("traits", "traits.a"), keep("traits.a", "traits")):
        assert made(each, traits={"a": 1, "b": 2})["traits"] == {"a": 1, "b": 2}
    assert "traits" not in made(keep("traits.a"), traits="text")


def test_drop() -> None:
    """Members go, in each item of a list too."""
    step = drop("properties.list.email", "context.ip", "extra")
    found = made(
        step, properties={"list": [{"email": 1, "a": 2}]}, context={"ip": 1, "b": 2}, extra=1
    )
    assert found == {
        "type": "track",
        "messageId": "m",
        "properties": {"list": [{"a": 2}]},
        "context": {"b": 2},
    }


def test_assign() -> None:
    """Values are set whatever was there, objects are made on the way, each call has its own."""
    step = assign({"context.app.name": "shop", "properties.tags": ["a"], "userId": "u"})
    one, two = made(step, properties=None), made(step, properties={"tags": 1})
    assert one["context"] == {"app": {"name": "shop"}}
    assert one["properties"] == two["properties"] == {"tags": ["a"]}
    one["properties"]["tags"].append("b")
    assert made(step)["properties"] == {"tags": ["a"]}
    assert made(assign({"properties.a": 1}), properties="text")["properties"] == "text"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("text", {7: "7", 1.5: "1.5", True: "true", "a": "a", None: None}),
        ("int", {"42": 42, " -7 ": -7, "4.9": 4, 4.9: 4, True: 1, "42kb": "42kb", "1e3": 1000}),
        ("int", {"1_000": "1_000", "٤": "٤", None: None, "": "", "1e400": "1e400"}),
        ("float", {"4.5": 4.5, 4: 4.0, "1e3": 1000.0, "inf": "inf", "nan": "nan", "": ""}),
        ("float", {10**400: 10**400, "1e400": "1e400"}),
        (
            "bool",
            {"true": True, "No": False, "on": True, 0: False, 1: True, 2: 2, "x": "x", "": ""},
        ),
    ],
    ids=["text", "int", "no-int", "float", "no-float", "bool"],
)
def test_cast(kind: Any, values: dict[Any, Any]) -> None:
    """What can be cast is, and the rest stays as it is."""
    for value, wanted in values.items():
        found = made(cast({"properties.a": kind}), properties={"a": value})["properties"]["a"]
        assert (found, type(found)) == (wanted, type(wanted))
    nested = {"a": {"b": 1}}
    assert made(cast({"properties.a": kind}), properties=nested)["properties"] == nested


def test_template() -> None:
    """Paths are filled in; where one leads nowhere the member stays."""
    step = template({"properties.t": "{event}/{properties.n}/{properties.ok}/{properties.o} {{x}}"})
    found = made(step, event="E", properties={"n": 1.5, "ok": True, "o": {"a": [1]}})
    assert found["properties"]["t"] == 'E/1.5/true/{"a":[1]} {x}'
    assert made(step, event="E", properties={"t": "before"})["properties"] == {"t": "before"}
    assert made(step, event="E", properties={"n": None, "ok": 1, "o": 1})["properties"]["n"] is None


def test_pseudonymise() -> None:
    """It is the keyed hash of the text that the value has; lists are gone through."""

    def wanted(text: str) -> str:
        return hmac.new(KEY.encode(), text.encode(), hashlib.sha256).hexdigest()

    step = pseudonymise("userId", "traits.ids", "traits.who", "traits.no", key=KEY)
    found = made(
        step, userId="u1", traits={"ids": [7, "7", None], "who": {"b": 1, "a": 2}, "no": ""}
    )
    assert found["userId"] == wanted("u1")
    assert found["traits"]["ids"] == [wanted("7"), wanted("7"), None]
    assert found["traits"]["who"] == wanted('{"a":2,"b":1}')
    assert found["traits"]["no"] == ""
    same = made(pseudonymise("userId", key=KEY.encode()), userId="u1")
    other = made(pseudonymise("userId", key=KEY + "!"), userId="u1")
    assert same["userId"] == found["userId"] != other["userId"]


# ------------------------------------------------------------------------------------ in a client


@looptime
async def test_they_work_on_a_clients_calls(lab: Lab) -> None:
    """In the order in which they are given, on models too; the caller's data stay as they are."""
    server = lab.script()
    middleware = [
        rename({"properties.total": "properties.revenue"}),
        cast({"properties.revenue": "float"}),
        template({"properties.label": "{event} of {userId}"}),
        pseudonymise("userId", key=KEY),
        assign({"context.app.name": "shop"}),
    ]
    properties = {"total": "12.5", "deep": {"a": 1}}
    async with lab.client(server, middleware=middleware) as client:
        await client.track("Ordered", user_id="u1", properties=properties)
    (sent,) = server.requests[0].events
    assert sent["properties"] == {"revenue": 12.5, "deep": {"a": 1}, "label": "Ordered of u1"}
    assert len(sent["userId"]) == 64
    assert sent["context"]["app"] == {"name": "shop"}
    assert properties == {"total": "12.5", "deep": {"a": 1}}


@looptime
async def test_a_call_that_is_none_any_more(lab: Lab, logged: pytest.LogCaptureFixture) -> None:
    """Without its user a call is dropped as an error, counted, and said once without its data."""
    server = lab.script()
    destinations = [lab.destination(server, "crm", middleware=[drop("userId")])]
    async with lab.client(destinations=destinations) as client:
        await lab.track(client, 3)
        stats = client.stats().destinations["crm"]
    assert stats.dropped_by == {"middleware_error": 3}
    assert len([each for each in logged.records if each.levelname == "ERROR"]) == 1


def test_a_model_comes_back_as_the_same_kind() -> None:
    """A middleware is a function from call to call."""
    call = Group(group_id="g", user_id="u", traits={"a": "1"})
    made_of = cast({"traits.a": "int"})(call)
    assert isinstance(made_of, Group)
    assert made_of.traits == {"a": 1}
    assert drop("traits.no")(call) is call
    assert isinstance(assign({"traits.b": 1})(Identify(user_id="u")), Identify)
    assert sample(0.0)(Track(event="E", user_id="u")) is None
