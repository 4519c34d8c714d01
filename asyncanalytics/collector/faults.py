"""Misbehaviour on demand: how users see what their own app does when the endpoint is down.

A fault is a frozen rule; `Faults` is the list of those that are set. Each ingest request draws
once: the first fault in the order set whose share comes up is the request's, and no other.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

import anyio
import orjson
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

ABORT: Final = "asyncanalytics.abort"
"""The name in `scope["extensions"]` of a callable that resets the request's connection."""

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_LENGTHS: Final = frozenset({"content-length", "transfer-encoding"})
_EMPTY_STATUSES: Final = frozenset({204, 205, 304})
_MISBEHAVING: Final = {
    "success": False,
    "reason": "misbehaving",
    "message": "the collector was told to give this answer",
}


class ConnectionDropped(OSError):
    """The collector was told to drop the connection, and there is none that it could close.

    In-process transports raise it to the caller in place of an answer.
    """

    def __init__(self) -> None:
        """Say that no answer is coming."""
        super().__init__("the collector dropped the connection without an answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One way to misbehave."""

    status: int | None = 503
    """The status to answer with, 200 to 599; None leaves the answer as it is, only delayed."""
    delay: float = 0.0
    """Seconds between the end of the request and its answer."""
    retry_after: str | float | None = None
    """The value of a Retry-After header, sent as it is given: garbage is allowed."""
    drop: bool = False
    """Close the connection without an answer, whatever `status` says."""
    body: Any = None
    """The answer's body: text and bytes as they are, anything else as JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """More headers for the answer, such as a Location."""
    share: float = 1.0
    """Which part of the requests, by chance: more than 0, 1 at most."""
    count: int | None = None
    """How many requests, and then no more; None: until behave()."""
    after: bool = False
    """Store the events first, so that only the answer is lost."""

    def __post_init__(self) -> None:
        """Refuse what could not be carried out, saying what can be."""
        _check(_is(self.status, int | None), "status must be a number from 200 to 599, or null")
        _check(self.status is None or 200 <= self.status <= 599, "status must be from 200 to 599")
        _check(_is(self.delay, int | float), "delay must be a number of seconds")
        _check(0 <= self.delay <= 3_600, "delay must be from 0 to 3,600 seconds")
        _check(_is(self.share, int | float) and 0 < self.share <= 1, "share must be in (0, 1]")
        _check(_is(self.count, int | None), "count must be a whole number, or null")
        _check(self.count is None or self.count >= 1, "count must be at least 1")
        _check(isinstance(self.drop, bool), "drop must be true or false")
        _check(isinstance(self.after, bool), "after must be true or false")
        _check(_is(self.retry_after, str | int | float | None), "retry_after must be text or null")
        _check(_are_headers(self.headers), "headers must be an object of names and values")
        _check(_leave_the_length(self.headers), "headers cannot say how long the body is")
        _check(_HEADER_VALUE.fullmatch(self._retry_after), "retry_after must fit in a header")
        _check(_is_body(self.body), "body must be text, bytes or JSON-ready data")

    @property
    def answers(self) -> bool:
        """Whether the fault takes the place of the collector's own answer."""
        return self.drop or self.status is not None

    @property
    def answered(self) -> int:
        """The status that the client sees: 0 where it sees none."""
        return 0 if self.drop else self.status or 0

    @property
    def _retry_after(self) -> str:
        value = self.retry_after
        return f"{value:g}" if isinstance(value, float) else str(value or "")

    async def wait(self, receive: Receive) -> None:
        """Let the delay pass, or less where the client goes away."""
        if self.delay:
            with anyio.move_on_after(self.delay):
                await _gone(receive)

    def response(self) -> Response:
        """Make the answer, or what closes the connection in its place."""
        if self.drop or self.status is None:
            return Drop()
        content, media_type = self._content()
        response = Response(content, self.status, dict(self.headers), media_type=media_type)
        if self.retry_after is not None:
            response.headers["retry-after"] = self._retry_after
        return response

    def _content(self) -> tuple[bytes, str | None]:
        if self.status in _EMPTY_STATUSES:
            return b"", None
        if isinstance(self.body, str):
            return self.body.encode("utf-8", "replace"), "text/plain"
        if isinstance(self.body, bytes):
            return self.body, "application/octet-stream"
        return orjson.dumps(_MISBEHAVING if self.body is None else self.body), "application/json"

    def as_dict(self) -> dict[str, Any]:
        """Return the fault as plain data, in the form that `POST /faults` takes."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        body = self.body.decode("utf-8", "replace") if isinstance(self.body, bytes) else self.body
        return plain | {"body": body, "headers": dict(self.headers)}


def _check(fulfilled: object, rule: str) -> None:
    if not fulfilled:
        raise ValueError(rule)


def _is(value: object, kinds: Any) -> bool:
    """Tell whether the value is of these kinds; a bool is no number here."""
    return isinstance(value, kinds) and not isinstance(value, bool)


def _are_headers(headers: object) -> bool:
    return isinstance(headers, Mapping) and all(
        isinstance(name, str)
        and isinstance(value, str)
        and _HEADER_NAME.fullmatch(name)
        and _HEADER_VALUE.fullmatch(value)
        for name, value in headers.items()
    )


def _leave_the_length(headers: Mapping[str, str]) -> bool:
    return _LENGTHS.isdisjoint(name.lower() for name in headers)


def _is_body(body: Any) -> bool:
    try:
        return isinstance(body, bytes) or bool(orjson.dumps(body))
    except TypeError:
        return False


class Drop(Response):
    """No response: the connection is reset, or `ConnectionDropped` raised where there is none."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Close the connection and wait until the server has noticed."""
        abort = scope.get("extensions", {}).get(ABORT)
        if abort is None:
            raise ConnectionDropped
        abort()
        # Returning sooner would make the server complain of an app that does not answer.
        await _gone(receive)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(slots=True)
class _Armed:
    fault: Fault
    left: int | None
    applied: int = 0

    def take(self) -> Fault:
        self.applied += 1
        if self.left is not None:
            self.left -= 1
        return self.fault

    def as_dict(self) -> dict[str, Any]:
        return self.fault.as_dict() | {"left": self.left, "applied": self.applied}


class Faults:
    """The faults that are set. A fault that has had its count is taken off the list."""

    def __init__(self, seed: int | None = None) -> None:
        """Make an empty list; with a seed the shares come up in the same order each time."""
        self._random = random.Random(seed)  # noqa: S311 - chance, not secrecy
        self._armed: list[_Armed] = []

    def add(self, fault: Fault) -> None:
        """Set one more fault, after those that are set."""
        self._armed.append(_Armed(fault, fault.count))

    def clear(self) -> None:
        """Behave again."""
        self._armed.clear()

    def draw(self) -> Fault | None:
        """Choose the fault of one request, and count it."""
        armed = next((each for each in self._armed if self._comes_up(each.fault)), None)
        if armed is None:
            return None
        fault = armed.take()
        if armed.left == 0:
            self._armed.remove(armed)
        return fault

    def _comes_up(self, fault: Fault) -> bool:
        return fault.share >= 1 or self._random.random() < fault.share

    def as_list(self) -> list[dict[str, Any]]:
        """Return the faults as plain data, with how often each was applied and is still to be."""
        return [each.as_dict() for each in self._armed]
