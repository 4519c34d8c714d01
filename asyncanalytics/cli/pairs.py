r"""NAME=TEXT and NAME:=JSON, as the options for traits, properties and context take them.

`plan=pro` is text, `seats:=5` is JSON. A dot in a name makes nested objects, `\.` is a dot, and
`\:=` is an equals sign after a colon. Problems name the option and the field, never a value.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from asyncanalytics.cli.exits import Exit, Failure

if TYPE_CHECKING:
    from collections.abc import Iterable

_DOT = re.compile(r"(?<!\\)\.")


def parse(option: str, pairs: Iterable[str] | None) -> dict[str, Any] | None:
    """Return the object that the pairs make, or None where there are none."""
    found: dict[str, Any] = {}
    for number, pair in enumerate(pairs or (), 1):
        name, equals, text = pair.partition("=")
        if not equals or not name.rstrip(":"):
            raise _wrong(option, f"number {number}", "write NAME=TEXT or NAME:=JSON")
        if name.endswith(":") and not name.endswith("\\:"):
            name, value = name[:-1], _json(option, name[:-1], text)
        else:
            name, value = name.removesuffix("\\:") + ":" * name.endswith("\\:"), text
        _put(option, found, name, value)
    return found or None


def _json(option: str, name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        problem = "what follows := must be JSON; text that is no JSON follows = alone"
        raise _wrong(option, name, problem) from None


def _put(option: str, found: dict[str, Any], name: str, value: Any) -> None:
    *path, last = (step.replace("\\.", ".") for step in _DOT.split(name))
    here = found
    for step in path:
        here = here.setdefault(step, {})
        if not isinstance(here, dict):
            raise _wrong(option, name, "it is below a name that has a value of its own")
    if last in here:
        raise _wrong(option, name, "it is given twice")
    here[last] = value


def _wrong(option: str, name: str, problem: str) -> Failure:
    return Failure(f"{option} {name}: {problem}", Exit.USAGE)
