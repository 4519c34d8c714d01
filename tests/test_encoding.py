"""A call becomes bytes once: faithful, exact in size, owned, and JSON whatever it was made of."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime as dt
import enum
import gzip
import ipaddress
import itertools
import json
import math
import pathlib
import re
import subprocess
import sys
import time
import types
import uuid
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import attrs
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr

from asyncanalytics import encoding
from asyncanalytics._version import __version__
from asyncanalytics.encoding import Envelope
from asyncanalytics.errors import Unserialisable
from asyncanalytics.wire import TRACK

FORCES_THE_SLOW_PATH = "\ud800"


class Colour(enum.Enum):
    """An enum of text."""

    RED = "red"


class Level(enum.IntEnum):
    """An enum of numbers."""

    HIGH = 3


class Price(enum.Enum):
    """An enum of something that JSON does not have."""

    LOW = Decimal("1.10")


@dataclasses.dataclass
class Point:
    """A dataclass: fields with an underscore are its own business."""

    x: Any
    _hidden: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    """A dataclass without a dict."""

    x: Any


@attrs.define
class Attrs:
    """An attrs class."""

    x: Any


class Pair(NamedTuple):
    """A tuple with names."""

    x: Any
    y: int = 2


class Model(BaseModel):
    """A pydantic model."""

    x: Any = Field(alias="theX")
    y: int = 2


class Node(BaseModel):
    """A model whose fields say what they hold."""

    name: str
    next: Node | None = None


class Child(Model):
    """A model within a model."""

    path: pathlib.PurePosixPath = pathlib.PurePosixPath("/a")


CARRIED: list[tuple[object, object]] = [
    (None, None),
    (True, True),
    ("text", "text"),
    ('\x00\x1f"\\/é\u2028😀', '\x00\x1f"\\/é\u2028😀'),
    (2**53 + 1, 2**53 + 1),
    (2**64 - 1, 2**64 - 1),
    (-(2**63), -(2**63)),
    (2**64, 2**64),
    (-(10**40), -(10**40)),
    (0.1, 0.1),
    (math.nan, None),
    (math.inf, None),
    (-math.inf, None),
    (dt.datetime(2026, 1, 2, 3, 4, 5, 6), "2026-01-02T03:04:05.000006Z"),  # noqa: DTZ001 - naive is UTC
    (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "2026-01-02T00:00:00Z"),
    (dt.datetime(2026, 7, 2, tzinfo=ZoneInfo("Europe/Paris")), "2026-07-02T00:00:00+02:00"),
    (dt.date(2026, 1, 2), "2026-01-02"),
    (dt.time(1, 2, 3), "01:02:03"),
    (dt.timedelta(days=1, seconds=2, milliseconds=500), "P1DT2.5S"),
    (dt.timedelta(seconds=-1), "-P0DT1S"),
    (dt.timedelta(0), "P0DT0S"),
    (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    (Decimal("0.1"), 0.1),
    (Decimal("1E+2"), 100.0),
    (Decimal("nan"), None),
    (Decimal("-Infinity"), None),
    (Colour.RED, "red"),
    (Level.HIGH, 3),
    (Price.LOW, 1.1),
    ({1}, [1]),
    (frozenset(["a"]), ["a"]),
    (collections.deque([1, 2]), [1, 2]),
    ((1, 2), [1, 2]),
    (range(3), [0, 1, 2]),
    ("é".encode(), "é"),
    (bytearray(b"b"), "b"),
    (memoryview(b"b"), "b"),
    (Slotted({Decimal(1)}), {"x": [1]}),
    (Slotted(dt.date(2026, 1, 2)), {"x": "2026-01-02"}),
    (Attrs(1), {"x": 1}),
    (Attrs(Attrs(b"b")), {"x": {"x": "b"}}),
    (Pair("p"), ["p", 2]),
    (Model(theX=Decimal(1)), {"theX": 1, "y": 2}),
    (Child(theX={1}), {"theX": [1], "y": 2, "path": "/a"}),
    (pathlib.PurePosixPath("/a/é"), "/a/é"),
    (ipaddress.ip_address("127.0.0.1"), "127.0.0.1"),
    (ipaddress.ip_network("::/8"), "::/8"),
    (SecretStr("s"), "**********"),
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.ChainMap({"a": 1}), {"a": 1}),
    (types.MappingProxyType({"a": b"b"}), {"a": "b"}),
    ({1: 2}, {"1": 2}),
    ({2**70: 2}, {str(2**70): 2}),
    ({True: 1, None: 2, 1.5: 3}, {"true": 1, "null": 2, "1.5": 3}),
    ({dt.date(2026, 1, 2): 1, uuid.UUID(int=5): 2}, {"2026-01-02": 1, str(uuid.UUID(int=5)): 2}),
    ({Colour.RED: 1, Level.HIGH: 2}, {"red": 1, "3": 2}),
    (np.int64(7), 7),
    (np.float64(1.5), 1.5),
    (np.float32("nan"), None),
    (np.bool_(True), True),  # noqa: FBT003 - it has no keyword
    (np.str_("é"), "é"),
    (np.bytes_(b"b"), "b"),
    (np.datetime64("2026-01-02T03:04:05"), "2026-01-02T03:04:05"),
    (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    ({np.int64(1): 2, np.float32(1.1): 3}, {"1": 2, "1.1": 3}),
]

WRAPPED: dict[str, tuple[Any, Any]] = {
    "alone": (lambda value: value, lambda found: found),
    "list": (lambda value: [0, [value]], lambda found: found[1][0]),
    "dict": (lambda value: {"a": {"b": {"c": [value]}}}, lambda found: found["a"]["b"]["c"][0]),
    "tuple in deque": (lambda value: collections.deque([(value,)]), lambda found: found[0][0]),
    "dataclass": (lambda value: Point(Slotted(value)), lambda found: found["x"]["x"]),
    "attrs": (lambda value: Attrs([value]), lambda found: found["x"][0]),
    "model": (lambda value: Model(theX={"k": value}), lambda found: found["theX"]["k"]),
}


def no_constant(name: str) -> None:
    """Refuse what Python's reader takes and JSON does not have."""
    raise AssertionError(name)


