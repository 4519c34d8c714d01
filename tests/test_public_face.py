"""What `from asyncanalytics import …` offers: pinned, so that nothing joins or leaves unseen."""

from __future__ import annotations

import inspect
import logging
import pickle

import pytest

import asyncanalytics
from asyncanalytics import _version

NAMES = [
    "Alias",
    "AnalyticsError",
    "AsyncClient",
    "BaseDestination",
    "Batching",
    "BoundClient",
    "Call",
    "Client",
    "Closed",
    "ConfigurationError",
    "ConsoleDestination",
    "Context",
    "DeliveryTimeout",
    "Destination",
    "DestinationStats",
    "DuckdbDestination",
    "FanOut",
    "FileDestination",
    "FlushTimeout",
    "Forked",
    "Group",
    "Identify",
    "InvalidCall",
    "LifecycleError",
    "LifespanState",
    "Middleware",
    "MissingExtra",
    "NotDelivered",
    "NotStarted",
    "OAuth",
    "Outcome",
    "Page",
    "QueueFull",
    "Queueing",
    "Receipt",
    "Retrying",
    "Screen",
    "Sealing",
    "Sending",
    "Spooling",
    "SqliteDestination",
    "State",
    "Stats",
    "TooLarge",
    "Track",
    "Unserialisable",
    "Unsupported",
    "WebhookDestination",
    "WrongLoop",
    "__version__",
    "bound_context",
    "endpoints",
]
CLASSES = [name for name in NAMES if inspect.isclass(getattr(asyncanalytics, name, None))]


def test_the_names() -> None:
    """Exactly these names are promised, in order."""
    assert asyncanalytics.__all__ == NAMES == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there(name: str) -> None:
    """A promise in `__all__` is kept."""
    assert hasattr(asyncanalytics, name)


def test_nothing_else_looks_public() -> None:
    """A class that is not promised is not within reach of completion, but rooms are."""
    others = {name for name in vars(asyncanalytics) if not name.startswith("_")} - set(NAMES)
    assert [each for each in others if not inspect.ismodule(getattr(asyncanalytics, each))] == []


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_says_what_it_promises(name: str) -> None:
    """Every public class, and every public method of it, has a docstring of its own."""
    kind = getattr(asyncanalytics, name)
    assert kind.__doc__
    for member, value in vars(kind).items():
        if inspect.isfunction(value) and not member.startswith("_"):
            assert value.__doc__, f"{name}.{member}"


def test_the_version() -> None:
    """The version is one text, in one place."""
    assert asyncanalytics.__version__ == _version.__version__


def test_the_logger_is_silent_until_it_is_asked() -> None:
    """A library does not write to a program's standard error."""
    handlers = logging.getLogger("asyncanalytics").handlers
    assert any(isinstance(each, logging.NullHandler) for each in handlers)


@pytest.mark.parametrize("name", ["Identify", "Track", "Page", "Screen", "Group", "Alias"])
def test_calls_cross_to_other_processes(name: str) -> None:
    """A call that was made in a worker can be sent by another."""
    fields = {"user_id": "u1", "event": "e", "group_id": "g", "previous_id": "p"}
    kind = getattr(asyncanalytics, name)
    call = kind(**{field: value for field, value in fields.items() if field in kind.model_fields})
    assert pickle.loads(pickle.dumps(call)).wire() == call.wire()  # noqa: S301 - written here
