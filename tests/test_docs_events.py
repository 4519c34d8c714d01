"""The programs of docs/events.md, run as a reader would."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from asyncanalytics.spool import left_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Live


def run(path: Path, live: Live, **more: str) -> str:
    """Run a program in its folder, and return what it prints."""
    done = subprocess.run(  # noqa: S603 - a page's own program
        [sys.executable, "-W", "error", path],
        cwd=path.parent,
        env={**live.environ, **more},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert left_in(path.parent / "spool") == []  # all delivered, and nothing left
    return done.stdout


def test_a_spool(live: Live, example: Callable[..., Path]) -> None:
    """What it prints are the figures of one delivered call."""
    assert run(example("events", "orders.py"), live) == "1 0\n"
    assert [event["event"] for event in live.events] == ["Order Completed"]


def test_a_sealed_spool(live: Live, example: Callable[..., Path]) -> None:
    """With functions for encryption it works the same."""
    fernet = pytest.importorskip("cryptography.fernet").Fernet
    run(example("events", "sealed.py"), live, SPOOL_KEY=fernet.generate_key().decode())
    assert [event["properties"] for event in live.events] == [{"revenue": 25.0}]


def test_deliver(live: Live, example: Callable[..., Path]) -> None:
    """It says that the endpoint has the call."""
    assert run(example("events", "payment.py"), live) == "the endpoint has it: 200\n"
    assert [event["event"] for event in live.events] == ["Invoice Paid"]
