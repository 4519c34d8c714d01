"""What a user can choose, as frozen keyword-only groups.

Seconds are floats, sizes are bytes, ceilings are `max_*`, and None means off. Each group
checks itself when it is made, so a wrong setting fails where it was written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from asyncanalytics.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

WhenFull = Literal["wait", "raise", "drop_newest", "drop_oldest"]
"""What a call meets when a destination's queue is full.

- `wait`: the caller waits for room; costs the caller's time, loses nothing. `_nowait` raises.
- `raise`: the caller gets `QueueFull`; costs a handler in the caller.
- `drop_newest`: the new call is dropped and counted; costs what is most recent.
- `drop_oldest`: the longest waiting call is dropped and counted; costs what is oldest. With a spool
  it is the oldest of those in memory, and if all of these are in flight, the new one.
"""


def _require(condition: bool, group: object, rule: str) -> None:  # noqa: FBT001 - reads as an assertion
    if not condition:
        raise ConfigurationError(f"{type(group).__name__}: {rule}")


def _require_numbers(group: object, *names: str) -> None:
    for name in names:
        value = getattr(group, name)
        _require(
            isinstance(value, int | float) and not isinstance(value, bool),
            group,
            f"{name} must be a number, not {type(value).__name__}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Batching:
    """How calls are gathered into requests; never above the endpoint's own limits."""

    max_events: int = 2_500
    """Events in one request."""
    max_bytes: int = 475_000
    """Bytes of one request's JSON before compression, the envelope included."""
    linger: float = 0.5
    """Seconds between two requests that are not full: the first call after a quiet time goes
    out at once, those that follow it gather for at most this long."""

    def __post_init__(self) -> None:
        _require_numbers(self, "max_events", "max_bytes", "linger")
        _require(self.max_events >= 1, self, "max_events must be at least 1")
        _require(self.max_bytes >= 1_000, self, "max_bytes must be at least 1,000")
        _require(self.linger >= 0, self, "linger must be 0 or more seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class Queueing:
    """How much may be pending for one destination, waiting and in flight together.

    With a spool these bound what of it is held in memory: `Spooling.max_bytes` bounds the rest.
    """

    max_events: int = 100_000
    """Events pending at most."""
    max_bytes: int = 64 * 1024 * 1024
    """Encoded bytes pending at most."""
    when_full: WhenFull = "wait"
    """See `WhenFull`."""
    max_wait: float | None = None
    """Seconds that a caller waits for room before it gets `QueueFull`; None: as long as it takes.
    Only with `when_full="wait"`."""

    def __post_init__(self) -> None:
        _require_numbers(self, "max_events", "max_bytes")
        if self.max_wait is not None:
            _require_numbers(self, "max_wait")
        _require(self.max_events >= 1, self, "max_events must be at least 1")
        _require(self.max_bytes >= 32_768, self, "max_bytes must be at least 32,768, one event")
        _require(
            self.when_full in ("wait", "raise", "drop_newest", "drop_oldest"),
            self,
            "when_full must be 'wait', 'raise', 'drop_newest' or 'drop_oldest'",
        )
        _require(
            self.max_wait is None or (self.when_full == "wait" and self.max_wait >= 0),
            self,
            "max_wait must be 0 or more seconds, and goes with when_full='wait' only",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Retrying:
    """How often and for how long a request is tried again. Delays have full jitter."""

    max_attempts: int = 10
    """Retries of one batch. An attempt answered with Retry-After does not count. With a spool it
    holds while other batches get through: in an outage nothing is given up."""
    base: float = 0.5
    """Seconds: the first delay is at most this, and the bound doubles with each failure."""
    cap: float = 60.0
    """Seconds: no backoff delay is longer."""
    max_elapsed: float = 12 * 3600.0
    """Seconds after its first attempt at which a batch is dropped as `expired`; not with a
    spool, whose quota is the bound."""
    max_retry_after: float = 300.0
    """Seconds: a longer Retry-After is cut to this."""

    def __post_init__(self) -> None:
        _require_numbers(self, "max_attempts", "base", "cap", "max_elapsed", "max_retry_after")
        _require(self.max_attempts >= 0, self, "max_attempts must be 0 or more")
        _require(0 <= self.base <= self.cap, self, "base must be between 0 and cap seconds")
        _require(self.max_elapsed >= 0, self, "max_elapsed must be 0 or more seconds")
        _require(self.max_retry_after >= 1, self, "max_retry_after must be at least 1 second")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sending:
    """How requests travel."""

    max_in_flight: int = 8
    """Requests under way at a time for one destination. 1 keeps batches in strict order."""
    connect_timeout: float = 5.0
    """Seconds to get a connection; with httpx, a proxy's answer to CONNECT may take longer."""
    timeout: float = 15.0
    """Seconds for one whole request, from the connection to the end of the answer."""
    gzip: bool | None = None
    """Compress requests; None: where the endpoint is known to take it."""
    http2: bool = False
    """Offer HTTP/2 (extra `http2`)."""
    http_library: Literal["httpx", "aiohttp"] = "httpx"
    """What requests go out by. aiohttp (extra `aiohttp`) takes less CPU for one, and is stricter:
    an answer that breaks HTTP's rules, by a body where none may be, is no answer to it.
    NO_PROXY is read by httpx by its own rules and with aiohttp by those of Python's urllib; they
    differ in `.name`, in `*` within a list, and in entries with a scheme."""
    http_client: httpx.AsyncClient | Any | None = None
    """Your own `httpx.AsyncClient` or `httpx2.AsyncClient`. It is used as it is and never closed;
    give it timeouts of your own for each phase."""

    def __post_init__(self) -> None:
        _require_numbers(self, "max_in_flight", "connect_timeout", "timeout")
        _require(self.max_in_flight >= 1, self, "max_in_flight must be at least 1")
        _require(
            self.http_library in ("httpx", "aiohttp"), self, "http_library must be httpx or aiohttp"
        )
        if self.http_library == "aiohttp":
            _require(not self.http2, self, "http2 needs http_library='httpx': aiohttp has none")
            _require(
                self.http_client is None, self, "give either http_client or http_library='aiohttp'"
            )
        _require(self.connect_timeout > 0, self, "connect_timeout must be more than 0 seconds")
        _require(self.timeout > 0, self, "timeout must be more than 0 seconds")


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Sealing:
    """Your own functions around what is stored on disk, for encryption. Ids stay clear.

    They run in the caller and in the disk's thread, and may be called by both at the same time.
    """

    seal: Callable[[bytes], bytes]
    open: Callable[[bytes], bytes]
    """Raises when it is given something else than `seal` returned."""

    def __post_init__(self) -> None:
        both = all(map(callable, (self.seal, self.open)))
        _require(both, self, "seal and open must be functions from bytes to bytes")


@dataclass(frozen=True, slots=True)
class Spooling:
    """A folder on a local disk in which calls wait until they are delivered."""

    folder: str | os.PathLike[str]
    """Made if it is not there, for its owner's eyes only. Processes may share it: each has a file
    of its own in it, and what a dead one left is taken over by one of the others."""
    max_bytes: int = 512 * 1024 * 1024
    """Quota of this client: calls that wait, dead letters, and what the file needs around them.
    Beyond it, `Queueing.when_full` says what a call meets."""
    sealing: Sealing | None = None
    """Encrypts what is stored."""

    def __post_init__(self) -> None:
        try:
            is_path = bool(os.fspath(self.folder))
        except TypeError:
            is_path = False
        _require(is_path, self, "folder must be the path of a folder")
        _require_numbers(self, "max_bytes")
        _require(isinstance(self.max_bytes, int), self, "max_bytes must be a whole number")
        _require(self.max_bytes >= 1 << 20, self, "max_bytes must be at least 1,048,576")
        _require(
            self.sealing is None or isinstance(self.sealing, Sealing),
            self,
            "sealing must be a Sealing(seal=..., open=...)",
        )
