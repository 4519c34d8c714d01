"""What the demo claims, proved.

The caller's own notes, the client's figures and what the collector gives back are held against
each other; nothing that is compared was made by what it is compared with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncanalytics.cli.shop import Said
    from asyncanalytics.stats import Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """What was found in the collector, against what was said."""

    delivered: int
    """Calls whose receipts say that they were delivered."""
    whole: int
    """Delivered calls that were read back, on every arrival with all that they were given."""
    missing: int
    """Delivered calls that the collector does not have."""
    altered: int
    """Calls that came back with something lacking or different, or were judged bad."""
    strangers: int
    """Events in the collector that no accepted call stands for."""
    arrivals: int
    """Events in the collector."""
    repeated: int
    """Arrivals of a messageId that had arrived before."""
    problems: tuple[str, ...]
    """Why the claims do not hold; empty where they do."""

    @property
    def holds(self) -> bool:
        """Whether everything that was claimed is so."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON-ready data."""
        return asdict(self) | {"problems": list(self.problems), "holds": self.holds}


def prove(said: Sequence[Said], stats: Stats, arrivals: Iterable[Mapping[str, Any]]) -> Proof:
    """Compare what was said with what arrived, as the collector's JSON API gives it.

    Fractions in the arrivals are `Decimal`, so that money is compared to the last digit.
    """
    expected = {each.receipt.message_id: each.fields for each in said}
    seen: Counter[str] = Counter()
    altered: set[str] = set()
    strangers = 0
    for event in arrivals:
        message_id = event["message_id"]
        if message_id not in expected:
            strangers += 1
            continue
        seen[message_id] += 1
        if event["verdict"] != "good" or not carries(event["payload"], expected[message_id]):
            altered.add(message_id)
    delivered = {each.receipt.message_id for each in said if _is_delivered(each)}
    counts = {
        "delivered": len(delivered),
        "whole": len(delivered & seen.keys() - altered),
        "missing": len(delivered - seen.keys()),
        "altered": len(altered),
        "strangers": strangers,
    }
    problems = (*_books(said, stats, len(delivered)), *_findings(len(said), **counts))
    arrived = seen.total() + strangers
    return Proof(**counts, arrivals=arrived, repeated=seen.total() - len(seen), problems=problems)


def carries(stored: Any, given: Any) -> bool:
    """Whether stored JSON holds everything that was given; it may hold more members."""
    if isinstance(given, Mapping):
        return isinstance(stored, Mapping) and all(
            name in stored and carries(stored[name], value) for name, value in given.items()
        )
    if isinstance(given, list):
        return (
            isinstance(stored, list)
            and len(stored) == len(given)
            and all(map(carries, stored, given))
        )
    if isinstance(given, datetime):
        return isinstance(stored, str) and datetime.fromisoformat(stored) == given
    if isinstance(given, Decimal):
        return isinstance(stored, int | Decimal) and stored == given
    return type(stored) is type(given) and bool(stored == given)


def law(stats: Stats) -> str:
    """Write the law of the house with its figures."""
    return (
        f"{stats.accepted:,} accepted {'=' if stats.is_balanced else 'is not'} "
        f"{stats.delivered:,} delivered + {stats.rejected:,} rejected "
        f"+ {stats.dropped:,} dropped + {stats.pending:,} pending"
    )


def _is_delivered(said: Said) -> bool:
    return said.receipt.outcome is not None and said.receipt.outcome.delivered


def _books(said: Sequence[Said], stats: Stats, delivered: int) -> Iterator[str]:
    if not stats.is_balanced:
        yield f"the law does not hold: {law(stats)}"
    if stats.accepted != len(said):
        yield f"the shop made {len(said):,} calls and the client counted {stats.accepted:,}"
    if stats.delivered != delivered:
        yield f"{delivered:,} receipts say delivered, and stats() says {stats.delivered:,}"
    if not said:
        yield "no call was made"


def _findings(
    said: int, *, delivered: int, whole: int, missing: int, altered: int, strangers: int
) -> Iterator[str]:
    if delivered < said:
        yield f"{said - delivered:,} of {said:,} calls were not delivered"
    if missing:
        yield f"{missing:,} delivered calls are not in the collector"
    if altered:
        yield f"{altered:,} calls came back altered"
    if strangers:
        yield f"{strangers:,} events in the collector were never accepted"
    if not missing and not altered and whole < delivered:
        yield f"only {whole:,} of {delivered:,} delivered calls came back whole"
