"""The collector itself: an ASGI app that takes in what analytics SDKs send, and tells of it.

`Collector` joins the rooms of this folder; each route is one line here.
"""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, Self

from starlette.applications import Starlette
from starlette.routing import Route

from asyncanalytics.collector import serving
from asyncanalytics.collector.access import Access, is_loopback
from asyncanalytics.collector.answers import EXCEPTION_HANDLERS, Mode
from asyncanalytics.collector.faults import Fault, Faults
from asyncanalytics.collector.guard import Guard
from asyncanalytics.collector.insights import Insights
from asyncanalytics.collector.intake import Intake
from asyncanalytics.collector.keys import KeyRing
from asyncanalytics.collector.page import Pages
from asyncanalytics.collector.parameters import utc_moment
from asyncanalytics.collector.paths import intake_routes
from asyncanalytics.collector.reading import Caps
from asyncanalytics.collector.records import CollectorStats, Filter, StoredEvent, Verdict
from asyncanalytics.collector.reports import Reports
from asyncanalytics.collector.store import Store, stored_events
from asyncanalytics.collector.stream import Stream
from asyncanalytics.collector.views import HEALTH, Views
from asyncanalytics.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from starlette.types import Receive, Scope, Send

DEFAULT_PORT: Final = 8010
MAX_BODY: Final = 4 * 1024 * 1024
"""Bytes of a body as it comes, by default."""
MAX_INFLATED: Final = 8 * 1024 * 1024
"""Bytes of an inflated body, by default."""


