"""Every exception this package raises, named by cause.

AnalyticsError
├── ConfigurationError (ValueError)    a key, an endpoint or a setting that cannot work
│   └── MissingExtra (ImportError)     an optional dependency is not installed
├── LifecycleError (RuntimeError)      the client is used outside its life
│   ├── NotStarted
│   ├── Closed
│   ├── Forked
│   └── WrongLoop
├── InvalidCall (ValueError)           a call that cannot be sent, refused in the caller
│   ├── TooLarge
│   ├── Unserialisable
│   └── Unsupported
├── QueueFull                          no room, and the policy does not wait (any longer)
├── FlushTimeout (TimeoutError)        flush() ran out of time; nothing was lost by that
├── NotDurable                         the disk did not take calls that had to be on it
├── NotDelivered                       deliver() ended without a delivery
├── DeliveryTimeout (TimeoutError)     deliver() ran out of time; the call may still arrive
└── NoAnswer                           one attempt ended without an answer (seen by destinations)

Messages name the field, the limit and the way out. They never contain payloads or keys. Every
error can be pickled and copied, so that it crosses to another process whole.
"""

from __future__ import annotations

from pathlib import Path
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncanalytics.receipts import Outcome


class AnalyticsError(Exception):
    """The root of the tree: catch it to catch everything this package raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by state: most constructors do not take the message they make."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    kind: type[AnalyticsError], args: tuple[object, ...], state: dict[str, Any]
) -> AnalyticsError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(AnalyticsError, ValueError):
    """A key, an endpoint or a setting cannot work as given."""


class MissingExtra(ConfigurationError, ImportError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        """Name the feature, and the extra that brings what it needs."""
        super().__init__(
            f"{feature} needs packages that are not installed: "
            f"run pip install 'asyncanalytics[{extra}]'"
        )
        self.feature = feature
        self.extra = extra


class LifecycleError(AnalyticsError, RuntimeError):
    """The client is used outside the span between its start and its close."""


class NotStarted(LifecycleError):
    """The client has not been started on any event loop."""

    def __init__(self) -> None:
        """Say how a client is started."""
        super().__init__(
            "this AsyncClient is not started: use it inside `async with client:` "
            "or call `await client.start()` first"
        )


class Closed(LifecycleError):
    """The client is closing or closed, and takes no more calls."""

    def __init__(self) -> None:
        """Say what to do instead."""
        super().__init__(
            "this client is closed: make the call before its `with` block or its closing ends, "
            "or start it again"
        )


class Forked(LifecycleError):
    """The client was started in another process, which has forked this one."""

    def __init__(self) -> None:
        """Say where to start a client instead."""
        super().__init__(
            "this AsyncClient was started before this process was forked, and it still serves "
            "the parent: make and start a client in the child, after the fork"
        )


class WrongLoop(LifecycleError):
    """The client is used on another event loop, or another thread, than the one it runs on."""

    def __init__(self) -> None:
        """Say how to reach the client's own loop."""
        super().__init__(
            "this AsyncClient runs on another event loop: make one client for each loop; "
            "from a thread that anyio started, call anyio.from_thread.run(client.track, ...)"
        )


class InvalidCall(AnalyticsError, ValueError):
    """A call was refused before it was accepted. `field` names what was wrong with it."""

    def __init__(self, call: str, field: str, problem: str) -> None:
        """Name the call, the field within it, and the problem; never the value."""
        super().__init__(f"{call}: {field}: {problem}")
        self.call = call
        self.field = field
        self.problem = problem


class TooLarge(InvalidCall):
    """A call encodes to more bytes than any of its destinations takes."""

    def __init__(self, call: str, *, size: int, limit: int) -> None:
        """Give both sizes in bytes."""
        super().__init__(
            call,
            "size",
            f"the call is {size:,} bytes as JSON and the limit is {limit:,}: "
            "send fewer or shorter properties, or several calls",
        )
        self.size = size
        self.limit = limit


