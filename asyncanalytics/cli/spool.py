"""`spool`: what waits in a client's folder on disk, and its dead letters.

It works while the client runs too: what is changed in its file, the client sees within seconds.
Payloads are personal data: they are shown and written only where that is asked for.
"""
# Annotations are read at run time: typer makes the options from them.

import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from asyncanalytics.cli import letters, listing
from asyncanalytics.cli.exits import EPILOG, Exit, Failure
from asyncanalytics.cli.exporting import Output, progress, written
from asyncanalytics.cli.folder import File, Folder, Names
from asyncanalytics.cli.options import Json
from asyncanalytics.cli.output import note, print_json, say
from asyncanalytics.spool import DeadLetter, Row, Visit

FolderPath = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="What the client was given as its spool.")
]
Letters = Annotated[
    list[str] | None,
    typer.Argument(metavar="[LETTER]...", help="Dead letters, named as show prints them."),
]
Destination = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only those for this destination.")
]
IsWaiting = Annotated[
    bool, typer.Option("--waiting", help="Calls that wait, instead of dead letters.")
]
Sealing = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:NAME", help="The client's own Sealing, where it encrypts what it stores."
    ),
]
MessageIds = Annotated[
    list[str] | None, typer.Option("--message-id", metavar="ID", help="Only this one; repeat it.")
]
Body = Annotated[bool, typer.Option("--body", help="Show payloads too. They may be personal data.")]
Limit = Annotated[int, typer.Option(metavar="N", min=1, help="Show so many at the most.")]
All = Annotated[bool, typer.Option("--all", help="All dead letters, or all of a destination.")]
Where = Annotated[
    str, typer.Option("--output", "-o", metavar="FILE", help="Write to this file, for you alone.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")]
Before = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only those that died before a date, or an age such as 7d."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_SOON = "a client that runs sends them within seconds, the others' with the next one's start"


def ls(folder: FolderPath, *, json: Json = False) -> None:
    """List the files of a folder: what waits in each, what is dead, and who has it open."""
    listing.show(Folder(folder), json=json)


def show(
    folder: FolderPath,
    letter: Letters = None,
    *,
    waiting: IsWaiting = False,
    destination: Destination = None,
    message_id: MessageIds = None,
    body: Body = False,
    limit: Limit = 100,
    sealing: Sealing = None,
    json: Json = False,
) -> None:
    """Show dead letters: why each was refused or given up, and when.

    With --json each is a line.
    """
    place = Folder(folder, sealing=sealing)
    if letter and waiting:
        raise Failure("only dead letters have names: leave out either", Exit.USAGE)
    names = place.names(letter or ())
    left = limit
    has_any = False

    def work(file: File, seen: Visit) -> None:
        nonlocal left, has_any
        for each in _picked(file, seen, names, destination, waiting=waiting):
            if message_id and each.message_id not in message_id:
                continue
            has_any = True
            left -= 1
            if left < 0:
                return
            if json:
                out.write(letters.json_line(file, each, body=body))
            else:
                for line in letters.lines(file, each, body=body):
                    say(line)

    with Output("-") as out:
        place.each(work)
    if not has_any:
        note("no calls wait here" if waiting else "there are no dead letters here")
    if left < 0:
        note(f"there are more than {limit:,}; --limit shows more")
    names.check()
    place.check()


def retry(
    folder: FolderPath,
    letter: Letters = None,
    *,
    everything: All = False,
    destination: Destination = None,
    json: Json = False,
) -> None:
    """Let dead letters wait again, to be sent once more with the same messageIds."""
    place = Folder(folder)
    if bool(letter) == everything:
        raise Failure("name the letters to retry, or give --all", Exit.USAGE)
    names = place.names(letter or ())
    asked = retried = 0
    total = len(letter or ()) or listing.count_dead(place, destination)
    with progress("retrying", total) as advance:

        def work(file: File, seen: Visit) -> None:
            nonlocal asked, retried
            for piece in _pieces(file, seen, names, destination):
                asked += len(piece)
                retried += seen.retry(piece)
                advance(len(piece))

        place.each(work)
    if json:
        print_json({"retried": retried, "damaged": asked - retried})
    else:
        say((f"{retried:,} wait again", "bold green"), f"; {_SOON}" if retried else "")
    names.check()
    place.check()
    if retried < asked:
        raise Failure(f"{asked - retried:,} are damaged, and stay as they are", Exit.NOT_DELIVERED)


