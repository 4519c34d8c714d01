"""How many events a second go through the router on one core, to two integrations?"""

from __future__ import annotations

from dataclasses import replace

from _bench import Question, Results, run
from _entrants import CONTROL, Subject
from _plots import Chart
from _processes import cores
from _report import middle, ratio, table, text

MEMORY = Subject(name="in memory", program="routing.py", options={"server": "memory"})
SPOOLED = replace(MEMORY, name="with a spool", options={"server": "spooled"})
BARE = replace(
    CONTROL, program="routing.py", options={"server": "control"}, lacks=frozenset({"cuts"})
)

OVERLOAD = "overload"

QUESTION = Question(
    name="router",
    subjects=(MEMORY, SPOOLED, BARE),
    short={"events": 30_000, "core": cores()[0]},
    full={"events": 100_000, "core": cores()[0]},
    cases={
        "batches of 100": {},
        "batches of 100, gzip": {"gzip": True},
        OVERLOAD: {"connections": 400, "cuts": 0.1, "again": True, "room": 10_000},
    },
    only_full=frozenset({"batches of 100, gzip"}),
    rounds={"short": 1, "full": 3},
)
HEAD = ("x control, CPU", "taken/s", "delivered/s", "CPU µs/event", "events/CPU s")


def _row(results: Results, name: str) -> list[str]:
    rounds = results.rounds
    cpu = middle(rounds, name, "cpu_per_event")
    return [
        name,
        text(ratio(rounds, name, BARE.name, "cpu_per_event"), ".2f"),
        text(middle(rounds, name, "taken_per_second"), ",.0f"),
        text(middle(rounds, name, "rate"), ",.0f"),
        text(cpu, ".1f", 1e6),
        text(1 / cpu, ",.0f"),
    ]


def _lost(results: Results, name: str) -> list[str]:
    def figure(each: str) -> float:
        return middle(results.rounds, name, each)

    others = map(figure, ("sent", "taken_per_second", "cut", "refused", "again"))
    figures = (figure("sent") - figure("fewest"), *others)
    return [name, *(text(each, ",.0f") for each in figures)]


TABLES = {
    "rates": (_row, HEAD),
    "losses": (
        _lost,
        ("missing", "answered with 200", "taken/s", "cut requests", "answered with 503", "twice"),
    ),
}


def show(results: Results) -> None:
    """Print a table for each case, beside its promise."""
    for case in results.cases:
        row, head = TABLES["losses" if case == OVERLOAD else "rates"]
        promise = "0 missing" if case == OVERLOAD else "15,000"
        of_case = results.case(case)
        rows = [row(of_case, name) for name in of_case.names]
        print(table((f"{case} (promised: {promise})", *head), rows), end="\n\n")


def charts(results: Results) -> list[Chart]:
    """Return the rates."""
    return [
        Chart(
            name="router",
            title="Events a second routed",
            form=",.0f",
            groups=results.groups("rate"),
        )
    ]


if __name__ == "__main__":
    show(run(QUESTION, charts))
