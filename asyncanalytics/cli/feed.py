"""`send`: JSON lines of calls, from a file or a pipe, as fast as the endpoint takes them.

A line that is no call is told of and left out; the others go on. Input is read as room is
made for it, so a file of any size needs the same memory.
"""
# Annotations are read at run time: typer makes the options from them.

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from asyncanalytics.calls import MODELS, Call
from asyncanalytics.cli.exits import Exit, Failure, leave
from asyncanalytics.cli.letters import VERDICT_KEY
from asyncanalytics.cli.lines import MAX_LINE, lines, open_input
from asyncanalytics.cli.options import Json, Verbose, Where, WriteKey
from asyncanalytics.cli.output import complain, note, overhear, print_json, say
from asyncanalytics.cli.sending import explain, make_client
from asyncanalytics.client import AsyncClient
from asyncanalytics.errors import FlushTimeout, InvalidCall
from asyncanalytics.receipts import Outcome, Receipt
from asyncanalytics.stats import Stats
from asyncanalytics.wire import WIRES

File = Annotated[
    str, typer.Argument(metavar="FILE", help="A file of JSON lines, or - for standard input.")
]
Timeout = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", min=0.1, help="How long to wait for delivery after the last line."
    ),
]

_MOST_TOLD = 10
_LAST_WISH = 2.0  # seconds for what is pending when Ctrl-C comes


def send(
    file: File,
    *,
    write_key: WriteKey = None,
    endpoint: Where = None,
    timeout: Timeout = 30.0,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Send calls from a file, one JSON object a line, such as {"type": "track", ...}.

    With --json each line that was not delivered is one line, and the last line is the sum.
    """
    feed = Feed(json=json, verbose=verbose)
    leave(asyncio.run(feed.run(open_input(file), write_key, endpoint, timeout)))


class Feed:
    """One run of `send`."""

    def __init__(self, *, json: bool, verbose: bool) -> None:
        """Count from nothing."""
        self._json, self._verbose = json, verbose
        self._line = 0
        self._unreadable = 0
        self._told = 0
        self._pending: dict[Receipt, int] = {}

    async def run(
        self, file: int, write_key: str | None, endpoint: str | None, timeout: float
    ) -> Exit:
        """Send the file, tell how it went, and return the exit code."""
        began = time.monotonic()
        client = make_client(write_key, endpoint, on_settle=self._settled)
        await client.start()
        late = False
        grace = 0.0
        try:
            with overhear():
                await self._send(client, file)
                late = not await _flushed(client, timeout)
        except asyncio.CancelledError:
            grace = _LAST_WISH
            raise
        finally:
            stats = await client.aclose(grace)
            self._sum_up(stats, time.monotonic() - began, late=late)
        if late:
            complain(f"no delivery of everything within {timeout:g} s after the last line")
            return Exit.TIMED_OUT
        if stats.delivered < stats.accepted:
            return Exit.NOT_DELIVERED
        return Exit.USAGE if self._unreadable else Exit.OK

    async def _send(self, client: AsyncClient, file: int) -> None:
        async for line in lines(file):
            self._line += 1
            if not line.strip():
                continue
            try:
                receipt = await client.send(_call(line))
            except (InvalidCall, Failure) as error:
                self._unreadable += 1
                self._tell({"outcome": "invalid"}, str(error))
                continue
            if receipt.outcome is None:
                self._pending[receipt] = self._line

    def _settled(self, outcome: Outcome, receipts: Sequence[Receipt]) -> None:
        for receipt in receipts:
            line = self._pending.pop(receipt, self._line)
            if not outcome.delivered:
                plain = {
                    "call": receipt.call,
                    "messageId": receipt.message_id,
                    "outcome": outcome.kind,
                    "reason": outcome.reason,
                    "status": outcome.status,
                }
                self._tell(plain, explain(outcome, verbose=self._verbose), line)

    def _tell(self, plain: dict[str, Any], problem: str, line: int | None = None) -> None:
        line = line or self._line
        if self._json:
            print_json({"line": line} | plain | {"problem": problem})
        elif self._told < _MOST_TOLD:
            complain(f"line {line:,}: {problem}")
        elif self._told == _MOST_TOLD:
            note("more lines have problems; --json tells of each")
        self._told += 1

    def _sum_up(self, stats: Stats, seconds: float, *, late: bool) -> None:
        if self._json:
            sums = {"lines": self._line, "invalid": self._unreadable, "timed_out": late}
            print_json({"sum": sums | {"seconds": round(seconds, 3)} | stats.as_dict()})
            return
        parts = [f"{stats.delivered:,} delivered", f"{stats.rejected:,} rejected"]
        parts += [f"{stats.dropped:,} dropped", f"{self._unreadable:,} invalid"]
        rate = f"{stats.delivered / max(seconds, 0.001):,.0f} a second"
        say(f"{self._line:,} lines: {', '.join(parts)} in {seconds:.2f} s ({rate})")


async def _flushed(client: AsyncClient, timeout: float) -> bool:
    try:
        await client.flush(timeout)
    except FlushTimeout:
        return False
    return True


def _call(line: bytes) -> Call:
    """Read one line; `InvalidCall` or `Failure` without what it says."""
    if len(line) > MAX_LINE:
        raise Failure(f"it is longer than {MAX_LINE:,} bytes", Exit.USAGE)
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise Failure("it is not JSON", Exit.USAGE) from None
    kind = fields.get("type") if isinstance(fields, dict) else None
    if not isinstance(kind, str) or kind not in MODELS:
        raise Failure(f"give an object whose type is one of {', '.join(MODELS)}", Exit.USAGE)
    fields.pop(VERDICT_KEY, None)  # where `spool export` wrote the line
    return WIRES[kind].build(fields)
