"""Where calls go and how many may wait, from the settings of Segment's client."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from asyncanalytics import endpoints
from asyncanalytics.analytics.errors import BadSetting
from asyncanalytics.endpoints import Endpoint
from asyncanalytics.errors import ConfigurationError
from asyncanalytics.oauth import OAuth
from asyncanalytics.settings import Queueing

if TYPE_CHECKING:
    from asyncanalytics.secret import Secret
    from asyncanalytics.sync import Client

logger: logging.Logger = logging.getLogger("asyncanalytics")


class Queue:
    """What is pending, as figures: the part of a queue's face that programs watch."""

    def __init__(self, client: Client, maxsize: int) -> None:
        """Look at a client; `maxsize` of 0 or less means without a limit."""
        self._client = client
        self.maxsize: int = maxsize

    def qsize(self) -> int:
        """Return how many calls are pending, those in flight included."""
        return self._client.stats().pending

    def empty(self) -> bool:
        """Whether nothing is pending."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether the next call would be refused."""
        return 0 < self.maxsize <= self.qsize()


def queueing_of(size: int) -> Queueing:
    """Bound the queue by its number of calls alone, as Segment's is."""
    if not isinstance(size, int):
        raise ConfigurationError(f"max_queue_size must be a number, not {type(size).__name__}")
    events = size if size > 0 else sys.maxsize
    return Queueing(
        max_events=events,
        max_bytes=max(events * endpoints.MAX_EVENT_BYTES, 32_768),
        when_full="raise",
    )


def oauth_of(
    client_id: str | None, private_key: Secret | None, key_id: str | None, server: str, scope: str
) -> OAuth | None:
    """Return the OAuth app that the settings name, if they name one."""
    if not (client_id or private_key or key_id):
        return None
    if not (client_id and private_key and key_id):
        raise BadSetting(
            "Client: give oauth_client_id, oauth_client_key and oauth_key_id together, or none"
        )
    return OAuth(
        client_id=client_id, private_key=private_key, key_id=key_id, server=server, scope=scope
    )


def endpoint_of(host: str | Endpoint | None) -> Endpoint | None:
    """Read a host as Segment's client does: any URL, with the key in the body too."""
    if not host or isinstance(host, Endpoint):
        return host or None
    if not isinstance(host, str):
        raise ConfigurationError(f"host must be a URL or an Endpoint, not {type(host).__name__}")
    if "://" not in host.partition("@")[0]:
        return endpoints.parse(host)
    try:
        return endpoints.custom(host, key_in_body="writeKey")
    except ConfigurationError:
        endpoint = endpoints.custom(host, key_in_body="writeKey", insecure=True)
        logger.warning("the host is http://: the key and the calls travel in the clear")
        return endpoint
