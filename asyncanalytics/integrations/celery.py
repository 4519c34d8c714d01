"""Celery: close a `Client` with the worker's processes, so that nothing is left behind in them.

    analytics = close_with_worker(Client())

Promises:
- A child of the prefork pool closes the client when it leaves: at a warm shutdown, and where it is
  replaced after so many tasks. It leaves by `os._exit`, past the end of a Python program.
- With the solo and the threads pool the worker's own process closes it, after its last task.
- Each process has a client of its own, which starts at its first call; a process without calls
  has no thread.
- A process that is killed, as by a hard time limit, takes along what it had not yet sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncanalytics.errors import MissingExtra
from asyncanalytics.integrations.base import check_sync

try:
    from celery.signals import worker_process_shutdown, worker_shutdown
except ImportError:
    raise MissingExtra("the Celery integration", "celery") from None

if TYPE_CHECKING:
    from asyncanalytics.sync import Client


def close_with_worker(client: Client, *, timeout: float | None = None) -> Client:
    """Close a client when the worker's process or one of its children ends, and return it.

    Args:
        client: made in a module that the worker imports, and used in tasks as it is. Where no
            worker runs, as in the program that sends the tasks, this changes nothing.
        timeout: seconds that each process gives to what is pending; the client's
            `shutdown_timeout` unless given.

    Raises:
        ConfigurationError: if the client is of another kind.
    """
    check_sync(client, "close_with_worker()")

    def close(**_: object) -> None:
        client.close(timeout)

    for signal in (worker_process_shutdown, worker_shutdown):
        signal.connect(close, weak=False)
    return client
