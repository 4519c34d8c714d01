"""What is said of a member, and errors of a table as a whole that point at the member they mean."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_GROUP: Final = re.compile(r"([A-Z][a-z]+): ([a-z_]+) ")
_EXAMPLES: Final = {
    "pipelines": "[[pipelines]]",
    "integrations": "[[pipelines.integrations]]",
    "transform": "[[pipelines.integrations.transform]]",
    "name": 'name = "shop"',
    "write_key": 'write_key = "${SHOP_KEY}"',
    "to": 'to = "segment", or the URL of another system',
    "key": 'key = "${SEGMENT_KEY}", the write key of the system that events go to',
    "url": 'url = "https://example.com/in"',
    "path": 'path = "events.jsonl", a path from the folder of this file',
    "folder": 'folder = "spool/shop", on a local disk',
}


def needed(member: str) -> str:
    """Say that a member is missing, and what to write."""
    return f"is needed{_write(member)}"


def empty(member: str) -> str:
    """Say that a member is empty, and what to write."""
    return f"is empty{_write(member)}"


def list_of_tables(member: str) -> str:
    """Say that a member is a list, and, where it is one of tables, what to write."""
    return f"should be a list{_write(member)}"


def _write(member: str) -> str:
    example = _EXAMPLES.get(member)
    return f": write {example}" if example else ""


def wrong(member: str, problem: str) -> ValidationError:
    """Return an error of a member, to be raised by the check of the table that it is in."""
    error = PydanticCustomError("value_error", "{problem}", {"problem": problem})
    details = InitErrorDetails(type=error, loc=(member,), input=None)
    return ValidationError.from_exception_data("table", [details], hide_input=True)


@contextmanager
def pointing_at(member: str) -> Iterator[None]:
    """Have what is said of a table as a whole be an error of one of its members."""
    try:
        yield
    except ValueError as error:
        raise wrong(member, str(error)) from None


def member_of(problem: str, groups: Collection[str]) -> tuple[str, str] | None:
    """Return the group of settings, and its member, that an error of such a group begins with."""
    found = _GROUP.match(problem)
    return (found[1], found[2]) if found is not None and found[1] in groups else None
