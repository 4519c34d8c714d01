"""`collect`: run the collector until Ctrl-C, misbehaving where that is asked for.

With `--tail` events are shown as they arrive. They are read over the collector's own JSON API,
in a thread, so what is shown is what is kept.
"""
# Annotations are read at run time: typer makes the options from them.

import _thread
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import typer

from asyncanalytics.cli.addresses import bound, say_where
from asyncanalytics.cli.exits import Exit, Failure
from asyncanalytics.cli.options import Json, with_groups
from asyncanalytics.cli.output import note, print_json, say
from asyncanalytics.cli.reading import BEGINNING, Gone, Reader
from asyncanalytics.cli.tail import show_event

if TYPE_CHECKING:
    from asyncanalytics.collector import Collector

Begun = Callable[[str, str | None], None]

_FAULTS = "Faults, to see what your own app does when the endpoint is down"

Tail = Annotated[bool, typer.Option("--tail", help="Show events as they arrive.")]
FailStatus = Annotated[
    int | None,
    typer.Option(metavar="STATUS", help="Answer with this status.", rich_help_panel=_FAULTS),
]
FailDrop = Annotated[
    bool,
    typer.Option("--fail-drop", help="Close the connection instead.", rich_help_panel=_FAULTS),
]
FailDelay = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        help="Answer so much later; alone, the answer is right.",
        rich_help_panel=_FAULTS,
    ),
]
FailRetryAfter = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="The Retry-After header.", rich_help_panel=_FAULTS),
]
FailShare = Annotated[
    float,
    typer.Option(metavar="SHARE", help="For this part of the requests.", rich_help_panel=_FAULTS),
]
FailCount = Annotated[
    int | None,
    typer.Option(metavar="N", help="For so many requests, and no more.", rich_help_panel=_FAULTS),
]
FailAfter = Annotated[
    bool,
    typer.Option(
        "--fail-after",
        help="Keep the events first: only the answer fails.",
        rich_help_panel=_FAULTS,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(metavar="N", help="Makes --fail-share repeatable.", rich_help_panel=_FAULTS),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Collecting:
    """What every command that runs a collector takes."""

    host: Annotated[str, typer.Option(metavar="HOST", help="The address to listen on.")] = (
        "127.0.0.1"
    )
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65_535, help="0 takes a free one.")
    ] = 8010
    path: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep events in this SQLite file, not in memory."),
    ] = None
    write_key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            envvar="ASYNCANALYTICS_COLLECT_KEYS",
            help="Let in this key; repeat it. Unless given, any key, and none.",
            show_default=False,
        ),
    ] = field(default=None, repr=False)
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Answer under this name too; repeat it."),
    ] = None
    mode: Annotated[
        Literal["lenient", "strict", "partial"],
        typer.Option(help="How bad events are answered: with 200, with 400, or with 207."),
    ] = "lenient"
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar="ASYNCANALYTICS_READ_TOKEN",
            help="Demand it of who reads. Beyond loopback one is made unless given.",
            show_default=False,
        ),
    ] = field(default=None, repr=False)


@with_groups
def collect(
    *,
    collecting: Collecting,
    tail: Tail = False,
    json: Json = False,
    fail_status: FailStatus = None,
    fail_drop: FailDrop = False,
    fail_delay: FailDelay = 0.0,
    fail_retry_after: FailRetryAfter = None,
    fail_share: FailShare = 1.0,
    fail_count: FailCount = None,
    fail_after: FailAfter = False,
    seed: Seed = None,
) -> None:
    """Run a collector: an endpoint of your own, for tests and for trying things out.

    It takes what a Segment-compatible endpoint takes, keeps it, shows it in a browser, and gives
    it back as JSON. Ctrl-C ends it. With --json the first line says where it listens, each event
    of --tail is a line, and the last line has the figures.
    """
    fault = _fault(
        fail_status,
        fail_delay,
        drop=fail_drop,
        retry_after=fail_retry_after,
        share=fail_share,
        count=fail_count,
        after=fail_after,
    )
    run_collector(
        collecting,
        beside=_tailing(json=json) if tail else contextlib.nullcontext(nothing_beside),
        fault=fault,
        json=json,
        seed=seed,
    )


def run_collector(
    collecting: Collecting,
    *,
    beside: AbstractContextManager[Begun],
    fault: dict[str, Any] | None = None,
    json: bool = False,
    seed: int | None = None,
) -> None:
    """Run a collector until Ctrl-C.

    What `beside` gives is called once with the address and with the token that reading needs;
    it is left before the figures are said.
    """
    with _collector(collecting, seed=seed) as collector:
        _misbehave(collector, fault)
        with beside as begun:
            _run(collector, collecting, _on_start(collector, collecting, begun, json=json))
        _say_goodbye(collector, json=json)


def nothing_beside(_: str, __: str | None) -> None:
    """Do nothing once the collector runs."""


