"""Asyncio-native analytics for Python back ends.

    async with AsyncClient("WRITE_KEY") as analytics:
        await analytics.track("Order Completed", user_id="u1", properties={"revenue": 25.0})

identify, track, page, screen, group and alias calls go to any Segment-compatible endpoint, in
batches, without blocking the event loop, and every accepted call ends with a named outcome.
"""

import logging
import typing

from asyncanalytics import endpoints, later, process  # noqa: F401 - it cannot be imported at the end
from asyncanalytics._version import __version__
from asyncanalytics.binding import bound_context
from asyncanalytics.bound import BoundClient
from asyncanalytics.client import AsyncClient, LifespanState, State
from asyncanalytics.destinations import BaseDestination, Destination
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

if typing.TYPE_CHECKING:
    from asyncanalytics.calls import Alias, Call, Context, Group, Identify, Page, Screen, Track
    from asyncanalytics.destinations import (
        ConsoleDestination,
        DuckdbDestination,
        FileDestination,
        SqliteDestination,
        WebhookDestination,
    )
    from asyncanalytics.middleware import Middleware
    from asyncanalytics.sync import Client

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

if not typing.TYPE_CHECKING:
    # pydantic's models take longer to import than all else here, and middleware needs them. The
    # others bring what few programs use.
    __getattr__, __dir__ = later.names(
        __name__,
        {
            **dict.fromkeys(
                ("Alias", "Call", "Context", "Group", "Identify", "Page", "Screen", "Track"),
                "calls",
            ),
            **dict.fromkeys(
                (
                    "ConsoleDestination",
                    "DuckdbDestination",
                    "FileDestination",
                    "SqliteDestination",
                    "WebhookDestination",
                ),
                "destinations",
            ),
            "Client": "sync",
            "Middleware": "middleware",
        },
    )
