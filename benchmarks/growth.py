"""What becomes of the rate and the memory from one event to a million?"""

from __future__ import annotations

from _bench import Question, Results, run
from _entrants import CONTROL, OURS, SEGMENT
from _plots import Chart
from _report import middle, table, text

_COUNTS = [10**exponent for exponent in range(7)]

QUESTION = Question(
    name="growth",
    subjects=(OURS, SEGMENT, CONTROL),
    short={},
    full={},
    cases={f"{count:,}": {"events": count} for count in _COUNTS},
    only_full=frozenset({"10", "100", "10,000", "1,000,000"}),
    rounds={"short": 1, "full": 2},
)


def show(results: Results) -> None:
    """Print a table for each subject."""
    for name in results.names:
        rows = [
            [
                case,
                text(middle(rounds, name, "seconds"), ",.2f", 1e3),
                text(middle(rounds, name, "rate"), ",.0f"),
                text(middle(rounds, name, "cpu_per_event"), ",.1f", 1e6),
                text(middle(rounds, name, "peak"), ",.1f", 2**-20),
                text(middle(rounds, name, "after"), ",.1f", 2**-20),
            ]
            for case, rounds in results.cases.items()
        ]
        head = (name, "ms", "events/s", "CPU µs/event", "MiB at most", "MiB after")
        print(table(head, rows), end="\n\n")


def charts(results: Results) -> list[Chart]:
    """Return the rates and the memory."""
    memory, rate = (
        {
            name: {
                case: middle(rounds, name, figure) * scale for case, rounds in results.cases.items()
            }
            for name in results.names
        }
        for figure, scale in (("peak", 2**-20), ("rate", 1.0))
    )
    return [
        Chart(name="growth_rate", title="Events a second, by events", form=",.0f", groups=rate),
        Chart(
            name="growth_memory",
            title="MiB of memory over the idle client, at most, by events",
            form=",.1f",
            groups=memory,
        ),
    ]


if __name__ == "__main__":
    show(run(QUESTION, charts))
