"""One call from the shell: made, awaited until it has ended, and told of.

The outcome is the exit code: 0 delivered, 1 refused or given up, 4 not acknowledged in time.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asyncanalytics import endpoints
from asyncanalytics.cli import pairs
from asyncanalytics.cli.exits import Exit, Failure, leave
from asyncanalytics.cli.output import complain, overhear, print_json, say
from asyncanalytics.client import AsyncClient
from asyncanalytics.errors import ConfigurationError

if TYPE_CHECKING:
    from asyncanalytics.cli.options import Common
    from asyncanalytics.receipts import Outcome, Receipt, SettleHook
    from asyncanalytics.stats import Stats


_SUMS = ("accepted", "delivered", "rejected", "dropped", "pending")


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """How one call ended."""

    receipt: Receipt
    outcome: Outcome
    timed_out: bool
    seconds: float
    stats: Stats

    @property
    def attempts(self) -> int:
        """How many requests carried it."""
        return sum(each.requests for each in self.stats.destinations.values())

    @property
    def code(self) -> Exit:
        """The exit code."""
        if self.timed_out:
            return Exit.TIMED_OUT
        return Exit.OK if self.outcome.delivered else Exit.NOT_DELIVERED

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON-ready data."""
        return {
            "call": self.receipt.call,
            "messageId": self.receipt.message_id,
            "outcome": "timed_out" if self.timed_out else self.outcome.kind,
            "reason": self.outcome.reason,
            "destination": self.outcome.destination,
            "status": self.outcome.status,
            "attempts": self.attempts,
            "seconds": round(self.seconds, 3),
            "stats": {name: getattr(self.stats, name) for name in _SUMS},
        }


def send_one(verb: str, subject: str | None, fields: dict[str, Any], common: Common) -> None:
    """Make one call of the client's verb, print how it ended, and exit accordingly."""
    given = fields | {
        "context": pairs.parse("--context", common.context),
        "integrations": pairs.parse("--integration", common.integrations),
        "timestamp": common.timestamp,
        "message_id": common.message_id,
    }
    given = {name: value for name, value in given.items() if value is not None}
    result = asyncio.run(_deliver(verb, subject, given, common))
    _tell(result, common)
    leave(result.code)


def make_client(
    write_key: str | None, endpoint: str | None, *, on_settle: SettleHook | None = None
) -> AsyncClient:
    """Return a client for what the options say; where they fail, speak of options."""
    where = None if endpoint is None else endpoints.parse(endpoint)
    try:
        return AsyncClient(write_key, endpoint=where, on_settle=on_settle)
    except ConfigurationError:
        if write_key:
            raise
        problem = "no write key: set ASYNCANALYTICS_WRITE_KEY in the environment"
        raise Failure(f"{problem}, or give --write-key", Exit.CONFIGURATION) from None


async def _deliver(
    verb: str, subject: str | None, fields: dict[str, Any], common: Common
) -> Result:
    began = time.monotonic()
    client = make_client(common.write_key, common.endpoint)
    await client.start()
    try:
        receipt: Receipt = await getattr(client, verb)(subject, **fields)
        with overhear(is_wanted=lambda: receipt.outcome is None):
            with suppress(TimeoutError):
                async with asyncio.timeout(common.timeout):
                    await receipt.settled()
            timed_out = receipt.outcome is None
            stats = await client.aclose(0)
    finally:
        await client.aclose(0)
    return Result(
        receipt=receipt,
        outcome=await receipt.settled(),
        timed_out=timed_out,
        seconds=time.monotonic() - began,
        stats=stats,
    )


def _tell(result: Result, common: Common) -> None:
    if common.json:
        said = {"detail": result.outcome.detail} if common.verbose else {}
        print_json(result.as_dict() | said)
    elif result.code is Exit.OK:
        status = f"status {result.outcome.status}, {attempts(result.attempts)}"
        took = f"{result.seconds:.2f} s ({status})"
        call = f" {result.receipt.call} {result.receipt.message_id}"
        say(("delivered", "bold green"), call, f" to {result.outcome.destination} in {took}")
    if result.timed_out:
        complain(_late(result, common.timeout))
    elif result.code is not Exit.OK:
        complain(f"not delivered: {explain(result.outcome, verbose=common.verbose)}")


def _late(result: Result, timeout: float) -> str:
    text = f"no delivery within {timeout:g} s, {attempts(result.attempts)}"
    if not result.attempts:
        return text
    # The last attempt may have arrived, and only its answer been lost or late.
    same = f"--message-id {result.receipt.message_id}"
    return f"{text}: try again with {same}, so that it counts once"


def attempts(count: int) -> str:
    """Return `1 attempt`, or as many as there were."""
    return f"{count:,} attempt" + "s" * (count != 1)


def explain(outcome: Outcome, *, verbose: bool) -> str:
    """Say why a call was not delivered, and what to do."""
    if outcome.kind == "rejected":
        return _refusal(outcome, verbose=verbose)
    status = f"status {outcome.status}" if outcome.status else "no answer"
    tried = f"{attempts(outcome.attempts)}, {status} to the last"
    return {
        "disabled": "ASYNCANALYTICS_DISABLED is set in the environment",
        "too_large": f"{outcome.destination} finds it too large: send fewer or shorter values",
        "expired": f"{outcome.destination} did not take it ({tried})",
        "closed": f"{outcome.destination} did not acknowledge it in time",
    }.get(outcome.reason, f"dropped as {outcome.reason}")


def _refusal(outcome: Outcome, *, verbose: bool) -> str:
    name, status = outcome.destination, outcome.status
    if status in (401, 403):
        return f"{name} refuses the write key (status {status}): check it, and the region"
    if not verbose:
        return f"{name} refuses the call (status {status}); -v shows what it says"
    return f"{name} refuses the call (status {status}): {outcome.detail or 'without a word'}"
