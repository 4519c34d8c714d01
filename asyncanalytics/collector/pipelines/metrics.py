"""The figures as Prometheus reads them: text, a line a sample (version 0.0.4 of its format)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asyncanalytics.collector.pipelines.figures import IntegrationStats, RouterStats

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX: Final = "asyncanalytics_"

Sample = tuple[dict[str, str], int]

_FAMILIES: Final[tuple[tuple[str, str, str], ...]] = (
    ("ready", "gauge", "Whether every pipeline takes events."),
    ("requests_total", "counter", "Requests that bring events, by the status of their answer."),
    ("reloads_total", "counter", "Reloads of the configuration by outcome."),
    ("events_total", "counter", "Good events of requests that were answered with success."),
    ("bad_events_total", "counter", "Bad events by reason."),
    ("unrouted_events_total", "counter", "Good events that were meant for no integration."),
    ("accepted_total", "counter", "Events taken in for an integration."),
    ("recovered_total", "counter", "Events found in the spool."),
    ("delivered_total", "counter", "Events that the integration has acknowledged."),
    ("rejected_total", "counter", "Events that the integration has refused, by status."),
    ("dropped_total", "counter", "Events that did not go to the integration, by reason."),
    ("left_total", "counter", "Events left in the spool by clients that have closed."),
    ("attempts_total", "counter", "Attempts to deliver, retries included."),
    ("retries_total", "counter", "Attempts that followed a failed one."),
    ("pending", "gauge", "Events waiting or in flight."),
    ("pending_bytes", "gauge", "Bytes in memory of the events that wait or are in flight."),
    ("spool_bytes", "gauge", "Bytes that count against the quota of the pipeline's spool."),
    ("spool_max_bytes", "gauge", "The quota of the pipeline's spool."),
    ("stranded", "gauge", "Events in the spool's folder for integrations that are not there."),
    ("dead_letters", "gauge", "Events that the spool keeps because they have ended badly."),
)


def exposition(stats: RouterStats) -> str:
    """Write all figures."""
    samples = _samples(stats)
    lines: list[str] = []
    for name, kind, text in _FAMILIES:
        lines += f"# HELP {_PREFIX}{name} {text}", f"# TYPE {_PREFIX}{name} {kind}"
        lines += [f"{_PREFIX}{name}{_labels(labels)} {n}" for labels, n in samples.get(name, ())]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    inner = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{inner}}}" if inner else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _samples(stats: RouterStats) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for name, labels, number in _all(stats):
        found.setdefault(name, []).append((labels, number))
    return found


def _all(stats: RouterStats) -> Iterator[tuple[str, dict[str, str], int]]:
    yield "ready", {}, int(stats.state == "serving" and not stats.troubles)
    for status, number in stats.answers.items():
        yield "requests_total", {"status": str(status)}, number
    for outcome, number in stats.reloads.items():
        yield "reloads_total", {"outcome": outcome}, number
    for name, pipeline in stats.pipelines.items():
        labels = {"pipeline": name}
        yield "events_total", labels, pipeline.events
        yield "unrouted_events_total", labels, pipeline.unrouted
        for reason, number in pipeline.bad.items():
            yield "bad_events_total", {**labels, "reason": reason}, number
        for integration, number in pipeline.stranded.items():
            yield "stranded", {**labels, "integration": integration}, number
        if pipeline.spool is not None:
            yield "spool_bytes", labels, pipeline.spool.held_bytes
            yield "spool_max_bytes", labels, pipeline.spool.max_bytes
            for integration, waiting in pipeline.spool.by_destination.items():
                yield "dead_letters", {**labels, "integration": integration}, waiting.dead_events
        for integration, figures in pipeline.integrations.items():
            yield from _of(figures, {**labels, "integration": integration})


def _of(
    figures: IntegrationStats, labels: dict[str, str]
) -> Iterator[tuple[str, dict[str, str], int]]:
    yield "accepted_total", labels, figures.accepted
    yield "recovered_total", labels, figures.recovered
    yield "delivered_total", labels, figures.delivered
    yield "left_total", labels, figures.left
    yield "attempts_total", labels, figures.requests
    yield "retries_total", labels, figures.retries
    yield "pending", labels, figures.pending
    yield "pending_bytes", labels, figures.pending_bytes
    for status, number in figures.rejected.items():
        yield "rejected_total", {**labels, "status": str(status)}, number
    for reason, number in figures.dropped.items():
        yield "dropped_total", {**labels, "reason": reason}, number
