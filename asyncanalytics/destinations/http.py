"""A Segment-compatible endpoint over HTTP: batches are joined, compressed, posted and judged."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Unpack

from asyncanalytics import endpoints
from asyncanalytics.aside import Worker
from asyncanalytics.batching import Batch, Limits
from asyncanalytics.destinations.base import PostingDestination, Rules
from asyncanalytics.encoding import COMPRESSES_QUICKLY, Envelope, compress
from asyncanalytics.endpoints import Endpoint
from asyncanalytics.errors import ConfigurationError, NoAnswer
from asyncanalytics.oauth import OAuth, Tokens
from asyncanalytics.retrying import Delivered, Halt, Retry, Verdict
from asyncanalytics.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncanalytics.settings import Batching, Retrying, Sending
    from asyncanalytics.transport import Transport

_WORTH_COMPRESSING = 1_024  # bytes: less than a packet gains nothing
_TOKEN_REFUSED = (401, 403, 511)


class Destination(PostingDestination):
    """One Segment-compatible endpoint with its write key."""

    def __init__(
        self,
        write_key: str | Secret,
        *,
        endpoint: Endpoint | str | None = None,
        name: str | None = None,
        oauth: OAuth | None = None,
        **rules: Unpack[Rules],
    ) -> None:
        """Take the key and the endpoint, an `Endpoint` or text: Segment's, unless given.

        For `rules` see `Rules`.

        With `oauth` a token goes into the header, and the key into the body.
        """
        key = Secret(write_key)
        del write_key  # what fails below shows this frame
        self.endpoint: Endpoint = _endpoint(endpoint)
        super().__init__(self.endpoint.name if name is None else name, **rules)
        self.refuses: frozenset[str] = self.endpoint.refuses
        check_key(key)
        if oauth is not None and not isinstance(oauth, OAuth):
            raise ConfigurationError("oauth must be an OAuth(...)")
        self._oauth = oauth
        self._tokens: Tokens | None = None
        self._authorization = _authorization(key, self.endpoint)
        self._envelope = _envelope(key, self.endpoint, signs=oauth is None)

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
        """Use the client's pool, and buy tokens with it."""
        await super().open(transport, sending, retrying)
        self._gzip = self.endpoint.gzip if sending.gzip is None else sending.gzip
        self._compressing = Worker()
        if self._oauth is not None:
            self._tokens = Tokens(
                self._oauth,
                transport,
                self.endpoint.base,
                max_retry_after=retrying.max_retry_after,
            )

    async def aclose(self) -> None:
        """Let go of the thread that compresses."""
        self._compressing = Worker()

    async def _deliver(self, batch: Batch) -> Verdict:
        if self._tokens is None:
            return await self._post(batch, self._authorization)
        token = await self._tokens.get()
        if not isinstance(token, Secret):
            return token
        verdict = await self._post(batch, Secret(f"Bearer {token.text()}"))
        return _judge_token(verdict, self._tokens, token)

    async def _post(self, batch: Batch, authorization: Secret) -> Verdict:
        try:
            answer = await self._transport.post(*await self._request(batch, authorization))
        except NoAnswer as error:
            return Retry(error.reason, at_once=error.stale)
        return self._judged(batch, answer)

    async def _request(
        self, batch: Batch, authorization: Secret
    ) -> tuple[str, dict[str, str], bytes]:
        bodies = [receipt.body for receipt in batch.receipts]
        headers = self._headers(batch, authorization)
        envelope = self._envelope
        is_packed = self._gzip and (
            sum(map(len, bodies)) + len(bodies) * envelope.per_event + envelope.size
            >= _WORTH_COMPRESSING
        )
        if is_packed:
            headers["content-encoding"] = "gzip"
        url = self.endpoint.url_for(batch.receipts[0].call)
        if url is not None:
            content = envelope.pack_one(bodies[0])
            return url, headers, await self._compressed([content]) if is_packed else content
        ids = f"{batch.receipts[0].message_id} {batch.receipts[-1].message_id} {len(bodies)}"
        if is_packed:
            content = await self._compressed(envelope.pieces(bodies, ids))
        else:
            content = envelope.pack(bodies, ids)
        return self.endpoint.batch_url, headers, content

    async def _compressed(self, pieces: Iterable[bytes]) -> bytes:
        if COMPRESSES_QUICKLY:
            return compress(pieces)
        return await self._compressing.run(compress, pieces)

    def _headers(self, batch: Batch, authorization: Secret) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        if authorization:
            headers["authorization"] = authorization.text()
        headers |= self.endpoint.headers
        if batch.retries:
            headers["x-retry-count"] = str(batch.retries)
        return headers


def _endpoint(given: object) -> Endpoint:
    if isinstance(given, str):
        return endpoints.parse(given)
    where = endpoints.segment() if given is None else given
    if not isinstance(where, Endpoint):
        raise ConfigurationError("Destination: endpoint must be an Endpoint or text")
    return where


def check_key(key: Secret) -> None:
    """Say what is wrong with a write key that cannot be sent, without showing it."""
    problem = _problem(key.reveal())
    if problem:
        raise ConfigurationError(problem)


def _problem(key: object) -> str | None:
    if key is not None and not isinstance(key, str):
        return f"the write key must be text, not {type(key).__name__}"
    if not key:
        return (
            "no write key: pass it as the first argument, AsyncClient('...'), or set the "
            "environment variable ASYNCANALYTICS_WRITE_KEY"
        )
    if key != key.strip() or not key.isprintable():
        return (
            "the write key has white space around it or a line break in it: strip what was read "
            "from a file or an environment variable"
        )
    return None


def _authorization(key: Secret, endpoint: Endpoint) -> Secret:
    """Return the header that carries the key; empty where there is none."""
    if endpoint.auth == "none":
        return Secret("")
    if endpoint.auth == "basic":
        # Key as the user name and an empty password: base64 of "key:".
        return Secret("Basic " + base64.b64encode(f"{key.text()}:".encode()).decode())
    if not key.text().isascii():
        raise ConfigurationError("the write key must be ASCII to be sent in a header as it is")
    return Secret(f"Bearer {key.text()}") if endpoint.auth == "bearer" else key


def _judge_token(verdict: Verdict, tokens: Tokens, token: Secret) -> Verdict:
    """Have a token that is refused replaced once, before the destination halts."""
    status = getattr(verdict, "status", None)
    if status not in _TOKEN_REFUSED:
        if isinstance(verdict, Delivered):
            tokens.accepted()
        return verdict
    if tokens.refused(token):
        return Retry(f"status {status}: the token is refused", status, at_once=True)
    problem = f"the token is refused (status {status}): check the OAuth app's scope and its source"
    return Halt(status, f"{problem}, the write key and the endpoint's region")


def _envelope(key: Secret, endpoint: Endpoint, *, signs: bool) -> Envelope:
    in_event = dict(endpoint.event_members)
    if endpoint.key_in_event is not None:
        in_event[endpoint.key_in_event] = key.text()
    in_body = {} if endpoint.key_in_body is None else {endpoint.key_in_body: key.text()}
    if not signs and not in_body and endpoint.key_in_event is None:
        in_body = {"writeKey": key.text()}  # a token does not name the source
    return Envelope(in_body=in_body, in_event=in_event, message_id=endpoint.envelope_id)
