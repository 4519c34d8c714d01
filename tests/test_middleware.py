"""Middleware: how calls pass through it, and the three that are ready to use."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from asyncanalytics import (
    Alias,
    Call,
    ConfigurationError,
    Context,
    Group,
    Identify,
    Page,
    Track,
    Unserialisable,
)
from asyncanalytics.middleware import enrich, redact, sample

if TYPE_CHECKING:
    from conftest import Lab

looptime = pytest.mark.looptime


def add(**more: Any) -> Any:
    """Make middleware that adds properties to a track call."""

    def change(call: Call) -> Call:
        assert isinstance(call, Track)
        return call.model_copy(update={"properties": {**(call.properties or {}), **more}})

    return change


def sent(server: Any) -> list[dict[str, Any]]:
    """The calls that a server got."""
    return [event for request in server.requests for event in request.events]


# ------------------------------------------------------------------------------------ the onion


@looptime
async def test_middleware_runs_in_order(lab: Lab) -> None:
    """Each gets what the one before returned."""
    server = lab.script()
    middleware = [add(a=1, b=1), add(b=2)]
    async with lab.client(server, middleware=middleware) as client:
        await client.track("Ordered", user_id="u", properties={"a": 0})
    assert sent(server)[0]["properties"] == {"a": 1, "b": 2}


@looptime
async def test_a_destinations_own_runs_after_on_a_copy(lab: Lab) -> None:
    """What a destination's middleware does is seen by no other destination."""
    one, two, three = lab.script(), lab.script(), lab.script()

    def in_place(call: Call) -> Call:
        assert isinstance(call, Track)
        assert call.properties is not None
        call.properties["deep"]["one"] = True
        return call

    destinations = [
        lab.destination(one, "one", middleware=[in_place]),
        lab.destination(two, "two", middleware=[add(two=True)]),
        lab.destination(three, "three"),
    ]
    async with lab.client(destinations=destinations, middleware=[add(all=True)]) as client:
        await client.track("Ordered", user_id="u", properties={"deep": {}})
    assert sent(one)[0]["properties"] == {"deep": {"one": True}, "all": True}
    assert sent(two)[0]["properties"] == {"deep": {}, "all": True, "two": True}
    assert sent(three)[0]["properties"] == {"deep": {}, "all": True}
    assert len({each[0]["messageId"] for each in map(sent, (one, two, three))}) == 1


@looptime
async def test_the_callers_data_are_never_changed(lab: Lab) -> None:
    """Middleware that changes a call in place changes nothing of the caller's."""

    def in_place(call: Call) -> Call:
        assert isinstance(call, Track)
        assert call.properties is not None
        call.properties["deep"]["more"] = 1
        call.properties["more"] = 1
        return call

    server = lab.script()
    properties: dict[str, Any] = {"deep": {}}
    async with lab.client(server, middleware=[in_place]) as client:
        await client.track("Ordered", user_id="u", properties=properties)
    assert sent(server)[0]["properties"] == {"deep": {"more": 1}, "more": 1}
    assert properties == {"deep": {}}


@looptime
async def test_a_dropped_call_is_counted_and_not_logged(
    lab: Lab, logged: pytest.LogCaptureFixture
) -> None:
    """None drops a call for all destinations, or for one; its receipt says so."""
    one, two = lab.script(), lab.script()
    destinations = [
        lab.destination(one, "one", middleware=[lambda call: None]),  # noqa: ARG005
        lab.destination(two, "two"),
    ]
    async with lab.client(destinations=destinations) as client:
        outcome = await (await lab.track(client))[0].settled()
    assert (outcome.destination, outcome.reason) == ("one", "middleware")
    assert (len(one.requests), len(two.requests)) == (0, 1)
    assert client.stats().destinations["one"].dropped_by == {"middleware": 1}
    assert not logged.records
    never: Any = [lambda call: None]  # noqa: ARG005
    async with lab.client(lab.script(), middleware=never) as client:
        assert (await (await lab.track(client))[0].settled()).reason == "middleware"


def _raises(_: Call) -> Call:
    raise ValueError("a-value-that-no-log-line-shows")


async def _is_async(call: Call) -> Call:
    return call


def _breaks(call: Call) -> Call:
    return call.model_copy(update={"event": ""})


