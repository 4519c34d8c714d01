"""Where an export goes, and how far it is."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asyncanalytics.cli.exits import Exit, Failure, leave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType


class Output:
    """A file for its owner alone, there whole or not at all; or standard output for `-`."""

    def __init__(self, place: str, *, force: bool = False) -> None:
        """Take a path. With `force` a file that is there is replaced, at the end."""
        self.lines: int = 0
        """Those that were written."""
        self._path = None if place == "-" else Path(place)
        self._force = force
        self._making: Path | None = None
        self._file: BinaryIO | None = None

    def write(self, line: bytes) -> None:
        """Write a line, which has its end."""
        assert self._file is not None  # noqa: S101 - within the `with` block
        try:
            self._file.write(line)
        except OSError as error:
            raise self._failure(error) from None
        self.lines += 1

    def __enter__(self) -> Self:
        """Make the file; raises `Failure` where that cannot be, or where one is there."""
        if self._path is None:
            self._file = sys.stdout.buffer
            return self
        making = self._path
        if self._force:
            making = making.with_name(f"{making.name}.{secrets.token_hex(4)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            self._file = os.fdopen(os.open(making, flags, 0o600), "wb")
        except FileExistsError:
            problem = f"the file {str(self._path)!r} is there: name another, or give --force"
            raise Failure(problem, Exit.USAGE) from None
        except (OSError, ValueError) as error:
            raise self._failure(error) from None
        self._making = making
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Bring it to the disk; what is not whole is removed."""
        if self._file is None or self._making is None or self._path is None:
            self._flush()
            return
        try:
            with self._file:
                if error is None:
                    self._file.flush()
                    os.fsync(self._file.fileno())
            if error is None:
                self._making.replace(self._path)
                self._making = None
        except OSError as problem:
            raise self._failure(problem) from None
        finally:
            if self._making is not None:
                with suppress(OSError):
                    self._making.unlink()

    def _flush(self) -> None:
        try:
            sys.stdout.buffer.flush()
        except OSError as error:
            raise self._failure(error) from None

    def _failure(self, error: OSError | ValueError) -> Failure:
        reason = error.strerror if isinstance(error, OSError) else "that is no path"
        where = "standard output" if self._path is None else repr(str(self._path))
        if self._path is None:  # or the interpreter would fail once more, at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            leave(Exit.NOT_DELIVERED)  # who read it has enough
        return Failure(f"cannot write to {where}: {reason}", Exit.CONFIGURATION)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far it is, on a terminal; yield what counts on."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


def written(count: int) -> str:
    """Return `1 event`, or as many as there were."""
    return f"{count:,} event" + "s" * (count != 1)
