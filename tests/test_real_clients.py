"""SDKs that others wrote, and curl, drive the collector: every call of theirs arrives complete.

Each runs in a process of its own, as its users run it, told nothing but the address and the key;
`drive.py` and `node/drive.mjs` make the calls. One that is not installed is skipped, and the
reason says what to install.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from asyncanalytics.collector import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncanalytics.collector import StoredEvent

pytestmark = pytest.mark.long

HERE: Final = Path(__file__).parent
NODE_SDKS: Final = Path(os.environ.get("NODE_SDKS") or HERE / "node").resolve()
"""The folder with the node_modules of `node/package.json`."""
KEY: Final = "a-key-that-opens-nothing"
SIZE: Final = 10
"""Calls in a batch, where the SDK lets its user choose."""

Call = dict[str, Any]


class Plan(TypedDict):
    """What an SDK is told to do."""

    url: str
    key: str
    size: int
    gzip: bool
    calls: Sequence[Call]
    """With the protocol's names; an object whose only member is `$date` stands for a date."""


# ------------------------------------------------------------------------------ who is let loose


def _as_given(call: Call) -> Call:
    return call


def _traits_into_context(call: Call) -> Call:
    """RudderStack's SDK for Python puts a user's traits into the context, and nowhere else."""
    if call["type"] != "identify":
        return call
    rest = {name: value for name, value in call.items() if name != "traits"}
    return {**rest, "context": {**call["context"], "traits": call["traits"]}}


def _traits_into_context_too(call: Call) -> Call:
    """RudderStack's SDK for Node puts a user's traits into the context too."""
    return {
        **_traits_into_context(call),
        **({"traits": call["traits"]} if "traits" in call else {}),
    }


def _category_into_properties(call: Call) -> Call:
    """Segment's SDK for Node puts a page's category into the properties too."""
    if call["type"] != "page":
        return call
    return {**call, "properties": {**call["properties"], "category": call["category"]}}


@dataclass(frozen=True, kw_only=True)
class Sdk:
    """A package, and what it is documented or seen to do to a call."""

    package: str
    on_node: bool = True
    adds: frozenset[str] = frozenset()
    """What it adds to an event, beside its type, its messageId and the context's library."""
    does: Callable[[Call], Call] = _as_given
    """What else it changes about a call."""
    kinds: tuple[str, ...] = ("identify", "track", "page", "screen", "group", "alias")
    compresses: bool = False
    has_library: bool = True
    makes_text_of_ids: bool = True
    """Whether a number may be a user's id."""
    stamps: bool = True
    """Whether its requests have `sentAt`."""
    counts_retries: bool = False
    """Whether it sends X-Retry-Count."""
    tries_again: dict[str, Any] = field(default_factory=lambda: {"status": 503})
    """A fault after which it sends again; empty: there is none."""


SDKS: Final = (
    Sdk(package="segment-analytics-python", on_node=False, compresses=True, counts_retries=True),
    Sdk(
        package="rudder-sdk-python",
        on_node=False,
        adds=frozenset({"channel"}),
        does=_traits_into_context,
        compresses=True,
    ),
    Sdk(
        package="@segment/analytics-node",
        adds=frozenset({"_metadata"}),
        does=_category_into_properties,
        makes_text_of_ids=False,
        counts_retries=True,
    ),
    Sdk(
        package="@rudderstack/rudder-sdk-node",
        adds=frozenset({"_metadata", "channel", "originalTimestamp", "sentAt"}),
        does=_traits_into_context_too,
        compresses=True,
    ),
    Sdk(package="analytics-node", adds=frozenset({"_metadata"})),
    Sdk(
        package="astronomer",
        adds=frozenset({"_metadata"}),
        tries_again={"drop": True},  # a POST that got any answer is given up
    ),
    Sdk(
        package="@customerio/cdp-analytics-node",
        adds=frozenset({"_metadata"}),
        does=_category_into_properties,
        makes_text_of_ids=False,
        stamps=False,
    ),
    Sdk(
        package="@dittofeed/sdk-node",
        kinds=("identify", "track", "page", "screen"),
        has_library=False,
        makes_text_of_ids=False,
        stamps=False,
        tries_again={},
    ),
)
each_sdk = pytest.mark.parametrize("sdk", SDKS, ids=lambda sdk: sdk.package)


