"""What the integrations ask of what they are given."""

from __future__ import annotations

from asyncanalytics.client import AsyncClient
from asyncanalytics.errors import ConfigurationError
from asyncanalytics.sync import Client


def check_async(client: object, where: str) -> None:
    """Raise `ConfigurationError` for anything but the client of an event loop."""
    if isinstance(client, Client):
        raise ConfigurationError(
            f"{where} needs an AsyncClient: a Client has a thread of its own; call it directly, "
            "and close it where the process ends"
        )
    if not isinstance(client, AsyncClient):
        raise ConfigurationError(f"{where} needs an AsyncClient, not a {type(client).__name__}")


def check_sync(client: object, where: str) -> None:
    """Raise `ConfigurationError` for anything but the client for threads."""
    if not isinstance(client, Client):
        raise ConfigurationError(
            f"{where} needs a Client, not a {type(client).__name__}: its code runs in no event loop"
        )
