"""The models of the six calls: what they take, what they refuse, and what goes out."""

from __future__ import annotations

import datetime as dt
import enum
import math
import uuid
from collections import UserDict
from decimal import Decimal
from fractions import Fraction
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel, ValidationError
from pydantic.alias_generators import to_snake

from asyncanalytics.calls import MODELS, Call, Context, Group, Identify, Page, Track

CANARY = "canary-7f3a"
NEEDS: dict[str, dict[str, Any]] = {
    "identify": {"userId": "u1"},
    "track": {"userId": "u1", "event": "Added File"},
    "page": {"userId": "u1"},
    "screen": {"userId": "u1"},
    "group": {"userId": "u1", "groupId": "g1"},
    "alias": {"userId": "u1", "previousId": "a1"},
}
FULL_CONTEXT: dict[str, Any] = {
    "active": False,
    "app": {"name": "Shop", "version": "2.1", "build": "77", "namespace": "com.example.shop"},
    "campaign": {"name": "n", "source": "s", "medium": "m", "term": "", "content": "c"},
    "channel": "worker",
    "consent": {"categoryPreferences": {"Advertising": True, "Analytics": False}},
    "device": {
        "id": "d1",
        "advertisingId": "ad1",
        "adTrackingEnabled": True,
        "manufacturer": "Example",
        "model": "M1",
        "name": "phone",
        "type": "android",
        "version": "3",
        "token": "t1",
    },
    "groupId": "g1",
    "ip": "24.5.68.47",
    "library": {"name": "customer", "version": "v1"},
    "locale": "en-GB",
    "network": {"bluetooth": False, "carrier": "c", "cellular": True, "wifi": False},
    "os": {"name": "Linux", "version": "6.1"},
    "page": {"path": "/", "referrer": "r", "search": "?q", "title": "t", "url": "https://e.com/"},
    "referrer": {"id": "r1", "type": "t", "name": "n", "url": "u", "link": "l"},
    "screen": {"width": 320, "height": 568, "density": 2.5},
    "timezone": "Europe/London",
    "traits": {"plan": "free"},
    "userAgent": "Mozilla/5.0",
    "userAgentData": {"mobile": False},
}


def make(kind: str = "track", **fields: Any) -> Call:
    """Make a good call of a kind, with some fields given."""
    return MODELS[kind](**NEEDS[kind] | fields)


def in_python(fields: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Spell a model's fields as Python does, within the models it contains too."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        inner = [
            each
            for each in getattr(model.model_fields[to_snake(name)].annotation, "__args__", ())
            if isinstance(each, type) and issubclass(each, BaseModel)
        ]
        found[to_snake(name)] = in_python(value, inner[0]) if inner else value
    return found


# ------------------------------------------------------------------------------------- spellings


@pytest.mark.parametrize("kind", MODELS)
def test_a_call_goes_out_as_it_was_given(kind: str) -> None:
    """The wire form holds the fields that were given, and the type."""
    assert make(kind).wire() == {"type": kind, **NEEDS[kind]}


@pytest.mark.parametrize("kind", MODELS)
def test_both_spellings(kind: str) -> None:
    """Every field may be written as Python does or as the wire does."""
    model = MODELS[kind]
    text = {"type": kind, "messageId": "m1", "anonymousId": "a1", "timestamp": "2026-01-02"}
    given: dict[str, Any] = {field.alias or name: "x" for name, field in model.model_fields.items()}
    given |= {name: {"k": 1} for name in ("traits", "properties") if name in given}
    given |= {"context": FULL_CONTEXT, "integrations": {"All": True}, **text}
    wire = model(**given).wire()
    assert wire == {**given, "timestamp": "2026-01-02T00:00:00.000Z"}
    assert model(**in_python(given, model)).wire() == wire


def test_the_context_of_the_tests_is_complete() -> None:
    """Every field that the context and its parts have is tried here."""

    def check(fields: dict[str, Any], model: type[BaseModel]) -> None:
        assert set(in_python(fields, model)) == set(model.model_fields)

    check(FULL_CONTEXT, Context)
    for name, part in Context(**FULL_CONTEXT):
        if isinstance(part, BaseModel):
            check(FULL_CONTEXT[name], type(part))


