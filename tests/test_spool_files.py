"""The spool's folder and files: their rights, their owners, their versions, and forks."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from asyncanalytics.errors import ConfigurationError
from asyncanalytics.spool import Entry, Spool, SpoolClosed, left_in, schema
from asyncanalytics.spool.files import RESERVE_BYTES, claim, create

if TYPE_CHECKING:
    from pathlib import Path

posix = pytest.mark.skipif(sys.platform == "win32", reason="rights and forks of POSIX")


def entry(name: str) -> Entry:
    """Return a call."""
    return Entry("crm", "track", name, b'{"event": "secret"}', 1.5)


def modes(folder: Path) -> dict[str, int]:
    """Return the rights of each file, by what its name ends with."""
    return {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


# ----------------------------------------------------------------------------------------- rights


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_files_are_for_their_owner_alone(tmp_path: Path, umask: int) -> None:
    """The folder has 0700 and each file in it 0600, whatever the umask."""
    folder = tmp_path / "new" / "spool"
    (tmp_path / "new").mkdir()
    before = os.umask(umask)
    try:
        with Spool(folder) as spool:
            spool.append([entry("m1")]).result()
            suffixes = {".spool", ".lock", ".reserve", ".spool-wal", ".spool-shm"}
            assert modes(folder) == dict.fromkeys(suffixes, 0o600)
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        os.umask(before)


@posix
def test_a_folder_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """It may be somebody else's too, so its rights are left as they are, with what to do."""
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    with pytest.raises(ConfigurationError, match=r"mode 0755\): run chmod 700"):
        Spool(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    folder.chmod(0o700)
    Spool(folder).close()


@posix
def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written there could be replaced by its owner."""
    mine = tmp_path.stat().st_uid
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        Spool(tmp_path)


def test_a_place_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    """A file there, or a parent that is one, is a mistake in the settings."""
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "file", tmp_path / "file" / "spool"):
        with pytest.raises(ConfigurationError, match="folder"):
            Spool(place)


def test_names_tell_nothing(tmp_path: Path) -> None:
    """No id, destination or process number is in a file's name."""
    with Spool(tmp_path / "spool") as spool:
        spool.append([entry("m1")]).result()
        (path,) = left_in(tmp_path / "spool")
        assert len(path.stem) == 16
        assert set(path.stem) <= set("0123456789abcdef")


# ----------------------------------------------------------------------------------------- owners


def test_each_spool_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Two in one process do not meet either; what one left, the next takes over as its own."""
    folder = tmp_path / "spool"
    with Spool(folder) as one, Spool(folder) as other:
        one.append([entry("m1")]).result()
        assert one.path != other.path
        assert other.adopt().result() == 0
        kept = one.path
    assert left_in(folder) == [kept]
    with Spool(folder) as next_one:
        assert next_one.path == kept
        assert [row.message_id for row in next_one.read("crm").result()] == ["m1"]


def test_an_empty_spool_leaves_nothing(tmp_path: Path) -> None:
    """Once all is removed, closing removes the file and what belongs to it."""
    with Spool(tmp_path / "spool") as spool:
        spool.remove(spool.append([entry("m1")]).result())
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_lock_is_not_taken_for_a_file_that_is_gone(tmp_path: Path) -> None:
    """Who waits for a file that its owner then removes gets none, and leaves nothing behind."""
    file = create(tmp_path)
    assert claim(file.path) is None
    file.delete()
    assert claim(file.path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_reserve_is_held_where_disks_cannot_allocate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written then."""
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    file = create(tmp_path)
    assert file.keep_reserve()
    assert file.path.with_suffix(".reserve").stat().st_size == RESERVE_BYTES
    file.delete()


def test_remains_are_swept(tmp_path: Path) -> None:
    """What a crash in the middle of making or removing a file leaves, the next one removes."""
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    for name in ("a.lock", "a.spool-wal", "a.spool-shm", "b.lock", "b.reserve"):
        (folder / name).write_bytes(b"rest")
    Spool(folder).close()
    assert list(folder.iterdir()) == []


def test_a_closed_spool_says_so(tmp_path: Path) -> None:
    """Closing twice is nothing; using it after that is an error."""
    spool = Spool(tmp_path / "spool")
    assert spool.close()
    assert spool.close()
    for use in (lambda: spool.append([entry("m1")]), lambda: spool.read("crm"), spool.adopt):
        with pytest.raises(SpoolClosed):
            use()


# --------------------------------------------------------------------------------------- versions


def left_behind(folder: Path) -> Path:
    """Leave a file with one call in a folder, and return its path."""
    with Spool(folder) as spool:
        spool.append([entry("m1")]).result()
    (path,) = left_in(folder)
    return path


def change(path: Path, script: str) -> None:
    """Run SQL on a file."""
    db = sqlite3.connect(path)
    db.executescript(script)
    db.close()


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    """The file is left as it was, for the release that knows it."""
    path = left_behind(tmp_path / "spool")
    change(path, "PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="version 99, and this release knows 1"):
        Spool(tmp_path / "spool")
    assert path.read_bytes() == before


def test_an_older_version_is_brought_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step runs once, in order, and what was in the file stays."""
    path = left_behind(tmp_path / "spool")
    steps = ("CREATE TABLE two (a);", "ALTER TABLE two ADD COLUMN b;")
    monkeypatch.setattr(schema, "_MIGRATIONS", (*schema._MIGRATIONS, *steps))
    monkeypatch.setattr(schema, "VERSION", 3)
    for _ in range(2):
        with Spool(tmp_path / "spool") as spool:
            assert spool.stats().events == 1
    db = sqlite3.connect(path)
    assert db.execute("SELECT name FROM pragma_table_info('two')").fetchall() == [("a",), ("b",)]
    assert db.execute("PRAGMA user_version").fetchone() == (3,)
    db.close()


def test_a_file_that_is_begun_meanwhile_is_a_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who looks into it as its owner makes the first tables finds none of it, or all."""
    path = tmp_path / "new.spool"
    path.touch(mode=0o600)
    plain = sqlite3.connect

    class Beaten(sqlite3.Connection):
        """A connection whose file is begun by its owner right after its first answer."""

        def execute(self, *args: Any) -> sqlite3.Cursor:
            """Read, and let the owner begin."""
            found = super().execute(*args)
            if not begun:
                begun.append(True)
                rows = iter(found.fetchall())
                monkeypatch.setattr(sqlite3, "connect", plain)
                schema.connect(path, "own").close()
                return super().execute("SELECT ?", next(rows))
            return found

    begun: list[bool] = []
    monkeypatch.setattr(sqlite3, "connect", partial(plain, factory=Beaten))
    db = schema.connect(path, "read")
    assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    db.close()


def test_another_database_is_not_touched(tmp_path: Path) -> None:
    """A file that only happens to have such a name is somebody else's."""
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    path = folder / "0123456789abcdef.spool"
    change(path, "CREATE TABLE mine (a); INSERT INTO mine VALUES (1)")
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="not a spool file"):
        Spool(folder)
    assert path.read_bytes() == before


# ------------------------------------------------------------------------------------------ forks

FORKED = """
import os, signal, sys
from asyncanalytics.spool import *

def entry(name):
    return Entry("crm", "track", name, b"{}", 1.5)

folder = sys.argv[1]
"""

IN_A_CHILD = (
    FORKED
    + """
spool = Spool(folder)
pending = []
for each in range(12):
    pending += [spool.append([entry(f"{each}-{n}")]) for n in range(40)]
    child = os.fork()  # while the writer is at work
    if not child:
        signal.alarm(20)
        try:
            spool.append([entry("child")])
        except SpoolForked:
            spool.close()
            with Spool(folder) as own:
                own.remove(own.append([entry("child")]).result()).result()
            sys.exit(0)  # an ordinary end, with all that Python does at it
    assert os.waitpid(child, 0)[1] == 0, each
numbers = [future.result()[0] for future in pending]
assert len(set(numbers)) == 480
assert spool.stats().events == 480
"""
)

LIVES_ON = (
    FORKED
    + """
reading, writing = os.pipe()
wait, go = os.pipe()
parent = os.fork()
if not parent:
    spool = Spool(folder)
    spool.append([entry("m1")]).result()
    child = os.fork()
    if not child:
        os.close(go)
        os.write(writing, b"%d\\n" % os.getpid())
        os.read(wait, 1)
        os._exit(0)
    signal.pause()
child = int(os.read(reading, 20))
os.kill(parent, signal.SIGKILL)
os.waitpid(parent, 0)
with Spool(folder) as spool:
    os.kill(child, 0)
    assert spool.stats().events == 1
os.close(go)
"""
)


@pytest.mark.long
@posix
@pytest.mark.parametrize("script", [IN_A_CHILD, LIVES_ON])
def test_a_fork_takes_nothing_along(tmp_path: Path, script: str) -> None:
    """A child is told, can have a spool of its own, and does not hold its parent's lock."""
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "spool")]
    done = subprocess.run(  # noqa: S603 - the command is written above
        command, capture_output=True, text=True, timeout=40, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@posix
def test_a_process_that_ends_without_closing_does_not_hang(tmp_path: Path) -> None:
    """The thread does not hold up the interpreter; what was durable is there."""
    script = FORKED + "Spool(folder).append([entry('m1')]).result()"
    command = [sys.executable, "-c", script, str(tmp_path / "spool")]
    done = subprocess.run(command, timeout=20, check=False)  # noqa: S603 - written above
    assert done.returncode == 0
    with Spool(tmp_path / "spool") as spool:
        assert spool.stats().events == 1
