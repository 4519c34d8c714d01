"""Calls on disk: what was appended survives a crash, and waits until it is removed.

`Spool` is the way in for the process that owns a file. From outside, `left_in` lists the files of
a folder, and `visit` opens one: to read it, and to change its dead letters.
"""

from asyncanalytics.settings import Sealing
from asyncanalytics.spool.errors import (
    SpoolBroken,
    SpoolBusy,
    SpoolClosed,
    SpoolDiskFull,
    SpoolError,
    SpoolForked,
    SpoolFull,
    SpoolReadOnly,
    SpoolUnavailable,
)
from asyncanalytics.spool.files import left_in
from asyncanalytics.spool.rows import (
    OVERHEAD,
    DeadLetter,
    Entry,
    Fields,
    Row,
    SpoolStats,
    Verdict,
    Waiting,
)
from asyncanalytics.spool.spool import Spool
from asyncanalytics.spool.visiting import Visit, visit

__all__ = [
    "OVERHEAD",
    "DeadLetter",
    "Entry",
    "Fields",
    "Row",
    "Sealing",
    "Spool",
    "SpoolBroken",
    "SpoolBusy",
    "SpoolClosed",
    "SpoolDiskFull",
    "SpoolError",
    "SpoolForked",
    "SpoolFull",
    "SpoolReadOnly",
    "SpoolStats",
    "SpoolUnavailable",
    "Verdict",
    "Visit",
    "Waiting",
    "left_in",
    "visit",
]
