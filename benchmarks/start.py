"""What does it take from the import to the first event, and how long does the loop stand still?"""

from __future__ import annotations

from dataclasses import replace

from _bench import Question, Results, run
from _entrants import CONTROL, OURS, PYTHON_PEERS, Subject
from _plots import Chart
from _report import middle, table, text


def _starting(subject: Subject) -> Subject:
    client = subject.program.removesuffix(".py")
    return replace(subject, program="starting.py", options={"client": client})


QUESTION = Question(
    name="start",
    subjects=tuple(_starting(each) for each in (OURS, *PYTHON_PEERS, CONTROL)),
    short={},
    full={},
    rounds={"short": 1, "full": 7},
)
STEPS = ("own", "make", "start", "first event", "block")


def _row(results: Results, name: str) -> list[str]:
    rounds = [each for each in results.rounds if name in each]
    has = rounds[0][name]
    figures = [
        text(middle(rounds, name, step) if step in has else None, ".1f", 1e3)
        for step in ("shared", *STEPS)
    ]
    by_block = sorted((each[name] for each in rounds), key=lambda found: found["block"])
    return [name, *figures, by_block[(len(by_block) - 1) // 2]["worst"]]


def show(results: Results) -> None:
    """Print the table."""
    head = (
        *("ms", "httpx, pydantic", "own import", "make", "start", "first event"),
        *("longest block", "in"),
    )
    print(table(head, [_row(results, name) for name in results.names]))


def charts(results: Results) -> list[Chart]:
    """Return the import, and the longest block."""
    titles = {
        "own": "import, over httpx and pydantic",
        "block": "longest block of the loop, from making the client to its first event",
    }
    groups = {
        title: {name: middle(results.rounds, name, figure) * 1e3 for name in results.names}
        for figure, title in titles.items()
    }
    return [Chart(name="start", title="Milliseconds to start", form=",.1f", groups=groups)]


if __name__ == "__main__":
    show(run(QUESTION, charts))
