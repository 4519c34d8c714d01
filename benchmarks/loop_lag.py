"""How much later does the event loop run what is due, while events are sent at a steady pace?"""

from __future__ import annotations

from _bench import CONTROL, OURS, SEGMENT, Question, Results, run
from _report import difference, middle, table, text

MOST_ADDED = 0.002  # seconds at the 99th percentile: what we promise to stay under

QUESTION = Question(
    name="loop_lag",
    subjects=(OURS, SEGMENT, CONTROL),
    short={"rate": 2_000, "seconds": 1.0},
    full={"rate": 2_000, "seconds": 5.0},
)


def _row(results: Results, name: str) -> list[str]:
    figures = ("median", "p99", "max")
    return [
        name,
        text(difference(results.rounds, name, CONTROL.name, "p99"), "+.2f", 1e3),
        *(text(middle(results.rounds, name, figure), ".2f", 1e3) for figure in figures),
        text(middle(results.rounds, name, "calls_per_second"), ",.0f"),
    ]


def main() -> None:
    """Measure, and print the table."""
    results = run(QUESTION)
    head = ("ms late", "p99 - control", "median", "p99", "max", "calls/s")
    print(table(head, [_row(results, name) for name in results.names]))
    added = difference(results.rounds, OURS.name, CONTROL.name, "p99") or 0.0
    verdict = "kept" if added < MOST_ADDED else "MISSED"
    print(f"\npromise: less than {MOST_ADDED * 1e3:g} ms added at p99: {verdict}")


if __name__ == "__main__":
    main()
