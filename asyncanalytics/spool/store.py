"""One open spool file: its rows and its figures. Plain calls that block, for one thread.

Invariants:
- What a transaction did is on disk when it ends, or nothing of it is.
- The figures of a destination are written in the transaction that changes them, so they are
  exact after any crash without counting.
- What another process has changed is seen at the start of a transaction. A number is given once,
  whoever gives it: the owner's come from a range that it has reserved in the file.
- A row that fails its checksum or its opening is moved to the table `damaged`; the rest goes on.
- Several rows go in or out in one statement: SQLite is left after each, and each time the thread
  may have to wait for the interpreter.
"""
# ruff: noqa: S608 - what is put into statements here are constants; values are bound

from __future__ import annotations

import sqlite3
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from asyncanalytics.spool import damage
from asyncanalytics.spool.order import in_order, runs
from asyncanalytics.spool.rows import OVERHEAD, SEALED, Row, Stored, Waiting
from asyncanalytics.spool.schema import COLUMNS, FIELDS, Access, connect, malformed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from asyncanalytics.settings import Sealing
    from asyncanalytics.spool.rows import StoredFields

_WIDTHS: Final = (64, 16, 4, 1)  # rows in one statement: 64 of them use 448 of its 999 variables
_INSERTS: Final = {
    width: f"INSERT INTO waiting (seq, {FIELDS}) VALUES "
    + ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * width)
    + " ON CONFLICT DO NOTHING"
    for width in _WIDTHS
}
_SPARE_PAGES: Final = 1_000
_LARGEST: Final = (1 << 63) - 1
_HIGHEST: Final = 1 << 60  # number that is reached by counting
_RANGE: Final = 1 << 20  # numbers that an owner reserves at a time


@dataclass(slots=True)
class Figures:
    """One destination's figures, as they are within the transaction."""

    id: int
    events: int = 0
    bytes: int = 0
    dead_events: int = 0
    dead_bytes: int = 0

    def frozen(self) -> Waiting:
        """Return them for others."""
        return Waiting(
            events=self.events,
            bytes=self.bytes,
            dead_events=self.dead_events,
            dead_bytes=self.dead_bytes,
        )


