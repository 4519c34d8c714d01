"""What all integrations have in common: they say which client they need."""

from __future__ import annotations

from typing import Any

import pytest

from asyncanalytics import AsyncClient, Client, ConfigurationError
from asyncanalytics.integrations.arq import hooks
from asyncanalytics.integrations.aws_lambda import flushed
from asyncanalytics.integrations.base import check_async, check_sync


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (Client("key"), "needs an AsyncClient: a Client has a thread of its own"),
        ("key", "needs an AsyncClient, not a str"),
        (None, "needs an AsyncClient, not a NoneType"),
    ],
)
def test_where_an_async_client_is_needed(given: Any, text: str) -> None:
    """Anything else is refused where it is given."""
    with pytest.raises(ConfigurationError, match=text):
        check_async(given, "this")
    with pytest.raises(ConfigurationError, match=rf"hooks\(\) {text}"):
        hooks(given)


@pytest.mark.parametrize("given", [AsyncClient("key"), "key", None, print])
def test_where_a_client_for_threads_is_needed(given: Any) -> None:
    """Anything else is refused where it is given, also where the parentheses were forgotten."""
    with pytest.raises(ConfigurationError, match="needs a Client, not a"):
        check_sync(given, "this")
    with pytest.raises(ConfigurationError, match=r"flushed\(\) needs a Client"):
        flushed(given)


def test_the_others_ask_too() -> None:
    """Each integration whose framework is here refuses a client of the wrong kind."""
    given: Any = Client("key")
    pytest.importorskip("taskiq")
    pytest.importorskip("faststream")
    pytest.importorskip("litestar")
    pytest.importorskip("celery")
    from asyncanalytics.integrations import celery, faststream, litestar, taskiq

    for use in (taskiq.AnalyticsMiddleware, faststream.lifespan, litestar.AnalyticsPlugin):
        with pytest.raises(ConfigurationError, match="needs an AsyncClient"):
            use(given)
    other: Any = AsyncClient("key")
    with pytest.raises(ConfigurationError, match="needs a Client"):
        celery.close_with_worker(other)
