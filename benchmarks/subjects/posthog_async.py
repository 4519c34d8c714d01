"""posthog's `AsyncPosthog`, called and sent on one loop."""

from __future__ import annotations

from typing import Any

import _peer
from posthog import AsyncPosthog


def _track(client: AsyncPosthog, event: str, user_id: str, properties: dict[str, Any]) -> None:
    client.capture(event, distinct_id=user_id, properties=properties)


PEER = _peer.Peer(
    packages=("posthog", "httpx"),
    make=lambda url, **settings: AsyncPosthog("key", host=url, **settings),
    track=_track,
    flush=lambda client: client.flush(None),
    best={"flush_at": 1_000, "flush_interval": 0.1, "thread": 2},
    roomy={"max_queue_size": 2_000_000},
    gzip=lambda on: {"gzip": on},
)

if __name__ == "__main__":
    _peer.answer(PEER)
