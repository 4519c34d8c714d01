"""What a spool tells of calls that it finds in its file: each once, and in their order."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from asyncanalytics import forks
from asyncanalytics.spool import Entry, Sealing, Spool, SpoolBroken, Verdict, keeper, left_in, visit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BAD = Verdict("rejected", 400, "rejected", "", 9.5)


class Told:
    """What was told, and in which order."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.pieces: list[dict[str, int]] = []
        self.order: list[str] = []

    def __call__(self, counts: Mapping[str, int]) -> None:
        """Keep it."""
        assert all(counts.values())
        self.pieces.append(dict(counts))
        self.order.append("found")

    @property
    def total(self) -> dict[str, int]:
        """The sum of it."""
        return dict(sum(map(Counter, self.pieces), Counter()))


def entries(*names: object, destination: str = "crm", size: int = 100) -> list[Entry]:
    """Return calls with these ids."""
    return [
        Entry(destination, "track", f"m{name}", f"m{name:>{size}}".encode(), 1.5) for name in names
    ]


def left_behind(folder: Path, *calls: Entry) -> Path:
    """Leave a file with calls in a folder, and return its path."""
    elsewhere = folder.with_name("elsewhere")  # so that nothing in the folder is taken for it
    with Spool(elsewhere) as spool:
        spool.append(calls).result()
    folder.mkdir(mode=0o700, exist_ok=True)
    (path,) = left_in(elsewhere)
    return path.rename(folder / path.name)


def waiting(spool: Spool, destination: str = "crm") -> list[str]:
    """Return the ids of the calls that wait."""
    return [row.message_id for row in spool.read(destination, max_events=9_999).result()]


# -------------------------------------------------------------------------------------- is told


def test_what_the_file_held_is_told_in_the_constructor(tmp_path: Path) -> None:
    """By destination; what is appended after that is not."""
    folder, told = tmp_path / "spool", Told()
    calls = [*entries(1, 2), *entries(3, destination="lake")]
    left_behind(folder, *calls)
    with Spool(folder, on_found=told) as spool:
        assert told.pieces == [{"crm": 2, "lake": 1}]
        spool.append(entries(4, 5)).result()
        spool.remove([row.seq for row in spool.read("crm").result()]).result()
        spool.append(entries(6)).result()
        assert spool.adopt().result() == 0
        assert waiting(spool) == ["m6"]
    assert len(told.pieces) == 1


def test_an_empty_file_is_nothing_to_tell(tmp_path: Path) -> None:
    """Nor is one in which only dead letters are."""
    folder, told = tmp_path / "spool", Told()
    with Spool(folder, on_found=told) as spool:
        spool.bury(spool.append(entries(1)).result(), BAD).result()
    with Spool(folder, on_found=told) as spool:
        spool.append(entries(2)).result()
        assert spool.stats().dead_events == 1
    assert told.pieces == []


def test_what_is_adopted_is_told_before_its_future(tmp_path: Path) -> None:
    """Piece by piece, and never the dead letters with them."""
    folder, told = tmp_path / "spool", Told()
    with Spool(folder, on_found=told) as spool:
        spool.append(entries("own")).result()
        with Spool(folder) as other:
            numbers = other.append(entries(*range(700))).result()
            other.bury(numbers[:10], BAD).result()
        pieces = []
        while moved := spool.adopt().result():
            pieces.append((moved, sum(each["crm"] for each in told.pieces)))
        assert pieces == [(500, 500), (190, 690), (10, 690)]
        assert spool.stats().by_destination["crm"].events == 691


def test_what_is_retried_and_mended_is_told(tmp_path: Path) -> None:
    """As often as it comes back; one that waits already comes back as nothing."""
    told = Told()
    is_broken = True

    def opened(body: bytes) -> bytes:
        if is_broken:
            raise ValueError("wrong key")
        return body

    sealing = Sealing(seal=bytes, open=opened)
    with Spool(tmp_path / "spool", sealing=sealing, on_found=told) as spool:
        numbers = spool.append(entries(1, 2, 3, 4)).result()
        spool.bury(numbers[:2], BAD).result()
        spool.append(entries(1)).result()
        assert spool.retry([1, 2]).result() == 2
        assert told.pieces == [{"crm": 1}]
        assert spool.read("crm").result() == []
        assert spool.stats().damaged == 4
        assert spool.mend().result() == 0
        is_broken = False
        assert spool.mend().result() == 4
        assert told.pieces == [{"crm": 1}, {"crm": 4}]
        assert sorted(waiting(spool)) == ["m1", "m2", "m3", "m4"]


def test_an_error_in_the_hook_hurts_nobody(tmp_path: Path) -> None:
    """Neither the constructor, nor the thread, nor who waits."""
    folder = tmp_path / "spool"

    def fail(_: object) -> None:
        raise LookupError

    left_behind(folder, *entries(1))
    with Spool(folder, on_found=fail) as spool:
        with Spool(folder) as other:
            other.append(entries(2)).result()
        assert spool.adopt().result() == 1
        assert sorted(waiting(spool)) == ["m1", "m2"]


