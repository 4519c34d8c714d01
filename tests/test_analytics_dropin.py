"""The drop-in for Segment's module: what it takes, what it answers, and that nothing is lost."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import runpy
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("starlette")

import asyncanalytics.analytics as module
from asyncanalytics import AnalyticsError, ConfigurationError, InvalidCall, bound_context, endpoints
from asyncanalytics.analytics import APIError, CallTooLarge, Client
from asyncanalytics.analytics.messages import moment
from asyncanalytics.analytics.places import endpoint_of
from asyncanalytics.receipts import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from conftest import Live

    from asyncanalytics import Stats

DOCS = Path(__file__).parents[1] / "docs"
UNIX = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def analytics(live: Live) -> Iterator[Any]:
    """The module as it is at the start of a program, sending to a live collector.

    At its end the client is closed, the law holds, and what was delivered has arrived.
    """
    settings = {name: getattr(module, name) for name in module._SETTINGS}
    yield module
    client, module.default_client = module.default_client, None
    for name, value in settings.items():
        setattr(module, name, value)
    if client is not None:
        client.shutdown()
        agrees(client.stats(), live)


def agrees(stats: Stats, live: Live) -> None:
    """Assert the law, and that what is counted as delivered is what has arrived, once."""
    assert stats.is_balanced
    assert stats.pending == 0
    ids = [event["messageId"] for event in live.events]
    assert len(ids) == len(set(ids)) == stats.delivered


# ------------------------------------------------------------------------- calls and their answers


def test_the_calls_of_the_guides(analytics: ModuleType, live: Live) -> None:
    """The examples of Astronomer's guide to its Python package run as they stand."""
    analytics.app_id = "astronomer_app_id"
    analytics.identify(
        "1234qwerty",
        {"name": "Arthur Dent", "email": "earthling1@hitchhikersguide.com", "friends": 100},
    )
    analytics.track("userID", "Signed Up")
    analytics.page("user_id", "Docs", "Python", {"url": "http://astronomer.io"})
    analytics.group("user_id", "group_id", {"name": "Initech", "domain": "Accounting Software"})
    analytics.screen("user_id", "Docs", "Python")
    analytics.alias("previous_id", "user_id")
    analytics.flush()
    identify, track, page, group, screen, alias = live.events
    assert (identify["userId"], identify["traits"]["friends"]) == ("1234qwerty", 100)
    assert (track["userId"], track["event"]) == ("userID", "Signed Up")
    assert (page["category"], page["name"]) == ("Docs", "Python")
    assert page["properties"] == {"url": "http://astronomer.io"}
    assert (group["groupId"], group["traits"]["name"]) == ("group_id", "Initech")
    assert (screen["type"], screen["category"]) == ("screen", "Docs")
    assert (alias["previousId"], alias["userId"]) == ("previous_id", "user_id")
    library = {"name": "analytics-python", "version": module.__version__}
    assert all(event["context"]["library"] == library for event in live.events)


def test_the_answer_is_the_message_that_goes_out(analytics: ModuleType, live: Live) -> None:
    """What is None is in the answer only, and the caller's objects are neither changed nor kept."""
    context, properties = {"ip": "192.0.2.7"}, {"n": 1}
    accepted, message = analytics.track("u1", "Added File", properties, context, message_id="m-1")
    properties["n"] = 2
    analytics.flush()
    assert accepted
    assert context == {"ip": "192.0.2.7"}
    assert message["properties"] == {"n": 1}
    assert (message["anonymousId"], message["messageId"], message["type"]) == (None, "m-1", "track")
    (event,) = live.events
    assert event["context"].pop("channel") == "server"
    assert event == {name: value for name, value in message.items() if value is not None}


def test_a_call_is_filled_in_with_what_it_is_bound_to(analytics: ModuleType, live: Live) -> None:
    """The ids of a request or a job go out and are in the answer."""
    with bound_context(user_id="bound", context={"ip": "192.0.2.7"}):
        _, message = analytics.track(event="Added File")
    analytics.flush()
    assert message["userId"] == live.events[0]["userId"] == "bound"
    assert message["context"]["ip"] == live.events[0]["context"]["ip"] == "192.0.2.7"


