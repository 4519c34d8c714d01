"""What a configuration may say, as models: every table and every name, and what each becomes.

Keys are held in `SecretStr`, which no repr and no error shows. What cannot work raises here, with
the place in the configuration, and not when the first event comes.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    ValidationInfo,
    model_validator,
)

from asyncanalytics import endpoints
from asyncanalytics.calls import CallType
from asyncanalytics.collector.answers import Mode
from asyncanalytics.collector.app import MAX_BODY, MAX_INFLATED
from asyncanalytics.collector.pipelines.groups import (
    BatchingTable,
    QueueingTable,
    RetryingTable,
    SendingTable,
)
from asyncanalytics.collector.pipelines.suggestions import unknown
from asyncanalytics.collector.pipelines.transforms import Strict, Transform
from asyncanalytics.destinations import (
    BaseDestination,
    ConsoleDestination,
    Destination,
    DuckdbDestination,
    FileDestination,
    SqliteDestination,
    WebhookDestination,
)
from asyncanalytics.destinations.http import check_key
from asyncanalytics.endpoints import Auth, Endpoint, Form
from asyncanalytics.middleware import Middleware, consent, sample, where
from asyncanalytics.secret import Secret

DEFAULT_PORT: Final = 8020
_Name = Annotated[str, Field(min_length=1, max_length=100)]
_Some = Annotated[list[str], Field(min_length=1)]
_Seconds = Annotated[float, Field(ge=0)]
_PLACES: Final = ("webhook", "file", "sqlite", "duckdb", "console")


def _condition(text: str) -> str:
    where(when=text)
    return text


def _place(text: str) -> str:
    if _is_url(text):
        return text  # checked with how it is spoken to
    if text.partition("@")[0] not in endpoints.names():
        raise ValueError(unknown(text, [*_PLACES, *endpoints.names()], "a URL, or one of "))
    endpoints.parse(text)
    return text


def _is_url(text: str) -> bool:
    return "://" in text.partition("@")[0]


# What will use a member checks it, where the member stands.


def _key(key: SecretStr) -> SecretStr:
    check_key(Secret(key.get_secret_value()))
    return key


def _webhook_url(url: SecretStr, info: ValidationInfo) -> SecretStr:
    insecure = info.data.get("insecure", True)
    WebhookDestination(Secret(url.get_secret_value()), insecure=insecure, name="url")
    return url


def _webhook_secret(secret: SecretStr) -> SecretStr:
    WebhookDestination("https://localhost", secret=Secret(secret.get_secret_value()), name="secret")
    return secret


def _table(table: str) -> str:
    SqliteDestination("events.db", table=table)
    return table


class Integration(Strict):
    """What every integration has: which events go there, and as what."""

    name: _Name
    to: str
    enabled: bool = True
    calls: Annotated[list[CallType], Field(min_length=1)] | None = None
    events: _Some | None = None
    when: Annotated[str, AfterValidator(_condition)] | None = None
    sample: Annotated[float, Field(ge=0, le=1)] | None = None
    consent: _Some | None = None
    consent_unknown: Literal["drop", "pass"] = "drop"
    transform: tuple[Transform, ...] = ()
    batching: BatchingTable | None = None
    queueing: QueueingTable | None = None
    retrying: RetryingTable | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.consent is None and "consent_unknown" in self.model_fields_set:
            raise ValueError("consent_unknown goes with consent: name the categories there")
        self.destination(Path())  # raises what is wrong with it as a whole
        return self

    def middleware(self) -> list[Middleware]:
        """Return what chooses events, and then what changes them."""
        found: list[Middleware] = []
        if self.calls or self.events or self.when:
            found.append(where(calls=self.calls, events=self.events, when=self.when))
        if self.consent:
            found.append(consent(*self.consent, unknown=self.consent_unknown == "pass"))
        if self.sample is not None:
            found.append(sample(self.sample))
        return [*found, *(step.middleware() for step in self.transform)]

    def destination(self, folder: Path, **rules: Any) -> BaseDestination:
        """Make the destination; paths begin in the folder."""
        raise NotImplementedError


class EndpointTable(Strict):
    """How a system that is given as a URL is spoken to: what `endpoints.custom` takes."""

    batch_path: str = "/v1/batch"
    form: Form = "batch"
    auth: Auth = "basic"
    key_in_body: str | None = None
    key_in_event: str | None = None
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    gzip: bool = False
    max_event_bytes: int = endpoints.MAX_EVENT_BYTES
    max_batch_bytes: int = endpoints.MAX_BATCH_BYTES
    max_batch_events: int = endpoints.MAX_BATCH_EVENTS
    insecure: bool = False

    def endpoint(self, url: str) -> Endpoint:
        """Return the endpoint at a URL."""
        plain = self.model_dump(exclude={"headers"})
        return endpoints.custom(url, headers=_shown(self.headers), **plain)


class ToEndpoint(Integration):
    """One of the systems that `asyncanalytics endpoints` lists, or a URL of another one."""

    to: Annotated[str, AfterValidator(_place)]
    key: Annotated[SecretStr, AfterValidator(_key)] | None = None
    endpoint: EndpointTable | None = None

    def destination(self, folder: Path, **rules: Any) -> BaseDestination:  # noqa: ARG002 - it has no path
        """Make an endpoint's destination."""
        if self.endpoint is not None and not _is_url(self.to):
            raise ValueError("an endpoint table describes a system that is given as a URL")
        table = self.endpoint or EndpointTable()
        endpoint = table.endpoint(self.to) if _is_url(self.to) else endpoints.parse(self.to)
        key = Secret("none" if self.key is None else self.key.get_secret_value())
        if self.key is None and endpoint.auth != "none":
            raise ValueError("key is needed: the write key of the system that events go to")
        return Destination(key, endpoint=endpoint, name=self.name, **rules)


