"""How much later does the event loop run what is due, while events are sent at a steady pace?"""

from __future__ import annotations

from _bench import Question, Results, run
from _entrants import CONTROL, OURS, PYTHON_PEERS
from _plots import Chart
from _report import difference, middle, table, text

MOST_ADDED = 0.002  # seconds at the 99th percentile: what we promise to stay under

QUESTION = Question(
    name="loop_lag",
    subjects=(OURS, *PYTHON_PEERS, CONTROL),
    short={"seconds": 0.4},
    full={"seconds": 3.0},
    peers={"full": {"seconds": 1.5}},
    cases={
        "2,000 events a second": {"rate": 2_000},
        "20,000 events a second": {"rate": 20_000},
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


def show(results: Results) -> None:
    """Print a table for each pace, and whether our promise is kept."""
    for case in results.cases:
        found = results.case(case)
        head = (f"ms late, {case}", "p99 - control", "median", "p99", "max", "calls/s")
        print(table(head, [_row(found, name) for name in found.names]))
        added = difference(found.rounds, OURS.name, CONTROL.name, "p99") or 0.0
        verdict = "kept" if added < MOST_ADDED else "MISSED"
        print(f"\npromise: less than {MOST_ADDED * 1e3:g} ms added at p99: {verdict}\n")


def charts(results: Results) -> list[Chart]:
    """Return the 99th percentiles."""
    groups = {
        case: {name: middle(rounds, name, "p99") * 1e3 for name in results.names}
        for case, rounds in results.cases.items()
    }
    title = "Milliseconds that the loop is late, 99th percentile"
    return [Chart(name="loop_lag", title=title, form=",.2f", groups=groups, is_logarithmic=True)]


if __name__ == "__main__":
    show(run(QUESTION, charts))
