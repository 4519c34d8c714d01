"""Figures as bars, in SVG that is written by hand.

A chart is a group of bars for each case, one bar for each subject. Lengths are proportional to
the figures, unless it says that its scale is logarithmic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_BAR, _GAP, _HEAD, _LEFT, _WIDE, _RIGHT = 16, 6, 30, 230, 480, 110  # pixels
_COLOURS = {"asyncanalytics": "#0b6e4f", "control": "#8a8a8a"}  # by how a name begins
_OTHERS = "#5b7db1"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is drawn."""

    name: str
    """Of its file, without an ending."""
    title: str
    form: str
    """How a figure is written, as for `format`."""
    groups: Mapping[str, Mapping[str, float]]
    """By case and subject."""
    is_logarithmic: bool = False


def draw(charts: Sequence[Chart], folder: Path) -> None:
    """Write each chart into a file of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for chart in charts:
        (folder / f"{chart.name}.svg").write_text(svg(chart), encoding="utf-8")


def svg(chart: Chart) -> str:
    """Return a chart as text."""
    note = " (logarithmic scale)" if chart.is_logarithmic else ""
    parts = [_text(10, 20, chart.title + note, 'font-weight="bold"')]
    top = 20.0
    figures = [value for bars in chart.groups.values() for value in bars.values()]
    for case, bars in chart.groups.items():
        top += _HEAD
        if case:
            parts.append(_text(10, top, case, 'font-style="italic"'))
            top += _GAP
        for name, value in bars.items():
            parts += _bar(chart, name, value, top, _length(chart, value, figures))
            top += _BAR + _GAP
    width = _LEFT + _WIDE + _RIGHT
    return "\n".join([_opening(width, top + _GAP), *parts, "</svg>"]) + "\n"


def _opening(width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>'
    )


def _length(chart: Chart, value: float, figures: Sequence[float]) -> float:
    most = max(figures)
    if not chart.is_logarithmic:
        return _WIDE * max(value, 0.0) / most if most > 0 else 0.0
    least = min(each for each in figures if each > 0) / 2
    return _WIDE * math.log(max(value, least) / least) / math.log(most / least)


def _bar(chart: Chart, name: str, value: float, top: float, length: float) -> list[str]:
    colour = next((each for key, each in _COLOURS.items() if name.startswith(key)), _OTHERS)
    middle = top + _BAR * 0.75
    return [
        _text(_LEFT - 8, middle, name, 'text-anchor="end"'),
        f'<rect x="{_LEFT}" y="{top:g}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>',
        _text(_LEFT + length + 6, middle, format(value, chart.form)),
    ]


def _text(x: float, y: float, what: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:g}" {style}>{escape(what)}</text>'
