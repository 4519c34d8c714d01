"""Who is measured: ours, the peers and the controls.

A subject is a program in `subjects/`. Ours run where the benchmark does, each package in Python in
a virtual environment of its own, and those for Node with the packages of their folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Something that is measured."""

    name: str
    """A peer's is that of its package; after a comma, how it is used."""
    program: str
    """Its file in `subjects/`."""
    is_peer: bool = False
    """Whether it runs in an environment of its own, and may be missing."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What it is told beside the question's own options."""
    lacks: frozenset[str] = frozenset()
    """Options of a question that it has nothing for: it sits out where they are asked for."""

    @property
    def package(self) -> str:
        """The peer's package, which names its environment too."""
        return self.name.partition(",")[0]


OURS = Subject(name="asyncanalytics", program="ours.py")
OURS_AIOHTTP = Subject(
    name="asyncanalytics, aiohttp", program="ours.py", options={"http": "aiohttp"}
)
_NO_GZIP = frozenset({"gzip"})
OURS_BY_SOCKET = Subject(
    name="asyncanalytics, bare socket",
    program="ours.py",
    options={"http": "socket"},
    lacks=_NO_GZIP,
)
OURS_UNSENT = Subject(
    name="asyncanalytics, nothing sent",
    program="ours.py",
    options={"http": "none"},
    lacks=_NO_GZIP,
)
CONTROL = Subject(name="control", program="control.py")

SEGMENT = Subject(name="segment-analytics-python", program="segment_python.py", is_peer=True)
RUDDER = Subject(name="rudder-sdk-python", program="rudder_python.py", is_peer=True)
POSTHOG = Subject(name="posthog", program="posthog_python.py", is_peer=True)
POSTHOG_ASYNC = Subject(name="posthog, AsyncPosthog", program="posthog_async.py", is_peer=True)
AMPLITUDE = Subject(
    name="amplitude-analytics", program="amplitude_python.py", is_peer=True, lacks=_NO_GZIP
)
MIXPANEL = Subject(name="mixpanel", program="mixpanel_python.py", is_peer=True, lacks=_NO_GZIP)
SEGMENT_NODE = Subject(
    name="@segment/analytics-node", program="segment_node.mjs", is_peer=True, lacks=_NO_GZIP
)
RUDDER_NODE = Subject(name="@rudderstack/rudder-sdk-node", program="rudder_node.mjs", is_peer=True)
POSTHOG_NODE = Subject(name="posthog-node", program="posthog_node.mjs", is_peer=True)

PYTHON_PEERS = (SEGMENT, RUDDER, POSTHOG, POSTHOG_ASYNC, AMPLITUDE, MIXPANEL)
NODE_PEERS = (SEGMENT_NODE, RUDDER_NODE, POSTHOG_NODE)
PEERS = (*PYTHON_PEERS, *NODE_PEERS)
