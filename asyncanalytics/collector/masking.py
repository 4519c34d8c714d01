"""What a request looked like, with every key in it hidden.

What is read of a request tells its key, and wherever that stands it is hidden. But a request may
be refused before it is read, and a key may stand where no key is looked for. So values are shown
under the names alone that everybody sends and nobody puts a key into; under any other, only what
is too short to be a key. Of a key of twelve characters or more the last four are shown where keys
belong, so that two can be told apart; of a shorter one nothing.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus

from asyncanalytics.collector.reading import basic_credentials, dump, parse

if TYPE_CHECKING:
    from starlette.requests import Request

MASK: Final = "••••"
_LONG_ENOUGH: Final = 12
_SHOWN: Final = 4
_TELLING: Final = 6
"""Characters of a key at least for it to be looked for in other places: `a` is everywhere."""
MAX_KEYS: Final = 16
"""Keys of a request that are looked for in all its events."""
_MAX_HEADERS: Final = 100
_MAX_PARAMETERS: Final = 10  # of a Content-Type; the rest is taken as one
_MAX_VALUE: Final = 1_000  # characters of a header's value, and of a query
_SECRET: Final = re.compile(
    "auth|cookie|key|token|secret|passw|credential|session|signature|csrf|xsrf|jwt|^appid$",
    re.IGNORECASE,
)
_HARMLESS: Final = frozenset(
    {
        *("accept", "accept-charset", "accept-encoding", "accept-language", "cache-control"),
        *("connection", "content-encoding", "content-language", "content-length", "content-type"),
        *("date", "dnt", "expect", "forwarded", "host", "keep-alive", "origin", "pragma"),
        *("priority", "referer", "te", "traceparent", "transfer-encoding", "user-agent", "via"),
        *("upgrade-insecure-requests", "x-real-ip", "x-request-id", "x-retry-count"),
        *(f"x-forwarded-{each}" for each in ("for", "host", "port", "proto")),
        *(f"sec-ch-ua{each}" for each in ("", "-mobile", "-platform")),
        *(f"sec-fetch-{each}" for each in ("dest", "mode", "site", "user")),
    }
)
_NAME: Final = re.compile(
    r"[a-z][a-z_.-]{0,4}|app[-_]?id|(write|api|app|access|auth)[-_]?(key|token)|charset|boundary",
    re.IGNORECASE,
)
"""Names of parameters that are shown, short ones among them; any other may be a key."""
_USER_OF_URL: Final = re.compile(r"://[^/?#\s@]*@")
_KEY_OF_BODY: Final = re.compile(rb'"(?:writeKey|appId)"\s*:\s*"([^"\\]{1,200})"')
_WRITE_KEY_OF_BODY: Final = re.compile(rb'"writeKey"\s*:\s*"([^"\\]{1,200})"')
_KEY_NAME: Final = re.compile(
    r"(write|api|app|access|auth)[-_]?(key|token)|^app[-_]?id$", re.IGNORECASE
)
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


def _masked_value(name: str, value: str, keys: Collection[str]) -> str:
    mask = _mask_of(name)
    if mask is not None:
        return mask(value)
    if name not in _HARMLESS and len(value) >= _TELLING:
        return MASK
    before, query, _ = value.partition("?")
    if query and "/" in before:  # an address, whose query may hold anything
        value = f"{before}?{MASK}"
    if name == "content-type":
        first, *more = value.split(";", _MAX_PARAMETERS)
        value = "; ".join([first, *(_masked_pair(each.strip(), keys) for each in more)])
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


def request_keys(request: Request) -> list[str]:
    """Return what may be a key in the headers and the query: copies of it are hidden elsewhere."""
    found = list[str]()
    for name, value in (*request.headers.items(), *request.query_params.multi_items()):
        if name == "authorization":
            found += _authorization_keys(value.strip())
        elif _is_of_key(name):
            found.append(value.strip())
    return found


@lru_cache(1_024)
def _is_of_key(name: str) -> bool:
    return _KEY_NAME.search(name) is not None


def _authorization_keys(value: str) -> Iterable[str]:
    """Return what may be a key in Authorization, whatever its form."""
    scheme, _, rest = value.partition(" ")
    yield rest.strip() or scheme
    if scheme.lower() not in _SCHEMES:
        yield scheme
    with contextlib.suppress(ValueError):
        yield from base64.b64decode(rest.strip(), validate=True).decode().split(":", 1)


def body_keys(data: bytes | bytearray) -> set[str]:
    """Return what stands in a body where keys do, whether anybody reads it or not."""
    return {each.decode("utf-8", "replace") for each in _KEY_OF_BODY.findall(data)}


def write_keys_of(data: bytes | bytearray) -> list[str]:
    """Return all that is named `writeKey` in a body, also what another one of the name replaced."""
    found = _WRITE_KEY_OF_BODY.findall(data)
    return [each.decode("utf-8", "replace") for each in dict.fromkeys(found)]


class Hiding:
    """The keys of one request, and what hides them in its events.

    Each event is searched for each of them. So there is a bound, and how they are written is made
    out once.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        """Hide the first of these keys, as many as the bound lets in."""
        telling = dict.fromkeys(key for key in keys if len(key) >= _TELLING)
        self._keys = frozenset(itertools.islice(telling, MAX_KEYS))
        self._forms = _forms(self._keys)

    def payload(self, payload: bytes, own: Iterable[str] = ()) -> bytes:
        """Return an event's JSON, in the form that it is kept in, with the keys in it hidden.

        Those of its own are hidden whatever the bound. One that could be a part of some other word
        is hidden only where it is a text of its own.
        """
        more = [key for key in own if len(key) >= _TELLING and key not in self._keys]
        forms = self._forms + _forms(more) if more else self._forms
        found = [key for form, key in forms if form in payload]
        if not found and b'"writeKey"' not in payload:
            return payload
        value = parse(payload).value
        shown = _masked_json(value, sorted(found, key=len, reverse=True))  # one may be in another
        return payload if shown == value else dump(shown)


