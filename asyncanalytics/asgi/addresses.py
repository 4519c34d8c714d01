"""Whose address it is: the peer's, or what trusted proxies say in `X-Forwarded-For`.

Invariants:
- What a stranger writes into a header is never believed.
- Nothing here raises for what a request brings; only a wrong setting does.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from asyncanalytics.errors import ConfigurationError

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

Address = IPv4Address | IPv6Address

_MAX_HOPS = 32
_MAX_TEXT = 64  # characters of an address with brackets, zone and port
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class Proxies:
    """The peers whose word about the client is taken."""

    __slots__ = ("_addresses", "_networks", "anyone", "sockets")

    def __init__(self, texts: Iterable[str]) -> None:
        """Read addresses and networks; `*` is anyone, `unix` is a peer without an address.

        Raises:
            ConfigurationError: if one of them is none of these.
        """
        given = _texts(texts)
        self.anyone: bool = "*" in given
        self.sockets: bool = self.anyone or "unix" in given
        networks = [_network(text) for text in given if text not in ("*", "unix")]
        # An address is found at once; only wider networks are looked at one by one.
        self._addresses = {each[0] for each in networks if each.num_addresses == 1}
        self._networks = tuple(each for each in networks if each.num_addresses > 1)

    def __bool__(self) -> bool:
        return self.sockets or bool(self._addresses or self._networks)

    def trusts(self, address: Address) -> bool:
        """Whether a proxy has this address."""
        return (
            self.anyone
            or address in self._addresses
            or any(address in each for each in self._networks)
        )

    def trusts_peer(self, scope_client: Any) -> bool:
        """Whether the other end of the connection is a proxy."""
        host = scope_client[0] if scope_client else None
        if not host:
            return self.sockets
        found = read(host)
        return self.anyone if found is None else self.trusts(found)

    def client(self, scope_client: Any, forwarded_for: str) -> Address | None:
        """Return the client's address; None where a trusted chain does not tell it.

        `forwarded_for` counts only if the peer is trusted. It is walked from the right, where
        each proxy adds the peer that it saw, up to the first that is not a proxy.
        """
        found = read(scope_client[0]) if scope_client and scope_client[0] else None
        if not (forwarded_for and self and self.trusts_peer(scope_client)):
            return found
        hops = forwarded_for.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]
        for hop in reversed(hops):
            found = read(hop)
            if found is None or not self.trusts(found):
                return found
        return found


def scheme(own: str, forwarded: str) -> str:
    """Return a request's scheme; a trusted proxy's word replaces the connection's."""
    said = _SCHEMES.get(forwarded.rpartition(",")[2].strip().lower())
    if said is None:
        return own
    return said.replace("http", "ws") if own in ("ws", "wss") else said


def read(text: object) -> Address | None:
    """Read an address, with or without port, brackets, quotes and zone."""
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        return None
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return found if mapped is None else mapped


def truncated(address: Address) -> Address:
    """Return the address without what tells one household from its neighbours."""
    if isinstance(address, IPv4Address):
        return IPv4Address(int(address) >> 8 << 8)
    if address.sixtofour or address.teredo:
        return IPv6Address(int(address) >> 104 << 104)  # an IPv4 address is in the next bits
    return IPv6Address(int(address) >> 80 << 80)


def _texts(given: Iterable[str]) -> list[str]:
    texts = [given] if isinstance(given, str) else _listed(given)
    if not all(isinstance(each, str) for each in texts):
        raise ConfigurationError("trusted_proxies must be texts: addresses, networks, or '*'")
    return texts


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, Iterable) else [given]


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        found = ip_network(text)
        mapped = read(str(found.network_address))
        if isinstance(mapped, IPv4Address) and found.prefixlen >= 96 and found.version == 6:
            return ip_network((mapped, found.prefixlen - 96))
    except ValueError:
        raise ConfigurationError(
            f"trusted_proxies: {text!r} is no address such as '10.0.0.7', no network such as "
            "'10.0.0.0/8', and neither '*' nor 'unix'"
        ) from None
    else:
        return found
