"""The list of a folder's files, and the sums that progress is measured by."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from asyncanalytics.cli.letters import moment
from asyncanalytics.cli.output import note, print_json, printable, say, stdout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncanalytics.cli.folder import File, Folder
    from asyncanalytics.spool import Visit, Waiting

_AGES = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
_TITLES = ("file", "client", "destination", "waiting", "bytes", "dead", "first waits")


def show(folder: Folder, *, json: bool) -> None:
    """List the files of a folder, those too that were set aside."""
    files: list[_Listed] = []
    folder.each(lambda file, seen: files.append(_Listed(file, seen)))
    if json:
        corrupt = [{"path": str(each), "bytes": _size(each)} for each in folder.corrupt]
        found = {"folder": str(folder.path), "files": [each.plain() for each in files]}
        print_json(found | {"corrupt": corrupt})
    else:
        _print(folder, files)
    folder.check()


def count_dead(folder: Folder, destination: str | None) -> int:
    """Count dead letters, as a measure of progress."""
    return sum(each.dead_events for each in _figures(folder, destination))


def count_waiting(folder: Folder, destination: str | None) -> int:
    """Count what waits, as a measure of progress."""
    return sum(each.events for each in _figures(folder, destination))


def _figures(folder: Folder, destination: str | None) -> list[Waiting]:
    found: list[Waiting] = []

    def work(_: File, seen: Visit) -> None:
        figures = seen.by_destination.items()
        found.extend(each for name, each in figures if destination in (None, name))

    folder.each(work)
    return found


class _Listed:
    """What is known of a file."""

    def __init__(self, file: File, seen: Visit) -> None:
        self.file = file
        self.is_running = seen.is_owned
        self.first = seen.oldest()
        self.damaged = seen.damaged
        self.by_destination = seen.by_destination

    def plain(self) -> dict[str, Any]:
        """Return it as plain JSON-ready data."""
        figures = self.by_destination.values()
        return {
            "file": self.file.path.stem,
            "path": str(self.file.path),
            "state": "running" if self.is_running else "stopped",
            "events": sum(each.events for each in figures),
            "bytes": sum(each.bytes for each in figures),
            "dead_events": sum(each.dead_events for each in figures),
            "damaged": self.damaged,
            "first_accepted": None if self.first is None else moment(self.first),
            "destinations": {name: asdict(each) for name, each in self.by_destination.items()},
        }

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield a row of the table for each destination, and one where there is none."""
        head = (self.file.name, "running" if self.is_running else "stopped")
        first = "" if self.first is None else _age(self.first)
        for name, each in self.by_destination.items():
            figures = (each.events, each.bytes, each.dead_events)
            yield (*head, name, *(f"{figure:,}" for figure in figures), first)
            head, first = ("", ""), ""
        if not self.by_destination:
            yield (*head, "", "0", "0", "0", "")


def _print(folder: Folder, files: list[_Listed]) -> None:
    if files:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for title in _TITLES:
            is_figure = title in ("waiting", "bytes", "dead", "first waits")
            table.add_column(title, justify="right" if is_figure else "left", overflow="fold")
        for each in files:
            for row in each.rows():
                table.add_row(*(Text(printable(cell)) for cell in row))
        stdout().print(table)
    elif not folder.files:
        say("no file: nothing waits, and nothing is dead")
    for each in files:
        if each.damaged:
            note(f"{each.file.name}: {each.damaged:,} damaged calls are kept aside in it")
    for path in folder.corrupt:
        note(
            f"{path.name} ({_size(path):,} bytes) was malformed; what could be read was taken over"
        )


def _age(since: float) -> str:
    age = time.time() - since
    for unit, name in _AGES:
        if age >= unit:
            return f"{age / unit:,.0f} {name}"
    return f"{max(0.0, age):.0f} s"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
