"""A table in a DuckDB file, for analysis: each event once, whatever is sent twice (extra `duckdb`).

The messageId is the table's key, and an event whose id is there already is left out. The file is
opened for each batch, in a thread: between two batches any other program may open it, which
DuckDB lets one process do at a time. While another has it, batches wait as for a server that is
down.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Unpack

from asyncanalytics.destinations.base import CALLED_OFF, Rules, TableDestination
from asyncanalytics.errors import MissingExtra

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from asyncanalytics.batching import Batch

_TABLE: Final = """CREATE TABLE IF NOT EXISTS {} (
    message_id VARCHAR PRIMARY KEY,
    payload JSON NOT NULL,
    stored_at TIMESTAMP NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    type VARCHAR GENERATED ALWAYS AS (payload ->> '$.type') VIRTUAL,
    event VARCHAR GENERATED ALWAYS AS (payload ->> '$.event') VIRTUAL,
    user_id VARCHAR GENERATED ALWAYS AS (payload ->> '$.userId') VIRTUAL,
    anonymous_id VARCHAR GENERATED ALWAYS AS (payload ->> '$.anonymousId') VIRTUAL,
    group_id VARCHAR GENERATED ALWAYS AS (payload ->> '$.groupId') VIRTUAL,
    "timestamp" VARCHAR GENERATED ALWAYS AS (payload ->> '$.timestamp') VIRTUAL
)"""


class DuckdbDestination(TableDestination):
    """Inserts events into a table of a DuckDB file, which is made where it is not there.

    It has the columns `message_id`, `payload` (JSON) and `stored_at` (UTC), and, read out of the
    payload, `type`, `event`, `user_id`, `anonymous_id`, `group_id` and `timestamp`.
    """

    kind = "duckdb"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        table: str = "events",
        name: str | None = None,
        **rules: Unpack[Rules],
    ) -> None:
        """Name the file, and the table in it.

        Raises:
            ConfigurationError: if the table's name cannot work, or DuckDB is not installed.
        """
        if find_spec("duckdb") is None:
            raise MissingExtra("a DuckDB file", "duckdb")
        super().__init__(path, table=table, name=name, **rules)

    def _insert(self, batch: Batch, may_commit: Callable[[], bool]) -> str | None:
        import duckdb  # takes a tenth of a second, which is this thread's

        ids = [receipt.message_id for receipt in batch.receipts]
        payloads = ["{" + receipt.body.decode() for receipt in batch.receipts]
        is_new = not self._path.exists()
        try:
            with duckdb.connect(self._path, config={"threads": 1}) as db:
                if is_new:
                    self._path.chmod(0o600)
                db.begin()
                db.execute(_TABLE.format(self._table))
                db.execute(
                    f"INSERT OR IGNORE INTO {self._table} (message_id, payload)"
                    " SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[])",
                    [ids, payloads],
                )
                if not may_commit():
                    return CALLED_OFF
                db.commit()
        except (duckdb.Error, OSError) as error:
            return f"cannot insert: {type(error).__name__}"  # its text may show values
        return None