class Unserialisable(InvalidCall):
    """A value in a call has no JSON form. `field` is the path to it."""


class Unsupported(InvalidCall):
    """No destination of the client takes this kind of call."""

    def __init__(self, call: str, destinations: str) -> None:
        """Name the destinations that refuse it."""
        super().__init__(
            call, "type", f"{destinations} takes no {call} calls: add a destination that does"
        )


class QueueFull(AnalyticsError):
    """A destination's queue has no room. The call was not accepted anywhere."""

    def __init__(
        self, destination: str, *, max_events: int, max_bytes: int, spool_bytes: int | None = None
    ) -> None:
        """Name the destination and its limits; `spool_bytes` where it is the spool that is full."""
        longer = "let calls wait longer (awaited, with when_full='wait' and no max_wait), or"
        super().__init__(
            f"the queue of destination {destination!r} is full "
            f"({max_events:,} events or {max_bytes:,} bytes): {longer} raise the limits in Queueing"
            if spool_bytes is None
            else f"the spool of destination {destination!r} is full ({spool_bytes:,} bytes): "
            f"{longer} raise the max_bytes of Spooling, or purge dead letters "
            "(asyncanalytics spool purge)"
        )
        self.spool_bytes = spool_bytes
        self.destination = destination
        self.max_events = max_events
        self.max_bytes = max_bytes


class FlushTimeout(AnalyticsError, TimeoutError):
    """The time given to flush() ran out. The events stay queued and go on being delivered."""

    def __init__(self, pending: int, timeout: float) -> None:
        """Say how many events were still pending."""
        super().__init__(
            f"{pending:,} events were still pending after {timeout:g} s of flush(); "
            "they stay queued and delivery goes on"
        )
        self.pending = pending
        self.timeout = timeout


class NotDurable(AnalyticsError):
    """The disk has not taken calls that were to be on it. Some may be delivered all the same."""

    def __init__(self) -> None:
        """Say what may have become of them."""
        super().__init__(
            "the spool's disk does not take calls: make them again later, with the same ids; those "
            "that are in memory may go out meanwhile"
        )


class NotDelivered(AnalyticsError):
    """The call of a `deliver()` has ended, and an endpoint does not have it.

    `outcome` says how: rejected by the endpoint, or given up by the client, and why.
    """

    def __init__(self, call: str, outcome: Outcome) -> None:
        """Say what became of the call."""
        status = f" with status {outcome.status}" if outcome.status else ""
        tail = {
            "rejected": f"{outcome.destination!r} refused it{status}: see the error's outcome",
            "kept": "the client closed first; the call is in the spool, for the next start",
        }
        given_up = f"the client gave it up ({outcome.reason}) after {outcome.attempts} attempts"
        super().__init__(f"{call}: not delivered: {tail.get(outcome.kind, given_up + status)}")
        self.call: str = call
        self.outcome: Outcome = outcome


class DeliveryTimeout(AnalyticsError, TimeoutError):
    """The time given to `deliver()` ran out, and the call may still be on its way."""

    def __init__(self, call: str, message_id: str, timeout: float) -> None:
        """Name the call's id, which a second attempt should have too."""
        super().__init__(
            f"{call}: not delivered within {timeout:g} s, and it may still be on its way: to ask "
            f"again, give it the same message_id, {message_id}"
        )
        self.call = call
        self.message_id = message_id
        self.timeout = timeout


class NoAnswer(AnalyticsError):
    """One attempt ended without a usable answer, so whether the events arrived is unknown.

    `stale` is true when a kept-alive connection had been closed by the other side, which
    says nothing about the server's health.
    """

    def __init__(self, reason: str, *, stale: bool = False) -> None:
        """Give the reason as a short phrase, such as 'ConnectError'."""
        super().__init__(reason)
        self.reason = reason
        self.stale = stale


def describe(error: BaseException) -> str:
    """Return an exception's class and the line it came from; its text may quote a payload."""
    frames = extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + where
