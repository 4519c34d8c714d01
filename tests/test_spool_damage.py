"""The spool when what it wrote is no longer what is there: rotten, torn, cut or no database."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asyncanalytics.errors import ConfigurationError
from asyncanalytics.spool import Entry, Spool, Verdict, left_in

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An open spool."""
    with Spool(tmp_path / "spool") as opened:
        yield opened


def entries(*names: object, size: int = 100) -> list[Entry]:
    """Return calls with these ids."""
    return [Entry("crm", "track", f"m{name}", body(f"m{name}", size), 1.5) for name in names]


def body(name: str, size: int = 100) -> bytes:
    """Return the body that belongs to an id."""
    return f"{name:>{size}}".encode()


def waiting(spool: Spool) -> list[str]:
    """Return the ids of the calls that wait, whose bodies must be whole."""
    rows = spool.read("crm", max_events=99_999, max_bytes=1 << 40).result()
    assert all(row.body == body(row.message_id, len(row.body)) for row in rows)
    return [row.message_id for row in rows]


def left_behind(folder: Path, count: int = 300, size: int = 690) -> Path:
    """Leave a file with calls in a folder, and return its path."""
    with Spool(folder) as spool:
        spool.append(entries(*range(count), size=size)).result()
    (path,) = left_in(folder)
    return path


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1 << (at % 8)
    path.write_bytes(raw)


def test_a_rotten_body_is_set_aside(tmp_path: Path) -> None:
    """SQLite does not see it; the row's checksum does, and the others are read."""
    path = left_behind(tmp_path / "spool")
    flip(path, path.read_bytes().index(body("m7", 690)) + 300)
    for _ in range(2):
        with Spool(tmp_path / "spool") as spool:
            assert waiting(spool) == [f"m{each}" for each in range(300) if each != 7]
            assert spool.stats().damaged == 1
            assert spool.stats().events == 299
            assert spool.stats().corrupt_files == 0


def test_a_rotten_id_is_set_aside(tmp_path: Path) -> None:
    """The index does not agree with the row any more: the file is replaced, numbers stay."""
    path = left_behind(tmp_path / "spool")
    flip(path, path.read_bytes().index(b"trackm7 ") + 5)
    with Spool(tmp_path / "spool") as spool:
        assert waiting(spool) == [f"m{each}" for each in range(300) if each != 7]
        rows = spool.read("crm", max_events=999).result()
        assert [row.seq for row in rows] == [each + 1 for each in range(300) if each != 7]
        assert spool.stats().damaged == 1
        assert spool.append(entries("new")).result()[0] > 300


@pytest.mark.long
@pytest.mark.parametrize("seed", range(40))
def test_rot_anywhere_is_survived(tmp_path: Path, seed: int) -> None:
    """Whatever byte is wrong: no wrong row comes out, what is missing is counted, and it works."""
    chance = random.Random(seed)  # noqa: S311 - where to damage is no secret
    folder = tmp_path / "spool"
    path = left_behind(folder, 150)
    size = path.stat().st_size
    # Some hit the first page, where the schema is, and the rest anywhere.
    flip(path, chance.randrange(100, 4_096) if seed < 10 else chance.randrange(4_096, size))
    try:
        spool = Spool(folder)
    except ConfigurationError:
        pytest.skip("it looks like another kind of file")
    with spool:
        while spool.adopt().result():
            pass
        found = waiting(spool)
        assert set(found) <= {f"m{each}" for each in range(150)}
        assert len(found) == len(set(found)) == spool.stats().events
        assert len(spool.append(entries(*range(900, 950))).result()) == 50
        numbers = [row.seq for row in spool.read("crm", max_events=999).result()]
        spool.remove(numbers).result()
        assert waiting(spool) == []
        figures = spool.stats()
        if not figures.corrupt_files:
            assert len(found) + figures.damaged + figures.lost == 150


