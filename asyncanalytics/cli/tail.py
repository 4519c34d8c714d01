"""`tail`: show what a running collector keeps, as it keeps it.

Where the collector goes away it is waited for, and what it kept meanwhile is shown first: nothing
is missing, and nothing is there twice. `collect --tail` shows its events by the same means.
"""
# Annotations are read at run time: typer makes the options from them.

import http.client
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, Queue
from typing import Annotated, Literal

import typer

from asyncanalytics.cli.exits import Exit, Failure
from asyncanalytics.cli.options import Json
from asyncanalytics.cli.output import note, print_json, printable, say
from asyncanalytics.cli.reading import BEGINNING, Event, Gone, NoCollector, Reader

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 2.0  # seconds between two tries to come back
_SERVER_ERROR = 500
_AHEAD = 100  # events that are read before they can be shown
_LOOK = 0.5  # seconds until Ctrl-C is noticed at the latest

Url = Annotated[str, typer.Argument(metavar="URL", help="Where the collector is.")]
Type = Annotated[
    Literal["identify", "track", "page", "screen", "group", "alias"] | None,
    typer.Option("--type", help="Only this call."),
]
Name = Annotated[
    str | None,
    typer.Option("--event", metavar="NAME", help="Only this event, page, screen or group."),
]
User = Annotated[
    str | None, typer.Option(metavar="ID", help="Only with this userId or anonymousId.")
]
Text = Annotated[str | None, typer.Option(metavar="TEXT", help="Only with this text in it.")]
Verdict = Annotated[
    Literal["good", "bad"] | None, typer.Option(help="Only good, or only bad ones.")
]
Last = Annotated[
    int, typer.Option("--last", "-n", metavar="N", min=0, help="Show the last N first.")
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar="ASYNCANALYTICS_READ_TOKEN",
        help="What reading needs, where the collector said so.",
        show_default=False,
    ),
]


def tail(
    url: Url = "http://127.0.0.1:8010",
    *,
    type: Type = None,  # noqa: A002 - the protocol's name
    event: Name = None,
    user: User = None,
    text: Text = None,
    verdict: Verdict = None,
    last: Last = 0,
    token: Token = None,
    json: Json = False,
) -> None:
    """Show the events that a running collector takes in, as they come.

    Ctrl-C ends it. A collector that is restarted is waited for.
    """
    given = {"type": type, "name": event, "user": user, "text": text, "verdict": verdict}
    filters = {name: value for name, value in given.items() if value}
    try:
        reader = Reader(url, token=token)
    except ValueError as error:
        raise Failure(f"URL cannot be used: {error}", Exit.USAGE) from None
    show = print_json if json else show_event
    with _ending_well():
        for each in _from_a_thread(_Tail(reader, filters).events(last)):
            show(each)


@contextmanager
def _ending_well() -> Iterator[None]:
    """Take Ctrl-C, and the end of whoever reads the output, for the end."""
    try:
        yield
    except KeyboardInterrupt:
        return
    except (BrokenPipeError, SystemExit):  # rich makes the one of the other
        # Or the interpreter would fail once more, at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _from_a_thread(events: Iterator[Event]) -> Iterator[Event]:
    """Have a thread wait for the network, since not every such wait is ended by Ctrl-C."""
    found: Queue[Event | BaseException] = Queue(_AHEAD)

    def read() -> None:
        try:
            for each in events:
                found.put(each)
        except BaseException as error:  # noqa: BLE001 - it is raised where it can be seen
            found.put(error)

    threading.Thread(target=read, daemon=True).start()
    while True:
        with suppress(Empty):
            each = found.get(timeout=_LOOK)
            if isinstance(each, BaseException):
                raise each
            yield each


class _Tail:
    """What is shown of one collector, over as many connections as it takes."""

    def __init__(self, reader: Reader, filters: dict[str, str]) -> None:
        self._reader = reader
        self._filters = filters
        self._place: str | None = None
        self._state: Literal["not met", "there", "gone"] = "not met"
        self._pause = _FIRST_PAUSE

    def events(self, last: int) -> Iterator[Event]:
        """Yield so many that are there, and then each that comes, without end."""
        if last:
            yield from self._newest(last)
        while True:
            with self._failing():
                yield from self._told()
            self._has_gone()
            time.sleep(self._pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _newest(self, last: int) -> list[Event]:
        shown: list[Event] = []
        with self._failing():
            shown = self._reader.newest(last, **self._filters)
            self._is_there()
        self._place = shown[-1]["cursor"] if shown else BEGINNING
        return shown

    def _told(self) -> Iterator[Event]:
        for told in self._reader.stream(self._place, **self._filters):
            self._is_there()
            self._place = told.place
            if told.event is not None:
                yield told.event

    def _is_there(self) -> None:
        if self._state == "gone":
            note("it is back: reading on")
        self._state, self._pause = "there", _FIRST_PAUSE

    def _has_gone(self) -> None:
        if self._state == "there":
            note(f"the collector at {self._reader.where} has gone: waiting for it to come back")
        self._state = "gone"

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Say what is wrong, unless it is only that the collector is away for a while."""
        try:
            yield
        except Gone:
            if self._state == "not met":
                raise Failure(_nobody(self._reader.where), Exit.CONFIGURATION) from None
        except NoCollector as error:
            if self._state == "not met" or error.status < _SERVER_ERROR:  # else a proxy's answer
                problem = _not_as_expected(self._reader, error.status)
                raise Failure(problem, Exit.CONFIGURATION) from None


def _nobody(where: str) -> str:
    return (
        f"nobody listens at {where}: start a collector with `asyncanalytics collect`, "
        "or give the URL of one that runs"
    )


def _not_as_expected(reader: Reader, status: int) -> str:
    where = reader.where
    if status == http.client.UNAUTHORIZED and reader.has_token:
        return f"this is not the token of the collector at {where}: give the one that it printed"
    if status == http.client.UNAUTHORIZED:
        return f"reading at {where} needs a token: give --token, or the URL that collect printed"
    if status == http.client.MISDIRECTED_REQUEST:
        return f"the collector does not know itself as {where}: start it with --allow-host"
    if status == http.client.NOT_FOUND:
        return f"there is no collector at {where}: give the address that it printed (it said 404)"
    return f"what answers at {where} is no collector of this version (it said {status})"


def show_event(event: Event) -> None:
    """Print an event as one line for people."""
    good = event["verdict"] == "good"
    when = event["received_at"].partition("T")[2].rstrip("Z")
    who = event["user_id"] or event["anonymous_id"] or "nobody"
    say(
        (when, "dim"),
        ("  good " if good else "  bad  ", "green" if good else "bold red"),
        f" {printable(event['type'] or 'unknown'):<8} ",
        (printable(who), "cyan"),
        f"  {printable(event['name'] or '')}",
        ("" if good else f"  {event['reason']}", "red"),
    )
