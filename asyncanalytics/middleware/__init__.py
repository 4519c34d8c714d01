"""What happens to a call between the caller and the queue: a function from call to call.

A middleware takes a `Call` and returns it, another one, or None to drop it (counted as
`middleware`). One that raises drops the call as `middleware_error`; the caller is not disturbed.
The client's run first, in order, then those of each destination on a copy of their own.
"""

from __future__ import annotations

from collections.abc import Callable

from asyncanalytics.calls import Call

Middleware = Callable[[Call], Call | None]
"""Runs in the caller, so it must be quick and must not block."""

__all__ = ["Middleware"]
