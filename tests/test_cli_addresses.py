"""What a command says of where it listens can be opened here, and tells all that it is bound to."""

from __future__ import annotations

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("jinja2")

ANYWHERE = "0.0.0.0"  # noqa: S104 - what is tested


@pytest.mark.parametrize(
    ("host", "shown", "bound", "family"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", None),
        ("localhost", "127.0.0.1", "127.0.0.1", None),
        ("127.8.9.1", "127.8.9.1", "127.8.9.1", None),
        ("::1", "[::1]", "[::1]", None),
        (ANYWHERE, "127.0.0.1", ANYWHERE, "IPv4"),
        ("", "127.0.0.1", ANYWHERE, "IPv4"),
        ("::", "[::1]", "[::]", "IPv6"),
        ("0:0::0", "[::1]", "[::]", "IPv6"),
    ],
)
async def test_where_it_listens(
    capsys: pytest.CaptureFixture[str], host: str, shown: str, bound: str, family: str | None
) -> None:
    """The URL is that of a real socket; all addresses are named only where it listens on all."""
    from asyncanalytics.cli import addresses
    from asyncanalytics.collector import Collector

    with Collector(write_keys=["not-a-secret-key"]) as collector:
        try:
            async with collector.serve(host) as url:
                port = url.rpartition(":")[2]
        except OSError:
            pytest.skip("this machine has no such address")
    assert url == f"http://{shown}:{port}"
    assert addresses.bound(url, host) == f"{bound}:{port}"
    addresses.say_where("collecting", url, host)
    first, *more = capsys.readouterr().out.splitlines()
    assert first == f"collecting on {url} until Ctrl-C"
    assert len(more) == (family is not None)
    for line in more:
        assert line.startswith(f"  bound to {bound}:{port}: all {family} addresses")


async def test_any_address_is_a_host_however_it_is_written() -> None:
    """A collector that listens on all addresses answers under each of them."""
    import httpx

    from asyncanalytics.collector import Collector

    key, token = "not-a-secret-key", "not-a-secret-token"
    with Collector(write_keys=[key], read_token=token) as collector:
        try:
            async with collector.serve("0:0::0") as url, httpx.AsyncClient() as http:
                headers = {"host": "[fe80::1]:8010", "authorization": f"Bearer {token}"}
                assert (await http.get(f"{url}/stats", headers=headers)).status_code == 200
        except OSError:
            pytest.skip("this machine has no IPv6")
