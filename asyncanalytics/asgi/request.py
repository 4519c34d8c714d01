"""A request as the context of the calls that are made for it.

Promises:
- Nothing is read before the first call of the request asks.
- Whatever a request brings, however broken or long, reading it raises nothing, and takes and
  gives little: texts are cut, and an id that is too long or holds control characters is none.
- The app's own functions are asked once a request.
"""

from __future__ import annotations

import re
from threading import RLock
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

from asyncanalytics.asgi import headers
from asyncanalytics.asgi.addresses import scheme, truncated
from asyncanalytics.binding import Binding

if TYPE_CHECKING:
    from asyncanalytics.asgi.policy import Policy
    from asyncanalytics.asgi.types import Scope
    from asyncanalytics.binding import Source

    Headers = dict[bytes, bytes]

_MAX_QUERY = 4_096  # bytes that are looked through for what is kept
_HOST = re.compile(r"(?:[\w.\-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?", re.ASCII)


class RequestSource:
    """Where the binding of a request comes from: its ASGI scope, read when it is first needed."""

    __slots__ = ("_begun", "_found", "_lock", "_scope", "policy", "within")

    def __init__(self, scope: Scope, policy: Policy, *, within: Source | None = None) -> None:
        """Take a scope of kind http or websocket, and what may be known of it.

        Of `scope` these are read, and may be missing: `headers`, `client`, `scheme`, `server`,
        `path`, `raw_path` and `query_string`. `within` fills in what the request does not say.
        """
        self.policy: Policy = policy
        """What may be known of the request."""
        self.within: Source | None = within
        """What is bound around the request."""
        self._scope = scope
        self._lock = RLock()  # threads of one request may make its first calls together
        self._begun: Binding | None = None
        self._found: Binding | None = None

    def binding(self) -> Binding:
        """Return the request's ids and context."""
        found = self._found
        if found is None:
            with self._lock:
                # The app's functions may make calls too: those find what is known so far.
                found = self._found or self._begun or self._read()
        return found

    def _read(self) -> Binding:
        scope, policy = self._scope, self.policy
        sent = headers.collect(scope.get("headers") or ())
        effect = policy.privacy.effect(
            gpc=sent.get(b"sec-gpc") == b"1", dnt=sent.get(b"dnt") == b"1"
        )
        noted = headers.ids(sent.get(b"cookie", b"")) if effect == "ignore" else {}
        found = self._begun = Binding(
            user_id=None if policy.names_user else noted.get("user"),
            anonymous_id=noted.get("anonymous"),
            opted_out=effect == "drop",
        )
        if found.user_id is None and found.anonymous_id is None:
            # So a visitor without cookies does not make a call fail that works for all others.
            found.spare_id = str(uuid4())
        if effect != "drop":
            found.context = _context(scope, sent, policy, anonymous=effect == "anonymous")
            if effect == "ignore" and policy.names_user:
                found.user_id = policy.user(scope)
            if (consent := policy.consent(scope)) is not None:
                found.context["consent"] = {"categoryPreferences": consent}
        self._found = found if self.within is None else found.within(self.within.binding())
        return self._found


def _context(scope: Scope, sent: Headers, policy: Policy, *, anonymous: bool) -> dict[str, Any]:
    asked = headers.text(scope.get("query_string") or b"", _MAX_QUERY)
    keep = policy.privacy.query
    found: dict[str, Any] = {
        "locale": headers.locale(sent.get(b"accept-language", b"")),
        "page": _page(scope, sent, policy, headers.query(asked, keep)),
        "campaign": {} if keep == "dropped" else headers.campaign(asked),
    }
    if not anonymous:
        found["ip"] = _ip(scope, sent, policy)
        found["userAgent"] = headers.text(sent.get(b"user-agent", b""), headers.MAX_AGENT)
        found["userAgentData"] = headers.agent_data(sent)
    return {name: value for name, value in found.items() if value}


def _ip(scope: Scope, sent: Headers, policy: Policy) -> str:
    kept = policy.privacy.ip
    if kept == "dropped":
        return ""
    forwarded = sent.get(b"x-forwarded-for", b"").decode("latin-1")
    address = policy.proxies.client(scope.get("client"), forwarded)
    if address is None:
        return ""
    return str(truncated(address) if kept == "truncated" else address)


def _page(scope: Scope, sent: Headers, policy: Policy, query: str) -> dict[str, str]:
    path = _path(scope)
    search = f"?{query}" if query else ""
    origin = _origin(scope, sent, policy)
    referrer = headers.text(sent.get(b"referer", b""), _MAX_QUERY)
    found = {
        "path": path,
        "search": search,
        "url": f"{origin}{path}{search}" if origin else "",
        "referrer": headers.address(referrer, policy.privacy.query),
    }
    return {name: value[: headers.MAX_URL] for name, value in found.items() if value}


def _path(scope: Scope) -> str:
    """Return the path as it was sent where the server tells, as browsers show it."""
    raw = scope.get("raw_path")
    if raw:
        path = headers.text(raw.partition(b"?")[0], headers.MAX_URL)
    else:
        path = quote(
            (scope.get("path") or "")[: headers.MAX_URL], "/:@!$&'()*+,;=~", errors="replace"
        )
    return path if path.startswith("/") else f"/{path}"


def _origin(scope: Scope, sent: Headers, policy: Policy) -> str:
    host = sent.get(b"host", b"").decode("latin-1").strip()
    if not _HOST.fullmatch(host):
        server = scope.get("server")
        host = _authority(*server) if server and server[1] else ""
    if not host:
        return ""
    own = scope.get("scheme") or ("ws" if scope.get("type") == "websocket" else "http")
    said = sent.get(b"x-forwarded-proto")
    if said and policy.proxies and policy.proxies.trusts_peer(scope.get("client")):
        own = scheme(own, said.decode("latin-1"))
    return f"{own}://{host}"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
