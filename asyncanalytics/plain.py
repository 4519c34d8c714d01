# ruff: noqa: BLE001 - what is caught is raised again, in a frame without the call
"""The six verbs as plain functions, over one way to take a call.

What they promise is what the awaited verbs promise (`verbs.py`), with the thread in place of the
task: where those wait, these block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from asyncanalytics.secret import Unpicklable, stripped
from asyncanalytics.verbs import checked, common
from asyncanalytics.wire import ALIAS, GROUP, IDENTIFY, PAGE, SCREEN, TRACK, WIRES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncanalytics.calls import Call
    from asyncanalytics.receipts import Receipt
    from asyncanalytics.verbs import Data, Moment, UserId
    from asyncanalytics.wire import CallWire


class PlainVerbs(Unpicklable, ABC):
    """identify, track, page, screen, group and alias, for threads."""

    @abstractmethod
    def _take(self, wire: CallWire, fields: dict[str, Any]) -> Receipt:
        """Accept a call. Fields are given under their wire names."""

    def identify(
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
        fields: dict[str, Any] = {} if traits is None else {"traits": traits}
        common(fields, user_id, anonymous_id, context, integrations, timestamp, message_id)
        try:
            return self._take(IDENTIFY, fields)
        except BaseException as error:
            held = [error]
        del user_id, anonymous_id, traits, context, integrations, fields
        raise stripped(held)

    def track(
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
            return self._take(TRACK, fields)
        except BaseException as error:
            held = [error]
        del event, user_id, anonymous_id, properties, context, integrations, fields
        raise stripped(held)

    def page(
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
        fields = _view(name, category, section, properties)
        common(fields, user_id, anonymous_id, context, integrations, timestamp, message_id)
        try:
            return self._take(PAGE, fields)
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

    def screen(
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
        fields = _view(name, category, section, properties)
        common(fields, user_id, anonymous_id, context, integrations, timestamp, message_id)
        try:
            return self._take(SCREEN, fields)
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

    def group(
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
            return self._take(GROUP, fields)
        except BaseException as error:
            held = [error]
        del group_id, user_id, anonymous_id, traits, context, integrations, fields
        raise stripped(held)

    def alias(
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
            return self._take(ALIAS, fields)
        except BaseException as error:
            held = [error]
        del user_id, previous_id, context, integrations, fields
        raise stripped(held)

    def send(self, call: Call) -> Receipt:
        """Accept a ready model, such as `Track(event=..., user_id=...)`."""
        try:
            return self._take(WIRES[checked(call).type], call.wire())
        except BaseException as error:
            held = [error]
        del call
        raise stripped(held)


def _view(
    name: str | None, category: str | None, section: str | None, properties: Data | None
) -> dict[str, Any]:
    given = {"name": name, "category": category, "section": section, "properties": properties}
    return {field: value for field, value in given.items() if value is not None}