def _command(sdk: Sdk) -> list[str]:
    """Return what runs it; skip the test where something is missing."""
    if not sdk.on_node:
        try:
            metadata.version(sdk.package)
        except metadata.PackageNotFoundError:
            pytest.skip(f"{sdk.package} is missing: pip install {sdk.package}")
        return [sys.executable, str(HERE / "drive.py"), sdk.package]
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is missing: install Node.js 20 or later, with npm")
    if not (NODE_SDKS / "node_modules" / sdk.package).exists():
        pytest.skip(f"{sdk.package} is missing: npm install --prefix tests/node")
    return [node, str(HERE / "node" / "drive.mjs"), str(NODE_SDKS), sdk.package]


async def _run(command: Sequence[str], told: bytes = b"") -> str:
    """Run a program to its good end, and return what it printed."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        start_new_session=True,  # without a terminal there is nobody to ask for a password
    )
    printed, complaints = await process.communicate(told)
    assert process.returncode == 0, complaints.decode()
    return printed.decode()


async def _drive(
    sdk: Sdk, collector: Collector, calls: Sequence[Call], *, gzip: bool = False
) -> None:
    command = _command(sdk)
    async with collector.serve() as url:
        plan = Plan(url=url, key=KEY, size=SIZE, gzip=gzip, calls=calls)
        await _run(command, json.dumps(plan).encode())


# --------------------------------------------------------------------------------- what is called

_DATE: Final = {"$date": "2026-03-01T12:30:45.678Z"}
_RICH: Final[dict[str, Any]] = {
    "text": 'Žluťoučký kůň 🐎 "quoted" \\ / \t\r\n \u2028 <img src=x onerror=alert(1)>',
    "nothing": None,
    "yes": True,
    "no": False,
    "empty": "",
    "count": 3,
    "large": 9_007_199_254_740_991,
    "negative": -0.25,
    "tiny": 1e-7,
    "revenue": 61.4,
    "when": _DATE,
    "list": [1, "two", None, [], {}, [[3.5, {"deep": {"deeper": ["ž"]}}]]],
    "products": [{"sku": "tea-250", "price": 14.5}, {"sku": "pot-09", "price": 26.25}],
    "no members": {},
    "a.b $c-d é": "a name that is no identifier",
}
_CONTEXT: Final[dict[str, Any]] = {
    "ip": "203.0.113.7",
    "locale": "cs-CZ",
    "userAgent": "Mozilla/5.0 (X11; Linux x86_64)",
    "page": {"url": "https://shop.example/?q=%C5%BE&p=1", "title": "Čaj & konvice"},
    "campaign": {"name": "podzim", "source": "news", "medium": "email", "term": "", "content": ""},
    "device": {"id": "d-1", "advertisingId": None, "size": [1, 2]},
}
_OWN: Final[dict[str, dict[str, Any]]] = {
    "identify": {"traits": {**_RICH, "email": "arthur@example.org"}},
    "track": {"event": "Objednávka dokončena ✓", "properties": _RICH},
    "page": {"category": "Blog", "name": "Čaj", "properties": _RICH},
    "screen": {"category": "Účet", "name": "Přihlášení", "properties": _RICH},
    "group": {"groupId": "skupina-1", "traits": {**_RICH, "employees": 42}},
    "alias": {"previousId": "someone"},
}


def _call(kind: str, user_id: str | int) -> Call:
    anonymous = {} if kind == "alias" else {"anonymousId": f"anonymous-{user_id}"}
    return {
        "type": kind,
        "userId": user_id,
        **anonymous,
        **_OWN[kind],
        "timestamp": _DATE,
        "context": _CONTEXT,
        "integrations": {"All": False, "Mixpanel": True, "Salesforce": {"owner": "žena"}},
    }


def _calls(sdk: Sdk, rounds: int) -> list[Call]:
    """Make every call that the SDK has, a few times, each for a user of its own."""
    made = [_call(kind, f"{kind}-{n}") for n in range(rounds) for kind in sdk.kinds]
    strange = {**_call("track", "strange"), "properties": {"lone": "\ud83d!", "nul": "a\0b"}}
    numbered = [_call("track", 42)] if sdk.makes_text_of_ids else []
    return [*made, strange, *numbered]


_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d)")


def _moments(value: Any) -> Any:
    """Replace dates, however they are written: each language writes them in a way of its own."""
    if isinstance(value, dict):
        if "$date" in value:
            return _moments(value["$date"])
        return {name: _moments(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_moments(each) for each in value]
    is_moment = isinstance(value, str) and _MOMENT.fullmatch(value)
    return datetime.fromisoformat(value) if is_moment else value


def _expected(sdk: Sdk, call: Call) -> Call:
    found: Call = _moments(sdk.does(call))
    return {**found, "userId": str(call["userId"])}


def _arrived(sdk: Sdk, event: StoredEvent) -> Call:
    """Return an event without what the SDK adds to it; null is how some write that nothing is."""
    payload = dict(event.payload)
    assert payload.pop("messageId") == event.message_id
    for name in sdk.adds:
        assert payload.pop(name, None)
    if sdk.has_library:
        library = payload["context"].pop("library")
        assert library["name"]
        assert library["version"]
    return {name: _moments(value) for name, value in payload.items() if value is not None}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector in memory that lets one key in."""
    with Collector(write_keys=[KEY]) as made:
        yield made


