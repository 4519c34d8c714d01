"""What an answer means: the protocol's table, stated here once more, and answers of every kind."""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asyncanalytics.receipts import Receipt
from asyncanalytics.retrying import (
    MAX_ANSWER,
    MAX_DETAIL,
    Delivered,
    Halt,
    Rejected,
    Retry,
    Split,
    Verdict,
    backoff,
    judge,
    retry_after,
)
from asyncanalytics.settings import Retrying

NOW = 1_800_000_000.0
IDS = ["m1-aa", "m2-bb", "m3-cc"]
BATCH = [Receipt("track", message_id, b'"a":1}') for message_id in IDS]


def verdict(status: int, body: bytes = b"", batch: Any = BATCH, **headers: str) -> Verdict:
    """Judge an answer."""
    return judge(
        status,
        {name.replace("_", "-"): value for name, value in headers.items()},
        body,
        batch=batch,
        now=NOW,
        max_retry_after=300.0,
    )


# ------------------------------------------------------------------------------------- the table

# Protocol facts, as a reader of Segment's table would copy them: what is not listed is permanent.
TABLE: dict[type, set[int]] = {
    Delivered: set(range(200, 300)),
    Retry: {
        *range(100, 200),  # not a final answer: a broken one
        *range(300, 400),  # never followed; the events are kept
        *{408, 410, 429, 460},
        *{500, 502, 503, 504, 506, 507, 508, 509, 510},
        *range(512, 600),
    },
    Split: {400, 413},
    Halt: {401, 403},
}


@pytest.mark.parametrize("status", range(100, 600))
def test_every_status(status: int) -> None:
    """Each status from 100 to 599 means what the protocol says."""
    expected = next((kind for kind, listed in TABLE.items() if status in listed), Rejected)
    found = verdict(status)
    assert type(found) is expected
    assert found.status == status


def test_what_is_permanent() -> None:
    """No status is retried by mistake: these never are."""
    permanent = [status for status in range(100, 600) if type(verdict(status)) is Rejected]
    others = {400, 401, 403, 408, 410, 413, 429, 460}
    assert permanent == [each for each in range(400, 500) if each not in others] + [501, 505, 511]


def test_a_redirect_says_that_it_is_not_followed() -> None:
    """Whoever reads the log must find out that the endpoint's URL is wrong."""
    found = verdict(307, location="https://elsewhere.example.com/")
    assert isinstance(found, Retry)
    assert "redirect" in found.reason
    assert "elsewhere" not in found.reason


@pytest.mark.parametrize("status", [400, 404, 413])
def test_what_a_refusal_says_is_kept_short_and_out_of_reprs(status: int) -> None:
    """An answer may quote the call: at most 200 characters of it, and none in a log by accident."""
    found = verdict(status, "é".encode() * 500 + b"\xff")
    assert isinstance(found, Rejected | Split)
    assert found.detail == "é" * MAX_DETAIL
    assert "é" not in repr(found)


@given(st.integers(100, 599), st.binary(max_size=300), st.text(max_size=20))
def test_any_answer_is_judged(status: int, body: bytes, header: str) -> None:
    """No answer raises."""
    found = verdict(status, body, retry_after=header)
    assert isinstance(found, Delivered | Rejected | Halt | Split | Retry)


# ------------------------------------------------------------------------------------ Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 1.0),
        ("1", 1.0),
        ("17", 17.0),
        (" 17 ", 17.0),
        ("017", 17.0),
        ("300", 300.0),
        ("301", 300.0),
        ("999999999", 300.0),
        ("9" * 10, None),
        ("9" * 5_000, None),
        ("", None),
        ("   ", None),
        ("-1", None),
        ("+5", None),
        ("1.5", None),
        ("1e3", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("٣", None),
        ("²", None),
        ("1 2", None),
        ("0x10", None),
    ],
)
def test_retry_after_in_seconds(value: str | None, seconds: float | None) -> None:
    """Whole seconds are kept within 1 and the ceiling; what is absurd says nothing."""
    assert retry_after(value, NOW, 300.0) == seconds


