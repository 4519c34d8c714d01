"""How much later does the event loop run what is due, while events are sent at a steady pace?"""

from __future__ import annotations

from _bench import Question, Results, run
from _entrants import CONTROL, OURS, PYTHON_PEERS
from _plots import Chart
from _report import difference, middle, table, text

SLOW, QUICK = "2,000 events a second", "20,000 events a second"
# What we promise to stay under, in seconds, and the share of the pace that has to be kept.
MOST = {"p99": 0.0015, "max": 0.005}
MOST_ADDED = 0.002
PACE = 0.98

QUESTION = Question(
    name="loop_lag",
    subjects=(OURS, *PYTHON_PEERS, CONTROL),
    short={"seconds": 0.4},
    full={"seconds": 3.0},
    peers={"full": {"seconds": 1.5}},
    cases={
        SLOW: {"rate": 2_000},
        QUICK: {"rate": 20_000},
    },
    rounds={"short": 1, "full": 5},
)


def _row(results: Results, name: str) -> list[str]:
    rounds = results.rounds
    return [
        name,
        text(difference(rounds, name, CONTROL.name, "p99"), "+,.2f", 1e3),
        *(text(middle(rounds, name, each), ",.2f", 1e3) for each in ("median", "p99", "max")),
        text(middle(rounds, name, "calls_per_second"), ",.0f"),
    ]


def _verdicts(results: Results, case: str) -> list[str]:
    """Return what is promised at a pace, each with whether it is kept."""
    rounds = results.rounds
    pace = middle(rounds, OURS.name, "calls_per_second") / QUESTION.cases[case]["rate"]
    found = [(f"at least {PACE:.0%} of the pace", pace >= PACE)]
    if case == SLOW:
        for figure, most in MOST.items():
            late = middle(rounds, OURS.name, figure)
            found.append((f"{figure} under {most * 1e3:g} ms", late < most))
    added = difference(rounds, OURS.name, CONTROL.name, "p99")
    if added is not None:
        found.append((f"less than {MOST_ADDED * 1e3:g} ms added at p99", added < MOST_ADDED))
    return [f"promise: {promise}: {'kept' if kept else 'MISSED'}" for promise, kept in found]


def show(results: Results) -> None:
    """Print a table for each pace, and whether our promises are kept."""
    for case in results.cases:
        found = results.case(case)
        head = (f"ms late, {case}", "p99 - control", "median", "p99", "max", "calls/s")
        print(table(head, [_row(found, name) for name in found.names]))
        if OURS.name in found.names:
            print("", *_verdicts(found, case), sep="\n", end="\n\n")


def charts(results: Results) -> list[Chart]:
    """Return the 99th percentiles."""
    groups = results.groups("p99", 1e3)
    title = "Milliseconds that the loop is late, 99th percentile"
    return [Chart(name="loop_lag", title=title, form=",.2f", groups=groups, is_logarithmic=True)]


if __name__ == "__main__":
    show(run(QUESTION, charts))