# ------------------------------------------------------------------------------------------- SDKs


async def _each_call_arrives(sdk: Sdk, collector: Collector, *, gzip: bool) -> None:
    calls = _calls(sdk, 6)
    await _drive(sdk, collector, calls, gzip=gzip)
    events, stats = collector.events(), collector.stats()
    assert (stats.events, stats.distinct, stats.bad, stats.reasons) == (len(calls),) * 2 + (0, {})
    assert stats.by_type == Counter(call["type"] for call in calls)
    assert len(calls) / SIZE <= stats.requests < len(calls)
    assert {each.key_fingerprint for each in events} == {collector.fingerprint(KEY)}
    assert {each.sent_at is not None for each in events} == {sdk.stamps}
    assert {each.retry_count for each in events} == {None}
    arrived = {(each.type, each.user_id): _arrived(sdk, each) for each in events}
    assert arrived == {(call["type"], str(call["userId"])): _expected(sdk, call) for call in calls}
    size = sum(len(json.dumps(each.payload)) for each in events)
    assert (stats.bytes < size / 2) == gzip


@each_sdk
async def test_each_call_arrives(sdk: Sdk, collector: Collector) -> None:
    """All calls of an SDK, in batches, are good and hold what was given, whatever that was."""
    await _each_call_arrives(sdk, collector, gzip=False)


@pytest.mark.parametrize(
    "sdk", [each for each in SDKS if each.compresses], ids=lambda sdk: sdk.package
)
async def test_each_call_arrives_compressed(sdk: Sdk, collector: Collector) -> None:
    """The same, where the SDK can compress."""
    await _each_call_arrives(sdk, collector, gzip=True)


@pytest.mark.parametrize(
    "sdk", [each for each in SDKS if each.tries_again], ids=lambda sdk: sdk.package
)
async def test_what_is_sent_again(sdk: Sdk, collector: Collector) -> None:
    """After two faults nothing is lost; what had been kept comes again with the same ids."""
    calls = [_call("track", f"user-{n}") for n in range(3 * SIZE)]
    collector.misbehave(**sdk.tries_again, count=1)
    collector.misbehave(**sdk.tries_again, count=1, after=True)
    await _drive(sdk, collector, calls)
    events, stats = collector.events(), collector.stats()
    seen = Counter(each.user_id for each in events)
    assert set(seen) == {call["userId"] for call in calls}
    assert max(seen.values()) == 2
    assert (stats.bad, stats.distinct) == (0, len(calls))
    assert stats.duplicates == list(seen.values()).count(2)
    assert len({(each.user_id, each.message_id) for each in events}) == len(calls)
    assert any(each.retry_count for each in events) == sdk.counts_retries


# ------------------------------------------------------------------------------------------- curl

