"""Asyncio-native analytics for Python back ends.

    async with AsyncClient("WRITE_KEY") as analytics:
        await analytics.track("Order Completed", user_id="u1", properties={"revenue": 25.0})

identify, track, page, screen, group and alias calls go to any Segment-compatible endpoint, in
batches, without blocking the event loop, and every accepted call ends with a named outcome.
"""

import importlib
import logging
import sys
import typing

from asyncanalytics import endpoints
from asyncanalytics._version import __version__
from asyncanalytics.binding import bound_context
from asyncanalytics.bound import BoundClient
from asyncanalytics.client import AsyncClient, LifespanState, State
from asyncanalytics.destinations import (
    BaseDestination,
    ConsoleDestination,
    Destination,
    DuckdbDestination,
    FileDestination,
    SqliteDestination,
    WebhookDestination,
)
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
    NotDelivered,
    NotStarted,
    QueueFull,
    TooLarge,
    Unserialisable,
    Unsupported,
    WrongLoop,
)
from asyncanalytics.oauth import OAuth
from asyncanalytics.receipts import FanOut, Outcome, Receipt
from asyncanalytics.settings import Batching, Queueing, Retrying, Sealing, Sending, Spooling
from asyncanalytics.stats import DestinationStats, Stats
from asyncanalytics.sync import Client

if typing.TYPE_CHECKING:
    from asyncanalytics.calls import Alias, Call, Context, Group, Identify, Page, Screen, Track
    from asyncanalytics.middleware import Middleware

logging.getLogger("asyncanalytics").addHandler(logging.NullHandler())

__all__ = [
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

# pydantic's models take longer to import than all else, and most programs never name one. They are
# imported with the first of these names, and by a client that has middleware.
_MODELS = ("Alias", "Call", "Context", "Group", "Identify", "Page", "Screen", "Track")
_LATER = dict.fromkeys((*_MODELS, "calls"), "calls") | dict.fromkeys(
    ("Middleware", "middleware"), "middleware"
)

if not typing.TYPE_CHECKING:  # which knows them from above, and would take any name for one

    def __getattr__(name: str) -> object:
        """Import what is named for the first time."""
        if name not in _LATER:
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}",
                name=name,
                obj=sys.modules[__name__],
            )
        room = importlib.import_module(f"{__name__}.{_LATER[name]}")
        found = globals()[name] = getattr(room, name, room)
        return found

    def __dir__() -> list[str]:
        """Name what is there, and what is there as soon as it is named."""
        return sorted({*globals(), *__all__})