class Collector:
    """A Segment-compatible endpoint for tests and for trying things out. An ASGI app.

    It keeps everything it is sent, good or bad, in SQLite: in memory, or in the file `path`.

    - `write_keys`: the keys that are let in; None lets in any, and requests without one. Only
      `serve` and `run` demand them for hosts that other machines can reach: as an app on another
      server it lets in whom that server does.
    - `mode`: how bad events are answered, see `Mode`.
    - `allowed_hosts`: names in the Host header that are let in besides the loopback ones and
      the host that is served; `"*"` lets in any.
    - `max_body`, `max_inflated`: bytes of a request's body as it comes and inflated; more is
      answered with 413. Below 500 KB they come before the protocol's own limits.
    - `read_token`: what must be known to read, and to rule; 16 characters at least. None: made
      by chance, and demanded, when the collector is served to other machines.
    - `seed`: makes the share of a fault repeatable.

    It is used from one thread at a time. `close()` it, or use it as a context manager.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        write_keys: Iterable[str] | None = None,
        mode: Mode = "lenient",
        allowed_hosts: Iterable[str] | None = None,
        max_body: int = MAX_BODY,
        max_inflated: int = MAX_INFLATED,
        read_token: str | None = None,
        seed: int | None = None,
    ) -> None:
        """Open the store; ValueError for a setting or a file that cannot be used."""
        _require_mode(mode)
        caps = Caps(
            max_body=_positive("max_body", max_body),
            max_inflated=_positive("max_inflated", max_inflated),
        )
        names = _names("write_keys", write_keys)
        self._has_keys = bool(names)
        self._mode, self._path = mode, path
        self._store = Store(path)
        self._keys = KeyRing(names, salt=self._store.salt)
        self._faults = Faults(seed)
        intake = Intake(self._store, self._faults, keys=self._keys, mode=mode, caps=caps)
        self._stream = Stream(self._store)
        self._insights = Insights(self._store)
        pages = Pages(self._store, self._stream, self._insights)
        intakes = intake_routes(intake)
        self._app = Starlette(
            routes=[
                *intakes,
                *Views(self._store, self._stream, self._faults, caps).routes(),
                *Reports(self._store, self._insights).routes(),
                *pages.routes(),
            ],
            exception_handlers=EXCEPTION_HANDLERS,
            lifespan=self._lifespan,
        )
        self._app.router.redirect_slashes = False  # clients follow no redirects
        sending = (each.path for each in intakes if isinstance(each, Route))
        self._access = Access(
            self._app,
            open_paths=[HEALTH, *sending, *pages.open_paths()],
            token=read_token,
            asking=pages.asking,
        )
        hosts = _names("allowed_hosts", allowed_hosts) or ()
        self._guard = Guard(self._access, hosts, own_site=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI wants it."""
        await self._guard(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        yield
        # Whoever made the collector closes it, and may still want to read what it has.
        self._store.checkpoint()

    def misbehave(
        self,
        status: int | None = 503,
        *,
        delay: float = 0.0,
        retry_after: str | float | None = None,
        drop: bool = False,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        share: float = 1.0,
        count: int | None = None,
        after: bool = False,
    ) -> Fault:
        """Set a fault for the ingest routes, after those that are set, and return it.

        Each request meets the first fault in the order set whose `share` comes up, and no
        other. `status=None` with a `delay` is a slow but right answer. ValueError for what
        cannot be done. See `Fault` for each setting.
        """
        fault = Fault(
            status=status,
            delay=delay,
            retry_after=retry_after,
            drop=drop,
            body=body,
            headers={} if headers is None else headers,
            share=share,
            count=count,
            after=after,
        )
        self._faults.add(fault)
        return fault

    def behave(self) -> None:
        """Take all faults away. A delay that has begun is still waited for."""
        self._faults.clear()

    def events(
        self,
        *,
        type: str | None = None,  # noqa: A002 - the protocol's name
        event: str | None = None,
        name: str | None = None,
        user: str | None = None,
        user_id: str | None = None,
        anonymous_id: str | None = None,
        message_id: str | None = None,
        verdict: Verdict | None = None,
        text: str | None = None,
        since: str | None = None,
        limit: int | None = None,
    ) -> list[StoredEvent]:
        """Return the events that fulfil all that is given, in the order of their arrival."""
        where = Filter(
            type=type,
            event=event,
            name=name,
            user=user,
            user_id=user_id,
            anonymous_id=anonymous_id,
            message_id=message_id,
            verdict=verdict,
            text=text,
            since=since and utc_moment(since),
        )
        return stored_events(self._store.find(where, limit=limit))

    def message_ids(self, verdict: Verdict | None = "good") -> list[str]:
        """Return the messageIds in the order of arrival, duplicates included.

        None stands for both verdicts.
        """
        return self._store.message_ids(verdict)

    def fingerprint(self, key: str) -> str:
        """Return the `key_fingerprint` that events with this write key have here.

        Another collector has another one for it, unless it goes on with the same file.
        """
        return self._keys.fingerprint(key)

    def stats(self) -> CollectorStats:
        """Return the figures at this moment, counted anew."""
        return self._store.stats()

    def clear(
        self,
        *,
        type: str | None = None,  # noqa: A002 - the protocol's name
        event: str | None = None,
        name: str | None = None,
        user: str | None = None,
        user_id: str | None = None,
        anonymous_id: str | None = None,
        message_id: str | None = None,
        verdict: Verdict | None = None,
        text: str | None = None,
        since: str | None = None,
    ) -> int:
        """Forget the events that fulfil all that is given, and return how many.

        Without a filter the requests are forgotten too. Faults stay.
        """
        where = Filter(
            type=type,
            event=event,
            name=name,
            user=user,
            user_id=user_id,
            anonymous_id=anonymous_id,
            message_id=message_id,
            verdict=verdict,
            text=text,
            since=since and utc_moment(since),
        )
        return self._store.delete(where)

    def close(self) -> None:
        """Close the store. What was in memory is gone; it may be called twice."""
        self._store.close()

    def __enter__(self) -> Self:
        """Give the collector itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> AbstractAsyncContextManager[str]:
        """Serve on a socket in the running loop for the time of an `async with` block.

        The block gets the base URL, such as `http://127.0.0.1:45123`; port 0 takes a free one.
        No signal handler is installed. It may be served again afterwards, with what it has kept.
        Other machines can reach a host that is not loopback: that needs `write_keys`, else it is
        a ConfigurationError, and from then on reading needs the `read_token`.
        """
        self._open_to(host)
        return serving.serve(self, host=host, port=port, on_stop=self._stream.close)

    def run(
        self,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        on_start: Callable[[str], Any] | None = None,
    ) -> None:
        """Serve until SIGINT or SIGTERM. `on_start` gets the base URL once it can be used.

        A host that is not loopback needs what it needs in `serve`.
        """
        self._open_to(host)
        serving.run(self, host=host, port=port, on_start=on_start, on_stop=self._stream.close)

    def _open_to(self, host: str) -> None:
        if not is_loopback(host):
            if not self._has_keys:
                raise ConfigurationError(
                    f"other machines can reach {host or 'every address'}, so that not everyone may"
                    " send: give write_keys (--write-key), or serve on 127.0.0.1"
                )
            self._access.demand()
        self._guard.allow(host)

    @property
    def read_token(self) -> str | None:
        """What reading needs, as `Authorization: Bearer TOKEN`; None while it needs nothing.

        In a browser, `URL/?token=TOKEN` opens the pages.
        """
        return self._access.token

    def __repr__(self) -> str:
        """Say where events are kept and how they are answered; never a key."""
        where = "memory" if self._path is None else os.fspath(self._path)
        return f"<Collector {where} {self._mode}>"


def _require_mode(mode: str) -> None:
    if mode not in ("lenient", "strict", "partial"):
        raise ValueError("mode must be 'lenient', 'strict' or 'partial'")


def _positive(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} must be at least 1 byte")
    return value


def _names(setting: str, names: Iterable[str] | None) -> list[str] | None:
    if isinstance(names, str):
        raise ValueError(f"{setting} must be a list of names, not one string")  # noqa: TRY004
    return None if names is None else list(names)