def test_capture(analytics: ModuleType, live: Live) -> None:
    """PostHog's way of calling: the event first, its id returned, nobody is someone new."""
    known = analytics.capture("Signed Up", distinct_id="u1", groups={"company": "c1"})
    unknown = analytics.capture("Signed Up", properties={"plan": "pro"})
    with bound_context(user_id="bound"):
        analytics.capture("Signed Up")
    analytics.flush()
    assert [event["messageId"] for event in live.events[:2]] == [known, unknown]
    assert [event.get("userId") for event in live.events] == ["u1", None, "bound"]
    assert live.events[0]["properties"] == {"$groups": {"company": "c1"}}
    assert live.events[1]["anonymousId"]
    assert "anonymousId" not in live.events[2]


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="needs tzset")
def test_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A datetime without a zone is local if it is of just now, and else UTC, even a later one."""
    try:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        now = datetime.now().replace(microsecond=0)  # noqa: DTZ005 - what callers pass
        assert moment(now) == f"{now.isoformat()}+09:00"
        later = now + timedelta(hours=9)
        assert moment(later) == f"{later.isoformat()}+00:00"
    finally:
        monkeypatch.undo()
        time.tzset()
    assert moment(datetime(2014, 9, 3, tzinfo=UTC)) == "2014-09-03T00:00:00+00:00"
    assert moment("2014-09-03") == "2014-09-03"


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (lambda to: to.track("u1"), "event"),
        (lambda to: to.track(event="Added File"), "user_id"),
        (lambda to: to.track(0, "Added File"), "user_id"),
        (lambda to: to.track("u1", "Added File", [1]), "properties"),
        (lambda to: to.track("u1", "Added File", context=[1]), "context"),
        (lambda to: to.track("u1", "Added File", timestamp=7), "timestamp"),
        (lambda to: to.track("u1", "Added File", integrations=[1]), "integrations"),
        (lambda to: to.group("u1"), "group_id"),
        (lambda to: to.alias("old"), "user_id"),
    ],
)
def test_bad_input_raises_as_theirs_does(
    analytics: ModuleType, bad: Callable[[Any], Any], field: str
) -> None:
    """It is an `AssertionError`, and the same error of ours that names the field."""
    with pytest.raises(AssertionError) as raised:
        bad(analytics)
    error = raised.value
    assert isinstance(error, InvalidCall)
    assert error.field == field
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - written here
    assert analytics.default_client.stats().refused == 1


def test_a_call_that_is_too_large(analytics: ModuleType) -> None:
    """It raises a `RuntimeError` that shows nothing of the call."""
    with pytest.raises(RuntimeError, match="32,000") as raised:
        analytics.track("u1", "Added File", {"mark": "x" * 40_000})
    assert isinstance(raised.value, CallTooLarge)
    assert "xx" not in str(raised.value)


# ----------------------------------------------------------------------------- what does not arrive


def test_a_full_queue_answers_false(
    analytics: ModuleType, live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    """No call raises for it; one line says so; what is given up at the end comes to `on_error`."""
    live.collector.misbehave(503)
    told: list[tuple[APIError, list[Any]]] = []
    analytics.max_queue_size, analytics.on_error = 3, lambda *given: told.append(given)
    answers = [analytics.track("u1", "Added File", {"n": n}) for n in range(6)]
    assert [accepted for accepted, _ in answers] == [True] * 3 + [False] * 3
    assert answers[5][1]["properties"] == {"n": 5}
    queue = analytics.default_client.queue
    assert (queue.maxsize, queue.qsize(), queue.full(), queue.empty()) == (3, 3, True, False)
    analytics.shutdown(timeout=0)
    assert {error.code for error, _ in told} == {"closed"}
    assert [message for _, batch in told for message in batch] == [each for _, each in answers[:3]]
    lines = [each.getMessage() for each in caplog.records if "refused" in each.getMessage()]
    assert len(lines) == 1


def test_on_error_gets_what_is_refused(analytics: ModuleType, live: Live) -> None:
    """With the status, what the endpoint said, and the message; others arrive."""
    told: list[tuple[APIError, list[Any]]] = []
    analytics.on_error = lambda *given: told.append(given)
    live.collector.misbehave(400, body="that is wrong", count=1)
    _, refused = analytics.track("u1", "Added File", {"mark": "never shown"})
    analytics.flush()
    analytics.track("u1", "Removed File")
    analytics.flush()
    ((error, batch),) = told
    assert (error.status, error.code, error.message) == (400, "rejected", "that is wrong")
    assert str(error) == "not delivered: rejected, status 400, after 1 request"
    assert batch == [refused]
    assert [event["event"] for event in live.events] == ["Removed File"]
    assert analytics.default_client._kept == {}


def test_an_on_error_that_raises_harms_nothing(analytics: ModuleType, live: Live) -> None:
    """It is counted, and delivery goes on."""

    def on_error(*_: object) -> None:
        raise LookupError

    analytics.on_error = on_error
    live.collector.misbehave(400, count=1)
    for _ in range(2):
        analytics.track("u1", "Added File")
        analytics.flush()
    (figures,) = analytics.default_client.stats().destinations.values()
    assert (figures.hook_errors, figures.rejected, figures.delivered) == (1, 1, 1)


def test_sync_mode(analytics: ModuleType, live: Live) -> None:
    """A call returns when it is delivered, after a retry too, and raises if it is not."""
    analytics.sync_mode = True
    live.collector.misbehave(503, count=1)
    assert analytics.track("u1", "Added File")[0]
    assert len(live.events) == 1
    live.collector.misbehave(400, count=1)
    with pytest.raises(APIError) as raised:
        analytics.track("u1", "Added File")
    assert raised.value.status == 400


@pytest.mark.parametrize("sync_mode", [False, True])
def test_nothing_is_sent_where_that_is_said(
    analytics: ModuleType, live: Live, *, sync_mode: bool
) -> None:
    """`send = False` answers as if it were, still checks the calls, and is no error."""
    told: list[object] = []
    analytics.send, analytics.sync_mode = False, sync_mode
    analytics.on_error = lambda *given: told.append(given)
    assert analytics.track("u1", "Added File")[0]
    with pytest.raises(AssertionError):
        analytics.track("u1")
    analytics.shutdown()
    assert analytics.default_client.stats().dropped == 1
    assert analytics.default_client._kept == {}
    assert (told, live.events) == ([], [])


def test_after_shutdown_calls_are_refused(analytics: ModuleType, live: Live) -> None:
    """They answer False, and what was accepted before has arrived."""
    for n in range(50):
        analytics.track("u1", "Added File", {"n": n})
    analytics.join()
    assert len(live.events) == 50
    assert analytics.track("u1", "Added File")[0] is False
    analytics.flush()
    analytics.shutdown()


# ---------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("host", "base"),
    [
        ("https://cdp.example.com/", "https://cdp.example.com"),
        ("segment@eu", "https://events.eu1.segmentapis.com"),
        ("http://127.0.0.1:8010", "http://127.0.0.1:8010"),
        (endpoints.jitsu("jitsu.example.com"), "https://jitsu.example.com"),
    ],
)
def test_hosts(host: Any, base: str) -> None:
    """A URL, a name or an endpoint; a URL gets the key in the body too, as Segment's hosts do."""
    endpoint = endpoint_of(host)
    assert endpoint is not None
    assert endpoint.base == base
    if isinstance(host, str) and "://" in host:
        assert endpoint.key_in_body == "writeKey"
    assert endpoint_of("") is endpoint_of(None) is None


