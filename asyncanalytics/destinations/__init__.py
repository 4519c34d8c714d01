"""Where calls go. Every destination keeps the same protocol: a batch in, a verdict out."""

from asyncanalytics.destinations.base import BaseDestination
from asyncanalytics.destinations.console import ConsoleDestination
from asyncanalytics.destinations.file import FileDestination
from asyncanalytics.destinations.http import Destination

__all__ = ["BaseDestination", "ConsoleDestination", "Destination", "FileDestination"]
