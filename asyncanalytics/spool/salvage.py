"""What can be read of a file that SQLite finds malformed, copied into a good one."""
# ruff: noqa: S608 - what is put into statements here are constants; values are bound

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from asyncanalytics.spool import damage
from asyncanalytics.spool.moving import PIECE, put
from asyncanalytics.spool.schema import COLUMNS, connect_ruin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from asyncanalytics.spool.store import Store

_WIDEST: Final = 1 << 40  # numbers that are stepped over at a time
_HIGHEST: Final = 1 << 62


def salvage(store: Store, ruin: Path, *, below: int = 0) -> None:
    """Copy what can be read of a file; the file stays as it is.

    Rows with numbers under `below` keep them, where they are in order: the store must be a fresh
    one. Others get new ones. What the file counted and does not give any more is added to what
    the store has lost.
    """
    store.next_seq = max(store.next_seq, below)
    with closing(connect_ruin(ruin)) as db:
        try:
            known = db.execute("SELECT id, name, events FROM destinations").fetchall()
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            return
        names = {number: name for number, name, _ in known}
        copied = _copy_waiting(store, db, names, below)
        if below:
            damage.mend(store)  # those that were not in order
        for table in ("dead", "damaged"):
            for piece in _readable(db, table):
                with store.transaction():
                    put(store, table, names, piece)
    counted = sum(events for _, _, events in known if isinstance(events, int))
    store.lost += max(0, counted - copied)


def _copy_waiting(
    store: Store, db: sqlite3.Connection, names: Mapping[int, str], below: int
) -> int:
    copied = last = 0
    for piece in _readable(db, "waiting"):
        kept, others = [], []
        for row in piece:
            if last < row[0] < below:
                last = row[0]
                kept.append(row)
            else:
                others.append(row)
        with store.transaction():
            put(store, "waiting", names, kept, keep_numbers=True)
            put(store, "damaged" if below else "waiting", names, others)
        copied += len(piece)
    return copied


def _readable(db: sqlite3.Connection, table: str) -> Iterator[list[Sequence[Any]]]:
    """Yield the rows of a table, stepping over what cannot be read, ever wider.

    Numbers may have rotted too: they may come in any order, and more than once.
    """
    columns = COLUMNS[table]
    key = columns.partition(",")[0]
    last, step = 0, 1
    while step < _WIDEST and last < _HIGHEST:
        before, is_whole = last, True
        query = f"SELECT {columns} FROM {table} WHERE {key} > ?"
        for piece, is_last in _pieces(db, query, last):
            is_whole = is_last
            if piece:
                yield piece
                last = max(last, *(row[0] for row in piece))
        if is_whole:
            return
        step = 1 if last > before else step * 2
        last += step


def _pieces(
    db: sqlite3.Connection, query: str, after: int
) -> Iterator[tuple[list[Sequence[Any]], bool]]:
    """Yield rows, and with the last of them whether they are all: an error may cut them short."""
    piece: list[Sequence[Any]] = []
    try:
        for row in db.execute(query, [after]):
            piece.append(row)
            if len(piece) == PIECE:
                yield piece, False
                piece = []
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        yield piece, False
    else:
        yield piece, True
