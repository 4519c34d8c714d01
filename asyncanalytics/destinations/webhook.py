"""Any URL that takes a POST of JSON: an event a request, or an array of them.

With a secret each request is signed as Standard Webhooks has it (https://www.standardwebhooks.com):
HMAC-SHA-256 over `id.timestamp.body`. The id is that of what is sent, the same for each retry; the
timestamp is that of the attempt. A receiver refuses old timestamps, and so nobody replays one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import urlsplit

from asyncanalytics import endpoints
from asyncanalytics.destinations.base import PostingDestination, Rules, own_limits
from asyncanalytics.errors import ConfigurationError, NoAnswer
from asyncanalytics.retrying import Delivered, Halt, Retry, Verdict
from asyncanalytics.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncanalytics.batching import Batch, Limits
    from asyncanalytics.endpoints import Form
    from asyncanalytics.settings import Batching

_PREFIX = "whsec_"
_AROUND = 1  # the brackets of an array, less the comma that its last event does without


class WebhookDestination(PostingDestination):
    """Posts events as they are to any URL. Whatever a 2xx says, it is a delivery."""

    def __init__(
        self,
        url: str | Secret,
        *,
        secret: str | Secret | None = None,
        form: Form = "single",
        headers: Mapping[str, str] | None = None,
        insecure: bool = False,
        name: str = "webhook",
        **rules: Unpack[Rules],
    ) -> None:
        """Take the URL; neither it nor the secret is ever shown.

        Args:
            url: where to post, `http://` for this machine only, unless `insecure`.
            secret: signs the requests: `whsec_` and 24 to 64 bytes in base64, as Standard Webhooks
                wants it.
            form: `single` sends an event a request, `batch` an array of them.
            headers: more headers, such as an Authorization.
            insecure: allow `http://` to another machine.
            name: the destination's name.
            rules: see `Rules`.
        """
        self._url, key = Secret(url), None if secret is None else Secret(secret)
        more, headers = headers, None
        del url, secret  # what fails below shows this frame
        super().__init__(name, **rules)
        if form not in ("single", "batch"):
            raise ConfigurationError(f"webhook {name}: form must be 'single' or 'batch'")
        host = Secret(_host(self._url.reveal()))
        if not host:
            raise ConfigurationError(f"webhook {name}: give a URL, such as https://example.com/in")
        self._headers = _checked(host, name, more, insecure=insecure)
        self._key = None if key is None else _decoded(key)
        if self._key is not None and not self._key:
            raise ConfigurationError(
                f"webhook {name}: the secret must be whsec_ and 24 to 64 bytes in base64"
            )
        self._is_single = form == "single"

    def limits(self, batching: Batching) -> Limits:
        """Return the user's limits."""
        limits = own_limits(batching, around=_AROUND)
        return replace(limits, max_events=1) if self._is_single else limits

    async def _deliver(self, batch: Batch) -> Verdict:
        content = self._content(batch)
        headers = _usual_headers(batch) | self._headers
        if self._key is not None:
            headers |= _signed(self._key, batch, content)
        try:
            answer = await self._transport.post(self._url.text(), headers, content)
        except NoAnswer as error:
            return Retry(error.reason, at_once=error.stale)
        if 200 <= answer.status < 300:
            return Delivered(answer.status)
        return _as_its_own(self._judged(batch, answer))

    def _content(self, batch: Batch) -> bytes:
        events = b",".join(b"{" + receipt.body for receipt in batch.receipts)
        return events if self._is_single else b"[" + events + b"]"


def _host(url: object) -> str:
    """Return the scheme and the host of a URL that can be posted to; nothing of any other."""
    if not isinstance(url, str) or not (url.isascii() and url.isprintable()) or " " in url:
        return ""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}" if parts.hostname else ""


def _checked(
    host: Secret, name: str, headers: Mapping[str, str] | None, *, insecure: bool
) -> dict[str, str]:
    """Return the headers, checked with the host as those of an endpoint are."""
    endpoint = endpoints.custom(
        host.text(), name=f"webhook {name}", headers=headers, insecure=insecure
    )
    return dict(endpoint.headers)


def _decoded(secret: Secret) -> Secret:
    """Return the bytes of a secret; nothing of one that is none."""
    try:
        key = base64.b64decode(secret.text().removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    is_sound = secret.text().startswith(_PREFIX) and 24 <= len(key) <= 64
    return Secret(key if is_sound else b"")


def _usual_headers(batch: Batch) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    if batch.retries:
        headers["x-retry-count"] = str(batch.retries)
    return headers


def _signed(key: Secret, batch: Batch, content: bytes) -> dict[str, str]:
    ids = "\n".join(receipt.message_id for receipt in batch.receipts)
    number = f"msg_{hashlib.sha256(ids.encode('utf-8', 'replace')).hexdigest()[:32]}"
    now = str(int(time.time()))
    return {
        "webhook-id": number,
        "webhook-timestamp": now,
        "webhook-signature": signature(key.reveal(), number, now, content),
    }


def signature(secret: Any, number: str, moment: str, content: bytes) -> str:
    """Return the signature of a body with an id, at a moment in whole seconds."""
    signed = hmac.digest(secret, f"{number}.{moment}.".encode() + content, "sha256")
    return f"v1,{base64.b64encode(signed).decode()}"


def _as_its_own(verdict: Verdict) -> Verdict:
    """Let a refusal speak of what a webhook has in the place of a write key."""
    if not isinstance(verdict, Halt):
        return verdict
    problem = f"it refuses requests (status {verdict.status}): check its URL, headers and secret"
    return Halt(verdict.status, problem)