# ------------------------------------------------------------------------------------------ order


def test_it_is_told_between_the_appends_around_it(tmp_path: Path) -> None:
    """Within one commit: what another process added, the appends, what was retried."""
    told = Told()
    with Spool(tmp_path / "spool", on_found=told) as spool:
        numbers = spool.append(entries(1, 2, 3)).result()
        spool.bury(numbers, BAD).result()
        before = told.order
        with forks.disk.alone:
            futures = {
                "first": spool.append(entries("a")),
                "retry": spool.retry([2]),
                "second": spool.append(entries("b")),
                "adopt": spool.adopt(),
            }
            for name, future in futures.items():
                future.add_done_callback(lambda _, name=name: before.append(name))
            assert spool.path is not None
            with visit(spool.path) as seen:
                assert seen.is_owned
                assert seen.retry([1]) == 1
        futures["adopt"].result()
        assert told.order == ["found", "first", "second", "found", "retry", "adopt"]
        rows = spool.read("crm").result()
        assert [row.message_id for row in rows] == ["m1", "ma", "mb", "m2"]
        assert told.pieces == [{"crm": 1}, {"crm": 1}]


def test_what_was_not_told_yet_is_not_read(tmp_path: Path) -> None:
    """A read does not run ahead of the hook."""
    told = Told()
    with Spool(tmp_path / "spool", on_found=told) as spool:
        spool.bury(spool.append(entries(1)).result(), BAD).result()
        assert spool.path is not None
        with visit(spool.path) as seen:
            seen.retry([1])
            assert [row.message_id for row in seen.read("crm")] == ["m1"]
        assert waiting(spool) == []
        assert spool.adopt().result() == 0
        assert told.pieces == [{"crm": 1}]
        assert waiting(spool) == ["m1"]


def test_numbers_are_given_once(tmp_path: Path) -> None:
    """A reader that has gone on does not miss what another process lets wait again."""
    with Spool(tmp_path / "spool") as spool:
        numbers = spool.append(entries(*range(10))).result()
        spool.bury(numbers[:3], BAD).result()
        spool.remove(numbers).result()  # the file holds no number now
        assert spool.path is not None
        with visit(spool.path) as seen:
            seen.retry([1, 2])
        (later,) = spool.append(entries("new")).result()
        with visit(spool.path) as seen:
            seen.retry([3])
        (last,) = spool.append(entries("last")).result()
        rows = spool.read("crm", numbers[-1]).result()
        assert [row.message_id for row in rows] == ["m0", "m1", "mnew", "m2", "mlast"]
        assert [rows[2].seq, rows[4].seq] == [later, last]


# ------------------------------------------------------------------------------ never told twice


@pytest.mark.parametrize("is_first", [True, False])
def test_opening_again_tells_nothing_twice(tmp_path: Path, *, is_first: bool) -> None:
    """After an I/O error the store is another, and its rows are the same."""
    folder, told = tmp_path / "spool", Told()
    left_behind(folder, *entries(1))
    with Spool(folder, on_found=told) as spool:
        if not is_first:
            spool.append(entries(2)).result()
        store = spool._keeper.store
        assert store is not None
        store.db.close()
        with pytest.raises(SpoolBroken):
            spool.append(entries(3)).result()
        spool.append(entries(4)).result()
        assert spool._keeper.store is not store
        assert told.pieces == [{"crm": 1}]


def test_what_a_failed_commit_has_left_is_told(tmp_path: Path) -> None:
    """Who appended it was told that it failed; once it turns out to wait, it is news."""
    told = Told()
    with Spool(tmp_path / "spool", on_found=told) as spool:
        numbers = spool.append(entries(1, 2, 3)).result()
        store = spool._keeper.store
        assert store is not None
        work = store.append

        def fail_late(rows: object) -> object:
            work(rows)  # type: ignore[arg-type]
            store._save()
            store.db.execute("COMMIT")  # it is on disk, and then the disk says no
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

        store.append = fail_late  # type: ignore[method-assign, assignment]
        with forks.disk.alone:
            removal = spool.remove(numbers[:1])
            append = spool.append(entries("a", "b"))
        for future in (removal, append):
            with pytest.raises(SpoolBroken):
                future.result()
        (last,) = spool.append(entries("c")).result()
        assert told.pieces == [{"crm": 2}]
        rows = spool.read("crm").result()
        assert [row.message_id for row in rows] == ["m2", "m3", "ma", "mb", "mc"]
        assert rows[-1].seq == last