def test_a_field_in_both_spellings_goes_out_once_and_checked() -> None:
    """The unchecked one of the two never wins."""
    assert Track(userId="u1", user_id=0, event="e").wire()["userId"] == "u1"


@pytest.mark.parametrize("kind", MODELS)
def test_unknown_fields_are_carried(kind: str) -> None:
    """What the protocol or a host adds later needs no new version of this package."""
    new = {"_metadata": {"nodeVersion": 1}, "cohort": "b", "nothing": None}
    wire = make(kind, **new, context=new).wire()
    assert wire == {"type": kind, **NEEDS[kind], **new, "context": new}


@pytest.mark.parametrize(
    "name", ["receivedAt", "version", "originalTimestamp", "sentAt", "writeKey", "appId"]
)
def test_fields_that_others_set_are_refused(name: str) -> None:
    """A key or a server's stamp inside a call would be believed."""
    with pytest.raises(ValidationError, match=f"{name} is set by the (server|client)") as caught:
        make(**{name: CANARY})
    assert CANARY not in str(caught.value)


def test_none_means_left_out() -> None:
    """A known field that is None does not go out as null, in a context neither."""
    wire = make(anonymousId=None, properties=None, context={"ip": None, "app": None}).wire()
    assert wire == {"type": "track", **NEEDS["track"], "context": {}}


# ------------------------------------------------------------------------------------------- ids


class Plan(enum.Enum):
    """An id as an enum."""

    FREE = "free"
    PAID = 2


class Text(str, enum.Enum):  # noqa: UP042 - its str() is not its value, unlike a StrEnum's
    """An id as an enum of texts."""

    A = "a"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("u1", "u1"),
        ("0", "0"),
        ("nan", "nan"),
        (" ", " "),
        ("naïve\x00", "naïve\x00"),
        (7, "7"),
        (-7, "-7"),
        (10**40, "1" + "0" * 40),
        (1.5, "1.5"),
        (Decimal("1.50"), "1.50"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Plan.FREE, "free"),
        (Plan.PAID, "2"),
        (Text.A, "a"),
    ],
    ids=repr,
)
def test_ids(value: object, text: str) -> None:
    """Text, numbers, UUIDs and enums of them become text."""
    assert make(userId=value).wire()["userId"] == text
    assert make("group", groupId=value).wire()["groupId"] == text
    assert make("alias", previousId=value).wire()["previousId"] == text
    assert make(context={"groupId": value}).wire()["context"] == {"groupId": text}


class Zero(enum.Enum):
    """What is no id does not become one as an enum."""

    A = 0


NO_IDS: list[Any] = [
    *["", 0, 0.0, -0.0, True, False, math.nan, math.inf, -math.inf, 3 + 0j, Fraction(1, 2)],
    *[Decimal(0), Decimal("nan"), Decimal("snan"), Decimal("NaN12"), Decimal("-inf")],
    *[b"u1", [], ["u1"], {}, object(), dt.date(2026, 1, 2), Zero.A],
]


@pytest.mark.parametrize("value", NO_IDS)
@pytest.mark.parametrize("field", ["userId", "anonymousId"])
def test_no_ids(field: str, value: object) -> None:
    """What would make one user of many is refused."""
    with pytest.raises(ValidationError, match="must be a non-empty string, a UUID or a number"):
        Identify(**{field: value})


def test_a_number_too_long_for_text_is_refused() -> None:
    """Python itself refuses to write integers beyond some thousand digits."""
    with pytest.raises(ValidationError):
        make(userId=10**5_000)


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "alias"])
def test_someone_must_be_meant(kind: str) -> None:
    """A call needs an id of the user; an anonymous one is enough."""
    rest = {name: value for name, value in NEEDS[kind].items() if name != "userId"}
    with pytest.raises(ValidationError, match="user_id or anonymous_id is needed"):
        MODELS[kind](**rest)
    assert MODELS[kind](**rest, anonymous_id="a1").wire()["anonymousId"] == "a1"


