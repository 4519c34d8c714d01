"""A client bound to one place: the same verbs, with a user and a context filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from asyncanalytics.binding import Nested, bound_source, current
from asyncanalytics.secret import discreet
from asyncanalytics.verbs import Verbs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token

    from pydantic import BaseModel

    from asyncanalytics.binding import Source, UserId
    from asyncanalytics.receipts import Receipt
    from asyncanalytics.wire import CallWire


class BoundClient(Verbs):
    """A client's verbs, with ids and a context filled in wherever a call does not name its own.

    It is cheap to make and has no life of its own: it works while its client does. A
    `bound_context` that is entered after it was made fills in what it does not say.
    """

    __slots__ = ("_client", "_made_in", "_source")

    def __init__(self, client: Verbs, source: Source) -> None:
        """Made by `AsyncClient.bind` and by the integrations."""
        self._client = client
        self._source = source
        self._made_in = current.get()

    @discreet
    def bind(
        self,
        *,
        user_id: UserId | None = None,
        anonymous_id: UserId | None = None,
        context: Mapping[str, Any] | BaseModel | None = None,
    ) -> Self:
        """Return another one with more filled in; what is given here wins over this one's.

        Raises:
            ConfigurationError: if the context has a field of a wrong type.
        """
        source = bound_source(
            user_id=user_id, anonymous_id=anonymous_id, context=context, within=self._source
        )
        found = type(self)(self._client, source)
        found._made_in = self._made_in  # noqa: SLF001 - its source holds that, not where it is bound anew
        return found

    def with_user(self, user_id: UserId, *, anonymous_id: UserId | None = None) -> Self:
        """Return another one that knows who the user is.

        The anonymous id that is bound already stays: both ids go out, and so they are tied.
        """
        return self.bind(user_id=user_id, anonymous_id=anonymous_id)

    def _enter(self) -> Token[Source | None]:
        here = current.get()
        if here is None or here is self._made_in:
            return current.set(self._source)  # which holds what it was made in
        return current.set(Nested(self._source.binding(), here))

    def _try(self, wire: CallWire, fields: dict[str, Any]) -> Receipt | None:
        token = self._enter()
        try:
            return self._client._try(wire, fields)  # noqa: SLF001 - a verb of the same kind
        finally:
            current.reset(token)

    async def _submit(self, wire: CallWire, fields: dict[str, Any]) -> Receipt:
        token = self._enter()
        try:
            return await self._client._submit(wire, fields)  # noqa: SLF001 - the same
        finally:
            current.reset(token)

    def _submit_nowait(self, wire: CallWire, fields: dict[str, Any]) -> Receipt:
        token = self._enter()
        try:
            return self._client._submit_nowait(wire, fields)  # noqa: SLF001 - the same
        finally:
            current.reset(token)

    def _hurry(self) -> None:
        self._client._hurry()  # noqa: SLF001 - the same

    def __repr__(self) -> str:
        """Name the client; what is bound may be personal and never shows."""
        return f"<BoundClient of {self._client!r}>"
