"""The ledger of one destination, and the frozen records that `client.stats()` returns.

The law of the house is `accepted = delivered + rejected + dropped + pending`, for each
destination, at every moment. The ledger counts the first four where they happen; `pending` is
counted from the queue and the requests in flight, so that the law can be checked.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncanalytics.receipts import Outcome
    from asyncanalytics.spool import SpoolStats

DropReason = Literal[
    "queue_full",
    "too_large",
    "unserialisable",
    "unsupported",
    "middleware",
    "middleware_error",
    "filtered",
    "no_consent",
    "expired",
    "closed",
    "disabled",
    "opted_out",
    "unrouted",
    "spool_full",
    "duplicate",
    "spool_corrupt",
]
"""Why an accepted call was given up by the client itself. The names are the same in stats, logs
and hooks. A call that the endpoint refused is `rejected`, with the answer's status."""


@dataclass(slots=True)
class Ledger:
    """What has happened to the calls of one destination so far."""

    accepted: int = 0
    recovered: int = 0
    delivered: int = 0
    rejected_by: Counter[int] = field(default_factory=Counter)
    dropped_by: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    retries: int = 0
    hook_errors: int = 0

    def settle(self, outcome: Outcome, count: int) -> None:
        """Book `count` calls under an outcome."""
        if outcome.kind == "delivered":
            self.delivered += count
        elif outcome.kind == "rejected":
            self.rejected_by[outcome.status or 0] += count
        else:
            self.dropped_by[outcome.reason] += count


@dataclass(frozen=True, kw_only=True, slots=True)
class DestinationStats:
    """One destination's figures at one moment."""

    name: str
    accepted: int
    """Calls taken in for this destination, with those that were found in the spool."""
    delivered: int
    """Calls that the endpoint has acknowledged."""
    rejected: int
    """Calls that the endpoint has refused for good."""
    dropped: int
    """Calls given up by the client, by one of the named reasons."""
    pending: int
    """Calls waiting or in flight."""
    pending_bytes: int
    """What the pending calls weigh in memory; what a spool holds is in `Stats.spool`."""
    rejected_by: Mapping[int, int]
    """How many calls were rejected with which status."""
    dropped_by: Mapping[str, int]
    """How many calls were dropped for which `DropReason`."""
    requests: int
    """Attempts made, retries included."""
    retries: int
    """Attempts that followed a failed one of the same batch."""
    hook_errors: int
    """Times that `on_settle` raised."""
    recovered: int = 0
    """How many of the accepted were found in the spool: left by an earlier process, or dead letters
    that were retried."""

    @property
    def is_balanced(self) -> bool:
        """Whether `accepted = delivered + rejected + dropped + pending` holds."""
        return self.accepted == self.delivered + self.rejected + self.dropped + self.pending


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """A client's figures at one moment: sums, and one record for each destination.

    A call meant for two destinations counts twice in the sums: once for each.
    """

    state: str
    """`new`, `open`, `closing` or `closed`."""
    refused: int
    """Calls that raised `InvalidCall` or `QueueFull`, and so were never accepted."""
    unrouted: int
    """Calls whose `integrations` named none of the destinations."""
    destinations: Mapping[str, DestinationStats]
    spool: SpoolStats | None = None
    """The spool's own figures, where the client has one and was started."""

    @property
    def accepted(self) -> int:
        """Calls taken in."""
        return sum(each.accepted for each in self.destinations.values())

    @property
    def recovered(self) -> int:
        """How many of them were found in the spool."""
        return sum(each.recovered for each in self.destinations.values())

    @property
    def delivered(self) -> int:
        """Calls acknowledged by the endpoint."""
        return sum(each.delivered for each in self.destinations.values())

    @property
    def rejected(self) -> int:
        """Calls refused by the endpoint for good."""
        return sum(each.rejected for each in self.destinations.values())

    @property
    def dropped(self) -> int:
        """Calls given up by the client."""
        return sum(each.dropped for each in self.destinations.values())

    @property
    def pending(self) -> int:
        """Calls waiting or in flight."""
        return sum(each.pending for each in self.destinations.values())

    @property
    def is_balanced(self) -> bool:
        """Whether the law holds for each destination."""
        return all(each.is_balanced for each in self.destinations.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON-ready data."""
        sums = {
            name: getattr(self, name)
            for name in ("accepted", "delivered", "rejected", "dropped", "pending")
        }
        each = {name: _plain(stats) for name, stats in self.destinations.items()}
        counts = {"state": self.state, "refused": self.refused, "unrouted": self.unrouted}
        spool = {} if self.spool is None else {"spool": asdict(self.spool)}
        return counts | sums | {"destinations": each} | spool


def _plain(stats: DestinationStats) -> dict[str, Any]:
    plain = asdict(stats)
    plain["rejected_by"] = {str(status): n for status, n in stats.rejected_by.items()}
    return plain
