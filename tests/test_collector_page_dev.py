"""`asyncanalytics dev` runs a collector and opens its page, where there is something to open it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

for _package in ("typer", "rich", "starlette", "uvicorn", "jinja2"):
    pytest.importorskip(_package)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as POSIX sends it"),
]
TOKEN = "a-token-that-opens-nothing"
BROWSER = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"


@contextlib.contextmanager
def running(*args: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `dev` on a free port, and give its process and the address that it says."""
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    clean = {name: value for name, value in os.environ.items() if name not in screens}
    with subprocess.Popen(  # noqa: S603 - it is our own
        [sys.executable, "-m", "asyncanalytics", "dev", "--port", "0", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean | {"PYTHONUNBUFFERED": "1", "COLUMNS": "200"} | environ,
        preexec_fn=_listen_to_ctrl_c,  # noqa: PLW1509
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            yield process, line.split()[2]
        finally:
            process.kill()


def _listen_to_ctrl_c() -> None:
    # A test run in the background of a shell ignores SIGINT, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def end(process: subprocess.Popen[str]) -> str:
    """Press Ctrl-C, and return what was said on standard error."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "0 requests, 0 events" in out
    return err


def browser(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """Make an environment with a browser that notes the address which it is to open."""
    script, opened = tmp_path / "browser.py", tmp_path / "opened"
    script.write_text(BROWSER, encoding="utf-8")
    return {"BROWSER": f"{sys.executable} {script} {opened} %s"}, opened


def wait_for(path: Path) -> str:
    """Return what another process writes."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if path.exists() and (text := path.read_text(encoding="utf-8")):
            return text
        time.sleep(0.02)  # another process is at work: there is nothing to await
    raise TimeoutError(path.name)


def test_the_page_is_opened(tmp_path: Path) -> None:
    """The browser gets the address, and what it finds there is the page."""
    environ, opened = browser(tmp_path)
    with running(**environ) as (process, url):
        assert wait_for(opened) == url
        with urlopen(url, timeout=5) as answer:  # noqa: S310 - it is our own
            assert b"Waiting for the first event" in answer.read()
        assert end(process) == ""


def test_the_page_is_opened_with_its_token(tmp_path: Path) -> None:
    """Where reading needs a token, the browser gets it once, in the address."""
    environ, opened = browser(tmp_path)
    with running("--token", TOKEN, **environ) as (process, url):
        assert wait_for(opened) == f"{url}/?token={TOKEN}"
        assert end(process) == ""


@pytest.mark.skipif(sys.platform == "darwin", reason="there is always a screen")
def test_without_a_screen() -> None:
    """It runs all the same, and says why nothing opened."""
    with running() as (process, _):
        assert end(process) == "note: there is no screen to open the page on\n"


def test_not_opening(tmp_path: Path) -> None:
    """With --no-open it only says where the page is."""
    environ, opened = browser(tmp_path)
    with running("--no-open", **environ) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        assert end(process) == ""
    assert not opened.exists()
