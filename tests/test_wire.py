"""From a call's fields to the wire: the guides' own examples, and both ways side by side."""

from __future__ import annotations

import datetime as dt
import json
import math
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Self, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel, to_snake

from asyncanalytics import AsyncClient, BaseDestination, Batching, Context, wire
from asyncanalytics._version import __version__
from asyncanalytics.batching import Limits
from asyncanalytics.calls import (
    MODELS,
    Id,
    Library,
    MessageId,
    Name,
    Object,
    Switches,
    Text,
    Timestamp,
)
from asyncanalytics.errors import InvalidCall
from asyncanalytics.retrying import Delivered
from asyncanalytics.wire import ALIAS, GROUP, IDENTIFY, PAGE, SCREEN, TRACK, WIRES

if TYPE_CHECKING:
    from asyncanalytics.batching import Batch
    from asyncanalytics.settings import Retrying, Sending
    from asyncanalytics.transport import Transport
    from asyncanalytics.values import CallType
    from asyncanalytics.wire import CallWire

CANARY = "canary-7f3a"
VERBS = {each.type: each for each in (IDENTIFY, TRACK, PAGE, SCREEN, GROUP, ALIAS)}
LIBRARY = {"name": "asyncanalytics", "version": __version__}


class Kept(BaseDestination):
    """A destination that keeps what it is handed, as read from its bytes."""

    def __init__(self) -> None:
        super().__init__("kept")
        self.events: list[dict[str, Any]] = []

    def limits(self, batching: Batching) -> Limits:
        """Allow what Segment allows."""
        return Limits(
            max_events=batching.max_events,
            max_bytes=batching.max_bytes,
            max_event_bytes=32_000,
            envelope=50,
            per_event=2,
        )

    async def open(self, transport: Transport, sending: Sending, retrying: Retrying) -> None:
        """Need nothing."""

    async def deliver(self, batch: Batch) -> Delivered:
        """Read each call's bytes."""
        self.events += [json.loads(b"{" + receipt.body) for receipt in batch.receipts]
        return Delivered()


# -------------------------------------------------------------------------- the guides' examples

ARTHUR = {"name": "Arthur Dent", "email": "earthling1@hitchhikersguide.com", "hasTowel": True}
FILE = {
    "fileTitle": "Life, the Universe, and Everything",
    "fileSize": "42kb",
    "fileType": "PDF",
}
MARVIN = "10 Questions with Marvin, the clinically depressed robot"
REDDIT = {"referrer": "http://reddit.com/r/AMA"}
WHEN = "2015-11-10T00:45:23.412Z"
CAMPAIGN = {
    "name": "my_campaign",
    "source": "demo",
    "medium": "calendly",
    "term": "",
    "content": "",
}
JAKE = {"email": "jake@yahoo.com", "name": "Jake Peterson", "age": 26}
JAKE_CONTEXT = {
    "ip": "24.5.68.47",
    "library": {"name": "customer", "version": "v1"},
    "campaign": CAMPAIGN,
}
SONG = {"name": "Fallin for You", "artist": "Dierks Bentley"}
SONG_CONTEXT = {
    "ip": "24.5.68.47",
    "page": {
        "referrer": "http://localhost:3000/test",
        "url": "http://localhost:3000/test/path?param=a088fb06-a208-4552-b4b7-28fb7f95aeaf",
    },
    "userAgent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 "
    "(KHTML, like Gecko) Chrome/119.0.0.0 Safari/537.36",
    "campaign": CAMPAIGN,
}
SONG_IN_PYTHON = Context(
    ip="24.5.68.47",
    page=SONG_CONTEXT["page"],
    user_agent=str(SONG_CONTEXT["userAgent"]),
    campaign=CAMPAIGN,
)
HITCHHIKERS = {"name": "The Hitchhikers", "relativePosition": "[39.1000° N, 84.5167° W]"}

