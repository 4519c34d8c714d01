"""Let some calls through and drop the others as `filtered`: by call, by event, by expression."""

from __future__ import annotations

import re
from fnmatch import translate
from typing import TYPE_CHECKING, Any

from asyncanalytics.errors import ConfigurationError, MissingExtra
from asyncanalytics.middleware.base import OnWire, Wire
from asyncanalytics.wire import FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class _Where(OnWire):
    reason = "filtered"

    def __init__(self, conditions: list[Callable[[Wire], bool]]) -> None:
        self._conditions = tuple(conditions)

    def apply(self, wire: Wire) -> Wire | None:
        for holds in self._conditions:
            if not holds(wire):
                return None
        return wire


def where(
    *,
    calls: Iterable[str] | None = None,
    events: Iterable[str] | None = None,
    when: str | None = None,
) -> OnWire:
    """Let a call through if all that is given holds; what does not is dropped as `filtered`.

    Args:
        calls: which of the six, such as `["track", "identify"]`.
        events: names of track calls, in which `*` stands for any text and `?` for any character,
            such as `["Order *"]`. The other calls have no such name, and pass.
        when: a JMESPath expression (https://jmespath.org) on the call as it is on the wire, such
            as ``"properties.total > `100`"``. It holds unless it gives false, null or an empty
            text, list or object; one that does not fit a call's values does not hold. Needs the
            extra `router`.

    Raises:
        ConfigurationError: if nothing is given, or what cannot be read.
    """
    conditions: list[Callable[[Wire], bool]] = []
    if calls is not None:
        conditions.append(_is_one_of(_texts("calls", calls)))
    if events is not None:
        conditions.append(_is_named(_texts("events", events)))
    if when is not None:
        conditions.append(_holds(when))
    if not conditions:
        raise ConfigurationError("where: give calls, events or when")
    return _Where(conditions)


def _texts(name: str, given: Iterable[str]) -> list[str]:
    texts = [] if isinstance(given, str) else list(given)
    if not texts or not all(isinstance(each, str) for each in texts):
        raise ConfigurationError(f"where: {name} must be a list of texts, and not empty")
    return texts


def _is_one_of(calls: list[str]) -> Callable[[Wire], bool]:
    if unknown := sorted(set(calls) - FIELDS.keys()):
        raise ConfigurationError(f"where: {unknown[0]!r} is none of {', '.join(FIELDS)}")
    wanted = frozenset(calls)
    return lambda wire: wire.get("type") in wanted


def _is_named(patterns: list[str]) -> Callable[[Wire], bool]:
    fits = re.compile("|".join(translate(each.replace("[", "[[]")) for each in patterns)).match
    return lambda wire: wire.get("type") != "track" or bool(fits(str(wire.get("event") or "")))


def _holds(expression: str) -> Callable[[Wire], bool]:
    try:
        import jmespath
    except ImportError:
        raise MissingExtra("an expression", "router") from None
    from jmespath.exceptions import JMESPathError
    from jmespath.functions import Functions

    try:
        compiled = jmespath.compile(expression)
    except (JMESPathError, TypeError, ValueError) as error:
        raise ConfigurationError(_said(error)) from None
    if unknown := _functions(compiled.parsed) - Functions.FUNCTION_TABLE.keys():
        raise ConfigurationError(f"JMESPath has no function named {min(unknown)}")
    search = compiled.search

    def holds(wire: Wire) -> bool:
        try:
            return _is_true(search(wire))
        except (JMESPathError, TypeError, ValueError):
            return False

    return holds


def _functions(node: Any) -> set[str]:
    """Return the names of the functions in an expression: whether they are there shows late."""
    names = {node["value"]} if node["type"] == "function_expression" else set()
    return names.union(*(_functions(each) for each in node["children"]))


def _is_true(found: Any) -> bool:
    """Tell as JMESPath does: 0 is true."""
    return bool(found) or (isinstance(found, int | float) and found is not False)


def _said(error: Exception) -> str:
    """Say what is wrong with an expression, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0].rstrip(":") if lines else type(error).__name__
    return f"no JMESPath expression: {said}"
