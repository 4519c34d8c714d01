"""What is let through: by call, by event, by expression, by consent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncanalytics import ConfigurationError, MissingExtra, Track
from asyncanalytics.middleware import consent, sample, where

if TYPE_CHECKING:
    from conftest import Lab

looptime = pytest.mark.looptime


def call(kind: str = "track", **members: Any) -> dict[str, Any]:
    """Make a call's wire form."""
    return {"type": kind, "messageId": "m", "userId": "u", "event": "Order Completed", **members}


def test_calls_and_events() -> None:
    """Of the wanted calls, track calls of the wanted names; what else there is has no such name."""
    step = where(calls=["track", "page"], events=["Order *", "Paid?"])
    assert step.apply(call()) is not None
    assert step.apply(call(event="Paid!")) is not None
    assert step.apply(call(event="order completed")) is None
    assert step.apply(call(event="My Order")) is None
    assert step.apply(call(event="Order A\nB")) is not None
    assert step.apply(call("page", event=None)) is not None
    assert step.apply(call("identify")) is None
    odd = where(events=["Order [VIP]", "[!a]*"])
    assert odd.apply(call(event="Order [VIP]")) is not None
    assert odd.apply(call(event="Order V")) is None
    assert odd.apply(call(event="[!a] b")) is not None


@pytest.mark.parametrize(
    ("expression", "properties", "holds"),
    [
        ("properties.total > `100`", {"total": 101}, True),
        ("properties.total > `100`", {"total": 100}, False),
        ("properties.total > `100`", {"total": "101"}, False),
        ("properties.total > `100`", {}, False),
        ("properties.total > `100`", None, False),
        ("properties.total", {"total": 0}, True),
        ("properties.total", {"total": 0.0}, True),
        ("properties.total", {"total": False}, False),
        ("properties.total", {"total": ""}, False),
        ("properties.total", {"total": []}, False),
        ("starts_with(properties.coupon, 'AUT')", {"coupon": "AUTUMN"}, True),
        ("starts_with(properties.coupon, 'AUT')", {"coupon": None}, False),
        ("properties.items[?price > `10`]", {"items": [{"price": 11}]}, True),
        ("!(properties.test) && event != 'x'", {}, True),
    ],
    ids=str,
)
def test_an_expression(expression: str, properties: Any, holds: bool) -> None:  # noqa: FBT001
    """It is JMESPath's truth, in which 0 is true; what does not fit the values does not hold."""
    pytest.importorskip("jmespath")
    found = where(when=expression).apply(call(properties=properties))
    assert (found is not None) is holds


def test_no_expression_breaks_on_any_data() -> None:
    """Whatever a call carries, an expression holds or it does not."""
    pytest.importorskip("jmespath")
    steps = [
        where(when="length(properties) > `1`"),
        where(when="sort_by(properties.a, &b)[0].c"),
        where(when="to_number(properties.a) >= `1` || avg(properties.a) < `2`"),
        where(when="properties.*.a | [0]"),
    ]
    leaves = st.none() | st.booleans() | st.floats() | st.integers() | st.text()
    data = st.recursive(leaves, lambda s: st.lists(s) | st.dictionaries(st.text("abc"), s))

    @given(data)
    def check(properties: Any) -> None:
        given_call = call(properties=properties)
        for step in steps:
            assert step.apply(given_call) in (given_call, None)

    check()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "give calls, events or when"),
        ({"calls": []}, "calls must be a list"),
        ({"calls": "track"}, "calls must be a list"),
        ({"calls": ["trak"]}, "'trak' is none of"),
        ({"events": [7]}, "events must be a list"),
        ({"when": "properties.total >"}, "no JMESPath expression"),
        ({"when": ""}, "no JMESPath expression"),
        ({"when": "event && nothing(@)"}, "no function named nothing"),
    ],
    ids=str,
)
def test_what_cannot_work(settings: Any, problem: str) -> None:
    """It raises where it is written, a function that is not there too."""
    pytest.importorskip("jmespath")
    with pytest.raises(ConfigurationError, match=problem):
        where(**settings)


def test_without_jmespath(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which extra brings it; the rest works."""
    monkeypatch.setitem(__import__("sys").modules, "jmespath", None)
    with pytest.raises(MissingExtra, match=r"asyncanalytics\[router\]"):
        where(when="event")
    assert where(calls=["track"]).apply(call()) is not None


def test_consent() -> None:
    """All of the categories must be agreed to; who was not asked has agreed to nothing."""

    def agreed(**preferences: Any) -> dict[str, Any]:
        return call(context={"consent": {"categoryPreferences": preferences}})

    step = consent("analytics", "ads")
    assert step.apply(agreed(analytics=True, ads=True)) is not None
    assert step.apply(agreed(analytics=True, ads=False)) is None
    assert step.apply(agreed(analytics=True)) is None
    assert step.apply(agreed(analytics=1, ads="yes")) is None
    for asked_nothing in (call(), call(context=None), call(context={"consent": "x"})):
        assert step.apply(asked_nothing) is None
        assert consent("ads", unknown=True).apply(asked_nothing) is asked_nothing
    assert consent("ads", unknown=True).apply(agreed(ads=False)) is None


@given(st.text(min_size=1), st.floats(0, 1))
def test_sampling_is_the_same_on_the_wire(user: str, rate: float) -> None:
    """A user is in or out whichever way a call is looked at."""
    step = sample(rate)
    by_model = step(Track(event="E", user_id="u" + user.encode("utf-8", "replace").decode()))
    by_wire = step.apply(call(userId="u" + user.encode("utf-8", "replace").decode()))
    assert (by_model is None) == (by_wire is None)


@looptime
async def test_drops_have_names(lab: Lab, logged: pytest.LogCaptureFixture) -> None:
    """What was not asked for is told from what nobody agreed to; neither is logged."""
    servers = [lab.script() for _ in range(3)]
    middleware = [[where(calls=["identify"])], [consent("ads")], [sample(0.0)]]
    destinations = [
        lab.destination(server, f"d{n}", middleware=middleware[n])
        for n, server in enumerate(servers)
    ]
    async with lab.client(destinations=destinations) as client:
        await lab.track(client, 2)
        stats = client.stats().destinations
    assert [each.dropped_by for each in stats.values()] == [
        {"filtered": 2},
        {"no_consent": 2},
        {"middleware": 2},
    ]
    assert not logged.records