Verb = Callable[[AsyncClient], Awaitable[object]]
EXAMPLES: dict[str, tuple[str, Verb, dict[str, Any]]] = {
    "HTTP identify": (
        "identify",
        lambda it: it.identify("1234qwerty", traits=ARTHUR, timestamp=WHEN),
        {"userId": "1234qwerty", "traits": ARTHUR, "timestamp": WHEN},
    ),
    "HTTP track": (
        "track",
        lambda it: it.track("Added File", user_id="1234qwerty", properties=FILE, timestamp=WHEN),
        {"userId": "1234qwerty", "event": "Added File", "properties": FILE, "timestamp": WHEN},
    ),
    "HTTP page": (
        "page",
        lambda it: it.page(MARVIN, user_id="1234qwerty", section="Blog", properties=REDDIT),
        {"userId": "1234qwerty", "section": "Blog", "name": MARVIN, "properties": REDDIT},
    ),
    "HTTP page as a screen": (
        "screen",
        lambda it: it.screen(MARVIN, user_id="1234qwerty", section="Blog", properties=REDDIT),
        {"userId": "1234qwerty", "section": "Blog", "name": MARVIN, "properties": REDDIT},
    ),
    "HTTP group": (
        "group",
        lambda it: it.group("5678dvorak", user_id="1234qwerty", traits=HITCHHIKERS),
        {"userId": "1234qwerty", "groupId": "5678dvorak", "traits": HITCHHIKERS},
    ),
    "HTTP alias": (
        "alias",
        lambda it: it.alias("assigned_id_or_email", previous_id="anonymous_id", timestamp=WHEN),
        {"previousId": "anonymous_id", "userId": "assigned_id_or_email", "timestamp": WHEN},
    ),
    "Node identify": (
        "identify",
        lambda it: it.identify("1234qwerty", traits=ARTHUR),
        {"userId": "1234qwerty", "traits": ARTHUR},
    ),
    "Node track": (
        "track",
        lambda it: it.track("Added File", user_id="1234qwerty", properties=FILE),
        {"userId": "1234qwerty", "event": "Added File", "properties": FILE},
    ),
    "PHP alias": (
        "alias",
        lambda it: it.alias("1234qwerty", previous_id="1ff049u10459u7"),
        {"previousId": "1ff049u10459u7", "userId": "1234qwerty"},
    ),
    "Python identify": (
        "identify",
        lambda it: it.identify("1234qwerty", traits={"name": "Arthur Dent", "friends": 100}),
        {"userId": "1234qwerty", "traits": {"name": "Arthur Dent", "friends": 100}},
    ),
    "Python track": (
        "track",
        lambda it: it.track("Signed Up", user_id="1234qwerty"),
        {"userId": "1234qwerty", "event": "Signed Up"},
    ),
    "Python page": (
        "page",
        lambda it: it.page(
            "Python",
            user_id="user_id",
            category="Docs",
            properties={"url": "http://astronomer.io"},
        ),
        {
            "userId": "user_id",
            "category": "Docs",
            "name": "Python",
            "properties": {"url": "http://astronomer.io"},
        },
    ),
    "Python group": (
        "group",
        lambda it: it.group("group_id", user_id="user_id", traits={"name": "Initech"}),
        {"userId": "user_id", "groupId": "group_id", "traits": {"name": "Initech"}},
    ),
    "Dreamdata identify": (
        "identify",
        lambda it: it.identify(
            "019mr8mf4r",
            traits=JAKE,
            context=JAKE_CONTEXT,
            timestamp="2012-12-02T00:30:08.276Z",
            message_id="6ad2be86-6d78-43bd-8a5b-846ddbc042c2",
        ),
        {
            "messageId": "6ad2be86-6d78-43bd-8a5b-846ddbc042c2",
            "userId": "019mr8mf4r",
            "traits": JAKE,
            "context": JAKE_CONTEXT,
            "timestamp": "2012-12-02T00:30:08.276Z",
        },
    ),
    "Dreamdata track": (
        "track",
        lambda it: it.track(
            "Song Played",
            user_id="019mr8mf4r",
            properties=SONG,
            context=SONG_IN_PYTHON,
            timestamp=dt.datetime(2012, 12, 2, 0, 30, 12, 984_000, tzinfo=dt.UTC),
            message_id="3f8236bc-c010-43bb-a341-cd30b5228e9d",
        ),
        {
            "messageId": "3f8236bc-c010-43bb-a341-cd30b5228e9d",
            "userId": "019mr8mf4r",
            "event": "Song Played",
            "properties": SONG,
            "context": SONG_CONTEXT,
            "timestamp": "2012-12-02T00:30:12.984Z",
        },
    ),
}


