"""Who may talk to the collector, and the headers on everything it says.

A web page must not reach a collector on its reader's own machine, neither by a foreign name
that resolves to loopback (DNS rebinding: the Host is checked) nor by a plain cross-origin
request (the Origin is checked wherever there is one), nor by an image or a frame, which have no
Origin (browsers say which site started a request). No answer carries a CORS header.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from asyncanalytics.collector.answers import refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
ANY_HOST: Final = "*"

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        *(f"{each}-src 'self'" for each in ("script", "style", "img", "connect")),
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""Pages load what this collector serves, and nothing that stands in the page itself: where a
text from an event were taken for markup after all, it would do nothing."""

SECURITY_HEADERS: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_KEPT_NOWHERE: Final = (b"cache-control", b"no-store")


def host_name(host: str) -> str:
    """Return the name in a Host header, without its port, in lower case."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


def is_any_address(host: str) -> bool:
    """Tell whether what listens on this host listens on all addresses of the machine."""
    try:
        return not host or ip_address(host).is_unspecified
    except ValueError:
        return False


class Guard:
    """ASGI middleware, outside of everything else."""

    def __init__(
        self, app: ASGIApp, allowed_hosts: Iterable[str] = (), *, own_site: bool = False
    ) -> None:
        """Let in the loopback names and the given ones; `"*"` lets in any.

        `own_site`: refuse what another website made a browser ask for, but for links to pages.
        """
        self._app = app
        self._own_site = own_site
        self._allowed = {*LOOPBACK, *(each.lower() for each in allowed_hosts)}
        self._any_address = False

    def allow(self, host: str) -> None:
        """Let in one more host: a name or an address, without a port.

        The address that stands for all of a machine's lets in any address: what a name was
        made to resolve to is never asked for by address.
        """
        self._any_address |= is_any_address(host)
        self._allowed.add(f"[{host}]" if ":" in host else host.lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on; either way add the security headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        app = self._refuse(scope, Headers(scope=scope)) or self._app
        await app(scope, receive, _with_security_headers(send))

    def _refuse(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._knows(hosts[0]):
            # 421, not 403: to a client of the protocol 403 says that its key is wrong.
            return refusal(421, "host_not_allowed", "this Host is not in allowed_hosts")
        if any(not _same_origin(origin, hosts[0]) for origin in headers.getlist("origin")):
            return refusal(403, "cross_origin", "requests of other origins are refused")
        if self._own_site and _is_foreign(headers) and not _follows_a_link(scope, headers):
            return refusal(403, "cross_site", "what other websites ask for is refused")
        return None

    def _knows(self, host: str) -> bool:
        name = host_name(host)
        return (
            ANY_HOST in self._allowed
            or name in self._allowed
            or (self._any_address and _is_address(name))
        )


def _is_address(name: str) -> bool:
    try:
        return bool(ip_address(name.removeprefix("[").removesuffix("]")))
    except ValueError:
        return False


def _same_origin(origin: str, host: str) -> bool:
    # The scheme is left out: behind a TLS proxy it is not the one that the browser sees.
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False


def _is_foreign(headers: Headers) -> bool:
    # Other ports of this machine are the same site.
    return headers.get("sec-fetch-site", "") in ("cross-site", "same-site")


def _follows_a_link(scope: Scope, headers: Headers) -> bool:
    """Tell whether a reader comes to a page in a window of its own."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return (
        scope["method"] in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
        and (path == "/" or path.startswith("/page/"))
    )


def _with_security_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), *SECURITY_HEADERS]
            if all(name != b"cache-control" for name, _ in headers):  # the page's own files have it
                headers.append(_KEPT_NOWHERE)
            message["headers"] = headers
        await send(message)

    return send_with_headers
