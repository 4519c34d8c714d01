"""posthog's `Posthog`, called from plain code and sent by its thread."""

from __future__ import annotations

from typing import Any

import _peer
from posthog import Posthog


def _track(client: Posthog, event: str, user_id: str, properties: dict[str, Any]) -> None:
    client.capture(event, distinct_id=user_id, properties=properties)


PEER = _peer.Peer(
    packages=("posthog",),
    make=lambda url, **settings: Posthog("key", host=url, **settings),
    track=_track,
    flush=lambda client: client.flush(None),
    best={"flush_at": 300},
    roomy={"max_queue_size": 2_000_000},
    gzip=lambda on: {"gzip": on},
)

if __name__ == "__main__":
    _peer.answer(PEER)
