"""What all figures rest on: that the benchmarks' sink finds what is lost, doubled or changed."""

from __future__ import annotations

import gzip
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson
import pytest

HERE = Path(__file__).resolve().parents[1] / "benchmarks"
SENT = 20


@pytest.fixture(name="parts")
def _parts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    return {name: import_module(name) for name in ("_bench", "_load", "_sink")}


@pytest.fixture(name="events")
def _events(parts: Any) -> list[dict[str, Any]]:
    calls = parts["_load"].calls(SENT)
    return [
        {"messageId": str(number), "event": "Order Completed", "properties": properties}
        for number, (_, properties) in enumerate(calls)
    ]


def judged(parts: Any, *requests: list[dict[str, Any]], key: bytes = b"", cut: bool = False) -> Any:
    """Return whether the run may be believed, and what the sink has counted."""
    inbox = parts["_sink"].Inbox()
    for number, events in enumerate(requests):
        body = gzip.compress(orjson.dumps({"batch": events}))
        inbox.put(b"/v1/batch", body, key=key * number, compressed=True)
    count = inbox.count()
    assert inbox.count()["events"] == 0  # each is counted once
    return parts["_bench"]._is_right(count, SENT, may_repeat=cut), count


def test_all_events_once_and_unchanged_are_right(parts: Any, events: list[dict[str, Any]]) -> None:
    """However they are spread over requests."""
    is_right, count = judged(parts, events[:7], events[7:])

    assert is_right
    assert (count["requests"], count["distinct"], count["again"]) == (2, SENT, 0)


def test_each_integration_has_all_of_them(parts: Any, events: list[dict[str, Any]]) -> None:
    """By its key: what one has does not stand for what another lacks."""
    assert judged(parts, events, events, key=b"k")[0]
    assert not judged(parts, events, events[1:], key=b"k")[0]


def test_a_lost_event_is_found(parts: Any, events: list[dict[str, Any]]) -> None:
    """No figure is shown then."""
    is_right, count = judged(parts, events[1:])

    assert not is_right
    assert count["distinct"] == SENT - 1


def test_an_event_that_came_twice_is_found(parts: Any, events: list[dict[str, Any]]) -> None:
    """A client that sends twice is not faster."""
    is_right, count = judged(parts, events, events[:1])

    assert not is_right
    assert count["again"] == 1


def test_it_may_come_twice_where_requests_are_cut(parts: Any, events: list[dict[str, Any]]) -> None:
    """They are sent again; but none may be missing."""
    assert judged(parts, events, events[:1], cut=True)[0]
    assert not judged(parts, events[1:], events[1:], cut=True)[0]


def test_a_changed_event_is_found(parts: Any, events: list[dict[str, Any]]) -> None:
    """One property is enough."""
    events[3]["properties"] = {**events[3]["properties"], "total": 0}

    is_right, count = judged(parts, events)

    assert not is_right
    assert count["altered"] == 1
