"""`route`: run the router of a configuration until a signal, or say what is wrong with it."""
# Annotations are read at run time: typer makes the options from them.

import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from asyncanalytics.cli.addresses import bound, say_where
from asyncanalytics.cli.exits import Exit, Failure, leave
from asyncanalytics.cli.options import Json
from asyncanalytics.cli.output import complain, print_json, say

if TYPE_CHECKING:
    from asyncanalytics.collector import Problem
    from asyncanalytics.collector.pipelines import Router, RouterStats

Source = Annotated[Path, typer.Argument(metavar="FILE", help="The configuration, in TOML.")]
Host = Annotated[
    str | None,
    typer.Option(metavar="HOST", help="Instead of the file's own.", show_default=False),
]
Port = Annotated[
    int | None,
    typer.Option(
        metavar="PORT",
        min=0,
        max=65_535,
        help="Instead of the file's own; 0 takes a free one.",
        show_default=False,
    ),
]
Check = Annotated[bool, typer.Option("--check", help="Say what is configured, or wrong, and end.")]
Watch = Annotated[bool, typer.Option("--watch", help="Reload when the file changes.")]


def route(
    source: Source,
    *,
    host: Host = None,
    port: Port = None,
    check: Check = False,
    watch: Watch = False,
    json: Json = False,
) -> None:
    """Run a router: what comes with a write key goes on to several places.

    SIGHUP takes up the file as it is now, and loses nothing. SIGTERM and Ctrl-C end it, once what
    it has is delivered or its time is up. With --json the first line says where it listens, and
    the last line has the figures.
    """
    if not check and hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    sys.path.insert(0, str(source.absolute().parent))  # where functions of its own may be
    router = _router(source, json=json)
    if check:
        _say_what_is_configured(router, json=json)
        return
    _log()
    _run(router, host, port, watch=watch, json=json)
    _say_goodbye(router.stats(), json=json)


def _router(source: Path, *, json: bool) -> "Router":
    from asyncanalytics.collector import InvalidConfiguration, router

    try:
        return router(source)
    except InvalidConfiguration as error:
        _say_what_is_wrong(source, error.problems, json=json)
        leave(Exit.CONFIGURATION)


def _say_what_is_wrong(source: Path, problems: Sequence["Problem"], *, json: bool) -> None:
    if json:
        print_json({"problems": [_plain(each) for each in problems]})
    for each in problems:
        place = "" if each.line is None else f":{each.line}:{each.column}"
        path = f"{each.path}: " if each.path else ""
        complain(f"{source}{place}: {path}{each.message}")


def _plain(problem: "Problem") -> dict[str, Any]:
    names = ("path", "message", "line", "column")
    return {name: getattr(problem, name) for name in names}


def _say_what_is_configured(router: "Router", *, json: bool) -> None:
    if json:
        print_json({"problems": [], "pipelines": dict(_configured(router))})
        return
    for name, integrations in _configured(router):
        say((name, "bold"))
        for integration, place in integrations.items():
            say(f"  {integration} ", ("to ", "dim"), place)


def _configured(router: "Router") -> Iterator[tuple[str, dict[str, str]]]:
    for pipeline in router.config.pipelines:
        yield pipeline.name, {each.name: each.to for each in pipeline.enabled}


def _log() -> None:
    """Show what the package logs, and nothing of others: some tell of each request."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("asyncanalytics")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _run(router: "Router", host: str | None, port: int | None, *, watch: bool, json: bool) -> None:
    where = router.config.server.host if host is None else host

    def on_start(url: str) -> None:
        if json:
            print_json({"listening": url, "bound": bound(url, where)})
            return
        say_where("routing", url, where)
        for name, integrations in _configured(router):
            say((f"  {name} ", "bold"), ("to ", "dim"), ", ".join(integrations))

    try:
        router.run(host, port, watch=watch, on_start=on_start)
    except OSError as error:
        reason = (error.strerror or "no such address").partition(" (")[0]
        raise Failure(f"cannot listen: {reason}", Exit.CONFIGURATION) from None


def _say_goodbye(stats: "RouterStats", *, json: bool) -> None:
    if json:
        print_json({"stats": stats.as_dict()})
        return
    for name, pipeline in stats.pipelines.items():
        bad = f", and {sum(pipeline.bad.values()):,} bad ones" if pipeline.bad else ""
        say((f"{name}: ", "bold"), f"{pipeline.events:,} events{bad}")
        for integration, each in pipeline.integrations.items():
            ended = f"{each.delivered:,} delivered, {sum(each.rejected.values()):,} rejected"
            left = f", {each.left:,} left in the spool" if each.left else ""
            say(f"  {integration}: {ended}, {sum(each.dropped.values()):,} dropped{left}")
