"""The command line sends what it is told to, says how it ended, and exits accordingly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.request import urlopen

import pytest

import asyncanalytics
from asyncanalytics import endpoints

if TYPE_CHECKING:
    from asyncanalytics.collector import Collector

KEY = "a-key-that-opens-nothing"
SECRET = "what-the-call-carries"
POSIX = pytest.mark.skipif(os.name != "posix", reason="Ctrl-C cannot be sent there")


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def plain(self) -> Any:
        """The last line of its JSON."""
        return json.loads(self.out.splitlines()[-1])


Shell = Callable[..., Ran]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs a command in this process, with a key in the environment, 80 columns wide."""
    pytest.importorskip("typer")
    pytest.importorskip("rich")
    from asyncanalytics.cli import run

    for name in ("ASYNCANALYTICS_DISABLED", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ASYNCANALYTICS_ENDPOINT", "http://127.0.0.1:9")  # no test leaves here
    monkeypatch.setenv("ASYNCANALYTICS_WRITE_KEY", KEY)
    monkeypatch.setenv("COLUMNS", "80")

    def command(*args: object) -> Ran:
        # In a thread, since asyncio.run() in the main one puts away a loop of pytest-asyncio's.
        with ThreadPoolExecutor(1) as thread:
            code = thread.submit(run, [str(each) for each in args]).result()
        return Ran(code, *capsys.readouterr())

    return command


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[Collector, str]]]:
    """Starts collectors, each on a socket and in a thread of its own."""
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    with contextlib.ExitStack() as stack:
        yield lambda **settings: stack.enter_context(_served(**settings))


@contextlib.contextmanager
def _served(**settings: Any) -> Iterator[tuple[Collector, str]]:
    from asyncanalytics.collector import Collector

    ready: Queue[tuple[str, Callable[[], object]]] = Queue()

    async def stay(collector: Collector) -> None:
        end = asyncio.Event()
        async with collector.serve() as url:
            loop = asyncio.get_running_loop()
            ready.put((url, lambda: loop.call_soon_threadsafe(end.set)))
            await end.wait()

    with Collector(**settings) as collector:
        thread = threading.Thread(target=lambda: asyncio.run(stay(collector)))
        thread.start()
        url, stop = ready.get()
        try:
            yield collector, url
        finally:
            stop()
            thread.join()


def assert_law(stats: dict[str, Any]) -> None:
    """Accepted is the sum of all ends, and nothing is left pending."""
    ends = stats["delivered"] + stats["rejected"] + stats["dropped"] + stats["pending"]
    assert stats["accepted"] == ends
    assert stats["pending"] == 0


def assert_one_line_of_error(ran: Ran) -> None:
    """One line says what is wrong, without a traceback, the key or what the call carries."""
    lines = ran.err.splitlines()
    assert [each for each in lines if each.startswith("error: ")] == lines[-1:]
    assert all(each.startswith(("note: ", "error: ")) for each in lines)
    for secret in (KEY, SECRET, "Traceback"):
        assert secret not in ran.err + ran.out


# ------------------------------------------------------------------------------------ one call

CALLS: list[tuple[list[str], dict[str, Any]]] = [
    (
        ["identify", "u1", "--trait", "plan=pro", "--trait", "seats:=5"],
        {"userId": "u1", "traits": {"plan": "pro", "seats": 5}},
    ),
    (
        ["track", "Order Completed", "--user-id", "u1", "--property", "revenue:=12.5"],
        {"event": "Order Completed", "userId": "u1", "properties": {"revenue": 12.5}},
    ),
    (
        ["page", "Home", "--anonymous-id", "a1", "--category", "Shop", "--property", "path=/"],
        {"name": "Home", "anonymousId": "a1", "category": "Shop", "properties": {"path": "/"}},
    ),
    (["page", "--anonymous-id", "a1"], {"anonymousId": "a1"}),
    (
        ["screen", "Login", "--user-id", "u1", "--category", "Account"],
        {"name": "Login", "userId": "u1", "category": "Account"},
    ),
    (
        ["group", "g1", "--user-id", "u1", "--trait", "address.city=Graz"],
        {"groupId": "g1", "userId": "u1", "traits": {"address": {"city": "Graz"}}},
    ),
    (["alias", "u1", "--previous-id", "a1"], {"userId": "u1", "previousId": "a1"}),
]


