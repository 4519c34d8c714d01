"""The folder and the files of spools: who may read them, and who owns which.

Invariants:
- The folder is for its owner alone (0700), and so is each file (0600), whatever the umask.
- A file belongs to whoever holds the lock of the `.lock` file beside it. The lock ends with its
  process, so a file whose lock is free was left behind, and exactly one process can claim it.
- Names are random: they carry no key, no payload and no process number.
- A forked child never works on a file that its parent had open, but on a copy: SQLite knows files
  by their inodes, and a child inherits its belief in locks that it does not have.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from asyncanalytics.errors import ConfigurationError
from asyncanalytics.spool import forking

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

SUFFIX: Final = ".spool"
RESERVE_BYTES: Final = 8 << 20
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)
_COMPANIONS: Final = ("-wal", "-shm", "-journal", "-copy")  # SQLite's own names, and ours
_inherited: Final[set[tuple[int, int]]] = set()  # files that a parent had open


class SpoolFile:
    """One file that this process owns, with its lock."""

    def __init__(self, path: Path, lock: int) -> None:
        """Made by `create` and `claim`."""
        self.path: Path = path
        self._lock: int | None = lock
        forking.forget_in_child(self)

    def begin(self) -> None:
        """Make an empty file if there is none. SQLite gives its own files the same rights."""
        if not self.path.exists():
            _make(self.path, os.O_EXCL)
            sync_folder(self.path.parent)

    def stands(self) -> bool:
        """Whether the file and its lock are still where they were made."""
        return self.path.exists() and self._lock is not None and _is_at(self._lock, self._lock_path)

    def set_aside(self) -> Path:
        """Give a file that SQLite cannot read another name, and let its lock go.

        It must be closed, and what can be read of it must be elsewhere by then.
        """
        number = 1
        while (aside := Path(f"{self.path}.corrupt-{number}")).exists():
            number += 1
        self.path.rename(aside)
        with suppress(FileNotFoundError):
            Path(f"{self.path}-wal").rename(f"{aside}-wal")
        self.delete()
        sync_folder(self.path.parent)
        return aside

    def delete(self) -> None:
        """Remove the file, which must be closed, and let its lock go."""
        self.drop_reserve()
        for path in (self.path, *(Path(f"{self.path}{each}") for each in _COMPANIONS)):
            path.unlink(missing_ok=True)
        if sys.platform == "win32":
            self.release()
            with suppress(OSError):
                self._lock_path.unlink()  # someone may have it open
        else:
            self._lock_path.unlink(missing_ok=True)
            self.release()

    def release(self) -> None:
        """Let the lock go, and leave the file to whoever claims it."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def forget(self) -> None:
        """Close the lock's descriptor in a forked child, and remember whose file it was."""
        if self._lock is not None:
            with suppress(OSError):
                _inherited.add(_identity(self.path))
        self.release()

    # ------------------------------------------------------------------------------- the reserve

    def keep_reserve(self) -> bool:
        """Hold disk space back, for what removing needs on a full disk; False if it is full.

        Where that does not work for another reason, it goes on without.
        """
        path = self._reserve_path
        try:
            if path.exists() and path.stat().st_size >= RESERVE_BYTES:
                return True
            descriptor = _make(path, os.O_TRUNC, keep=True)
            try:
                _allocate(descriptor, RESERVE_BYTES)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.drop_reserve()
            return error.errno not in _NO_ROOM
        return True

    def drop_reserve(self) -> bool:
        """Give the space held back to SQLite; whether there was any."""
        try:
            self._reserve_path.unlink()
        except OSError:
            return False
        return True

    @property
    def _reserve_path(self) -> Path:
        return self.path.with_suffix(".reserve")

    @property
    def _lock_path(self) -> Path:
        return self.path.with_suffix(".lock")


def prepare_folder(folder: str | os.PathLike[str]) -> Path:
    """Make the folder if there is none, and refuse one that others can look into.

    One that is there is never changed: it may be somebody else's too.
    """
    path = Path(folder).absolute()
    try:
        _make_folder(path)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, type(error).__name__)
        raise ConfigurationError(
            f"the spool's folder {str(path)!r} cannot be made ({code}): name another place"
        ) from error
    _check_rights(path)
    return path


