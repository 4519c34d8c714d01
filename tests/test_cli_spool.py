"""The command line shows, retries, exports and purges what is in a spool's folder."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from asyncanalytics.encoding import encode
from asyncanalytics.spool import Entry, Sealing, Spool, Verdict, left_in, visit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.long

SECRET = "what-the-call-carries"
DAY = 86_400.0
posix = pytest.mark.skipif(os.name != "posix", reason="rights and terminals of POSIX")


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def plain(self) -> list[Any]:
        """Its lines of JSON."""
        return [json.loads(line) for line in self.out.splitlines()]


Shell = Callable[..., Ran]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capfdbinary: Any) -> Shell:
    """Runs a command of `spool` in this process, 80 columns wide and without a terminal."""
    pytest.importorskip("typer")
    pytest.importorskip("rich")
    from asyncanalytics.cli import run

    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def command(*args: object, name: str = "spool") -> Ran:
        with ThreadPoolExecutor(1) as thread:
            code = thread.submit(run, [name, *map(str, args)]).result()
        return Ran(code, *(text.decode() for text in capfdbinary.readouterr()))

    return command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place for a spool."""
    return tmp_path / "spool"


def entries(
    *names: object, destination: str = "crm", created: float = 1_767_323_045.0
) -> list[Entry]:
    """Return calls as the client keeps them."""
    found = []
    for name in names:
        fields = {"userId": "u1", "event": "Grüße", "messageId": f"m{name}"}
        _, body = encode("track", {**fields, "properties": {"secret": SECRET, "n": 1.50}})
        found.append(Entry(destination, "track", f"m{name}", body, created))
    return found


def verdict(**fields: Any) -> Verdict:
    """Return why a call has died."""
    refused = Verdict(
        "rejected", 400, "rejected", f"no such plan: {SECRET}\x1b[31m", 1_767_323_099.0
    )
    return refused._replace(**fields)


def fill(folder: Path, *, dead: int = 3, waits: int = 2, **fields: Any) -> str:
    """Leave a file with dead letters and calls that wait, and return the letters' first part."""
    with Spool(folder, **fields) as spool:
        numbers = spool.append(entries(*range(dead + waits))).result()
        spool.bury(numbers[:dead], verdict()).result()
        assert spool.path is not None
        return spool.path.stem[:4]


def figures(folder: Path) -> dict[str, tuple[int, int]]:
    """Return what waits and what is dead for each destination, in all files."""
    found: dict[str, tuple[int, int]] = {}
    for path in left_in(folder):
        with visit(path) as seen:
            for name, each in seen.by_destination.items():
                waits, dead = found.get(name, (0, 0))
                found[name] = (waits + each.events, dead + each.dead_events)
    return found


OWNS = """
import sys
from asyncanalytics.spool import Spool, Verdict
from asyncanalytics.spool.rows import Entry

with Spool(sys.argv[1], on_found=lambda counts: print("told", dict(counts), flush=True)) as spool:
    rows = [Entry("crm", "track", f"r{each}", b'"n":1}', 1.5) for each in range(1_200)]
    numbers = spool.append(rows).result()
    spool.bury(numbers[:1_100], Verdict("rejected", 400, "rejected", "", 9.5)).result()
    print("ready", flush=True)
    while sys.stdin.readline():
        spool.adopt().result()
        print(spool.stats().events, spool.stats().dead_events, flush=True)
"""