def _loses_the_user(call: Call) -> Call:
    return call.model_copy(update={"user_id": None})


@looptime
@pytest.mark.parametrize("place", ["client", "destination"])
@pytest.mark.parametrize(
    "middleware",
    [
        _raises,
        lambda call: {"event": call.event},
        lambda call: "yes",  # noqa: ARG005
        lambda call: True,  # noqa: ARG005
        lambda call: Context(),  # noqa: ARG005
        _breaks,
        _loses_the_user,
    ],
    ids=["raises", "dict", "text", "true", "context", "no-event", "no-user"],
)
async def test_middleware_that_fails_drops_the_call(
    lab: Lab, logged: pytest.LogCaptureFixture, middleware: Any, place: str
) -> None:
    """What it raises or returns amiss drops the call, is said once, and leaves the caller alone."""
    server = lab.script()
    if place == "client":
        client = lab.client(server, middleware=[middleware])
    else:
        client = lab.client(destinations=[lab.destination(server, middleware=[middleware])])
    async with client:
        for receipt in await lab.track(client, 5):
            assert (await receipt.settled()).reason == "middleware_error"
    assert client.stats().destinations["custom"].dropped_by == {"middleware_error": 5}
    assert not server.requests
    assert 1 <= len(logged.records) <= 2
    assert {each.levelno >= logging.WARNING for each in logged.records} == {True}


def test_async_middleware_is_refused(lab: Lab) -> None:
    """Middleware is a plain function: an async one is refused where it is given."""
    with pytest.raises(ConfigurationError, match="cannot be async"):
        lab.client(lab.script(), middleware=[_is_async])


@looptime
async def test_what_middleware_adds_and_has_no_json_is_not_the_callers_mistake(lab: Lab) -> None:
    """A call that middleware has spoilt is dropped and counted; the caller is not disturbed."""
    server = lab.script()
    async with lab.client(server, middleware=[add(a=object())]) as client:
        outcome = await (await lab.track(client))[0].settled()
    assert outcome.reason == "middleware_error"
    assert (client.stats().refused, len(server.requests)) == (0, 0)


@looptime
async def test_the_callers_own_mistake_still_raises(lab: Lab) -> None:
    """What the caller gave and has no JSON form raises in the caller, with middleware too."""
    async with lab.client(lab.script(), middleware=[lambda call: call]) as client:
        with pytest.raises(Unserialisable):
            await client.track("Ordered", user_id="u", properties={"a": object()})
    assert client.stats().accepted == 0


@looptime
async def test_the_callers_own_mistake_raises_where_destinations_copy(lab: Lab) -> None:
    """A value that cannot even be copied is the caller's mistake as well."""
    destination = lab.destination(lab.script(), middleware=[lambda call: call])
    async with lab.client(destinations=[destination]) as client:
        with pytest.raises(Unserialisable):
            await client.track("Ordered", user_id="u", properties={"a": (n for n in "ab")})
    assert client.stats().accepted == 0


@looptime
async def test_middleware_may_change_ids(lab: Lab) -> None:
    """A message id that middleware sets is the receipt's, and the wire's."""
    server = lab.script()

    def rename(call: Call) -> Call:
        return call.model_copy(update={"message_id": f"shop-{call.user_id}"})

    async with lab.client(server, middleware=[rename]) as client:
        receipt = await client.track("Ordered", user_id="u")
    assert receipt.message_id == sent(server)[0]["messageId"] == "shop-u"
    servers = [lab.script(), lab.script()]
    destinations = [lab.destination(each, f"d{at}") for at, each in enumerate(servers)]
    async with lab.client(destinations=destinations, middleware=[rename]) as client:
        receipt = await client.track("Ordered", user_id="u")
    assert {sent(each)[0]["messageId"] for each in servers} == {receipt.message_id} == {"shop-u"}


@looptime
async def test_middleware_sees_what_will_be_sent(lab: Lab) -> None:
    """The call has its id and its timestamp already, and integrations it sets are obeyed."""
    one, two = lab.script(), lab.script()
    seen: list[Call] = []

    def choose(call: Call) -> Call:
        seen.append(call)
        return call.model_copy(update={"integrations": {"two": False}})

    destinations = [lab.destination(one, "one"), lab.destination(two, "two")]
    async with lab.client(destinations=destinations, middleware=[choose]) as client:
        receipt = await client.track("Ordered", user_id="u")
    assert seen[0].message_id == receipt.message_id
    assert seen[0].timestamp == sent(one)[0]["timestamp"]
    assert not two.requests


