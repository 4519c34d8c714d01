"""What goes into a spool and what comes out of it.

Each row has a checksum over all that it says: SQLite itself does not see when a payload rots. The
sequence number is not part of it, so a row can move to another file as it is.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncanalytics.settings import Sealing

SEALED: Final = b"\0"
"""What a sealed body begins with: a plain one is JSON, and never does."""
OVERHEAD: Final = 200
"""Bytes that a row takes in the file beyond its body: ids, indexes, and what pages leave unused."""


Fields: TypeAlias = tuple[str, str, str, bytes, float]
"""What an `Entry` holds, which takes less time to make."""
StoredFields: TypeAlias = tuple[str, str, str, bytes, float, int]
"""What a `Stored` holds, likewise."""
_DOUBLE: Final = struct.Struct("<d")


class Entry(NamedTuple):
    """A call to keep for one destination."""

    destination: str
    call: str
    message_id: str
    body: bytes
    created: float
    """The wall clock's time at which the call was given to the disk."""

    def __repr__(self) -> str:
        """Name the call, never what it carries."""
        return f"<Entry {self.destination} {self.call} {self.message_id}>"


class Row(NamedTuple):
    """A call that waits."""

    seq: int
    """Its number in this file: grows in the order of appending."""
    destination: str
    call: str
    message_id: str
    body: bytes
    created: float

    def __repr__(self) -> str:
        """Name the call, never what it carries."""
        return f"<Row {self.seq} {self.destination} {self.call} {self.message_id}>"


class Stored(NamedTuple):
    """A row as it is in the file, with its body sealed."""

    destination: str
    call: str
    message_id: str
    body: bytes
    created: float
    checksum: int

    @property
    def is_whole(self) -> bool:
        """Whether it still says what was written."""
        try:
            return checksum(*self[:5]) == self.checksum
        except (TypeError, ValueError, struct.error):
            return False  # a value of another type than was written

    def __repr__(self) -> str:
        """Name the call, never what it carries."""
        return f"<Stored {self.destination} {self.call} {self.message_id}>"


class Verdict(NamedTuple):
    """Why a call became a dead letter."""

    kind: str
    """`rejected` or `dropped`."""
    status: int | None
    reason: str
    detail: str
    """May quote the call: it is sealed as the body is, and is not for logs."""
    at: float

    def __repr__(self) -> str:
        """Leave out the detail."""
        return f"<Verdict {self.kind} {self.reason} {self.status}>"


class DeadLetter(NamedTuple):
    """A call that will not be sent unless someone retries it."""

    id: int
    destination: str
    call: str
    message_id: str
    body: bytes | None
    """None where it is damaged, or cannot be opened."""
    created: float
    verdict: Verdict

    def __repr__(self) -> str:
        """Name the call and its end, never what it carries."""
        return f"<DeadLetter {self.id} {self.destination} {self.message_id} {self.verdict}>"


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """The figures of one destination."""

    events: int = 0
    """Calls that wait."""
    bytes: int = 0
    """Of their bodies, as stored."""
    dead_events: int = 0
    dead_bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SpoolStats:
    """The figures of one file, as of the last commit."""

    by_destination: Mapping[str, Waiting]
    held_bytes: int
    """What counts against the quota, appends under way included."""
    max_bytes: int
    damaged: int
    """Rows that failed their checksum or their opening, and were set aside in the file."""
    lost: int
    """Rows that the file once counted and that could not be found any more."""
    corrupt_files: int
    """Files that SQLite could not read, and that were set aside."""
    is_disk_full: bool
    """Whether appends are refused until the disk has room."""

    @property
    def events(self) -> int:
        """Calls that wait, for all destinations."""
        return sum(each.events for each in self.by_destination.values())

    @property
    def dead_events(self) -> int:
        """Dead letters of all destinations."""
        return sum(each.dead_events for each in self.by_destination.values())


def checksum(destination: str, call: str, message_id: str, body: bytes, created: float) -> int:
    """Return the checksum of a row as stored."""
    head = f"{destination}\0{call}\0{message_id}\0".encode() + _DOUBLE.pack(created)
    return crc32(body, crc32(head))


def stored(entries: Iterable[Fields], sealing: Sealing | None) -> list[StoredFields]:
    """Make the rows of entries; raise if a field is not of its type.

    What raises here raises in the caller, and never within a commit that others share.
    """
    rows: list[StoredFields] = []
    last: object = rows  # which is no time
    for destination, call, message_id, body, created in entries:
        if created is not last:  # those that come together have the same one
            if not isfinite(created):
                raise ValueError("created must be a time")
            last, moment, tail = created, float(created), _DOUBLE.pack(created)
        kept = body if sealing is None else SEALED + sealing.seal(body)
        # As `checksum` has it, without a call for each; it raises for what is no text.
        texts = (destination, call, message_id, "")
        head = "\0".join(texts).encode() + tail
        rows.append((destination, call, message_id, kept, moment, crc32(kept, crc32(head))))
    return rows


def named(names: Mapping[int, str], fields: Sequence[Any]) -> Stored | None:
    """Make a row of its columns; None if its destination is not known."""
    name = names.get(fields[0])
    return None if name is None else Stored(name, *fields[1:])