def read(body: bytes) -> Any:
    """Read an encoded call as strict JSON."""
    return json.loads(b"{" + body, parse_constant=no_constant)


def carry(value: object, *, slowly: bool = False) -> Any:
    """Send a value as a property, and return what arrives."""
    more = {"more": FORCES_THE_SLOW_PATH} if slowly else {}
    fields = {"userId": "u1", "event": "e", "properties": {"value": value, **more}}
    _, body = encoding.encode("track", fields)
    return read(body)["properties"]["value"]


both_paths = pytest.mark.parametrize("slowly", [False, True], ids=["fast", "slow"])


@both_paths
@pytest.mark.parametrize("around", WRAPPED)
@pytest.mark.parametrize(("value", "arrives"), CARRIED)
def test_values_are_carried(value: object, arrives: object, around: str, *, slowly: bool) -> None:
    """Each kind of value arrives the same at any depth, whichever way it is encoded."""
    wrap, unwrap = WRAPPED[around]
    encoding._options &= (
        ~orjson.OPT_SERIALIZE_NUMPY
    )  # so that it is the first of numpy, and then not
    for _ in range(2):
        found = unwrap(carry(wrap(value), slowly=slowly))
        assert found == arrives
        assert type(found) is type(arrives) or isinstance(found, float | int)


def test_decimals_keep_all_their_digits() -> None:
    """A price is not rounded by the way it travels."""
    _, body = encoding.encode("track", {"properties": {"price": Decimal("0.10000000000000000001")}})
    assert b'"price":0.10000000000000000001' in body