class ToWebhook(Integration):
    """Any URL that takes a POST of JSON."""

    to: Literal["webhook"]
    insecure: bool = False  # before the url, whose check asks for it
    url: Annotated[SecretStr, AfterValidator(_webhook_url)]
    secret: Annotated[SecretStr, AfterValidator(_webhook_secret)] | None = None
    form: Form = "single"
    headers: dict[str, SecretStr] = Field(default_factory=dict)

    def destination(self, folder: Path, **rules: Any) -> BaseDestination:  # noqa: ARG002 - it has no path
        """Make a webhook."""
        return WebhookDestination(
            Secret(self.url.get_secret_value()),
            secret=None if self.secret is None else Secret(self.secret.get_secret_value()),
            form=self.form,
            headers=_shown(self.headers),
            insecure=self.insecure,
            name=self.name,
            **rules,
        )


class ToFile(Integration):
    """A file of JSON lines."""

    to: Literal["file"]
    path: Path

    def destination(self, folder: Path, **rules: Any) -> BaseDestination:
        """Make the file's destination."""
        return FileDestination(folder / self.path, name=self.name, **rules)


class ToTable(Integration):
    """A table in a file of SQLite or DuckDB."""

    to: Literal["sqlite", "duckdb"]
    path: Path
    table: Annotated[str, AfterValidator(_table)] = "events"

    def destination(self, folder: Path, **rules: Any) -> BaseDestination:
        """Make the table's destination."""
        kind = SqliteDestination if self.to == "sqlite" else DuckdbDestination
        return kind(folder / self.path, table=self.table, name=self.name, **rules)


class ToConsole(Integration):
    """Standard error, with whole payloads: for trying things out."""

    to: Literal["console"]

    def destination(self, folder: Path, **rules: Any) -> BaseDestination:  # noqa: ARG002 - it has no path
        """Make the console's destination."""
        return ConsoleDestination(name=self.name, **rules)


_KINDS: Final[dict[str, type[Integration]]] = {
    "webhook": ToWebhook,
    "file": ToFile,
    "sqlite": ToTable,
    "duckdb": ToTable,
    "console": ToConsole,
}
TAG: Final = "kind: "
"""What stands before a kind's name in the place that pydantic gives of an error."""


class _ToNowhere(Strict):
    """What names no place: only that is said of it."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", hide_input_in_errors=True)

    to: Annotated[str, AfterValidator(_place)]


def _kind(given: Any) -> str:
    to = given.get("to", "") if isinstance(given, dict) else getattr(given, "to", "")
    if isinstance(to, str) and to in _KINDS:
        return TAG + _KINDS[to].__name__
    try:
        _place(to if isinstance(to, str) else "")
    except ValueError:
        return f"{TAG}_ToNowhere"
    return f"{TAG}ToEndpoint"


AnyIntegration = Annotated[
    Annotated[ToEndpoint, Tag(f"{TAG}ToEndpoint")]
    | Annotated[ToWebhook, Tag(f"{TAG}ToWebhook")]
    | Annotated[ToFile, Tag(f"{TAG}ToFile")]
    | Annotated[ToTable, Tag(f"{TAG}ToTable")]
    | Annotated[ToConsole, Tag(f"{TAG}ToConsole")]
    | Annotated[_ToNowhere, Tag(f"{TAG}_ToNowhere")],
    Discriminator(_kind),
]


class SpoolTable(Strict):
    """Where a pipeline's events wait on disk."""

    folder: Path
    max_bytes: Annotated[int, Field(ge=16 << 20)] = 512 << 20


class Pipeline(Strict):
    """What is done with the events that come with one write key."""

    name: _Name
    write_key: Annotated[SecretStr, Field(min_length=1)]
    integrations: Annotated[list[AnyIntegration], Field(min_length=1)]
    transform: tuple[Transform, ...] = ()
    correct_clock: bool = False
    bad_events: Path | None = None
    spool: SpoolTable | Path | None = None
    batching: BatchingTable | None = None
    queueing: QueueingTable | None = None
    retrying: RetryingTable | None = None
    sending: SendingTable | None = None
    shutdown_timeout: _Seconds = 10.0
    drain_timeout: _Seconds = 30.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.enabled:
            raise ValueError("at least one of its integrations must be enabled")
        return self

    @property
    def spool_table(self) -> SpoolTable | None:
        """The spool, if there is one."""
        return SpoolTable(folder=self.spool) if isinstance(self.spool, Path) else self.spool

    @property
    def enabled(self) -> list[Integration]:
        """The integrations that are on."""
        return [
            each for each in self.integrations if isinstance(each, Integration) and each.enabled
        ]


class Server(Strict):
    """How events come in."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = DEFAULT_PORT
    mode: Mode = "lenient"
    allowed_hosts: tuple[str, ...] = ()
    max_body: Annotated[int, Field(ge=1)] = MAX_BODY
    max_inflated: Annotated[int, Field(ge=1)] = MAX_INFLATED
    max_wait: _Seconds = 5.0
    max_waiting: Annotated[int, Field(ge=0)] = 64
    retry_after: Annotated[int, Field(ge=1, le=300)] = 5


class Config(Strict):
    """A whole configuration."""

    server: Server = Server()
    pipelines: Annotated[list[Pipeline], Field(min_length=1)]


def _shown(headers: dict[str, SecretStr]) -> dict[str, str]:
    return {name: value.get_secret_value() for name, value in headers.items()}
