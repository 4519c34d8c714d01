"""What the README shows works as it is shown."""

import re
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from asyncanalytics import AsyncClient, Queueing, Sending, endpoints
from asyncanalytics.collector import Collector

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_there_are_examples() -> None:
    """The pattern finds the README's code."""
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("code", BLOCKS, ids=lambda code: code.strip().splitlines()[0])
async def test_an_example_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block runs; what it sends is delivered, and the law holds."""
    monkeypatch.chdir(tmp_path)
    if "aiohttp" in code:
        pytest.importorskip("aiohttp")
    code = re.sub(r"asyncio\.run\((.*)\)", r"await \1", code)
    code = code.replace('AsyncClient("WRITE_KEY"', "AsyncClient('KEY', endpoint=url")
    body = "\n".join(f"    {line}" for line in code.splitlines())
    names = {
        "AsyncClient": AsyncClient,
        "Queueing": Queueing,
        "endpoints": endpoints,
        "Sending": Sending,
    }
    exec(f"async def example(analytics, url):\n{body}\n", names)  # noqa: S102 - our own text
    with Collector() as collector:
        async with collector.serve() as url, AsyncClient("KEY", endpoint=url) as analytics:
            await names["example"](analytics, url)  # type: ignore[operator]
            stats = await analytics.flush(timeout=5)
        assert stats.is_balanced
        assert stats.accepted == stats.delivered
        assert stats.delivered <= len(collector.message_ids())