# --------------------------------------------------------------------------------------- redact


class Customer(BaseModel):
    """A model in properties."""

    email: str = "a@example.com"
    name: str = "Arthur"


@dataclass
class Order:
    """A dataclass in properties."""

    email: str = "a@example.com"
    number: int = 7


@attrs.define
class Basket:
    """An attrs class in properties."""

    email: str = "a@example.com"
    size: int = 2


@looptime
async def test_redact_on_the_wire(lab: Lab) -> None:
    """Nothing of a redacted value leaves, wherever it was; the caller's data stay."""
    server = lab.script()
    properties: dict[str, Any] = {
        "email": "a@example.com",
        "list": [{"email": "a@example.com", "n": 1}, ({"email": "a@example.com"},)],
        "models": {"model": Customer(), "order": Order(), "basket": Basket()},
        "deque": deque([{"email": "a@example.com"}]),
        "plain": [1, "two", None, 3.5, b"four"],
    }
    before = deepcopy(properties)
    context = {"traits": {"email": "a@example.com"}, "email": "a@example.com", "ip": "10.0.0.1"}
    async with lab.client(server, middleware=[redact("email", "ip")]) as client:
        await client.track("Ordered", user_id="u", properties=properties, context=context)
        await client.identify("u", traits={"email": "a@example.com", "age": 42})
    assert properties == before
    for request in server.requests:
        assert b"a@example.com" not in request.content
        assert b"10.0.0.1" not in request.content
    track, identify = sent(server)
    assert track["properties"]["email"] == "[redacted]"
    assert track["properties"]["list"] == [
        {"email": "[redacted]", "n": 1},
        [{"email": "[redacted]"}],
    ]
    assert track["properties"]["models"] == {
        "model": {"email": "[redacted]", "name": "Arthur"},
        "order": {"email": "[redacted]", "number": 7},
        "basket": {"email": "[redacted]", "size": 2},
    }
    assert track["properties"]["plain"] == [1, "two", None, 3.5, "four"]
    assert track["context"]["traits"] == {"email": "[redacted]"}
    assert track["context"]["ip"] == "[redacted]"
    assert identify["traits"] == {"email": "[redacted]", "age": 42}


def test_redact_a_path() -> None:
    """A dotted name is the end of a path: other members of the same name stay."""
    call = Track(
        event="e",
        user_id="u",
        properties={
            "card": {"number": "4111"},
            "number": 7,
            "buyer": {"card": [{"number": "4111", "cards": 1}]},
            "discard": {"number": 8},
            "flat.card.number": "4111",
        },
    )
    changed = redact("card.number", replacement="***")(call)
    assert changed is not None
    assert changed.properties == {  # type: ignore[attr-defined]
        "card": {"number": "***"},
        "number": 7,
        "buyer": {"card": [{"number": "***", "cards": 1}]},
        "discard": {"number": 8},
        "flat.card.number": "***",
    }


def test_redact_takes_whole_groups() -> None:
    """A name of a group redacts all of it."""
    call = Identify(user_id="u", traits={"address": {"city": "Bath"}, "age": 42})
    changed = redact("address")(call)
    assert changed is not None
    assert changed.traits == {"address": "[redacted]", "age": 42}  # type: ignore[attr-defined]


def test_redact_leaves_out_what_takes_no_text() -> None:
    """A field of the context that cannot hold the replacement goes; the rest stays valid."""
    context = Context.model_validate(
        {
            "screen": {"width": 1, "height": 2, "label": "x"},
            "network": {"wifi": True},
            "app": {"name": "shop", "version": "1"},
            "active": True,
            "userAgent": "browser",
        }
    )
    call = Page(user_id="u", context=context)
    changed = redact("width", "wifi", "app", "active", "userAgent")(call)
    assert changed is not None
    assert changed.context is not None
    assert changed.context.wire() == {
        "screen": {"height": 2, "label": "x"},
        "network": {},
        "userAgent": "[redacted]",
    }
    assert call.context is context
    assert context.screen is not None
    assert context.screen.width == 1