@both_paths
def test_a_dataclass_keeps_its_own_business(*, slowly: bool) -> None:
    """Fields with an underscore stay at home."""
    assert carry([Point(Point(1))], slowly=slowly) == [{"x": {"x": 1}}]


@both_paths
@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (dt.time(1, 2, tzinfo=dt.UTC), {"01:02:00+00:00", "01:02:00Z"}),
        (dt.time(1, 2, 3, 4, tzinfo=dt.timezone(dt.timedelta(hours=2))), {"01:02:03.000004+02:00"}),
    ],
)
def test_times_with_a_zone(value: dt.time, arrives: set[str], *, slowly: bool) -> None:
    """A time of day may have a zone, as database drivers return it."""
    assert carry(value, slowly=slowly) in arrives


@both_paths
def test_floats_of_a_subclass(*, slowly: bool) -> None:
    """A float by another name, as units and scientific packages make them, is a float."""

    class Metres(float):
        pass

    assert carry(Metres(1.5), slowly=slowly) == 1.5
    assert carry(Metres("nan"), slowly=slowly) is None


@both_paths
def test_an_offset_of_seconds_keeps_the_moment(*, slowly: bool) -> None:
    """Local mean time, which zones have for old dates, has offsets that are no whole minutes."""
    moment = dt.datetime(1890, 1, 1, tzinfo=ZoneInfo("Europe/Paris"))
    assert dt.datetime.fromisoformat(carry(moment, slowly=slowly)) == moment


# -------------------------------------------------------------------------------- lone surrogates


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc80\ud800"], ids=ascii)
def test_lone_surrogates_do_not_break_a_call(text: str) -> None:
    """What is no character becomes the replacement character; the rest of the text stays."""
    arrived = carry({"key" + text: [text]})
    [(key, [value])] = arrived.items()
    assert set(key.removeprefix("key")) | set(value) <= {"\ufffd", "a", "b"}
    assert [each for each in value if each in "ab"] == [each for each in text if each in "ab"]


def test_a_pair_of_surrogates_is_its_character() -> None:
    """Text from a JavaScript or UTF-16 source may hold a character as its two halves."""
    assert carry("\ud83d\ude00!") == "😀!"


def test_surrogates_in_ids_and_names() -> None:
    """The protocol's own fields are text like any other."""
    _, body = encoding.encode("page", {"userId": "u\ud800", "name": "n\ud800"})
    assert read(body)["userId"].startswith("u\ufffd")
    assert read(body)["name"].startswith("n\ufffd")


# ------------------------------------------------------------------------------------ what is not


class Odd:
    """A value with no JSON form, whose text must not show."""

    def __repr__(self) -> str:
        return "canary-7f3a"


BAD_KEYS: list[Any] = [{b"k": 1}, {Odd(): 1}]


@both_paths
@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Odd(), "properties.value"),
        ([1, {"a": (0, Odd())}], "properties.value[1].a[1]"),
        ({"a": {"b": [[Odd()]]}}, "properties.value.a.b[0][0]"),
        ({1: Odd()}, "properties.value.1"),
        (Point(Odd()), "properties.value.x"),
        (Slotted([Odd()]), "properties.value.x[0]"),
        (Attrs(Odd()), "properties.value.x"),
        (Model(theX=Odd()), "properties.value.theX"),
        (frozenset([Odd()]), "properties.value[0]"),
        (types.MappingProxyType({"k": Odd()}), "properties.value.k"),
        (b"\xff", "properties.value"),
        ([pathlib.PurePosixPath("/a"), b"\xff"], "properties.value[1]"),
        (object, "properties.value"),
        (len, "properties.value"),
        ((each for each in [1]), "properties.value"),
        (1j, "properties.value"),
        (np.complex128(1j), "properties.value"),
        ([np.array([1j])], "properties.value[0]"),
        (np.arange(6)[::2], "properties.value"),
        ({np.add: 1}, "properties.value"),
        (BAD_KEYS[0], "properties.value"),
        ([BAD_KEYS[1]], "properties.value[0]"),
        ({"k": {1: "a", "1": "b"}}, "properties.value.k.1"),
    ],
)
def test_what_has_no_json_form_is_refused(value: object, path: str, *, slowly: bool) -> None:
    """The error gives the exact path, and nothing of what is there."""
    with pytest.raises(Unserialisable) as caught:
        carry(value, slowly=slowly)
    assert (caught.value.call, caught.value.field) == ("track", path)
    assert "canary" not in str(caught.value)


