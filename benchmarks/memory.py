"""How much memory do events take that wait, while the endpoint answers nothing?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from _bench import Question, Results, run
from _entrants import CONTROL, MIXPANEL, OURS, PEERS, RUDDER_NODE, SEGMENT
from _plots import Chart
from _report import middle, ratio, table, text

if TYPE_CHECKING:
    from _report import Round

QUESTION = Question(
    name="memory",
    subjects=(OURS, *(each for each in PEERS if each not in (MIXPANEL, RUDDER_NODE)), CONTROL),
    short={"events": 20_000},
    full={"events": 100_000},
    rounds={"short": 1, "full": 3},
)


def _weighed(results: Results) -> list[Round]:
    """Return the rounds with what a waiting event takes over the idle client."""
    return [
        {
            name: {"each": (found["waiting"] - found["idle"]) / found["events"], **found}
            for name, found in answers.items()
        }
        for answers in results.rounds
    ]


def show(results: Results) -> None:
    """Print the table."""
    rounds = _weighed(results)
    head = ("memory", "x segment", "bytes/waiting event", "idle MiB", "waiting MiB", "came twice")
    rows = [
        [
            name,
            text(ratio(rounds, name, SEGMENT.name, "each"), ".2f"),
            text(middle(rounds, name, "each"), ",.0f"),
            text(middle(rounds, name, "idle"), ".1f", 2**-20),
            text(middle(rounds, name, "waiting"), ".1f", 2**-20),
            text(middle(rounds, name, "again"), ",.0f"),
        ]
        for name in results.names
    ]
    print(table(head, rows))


def charts(results: Results) -> list[Chart]:
    """Return the bytes of each waiting event."""
    rounds = _weighed(results)
    found = {name: middle(rounds, name, "each") for name in results.names}
    title = f"Bytes of memory for each of {results.options['events']:,} waiting events"
    return [Chart(name="memory", title=title, form=",.0f", groups={"": found})]


if __name__ == "__main__":
    show(run(QUESTION, charts))