def _forms(keys: Iterable[str]) -> list[tuple[bytes, str]]:
    """Return how keys are written in JSON, each with its key.

    Beside a lone surrogate all but ASCII is escaped. A key that is hidden only as a text of its own
    is looked for with its quotes.
    """
    return [
        (form if len(key) < _LONG_ENOUGH else form[1:-1], key)
        for key in keys
        for form in {dump(key), json.dumps(key).encode()}
    ]


def _masked_json(value: Any, keys: Sequence[str]) -> Any:
    if isinstance(value, dict):
        masked = {
            _masked_text(name, keys): _masked_json(each, keys) for name, each in value.items()
        }
        return masked | ({"writeKey": MASK} if isinstance(value.get("writeKey"), str) else {})
    if isinstance(value, list):
        return [_masked_json(each, keys) for each in value]
    return _masked_text(value, keys) if isinstance(value, str) else value


def _masked_text(text: str, keys: Iterable[str]) -> str:
    for key in keys:
        if key == text or len(key) >= _LONG_ENOUGH:
            text = text.replace(key, MASK)
    return text


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
    if not query or request.method != "POST":
        return _cut(path)
    return _cut(f"{path}?{'&'.join(_masked_pair(each, keys) for each in query.split('&'))}")


def _masked_pair(pair: str, keys: Collection[str]) -> str:
    name, equals, value = pair.partition("=") if "=" in pair else ("", "", pair)
    plain_name, plain = unquote_plus(name), unquote_plus(value)
    is_name = not name or (_NAME.fullmatch(plain_name) and plain_name not in keys)
    hide = _mask_of(plain_name) or len(plain) >= _TELLING or plain in keys
    return f"{name if is_name else MASK}{equals}{MASK if hide else value}"