def test_a_torn_log_keeps_what_came_before(tmp_path: Path) -> None:
    """Of a log that ends anywhere, whole commits are read, up to the tear."""
    with Spool(tmp_path / "spool") as spool:
        for each in range(30):
            spool.append(entries(f"{each}a", f"{each}b", size=690)).result()
        assert spool.path is not None
        log = Path(f"{spool.path}-wal").read_bytes()
        main = spool.path.read_bytes()
    lengths = set()
    for each, cut in enumerate((0, 40, 5_000, len(log) // 2, len(log) - 5_000, len(log) - 1)):
        folder = tmp_path / f"torn{each}"
        folder.mkdir(mode=0o700)
        (folder / "a.spool").write_bytes(main)
        (folder / "a.spool-wal").write_bytes(log[:cut])
        with Spool(folder) as spool:
            found = waiting(spool)
            count = len(found) // 2
            assert found == [f"m{n}{x}" for n in range(count) for x in "ab"]
            assert spool.append(entries("new")).result()
            lengths.add(count)
    assert len(lengths) >= 3
    assert {0, 29} < lengths


@pytest.mark.parametrize(
    "garbage", [b"no database" * 999, b"\0" * 9_000, b"SQLite format 3\0" * 99]
)
def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, garbage: bytes) -> None:
    """It gets another name, and is counted; the spool has a fresh one."""
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    (folder / "0123456789abcdef.spool").write_bytes(garbage)
    with Spool(folder) as spool:
        spool.append(entries(1)).result()
        assert spool.adopt().result() == 0
        assert spool.stats().corrupt_files == 1
        assert (folder / "0123456789abcdef.spool.corrupt-1").read_bytes() == garbage
        assert len(left_in(folder)) == 1
        assert waiting(spool) == ["m1"]


def test_most_of_a_file_that_is_cut_is_saved(tmp_path: Path) -> None:
    """What can be read of it is taken over, by the running process or by the next."""
    folder = tmp_path / "spool"
    path = left_behind(folder, 2_000)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) * 3 // 4 // 4096 * 4096])
    with Spool(folder) as spool:
        while spool.adopt().result():
            pass
        found = waiting(spool)
        assert len(found) > 1_000
        assert spool.stats().corrupt_files == 1
        assert spool.stats().lost + len(found) + spool.stats().damaged == 2_000


def test_a_file_that_fails_while_it_is_taken_over_is_saved(tmp_path: Path) -> None:
    """Its first rows are moved before the damage is met; then what is left is copied."""
    folder = tmp_path / "spool"
    with Spool(folder) as spool, Spool(folder) as other:
        numbers = other.append(entries(*range(3_000), size=690)).result()
        other.bury(numbers[-3:], Verdict("dropped", None, "expired", "", 1.0)).result()
        path = other.path
        other.close()
        assert path is not None
        raw = bytearray(path.read_bytes())
        at = raw.index(body("m1999", 690)) // 4096 * 4096
        raw[at : at + 16] = b"\xff" * 16
        path.write_bytes(raw)
        while spool.adopt().result():
            pass
        found = waiting(spool)
        figures = spool.stats()
        assert len(found) > 2_900
        assert len(found) == len(set(found))
        assert figures.corrupt_files == 1
        assert len(found) + figures.damaged + figures.lost == 2_997
        assert figures.dead_events == 3
        assert len(left_in(folder)) == 1


def test_damage_while_running_is_survived(spool: Spool) -> None:
    """The pages rot under the process: it goes on in a fresh file, with what was readable."""
    spool.append(entries(*range(2_000), size=690)).result()
    store = spool._keeper.store
    assert store is not None
    store.checkpoint()
    store.db.execute("PRAGMA shrink_memory")
    path = spool.path
    assert path is not None
    raw = bytearray(path.read_bytes())
    for page in range(len(raw) // 8192, len(raw) // 4096, 3):
        raw[page * 4096 : page * 4096 + 16] = b"\xff" * 16
    with path.open("r+b") as out:
        out.write(raw)
    found = waiting(spool)
    assert spool.path != path
    assert spool.stats().corrupt_files == 1
    assert 500 < len(found) < 2_000
    assert spool.stats().lost + len(found) + spool.stats().damaged == 2_000
    assert spool.append(entries("new")).result()[0] > 2_000
