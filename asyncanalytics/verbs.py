# ruff: noqa: BLE001 - what is caught is raised again, in a frame without the call
"""The six verbs and their `_nowait` twins, as every kind of client has them.

What all verbs promise:
- Bad input raises `InvalidCall` (or `TooLarge`, `Unserialisable`, `Unsupported`) at the call, names
  the field, and accepts nothing.
- On return the call is accepted: it is encoded, and changing what was passed no longer changes it.
- The awaited verb is where backpressure is felt: it waits while a destination's queue is full, as
  `Queueing.when_full` says. Cancelled while it waits, the call is not accepted anywhere.
- The `_nowait` twin never waits: where its sibling would, it raises `QueueFull`. It runs on the
  loop's thread, in sync code too.
- `user_id` and `anonymous_id` may be text, numbers or UUIDs, and go out as text.
- `context` is a `Context` or a mapping with the same fields; its library and channel are filled in.
- `integrations` maps names to booleans or options. It goes out as it is; where a client has
  several destinations it also selects among them by name, with `All` as the fallback.
- `timestamp` is when it happened: a datetime, or ISO 8601 text; without a zone it is taken as UTC.
- `message_id` is made when left out. Servers drop a second call with the same id, so give one of
  your own only if it is unique everywhere.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from asyncanalytics import encoding
from asyncanalytics.errors import DeliveryTimeout, InvalidCall, NotDelivered
from asyncanalytics.secret import Unpicklable, stripped
from asyncanalytics.wire import ALIAS, GROUP, IDENTIFY, PAGE, SCREEN, TRACK, WIRES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping
    from datetime import datetime
    from uuid import UUID

    from pydantic import BaseModel

    from asyncanalytics.calls import Call
    from asyncanalytics.receipts import Outcome, Receipt
    from asyncanalytics.wire import CallWire

    UserId = str | int | UUID
    Data = Mapping[str, Any] | BaseModel
    Moment = datetime | str


class Verbs(Unpicklable, ABC):
    """identify, track, page, screen, group and alias, over one way to submit a call."""

    __slots__ = ()

    @abstractmethod
    def _try(self, wire: CallWire, fields: dict[str, Any]) -> Receipt | None:
        """Accept a call if that takes no waiting. Fields are given under their wire names."""

    @abstractmethod
    def _submit(self, wire: CallWire, fields: dict[str, Any]) -> Awaitable[Receipt]:
        """Accept a call that `_try` did not: wait as long as it takes."""

    @abstractmethod
    def _submit_nowait(self, wire: CallWire, fields: dict[str, Any]) -> Receipt:
        """Accept a call, or raise `QueueFull`."""

    @abstractmethod
    def _hurry(self) -> None:
        """Let what has been accepted go out without lingering."""

    async def identify(
        self,
        user_id: UserId | None = None,
        *,
        anonymous_id: UserId | None = None,
        traits: Data | None = None,
        context: Data | None = None,
        integrations: Mapping[str, Any] | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
    ) -> Receipt:
        """Say who the user is: tie traits to an id."""
        fields: dict[str, Any] = {}
        if traits is not None:
            fields["traits"] = traits
        common(fields, user_id, anonymous_id, context, integrations, timestamp, message_id)
        try:
            return self._try(IDENTIFY, fields) or await self._submit(IDENTIFY, fields)
        except BaseException as error:
            held = [error]
        del user_id, anonymous_id, traits, context, integrations, fields
        raise stripped(held)

    def identify_nowait(
        self,
        user_id: UserId | None = None,
        *,
        anonymous_id: UserId | None = None,
        traits: Data | None = None,
        context: Data | None = None,
        integrations: Mapping[str, Any] | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
    ) -> Receipt:
        """Do as `identify`, without waiting: a full queue raises `QueueFull`."""
        fields: dict[str, Any] = {}
        if traits is not None:
            fields["traits"] = traits
        common(fields, user_id, anonymous_id, context, integrations, timestamp, message_id)
        try:
            return self._submit_nowait(IDENTIFY, fields)
        except BaseException as error:
            held = [error]
        del user_id, anonymous_id, traits, context, integrations, fields
        raise stripped(held)

    async def track(
        self,
        event: str,
        *,
        user_id: UserId | None = None,
        anonymous_id: UserId | None = None,
        properties: Data | None = None,
        context: Data | None = None,
        integrations: Mapping[str, Any] | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
    ) -> Receipt:
        """Say what the user did: `event` names the action, such as `Order Completed`."""
        fields: dict[str, Any] = {"event": event}
        if properties is not None:
            fields["properties"] = properties
        common(fields, user_id, anonymous_id, context, integrations, timestamp, message_id)
        try:
            return self._try(TRACK, fields) or await self._submit(TRACK, fields)
        except BaseException as error:
            held = [error]
        del event, user_id, anonymous_id, properties, context, integrations, fields
        raise stripped(held)

    def track_nowait(
        self,
        event: str,
        *,
        user_id: UserId | None = None,
        anonymous_id: UserId | None = None,
        properties: Data | None = None,
        context: Data | None = None,
        integrations: Mapping[str, Any] | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
    ) -> Receipt:
        """Do as `track`, without waiting: a full queue raises `QueueFull`."""
        fields: dict[str, Any] = {"event": event}
        if properties is not None:
            fields["properties"] = properties
        common(fields, user_id, anonymous_id, context, integrations, timestamp, message_id)
        try:
            return self._submit_nowait(TRACK, fields)
        except BaseException as error:
            held = [error]
        del event, user_id, anonymous_id, properties, context, integrations, fields
        raise stripped(held)

    async def page(
        self,
        name: str | None = None,
        *,
        user_id: UserId | None = None,
        anonymous_id: UserId | None = None,
        category: str | None = None,
        section: str | None = None,
        properties: Data | None = None,
        context: Data | None = None,
        integrations: Mapping[str, Any] | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
    ) -> Receipt:
        """Say that the user saw a web page."""
        fields: dict[str, Any] = {}
        if name is not None:
            fields["name"] = name
        if category is not None:
            fields["category"] = category
        if section is not None:
            fields["section"] = section
        if properties is not None:
            fields["properties"] = properties
        common(fields, user_id, anonymous_id, context, integrations, timestamp, message_id)
        try:
            return self._try(PAGE, fields) or await self._submit(PAGE, fields)
        except BaseException as error:
            held = [error]
        del (
            name,
            category,
            section,
            user_id,
            anonymous_id,
            properties,
            context,
            integrations,
            fields,
        )
        raise stripped(held)

    def page_nowait(
        self,
        name: str | None = None,
        *,
        user_id: UserId | None = None,
        anonymous_id: UserId | None = None,
        category: str | None = None,
        section: str | None = None,
        properties: Data | None = None,
        context: Data | None = None,
        integrations: Mapping[str, Any] | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
    ) -> Receipt:
        """Do as `page`, without waiting: a full queue raises `QueueFull`."""
        fields: dict[str, Any] = {}
        if name is not None:
            fields["name"] = name
        if category is not None:
            fields["category"] = category
        if section is not None:
            fields["section"] = section
        if properties is not None:
            fields["properties"] = properties
        common(fields, user_id, anonymous_id, context, integrations, timestamp, message_id)
        try:
            return self._submit_nowait(PAGE, fields)
        except BaseException as error:
            held = [error]
        del (
            name,
            category,
            section,
            user_id,
            anonymous_id,
            properties,
            context,
            integrations,
            fields,
        )
        raise stripped(held)

    async def screen(
        self,
        name: str | None = None,
        *,
        user_id: UserId | None = None,
        anonymous_id: UserId | None = None,
        category: str | None = None,
        section: str | None = None,
        properties: Data | None = None,
        context: Data | None = None,
        integrations: Mapping[str, Any] | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
    ) -> Receipt:
        """Say that the user saw a screen of an app."""
        fields: dict[str, Any] = {}
        if name is not None:
            fields["name"] = name
        if category is not None:
            fields["category"] = category
        if section is not None:
            fields["section"] = section
        if properties is not None:
            fields["properties"] = properties
        common(fields, user_id, anonymous_id, context, integrations, timestamp, message_id)
        try:
            return self._try(SCREEN, fields) or await self._submit(SCREEN, fields)
        except BaseException as error:
            held = [error]
        del (
            name,
            category,
            section,
            user_id,
            anonymous_id,
            properties,
            context,
            integrations,
            fields,
        )
        raise stripped(held)

    def screen_nowait(
        self,
        name: str | None = None,
        *,
        user_id: UserId | None = None,
        anonymous_id: UserId | None = None,
        category: str | None = None,
        section: str | None = None,
        properties: Data | None = None,
        context: Data | None = None,
        integrations: Mapping[str, Any] | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
    ) -> Receipt:
        """Do as `screen`, without waiting: a full queue raises `QueueFull`."""
        fields: dict[str, Any] = {}
        if name is not None:
            fields["name"] = name
        if category is not None:
            fields["category"] = category
        if section is not None:
            fields["section"] = section
        if properties is not None:
            fields["properties"] = properties
        common(fields, user_id, anonymous_id, context, integrations, timestamp, message_id)
        try:
            return self._submit_nowait(SCREEN, fields)
        except BaseException as error:
            held = [error]
        del (
            name,
            category,
            section,
            user_id,
            anonymous_id,
            properties,
            context,
            integrations,
            fields,
        )
        raise stripped(held)

    async def group(
        self,
        group_id: UserId,
        *,
        user_id: UserId | None = None,
        anonymous_id: UserId | None = None,
        traits: Data | None = None,
        context: Data | None = None,
        integrations: Mapping[str, Any] | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
    ) -> Receipt:
        """Say that the user belongs to a company, a team or an account."""
        fields: dict[str, Any] = {"groupId": group_id}
        if traits is not None:
            fields["traits"] = traits
        common(fields, user_id, anonymous_id, context, integrations, timestamp, message_id)
        try:
            return self._try(GROUP, fields) or await self._submit(GROUP, fields)
        except BaseException as error:
            held = [error]
        del group_id, user_id, anonymous_id, traits, context, integrations, fields
        raise stripped(held)

    def group_nowait(
        self,
        group_id: UserId,
        *,
        user_id: UserId | None = None,
        anonymous_id: UserId | None = None,
        traits: Data | None = None,
        context: Data | None = None,
        integrations: Mapping[str, Any] | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
    ) -> Receipt:
        """Do as `group`, without waiting: a full queue raises `QueueFull`."""
        fields: dict[str, Any] = {"groupId": group_id}
        if traits is not None:
            fields["traits"] = traits
        common(fields, user_id, anonymous_id, context, integrations, timestamp, message_id)
        try:
            return self._submit_nowait(GROUP, fields)
        except BaseException as error:
            held = [error]
        del group_id, user_id, anonymous_id, traits, context, integrations, fields
        raise stripped(held)

    async def alias(
        self,
        user_id: UserId,
        *,
        previous_id: UserId,
        context: Data | None = None,
        integrations: Mapping[str, Any] | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
    ) -> Receipt:
        """Say that two ids are one user: `user_id` is the new one, `previous_id` the old one."""
        fields: dict[str, Any] = {"previousId": previous_id}
        common(fields, user_id, None, context, integrations, timestamp, message_id)
        try:
            return self._try(ALIAS, fields) or await self._submit(ALIAS, fields)
        except BaseException as error:
            held = [error]
        del user_id, previous_id, context, integrations, fields
        raise stripped(held)

    def alias_nowait(
        self,
        user_id: UserId,
        *,
        previous_id: UserId,
        context: Data | None = None,
        integrations: Mapping[str, Any] | None = None,
        timestamp: Moment | None = None,
        message_id: str | None = None,
    ) -> Receipt:
        """Do as `alias`, without waiting: a full queue raises `QueueFull`."""
        fields: dict[str, Any] = {"previousId": previous_id}
        common(fields, user_id, None, context, integrations, timestamp, message_id)
        try:
            return self._submit_nowait(ALIAS, fields)
        except BaseException as error:
            held = [error]
        del user_id, previous_id, context, integrations, fields
        raise stripped(held)

    async def send(self, call: Call) -> Receipt:
        """Accept a ready model, such as `Track(event=..., user_id=...)`."""
        fields: dict[str, Any] = {}
        try:
            wire, fields = WIRES[checked(call).type], call.wire()
            return self._try(wire, fields) or await self._submit(wire, fields)
        except BaseException as error:
            held = [error]
        del call, fields
        raise stripped(held)

    def send_nowait(self, call: Call) -> Receipt:
        """Do as `send`, without waiting: a full queue raises `QueueFull`."""
        try:
            return self._submit_nowait(WIRES[checked(call).type], call.wire())
        except BaseException as error:
            held = [error]
        del call
        raise stripped(held)

    async def deliver(self, call: Call, *, timeout: float | None = None) -> Outcome:
        """Send a call at once, and return when every destination that it is for has it.

        For the call that must not be doubted: it does not wait for others to fill its request.
        Cancelled while it waits, the call goes on, as one of `send` does. A client that is
        disabled sends nothing, and returns that as the outcome.

        Args:
            call: a ready model, such as `Track(event=..., user_id=...)`.
            timeout: seconds for all of it, room in the queue and retries included; None waits as
                long as they go on.

        Raises:
            NotDelivered: if the endpoint refused the call, or the client gave it up, or closed
                first; its `outcome` says how. One that is `kept` is in the spool, and goes out
                with the next start.
            DeliveryTimeout: if the time ran out. The call may still be on its way: its
                `message_id`, given again, lets the endpoint drop the second one.
        """
        call = _identified(call)
        try:
            async with asyncio.timeout(timeout):
                receipt = await self.send(call)
                self._hurry()
                outcome = await receipt.settled()
        except TimeoutError:
            raise DeliveryTimeout(call.type, call.message_id or "", timeout or 0.0) from None
        if not outcome.delivered and outcome.reason != "disabled":
            raise NotDelivered(call.type, outcome)
        return outcome


def checked(call: object) -> Call:
    """Return a call, and raise where it is something else."""
    from asyncanalytics.calls import Call

    if isinstance(call, Call):
        return call
    kind = type(call).__name__
    del call
    raise InvalidCall("send", "call", f"must be a call such as Track(...), not a {kind}")


def _identified(call: Call) -> Call:
    """Return a call that has an id."""
    if getattr(call, "message_id", None) is not None:
        return call
    return checked(call).model_copy(update={"message_id": encoding.new_id()})


def common(  # noqa: PLR0917 - once a call: by position is quickest
    fields: dict[str, Any],
    user_id: UserId | None,
    anonymous_id: UserId | None,
    context: Data | None,
    integrations: Mapping[str, Any] | None,
    timestamp: Moment | None,
    message_id: str | None,
) -> None:
    """Add to a call's own fields those that all calls have, where they were given."""
    if user_id is not None:
        fields["userId"] = user_id
    if anonymous_id is not None:
        fields["anonymousId"] = anonymous_id
    if context is not None:
        fields["context"] = context
    if integrations is not None:
        fields["integrations"] = integrations
    if timestamp is not None:
        fields["timestamp"] = timestamp
    if message_id is not None:
        fields["messageId"] = message_id
