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


BEFORE = replace(
    _starting(OURS),
    name="asyncanalytics, made before the loop",
    options={"client": "ours_before"},
)
CONTROL_THREAD = replace(
    _starting(CONTROL),
    name="control, a thread that counts",
    options={"client": "control_thread"},
)
QUESTION = Question(
    name="start",
    subjects=(
        _starting(OURS),
        BEFORE,
        *map(_starting, PYTHON_PEERS),
        _starting(CONTROL),
        CONTROL_THREAD,
    ),
    short={},
    full={},
    rounds={"short": 1, "full": 15},
)
STEPS = ("own", "make", "start", "first event", "block")
PROMISED = 0.005  # seconds


def _row(results: Results, name: str) -> list[str]:
    rounds = [each for each in results.rounds if name in each]
    has = rounds[0][name]
    figures = [
        text(middle(rounds, name, step) if step in has else None, ".1f", 1e3)
        for step in ("shared", *STEPS)
    ]
    by_block = sorted((each[name] for each in rounds), key=lambda found: found["block"])
    worst = by_block[(len(by_block) - 1) // 2]["worst"]
    above = sum(found["block"] > PROMISED for found in by_block)
    return [name, *figures, worst, f"{above} of {len(by_block)}"]


def show(results: Results) -> None:
    """Print the table."""
    head = (
        *("ms", "httpx, pydantic", "own import", "make", "start", "first event"),
        *("longest block", "in", f"rounds above {PROMISED * 1e3:.0f}"),
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
