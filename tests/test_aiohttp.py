"""What sending by aiohttp has of its own; what it shares with httpx is in test_transport.py."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from asyncanalytics import AsyncClient, MissingExtra, Sending
from asyncanalytics.errors import NoAnswer

pytest.importorskip("aiohttp")

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter

    from conftest import Lab, Live, Peer

by_aiohttp = pytest.mark.parametrize("lab", ["aiohttp"], indirect=True)


async def well(peer: Peer, reader: StreamReader, writer: StreamWriter) -> None:
    """Take everything."""
    await peer.serve_on(reader, writer)


@by_aiohttp
@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, 5 << 20])
async def test_a_large_request_arrives_whole(lab: Lab, size: int) -> None:
    """However large an endpoint lets a request be, it is sent without a warning of aiohttp's."""
    content = b'{"batch":[]}'.ljust(size)
    async with lab.listening(well) as peer, lab.client(peer) as client:
        await client._transport.post(peer.url, {}, content)
    assert peer.requests[0].content == content


@by_aiohttp
async def test_a_failure_is_named(lab: Lab) -> None:
    """A reason is the class of aiohttp's error, and says nothing of the request."""
    async with lab.listening(well) as peer, lab.client(peer) as client:
        with pytest.raises(NoAnswer) as caught:
            await client._transport.post("http://127.0.0.1:9/v1/batch", {"x": "secret"}, b"secret")
    assert caught.value.reason == "ClientConnectorError"
    assert not caught.value.stale
    assert "secret" not in repr(caught.value)


def test_threads_and_forks(live: Live) -> None:
    """A `Client` sends by it, and so does its child, whose end leaves the parent's alone."""
    script = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of any fork beside threads
from asyncanalytics import Client, Sending

client = Client(sending=Sending(http_library="aiohttp"))
client.track("Before", user_id="u1")
client.flush(10)
pid = os.fork()
client.track("From Child" if pid == 0 else "From Parent", user_id="u1")
client.flush(10)
if pid:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    client.track("After", user_id="u1")
stats = client.close(10)
assert stats.is_balanced and stats.pending == 0, stats
assert stats.destinations["custom"].retries == 0
"""
    with live.program("-c", script) as program:
        _, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (0, "")
    names = sorted(event["event"] for event in live.events)
    assert names == ["After", "Before", "From Child", "From Parent"]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without aiohttp, asking for it says which extra to install."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(MissingExtra, match=r"asyncanalytics\[aiohttp\]"):
        AsyncClient("KEY", sending=Sending(http_library="aiohttp"))


async def test_a_broken_aiohttp_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is there and cannot be imported says so when the client starts."""
    monkeypatch.delitem(sys.modules, "asyncanalytics.transport.by_aiohttp", raising=False)
    monkeypatch.setitem(sys.modules, "aiohttp", ModuleType("aiohttp"))
    monkeypatch.setitem(sys.modules, "yarl", None)
    client = AsyncClient("KEY", sending=Sending(http_library="aiohttp"))
    with pytest.raises(MissingExtra, match=r"asyncanalytics\[aiohttp\]"):
        await client.start()
    assert client.stats().is_balanced
