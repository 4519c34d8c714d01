"""A collector of analytics events: an ASGI app that speaks the whole of the protocol.

It stores what it is sent, judges each event, shows it over JSON and to Python, and misbehaves
on demand, which is how users try what their own app does when the endpoint is down. Needs the
extra `collector`.
"""

from __future__ import annotations

from asyncanalytics.errors import MissingExtra

try:
    from asyncanalytics.collector.app import Collector
except ModuleNotFoundError as _error:
    if (_error.name or "").partition(".")[0] not in ("jinja2", "starlette", "uvicorn"):
        raise
    raise MissingExtra("the collector", "collector") from _error

from asyncanalytics.collector.faults import ConnectionDropped, Fault
from asyncanalytics.collector.intake import Mode
from asyncanalytics.collector.judge import Reason
from asyncanalytics.collector.records import CollectorStats, StoredEvent, Verdict

__all__ = [
    "Collector",
    "CollectorStats",
    "ConnectionDropped",
    "Fault",
    "Mode",
    "Reason",
    "StoredEvent",
    "Verdict",
]
