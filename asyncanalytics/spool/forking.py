"""What a fork must not take along: a file's lock, and SQLite in the middle of its work.

- A lock lives as long as any descriptor of it, so a child closes its copies: the lock then ends
  with the process that took it.
- A child forked while another thread is within SQLite would inherit SQLite's own locks for ever,
  and hang in its first use of it. So a fork waits at the gates, which writers hold at work.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final, Protocol

_PATIENCE: Final = 5.0  # seconds that a fork waits for a disk that hangs


class Held(Protocol):
    """Something that a child must let go."""

    def forget(self) -> None:
        """Close what was inherited, without a word to the parent's."""


_gates: weakref.WeakSet[threading.Lock] = weakref.WeakSet()
_helds: weakref.WeakSet[Held] = weakref.WeakSet()
_stopped: dict[int, list[threading.Lock]] = {}  # the thread that forks → the gates it closed


def gate() -> threading.Lock:
    """Return a lock to hold while a thread is within SQLite."""
    made = threading.Lock()
    _gates.add(made)
    return made


def forget_in_child(held: Held) -> None:
    """Have a forked child let go of something."""
    _helds.add(held)


def _before() -> None:
    found = [each for each in list(_gates) if each.acquire(timeout=_PATIENCE)]
    _stopped[threading.get_ident()] = found


def _in_parent() -> None:
    for each in _stopped.pop(threading.get_ident(), []):
        each.release()


def _in_child() -> None:
    _stopped.clear()
    _gates.clear()
    for held in list(_helds):
        held.forget()
    _helds.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
