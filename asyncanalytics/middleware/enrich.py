"""Fill in what calls have in common: the app, a plan, the destinations they are for."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from asyncanalytics.calls import Context, as_object
from asyncanalytics.errors import ConfigurationError

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
    around = {} if context is None else _checked(context)
    inside = {} if properties is None else deepcopy(as_object(properties))
    switches = {} if integrations is None else dict(integrations)

    def fill(call: Call) -> Call:
        found: dict[str, Any] = {}
        if around:
            given = {} if call.context is None else call.context.wire()
            found["context"] = Context.model_validate(_filled(given, around))
        if inside and "properties" in type(call).model_fields:
            found["properties"] = _beside(getattr(call, "properties", None), inside)
        if switches:
            found["integrations"] = _beside(call.integrations, switches)
        return call.model_copy(update=found) if found else call

    return fill


def _checked(context: Mapping[str, Any] | BaseModel) -> dict[str, Any]:
    """Return the context under its wire names, or say which field is wrong."""
    try:
        return deepcopy(Context.model_validate(as_object(context)).wire())
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        raise ConfigurationError(f"enrich: context has a wrong value at {where}") from None


def _beside(given: Mapping[str, Any] | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given, after the rest of `more`, which later code may change freely."""
    own = given or {}
    return {name: deepcopy(value) for name, value in more.items() if name not in own} | dict(own)


def _filled(given: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    found = _beside(given, more)
    for name, value in more.items():
        own = given.get(name)
        if isinstance(own, dict) and isinstance(value, dict):
            found[name] = _filled(own, value)
    return found
