"""What happens to a call between the caller and the queue: a function from call to call.

A middleware takes a `Call` and returns it, another one, or None to drop it (counted as
`middleware`). One that raises drops the call as `middleware_error`; the caller is not disturbed.
The client's run first, in order, then those of each destination on a copy of their own.

Ready to use are:

- `where`, `consent` and `sample`, which choose calls;
- `rename`, `keep`, `drop`, `assign`, `cast` and `template`, which give them another shape;
- `redact` and `pseudonymise`, which take out of them what must not leave;
- `enrich`, which fills in what they have in common.

None of them changes what the caller passed in. The middleware that takes paths works on a call as
it is on the wire, which is cheaper where it is there already: see `OnWire`, for your own.
"""

from __future__ import annotations

from asyncanalytics.middleware.base import Middleware, OnWire
from asyncanalytics.middleware.consent import consent
from asyncanalytics.middleware.enrich import enrich
from asyncanalytics.middleware.pseudonymise import pseudonymise
from asyncanalytics.middleware.redact import redact
from asyncanalytics.middleware.reshape import assign, cast, drop, keep, rename, template
from asyncanalytics.middleware.sample import sample
from asyncanalytics.middleware.where import where

__all__ = [
    "Middleware",
    "OnWire",
    "assign",
    "cast",
    "consent",
    "drop",
    "enrich",
    "keep",
    "pseudonymise",
    "redact",
    "rename",
    "sample",
    "template",
    "where",
]
