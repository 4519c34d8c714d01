"""How long does one call keep its caller?"""

from __future__ import annotations

from dataclasses import replace

from _bench import Question, Results, run
from _entrants import CONTROL, OURS, PEERS, SEGMENT
from _plots import Chart
from _report import middle, ratio, table, text

BURSTS = "bursts"
IN_A_ROW = "in a row"
QUESTION = Question(
    name="call_time",
    subjects=(
        replace(OURS, name="asyncanalytics, awaited", options={"verb": "awaited"}),
        replace(OURS, name="asyncanalytics, _nowait", options={"verb": "nowait"}),
        replace(OURS, name="asyncanalytics, Client", options={"verb": "sync"}),
        *PEERS,
        replace(CONTROL, name="control: only the bytes", options={"what": "bytes"}),
        replace(CONTROL, name="control: an empty call", options={"what": "empty"}),
    ),
    short={"calls": 10_000},
    full={"calls": 30_000},
    cases={BURSTS: {}, IN_A_ROW: {"in_a_row": True}},
    peers={"short": {"calls": 2_000}, "full": {"calls": 10_000}},
    rounds={"short": 1, "full": 9},
)


def _row(results: Results, name: str) -> list[str]:
    figures = ("median", "p99", "p99_9", "max", "first")
    return [
        name,
        text(ratio(results.rounds, name, SEGMENT.name, "median"), ".2f"),
        *(text(middle(results.rounds, name, figure), ".1f", 1e6) for figure in figures),
    ]


def show(results: Results) -> None:
    """Print a table for each case."""
    head = ("x segment", "median", "p99", "p99.9", "max", "first")
    for case in results.cases:
        of_case = results.case(case)
        rows = [_row(of_case, name) for name in of_case.names]
        print(table((f"µs a call, {case}", *head), rows), end="\n\n")


def charts(results: Results) -> list[Chart]:
    """Return the quantiles."""
    return [_chart(results.case(case), case) for case in results.cases]


def _chart(results: Results, case: str) -> Chart:
    groups = {
        title: {name: middle(results.rounds, name, figure) * 1e6 for name in results.names}
        for figure, title in (("median", "median"), ("p99", "p99"), ("p99_9", "p99.9"))
    }
    name = f"call_time_{case.replace(' ', '_')}"
    title = f"Microseconds that one call keeps its caller, {case}"
    return Chart(name=name, title=title, form=",.1f", groups=groups, is_logarithmic=True)


if __name__ == "__main__":
    show(run(QUESTION, charts))
