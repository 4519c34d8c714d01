"""HTTP/2 is offered when asked for, and spoken where the server takes it."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import pytest

from asyncanalytics import AsyncClient, MissingExtra, Sending, endpoints

pytest.importorskip("h2")
pytest.importorskip("starlette")

import trustme
from hypercorn.asyncio import serve
from hypercorn.config import Config

from asyncanalytics.collector import Collector


@pytest.fixture
async def collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Collector, str, set[str]]]:
    """A collector behind TLS and HTTP/2, its URL, and the HTTP versions it was spoken to in."""
    authority = trustme.CA()
    certificate, key, root = (tmp_path / name for name in ("cert.pem", "key.pem", "root.pem"))
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(root)
    monkeypatch.setenv("SSL_CERT_FILE", str(root))
    versions: set[str] = set()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    with Collector() as collector:
        config = Config()
        config.bind = [f"fd://{listener.detach()}"]  # the server closes it
        config.certfile, config.keyfile = str(certificate), str(key)
        config.loglevel = "CRITICAL"

        async def app(scope, receive, send):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            if scope["type"] == "http":
                versions.add(scope["http_version"])
            await collector(scope, receive, send)

        stop = asyncio.Event()
        serving = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
        yield collector, f"https://localhost:{port}", versions
        stop.set()
        await serving


@pytest.mark.parametrize("http2", [False, True])
async def test_http2_is_spoken_when_asked_for(
    collector: tuple[Collector, str, set[str]], *, http2: bool
) -> None:
    """The same calls arrive over HTTP/1.1 by default and over HTTP/2 by option."""
    stored, url, versions = collector
    sending = Sending(http2=http2)
    # The suite's own key: the libraries' logs are searched for it.
    async with AsyncClient(
        "a-key-that-opens-nothing", endpoint=endpoints.custom(url), sending=sending
    ) as client:
        receipts = [await client.track("Added File", user_id=n) for n in range(1, 50)]
        stats = await client.flush(timeout=10)
    assert (stats.accepted, stats.delivered, stats.pending) == (49, 49, 0)
    assert stats.is_balanced
    assert stored.message_ids() == [receipt.message_id for receipt in receipts]
    assert versions == ({"2"} if http2 else {"1.1"})


def test_what_stands_in_for_a_missing_package_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test of the user's may have put a module of its own there."""
    monkeypatch.setitem(sys.modules, "h2", ModuleType("h2"))
    client = AsyncClient("KEY", sending=Sending(http2=True))
    assert client.stats().state == "new"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without h2, asking for HTTP/2 says which extra to install."""
    monkeypatch.setitem(sys.modules, "h2", None)
    with pytest.raises(MissingExtra, match=r"asyncanalytics\[http2\]"):
        AsyncClient("KEY", sending=Sending(http2=True))
