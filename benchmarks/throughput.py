"""How many events a second get from the caller to the endpoint, on one core, and for what CPU?"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from _bench import Question, Results, run
from _entrants import CONTROL, OURS, OURS_AIOHTTP, OURS_BY_SOCKET, OURS_UNSENT, PEERS, SEGMENT
from _plots import Chart
from _report import middle, ratio, table, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _report import Round

PLAIN, GZIP = "full events", "full events, gzip"
SMALL, SMALL_GZIP = "small events", "small events, gzip"
QUESTION = Question(
    name="throughput",
    subjects=(OURS, OURS_AIOHTTP, OURS_BY_SOCKET, OURS_UNSENT, *PEERS, CONTROL),
    short={"events": 10_000},
    full={"events": 100_000},
    # As many as take them well over the tenth of a second for which some wait at the end.
    peers={"short": {"events": 10_000}, "full": {"events": 20_000}},
    cases={
        PLAIN: {},
        GZIP: {"gzip": True},
        SMALL: {"size": "small"},
        SMALL_GZIP: {"size": "small", "gzip": True},
    },
    together=((PLAIN, GZIP), (SMALL, SMALL_GZIP)),
    only_full=frozenset({SMALL_GZIP}),
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
    """Print a table for each case, and how the rounds' ratios spread."""
    for case in results.cases:
        of_case = results.case(case)
        rows = [_row(of_case, name) for name in of_case.names]
        print(table((case, *HEAD), rows), end="\n\n")
        rows = [_spread(of_case.rounds, name) for name in of_case.names if name != OURS.name]
        print(table((f"ours in times of, {case}", "median", "from", "to"), rows), end="\n\n")
    if {PLAIN, GZIP} <= results.cases.keys():
        pairs = zip(results.cases[PLAIN], results.cases[GZIP], strict=True)
        both = [(plain[OURS.name], gzip[OURS.name]) for plain, gzip in pairs if OURS.name in plain]
        row = _three(OURS.name, [gzip["rate"] / plain["rate"] for plain, gzip in both])
        print(table(("with gzip in times of without", "median", "from", "to"), [row]))


def _spread(rounds: Sequence[Round], name: str) -> list[str]:
    both = [each for each in rounds if name in each and OURS.name in each]
    return _three(name, [each[OURS.name]["rate"] / each[name]["rate"] for each in both])


def _three(name: str, ratios: Sequence[float]) -> list[str]:
    if not ratios:
        return [name, "-", "-", "-"]
    return [name, *(format(each, ".2f") for each in (median(ratios), min(ratios), max(ratios)))]


def charts(results: Results) -> list[Chart]:
    """Return the rates, and the CPU that they cost."""
    rate, cpu = results.groups("rate"), results.groups("cpu_per_event", 1e5)
    return [
        Chart(name="throughput", title="Events a second, end to end", form=",.0f", groups=rate),
        Chart(name="cpu", title="CPU seconds for 100,000 events", form=".2f", groups=cpu),
    ]


if __name__ == "__main__":
    show(run(QUESTION, charts))
