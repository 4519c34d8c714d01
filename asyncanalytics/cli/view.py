"""How the demo is looked at: live in a terminal, as plain lines elsewhere, or not at all."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from asyncanalytics.cli.output import say, stdout

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from asyncanalytics.cli.play import Plan
    from asyncanalytics.cli.shop import Shop
    from asyncanalytics.stats import Stats

_BARS = " ▁▂▃▄▅▆▇█"
_COLUMNS = 56  # of the curve
_REFRESH = 10  # times a second
_COLUMN_EVERY = 0.1  # seconds of the play for one column of the curve


class SilentView:
    """Shows nothing, for --json."""

    def phase(self, text: str) -> None:
        """Show nothing."""

    def overhear(self, text: str) -> None:
        """Show nothing."""

    def tick(self, shop: Shop, stats: Stats, seconds: float) -> None:
        """Show nothing."""


class PlainView(SilentView):
    """One line for each phase and for each line of the client's log."""

    def __init__(self) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def phase(self, text: str) -> None:
        """Print it with the time."""
        say((f"{time.monotonic() - self._began:5.1f} s  ", "dim"), (text, "bold"))

    def overhear(self, text: str) -> None:
        """Print it as the log's."""
        say(f"         log: {text}", "")


class LiveView(PlainView):
    """The same lines, and below them the figures as they change."""

    def __init__(self, plan: Plan) -> None:
        """Show progress up to the end of the plan."""
        super().__init__()
        self._plan = plan
        self._pending: deque[int] = deque(maxlen=_COLUMNS)
        self._next_column = 0.0
        self._live = Live(console=stdout(), refresh_per_second=_REFRESH, transient=True)

    def shown(self) -> AbstractContextManager[Live]:
        """Return what shows it for the time of a `with` block."""
        return self._live

    def phase(self, text: str) -> None:
        """Print it above the figures."""
        seconds = f"{time.monotonic() - self._began:5.1f} s  "
        self._live.console.print(Text.assemble((seconds, "dim"), (text, "bold")))

    def overhear(self, text: str) -> None:
        """Print it above the figures, as the log's."""
        self._live.console.print(Text(f"         log: {text}", style="yellow"))

    def tick(self, shop: Shop, stats: Stats, seconds: float) -> None:
        """Draw the figures anew."""
        if seconds >= self._next_column:
            self._next_column = seconds + _COLUMN_EVERY
            self._pending.append(stats.pending)
        self._live.update(self._drawn(shop, stats, seconds))

    def _drawn(self, shop: Shop, stats: Stats, seconds: float) -> Group:
        bar = ProgressBar(total=self._plan.opening_hours, completed=seconds, width=_COLUMNS)
        grid = Table.grid(padding=(0, 2))
        rate = stats.accepted / seconds if seconds else 0.0
        grid.add_row("time", bar)
        grid.add_row("visitors", f"{shop.visitors:,} of {self._plan.visitors:,}")
        grid.add_row("accepted", f"{stats.accepted:,} calls, {rate:,.0f} a second")
        grid.add_row("delivered", Text(f"{stats.delivered:,}", style="green"))
        grid.add_row("pending", Text(f"{stats.pending:,}", style="yellow"))
        grid.add_row("", Text(_curve(self._pending), style="yellow"))
        return Group("", grid)


def _curve(values: deque[int]) -> str:
    """Draw values as a row of bars, the highest one full."""
    top = max(values, default=0) or 1
    return "".join(_BARS[-(-value * (len(_BARS) - 1) // top)] for value in values)
