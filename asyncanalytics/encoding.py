"""A call becomes bytes exactly once, and batches are made by joining those bytes.

Invariants:
- An encoded call is an exact-size, immutable copy: the caller's dicts are never changed, and
  changing them afterwards does not change the call.
- It is kept without its opening brace. An envelope joins calls with `,{`, and where an endpoint
  wants a member of its own in each call (a key, say), that member follows the brace: so no key
  is ever stored with a call, and no call is copied for it.
- Sizes are exact: an envelope knows its length before it is written.

What becomes of values that JSON does not have:
- datetime, date, time: ISO 8601; a datetime without a zone is taken as UTC. timedelta: ISO 8601.
- UUID, path, IP address: text. Enum: its value. Decimal: a number with all its digits.
- set, tuple, deque and other sequences: an array. bytes: text, if they are UTF-8.
- dataclass, attrs, pydantic model, other mappings: an object. numpy arrays and numbers as well.
- NaN and infinities: null. Integers of any size: all their digits. A lone surrogate: U+FFFD.
- keys that are numbers, booleans, None, dates, UUIDs or enums: their text.
- anything else is refused, and so is what contains itself.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import UserString, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import orjson
from pydantic_core import PydanticSerializationError
from uuid_utils import uuid4, uuid5, uuid7

from asyncanalytics._version import __version__
from asyncanalytics.errors import Unserialisable
from asyncanalytics.values import is_model, is_pydantics

if TYPE_CHECKING:
    from pydantic import BaseModel

LIBRARY = {"name": "asyncanalytics", "version": __version__}
_CHANNEL = "server"
_CONTEXT = orjson.Fragment(orjson.dumps({"library": LIBRARY, "channel": _CHANNEL}))

# OPT_APPEND_NEWLINE: orjson's own result keeps a larger allocation alive; the slice that cuts
# the newline (and the brace) off is the exact-size copy.
_options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATETIME
_NAMESPACE = uuid4()  # secret, so that nobody else's envelopes have the ids of ours
_MAX_DEPTH = 250  # orjson gives up at 254
_TOO_DEEP = "it is nested too deeply, or contains itself"

# ---------------------------------------------------------------------------------------- stamps

_MILLISECONDS = [f".{each:03d}Z" for each in range(1_000)]

_since = _until = 0.0  # the wall clock's seconds between which the text holds
_text = ""
_second: tuple[int | None, str] = None, ""  # the last one, and its text


def stamp() -> str:
    """Return the wall-clock time as ISO 8601 in UTC with milliseconds."""
    global _since, _until, _text, _second  # noqa: PLW0603 - one text serves the calls of a millisecond
    if not _since <= time.time() < _until:
        # In few steps, which are cold by then: they decide how long the slowest calls take.
        milliseconds = time.time_ns() // 1_000_000
        now = milliseconds // 1_000
        second, text = _second
        if second != now:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
            _second = now, text
        _text = text + _MILLISECONDS[milliseconds - now * 1_000]
        _since, _until = milliseconds / 1_000, (milliseconds + 1) / 1_000
    return _text


def new_id() -> str:
    """Return a new messageId: a UUID version 7, so that ids sort by time."""
    return str(uuid7())


# ----------------------------------------------------------------------------------------- calls


def encode(call: str, wire: dict[str, Any]) -> tuple[str, bytes]:
    """Return the messageId and the bytes of a validated call; `wire` is used up by it.

    What the caller left out is filled in: messageId, timestamp, and the context's library and
    channel. Raises `Unserialisable`, naming the path to the value.
    """
    wire["type"] = call
    message_id = wire.get("messageId")
    if message_id is None:
        message_id = wire["messageId"] = str(uuid7())
    if "timestamp" not in wire:
        wire["timestamp"] = stamp()
    context = wire.get("context")
    if context is None:
        wire["context"] = _CONTEXT
    else:
        context.setdefault("library", LIBRARY)
        context.setdefault("channel", _CHANNEL)
    try:
        return message_id, orjson.dumps(wire, convert, _options)[1:-1]
    except orjson.JSONEncodeError:
        return message_id, _encode_slowly(call, wire)


def encode_as_is(call: str, wire: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return a call that others have made, and its bytes, with nothing filled in.

    Where it has characters or numbers that JSON may hold and not everybody reads, both are mended.
    """
    try:
        return wire, orjson.dumps(wire, convert, _options)[1:-1]
    except orjson.JSONEncodeError:
        body = _encode_slowly(call, wire)
        return json.loads(b"{" + body), body  # which keeps integers of any size


