"""Rows on their way from one file to another, as they are stored.

Invariant: rows are durable where they go before they leave where they were. A crash between the
two leaves some in both, with the same ids; never are there two with one id in one file.
"""
# ruff: noqa: S608 - what is put into statements here are constants and numbers; values are bound

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from asyncanalytics.spool import damage, letters
from asyncanalytics.spool.order import in_order
from asyncanalytics.spool.rows import named
from asyncanalytics.spool.schema import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from asyncanalytics.spool.store import Store

PIECE: Final = 500  # rows that are in memory at a time


class SourceFailed(Exception):
    """The file that rows are moved out of cannot be used; where they go has done no wrong."""


class Move:
    """The way of rows out of a good file, piece by piece, for some destinations or for all."""

    def __init__(self, source: Store, destinations: Collection[str] | None) -> None:
        """Begin at the start of each table."""
        self._source = source
        others = () if destinations is None else set(source.names.values()).difference(destinations)
        self._without = ", ".join(str(source.number(name)) for name in others)
        self._after = dict.fromkeys(COLUMNS, 0)

    def piece(self, store: Store) -> int:
        """Move some rows into a store; return how many, and 0 when none are left."""
        for table in COLUMNS:
            numbered = self._next(table)
            if numbered:
                with store.transaction():
                    put(store, table, self._source.names, numbered)
                self._remove(table, [number for number, *_ in numbered])
                self._after[table] = numbered[-1][0]
                return len(numbered)
        return 0

    def _next(self, table: str) -> list[Sequence[Any]]:
        columns = COLUMNS[table]
        key, after = columns.partition(",")[0], self._after[table]
        with _source():
            found = self._source.db.execute(
                f"SELECT {columns} FROM {table} WHERE {key} > ?"
                f" AND ifnull(destination, 0) NOT IN ({self._without}) ORDER BY {key} LIMIT ?",
                (after, PIECE),
            ).fetchall()
            in_order(after, [number for number, *_ in found])
            return found

    def _remove(self, table: str, numbers: list[int]) -> None:
        with _source(), self._source.transaction():
            if table == "waiting":
                self._source.remove(numbers)
            elif table == "dead":
                letters.remove(self._source, numbers)
            else:
                damage.remove(self._source, numbers)


def put(
    store: Store,
    table: str,
    names: Mapping[int, str],
    numbered: Sequence[Sequence[Any]],
    *,
    keep_numbers: bool = False,
) -> None:
    """Add rows of another file, within a transaction; the damaged ones to the damaged."""
    good, bad = {}, []
    for number, *columns in numbered:
        row = named(names, columns[:6])
        if table != "damaged" and row is not None and row.is_whole:
            good[number] = (row, columns[6:])
        else:
            bad.append((store.figures(row.destination).id if row else None, *columns[1:6]))
    rows = [row for row, _ in good.values()]
    if table == "waiting" and keep_numbers:
        store.insert([*good], rows)
    elif table == "waiting":
        store.append(rows)
    else:
        for row, verdict in good.values():
            try:
                letters.add(store, row, verdict)
            except (sqlite3.IntegrityError, TypeError):  # what it says of its end has rotted
                bad.append((store.figures(row.destination).id, *row[1:]))
    damage.add(store, bad)


@contextmanager
def _source() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise SourceFailed from error
