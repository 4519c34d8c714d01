"""Pipelines: what comes with a write key goes on to several places, to each in its own form.

A pipeline is a client of this package with one destination for each integration: queues, retries,
spools and figures are the client's own. Here is what stands around it: the configuration, the
requests, the reload and the metrics.
"""

from asyncanalytics.collector.pipelines.app import Router
from asyncanalytics.collector.pipelines.figures import IntegrationStats, PipelineStats, RouterStats
from asyncanalytics.collector.pipelines.loading import Source

__all__ = ["IntegrationStats", "PipelineStats", "Router", "RouterStats", "Source"]