def check(kind: str, given_members: dict[str, Any], event: dict[str, Any]) -> None:
    """Check that an event is what was given, with what the protocol wants beside it."""
    context = {"library": LIBRARY, "channel": "server", **given_members.get("context", {})}
    assert event == {
        "type": kind,
        "messageId": event["messageId"],
        "timestamp": event["timestamp"],
        **given_members,
        "context": context,
    }
    if "messageId" not in given_members:
        assert uuid.UUID(event["messageId"]).version == 7
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(event["timestamp"])
    assert "timestamp" in given_members or dt.timedelta(0) <= age < dt.timedelta(minutes=1)


@pytest.mark.parametrize("example", EXAMPLES)
async def test_examples_as_verbs(example: str) -> None:
    """Each example of the guides can be said with a verb, and goes out as the guide shows it."""
    kind, say, members = EXAMPLES[example]
    kept = Kept()
    async with AsyncClient(destinations=[kept], batching=Batching(linger=0)) as client:
        await say(client)
    check(kind, members, kept.events[0])


@pytest.mark.parametrize("example", EXAMPLES)
async def test_examples_as_models(example: str) -> None:
    """The same as a model, in the guide's own spelling."""
    kind, _, members = EXAMPLES[example]
    kept = Kept()
    async with AsyncClient(destinations=[kept], batching=Batching(linger=0)) as client:
        await client.send(MODELS[kind].model_validate(members))
        client.send_nowait(MODELS[kind](type=kind, **members))
    for event in kept.events:
        check(kind, members, event)
    assert len(kept.events) == 2


# ----------------------------------------------------------------------------- both ways the same

JSONLIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
IDS = (
    st.sampled_from(["u1", "", 0, 1, -5, 2.5, 0.0, math.nan, math.inf, True, False, b"u", [], {}])
    | st.uuids()
    | st.text(max_size=4)
    | st.just(Decimal("1.5"))
)
TEXTS = st.text(max_size=4) | st.sampled_from([5, 1.5, b"t", [], CANARY])
OBJECTS = st.dictionaries(st.text(max_size=4), JSONLIKE, max_size=3) | st.sampled_from([[], 1, "t"])
SWITCHES = st.dictionaries(
    st.sampled_from(["All", "Mixpanel", "S3"]),
    st.booleans() | st.dictionaries(st.text(max_size=3), JSONLIKE, max_size=2) | st.just(1),
)
MOMENTS = (
    st.datetimes()
    | st.dates()
    | st.sampled_from(["2015-11-10", "2015-11-10T00:45:23+05:30", "garbage", 5])
)
SWITCH = st.booleans() | st.sampled_from(["yes", "maybe", 1, 2])
NUMBER = st.integers(-5, 5) | st.floats(allow_nan=False) | st.sampled_from(["10", "wide"])


def members(**strategies: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw some of an object's members; any of them may be None, and some are unknown."""
    known = {name: strategy | st.none() for name, strategy in strategies.items()}
    return st.fixed_dictionaries({}, optional=known | {"new": JSONLIKE})


CONTEXTS = members(
    active=SWITCH,
    app=members(name=TEXTS, build=TEXTS),
    device=members(advertisingId=TEXTS, ad_tracking_enabled=SWITCH),
    consent=members(categoryPreferences=OBJECTS),
    groupId=IDS,
    ip=TEXTS,
    library=st.sampled_from([{}, {"name": "n"}, [], "n"]),
    screen=members(width=NUMBER, density=NUMBER),
    traits=OBJECTS,
    user_agent=TEXTS,
) | st.sampled_from([[], "context", 1])
COMMON = {
    "userId": IDS,
    "anonymousId": IDS,
    "messageId": st.text(max_size=3) | st.sampled_from(["m" * 100, "m" * 101, 5]),
    "timestamp": MOMENTS,
    "context": CONTEXTS,
    "integrations": SWITCHES,
    "custom": JSONLIKE,
}
OWN: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "identify": {"traits": OBJECTS},
    "track": {"event": TEXTS, "properties": OBJECTS},
    "page": {"name": TEXTS, "category": TEXTS, "section": TEXTS, "properties": OBJECTS},
    "screen": {"name": TEXTS, "category": TEXTS, "section": TEXTS, "properties": OBJECTS},
    "group": {"groupId": IDS, "traits": OBJECTS},
    "alias": {"previousId": IDS},
}
CALLS = st.sampled_from(sorted(OWN)).flatmap(
    lambda kind: st.tuples(st.just(kind), st.fixed_dictionaries({}, optional=COMMON | OWN[kind]))
)


