"""What every middleware is: a function from call to call."""

from __future__ import annotations

from collections.abc import Callable

from asyncanalytics.calls import Call

Middleware = Callable[[Call], Call | None]
"""Runs in the caller, so it must be quick and must not block."""
