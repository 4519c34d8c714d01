"""The tree of errors: what each says, what it carries, and that it crosses to other processes."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from asyncanalytics import Outcome, errors
from asyncanalytics.errors import (
    AnalyticsError,
    Closed,
    ConfigurationError,
    DeliveryTimeout,
    FlushTimeout,
    Forked,
    InvalidCall,
    LifecycleError,
    MissingExtra,
    NoAnswer,
    NotDelivered,
    NotDurable,
    NotStarted,
    QueueFull,
    TooLarge,
    Unserialisable,
    Unsupported,
    WrongLoop,
)

EXAMPLES: list[AnalyticsError] = [
    AnalyticsError("something"),
    ConfigurationError("give a URL"),
    MissingExtra("HTTP/2", "http2"),
    LifecycleError("used twice"),
    NotStarted(),
    Closed(),
    WrongLoop(),
    InvalidCall("track", "user_id", "must be text"),
    TooLarge("track", size=40_000, limit=32_000),
    Unserialisable("page", "properties.a[0]", "a socket has no JSON form"),
    Unsupported("alias", "dittofeed"),
    QueueFull("segment", max_events=100_000, max_bytes=67_108_864),
    FlushTimeout(1_200, 2.5),
    NoAnswer("ConnectError", stale=True),
    Forked(),
    NotDelivered("track", Outcome(kind="rejected", destination="custom", status=422, attempts=1)),
    DeliveryTimeout("track", "id-1", 2.5),
    NotDurable(),
]
each_error = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)


def _drawn() -> list[type]:
    return [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if _is_own(kind)]


def _is_own(kind: type) -> bool:
    return issubclass(kind, BaseException) and kind.__module__ == errors.__name__


def test_every_error_is_in_the_tree() -> None:
    """One `except AnalyticsError` catches all, and the module's picture shows every class."""
    assert all(issubclass(kind, AnalyticsError) for kind in _drawn())
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in _drawn())


def test_every_error_has_an_example_here() -> None:
    """A new error must be tried by the tests of this file."""
    assert {type(error) for error in EXAMPLES} == set(_drawn())


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (ConfigurationError, ValueError),
        (MissingExtra, ImportError),
        (LifecycleError, RuntimeError),
        (InvalidCall, ValueError),
        (FlushTimeout, TimeoutError),
        (DeliveryTimeout, TimeoutError),
    ],
)
def test_errors_are_also_the_built_in_kind(kind: type[Exception], builtin: type[Exception]) -> None:
    """Code that does not know this package can catch its errors too."""
    assert issubclass(kind, builtin)


@pytest.mark.parametrize(
    ("kind", "parent"),
    [
        (MissingExtra, ConfigurationError),
        (NotStarted, LifecycleError),
        (Closed, LifecycleError),
        (WrongLoop, LifecycleError),
        (TooLarge, InvalidCall),
        (Unserialisable, InvalidCall),
        (Unsupported, InvalidCall),
    ],
)
def test_branches(kind: type[Exception], parent: type[Exception]) -> None:
    """The branches are as drawn."""
    assert issubclass(kind, parent)


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (EXAMPLES[2], {"feature": "HTTP/2", "extra": "http2"}),
        (EXAMPLES[7], {"call": "track", "field": "user_id", "problem": "must be text"}),
        (EXAMPLES[8], {"call": "track", "field": "size", "size": 40_000, "limit": 32_000}),
        (EXAMPLES[9], {"call": "page", "field": "properties.a[0]"}),
        (EXAMPLES[10], {"call": "alias", "field": "type"}),
        (
            EXAMPLES[11],
            {"destination": "segment", "max_events": 100_000, "max_bytes": 67_108_864},
        ),
        (EXAMPLES[12], {"pending": 1_200, "timeout": 2.5}),
        (EXAMPLES[13], {"reason": "ConnectError", "stale": True}),
        (EXAMPLES[15], {"call": "track"}),
        (EXAMPLES[16], {"call": "track", "message_id": "id-1", "timeout": 2.5}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_attributes(error: AnalyticsError, attributes: dict[str, object]) -> None:
    """What a handler may want to know is there without reading the message."""
    assert {name: getattr(error, name) for name in attributes} == attributes


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (EXAMPLES[2], "pip install 'asyncanalytics[http2]'"),
        (EXAMPLES[4], "async with client:"),
        (EXAMPLES[5], "start it again"),
        (EXAMPLES[6], "anyio.from_thread.run"),
        (EXAMPLES[8], "send fewer or shorter properties"),
        (EXAMPLES[8], "40,000 bytes"),
        (EXAMPLES[8], "32,000"),
        (EXAMPLES[10], "add a destination"),
        (EXAMPLES[11], "raise the limits in Queueing"),
        (EXAMPLES[12], "delivery goes on"),
        (EXAMPLES[14], "after the fork"),
        (EXAMPLES[15], "refused it with status 422"),
        (EXAMPLES[16], "the same message_id, id-1"),
        (EXAMPLES[17], "with the same ids"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_messages_say_what_to_do(error: AnalyticsError, advice: str) -> None:
    """A message gives the figures and the way out."""
    assert advice in str(error)


@each_error
def test_pickle(error: AnalyticsError) -> None:
    """An error that a worker process raises arrives whole in the one that waits for it."""
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - what it reads was written here
    assert type(again) is type(error)
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


@each_error
def test_copy(error: AnalyticsError) -> None:
    """Tools that copy exceptions can copy these, notes included."""
    first = copy.copy(error)
    first.add_note("while checking out")
    again = copy.copy(first)
    assert str(again) == str(error)
    assert again.__notes__ == ["while checking out"]


def test_describe_names_the_place_and_shows_no_text() -> None:
    """The user's own exception is named by its class and line: its text may quote a payload."""

    def fail() -> None:
        raise KeyError("canary")

    with pytest.raises(KeyError) as caught:
        fail()
    said = errors.describe(caught.value)
    assert said.startswith("KeyError at test_errors.py:")
    assert "canary" not in said


def test_describe_without_a_place() -> None:
    """An exception that was never raised has a class only."""
    assert errors.describe(ValueError("canary")) == "ValueError"
