"""From a request to data: the body within its caps, its JSON, and the key it bears.

Nothing is held beyond the caps: a body that is too large is refused while it arrives, and a
compressed one is inflated piece by piece, so that a bomb stops at `max_inflated`.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

import orjson

from asyncanalytics.collector.answers import Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from starlette.datastructures import Headers
    from starlette.requests import Request

MAX_DEPTH: Final = 254
"""Levels of an event that can be kept: as many as what writes JSON quickly can write."""
_DRAIN: Final = 16 * 1024 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS
_DIGITS: Final = bytes(48 if chr(each).isdecimal() else 32 for each in range(256))
_LONG_NUMBER: Final = b"0" * 19


@dataclass(frozen=True, kw_only=True, slots=True)
class Caps:
    """Bytes of a body at most, as it comes and once inflated. Beyond them the answer is 413."""

    max_body: int
    max_inflated: int


@dataclass(frozen=True, slots=True)
class Body:
    """A body that was read: its JSON text, and how many bytes it had on the way."""

    data: bytearray
    received: int


class _Decoder(Protocol):
    def feed(self, chunk: bytes, room: int) -> bytes: ...

    def finish(self) -> None: ...


class _Plain:
    def feed(self, chunk: bytes, room: int) -> bytes:  # noqa: ARG002 - the chunk is in memory
        return chunk

    def finish(self) -> None:
        """A plain body ends where it ends."""


class _Gunzip:
    """One gzip member, as every SDK sends it; more than one is refused."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=_GZIP)

    def feed(self, chunk: bytes, room: int) -> bytes:
        """Inflate at most `room` bytes: the rest is only ever looked at to be refused."""
        if self._inflate.eof:
            _bad_gzip()
        try:
            return self._inflate.decompress(chunk, room)
        except zlib.error:
            _bad_gzip()

    def finish(self) -> None:
        if not self._inflate.eof or self._inflate.unused_data:
            _bad_gzip()


def _bad_gzip() -> NoReturn:
    raise Refused(400, "bad_gzip", "the body is not one complete gzip member")


async def read_body(request: Request, caps: Caps) -> Body:
    """Read a JSON body, or raise `Refused`: 415 for another type or encoding, 413, 400."""
    chunks = request.stream()
    try:
        _require_json(request.headers)
        return await _collect(chunks, _decoder(request.headers), caps)
    except Refused:
        await _drain(chunks)
        raise


def _require_json(headers: Headers) -> None:
    """Refuse what a form on any web page could send.

    A form cannot compress, and a script that does so asks first. RudderStack's SDK for Node calls
    what it compresses a form.
    """
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and "content-encoding" not in headers:
        raise Refused(415, "not_json", "the Content-Type must be application/json")


def _decoder(headers: Headers) -> _Decoder:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding == "gzip":
        return _Gunzip()
    if encoding == "identity":
        return _Plain()
    raise Refused(415, "unknown_encoding", "the Content-Encoding must be gzip or none")


async def _collect(chunks: AsyncIterator[bytes], decoder: _Decoder, caps: Caps) -> Body:
    data, received = bytearray(), 0
    async for chunk in chunks:
        received += len(chunk)
        if received > caps.max_body:
            raise Refused(413, "body_too_large", f"the limit is {caps.max_body:,} bytes")
        if chunk:
            data += decoder.feed(chunk, caps.max_inflated - len(data) + 1)
        if len(data) > caps.max_inflated:
            raise Refused(413, "inflated_too_large", f"the limit is {caps.max_inflated:,} bytes")
    decoder.finish()
    return Body(data, received)


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Let what is left of a refused body pass by, up to a bound.

    A connection closed in the middle of a body is reset, and the client would see that in
    place of the answer.
    """
    passed = 0
    async for chunk in chunks:
        passed += len(chunk)
        if passed > _DRAIN:
            return


@dataclass(frozen=True, slots=True)
class Parsed:
    """A JSON value, and what writes its parts as compact JSON without losing anything.

    `dump` raises ValueError, TypeError or RecursionError for a part that is nested too deep.
    """

    value: Any
    dump: Callable[[Any], bytes]


def parse(data: bytes | bytearray) -> Parsed:
    """Parse JSON exactly: whole numbers of any size and lone surrogates are kept as they are."""
    if _LONG_NUMBER not in data.translate(_DIGITS):
        try:
            return Parsed(orjson.loads(data), orjson.dumps)
        except orjson.JSONDecodeError:
            pass  # a lone surrogate, perhaps, which only the slow way takes
    return Parsed(_parse_slowly(data), _dump_slowly)


def _parse_slowly(data: bytes | bytearray) -> Any:
    try:
        return json.loads(
            data.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite_float
        )
    except (ValueError, RecursionError):
        raise Refused(400, "invalid_json", "the body is not valid JSON") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite_float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(text)
    return number


def _dump_slowly(value: Any) -> bytes:
    if _is_deeper(value, MAX_DEPTH):  # what is kept can be read whatever the stack is then
        raise ValueError("nested too deep")
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:  # UTF-8 has no lone surrogates: they stay escaped
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth + 1):
        level = [inner for each in level for inner in _inner(each)]
        if not level:
            return False
    return True


def _inner(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def dump(value: Any) -> bytes:
    """Write what `parse` gave, or a part of it, as compact JSON, whatever its numbers and texts."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return _dump_slowly(value)


def utf8_text(text: str) -> str:
    """Return the text with any lone surrogate spelled out, so that UTF-8 can hold it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def request_key(headers: Headers, *, plain: bool) -> str | None:
    """Return the key of the Authorization header, or None where there is none.

    Basic carries it as the user name with an empty password. `plain` says that the whole header
    is the key, unless it is Bearer. Raises `Refused` with 401 for a header of any other form.
    """
    header = headers.get("authorization")
    if header is None:
        return None
    scheme, _, rest = header.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer" and rest:
        return rest
    if plain and scheme:
        return header.strip()
    if scheme.lower() == "basic":
        return _basic_user(rest)
    return _bad_authorization()


def _basic_user(encoded: str) -> str:
    user, password = basic_credentials(encoded) or ("", "")
    return user if user and not password else _bad_authorization()


def basic_credentials(encoded: str) -> tuple[str, str] | None:
    """Return the user name and the password of Basic; None for what is not of that form."""
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        return None
    return (user, password) if colon else None


def _bad_authorization() -> NoReturn:
    raise Refused(
        401,
        "bad_authorization",
        "Authorization must be Basic with the key as user name and an empty password, or Bearer",
    )


def pixel_data(request: Request) -> bytes:
    """Return the JSON text of a pixel's `data`: base64, in either alphabet, padded or not."""
    text = request.query_params.get("data", "").replace(" ", "+").translate(_STANDARD_ALPHABET)
    try:
        data = base64.b64decode(
            text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True
        )
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise Refused(400, "bad_data", "the data parameter must be a JSON object in base64")
    return data


_STANDARD_ALPHABET: Final = str.maketrans("-_", "+/")


_KEY_MEMBERS: Final = ("writeKey", "appId")


def keys_in(holder: dict[str, Any]) -> list[str]:
    """Return all that stands where the write key does in an event or an envelope."""
    found = (holder.get(name) for name in _KEY_MEMBERS)
    return [each for each in found if isinstance(each, str) and each]


def take_key(holder: dict[str, Any]) -> str | None:
    """Remove the write key from an event or an envelope, and return it where it is one."""
    key = holder.pop("writeKey", None)
    app_id = holder.pop("appId", None)
    found = key or app_id
    return found if isinstance(found, str) and found else None