@pytest.mark.parametrize(
    ("kind", "field"),
    [("track", "event"), ("group", "groupId"), ("alias", "userId"), ("alias", "previousId")],
)
def test_what_a_call_needs(kind: str, field: str) -> None:
    """What makes a call such a call cannot be left out, or be empty."""
    rest = {name: value for name, value in NEEDS[kind].items() if name != field}
    for given_fields in (rest, rest | {field: ""}, rest | {field: None}):
        with pytest.raises(ValidationError, match=f"{field}|{to_snake(field)}|user_id"):
            MODELS[kind](**given_fields)


@pytest.mark.parametrize(("length", "is_taken"), [(0, False), (1, True), (100, True), (101, False)])
def test_message_id_length(length: int, is_taken: bool) -> None:  # noqa: FBT001 - a table's column
    """A messageId has 1 to 100 characters: servers cut or drop longer ones."""
    if is_taken:
        assert make(messageId="é" * length).wire()["messageId"] == "é" * length
    else:
        with pytest.raises(ValidationError, match="message"):
            make(messageId="é" * length)


# ------------------------------------------------------------------------------------ timestamps

ZONES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.just(dt.UTC),
    st.sampled_from(["Europe/Paris", "Asia/Kolkata", "America/St_Johns"]).map(ZoneInfo),
    st.timedeltas(min_value=dt.timedelta(hours=-23), max_value=dt.timedelta(hours=23)).map(
        dt.timezone
    ),
)


@given(st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9998, 1, 1), timezones=ZONES))  # noqa: DTZ001 - Hypothesis wants naive bounds
@example(dt.datetime(2015, 11, 10, 0, 45, 23, 412_999))  # noqa: DTZ001 - naive is the point
def test_any_datetime_goes_out_in_utc(moment: dt.datetime) -> None:
    """A zone is converted, none is UTC, and milliseconds stay."""
    text = str(make(timestamp=moment).wire()["timestamp"])
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    aware = aware.astimezone(dt.UTC)
    assert dt.datetime.fromisoformat(text) == aware.replace(
        microsecond=aware.microsecond // 1000 * 1000
    )
    assert len(text) == len("2015-11-10T00:45:23.412Z")
    assert text.endswith("Z")


@pytest.mark.parametrize(
    ("given_text", "wire"),
    [
        ("2015-11-10T00:45:23.412Z", "2015-11-10T00:45:23.412Z"),
        ("2015-11-10T00:45:23Z", "2015-11-10T00:45:23.000Z"),
        ("2015-11-10T00:45:23.412999Z", "2015-11-10T00:45:23.412Z"),
        ("2015-11-10T00:45:23+05:30", "2015-11-09T19:15:23.000Z"),
        ("2015-11-10T00:45:23", "2015-11-10T00:45:23.000Z"),
        ("2015-11-10 00:45", "2015-11-10T00:45:00.000Z"),
        ("2015-11-10", "2015-11-10T00:00:00.000Z"),
        (dt.date(2015, 11, 10), "2015-11-10T00:00:00.000Z"),
    ],
)
def test_timestamps_as_text_and_dates(given_text: object, wire: str) -> None:
    """ISO 8601 text and dates are moments too, in UTC unless they say otherwise."""
    assert make(timestamp=given_text).wire()["timestamp"] == wire


class Nowhere(dt.tzinfo):
    """A zone that does not know its offset, or fails to say it."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def utcoffset(self, _: dt.datetime | None) -> None:
        """Give no offset."""
        if self._error is not None:
            raise self._error

    def dst(self, _: dt.datetime | None) -> None:
        """Know nothing of summer."""

    def tzname(self, _: dt.datetime | None) -> None:
        """Have no name."""


def test_a_zone_without_an_offset_is_utc() -> None:
    """Not this machine's zone, which would differ from one server to the next."""
    moment = dt.datetime(2026, 1, 2, tzinfo=Nowhere())
    assert make(timestamp=moment).wire()["timestamp"] == "2026-01-02T00:00:00.000Z"


@pytest.mark.parametrize(
    "value",
    [
        *["garbage", CANARY, "", "12:30", "2015-13-10", 0, 1447116323, 1447116323412, 1.5, True],
        *[b"2015-11-10", [], dt.time(1), dt.timedelta(1)],
        dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5))),
        dt.datetime(9999, 12, 31, 23, tzinfo=dt.timezone(dt.timedelta(hours=-5))),
        dt.datetime(2026, 1, 2, tzinfo=Nowhere(ValueError(CANARY))),
    ],
)
def test_no_timestamps(value: object) -> None:
    """Numbers and garbage are refused: a wrong time is worse than none."""
    with pytest.raises(ValidationError, match="timestamp") as caught:
        make(timestamp=value)
    assert CANARY not in str(caught.value)