def export(
    folder: FolderPath,
    *,
    output: Where = "-",
    force: Force = False,
    waiting: IsWaiting = False,
    destination: Destination = None,
    sealing: Sealing = None,
) -> None:
    """Write dead letters as JSON lines, whole as they were sent, each with how it ended.

    `asyncanalytics send` takes the file. Nothing in the folder is changed.
    """
    place = Folder(folder, sealing=sealing)
    count = listing.count_waiting if waiting else listing.count_dead
    left_out = 0
    total = count(place, destination)
    with Output(output, force=force) as out, progress("exporting", total) as advance:

        def work(file: File, seen: Visit) -> None:
            nonlocal left_out
            for each in _picked(file, seen, None, destination, waiting=waiting):
                if letters.is_event(each.body):
                    out.write(letters.exported(each))
                else:
                    left_out += 1
                advance(1)
            left_out += seen.passed_over

        place.each(work)
    if output != "-":
        note(f"{written(out.lines)} written to {output}")
    place.check()
    if left_out:
        problem = f"{left_out:,} are damaged, or sealed otherwise, and were left out"
        raise Failure(problem, Exit.NOT_DELIVERED)


def purge(
    folder: FolderPath,
    letter: Letters = None,
    *,
    destination: Destination = None,
    before: Before = None,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Delete dead letters for good: those named, or all that fit."""
    place = Folder(folder)
    names = place.names(letter or ())
    until = None if before is None else _time(before)
    chosen: dict[Path, int] = {}  # the last letter in each file, of those that are asked about
    total = purged = 0

    def count(file: File, seen: Visit) -> None:
        nonlocal total
        chosen[file.path] = seen.last()
        total += sum(map(len, _pieces(file, seen, names, destination, before=until)))

    place.each(count)
    names.check()
    if total and not yes:
        _ask(f"Delete {_dead(total)} in {str(folder)!r} for good?")
    with progress("purging", total) as advance:

        def work(file: File, seen: Visit) -> None:
            nonlocal purged
            last = chosen.get(file.path, 0)
            for piece in _pieces(file, seen, names, destination, before=until, last=last):
                purged += seen.purge(piece, destination=destination, before=until)
                advance(len(piece))

        place.each(work)
    print_json({"purged": purged}) if json else say(f"{_dead(purged)} deleted")
    place.check()


COMMANDS = (ls, show, retry, export, purge)

app: typer.Typer = typer.Typer(invoke_without_command=True)
for _command in COMMANDS:
    app.command(epilog=EPILOG)(_command)


@app.callback()
def _main(context: typer.Context) -> None:
    """Look into a client's folder on disk: what waits, and what could not be delivered."""
    if context.invoked_subcommand is None:
        context.get_help()  # prints it
        raise typer.Exit


# --------------------------------------------------------------------------------------- within


def _picked(
    file: File,
    seen: Visit,
    names: Names | None,
    destination: str | None,
    *,
    waiting: bool,
) -> Iterator[DeadLetter | Row]:
    if waiting:
        return letters.waiting(seen, destination)
    if not names:
        return letters.dead_letters(seen, destination)
    return (each for each in names.found(file, seen) if destination in (None, each.destination))


def _pieces(
    file: File,
    seen: Visit,
    names: Names,
    destination: str | None,
    *,
    before: float | None = None,
    last: int | None = None,
) -> Iterator[list[int]]:
    """Yield the numbers of a file's letters that fit, some at a time."""
    if not names:
        yield from seen.matching(destination=destination, before=before, until=last)
        return
    for each in names.found(file, seen):
        is_early = before is None or each.verdict.at < before
        if is_early and destination in (None, each.destination):
            yield [each.id]


def _time(text: str) -> float:
    """Read a date, or an age."""
    age = re.fullmatch(r"(\d{1,6})([mhdw])", text)
    if age:
        return time.time() - int(age[1]) * _UNITS[age[2]]
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        problem = "--before: write a date in UTC such as 2026-01-31, or an age such as 7d or 12h"
        raise Failure(problem, Exit.USAGE) from None


def _ask(question: str) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Failure("nobody can be asked here: give --yes to delete them", Exit.USAGE)
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Failure("nothing was deleted", Exit.NOT_DELIVERED)


def _dead(count: int) -> str:
    return f"{count:,} dead letter" + "s" * (count != 1)
