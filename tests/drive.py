"""Makes the calls of a plan with one SDK, as its users do: `python drive.py PACKAGE < PLAN`.

What a plan is, `Plan` in test_real_clients.py says. It ends with an error where the SDK says that
it gave events up.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime
from importlib import import_module
from typing import Any

MODULES = {
    "rudder-sdk-python": "rudderstack.analytics",
    "segment-analytics-python": "segment.analytics",
}


def revive(value: dict[str, Any]) -> Any:
    """Make a date of what stands for one."""
    return datetime.fromisoformat(value["$date"]) if "$date" in value else value


def snake(name: str) -> str:
    """Return a field's name as these SDKs spell it."""
    return re.sub("([A-Z])", r"_\1", name).lower()


def main() -> None:
    """Make the calls, and close the client."""
    plan = json.load(sys.stdin, object_hook=revive)
    given_up: list[str] = []
    client = import_module(f"{MODULES[sys.argv[1]]}.client").Client(
        plan["key"],
        host=plan["url"],
        gzip=plan["gzip"],
        upload_size=plan["size"],
        upload_interval=0.05,
        on_error=lambda error, _: given_up.append(repr(error)),
    )
    for call in plan["calls"]:
        fields = {snake(name): value for name, value in call.items() if name != "type"}
        getattr(client, call["type"])(**fields)
    client.shutdown()
    if given_up:
        sys.exit("\n".join(given_up))


if __name__ == "__main__":
    main()