@pytest.mark.parametrize(("args", "fields"), CALLS, ids=[" ".join(args[:2]) for args, _ in CALLS])
def test_each_call_arrives(
    shell: Shell, serve: Any, args: list[str], fields: dict[str, Any]
) -> None:
    """Each command sends its call with all it was given, waits for the answer and exits with 0."""
    collector, url = serve(write_keys=[KEY])
    more = ["--context", "ip=192.0.2.1", "--context", "page.path=/cart", "--message-id", "m-1"]
    more += ["--integration", "All:=false", "--timestamp", "2026-01-02T03:04:05Z"]
    ran = shell(*args, *more, "--endpoint", url, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.plain["outcome"] == "delivered"
    assert ran.plain["messageId"] == "m-1"
    assert_law(ran.plain["stats"])
    [stored] = collector.events()
    assert (stored.type, stored.verdict) == (args[0], "good")
    assert stored.payload.items() >= fields.items()
    assert stored.payload["integrations"] == {"All": False}
    assert stored.payload["timestamp"] == "2026-01-02T03:04:05.000Z"
    assert stored.payload["context"]["page"] == {"path": "/cart"}


def test_a_delivery_is_told_in_one_line(shell: Shell, serve: Any) -> None:
    """For people one line says what was delivered, where, and how long it took."""
    collector, url = serve()
    ran = shell("track", "Hello", "--user-id", "u1", "--endpoint", url)
    assert (ran.code, ran.err) == (0, "")
    [message_id] = collector.message_ids()
    assert ran.out.startswith(f"delivered track {message_id} to custom in ")
    assert ran.out.endswith("(status 200, 1 attempt)\n")


def test_a_retried_call_is_noted(shell: Shell, serve: Any) -> None:
    """While a call waits for its retry a note says why, and the outcome counts the attempts."""
    collector, url = serve()
    collector.misbehave(503, count=1)
    ran = shell("track", "Hello", "--user-id", "u1", "--endpoint", url, "--json")
    assert ran.code == 0
    assert ran.plain["attempts"] == 2
    assert ran.err.startswith("note: ")
    assert "status 503" in ran.err
    assert_law(ran.plain["stats"])


TRACK = ["track", "Hello", "--user-id", "u1", "--property", f"secret={SECRET}"]


@pytest.mark.parametrize(
    ("fault", "ended", "said"),
    [
        ({"status": 400}, (1, "rejected"), "(status 400)"),
        ({"status": 401}, (1, "rejected"), "refuses the write key (status 401)"),
        ({"status": 413}, (1, "dropped"), "too large"),
        ({"status": 503}, (4, "timed_out"), "--message-id"),
        ({"drop": True}, (4, "timed_out"), "no delivery within 0.3 s"),
    ],
)
def test_the_outcome_is_the_exit_code(
    shell: Shell, serve: Any, fault: dict[str, Any], ended: tuple[int, str], said: str
) -> None:
    """Refused or given up is 1, out of time is 4, and one line says what happened."""
    collector, url = serve()
    collector.misbehave(**fault)
    ran = shell(*TRACK, "--endpoint", url, "--timeout", "0.3", "--json")
    assert (ran.code, ran.plain["outcome"]) == ended
    assert said in ran.err
    assert_one_line_of_error(ran)
    assert_law(ran.plain["stats"])
    assert ran.plain["stats"]["accepted"] == 1


def test_what_the_endpoint_says_is_shown_on_demand(shell: Shell, serve: Any) -> None:
    """An answer may quote the call, so it takes -v to see it; then it cannot steer a terminal."""
    collector, url = serve()
    collector.misbehave(400, body=f"no {SECRET}\x1b[31m here")
    assert_one_line_of_error(shell(*TRACK, "--endpoint", url))
    ran = shell(*TRACK, "--endpoint", url, "-v", "--json")
    assert SECRET in ran.err
    assert "\x1b" not in ran.err
    assert ran.plain["detail"].startswith(f"no {SECRET}")
    assert_law(ran.plain["stats"])


def test_a_disabled_client_is_not_taken_for_a_delivery(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ASYNCANALYTICS_DISABLED nothing is sent, and the exit code says so."""
    monkeypatch.setenv("ASYNCANALYTICS_DISABLED", "1")
    ran = shell(*TRACK, "--endpoint", "http://127.0.0.1:9", "--json")
    assert (ran.code, ran.plain["reason"]) == (1, "disabled")
    assert "ASYNCANALYTICS_DISABLED" in ran.err
    assert_law(ran.plain["stats"])


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["trakc"], 2, "No such command"),
        (["track"], 2, "EVENT"),
        (["track", "Hello", SECRET, "--user-id", "u1"], 2, "quotes"),
        (["track", "Hello", "--colour", SECRET], 2, "--colour"),
        (["track", "Hello", "--property", f"secret={SECRET}"], 2, "user_id"),
        (["track", "", "--user-id", "u1"], 2, "event"),
        ([*TRACK, "--timestamp", SECRET], 2, "timestamp"),
        ([*TRACK, "--property", SECRET], 2, "--property number 2"),
        ([*TRACK, "--property", f"=={SECRET}"], 2, "NAME=TEXT"),
        ([*TRACK, "--property", f"price:={SECRET}"], 2, "--property price"),
        ([*TRACK, "--property", f"deep:={'[' * 100_000}"], 2, "--property deep"),
        ([*TRACK, "--property", f"secret={SECRET}"], 2, "given twice"),
        ([*TRACK, "--property", f"secret.more={SECRET}"], 2, "secret.more"),
        ([*TRACK, "--property", f"long={'x' * 40_000}"], 2, "32,000"),
        ([*TRACK, "--timeout", "0"], 2, "--timeout"),
        (["alias", "u1", "--previous-id", "a1", "--endpoint", "dittofeed@h"], 2, "alias"),
        ([*TRACK, "--endpoint", "nowhere"], 3, "segment, astronomer"),
        ([*TRACK, "--endpoint", "rudderstack"], 3, "rudderstack@https://host"),
        ([*TRACK, "--endpoint", "http://example.com"], 3, "https://"),
        ([*TRACK, "--write-key", f"{SECRET}\n"], 3, "white space"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    shell: Shell, args: list[str], code: int, said: str
) -> None:
    """What is wrong is named, and neither a value nor the key is repeated."""
    ran = shell(*args)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert_one_line_of_error(ran)


def test_a_missing_key_is_named_as_the_shell_knows_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key the error names the variable and the option."""
    monkeypatch.delenv("ASYNCANALYTICS_WRITE_KEY")
    ran = shell(*TRACK)
    assert ran.code == 3
    assert "ASYNCANALYTICS_WRITE_KEY" in ran.err
    assert "--write-key" in ran.err
    assert_one_line_of_error(ran)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (["a=1"], {"a": "1"}),
        (["a:=1"], {"a": 1}),
        (['a:={"b": [true, null]}'], {"a": {"b": [True, None]}}),
        (["a.b.c=1", "a.d=2"], {"a": {"b": {"c": "1"}, "d": "2"}}),
        ([r"a\.b=1"], {"a.b": "1"}),
        (["url=https://example.com/?q:=1"], {"url": "https://example.com/?q:=1"}),
        ([r"a\:=1"], {"a:": "1"}),
        (["a="], {"a": ""}),
        (["naïve name=ü"], {"naïve name": "ü"}),
    ],
)
def test_pairs(given: list[str], made: dict[str, Any]) -> None:
    """= is text, := is JSON, a dot nests, and a backslash takes the meaning away."""
    pytest.importorskip("typer")
    from asyncanalytics.cli import pairs

    assert pairs.parse("--property", given) == made


