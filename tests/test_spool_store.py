"""What goes into a spool comes out of it: a model of it, its figures, dead letters, encryption."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from asyncanalytics import forks
from asyncanalytics.spool import (
    OVERHEAD,
    Entry,
    Sealing,
    Spool,
    SpoolFull,
    Verdict,
    left_in,
    visit,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

BAD = Verdict("rejected", 400, "rejected", "no such plan: gold", 9.5)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    """An open spool."""
    with Spool(tmp_path / "spool") as opened:
        yield opened


def entries(count: int, destination: str = "crm", size: int = 100) -> list[Entry]:
    """Return calls whose bodies differ."""
    return [
        Entry(destination, "track", f"m{each}", f"{each:>{size}}".encode(), 1.0 + each)
        for each in range(count)
    ]


def waiting(spool: Spool, destination: str = "crm") -> list[str]:
    """Return the ids of the calls that wait."""
    return [row.message_id for row in spool.read(destination, max_events=9_999).result()]


# --------------------------------------------------------------------------------------- a model

BODIES = st.binary(max_size=40).map(b'"%b"'.__mod__)
NAMES = st.sampled_from([f"m{each}" for each in range(12)])
PLACES = st.sampled_from(["crm", "warehouse"])


class Model(RuleBasedStateMachine):
    """A spool beside plain dicts: what was asked for is what is there, after reopening too."""

    @initialize()
    def begin(self) -> None:
        """Open an empty one."""
        self.folder = Path(tempfile.mkdtemp())
        self.spool = Spool(self.folder / "spool")
        self.waiting: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.dead: dict[int, tuple[str, str, bytes]] = {}

    @rule(calls=st.lists(st.tuples(PLACES, NAMES, BODIES), max_size=70))
    def append(self, calls: list[tuple[str, str, bytes]]) -> None:
        """Those whose id waits already keep their number, told below 0, and their body."""
        found = [Entry(place, "page", name, body, 2.5) for place, name, body in calls]
        numbers = self.spool.append(found).result()
        assert len(numbers) == len(calls)
        for (place, name, body), number in zip(calls, numbers, strict=True):
            assert (number < 0) == ((place, name) in self.waiting)
            kept, _ = self.waiting.setdefault((place, name), (number, body))
            assert abs(number) == kept

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Numbers that are gone already do no harm."""
        picked = data.draw(st.lists(st.sampled_from(sorted(self.waiting)), unique=True))
        numbers = [self.waiting.pop(each)[0] for each in picked]
        self.spool.remove([*numbers, 999_999]).result()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        """A letter has what the call had."""
        picked = data.draw(st.lists(st.sampled_from(sorted(self.waiting)), unique=True))
        gone = [(each, *self.waiting.pop(each)) for each in picked]
        assert self.spool.bury([number for _, number, _ in gone], BAD).result() == len(gone)
        last = max(self.dead, default=0)
        letters = self.spool.dead(last).result()
        for letter, (where, _, body) in zip(letters, sorted(gone, key=lambda g: g[1]), strict=True):
            self.dead[letter.id] = (*where, body)
            assert letter.verdict == BAD

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        """They wait again, unless one with their id does already."""
        picked = data.draw(st.lists(st.sampled_from(sorted(self.dead)), unique=True))
        assert self.spool.retry(picked).result() == len(picked)
        for each in sorted(picked):  # of two with one id, the letter that is older
            place, name, body = self.dead.pop(each)
            self.waiting.setdefault((place, name), (0, body))
        for place in ("crm", "warehouse"):
            for row in self.spool.read(place).result():
                _, body = self.waiting[place, row.message_id]
                self.waiting[place, row.message_id] = (row.seq, body)

    @rule(place=PLACES)
    def purge(self, place: str) -> None:
        """Only those of the destination go."""
        gone = [number for number, letter in self.dead.items() if letter[0] == place]
        assert self.spool.purge(destination=place).result() == len(gone)
        for number in gone:
            del self.dead[number]

    @rule()
    def reopen(self) -> None:
        """Numbers stay, and what is empty begins anew."""
        self.spool.close()
        self.spool = Spool(self.folder / "spool")

    @invariant()
    def same(self) -> None:
        """Rows are in order and whole, and the figures are exact."""
        figures = self.spool.stats().by_destination
        for place in ("crm", "warehouse"):
            rows = self.spool.read(place, max_events=50).result()
            model = {k[1]: v for k, v in self.waiting.items() if k[0] == place}
            assert {row.message_id: (row.seq, row.body) for row in rows} == model
            assert [row.seq for row in rows] == sorted(row.seq for row in rows)
            dead = [letter for letter in self.dead.values() if letter[0] == place]
            found = figures.get(place)
            assert (found.events if found else 0) == len(model)
            assert (found.bytes if found else 0) == sum(len(body) for _, body in model.values())
            assert (found.dead_events if found else 0) == len(dead)
        letters = self.spool.dead().result()
        assert {x.id: (x.destination, x.message_id, x.body) for x in letters} == self.dead

    def teardown(self) -> None:
        """Remove the files."""
        self.spool.close()
        shutil.rmtree(self.folder)


