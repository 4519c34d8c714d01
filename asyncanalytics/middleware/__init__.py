"""What happens to a call between the caller and the queue: a function from call to call.

A middleware takes a `Call` and returns it, another one, or None to drop it (counted as
`middleware`). One that raises drops the call as `middleware_error`; the caller is not disturbed.
The client's run first, in order, then those of each destination on a copy of their own.

Three are ready to use: `redact`, `sample` and `enrich`. None of them changes what the caller
passed in.
"""

from __future__ import annotations

from asyncanalytics.middleware.base import Middleware
from asyncanalytics.middleware.enrich import enrich
from asyncanalytics.middleware.redact import redact
from asyncanalytics.middleware.sample import sample

__all__ = ["Middleware", "enrich", "redact", "sample"]
