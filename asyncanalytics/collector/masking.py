"""What a request looked like, with every key in it hidden.

A header or a parameter is taken for a secret by its name, and whatever the request's own key
stands in, it is hidden there too. Of a key of twelve characters or more the last four are shown,
so that two can be told apart; of a shorter one nothing.
"""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus

from asyncanalytics.collector.reading import basic_credentials, dump

if TYPE_CHECKING:
    from starlette.requests import Request

MASK: Final = "••••"
_LONG_ENOUGH: Final = 12
_SHOWN: Final = 4
_TELLING: Final = 6
"""Characters of a key at least for it to be looked for in other places: `a` is everywhere."""
_MAX_HEADERS: Final = 100
_MAX_VALUE: Final = 1_000  # characters of a header's value, and of a query
_SECRET: Final = re.compile(
    "auth|cookie|key|token|secret|passw|credential|session|signature|csrf|xsrf|jwt|^appid$",
    re.IGNORECASE,
)
_USER_OF_URL: Final = re.compile(r"://[^/?#\s@]*@")
_KEY_OF_BODY: Final = re.compile(rb'"(?:writeKey|appId)"\s*:\s*"([^"\\]{1,200})"')
_MASKED_TEXT: Final = dump(MASK)
_SCHEMES: Final = frozenset({"basic", "bearer", "digest", "token", "negotiate", "apikey"})

Pairs = Sequence[tuple[str, str]]


def masked(key: str) -> str:
    """Return what may be shown of a key."""
    return MASK + key[-_SHOWN:] if len(key) >= _LONG_ENOUGH else MASK


def masked_headers(headers: Pairs, keys: Collection[str]) -> Pairs:
    """Return the headers with what is secret in them hidden, and the rest within bounds.

    Their names are in lower case, as ASGI has them.
    """
    headers = headers[:_MAX_HEADERS]
    return [(name, _cut(_masked_value(name, value, keys))) for name, value in headers]


def _masked_value(name: str, value: str, keys: Iterable[str]) -> str:
    mask = _mask_of(name)
    if mask is not None:
        return mask(value)
    before, query, _ = value.partition("?")
    if query and "/" in before:  # an address, whose query may hold anything
        value = f"{before}?{MASK}"
    return _without(keys, _USER_OF_URL.sub(f"://{MASK}@", value))


@lru_cache(1_024)
def _mask_of(name: str) -> Callable[[str], str] | None:
    """Return what hides the values of a name; None where they are no secret."""
    return _MASKS.get(name) or (masked if _SECRET.search(name) else None)


def _masked_authorization(value: str) -> str:
    scheme, _, rest = value.strip().partition(" ")
    if scheme.lower() not in _SCHEMES:
        return masked(value.strip())  # a key alone
    if scheme.lower() == "basic":
        return f"{scheme} {masked(_basic_key(rest.strip()))}"
    return f"{scheme} {masked(rest.strip())}"


def _basic_key(encoded: str) -> str:
    """Return the key of Basic; no text where there is none, or a password beside it."""
    key, password = basic_credentials(encoded) or ("", "")
    return "" if password else key


def _masked_cookies(value: str) -> str:
    return "; ".join(_masked_cookie(each) for each in value.split(";"))


def _masked_cookie(cookie: str) -> str:
    name, equals, _ = cookie.strip().partition("=")
    return f"{name}={MASK}" if equals else MASK


_MASKS: Final = {
    "authorization": _masked_authorization,
    "proxy-authorization": _masked_authorization,
    "cookie": _masked_cookies,
    "set-cookie": _masked_cookies,
}


def header_keys(headers: Pairs) -> Iterable[str]:
    """Return what may be a key in Authorization, whatever its form: copies of it are hidden."""
    for name, value in headers:
        if name == "authorization":
            scheme, _, rest = value.strip().partition(" ")
            yield rest.strip() or scheme
            if scheme.lower() not in _SCHEMES:
                yield scheme
            with contextlib.suppress(ValueError):
                text = base64.b64decode(rest.strip(), validate=True).decode()
                yield text
                yield from text.split(":", 1)


def body_keys(data: bytes | bytearray) -> set[str]:
    """Return the keys in a body that nobody reads, or that has more of them than count."""
    return {each.decode("utf-8", "replace") for each in _KEY_OF_BODY.findall(data)}


def masked_payload(payload: bytes, key: str | None) -> bytes:
    """Return an event's JSON with the texts hidden that are its key."""
    if key is None or len(key) < _TELLING:
        return payload
    text = dump(key)
    return payload.replace(text, _MASKED_TEXT) if text in payload else payload


def _without(keys: Iterable[str], value: str) -> str:
    for key in keys:
        if key and key in value and (len(key) >= _TELLING or key == value):
            value = value.replace(key, MASK)
    return value


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 1] + "…"


def masked_path(request: Request, keys: Collection[str]) -> str:
    """Return the path with its query, what is secret in it hidden; a pixel's query is its event."""
    path, query = request.scope["path"], request.scope["query_string"].decode("latin-1")
    if not query or request.method == "GET":
        return _cut(path)
    return _cut(f"{path}?{'&'.join(_masked_pair(each, keys) for each in query.split('&'))}")


def _masked_pair(pair: str, keys: Iterable[str]) -> str:
    name, equals, value = pair.partition("=")
    plain = unquote_plus(value)
    hide = _mask_of(unquote_plus(name)) or _without(keys, plain) != plain
    hide = hide or _USER_OF_URL.search(plain) is not None
    return f"{name}{equals}{MASK}" if hide else pair
