"""A client that is killed at its n-th flush, removal or write of a file, for many n, by strace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from asyncanalytics.spool import Entry, Spool, left_in

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(3_600)

CLIENT = """
import asyncio, os, sys
from asyncanalytics import *

async def main():
    client = AsyncClient(
        "key", endpoint="http://127.0.0.1:9", spool=sys.argv[1], shutdown_timeout=0,
        retrying=Retrying(base=0.02, cap=0.05), queueing=Queueing(max_events=5),
    )
    async with client:
        for n in range(12):
            os.write(1, f"calling n{n}\\n".encode())
            await client.track("Paid", user_id="u1", message_id=f"n{n}")
            os.write(1, f"acknowledged n{n}\\n".encode())
        while len([each for each in os.listdir(sys.argv[1]) if each.endswith(".spool")]) > 1:
            await asyncio.sleep(0.01)

asyncio.run(main())
"""
LEFT = {f"a{n}" for n in range(700)} | {f"b{n}" for n in range(600)}


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two files of dead processes: a client goes on in one and empties the other."""
    folder = tmp_path_factory.mktemp("left") / "spool"
    with Spool(folder) as one, Spool(folder) as two:
        for spool, mark in ((one, "a"), (two, "b")):
            names = sorted(name for name in LEFT if name.startswith(mark))
            rows = (Entry("custom", "track", name, name.encode() * 20, 1.5) for name in names)
            spool.append(rows).result()
    return folder


@pytest.mark.parametrize(
    ("call", "moments"),
    [
        ("fdatasync", range(1, 24)),
        ("unlink", range(1, 8)),
        ("pwrite64", range(1, 400, 11)),
    ],
)
def test_killed_at_a_call(left: Path, tmp_path: Path, call: str, moments: range) -> None:
    """All that was left or acknowledged is there; nothing else, and nothing is broken."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace")
    killed = 0
    for moment in moments:
        folder = tmp_path / str(moment)
        shutil.copytree(left, folder)
        inject = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={moment}")
        done = subprocess.run(  # noqa: S603 - our own words
            [
                *(strace, "-f", "-qq", "-o", os.devnull, *inject),
                *(sys.executable, "-W", "error", "-c", CLIENT, str(folder)),
            ],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        if "ptrace" in done.stderr.lower():
            pytest.skip("may not trace a process here")
        killed += done.returncode != 0
        check(folder, [line.split() for line in done.stdout.splitlines()])
        shutil.rmtree(folder)
    assert killed > 1


def check(folder: Path, said: list[list[str]]) -> None:
    """Open what is left, and compare."""
    called = {name for kind, name in said if kind == "calling"}
    kept = {name for kind, name in said if kind == "acknowledged"}
    with Spool(folder) as spool:
        while spool.adopt().result():
            pass
        rows = spool.read("custom", max_events=99_999, max_bytes=1 << 40).result()
        found = {row.message_id for row in rows}
        stats = spool.stats()
        assert LEFT | kept <= found <= LEFT | called
        assert len(found) == len(rows)
        assert (stats.damaged, stats.lost, stats.corrupt_files) == (0, 0, 0)
        assert len(left_in(folder)) == 1
        assert len(list(folder.glob("*.lock"))) == 1
