"""What every middleware is: a function from call to call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from asyncanalytics.calls import Call

if TYPE_CHECKING:
    from asyncanalytics.stats import DropReason

Middleware = Callable[[Call], Call | None]
"""Runs in the caller, so it must be quick and must not block."""

Wire = dict[str, Any]
"""A call's members as they are on the wire, containers within containers."""


class OnWire(ABC):
    """A middleware over a call's wire form, which it never changes in place.

    It is a function from call to call as any other; where a call is on the wire already, no model
    is made for it.
    """

    reason: DropReason = "middleware"
    """What a call counts as that it drops."""

    def __call__(self, call: Call) -> Call | None:
        """Do as with the call's wire form."""
        wire = call.wire()
        changed = self.apply(wire)
        if changed is None or changed is wire:
            return None if changed is None else call
        return type(call).model_validate(changed)

    @abstractmethod
    def apply(self, wire: Wire) -> Wire | None:
        """Return the call, itself where nothing changes, or None to drop it."""
