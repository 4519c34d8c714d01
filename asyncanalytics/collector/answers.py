"""The answers that every room here gives in the same words: JSON, and one form of refusal."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response


class Refused(Exception):
    """A request as a whole is not taken. The message never repeats what was sent."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        """Give the answer's status, a name for machines and a sentence for people."""
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message

    def response(self) -> Response:
        """Make the answer."""
        return refusal(self.status, self.reason, self.message)


def json_response(content: Any, status: int = 200) -> Response:
    """Make an answer of JSON-ready data."""
    return Response(orjson.dumps(content), status, media_type="application/json")


def refusal(status: int, reason: str, message: str) -> Response:
    """Make the one form in which anything is refused."""
    return json_response({"success": False, "reason": reason, "message": message}, status)