@given(st.integers(0, 999_999_999), st.integers(1, 10_000))
def test_any_seconds_are_clamped(seconds: int, ceiling: int) -> None:
    """Whatever a server asks for, the wait has bounds."""
    assert retry_after(str(seconds), NOW, ceiling) == min(max(seconds, 1), ceiling)


@given(st.integers(-400, 400))
def test_any_date_is_clamped(away: int) -> None:
    """A date ahead is a wait, within the bounds; a date that has passed says nothing."""
    date = email.utils.formatdate(NOW + away, usegmt=True)
    expected = None if away < 0 else min(max(away, 1.0), 300.0)
    assert retry_after(date, NOW, 300.0) == expected


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0),
        ("Friday, 15-Jan-27 08:00:30 GMT", 30.0),
        ("Fri Jan 15 08:00:30 2027", 30.0),
        ("Fri, 15 Jan 2027 09:00:30 +0100", 30.0),
        ("Fri, 15 Jan 2027 08:00:30 -0000", 30.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("Fri, 32 Jan 2027 08:00:30 GMT", None),
        ("Fri, 15 Jan 99999 08:00:30 GMT", None),
        ("Fri, 15 Jan 2027 08:00:30 +9999", None),
        ("Fri, 15 Jan 2027 25:61:61 GMT", None),
        ("2027-01-15T08:00:30Z", None),
    ],
)
def test_retry_after_as_a_date(date: str, seconds: float | None) -> None:
    """The three forms of a date in HTTP, and dates that do not exist."""
    assert dt.datetime(2027, 1, 15, 8, tzinfo=dt.UTC).timestamp() == NOW
    assert retry_after(date, NOW, 300.0) == seconds


DATELIKE = st.lists(
    st.sampled_from(["Fri,", "15", "Jan", "2027", "08:00:30", "GMT", "+0100", "-", ":", ",", "99"])
    | st.text(max_size=3),
    max_size=8,
).map(" ".join)


@settings(max_examples=500)
@given(st.text() | DATELIKE, st.floats(1, 1e6), st.floats(0, 4e9))
@example("Fri, 15 Jan 0000 08:00:30 GMT", 300.0, NOW)
@example("0 0 0 0 0 0 0", 300.0, NOW)
def test_any_retry_after_is_a_sound_wait_or_none(text: str, ceiling: float, now: float) -> None:
    """No header raises, and none makes a client wait for ever or hammer a server."""
    found = retry_after(text, now, ceiling)
    assert found is None or 1.0 <= found <= ceiling


@pytest.mark.parametrize("status", [408, 410, 429, 460, 500, 503, 599])
def test_retry_after_counts_on_whatever_is_retried(status: int) -> None:
    """Any retryable answer may ask for a wait."""
    found = verdict(status, retry_after="20")
    assert found == Retry(f"status {status}", status, 20.0)
    assert verdict(status, retry_after="soon") == Retry(f"status {status}", status, None)


# ---------------------------------------------------------------------------------------- backoff


@given(
    st.floats(0, 60),
    st.floats(0, 600),
    st.integers(0, 10_000),
    st.floats(0, 1, exclude_max=True),
)
def test_backoff_has_bounds(base: float, more: float, failures: int, fraction: float) -> None:
    """A delay is never negative, never over the cap, and doubles its bound at most."""
    retrying = Retrying(base=base, cap=base + more)
    delay = backoff(retrying, failures, fraction)
    assert 0.0 <= delay <= retrying.cap
    assert delay <= retrying.base * 2**failures if failures < 60 else math.isfinite(delay)


def test_backoff_doubles_to_the_cap() -> None:
    """The bounds of the default settings."""
    bounds = [backoff(Retrying(), failures, 1.0) for failures in range(9)]
    assert bounds == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]


@given(st.integers(0, 20))
def test_jitter_is_full(failures: int) -> None:
    """Any moment from nothing to the bound is possible, in proportion to the fraction."""
    bound = backoff(Retrying(), failures, 1.0)
    assert backoff(Retrying(), failures, 0.0) == 0.0
    assert backoff(Retrying(), failures, 0.25) == bound / 4