# --------------------------------------------------------------------------------------- lines


def _lines(*calls: dict[str, Any]) -> str:
    return "".join(json.dumps(each) + "\n" for each in calls)


def test_a_file_of_calls_is_sent(shell: Shell, serve: Any, tmp_path: Path) -> None:
    """Every line of a file arrives, in order, with its payload."""
    collector, url = serve()
    calls = [
        {
            "type": "track",
            "event": "E",
            "userId": "u1",
            "messageId": f"m-{n}",
            "properties": {"n": n},
        }
        for n in range(3_000)
    ]
    file = tmp_path / "calls.jsonl"
    file.write_text(_lines(*calls))
    ran = shell("send", file, "--endpoint", url, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert_law(ran.plain["sum"])
    assert ran.plain["sum"]["delivered"] == ran.plain["sum"]["lines"] == 3_000
    assert sorted(collector.message_ids()) == sorted(each["messageId"] for each in calls)
    assert all(
        each.payload["properties"] == {"n": int(each.payload["messageId"][2:])}
        for each in collector.events()
    )


def test_lines_that_are_no_calls_are_left_out(shell: Shell, serve: Any, tmp_path: Path) -> None:
    """Each bad line is named with its number, the good ones arrive, and the exit code is 2."""
    collector, url = serve()
    file = tmp_path / "calls.jsonl"
    good = '{"type": "page", "anonymousId": "a1", "messageId": "m-%d"}'
    bad = [
        SECRET,
        '{"type": "track", "userId": "u1"}',
        f'{{"type": "{SECRET}"}}',
        "[]",
        "[" * 100_000,
        '{"type": "page", "anonymousId": "' + "x" * 2_000_000 + '"}',
        '{"type": "page", "anonymousId": "a1", "sentAt": "2026-01-02"}',
    ]
    file.write_text("\n".join([good % 1, "", *bad, good % 2]))
    ran = shell("send", file, "--endpoint", url)
    assert ran.code == 2
    numbers = [each.partition(": ")[2].partition(":")[0] for each in ran.err.splitlines()]
    assert numbers == [f"line {n}" for n in range(3, 10)]
    assert SECRET not in ran.err
    assert ran.out.startswith("10 lines: 2 delivered, 0 rejected, 0 dropped, 7 invalid in ")
    assert collector.message_ids() == ["m-1", "m-2"]


def test_many_bad_lines_are_not_all_told(shell: Shell, serve: Any, tmp_path: Path) -> None:
    """A wrong file does not flood the terminal, and --json still tells of each line."""
    _, url = serve()
    file = tmp_path / "calls.jsonl"
    file.write_text("nonsense\n" * 500)
    ran = shell("send", file, "--endpoint", url)
    assert (ran.code, len(ran.err.splitlines())) == (2, 11)
    ran = shell("send", file, "--endpoint", url, "--json")
    assert [json.loads(each)["line"] for each in ran.out.splitlines()[:-1]] == [*range(1, 501)]
    assert_law(ran.plain["sum"])


@pytest.mark.parametrize(
    ("status", "ended"),
    [(400, (1, "rejected", False)), (503, (4, "closed", True))],
)
def test_lines_that_were_not_delivered_are_told(
    shell: Shell, serve: Any, tmp_path: Path, status: int, ended: tuple[int, str, bool]
) -> None:
    """Each call that ends otherwise than delivered is one line of JSON with its line's number."""
    collector, url = serve()
    collector.misbehave(status)
    file = tmp_path / "calls.jsonl"
    file.write_text(_lines(*({"type": "page", "userId": f"u{n}"} for n in range(3))))
    ran = shell("send", file, "--endpoint", url, "--json", "--timeout", "0.3")
    told = [json.loads(each) for each in ran.out.splitlines()[:-1]]
    assert sorted(each["line"] for each in told) == [1, 2, 3]
    [reason] = {each["reason"] for each in told}
    assert (ran.code, reason, ran.plain["sum"]["timed_out"]) == ended
    assert_law(ran.plain["sum"])


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_input_that_cannot_be_read(shell: Shell, tmp_path: Path, name: str) -> None:
    """A file that is not there, or is a folder, is one line of error and 2."""
    ran = shell("send", tmp_path / name)
    assert (ran.code, ran.out) == (2, "")
    assert_one_line_of_error(ran)


# ------------------------------------------------------------------------------------- look up


def test_every_system_is_listed(shell: Shell) -> None:
    """The table has every name that can be given, and fits into 80 columns."""
    ran = shell("endpoints")
    assert (ran.code, ran.err) == (0, "")
    assert max(map(len, ran.out.splitlines())) <= 80
    first_words = {line.split(" ")[0] for line in ran.out.splitlines()}
    assert {name.partition("@")[0] for name in first_words} >= set(endpoints.names())


def test_the_list_for_machines_can_be_given_back(shell: Shell) -> None:
    """Each line's `endpoint` is what --endpoint takes, and the rest is what that stands for."""
    ran = shell("endpoints", "--json")
    rows = [json.loads(each) for each in ran.out.splitlines()]
    specs = [each["endpoint"] for each in rows]
    assert {"segment", "segment@eu", "astronomer@single", "customerio@eu"} < set(specs)
    assert {each.partition("@")[0] for each in specs} == set(endpoints.names())
    for row in rows:
        known = endpoints.parse(row["endpoint"])
        assert row["base"] == known.base
        assert (row["batch_path"], row["auth"]) == (known.batch_path, known.auth)
        assert row["refuses"] == sorted(known.refuses)


@pytest.mark.parametrize("args", [[], ["--help"], ["track", "--help"], ["collect", "-h"]])
def test_help_names_the_exit_codes(shell: Shell, args: list[str]) -> None:
    """Help is within reach everywhere, ends well, and documents what a script can rely on."""
    ran = shell(*args)
    assert (ran.code, ran.err) == (0, "")
    assert "Exit codes: 0 done" in ran.out
    assert "130 interrupted" in " ".join(ran.out.split())


def test_the_version_is_said(shell: Shell) -> None:
    """--version names the program and its version."""
    assert shell("--version") == (0, f"asyncanalytics {asyncanalytics.__version__}\n", "")


# ----------------------------------------------------------------------------- real processes


@contextlib.contextmanager
def start(*args: object, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command line as a process of its own, where Ctrl-C does what it does in a shell."""
    variables = {"ASYNCANALYTICS_WRITE_KEY": KEY, "PYTHONUNBUFFERED": "1"} | environ
    with subprocess.Popen(  # noqa: S603 - it is our own
        [sys.executable, "-m", "asyncanalytics", *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
        cwd=Path(asyncanalytics.__file__).parents[1],
        preexec_fn=_listen_to_ctrl_c if os.name == "posix" else None,  # noqa: PLW1509
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _listen_to_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def collecting(*args: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `collect --json` on a free port, and give its process and its address."""
    pytest.importorskip("typer")
    pytest.importorskip("uvicorn")
    with start("collect", "--port", 0, "--json", *args) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield process, json.loads(line)["listening"]


def read(url: str) -> Any:
    """Get JSON from a collector."""
    with urlopen(url, timeout=5) as answer:  # noqa: S310 - it is our own
        return json.load(answer)


@POSIX
def test_collect_collects_until_it_is_told_to_end(shell: Shell) -> None:
    """It says where it listens, takes calls, shows them as they come, and ends with its figures."""
    with collecting("--tail") as (process, url):
        ran = shell("track", "Hello", "--user-id", "u1", "--endpoint", url, "--json")
        assert ran.code == 0
        assert_law(ran.plain["stats"])
        assert process.stdout is not None
        shown = json.loads(process.stdout.readline())
        assert shown["message_id"] == ran.plain["messageId"]
        assert read(f"{url}/events")["events"] == [shown]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (0, "")
        assert json.loads(out)["stats"]["good"] == 1


@pytest.mark.long
@POSIX
def test_collect_misbehaves_on_demand(shell: Shell) -> None:
    """The options for faults reach the requests, and a key that is not let in is refused."""
    faults = ("--fail-status", 503, "--fail-count", 1)
    with collecting(*faults, "--write-key", KEY) as (process, url):
        ran = shell("track", "Hello", "--user-id", "u1", "--endpoint", url, "--json")
        assert (ran.code, ran.plain["attempts"]) == (0, 2)
        assert_law(ran.plain["stats"])
        ran = shell(*TRACK, "--endpoint", url, "--write-key", "another", "--json")
        assert (ran.code, ran.plain["status"]) == (1, 401)
        assert_law(ran.plain["stats"])
        assert read(f"{url}/stats")["answers"] == {"200": 1, "401": 1, "503": 1}
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=10)
        assert process.returncode == 0
        assert err == "note: this collector misbehaves: answers 503, 1 times\n"


@pytest.mark.long
@POSIX
def test_collect_keeps_a_file(shell: Shell, tmp_path: Path) -> None:
    """With --path what was collected is there again, and without --json people can read it."""
    path = tmp_path / "events.db"
    with collecting("--path", path) as (process, url):
        assert shell("page", "Home", "--user-id", "u1", "--endpoint", url).code == 0
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    with start("collect", "--port", 0, "--path", path, "--tail") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[2]
        assert len(read(f"{url}/events")["events"]) == 1
        assert shell("track", "Hello\x1b[31m", "--user-id", "u2", "--endpoint", url).code == 0
        shown = next(each for each in process.stdout if " good " in each)
        assert "u2  Hello\N{REPLACEMENT CHARACTER}[31m" in shown
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (0, "")
        assert out == "2 requests, 2 events (2 good, 0 bad)\n"


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({}, None),
        ({"status": 500}, {"status": 500}),
        ({"delay": 2.0}, {"status": None, "delay": 2.0}),
        ({"delay": 2.0, "share": 0.5}, {"status": None, "delay": 2.0, "share": 0.5}),
        ({"delay": 2.0, "retry_after": "5"}, {"status": 503, "delay": 2.0, "retry_after": "5"}),
        ({"share": 0.1}, {"status": 503, "share": 0.1}),
        ({"count": 2}, {"status": 503, "count": 2}),
        ({"drop": True, "after": True}, {"status": 503, "drop": True, "after": True}),
    ],
)
def test_faults_are_what_the_options_mean(
    given: dict[str, Any], made: dict[str, Any] | None
) -> None:
    """A delay alone is a slow but right answer; whatever else is asked for, 503 is the default."""
    pytest.importorskip("typer")
    from asyncanalytics.cli import collect as room

    nothing: dict[str, Any] = {"status": None, "delay": 0.0, "retry_after": None, "share": 1.0}
    nothing |= {"drop": False, "count": None, "after": False}
    expected = None if made is None else nothing | made
    assert room._fault(**nothing | given) == expected


