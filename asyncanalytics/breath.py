"""How many calls may be made in a row before the event loop has to run.

A call that finds room asks nothing of the loop. So calls without a pause would starve it, and hold
up the requests under way: after a while one of them waits until it has run. Batches that are taken
and answered show that it runs anyway. Where none are, it is asked for a turn, which costs more than
a call.

Calls of one task hold the loop for at most 896 of them, and each further task that calls without a
pause adds 256 to that. If all of them shared what one has, a lone call would wait for the others'.
"""

from __future__ import annotations

import asyncio

SHORT = 256  # calls before the loop is asked for a turn, and from then on before one waits for it
_LONG = 640  # calls before it is asked, where it has just run: a request of full events, and some
_TURNS = 4  # of the loop, where a call waits: a request takes several from one write to the next


class Breath:
    """Counts the calls of one client; those who make one subtract it from `left`."""

    def __init__(self) -> None:
        """Be as after a wait."""
        self.left: int = SHORT
        """Calls until there is more to do than to count."""
        self.is_held: bool = False
        """Whether the loop has not run since it was asked to."""

    def lasts(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether calls may go on; asks the running loop for a turn where it is time to."""
        if self.left > 0:
            return True
        if self.is_held:
            return False
        self.ask(loop)
        return True

    def ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask for a turn, with which calls are counted anew."""
        if not self.is_held:
            self.left, self.is_held = max(self.left, SHORT), True
            loop.call_soon(self._renew)

    def _renew(self) -> None:
        self.left, self.is_held = _LONG, False

    async def take(self) -> None:
        """Let the loop run."""
        self.left = SHORT  # for other tasks, which would wait at every call
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        self.left = SHORT  # it has run because it had to
