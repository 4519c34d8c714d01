"""What a configuration may say, as models: every table and every name, and what each becomes.

Keys are held in `SecretStr`, which no repr and no error shows. What cannot work raises here, with
the place in the configuration, and not when the first event comes.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SecretStr,
    Tag,
    model_validator,
)

from asyncanalytics import endpoints
from asyncanalytics.collector.answers import Mode
from asyncanalytics.collector.app import MAX_BODY, MAX_INFLATED
from asyncanalytics.collector.pipelines import checks
from asyncanalytics.collector.pipelines.checks import (
    FilePath,
    Headers,
    Name,
    Text,
    check_url,
    is_url,
    shown,
)
from asyncanalytics.collector.pipelines.groups import (
    BatchingTable,
    QueueingTable,
    RetryingTable,
    SendingTable,
)
from asyncanalytics.collector.pipelines.pointing import needed, pointing_at, wrong
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
from asyncanalytics.endpoints import Auth, Endpoint, Form
from asyncanalytics.middleware import Middleware, consent, sample, where
from asyncanalytics.secret import Secret
from asyncanalytics.values import CallType

DEFAULT_PORT: Final = 8020
_Some = Annotated[list[Text], Field(min_length=1)]
_Count = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(ge=0)]


class Integration(Strict):
    """What every integration has: which events go there, and as what."""

    name: Annotated[Name, AfterValidator(checks.destination_name)]
    to: str
    enabled: bool = True
    calls: Annotated[list[CallType], Field(min_length=1)] | None = None
    events: _Some | None = None
    when: Annotated[str, AfterValidator(checks.condition)] | None = None
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
            said = "goes with consent: name the categories there"
            raise wrong("consent_unknown", said)
        self._check_place()
        return self

    def _check_place(self) -> None:
        with pointing_at("to"):  # its members have been looked at
            self.destination(Path())

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

    batch_path: Annotated[str, Field(pattern="^/")] = "/v1/batch"
    form: Form = "batch"
    auth: Auth = "basic"
    key_in_body: Text | None = None
    key_in_event: Text | None = None
    headers: Headers = Field(default_factory=dict)
    gzip: bool = False
    max_event_bytes: _Count = endpoints.MAX_EVENT_BYTES
    max_batch_bytes: _Count = endpoints.MAX_BATCH_BYTES
    max_batch_events: _Count = endpoints.MAX_BATCH_EVENTS
    insecure: bool = False

    def endpoint(self, url: str) -> Endpoint:
        """Return the endpoint at a URL."""
        plain = self.model_dump(exclude={"headers"})
        return endpoints.custom(url, headers=shown(self.headers), **plain)


class ToEndpoint(Integration):
    """One of the systems that `asyncanalytics endpoints` lists, or a URL of another one."""

    to: Annotated[str, AfterValidator(checks.place)]
    key: Annotated[SecretStr, AfterValidator(checks.key)] | None = None
    endpoint: EndpointTable | None = None

    def destination(self, folder: Path, **rules: Any) -> BaseDestination:  # noqa: ARG002 - it has no path
        """Make an endpoint's destination."""
        endpoint = self._endpoint()
        key = Secret("none" if self.key is None else self.key.get_secret_value())
        return Destination(key, endpoint=endpoint, name=self.name, **rules)

    def _endpoint(self) -> Endpoint:
        table = self.endpoint or EndpointTable()
        return table.endpoint(self.to) if is_url(self.to) else endpoints.parse(self.to)

    def _check_place(self) -> None:
        if is_url(self.to):
            insecure = self.endpoint is not None and self.endpoint.insecure
            with pointing_at("to"):
                check_url(self.to, insecure=insecure, way="set endpoint.insecure = true")
        elif self.endpoint is not None:
            raise wrong("endpoint", "describes a system that is given as a URL")
        if self.key is None and self._endpoint().auth != "none":
            raise wrong("key", needed("key"))
        with pointing_at("key"):  # not each goes into each header
            self.destination(Path())


class ToWebhook(Integration):
    """Any URL that takes a POST of JSON."""

    to: Literal["webhook"]
    insecure: bool = False  # before the url, whose check asks for it
    url: Annotated[SecretStr, AfterValidator(checks.webhook_url)]
    secret: Annotated[SecretStr, AfterValidator(checks.webhook_secret)] | None = None
    form: Form = "single"
    headers: Headers = Field(default_factory=dict)

    def destination(self, folder: Path, **rules: Any) -> BaseDestination:  # noqa: ARG002 - it has no path
        """Make a webhook."""
        return WebhookDestination(
            Secret(self.url.get_secret_value()),
            secret=None if self.secret is None else Secret(self.secret.get_secret_value()),
            form=self.form,
            headers=shown(self.headers),
            insecure=self.insecure,
            name=self.name,
            **rules,
        )


class ToFile(Integration):
    """A file of JSON lines."""

    to: Literal["file"]
    path: FilePath

    def destination(self, folder: Path, **rules: Any) -> BaseDestination:
        """Make the file's destination."""
        return FileDestination(folder / self.path, name=self.name, **rules)


class ToTable(Integration):
    """A table in a file of SQLite or DuckDB."""

    to: Literal["sqlite", "duckdb"]
    path: FilePath
    table: Annotated[str, AfterValidator(checks.table)] = "events"

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

    to: Annotated[str, AfterValidator(checks.place)]


def _kind(given: Any) -> str:
    to = given.get("to", "") if isinstance(given, dict) else getattr(given, "to", "")
    if isinstance(to, str) and to in _KINDS:
        return TAG + _KINDS[to].__name__
    try:
        checks.place(to if isinstance(to, str) else "")
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

    folder: FilePath
    max_bytes: Annotated[int, Field(ge=16 << 20)] = 512 << 20


def _spool(given: object) -> object:
    if isinstance(given, dict | SpoolTable):
        return given
    if not isinstance(given, str | Path):
        raise ValueError('should be text, the path of a folder, or a table: { folder = "..." }')  # noqa: TRY004 - pydantic takes no other
    return {"folder": checks.path(given)}


class Pipeline(Strict):
    """What is done with the events that come with one write key."""

    name: Name
    write_key: Annotated[SecretStr, AfterValidator(checks.write_key)]
    integrations: Annotated[list[AnyIntegration], Field(min_length=1)]
    transform: tuple[Transform, ...] = ()
    correct_clock: bool = False
    bad_events: FilePath | None = None
    spool: Annotated[SpoolTable, BeforeValidator(_spool)] | None = None
    batching: BatchingTable | None = None
    queueing: QueueingTable | None = None
    retrying: RetryingTable | None = None
    sending: SendingTable | None = None
    shutdown_timeout: _Seconds = 10.0
    drain_timeout: _Seconds = 30.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.enabled:
            said = "at least one of its integrations must be enabled: leave out enabled = false"
            raise ValueError(said)
        return self

    @property
    def enabled(self) -> list[Integration]:
        """The integrations that are on."""
        return [
            each for each in self.integrations if isinstance(each, Integration) and each.enabled
        ]


class Server(Strict):
    """How events come in."""

    host: Text = "127.0.0.1"
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