@contextmanager
def running(script: str, *args: object, **more: Any) -> Iterator[Callable[[], str]]:
    """Run a script until its input ends; what is yielded asks it for a line."""
    command = [sys.executable, "-W", "error", "-c", script, *map(str, args)]
    with subprocess.Popen(  # noqa: S603 - written here
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        said = child.stdout

        def ask() -> str:
            child.stdin.write("\n")  # type: ignore[union-attr]
            child.stdin.flush()  # type: ignore[union-attr]
            return said.readline().strip()

        try:
            assert said.readline() == "ready\n"
            yield ask
            child.stdin.close()
            assert child.wait(30) == 0
        finally:
            child.kill()


def assert_one_line_of_error(ran: Ran) -> None:
    """One line says what is wrong, the last one, without a traceback or what a call carries."""
    lines = ran.err.splitlines()
    assert [each for each in lines if each.startswith("error: ")] == lines[-1:]
    assert all(each.startswith(("note: ", "error: ")) for each in lines)
    assert SECRET not in ran.err + ran.out
    assert "Traceback" not in ran.err


# ------------------------------------------------------------------------------------------- ls


def test_a_stopped_folder_is_listed(shell: Shell, folder: Path) -> None:
    """Each file with its figures, in 80 columns and as JSON; payloads are not among it."""
    name = fill(folder)
    with Spool(folder) as one, Spool(folder) as other:
        other.append(entries(7, destination="ware[red]house")).result()
        assert one.path is not None
    ran = shell("ls", folder)
    assert (ran.code, ran.err) == (0, "")
    assert max(map(len, ran.out.splitlines())) <= 80
    assert "ware[red]house" in ran.out
    row = next(line for line in ran.out.splitlines() if line.startswith(name))
    assert row.split()[1:4] == ["stopped", "crm", "2"]
    [found] = shell("ls", folder, "--json").plain
    assert [each["state"] for each in found["files"]] == ["stopped"] * 2
    mine = next(each for each in found["files"] if each["file"].startswith(name))
    assert (mine["events"], mine["dead_events"], mine["damaged"]) == (2, 3, 0)
    assert mine["first_accepted"] == "2026-01-02T03:04:05.000Z"
    assert mine["destinations"]["crm"]["events"] == 2
    assert found["corrupt"] == []


def test_a_running_client_is_named_so(shell: Shell, folder: Path) -> None:
    """Looking does not disturb it."""
    with running(OWNS, folder) as ask:
        assert "running" in shell("ls", folder).out
        [found] = shell("ls", folder, "--json").plain
        assert found["files"][0]["state"] == "running"
        assert found["files"][0]["dead_events"] == 1_100
        assert ask() == "100 1100"


def test_what_was_set_aside_is_listed(shell: Shell, folder: Path) -> None:
    """Damaged calls in a file, and files that were malformed."""
    name = fill(folder)
    with closing(sqlite3.connect(left_in(folder)[0])) as db, db:
        db.execute("UPDATE waiting SET body = 'rotten' WHERE seq = 5")
    with Spool(folder) as spool:
        spool.read("crm").result()
    (folder / "0123456789abcdef.spool").write_bytes(b"no database" * 99)
    ran = shell("ls", folder)
    assert ran.code == 3
    assert f"note: {name}: 1 damaged call" in ran.err
    assert "SQLITE_NOTADB): start a client on the folder" in ran.err
    assert "1 file could not be used" in ran.err
    with Spool(folder) as spool:
        spool.adopt().result()
    ran = shell("ls", folder)
    assert ran.code == 0
    assert "0123456789abcdef.spool.corrupt-1 (1,089 bytes) was malformed" in ran.err
    [found] = shell("ls", folder, "--json").plain
    assert [each["bytes"] for each in found["corrupt"]] == [1_089]


def test_an_empty_folder_is_nothing_wrong(shell: Shell, folder: Path) -> None:
    """A client that has delivered everything leaves none."""
    Spool(folder).close()
    ran = shell("ls", folder)
    assert (ran.code, ran.err) == (0, "")
    assert "nothing waits" in ran.out
    assert shell("show", folder) == (0, "", "note: there are no dead letters here\n")
    assert shell("show", folder, "--waiting") == (0, "", "note: no calls wait here\n")


# ----------------------------------------------------------------------------------------- show


def test_dead_letters_are_shown(shell: Shell, folder: Path) -> None:
    """One line each says which call it was, where to, why it died and when; not what it carried."""
    name = fill(folder)
    with Spool(folder) as spool:
        numbers = spool.append(entries("x", destination="lake")).result()
        late = verdict(kind="dropped", status=None, reason="expired", detail="")
        spool.bury(numbers, late).result()
    ran = shell("show", folder)
    assert (ran.code, ran.err) == (0, "")
    assert SECRET not in ran.out
    first, *_, last = ran.out.splitlines()
    assert first == f"{name}:1  2026-01-02 03:04:59Z  crm  track  m0  rejected, status 400"
    assert last == f"{name}:4  2026-01-02 03:04:59Z  lake  track  mx  dropped as expired"
    [plain] = shell("show", folder, "--json", "--destination", "lake").plain
    assert plain == {
        "letter": f"{name}:4",
        "file": left_in(folder)[0].stem,
        "destination": "lake",
        "call": "track",
        "messageId": "mx",
        "accepted": "2026-01-02T03:04:05.000Z",
        "kind": "dropped",
        "status": None,
        "reason": "expired",
        "at": "2026-01-02T03:04:59.000Z",
    }


def test_letters_are_picked(shell: Shell, folder: Path) -> None:
    """By name, with the file or without where there is one, by messageId, and so many."""
    name = fill(folder)

    def shown(*args: object) -> list[str]:
        ran = shell("show", folder, "--json", *args)
        assert ran.code == 0
        return [each["messageId"] for each in ran.plain]

    assert shown(f"{name}:2", "3") == ["m1", "m2"]
    assert shown(f"{left_in(folder)[0].stem}:1", "--destination", "lake") == []
    assert shown("--message-id", "m2", "--message-id", "typo") == ["m2"]
    assert shown("--limit", "3") == ["m0", "m1", "m2"]
    ran = shell("show", folder, "--limit", "2")
    assert len(ran.out.splitlines()) == 2
    assert ran.err == "note: there are more than 2; --limit shows more\n"


def test_what_waits_is_shown(shell: Shell, folder: Path) -> None:
    """In the order in which it goes out."""
    name = fill(folder)
    ran = shell("show", folder, "--waiting")
    assert ran.out.splitlines() == [
        f"{name}  2026-01-02 03:04:05Z  crm  track  {each}" for each in ("m3", "m4")
    ]
    assert [each["messageId"] for each in shell("show", folder, "--waiting", "--json").plain] == [
        "m3",
        "m4",
    ]
    assert shell("show", folder, "--waiting", "--destination", "lake").out == ""


def test_payloads_are_shown_on_demand(shell: Shell, folder: Path) -> None:
    """With what the endpoint said; neither can steer a terminal."""
    fill(folder, dead=1, waits=1)
    ran = shell("show", folder, "--body")
    assert ran.code == 0
    _, said, event = ran.out.splitlines()
    assert said == f"    it said: no such plan: {SECRET}\N{REPLACEMENT CHARACTER}[31m"
    assert json.loads(event)["properties"] == {"secret": SECRET, "n": 1.5}
    [plain] = shell("show", folder, "--body", "--json").plain
    assert plain["event"]["event"] == "Grüße"
    assert plain["detail"].startswith("no such plan")
    ran = shell("show", folder, "--body", "--waiting")
    assert json.loads(ran.out.splitlines()[1])["messageId"] == "m1"


def test_damaged_letters_are_shown_as_such(shell: Shell, folder: Path) -> None:
    """What their payload was cannot be known."""
    fill(folder, dead=1)
    with closing(sqlite3.connect(left_in(folder)[0])) as db, db:
        db.execute("UPDATE dead SET body = 'rotten'")
    ran = shell("show", folder, "--body")
    assert ran.out.splitlines()[-1] == "    (damaged, or sealed otherwise)"
    assert shell("show", folder, "--body", "--json").plain[0]["event"] is None
    ran = shell("retry", folder, "--all")
    assert (ran.code, "1 are damaged" in ran.err) == (1, True)


# ---------------------------------------------------------------------------------------- retry


def test_letters_wait_again(shell: Shell, folder: Path) -> None:
    """Those that are named, or all of a destination."""
    name = fill(folder)
    ran = shell("retry", folder, f"{name}:2", "1")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("2 wait again; ")
    assert figures(folder) == {"crm": (4, 1)}
    assert shell("retry", folder, "--all", "--destination", "lake", "--json").plain == [
        {"retried": 0, "damaged": 0}
    ]
    assert shell("retry", folder, "--all", "--json").plain == [{"retried": 1, "damaged": 0}]
    assert figures(folder) == {"crm": (5, 0)}


def test_letters_of_a_running_client_wait_again(shell: Shell, folder: Path) -> None:
    """It is told of them."""
    with running(OWNS, folder) as ask:
        name = left_in(folder)[0].stem[:4]
        assert shell("retry", folder, f"{name}:7").code == 0
        assert ask() == "told {'crm': 1}"
        assert shell("retry", folder, "--all", "--json").plain == [{"retried": 1_099, "damaged": 0}]


def test_letters_that_are_refused_again_are_retried_once(shell: Shell, folder: Path) -> None:
    """They come back behind the last of those that were there."""
    stop = threading.Event()

    def refuse(spool: Spool) -> None:
        while not stop.is_set():
            spool.adopt().result()
            rows = spool.read("crm").result()
            spool.bury([row.seq for row in rows], verdict()).result()

    with Spool(folder) as spool, ThreadPoolExecutor(1) as thread:
        numbers = spool.append(entries(*range(1_200))).result()
        spool.bury(numbers, verdict()).result()
        refusing = thread.submit(refuse, spool)
        ran = shell("retry", folder, "--all", "--json")
        stop.set()
        refusing.result()
        assert ran.plain == [{"retried": 1_200, "damaged": 0}]
        assert spool.stats().dead_events


CLIENT = """
import asyncio, json, sys
from asyncanalytics import AsyncClient

async def main():
    async with AsyncClient(spool=sys.argv[1]) as client:
        await client.track("Paid", user_id="u1", message_id="m-1")
        await client.flush()
        await client.track("Paid", user_id="u1", message_id="m-2")
        await client.flush()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await client.track("Paid", user_id="u1", message_id="m-3")
        await asyncio.sleep(0)
        await client.flush()
        stats = await client.aclose()
        print(json.dumps(stats.as_dict()), flush=True)

asyncio.run(main())
"""


def test_a_retried_letter_is_delivered(shell: Shell, folder: Path, live: Any) -> None:
    """By the client that runs, with the messageId that it had."""
    live.collector.misbehave(400, count=1)
    with running(CLIENT, folder, env=live.environ) as ask:
        [letter] = shell("show", folder, "--json").plain
        assert (letter["messageId"], letter["status"]) == ("m-1", 400)
        assert shell("retry", folder, letter["letter"]).code == 0
        stats = json.loads(ask())
    assert stats["accepted"] == stats["delivered"] + stats["rejected"] + stats["pending"]
    assert stats["rejected"] == 1
    assert sorted(live.collector.message_ids())[-2:] == ["m-2", "m-3"]
    assert stats["pending"] == 0
    assert "m-1" in live.collector.message_ids()


# --------------------------------------------------------------------------------------- export


def test_an_export_can_be_sent(shell: Shell, folder: Path, tmp_path: Path, live: Any) -> None:
    """Whole events, with how they ended; `send` takes the file, and leaves that out again."""
    fill(folder)
    out = tmp_path / "dead.jsonl"
    ran = shell("export", folder, "-o", out)
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == f"note: 3 events written to {out}\n"
    found = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [each["messageId"] for each in found] == ["m0", "m1", "m2"]
    assert found[0]["_deadLetter"] == {
        "destination": "crm",
        "kind": "rejected",
        "status": 400,
        "reason": "rejected",
        "detail": verdict().detail,
        "at": "2026-01-02T03:04:59.000Z",
    }
    assert found[0]["properties"] == {"secret": SECRET, "n": 1.5}
    assert figures(folder) == {"crm": (2, 3)}
    ran = shell(out, name="send")
    assert (ran.code, ran.err) == (0, "")
    assert sorted(live.collector.message_ids()) == ["m0", "m1", "m2"]
    assert not any("_deadLetter" in event for event in live.events)


def test_what_waits_can_be_exported(shell: Shell, folder: Path) -> None:
    """As it would go out, to standard output unless a file is named."""
    fill(folder)
    ran = shell("export", folder, "--waiting")
    assert (ran.code, ran.err) == (0, "")
    assert [line.encode() for line in ran.out.splitlines()] == [
        b"{" + each.body for each in _waiting(folder)
    ]
    assert shell("export", folder, "--waiting", "--destination", "lake").out == ""


def _waiting(folder: Path) -> list[Any]:
    with visit(left_in(folder)[0]) as seen:
        return seen.read("crm")


@posix
def test_an_export_is_for_its_owner_alone(shell: Shell, folder: Path, tmp_path: Path) -> None:
    """A file that is there is replaced only with --force, and then by one of one's own."""
    fill(folder)
    out = tmp_path / "out.jsonl"
    before = os.umask(0)
    try:
        assert shell("export", folder, "--output", out).code == 0
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        out.write_text("mine")
        out.chmod(0o644)
        ran = shell("export", folder, "--output", out)
        assert (ran.code, out.read_text()) == (2, "mine")
        assert "give --force" in ran.err
        assert_one_line_of_error(ran)
        assert shell("export", folder, "--output", out, "--force").code == 0
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        assert len(out.read_text("utf-8").splitlines()) == 3
    finally:
        os.umask(before)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out.jsonl", "spool"]


def test_an_export_that_fails_leaves_no_half(shell: Shell, folder: Path, tmp_path: Path) -> None:
    """Nor does it touch what was there."""
    fill(folder, sealing=sealing)
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    for force in ([], ["--force"]):
        ran = shell("export", folder, "--output", tmp_path / "new.jsonl", *force)
        assert ran.code == 3
        assert_one_line_of_error(ran)
    assert shell("export", folder, "--output", out, "--force").code == 3
    assert out.read_text() == "mine"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out.jsonl", "spool"]
    ran = shell("export", folder, "--output", tmp_path / "no" / "such.jsonl")
    assert (ran.code, "cannot write to" in ran.err) == (3, True)


def test_an_export_says_what_it_leaves_out(shell: Shell, folder: Path) -> None:
    """Damaged calls, and files that cannot be used; all else is written."""
    fill(folder)
    with closing(sqlite3.connect(left_in(folder)[0])) as db, db:
        db.execute("UPDATE dead SET body = 'rotten' WHERE id = 2")
        db.execute("UPDATE waiting SET body = 'rotten' WHERE seq = 4")
    ran = shell("export", folder)
    assert ([each["messageId"] for each in ran.plain], ran.code) == (["m0", "m2"], 1)
    assert ran.err.startswith("error: 1 are damaged")
    ran = shell("export", folder, "--waiting")
    assert ([each["messageId"] for each in ran.plain], ran.code) == (["m4"], 1)
    (folder / "0123456789abcdef.spool").write_bytes(b"no database" * 99)
    ran = shell("export", folder)
    assert ([each["messageId"] for each in ran.plain], ran.code) == (["m0", "m2"], 3)


@posix
def test_a_reader_that_has_enough_ends_it(folder: Path) -> None:
    """As `head` does: without a word."""
    pytest.importorskip("typer")
    with Spool(folder) as spool:
        spool.append(entries(*range(3_000))).result()
    for command in (["export", "--waiting"], ["show", "--waiting", "--limit", "9999", "--json"]):
        args = [sys.executable, "-m", "asyncanalytics", "spool", *command, str(folder)]
        with subprocess.Popen(  # noqa: S603 - written here
            args, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            child.stdout.read(10)
            child.stdout.close()
            assert child.stderr.read() == b""
            assert child.wait(20) == 1


# --------------------------------------------------------------------------------------- sealed

sealing = Sealing(
    seal=lambda body: bytes(each ^ 77 for each in body),
    open=lambda body: bytes(each ^ 77 for each in body),
)
KEYS = """
class Place:
    seal = open = staticmethod(lambda body: bytes(each ^ 77 for each in body))

class Wrong:
    seal = bytes
    @staticmethod
    def open(body):
        raise ValueError("wrong key")

seal_only = type("Half", (), {"seal": bytes})
"""


def test_sealed_payloads_need_their_functions(
    shell: Shell, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are named as `module:name`; without them one is told so, and the rest still works."""
    fill(folder, sealing=sealing)
    (tmp_path / "keys_of_mine.py").write_text(KEYS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert len(shell("show", folder).out.splitlines()) == 3
    for command in (["show", "--body"], ["show", "--body", "--json"], ["export"]):
        ran = shell(*command, folder)
        assert (ran.code, ran.out) == (3, "")
        assert "are sealed: give the client's own Sealing" in ran.err
        assert_one_line_of_error(ran)
        ran = shell(*command, folder, "--sealing", "keys_of_mine:Place")
        assert ran.code == 0
        assert ran.out.count(SECRET) == 6  # in the payload, and in what the endpoint said
    ran = shell("export", folder, "--waiting", "--sealing", "keys_of_mine:Place")
    assert [each["messageId"] for each in ran.plain] == ["m3", "m4"]
    for waiting, left_out in (([], 3), (["--waiting"], 2)):
        ran = shell("export", folder, *waiting, "--sealing", "keys_of_mine:Wrong")
        assert (ran.code, ran.out) == (1, "")
        assert f"{left_out} are damaged, or sealed otherwise" in ran.err
    ran = shell("retry", folder, "--all")
    assert ran.code == 0
    with Spool(folder, sealing=sealing) as spool:
        assert len(spool.read("crm").result()) == 5


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("keys", "write it as module:name"),
        ("no_such_module:sealing", "no such module"),
        ("json:sealing", "there is no object of that name"),
        ("json:loads", "functions seal and open"),
        ("keys_that_fail:sealing", "ZeroDivisionError at keys_that_fail.py:1"),
    ],
)
def test_a_sealing_that_is_none(
    shell: Shell,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    place: str,
    said: str,
) -> None:
    """What is wrong with it is said in a line."""
    fill(folder)
    (tmp_path / "keys_that_fail.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    ran = shell("export", folder, "--sealing", place)
    assert ran.code == 3
    assert said in ran.err
    assert_one_line_of_error(ran)


# ---------------------------------------------------------------------------------------- purge


def test_letters_are_deleted(shell: Shell, folder: Path) -> None:
    """Those named, those of a destination, those of before, and what waits stays."""
    name = fill(folder, dead=4)
    with Spool(folder) as spool:
        numbers = spool.append(entries("x", "y", destination="lake")).result()
        spool.bury(numbers[:1], verdict(at=time.time() - 8 * DAY)).result()
        spool.bury(numbers[1:], verdict(at=time.time() - 6 * DAY)).result()
    assert shell("purge", folder, "--yes", f"{name}:1", "2").out == "2 dead letters deleted\n"
    assert figures(folder) == {"crm": (2, 2), "lake": (0, 2)}
    args = ["--yes", "--json", "--destination", "lake"]
    assert shell("purge", folder, *args, "--before", "2w").plain == [{"purged": 0}]
    assert shell("purge", folder, *args, "--before", "7d").plain == [{"purged": 1}]
    assert shell("purge", folder, "-y", "--before", "2026-01-02T03:04:58Z").out.startswith("0 dead")
    assert shell("purge", folder, "-y", "--before", "2026-01-02 03:05").out.startswith("2 dead")
    assert figures(folder) == {"crm": (2, 0), "lake": (0, 1)}
    assert shell("purge", folder, "--yes").out == "1 dead letter deleted\n"
    assert figures(folder) == {"crm": (2, 0)}


def test_letters_of_a_running_client_are_deleted(shell: Shell, folder: Path) -> None:
    """It sees so at its next look."""
    with running(OWNS, folder) as ask:
        assert shell("purge", folder, "--yes", "--json").plain == [{"purged": 1_100}]
        assert ask() == "100 0"


def test_nobody_is_asked_where_nobody_is(shell: Shell, folder: Path) -> None:
    """Without a terminal it takes --yes; where nothing fits there is nothing to ask."""
    fill(folder)
    ran = shell("purge", folder)
    assert (ran.code, ran.out) == (2, "")
    assert "give --yes" in ran.err
    assert_one_line_of_error(ran)
    assert figures(folder) == {"crm": (2, 3)}
    assert shell("purge", folder, "--destination", "lake").code == 0


@posix
@pytest.mark.parametrize(
    ("answer", "code", "left"),
    [(b"y\n", 0, 0), (b"n\n", 1, 3), (b"\n", 1, 3), (b"\x03", 130, 3), (b"\x04", 1, 3)],
)
def test_who_sits_at_a_terminal_is_asked(folder: Path, answer: bytes, code: int, left: int) -> None:
    """Only a yes deletes."""
    pytest.importorskip("typer")
    fill(folder)
    said, ended = at_a_terminal("purge", str(folder), question=b"[y/N] ", answer=answer)
    assert b"Delete 3 dead letters in " in said
    assert ended == code
    assert figures(folder) == {"crm": (2, left)}


@posix
def test_progress_is_shown_at_a_terminal(folder: Path, tmp_path: Path) -> None:
    """On standard error, and nothing of it stays."""
    pytest.importorskip("typer")
    fill(folder, dead=700)
    said, ended = at_a_terminal("export", str(folder), "-o", str(tmp_path / "out"))
    assert ended == 0
    assert re.search(rb"exporting.*/700", said)
    assert b"700 events written" in said
    said, ended = at_a_terminal("retry", str(folder), "--all")
    assert (ended, b"retrying" in said) == (0, True)
    assert figures(folder) == {"crm": (702, 0)}


def at_a_terminal(*args: str, question: bytes = b"", answer: bytes = b"") -> tuple[bytes, int]:
    """Run a command in a terminal of its own; return what it showed, and its exit code."""
    import pty

    child, terminal = pty.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
        command = [sys.executable, "-m", "asyncanalytics", "spool", *args]
        os.execve(sys.executable, command, environ)  # noqa: S606 - written here
    said = b""
    try:
        given = b""
        while piece := _read(terminal, again=given if given == b"\x03" else b""):
            said += piece
            if answer and said.endswith(question):
                os.write(terminal, answer)
                given, answer = answer, b""
    finally:
        os.close(terminal)
        _, status = os.waitpid(child, 0)
    return said, os.waitstatus_to_exitcode(status)


def _read(terminal: int, again: bytes) -> bytes:
    """Read what comes next; a Ctrl-C that fell between Python's prompt and its wait is repeated."""
    while again and not select.select([terminal], [], [], 1.0)[0]:
        os.write(terminal, again)
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


# ----------------------------------------------------------------------------- what cannot work

COMMANDS = [["ls"], ["show"], ["retry", "--all"], ["export"], ["purge", "--yes"]]
each_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])


@each_command
def test_a_place_that_is_no_spool(shell: Shell, tmp_path: Path, command: list[str]) -> None:
    """Nothing there, a file, a folder with other things, or one with what is no database."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / "other" / "notes.txt").write_bytes(b"")
    (tmp_path / "garbage").mkdir(mode=0o700)
    (tmp_path / "garbage" / "a.spool").write_bytes(b"no database" * 99)
    for name, said in (
        ("missing", "does not exist"),
        ("file", "is not a folder"),
        ("other", "has no spool file"),
        ("garbage", "1 file could not be used"),
    ):
        ran = shell(*command, tmp_path / name)
        assert ran.code == 3
        assert said in ran.err
        assert_one_line_of_error(ran)


@posix
@each_command
def test_a_folder_with_other_rights(
    shell: Shell, folder: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that others can look into, or that is another's: nothing is made in it by this user."""
    fill(folder)
    folder.chmod(0o755)
    ran = shell(*command, folder)
    assert ran.code == 3
    assert "(mode 0755): run chmod 700 on it" in ran.err
    assert_one_line_of_error(ran)
    folder.chmod(0o700)
    mine = folder.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    ran = shell(*command, folder)
    assert ran.code == 3
    assert "belongs to another user: run this as that user" in ran.err
    assert_one_line_of_error(ran)
    assert figures(folder) == {"crm": (2, 3)}


@each_command
def test_a_file_of_a_newer_version(shell: Shell, folder: Path, command: list[str]) -> None:
    """It is left alone, and named; the other files are worked on."""
    fill(folder)
    newer = folder / "0123456789abcdef.spool"
    with closing(sqlite3.connect(newer)) as db:
        db.execute("PRAGMA application_id = 0x41417370")
        db.execute("CREATE TABLE later (a)")
        db.execute("PRAGMA user_version = 99")
    before = newer.read_bytes()
    ran = shell(*command, folder)
    assert ran.code == 3
    assert "version 99, and this release knows 1" in ran.err
    assert SECRET not in ran.err
    assert newer.read_bytes() == before
    assert ran.out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["show", "x"], "as in 3f9a:17"),
        (["show", ":1"], "as in 3f9a:17"),
        (["show", "9" * 30], "as in 3f9a:17"),
        (["show", "zzzz:1"], "there is no letter zzzz:1"),
        (["show", "1", "99"], "there is no letter 99"),
        (["show", "0"], "there is no letter 0"),
        (["show", "1", "--waiting"], "only dead letters have names"),
        (["show", "--limit", "0"], "--limit"),
        (["retry"], "or give --all"),
        (["retry", "1", "--all"], "or give --all"),
        (["retry", "99"], "there is no letter 99"),
        (["purge", "99", "--yes"], "there is no letter 99"),
        (["purge", "--yes", "--before", "soon"], "such as 2026-01-31"),
        (["purge", "--yes", "--before", "7y"], "such as 2026-01-31"),
        (["sell"], "No such command"),
    ],
)
def test_a_wrong_command_line(shell: Shell, folder: Path, args: list[str], said: str) -> None:
    """One line says what to write."""
    fill(folder)
    ran = shell(args[0], folder, *args[1:])
    assert ran.code == 2
    assert said in ran.err
    assert_one_line_of_error(ran)
    assert figures(folder) == {"crm": (2, 3)}


