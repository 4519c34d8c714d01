"""Django: a middleware that binds each request, for sync and async views alike.

    MIDDLEWARE = [..., "asyncanalytics.integrations.django.AnalyticsMiddleware"]
    ASYNCANALYTICS = {"PRIVACY": Privacy(ip="truncated")}  # optional; see `Rules`

Sync views call a `Client`. Under ASGI, async views may call an `AsyncClient`, which is started by
`asgi.AnalyticsMiddleware(get_asgi_application(), client=client)`.

Promises:
- A request for which no call is made is not read, and nothing is asked of the database.
- In async code only a user that is loaded already is looked at; nothing blocks the loop.
- Streams are bound while they are made. Afterwards nothing stays bound to the thread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asyncanalytics.asgi import SCOPE_KEY, Policy, Privacy, RequestSource, bound_client
from asyncanalytics.binding import current
from asyncanalytics.errors import ConfigurationError, MissingExtra

try:
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction
    from django.apps import apps
    from django.conf import settings
    from django.utils.functional import LazyObject, empty
    from django.utils.module_loading import import_string
except ImportError:
    raise MissingExtra("the Django integration", "django") from None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from asyncanalytics.asgi import Scope
    from asyncanalytics.binding import Binding, Source
    from asyncanalytics.bound import BoundClient

__all__ = ["AnalyticsMiddleware", "Privacy", "get_analytics"]

_KNOWN = ("PRIVACY", "TRUSTED_PROXIES", "CONSENT", "USER")
_REQUEST = "asyncanalytics.django"
_POLICY = "_asyncanalytics_policy"


# ------------------------------------------------------------------------------------- middleware


class AnalyticsMiddleware:
    """Fills in every call that is made for a request with its context, ids and user.

    It may stand anywhere in `MIDDLEWARE`: the user is asked for when the first call is made.
    """

    sync_capable: bool = True
    async_capable: bool = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        """Made by Django.

        Raises:
            ConfigurationError: if the setting `ASYNCANALYTICS` cannot work.
        """
        self._get_response = get_response
        self._rules = Rules(getattr(settings, "ASYNCANALYTICS", {}))
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one request, in the mode that Django has chosen."""
        return self._serve_async(request) if self._is_async else self._serve(request)

    def _serve(self, request: HttpRequest) -> HttpResponseBase:
        source = DjangoSource(request, self._rules)
        token = current.set(source)
        try:
            response = self._get_response(request)
        finally:
            current.reset(token)
        return _bound_stream(response, source)

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        source = DjangoSource(request, self._rules)
        token = current.set(source)
        try:
            response = await self._get_response(request)
        finally:
            current.reset(token)
        return _bound_stream(response, source)


def get_analytics(request: HttpRequest) -> BoundClient:
    """Return the app's `AsyncClient`, bound to a request: for async views under ASGI.

    Raises:
        ConfigurationError: if the request did not come by ASGI, or the app has no client.
    """
    scope = getattr(request, "scope", None)
    if scope is None:
        raise ConfigurationError(
            "get_analytics is for requests that come by ASGI: under WSGI make a Client in a "
            "module of yours, and call it"
        )
    policy = getattr(request, _POLICY, None)
    if policy is not None:
        scope = {**scope, SCOPE_KEY: RequestSource(_scope(request), policy)}
    return bound_client(scope)


# ------------------------------------------------------------------------------- what is asked for


class Rules:
    """The setting `ASYNCANALYTICS`: what may be known of requests.

    - `PRIVACY`: a `Privacy`.
    - `TRUSTED_PROXIES`: addresses and networks whose `X-Forwarded-For` is believed.
    - `CONSENT`: a function of the request, or its dotted path, as in `asgi.AnalyticsMiddleware`.
    - `USER`: a function of the request to the user's id. Unless given it is `request.user`, where
      `django.contrib.auth` is installed; None leaves it to the cookies.

    What is not named here is as in the `asgi.AnalyticsMiddleware` around Django, if there is one.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Check the setting.

        Raises:
            ConfigurationError: if it has an unknown name or a wrong value.
        """
        if unknown := set(given) - set(_KNOWN):
            text = f"ASYNCANALYTICS: unknown {', '.join(sorted(unknown))}"
            raise ConfigurationError(f"{text}; there are {', '.join(_KNOWN)}")
        self._given = dict(given)
        for name in ("CONSENT", "USER"):
            if self._given.get(name) is not None:
                self._given[name] = _hook(name, self._given[name])
        is_there = apps.is_installed("django.contrib.auth")
        self._asks_django = "USER" not in given and is_there
        self._alone = self._policy(Policy())
        self._within: tuple[Policy, Policy] | None = None

    def policy(self, outer: Policy | None) -> Policy:
        """Return what holds for requests, within what the ASGI middleware was told."""
        if outer is None:
            return self._alone
        if self._within is None or self._within[0] is not outer:
            self._within = outer, self._policy(outer)
        return self._within[1]

    def looks_at_user(self, outer: Policy | None) -> bool:
        """Whether `request.user` is the user."""
        return self._asks_django and not (outer is not None and outer.names_user)

    def _policy(self, outer: Policy) -> Policy:
        user = outer.user if outer.names_user else _django_user if self._asks_django else None
        found = Policy(
            privacy=self._given.get("PRIVACY", outer.privacy),
            trusted_proxies=self._given.get("TRUSTED_PROXIES", ()),
            consent=self._given.get("CONSENT", outer.consent),
            user=self._given.get("USER", user),
            client=outer.client,
        )
        if "TRUSTED_PROXIES" not in self._given:
            found.proxies = outer.proxies
        return found


