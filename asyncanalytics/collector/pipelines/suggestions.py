"""What somebody may have meant by a name that is not known."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def unknown(name: str, known: Sequence[str], kind: str = "") -> str:
    """Say that a name is not known, what it may have been, and else what there is."""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    rest = f"did you mean {near[0]}?" if near else f"give {kind}{', '.join(known)}"
    return f"is not known here: {rest}"
