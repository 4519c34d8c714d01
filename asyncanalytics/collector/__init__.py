"""A collector of analytics events: an ASGI app that speaks the whole of the protocol.

It stores what it is sent, judges each event, shows it over JSON and to Python, and misbehaves
on demand, which is how users try what their own app does when the endpoint is down. Needs the
extra `collector`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncanalytics.errors import MissingExtra

try:
    from asyncanalytics.collector.app import Collector
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] not in ("jinja2", "starlette", "uvicorn"):
        raise
    raise MissingExtra("the collector", "collector") from _error

from asyncanalytics.collector.answers import Mode
from asyncanalytics.collector.faults import ConnectionDropped, Fault
from asyncanalytics.collector.judge import Reason
from asyncanalytics.collector.problems import InvalidConfiguration, Problem
from asyncanalytics.collector.records import CollectorStats, StoredEvent, Verdict

if TYPE_CHECKING:
    from asyncanalytics.collector.pipelines import Router, Source

__all__ = [
    "Collector",
    "CollectorStats",
    "ConnectionDropped",
    "Fault",
    "InvalidConfiguration",
    "Mode",
    "Problem",
    "Reason",
    "StoredEvent",
    "Verdict",
    "router",
]


def router(source: Source) -> Router:
    """Make a router of a configuration: the path of a TOML file, or data of the same form.

    Raises:
        InvalidConfiguration: with all that is wrong with it, and where.
        MissingExtra: if it needs the extra `router`, and that is not installed.
    """
    from asyncanalytics.collector.pipelines import Router

    return Router(source)
