"""What the subjects that are written in Python share.

A subject is a program. It is called with a question and the question's options as JSON, runs with
nothing but itself in its process, and prints its answer as one line of JSON. It is asked for
`versions` first; whatever has to be there to measure it must be imported by then.

An answer has `sent`, how many events must be at the sink afterwards, beside its figures.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WARM_UP = 1_000  # calls before the timed ones
BURST = 200  # calls in a row while single calls are timed
PAUSE = 0.005  # seconds between bursts

Answer = dict[str, Any]


class Stopwatch:
    """Seconds and CPU seconds since it was made; all threads of the process count."""

    def __init__(self) -> None:
        self._cpu = time.process_time()
        self._start = time.perf_counter()

    def read(self) -> dict[str, float]:
        """Return the figures so far."""
        seconds = time.perf_counter() - self._start
        return {"seconds": seconds, "cpu_seconds": time.process_time() - self._cpu}


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the usual ones by nearest rank: each is a value that was measured."""
    ordered = sorted(seconds)
    ranks = {"median": 0.5, "p99": 0.99, "p99_9": 0.999}
    found = {name: ordered[int(rank * (len(ordered) - 1))] for name, rank in ranks.items()}
    return found | {"max": ordered[-1]}


def call_times(seconds: Sequence[float]) -> dict[str, float]:
    """Return the quantiles of calls made in bursts, and the median of each burst's first call."""
    return quantiles(seconds) | {"first": median(seconds[::BURST])}


def answer(packages: Sequence[str], questions: dict[str, Callable[..., Answer]]) -> None:
    """Answer the question on the command line."""
    question, options = sys.argv[1], json.loads(sys.argv[2])
    if question == "versions":
        python = {"Python": platform.python_version()}
        found = python | {package: version(package) for package in packages}
    else:
        found = questions[question](**options)
    print(json.dumps(found))