def test_collect_refuses_what_cannot_work(shell: Shell, tmp_path: Path) -> None:
    """A taken port, an unusable file and an impossible fault are one line of error each."""
    pytest.importorskip("uvicorn")
    other = tmp_path / "notes.txt"
    other.write_text("not a database, and longer than the header of one" * 40)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for args, code, said in (
            (["--port", port], 3, f"cannot listen on 127.0.0.1 port {port}: "),
            (["--port", 0, "--path", tmp_path / "no" / "x.db"], 3, "--path"),
            (["--port", 0, "--path", other], 3, "another path"),
            (["--port", 0, "--host", "0.0.0.0"], 3, "--write-key"),  # noqa: S104
            (["--port", 0, "--token", "short"], 3, "at least 16 characters"),
            (["--port", 0, "--fail-share", 3], 2, "share"),
            (["--port", 0, "--fail-status", 99], 2, "status"),
            (["--port", 99_999], 2, "--port"),
        ):
            ran = shell("collect", *args)
            assert (ran.code, ran.out) == (code, "")
            assert said in ran.err
            assert_one_line_of_error(ran)


def test_calls_come_through_a_pipe(serve: Any) -> None:
    """`send -` reads standard input, and the key need not be on the command line."""
    pytest.importorskip("typer")
    collector, url = serve(write_keys=[KEY])
    calls = _lines(*({"type": "page", "userId": f"u{n}"} for n in range(50)))
    with start("send", "-", "--json", ASYNCANALYTICS_ENDPOINT=url) as process:
        out, err = process.communicate(calls.removesuffix("\n"), timeout=20)
    assert (process.returncode, err) == (0, "")
    plain = json.loads(out)["sum"]
    assert_law(plain)
    assert plain["delivered"] == len(collector.message_ids()) == 50


