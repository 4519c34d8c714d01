# ruff: noqa: FBT001, PLR0917 - the parameters stand where those of Segment's client stand
"""`Client`, with the parameters, methods and answers of Segment's, over `asyncanalytics.Client`.

Promises:
- What is accepted, `(True, message)`, is delivered, or is told to `on_error`, or is shown by
  `stats()`. A full queue or a closed client answers `(False, message)` and never raises.
- Bad input raises at the call, as an error of this package and of the built-in kind that
  Segment's client raises: `AssertionError`, and for a call that is too large `RuntimeError`.
- Nothing of delivery is written here.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from asyncanalytics.analytics.errors import APIError, BadSetting, as_theirs
from asyncanalytics.analytics.messages import compose, moment, with_library
from asyncanalytics.analytics.places import Queue, endpoint_of, oauth_of, queueing_of
from asyncanalytics.binding import current
from asyncanalytics.encoding import new_id
from asyncanalytics.errors import Closed, InvalidCall, QueueFull
from asyncanalytics.secret import Secret, Unpicklable, discreet
from asyncanalytics.settings import Batching, Retrying, Sending
from asyncanalytics.sync import Client as _Client
from asyncanalytics.wire import WIRES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from asyncanalytics.endpoints import Endpoint
    from asyncanalytics.receipts import Outcome, Receipt
    from asyncanalytics.stats import Stats

    UserId = str | int | UUID
    Data = Mapping[str, Any]
    Message = dict[str, Any]
    Answer = tuple[bool, Message]
    ErrorHook = Callable[[APIError, list[Message]], object]

_INTENDED = frozenset({"disabled", "opted_out"})  # drops that were asked for


class Client(Unpicklable):
    """Segment's client, for programs that were written for it."""

    class DefaultConfig:
        """What the settings are unless given."""

        write_key: str | None = None
        host: str | Endpoint | None = None
        on_error: ErrorHook | None = None
        debug: bool = False
        log_handler: logging.Handler | None = None
        send: bool = True
        sync_mode: bool = False
        max_queue_size: int = 10_000
        gzip: bool = False
        timeout: float = 15
        max_retries: int = 10
        max_total_backoff_duration: float = 12 * 3600
        max_rate_limit_duration: float = 1_800
        proxies: Mapping[str, str] | None = None
        thread: int = 1
        upload_interval: float = 0.5
        upload_size: int = 2_500
        oauth_client_id: str | None = None
        oauth_client_key: str | None = None
        oauth_key_id: str | None = None
        oauth_auth_server: str = "https://oauth2.segment.io"
        oauth_scope: str = "tracking_api:write"
        shutdown_timeout: float = 10.0

    log: logging.Logger = logging.getLogger("asyncanalytics")

    def __init__(
        self,
        write_key: str | Secret | None = DefaultConfig.write_key,
        host: str | Endpoint | None = DefaultConfig.host,
        debug: bool = DefaultConfig.debug,
        max_queue_size: int = DefaultConfig.max_queue_size,
        send: bool = DefaultConfig.send,
        on_error: ErrorHook | None = DefaultConfig.on_error,
        gzip: bool = DefaultConfig.gzip,
        max_retries: int = DefaultConfig.max_retries,
        sync_mode: bool = DefaultConfig.sync_mode,
        timeout: float = DefaultConfig.timeout,
        proxies: Mapping[str, str] | None = DefaultConfig.proxies,
        thread: int = DefaultConfig.thread,
        upload_size: int = DefaultConfig.upload_size,
        upload_interval: float = DefaultConfig.upload_interval,
        log_handler: logging.Handler | None = DefaultConfig.log_handler,
        oauth_client_id: str | None = DefaultConfig.oauth_client_id,
        oauth_client_key: str | Secret | None = DefaultConfig.oauth_client_key,
        oauth_key_id: str | None = DefaultConfig.oauth_key_id,
        oauth_auth_server: str = DefaultConfig.oauth_auth_server,
        oauth_scope: str = DefaultConfig.oauth_scope,
        max_total_backoff_duration: float = DefaultConfig.max_total_backoff_duration,
        max_rate_limit_duration: float = DefaultConfig.max_rate_limit_duration,
        *,
        shutdown_timeout: float = DefaultConfig.shutdown_timeout,
    ) -> None:
        """Set up a client; no thread runs before the first call.

        Args:
            write_key: the source's key; of the environment unless given.
            host: where to send: a URL, a name as `endpoints.parse` reads it, or an `Endpoint`.
                Left out: `ASYNCANALYTICS_ENDPOINT` of the environment, or Segment.
            debug: log what is accepted, to standard error unless there is a `log_handler`.
            max_queue_size: calls pending at most; 0 means without a limit.
            send: whether anything is sent.
            on_error: called with an `APIError` and the messages that will not be delivered, in
                the background thread. It must be quick and must not wait for this client.
            gzip: whether requests are compressed.
            max_retries: how often a request is tried again.
            sync_mode: each call is tried for `timeout`, and raises `APIError` if not delivered.
            timeout: seconds for one request.
            proxies: refused; set `HTTPS_PROXY` in the environment instead.
            thread: how many requests may be under way together; 1 keeps them in order.
            upload_size: calls in one request at most.
            upload_interval: seconds that calls gather between two requests.
            log_handler: a handler for what is logged.
            oauth_client_id: an OAuth app's id. With it and the next two, the app's tokens sign
                the requests (extra `oauth`).
            oauth_client_key: its private key, in PEM form.
            oauth_key_id: the id of the public key.
            oauth_auth_server: the server that gives the tokens.
            oauth_scope: what they are for.
            max_total_backoff_duration: seconds for which a request is tried again.
            max_rate_limit_duration: checked, not used: the limit above holds for all answers.
            shutdown_timeout: seconds that `shutdown` and the end of the program give to the rest.

        Raises:
            ConfigurationError: if the key, the host or a setting cannot work.
        """
        key = Secret(write_key or os.environ.get("ASYNCANALYTICS_WRITE_KEY"))
        private_key = Secret(oauth_client_key) if oauth_client_key else None
        del write_key, oauth_client_key  # what fails below shows this frame
        _require(
            isinstance(key.reveal(), str), "write_key must be text: set it before the first call"
        )
        _require(not on_error or callable(on_error), "on_error must be a function")
        _require(not proxies, "proxies are not taken: set HTTPS_PROXY in the environment")
        _require(isinstance(timeout, int | float), "timeout must be a number of seconds")
        oauth = oauth_of(oauth_client_id, private_key, oauth_key_id, oauth_auth_server, oauth_scope)
        _require(isinstance(log_handler, logging.Handler | None), "log_handler must be a Handler")
        limits: tuple[Any, ...] = (max_total_backoff_duration, max_rate_limit_duration)
        for limit in limits:
            number = isinstance(limit, int | float) and limit >= 0
            _require(number, "a duration must be 0 or more seconds")
        self._write_key = key
        self.host: str | Endpoint | None = host
        self.debug: bool = debug
        self.send: bool = send
        self.on_error: ErrorHook | None = on_error or None
        self.gzip: bool = gzip
        self.sync_mode: bool = sync_mode
        self.timeout: float = timeout
        self._kept: dict[str, Message] = {}  # for on_error: what is pending, by its id
        self._is_refusing = False
        self._listen(debug=debug, handler=log_handler)
        self._client = _Client(
            key,
            endpoint=endpoint_of(host),
            oauth=oauth,
            batching=Batching(max_events=upload_size, linger=0 if sync_mode else upload_interval),
            queueing=queueing_of(max_queue_size),
            retrying=Retrying(
                max_attempts=max_retries,
                max_elapsed=timeout if sync_mode else max_total_backoff_duration,
            ),
            sending=Sending(
                max_in_flight=thread, timeout=timeout, connect_timeout=min(timeout, 5.0), gzip=gzip
            ),
            on_settle=self._settled if on_error and not sync_mode else None,
            shutdown_timeout=shutdown_timeout,
            disabled=None if send else True,
        )
        self.queue: Queue = Queue(self._client, max_queue_size)

    @property
    def write_key(self) -> str:
        """The source's key."""
        return self._write_key.text()

    # ------------------------------------------------------------------------------------- verbs

    @discreet
    def identify(
        self,
        user_id: UserId | None = None,
        traits: Data | None = None,
        context: Data | None = None,
        timestamp: datetime | str | None = None,
        anonymous_id: UserId | None = None,
        integrations: Data | None = None,
        message_id: object = None,
    ) -> Answer:
        """Say who the user is."""
        common = (user_id, anonymous_id, context, timestamp, integrations, message_id)
        return self._enqueue("identify", *common, traits=traits or {})

    @discreet
    def track(
        self,
        user_id: UserId | None = None,
        event: str | None = None,
        properties: Data | None = None,
        context: Data | None = None,
        timestamp: datetime | str | None = None,
        anonymous_id: UserId | None = None,
        integrations: Data | None = None,
        message_id: object = None,
    ) -> Answer:
        """Say what the user did."""
        common = (user_id, anonymous_id, context, timestamp, integrations, message_id)
        return self._enqueue("track", *common, event=event, properties=properties or {})

    @discreet
    def alias(
        self,
        previous_id: UserId | None = None,
        user_id: UserId | None = None,
        context: Data | None = None,
        timestamp: datetime | str | None = None,
        integrations: Data | None = None,
        message_id: object = None,
    ) -> Answer:
        """Say that two ids are one user."""
        common = (user_id, None, context, timestamp, integrations, message_id)
        return self._enqueue("alias", *common, previousId=previous_id)

    @discreet
    def group(
        self,
        user_id: UserId | None = None,
        group_id: UserId | None = None,
        traits: Data | None = None,
        context: Data | None = None,
        timestamp: datetime | str | None = None,
        anonymous_id: UserId | None = None,
        integrations: Data | None = None,
        message_id: object = None,
    ) -> Answer:
        """Say that the user belongs to a group."""
        common = (user_id, anonymous_id, context, timestamp, integrations, message_id)
        return self._enqueue("group", *common, groupId=group_id, traits=traits or {})

    @discreet
    def page(
        self,
        user_id: UserId | None = None,
        category: str | None = None,
        name: str | None = None,
        properties: Data | None = None,
        context: Data | None = None,
        timestamp: datetime | str | None = None,
        anonymous_id: UserId | None = None,
        integrations: Data | None = None,
        message_id: object = None,
    ) -> Answer:
        """Say that the user saw a web page."""
        common = (user_id, anonymous_id, context, timestamp, integrations, message_id)
        own = {"category": category, "name": name, "properties": properties or {}}
        return self._enqueue("page", *common, **own)

    @discreet
    def screen(
        self,
        user_id: UserId | None = None,
        category: str | None = None,
        name: str | None = None,
        properties: Data | None = None,
        context: Data | None = None,
        timestamp: datetime | str | None = None,
        anonymous_id: UserId | None = None,
        integrations: Data | None = None,
        message_id: object = None,
    ) -> Answer:
        """Say that the user saw a screen of an app."""
        common = (user_id, anonymous_id, context, timestamp, integrations, message_id)
        own = {"category": category, "name": name, "properties": properties or {}}
        return self._enqueue("screen", *common, **own)

    @discreet
    def capture(
        self,
        event: str,
        *,
        distinct_id: UserId | None = None,
        properties: Data | None = None,
        timestamp: datetime | str | None = None,
        uuid: str | UUID | None = None,
        groups: Data | None = None,
    ) -> str | None:
        """Do as `track`, called as PostHog's `capture` is; return the call's id, or None if full.

        Without `distinct_id` the user is who the call is bound to, or else a new anonymous one.
        """
        nobody = distinct_id is None and current.get() is None
        accepted, message = self.track(
            distinct_id,
            event,
            {**(properties or {}), **({"$groups": groups} if groups else {})},
            timestamp=timestamp,
            anonymous_id=uuid4() if nobody else None,
            message_id=uuid,
        )
        return message["messageId"] if accepted else None

    # -------------------------------------------------------------------------------------- life

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all calls made before this are settled.

        Raises:
            FlushTimeout: if that took longer than `timeout` seconds. Delivery goes on.
        """
        with suppress(Closed):  # where there is nothing to wait for
            self._client.flush(timeout)

    def join(self, timeout: float | None = None) -> None:
        """Do as `shutdown`."""
        self._client.close(timeout)

    def shutdown(self, timeout: float | None = None) -> None:
        """Send what is pending within `timeout`, or `shutdown_timeout`, and take no more calls."""
        self._client.close(timeout)

    def stats(self) -> Stats:
        """Return the figures as they are now."""
        return self._client.stats()

    # ------------------------------------------------------------------------ the way of one call

    def _enqueue(
        self,
        call: str,
        user_id: object,
        anonymous_id: object,
        context: object,
        timestamp: object,
        integrations: object,
        message_id: object,
        **own: object,
    ) -> Answer:
        fields, message = compose(
            call,
            messageId=new_id() if message_id is None else str(message_id),
            userId=user_id or None,
            anonymousId=anonymous_id or None,
            timestamp=moment(timestamp),
            context=with_library(context),
            integrations=integrations or {},
            **own,
        )
        return self._submit(call, fields, message), message

    def _submit(self, call: str, fields: dict[str, Any], message: Message) -> bool:
        message_id = message["messageId"]
        if self.on_error and not self.sync_mode:
            self._kept[message_id] = message
        try:
            receipt = self._client._take(WIRES[call], fields)  # noqa: SLF001 - all verbs in one
        except (QueueFull, Closed) as error:
            self._kept.pop(message_id, None)
            self._say_refused(error)
            return False
        except InvalidCall as error:
            self._kept.pop(message_id, None)
            raise as_theirs(error) from None
        self._is_refusing = False
        self.log.debug("accepted %s %s", call, message_id)
        if self.sync_mode:
            _check(self._client.settled(receipt))
        return True

    def _say_refused(self, error: Exception) -> None:
        """Log once for each time that the queue fills up."""
        if not self._is_refusing:
            self._is_refusing = True
            what = "the client is closed" if isinstance(error, Closed) else "the queue is full"
            self.log.warning("%s: calls are refused with (False, message)", what)

    def _settled(self, outcome: Outcome, receipts: Sequence[Receipt]) -> None:
        """Tell `on_error`; what that raises is counted and logged by the engine."""
        batch = [
            self._kept.pop(each.message_id, {"type": each.call, "messageId": each.message_id})
            for each in receipts
        ]
        if self.on_error and not outcome.delivered and outcome.reason not in _INTENDED:
            self.on_error(APIError(outcome), batch)

    def _listen(self, *, debug: bool, handler: logging.Handler | None) -> None:
        if handler is not None:
            self.log.addHandler(handler)
        elif debug and not any(type(each) is logging.StreamHandler for each in self.log.handlers):
            self.log.addHandler(logging.StreamHandler())
        if debug:
            self.log.setLevel(logging.DEBUG)

    def __repr__(self) -> str:
        """Name the destination and the state; keys never show."""
        client = getattr(self, "_client", None)  # a constructor that fails is shown in tracebacks
        return "<Client>" if client is None else repr(client)


def _require(condition: object, rule: str) -> None:
    if not condition:
        raise BadSetting(f"Client: {rule}")


def _check(outcome: Outcome) -> None:
    if not outcome.delivered and outcome.reason not in _INTENDED:
        raise APIError(outcome)
