"""One command for each call. Each sends one, waits for its outcome, and exits by it."""
# Annotations are read at run time: typer makes the options from them.

from typing import Annotated

import typer

from asyncanalytics.cli import pairs
from asyncanalytics.cli.options import (
    AnonymousId,
    Category,
    Common,
    Properties,
    Traits,
    UserId,
    with_groups,
)
from asyncanalytics.cli.sending import send_one

Who = Annotated[str | None, typer.Argument(metavar="[USER_ID]", help="Your own id of the user.")]
NewId = Annotated[str, typer.Argument(metavar="USER_ID", help="The id from now on.")]
GroupId = Annotated[
    str, typer.Argument(metavar="GROUP_ID", help="Your own id of the company, team or account.")
]
Event = Annotated[
    str, typer.Argument(metavar="EVENT", help="The action's name, such as 'Order Completed'.")
]
Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Its name.")]
PreviousId = Annotated[
    str, typer.Option("--previous-id", metavar="ID", help="The id that was used before.")
]


@with_groups
def identify(
    user_id: Who = None,
    *,
    anonymous_id: AnonymousId = None,
    trait: Traits = None,
    common: Common,
) -> None:
    """Say who the user is."""
    fields = {"anonymous_id": anonymous_id, "traits": pairs.parse("--trait", trait)}
    send_one("identify", user_id, fields, common)


@with_groups
def track(
    event: Event,
    *,
    user_id: UserId = None,
    anonymous_id: AnonymousId = None,
    properties: Properties = None,
    common: Common,
) -> None:
    """Say what the user did."""
    fields = {
        "user_id": user_id,
        "anonymous_id": anonymous_id,
        "properties": pairs.parse("--property", properties),
    }
    send_one("track", event, fields, common)


@with_groups
def page(
    name: Name = None,
    *,
    user_id: UserId = None,
    anonymous_id: AnonymousId = None,
    category: Category = None,
    properties: Properties = None,
    common: Common,
) -> None:
    """Say that the user saw a web page."""
    fields = {
        "user_id": user_id,
        "anonymous_id": anonymous_id,
        "category": category,
        "properties": pairs.parse("--property", properties),
    }
    send_one("page", name, fields, common)


@with_groups
def screen(
    name: Name = None,
    *,
    user_id: UserId = None,
    anonymous_id: AnonymousId = None,
    category: Category = None,
    properties: Properties = None,
    common: Common,
) -> None:
    """Say that the user saw a screen of an app."""
    fields = {
        "user_id": user_id,
        "anonymous_id": anonymous_id,
        "category": category,
        "properties": pairs.parse("--property", properties),
    }
    send_one("screen", name, fields, common)


@with_groups
def group(
    group_id: GroupId,
    *,
    user_id: UserId = None,
    anonymous_id: AnonymousId = None,
    trait: Traits = None,
    common: Common,
) -> None:
    """Say that the user belongs to a company, a team or an account."""
    fields = {
        "user_id": user_id,
        "anonymous_id": anonymous_id,
        "traits": pairs.parse("--trait", trait),
    }
    send_one("group", group_id, fields, common)


@with_groups
def alias(user_id: NewId, *, previous_id: PreviousId, common: Common) -> None:
    """Say that two ids are one user."""
    send_one("alias", user_id, {"previous_id": previous_id}, common)


COMMANDS = (identify, track, page, screen, group, alias)
