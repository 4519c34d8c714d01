"""What does a request cost?"""

from __future__ import annotations

from _bench import Question, Results, run
from _entrants import Subject
from _plots import Chart
from _report import difference, middle, table, text


def _subject(name: str, framework: str, what: str) -> Subject:
    return Subject(name=name, program="serving.py", options={"framework": framework, "what": what})


ASGI = _subject("ASGI app: bare", "asgi", "bare")
FASTAPI = _subject("FastAPI: bare", "fastapi", "bare")
QUESTION = Question(
    name="request_time",
    subjects=(
        ASGI,
        _subject("ASGI app: with the middleware", "asgi", "bound"),
        _subject("ASGI app: and one call", "asgi", "call"),
        FASTAPI,
        _subject("FastAPI: with get_analytics", "fastapi", "bound"),
        _subject("FastAPI: and one call", "fastapi", "call"),
    ),
    short={"requests": 5_000},
    full={"requests": 20_000},
)


def _row(results: Results, name: str) -> list[str]:
    bare = ASGI if name.startswith("ASGI") else FASTAPI
    added = difference(results.rounds, name, bare.name, "median")
    return [
        name,
        "" if name == bare.name else text(added, ".1f", 1e6),
        *(text(middle(results.rounds, name, each), ".1f", 1e6) for each in ("median", "p99")),
    ]


def show(results: Results) -> None:
    """Print the table."""
    head = ("µs a request", "added", "median", "p99")
    print(table(head, [_row(results, name) for name in results.names]))


def charts(results: Results) -> list[Chart]:
    """Return the medians."""
    found = {name: middle(results.rounds, name, "median") * 1e6 for name in results.names}
    title = "Microseconds that a request takes, without a socket"
    return [Chart(name="request_time", title=title, form=",.1f", groups={"": found})]


if __name__ == "__main__":
    show(run(QUESTION, charts))