def _hook(name: str, given: Any) -> Callable[[Scope], Any]:
    try:
        function = import_string(given) if isinstance(given, str) else given
    except ImportError:
        raise ConfigurationError(f"ASYNCANALYTICS: {name} cannot be imported") from None
    if not callable(function) or iscoroutinefunction(function):
        raise ConfigurationError(
            f"ASYNCANALYTICS: {name} must be a plain function of the request, or its dotted path"
        )
    return lambda scope: function(scope[_REQUEST])


# -------------------------------------------------------------------------------------- the request


class DjangoSource:
    """Where the binding of a Django request comes from. It is read at the first call.

    Where `request.user` changes, as by a login or by loading it later, calls see the new one.
    """

    def __init__(self, request: HttpRequest, rules: Rules) -> None:
        """Take a request, and put what may be known of it where `get_analytics` finds it."""
        outer: RequestSource | None = getattr(request, "scope", {}).get(SCOPE_KEY)
        told = None if outer is None else outer.policy
        # As in the ASGI middleware: what the outer one tells may be withheld here.
        self._around = current.get() if outer is None else outer.within
        self._request = request
        self._policy = rules.policy(told)
        self._looks_at_user = rules.looks_at_user(told)
        self._user: str | None = None
        self._found: RequestSource | None = None
        setattr(request, _POLICY, self._policy)

    def binding(self) -> Binding:
        """Return the request's ids and context, with the user that is known now."""
        found = self._found
        if found is None or self._known_user() != self._user:
            found = RequestSource(_scope(self._request), self._policy, within=self._around)
            self._found = found  # at once: loading the user may make calls
            self._user = self._known_user()
            found.binding()
            self._user = self._known_user()  # which may be loaded only now
        return found.binding()

    def _known_user(self) -> str | None:
        """Return the id of a user who is loaded already."""
        if not self._looks_at_user or _loaded_user(self._request) is None:
            return None
        return self._policy.user({_REQUEST: self._request})


def _scope(request: HttpRequest) -> dict[str, Any]:
    """Return a request as an ASGI scope has it, with itself in it for the app's functions."""
    scope = getattr(request, "scope", None)
    found = _wsgi_scope(request) if scope is None else dict(scope)
    if isinstance(query := found.get("query_string"), str):  # Django's async test client
        found["query_string"] = _bytes(query)
    return {**found, "scheme": request.scheme, _REQUEST: request}


def _wsgi_scope(request: HttpRequest) -> dict[str, Any]:
    meta = request.META
    peer, server = meta.get("REMOTE_ADDR"), meta.get("SERVER_NAME")
    port = str(meta.get("SERVER_PORT", ""))
    headers = request.headers.items()
    return {
        "type": "http",
        "path": request.path,
        "query_string": _bytes(meta.get("QUERY_STRING", "")),
        "headers": [(_bytes(name.lower()), _bytes(value)) for name, value in headers],
        "client": (peer, 0) if peer else None,
        "server": (server, int(port)) if server and port.isdecimal() else None,
    }


def _bytes(text: object) -> bytes:
    return str(text).encode("latin-1", "replace")  # WSGI's strings are bytes read as latin-1


def _django_user(scope: Scope) -> str | None:
    """Return the id of the user who is signed in, if it can be had without blocking the loop."""
    request = scope[_REQUEST]
    user = _loaded_user(request)
    if user is None and not _is_on_a_loop():
        user = getattr(request, "user", None)
    if user is None or not user.is_authenticated or user.pk is None:
        return None
    return str(user.pk)


def _loaded_user(request: HttpRequest) -> Any:
    """Return `request.user` without loading it: None where that would be needed."""
    user = getattr(request, "user", None)
    if not isinstance(user, LazyObject):
        return user
    wrapped = user._wrapped  # noqa: SLF001 - there is no public way to look without loading
    if wrapped is not empty:
        return wrapped
    return getattr(request, "_acached_user", None)  # what `await request.auser()` has found


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# ------------------------------------------------------------------------------------------ streams


def _bound_stream(response: Any, source: Source) -> Any:
    """Bind a stream while its parts are made, which is after the middleware has returned."""
    # A file is left alone, so that servers may still send it by their own means.
    if response.streaming and getattr(response, "file_to_stream", None) is None:
        parts = response.streaming_content
        wrap = _bound_async_parts if response.is_async else _bound_parts
        response.streaming_content = wrap(parts, source)
    return response


def _bound_parts(parts: Iterator[bytes], source: Source) -> Iterator[bytes]:
    while True:
        token = current.set(source)
        try:
            part = next(parts)
        except StopIteration:
            return
        finally:
            current.reset(token)
        yield part


async def _bound_async_parts(parts: AsyncIterator[bytes], source: Source) -> AsyncIterator[bytes]:
    while True:
        token = current.set(source)
        try:
            part = await anext(parts)
        except StopAsyncIteration:
            return
        finally:
            current.reset(token)
        yield part
