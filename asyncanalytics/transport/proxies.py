"""The environment's proxies: whether a library can use them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.request import getproxies

import httpx

from asyncanalytics.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable


def check_proxy(name: str, use: Callable[[str], object], library: str, way_out: str) -> None:
    """Let a library try what the environment has by a name: http, https, all or no.

    Raises:
        ConfigurationError: if it cannot use that. Its value, which may hold a password, is nowhere
            in what is raised.
    """
    if not _is_usable(name, use):
        raise ConfigurationError(
            f"{library} cannot use the {name.upper()}_PROXY of the environment: {way_out}, or "
            "unset it"
        )


def complete(proxy: str) -> str:
    """Give a proxy the scheme that it may lack."""
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_usable(name: str, use: Callable[[str], object]) -> bool:
    if proxy := getproxies().get(name):
        try:
            use(complete(proxy))
        except (httpx.InvalidURL, ImportError, ValueError):
            return False
    return True
