"""What the tests of the router share: routers on sockets between real clients and real collectors.

At the end of a test the law holds for each router, each of its clients and each sender, and each
collector has of each event what was delivered to it.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from asyncanalytics import AsyncClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from asyncanalytics.collector import Collector
    from asyncanalytics.collector.pipelines import Router

KEY = "a-key-that-opens-nothing"  # that of the canaries: no log line may show it


class Receiver:
    """A real collector on a socket."""

    def __init__(self, collector: Collector, url: str) -> None:
        self.collector = collector
        self.url = url

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events that have arrived."""
        return [each.payload for each in self.collector.events()]

    @property
    def ids(self) -> Counter[str]:
        """How often each messageId has arrived."""
        return Counter(self.collector.message_ids(None))


class Switchyard:
    """Makes receivers, routers and senders, and asserts the law over them at its end."""

    def __init__(self, folder: Path, open_: AsyncExitStack) -> None:
        self.folder = folder
        self._open = open_
        self._senders: list[AsyncClient] = []
        self.routers: list[Router] = []

    async def receiver(self, **settings: Any) -> Receiver:
        """Serve a collector."""
        from asyncanalytics.collector import Collector

        collector = self._open.enter_context(Collector(**settings))
        url = await self._open.enter_async_context(collector.serve())
        return Receiver(collector, url)

    def config(
        self, places: Mapping[str, Any], server: Mapping[str, Any] | None = None, **pipeline: Any
    ) -> dict[str, Any]:
        """Make a configuration of one pipeline: each place is a receiver, or an integration."""
        integrations = []
        for name, place in places.items():
            table = {"to": place.url} if isinstance(place, Receiver) else dict(place)
            if isinstance(table["to"], Receiver):
                table["to"] = table["to"].url
            if "://" in table["to"]:
                table = {"key": KEY, **table}
            if "path" in table:
                table["path"] = str(self.folder / table["path"])
            integrations.append({"name": name, **table})
        made = {"name": "shop", "write_key": KEY, "integrations": integrations, **pipeline}
        return {"server": {"port": 0, **(server or {})}, "pipelines": [made]}

    def file(self, config: Mapping[str, Any], name: str = "pipelines.toml") -> Path:
        """Write a configuration to a file."""
        path = self.folder / name
        path.write_text(_toml(config), encoding="utf-8")
        return path

    def router(self, source: Any) -> Router:
        """Make a router, whose figures are looked at."""
        from asyncanalytics.collector import router

        made = router(source)
        self.routers.append(made)
        return made

    @asynccontextmanager
    async def serving(self, source: Any) -> AsyncIterator[tuple[Router, str]]:
        """Make a router and serve it."""
        made = self.router(source)
        async with made.serve() as url:
            yield made, url

    def sender(self, url: str, key: str = KEY, **settings: Any) -> AsyncClient:
        """Make a client that sends to a router."""
        client = AsyncClient(key, endpoint=url, **settings)
        self._senders.append(client)
        return client

    @staticmethod
    def http(url: str, key: str | None = KEY) -> httpx.AsyncClient:
        """Make a plain HTTP client for a router."""
        auth = None if key is None else httpx.BasicAuth(key, "")
        return httpx.AsyncClient(base_url=url, auth=auth, mounts={"all://": None})

    @staticmethod
    async def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
        """Wait until something holds that others bring about."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - there is nothing to await
                await asyncio.sleep(0.01)

    def check(self) -> None:
        """Assert the law."""
        for router in self.routers:
            stats = router.stats()
            assert stats.is_balanced, stats
            for line in (*router._lines.values(), *router._retiring):
                assert line.client.stats().is_balanced
        for client in self._senders:
            assert client.stats().is_balanced


@pytest.fixture
async def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Switchyard]:
    """A switchyard that asserts the law at the end of the test.

    It is also the working directory, where the relative paths of a configuration without a file
    begin.
    """
    monkeypatch.chdir(tmp_path)
    async with AsyncExitStack() as stack:
        made = Switchyard(tmp_path, stack)
        yield made
        made.check()


def _toml(config: Mapping[str, Any]) -> str:
    """Write a configuration with inline tables: JSON's texts and numbers are TOML's too."""
    lines = ["[server]", *(f"{name} = {_value(v)}" for name, v in config["server"].items())]
    for pipeline in config["pipelines"]:
        members = {name: v for name, v in pipeline.items() if name != "integrations"}
        lines += ["[[pipelines]]", *(f"{name} = {_value(v)}" for name, v in members.items())]
        for each in pipeline["integrations"]:
            lines.append("[[pipelines.integrations]]")
            lines += [f"{name} = {_value(v)}" for name, v in each.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(n)} = {_value(v)}" for n, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value if isinstance(value, bool | int | float) else str(value))
