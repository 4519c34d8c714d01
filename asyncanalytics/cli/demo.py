"""`demo`: the main job, shown and proved in a few seconds, without an account anywhere.

The exit code is 0 only if the law held whenever it was checked, every call was delivered, and
every delivered call was read back from the collector with all that it had been given.
"""
# Annotations are read at run time: typer makes the options from them.

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from asyncanalytics.cli.exits import Exit, leave
from asyncanalytics.cli.options import Json
from asyncanalytics.cli.output import complain, overhear, print_json, say, stdout
from asyncanalytics.cli.play import Outcome, Plan, Play, Watcher
from asyncanalytics.cli.proof import law
from asyncanalytics.cli.view import LiveView, PlainView, SilentView

_PLAN = Plan()

Visitors = Annotated[
    int, typer.Option(metavar="N", min=1, max=100_000, help="How many come to the shop.")
]
Seed = Annotated[int, typer.Option(metavar="N", help="Another seed, other visitors.")]
Outage = Annotated[
    float,
    typer.Option(metavar="SECONDS", min=0, max=600, help="How long the endpoint is down."),
]


def demo(
    *,
    visitors: Visitors = _PLAN.visitors,
    seed: Seed = _PLAN.seed,
    outage: Outage = _PLAN.outage,
    json: Json = False,
) -> None:
    """Play a small web shop, take its endpoint down and up again, and count what arrived.

    It starts a collector on this machine, sends all six calls to it through AsyncClient, and
    reads everything back. Nothing leaves the machine.
    """
    plan = Plan(visitors=visitors, seed=seed, outage=outage)
    with _looking_on(plan, json=json) as watcher:
        outcome = asyncio.run(_play(plan, watcher))
    if json:
        print_json(plain(outcome))
    else:
        _report(outcome)
    reasons = problems(outcome)
    if reasons:
        complain(f"the demo failed: {'; '.join(reasons)}")
    leave(Exit.UNPROVEN if reasons else Exit.OK)


@contextlib.contextmanager
def _looking_on(plan: Plan, *, json: bool) -> Iterator[Watcher]:
    if json:
        yield SilentView()
    elif stdout().is_terminal:
        view = LiveView(plan)
        with view.shown():
            yield view
    else:
        yield PlainView()


async def _play(plan: Plan, watcher: Watcher) -> Outcome:
    from asyncanalytics.collector import Collector

    with Collector() as collector, overhear(watcher.overhear, level=logging.INFO):
        return await Play(plan, watcher).run(collector)


def problems(outcome: Outcome) -> list[str]:
    """Return why the claims do not hold; nothing where they do."""
    found = list(outcome.proof.problems)
    if outcome.broken:
        found.append(f"the law was broken {outcome.broken:,} times of {outcome.checks:,}")
    return found


def plain(outcome: Outcome) -> dict[str, Any]:
    """Return everything as JSON-ready data."""
    plan = outcome.plan
    return {
        "ok": not problems(outcome),
        "problems": problems(outcome),
        "plan": {"visitors": plan.visitors, "seed": plan.seed, "outage": plan.outage},
        "calls": outcome.calls,
        "seconds": round(outcome.seconds, 3),
        "calls_per_second": round(_rate(outcome.stats.accepted, outcome.seconds), 1),
        "held_up_us": round(outcome.held_up * 1e6, 1),
        "outage": {
            "calls": outcome.calls_in_outage,
            "held_up_us": round(outcome.held_up_in_outage * 1e6, 1),
            "most_pending": outcome.most_pending,
            "caught_up_seconds": round(outcome.caught_up, 3),
        },
        "law": {"text": law(outcome.stats), "checks": outcome.checks, "broken": outcome.broken},
        "client": outcome.stats.as_dict(),
        "collector": outcome.collected.as_dict(),
        "read_back": outcome.proof.as_dict() | {"seconds": round(outcome.read_back, 3)},
    }


def _report(outcome: Outcome) -> None:
    stats, proof = outcome.stats, outcome.proof
    each = next(iter(stats.destinations.values()))
    rate = f"{_rate(stats.accepted, outcome.seconds):,.0f} a second"
    say("")
    _line("accepted", f"{stats.accepted:,} calls in {outcome.seconds:.1f} s, {rate}")
    counts = [f"{count:,} {call}" for call, count in outcome.calls.items()]
    _line("", ", ".join(counts[:3]))
    _line("", ", ".join(counts[3:]))
    _line("delivered", f"{stats.delivered:,} in {each.requests:,} requests")
    if outcome.plan.outage:
        _report_outage(outcome, each.retries)
    share = f"{proof.whole:,} of {proof.delivered:,} delivered calls, each with its payload"
    _line("read back", f"{share}, in {outcome.read_back:.1f} s")
    if proof.repeated:
        _line("", f"{proof.repeated:,} arrived again, since their answer was lost: same messageId")
    holds = stats.is_balanced and not outcome.broken
    style = "bold green" if holds else "bold red"
    _line("the law", "accepted = delivered + rejected + dropped + pending", style=style)
    sides = f"{stats.accepted:,} {'=' if stats.is_balanced else 'is not'} {stats.delivered:,}"
    others = f"{stats.rejected:,} + {stats.dropped:,} + {stats.pending:,}"
    _line("", f"{sides} + {others}", style=style)
    _line("", f"checked {outcome.checks:,} times on the way, broken {outcome.broken:,} times")


def _report_outage(outcome: Outcome, retries: int) -> None:
    met = ", ".join(f"{count:,} x {name}" for name, count in _refusals(outcome).items())
    _line(
        "outage", f"{outcome.plan.outage:g} s; requests met {met or 'nothing'}; {retries:,} retries"
    )
    calls = f"{outcome.calls_in_outage:,} calls were made meanwhile"
    _line("", f"{calls}, at most {outcome.most_pending:,} were pending")
    usual, then = outcome.held_up * 1e6, outcome.held_up_in_outage * 1e6
    _line("", f"a call took its caller {then:.0f} µs (median), {usual:.0f} µs before")
    _line("", f"{outcome.caught_up:.1f} s after it all of them were delivered")


def _refusals(outcome: Outcome) -> dict[str, int]:
    """Return what requests met in place of a success, as the collector counted it."""
    answers = outcome.collected.answers.items()
    return {
        str(status) if status else "no answer": count
        for status, count in answers
        if not 200 <= status < 300
    }


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds else 0.0


def _line(title: str, text: str, *, style: str = "") -> None:
    say((f"{title:<10} ", "bold"), (text, style))
