"""rudder-sdk-python, a descendant of Segment's client: see `segment_python`."""

from __future__ import annotations

from typing import Any

import _peer
from rudderstack.analytics.client import Client


def _track(client: Client, event: str, user_id: str, properties: dict[str, Any]) -> None:
    client.track(user_id, event, properties)


PEER = _peer.Peer(
    packages=("rudder-sdk-python",),
    make=lambda url, **settings: Client("key", host=url, **settings),
    track=_track,
    flush=Client.flush,
    best={"upload_size": 500, "upload_interval": 0.1},
    roomy={"max_queue_size": 2_000_000},
    gzip=lambda on: {"gzip": on},
)

if __name__ == "__main__":
    _peer.answer(PEER)
