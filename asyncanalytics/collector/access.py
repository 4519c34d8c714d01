"""Who may read what the collector keeps, once it can be reached from other machines.

Sending needs a write key, which is in every app that sends; so it does not open what was sent.
Reading, and ruling, needs a token of its own: `Authorization: Bearer TOKEN`, the password of
Basic, or a cookie that a browser gets for opening an address with `?token=TOKEN` once. A browser
that has none gets a page that asks for it; whoever else, the refusal as JSON.

What is open without it is named path by path; everything else is closed.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response

from asyncanalytics.collector.answers import refusal
from asyncanalytics.collector.reading import basic_credentials
from asyncanalytics.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

PARAMETER: Final = "token"
_SHORTEST: Final = 16


def is_loopback(host: str) -> bool:
    """Tell whether what listens on this host can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Access:
    """ASGI middleware within the guard."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        open_paths: Iterable[str],
        token: str | None,
        asking: Callable[[bool], Response],
    ) -> None:
        """Demand the token, if there is one; else none until `demand` is called.

        `asking` makes the page that asks for it, told whether a wrong one was given.
        """
        if token is not None and not (len(token) >= _SHORTEST and token.isascii()):
            raise ValueError(f"read_token must have at least {_SHORTEST} characters, all ASCII")
        self._app = app
        self._open = frozenset(open_paths)
        self._token = None if token is None else Secret(token)
        self._asking = asking

    @property
    def token(self) -> str | None:
        """What must be known to read; None where nothing is demanded."""
        return None if self._token is None else self._token.text()

    def demand(self) -> None:
        """Demand a token from now on, made by chance unless there is one."""
        if self._token is None:
            self._token = Secret(secrets.token_urlsafe(32))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is open or opened; refuse the rest."""
        app = self._app
        if scope["type"] == "http" and self._token is not None and not self._is_open(scope):
            app = self._answer(scope, self._token.text()) or self._app
        await app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        return scope["path"].removeprefix(scope.get("root_path", "")) in self._open

    def _answer(self, scope: Scope, token: str) -> ASGIApp | None:
        """Return what answers in place of the app; None where the app may."""
        headers = Headers(scope=scope)
        given = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get(PARAMETER)
        if given is not None and _same(given, token) and scope["method"] in ("GET", "HEAD"):
            return _let_in(scope, token)
        cookie = cookie_parser(headers.get("cookie", "")).get(_cookie_name(token), "")
        if any(_same(each, token) for each in _given(headers)) or _same(cookie, _cookie(token)):
            return None
        response = self._refusal(scope, headers, is_wrong=given is not None)
        response.headers["www-authenticate"] = "Bearer"
        response.headers["vary"] = "Accept"
        return response

    def _refusal(self, scope: Scope, headers: Headers, *, is_wrong: bool) -> Response:
        if scope["method"] in ("GET", "HEAD") and "text/html" in headers.get("accept", ""):
            return self._asking(is_wrong)
        message = "reading needs this collector's read token, as Authorization: Bearer TOKEN"
        return refusal(401, "read_token_needed", message)


def _let_in(scope: Scope, token: str) -> Response:
    """Give the cookie, and lead to the same address without the token."""
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    rest = urlencode([(name, value) for name, value in query if name != PARAMETER])
    path = "/" + quote(scope["path"].lstrip("/"))  # two slashes would lead to another host
    response = Response(status_code=303, headers={"location": f"{path}?{rest}" if rest else path})
    response.set_cookie(
        _cookie_name(token),
        _cookie(token),
        httponly=True,
        samesite="strict",
        secure=scope.get("scheme") == "https",
    )
    return response


def _cookie_name(token: str) -> str:
    """Return a name of this token's: cookies know hosts, but not ports."""
    return f"collector-{hashlib.sha256(token.encode()).hexdigest()[:8]}"


def _cookie(token: str) -> str:
    """Return what a browser keeps: it opens this collector, and does not tell the token."""
    return hmac.new(token.encode(), b"cookie of a reader", hashlib.sha256).hexdigest()


def _given(headers: Headers) -> Iterable[str]:
    """Return what may be the token."""
    scheme, _, rest = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        yield rest.strip()
    if scheme.lower() == "basic" and (credentials := basic_credentials(rest.strip())):
        yield credentials[1]


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode())