def test_redact_hands_on_what_has_nothing_to_hide() -> None:
    """A call without any of the names is the same call, not a copy."""
    call = Group(group_id="g", user_id="u", traits={"plan": ["pro", {"seats": 3}]})
    assert redact("email")(call) is call
    alias = Alias(user_id="u2", previous_id="u1")
    assert redact("email")(alias) is alias
    odd = Track(event="e", user_id="u", properties={"a": object(), "b": Track})
    assert redact("email")(odd) is odd


@pytest.mark.parametrize("names", [(), ("",), ("email", "")])
def test_redact_needs_names(names: tuple[str, ...]) -> None:
    """Redaction of nothing is a mistake."""
    with pytest.raises(ConfigurationError, match="redact"):
        redact(*names)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["email", "a", "b"]), inner, max_size=3)
    ),
    max_leaves=20,
)


def _values(data: Any, name: str) -> list[Any]:
    if isinstance(data, dict):
        own = [value for key, value in data.items() if key == name]
        return own + [each for value in data.values() for each in _values(value, name)]
    if isinstance(data, list):
        return [each for value in data for each in _values(value, name)]
    return []


@settings(max_examples=60, deadline=None)
@given(data=st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_redact_finds_every_one(data: dict[str, Any]) -> None:
    """However deep they are, all are redacted, all else stays, and nothing given is changed."""
    before = deepcopy(data)
    call = Track(event="e", user_id="u", properties=data)
    changed = redact("email")(call)
    assert isinstance(changed, Track)
    assert data == before
    assert set(_values(changed.properties, "email")) <= {"[redacted]"}
    for name in ("a", "b"):
        assert len(_values(changed.properties, name)) <= len(_values(before, name))
    if not _values(before, "email"):
        assert changed is call


# --------------------------------------------------------------------------------------- sample


def test_sample_is_the_same_for_a_user_for_good() -> None:
    """A user is in or out, in each call and each process, and stays in when the rate grows."""
    ids = [f"user-{number}" for number in range(2_000)]

    def kept(rate: float) -> set[str]:
        keep = sample(rate)
        return {each for each in ids if keep(Track(event="e", user_id=each)) is not None}

    tenth, third = kept(0.1), kept(0.3)
    assert tenth == kept(0.1)
    assert tenth < third
    assert 140 <= len(tenth) <= 260
    assert 500 <= len(third) <= 700
    assert kept(0) == set()
    assert kept(1) == set(ids)
    pinned = Track(event="e", user_id="user-7")  # at 0.2454: a change would move every user
    assert (sample(0.25)(pinned), sample(0.24)(pinned)) == (pinned, None)


def test_sample_keeps_all_calls_of_a_user_together() -> None:
    """Every kind of call of one user has the same fate."""
    keep = sample(0.5)
    for number in range(50):
        user = f"user-{number}"
        calls: list[Call] = [
            Identify(user_id=user),
            Track(event="e", user_id=user),
            Group(group_id="g", user_id=user),
            Alias(user_id=user, previous_id="x"),
        ]
        assert len({keep(call) is None for call in calls}) == 1


def test_sample_by_other_ids() -> None:
    """Other ids may decide; a call without the id is decided by the one it has."""
    by_anonymous, by_user = sample(0.5, by="anonymous_id"), sample(0.5)
    for number in range(50):
        both = Track(event="e", user_id="u", anonymous_id=f"a{number}")
        alone = Track(event="e", anonymous_id=f"a{number}")
        assert (by_anonymous(both) is None) == (by_anonymous(alone) is None)
        assert (by_user(alone) is None) == (by_anonymous(alone) is None)
    by_message = sample(0.5, by="message_id")
    fates = {
        by_message(Track(event="e", user_id="u", message_id=f"m{n}")) is None for n in range(50)
    }
    assert fates == {True, False}


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_sample_needs_a_share(rate: float) -> None:
    """A rate that is no share is a mistake."""
    with pytest.raises(ConfigurationError, match="rate"):
        sample(rate)


def test_sample_needs_an_id() -> None:
    """So is an id that calls do not have."""
    with pytest.raises(ConfigurationError, match="by"):
        sample(0.5, by="email")  # type: ignore[arg-type]


@looptime
async def test_sampled_calls_are_counted(lab: Lab) -> None:
    """What is sampled out is dropped as `middleware`."""
    server = lab.script()
    async with lab.client(server, middleware=[sample(0.5)]) as client:
        await lab.track(client, 40)
    dropped = client.stats().destinations["custom"].dropped_by["middleware"]
    assert 0 < dropped < 40
    assert len(sent(server)) == 40 - dropped


# --------------------------------------------------------------------------------------- enrich


def test_enrich_fills_what_is_missing() -> None:
    """What is missing is added at any depth of the context; what was given stays."""
    fill = enrich(
        context={"app": {"name": "shop", "version": "1"}, "timezone": "UTC", "tenant": {"id": 1}},
        properties={"plan": "free", "currency": "EUR"},
        integrations={"crm": False, "mail": {"list": 7}},
    )
    call = Track(
        event="e",
        user_id="u",
        context=Context.model_validate({"app": {"version": "2"}, "ip": "10.0.0.1"}),
        properties={"plan": None, "revenue": 5},
        integrations={"crm": True},
    )
    before = call.model_copy(deep=True)
    changed = fill(call)
    assert isinstance(changed, Track)
    assert changed.context is not None
    assert changed.context.wire() == {
        "app": {"name": "shop", "version": "2"},
        "ip": "10.0.0.1",
        "timezone": "UTC",
        "tenant": {"id": 1},
    }
    assert changed.properties == {"plan": None, "revenue": 5, "currency": "EUR"}
    assert changed.integrations == {"crm": True, "mail": {"list": 7}}
    assert call == before


def test_enrich_fills_an_empty_call() -> None:
    """Calls that have nothing get everything, but properties only where there can be any."""
    fill = enrich(
        context=Context(locale="en"), properties={"plan": "free"}, integrations={"a": True}
    )
    track = fill(Track(event="e", user_id="u"))
    assert isinstance(track, Track)
    assert (track.properties, track.integrations) == ({"plan": "free"}, {"a": True})
    assert track.context is not None
    assert track.context.locale == "en"
    identify = fill(Identify(user_id="u"))
    assert identify is not None
    assert "properties" not in identify.wire()
    assert identify.integrations == {"a": True}


def test_enrich_with_nothing_does_nothing() -> None:
    """With nothing to fill in, a call is handed on as it is."""
    call = Track(event="e", user_id="u")
    assert enrich()(call) is call


def test_enrich_is_a_snapshot() -> None:
    """What is changed later, in the defaults or in one call, does not reach other calls."""
    properties: dict[str, Any] = {"tags": []}
    fill = enrich(properties=properties)
    properties["tags"].append("late")
    first = fill(Track(event="e", user_id="u"))
    assert isinstance(first, Track)
    assert first.properties is not None
    assert first.properties == {"tags": []}
    first.properties["tags"].append("own")
    second = fill(Track(event="e", user_id="u"))
    assert isinstance(second, Track)
    assert second.properties == {"tags": []}


def test_enrich_checks_the_context() -> None:
    """A context that could not be sent fails where it is written, and is not shown."""
    with pytest.raises(ConfigurationError, match=r"screen\.width") as caught:
        enrich(context={"screen": {"width": "secret"}})
    assert "secret" not in str(caught.value)


@looptime
async def test_the_family_together(lab: Lab) -> None:
    """Enriched, then redacted: what is sent has both, and the collector takes it."""
    collector = lab.collector()
    middleware = [
        enrich(context={"app": {"name": "shop"}}, properties={"token": "t"}),
        redact("token", "email"),
        sample(1.0),
    ]
    async with lab.client(collector, middleware=middleware) as client:
        await client.track("Ordered", user_id="u", properties={"email": "a@example.com"})
        await client.identify("u", traits={"email": "a@example.com"})
        await asyncio.sleep(0)
    track, identify = (event.payload for event in collector.events(verdict="good"))
    assert track["properties"] == {"token": "[redacted]", "email": "[redacted]"}
    assert identify["traits"] == {"email": "[redacted]"}
    assert identify["context"]["app"] == {"name": "shop"}
