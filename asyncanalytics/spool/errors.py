"""What can go wrong with a spool, named by cause.

SpoolError
├── SpoolFull            the quota leaves no room
├── SpoolUnavailable     the disk does not do what it should; later it may again
│   ├── SpoolDiskFull
│   ├── SpoolReadOnly
│   ├── SpoolBusy        another process was at work on the file for too long
│   └── SpoolBroken      an I/O error, a file that is gone, or anything else
├── SpoolClosed          used after its close
└── SpoolForked          used in a forked child

Messages name limits and SQLite's own codes. They never contain a payload.
"""

from __future__ import annotations

import errno
import sqlite3

from asyncanalytics.errors import AnalyticsError


class SpoolError(AnalyticsError):
    """The root of what a spool raises while it runs."""


class SpoolFull(SpoolError):
    """The quota leaves no room for these rows. None of them was taken."""

    def __init__(self, *, max_bytes: int) -> None:
        """Name the quota."""
        super().__init__(
            f"the spool is full ({max_bytes:,} bytes): raise its max_bytes, or purge dead letters"
        )
        self.max_bytes = max_bytes


class SpoolUnavailable(SpoolError):
    """The disk refused. The next append tries again."""

    def __init__(self, problem: str, *, code: str = "") -> None:
        """Give the problem as a phrase, and the code that came with it."""
        super().__init__(f"the spool's {problem}" + (f" ({code})" if code else ""))
        self.code = code


class SpoolDiskFull(SpoolUnavailable):
    """The disk has no room. What is in the spool can still be read and removed."""

    def __init__(self, code: str = "") -> None:
        """Say what helps."""
        super().__init__("disk is full: free some space, and it goes on by itself", code=code)


class SpoolReadOnly(SpoolUnavailable):
    """The file or its disk cannot be written."""

    def __init__(self, code: str = "") -> None:
        """Say what helps."""
        super().__init__("file is read-only: make its disk writable again", code=code)


class SpoolBusy(SpoolUnavailable):
    """Another process kept the file from being written for longer than could be waited."""

    def __init__(self, code: str = "") -> None:
        """Say what helps."""
        super().__init__("file is being changed by another process: try again", code=code)


class SpoolBroken(SpoolUnavailable):
    """The file cannot be used at the moment."""

    def __init__(self, code: str = "") -> None:
        """Name the code."""
        super().__init__("file cannot be used", code=code)


class SpoolClosed(SpoolError):
    """The spool is closed, and takes nothing more."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("this spool is closed: open it again")


class SpoolForked(SpoolError):
    """The spool was opened in another process, which has forked this one."""

    def __init__(self) -> None:
        """Say what to do instead."""
        super().__init__("this spool belongs to the parent process: open another in the child")


def named(error: sqlite3.Error | OSError) -> SpoolUnavailable:
    """Return the named error for what SQLite or the system reported."""
    if isinstance(error, OSError):
        code = errno.errorcode.get(error.errno or 0, type(error).__name__)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return SpoolDiskFull(code)
        return SpoolReadOnly(code) if error.errno == errno.EROFS else SpoolBroken(code)
    code = getattr(error, "sqlite_errorname", None) or type(error).__name__
    primary = _primary(error)
    if primary == sqlite3.SQLITE_FULL:
        return SpoolDiskFull(code)
    if primary == sqlite3.SQLITE_BUSY:
        return SpoolBusy(code)
    return SpoolReadOnly(code) if primary == sqlite3.SQLITE_READONLY else SpoolBroken(code)


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file itself is damaged."""
    return _primary(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _primary(error: sqlite3.Error) -> int:
    """Return the error's code without what SQLite adds to it; 0 when Python raised it itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
