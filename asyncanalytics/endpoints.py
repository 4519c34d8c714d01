"""Every known Segment-compatible system, as data: where to post, how to sign, what it takes.

Each function returns an `Endpoint` for one system; `custom` makes one for any other. Nothing
here sends anything. The facts are from each system's public documentation, named in the
functions, as read in November 2026; where sources disagree the docstring says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import SplitResult, urlsplit

from asyncanalytics.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Auth = Literal["basic", "bearer", "raw", "none"]
"""Where the key goes in the `Authorization` header: `basic` is the key as user name with an empty
password, `bearer` and `raw` are the key after `Bearer ` and alone, `none` leaves the header out."""

Form = Literal["batch", "single"]
"""One request for many calls, or one for each call at a route of its own."""

MAX_EVENT_BYTES = 32_000
"""Segment says 32 KB (https://segment.com/docs/connections/sources/catalog/libraries/server/\
http-api/#max-request-size); 32,000 is under either reading of KB."""
MAX_BATCH_BYTES = 475_000
"""Segment says 500 KB; its own SDKs stop at 475,000 to 480 times 1024."""
MAX_BATCH_EVENTS = 2_500
"""Segment answers 200 to more, and drops them."""

_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
_SINGLE_ROUTES = {
    call: f"/v1/{call}" for call in ("identify", "track", "page", "screen", "group", "alias")
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """One system's HTTP face."""

    name: str
    """The system, in lower case; also the default name of a destination that uses it."""
    base: str
    """Scheme and host, and a path prefix where there is one, without a slash at the end."""
    batch_path: str = "/v1/batch"
    call_paths: Mapping[str, str] = field(default_factory=lambda: dict(_SINGLE_ROUTES))
    """A route for each call, for the `single` form. A call without one goes as a batch of one."""
    form: Form = "batch"
    auth: Auth = "basic"
    key_in_body: str | None = None
    """The member beside `batch` that repeats the key."""
    key_in_event: str | None = None
    """The member of each event that repeats the key."""
    event_members: Mapping[str, str] = field(default_factory=dict)
    """Members that the system wants in each event."""
    envelope_id: bool = False
    """Whether the envelope has a `messageId` of its own."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers to send beyond the usual ones. They may carry a key, so no repr shows them."""
    gzip: bool = False
    """Whether compressed requests are known to be taken."""
    refuses: frozenset[str] = frozenset()
    """Calls that the system does not take."""
    max_event_bytes: int = MAX_EVENT_BYTES
    max_batch_bytes: int = MAX_BATCH_BYTES
    max_batch_events: int = MAX_BATCH_EVENTS
    insecure: bool = False
    """Allow `http://` to a host that is not this machine: the key then travels in the clear."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", self.base.rstrip("/"))
        # In lower case, so that a header given here replaces a usual one instead of joining it.
        object.__setattr__(self, "headers", {name.lower(): v for name, v in self.headers.items()})
        self._check_base(self._split())
        self._require(self.auth in get_args(Auth), f"auth must be one of {get_args(Auth)}")
        self._require(self.form in get_args(Form), f"form must be one of {get_args(Form)}")
        self._require(
            # Without the slash a path would lengthen the host's name: the key would go elsewhere.
            all(path[:1] == "/" for path in (self.batch_path, *self.call_paths.values())),
            "each path must begin with a slash",
        )
        texts = "".join((*self.headers, *self.headers.values()))
        self._require(
            texts.isascii() and texts.isprintable(),
            "a header is ASCII text without line breaks",
        )
        self._require(
            all(map(_TOKEN.fullmatch, self.headers)),
            "a header's name is letters, digits and -, without a blank",
        )
        least = min(self.max_event_bytes, self.max_batch_bytes, self.max_batch_events)
        self._require(least >= 1, "each limit must be at least 1")

    def _check_base(self, parts: SplitResult) -> None:
        self._require(
            parts.scheme in {"http", "https"} and bool(parts.hostname) and _is_plain(self.base),
            "give a URL with its scheme, such as https://example.com",
        )
        self._require(
            not any(sign in self.base for sign in "?#@\\"),  # parts does not show empty ones
            "the URL must be scheme, host and path only; the key is given to the client, "
            "not in the URL",
        )
        self._require(
            parts.scheme == "https" or self.insecure or _is_loopback(parts.hostname or ""),
            "http:// would send all in the clear: use https://, or, if the network is your own, "
            "set insecure, as in endpoints.custom(url, insecure=True)",
        )

    def _split(self) -> SplitResult:
        try:
            parts = urlsplit(self.base)
            _ = parts.port  # reading it is what checks it
        except ValueError:
            raise ConfigurationError(f"endpoint {self.name}: that is not a URL") from None
        return parts

    def _require(self, condition: bool, rule: str) -> None:  # noqa: FBT001 - it is the subject
        if not condition:
            raise ConfigurationError(f"endpoint {self.name}: {rule}")

    @property
    def batch_url(self) -> str:
        """Where batches are posted."""
        return self.base + self.batch_path

    def url_for(self, call: str) -> str | None:
        """Return the route of one call in the `single` form, or None if it has none."""
        path = self.call_paths.get(call) if self.form == "single" else None
        return None if path is None else self.base + path


def segment(*, region: Literal["us", "eu"] = "us") -> Endpoint:
    """Segment (https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/).

    Data sent to the wrong region is dropped without an error. For the EU one of Segment's pages
    names `eu1.api.segmentapis.com` instead of the host used here.
    """
    hosts = {"us": "https://api.segment.io", "eu": "https://events.eu1.segmentapis.com"}
    base = _pick(hosts, region, "segment")
    return Endpoint(name="segment", base=base, key_in_body="writeKey", gzip=True)


def astronomer(*, form: Form = "batch") -> Endpoint:
    """Astronomer (its guide to server-side sources documents the `single` form).

    The key is the app id. It is sent in each event as `appId` too: the published ingestor fills
    that in from the header with a mistake that corrupts some keys. It answers 200 to everything,
    ignores a batch's own context, takes compression on `/v1/batch` only, and has no route for a
    single screen call, which therefore goes as a batch of one.
    """
    routes = {call: path for call, path in _SINGLE_ROUTES.items() if call != "screen"}
    return Endpoint(
        name="astronomer",
        base="https://api.astronomer.io",
        form=form,
        call_paths=routes,
        key_in_event="appId",
        gzip=form == "batch",
    )


def dreamdata() -> Endpoint:
    """Dreamdata (its guide to server-side tracking). Batches of identify and track are documented.

    The envelope has a `messageId` of its own. The key is encoded once, as HTTP Basic wants it; one
    example in the guide encodes it twice.
    """
    return Endpoint(
        name="dreamdata", base="https://api.dreamdata.cloud", call_paths={}, envelope_id=True
    )


def metarouter(host: str) -> Endpoint:
    """MetaRouter, at your own host. The key is in each event; 15 KB an event (older docs)."""
    return Endpoint(
        name="metarouter",
        base=_url(host),
        key_in_event="writeKey",
        max_event_bytes=15_000,
    )


def rudderstack(data_plane: str) -> Endpoint:
    """RudderStack, at your data plane (https://www.rudderstack.com/docs/api/http-api/).

    It takes 4,000 KB a request, and answers 400 to a whole request for one event without ids, and
    404 when the source is disabled.
    """
    return Endpoint(
        name="rudderstack",
        base=_url(data_plane),
        event_members={"channel": "server"},
        max_batch_bytes=4_000_000,
        gzip=True,
    )


def jitsu(host: str) -> Endpoint:
    """Jitsu, at your own host. It cuts a messageId to 64 characters of `[A-Za-z0-9._-]`.

    Failures come as 200 with `ok: false`, and are reported for each event that is named.
    """
    return Endpoint(name="jitsu", base=_url(host))


def customerio(*, region: Literal["us", "eu"] = "us", strict: bool = True) -> Endpoint:
    """Customer.io's data pipelines (https://docs.customer.io/api/cdp/).

    Without `strict` it answers 200 to events it cannot use.
    """
    hosts = {"us": "https://cdp.customer.io", "eu": "https://cdp-eu.customer.io"}
    return Endpoint(
        name="customerio",
        base=_pick(hosts, region, "customerio"),
        headers={"X-Strict-Mode": "1"} if strict else {},
    )


def hightouch(*, host: str = "https://us-east-1.hightouch-events.com") -> Endpoint:
    """Hightouch Events (https://hightouch.com/docs/events/sdks/http)."""
    return Endpoint(name="hightouch", base=_url(host), key_in_body="writeKey")


def dittofeed(host: str) -> Endpoint:
    """Dittofeed, at your own host. The key is the whole `Authorization` header; no alias calls."""
    return Endpoint(
        name="dittofeed",
        base=_url(host),
        batch_path="/api/public/apps/batch",
        call_paths={},
        auth="raw",
        refuses=frozenset({"alias"}),
    )


def custom(
    url: str,
    *,
    name: str = "custom",
    batch_path: str = "/v1/batch",
    form: Form = "batch",
    auth: Auth = "basic",
    key_in_body: str | None = None,
    key_in_event: str | None = None,
    headers: Mapping[str, str] | None = None,
    gzip: bool = False,
    max_event_bytes: int = MAX_EVENT_BYTES,
    max_batch_bytes: int = MAX_BATCH_BYTES,
    max_batch_events: int = MAX_BATCH_EVENTS,
    insecure: bool = False,
) -> Endpoint:
    """Any other host that speaks the protocol, such as your own or `asyncanalytics collect`.

    `http://` is taken for this machine only, unless `insecure`.
    """
    return Endpoint(
        name=name,
        base=url,
        batch_path=batch_path,
        form=form,
        auth=auth,
        key_in_body=key_in_body,
        key_in_event=key_in_event,
        headers=headers or {},
        gzip=gzip,
        max_event_bytes=max_event_bytes,
        max_batch_bytes=max_batch_bytes,
        max_batch_events=max_batch_events,
        insecure=insecure,
    )


_BY_NAME: Mapping[str, Callable[[str], Endpoint]] = {
    "segment": lambda region: segment(region=region or "us"),  # type: ignore[arg-type]
    "astronomer": lambda form: astronomer(form=form or "batch"),  # type: ignore[arg-type]
    "dreamdata": lambda choice: _no_choice(dreamdata(), choice),
    "metarouter": metarouter,
    "rudderstack": rudderstack,
    "jitsu": jitsu,
    "customerio": lambda region: customerio(region=region or "us"),  # type: ignore[arg-type]
    "hightouch": lambda host: hightouch(host=host) if host else hightouch(),
    "dittofeed": dittofeed,
}


def parse(text: str) -> Endpoint:
    """Read an endpoint from text, as `ASYNCANALYTICS_ENDPOINT` and the command line give it.

    A URL, for `custom`; or a system's name, with its region, form or host after an `@`:
    `segment`, `segment@eu`, `astronomer@single`, `rudderstack@https://example.com`.
    """
    if "://" in text.partition("@")[0]:
        return custom(text)
    name, _, choice = text.partition("@")
    make = _BY_NAME.get(name)
    if make is None:
        known = ", ".join(_BY_NAME)
        raise ConfigurationError(f"no endpoint has that name: give a URL, or one of {known}")
    if not choice and name in ("metarouter", "rudderstack", "jitsu", "dittofeed"):
        raise ConfigurationError(f"endpoint {name}: name your own host, as {name}@https://host")
    return make(choice)


def names() -> tuple[str, ...]:
    """Return the names that `parse` knows."""
    return tuple(_BY_NAME)


def _no_choice(endpoint: Endpoint, choice: str) -> Endpoint:
    if choice:
        raise ConfigurationError(f"endpoint {endpoint.name}: there is nothing to choose after an @")
    return endpoint


def _pick(hosts: Mapping[str, str], region: str, name: str) -> str:
    if region not in hosts:
        raise ConfigurationError(f"endpoint {name}: region must be {' or '.join(map(repr, hosts))}")
    return hosts[region]


def _url(host: str) -> str:
    """Take `events.example.com` for `https://events.example.com`."""
    return host if "://" in host else f"https://{host}"


def _is_plain(text: str) -> bool:
    return text.isprintable() and " " not in text


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
