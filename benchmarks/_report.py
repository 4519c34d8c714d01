"""Figures as people read them: ratios between subjects, round by round, and tables."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

Round = dict[str, dict[str, Any]]
"""What each subject answered in one round, by its name."""


def middle(rounds: Sequence[Round], subject: str, figure: str) -> float:
    """Return the median of a subject's figure, over the rounds that have it."""
    return float(median(each[subject][figure] for each in rounds if subject in each))


def ratio(rounds: Sequence[Round], subject: str, to: str, figure: str) -> float | None:
    """Return the median of the rounds' ratios: what slows a whole round cancels out.

    None if one of the two was not measured.
    """
    both = [each for each in rounds if subject in each and to in each]
    return median(each[subject][figure] / each[to][figure] for each in both) if both else None


def difference(rounds: Sequence[Round], subject: str, to: str, figure: str) -> float | None:
    """Return the median of the rounds' differences; None as for `ratio`."""
    both = [each for each in rounds if subject in each and to in each]
    return median(each[subject][figure] - each[to][figure] for each in both) if both else None


def text(value: float | None, form: str, scale: float = 1.0) -> str:
    """Return a figure as text; a dash where there is none."""
    return "-" if value is None else format(value * scale, form)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under their heads: names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(_line(row, widths) for row in (head, ["-" * width for width in widths], *rows))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    name, *figures = row
    aligned = [each.rjust(width) for each, width in zip(figures, widths[1:], strict=True)]
    return "  ".join([name.ljust(widths[0]), *aligned])
