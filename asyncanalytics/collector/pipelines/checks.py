"""What each member of a configuration is looked at with, where it stands.

Mostly it is what will use it that checks it. No error shows a key, or a URL that may hold one.
"""

from pathlib import Path
from typing import Annotated, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo

from asyncanalytics import endpoints
from asyncanalytics.collector.pipelines.pointing import empty
from asyncanalytics.collector.pipelines.suggestions import unknown
from asyncanalytics.destinations import ConsoleDestination, SqliteDestination, WebhookDestination
from asyncanalytics.destinations.http import check_key
from asyncanalytics.errors import ConfigurationError
from asyncanalytics.middleware import where
from asyncanalytics.secret import Secret

_PLACES: Final = ("webhook", "file", "sqlite", "duckdb", "console")
_Given = TypeVar("_Given")


def condition(text: str) -> str:
    """Look at an expression."""
    where(when=text)
    return text


def destination_name(name: str) -> str:
    """Look at the name of an integration."""
    ConsoleDestination(name=name)
    return name


def table(name: str) -> str:
    """Look at the name of a table."""
    SqliteDestination("events.db", table=name)
    return name


def path(given: _Given) -> _Given:
    """Look at a path before it is made one: an empty one would be the folder itself."""
    if given == "":
        raise ValueError("is empty: give the path of a file or folder")
    return given


# ---------------------------------------------------------------------------------------- places


def is_url(text: str) -> bool:
    """Whether a place is given as a URL, and not as a system with a URL of its own."""
    return "://" in text.partition("@")[0]


def place(text: str) -> str:
    """Look at a place; a URL is checked with how it is spoken to."""
    if is_url(text):
        return text
    name, _, host = text.partition("@")
    if name not in endpoints.names():
        raise ValueError(unknown(text, [*_PLACES, *endpoints.names()], "a URL, or one of "))
    if "://" in host:
        check_url(host, insecure=False, way="give the URL alone, with endpoint.insecure = true")
    endpoints.parse(text)
    return text


def check_url(url: str, *, insecure: bool, way: str) -> None:
    """Look at a URL, and say by which way it may be one in the clear."""
    endpoints.custom(url, insecure=True)
    try:
        endpoints.custom(url, insecure=insecure)
    except ConfigurationError:
        raise ValueError(
            "http:// would send all in the clear: use https://, or, if the network is your own, "
            + way
        ) from None


def webhook_url(url: SecretStr, info: ValidationInfo) -> SecretStr:
    """Look at the URL of a webhook, where whether it may be insecure is known already."""
    WebhookDestination(Secret(url.get_secret_value()), insecure=True, name="url")
    parts = urlsplit(url.get_secret_value())
    insecure = info.data.get("insecure", True)
    check_url(f"{parts.scheme}://{parts.netloc}", insecure=insecure, way="set insecure = true")
    return url


# ----------------------------------------------------------------------------------------- keys


def write_key(key: SecretStr) -> SecretStr:
    """Look at the key of a pipeline."""
    if not key.get_secret_value():
        raise ValueError(empty("write_key"))
    return key


def key(key: SecretStr) -> SecretStr:
    """Look at the key of a system."""
    if not key.get_secret_value():
        raise ValueError(empty("key"))
    check_key(Secret(key.get_secret_value()))
    return key


def webhook_secret(secret: SecretStr) -> SecretStr:
    """Look at the secret that signs."""
    WebhookDestination("https://localhost", secret=Secret(secret.get_secret_value()), name="secret")
    return secret


def headers(given: dict[str, SecretStr]) -> dict[str, SecretStr]:
    """Look at headers."""
    endpoints.custom("https://localhost", headers=shown(given))
    return given


def shown(headers: dict[str, SecretStr]) -> dict[str, str]:
    """Return headers as they are sent."""
    return {name: value.get_secret_value() for name, value in headers.items()}


# ----------------------------------------------------------------------------------------- types

Text = Annotated[str, Field(min_length=1)]
Name = Annotated[Text, Field(max_length=100)]
FilePath = Annotated[Path, BeforeValidator(path)]
Headers = Annotated[dict[str, SecretStr], AfterValidator(headers)]
