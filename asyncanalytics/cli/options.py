"""The options that several commands share, and how a command comes to have them.

A group of options is a frozen dataclass: its fields are options of every command that has a
parameter of it and is made by `with_groups`. The command gets them as one value.
"""
# Annotations are read at run time here and in the rooms that use this one.

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, is_dataclass
from typing import Annotated, Any

import typer

_CALL = "The call"
_SENDING = "Where and how"

Pairs = list[str] | None

UserId = Annotated[
    str | None, typer.Option("--user-id", metavar="ID", help="Your own id of the user.")
]
AnonymousId = Annotated[
    str | None,
    typer.Option("--anonymous-id", metavar="ID", help="An id for a user not known yet."),
]
Traits = Annotated[
    Pairs, typer.Option("--trait", metavar="NAME=TEXT", help="NAME=TEXT or NAME:=JSON; repeat it.")
]
Properties = Annotated[
    Pairs,
    typer.Option("--property", metavar="NAME=TEXT", help="NAME=TEXT or NAME:=JSON; repeat it."),
]
Category = Annotated[str | None, typer.Option("--category", metavar="TEXT", help="Its category.")]
WriteKey = Annotated[
    str | None,
    typer.Option(
        "--write-key",
        metavar="KEY",
        envvar="ASYNCANALYTICS_WRITE_KEY",
        help="Better in the environment: other users of the machine can see this option.",
        show_default=False,
        rich_help_panel=_SENDING,
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="NAME|URL",
        envvar="ASYNCANALYTICS_ENDPOINT",
        help="A system that `asyncanalytics endpoints` lists, or a URL. Segment unless given.",
        show_default=False,
        rich_help_panel=_SENDING,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON, for machines.", rich_help_panel=_SENDING)
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Show what the endpoint says of a refusal. It may quote the call.",
        rich_help_panel=_SENDING,
    ),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Common:
    """What every command that sends one call takes."""

    context: Annotated[
        Pairs,
        typer.Option(
            "--context",
            metavar="NAME=TEXT",
            help="As --property; a dot nests, as in page.path=/cart.",
            rich_help_panel=_CALL,
        ),
    ] = None
    integrations: Annotated[
        Pairs,
        typer.Option(
            "--integration",
            metavar="NAME:=JSON",
            help="Which destinations get it, as in All:=false.",
            rich_help_panel=_CALL,
        ),
    ] = None
    timestamp: Annotated[
        str | None,
        typer.Option(
            metavar="ISO8601", help="When it happened; now unless given.", rich_help_panel=_CALL
        ),
    ] = None
    message_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Servers drop a second call with the same one. Made unless given.",
            rich_help_panel=_CALL,
        ),
    ] = None
    write_key: WriteKey = field(default=None, repr=False)
    endpoint: Where = None
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            help="How long to wait for delivery, retries included.",
            rich_help_panel=_SENDING,
        ),
    ] = 10.0
    json: Json = False
    verbose: Verbose = False


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Make options of the fields of each parameter of a command that is a group of options."""
    signature = inspect.signature(command)
    groups = {
        each.name: inspect.signature(each.annotation).parameters
        for each in signature.parameters.values()
        if isinstance(each.annotation, type) and is_dataclass(each.annotation)
    }

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        for group, options in groups.items():
            make = signature.parameters[group].annotation
            given[group] = make(**{name: given.pop(name) for name in options})
        command(**given)

    parameters = [
        option
        for each in signature.parameters.values()
        for option in (groups[each.name].values() if each.name in groups else (each,))
    ]
    with_options.__annotations__ = {each.name: each.annotation for each in parameters}
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return with_options