def snapshot(call: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with copies of all dicts and lists, so that middleware may change them."""
    try:
        return {name: _copied(value) for name, value in fields.items()}
    except RecursionError:
        raise Unserialisable(call, "call", _TOO_DEEP) from None


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_copied(each) for each in value]
    return value


def convert(value: Any) -> Any:
    """Return what stands for a value that orjson does not know. Raises TypeError otherwise."""
    if _meets_numpy(value):
        return orjson.Fragment(orjson.dumps(value, convert, _options)[:-1])
    if is_model(value):
        return _model(value)
    for kinds, rule in _RULES:
        if isinstance(value, kinds):
            return rule(value)
    if is_pydantics(value, "types", "SecretStr", "SecretBytes"):
        return str(value)
    if hasattr(value, "__attrs_attrs__"):
        return {field.name: getattr(value, field.name) for field in value.__attrs_attrs__}
    raise TypeError(f"a value of type {type(value).__name__} has no JSON form: convert it first")


def _meets_numpy(value: object) -> bool:
    """Whether this is the first value of numpy; from now on orjson has its option for them.

    With it orjson imports numpy, at the first value that it does not know: so not before numpy
    is there.
    """
    global _options  # noqa: PLW0603 - all calls have the same
    if type(value).__module__ != "numpy" or _options & orjson.OPT_SERIALIZE_NUMPY:
        return False
    _options |= orjson.OPT_SERIALIZE_NUMPY
    return True


def _moment(value: datetime) -> str:
    offset = value.utcoffset()
    if offset is None:
        return value.replace(tzinfo=None).isoformat() + "Z"
    if offset.seconds % 60 or offset.microseconds:  # local mean time: RFC 3339 has no such offset
        try:
            value = value.astimezone(UTC)
        except OverflowError:
            raise TypeError("a datetime is outside the years 1 to 9999 in UTC") from None
    text = value.isoformat()
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def _decimal(value: Decimal) -> orjson.Fragment:
    return orjson.Fragment(str(value).encode() if value.is_finite() else b"null")


def _decoded(value: bytes | bytearray | memoryview) -> str:
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise TypeError("bytes that are not UTF-8 have no JSON form: encode them first") from None


def _duration(value: timedelta) -> str:
    """ISO 8601: `P1DT2.5S`, with a leading minus for negative ones."""
    sign, value = ("-", -value) if value < timedelta(0) else ("", value)
    seconds = f"{value.seconds}.{value.microseconds:06d}".rstrip("0").rstrip(".")
    return f"{sign}P{value.days}DT{seconds}S"


def _model(value: BaseModel) -> dict[str, Any]:
    try:
        return value.model_dump(by_alias=True, warnings=False)  # a warning would show values
    except PydanticSerializationError:
        raise TypeError("its own code raised an error as it was read") from None
    except ValueError:
        raise TypeError(_TOO_DEEP) from None


def _path(value: PathLike[Any]) -> str:
    path = fspath(value)
    return path if isinstance(path, str) else _decoded(path)


_RULES: tuple[tuple[Any, Any], ...] = (
    (datetime, _moment),
    ((date, time_of_day), lambda value: value.isoformat()),
    (Decimal, _decimal),
    ((AbstractSet, deque), list),
    ((bytes, bytearray, memoryview), _decoded),
    (timedelta, _duration),
    (PathLike, _path),
    ((IPv4Address, IPv6Address, IPv4Network, IPv6Network), str),
    (float, float.__float__),  # orjson knows none but float itself
    (UserString, str),  # a sequence of itself
    (Mapping, dict),
    (Sequence, list),
)

# ------------------------------------------------------------------------------------- slow path
# Taken only when orjson refuses a call: it carries what can be carried (lone surrogates, integers
# over 64 bits, keys that are no strings) and finds the path to what cannot.


def _encode_slowly(call: str, wire: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(_plain(call, wire, "", 0), convert, _options)[1:-1]
    except RecursionError:  # the caller is deep in calls too
        raise Unserialisable(call, "call", _TOO_DEEP) from None


def _plain(call: str, value: Any, path: str, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise Unserialisable(call, _shorten(path), _TOO_DEEP)
    if isinstance(value, str) and not isinstance(value, Enum):
        return _characters(value)
    if isinstance(value, int) and not isinstance(value, (bool, Enum)):
        return orjson.Fragment(_digits(call, value, path).encode())
    if isinstance(value, dict):
        return _plain_dict(call, value, path, depth)
    if isinstance(value, (list, tuple)):
        return [_plain(call, each, f"{path}[{i}]", depth + 1) for i, each in enumerate(value)]
    return _plain_other(call, value, path, depth)


def _plain_dict(call: str, value: dict[Any, Any], path: str, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, each in value.items():
        name = _key(call, key, path)
        where = f"{path}.{name}" if path else name
        if name in found:
            raise Unserialisable(call, _shorten(where), "two of its keys are the same as text")
        found[name] = _plain(call, each, where, depth + 1)
    return found


def _plain_other(call: str, value: Any, path: str, depth: int) -> Any:
    if isinstance(value, Enum):
        return _plain(call, value.value, path, depth + 1)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        public = {name: getattr(value, name) for name in names if not name.startswith("_")}
        return _plain(call, public, path, depth + 1)
    try:
        return orjson.Fragment(orjson.dumps(value, option=_options)[:-1])
    except orjson.JSONEncodeError:
        pass
    if isinstance(value, orjson.Fragment):
        return value
    try:
        simpler = convert(value)
    except TypeError as error:
        raise Unserialisable(call, _shorten(path), str(error)) from None
    except Exception as error:  # noqa: BLE001 - the value's own code; its text may show a payload
        problem = f"its own code raised {type(error).__name__} as it was read"
        raise Unserialisable(call, _shorten(path), problem) from None
    return _plain(call, simpler, path, depth + 1)


def _key(call: str, key: Any, path: str) -> str:
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return _characters(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return _digits(call, key, path)
    if isinstance(key, (date, time_of_day)):
        key = convert(key)
    _meets_numpy(key)
    try:
        return orjson.dumps(key, option=_options)[:-1].decode().strip('"')
    except orjson.JSONEncodeError:
        problem = f"a key of type {type(key).__name__} has no JSON form: use text"
        raise Unserialisable(call, _shorten(path), problem) from None


def _characters(text: str) -> str:
    """Join pairs of surrogates to their character; a lone one becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _digits(call: str, number: int, path: str) -> str:
    try:
        return int.__repr__(number)
    except ValueError:
        raise Unserialisable(call, _shorten(path), "an integer has too many digits") from None


def _shorten(path: str) -> str:
    """A path into data that contains itself is as long as it is deep."""
    return path if len(path) <= 200 else f"{path[:200]}…"


# ------------------------------------------------------------------------------------- envelopes


_PIECE = 64  # calls


class Envelope:
    """What stands around the calls of one request: `{"sentAt": …, "batch": [ … ]}`."""

    __slots__ = ("_first", "_message_id", "_separator", "alone", "per_event", "size")

    def __init__(
        self,
        *,
        in_body: Mapping[str, str],
        in_event: Mapping[str, str],
        message_id: bool = False,
    ) -> None:
        """Take the members to write beside the batch, and those to write into each event."""
        members = _members(in_event)
        self._first = b'{"sentAt":"%s",' + _members(in_body).replace(b"%", b"%%")
        self._message_id = b'"messageId":"%s",' if message_id else b""
        self._separator = b",{" + members
        self.per_event: int = len(self._separator)
        """Bytes that each event takes beyond its own."""
        self.alone: int = len(self.pack_one(b"")) - len(members) - 1
        """Bytes that a request of the single form has beyond its event's own JSON."""
        self.size: int = len(self.pack([b""], "")) - self.per_event
        """Bytes around the events, exact together with `per_event`."""

    def pack(self, bodies: Sequence[bytes], ids: str) -> bytes:
        """Return one request's JSON, with `sentAt` stamped now."""
        return self._separator.join(self._parts(bodies, ids))

    def pieces(self, bodies: Sequence[bytes], ids: str) -> Iterator[bytes]:
        """Return the same in pieces of some calls each, for what needs no more at a time."""
        parts = self._parts(bodies, ids)
        yield self._separator.join(parts[:_PIECE])
        for start in range(_PIECE, len(parts), _PIECE):
            yield self._separator.join([b"", *parts[start : start + _PIECE]])

    def _parts(self, bodies: Sequence[bytes], ids: str) -> list[bytes]:
        """Return the bodies, the first with what goes before all of them, the last with the end.

        One join makes a request of them. A second copy of so many bytes would cost far more than
        the first: the allocator gives such memory back to the system, and asks for it again.
        """
        head = self._first % stamp().encode()
        if self._message_id:
            # The same for a retry, so that a server which drops repeated envelopes sees one.
            head += self._message_id % str(uuid5(_NAMESPACE, ids)).encode()
        parts = [*bodies]
        parts[0] = b"".join((head, b'"batch":[', self._separator[1:], parts[0]))
        parts[-1] += b"]}"
        return parts

    def pack_one(self, body: bytes) -> bytes:
        """Return one call's JSON for a route that takes a call without an envelope."""
        return b"".join((self._first % stamp().encode(), self._separator[2:], body))


def _members(pairs: Mapping[str, str]) -> bytes:
    return b"".join(
        orjson.dumps(name) + b":" + orjson.dumps(value) + b"," for name, value in pairs.items()
    )


# ----------------------------------------------------------------------------------- compression

try:
    from isal import isal_zlib as _zlib

    COMPRESSES_QUICKLY = True
    """Whether gzip is quick enough (half a millisecond a megabyte) to run on the event loop."""
except ImportError:
    import zlib as _zlib  # type: ignore[no-redef]

    COMPRESSES_QUICKLY = False

_AS_GZIP = 31  # zlib's number for its widest window in gzip's form


def compress(pieces: Iterable[bytes]) -> bytes:
    """Return gzip at its quickest level. Without isal, call it in a thread."""
    packer = _zlib.compressobj(1, _zlib.DEFLATED, _AS_GZIP)
    return b"".join([*map(packer.compress, pieces), packer.flush()])
