"""What does the spool cost: durable events a second, the wait for the disk, lag, and memory?"""

from __future__ import annotations

from dataclasses import replace

from _bench import Question, Results, run
from _entrants import CONTROL, OURS
from _plots import Chart
from _report import middle, ratio, table, text

SPOOLED = replace(OURS, name="with a spool", program="spooled.py", options={"spooled": True})
IN_MEMORY = replace(SPOOLED, name="in memory", options={"spooled": False})
CONTROL_DISK = replace(CONTROL, name="bare SQLite", program="disk.py")

CALLERS = 1_000  # at the same time: those of one moment share a write

DURABLE = ("while the endpoint is down", "while they are delivered")

QUESTION = Question(
    name="spool",
    subjects=(SPOOLED, IN_MEMORY, CONTROL_DISK),
    short={"scale": 1},
    full={"scale": 5},
    cases={
        "while the endpoint is down": {"measure": "durable", "callers": CALLERS, "is_down": True},
        "while they are delivered": {"measure": "durable", "callers": CALLERS, "is_down": False},
        "wait": {"measure": "wait", "rate": 10_000},
        "lag": {"measure": "lag", "rate": 2_000},
        "outage": {"measure": "outage", "events": 50_000},
        "long outage": {"measure": "outage", "events": 1_000_000},
    },
    only_full=frozenset({"long outage"}),
    rounds={"short": 1, "full": 3},
)


def show(results: Results) -> None:
    """Print a table for each case, beside its promise."""
    for case in DURABLE:
        _show_rates(results.case(case))
    titles = {
        "wait": "ms from a call to durable, at 10,000 a second (promised: 10 at p99)",
        "lag": "ms that the loop is late, at 2,000 a second (promised: 2 at p99)",
    }
    for case, title in titles.items():
        _show_times(results.case(case), title)
    for case in ("outage", "long outage"):
        if case in results.cases:
            _show_memory(results.case(case))


def _show_rates(results: Results) -> None:
    (case,) = results.cases
    rounds = results.cases[case]
    rows = [
        [
            name,
            text(ratio(rounds, name, CONTROL_DISK.name, "rate"), ".2f"),
            text(middle(rounds, name, "rate"), ",.0f"),
            text(middle(rounds, name, "cpu_per_event"), ",.1f", 1e6),
        ]
        for name in results.names
    ]
    head = (
        f"durable events, {case} (promised: 40,000)",
        "x bare SQLite",
        "events/s",
        "CPU µs/event",
    )
    print(table(head, rows), end="\n\n")


def _show_times(results: Results, title: str) -> None:
    (case,) = results.cases
    rounds = results.cases[case]
    rows = [
        [
            name,
            *(text(middle(rounds, name, each), ",.2f", 1e3) for each in ("median", "p99", "max")),
            text(middle(rounds, name, "calls_per_second"), ",.0f"),
        ]
        for name in results.names
    ]
    print(table((title, "median", "p99", "max", "calls/s"), rows), end="\n\n")


def _show_memory(results: Results) -> None:
    (case,) = results.cases
    rounds = results.cases[case]
    rows = [
        [
            name,
            text(middle(rounds, name, "events"), ",.0f"),
            text(middle(rounds, name, "added"), ",.1f", 1e-6),
            text(middle(rounds, name, "added") / middle(rounds, name, "events"), ",.0f"),
            text(middle(rounds, name, "again"), ",.0f"),
        ]
        for name in results.names
    ]
    head = (
        f"{case} (promised: 150 MB)",
        "events waiting",
        "MB over idle",
        "bytes/event",
        "came twice",
    )
    print(table(head, rows), end="\n\n")


def charts(results: Results) -> list[Chart]:
    """Return the rates."""
    groups = {
        case: {name: middle(results.cases[case], name, "rate") for name in results.names}
        for case in DURABLE
    }
    return [Chart(name="spool", title="Durable events a second", form=",.0f", groups=groups)]


if __name__ == "__main__":
    show(run(QUESTION, charts))
