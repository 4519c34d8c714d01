"""The exit codes, and how a command ends with one."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import typer

from asyncanalytics.errors import AnalyticsError, ConfigurationError, InvalidCall

if TYPE_CHECKING:
    from typing import NoReturn


class Exit(IntEnum):
    """What the shell gets."""

    OK = 0
    """Done; every call was delivered."""
    NOT_DELIVERED = 1
    """The endpoint refused something, or the client gave it up; or it is damaged on disk."""
    USAGE = 2
    """The command line, a call or a line of input is wrong."""
    CONFIGURATION = 3
    """A key, an endpoint, a file, an address or an extra is missing or cannot work."""
    TIMED_OUT = 4
    """Time ran out before the endpoint acknowledged everything."""
    UNPROVEN = 5
    """The demo could not prove what it promises."""
    INTERRUPTED = 130
    """Ctrl-C."""


EPILOG = (
    "Exit codes: 0 done, every call delivered; 1 not delivered (refused or given up), or damaged; "
    "2 wrong command line or input; 3 missing or unusable key, endpoint, file, address or "
    "extra; 4 out of time; 5 the demo proved nothing; 130 interrupted."
)


class Failure(AnalyticsError):
    """A command cannot do what it was asked to. The message becomes the one line of error."""

    def __init__(self, message: str, code: Exit) -> None:
        """Give the line, and the exit code."""
        super().__init__(message)
        self.code = code


def code_of(error: AnalyticsError) -> Exit:
    """Return the exit code that an error of the package stands for."""
    if isinstance(error, Failure):
        return error.code
    if isinstance(error, InvalidCall):
        return Exit.USAGE
    if isinstance(error, ConfigurationError):
        return Exit.CONFIGURATION
    return Exit.NOT_DELIVERED


def leave(code: Exit) -> NoReturn:
    """End the command. What there is to say has been said."""
    raise typer.Exit(int(code))
