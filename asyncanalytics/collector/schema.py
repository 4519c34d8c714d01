"""The form of the database, and how a file comes to have it: made, or brought up to date.

A file that is not the collector's is refused and left as it was. One of version 1, which knew
nothing of what a request looked like, is rewritten in one transaction: whole or not at all.
What is deleted or replaced is overwritten, so that it is not to be found in the file.
"""
# ruff: noqa: S608 - what is put into statements here are constants

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncanalytics.collector.reading import parse, utf8_text
from asyncanalytics.collector.records import NAME_FIELDS

if TYPE_CHECKING:
    import os

PLACE_BITS: Final = 20
"""An event's position is `number of its request << PLACE_BITS | its place there`."""

_APPLICATION: Final = 0x41416376
_VERSION: Final = 2
_WAL_PAGES: Final = 8_000
_CACHED_PAGES: Final = 8_000

_LOOKS: Final = ("inflated INTEGER", "method TEXT", "path TEXT", "headers TEXT", "refusal TEXT")
_REQUESTS: Final = f"""
CREATE TABLE requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at TEXT NOT NULL,
    sent_at TEXT,
    retry_count INTEGER,
    bytes INTEGER NOT NULL,
    status INTEGER NOT NULL,
    {", ".join(_LOOKS)}
);
"""
_EVENTS: Final = f"""
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    message_id TEXT,
    type TEXT,
    reason TEXT,
    user_id TEXT,
    anonymous_id TEXT,
    event TEXT,
    name TEXT,
    key_fingerprint TEXT,
    payload BLOB NOT NULL,
    verdict TEXT AS (iif(reason IS NULL, 'good', 'bad')) VIRTUAL,
    request INTEGER AS (position >> {PLACE_BITS}) VIRTUAL
);
CREATE INDEX requests_refused ON requests (number) WHERE refusal IS NOT NULL;
CREATE TABLE keys (fingerprint TEXT PRIMARY KEY, mask TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE marks (mark TEXT NOT NULL);
INSERT INTO marks VALUES (lower(hex(randomblob(4))));
PRAGMA user_version = {_VERSION};
"""
# Not every file of this version has had it from the beginning.
_ERASURES: Final = (
    "CREATE TABLE IF NOT EXISTS erasures (only INTEGER PRIMARY KEY, count INTEGER NOT NULL)"
)
_MAKE: Final = f"BEGIN; {_REQUESTS} {_EVENTS} PRAGMA application_id = {_APPLICATION}; COMMIT;"

_SAME: Final = "position, message_id, type, reason, user_id, anonymous_id, event"
_UPDATE: Final = f"""
BEGIN IMMEDIATE;
{" ".join(f"ALTER TABLE requests ADD COLUMN {each};" for each in _LOOKS)}
ALTER TABLE events RENAME TO events_1;
DROP INDEX events_by_message_id;
{_EVENTS}
INSERT INTO events ({_SAME}, name, key_fingerprint, payload)
    SELECT {_SAME}, iif(type IN ({", ".join(f"'{each}'" for each in NAME_FIELDS)}),
        name_in(type, payload), event), key_fingerprint, payload FROM events_1;
DROP TABLE events_1;
COMMIT;
"""


def open_database(path: str | os.PathLike[str] | None) -> sqlite3.Connection:
    """Open or make it; ValueError for a file that is something else. None: in memory."""
    if path is not None:
        # Events are personal data. SQLite gives the WAL the rights of the file.
        Path(path).touch(mode=0o600)
    # Used by one thread at a time, but not always by the one that made it.
    where = ":memory:" if path is None else Path(path).absolute()
    db = sqlite3.connect(where, isolation_level=None, check_same_thread=False)
    with contextlib.ExitStack() as undo:
        undo.callback(db.close)
        _prepare(db)
        undo.pop_all()
    return db


def _prepare(db: sqlite3.Connection) -> None:
    version = _version(db)
    if version not in (1, _VERSION):
        raise ValueError(
            "the file at this path was not made by this version of the collector: "
            "choose another path"
        )
    # Only now: the file of another program is left as it was.
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    # Not every build of SQLite does so by itself.
    db.execute("PRAGMA secure_delete = ON")
    # A page that changes again and again is brought into the file once for 32 MB of WAL, not 4.
    db.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
    db.execute(f"PRAGMA cache_size = {_CACHED_PAGES}")
    if version == 1:
        _bring_up_to_date(db)
    db.execute(_ERASURES)
    # Files of this version once had it. It cost every event more than the rest of its row.
    db.execute("DROP INDEX IF EXISTS events_by_message_id")


def _version(db: sqlite3.Connection) -> int | None:
    """Return the version of a file of ours, made first where it is empty."""
    try:
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            db.executescript(_MAKE)
        marks = ("PRAGMA application_id", "PRAGMA user_version")
        application, version = (db.execute(each).fetchone()[0] for each in marks)
    except sqlite3.OperationalError:  # locked, or no right to it
        raise
    except sqlite3.DatabaseError:  # not SQLite's at all
        return None
    return int(version) if application == _APPLICATION else None


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    db.create_function("name_in", 2, _name_in)
    try:
        db.executescript(_UPDATE)
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _name_in(kind: str, payload: bytes) -> str | None:
    name = parse(payload).value.get(NAME_FIELDS[kind])
    return utf8_text(name) if isinstance(name, str) else None