# --------------------------------------------------------------------------------------- objects


class Bought(BaseModel):
    """A typed event, as users write it."""

    sku: str
    price: Decimal = Field(default=Decimal("1.10"), alias="unitPrice")
    gift: bool = False


@pytest.mark.parametrize(
    "value",
    [
        {"k": 1},
        UserDict({"k": 1}),
        MappingProxyType({"k": 1}),
        RootModel[dict[str, int]]({"k": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects(value: object) -> None:
    """Traits and properties may be any mapping, or a model."""
    assert make(properties=value).wire()["properties"] == {"k": 1}
    assert make("group", traits=value).wire()["traits"] == {"k": 1}
    assert make(context={"traits": value}).wire()["context"] == {"traits": {"k": 1}}


def test_a_model_goes_out_with_its_defaults_and_aliases() -> None:
    """A typed event is all that it says, not only what differs from its class."""
    wire = make(properties=Bought(sku="s1")).wire()
    assert wire["properties"] == {"sku": "s1", "unitPrice": Decimal("1.10"), "gift": False}


def test_a_model_with_odd_values_warns_of_nothing() -> None:
    """Pydantic's warning would print the value; the value itself is carried."""
    wrong: Any = CANARY.encode()
    odd = Bought.model_construct(sku=wrong)
    assert make(properties=odd).wire()["properties"]["sku"] == wrong


@pytest.mark.parametrize(
    "value", [[], [("k", 1)], "k", 1, b"k", RootModel[list[int]]([1])], ids=repr
)
@pytest.mark.parametrize("field", ["properties", "context", "integrations"])
def test_no_objects(field: str, value: object) -> None:
    """A list where an object belongs would fail at the server, with the whole batch."""
    with pytest.raises(ValidationError, match=field):
        make("track", **{field: value})


@pytest.mark.parametrize(
    "value", [{}, {"All": False}, {"All": True, "Mixpanel": {"opt": [1]}, "S3": False}], ids=repr
)
def test_integrations(value: dict[str, object]) -> None:
    """Names lead to switches or options."""
    assert make(integrations=value).wire()["integrations"] == value


@pytest.mark.parametrize("value", [{"a": None}, {"a": 1}, {"a": CANARY}, {"a": []}], ids=repr)
def test_no_integrations(value: object) -> None:
    """Anything else is a mistake that would send data where it must not go."""
    with pytest.raises(ValidationError, match="integrations") as caught:
        make(integrations=value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"), [("Docs", "Docs"), (5, "5"), (1.5, "1.5"), ("", "")], ids=repr
)
def test_names_of_views(value: object, text: str) -> None:
    """Names and sections are text; numbers become text."""
    wire = Page(user_id="u1", name=value, category=value, section=value).wire()
    assert (wire["name"], wire["category"], wire["section"]) == (text, text, text)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("wrong", [[CANARY], {CANARY: CANARY}, b"\xff" + CANARY.encode()], ids=repr)
def test_errors_show_no_values(kind: str, wrong: object) -> None:
    """Whatever field is wrong, the message names it and keeps the value to itself."""
    for name, field in MODELS[kind].model_fields.items():
        if name in {"traits", "properties", "context", "integrations"} and isinstance(wrong, dict):
            continue
        with pytest.raises(ValidationError) as caught:
            make(kind, **{field.alias or name: wrong})
        assert (field.alias or name) in str(caught.value)
        assert CANARY not in str(caught.value)


def test_models_take_changes_and_deep_copies() -> None:
    """Middleware may change a call, and each destination's changes are its own."""
    first = Group(user_id="u1", group_id="g1", traits={"a": {"b": 1}})
    second = first.model_copy(deep=True)
    second.group_id = "g2"
    assert second.traits is not None
    second.traits["a"]["b"] = 2
    assert first.wire()["groupId"] == "g1"
    assert first.wire()["traits"] == {"a": {"b": 1}}