def by_wire(
    kind: str, fields: dict[str, Any], wires: Mapping[str, CallWire] = WIRES
) -> dict[str, Any] | str:
    """Go the quick way: the wire's dict, or the field that is wrong."""
    try:
        return wires[kind].validate(fields) | {"type": kind}
    except InvalidCall as error:
        return to_snake(error.field)


def by_model(kind: str, fields: dict[str, Any]) -> dict[str, Any] | str:
    """Go by the model."""
    try:
        return WIRES[kind].build(fields).wire()
    except InvalidCall as error:
        return to_snake(error.field)


# What each kind of field is in a model, and in the quick way's table.
KINDS: dict[Any, Any] = {
    Id: wire.ID,
    Object: wire.OBJECT,
    Switches: wire.SWITCHES,
    Timestamp: wire.TIMESTAMP,
    Text: wire.TEXT,
    Name: wire.NAME,
    MessageId: wire.MESSAGE_ID,
    bool: wire.FLAG,
    int | float: wire.NUMBER,
}


def table_of(model: type[BaseModel]) -> list[tuple[str, Any]]:
    """Return a model's fields as the quick way has them, by their wire names; not a call's type."""
    hints = get_type_hints(model, include_extras=True)
    return [
        (field.alias or name, kind_of(hints[name]))
        for name, field in model.model_fields.items()
        if get_origin(hints[name]) is not Literal
    ]


def kind_of(annotation: Any) -> Any:
    """Return what the table has for a field: a kind, or the fields of a part."""
    for kind, schema in KINDS.items():
        if annotation in (kind, kind | None):
            return schema
    [part] = [each for each in get_args(annotation) if each is not type(None)]
    return table_of(part)


def opened(schema: Any) -> Any:
    """Return a kind, or the fields of a part, of which none is needed."""
    if schema["type"] != "function-before":
        return schema
    fields = schema["schema"]["fields"]
    assert not any(field["required"] for field in fields.values())
    return [(name, opened(field["schema"])) for name, field in fields.items()]


@pytest.mark.parametrize("kind", MODELS)
def test_both_ways_have_the_same_fields_in_the_same_order(kind: CallType) -> None:
    """A field that one of the two has and the other has not would be checked by one only."""
    table = [(to_camel(name), opened(schema)) for name, schema in wire.FIELDS[kind].items()]
    assert table == table_of(MODELS[kind])
    fields = MODELS[kind].model_fields
    needed = {name for name, field in fields.items() if field.is_required()}
    assert set(wire.NEEDED.get(kind, ())) == needed


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(CALLS)
def test_both_ways_agree(call: tuple[str, dict[str, Any]]) -> None:
    """The quick way takes, changes and refuses exactly what the model does."""
    kind, fields = call
    assert by_wire(kind, fields) == by_model(kind, fields)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(CALLS)
def test_the_verbs_way_is_the_same_for_what_they_name(call: tuple[str, dict[str, Any]]) -> None:
    """It looks for no other fields: a verb has none."""
    kind, fields = call
    named = {name: value for name, value in fields.items() if name != "custom"}
    assert by_wire(kind, fields, VERBS) == by_wire(kind, named)


@pytest.mark.parametrize("name", ["receivedAt", "originalTimestamp", "sentAt", "writeKey", "appId"])
def test_both_ways_refuse_fields_that_others_set(name: str) -> None:
    """A middleware that sets such a field after the call was checked does not get it out."""
    fields = {"userId": "u1", "event": "e", name: CANARY}
    assert by_model("track", fields) == by_wire("track", fields) == to_snake(name)


