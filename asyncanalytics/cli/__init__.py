"""The command line: try it out, send calls, run a collector, look into a spool. Extra `cli`.

What a machine reads goes to standard output; notes and errors go to standard error, an error
as one line that holds neither a key nor what a call carries. Exit codes:

- 0: done; every call was delivered
- 1: something was not delivered: the endpoint refused it, or the client gave it up; or a call on
  disk is damaged, and was left out
- 2: the command line, a call or a line of input is wrong
- 3: a key, an endpoint, a file, an address or an extra is missing or cannot work
- 4: time ran out before the endpoint acknowledged everything
- 5: the demo could not prove what it promises
- 130: interrupted with Ctrl-C
"""

from __future__ import annotations

from asyncanalytics.errors import MissingExtra

try:
    from asyncanalytics.cli.app import app, run
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] not in ("typer", "rich"):
        raise
    raise MissingExtra("the command line", "cli") from _error

__all__ = ["app", "run"]
