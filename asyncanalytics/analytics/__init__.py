"""The module of Segment's Python package, for programs that were written for it.

    import asyncanalytics.analytics as analytics

    analytics.write_key = "WRITE_KEY"
    analytics.track("user id", "Signed Up")

The settings below are read at the first call, which makes `default_client`. docs/moving.md says
what differs. A setting that does not exist cannot be set: a slip of the pen raises.
"""

from __future__ import annotations

import os
import sys
import threading
from difflib import get_close_matches
from types import ModuleType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from asyncanalytics import endpoints
from asyncanalytics._version import __version__
from asyncanalytics.analytics.client import Client
from asyncanalytics.analytics.errors import APIError, BadSetting, CallTooLarge, InvalidMessage
from asyncanalytics.secret import Secret, discreet

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from asyncanalytics.analytics.client import ErrorHook
    from asyncanalytics.endpoints import Endpoint

__all__ = [
    "VERSION",
    "APIError",
    "BadSetting",
    "CallTooLarge",
    "Client",
    "InvalidMessage",
    "__version__",
    "alias",
    "capture",
    "flush",
    "group",
    "identify",
    "join",
    "page",
    "screen",
    "shutdown",
    "track",
]

VERSION: str = __version__

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")

write_key: str | None = Client.DefaultConfig.write_key
app_id: str | None = None
"""The key of Astronomer's package: calls go to Astronomer, unless there is a host."""
host: str | Endpoint | None = Client.DefaultConfig.host
endpoint: str | Endpoint | None = None
"""The same as `host`."""
dataPlaneUrl: str | None = None  # noqa: N816 - RudderStack's name for it
"""The data plane, as RudderStack's package names it."""
on_error: ErrorHook | None = Client.DefaultConfig.on_error
debug: bool = Client.DefaultConfig.debug
log_handler: logging.Handler | None = Client.DefaultConfig.log_handler
send: bool = Client.DefaultConfig.send
sync_mode: bool = Client.DefaultConfig.sync_mode
max_queue_size: int = Client.DefaultConfig.max_queue_size
gzip: bool = Client.DefaultConfig.gzip
timeout: float = Client.DefaultConfig.timeout
max_retries: int = Client.DefaultConfig.max_retries
upload_interval: float = Client.DefaultConfig.upload_interval
upload_size: int = Client.DefaultConfig.upload_size
oauth_client_id: str | None = Client.DefaultConfig.oauth_client_id
oauth_client_key: str | None = Client.DefaultConfig.oauth_client_key
oauth_key_id: str | None = Client.DefaultConfig.oauth_key_id
oauth_auth_server: str = Client.DefaultConfig.oauth_auth_server
oauth_scope: str = Client.DefaultConfig.oauth_scope
shutdown_timeout: float = Client.DefaultConfig.shutdown_timeout

default_client: Client | None = None
"""Made at the first call. Set it to None, and the next call makes another from the settings."""

_SETTINGS = frozenset(__annotations__) - {"default_client"}


# ---------------------------------------------------------------------------- the default client


def _place() -> tuple[Secret, str | Endpoint | None]:
    """Return the key, and where to send if that is set."""
    if write_key and app_id:
        raise BadSetting("give write_key or app_id: the one is Segment's, the other Astronomer's")
    where = host or endpoint
    if not where and dataPlaneUrl:
        where = endpoints.rudderstack(dataPlaneUrl)
    if not where and app_id and not os.environ.get("ASYNCANALYTICS_ENDPOINT"):
        where = endpoints.astronomer()
    return Secret(write_key or app_id), where


def _make() -> Client:
    key, where = _place()
    return Client(
        key,
        where,
        debug=debug,
        max_queue_size=max_queue_size,
        send=send,
        on_error=on_error,
        gzip=gzip,
        max_retries=max_retries,
        sync_mode=sync_mode,
        timeout=timeout,
        upload_size=upload_size,
        upload_interval=upload_interval,
        log_handler=log_handler,
        oauth_client_id=oauth_client_id,
        oauth_client_key=Secret(oauth_client_key),
        oauth_key_id=oauth_key_id,
        oauth_auth_server=oauth_auth_server,
        oauth_scope=oauth_scope,
        shutdown_timeout=shutdown_timeout,
    )


_lock = threading.RLock()


def _current() -> Client:
    global default_client  # noqa: PLW0603 - the module's own face
    client = default_client
    if client is not None:
        return client
    with _lock:
        if default_client is None:
            default_client = _make()
        return default_client


def _renew_lock() -> None:
    """Another thread of the parent's may have held it: in the child that thread is not there."""
    global _lock  # noqa: PLW0603 - one for each process
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


# --------------------------------------------------------------------------------------- its face


def _like(
    method: Callable[Concatenate[Client, _Params], _Result],  # noqa: ARG001 - its type is used
) -> Callable[[Callable[..., Any]], Callable[_Params, _Result]]:
    """Give a function, for type checkers, the parameters of a method of the client."""
    return lambda function: function


@_like(Client.identify)
@discreet
def identify(*args: Any, **given: Any) -> Any:
    """Say who the user is."""
    return _current().identify(*args, **given)


@_like(Client.track)
@discreet
def track(*args: Any, **given: Any) -> Any:
    """Say what the user did."""
    return _current().track(*args, **given)


@_like(Client.page)
@discreet
def page(*args: Any, **given: Any) -> Any:
    """Say that the user saw a web page."""
    return _current().page(*args, **given)


@_like(Client.screen)
@discreet
def screen(*args: Any, **given: Any) -> Any:
    """Say that the user saw a screen of an app."""
    return _current().screen(*args, **given)


@_like(Client.group)
@discreet
def group(*args: Any, **given: Any) -> Any:
    """Say that the user belongs to a group."""
    return _current().group(*args, **given)


@_like(Client.alias)
@discreet
def alias(*args: Any, **given: Any) -> Any:
    """Say that two ids are one user: the old one first."""
    return _current().alias(*args, **given)


@_like(Client.capture)
@discreet
def capture(*args: Any, **given: Any) -> Any:
    """Do as `track`, called as PostHog's `capture` is."""
    return _current().capture(*args, **given)


def flush(timeout: float | None = None) -> None:
    """Wait until all calls made before this are settled; `FlushTimeout` after `timeout` seconds."""
    _current().flush(timeout)


def join(timeout: float | None = None) -> None:
    """Do as `shutdown`."""
    _current().join(timeout)


def shutdown(timeout: float | None = None) -> None:
    """Send what is pending within `timeout`, or `shutdown_timeout`, and take no more calls."""
    _current().shutdown(timeout)


class _Module(ModuleType):
    """This module, which knows its settings."""

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and name not in vars(self):
            near = "".join(f": did you mean {each}?" for each in get_close_matches(name, _SETTINGS))
            raise AttributeError(f"asyncanalytics.analytics has no setting {name}{near}")
        if name in _SETTINGS and self.default_client and value != getattr(self, name):
            Client.log.warning("%s is set after the first call: that changes nothing", name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Module