def test_a_host_in_the_clear(caplog: pytest.LogCaptureFixture) -> None:
    """It was allowed before, so it still is, and a line says what that means."""
    endpoint = endpoint_of("http://collector.internal")
    assert endpoint is not None
    assert endpoint.insecure
    assert "in the clear" in caplog.text
    with pytest.raises(ConfigurationError):
        endpoint_of("api.segment.io/")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"app_id": "k"}, "astronomer"),
        ({"write_key": "k"}, "segment"),
        ({"write_key": "k", "dataPlaneUrl": "https://dp.example.com"}, "rudderstack"),
        ({"write_key": "k", "endpoint": "customerio@eu"}, "customerio"),
        ({"app_id": "k", "host": "https://cdp.example.com"}, "custom"),
    ],
)
def test_the_key_and_the_host_say_where_to(
    analytics: ModuleType, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], name: str
) -> None:
    """`app_id` is Astronomer's and `write_key` Segment's, unless there is a host."""
    for variable in ("ASYNCANALYTICS_ENDPOINT", "ASYNCANALYTICS_WRITE_KEY"):
        monkeypatch.delenv(variable)
    for setting, value in settings.items():
        setattr(analytics, setting, value)
    analytics.flush()
    assert list(analytics.default_client.stats().destinations) == [name]
    assert "'k'" not in repr(analytics.default_client)


