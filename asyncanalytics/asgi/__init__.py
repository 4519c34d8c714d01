"""Requests as the place where calls are made, for every ASGI framework; nothing third-party.

    app = AnalyticsMiddleware(app, client=client)

Each call that is made for a request, on whatever client, gets the request's context and ids:
address, browser, page, campaign, and who is there as analytics.js has noted it in cookies.
`Privacy` says what of it may be known, and the client starts and closes with the app.
"""

from __future__ import annotations

from asyncanalytics.asgi.middleware import SCOPE_KEY, AnalyticsMiddleware, bound_client
from asyncanalytics.asgi.policy import Policy, Privacy
from asyncanalytics.asgi.request import RequestSource
from asyncanalytics.asgi.types import ASGIApp, Receive, Scope, Send

__all__ = [
    "SCOPE_KEY",
    "ASGIApp",
    "AnalyticsMiddleware",
    "Policy",
    "Privacy",
    "Receive",
    "RequestSource",
    "Scope",
    "Send",
    "bound_client",
]
