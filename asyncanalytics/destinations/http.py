"""A Segment-compatible endpoint over HTTP: batches are joined, compressed, posted and judged."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, NoReturn, Unpack

import anyio.to_thread

from asyncanalytics import endpoints
from asyncanalytics._version import __version__
from asyncanalytics.batching import Batch, Limits
from asyncanalytics.destinations.base import BaseDestination, Rules
from asyncanalytics.encoding import COMPRESSES_QUICKLY, Envelope, compress
from asyncanalytics.errors import ConfigurationError, NoAnswer
from asyncanalytics.retrying import Retry, Verdict, judge

if TYPE_CHECKING:
    from asyncanalytics.endpoints import Endpoint
    from asyncanalytics.settings import Batching, Retrying, Sending
    from asyncanalytics.transport import Transport

_WORTH_COMPRESSING = 1_024  # bytes: less than a packet gains nothing


class Destination(BaseDestination):
    """One Segment-compatible endpoint with its write key."""

    def __init__(
        self,
        write_key: str,
        *,
        endpoint: Endpoint | None = None,
        name: str | None = None,
        **rules: Unpack[Rules],
    ) -> None:
        """Take the key and the endpoint: Segment's, unless given. For `rules` see `Rules`."""
        self.endpoint: Endpoint = endpoints.segment() if endpoint is None else endpoint
        super().__init__(self.endpoint.name if name is None else name, **rules)
        self.refuses: frozenset[str] = self.endpoint.refuses
        self._sign = _signature(check_key(write_key), self.endpoint)
        self._envelope = _envelope(write_key, self.endpoint)

    def limits(self, batching: Batching) -> Limits:
        """Return the endpoint's limits, or the user's where they are lower."""
        endpoint = self.endpoint
        single = endpoint.form == "single"
        return Limits(
            max_events=1 if single else min(batching.max_events, endpoint.max_batch_events),
            max_bytes=min(batching.max_bytes, endpoint.max_batch_bytes),
            max_event_bytes=endpoint.max_event_bytes - (self._envelope.alone if single else 0),
            envelope=self._envelope.size,
            per_event=self._envelope.per_event,
        )

    async def open(self, transport: Transport, sending: Sending, retrying: Retrying) -> None:
        """Use the client's pool."""
        self._transport = transport
        self._gzip = self.endpoint.gzip if sending.gzip is None else sending.gzip
        self._max_retry_after = retrying.max_retry_after

    async def deliver(self, batch: Batch) -> Verdict:
        """Post a batch, with `sentAt` as of now, and judge the answer."""
        url, content = self._request(batch)
        headers = self._headers(batch)
        if self._gzip and len(content) >= _WORTH_COMPRESSING:
            headers["content-encoding"] = "gzip"
            content = await _compress(content)
        try:
            answer = await self._transport.post(url, headers, content)
        except NoAnswer as error:
            return Retry(error.reason, at_once=error.stale)
        return judge(
            answer.status,
            answer.headers,
            answer.body,
            batch=batch.receipts,
            now=time.time(),
            max_retry_after=self._max_retry_after,
        )

    def _request(self, batch: Batch) -> tuple[str, bytes]:
        receipts = batch.receipts
        url = self.endpoint.url_for(receipts[0].call)
        if url is not None:
            return url, self._envelope.pack_one(receipts[0].body)
        ids = f"{receipts[0].message_id} {receipts[-1].message_id} {len(receipts)}"
        bodies = [receipt.body for receipt in receipts]
        return self.endpoint.batch_url, self._envelope.pack(bodies, ids)

    def _headers(self, batch: Batch) -> dict[str, str]:
        headers = {
            "content-type": "application/json",
            "user-agent": f"asyncanalytics/{__version__}",
            **self._sign.headers,
            **self.endpoint.headers,
        }
        if batch.retries:
            headers["x-retry-count"] = str(batch.retries)
        return headers


class _Signature:
    """The headers that carry the key. A class of its own, so that no repr shows them."""

    __slots__ = ("headers",)

    def __init__(self, headers: dict[str, str]) -> None:
        self.headers = headers

    def __reduce__(self) -> NoReturn:
        raise TypeError("a destination holds a key and cannot be pickled: make it where it is used")


def check_key(write_key: object) -> str:
    """Return a write key that can be sent, or say what is wrong with it without showing it."""
    if write_key is not None and not isinstance(write_key, str):
        raise ConfigurationError(f"the write key must be text, not {type(write_key).__name__}")
    if not write_key:
        raise ConfigurationError(
            "no write key: pass it as the first argument, AsyncClient('...'), or set the "
            "environment variable ASYNCANALYTICS_WRITE_KEY"
        )
    if write_key != write_key.strip() or not write_key.isprintable():
        raise ConfigurationError(
            "the write key has white space around it or a line break in it: strip what was read "
            "from a file or an environment variable"
        )
    return write_key


def _signature(key: str, endpoint: Endpoint) -> _Signature:
    if endpoint.auth == "none":
        return _Signature({})
    if endpoint.auth == "basic":
        # Key as the user name and an empty password: base64 of "key:".
        value = "Basic " + base64.b64encode(f"{key}:".encode()).decode()
    elif not key.isascii():
        raise ConfigurationError("the write key must be ASCII to be sent in a header as it is")
    else:
        value = f"Bearer {key}" if endpoint.auth == "bearer" else key
    return _Signature({"authorization": value})


def _envelope(key: str, endpoint: Endpoint) -> Envelope:
    in_event = dict(endpoint.event_members)
    if endpoint.key_in_event is not None:
        in_event[endpoint.key_in_event] = key
    in_body = {} if endpoint.key_in_body is None else {endpoint.key_in_body: key}
    return Envelope(in_body=in_body, in_event=in_event, message_id=endpoint.envelope_id)


async def _compress(content: bytes) -> bytes:
    if COMPRESSES_QUICKLY:
        return compress(content)
    return await anyio.to_thread.run_sync(compress, content)