Model.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestModel = pytest.mark.filterwarnings("default")(Model.TestCase)


# ---------------------------------------------------------------------------------------- reading


def test_reading_goes_on_after_a_number(spool: Spool) -> None:
    """Pieces join up to everything, in order, of one destination."""
    mixed = [row for pair in zip(entries(50), entries(50, "lake"), strict=True) for row in pair]
    spool.append(mixed).result()
    found, last = [], 0
    while rows := spool.read("crm", last, max_events=7).result():
        last = rows[-1].seq
        found += rows
    assert [row.message_id for row in found] == [f"m{each}" for each in range(50)]
    assert [row.created for row in found] == [1.0 + each for each in range(50)]
    assert {row.destination for row in found} == {"crm"}


def test_a_piece_is_bounded_in_bytes(spool: Spool) -> None:
    """It ends before it would be larger, and has one row at the least."""
    spool.append(entries(10)).result()
    assert len(spool.read("crm", max_bytes=399).result()) == 3
    assert len(spool.read("crm", max_bytes=400).result()) == 4
    assert len(spool.read("crm", max_bytes=1).result()) == 1


def test_one_body_is_not_taken_for_another(spool: Spool) -> None:
    """Empty, binary and large bodies and ids of any script come back as they were."""
    bodies = [b"", bytes(range(1, 256)), b"x" * 300_000, "Grüße 🚀".encode()]
    spool.append(
        [Entry("crm", "track", f"ü{each}", body, 0.1) for each, body in enumerate(bodies)]
    ).result()
    assert [row.body for row in spool.read("crm", max_bytes=1 << 30).result()] == bodies


def test_a_wrong_entry_raises_in_the_caller(spool: Spool) -> None:
    """It never gets into a commit that others share."""
    wrong: list[Any] = [
        Entry("crm", "track", "m1", "text", 1.0),  # type: ignore[arg-type]
        Entry("crm", "track", "m1", b"{}", float("nan")),
        Entry("crm", "track", "\ud800", b"{}", 1.0),
        Entry("crm", "track", None, b"{}", 1.0),  # type: ignore[arg-type]
        Entry("crm", "track", "m1", b"{}", "1"),  # type: ignore[arg-type]
    ]
    for entry in wrong:
        with pytest.raises((TypeError, ValueError)):
            spool.append([entry])
    with pytest.raises(ValueError, match="numbers"):
        spool.remove([1 << 70])
    assert waiting(spool) == []


def test_no_repr_shows_what_a_call_carries(spool: Spool) -> None:
    """Rows may end up in a log or a traceback."""
    (entry,) = entries(1, size=5)
    numbers = spool.append([entry]).result()
    (row,) = spool.read("crm").result()
    spool.bury(numbers, BAD).result()
    (letter,) = spool.dead().result()
    text = repr([entry, row, letter, letter.verdict, spool, Sealing(seal=bytes, open=bytes)])
    assert "    0" not in text
    assert "gold" not in text
    assert "m0" in text
    assert "function" not in text


# ----------------------------------------------------------------------------------- quota, space


def test_the_quota_is_exact(tmp_path: Path) -> None:
    """An append over it takes nothing; what is removed makes room, after reopening too."""
    with Spool(tmp_path / "spool", max_bytes=1 << 20) as spool:
        fits = (1 << 20) // (1_000 + OVERHEAD)
        numbers = spool.append(entries(fits, size=1_000)).result()
        with pytest.raises(SpoolFull, match="1,048,576 bytes") as caught:
            spool.append(entries(1, "lake", size=1_000))
        assert caught.value.max_bytes == 1 << 20
        spool.append(entries(1, "lake", size=spool.room - OVERHEAD)).result()
        assert spool.room == 0
        assert spool.path is not None
        assert spool.path.stat().st_size < 1.2 * (1 << 20)
    with Spool(tmp_path / "spool", max_bytes=1 << 20) as spool:
        assert spool.room == 0
        spool.remove(numbers[:2]).result()
        assert spool.room == 2 * (1_000 + OVERHEAD)


