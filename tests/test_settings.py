"""The settings check themselves where they are written, and cannot change afterwards."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from typing import Any

import pytest

from asyncanalytics.errors import ConfigurationError
from asyncanalytics.settings import Batching, Queueing, Retrying, Sending

GROUPS = [Batching, Queueing, Retrying, Sending]
each_group = pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)


@pytest.mark.parametrize(
    ("group", "defaults"),
    [
        (Batching, {"max_events": 2_500, "max_bytes": 475_000, "linger": 0.5}),
        (
            Queueing,
            {
                "max_events": 100_000,
                "max_bytes": 64 * 1024 * 1024,
                "when_full": "wait",
                "max_wait": None,
            },
        ),
        (
            Retrying,
            {
                "max_attempts": 10,
                "base": 0.5,
                "cap": 60.0,
                "max_elapsed": 43_200.0,
                "max_retry_after": 300.0,
            },
        ),
        (
            Sending,
            {
                "max_in_flight": 8,
                "connect_timeout": 5.0,
                "timeout": 15.0,
                "gzip": None,
                "http2": False,
                "http_library": "httpx",
                "http_client": None,
            },
        ),
    ],
)
def test_defaults(group: Any, defaults: dict[str, object]) -> None:
    """The defaults are those that the documentation names."""
    assert dataclasses.asdict(group()) == defaults


@each_group
def test_groups_are_frozen(group: Any) -> None:
    """A setting that changed under a running client would change nothing or too much."""
    name = dataclasses.fields(group)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(group(), name, 1)


@each_group
def test_groups_take_keywords_only(group: Any) -> None:
    """A number without its name says nothing."""
    with pytest.raises(TypeError):
        group(1)


@each_group
def test_groups_can_be_compared_copied_and_pickled(group: Any) -> None:
    """Settings are values."""
    for again in (group(), copy.deepcopy(group()), pickle.loads(pickle.dumps(group()))):  # noqa: S301 - written here
        assert again == group()


WRONG: list[tuple[Any, dict[str, Any]]] = [
    (Batching, {"max_events": 0}),
    (Batching, {"max_events": -1}),
    (Batching, {"max_bytes": 999}),
    (Batching, {"linger": -0.1}),
    (Batching, {"linger": math.nan}),
    (Queueing, {"max_events": 0}),
    (Queueing, {"max_bytes": 32_767}),
    (Queueing, {"when_full": "block"}),
    (Queueing, {"max_wait": -1.0}),
    (Queueing, {"max_wait": math.nan}),
    (Queueing, {"max_wait": 1.0, "when_full": "raise"}),
    (Retrying, {"max_attempts": -1}),
    (Retrying, {"base": -0.1}),
    (Retrying, {"base": 61.0}),
    (Retrying, {"base": math.nan}),
    (Retrying, {"cap": 0.1}),
    (Retrying, {"max_elapsed": -1.0}),
    (Retrying, {"max_retry_after": 0.5}),
    (Sending, {"max_in_flight": 0}),
    (Sending, {"connect_timeout": 0.0}),
    (Sending, {"timeout": 0.0}),
    (Sending, {"timeout": math.nan}),
    (Sending, {"http_library": "requests"}),
    (Sending, {"http2": True, "http_library": "aiohttp"}),
    (Sending, {"http_client": object(), "http_library": "aiohttp"}),
    (Batching, {"max_events": "many"}),
    (Queueing, {"max_bytes": None}),
    (Queueing, {"max_wait": "long"}),
    (Retrying, {"max_attempts": True}),
    (Sending, {"timeout": "15"}),
]


@pytest.mark.parametrize(("group", "settings"), WRONG)
def test_wrong_settings_are_refused(group: Any, settings: dict[str, Any]) -> None:
    """A setting that cannot work fails where it is written, and the message names it."""
    with pytest.raises(ConfigurationError, match=f"^{group.__name__}: ") as caught:
        group(**settings)
    assert next(iter(settings)) in str(caught.value)


@pytest.mark.parametrize(
    ("group", "settings"),
    [
        (Batching, {"max_events": 1, "max_bytes": 1_000, "linger": 0.0}),
        (Queueing, {"max_events": 1, "max_bytes": 32_768, "max_wait": 0.0}),
        (Queueing, {"when_full": "raise"}),
        (Queueing, {"when_full": "drop_newest"}),
        (Queueing, {"when_full": "drop_oldest"}),
        (Retrying, {"max_attempts": 0, "base": 0.0, "cap": 0.0, "max_elapsed": 0.0}),
        (Retrying, {"max_retry_after": 1.0}),
        (Sending, {"max_in_flight": 1, "gzip": False}),
    ],
)
def test_the_edges_of_what_can_work(group: Any, settings: dict[str, Any]) -> None:
    """The least that each rule allows is taken as it is."""
    made = group(**settings)
    assert {name: getattr(made, name) for name in settings} == settings
