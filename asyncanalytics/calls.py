"""The six calls and their context, as pydantic models.

Known fields are typed, unknown ones are carried. Every field may be written with its Python name
or with the name it has on the wire. Facts about fields are from the Segment spec
(https://segment.com/docs/connections/spec/), unless a docstring names another source.

What a verb is given goes by `wire.py`, which has the same fields as a table and makes no model: a
test holds the two together. So models are made only by who names them, and by middleware.
"""

import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
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

from asyncanalytics.values import (
    MAX_MESSAGE_ID,
    CallType,
    Wired,
    as_id,
    as_object,
    as_switches,
    as_timestamp,
    check,
)

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


class _Fields(BaseModel, Wired):
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
