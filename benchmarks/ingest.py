"""How many events a second does the collector take in on one core, and are all of them there?"""

from __future__ import annotations

from dataclasses import replace

from _bench import Question, Results, run
from _entrants import Subject
from _plots import Chart
from _processes import cores
from _report import middle, ratio, table, text

MEMORY = Subject(
    name="asyncanalytics: into memory", program="collecting.py", options={"server": "memory"}
)
FILE = replace(MEMORY, name="asyncanalytics: into a file", options={"server": "file"})
SERVER = replace(
    MEMORY,
    name="control: same server",
    options={"server": "server"},
    lacks=frozenset({"cuts"}),
)
BARE = replace(SERVER, name="control: bare asyncio", options={"server": "bare"})

OVERLOAD = "overload"
QUESTION = Question(
    name="ingest",
    subjects=(MEMORY, FILE, SERVER, BARE),
    short={"events": 30_000, "core": cores()[0]},
    full={"events": 100_000, "core": cores()[0]},
    cases={
        "batches of 100": {},
        "batches of 100, gzip": {"gzip": True},
        OVERLOAD: {"connections": 400, "cuts": 0.1},
    },
    rounds={"short": 1, "full": 3},
)


def _row(results: Results, name: str) -> list[str]:
    rounds = results.rounds
    return [
        name,
        text(ratio(rounds, name, SERVER.name, "rate"), ".2f"),
        text(middle(rounds, name, "rate"), ",.0f"),
        text(middle(rounds, name, "cpu_per_event"), ".1f", 1e6),
    ]


def _lost(results: Results, name: str) -> list[str]:
    figures = ("missing", "events", "rate", "cut", "duplicates")
    return [name, *(text(middle(results.rounds, name, each), ",.0f") for each in figures)]


TABLES = {
    "rates": (_row, ("x same server", "events/s", "CPU µs/event")),
    "losses": (_lost, ("missing", "answered with 200", "events/s", "cut requests", "there twice")),
}


def show(results: Results) -> None:
    """Print a table for each case, beside its promise."""
    for case in results.cases:
        row, head = TABLES["losses" if case == OVERLOAD else "rates"]
        promise = "0 missing" if case == OVERLOAD else "25,000"
        of_case = results.case(case)
        rows = [row(of_case, name) for name in of_case.names]
        print(table((f"{case} (promised: {promise})", *head), rows), end="\n\n")


def charts(results: Results) -> list[Chart]:
    """Return the rates."""
    return [
        Chart(
            name="ingest",
            title="Events a second taken in",
            form=",.0f",
            groups=results.groups("rate"),
        )
    ]


if __name__ == "__main__":
    show(run(QUESTION, charts))
