"""Notebooks: the client in a real kernel, with top-level await and without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("ipykernel")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LAW = "s = {}.stats(); assert s.is_balanced; print(s.accepted, s.delivered)"


@pytest.fixture
def run(
    example: Callable[..., Path], live: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Run cells in a kernel, and return what each has printed.

    A cell is the name of one of the page's, or code.
    """
    # Nothing of the machine's own Jupyter: neither its settings nor its folders.
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")

    async def execute(*cells: str) -> list[str]:
        names = {"start", "track", "flush", "close", "plain"}
        codes = [
            example("notebooks", cell).read_text("utf-8") if cell in names else cell
            for cell in cells
        ]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in codes])
        client = nbclient.NotebookClient(
            notebook, timeout=20, startup_timeout=30, kernel_name="python3"
        )
        await client.async_execute(env=live.environ)
        outputs = [[output.get("text", "") for output in cell.outputs] for cell in notebook.cells]
        return ["".join(texts) for texts in outputs]

    return execute


async def test_cells_that_await(run: Callable[..., Any], live: Any) -> None:
    """The page's cells run in a row, and again: in any order, and as often as one likes.

    Where the first one runs again before the last, the first client goes on sending.
    """
    law = LAW.format("analytics")
    row = ["start", "track", "track", "flush", "flush", "close", "close", law]
    again = ["await analytics.start()", "track", "close", law]
    twice = ["start", "track", "first = analytics", "start", "track", "close", law]
    printed = await run(*row, *again, *twice, "await first.aclose()", LAW.format("first"))
    assert printed[3] == printed[4] == "delivered 2 delivered\n"
    assert printed[5] == printed[6] == "closed 0 pending\n"
    assert [printed[7], printed[11], printed[18], printed[20]] == ["2 2\n", "3 3\n", *["1 1\n"] * 2]
    assert [event["event"] for event in live.events] == ["Chart Drawn"] * 5


async def test_the_sync_client(run: Callable[..., Any], live: Any) -> None:
    """It works in the thread of the kernel's loop, and beside cells that await.

    What waits in it when the kernel is shut down is delivered.
    """
    inside = "import asyncio\nawait asyncio.sleep(0)\nplain.track('Inside', user_id='u1')"
    settings = "from asyncanalytics import Batching\nlast = Client(batching=Batching(linger=60))"
    waiting = "for n in range(20):\n    last.track('Waiting', user_id='u1', properties={'n': n})"
    flush = "plain.flush(timeout=5)"
    printed = await run("plain", inside, flush, LAW.format("plain"), "plain", settings, waiting)
    assert printed[0] == printed[4] == "1 delivered\n"
    assert printed[3] == "2 2\n"
    events = live.wait_for(23)
    assert [event["event"] for event in events[:3]] == ["Model Trained", "Inside", "Model Trained"]
    assert sorted(event["properties"]["n"] for event in events[3:]) == list(range(20))
