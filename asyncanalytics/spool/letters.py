"""Dead letters: calls that were refused for good, kept beside those that wait.

What moves is removed in the transaction that adds it, so it is always in exactly one place.
"""
# ruff: noqa: S608 - what is put into statements here are constants; values are bound

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncanalytics.spool.order import runs
from asyncanalytics.spool.rows import DeadLetter, Stored, Verdict, named
from asyncanalytics.spool.schema import FIELDS, VERDICT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncanalytics.spool.store import Store


def bury(store: Store, numbers: Iterable[int], verdict: Verdict, detail: bytes) -> int:
    """Move waiting rows to the dead letters, within a transaction; return how many."""
    buried = 0
    for low, high in runs(numbers):
        for figures, events, size in store.counted(low, high):
            figures.dead_events += events
            figures.dead_bytes += size + events * len(detail)
        store.db.execute(
            f"INSERT INTO dead ({FIELDS}, {VERDICT}) SELECT {FIELDS}, ?, ?, ?, ?, ? FROM waiting"
            " WHERE seq BETWEEN ? AND ?",
            (verdict.kind, verdict.status, verdict.reason, detail, verdict.at, low, high),
        )
        buried += store.remove(range(low, high + 1))
    return buried


def add(store: Store, row: Stored, verdict: Sequence[Any]) -> None:
    """Add a letter of another file, within a transaction. Its detail is sealed already."""
    figures = store.figures(row.destination)
    figures.dead_events += 1
    figures.dead_bytes += len(row.body) + len(verdict[3])
    store.db.execute(
        f"INSERT INTO dead ({FIELDS}, {VERDICT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (figures.id, *row[1:], *verdict),
    )


def dead(
    store: Store, after: int = 0, *, limit: int = 100, destination: str | None = None
) -> list[DeadLetter]:
    """Return the next dead letters, in the order of their burial."""
    number = None if destination is None else store.number(destination)
    found = store.db.execute(
        f"SELECT id, {VERDICT}, {FIELDS} FROM dead WHERE id > ? AND ifnull(destination = ?, 1)"
        " ORDER BY id LIMIT ?",
        (after, number, limit),
    ).fetchall()
    return [_letter(store, each) for each in found]


def matching(
    store: Store,
    after: int,
    until: int,
    *,
    limit: int,
    destination: str | None = None,
    before: float | None = None,
) -> list[int]:
    """Return the next ids of the dead letters that fit, `until` at the most."""
    number = None if destination is None else store.number(destination)
    found = store.db.execute(
        "SELECT id FROM dead WHERE id > ? AND id <= ?"
        " AND ifnull(destination = ?, 1) AND ifnull(at < ?, 1) ORDER BY id LIMIT ?",
        (after, until, number, before, limit),
    )
    return [number for (number,) in found]


def last(store: Store) -> int:
    """Return the highest id of a dead letter; later ones have higher ids."""
    return int(store.db.execute("SELECT ifnull(max(id), 0) FROM dead").fetchone()[0])


def retry(store: Store, ids: Iterable[int]) -> int:
    """Let dead letters wait again, within a transaction; return how many.

    A damaged one stays. One whose call waits already is only removed.
    """
    found = _rows(store, ids)
    whole = {number: row for number, row in found.items() if row.is_whole}
    store.append([*whole.values()])
    remove(store, whole)
    return len(whole)


def purge(
    store: Store,
    ids: Iterable[int] | None = None,
    *,
    destination: str | None = None,
    before: float | None = None,
) -> int:
    """Delete dead letters, within a transaction: those named, or all that fit; return how many.

    `before` is a time: those buried earlier go.
    """
    picked = "1" if ids is None else "id BETWEEN ? AND ?"
    purged = 0
    for pair in [()] if ids is None else runs(ids):
        where = f"{picked} AND ifnull(destination = ?, 1) AND ifnull(at < ?, 1)"
        number = None if destination is None else store.number(destination)
        purged += _delete(store, where, (*pair, number, before))
    return purged


def _letter(store: Store, columns: Sequence[Any]) -> DeadLetter:
    number, kind, status, reason, detail, at, *fields = columns
    row = named(store.names, fields) or Stored("", *fields[1:])
    said = store.open_bytes(detail)  # which has no checksum
    return DeadLetter(
        id=number,
        destination=row.destination,
        call=row.call,
        message_id=row.message_id,
        body=store.open_body(row),
        created=row.created,
        verdict=Verdict(kind, status, reason, _text(said), at),
    )


def _text(said: object) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else ""


def _rows(store: Store, ids: Iterable[int]) -> dict[int, Stored]:
    found = {}
    for low, high in runs(ids):
        for number, *fields in store.db.execute(
            f"SELECT id, {FIELDS} FROM dead WHERE id BETWEEN ? AND ?", (low, high)
        ):
            row = named(store.names, fields)
            if row is not None:
                found[number] = row
    return found


def remove(store: Store, ids: Iterable[int]) -> None:
    """Take letters out, within a transaction."""
    for pair in runs(ids):
        _delete(store, "id BETWEEN ? AND ?", pair)


def _delete(store: Store, where: str, values: Sequence[float | None]) -> int:
    counted = store.db.execute(
        "SELECT destination, count(*), ifnull(sum(length(body) + length(detail)), 0) FROM dead"
        f" WHERE {where} GROUP BY +destination",
        values,
    ).fetchall()
    store.db.execute(f"DELETE FROM dead WHERE {where}", values)
    for number, events, size in counted:
        figures = store.numbered(number)
        if figures is not None:
            figures.dead_events -= events
            figures.dead_bytes -= size
    return sum(events for _, events, _ in counted)