def test_a_number_that_several_files_have(shell: Shell, folder: Path) -> None:
    """It is not guessed which of them is meant."""
    name = fill(folder)
    with Spool(folder), Spool(folder) as other:
        spool_numbers = other.append(entries("x")).result()
        other.bury(spool_numbers, verdict()).result()
    ran = shell("retry", folder, "1")
    assert ran.code == 2
    assert "several files have a 1" in ran.err
    assert shell("retry", folder, f"{name}:1").code == 0


def test_a_busy_file_is_named(shell: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something else holds it, one is told to try again."""
    from asyncanalytics.spool import schema

    monkeypatch.setitem(schema._PATIENCE, "share", 0.1)
    monkeypatch.setitem(schema._PATIENCE, "own", 0.1)
    fill(folder)
    with closing(sqlite3.connect(left_in(folder)[0], isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        ran = shell("retry", folder, "--all")
        assert ran.code == 3
        assert "being changed by another process: try again" in ran.err
        assert_one_line_of_error(ran)


def test_the_command_alone_says_what_it_can(shell: Shell) -> None:
    """Its commands are listed, as those of the whole are."""
    ran = shell()
    assert (ran.code, ran.err) == (0, "")
    for name in ("ls", "show", "retry", "export", "purge"):
        assert f" {name} " in ran.out
