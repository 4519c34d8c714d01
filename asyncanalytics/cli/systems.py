"""`endpoints`: what is known of each system, from the data in `endpoints.py`.

Each of its functions is read for the choices it has: a region or a form is a Literal, and a
system at the user's own host has a parameter without a default.
"""
# Annotations are read at run time: typer makes the options from them.

import inspect
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rich import box
from rich.table import Table

from asyncanalytics import endpoints as known
from asyncanalytics.cli.options import Json
from asyncanalytics.cli.output import print_json, stdout
from asyncanalytics.endpoints import Endpoint

_OWN_HOST = "https://your-host.example"


def endpoints(*, json: Json = False) -> None:
    """List the systems that --endpoint knows, and what each of them takes."""
    if json:
        for spec, endpoint in _all():
            print_json(_plain(spec, endpoint))
        return
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        caption_justify="left",
        caption=_caption(),
    )
    for title in ("--endpoint", "where, and what it takes", "key"):
        table.add_column(title, overflow="fold")
    for spec, endpoint in _all():
        where = endpoint.base.replace(_OWN_HOST, "https://HOST") + f"\n{_path(endpoint)}"
        notes = "".join(f"\n{each}" for each in _notes(endpoint))
        table.add_row(spec, where + notes, "\n".join(_keys(endpoint)))
    stdout().print(table)


def _all() -> Iterator[tuple[str, Endpoint]]:
    for name in known.names():
        for choice in _choices(name):
            # The first choice of each is what the name alone stands for.
            text = f"{name}@{choice}" if choice else name
            yield text.replace(_OWN_HOST, "HOST"), known.parse(text)


def _choices(name: str) -> list[str]:
    make = getattr(known, name)
    hints = get_type_hints(make)
    for parameter in inspect.signature(make).parameters.values():
        if get_origin(hints[parameter.name]) is Literal:
            others = [each for each in get_args(hints[parameter.name]) if each != parameter.default]
            return ["", *others]
        if parameter.default is inspect.Parameter.empty:
            return [_OWN_HOST]
    return [""]


def _path(endpoint: Endpoint) -> str:
    if endpoint.form == "batch":
        return endpoint.batch_path + (", gzip" if endpoint.gzip else "")
    first = next(iter(endpoint.call_paths.values()))
    return f"{first}, and so for each call"


def _keys(endpoint: Endpoint) -> Iterator[str]:
    if endpoint.auth != "none":
        yield endpoint.auth
    if endpoint.key_in_body:
        yield f"{endpoint.key_in_body} in body"
    if endpoint.key_in_event:
        yield f"{endpoint.key_in_event} in events"


def _notes(endpoint: Endpoint) -> Iterator[str]:
    if endpoint.max_event_bytes != known.MAX_EVENT_BYTES:
        yield f"at most {endpoint.max_event_bytes:,} bytes an event"
    if endpoint.max_batch_bytes != known.MAX_BATCH_BYTES:
        yield f"at most {endpoint.max_batch_bytes:,} bytes a request"
    if endpoint.max_batch_events != known.MAX_BATCH_EVENTS:
        yield f"at most {endpoint.max_batch_events:,} events a request"
    if endpoint.refuses:
        yield f"takes no {', '.join(sorted(endpoint.refuses))} calls"


def _caption() -> str:
    return (
        f"Where nothing else is said: at most {known.MAX_EVENT_BYTES:,} bytes an event,\n"
        f"{known.MAX_BATCH_BYTES:,} bytes and {known.MAX_BATCH_EVENTS:,} events a request.\n"
        "HOST is your own. Any other system: give its URL, such as https://example.com"
    )


def _plain(spec: str, endpoint: Endpoint) -> dict[str, Any]:
    plain = asdict(endpoint) | {"refuses": sorted(endpoint.refuses)}
    return {"endpoint": spec} | plain | {"base": endpoint.base.replace(_OWN_HOST, "https://HOST")}