class Unreadable(Mapping[str, Any]):
    """A mapping whose own code fails, and says what it should not."""

    def __getitem__(self, key: str) -> Any:
        """Fail."""
        raise RuntimeError(CANARY)

    def __iter__(self) -> Iterator[str]:
        """Name a key."""
        return iter([CANARY])

    def __len__(self) -> int:
        """Count it."""
        return 1


class Masked(str):
    """Text that shows itself as something else."""

    __slots__ = ()

    def __str__(self) -> str:
        """Show nothing."""
        return "***"


class Colour(str, Enum):  # noqa: UP042 - as many still write them
    """Text with names."""

    RED = "red"


class Plan(str, Enum):  # noqa: UP042
    """Text whose members have other values."""

    A = ("Plan A", 0)

    def __new__(cls, text: str, value: object) -> Self:
        """Make a member of a text and a value."""
        self = str.__new__(cls, text)
        self._value_ = value  # type: ignore[assignment]
        return self


@pytest.mark.parametrize(
    ("given_id", "text"),
    [
        (Masked("u1"), "u1"),
        (Colour.RED, "red"),
        (Plan.A, "Plan A"),
        ("\ud800", "\ud800"),
        (7, "7"),
        (" ", " "),
    ],
    ids=["subclass", "enum", "enum of pairs", "surrogate", "number", "space"],
)
def test_both_ways_make_the_same_text_of_an_id(given_id: Any, text: str) -> None:
    """Text goes out as it is, whatever class it is of."""
    fields = {"userId": given_id, "event": "e"}
    assert by_model("track", fields) == by_wire("track", fields)
    assert by_wire("track", fields) == {"type": "track", "userId": text, "event": "e"}


def test_both_ways_take_any_dict_as_it_is() -> None:
    """An object that is a dict is not copied before its bytes are made."""
    properties = OrderedDict(b=1, a=[2])
    fields = {"userId": "u1", "event": "e", "properties": properties}
    assert WIRES["track"].validate(fields)["properties"] is properties
    assert by_model("track", fields) == by_wire("track", fields)


def test_both_ways_leave_out_none_in_a_context() -> None:
    """A context's own member that is None is left out, as `ip` may be; an unknown one stays."""
    context = {"ip": None, "app": {"name": None, "new": None}, "new": None}
    fields = {"userId": "u1", "event": "e", "context": context}
    assert by_model("track", fields) == by_wire("track", fields)
    assert by_wire("track", fields) == {
        "type": "track",
        "userId": "u1",
        "event": "e",
        "context": {"app": {"new": None}, "new": None},
    }


def test_both_ways_take_models_under_names_of_the_users_own() -> None:
    """One of ours in a context goes out without what it lacks, known field or not."""
    mine = Library(name="l")
    fields = {"userId": "u1", "event": "e", "context": {"shop": mine, "app": {"shop": mine}}}
    assert by_model("track", fields) == by_wire("track", fields)
    assert by_wire("track", fields) == {
        "type": "track",
        "userId": "u1",
        "event": "e",
        "context": {"shop": {"name": "l"}, "app": {"shop": {"name": "l"}}},
    }


def test_both_ways_take_both_spellings_in_a_context() -> None:
    """`{"user_agent": ...}` means the same whether it goes through a model or not."""
    context = {"user_agent": "x", "device": {"advertising_id": "a"}}
    fields = {"userId": "u1", "event": "e", "context": context}
    assert by_model("track", fields) == by_wire("track", fields)