def test_two_keys_are_one_too_many(analytics: ModuleType) -> None:
    """They are for two systems."""
    analytics.write_key = analytics.app_id = "k"
    with pytest.raises(ConfigurationError, match="write_key or app_id"):
        analytics.flush()


@pytest.mark.parametrize(
    "settings",
    [
        {"write_key": 7},
        {"on_error": 7},
        {"timeout": (3, 10)},
        {"proxies": {"https": "http://127.0.0.1:3128"}},
        {"oauth_client_id": "id"},
        {"max_total_backoff_duration": None},
        {"max_rate_limit_duration": -1},
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any]) -> None:
    """They are refused where they are given, as both kinds of error."""
    with pytest.raises(AssertionError) as raised:
        Client(**{"write_key": "k", **settings})
    assert isinstance(raised.value, ConfigurationError)


def test_a_client_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the environment's."""
    monkeypatch.delenv("ASYNCANALYTICS_WRITE_KEY", raising=False)
    with pytest.raises(AssertionError, match="write_key"):
        Client()
    monkeypatch.setenv("ASYNCANALYTICS_WRITE_KEY", "k")
    assert Client().write_key == "k"


def test_a_queue_without_a_limit(live: Live) -> None:
    """A size of 0 means that, as a queue's does."""
    client = Client(max_queue_size=0)
    assert all(client.track("u1", "Added File")[0] for _ in range(300))
    assert not client.queue.full()
    client.shutdown()
    agrees(client.stats(), live)


