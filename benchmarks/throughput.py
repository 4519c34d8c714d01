"""How many full events a second get from the caller to the endpoint, on one core?"""

from __future__ import annotations

from _bench import CONTROL, OURS, SEGMENT, Question, Results, run
from _report import middle, ratio, table, text

QUESTION = Question(
    name="throughput",
    subjects=(OURS, SEGMENT, CONTROL),
    short={"events": 25_000},
    full={"events": 100_000},
)


def _row(results: Results, name: str) -> list[str]:
    rounds, events = results.rounds, results.options["events"]
    return [
        name,
        text(ratio(rounds, SEGMENT.name, name, "seconds"), ".2f"),
        text(ratio(rounds, CONTROL.name, name, "seconds"), ".2f"),
        text(events / middle(rounds, name, "seconds"), ",.0f"),
        text(middle(rounds, name, "cpu_seconds"), ".1f", 1e6 / events),
        text(middle(rounds, name, "bytes_per_event"), ".0f"),
        text(middle(rounds, name, "requests"), ".0f"),
    ]


def main() -> None:
    """Measure, and print the table."""
    results = run(QUESTION)
    head = ("", "x segment", "x control", "events/s", "CPU µs/event", "bytes/event", "requests")
    print(table(head, [_row(results, name) for name in results.names]))


if __name__ == "__main__":
    main()
