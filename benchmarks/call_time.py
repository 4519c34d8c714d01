"""How long does one call keep its caller?"""

from __future__ import annotations

from dataclasses import replace

from _bench import CONTROL, OURS, SEGMENT, Question, Results, run
from _report import middle, ratio, table, text

QUESTION = Question(
    name="call_time",
    subjects=(
        replace(OURS, name="asyncanalytics, awaited", options={"verb": "awaited"}),
        replace(OURS, name="asyncanalytics, _nowait", options={"verb": "nowait"}),
        replace(OURS, name="asyncanalytics, Client", options={"verb": "sync"}),
        SEGMENT,
        replace(CONTROL, name="control: only the bytes", options={"what": "bytes"}),
        replace(CONTROL, name="control: an empty call", options={"what": "empty"}),
    ),
    short={"calls": 10_000},
    full={"calls": 30_000},
)


def _row(results: Results, name: str) -> list[str]:
    figures = ("median", "p99", "p99_9", "max", "first")
    return [
        name,
        text(ratio(results.rounds, name, SEGMENT.name, "median"), ".2f"),
        *(text(middle(results.rounds, name, figure), ".1f", 1e6) for figure in figures),
    ]


def main() -> None:
    """Measure, and print the table."""
    results = run(QUESTION)
    head = ("µs a call", "x segment", "median", "p99", "p99.9", "max", "first")
    print(table(head, [_row(results, name) for name in results.names]))


if __name__ == "__main__":
    main()
