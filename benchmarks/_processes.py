"""The processes of a run: the sink, and one for each answer of a subject.

Promises:
- The sink has one core and the subjects another, wherever there are two.
- A process that does not end in time is ended, and counts as one that cannot be measured.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from _entrants import Subject

HERE = Path(__file__).resolve().parent
_PATIENCE = 300.0  # seconds that one answer may take


class BenchmarkError(Exception):
    """A figure that cannot be had, or that must not be believed."""


# ------------------------------------------------------------------------------------------ sink


class Sink:
    """The sink's process, as seen from here."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._port = port

    def count(self) -> dict[str, float]:
        """Return what came since the last count."""
        counts: dict[str, float] = self._told("/count")
        return counts

    def behave(self, latency: float) -> None:
        """Answer at once, or so many seconds after a request."""
        self._told("/release")
        self._told(f"/latency/{latency}")

    def _told(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        connection.request("GET", path)
        answer = json.load(connection.getresponse())
        connection.close()
        return answer


@contextmanager
def sink() -> Iterator[Sink]:
    """Run a sink on the first core; what is started meanwhile runs on the last."""
    command = [sys.executable, str(HERE / "_sink.py")]
    mine = cores()
    _pin({mine[0]})
    process = subprocess.Popen(  # noqa: S603 - a program of this folder
        command, env=_environ(), stdout=subprocess.PIPE, text=True
    )
    _pin({mine[-1]})
    with process:
        try:
            port = process.stdout.readline() if process.stdout else ""
            if not port:
                raise BenchmarkError("the sink did not start: see above")
            yield Sink(int(port))
        finally:
            process.terminate()
            _pin(set(mine))


def _pin(mine: set[int]) -> None:
    """Bind this process, and those that it starts from now on, to cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, mine)


def cores() -> list[int]:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


# -------------------------------------------------------------------------------------- subjects


@dataclass(frozen=True, kw_only=True)
class Environments:
    """Where the peers are installed. None: they are looked for where we run ourselves."""

    python: Path | None
    """A folder of virtual environments, each with the name of its package."""
    node: Path | None

    def command(self, subject: Subject) -> list[str]:
        """Return what runs a subject's program."""
        program = str(HERE / "subjects" / subject.program)
        if program.endswith(".mjs"):
            return ["node", "--expose-gc", program, str(self.node or HERE)]
        if not subject.is_peer or self.python is None:
            return [sys.executable, program]
        inner = "Scripts/python.exe" if os.name == "nt" else "bin/python"
        return [str(self.python / subject.package / inner), program]


def _environ() -> dict[str, str]:
    """Let children find this folder's modules, and nothing by accident."""
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def ask(
    subject: Subject, environments: Environments, question: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a subject's answer, given in a process of its own."""
    command = [*environments.command(subject), question, json.dumps(options)]
    try:
        done = subprocess.run(  # noqa: S603 - a program of this folder
            command, env=_environ(), capture_output=True, check=False, text=True, timeout=_PATIENCE
        )
    except OSError as error:
        raise BenchmarkError(f"{subject.name}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{subject.name}: no answer in {_PATIENCE:g} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        errors = [line for line in said if "Error" in line]  # Node says more after it
        raise BenchmarkError(f"{subject.name}: {(errors or said)[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
