"""Where calls go. Every destination keeps the same protocol: a batch in, a verdict out."""

from asyncanalytics.destinations.base import BaseDestination
from asyncanalytics.destinations.console import ConsoleDestination
from asyncanalytics.destinations.duckdb import DuckdbDestination
from asyncanalytics.destinations.file import FileDestination
from asyncanalytics.destinations.http import Destination
from asyncanalytics.destinations.sqlite import SqliteDestination
from asyncanalytics.destinations.webhook import WebhookDestination

__all__ = [
    "BaseDestination",
    "ConsoleDestination",
    "Destination",
    "DuckdbDestination",
    "FileDestination",
    "SqliteDestination",
    "WebhookDestination",
]