def test_a_value_of_another_kind_imports_no_numpy() -> None:
    """Where nobody uses numpy, no call pays for its import, which would hold up the loop."""
    code = (
        "import decimal, sys; from asyncanalytics import encoding; "
        "encoding.encode('track', {'a': decimal.Decimal(1), 'b': {1: {2}}}); "
        "sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 - our own code


@both_paths
def test_an_integer_too_long_to_write_is_refused(*, slowly: bool) -> None:
    """Python does not write integers of some thousand digits: that is an error of the call."""
    with pytest.raises(Unserialisable, match=r"properties\.value\.n"):
        carry({"n": 10**5_000}, slowly=slowly)


def circular(kind: str) -> object:
    """Make something that contains itself."""
    if kind == "dict":
        around: dict[str, object] = {}
        around["again"] = around
        return around
    if kind == "list":
        row: list[object] = []
        row.append([row])
        return row
    if kind == "deque":
        queue: collections.deque[object] = collections.deque()
        queue.append(queue)
        return queue
    holder: Any = {"dataclass": Point, "attrs": Attrs}[kind](None)
    holder.x = holder
    return holder


@both_paths
@pytest.mark.parametrize("kind", ["dict", "list", "deque", "dataclass", "attrs"])
def test_what_contains_itself_is_refused(kind: str, *, slowly: bool) -> None:
    """Circular data is refused at the call, with a path that is not endless."""
    with pytest.raises(Unserialisable, match="nested too deeply, or contains itself") as caught:
        carry(circular(kind), slowly=slowly)
    assert caught.value.field.startswith("properties.value")
    assert len(caught.value.field) <= 201


@both_paths
def test_a_model_with_odd_values_warns_of_nothing(*, slowly: bool) -> None:
    """Pydantic's warning would print the value; the value itself is carried."""
    odd: Any = b"canary-7f3a"
    assert carry([Node.model_construct(name=odd)], slowly=slowly)[0]["name"] == "canary-7f3a"


@both_paths
def test_a_model_that_contains_itself_is_refused(*, slowly: bool) -> None:
    """Pydantic finds the circle itself, and its error is the call's."""
    node = Node(name="n")
    node.next = node
    with pytest.raises(Unserialisable) as caught:
        carry({"nodes": [node]}, slowly=slowly)
    assert caught.value.field.startswith("properties.value.nodes[0]")


def nested(depth: int, kind: str) -> object:
    """Make something that is so deep."""
    value: object = 1
    for _ in range(depth):
        value = {"k": value} if kind == "dict" else [value] if kind == "list" else Slotted(value)
    return value


@pytest.mark.parametrize("kind", ["dict", "list", "dataclass"])
@pytest.mark.parametrize("depth", [300, 5_000])
def test_what_is_too_deep_is_refused(kind: str, depth: int) -> None:
    """A depth that no server would take does not end in a crash here."""
    with pytest.raises(Unserialisable, match="nested too deeply"):
        carry(nested(depth, kind))


def from_a_deep_stack(value: object, left: int) -> object:
    """Make the call with only so many frames left."""
    frames = 0
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        frames, frame = frames + 1, frame.f_back
    if sys.getrecursionlimit() - frames > left:
        return from_a_deep_stack(value, left)
    return carry(value)


@pytest.mark.parametrize("kind", ["dict", "list", "dataclass"])
def test_what_is_too_deep_is_refused_from_a_deep_stack_too(kind: str) -> None:
    """A caller who is deep in calls himself gets the same error, not a RecursionError."""
    with pytest.raises(Unserialisable, match="nested too deeply"):
        from_a_deep_stack(circular(kind), left=300)


@pytest.mark.parametrize(
    ("kind", "depth"), [("dict", 100), ("dict", 245), ("list", 245), ("dataclass", 100)]
)
def test_both_paths_allow_the_same_depth(kind: str, depth: int) -> None:
    """One odd character does not change how deep a call may be."""
    assert carry(nested(depth, kind), slowly=True) == carry(nested(depth, kind))


def test_a_text_like_object_is_no_endless_sequence() -> None:
    """A `UserString` is a sequence of sequences of itself."""
    assert carry(collections.UserString("abc")) == "abc"


# ------------------------------------------------------------------------------------ any values

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**200), 2**200),
    st.floats(),
    st.text(st.characters(codec=None), max_size=8),
    st.binary(max_size=4),
    st.dates(),
    st.datetimes(timezones=st.sampled_from([None, dt.UTC])),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(),
    st.sampled_from([Colour.RED, Level.HIGH, Price.LOW, Odd(), SecretStr("s")]),
)
KEYS = st.text(st.characters(codec=None), max_size=6) | st.integers() | st.dates() | st.booleans()
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3),
        st.lists(inner, max_size=2).map(tuple),
        st.lists(inner, max_size=2).map(collections.deque),
        inner.map(Point),
        inner.map(Attrs),
        inner.map(lambda value: Model(theX=value)),
    ),
    max_leaves=8,
)
PROPERTIES = st.dictionaries(KEYS, VALUES, max_size=4)
thorough = settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)