_JSON: Final = ("-H", "Content-Type: application/json")
_BATCH: Final = {
    "messageId": "envelope-1",
    "sentAt": "2026-03-01T12:30:46.000Z",
    "batch": [
        {**_call("identify", "u1"), "messageId": "event-1", "timestamp": "2026-03-01T12:30:45Z"},
        {**_call("track", "u1"), "messageId": "event-2", "timestamp": "2026-03-01T12:30:45Z"},
    ],
}
_BY_HAND: Final[dict[str, dict[str, Any]]] = {
    "identify": {
        "userId": "1234qwerty",
        "traits": {"name": "Arthur Dent", "hasTowel": True},
        "timestamp": "2015-11-10T00:45:23.412Z",
    },
    "track": {
        "userId": "1234qwerty",
        "event": "Added File",
        "properties": {"fileSize": "42kb"},
        "timestamp": "2015-11-10T00:45:23.412Z",
    },
    "page": {"userId": "1234qwerty", "section": "Blog", "name": "Čaj", "properties": {"a": 1}},
    "screen": {"userId": "1234qwerty", "name": "Login"},
    "group": {"userId": "1234qwerty", "groupId": "5678dvorak", "traits": {"name": "Čajovna"}},
    "alias": {"previousId": "anonymous_id", "userId": "assigned_id_or_email"},
}


async def _curl(*arguments: str) -> int:
    """Run curl with the arguments of a guide's example, and return the answer's status."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is missing: install curl")
    # Nothing on stdin: where the key has no colon, curl asks there for a password.
    printed = await _run([curl, "-s", "-o", os.devnull, "-w", "%{http_code}", *arguments])
    return int(printed)


@pytest.mark.parametrize("call", _BY_HAND)
async def test_curl_single_calls(call: str) -> None:
    """One call, with the header that Astronomer's guide has, and no id of its own."""
    header = ("-H", "Authorization: Basic YlhsaGNIQTY6")
    with Collector(write_keys=["bXlhcHA6"]) as collector:
        async with collector.serve() as url:
            sent = json.dumps(_BY_HAND[call])
            status = await _curl("-X", "POST", f"{url}/v1/{call}", *header, *_JSON, "-d", sent)
        (kept,) = collector.events()
    wanted = (200, "good", collector.fingerprint("bXlhcHA6"))
    assert (status, kept.verdict, kept.key_fingerprint) == wanted
    assert kept.payload == _BY_HAND[call] | {"type": call, "messageId": kept.message_id}


@pytest.mark.parametrize(
    "more",
    [(), ("-H", "Expect: 100-continue"), ("--http1.0",)],
    ids=["plain", "expect", "http1.0"],
)
@pytest.mark.parametrize("in_file", [False, True], ids=["inline", "file"])
async def test_curl_batches(tmp_path: Path, *, in_file: bool, more: tuple[str, ...]) -> None:
    """A batch with `-u key:`, on the command line or in a file, as in Dreamdata's guide."""
    file = tmp_path / "example.json"
    file.write_text(json.dumps(_BATCH, ensure_ascii=False, indent=2), encoding="utf-8")
    body = f"@{file}" if in_file else json.dumps(_BATCH)
    with Collector(write_keys=["abc123"]) as collector:
        async with collector.serve() as url:
            where = ("-u", "abc123:", "-X", "POST", f"{url}/v1/batch")
            assert await _curl(*where, *_JSON, *more, "-d", body) == 200
        kept = collector.events(verdict="good")
    assert [each.payload for each in kept] == _BATCH["batch"]
    assert {each.sent_at for each in kept} == {_BATCH["sentAt"]}
    assert {each.key_fingerprint for each in kept} == {collector.fingerprint("abc123")}


async def test_curl_with_a_key_that_is_encoded_twice() -> None:
    """That guide's other example encodes the key, and curl does so again: it is another key."""
    with Collector(write_keys=["abc123"]) as collector:
        async with collector.serve() as url:
            where = ("-u", "YWJjMTIzOg==", "-X", "POST", f"{url}/v1/batch")
            assert await _curl(*where, *_JSON, "-d", json.dumps(_BATCH)) == 401
        assert (collector.stats().events, collector.stats().answers) == (0, {401: 1})
