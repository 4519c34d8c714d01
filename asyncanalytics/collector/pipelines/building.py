"""From a pipeline's configuration to its client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncanalytics.client import AsyncClient
from asyncanalytics.collector.pipelines.groups import given
from asyncanalytics.settings import Batching, Queueing, Retrying, Sending, Spooling

if TYPE_CHECKING:
    from pathlib import Path

    from asyncanalytics.collector.pipelines.config import Integration, Pipeline, Server
    from asyncanalytics.destinations import BaseDestination

_UNTIRING: Final = {"max_attempts": 1_000_000}
"""Time is the bound in memory: with a spool nothing is given up in an outage as it is."""


def client(pipeline: Pipeline, server: Server, folder: Path) -> AsyncClient:
    """Make the client of a pipeline; paths begin in the folder."""
    spool = pipeline.spool
    return AsyncClient(
        destinations=[destination(each, pipeline, server, folder) for each in pipeline.enabled],
        middleware=[step.middleware() for step in pipeline.transform],
        sending=Sending(**given(pipeline.sending)),
        spool=None if spool is None else Spooling(folder / spool.folder, max_bytes=spool.max_bytes),
        shutdown_timeout=pipeline.shutdown_timeout,
        disabled=False,  # the environment's switch is for those who make calls
    )


def destination(
    integration: Integration, pipeline: Pipeline, server: Server, folder: Path
) -> BaseDestination:
    """Make an integration's destination; what its tables leave out is as the pipeline's say."""
    usual = _UNTIRING if pipeline.spool is None else {}
    return integration.destination(
        folder,
        middleware=integration.middleware(),
        batching=Batching(**given(pipeline.batching) | given(integration.batching)),
        queueing=queueing(integration, pipeline, server),
        retrying=Retrying(**usual | given(pipeline.retrying) | given(integration.retrying)),
    )


def queueing(integration: Integration, pipeline: Pipeline, server: Server) -> Queueing:
    """Return a queue's settings: nobody who sends a request waits for ever."""
    own = given(integration.queueing)
    both: dict[str, Any] = {"max_wait": server.max_wait} | given(pipeline.queueing) | own
    if both.get("when_full", "wait") != "wait" and "max_wait" not in own:
        del both["max_wait"]  # it goes with waiting only
    return Queueing(**both)
