"""The database within a spool file: how it is opened, and what its tables are.

A transaction that has ended is on the disk: write-ahead log, `synchronous=FULL`. A file of an
older version is brought up to this one; a file of a newer version is refused and left alone.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from asyncanalytics.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

Access: TypeAlias = Literal["own", "share", "read"]
"""`own` it, alone; `share` it with its owner, and change it in short transactions; or only `read`.

An owner waits for another's transaction no longer than its callers can: others are more patient.
"""
_PATIENCE: Final = {"own": 1.0, "share": 5.0, "read": 5.0}  # seconds
_APPLICATION: Final = 0x41417370
_MIGRATIONS: Final = (
    # From version 0, an empty file, to version 1; what follows brings each to the next.
    f"""
    CREATE TABLE destinations (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        events INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        dead_events INTEGER NOT NULL DEFAULT 0,
        dead_bytes INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE waiting (
        seq INTEGER PRIMARY KEY,
        destination INTEGER NOT NULL,
        call TEXT NOT NULL,
        message_id TEXT NOT NULL,
        body BLOB NOT NULL,
        created REAL NOT NULL,
        checksum INTEGER NOT NULL
    );
    CREATE UNIQUE INDEX waiting_by_message ON waiting (destination, message_id);
    CREATE INDEX waiting_by_destination ON waiting (destination);
    CREATE TABLE dead (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        destination INTEGER NOT NULL,
        call TEXT NOT NULL,
        message_id TEXT NOT NULL,
        body BLOB NOT NULL,
        created REAL NOT NULL,
        checksum INTEGER NOT NULL,
        kind TEXT NOT NULL,
        status INTEGER,
        reason TEXT NOT NULL,
        detail BLOB NOT NULL,
        at REAL NOT NULL
    );
    CREATE TABLE damaged (
        id INTEGER PRIMARY KEY, destination, call, message_id, body, created, checksum
    );
    CREATE TABLE numbers (reserved INTEGER NOT NULL);
    INSERT INTO numbers VALUES (1);
    PRAGMA application_id = {_APPLICATION};
    """,  # noqa: S608 - of constants
)
FIELDS: Final = "destination, call, message_id, body, created, checksum"
"""Of every table that holds calls."""
VERDICT: Final = "kind, status, reason, detail, at"
COLUMNS: Final = {
    "waiting": f"seq, {FIELDS}",
    "dead": f"id, {FIELDS}, {VERDICT}",
    "damaged": f"id, {FIELDS}",
}
"""Of each of them, the first being the number by which it is in order."""
VERSION: Final = len(_MIGRATIONS)
_LOG_PAGES: Final = 1_000
_PRAGMAS: Final = (
    "auto_vacuum = INCREMENTAL",  # before the first table, or it does nothing
    "synchronous = FULL",
    "fullfsync = ON",  # macOS: without it, FULL ends in the disk's own cache
    f"wal_autocheckpoint = {_LOG_PAGES}",
    # Twice that: on a full disk, what was once the log's must still be the log's.
    f"journal_size_limit = {_LOG_PAGES * 2 * 4096}",
    "secure_delete = FAST",  # wipes what costs no further writing
    "cell_size_check = ON",
    "trusted_schema = OFF",
)


def connect(path: Path, access: Access) -> sqlite3.Connection:
    """Open an existing file, empty or a spool; its owner makes or migrates its tables.

    Raises `sqlite3.Error`, and ConfigurationError for what is not a spool of this version.
    """
    db = _open(path, "ro" if access == "read" else "rw", _PATIENCE[access])
    try:
        version = _version(db, path, oldest=0 if access == "own" else VERSION)
        if access != "read":
            _prepare(db, path)
        if access == "own":
            _migrate(db, version)
    except UnicodeDecodeError as error:
        db.close()
        raise malformed() from error  # SQLite quotes what it does not understand
    except BaseException:
        db.close()
        raise
    return db


def connect_ruin(path: Path) -> sqlite3.Connection:
    """Open a malformed file as it is, for what can be read of it."""
    db = _open(path, "rw", _PATIENCE["own"])
    db.execute("PRAGMA writable_schema = ON")  # or a file that was cut is not read at all
    return db


def malformed() -> sqlite3.DatabaseError:
    """Return the error that SQLite has for a malformed file."""
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    error.sqlite_errorname = "SQLITE_CORRUPT"
    return error


def _busy() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    error.sqlite_errorname = "SQLITE_BUSY"
    return error


def _open(path: Path, mode: str, patience: float) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=patience,
        isolation_level=None,
        check_same_thread=False,
    )
    # A rotten byte in a text must fail its row's checksum, and nothing else.
    db.text_factory = _lenient
    return db


def _version(db: sqlite3.Connection, path: Path, *, oldest: int) -> int:
    # The tables first: an owner that is just beginning the file writes all three at once.
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if tables and application != _APPLICATION:
        raise ConfigurationError(
            f"{str(path)!r} is not a spool file: give the spool a folder of its own"
        )
    if version > VERSION:
        raise ConfigurationError(
            f"the spool file {str(path)!r} has version {version}, and this release knows "
            f"{VERSION}: install the release that wrote it, or move the file elsewhere"
        )
    if version < oldest and not tables:
        raise _busy()  # its owner is just beginning it
    if version < oldest:
        raise ConfigurationError(
            f"the spool file {str(path)!r} has the older version {version}: read it with the "
            "release that wrote it, or stop its process first"
        )
    return int(version)


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    for pragma in _PRAGMAS:
        db.execute(f"PRAGMA {pragma}").fetchall()
    (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise ConfigurationError(
            f"the disk of {str(path)!r} cannot hold a write-ahead log: use a local disk"
        )


def _migrate(db: sqlite3.Connection, version: int) -> None:
    for number, steps in enumerate(_MIGRATIONS[version:], version + 1):
        db.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {number}; COMMIT;")


def _lenient(text: bytes) -> str:
    return text.decode("utf-8", "replace")
