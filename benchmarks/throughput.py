"""How many events a second get from the caller to the endpoint, on one core, and for what CPU?"""

from __future__ import annotations

from _bench import Question, Results, run
from _entrants import CONTROL, OURS, OURS_AIOHTTP, OURS_UNSENT, PEERS, SEGMENT
from _plots import Chart
from _report import middle, ratio, table, text

QUESTION = Question(
    name="throughput",
    subjects=(OURS, OURS_AIOHTTP, OURS_UNSENT, *PEERS, CONTROL),
    short={"events": 10_000},
    full={"events": 100_000},
    peers={"short": {"events": 3_000}, "full": {"events": 20_000}},
    cases={
        "full events": {},
        "full events, gzip": {"gzip": True},
        "small events": {"size": "small"},
        "small events, gzip": {"size": "small", "gzip": True},
    },
    only_full=frozenset({"small events, gzip"}),
    rounds={"short": 1, "full": 9},  # rates differ most from one round to the next
)
HEAD = ("x segment", "x control", "events/s", "CPU s/100,000", "bytes/event", "events/request")


def _row(results: Results, name: str) -> list[str]:
    rounds = results.rounds
    rate = middle(rounds, name, "rate")
    sent = middle(rounds, name, "sent")
    size = middle(rounds, name, "bytes_per_event") if sent else None
    share = sent / middle(rounds, name, "requests") if sent else None
    return [
        name,
        text(ratio(rounds, name, SEGMENT.name, "rate"), ".2f"),
        text(ratio(rounds, name, CONTROL.name, "rate"), ".2f"),
        text(rate, ",.0f"),
        text(middle(rounds, name, "cpu_per_event"), ".2f", 1e5),
        text(size, ".0f"),
        text(share, ",.0f"),
    ]


def show(results: Results) -> None:
    """Print a table for each case."""
    for case in results.cases:
        of_case = results.case(case)
        rows = [_row(of_case, name) for name in of_case.names]
        print(table((case, *HEAD), rows), end="\n\n")


def charts(results: Results) -> list[Chart]:
    """Return the rates, and the CPU that they cost."""
    rate, cpu = (
        {
            case: {name: middle(rounds, name, figure) * scale for name in results.case(case).names}
            for case, rounds in results.cases.items()
        }
        for figure, scale in (("rate", 1.0), ("cpu_per_event", 1e5))
    )
    return [
        Chart(name="throughput", title="Events a second, end to end", form=",.0f", groups=rate),
        Chart(name="cpu", title="CPU seconds for 100,000 events", form=".2f", groups=cpu),
    ]


if __name__ == "__main__":
    show(run(QUESTION, charts))