def test_a_slip_of_the_pen_is_said(analytics: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """A name that is no setting cannot be set, and one set too late changes nothing."""
    with pytest.raises(AttributeError, match="did you mean host"):
        analytics.hots = "https://cdp.example.com"
    analytics.flush()
    analytics.debug = True
    assert "debug is set after the first call" in caplog.text


def test_debug_and_a_handler_of_ones_own(analytics: ModuleType) -> None:
    """The handler sees that a call is accepted, and nothing of what is in it."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    analytics.debug, analytics.log_handler = True, handler
    try:
        _, message = analytics.track("u1", "Added File", {"mark": "never shown"})
        analytics.flush()
        logger = analytics.default_client.log
        assert f"accepted track {message['messageId']}" in lines
        assert "never shown" not in "".join(lines)
        before = list(logger.handlers)
        Client("k", debug=True)
        Client("k", debug=True)
        (added,) = set(logger.handlers) - set(before)
        logger.removeHandler(added)
    finally:
        logging.getLogger("asyncanalytics").setLevel(logging.NOTSET)
        logging.getLogger("asyncanalytics").removeHandler(handler)


def test_errors_cross_to_other_processes() -> None:
    """An `APIError` arrives whole."""
    outcome = Outcome(kind="dropped", destination="d", reason="expired", status=503, attempts=3)
    error = APIError(outcome)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - written here
    assert isinstance(copy, AnalyticsError)
    assert (str(copy), copy.status, copy.code) == (str(error), 503, "expired")
    assert str(error) == "not delivered: expired, status 503, after 3 requests"


# ---------------------------------------------------------------------------- threads and processes


def test_threads_share_one_client(analytics: ModuleType, live: Live) -> None:
    """Calls that are the first at the same moment make one client, and all arrive."""
    barrier = Barrier(8)

    def work(worker: int) -> None:
        barrier.wait()
        for n in range(50):
            assert analytics.track(f"u{worker}", "Added File", {"n": n})[0]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    analytics.flush(timeout=10)
    stats = analytics.default_client.stats()
    assert (stats.accepted, stats.delivered) == (400, 400)
    assert len(live.events) == 400


def run(code: str, live: Live) -> list[dict[str, Any]]:
    """Run a program, and return the JSON lines that it prints."""
    done = subprocess.run(  # noqa: S603 - the programs are written below
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=live.environ,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "{"]


LEAVING = """
import atexit, json
import asyncanalytics.analytics as analytics
atexit.register(lambda: print(json.dumps(analytics.default_client.stats().as_dict())))
for n in range(1_000):
    assert analytics.track("u1", "Added File", {"n": n})[0]
"""

FORKING = """
import atexit, json, os
import asyncanalytics.analytics as analytics
atexit.register(lambda: print(json.dumps(analytics.default_client.stats().as_dict())))
who = "parent"
for n in range(10):
    analytics.track(who, "Added File", {"n": n})
child = os.fork()
if not child:
    who = "child"
for n in range(10, 20):
    analytics.track(who, "Added File", {"n": n})
if child:
    os.waitpid(child, 0)
"""


def test_a_program_that_just_ends_loses_nothing(live: Live) -> None:
    """A thousand calls and no flush: all arrive."""
    (stats,) = run(LEAVING, live)
    assert stats["accepted"] == stats["delivered"] == len(live.events) == 1_000
    assert sorted(event["properties"]["n"] for event in live.events) == list(range(1_000))


@UNIX
def test_a_forked_child_delivers_its_own(live: Live) -> None:
    """Parent and child each deliver what they accepted, once."""
    found = run(FORKING, live)
    assert sorted(stats["accepted"] for stats in found) == [10, 20]
    assert all(stats["accepted"] == stats["delivered"] for stats in found)
    arrived = sorted((event["userId"], event["properties"]["n"]) for event in live.events)
    children = [("child", n) for n in range(10, 20)]
    assert arrived == children + [("parent", n) for n in range(20)]
    assert len({event["messageId"] for event in live.events}) == 30


# -------------------------------------------------------------------------------------------- docs


EXAMPLES = [
    ("shop.py", ["identify", "track"]),
    ("shop_native.py", ["identify", "track"]),
    ("shop_threads.py", ["identify", "track"]),
    ("docs_site.py", ["identify", "track", "page", "group"]),
    ("warehouse.py", ["identify", "track"]),
    ("warehouse_native.py", ["identify", "track"]),
    ("signup.py", ["track", "identify"]),
    ("signup_native.py", ["track", "identify"]),
]


@pytest.mark.parametrize(("name", "verbs"), EXAMPLES)
@pytest.mark.usefixtures("analytics")
def test_the_examples_run(
    live: Live,
    example: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    verbs: list[str],
) -> None:
    """Each program of docs/moving.md runs as it is shown, and what it sends arrives."""
    monkeypatch.setenv("DATA_PLANE_URL", live.url)
    runpy.run_path(str(example("moving", name)), run_name="__main__")
    assert [event["type"] for event in live.events] == verbs
    users = {"u1"} if name != "docs_site.py" else {"1234qwerty", "userID", "user_id"}
    assert {event["userId"] for event in live.events} == users


def test_every_example_is_tried() -> None:
    """A block that is added to the page is added above."""
    page = (DOCS / "moving.md").read_text(encoding="utf-8")
    assert re.findall(r"```python\n# (\S+)\n", page) == [name for name, _ in EXAMPLES]


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": 7},
        {"log_handler": 3},
        {"max_queue_size": "many"},
        {"max_total_backoff_duration": "long"},
        {"upload_size": "x"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_settings_of_a_wrong_type(wrong: dict[str, Any]) -> None:
    """They are refused where they are given."""
    with pytest.raises(ConfigurationError):
        Client("key", **wrong)


def test_the_version() -> None:
    """It is where Segment's package has it."""
    assert module.__version__ == module.VERSION
