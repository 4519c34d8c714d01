"""What single headers say, as texts that are fit to be sent on.

Every function takes bytes from a stranger, raises nothing, and bounds its work and its answer.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus, unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_URL = 2_048
MAX_ID = 256
MAX_AGENT = 1_024
MAX_WORD = 256
"""Characters of a parameter of the campaign, or of one client hint."""
_MAX_LIST = 512  # bytes of a header that is a list
_MAX_COOKIES = 16_384

_JOINED = {
    b"accept-language": b",",
    b"cookie": b";",
    b"sec-ch-ua": b",",
    b"sec-ch-ua-full-version-list": b",",
    b"x-forwarded-for": b",",
    b"x-forwarded-proto": b",",
}
"""Headers that go on in another one of the same name, and what stands between."""
_ALONE = (
    b"dnt",
    b"host",
    b"referer",
    b"sec-ch-ua-arch",
    b"sec-ch-ua-bitness",
    b"sec-ch-ua-mobile",
    b"sec-ch-ua-model",
    b"sec-ch-ua-platform",
    b"sec-ch-ua-platform-version",
    b"sec-gpc",
    b"user-agent",
)
_READ = frozenset([*_JOINED, *_ALONE])
_COOKIES = {b"ajs_anonymous_id": "anonymous", b"ajs_user_id": "user"}
_WORDS = {
    "platform": b"sec-ch-ua-platform",
    "platformVersion": b"sec-ch-ua-platform-version",
    "model": b"sec-ch-ua-model",
    "architecture": b"sec-ch-ua-arch",
    "bitness": b"sec-ch-ua-bitness",
}

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
_QUOTED = r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
_BRAND = re.compile(rf"{_QUOTED}\s*;\s*v={_QUOTED}")
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*")


def collect(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers that are read here; of one that may stand only once, the first."""
    found: dict[bytes, bytes] = {}
    again: dict[bytes, list[bytes]] = {}
    for name, value in pairs:
        if name in _READ:
            if name not in found:
                found[name] = value
            elif name in _JOINED:
                again.setdefault(name, [found[name]]).append(value)
    for name, values in again.items():
        found[name] = _JOINED[name].join(values)
    return found


def text(value: bytes, limit: int) -> str:
    """Return so many characters at most, without control characters."""
    return clean(value[: limit * 4].decode("utf-8", "replace"), limit)


def clean(value: str, limit: int) -> str:
    """Return a text without what no text needs, cut to a length."""
    value = value[:limit]
    return (value if value.isprintable() else _CONTROL.sub("", value)).strip()


def locale(value: bytes) -> str:
    """Return the best of Accept-Language."""
    best, best_quality = "", 0.0
    for part in value[:_MAX_LIST].decode("latin-1").split(","):
        tag, _, weight = part.partition(";")
        quality = _quality(weight) if weight else 1.0
        if quality > best_quality and _LANGUAGE.fullmatch(tag := tag.strip()):
            best, best_quality = tag, quality
            if quality >= 1.0:
                break
    return best


def _quality(weight: str) -> float:
    name, _, number = weight.partition("=")
    try:
        return min(float(number), 1.0) if name.strip() == "q" else 0.0
    except ValueError:
        return 0.0


def agent_data(found: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return the client hints, named as browsers do in NavigatorUAData."""
    data: dict[str, Any] = {}
    if brands := _brands(found.get(b"sec-ch-ua", b"")):
        data["brands"] = brands
    mobile = found.get(b"sec-ch-ua-mobile")
    if mobile in (b"?0", b"?1"):
        data["mobile"] = mobile == b"?1"
    for name, header in _WORDS.items():
        if header in found and (word := _word(found[header])):
            data[name] = word
    if brands := _brands(found.get(b"sec-ch-ua-full-version-list", b"")):
        data["fullVersionList"] = brands
    return data


def _brands(value: bytes) -> list[dict[str, str]]:
    if not value:
        return []
    listed = text(value, _MAX_LIST)
    return [
        {"brand": _unescaped(brand), "version": _unescaped(version)}
        for brand, version in _BRAND.findall(listed)
    ]


def _word(value: bytes) -> str:
    """Return a quoted string's content; what is not quoted, as it is."""
    word = text(value, MAX_WORD)
    quoted = len(word) > 1 and word[0] == word[-1] == '"'
    return _unescaped(word[1:-1]) if quoted else word


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value) if "\\" in value else value


def ids(cookies: bytes) -> dict[str, str]:
    """Return the ids that analytics.js has noted: `anonymous` and `user`."""
    if b"ajs_" not in cookies:
        return {}
    found: dict[str, str] = {}
    for cookie in cookies[:_MAX_COOKIES].split(b";"):
        name, _, value = cookie.partition(b"=")
        whose = _COOKIES.get(name.strip())
        if whose is not None and (known := _id(value)):
            found.setdefault(whose, known)
    return found


def _id(value: bytes) -> str:
    """Read an id as a cookie has it: percent-encoded, and as JSON by older versions."""
    if len(value) > MAX_ID * 12:  # four bytes a character, each of them encoded
        return ""
    try:
        found = unquote_to_bytes(value).decode().strip()
        if found.startswith('"'):
            found = json.loads(found)
    except ValueError:
        return ""
    if found in ("null", "undefined") or found[:1] in ("{", "["):
        return ""
    if len(found) > MAX_ID or not (found.isprintable() or _CONTROL.search(found) is None):
        return ""
    return found


def query(value: str, keep: str) -> str:
    """Return a query string without its `?`, cut to what may be known of it."""
    if keep == "full":
        return value
    if keep == "dropped" or "utm_" not in value:
        return ""
    return "&".join(part for part in value.split("&") if part.startswith("utm_"))


def address(value: str, keep: str) -> str:
    """Return an address whose query is cut likewise, without a fragment and a password."""
    base, _, asked = value.partition("#")[0].partition("?")
    scheme, separator, rest = base.partition("://")
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        base = f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"
    kept = query(asked, keep)
    return f"{base}?{kept}" if kept else base


_CAMPAIGN = {
    "utm_campaign": "name",
    "utm_source": "source",
    "utm_medium": "medium",
    "utm_term": "term",
    "utm_content": "content",
}


def campaign(asked: str) -> dict[str, str]:
    """Return the campaign of a query string."""
    if "utm_" not in asked:
        return {}
    found: dict[str, str] = {}
    for part in asked.split("&"):
        name, _, value = part.partition("=")
        if name in _CAMPAIGN and (word := clean(unquote_plus(value), MAX_WORD)):
            found.setdefault(_CAMPAIGN[name], word)
    return found
