"""What a child must not have of its parent's: a file's lock.

It lives as long as any descriptor of it, so a child closes its copies: the lock then ends with the
process that took it.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Held(Protocol):
    """Something that a child must let go."""

    def forget(self) -> None:
        """Close what was inherited, without a word to the parent's."""


_helds: weakref.WeakSet[Held] = weakref.WeakSet()


def forget_in_child(held: Held) -> None:
    """Have a forked child let go of something."""
    _helds.add(held)


def _in_child() -> None:
    for held in list(_helds):
        held.forget()
    _helds.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