def _fault(status: int | None, delay: float, **more: Any) -> dict[str, Any] | None:
    """Return the one fault that the options ask for, or None where they ask for none."""
    instead = more["drop"] or more["after"] or more["retry_after"] is not None
    if status is None and not (delay or instead or more["share"] != 1 or more["count"]):
        return None
    slow_but_right = delay and not instead
    return {"status": status or (None if slow_but_right else 503), "delay": delay} | more


@contextlib.contextmanager
def _collector(given: Collecting, *, seed: int | None) -> "Iterator[Collector]":
    from asyncanalytics.collector import Collector

    try:
        collector = Collector(
            given.path,
            write_keys=given.write_key or None,
            allowed_hosts=given.allow_host,
            mode=given.mode,
            read_token=given.token,
            seed=seed,
        )
    except ValueError as error:
        problem = str(error).replace("read_token", "--token")
        raise Failure(problem, Exit.CONFIGURATION) from None
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Failure(f"--path cannot be used: {reason}", Exit.CONFIGURATION) from None
    with collector:
        yield collector


def _misbehave(collector: "Collector", fault: dict[str, Any] | None) -> None:
    if fault is None:
        return
    try:
        collector.misbehave(**fault)
    except ValueError as error:
        raise Failure(f"--fail-*: {error}", Exit.USAGE) from None
    note(f"this collector misbehaves: {_fault_text(**fault)}")


def _fault_text(
    *, status: int | None, drop: bool, delay: float, share: float, count: int | None, **_: Any
) -> str:
    what = "drops connections" if drop else f"answers {status}" if status else "answers"
    late = f" after {delay:g} s" if delay else ""
    part = f", for {share:.0%} of the requests" if share < 1 else ""
    return f"{what}{late}{part}" + (f", {count:,} times" if count else "")


def _run(collector: "Collector", given: Collecting, on_start: Callable[[str], None]) -> None:
    try:
        collector.run(given.host, given.port, on_start=on_start)
    except OSError as error:
        reason = (error.strerror or "no such address").partition(" (")[0]
        problem = f"cannot listen on {given.host} port {given.port}: {reason}"
        raise Failure(problem, Exit.CONFIGURATION) from None


def _on_start(
    collector: "Collector", given: Collecting, begun: Begun, *, json: bool
) -> Callable[[str], None]:
    def on_start(url: str) -> None:
        token = collector.read_token
        if json:
            said = {"listening": url, "bound": bound(url, given.host)}
            print_json(said | ({"read_token": token} if token else {}))
        else:
            say_where("collecting", url, given.host)
            _say_hello(url, token, key="YOUR_WRITE_KEY" if given.write_key else "any-key")
        begun(url, token)

    return on_start


def _say_hello(url: str, token: str | None, *, key: str) -> None:
    say(("  send  ", "bold"), f'AsyncClient("{key}", endpoint="{url}")')
    say(
        ("        ", "bold"),
        f"asyncanalytics track Hello --user-id u1 --write-key {key} --endpoint {url}",
    )
    if token is None:
        say(("  read  ", "bold"), f"{url}   asyncanalytics tail {url}")
        say(("        ", "bold"), f"curl '{url}/events?limit=10'   curl {url}/stats")
    else:  # whoever has this address can read everything
        say(("  read  ", "bold"), f"{url}/?token={quote(token, safe='')}")
        say(("        ", "bold"), f"curl -H 'Authorization: Bearer {token}' {url}/stats")


def _say_goodbye(collector: "Collector", *, json: bool) -> None:
    stats = collector.stats()
    if json:
        print_json({"stats": stats.as_dict()})
        return
    kept = f"{stats.events:,} events ({stats.good:,} good, {stats.bad:,} bad)"
    twice = f", {stats.duplicates:,} of them arrived again" if stats.duplicates else ""
    say(f"{stats.requests:,} requests, {kept}{twice}")


# ----------------------------------------------------------------------------------------- tail


def _run_tail(url: str, token: str | None, *, json: bool) -> None:
    reader, since = Reader(url, token=token), datetime.now(UTC).isoformat()
    show = print_json if json else show_event
    # The collector ends before its tail, which is no news.
    with contextlib.suppress(Failure, Gone), contextlib.closing(reader):
        try:
            for told in reader.stream(BEGINNING, since=since):
                if told.event is not None:
                    show(told.event)
        except (BrokenPipeError, SystemExit):  # rich makes the one of the other
            _thread.interrupt_main()  # nobody reads any more: end as with Ctrl-C


@contextlib.contextmanager
def _tailing(*, json: bool) -> Iterator[Begun]:
    threads: list[threading.Thread] = []

    def start(url: str, token: str | None) -> None:
        thread = threading.Thread(
            target=_run_tail, args=(url, token), kwargs={"json": json}, daemon=True
        )
        thread.start()
        threads.append(thread)

    try:
        yield start
    finally:
        for thread in threads:
            thread.join(1.0)
