"""The six calls and their context, as pydantic models.

Known fields are typed, unknown ones are carried. Every field may be written with its Python name
or with the name it has on the wire. Facts about fields are from the Segment spec
(https://segment.com/docs/connections/spec/), unless a docstring names another source.

Models are the one definition of the fields: the validators of the hot path (`wire.py`) are
derived from them.
"""

import uuid
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AliasGenerator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

CallType = Literal["identify", "track", "page", "screen", "group", "alias"]

MAX_MESSAGE_ID = 100
"""Characters of a messageId (https://segment.com/docs/connections/spec/common/)."""

_SERVER_SET = frozenset({"receivedAt", "version", "originalTimestamp"})
RESERVED = _SERVER_SET | {"sentAt", "writeKey", "appId"}
"""Members of a call that are not the caller's to set: some are the server's, some the client's."""


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
    if isinstance(value, _Fields):
        return value.wire()
    if isinstance(value, BaseModel):
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


Id = Annotated[str | int | uuid.UUID, PlainValidator(as_id)]
"""Whatever is given, the field holds the text of it."""
Object = Annotated[dict[str, Any], PlainValidator(as_object)]
Switches = Annotated[dict[str, Any], PlainValidator(as_switches)]
Timestamp = Annotated[str | datetime, PlainValidator(as_timestamp)]
"""Whatever is given, the field holds the text of it."""
Text = Annotated[str, Field(coerce_numbers_to_str=True)]
Name = Annotated[str, Field(min_length=1)]
MessageId = Annotated[str, Field(min_length=1, max_length=MAX_MESSAGE_ID)]


class _Withheld:
    """What a repr has in the place of a value."""

    def __repr__(self) -> str:
        return "…"


_WITHHELD = _Withheld()
_SHOWN = frozenset({"type", "event", "message_id", "timestamp"})