# ------------------------------------------------------------------- failures told in a success


def failed(status: int, answer: Any) -> dict[str, str]:
    """Judge an answer that must name failures."""
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    found = verdict(status, body)
    assert isinstance(found, Delivered)
    assert found.status == status
    return dict(found.failed)


@pytest.mark.parametrize("status", [200, 202, 207])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"ok",
        b"null",
        b"[]",
        b'["m1-aa"]',
        b"<html>",
        b"\xff\xfe",
        {},
        {"success": True},
        {"ok": True},
        {"ok": None},
        {"ok": True, "errors": []},
        {"errors": {}},
        {"errors": None},
        {"errors": 0},
        {"errors": ""},
        {"message": "m1-aa is welcome"},
    ],
    ids=repr,
)
def test_plain_success(status: int, answer: Any) -> None:
    """An answer that speaks of no failure is a success, whatever else it says."""
    assert failed(status, answer) == {}


@pytest.mark.parametrize("status", [200, 207])
@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ({"errors": [{"messageId": "m2-bb", "error": "no user"}]}, {"m2-bb"}),
        ({"Errors": [{"message_id": "m1-aa"}, {"id": "m3-cc"}]}, {"m1-aa", "m3-cc"}),
        ({"ERRORS": ["m2-bb"]}, {"m2-bb"}),
        ({"ok": False, "errors": ["message ID: m2-bb: no user"]}, {"m2-bb"}),
        ({"ok": False, "errors": "m1-aa, m3-cc"}, {"m1-aa", "m3-cc"}),
        ({"ok": False, "errors": [{"index": 1, "message": "m1-aa"}]}, {"m2-bb"}),
        ({"errors": [{"index": 0}, {"index": 2}]}, {"m1-aa", "m3-cc"}),
        ({"errors": {"m2-bb": "no user"}}, {"m2-bb"}),
        ({"errors": {"m2-bb": {"code": 1}, "m3-cc": ["x"]}}, {"m2-bb", "m3-cc"}),
        ({"errors": [{"event": {"messageId": "m2-bb"}, "reasons": [1]}]}, {"m2-bb"}),
        ({"errors": [["m1-aa", "no user"]]}, {"m1-aa"}),
        ({"errors": [{"index": True, "messageId": "m3-cc"}]}, {"m3-cc"}),
        ({"errors": [{"index": 9, "messageId": "m3-cc"}]}, {"m3-cc"}),
        ({"errors": [{"index": -1, "messageId": "m3-cc"}]}, {"m3-cc"}),
        ({"errors": [{"index": 1.0, "messageId": "m3-cc"}]}, {"m3-cc"}),
        # One failure names nobody: no event can be said to have arrived.
        (
            {"ok": True, "errors": [{"messageId": "m2-bb"}, {"other": 1}]},
            {"m1-aa", "m2-bb", "m3-cc"},
        ),
    ],
)
def test_failures_that_are_named(status: int, answer: Any, named: set[str]) -> None:
    """Exactly the events that the answer names are refused, with what it says of them."""
    found = failed(status, answer)
    assert set(found) == named
    assert all(0 < len(said) <= MAX_DETAIL for said in found.values())
    assert "m2-bb" not in repr(Delivered(status, found))


@pytest.mark.parametrize("before", [b" ", b"\n\r\n\t "])
def test_white_space_before_an_answer_hides_nothing(before: bytes) -> None:
    """A template engine's line break does not make a failure a success."""
    assert failed(207, before + b'{"errors":["m2-bb"]}') != {}


def test_an_id_that_is_a_common_word_is_not_named_by_chance() -> None:
    """Ids are the user's: one that is a word of a message is not meant when another is named."""
    batch = [Receipt("track", each, b"}") for each in ("event", "order:17", "no user")]
    body = json.dumps({"errors": [{"id": "order:17", "message": "event has no user"}]}).encode()
    found = verdict(200, body, batch)
    assert isinstance(found, Delivered)
    assert set(found.failed) == {"order:17"}


