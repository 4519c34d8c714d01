"""Numbers in order: runs of them, and whether SQLite gave them so."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from asyncanalytics.spool.schema import malformed

if TYPE_CHECKING:
    from collections.abc import Iterable


def in_order(after: int, numbers: Iterable[int]) -> None:
    """Raise if numbers that SQLite gave in order are not: its pages have rotted."""
    for number in numbers:
        if number <= after:
            raise malformed()
        after = number


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return the unbroken runs of some numbers, each as its first and its last."""
    ordered = sorted(set(numbers))
    if not ordered:
        return []
    if ordered[-1] - ordered[0] == len(ordered) - 1:
        return [(ordered[0], ordered[-1])]
    breaks = [(low, high) for low, high in pairwise(ordered) if high != low + 1]
    starts = [ordered[0], *(high for _, high in breaks)]
    ends = [*(low for low, _ in breaks), ordered[-1]]
    return list(zip(starts, ends, strict=True))
