"""Fill in what calls have in common: the app, a plan, the destinations they are for."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from asyncanalytics.binding import wire_context
from asyncanalytics.calls import Context
from asyncanalytics.values import as_object, filled

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from asyncanalytics.calls import Call
    from asyncanalytics.middleware.base import Middleware


def enrich(
    *,
    context: Mapping[str, Any] | BaseModel | None = None,
    properties: Mapping[str, Any] | BaseModel | None = None,
    integrations: Mapping[str, Any] | None = None,
) -> Middleware:
    """Fill in what a call does not have; what the caller gave is never overwritten.

    Args:
        context: members for every call's context, filled in at any depth: an app's `version` is
            added beside a caller's own `name` of the app.
        properties: members for the properties of the calls that have any: track, page, screen.
        integrations: members for every call's integrations.

    Raises:
        ConfigurationError: if the context has a field of a wrong type.
    """
    around = {} if context is None else deepcopy(wire_context(context))
    inside = {} if properties is None else deepcopy(as_object(properties))
    switches = {} if integrations is None else dict(integrations)

    def fill(call: Call) -> Call:
        found: dict[str, Any] = {}
        if around:
            given = {} if call.context is None else call.context.wire()
            found["context"] = Context.model_validate(filled(given, deepcopy(around)))
        if inside and "properties" in type(call).model_fields:
            found["properties"] = {**deepcopy(inside), **(getattr(call, "properties", None) or {})}
        if switches:
            found["integrations"] = {**deepcopy(switches), **(call.integrations or {})}
        return call.model_copy(update=found) if found else call

    return fill