def encoded(properties: Any, **fields: Any) -> bytes | str:
    """Go the whole way of a call: its bytes, or the path at which it is refused."""
    wire = TRACK.validate({"userId": "u1", "event": "e", "properties": properties, **fields})
    try:
        return encoding.encode("track", wire)[1]
    except Unserialisable as error:
        return error.field


@thorough
@given(PROPERTIES)
def test_any_properties_make_strict_json_or_are_refused(properties: dict[Any, Any]) -> None:
    """No call can spoil the batch that it travels in."""
    found = encoded(properties)
    if isinstance(found, bytes):
        event = read(found)
        assert len(event["properties"]) == len(properties)
        found.decode()  # UTF-8 throughout
    else:
        assert found.startswith("properties")


JSON_ITSELF = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@thorough
@given(st.dictionaries(st.text(), JSON_ITSELF, max_size=4))
def test_what_json_has_arrives_as_it_was(properties: dict[str, Any]) -> None:
    """Nothing that needs no conversion is changed on the way."""
    found = encoded(properties)
    assert isinstance(found, bytes)
    assert read(found)["properties"] == properties


@thorough
@given(VALUES)
def test_both_paths_agree(value: object) -> None:
    """What comes out does not depend on what stands beside it."""

    def either(*, slowly: bool) -> object:
        try:
            return carry(value, slowly=slowly)
        except Unserialisable as error:
            return error.field

    assert either(slowly=False) == either(slowly=True)


@thorough
@given(PROPERTIES, st.dictionaries(st.text(max_size=4), VALUES, max_size=2))
def test_the_callers_dicts_are_never_changed(
    properties: dict[Any, Any], context: dict[str, Any]
) -> None:
    """What was passed is as it was, whether the call was taken or refused."""
    passed = {"properties": properties, "context": {"traits": context, "own": context}}
    before = repr(copy.deepcopy(passed)) if _copies(passed) else repr(passed)
    encoded(**passed)
    assert repr(passed) == before


def _copies(value: object) -> bool:
    return repr(copy.deepcopy(value)) == repr(value)