# ----------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("kind", "fields", "field"),
    [
        ("identify", {}, "user_id"),
        ("track", {"event": "e"}, "user_id"),
        ("track", {"userId": "u1"}, "event"),
        ("track", {"userId": "u1", "event": ""}, "event"),
        ("track", {"userId": 0, "event": "e"}, "user_id"),
        ("track", {"anonymousId": "", "event": "e"}, "anonymous_id"),
        ("group", {"userId": "u1"}, "group_id"),
        ("group", {"userId": "u1", "groupId": 0}, "group_id"),
        ("alias", {"previousId": "p"}, "user_id"),
        ("alias", {"userId": "u1"}, "previous_id"),
        ("page", {"userId": "u1", "messageId": "m" * 101}, "message_id"),
        ("page", {"userId": "u1", "name": []}, "name"),
        ("page", {"userId": "u1", "context": {"app": {"name": []}}}, "context.app.name"),
        ("page", {"userId": "u1", "context": {"groupId": ""}}, "context.groupId"),
        ("page", {"userId": "u1", "context": {"traits": 1}}, "context.traits"),
        ("screen", {"userId": "u1", "integrations": {"a": 1}}, "integrations"),
    ],
)
def test_errors_name_the_field(kind: str, fields: dict[str, Any], field: str) -> None:
    """The field is named as a Python caller writes it."""
    for way in (WIRES[kind].validate, WIRES[kind].build):
        with pytest.raises(InvalidCall, match=f"^{kind}: {field}: ") as caught:
            way(fields)
        assert (caught.value.call, caught.value.field) == (kind, field)
        # A traceback that went on to pydantic's error would be long, and say nothing more.
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"userId": [CANARY]}, "user_id: must be a non-empty string, a UUID or a number but 0"),
        ({"userId": ""}, "user_id: must be a non-empty string, a UUID or a number but 0"),
        ({"userId": "u", "properties": 1}, "properties: must be a mapping or a pydantic model"),
        (
            {"userId": "u", "properties": Unreadable()},
            "properties: is a mapping that cannot be read",
        ),
        ({"userId": "u", "context": Unreadable()}, "context: is a mapping that cannot be read"),
        ({"userId": "u", "context": []}, "context: must be a mapping or a pydantic model"),
        ({"userId": "u", "properties": None}, "properties: must be a mapping or a pydantic model"),
    ],
    ids=["list", "nothing", "number", "mapping", "context", "context list", "none"],
)
def test_errors_say_what_is_wrong(fields: dict[str, Any], said: str) -> None:
    """The quick way has two ways for a value, and says what the second one found."""
    for way in (WIRES["track"], TRACK):
        with pytest.raises(InvalidCall) as caught:
            way.validate({"event": "e", **fields})
        assert str(caught.value) == f"track: {said}"


def test_the_first_wrong_field_is_named() -> None:
    """What is sound beside it is not blamed, whatever kind it is of."""

    class Around(BaseModel):
        """A context of the user's own."""

        ip: str = "127.0.0.1"

    fields = {"userId": "u", "event": "", "context": Around()}
    with pytest.raises(InvalidCall, match=r"^track: event: "):
        TRACK.validate(fields)


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(CALLS, st.data())
def test_errors_show_no_values(call: tuple[str, dict[str, Any]], data: st.DataObject) -> None:
    """Whatever is wrong with a call, its message holds none of its values."""
    kind, fields = call
    names = [name for name in (COMMON | OWN[kind]) if name != "custom"]
    wrong: Any = data.draw(st.sampled_from([[CANARY], {CANARY}, CANARY.encode() + b"\xff"]))
    fields |= {data.draw(st.sampled_from(names)): wrong}
    for way in (WIRES[kind].validate, WIRES[kind].build):
        with pytest.raises(InvalidCall) as caught:
            way(fields)
        assert CANARY not in str(caught.value)
        assert CANARY not in repr(vars(caught.value))


def test_a_wrong_model_is_refused_by_pydantic_itself() -> None:
    """A model that is made directly fails as pydantic's models do."""
    with pytest.raises(ValidationError):
        MODELS["track"](user_id="u1")


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(CALLS)
def test_the_fields_that_were_given_are_never_changed(call: tuple[str, dict[str, Any]]) -> None:
    """What is made for the wire is the client's own, down to the context."""
    kind, fields = call
    before = repr(fields)
    wire = by_wire(kind, fields)
    if isinstance(wire, dict) and "context" in wire:
        wire["context"]["library"] = "another"
        for part in ("app", "device", "screen"):
            wire["context"].get(part, {})["more"] = 1
    assert repr(fields) == before
