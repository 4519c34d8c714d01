"""How every question is put: to each subject in turn, in rounds, each in a process of its own.

Promises:
- After each answer the sink counts: if not every event that was sent is there once and unchanged,
  the benchmark fails, whatever its figures; where it is a peer's answer, that peer is left out.
  What the load has cut, or the sink has held for longer than a client waits, is sent again, and may
  be there more than once.
- A peer that cannot be run is named as not measured; the rest goes on.
- What is written down names versions, cores and load, and no machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _plots import draw
from _processes import BenchmarkError, Environments, Sink, ask, cores, sink
from _report import middle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from _entrants import Subject
    from _plots import Chart
    from _report import Round

    Cases = Mapping[str, Mapping[str, Any]]
    Charts = Callable[["Results"], Sequence[Chart]]

_ROUNDS: dict[str, int] = {"short": 2, "full": 5}
_PATIENCE = 10.0  # seconds: none of the clients gives a request up before
_ONE_CASE: dict[str, dict[str, Any]] = {"": {}}


@dataclass(frozen=True, kw_only=True)
class Question:
    """One benchmark: who is asked, and with what options in its two forms."""

    name: str
    subjects: Sequence[Subject]
    short: Mapping[str, Any]
    full: Mapping[str, Any]
    cases: Cases = field(default_factory=lambda: _ONE_CASE)
    """What is asked in each round, by name: options beside those of the form."""
    together: Sequence[Sequence[str]] = ()
    """Cases that are compared with each other: each subject answers those one after the other."""
    only_full: frozenset[str] = frozenset()
    """Cases that the short form leaves out."""
    peers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By form, options that peers are told instead: fewer events, as they are slower."""
    rounds: Mapping[str, int] = field(default_factory=lambda: _ROUNDS)
    """By form."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """All answers to a question."""

    options: Mapping[str, Any]
    cases: Mapping[str, Sequence[Round]]
    """The rounds of each case."""
    names: Sequence[str]
    """The subjects that were measured."""

    @property
    def rounds(self) -> Sequence[Round]:
        """The rounds of a question that has one case."""
        (rounds,) = self.cases.values()
        return rounds

    def case(self, name: str) -> Results:
        """Return the answers to one case, and who gave some."""
        rounds = self.cases[name]
        names = [each for each in self.names if any(each in answers for answers in rounds)]
        return Results(options=self.options, cases={name: rounds}, names=names)

    def groups(self, figure: str, scale: float = 1.0) -> dict[str, dict[str, float]]:
        """Return the medians of a figure by case and subject, as a chart has them."""
        return {
            case: {name: middle(rounds, name, figure) * scale for name in self.case(case).names}
            for case, rounds in self.cases.items()
        }


# ----------------------------------------------------------------------------------------- a run


class _Run:
    """One question, put as the command line says."""

    def __init__(self, question: Question, arguments: argparse.Namespace) -> None:
        self._question = question
        self._form = arguments.form
        self._number = arguments.rounds or question.rounds[arguments.form]
        self._wanted = _wanted(question, arguments.subject)
        self._environments = Environments(python=arguments.peers, node=arguments.node)
        self.versions: dict[str, dict[str, str]] = {}
        self.missing: dict[str, str] = {}
        """Why who was not measured, by name."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What all are told."""
        options: Mapping[str, Any] = getattr(self._question, self._form)
        return options

    @property
    def subjects(self) -> list[Subject]:
        """Those that are wanted and can be measured, as far as is known."""
        return [each for each in self._wanted if each.name not in self.missing]

    def _leave_out(self, subject: Subject, error: BenchmarkError) -> None:
        if not subject.is_peer:
            raise error
        self.missing[subject.name] = str(error)

    def measure(self) -> dict[str, list[Round]]:
        """Put every case to every subject, in every round."""
        cases = self._cases()
        found: dict[str, list[Round]] = {case: [] for case in cases}
        with sink() as there:
            for number in range(self._number):
                for group in self._groups(cases):
                    for case, answers in self._round(number, group, there).items():
                        found[case].append(answers)
                done = f"{self._question.name}: round {number + 1} of {self._number} done"
                print(done, file=sys.stderr, flush=True)
        return found

    def _cases(self) -> Cases:
        left_out = self._question.only_full if self._form == "short" else frozenset()
        return {case: told for case, told in self._question.cases.items() if case not in left_out}

    def _groups(self, cases: Cases) -> list[Cases]:
        """Return the cases, each with those that it is asked together with."""
        groups: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
        for case, options in cases.items():
            group = next((each for each in self._question.together if case in each), (case,))
            groups.setdefault(tuple(group), {})[case] = options
        return list(groups.values())

    def _round(self, number: int, cases: Cases, there: Sink) -> dict[str, Round]:
        subjects = self.subjects
        turn = number % max(1, len(subjects))
        answers: dict[str, Round] = {case: {} for case in cases}
        for each in (*subjects[turn:], *subjects[:turn]):
            for case, options in cases.items():
                wanted = {name for name, value in options.items() if value}
                if each.name in self.missing or each.lacks & wanted:
                    continue
                try:
                    answers[case][each.name] = self._answer(each, options, there)
                except BenchmarkError as error:
                    there.behave(0)
                    there.count()
                    self._leave_out(each, error)
        return answers

    def _answer(self, subject: Subject, options: Mapping[str, Any], there: Sink) -> dict[str, Any]:
        told = {"url": there.url, **self.options}
        if subject.is_peer:
            told |= self._question.peers.get(self._form, {})
        told |= {**options, **subject.options}
        there.behave(told.get("latency", 0))
        answer = ask(subject, self._environments, self._question.name, told)
        self.versions[subject.name] = answer.pop("versions")
        count = there.count()
        if not _is_right(count, answer["sent"], is_cut=bool(told.get("cuts"))):
            raise BenchmarkError(
                f"{subject.name} sent {answer['sent']} events; {count['distinct']} arrived, "
                f"{count['fewest']} where the fewest did, {count['again']} more than once, "
                f"{count['altered']} changed"
            )
        arrived = {each: count[each] for each in ("requests", "fewest", "again")}
        return answer | arrived | _per_event(answer, count)