@pytest.mark.parametrize(
    "answer",
    [
        {"ok": False},
        {"ok": False, "errors": []},
        {"ok": False, "error": "m1-aa is bad"},
        {"errors": ["something is wrong"]},
        {"errors": 3},
        {"errors": True},
        {"errors": [None, 1, [], {}]},
        {"errors": [{"index": "1"}]},
        {"errors": ["m1-aax", "xm2-bb", "M3-CC"]},
    ],
    ids=repr,
)
def test_failures_without_names(answer: Any) -> None:
    """When no event can be said to have arrived, none is: and none is sent twice."""
    found = verdict(200, json.dumps(answer).encode())
    assert isinstance(found, Rejected)
    assert found.status == 200
    assert "without saying which" in found.detail


def test_an_answer_that_was_cut_off() -> None:
    """Of a list of failures that is not whole, nobody knows who is missing."""
    whole = json.dumps({"errors": [{"messageId": "m1-aa"}, {"messageId": "m2-bb"}]}).encode()
    for length in range(1, len(whole)):
        assert verdict(207, whole[:length]) == Rejected(207, verdict_detail())
    large = json.dumps({"ok": False, "errors": ["x" * 200] * 400}).encode()[:MAX_ANSWER]
    assert type(verdict(200, large)) is Rejected
    assert verdict(200, b"{not json") == Delivered(200)


def verdict_detail() -> str:
    """Return what is said of failures without names."""
    found = verdict(200, b'{"ok":false}')
    assert isinstance(found, Rejected)
    return found.detail


@pytest.mark.parametrize("depth", [100, 260, 900, 30_000])
@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_hostile_depth_is_judged(depth: int, pair: tuple[bytes, bytes]) -> None:
    """An answer that is too deep to be written again, or to be read, raises nothing."""
    deep = pair[0] * depth + b'"m2-bb"' + pair[1] * depth
    found = verdict(207, b'{"errors":[' + deep + b"]}")
    assert isinstance(found, Delivered | Rejected)
    if depth < 1_000:
        assert isinstance(found, Delivered)
        assert set(found.failed) == {"m2-bb"}


def test_a_huge_answer_is_judged_quickly() -> None:
    """The most that is read of an answer costs no more than a moment, whatever it holds."""
    batch = [Receipt("track", f"id-{number}", b"}") for number in range(2_500)]
    for filling in ("a.", "a", ".", "id-1 ", '","', "\\u0000"):
        body = b'{"errors":["' + filling.encode() * (60_000 // len(filling)) + b'"]}'
        assert isinstance(verdict(207, body, batch), Delivered | Rejected)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(IDS),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.sampled_from(["index", "messageId", *IDS]), inner)
    ),
    max_leaves=12,
)
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "ok": st.booleans() | ANYTHING,
        "errors": ANYTHING,
        "Errors": ANYTHING,
        "code": ANYTHING,
    },
)


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from([200, 202, 204, 207]), ANSWERS, st.integers(0, 400))
def test_any_answer_in_json_is_judged(status: int, answer: dict[str, Any], length: int) -> None:
    """Whatever a 2xx says, whole or cut off, names none but the batch's own events."""
    whole = json.dumps(answer).encode()
    for body in (whole, whole[:length]):
        found = verdict(status, body)
        assert isinstance(found, Delivered | Rejected)
        if isinstance(found, Delivered):
            assert set(found.failed) <= set(IDS)
            assert all(len(said) <= MAX_DETAIL for said in found.failed.values())


def test_a_plain_list_of_results() -> None:
    """A 207 may be a list of results: those that are no success are failures."""
    body = b'[{"messageId":"m1-aa","status":200},{"messageId":"m2-bb","status":400}]'
    receipts = [Receipt("track", name, b"") for name in ("m1-aa", "m2-bb", "m3-cc")]
    verdict = judge(207, {}, body, batch=receipts, now=0.0, max_retry_after=300.0)
    assert isinstance(verdict, Delivered)
    assert set(verdict.failed) == {"m2-bb"}
