"""How every question is put: to each subject in turn, in rounds, each in a process of its own.

Promises:
- The sink has one core and the subjects another, wherever there are two.
- After each answer the sink counts: if not every event that was sent is there once and unchanged,
  the benchmark fails, whatever its figures.
- A peer that cannot be run is named as not measured; the rest goes on.
- What is written down names versions, cores and load, and no machine.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from _report import Round

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Something that is measured."""

    name: str
    program: str
    """Its file in `subjects/`."""
    is_peer: bool = False
    """Whether it runs in the peers' environment."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What it is told beside the question's own options."""


OURS = Subject(name="asyncanalytics", program="ours.py")
SEGMENT = Subject(name="segment-analytics-python", program="segment_python.py", is_peer=True)
CONTROL = Subject(name="control", program="control.py")


@dataclass(frozen=True, kw_only=True)
class Question:
    """One benchmark: who is asked, and with what options in its two forms."""

    name: str
    subjects: Sequence[Subject]
    short: Mapping[str, Any]
    full: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Results:
    """All answers to a question."""

    options: Mapping[str, Any]
    rounds: Sequence[Round]
    names: Sequence[str]
    """The subjects that were measured."""


class BenchmarkError(Exception):
    """A figure that cannot be had, or that must not be believed."""


_ROUNDS = {"short": 3, "full": 7}

# ------------------------------------------------------------------------------------------ sink


class Sink:
    """The sink's process, as seen from here."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._port = port

    def count(self) -> dict[str, int]:
        """Return what came since the last count."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("GET", "/count")
        counts: dict[str, int] = json.load(connection.getresponse())
        connection.close()
        return counts


@contextmanager
def _sink() -> Iterator[Sink]:
    command = [sys.executable, str(HERE / "_sink.py")]
    process = subprocess.Popen(  # noqa: S603 - a program of this folder
        command, env=_environ(), stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            port = process.stdout.readline() if process.stdout else ""
            if not port:
                raise BenchmarkError("the sink did not start: see above")
            yield Sink(int(port))
        finally:
            process.terminate()


def _pin(core: int) -> None:
    """Bind this process, and those that it starts from now on, to a core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


# -------------------------------------------------------------------------------------- subjects


def _environ() -> dict[str, str]:
    """Let children find this folder's modules, and nothing by accident."""
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def _python(subject: Subject, peers: Path | None) -> str:
    if not subject.is_peer or peers is None:
        return sys.executable
    return str(peers / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def _ask(
    subject: Subject, peers: Path | None, question: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    command = [_python(subject, peers), str(HERE / "subjects" / subject.program), question]
    try:
        done = subprocess.run(  # noqa: S603 - a program of this folder
            [*command, json.dumps(options)],
            env=_environ(),
            capture_output=True,
            check=False,
            text=True,
        )
    except OSError as error:
        raise BenchmarkError(f"{subject.name}: {error.strerror}") from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise BenchmarkError(f"{subject.name}: {last[0]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _versions(
    subjects: Sequence[Subject], peers: Path | None
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return the versions of those that can be measured, and why the others cannot."""
    found: dict[str, dict[str, str]] = {}
    missing: dict[str, str] = {}
    for program, subject in {each.program: each for each in subjects}.items():
        try:
            found[program] = _ask(subject, peers, "versions", {})
        except BenchmarkError as error:
            if not subject.is_peer:
                raise
            missing[program] = str(error)
    return found, missing


def _measure(
    subject: Subject, peers: Path | None, question: str, options: Mapping[str, Any], sink: Sink
) -> dict[str, Any]:
    told = {"url": sink.url, **options, **subject.options}
    answer = _ask(subject, peers, question, told)
    count = sink.count()
    if count["distinct"] != answer["sent"] or count["altered"]:
        raise BenchmarkError(
            f"{subject.name} sent {answer['sent']} events; {count['distinct']} arrived, "
            f"{count['altered']} of them changed"
        )
    each = {"bytes_per_event": count["bytes"] / count["events"]} if count["events"] else {}
    return answer | {"requests": count["requests"]} | each


# ---------------------------------------------------------------------------------------- rounds


def _rounds(
    question: Question, arguments: argparse.Namespace, subjects: Sequence[Subject]
) -> Iterator[Round]:
    options = getattr(question, arguments.form)
    cores = _cores()
    _pin(cores[0])
    with _sink() as sink:
        _pin(cores[-1])
        for number in range(arguments.rounds or _ROUNDS[arguments.form]):
            turn = number % len(subjects)
            yield {
                each.name: _measure(each, arguments.peers, question.name, options, sink)
                for each in (*subjects[turn:], *subjects[:turn])
            }
            print(f"{question.name}: round {number + 1} done", file=sys.stderr, flush=True)


def _environment(versions: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    cores = _cores()
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.system(),
        "cores": len(cores),
        "pinned": hasattr(os, "sched_setaffinity") and len(cores) > 1,
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "versions": dict(versions),
    }


def _arguments(question: Question) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"{question.name}.py")
    parser.add_argument("form", nargs="?", choices=("short", "full"), default="short")
    parser.add_argument("--rounds", type=int, help="instead of the form's own number")
    parser.add_argument("--json", type=Path, help="a file to put the figures in, by question")
    parser.add_argument("--peers", type=Path, help="the virtual environment of the peers")
    return parser.parse_args()


def _keep(path: Path, question: str, found: Mapping[str, Any]) -> None:
    """Write a question's figures beside those of the others that the file holds."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    text = json.dumps({**kept, question: found}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def run(question: Question) -> Results:
    """Ask a question as the command line says, and return the answers."""
    arguments = _arguments(question)
    try:
        versions, missing = _versions(question.subjects, arguments.peers)
        environment = _environment(versions)
        subjects = [each for each in question.subjects if each.program not in missing]
        rounds = list(_rounds(question, arguments, subjects))
    except BenchmarkError as error:
        sys.exit(f"{question.name}: {error}")
    options = getattr(question, arguments.form)
    if arguments.json:
        found = {"form": arguments.form, "options": options, "environment": environment}
        _keep(arguments.json, question.name, found | {"not_measured": missing, "rounds": rounds})
    _introduce(question, environment, missing)
    return Results(options=options, rounds=rounds, names=[each.name for each in subjects])


def _introduce(
    question: Question, environment: Mapping[str, Any], missing: Mapping[str, str]
) -> None:
    cores = "each side on its own core" if environment["pinned"] else "not pinned to cores"
    facts = f"{environment['python']}, {environment['system']}, {environment['cores']} cores"
    print(f"\n{question.name} ({facts}, {cores}, load {environment['load_before']} before)\n")
    for reason in missing.values():
        print(f"not measured: {reason}\n")