def _is_right(count: Mapping[str, float], sent: int, *, is_cut: bool) -> bool:
    """Whether each event is there and unchanged, and none again but where that may be."""
    is_there = count["fewest"] == count["distinct"] == sent
    may_repeat = is_cut or count["held"] > _PATIENCE
    return is_there and not count["altered"] and (may_repeat or not count["again"])


def _wanted(question: Question, parts: Sequence[str]) -> Sequence[Subject]:
    """Return the subjects that have one of the parts in their name; all if there is none."""
    found = [each for each in question.subjects if any(part in each.name for part in parts)]
    if parts and not found:
        raise BenchmarkError(f"no subject is called {' or '.join(parts)}")
    return found or question.subjects


def _per_event(answer: Mapping[str, Any], count: Mapping[str, int]) -> dict[str, float]:
    """Return what can be compared between subjects that were given different numbers of events."""
    found = {}
    if count["events"]:
        found["bytes_per_event"] = count["bytes"] / count["events"]
    if "seconds" in answer:
        found["rate"] = answer["events"] / answer["seconds"]
        found["cpu_per_event"] = answer["cpu_seconds"] / answer["events"]
    return found


# ---------------------------------------------------------------------------------- from outside


def _environment(versions: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    mine = cores()
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": platform.system(),
        "cores": len(mine),
        "pinned": hasattr(os, "sched_setaffinity") and len(mine) > 1,
        "versions": dict(versions),
    }


def _arguments(question: Question) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"{question.name}.py")
    parser.add_argument("form", nargs="?", choices=("short", "full"), default="short")
    parser.add_argument("--rounds", type=int, help="instead of the form's own number")
    parser.add_argument(
        "--subject",
        action="append",
        default=[],
        metavar="PART",
        help="ask only those with this in their name",
    )
    parser.add_argument("--json", type=Path, help="a file to put the figures in, by question")
    parser.add_argument("--plots", type=Path, help="a folder to draw the figures in, as SVG")
    parser.add_argument("--peers", type=Path, help="the folder of the peers' virtual environments")
    parser.add_argument("--node", type=Path, help="the folder with the node_modules of the peers")
    return parser.parse_args()


def _keep(path: Path, question: str, found: Mapping[str, Any]) -> None:
    """Write a question's figures beside those of the others that the file holds."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    text = json.dumps({**kept, question: found}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def run(question: Question, charts: Charts | None = None) -> Results:
    """Ask a question as the command line says, draw the answers if told so, and return them."""
    arguments = _arguments(question)
    try:
        asked = _Run(question, arguments)
        load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
        cases = asked.measure()
    except BenchmarkError as error:
        sys.exit(f"{question.name}: {error}")
    names = [each.name for each in asked.subjects]
    found = {
        "form": arguments.form,
        "options": asked.options,
        "environment": _environment(asked.versions) | {"load_before": load},
        "not_measured": asked.missing,
        "names": names,
        "cases": cases,
    }
    if arguments.json:
        _keep(arguments.json, question.name, found)
    results = introduce(question.name, found)
    if arguments.plots and charts is not None:
        draw(charts(results), arguments.plots)
    return results


def introduce(question: str, found: Mapping[str, Any]) -> Results:
    """Print where figures come from and who is missing, and return them."""
    environment = found["environment"]
    pinned = "each side on its own core" if environment["pinned"] else "not pinned to cores"
    facts = f"{environment['python']}, {environment['system']}, {environment['cores']} cores"
    print(f"\n{question} ({facts}, {pinned}, load {environment['load_before']} before)\n")
    for reason in found["not_measured"].values():
        print(f"not measured: {reason}\n")
    return Results(options=found["options"], cases=found["cases"], names=found["names"])
