"""The router's figures: those of its clients, summed over reloads, so that no counter goes down.

The law for each integration, at every moment:

    accepted + recovered = delivered + rejected + dropped + pending + left

`recovered` is what was found in a spool, `left` what a client has left there at its end: what a
reload hands over through the disk is in both.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asyncanalytics.spool import SpoolStats
    from asyncanalytics.stats import DestinationStats, Stats


@dataclass(frozen=True, kw_only=True, slots=True)
class IntegrationStats:
    """One integration's figures at one moment, since the router was made."""

    accepted: int = 0
    """Events taken in for it."""
    recovered: int = 0
    """Events found in the spool, left by an earlier process or before a reload."""
    delivered: int = 0
    """Events that it has acknowledged."""
    rejected: Mapping[int, int] = field(default_factory=dict)
    """Events that it has refused for good, by status."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Events that did not go there, by `DropReason`: filtered, for one."""
    pending: int = 0
    """Events waiting or in flight."""
    pending_bytes: int = 0
    """What they weigh in memory."""
    left: int = 0
    """Events left in the spool by clients that have closed."""
    requests: int = 0
    """Attempts to deliver, retries included."""
    retries: int = 0

    @property
    def is_balanced(self) -> bool:
        """Whether the law holds."""
        ended = self.delivered + sum(self.rejected.values()) + sum(self.dropped.values())
        return self.accepted + self.recovered == ended + self.pending + self.left


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineStats:
    """One pipeline's figures at one moment, since the router was made."""

    events: int
    """Good events of requests that were answered with success."""
    bad: Mapping[str, int]
    """Bad events by reason."""
    unrouted: int
    """Good events whose `integrations` named none of the pipeline's."""
    integrations: Mapping[str, IntegrationStats]
    spool: SpoolStats | None = None
    """The figures of its spool, where it has one."""
    stranded: Mapping[str, int] = field(default_factory=dict)
    """Events in the spool's folder for integrations that are not in the configuration, or off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RouterStats:
    """The router's figures at one moment."""

    state: str
    """`new`, `starting`, `serving`, `stopping` or `stopped`."""
    answers: Mapping[int, int]
    """Requests by the status that they were answered with, but for those about the router."""
    reloads: Mapping[str, int]
    """Reloads by outcome: `taken` or `refused`."""
    troubles: Mapping[str, str]
    """Pipelines that take nothing at the moment, and why."""
    pipelines: Mapping[str, PipelineStats]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON-ready data."""
        plain = asdict(self)
        plain["answers"] = _texts(self.answers)
        for name, pipeline in self.pipelines.items():
            for integration, each in pipeline.integrations.items():
                found = plain["pipelines"][name]["integrations"][integration]
                found["rejected"] = _texts(each.rejected)
        return plain

    @property
    def is_balanced(self) -> bool:
        """Whether the law holds for each integration."""
        return all(
            each.is_balanced
            for one in self.pipelines.values()
            for each in one.integrations.values()
        )


def _texts(counts: Mapping[int, int]) -> dict[str, int]:
    return {str(status): number for status, number in counts.items()}


def of_destination(stats: DestinationStats, *, is_over: bool) -> IntegrationStats:
    """Return a client's figures of an integration; what it has at its end is what it left."""
    return IntegrationStats(
        accepted=stats.accepted - stats.recovered,
        recovered=stats.recovered,
        delivered=stats.delivered,
        rejected=stats.rejected_by,
        dropped=stats.dropped_by,
        pending=0 if is_over else stats.pending,
        pending_bytes=0 if is_over else stats.pending_bytes,
        left=stats.pending if is_over else 0,
        requests=stats.requests,
        retries=stats.retries,
    )


def summed(parts: Iterable[IntegrationStats]) -> IntegrationStats:
    """Add figures up."""
    found: dict[str, Any] = {"rejected": Counter(), "dropped": Counter()}
    for each in parts:
        for name in IntegrationStats.__slots__:
            value = getattr(each, name)
            if isinstance(value, int):
                found[name] = found.get(name, 0) + value
            else:
                found[name].update(value)
    for name in ("rejected", "dropped"):
        found[name] = dict(found[name])
    return IntegrationStats(**found)


class PipelineFigures:
    """What one pipeline has done, whichever clients have done it."""

    def __init__(self) -> None:
        self.events: int = 0
        self.bad: Counter[str] = Counter()
        self.stranded: Mapping[str, int] = {}
        self._unrouted = 0
        self._over: dict[str, IntegrationStats] = {}

    def absorb(self, stats: Stats) -> None:
        """Add the figures of a client that has closed."""
        self._unrouted += stats.unrouted
        self._over = self._with([stats], is_over=True)

    def now(self, clients: Iterable[Stats]) -> PipelineStats:
        """Return the figures with those of the clients that run, the current one last."""
        running = list(clients)
        return PipelineStats(
            events=self.events,
            bad=dict(self.bad),
            unrouted=self._unrouted + sum(each.unrouted for each in running),
            integrations=self._with(running, is_over=False),
            spool=running[-1].spool if running else None,
            stranded=dict(self.stranded),
        )

    def _with(self, clients: list[Stats], *, is_over: bool) -> dict[str, IntegrationStats]:
        names = dict.fromkeys(
            [*self._over, *(name for each in clients for name in each.destinations)]
        )
        return {
            name: summed(
                [
                    self._over.get(name, IntegrationStats()),
                    *(
                        of_destination(each.destinations[name], is_over=is_over)
                        for each in clients
                        if name in each.destinations
                    ),
                ]
            )
            for name in names
        }
