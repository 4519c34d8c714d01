"""mixpanel with its `BufferedConsumer`, which sends in the caller's own thread."""

from __future__ import annotations

from typing import Any

import _peer
from mixpanel import BufferedConsumer, Mixpanel


def _make(url: str, **settings: Any) -> tuple[Mixpanel, BufferedConsumer]:
    consumer = BufferedConsumer(events_url=f"{url}/track", **settings)
    return Mixpanel("token", consumer), consumer


def _track(
    client: tuple[Mixpanel, BufferedConsumer], event: str, user_id: str, properties: dict[str, Any]
) -> None:
    client[0].track(user_id, event, properties)


PEER = _peer.Peer(
    packages=("mixpanel",),
    make=_make,
    track=_track,
    flush=lambda client: client[1].flush(),
)

if __name__ == "__main__":
    _peer.answer(PEER)
