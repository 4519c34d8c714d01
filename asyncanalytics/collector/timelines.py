"""One user under all of its ids: what was said of it, in which groups it is, what it did.

Ids are joined by an identify that has both, and by an alias. Only good events join ids and
have traits, as only these would count anywhere else; the bad ones are shown among the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from asyncanalytics.collector.learning import Learner
from asyncanalytics.collector.reading import parse, utf8_text
from asyncanalytics.collector.records import Filter
from asyncanalytics.collector.search import storable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncanalytics.collector.store import Found, Store

_AT_ONCE: Final = 2_048  # events that are looked at before the loop runs


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupSeen:
    """One group that a user is in."""

    group_id: str
    traits: Mapping[str, Any]
    """Of all its group calls by this user, the latest winning."""
    first_at: str
    """When the first of these calls was received, and the last."""
    last_at: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """All that is known of one user, under whichever of its ids it was sent."""

    user: str
    """The id that was asked for."""
    ids: tuple[str, ...]
    """All ids of the user, this one included, in the order in which they were met."""
    traits: Mapping[str, Any]
    """Of all its identify calls, the latest winning."""
    groups: tuple[GroupSeen, ...]
    """In the order in which the user was put into them."""
    total: int
    """How many events there are."""
    events: list[Found]
    """Some of them, in the order that was asked for."""
    more: bool
    """Whether there are others beyond the last of these."""


class Identities(Learner):
    """Learns which ids are of one user."""

    def __init__(self, store: Store) -> None:
        """Learn from the good calls."""
        super().__init__(store, Filter(verdict="good"), most=_AT_ONCE)
        self.forget()

    def forget(self) -> None:
        """Know nothing."""
        self._met: dict[str, int] = {}
        self._joined: dict[str, list[str]] = {}

    def learn(self, stretch: Filter) -> None:
        """Read the identify and alias calls of one stretch."""
        rows = self.store.select(
            "user_id, anonymous_id, iif(type = 'alias', payload, NULL)",
            stretch,
            also="(type = 'alias' OR type = 'identify' AND anonymous_id <> '' AND user_id <> '')",
            rest="ORDER BY position",
        )
        for user_id, anonymous_id, payload in rows:
            if payload is None:
                self._join(anonymous_id, user_id)
            else:
                self._join(utf8_text(parse(payload).value["previousId"]), user_id)

    def _join(self, one: str, other: str) -> None:
        for each in (one, other):
            if each not in self._met:
                self._met[each] = len(self._met)
                self._joined[each] = [each]
        few, many = sorted((self._joined[one], self._joined[other]), key=len)
        if few is not many:
            many += few
            self._joined.update(dict.fromkeys(few, many))

    def ids(self, user: str) -> tuple[str, ...]:
        """Return all ids of the user with this one, in the order in which they were met."""
        return tuple(
            sorted(self._joined.get(user, [user]), key=lambda each: self._met.get(each, 0))
        )


class Timelines:
    """The users of one store."""

    def __init__(self, store: Store) -> None:
        """Tell of this store."""
        self._store = store
        self._identities = Identities(store)

    async def timeline(
        self, user: str, *, limit: int, after: int | None, before: int | None, newest_first: bool
    ) -> Timeline | None:
        """Return what is known of a user; None where nothing is."""
        await self._identities.read_on()
        ids = self._identities.ids(storable(user))
        known = _Known()
        with self._store.listed(ids) as users:
            where = Filter(users=users)
            async for stretch in self._store.stretches(where, most=_AT_ONCE):
                known.read(self._store, stretch)
            page = await self._store.search(
                replace(where, after=after, before=before), limit=limit, newest_first=newest_first
            )
        if not known.total:
            return None
        return Timeline(
            user=user,
            ids=ids,
            traits=known.traits,
            groups=tuple(known.groups.values()),
            total=known.total,
            events=page.events,
            more=page.more,
        )


class _Known:
    def __init__(self) -> None:
        self.total = 0
        self.traits: dict[str, Any] = {}
        self.groups: dict[str, GroupSeen] = {}

    def read(self, store: Store, stretch: Filter) -> None:
        self.total += store.count(stretch)
        rows = store.select(
            "type, position, payload",
            stretch,
            also="reason IS NULL AND type IN ('identify', 'group')",
            rest="ORDER BY position",
        )
        for kind, position, payload in rows:
            event = parse(payload).value
            traits = event.get("traits") or {}
            if kind == "identify":
                self.traits.update(traits)
            else:
                self._group(utf8_text(event["groupId"]), traits, store.received_at(position) or "")

    def _group(self, group_id: str, traits: dict[str, Any], moment: str) -> None:
        before = self.groups.get(group_id)
        self.groups[group_id] = GroupSeen(
            group_id=group_id,
            traits={**before.traits, **traits} if before else traits,
            first_at=before.first_at if before else moment,
            last_at=moment,
        )
