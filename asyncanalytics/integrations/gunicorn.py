"""gunicorn: uvicorn's worker, so that every way of stopping gunicorn lets an app's client drain.

    gunicorn web:app -k asyncanalytics.integrations.gunicorn.UvicornWorker

Promises:
- SIGTERM, SIGINT and SIGQUIT, sent to gunicorn or to a worker, end the app's lifespan in order, and
  so the client that is started and closed in it.
- Requests under way get a part of gunicorn's `--graceful-timeout`; what is left of it is for the
  lifespan's end, where a client sends what is pending.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from asyncanalytics.errors import MissingExtra

try:
    import uvicorn_worker
except ImportError:
    raise MissingExtra("the gunicorn worker", "gunicorn") from None

if TYPE_CHECKING:
    from types import FrameType

    class _Plain:  # what is used of it: the package has no types
        CONFIG_KWARGS: dict[str, Any]
        cfg: Any
        config: Any

        def __init__(self, *args: Any, **settings: Any) -> None: ...

else:
    _Plain = uvicorn_worker.UvicornWorker

_FOR_THE_DRAIN = 12  # seconds: a client's usual `shutdown_timeout`, and two for the rest
_LIMIT = "timeout_graceful_shutdown"


class UvicornWorker(_Plain):
    """Serves an ASGI app under gunicorn, and drains however it is stopped.

    Requests under way may take `--graceful-timeout` less 12 seconds, or half of it where that is
    longer; then they are cancelled. To give them another time, derive a class and put
    `timeout_graceful_shutdown` into its `CONFIG_KWARGS`.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        if _LIMIT not in self.CONFIG_KWARGS:
            self.config.timeout_graceful_shutdown = _for_requests(self.cfg.graceful_timeout)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - gunicorn's
        """Do at SIGQUIT, which gunicorn sends at a SIGINT of its own, what uvicorn does at SIGTERM.

        Sent as SIGINT it would cut the drain off, if a SIGINT has come as well.
        """
        signal.raise_signal(signal.SIGTERM)


def _for_requests(seconds: int) -> int:
    """Return how long requests under way may take, of all the time that gunicorn gives."""
    return max(seconds - _FOR_THE_DRAIN, seconds // 2)
