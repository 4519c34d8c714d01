"""Rows that are not what was written: set aside in their file, and looked at again on request."""
# ruff: noqa: S608 - what is put into statements here are constants; values are bound

from __future__ import annotations

import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from asyncanalytics.spool.order import in_order, runs
from asyncanalytics.spool.rows import named
from asyncanalytics.spool.schema import FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncanalytics.spool.store import Store

_PIECE: Final = 500  # rows that are in memory at a time


def set_aside(store: Store, numbers: Sequence[int]) -> None:
    """Move damaged rows out of the way; while the disk takes nothing, they are passed over."""
    if not numbers:
        return
    with suppress(sqlite3.OperationalError), store.transaction():
        for low, high in runs(numbers):
            store.db.execute(
                f"INSERT INTO damaged ({FIELDS}) SELECT {FIELDS} FROM waiting"
                " WHERE seq BETWEEN ? AND ?",
                (low, high),
            )
        store.remove(numbers)
        store.damaged += len(numbers)


def add(store: Store, rows: Sequence[Sequence[Any]]) -> None:
    """Keep rows that are not whole as they are, within a transaction."""
    store.db.executemany(f"INSERT INTO damaged ({FIELDS}) VALUES (?, ?, ?, ?, ?, ?)", rows)
    store.damaged += len(rows)


def remove(store: Store, ids: Sequence[int]) -> None:
    """Take damaged rows out, within a transaction."""
    store.db.executemany("DELETE FROM damaged WHERE id = ?", [(each,) for each in ids])
    store.damaged -= len(ids)


def mend(store: Store) -> int:
    """Look at the damaged rows again; take back those that are whole, and return how many.

    They are, where the function that opens them has been put right.
    """
    mended, last = 0, 0
    while piece := store.db.execute(
        f"SELECT id, {FIELDS} FROM damaged WHERE id > ? ORDER BY id LIMIT ?", (last, _PIECE)
    ).fetchall():
        in_order(last, [number for number, *_ in piece])
        last = piece[-1][0]
        rows = {number: named(store.names, fields) for number, *fields in piece}
        whole = {
            number: row
            for number, row in rows.items()
            if row is not None and store.open_body(row) is not None
        }
        with store.transaction():
            store.append([*whole.values()])
            remove(store, [*whole])
        mended += len(whole)
    return mended