def test_a_change_after_the_call_changes_nothing() -> None:
    """The bytes are the call's own from the moment that it is accepted."""
    inner: dict[str, Any] = {"list": [1], "set": {1}, "array": bytearray(b"a"), "point": Point([1])}
    found = encoded(inner, context={"traits": inner})
    assert isinstance(found, bytes)
    before = bytes(bytearray(found))
    inner["list"].append(2)
    inner["point"].x.append(2)
    inner.clear()
    assert found == before


@thorough
@given(PROPERTIES)
def test_an_encoded_call_takes_no_more_memory_than_its_bytes(properties: dict[Any, Any]) -> None:
    """What the queue keeps is an exact-size copy, not orjson's larger buffer."""
    found = encoded(properties)
    assert isinstance(found, str) or sys.getsizeof(found) == sys.getsizeof(b"") + len(found)


# ------------------------------------------------------------------------------ what is filled in


def test_what_the_caller_left_out_is_filled_in() -> None:
    """Every call goes out with an id, a time and a context."""
    message_id, body = encoding.encode("track", {"userId": "u1", "event": "e"})
    event = read(body)
    library = {"name": "asyncanalytics", "version": __version__}
    assert event["messageId"] == message_id
    assert uuid.UUID(message_id).version == 7
    assert event["context"] == {"library": library, "channel": "server"}
    assert event["type"] == "track"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["timestamp"])


def test_what_the_caller_gave_stays() -> None:
    """An id, a time and a library of the caller's own are not replaced."""
    context = {"library": {"name": "customer"}, "channel": "worker", "ip": "1.2.3.4"}
    wire = {"messageId": "m1", "timestamp": "2026-01-02T00:00:00.000Z", "context": dict(context)}
    message_id, body = encoding.encode("page", wire)
    assert message_id == read(body)["messageId"] == "m1"
    assert read(body)["timestamp"] == "2026-01-02T00:00:00.000Z"
    assert read(body)["context"] == context


def test_a_stamp_is_the_time_now() -> None:
    """Stamps are the wall clock's, in UTC, and go on."""
    before = time.time()
    first = dt.datetime.fromisoformat(encoding.stamp()).timestamp()
    assert before - 0.002 <= first <= time.time()
    while encoding.stamp() == encoding.stamp():
        pass
    assert dt.datetime.fromisoformat(encoding.stamp()).timestamp() > first


@thorough
@given(st.lists(st.integers(0, 4_102_444_800 * 10**9), min_size=1), st.lists(st.integers(0, 10**9)))
def test_a_stamp_is_of_its_moment(moments: list[int], steps: list[int]) -> None:
    """However the clock jumps or goes on, a stamp is of its millisecond, to a clock's precision."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: now / 1e9)
        patch.setattr(time, "time_ns", lambda: now)
        for now in [*moments, *itertools.accumulate(steps, initial=moments[-1])]:
            text = encoding.stamp()
            since = round(dt.datetime.fromisoformat(text).timestamp() * 1_000) * 10**6
            assert len(text) == len("2026-01-02T00:00:00.000Z")
            assert since - 1_000 <= now < since + 10**6 + 1_000


def test_ids_are_unique_and_sort_by_time() -> None:
    """A million queues' ids do not meet, and a database keeps them in order."""
    ids = [encoding.new_id() for _ in range(2_000)]
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)
    assert all(uuid.UUID(each).version == 7 for each in ids)


# -------------------------------------------------------------------------------------- envelopes

EVENTS = st.lists(
    st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3), min_size=1, max_size=5
)
NAMES = st.text(min_size=1, max_size=8)
MEMBERS = st.dictionaries(NAMES, st.text(max_size=12), max_size=2)


def bodies_of(events: list[dict[str, str]]) -> list[bytes]:
    """Encode events as tracks."""
    return [encoding.encode("track", {"properties": event})[1] for event in events]


def envelope_of(body: dict[str, str], event: dict[str, str], *, message_id: bool) -> Envelope:
    """Make an envelope whose members do not meet the protocol's own."""
    return Envelope(
        in_body={f"b-{name}": value for name, value in body.items()},
        in_event={f"e-{name}": value for name, value in event.items()},
        message_id=message_id,
    )


