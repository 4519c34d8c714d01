"""amplitude-analytics, called from plain code and sent by its pool of threads.

Its flush does not wait for what is on its way already: so its callback counts what has arrived.
"""

from __future__ import annotations

import time
from typing import Any

import _peer
from amplitude import Amplitude, BaseEvent, Config
from amplitude.constants import EventLogLevel


class _Counting:
    """A client, and how many of its events are under way."""

    def __init__(self, url: str, settings: dict[str, Any]) -> None:
        self.made = 0
        self._codes: list[int] = []  # of what has ended: threads add to it
        self.client = Amplitude(
            "key",
            Config(
                api_key="key",
                server_url=f"{url}/2/httpapi",
                callback=self._count,
                event_log_level=EventLogLevel.NONE,
                **settings,
            ),
        )

    def _count(self, _event: BaseEvent, code: int, _message: str | None = None) -> None:
        self._codes.append(code)  # an append is atomic, an addition is not

    def track(self, event: str, user_id: str, properties: dict[str, Any]) -> None:
        """Make one call."""
        self.made += 1
        self.client.track(BaseEvent(event, user_id=user_id, event_properties=properties))

    def flush(self) -> None:
        """Return when all is acknowledged."""
        self.client.flush()
        while len(self._codes) < self.made:
            time.sleep(0.001)


PEER = _peer.Peer(
    packages=("amplitude-analytics",),
    make=lambda url, **settings: _Counting(url, settings),
    track=_Counting.track,
    flush=_Counting.flush,
    best={"flush_queue_size": 1_000},
)

if __name__ == "__main__":
    _peer.answer(PEER)