class Store:
    """An open spool file."""

    def __init__(
        self, path: Path, sealing: Sealing | None = None, *, access: Access = "own"
    ) -> None:
        """Open the file; raises as `connect` does."""
        self.path: Path = path
        self.sealing: Sealing | None = sealing
        self.shows_sealed: bool = False
        """Whether what is sealed is returned as it is, where nothing is given to open it."""
        self.lost: int = 0
        """Rows that a malformed file had counted, and that could not be read out of it."""
        self.next_seq: int = 1
        self._access = access
        self._reserved: int | None = None  # below it others give no numbers
        self.db: sqlite3.Connection = connect(path, access)
        try:
            for table, columns in COLUMNS.items():
                self.db.execute(f"SELECT {columns} FROM {table} LIMIT 0")
            self._load()
        except BaseException as error:
            self.db.close()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
                raise malformed() from error  # it has other tables than its version says
            raise

    def close(self) -> None:
        """Close the file, and leave no log beside one's own where that is possible."""
        if self._access == "own":
            self.checkpoint("TRUNCATE")
        self.db.close()

    def checkpoint(self, how: str = "PASSIVE") -> None:
        """Bring what is in the log into the file, as far as the disk lets it."""
        with suppress(sqlite3.Error):
            self.db.execute(f"PRAGMA wal_checkpoint({how})").fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do what is within on disk, all of it or nothing."""
        try:
            self.db.execute("BEGIN IMMEDIATE")
            if self._data_version() != self._loaded:
                self._load()
            yield
            self._save()
            self.db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                self._load()
            raise

    def refresh(self) -> None:
        """See what another process has changed, if one has."""
        if self._data_version() != self._loaded:
            with self.transaction():
                pass

    # ------------------------------------------------------------------- rows, in a transaction

    def append(self, rows: Sequence[StoredFields]) -> Sequence[int]:
        """Add rows, and return the number of each.

        One whose id waits already at its destination is not added again: it gets the number of
        the one that waits, below 0.
        """
        numbers = range(self.next_seq, self.next_seq + len(rows))
        if self.insert(numbers, rows) == len(rows):
            return numbers
        found = zip(numbers, map(self._find, rows), strict=True)
        return [number if kept == number else -kept for number, kept in found]

    def touch(self) -> None:
        """Write something, so that the end of the transaction says whether the disk takes it."""
        self.db.execute("UPDATE numbers SET reserved = reserved")

    def insert(self, numbers: Sequence[int], rows: Sequence[StoredFields]) -> int:
        """Add rows under ascending numbers that are all new; return how many ids were new too."""
        if not rows:
            return 0
        ids = {name: self.figures(name).id for name in {row[0] for row in rows}}
        before = self.db.total_changes
        start = 0
        for width in _WIDTHS:
            while len(rows) - start >= width:
                end = start + width
                values: list[object] = []
                for seq, row in zip(numbers[start:end], rows[start:end], strict=True):
                    name, call, message_id, body, created, mark = row
                    # For bytes an adapter would be looked for, each time in vain.
                    blob = bytearray(body)
                    values += (seq, ids[name], call, message_id, blob, created, mark)
                self.db.execute(_INSERTS[width], values)
                start = end
        self.next_seq = max(self.next_seq, numbers[-1] + 1)
        added = self.db.total_changes - before
        if added < len(rows):
            are_new = self._from(numbers[0])
            rows = [row for seq, row in zip(numbers, rows, strict=True) if seq in are_new]
        for name in ids:
            sizes = [len(row[3]) for row in rows if row[0] == name]
            self._figures[name].events += len(sizes)
            self._figures[name].bytes += sum(sizes)
        return added

    def remove(self, numbers: Iterable[int]) -> int:
        """Take rows out, whichever of them are there; return how many."""
        removed = 0
        for low, high in runs(numbers):
            for figures, events, size in self.counted(low, high):
                figures.events -= events
                figures.bytes -= size
                removed += events
            self.db.execute("DELETE FROM waiting WHERE seq BETWEEN ? AND ?", (low, high))
        return removed

    def counted(self, low: int, high: int) -> list[tuple[Figures, int, int]]:
        """Return the figures of each destination with the rows, and their bytes, in a run."""
        where = "FROM waiting WHERE seq BETWEEN ? AND ?"
        totals = "count(*), ifnull(sum(length(body)), 0)"
        # Rows that follow each other are of one destination as a rule: then nothing is sorted.
        first, last, *sums = self.db.execute(
            f"SELECT min(destination), max(destination), {totals} {where}", (low, high)
        ).fetchone()
        found = [(first, *sums)]
        if first != last:
            # The plus keeps SQLite from walking through a whole index to have groups in order.
            found = self.db.execute(
                f"SELECT destination, {totals} {where} GROUP BY +destination", (low, high)
            ).fetchall()
        known = ((self.numbered(number), events, size) for number, events, size in found)
        return [(figures, events, size) for figures, events, size in known if figures]

    # ------------------------------------------------------------- reading, with its own mending

    def read(self, destination: str, after: int, *, max_events: int, max_bytes: int) -> list[Row]:
        """Return the next rows of a destination in order: one at least, where there is one.

        Ends before `max_bytes` of bodies would be passed. Damaged rows are set aside on the way.
        What another process has added is not among them until it was seen in a transaction.
        """
        number = self.number(destination)
        while True:
            span = (after, self.next_seq)
            found, bad, more = self._piece(destination, number, span, max_events, max_bytes)
            damage.set_aside(self, bad)
            if found or not more:
                break
            after = max(bad)
        if after <= 0 and not found and not bad and number and self.figures(destination).events:
            raise malformed()  # the figures know of rows that the index does not lead to
        return found

    def look(self, destination: str, after: int, limit: int) -> tuple[list[Row], int]:
        """Return the next whole rows, and how many others were before them; change nothing."""
        found: list[Row] = []
        number, others, more = self.number(destination), 0, True
        while more and not found:
            span = (after, _LARGEST)
            found, bad, more = self._piece(destination, number, span, limit, _LARGEST)
            others += sum(not found or each < found[-1].seq for each in bad)
            after = max(bad, default=after)
        return found, others

    def oldest(self) -> float | None:
        """Return the time of the row that is first in order; None where that tells none."""
        found = self.db.execute("SELECT created FROM waiting ORDER BY seq LIMIT 1").fetchone()
        return found[0] if found and isinstance(found[0], float) else None

    @property
    def is_sealed(self) -> bool:
        """Whether the first or the last call that waits is sealed."""
        return any(
            body.startswith(SEALED)
            for order in ("ASC", "DESC")
            for (body,) in self.db.execute(
                f"SELECT substr(body, 1, 1) FROM waiting ORDER BY seq {order} LIMIT 1"
            )
            if isinstance(body, bytes)
        )

    def open_body(self, row: Stored) -> bytes | None:
        """Return a row's body as it was given; None if the row is damaged."""
        return self.open_bytes(row.body) if row.is_whole else None

    def open_bytes(self, sealed: bytes) -> bytes | None:
        """Return what was stored as it was given; None if it is sealed, and not opened.

        Plain bytes come back as they are, also where there is a sealing by now.
        """
        if not sealed.startswith(SEALED):
            return sealed
        if self.sealing is None:
            return sealed if self.shows_sealed else None
        try:
            return self.sealing.open(sealed[len(SEALED) :])
        except Exception:  # noqa: BLE001 - the user's own function: what it refuses is damaged
            return None

    def _piece(
        self,
        destination: str,
        number: int,
        span: tuple[int, int],
        max_events: int,
        max_bytes: int,
    ) -> tuple[list[Row], list[int], bool]:
        """Return whole rows, the numbers of damaged ones, and whether there may be more.

        All of them are after the first number of the span, and before the second.
        """
        found: list[Row] = []
        bad: list[int] = []
        size = seen = 0
        last, before = span
        for seq, *fields in self.db.execute(
            f"SELECT seq, {FIELDS} FROM waiting WHERE destination = ? AND seq > ? AND seq < ?"
            " ORDER BY seq LIMIT ?",
            (number, last, before, max_events),
        ):
            seen += 1
            in_order(last, [seq])
            last = seq
            row = Stored(destination, *fields[1:])
            body = self.open_body(row)
            if body is None:
                bad.append(seq)
                continue
            size += len(body)
            if found and size > max_bytes:
                break
            found.append(Row(seq, destination, row.call, row.message_id, body, row.created))
        return found, bad, seen == max_events

    def count(self, low: int, high: int) -> dict[str, int]:
        """Count what waits in a run of numbers, by destination."""
        found = {
            name: self.db.execute(
                "SELECT count(*) FROM waiting WHERE destination = ? AND seq BETWEEN ? AND ?",
                (each.id, low, high),
            ).fetchone()[0]
            for name, each in self._figures.items()
        }
        return {name: events for name, events in found.items() if events}

    # ------------------------------------------------------------------------------------ figures

    @property
    def weight(self) -> int:
        """What counts against the quota."""
        return sum(
            each.bytes + each.dead_bytes + OVERHEAD * (each.events + each.dead_events)
            for each in self._figures.values()
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be lost with the file."""
        return self.weight == 0 and self.damaged == 0

    def by_destination(self) -> dict[str, Waiting]:
        """Return the figures of each destination that has any."""
        return {
            name: each.frozen()
            for name, each in self._figures.items()
            if each.events or each.dead_events
        }

    def figures(self, destination: str) -> Figures:
        """Return a destination's figures; a new one is added to the file."""
        found = self._figures.get(destination)
        if found is None:
            cursor = self.db.execute("INSERT INTO destinations (name) VALUES (?)", [destination])
            found = self._figures[destination] = Figures(cursor.lastrowid or 0)
            self.names[found.id] = destination
        return found

    def number(self, destination: str) -> int:
        """Return a destination's number in this file; 0 if it has none."""
        found = self._figures.get(destination)
        return 0 if found is None else found.id

    def numbered(self, number: int) -> Figures | None:
        """Return the figures of the destination with a number."""
        name = self.names.get(number)
        return None if name is None else self._figures[name]

    def tidy(self) -> bool:
        """Give some of the space that nothing uses back to the disk; whether there is more."""
        (spare,) = self.db.execute("PRAGMA freelist_count").fetchone()
        (pages,) = self.db.execute("PRAGMA page_count").fetchone()
        if spare >= _SPARE_PAGES and spare * 2 >= pages:
            # As a script: `execute` leaves this pragma after its first page.
            self.db.executescript(f"PRAGMA incremental_vacuum({_SPARE_PAGES})")
            return True
        self.checkpoint()
        return False

    def _load(self) -> None:
        """Read the figures as the last transaction left them."""
        self._loaded: int = self._data_version()
        found = self.db.execute(
            "SELECT name, id, events, bytes, dead_events, dead_bytes FROM destinations"
        ).fetchall()
        if any(not isinstance(each, int) or each < 0 for _, *figures in found for each in figures):
            raise malformed()
        self._figures: dict[str, Figures] = {name: Figures(*figures) for name, *figures in found}
        self.names: dict[int, str] = {each.id: name for name, each in self._figures.items()}
        self._saved: dict[str, Waiting] = self._all_figures()
        self.damaged: int = self.db.execute("SELECT count(*) FROM damaged").fetchone()[0]
        self._load_numbers()

    def _load_numbers(self) -> None:
        (last,) = self.db.execute("SELECT ifnull(max(seq), 0) FROM waiting").fetchone()
        reserved = self.db.execute("SELECT ifnull(max(reserved), 0) FROM numbers").fetchone()[0]
        if not isinstance(reserved, int) or not last < reserved <= _HIGHEST:
            raise malformed()
        others = self._access == "share" or reserved > (self._reserved or reserved)
        self.next_seq = max(self.next_seq, reserved if others else last + 1)
        self._reserved = reserved

    def _data_version(self) -> int:
        return int(self.db.execute("PRAGMA data_version").fetchone()[0])

    def _reserve(self) -> None:
        if self._reserved is None or self.next_seq > self._reserved:
            self._reserved = self.next_seq + (_RANGE if self._access == "own" else 0)
            self.db.execute("UPDATE numbers SET reserved = ?", [self._reserved])

    def _save(self) -> None:
        self._reserve()
        now = self._all_figures()
        for name, each in now.items():
            if self._saved.get(name) != each:
                self.db.execute(
                    "UPDATE destinations SET events = ?, bytes = ?, dead_events = ?, dead_bytes = ?"
                    " WHERE name = ?",
                    (each.events, each.bytes, each.dead_events, each.dead_bytes, name),
                )
        self._saved = now

    def _all_figures(self) -> dict[str, Waiting]:
        return {name: each.frozen() for name, each in self._figures.items()}

    def _from(self, first: int) -> set[int]:
        return {
            seq for (seq,) in self.db.execute("SELECT seq FROM waiting WHERE seq >= ?", [first])
        }

    def _find(self, row: StoredFields) -> int:
        (seq,) = self.db.execute(
            "SELECT seq FROM waiting WHERE destination = ? AND message_id = ?",
            (self.figures(row[0]).id, row[2]),
        ).fetchone()
        return int(seq)
