"""What the values of a call must be, whichever way it takes, and what they become.

Nothing here imports pydantic's models: `import asyncanalytics` leaves them to who names one.
"""

from __future__ import annotations

import sys
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal

from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import TypeGuard

    from pydantic import BaseModel

CallType = Literal["identify", "track", "page", "screen", "group", "alias"]

MAX_MESSAGE_ID = 100
"""Characters of a messageId (https://segment.com/docs/connections/spec/common/)."""

_SERVER_SET = frozenset({"receivedAt", "version", "originalTimestamp"})
RESERVED = _SERVER_SET | {"sentAt", "writeKey", "appId"}
"""Members of a call that are not the caller's to set: some are the server's, some the client's."""


class Wired(ABC):
    """What knows its own members on the wire: a call, its context, and the parts of that."""

    __slots__ = ()

    @abstractmethod
    def wire(self) -> dict[str, Any]:
        """Return what goes out."""


def is_model(value: object) -> TypeGuard[BaseModel]:
    """Whether a value is a pydantic model."""
    return is_pydantics(value, "main", "BaseModel")


def is_pydantics(value: object, room: str, *classes: str) -> bool:
    """Whether a value is of one of pydantic's classes.

    They take long to import, and it is not done here: who has such a value has imported them.
    """
    module = sys.modules.get(f"pydantic.{room}")
    found = tuple(getattr(module, name) for name in classes if hasattr(module, name))
    return isinstance(value, found)


def as_id(value: object) -> str:
    """Return an id as the text it has on the wire. `0`, `''`, NaN and booleans are no ids."""
    text = value if type(value) is str else _id_text(value)
    if not text:
        raise PydanticCustomError("id", "must be a non-empty string, a UUID or a number but 0")
    return text


def _id_text(value: object) -> str:
    """Return the text of an id that is not plain text, or nothing if it is none."""
    if isinstance(value, str):
        return str.__str__(value)  # whatever its class shows
    if isinstance(value, Enum):
        return as_id(value.value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, Decimal):
        return str(value) if value.is_finite() and value else ""
    if isinstance(value, float):
        return str(value) if isfinite(value) and value else ""
    return str(value) if isinstance(value, int) and value and value is not True else ""


def as_object(value: object) -> dict[Any, Any]:
    """Return a mapping or a model as a dict; a plain dict is returned as it is."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Wired):
        return value.wire()
    if is_model(value):
        # Its defaults are data too. No warnings: pydantic's would show the values.
        try:
            value = value.model_dump(by_alias=True, warnings=False)
        except Exception:  # noqa: BLE001 - the model's own code; its text may show a payload
            raise PydanticCustomError("object", "is a model that cannot be read") from None
    if isinstance(value, Mapping):
        try:
            return dict(value)
        except Exception:  # noqa: BLE001 - the mapping's own code; its text may show a payload
            raise PydanticCustomError("object", "is a mapping that cannot be read") from None
    raise PydanticCustomError("object", "must be a mapping or a pydantic model")


def filled(given: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given, with what it lacks filled in from `more`, at any depth."""
    found = {**more, **given}
    for name in more.keys() & given.keys():
        own, other = given[name], more[name]
        if isinstance(own, dict) and isinstance(other, dict):
            found[name] = filled(own, other)
    return found


def as_timestamp(value: object) -> str:
    """Return a moment as ISO 8601 in UTC with milliseconds and `Z`.

    A datetime with a zone is converted, one without is taken as UTC, and so is text. Numbers are
    refused, since nothing tells seconds from milliseconds.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = None
    if not isinstance(value, datetime):
        if not isinstance(value, date):
            raise PydanticCustomError("timestamp", "must be a datetime or ISO 8601 text")
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    try:
        # A zone may not know its offset either: astimezone would take this machine's then.
        naive = value.utcoffset() is None
        moment = value.replace(tzinfo=UTC) if naive else value.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("timestamp", "is outside the years 1 to 9999") from None
    except ValueError:
        raise PydanticCustomError("timestamp", "has a zone that gives no offset") from None
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def as_switches(value: object) -> dict[str, Any]:
    """Return `integrations`: names to booleans or options objects."""
    switches = as_object(value)
    for switch in switches.values():
        if not isinstance(switch, (bool, Mapping)):
            raise PydanticCustomError("switch", "each value must be a bool or an options mapping")
    return switches


def check(present: Collection[str]) -> None:
    """Raise unless the call's wire names hold an id for the user and no field of the server's."""
    if "userId" not in present and "anonymousId" not in present:
        raise PydanticCustomError("user", "user_id or anonymous_id is needed")
    for name in present:
        if name in RESERVED:
            owner = "server" if name in _SERVER_SET else "client"
            raise PydanticCustomError("reserved", "{name} is set by the " + owner, {"name": name})
