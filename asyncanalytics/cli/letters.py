"""What the spool's commands show of a call that waits, or that is a dead letter.

A body is on disk as it goes out, without its opening brace, and is written as it is: no figure in
it is read and written again. It is personal data, and so is what an endpoint said of it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from asyncanalytics.cli.exits import Exit, Failure
from asyncanalytics.cli.output import printable
from asyncanalytics.spool import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncanalytics.cli.folder import File
    from asyncanalytics.spool import Row, Visit

VERDICT_KEY = "_deadLetter"
"""The member of an exported event that says how it ended; `send` leaves it out again."""
_PIECE = 100  # calls in memory at a time


def dead_letters(seen: Visit, destination: str | None) -> Iterator[DeadLetter]:
    """Yield the dead letters of a file, in the order of their burial."""
    last = 0
    while found := seen.dead(last, limit=_PIECE, destination=destination):
        yield from found
        last = found[-1].id


def waiting(seen: Visit, destination: str | None) -> Iterator[Row]:
    """Yield the calls that wait in a file, by destination, in order."""
    for name in seen.by_destination:
        last = 0
        while destination in (None, name) and (found := seen.read(name, last, limit=_PIECE)):
            yield from found
            last = found[-1].seq


def find(seen: Visit, number: int) -> DeadLetter | None:
    """Return the letter of a number."""
    found = seen.dead(number - 1, limit=1) if number else []
    return found[0] if found and found[0].id == number else None


def is_event(body: bytes | None) -> bool:
    """Whether a body is there; raises `Failure` where it cannot be read."""
    if body is None:
        return False
    try:
        orjson.loads(b"{" + body)
    except ValueError:
        problem = "the calls in this folder are sealed: give the client's own Sealing, as in"
        raise Failure(f"{problem} --sealing myapp.settings:sealing", Exit.CONFIGURATION) from None
    return True


def plain(file: File, each: DeadLetter | Row) -> dict[str, Any]:
    """Return what is known of a call, without what it carries."""
    found = {
        "file": file.path.stem,
        "destination": each.destination,
        "call": each.call,
        "messageId": each.message_id,
        "accepted": moment(each.created),
    }
    if not isinstance(each, DeadLetter):
        return found
    kind, status, reason, _, at = each.verdict
    ended = {"kind": kind, "status": status, "reason": reason, "at": moment(at)}
    return {"letter": f"{file.name}:{each.id}"} | found | ended


def json_line(file: File, each: DeadLetter | Row, *, body: bool) -> bytes:
    """Return a line of JSON for machines."""
    known = plain(file, each)
    if body and isinstance(each, DeadLetter):
        known["detail"] = each.verdict.detail
    line = json.dumps(known).encode()
    if not body:
        return line + b"\n"
    event = b"{" + (each.body or b"") if is_event(each.body) else b"null"
    return line[:-1] + b', "event": ' + event + b"}\n"


def exported(each: DeadLetter | Row) -> bytes:
    """Return an event whose body is there as a line of JSON, with the verdict if it is dead."""
    body = each.body or b""
    if not isinstance(each, DeadLetter):
        return b"{" + body + b"\n"
    verdict = {"destination": each.destination} | each.verdict._asdict()
    verdict["at"] = moment(each.verdict.at)
    head = json.dumps({VERDICT_KEY: verdict}).encode()
    return head[:-1] + b", " + body + b"\n"


def lines(file: File, each: DeadLetter | Row, *, body: bool) -> Iterator[str]:
    """Yield the lines that people read of a call."""
    text = _shown(each.body) if body else ""  # or where that fails, a part would be shown
    known = plain(file, each)
    what = f"{known['destination']}  {known['call']}  {known['messageId']}"
    if isinstance(each, DeadLetter):
        yield printable(f"{known['letter']}  {_clock(known['at'])}  {what}  {_ended(each)}")
        if body and each.verdict.detail:
            yield printable(f"    it said: {each.verdict.detail}")
    else:
        yield printable(f"{file.name}  {_clock(known['accepted'])}  {what}")
    if body:
        yield printable(f"    {text}")


def moment(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC."""
    try:
        text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return ""  # it has rotted
    return text.replace("+00:00", "Z")


def _shown(body: bytes | None) -> str:
    if not is_event(body):
        return "(damaged, or sealed otherwise)"
    return "{" + (body or b"").decode("utf-8", "replace")


def _clock(text: str) -> str:
    return text[:19].replace("T", " ") + "Z"


def _ended(letter: DeadLetter) -> str:
    kind, status, reason, *_ = letter.verdict
    said = f"{kind}" if kind == reason else f"{kind} as {reason}"
    return said + (f", status {status}" if status is not None else "")