def test_rows_under_way_count(tmp_path: Path) -> None:
    """Many callers at once do not pass the quota between them; cancelled ones give it back."""
    with Spool(tmp_path / "spool", max_bytes=1 << 20) as spool:
        with forks.disk.alone:  # the thread waits
            fits = (1 << 20) // (100 + OVERHEAD)
            futures = [spool.append([row]) for row in entries(fits)]
            with pytest.raises(SpoolFull):
                spool.append(entries(1, "lake"))
            cancelled = sum(future.cancel() for future in futures[1:])
        futures[0].result()
        spool.read("crm").result()
        assert spool.stats().held_bytes == spool.stats().events * (100 + OVERHEAD)
        assert spool.stats().events == len(futures) - cancelled


def test_what_is_removed_makes_room_at_once(tmp_path: Path) -> None:
    """There is room as soon as a removal is asked for, before the commit that does it."""
    with Spool(tmp_path / "spool", max_bytes=1 << 20) as spool:
        numbers = spool.append(entries(4, size=(1 << 18) - OVERHEAD)).result()
        assert spool.room == 0
        with forks.disk.alone:  # the thread waits
            removal = spool.remove(numbers[:1], freed=1 << 18)
            assert spool.room == 1 << 18
            append = spool.append(entries(1, "lake", size=(1 << 18) - OVERHEAD))
            assert spool.room == 0
            with pytest.raises(SpoolFull):
                spool.append(entries(1, "lake", size=0))
            assert not append.done()
        removal.result()
        append.result()
        assert spool.room == 0
        assert waiting(spool) == ["m1", "m2", "m3"]
        gone = [spool.remove([number], freed=1 << 18) for number in numbers[1:]]
        assert spool.room == 3 << 18
        for each in gone:
            each.result()
            assert spool.room <= 3 << 18
        assert spool.room == 3 << 18


def test_a_removal_that_is_cancelled_makes_no_room(tmp_path: Path) -> None:
    """Nor does one that names more than there was: after its commit the figures are exact."""
    with Spool(tmp_path / "spool", max_bytes=1 << 20) as spool:
        numbers = spool.append(entries(2)).result()
        with forks.disk.alone:
            spool.append(entries(1))  # what the thread is at while the next one is cancelled
            removal = spool.remove(numbers[:1], freed=100 + OVERHEAD)
            assert removal.cancel()
        spool.read("crm").result()
        assert spool.room == (1 << 20) - 2 * (100 + OVERHEAD)
        removal = spool.remove(numbers[:1], freed=9 << 20)
        assert spool.room <= 1 << 20
        removal.result()
        assert spool.room == (1 << 20) - (100 + OVERHEAD)
        assert spool.stats().held_bytes == 100 + OVERHEAD


def test_space_is_used_again(spool: Spool) -> None:
    """What passes through leaves neither the file nor its log larger and larger."""
    assert spool.path is not None
    for each in range(60):
        rows = [row._replace(message_id=f"{each}-{row.message_id}") for row in entries(300)]
        spool.remove(spool.append(rows).result())
    spool.read("crm").result()
    assert spool.path.stat().st_size < 1_000_000
    assert Path(f"{spool.path}-wal").stat().st_size < 9_000_000


def test_a_file_shrinks_when_it_rests(spool: Spool) -> None:
    """What an outage has filled is given back."""
    numbers = spool.append(entries(12_000, size=690)).result()
    spool.remove(numbers).result()
    with forks.disk.alone:
        store = spool._keeper.store
        assert store is not None
        store.checkpoint()
        assert store.path.stat().st_size > 9_000_000
        while store.tidy():
            pass
        assert store.path.stat().st_size < 5_000_000


# ----------------------------------------------------------------------------------- dead letters


