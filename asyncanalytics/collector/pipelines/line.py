"""A pipeline that runs: its client, its way in, and where its bad events are kept."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import SecretStr

from asyncanalytics.aside import Aside
from asyncanalytics.collector.answers import Refused
from asyncanalytics.collector.intake import moment
from asyncanalytics.collector.pipelines import building
from asyncanalytics.collector.pipelines.strays import strays
from asyncanalytics.destinations.file import append
from asyncanalytics.forwarding import Forwarding

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from asyncanalytics.client import AsyncClient
    from asyncanalytics.collector.judge import Reason
    from asyncanalytics.collector.pipelines.config import Pipeline, Server
    from asyncanalytics.collector.pipelines.figures import PipelineFigures

logger: logging.Logger = logging.getLogger("asyncanalytics")


class Bad(NamedTuple):
    """A bad event: its place in the request, and what there is of it."""

    place: int
    message_id: str | None
    reason: Reason
    payload: bytes


class Line:
    """One pipeline, from a start to an end."""

    def __init__(
        self, pipeline: Pipeline, server: Server, folder: Path, figures: PipelineFigures
    ) -> None:
        """Make its client, which is started and closed by the router."""
        self.config: Pipeline = pipeline
        self.figures: PipelineFigures = figures
        self.client: AsyncClient = building.client(pipeline, server, folder)
        self.way: Forwarding = Forwarding(self.client)
        self._bad = None if pipeline.bad_events is None else folder / pipeline.bad_events
        self._keeping = Aside()
        self._looking = Aside()
        self._folder = folder
        self._made_of = _essence(pipeline, folder)

    def is_made_of(self, pipeline: Pipeline, folder: Path) -> bool:
        """Whether this line would be made the same of another configuration, but for its key."""
        return self._made_of == _essence(pipeline, folder)

    def heed(self, server: Server) -> None:
        """Have those who wait from now on wait as long as the server says."""
        for flusher, each in zip(self.way.flushers, self.config.enabled, strict=True):
            flusher.queueing = building.queueing(each, self.config, server)

    @property
    def drain_timeout(self) -> float | None:
        """Seconds to drain when it is replaced: without a spool nobody takes over what is left."""
        return None if self.config.spool is None else self.config.drain_timeout

    @property
    def trouble(self) -> str | None:
        """Why it takes no events at the moment, if so."""
        journal = self.way.journal
        return "the spool's disk refuses" if journal is not None and journal.is_failing else None

    async def look_for_strays(self) -> None:
        """Count what waits in the spool for nobody who is here, and say what is new of it."""
        table = self.config.spool
        if table is None:
            return
        names = {each.name for each in self.config.enabled}
        found = await self._looking.run(strays, self._folder / table.folder, names)
        for name, events in found.items():
            if events > self.figures.stranded.get(name, 0):
                logger.warning(
                    "pipeline %r: %d events in its spool wait for %r, which is none of its "
                    "integrations: give one that name, or purge them (asyncanalytics spool)",
                    *(self.config.name, events, name),
                )
        self.figures.stranded = found

    async def keep(self, bad: Iterable[Bad], *, patience: float) -> None:
        """Write bad events to their file, if they have one; `Refused` where that fails or hangs."""
        if self._bad is None:
            return
        now = moment(datetime.now(UTC)).encode()
        lines = b"".join(
            b'{"receivedAt":"%s","reason":"%s","event":%s}\n'
            % (now, each.reason.encode(), each.payload)
            for each in bad
        )
        try:
            async with asyncio.timeout(patience):
                problem = await self._keeping.run(append, self._bad, lines)
        except TimeoutError:
            problem = "the disk hangs"
        if problem is not None:
            logger.error("pipeline %r: bad events cannot be written: %s", self.config.name, problem)
            raise Refused(503, "not_kept", "a bad event cannot be kept: send it again later")


def _essence(pipeline: Pipeline, folder: Path) -> tuple[Any, ...]:
    return pipeline.model_copy(update={"write_key": SecretStr("")}), folder
