"""What an answer means, and how long to wait. Rules only: no clock, no randomness, no waiting.

The table is that of Segment's HTTP API and of its current SDKs
(https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#errors):

- 2xx: accepted. Some hosts list failures in the body; those events are rejected.
- 3xx: never followed, since a followed redirect carries the body to another host. Retried.
- 400: permanent for what was sent: cut the batch to find the event that spoils it.
- 401, 403: the key is wrong: the destination halts.
- 408, 410, 429, 460 and 5xx but 501, 505 and 511: retried.
- 413: cut the batch.
- anything else: permanent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from asyncanalytics.receipts import Receipt
    from asyncanalytics.settings import Retrying

MAX_DETAIL = 200
"""Characters kept of what an endpoint says about a refused event."""

MAX_ANSWER = 64 * 1024
"""Bytes read of any answer."""

_UNNAMED = "the endpoint reported failures without saying which events"
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*[A-Za-z0-9]")
_RETRIED = frozenset({408, 410, 429, 460})
_PERMANENT_5XX = frozenset({501, 505, 511})
_MAX_SECONDS_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Delivered:
    """The endpoint has the batch, but for the events it says it refused."""

    status: int | None = None
    failed: Mapping[str, str] = field(default_factory=dict, repr=False)
    """messageId → what the endpoint said."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The endpoint refuses the batch for good."""

    status: int
    detail: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Halt:
    """The endpoint refuses the key: nothing will get through until that is mended."""

    status: int
    problem: str = ""
    """What is refused, and what to check, if it is not the key."""


@dataclass(frozen=True, slots=True)
class Split:
    """The batch is spoilt by one of its events (400) or too large (413): cut it."""

    status: int
    detail: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Retry:
    """Whether the endpoint has the batch is unknown: send it again with the same ids."""

    reason: str
    """A short phrase for the log, such as `status 503`."""
    status: int | None = None
    after: float | None = None
    """Seconds that the endpoint asked for."""
    at_once: bool = False
    """The connection had gone stale: the first such failure costs no wait."""


Verdict = Delivered | Rejected | Halt | Split | Retry


def judge(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    batch: Sequence[Receipt],
    now: float,
    max_retry_after: float,
) -> Verdict:
    """Return what an answer means. `now` is the wall clock, for Retry-After dates."""
    if 200 <= status < 300:
        return _judge_success(status, body, batch)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return Halt(status)
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
        return Split(status, _cut(body))
    if 300 <= status < 400:
        return Retry(f"status {status}, a redirect, which is not followed", status)
    if status in _RETRIED or (status >= 500 and status not in _PERMANENT_5XX) or status < 200:
        after = retry_after(headers.get("retry-after"), now, max_retry_after)
        return Retry(f"status {status}", status, after)
    return Rejected(status, _cut(body))


def retry_after(value: str | None, now: float, ceiling: float) -> float | None:
    """Return Retry-After as seconds within 1 and `ceiling`, or None if it says nothing sound."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        seconds = float(value) if len(value) <= _MAX_SECONDS_DIGITS else -1.0
    else:
        seconds = _seconds_until(value, now)
    return min(max(seconds, 1.0), ceiling) if seconds >= 0 else None


def _seconds_until(date: str, now: float) -> float:
    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return -1.0


def backoff(retrying: Retrying, failures: int, fraction: float) -> float:
    """Return the seconds to wait after so many failures; `fraction` of 0 to 1 is the jitter.

    Full jitter: any moment up to the bound is as likely, so that many clients spread out
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    """
    return float(min(retrying.cap, retrying.base * 2 ** min(failures, 32)) * fraction)


# -------------------------------------------------------------------- failures told in a success


def _judge_success(status: int, body: bytes, batch: Sequence[Receipt]) -> Verdict:
    errors = _told(status, body)
    if not errors:
        return Delivered(status)
    ids = {receipt.message_id for receipt in batch}
    failed: dict[str, str] = {}
    is_complete = True
    for error in errors:
        named = _named(error, ids, batch)
        failed.update(dict.fromkeys(named, _said(error)))
        is_complete = is_complete and bool(named)
    if not failed:
        # No event can be said to have arrived, and sending all again may double some.
        return Rejected(status, _UNNAMED)
    if not is_complete:
        failed = dict.fromkeys(ids, _UNNAMED) | failed
    return Delivered(status, failed)


def _told(status: int, body: bytes) -> list[Any]:
    """Return the failures that a 2xx tells of; one that is None for those it does not list."""
    is_partial = status == HTTPStatus.MULTI_STATUS
    if body.lstrip()[:1] not in ((b"{", b"[") if is_partial else (b"{",)):
        return []
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        # Of a list that was cut off some are named: none can be told from the rest.
        return [None] if is_partial or len(body) >= MAX_ANSWER else []
    if isinstance(answer, list):
        return [each for each in answer if _is_failure(each)]
    members = {str(key).lower(): each for key, each in answer.items()}
    if errors := members.get("errors"):
        return _listed(errors)
    return [None] if members.get("ok") is False else []


def _is_failure(entry: Any) -> bool:
    """Whether a member of a plain list of results tells of a failure."""
    status = entry.get("status") if isinstance(entry, dict) else None
    return isinstance(entry, dict) and not (isinstance(status, int) and 200 <= status < 300)


def _said(error: Any) -> str:
    try:
        return orjson.dumps(error).decode()[:MAX_DETAIL]
    except orjson.JSONEncodeError:  # what may be read is deeper than what may be written
        return ""


def _listed(errors: Any) -> list[Any]:
    if isinstance(errors, dict):
        return [{name: said} for name, said in errors.items()]
    return errors if isinstance(errors, list) else [errors]


def _named(error: Any, ids: set[str], batch: Sequence[Receipt]) -> set[str]:
    """Find an error's events: by its `index`, by a text that is an id, by an id within a text.

    The surer way wins: an id may be any text, so that one of a batch may be a word of a message.
    """
    index = error.get("index") if isinstance(error, dict) else None
    if type(index) is int and 0 <= index < len(batch):
        return {batch[index].message_id}
    texts = set(_texts(error))
    return ids & texts or ids.intersection(word for text in texts for word in _WORD.findall(text))


def _texts(value: Any) -> Iterator[str]:
    """Yield every text and every name in an answer, however deep."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            left += [*each, *each.values()]
        elif isinstance(each, list):
            left += each


def _cut(body: bytes) -> str:
    return body[: MAX_DETAIL * 4].decode("utf-8", "replace")[:MAX_DETAIL]