def test_dead_letters_are_picked(spool: Spool) -> None:
    """By destination, by time, by id; a name that is not known picks none."""
    for place, at in (("crm", 1.0), ("lake", 2.0), ("crm", 3.0)):
        rows = [row._replace(message_id=f"{at}") for row in entries(1, place)]
        spool.bury(spool.append(rows).result(), BAD._replace(at=at)).result()
    assert [letter.verdict.at for letter in spool.dead(destination="crm").result()] == [1.0, 3.0]
    assert [letter.id for letter in spool.dead(1, limit=1).result()] == [2]
    assert spool.dead(destination="typo").result() == []
    assert spool.purge(destination="typo").result() == 0
    assert spool.purge([1, 2, 3], before=2.0).result() == 1
    assert spool.purge(before=0.5).result() == 0
    assert spool.stats().dead_events == 2
    assert spool.purge().result() == 2
    assert spool.stats().by_destination == {}


def test_a_file_is_visited_from_outside(tmp_path: Path) -> None:
    """While its owner runs it can be read; after that dead letters can be retried and purged."""
    with Spool(tmp_path / "spool") as spool:
        numbers = spool.append(entries(5)).result()
        spool.bury(numbers[:3], BAD).result()
        (path,) = left_in(tmp_path / "spool")
        with visit(path) as seen:
            assert seen.is_owned
            assert seen.by_destination["crm"].events == 2
            assert [row.message_id for row in seen.read("crm")] == ["m3", "m4"]
            assert [letter.message_id for letter in seen.dead(1)] == ["m1", "m2"]
            spool.append(entries(6)[5:]).result()
            assert [row.message_id for row in seen.read("crm", numbers[-1])] == ["m5"]
    with visit(path) as seen:
        assert not seen.is_owned
        assert seen.oldest() == 4.0
        assert seen.retry([1]) == 1
        assert seen.purge() == 2
    with pytest.raises(FileNotFoundError), visit(path.with_name("no.spool")):
        pass
    with Spool(tmp_path / "spool") as spool:
        assert sorted(waiting(spool)) == ["m0", "m3", "m4", "m5"]


# ------------------------------------------------------------------------------------- encryption


def sealing(key: int) -> Sealing:
    """Return functions that can tell a wrong key."""

    def turn(body: bytes) -> bytes:
        return bytes(each ^ key for each in body)

    def opened(body: bytes) -> bytes:
        if body[:1] != bytes([key]):
            raise ValueError("wrong key")
        return turn(body[1:])

    return Sealing(seal=lambda body: bytes([key]) + turn(body), open=opened)


def test_bodies_are_sealed(tmp_path: Path) -> None:
    """Neither a body nor what an answer said of it is in the file; both come back."""
    with Spool(tmp_path / "spool", sealing=sealing(77)) as spool:
        numbers = spool.append([Entry("crm", "track", "m1", b"a secret" * 9, 1.0)]).result()
        assert spool.read("crm").result()[0].body == b"a secret" * 9
        spool.bury(numbers, BAD).result()
        assert spool.dead().result()[0].verdict == BAD
        assert spool.dead().result()[0].body == b"a secret" * 9
        raw = b"".join(path.read_bytes() for path in (tmp_path / "spool").iterdir())
        assert b"secret" not in raw
        assert b"gold" not in raw
        assert b"m1" in raw


def test_what_cannot_be_opened_is_set_aside_and_mended(tmp_path: Path) -> None:
    """A wrong key loses nothing: with the right one the calls wait again."""
    with Spool(tmp_path / "spool", sealing=sealing(1)) as spool:
        spool.append(entries(1_200)).result()
    with Spool(tmp_path / "spool", sealing=sealing(2)) as spool:
        assert spool.read("crm", max_events=9).result() == []
        assert spool.stats().damaged == 1_200
        assert spool.stats().events == 0
        assert spool.mend().result() == 0
        spool.append(entries(1, "lake")).result()
        assert len(spool.read("lake").result()) == 1
    with Spool(tmp_path / "spool", sealing=sealing(1)) as spool:
        assert spool.stats().damaged == 1_200
        assert spool.mend().result() == 1_200
        assert spool.stats().damaged == 0
        rows = spool.read("crm", max_events=9_999).result()
        assert [row.body for row in rows] == [entry.body for entry in entries(1_200)]


def test_a_seal_that_fails_raises_in_the_caller(tmp_path: Path) -> None:
    """It is the user's own function, and nothing is kept."""

    def fail(_: bytes) -> bytes:
        raise LookupError

    with Spool(tmp_path / "spool", sealing=Sealing(seal=fail, open=fail)) as spool:
        with pytest.raises(LookupError):
            spool.append(entries(1))
        assert spool.room == spool.max_bytes
