"""A spool's folder, as the commands look into it: its files, and the letters that are named.

A letter's name is `FILE:NUMBER`: the first characters of its file's name and its number there. No
other letter ever has it; the number alone will do where the folder has one file.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncanalytics.cli import letters
from asyncanalytics.cli.exits import Exit, Failure
from asyncanalytics.cli.output import note
from asyncanalytics.errors import ConfigurationError, describe
from asyncanalytics.spool import SpoolUnavailable, left_in, visit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from asyncanalytics.spool import DeadLetter, Visit

_SHORTEST = 4  # characters of a file's name
_LONGEST = 18  # digits of a number
_ADVICE = {
    "SQLITE_CORRUPT": "start a client on the folder: it saves what can be read",
    "SQLITE_NOTADB": "start a client on the folder: it sets the file aside",
    "EACCES": "run this as the user of its client",
}


class Unusable(Failure):
    """One file of the folder cannot be used; others can."""


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """A file of a folder."""

    path: Path
    name: str
    """The first characters of the file's name that no other in the folder has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Name:
    """How the command line names a letter."""

    file: File
    number: int
    text: str


class Names:
    """The letters that a command line names. Without any it is false."""

    def __init__(self, names: Sequence[Name]) -> None:
        """Take them in their order; none is found yet."""
        self._names = names
        self._missing = {name.text for name in names}

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._names)

    def found(self, file: File, seen: Visit) -> Iterator[DeadLetter]:
        """Yield those that are in a file."""
        for name in self._names:
            letter = letters.find(seen, name.number) if name.file is file else None
            if letter is not None:
                self._missing.discard(name.text)
                yield letter

    def check(self) -> None:
        """Raise if some were not found in any."""
        if self._missing:
            text = ", ".join(sorted(self._missing))
            raise Failure(f"there is no letter {text}: see what show prints", Exit.USAGE)


class Folder:
    """The files in a folder of spools."""

    def __init__(self, path: Path, *, sealing: str | None = None) -> None:
        """Look into it. `sealing` is the place of a `Sealing`, as `module:name`.

        Raises `Failure` where it is no folder of spools, or not one's own.
        """
        self.path: Path = path
        self._sealing: Any = None if sealing is None else load_sealing(sealing)
        try:
            _check_place(path)
            found = left_in(path)
            self.corrupt: list[Path] = sorted(path.glob("*.spool.corrupt-*[0-9]"))
            is_empty = not any(path.iterdir())
            if found or self.corrupt or is_empty:
                _check_rights(path)
        except OSError as error:
            reason = f"the folder {str(path)!r} cannot be read: {error.strerror}"
            raise Failure(reason, Exit.CONFIGURATION) from None
        if not found and not self.corrupt and not is_empty:
            problem = f"{str(path)!r} has no spool file: name the folder that the client was given"
            raise Failure(problem, Exit.CONFIGURATION)
        self._unusable: set[File] = set()
        stems = [each.stem for each in found]
        self.files: list[File] = [File(path=each, name=_short(each.stem, stems)) for each in found]

    def each(self, work: Callable[[File, Visit], object]) -> None:
        """Do some work on each file that is not gone by now; tell of those that cannot be used."""
        for file in self.files:
            if file not in self._unusable:
                try:
                    self._use(file, work)
                except Unusable as failure:
                    note(str(failure))
                    self._unusable.add(file)

    def check(self) -> None:
        """Raise, after all else was done, if some files could not be used."""
        if self._unusable:
            count = f"{len(self._unusable):,} file" + "s" * (len(self._unusable) != 1)
            raise Failure(f"{count} could not be used", Exit.CONFIGURATION)

    def _use(self, file: File, work: Callable[[File, Visit], object]) -> None:
        try:
            with visit(file.path, sealing=self._sealing) as seen:
                work(file, seen)
        except FileNotFoundError:
            return
        except ConfigurationError as error:
            raise Unusable(str(error), Exit.CONFIGURATION) from None
        except SpoolUnavailable as error:
            if file.path.exists():
                advice = _ADVICE.get("_".join(error.code.split("_")[:2]))
                text = f"{str(file.path)!r}: {error}" + (f": {advice}" if advice else "")
                raise Unusable(text, Exit.CONFIGURATION) from None

    def names(self, texts: Sequence[str]) -> Names:
        """Read the names of letters, which must be of files that are there."""
        return Names([self._name(text) for text in texts])

    def _name(self, text: str) -> Name:
        file, colon, number = text.rpartition(":")
        is_number = number.isascii() and number.isdigit() and len(number) <= _LONGEST
        if not is_number or (colon and not file):
            raise Failure("write a letter's name as show prints it, as in 3f9a:17", Exit.USAGE)
        having = [each for each in self.files if each.path.stem.startswith(file)]
        if len(having) == 1:
            return Name(file=having[0], number=int(number), text=text)
        if having:
            problem = f"several files have a {text}: write the name as show prints it"
        else:
            problem = f"there is no letter {text}: see what show prints"
        raise Failure(problem, Exit.USAGE)


def load_sealing(place: str) -> Any:
    """Import a `Sealing` from `module:name`, from the working folder too."""
    module, _, name = place.partition(":")
    if not module or not name:
        raise _no_sealing(place, "write it as module:name")
    here = os.getcwd()  # noqa: PTH109 - an entry of sys.path
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # noqa: BLE001 - the user's own module may raise anything
        is_absent = isinstance(error, ModuleNotFoundError) and error.name == module
        raise _no_sealing(place, "no such module" if is_absent else describe(error)) from None
    if not all(callable(getattr(found, each, None)) for each in ("seal", "open")):
        raise _no_sealing(place, "there is no object of that name with functions seal and open")
    return found


def _no_sealing(place: str, problem: str) -> Failure:
    return Failure(f"--sealing {place}: {problem}", Exit.CONFIGURATION)


def _short(stem: str, stems: Sequence[str]) -> str:
    for length in range(_SHORTEST, len(stem)):
        if sum(each.startswith(stem[:length]) for each in stems) == 1:
            return stem[:length]
    return stem


def _check_place(path: Path) -> None:
    if not path.is_dir():
        problem = "is not a folder" if path.exists() else "does not exist"
        raise Failure(f"{str(path)!r} {problem}: name the client's spool", Exit.CONFIGURATION)


def _check_rights(path: Path) -> None:
    """Refuse what a client would refuse, and what would be changed under another user's hands."""
    if sys.platform != "win32":
        found = path.stat()
        if found.st_uid != os.geteuid():
            problem = f"the folder {str(path)!r} belongs to another user: run this as that user"
            raise Failure(problem, Exit.CONFIGURATION)
        if found.st_mode & 0o077:
            mode = f"mode {found.st_mode & 0o7777:04o}"
            problem = f"others can look into the folder {str(path)!r} ({mode}): run chmod 700 on it"
            raise Failure(problem, Exit.CONFIGURATION)
