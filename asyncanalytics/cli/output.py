"""Where words go: results to standard output, notes and errors to standard error.

Text from elsewhere is shown with its control characters replaced, so that nothing which came
over the network can steer a terminal.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger: logging.Logger = logging.getLogger("asyncanalytics")


def printable(text: str) -> str:
    """Return the text with everything that is not a visible character replaced."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def stdout() -> Console:
    """Return a console on standard output as it is now."""
    return Console(highlight=False)


def say(*parts: str | tuple[str, str]) -> None:
    """Print one line to standard output; a part may be text with a style."""
    stdout().print(Text.assemble(*parts), soft_wrap=True)


def note(text: str) -> None:
    """Print one line of comment to standard error."""
    _stderr(Text(f"note: {printable(text)}", style="dim"))


def complain(text: str) -> None:
    """Print the one line of an error to standard error."""
    _stderr(Text.assemble(("error: ", "bold red"), printable(text)))


def print_json(data: Any) -> None:
    """Print one line of JSON to standard output. It is ASCII, so it survives any encoding."""
    sys.stdout.write(json.dumps(data) + "\n")
    sys.stdout.flush()


def _stderr(text: Text) -> None:
    Console(stderr=True, highlight=False).print(text, soft_wrap=True)


class _Overheard(logging.Handler):
    """Passes on what the client logs, while that is of interest."""

    def __init__(
        self, show: Callable[[str], None], is_wanted: Callable[[], bool], level: int
    ) -> None:
        super().__init__(level)
        self._show = show
        self._is_wanted = is_wanted

    def emit(self, record: logging.LogRecord) -> None:
        # A moment later: what ends a call is logged just before the call knows of its end, and
        # the command's own last line says that better.
        asyncio.get_running_loop().call_soon(self._pass_on, record.getMessage())

    def _pass_on(self, message: str) -> None:
        if self._is_wanted():
            self._show(message)


@contextmanager
def overhear(
    show: Callable[[str], None] = note,
    *,
    is_wanted: Callable[[], bool] = lambda: True,
    level: int = logging.WARNING,
) -> Iterator[None]:
    """Show what the client logs during the block, inside a running loop."""
    handler, before = _Overheard(show, is_wanted, level), logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
