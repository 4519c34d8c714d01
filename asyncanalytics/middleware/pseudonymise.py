"""Put pseudonyms in the place of names: always the same one, and of no use without the key.

A pseudonym is the HMAC-SHA-256 of a value, in hexadecimal. A plain hash would not do: there are few
enough e-mail addresses to try them all.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final

import orjson

from asyncanalytics import paths
from asyncanalytics.errors import ConfigurationError
from asyncanalytics.middleware.base import OnWire, Wire
from asyncanalytics.secret import Secret, Unpicklable

if TYPE_CHECKING:
    from asyncanalytics.paths import Path

_LEAST: Final = 16  # bytes of a key


class _Pseudonyms(OnWire, Unpicklable):
    def __init__(self, found: list[Path], key: Secret) -> None:
        self._paths = found
        self._key = key

    def apply(self, wire: Wire) -> Wire:
        for path in self._paths:
            wire = paths.replace(wire, path, self._of)
        return wire

    def _of(self, value: Any) -> Any:
        if value is None or value == "":
            return value
        if isinstance(value, list):
            return [self._of(each) for each in value]
        text = paths.text_of(value)
        content = _json(value) if text is None else text.encode("utf-8", "surrogatepass")
        key: Any = self._key.reveal()
        return hmac.digest(key, content, "sha256").hex()


def pseudonymise(*members: str, key: str | bytes | Secret) -> OnWire:
    """Replace the values at these paths by pseudonyms: `pseudonymise("traits.email", key=...)`.

    Numbers and booleans count as their JSON text, so the id 7 and the id "7" have one pseudonym. In
    a list each item gets its own; an object gets one as a whole. Null and empty text stay.

    Args:
        members: paths, see `asyncanalytics.paths`.
        key: at least 16 bytes that stay secret; with another key the pseudonyms are others.

    Raises:
        ConfigurationError: if no path is given, or one that is none, or a short key.
    """
    secret = Secret(key)
    del key  # what fails below shows this frame
    if not members:
        raise ConfigurationError("give at least one path, such as traits.email")
    found = [paths.parse_changeable(each) for each in members]
    secret = Secret(_as_bytes(secret.reveal()))
    if not secret:
        raise ConfigurationError(f"the key of pseudonymise must have at least {_LEAST} bytes")
    return _Pseudonyms(found, secret)


def _as_bytes(key: object) -> bytes:
    content = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    return content if isinstance(content, bytes) and len(content) >= _LEAST else b""


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        return repr(value).encode("utf-8", "surrogatepass")
