"""A table in an SQLite file: each event once, whatever is sent twice.

The messageId is the table's key, and an event whose id is there already is left out: so what a
retry or a crash has doubled on the way is single here. A batch is delivered when it is durable; a
close has one committed or rolled back, and counts it so. The file is opened for each batch, in a
thread, and never held: it may be moved away at any time.
"""
# ruff: noqa: S608 - what is put into statements here is a checked name; values are bound

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from asyncanalytics.destinations.base import CALLED_OFF, TableDestination

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncanalytics.batching import Batch

_BUSY: Final = 1.0  # seconds to wait for others who write; then the batch is tried again
_TABLE: Final = """CREATE TABLE {} (
    message_id TEXT PRIMARY KEY NOT NULL,
    payload TEXT NOT NULL,
    stored_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ')),
    type TEXT AS (json_extract(payload, '$.type')) VIRTUAL,
    event TEXT AS (json_extract(payload, '$.event')) VIRTUAL,
    user_id TEXT AS (json_extract(payload, '$.userId')) VIRTUAL,
    anonymous_id TEXT AS (json_extract(payload, '$.anonymousId')) VIRTUAL,
    group_id TEXT AS (json_extract(payload, '$.groupId')) VIRTUAL,
    timestamp TEXT AS (json_extract(payload, '$.timestamp')) VIRTUAL
)"""


class SqliteDestination(TableDestination):
    """Inserts events into a table of an SQLite file, which is made where it is not there.

    It has the columns `message_id`, `payload` (the event's JSON) and `stored_at`, and, read out of
    the payload, `type`, `event`, `user_id`, `anonymous_id`, `group_id` and `timestamp`.
    """

    kind = "sqlite"

    def _insert(self, batch: Batch, may_commit: Callable[[], bool]) -> str | None:
        if not self._path.exists():
            try:
                self._path.touch(mode=0o600)
            except OSError as error:
                return f"cannot make the file: {error.strerror}"
        rows = [(receipt.message_id, "{" + receipt.body.decode()) for receipt in batch.receipts]
        try:
            with closing(sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None)) as db:
                self._fill(db, rows)
                if not may_commit():
                    return CALLED_OFF
                db.execute("COMMIT")
        except sqlite3.Error as error:
            # The text names tables, columns and files at most: values are bound.
            return f"cannot insert: {error}"
        return None

    def _fill(self, db: sqlite3.Connection, rows: list[tuple[str, str]]) -> None:
        db.execute("PRAGMA synchronous = FULL")
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [self._table]).fetchone():
            self._make(db)
        db.execute("BEGIN IMMEDIATE")
        db.executemany(
            f"INSERT OR IGNORE INTO {self._table} (message_id, payload) VALUES (?, ?)", rows
        )

    def _make(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")  # so that readers and writers do not wait
        db.execute(_TABLE.format(f"IF NOT EXISTS {self._table}"))
