"""SDKs that others wrote, through the router: each event arrives as it would have without it."""

from __future__ import annotations

import asyncio
import uuid
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jmespath")
pytest.importorskip("tree_sitter_toml")

if TYPE_CHECKING:
    from switchyard import Switchyard

KEY = "a-key-that-opens-nothing"
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("identify", {"user_id": "u1", "traits": {"name": "Ärthur", "age": 42}}),
    (
        "track",
        {
            "user_id": "u1",
            "event": "Order Completed",
            "properties": {"total": 61.4, "products": [{"sku": "a"}], "none": None},
            "context": {"ip": "10.0.0.1", "screen": {"width": "wide"}},
            "integrations": {"All": True, "Elsewhere": {"option": 1}},
        },
    ),
    ("page", {"anonymous_id": "a1", "category": "Docs", "name": "Home"}),
    ("screen", {"anonymous_id": "a1", "category": "App", "name": "Login"}),
    ("group", {"user_id": "u1", "group_id": "g1", "traits": {"plan": "pro"}}),
    ("alias", {"previous_id": "a1", "user_id": "u1"}),
]


def _send(module: str, settings: dict[str, Any]) -> None:
    """Make the calls with one SDK, in this thread, with ids of their own."""
    client = import_module(module).Client(KEY, sync_mode=True, gzip=True, **settings)
    for number, (call, fields) in enumerate(CALLS):
        given = {**fields, **({"message_id": f"m{number}"} if "segment" in module else {})}
        getattr(client, call)(**given)


def _without_moment(event: dict[str, Any]) -> dict[str, Any]:
    """Leave out what differs from one time to the next."""
    return {name: each for name, each in event.items() if name not in {"timestamp", "messageId"}}


@pytest.mark.parametrize("module", ["segment.analytics.client", "rudderstack.analytics.client"])
async def test_an_sdk_in_python(yard: Switchyard, module: str) -> None:
    """Synchronous, with gzip, all six calls; ids and times go through too."""
    pytest.importorskip(module.partition(".")[0])
    direct, routed = [await yard.receiver() for _ in range(2)]
    async with yard.serving(yard.config({"crm": routed})) as (made, url):
        await asyncio.to_thread(_send, module, {"host": direct.url})
        await asyncio.to_thread(_send, module, {"host": url})
        assert made.stats().pipelines["shop"].bad == {}
        assert set(made.stats().answers) == {200}
    assert len(routed.events) == len(CALLS)
    for one, other in zip(direct.events, routed.events, strict=True):
        assert _without_moment(one) == _without_moment(other)
        assert other["timestamp"]
        if "segment" not in module:
            assert str(uuid.UUID(other["messageId"])) == other["messageId"]
    if "segment" in module:
        assert [each["messageId"] for each in routed.events] == [f"m{n}" for n in range(6)]
