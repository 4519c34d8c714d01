"""Where does the time go: of an event from call to answer, of a slow call, and of the import?

This is the profile behind the figures of `throughput`, `call_time` and `start`.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from _bench import Question, Results, run
from _entrants import OURS
from _plots import Chart
from _report import table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STAGED = OURS.name
SLOW = 12e-6  # seconds: 99 calls in 100 are promised to take less
QUESTION = Question(
    name="stages",
    subjects=(replace(OURS, program="staged.py"),),
    short={},
    full={},
    cases={
        "full events": {"measure": "stages", "events": 12_000, "size": "full"},
        "small events": {"measure": "stages", "events": 32_000, "size": "small"},
        "calls": {"measure": "places", "bursts": 100, "slow": SLOW},
        "import": {"measure": "imports"},
    },
    rounds={"short": 1, "full": 5},
)
EVENTS = ("full events", "small events")
_WITHIN = ("check", "encode")  # of a call
_ORDER = ("call", "drain and account", "join", "httpx", "aiohttp in its place", "all together")
_CONTROL = ("control: bytes", "control: join and send")
_CALLERS = {"ours": "a call", "bytes": "only its bytes", "adding": "adding numbers for as long"}
_MODULES = 12  # that are named


def _figures(results: Results, case: str, key: str) -> list[Mapping[str, Any]]:
    return [each[STAGED][key] for each in results.cases[case]]


def _medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in rounds for name in each)
    return {name: median(each.get(name, 0.0) for each in rounds) for name in names}


def show(results: Results) -> None:
    """Print the tables."""
    cases = [case for case in EVENTS if case in results.cases]
    if cases:
        _show_stages({case: _medians(_figures(results, case, "stages")) for case in cases})
    if "calls" in results.cases:
        _show_places(_figures(results, "calls", "places"))
        _show_slow(_figures(results, "calls", "slow"))
    if "import" in results.cases:
        _show_modules(_medians(_figures(results, "import", "modules")))


def _show_stages(found: Mapping[str, Mapping[str, float]]) -> None:
    names = ["call", *_WITHIN, *_ORDER[1:], *_CONTROL]
    rows = [
        [
            f"  of it: {name}" if name in _WITHIN else name,
            *(format(each[name] * 1e6, ".2f") for each in found.values()),
            *(format(each[name] / each["all together"], ".0%") for each in found.values()),
        ]
        for name in names
    ]
    head = ("CPU µs an event", *found, *(f"{case}, share" for case in found))
    print(table(head, rows), end="\n\n")


def _show_places(rounds: Sequence[Mapping[str, Any]]) -> None:
    places = rounds[0]["ours"]
    rows = [
        [
            place,
            *(
                format(median(each[who][place][figure] for each in rounds) * 1e6, ".1f")
                for who in _CALLERS
                for figure in ("median", "p99")
            ),
        ]
        for place in places
    ]
    head = ["µs a call, by its place"]
    for title in _CALLERS.values():
        head += [f"{title}: median", "p99"]
    print(table(head, rows), end="\n\n")


def _show_slow(rounds: Sequence[Mapping[str, Any]]) -> None:
    """Print a table that adds up: means, as medians would not."""
    met = sorted({name for each in rounds for who in _CALLERS for name in each[who]})
    shares = {name: [_percent(rounds, who, name) for who in _CALLERS] for name in met}
    sums = [sum(each[column] for each in shares.values()) for column in range(len(_CALLERS))]
    shares["all of these"] = sums
    rows = [[name, *(format(each, ".2f") for each in found)] for name, found in shares.items()]
    head = f"calls of over {SLOW * 1e6:g} µs, in % of all calls"
    print(table([head, *_CALLERS.values()], rows), end="\n\n")


def _percent(rounds: Sequence[Mapping[str, Any]], who: str, name: str) -> float:
    return round(100 * fmean(each[who].get(name, 0.0) for each in rounds), 2)


def _show_modules(found: Mapping[str, float]) -> None:
    packages: dict[str, float] = {}
    for name, seconds in found.items():
        package = name.partition(".")[0]
        packages[package] = packages.get(package, 0.0) + seconds
    rows = [[name, _ms(seconds)] for name, seconds in _largest(packages)]
    rows += [[f"  {name}", _ms(seconds)] for name, seconds in _largest(_own(found))]
    rows.append(["all", _ms(sum(found.values()))])
    print(table(("ms that importing adds, by package; then by module of ours", "ms"), rows))


def _own(found: Mapping[str, float]) -> dict[str, float]:
    return {name: each for name, each in found.items() if name.startswith("asyncanalytics")}


def _largest(found: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(found.items(), key=lambda item: -item[1])[:_MODULES]


def _ms(seconds: float) -> str:
    return format(seconds * 1e3, ".1f")


def charts(results: Results) -> list[Chart]:
    """Return the stages."""
    groups = {}
    for case in [each for each in EVENTS if each in results.cases]:
        found = _medians(_figures(results, case, "stages"))
        groups[case] = {name: found[name] * 1e6 for name in (*_ORDER, *_CONTROL)}
    return [Chart(name="stages", title="CPU µs an event", form=",.2f", groups=groups)]


if __name__ == "__main__":
    show(run(QUESTION, charts))
