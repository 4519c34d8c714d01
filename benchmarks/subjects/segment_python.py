"""segment-analytics-python, called as its users call it: from plain code, sent by its thread.

Its flush cannot hurry the thread, which waits for a batch to fill until `upload_interval` is
over: so a shorter interval serves it better here.
"""

from __future__ import annotations

from typing import Any

import _peer
from segment.analytics import Client


def _track(client: Client, event: str, user_id: str, properties: dict[str, Any]) -> None:
    client.track(user_id, event, properties)


PEER = _peer.Peer(
    packages=("segment-analytics-python",),
    make=lambda url, **settings: Client("key", host=url, **settings),
    track=_track,
    flush=Client.flush,
    # A batch of 1,000 ends at its limit of 475,000 bytes.
    best={"upload_size": 1_000, "upload_interval": 0.1},
    roomy={"max_queue_size": 2_000_000},
    gzip=lambda on: {"gzip": on},
)

if __name__ == "__main__":
    _peer.answer(PEER)