def test_a_first_opening_that_failed_tells_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the first commit that works, and before its appends."""
    folder, told = tmp_path / "spool", Told()
    left_behind(folder, *entries(*range(5)))
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise OSError

        patch.setattr(keeper.files, "left_in", fail)
        spool = Spool(folder, on_found=told)
    with spool:
        assert told.pieces == []
        append = spool.append(entries("a"))
        append.add_done_callback(lambda _: told.order.append("append"))
        append.result()
        assert waiting(spool)[:2] == ["m0", "m1"]
        assert told.order == ["found", "append"]
        assert told.pieces == [{"crm": 5}]


def test_a_salvage_of_the_own_file_tells_nothing(tmp_path: Path) -> None:
    """Its rows were known, those too that get new numbers in the fresh file."""
    told = Told()
    with Spool(tmp_path / "spool", on_found=told) as spool:
        spool.append(entries(*range(2_000), size=690)).result()
        path = spool.path
        assert path is not None
        rot(spool, path)
        found = waiting(spool)
        assert spool.path != path
        assert 500 < len(found) < 2_000
        assert spool.append(entries("new")).result()
        assert spool.adopt().result() == 0
        assert told.pieces == []


def test_a_salvage_that_is_made_up_for_later_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it fails in the middle, adoption brings the rest: rows of this spool all the same."""
    told = Told()
    with Spool(tmp_path / "spool", on_found=told) as spool:
        spool.append(entries(*range(2_000), size=690)).result()
        path = spool.path
        assert path is not None
        rot(spool, path)

        def fail(*_: object, **__: object) -> None:
            raise OSError

        with monkeypatch.context() as patch:
            patch.setattr(keeper, "salvage", fail)
            with pytest.raises(SpoolBroken):
                waiting(spool)
        assert spool.append(entries("new")).result()
        assert path in left_in(tmp_path / "spool")
        while spool.adopt().result():
            pass
        assert path not in left_in(tmp_path / "spool")
        assert len(waiting(spool)) > 500
        assert told.pieces == []


def rot(spool: Spool, path: Path) -> None:
    """Ruin some pages of a file under its process."""
    store = spool._keeper.store
    assert store is not None
    store.checkpoint()
    store.db.execute("PRAGMA shrink_memory")
    raw = bytearray(path.read_bytes())
    for page in range(len(raw) // 8192, len(raw) // 4096, 3):
        raw[page * 4096 : page * 4096 + 16] = b"\xff" * 16
    with path.open("r+b") as out:
        out.write(raw)


def test_a_malformed_file_of_another_is_told(tmp_path: Path) -> None:
    """What can be read of it is found as what a good file has."""
    folder, told = tmp_path / "spool", Told()
    with Spool(folder, on_found=told) as spool:
        spool.append(entries("own")).result()
        path = left_behind(folder, *entries(*range(2_000), size=690))
        raw = path.read_bytes()
        path.write_bytes(raw[: len(raw) * 3 // 4 // 4096 * 4096])
        while spool.adopt().result():
            pass
        assert told.total == {"crm": len(waiting(spool)) - 1}
        assert told.total["crm"] > 1_000


def test_a_file_that_takes_the_place_of_one_that_is_gone_is_fresh(tmp_path: Path) -> None:
    """Another's would hold numbers that were given out here; it is adopted under new ones."""
    folder, told = tmp_path / "spool", Told()
    with Spool(folder, on_found=told) as spool:
        numbers = spool.append(entries(1, 2, 3)).result()
        path = left_behind(folder, *entries(7, 8))
        assert spool.path is not None
        spool.path.unlink()
        spool.remove(numbers).result()
        assert spool.path != path
        assert spool.adopt().result() == 2
        assert waiting(spool) == ["m7", "m8"]
        assert told.pieces == [{"crm": 2}]


# --------------------------------------------------------------------------------------- adoption


def test_what_is_of_no_use_is_opened_once(tmp_path: Path) -> None:
    """Asked every few seconds, adoption leaves alone what has not changed, and takes what has."""
    folder, told = tmp_path / "spool", Told()
    newer = left_behind(folder, *entries(1))
    other = left_behind(folder, *entries(2, destination="lake"))
    with closing(sqlite3.connect(newer)) as db:
        db.execute("PRAGMA user_version = 99")
    parked = newer.with_suffix(".parked")
    newer.rename(parked)  # or no spool would open beside it
    with Spool(folder, destinations={"crm"}, on_found=told) as spool:
        parked.rename(newer)
        opened: list[str] = []
        assert spool.adopt().result() == 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite3, "connect", lambda path, **_: opened.append(path))
            for _ in range(3):
                assert spool.adopt().result() == 0
        assert opened == []
        with closing(sqlite3.connect(newer)) as db:
            db.execute("PRAGMA user_version = 1")
        with Spool(folder, destinations={"lake"}) as third:
            assert third.path == other
            third.append(entries(3, 4)).result()
        while spool.adopt().result():
            pass
        assert sorted(waiting(spool)) == ["m1", "m3", "m4"]
        assert told.total == {"crm": 3}
