"""Segment's OAuth 2.0: a signed statement buys a token, and the token goes where the key went.

The grant is `client_credentials` with a JWT that the client's private key has signed (RFC 7523).
The facts are from https://www.twilio.com/docs/segment/connections/oauth and from what Segment's own
package sends.

Promises:
- A token is renewed ahead of its end: from half of its life on, at a moment that differs from
  client to client, with the batch that comes next. Other batches go on with the one there is.
- One request for a token at a time: who waits for it shares its answer, a failure too.
- A server that cannot answer now is tried again like an endpoint that cannot; calls wait.
- A clock that is wrong is set right by the server's `Date`, for the statement's times only.
- The private key and the tokens are in a `Secret` wherever they are kept.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import orjson

from asyncanalytics.aside import beside
from asyncanalytics.endpoints import Endpoint
from asyncanalytics.errors import ConfigurationError, MissingExtra, NoAnswer
from asyncanalytics.retrying import Delivered, Halt, Retry, judge, retry_after
from asyncanalytics.secret import Secret, Unpicklable

if TYPE_CHECKING:
    from asyncanalytics.transport import Answer, Transport

_SERVERS = {"us": "https://oauth2.segment.io", "eu": "https://oauth2.eu1.segmentapis.com"}
_STATEMENT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_EARLY = 5  # seconds that a statement is dated back, and by which clocks may differ
_LIFE = 60  # seconds that a statement is good for
_UNTOLD = 120.0  # seconds that a token is taken to live if its server does not say
_MARGIN = 30.0  # seconds before its end at which a token is no longer used
_AGAIN = 30.0  # seconds after which a renewal that has failed is tried again


@dataclass(frozen=True, kw_only=True, slots=True, init=False, repr=False)
class OAuth(Unpicklable):
    """An OAuth app of a Segment workspace, in place of the write key's own signature."""

    client_id: str
    """The app's id."""
    key_id: str
    """The id of the public key, as Segment shows it beside the app."""
    private_key: Secret
    """The private key that belongs to it."""
    scope: str
    """What the token is for, as it is set in the app."""
    server: str | None
    """The authorization server; None: that of the endpoint's region."""

    def __init__(
        self,
        *,
        client_id: str,
        key_id: str,
        private_key: str | Secret,
        scope: str = "tracking_api:write",
        server: str | None = None,
    ) -> None:
        """Take the app's ids and its RSA private key, in PEM form.

        Raises:
            ConfigurationError: if one of them cannot work, or the extra `oauth` is not installed.
        """
        key = Secret(private_key)
        del private_key  # what fails below shows this frame
        texts: dict[str, object] = {"client_id": client_id, "key_id": key_id, "scope": scope}
        for name, text in texts.items():
            if not isinstance(text, str) or not text:
                raise ConfigurationError(f"OAuth: {name} must be text, and not empty")
        if server is not None:
            server = Endpoint(name="oauth", base=server).base  # which checks it
        _check(key)
        for name, value in {**texts, "private_key": key, "server": server}.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        """Name the app; one whose constructor fails is shown in tracebacks."""
        return f"<OAuth {getattr(self, 'client_id', '')!r}>"

    def server_for(self, base: str) -> str:
        """Return the authorization server for an endpoint: tokens are good within a region."""
        host = urlsplit(base).hostname or ""
        return self.server or _SERVERS["eu" if "eu1" in host.split(".") else "us"]


def _check(key: Secret) -> None:
    """Say what is wrong with a private key, without showing it."""
    keys = _library("jwt.algorithms")
    if isinstance(key.reveal(), str):
        try:
            is_good = hasattr(keys.RSAAlgorithm("sha256").prepare_key(key.text()), "sign")
        except Exception:  # noqa: BLE001 - another library's; its text may show the key
            is_good = False
        if is_good:
            return
    raise ConfigurationError(
        "OAuth: private_key must be an RSA private key in PEM form, without a password"
    )


def _library(name: str) -> Any:
    try:
        importlib.import_module("cryptography")
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtra("OAuth", "oauth") from None


@dataclass(frozen=True, slots=True)
class _Token:
    """One token, and the moments of the loop's clock from which on it is old."""

    secret: Secret
    renew_at: float
    ends_at: float


