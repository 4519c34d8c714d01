"""What the subjects that are written in Python share.

A subject is a program. It is called with a question and the question's options as JSON, runs with
nothing but itself in its process, and prints its answer as one line of JSON.

An answer has `sent`, how many events must be at the sink afterwards, and `versions` of what was
measured, beside its figures.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import resource
import sys
import time
import urllib.request
from array import array
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WARM_UP = 1_000  # calls before the timed ones
BURST = 200  # calls in a row while single calls are timed
PAUSE = 0.005  # seconds between bursts
_PLENTY = 16 << 20  # bytes: many times what a request takes

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


def room(calls: int) -> array[float]:
    """Return room for what each call takes, so that no call meets the making of it.

    A list that grows takes pages from the system, which the calls then feel.
    """
    return array("d", bytes(8 * calls))


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the usual ones by nearest rank: each is a value that was measured."""
    ordered = sorted(seconds)
    ranks = {"median": 0.5, "p99": 0.99, "p99_9": 0.999}
    found = {name: ordered[int(rank * (len(ordered) - 1))] for name, rank in ranks.items()}
    return found | {"max": ordered[-1]}


def call_times(seconds: Sequence[float], *, in_a_row: bool = False) -> dict[str, float]:
    """Return the quantiles of calls, and the first one; with bursts, the median of their first."""
    first = seconds[:1] if in_a_row else seconds[::BURST]
    return quantiles(seconds) | {"first": median(first)}


def pauses(number: int, *, in_a_row: bool) -> bool:
    """Whether there is a pause before a call."""
    return not in_a_row and number % BURST == 0


def tell(url: str, what: str) -> None:
    """Tell the sink how to behave: see `_sink`."""
    urllib.request.urlopen(f"{url}/{what}", timeout=60).close()  # noqa: S310 - our own sink


def resident() -> int:
    """Return the bytes of memory that the process holds now, what is garbage not counted.

    Where the system does not tell, the most that it ever held.
    """
    gc.collect()
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak()


def keep_memory() -> None:
    """Have the C library keep what is freed, for the next request.

    glibc gives it back to the system or not, as the heap happens to lie, and to get it again may be
    half of what the bare limit takes. Once it has freed a large block, it keeps what is smaller.
    """
    bytes(_PLENTY)


def forget_peak() -> None:
    """Let `peak` speak of what comes now, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Return the most bytes of memory that the process held since its peak was forgotten."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1_024
    unit = 1 if sys.platform == "darwin" else 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def answer(packages: Sequence[str], questions: dict[str, Callable[..., Answer]]) -> None:
    """Answer the question on the command line."""
    question, options = sys.argv[1], json.loads(sys.argv[2])
    found = questions[question](**options)
    versions = {package: version(package) for package in packages}
    print(json.dumps(found | {"versions": {"Python": platform.python_version(), **versions}}))
