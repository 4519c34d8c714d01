"""Where calls go. Every destination keeps the same protocol: a batch in, a verdict out."""

from typing import TYPE_CHECKING

from asyncanalytics import later
from asyncanalytics.destinations.base import BaseDestination
from asyncanalytics.destinations.http import Destination

if TYPE_CHECKING:
    from asyncanalytics.destinations.console import ConsoleDestination
    from asyncanalytics.destinations.duckdb import DuckdbDestination
    from asyncanalytics.destinations.file import FileDestination
    from asyncanalytics.destinations.sqlite import SqliteDestination
    from asyncanalytics.destinations.webhook import WebhookDestination
else:
    __getattr__, __dir__ = later.names(
        __name__,
        {
            "ConsoleDestination": "console",
            "DuckdbDestination": "duckdb",
            "FileDestination": "file",
            "SqliteDestination": "sqlite",
            "WebhookDestination": "webhook",
        },
    )

__all__ = [
    "BaseDestination",
    "ConsoleDestination",
    "Destination",
    "DuckdbDestination",
    "FileDestination",
    "SqliteDestination",
    "WebhookDestination",
]
