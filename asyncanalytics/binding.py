"""What the calls of one place have in common: the user they speak of, and the context around them.

A request, a job or a block of code is bound to ids and a context; each call that is made there,
on whatever client, is filled in with them. It is held in a context variable, so it reaches what
runs for that place: tasks, threads of anyio and asyncio, background tasks and streams.

Invariants:
- What a call names itself always wins. A call that names an id gets none of the place's ids: an
  id at the call means that user, who may be another one than the place's.
- Filling in never changes what the caller passed.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from pydantic.alias_generators import to_snake
from pydantic_core import ValidationError

from asyncanalytics.errors import ConfigurationError
from asyncanalytics.secret import stripped
from asyncanalytics.values import as_object, filled
from asyncanalytics.wire import context_wire, path_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from uuid import UUID

    from pydantic import BaseModel

    UserId = str | int | UUID


class Source(Protocol):
    """Where a binding comes from. It may be made only when the first call asks for it."""

    def binding(self) -> Binding:
        """Return the binding, the same one each time."""


class Binding:
    """Ids and a context for calls that do not name their own."""

    __slots__ = ("anonymous_id", "context", "opted_out", "spare_id", "user_id")

    def __init__(
        self,
        *,
        user_id: UserId | None = None,
        anonymous_id: UserId | None = None,
        context: dict[str, Any] | None = None,
        opted_out: bool = False,
        spare_id: UserId | None = None,
    ) -> None:
        """Take a context under its wire names; see `wire_context`."""
        self.user_id: UserId | None = user_id
        self.anonymous_id: UserId | None = anonymous_id
        self.context: dict[str, Any] = context or {}
        self.opted_out: bool = opted_out
        """Whether calls made here are dropped, and counted as `opted_out`."""
        self.spare_id: UserId | None = spare_id
        """An anonymous id for calls that would have no id at all; never beside another one."""

    def binding(self) -> Binding:
        """Return itself."""
        return self

    def fill(self, fields: dict[str, Any]) -> None:
        """Add to a call's fields, under their wire names, what they do not say."""
        if "userId" not in fields and "anonymousId" not in fields:
            if self.user_id is not None:
                fields["userId"] = self.user_id
            if self.anonymous_id is not None:
                fields["anonymousId"] = self.anonymous_id
            elif self.user_id is None and self.spare_id is not None:
                fields["anonymousId"] = self.spare_id
        if self.context:
            given = fields.get("context")
            fields["context"] = self.context if given is None else self._around(given)

    def within(self, outer: Binding) -> Binding:
        """Return this binding, filled in with one that is around it."""
        return Binding(
            user_id=outer.user_id if self.user_id is None else self.user_id,
            anonymous_id=outer.anonymous_id if self.anonymous_id is None else self.anonymous_id,
            context=filled(self.context, outer.context),
            opted_out=self.opted_out or outer.opted_out,
            spare_id=outer.spare_id if self.spare_id is None else self.spare_id,
        )

    def _around(self, given: Any) -> Any:
        try:
            return filled(context_wire(as_object(given)), self.context)
        except (ValidationError, ValueError):
            return given  # the call's own check says what is wrong with it


class Nested:
    """One binding within another, put together when the first call asks for it."""

    __slots__ = ("_found", "_inner", "_outer")

    def __init__(self, inner: Binding, outer: Source) -> None:
        """Take the inner one, which wins, and where the outer one comes from."""
        self._inner = inner
        self._outer: Source | None = outer
        self._found: Binding | None = None

    def binding(self) -> Binding:
        """Return both in one."""
        found, outer = self._found, self._outer
        if found is None:
            found = self._inner if outer is None else self._inner.within(outer.binding())
            self._found, self._outer = found, None  # so that a chain of them does not grow
        return found


current: ContextVar[Source | None] = ContextVar("asyncanalytics binding", default=None)
"""What holds for the calls that are made here."""


def bound_source(
    *,
    user_id: UserId | None = None,
    anonymous_id: UserId | None = None,
    context: Mapping[str, Any] | BaseModel | None = None,
    within: Source | None = None,
) -> Source:
    """Return where a binding comes from, within another one if there is one.

    Raises:
        ConfigurationError: if the context has a field of a wrong type.
    """
    inner = Binding(
        user_id=user_id,
        anonymous_id=anonymous_id,
        context=None if context is None else wire_context(context),
    )
    return inner if within is None else Nested(inner, within)


def wire_context(context: Mapping[str, Any] | BaseModel) -> dict[str, Any]:
    """Return a context under its wire names, or say which field is wrong."""
    try:
        return context_wire(as_object(context))
    except ValidationError as error:
        where = to_snake(path_of(error.errors(include_url=False, include_input=False)[0]))
        raise ConfigurationError(f"context has a wrong value at {where}") from None
    except ValueError:
        raise ConfigurationError("context must be a mapping or a pydantic model") from None


@contextmanager
def bound_context(
    *,
    user_id: UserId | None = None,
    anonymous_id: UserId | None = None,
    context: Mapping[str, Any] | BaseModel | None = None,
) -> Iterator[None]:
    """Bind every call that is made inside the block, on whatever client, to ids and a context.

    For jobs, commands and messages: wherever a piece of work is for one user. Blocks nest: the
    inner one wins where both say something. A call that names an id gets none of the block's.

    Raises:
        ConfigurationError: if the context has a field of a wrong type.
    """
    held: list[BaseException] = []
    try:
        source = bound_source(
            user_id=user_id, anonymous_id=anonymous_id, context=context, within=current.get()
        )
    except BaseException as error:  # noqa: BLE001 - raised again below
        held.append(error)
    del user_id, anonymous_id, context
    if held:
        raise stripped(held)
    token = current.set(source)
    try:
        yield
    finally:
        # A generator may be closed elsewhere than it was begun, as frameworks do in a thread.
        with suppress(ValueError):
            current.reset(token)