@thorough
@given(EVENTS, MEMBERS, MEMBERS, st.booleans())
def test_an_envelope_knows_its_size_and_holds_all(
    events: list[dict[str, str]],
    in_body: dict[str, str],
    in_event: dict[str, str],
    message_id: bool,  # noqa: FBT001 - drawn, not passed by hand
) -> None:
    """The size is exact before it is written, and what is packed is what was given."""
    envelope = envelope_of(in_body, in_event, message_id=message_id)
    bodies = bodies_of(events)
    packed = envelope.pack(bodies, "first last 2")
    size = envelope.size + sum(len(body) + envelope.per_event for body in bodies)
    assert len(packed) == size
    content = json.loads(packed, parse_constant=no_constant)
    batch = content.pop("batch")
    assert [event["properties"] for event in batch] == events
    for event in batch:
        assert {name: event[f"e-{name}"] for name in in_event} == in_event
    assert re.fullmatch(r"[\d-]{10}T[\d:.]{12}Z", content.pop("sentAt"))
    assert (content.pop("messageId", None) is not None) == message_id
    assert content == {f"b-{name}": value for name, value in in_body.items()}


@pytest.mark.parametrize("events", [1, 2, 63, 64, 65, 128, 129, 1_000])
def test_the_pieces_make_the_whole(events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls there are, nothing is missing between two pieces."""
    monkeypatch.setattr(encoding, "stamp", lambda: "now")
    envelope = Envelope(in_body={"writeKey": "k"}, in_event={"app_id": "a"}, message_id=True)
    bodies = bodies_of([{"number": str(number)} for number in range(events)])
    pieces = [*envelope.pieces(bodies, "a b 2")]
    assert b"".join(pieces) == envelope.pack(bodies, "a b 2")
    assert len(pieces) == math.ceil(events / 64)


def test_the_envelopes_id_is_stable_and_its_stamp_is_not() -> None:
    """A retry is the same envelope, sent at another time; another batch is another envelope."""
    envelope = Envelope(in_body={}, in_event={}, message_id=True)
    bodies = bodies_of([{"a": "1"}])
    first = json.loads(envelope.pack(bodies, "a b 2"))
    stamp = encoding.stamp()
    while encoding.stamp() == stamp:
        pass
    again = json.loads(envelope.pack(bodies, "a b 2"))
    other = json.loads(envelope.pack(bodies, "a c 2"))
    assert first["messageId"] == again["messageId"] != other["messageId"]
    assert first["sentAt"] < again["sentAt"]
    assert first["batch"] == again["batch"]


@thorough
@given(MEMBERS, st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3))
def test_one_call_alone(in_event: dict[str, str], properties: dict[str, str]) -> None:
    """A route that takes one call gets it with `sentAt` and its own members, and no envelope."""
    envelope = envelope_of({}, in_event, message_id=False)
    event = json.loads(envelope.pack_one(bodies_of([properties])[0]))
    assert event["properties"] == properties
    assert "batch" not in event
    assert "sentAt" in event
    assert {name: event[f"e-{name}"] for name in in_event} == in_event


# ------------------------------------------------------------------------------------ compression


@given(st.binary(max_size=2_000))
def test_compression_gives_back_the_same(content: bytes) -> None:
    """Any gzip reader gets what was put in; the same content gives the same bytes."""
    pieces = [content[:7], content[7:]]
    assert gzip.decompress(encoding.compress(pieces)) == content
    assert encoding.compress(pieces) == encoding.compress(iter(pieces))


def test_compression_is_worth_it() -> None:
    """A batch, which repeats itself, becomes much smaller."""
    content = Envelope(in_body={}, in_event={}).pack(bodies_of([{"k": "v" * 50}] * 100), "")
    assert len(encoding.compress([content])) < len(content) / 4
