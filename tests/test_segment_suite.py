"""The public tests of Segment's own package, run against the drop-in.

They are read from the installed package and not copied. In a process of their own their imports
of `segment.analytics` and of its client are given the drop-in, and nothing in it is replaced.
Their `TestClient` has a failure handler by the name of `fail`, which unittest calls for texts and
dicts that differ: as shipped such differences go unseen. Here they count.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib.metadata import distribution
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("segment.analytics")

import segment.analytics as their_module
from segment.analytics.client import Client as TheirClient

from asyncanalytics import analytics
from asyncanalytics.analytics import Client

if TYPE_CHECKING:
    from conftest import Live

THREADS = "looks at `client.consumers`, the threads of Segment's client: there are none here"
DIFFERENT: dict[str, str] = {
    "TestClient.test_proxies": "replaces the session of `requests`, which is not used here; "
    "`proxies` are refused, and the environment's are used",
    "TestClient.test_shutdown": THREADS,
    "TestClient.test_synchronous": THREADS,
    "TestClient.test_default_timeout_15": THREADS,
    "TestClient.test_user_defined_timeout": THREADS,
    "TestInit.test_max_retries": THREADS,
    "TestClient.test_user_defined_upload_size": "replaces `segment.analytics.consumer.post`: there "
    "is no such function here",
}
"""Tests that do not pass, and why. Each is tried, so that one which passes is noticed."""

NOT_RUN: dict[str, str] = {
    "test_consumer": "tests the class `Consumer`, the thread of Segment's client; of the client "
    "itself it asks that two durations are checked, which test_analytics_dropin.py does too",
    "test_request": "tests the function `post`, Segment's way over `requests`",
    "test_utils": "tests helper functions that no program calls",
    "test_oauth": "OAuth is not spoken",
}
"""Files whose tests are about the inside of Segment's package."""

RUN = ("test_client", "test_init", "test_module")

SCRIPT = """
import importlib.metadata, json, sys, types, unittest, unittest.mock
import asyncanalytics.analytics as dropin
from asyncanalytics.analytics import client

made = []

class Watched(client.Client):
    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        made.append(self)

dropin.Client = client.Client = Watched

def module(name, **members):
    sys.modules[name] = found = types.ModuleType(name)
    vars(found).update(members)
    return found

module("segment", analytics=dropin)
module("segment.analytics.version", VERSION=dropin.__version__)
sys.modules.update({
    "mock": unittest.mock,
    "segment.analytics": dropin,
    "segment.analytics.client": client,
})
package = importlib.metadata.distribution("segment-analytics-python")

def tests(name):
    path = package.locate_file(f"segment/analytics/test/{name}.py")
    found = module(f"theirs.{name}")
    exec(compile(open(path, encoding="utf-8").read(), path, "exec"), vars(found))
    return found

def fail(self, error=None, batch=None):
    self.failed = True
    if not isinstance(error, Exception):
        raise self.failureException(error)

suite = unittest.TestSuite()
for name in sys.argv[1:]:
    found = tests(name)
    if name == "test_client":
        found.TestClient.fail = fail
    suite.addTests(unittest.defaultTestLoader.loadTestsFromModule(found))
done = unittest.TestResult()
suite.run(done)
short = lambda test: ".".join(test.id().split(".")[-2:])
failed = {short(test): text for test, text in done.failures + done.errors}
for each in made:
    each.shutdown()
stats = [each.stats() for each in made]
print(json.dumps({
    "run": done.testsRun,
    "failed": failed,
    "balanced": all(each.is_balanced for each in stats),
    **{name: sum(getattr(each, name) for each in stats)
       for name in ("accepted", "delivered", "rejected", "dropped", "pending")},
}))
"""


def test_their_tests_pass_but_for_those_that_are_listed(live: Live) -> None:
    """The calls, answers, ids, timestamps, settings, overflow and flush are as they ask."""
    environ = {**live.environ}
    del environ["ASYNCANALYTICS_WRITE_KEY"]  # one of theirs makes a client without a key
    command = [sys.executable, "-c", SCRIPT, *RUN]
    done = subprocess.run(  # noqa: S603 - the command is written above
        command, capture_output=True, text=True, timeout=50, check=False, env=environ
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    unlisted = {name: text for name, text in found["failed"].items() if name not in DIFFERENT}
    assert unlisted == {}
    assert set(found["failed"]) == set(DIFFERENT)
    assert found["run"] >= 48
    assert found["balanced"]
    assert found["accepted"] == found["delivered"] == len(live.events) > 2_000


def test_each_file_of_theirs_is_run_or_listed() -> None:
    """A new file of tests in their package is noticed."""
    files = distribution("segment-analytics-python").files or []
    theirs = {path.stem for path in files if path.match("segment/analytics/test/test_*.py")}
    assert theirs == {*RUN, *NOT_RUN}


# ---------------------------------------------------------------------------------- the same face


@pytest.mark.parametrize(
    "name", ["__init__", "identify", "track", "page", "screen", "group", "alias", "flush", "join"]
)
def test_parameters_stand_where_theirs_stand(name: str) -> None:
    """A call by position means the same; what the drop-in adds comes after."""
    ours, theirs = (
        list(inspect.signature(getattr(kind, name)).parameters) for kind in (Client, TheirClient)
    )
    assert ours[: len(theirs)] == theirs


def test_settings_are_as_theirs() -> None:
    """Each default is the same, but for the number of calls in a request."""
    ours, theirs = (
        {name: value for name, value in vars(kind.DefaultConfig).items() if name[0] != "_"}
        for kind in (Client, TheirClient)
    )
    differing = {name: ours[name] for name in theirs if ours[name] != theirs[name]}
    assert differing == {"upload_size": 2_500}
    assert ours.keys() - theirs.keys() == {"shutdown_timeout"}


def test_the_module_has_what_theirs_has() -> None:
    """Each setting and function of their module is there, and a setting has the same value."""
    names = [name for name in vars(their_module) if name[0] != "_" and name != "VERSION"]
    public = [name for name in names if not inspect.ismodule(getattr(their_module, name))]
    missing = [name for name in public if not hasattr(analytics, name)]
    assert missing == []
    settings = [name for name in public if not callable(getattr(their_module, name))]
    assert {name: getattr(analytics, name) for name in settings} == {
        name: getattr(their_module, name) for name in settings
    }
