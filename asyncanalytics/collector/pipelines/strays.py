"""Events in a spool's folder that wait for integrations which the configuration does not have.

They are nobody else's: one of their name is to come again, or they are taken out by hand.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from asyncanalytics.errors import AnalyticsError
from asyncanalytics.spool import left_in
from asyncanalytics.spool.store import Store

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path


def strays(folder: Path, known: Collection[str]) -> Mapping[str, int]:
    """Count them by the name that they wait for; what cannot be read is passed over.

    Files are read without being claimed: who takes them over is not to meet a closed door.
    """
    found: Counter[str] = Counter()
    for path in left_in(folder):
        with (
            suppress(AnalyticsError, OSError, sqlite3.Error),
            closing(Store(path, access="read")) as store,
        ):
            waiting = store.by_destination().items()
            found.update({name: each.events for name, each in waiting if name not in known})
    return +found