class Tokens(Unpicklable):
    """The tokens of one destination, one after another."""

    def __init__(
        self, oauth: OAuth, transport: Transport, base: str, *, max_retry_after: float
    ) -> None:
        """Take the app, the way to its server, and the endpoint's address."""
        self._oauth = oauth
        self._transport = transport
        self._server = oauth.server_for(base)
        self._max_retry_after = max_retry_after
        self._lock = asyncio.Lock()
        self._token: _Token | None = None
        self._answer: _Token | Retry | Halt = Retry("no token yet")
        self._round = 0  # of requests for a token
        self._refusals = 0  # of tokens, one after another, by the endpoint
        self._skew = 0.0  # seconds that this machine's clock is ahead of the server's

    async def get(self) -> Secret | Retry | Halt:
        """Return a token that is good for now, or why there is none."""
        now, token = asyncio.get_running_loop().time(), self._token
        if token is not None and now < token.ends_at:
            if now < token.renew_at or self._lock.locked():
                return token.secret
        else:
            self._token = token = None
        before = self._round
        async with self._lock:
            if self._round == before:
                self._answer = await self._fetch()
                self._round += 1
                self._keep(self._answer, token)
        token = self._token
        if token is not None:
            return token.secret
        return self._answer if not isinstance(self._answer, _Token) else Retry("no token is left")

    def _keep(self, answer: _Token | Retry | Halt, before: _Token | None) -> None:
        if isinstance(answer, _Token):
            self._token = answer
        elif before is not None and before is self._token:
            # Good for a while yet: the next try is put off.
            later = asyncio.get_running_loop().time() + _AGAIN
            self._token = _Token(before.secret, later, before.ends_at)

    def accepted(self) -> None:
        """Note that the endpoint has taken the token."""
        self._refusals = 0

    def refused(self, secret: Secret) -> bool:
        """Throw a token away that the endpoint refuses; return whether another may help."""
        if self._token is not None and self._token.secret is secret:
            self._token = None
            self._refusals += 1
        return self._refusals < 2

    # --------------------------------------------------------------------------------- one request

    async def _fetch(self) -> _Token | Retry | Halt:
        for _ in range(2):
            began, skew = asyncio.get_running_loop().time(), self._skew
            try:
                answer = await self._ask()
            except NoAnswer as error:
                return Retry(f"the authorization server: {error.reason}")
            self._set_clock(answer)
            found = self._read(answer, began)
            if not isinstance(found, Halt) or abs(self._skew - skew) <= _EARLY:
                return found
        return found

    async def _ask(self) -> Answer:
        # In a thread: the first loads a library, and each takes a while.
        now = int(time.time() - self._skew)
        content = await beside(self._content, now)
        headers = {
            "accept": "application/json",
            "content-type": "application/x-www-form-urlencoded",
        }
        return await self._transport.post(f"{self._server}/token", headers, content)

    def _content(self, now: int) -> bytes:
        claims = {
            "iss": self._oauth.client_id,
            "sub": self._oauth.client_id,
            "aud": self._server,
            "iat": now - _EARLY,
            "exp": now - _EARLY + _LIFE,
            "jti": str(uuid4()),
        }
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": _STATEMENT,
            "client_assertion": _library("jwt").encode(
                claims,
                self._oauth.private_key.text(),
                algorithm="RS256",
                headers={"kid": self._oauth.key_id},
            ),
            "scope": self._oauth.scope,
        }
        return urlencode(form).encode()

    def _set_clock(self, answer: Answer) -> None:
        try:
            date = parsedate_to_datetime(answer.headers.get("date", ""))
        except (ValueError, TypeError, OverflowError):
            return
        skew = time.time() - date.timestamp()
        self._skew = skew if abs(skew) > _EARLY else 0.0

    def _read(self, answer: Answer, began: float) -> _Token | Retry | Halt:
        status = answer.status
        verdict = judge(
            status,
            answer.headers,
            b"",
            batch=(),
            now=time.time(),
            max_retry_after=self._max_retry_after,
        )
        if isinstance(verdict, Delivered):
            return _token(answer.body, began) or Retry(
                "the authorization server: an answer without a token", status
            )
        if isinstance(verdict, Retry):
            after = verdict.after
            if after is None and status == 429:
                reset = answer.headers.get("x-ratelimit-reset")
                after = retry_after(reset, time.time(), self._max_retry_after)
            return Retry(f"the authorization server: {verdict.reason}", status, after)
        return Halt(
            status,
            f"the authorization server gives no token (status {status}): check the OAuth app's "
            "client_id, key_id, private_key and scope, and its region",
        )


def _token(body: bytes, began: float) -> _Token | None:
    """Read a token from an answer, if there is one."""
    try:
        told = orjson.loads(body)
        secret, life = Secret(told["access_token"]), told.get("expires_in")
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    if not _is_sendable(secret):
        return None
    seconds = float(life) if isinstance(life, int | float) and life > 0 else _UNTOLD
    # Many clients may have started together: they are not to come back together.
    renewed = seconds * (0.5 + 0.25 * random.random())  # noqa: S311 - jitter is no secret
    return _Token(secret, began + renewed, began + seconds - min(_MARGIN, seconds / 10))


def _is_sendable(secret: Secret) -> bool:
    if not isinstance(secret.reveal(), str):
        return False
    return bool(secret) and secret.text().isascii() and secret.text().isprintable()
