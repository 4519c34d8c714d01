"""`dev`: run the collector as `collect` does, and open its page in a browser.

Where there is no browser, nothing happens but that: the address has been said.
"""
# Annotations are read at run time: typer makes the options from them.

import contextlib
import os
import sys
import threading
import webbrowser
from typing import Annotated
from urllib.parse import quote

import typer

from asyncanalytics.cli.collect import Collecting, nothing_beside, run_collector
from asyncanalytics.cli.options import with_groups
from asyncanalytics.cli.output import note

NoOpen = Annotated[bool, typer.Option("--no-open", help="Only say where the page is.")]

_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY")


@with_groups
def dev(*, collecting: Collecting, no_open: NoOpen = False) -> None:
    """Run a collector and open its page, which shows events as they arrive.

    Point your app at the address that it says, and look on. Ctrl-C ends it. `collect` does the
    same without a browser, and can be told to misbehave.
    """
    beside = contextlib.nullcontext(nothing_beside if no_open else open_page)
    run_collector(collecting, beside=beside)


def open_page(url: str, token: str | None) -> None:
    """Open the page, without waiting for the browser: some end only when they are closed."""
    address = url if token is None else f"{url}/?token={quote(token, safe='')}"
    if _has_screen():
        threading.Thread(target=_open, args=(address,), daemon=True).start()
    else:
        note("there is no screen to open the page on")


def _has_screen() -> bool:
    """Tell whether a browser would have a window: one for terminals would take this one."""
    if sys.platform in ("darwin", "win32") or "BROWSER" in os.environ:
        return True
    return any(os.environ.get(each) for each in _SCREENS)


def _open(address: str) -> None:
    if not webbrowser.open(address):
        note("no browser could be opened")