class _Fields(BaseModel):
    """Shared ways: both spellings are taken, unknown fields are carried.

    Neither errors nor reprs show values: both come into logs and reports, and they are personal.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        alias_generator=AliasGenerator(alias=to_camel),
        populate_by_name=True,
        extra="allow",
        hide_input_in_errors=True,
    )

    def __repr_args__(self) -> Iterator[tuple[str, object]]:
        """Name what is there; `wire` and `model_dump` show what it says."""
        extra = getattr(self, "__pydantic_extra__", None)  # not there in one that failed
        for name, value in {**self.__dict__, **(extra or {})}.items():
            if value is not None:
                yield name, value if name in _SHOWN else _WITHHELD

    def wire(self) -> dict[str, Any]:
        """Return the fields that are not None, and all unknown ones, as they are on the wire."""
        fields = type(self).model_fields
        found: dict[str, Any] = {}
        for name, value in self:
            if value is not None or name not in fields:
                key = fields[name].alias if name in fields else name
                # Fields come first: one that is also given in its other spelling stays as it is.
                found.setdefault(key or name, value.wire() if isinstance(value, _Fields) else value)
        return found


class App(_Fields):
    """The application that made the call."""

    name: Text | None = None
    version: Text | None = None
    build: Text | None = None
    namespace: Text | None = None


class Campaign(_Fields):
    """The marketing campaign that led here: the five `utm_*` parameters."""

    name: Text | None = None
    source: Text | None = None
    medium: Text | None = None
    term: Text | None = None
    content: Text | None = None


class Consent(_Fields):
    """What the user has agreed to (https://segment.com/docs/privacy/consent-management/)."""

    category_preferences: Object | None = None
    """Category names to booleans."""


class Device(_Fields):
    """The user's device."""

    id: Text | None = None
    advertising_id: Text | None = None
    ad_tracking_enabled: bool | None = None
    manufacturer: Text | None = None
    model: Text | None = None
    name: Text | None = None
    type: Text | None = None
    version: Text | None = None
    token: Text | None = None


class Library(_Fields):
    """The library that made the call. Set by the client when it is missing."""

    name: Text | None = None
    version: Text | None = None


class Network(_Fields):
    """The user's network."""

    bluetooth: bool | None = None
    carrier: Text | None = None
    cellular: bool | None = None
    wifi: bool | None = None


class OS(_Fields):
    """The user's operating system."""

    name: Text | None = None
    version: Text | None = None


class PageContext(_Fields):
    """The page on which the call was made."""

    path: Text | None = None
    referrer: Text | None = None
    search: Text | None = None
    title: Text | None = None
    url: Text | None = None


class Referrer(_Fields):
    """Who sent the user here."""

    id: Text | None = None
    type: Text | None = None
    name: Text | None = None
    url: Text | None = None
    link: Text | None = None


class ScreenContext(_Fields):
    """The user's screen, in pixels."""

    width: int | float | None = None
    height: int | float | None = None
    density: int | float | None = None


class Context(_Fields):
    """What is known around a call (https://segment.com/docs/connections/spec/common/#context)."""

    active: bool | None = None
    """Whether the user is there: false for a call made by the system on a user's behalf."""
    app: App | None = None
    campaign: Campaign | None = None
    channel: Text | None = None
    """Where the call was made: `server` unless set."""
    consent: Consent | None = None
    device: Device | None = None
    group_id: Id | None = None
    ip: Text | None = None
    library: Library | None = None
    locale: Text | None = None
    network: Network | None = None
    os: OS | None = None
    page: PageContext | None = None
    referrer: Referrer | None = None
    screen: ScreenContext | None = None
    timezone: Text | None = None
    traits: Object | None = None
    """Traits of the user, for calls other than identify."""
    user_agent: Text | None = None
    user_agent_data: Object | None = None
    """Client hints (https://developer.mozilla.org/docs/Web/API/NavigatorUAData)."""


class Call(_Fields):
    """What all calls have in common. Use one of the six below."""

    type: CallType
    message_id: MessageId | None = None
    """Made by the client when missing. Servers drop a second call with the same id."""
    user_id: Id | None = None
    """Your own id of the user. Numbers and UUIDs become text."""
    anonymous_id: Id | None = None
    """An id for a user you do not know yet."""
    timestamp: Timestamp | None = None
    """When it happened; now when missing. Without a zone it is taken as UTC."""
    context: Context | None = None
    integrations: Switches | None = None
    """Which destinations get the call; `All` is the fallback key, names are case-sensitive."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        fields = type(self).model_fields
        present = {fields[name].alias or name for name, value in self if name in fields and value}
        check(present.union(self.model_extra or ()))
        return self


def check(present: Collection[str]) -> None:
    """Raise unless the call's wire names hold an id for the user and no field of the server's."""
    if "userId" not in present and "anonymousId" not in present:
        raise PydanticCustomError("user", "user_id or anonymous_id is needed")
    for name in present:
        if name in RESERVED:
            owner = "server" if name in _SERVER_SET else "client"
            raise PydanticCustomError("reserved", "{name} is set by the " + owner, {"name": name})


class Identify(Call):
    """Who the user is (https://segment.com/docs/connections/spec/identify/)."""

    type: Literal["identify"] = "identify"
    traits: Object | None = None
    """What is known of the user. Reserved names: address, age, avatar, birthday, company,
    createdAt, description, email, firstName, gender, id, lastName, name, phone, title, username,
    website."""


class Track(Call):
    """What the user did (https://segment.com/docs/connections/spec/track/)."""

    type: Literal["track"] = "track"
    event: Name
    """The action's name, such as `Order Completed`."""
    properties: Object | None = None
    """Details of the action. Reserved names: revenue, currency, value."""


class _View(Call):
    """What a page and a screen call share."""

    name: Text | None = None
    category: Text | None = None
    section: Text | None = None
    """As Astronomer's guide to server-side sources writes it in its page examples."""
    properties: Object | None = None
    """Details of the view. Reserved names: name, path, referrer, search, title, url, keywords."""


class Page(_View):
    """A web page was seen (https://segment.com/docs/connections/spec/page/)."""

    type: Literal["page"] = "page"


class Screen(_View):
    """A screen of an app was seen (https://segment.com/docs/connections/spec/screen/)."""

    type: Literal["screen"] = "screen"


class Group(Call):
    """The user belongs to a group (https://segment.com/docs/connections/spec/group/)."""

    type: Literal["group"] = "group"
    group_id: Id
    """Your own id of the company, team or account."""
    traits: Object | None = None
    """What is known of the group. Reserved names: address, avatar, createdAt, description, email,
    employees, id, industry, name, phone, website, plan."""


class Alias(Call):
    """One user's two ids are the same (https://segment.com/docs/connections/spec/alias/)."""

    type: Literal["alias"] = "alias"
    user_id: Id
    """The new id."""
    previous_id: Id
    """The old id."""


MODELS: Mapping[str, type[Call]] = {
    "identify": Identify,
    "track": Track,
    "page": Page,
    "screen": Screen,
    "group": Group,
    "alias": Alias,
}
"""Each call's model by its type."""
