"""Where a server listens, in words: an address that can be opened here, and what it is bound to."""

from __future__ import annotations

from asyncanalytics.cli.output import say


def bound(url: str, host: str) -> str:
    """Return the address and port of a server at this URL that was told to listen on this host."""
    from asyncanalytics.collector.guard import is_any_address

    place = url.partition("://")[2]
    if not is_any_address(host):
        return place
    port = place.rpartition(":")[2]
    return f"[::]:{port}" if ":" in host else f"0.0.0.0:{port}"


def say_where(what: str, url: str, host: str) -> None:
    """Say the URL and, where it listens on more than that address, on what."""
    say((what, "bold green"), f" on {url} until Ctrl-C")
    place = bound(url, host)
    if place not in url:
        family = "IPv6" if ":" in host else "IPv4"
        all_of_them = f"all {family} addresses of this machine, for others to reach it by"
        say(("  bound ", "bold"), f"to {place}: {all_of_them}")
