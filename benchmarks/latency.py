"""How many events a second reach an endpoint that takes its time, on the default settings?"""

from __future__ import annotations

from dataclasses import replace

from _bench import Question, Results, run
from _entrants import AMPLITUDE, CONTROL, OURS, PEERS, SEGMENT, Subject
from _plots import Chart
from _report import middle, ratio, table, text


def _most(peer: Subject) -> Subject:
    """Give Amplitude's client so many events that it has as many requests under way as it may."""
    return replace(peer, options={"events": 6_000}) if peer == AMPLITUDE else peer


QUESTION = Question(
    name="latency",
    subjects=(OURS, *(_most(each) for each in PEERS), CONTROL),
    short={"events": 10_000},
    full={"events": 50_000},
    # Whole batches of each but one: Amplitude's sends all that it has got at the same time.
    peers={"short": {"events": 300}, "full": {"events": 900}},
    cases={
        "answers at once": {"latency": 0},
        "after 50 ms": {"latency": 0.05},
        "after 200 ms": {"latency": 0.2},
    },
    only_full=frozenset({"answers at once"}),
    rounds={"short": 1, "full": 3},
)


def show(results: Results) -> None:
    """Print a table for each latency."""
    for case in results.cases:
        rounds, names = results.cases[case], results.case(case).names
        rows = [
            [
                name,
                text(ratio(rounds, name, SEGMENT.name, "rate"), ".1f"),
                text(middle(rounds, name, "rate"), ",.0f"),
                text(middle(rounds, name, "sent") / middle(rounds, name, "requests"), ",.0f"),
            ]
            for name in names
        ]
        print(table((case, "x segment", "events/s", "events/request"), rows), end="\n\n")


def charts(results: Results) -> list[Chart]:
    """Return the rates."""
    groups = results.groups("rate")
    title = "Events a second on the default settings, by the endpoint's latency"
    return [Chart(name="latency", title=title, form=",.0f", groups=groups, is_logarithmic=True)]


if __name__ == "__main__":
    show(run(QUESTION, charts))
