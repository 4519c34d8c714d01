"""What the collector gives back: one event as it is kept, a filter over them, the figures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Verdict = Literal["good", "bad"]

NAME_FIELDS: Final = {"page": "name", "screen": "name", "group": "groupId"}
"""The field that holds a call's name; of the other calls it is `event`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredEvent:
    """One event as it arrived. An event that arrived twice is two of these."""

    message_id: str | None
    """None where the event had none, or one that is not a string."""
    type: str | None
    """One of the six calls, or None."""
    verdict: Verdict
    reason: str | None
    """Why a bad event is bad; None for a good one."""
    payload: dict[str, Any]
    """The event as it was sent, but for its write key. A call with a path of its own has its type
    from there, and a messageId in any case. What was no JSON object is kept as `{"value": it}`."""
    received_at: str
    """ISO 8601 in UTC with milliseconds, by this machine's clock."""
    sent_at: str | None
    """The `sentAt` of the request, as it was sent; None where it is no moment of ISO 8601."""
    batch_id: int
    """The number of the request: events that came together share it, and it only grows."""
    user_id: str | None
    anonymous_id: str | None
    event: str | None
    """The name of a tracked event."""
    name: str | None
    """The name of a tracked event, of a page or of a screen; of a group its groupId."""
    key_fingerprint: str | None
    """Tells write keys apart: 12 hex digits, salted, so that they are of this collector or of its
    file alone; see `Collector.fingerprint`. None where there was no key."""
    key_mask: str | None
    """The write key with all but its last four characters hidden; a short one altogether."""
    retry_count: int | None
    """The request's X-Retry-Count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredRequest:
    """What one ingest request looked like. Keys are masked.

    Where an earlier version kept the request, what that did not keep is None.
    """

    number: int
    """The `batch_id` of its events."""
    received_at: str
    sent_at: str | None
    retry_count: int | None
    method: str | None
    path: str | None
    """With its query, values that may be keys hidden; a pixel's without, since it is the event."""
    headers: tuple[tuple[str, str], ...] | None
    """In the order of their arrival; names in lower case, values that may be keys masked."""
    bytes: int
    """Of the body as it came."""
    inflated: int | None
    """Bytes of the body's JSON; None also where it was refused before it was read."""
    status: int
    """What it was answered; 0 is a dropped connection."""
    refusal: str | None
    """Why it was refused as a whole, as its answer said; None where it was not."""
    events: int
    """How many of its events are kept, and how many of these are bad."""
    bad: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """Which events are meant: those that fulfil all that is given."""

    type: str | None = None
    event: str | None = None
    name: str | None = None
    """The name of a track, a page or a screen, or the groupId of a group."""
    user: str | None = None
    """The userId or the anonymousId."""
    users: int | None = None
    """One of a list of ids is the userId or the anonymousId; its number, see `Store.listed`."""
    user_id: str | None = None
    anonymous_id: str | None = None
    message_id: str | None = None
    verdict: Verdict | None = None
    text: str | None = None
    """Somewhere in the payload, in capitals or not; docs/collector.md has the exceptions."""
    since: str | None = None
    """Received at this moment or later; written as `received_at` is."""
    after: int | None = None
    """Stored after the event at this position."""
    before: int | None = None
    """Stored before the event at this position."""


EVERYTHING = Filter()


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectorStats:
    """The collector's figures at one moment."""

    requests: int
    """Ingest requests that were answered or dropped, refused ones included."""
    answers: Mapping[int, int]
    """How many of them got which status; 0 is a dropped connection."""
    events: int
    """Events kept: every arrival counts."""
    good: int
    bad: int
    distinct: int
    """Different messageIds among the events that are counted."""
    duplicates: int
    """Further arrivals of these messageIds among them."""
    by_type: Mapping[str, int]
    """Events by call; `unknown` for those whose type is none of the six."""
    reasons: Mapping[str, int]
    """Bad events by reason."""
    bytes: int
    """Bytes of request bodies as they came, compressed or not."""
    first_at: str | None
    """When the first and the last of the kept events were received."""
    last_at: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON-ready data."""
        return asdict(self) | {"answers": {str(each): n for each, n in self.answers.items()}}