@POSIX
def test_ctrl_c_while_a_pipe_is_silent(serve: Any) -> None:
    """What has come through is delivered, the sum is told, and the exit code is 130."""
    pytest.importorskip("typer")
    collector, url = serve()
    with start("send", "-", "--json", "--endpoint", url) as process:
        assert process.stdin is not None
        process.stdin.write(_lines({"type": "page", "userId": "u1"}))
        process.stdin.flush()
        while not collector.stats().good:
            threading.Event().wait(0.01)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stderr is not None
        out, err = process.stdout.read(), process.stderr.read()
        assert (process.wait(timeout=10), err) == (130, "")
        assert_law(json.loads(out)["sum"])
        assert json.loads(out)["sum"]["delivered"] == 1


WITHOUT = "import sys; sys.modules[{name!r}] = None; sys.argv[1:] = {args!r}; "
WITHOUT += "from asyncanalytics.__main__ import main; sys.exit(main())"


@pytest.mark.parametrize(
    ("name", "args", "extra"),
    [
        ("typer", ["--help"], "cli"),
        ("rich", ["track", "Hello"], "cli"),
        ("uvicorn", ["demo"], "collector"),
    ],
)
def test_a_missing_extra_is_named(name: str, args: list[str], extra: str) -> None:
    """Without its packages a command says in one line what to install, and exits with 3."""
    if extra == "collector":
        pytest.importorskip("typer")
    code = WITHOUT.format(name=name, args=args)
    folder = Path(asyncanalytics.__file__).parents[1]
    ran = subprocess.run(  # noqa: S603 - it is our own
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder
    )
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.endswith(f"run pip install 'asyncanalytics[{extra}]'\n")
    assert ran.stderr.count("\n") == 1