def _make_folder(path: Path) -> None:
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)  # another process may be as far
    path.chmod(0o700)  # a umask may have taken even the owner's rights
    sync_folder(path.parent)


def _check_rights(path: Path) -> None:
    if sys.platform != "win32":
        found = path.stat()
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid != os.geteuid():
            raise ConfigurationError(
                f"the spool's folder {str(path)!r} belongs to another user: name a folder of your "
                "own, or one that does not exist yet"
            )
        if mode & 0o077:
            raise ConfigurationError(
                f"others can look into the spool's folder {str(path)!r} (mode {mode:04o}): run "
                "chmod 700 on it, or name a folder that does not exist yet"
            )


def create(folder: Path) -> SpoolFile:
    """Make a file of a new name and own it."""
    while True:
        path = folder / (secrets.token_hex(8) + SUFFIX)
        made = _lock(path)
        if made is not None:
            made.begin()
            return made


def claim(path: Path) -> SpoolFile | None:
    """Own a file that was left behind; None if a process runs that owns it, or if it is gone."""
    found = _lock(path)
    if found is not None and not path.exists():
        found.delete()  # what is left of a file that another has emptied and removed
        return None
    if found is not None and _inherited and _identity(path) in _inherited:
        return _copied(found)
    return found


def _copied(old: SpoolFile) -> SpoolFile | None:
    """Own a copy of a file in its place, under another name; None if the disk takes none."""
    made = None
    try:
        while made is None:
            made = _lock(old.path.with_name(secrets.token_hex(8) + SUFFIX))
        if (log := Path(f"{old.path}-wal")).exists():
            _copy(log, Path(f"{made.path}-wal"))
        _copy(old.path, copy := Path(f"{made.path}-copy"))
        copy.rename(made.path)
        sync_folder(made.path.parent)
    except OSError:
        old.release()
        if made is not None:
            made.delete()
        return None
    old.delete()
    return made


def _copy(source: Path, target: Path) -> None:
    descriptor = _make(target, os.O_TRUNC, keep=True)
    with source.open("rb") as old, os.fdopen(descriptor, "wb") as new:
        while piece := old.read(1 << 20):
            new.write(piece)
        new.flush()
        os.fsync(new.fileno())


def left_in(folder: Path) -> list[Path]:
    """Return the spool files in a folder, the largest first; their owners may be running."""
    sizes = []
    with suppress(FileNotFoundError), os.scandir(folder) as found:
        for each in found:
            if each.name.endswith(SUFFIX):
                with suppress(FileNotFoundError):
                    sizes.append((each.stat().st_size, each.name))
    return [folder / name for _, name in sorted(sizes, reverse=True)]


def state(path: Path) -> list[tuple[int, int]]:
    """Return what is another after each change of a file that is closed."""
    found = []
    for each in (path, Path(f"{path}-wal")):
        with suppress(FileNotFoundError):
            seen = each.stat()
            found.append((seen.st_size, seen.st_mtime_ns))
    return found


def sweep(folder: Path) -> None:
    """Remove what belongs to files that are gone, as a crash in the middle of removing leaves."""
    for lock in folder.glob("*.lock"):
        path = lock.with_suffix(SUFFIX)
        if not path.exists():
            file = claim(path)
            if file is not None:
                file.release()  # made since then


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can."""
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(path: Path) -> SpoolFile | None:
    lock_path = path.with_suffix(".lock")
    lock = _make(lock_path, 0, keep=True)
    # Between its opening and its locking, another may have locked it, done its work and removed
    # it: then what is locked here is no longer the file of that name.
    if _try_lock(lock) and _is_at(lock, lock_path):
        return SpoolFile(path, lock)
    os.close(lock)
    return None


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _make(path: Path, flags: int, *, keep: bool = False) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    if sys.platform != "win32":
        os.fchmod(descriptor, 0o600)  # a umask may have taken even the owner's rights
    if not keep:
        os.close(descriptor)
    return descriptor


def _allocate(descriptor: int, size: int) -> None:
    allocate = getattr(os, "posix_fallocate", None)
    try:
        if allocate is not None:
            allocate(descriptor, 0, size)
            return
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
    os.truncate(descriptor, 0)  # not every system can, nor every disk
    left = size
    while left > 0:
        left -= os.write(descriptor, bytes(min(left, 1 << 20)))
