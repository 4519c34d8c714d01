"""The command line as a whole: which commands there are, and how each of them may fail."""
# Annotations are read at run time: typer makes the options from them.

import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from asyncanalytics._version import __version__
from asyncanalytics.cli import calls, spool
from asyncanalytics.cli.collect import collect
from asyncanalytics.cli.demo import demo
from asyncanalytics.cli.dev import dev
from asyncanalytics.cli.exits import EPILOG, Exit, code_of
from asyncanalytics.cli.feed import send
from asyncanalytics.cli.output import complain, say
from asyncanalytics.cli.route import route
from asyncanalytics.cli.systems import endpoints
from asyncanalytics.cli.tail import tail
from asyncanalytics.errors import AnalyticsError

app: typer.Typer = typer.Typer(
    name="asyncanalytics",
    add_completion=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EPILOG,
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        say(f"asyncanalytics {__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback answers it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which it is.")
    ] = False,
) -> None:
    """Send analytics calls to Segment-compatible endpoints, and know what happened to each."""
    if context.invoked_subcommand is None:
        context.get_help()  # prints it
        raise typer.Exit


_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Try it": (demo, dev, collect, tail),
    "Send": (*calls.COMMANDS, send, route),
    "Look up": (endpoints,),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(epilog=EPILOG, rich_help_panel=_panel)(_command)
app.add_typer(spool.app, name="spool", epilog=EPILOG, rich_help_panel="Look up")


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line, on the process's arguments unless given, and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a narrow encoding must not end a command
    try:
        command = typer.main.get_command(app)
        code = command.main(args, prog_name="asyncanalytics", standalone_mode=False)
    except typer.TyperException as error:
        complain(_usage(error))
        return Exit.USAGE
    except AnalyticsError as error:
        complain(str(error))
        return code_of(error)
    return int(code or Exit.OK)


def _usage(error: typer.TyperException) -> str:
    """Say what is wrong with the command line in one line, without what may be a payload."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "asyncanalytics"
    text = error.format_message()
    if "unexpected extra argument" in text:
        text = f"{text.partition(' (')[0]}: put text with spaces in quotes"
    return f"{' '.join(text.split())} (see {path} --help)"
