"""The answers that every room here gives in the same words: JSON, and one form of refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import orjson
from starlette.exceptions import HTTPException
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.types import ExceptionHandler

Mode = Literal["lenient", "strict", "partial"]
"""How bad events are answered.

- `lenient`: 200, as Segment does; the bad events are kept as bad.
- `strict`: one bad event makes it 400 for all of the request. The bad events are kept as bad,
  and the others are not kept at all: they will come again.
- `partial`: 207 with `Errors` when there are any; the good events are kept as good.
"""


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


def bad_events(
    mode: Mode, errors: Sequence[Mapping[str, Any]], success: Callable[[], Response]
) -> Response:
    """Make the answer to a request with these bad events, or with none."""
    if not errors or mode == "lenient":
        return success()
    if mode == "partial":
        return json_response({"Errors": errors}, 207)
    message = "nothing of this request was taken, because of the events in Errors"
    refused = {"success": False, "reason": "bad_events", "message": message, "Errors": errors}
    return json_response(refused, 400)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101 - what the handler is registered for
    return error.response()


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what the handler is registered for
    reason = error.detail.lower().replace(" ", "_")
    response = refusal(error.status_code, reason, f"{error.detail} here")
    response.headers.update(error.headers or {})
    return response


EXCEPTION_HANDLERS: Final[Mapping[Any, ExceptionHandler]] = {
    Refused: _refused,
    HTTPException: _http_error,
}
"""What an app of Starlette's answers errors with."""
