"""Keys and payloads are shown nowhere: the direct cases. `canaries.py` watches the whole suite."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
import subprocess
import sys
import traceback
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import BaseModel, field_serializer

from asyncanalytics import (
    AsyncClient,
    Client,
    ConfigurationError,
    Destination,
    FileDestination,
    InvalidCall,
    NotStarted,
    OAuth,
    QueueFull,
    Queueing,
    Retrying,
    Sending,
    Track,
    Unserialisable,
    analytics,
    bound_context,
    endpoints,
)
from asyncanalytics.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from canaries import Watch
    from conftest import Lab, Live

BAD_KEY = "a-bad-key-that-opens-nothing\n"


def shown(error: BaseException) -> str:
    """Return all that a tool which reports errors could show of the package's part in one."""
    found = traceback.TracebackException.from_exception(error, capture_locals=True)
    said: list[str] = []
    while found is not None:
        said += [*found.format_exception_only(), repr(error.args)]
        for frame in found.stack:
            if "asyncanalytics" in Path(frame.filename).parts:
                said += [f"{name} = {value}" for name, value in (frame.locals or {}).items()]
        found = found.__cause__ or found.__context__  # type: ignore[assignment]
    return "\n".join(said)


class Careless(BaseModel):
    """A model whose own code fails, and tells of the value."""

    secret: str

    @field_serializer("secret")
    def tell(self, value: str) -> str:
        """Fail."""
        raise ValueError(f"cannot write {value}")


class Broken:
    """A value whose text fails, and tells of itself."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __fspath__(self) -> str:
        raise RuntimeError(f"no path for {self.text}")


# ------------------------------------------------------------------------------------- the watch


def test_the_watch_sees(no_canary_shows: Watch, lab: Lab) -> None:
    """Each of its eyes is open: what is shown on purpose is found."""
    logging.getLogger("somebody.else").debug("not made: %s", lab.KEY)
    assert no_canary_shows.verdict() == []
    logging.getLogger("somebody.else").error("the key is %s", lab.KEY)
    logging.getLogger("asyncanalytics").debug("%d", 1, extra={"x": 1})
    assert "a record of somebody.else" in no_canary_shows.verdict()[0]
    no_canary_shows.look_through(Track(event="x", user_id=1, message_id=lab.MARK))
    assert "the repr of Track" in no_canary_shows.verdict()[0]
    no_canary_shows.look_at_error("here", InvalidCall("track", lab.MARK, "is wrong"))
    assert "here, InvalidCall" in no_canary_shows.verdict()[0]


def test_the_watch_sees_what_leaves_the_package(no_canary_shows: Watch, lab: Lab) -> None:
    """An error that comes out of the package with a payload in a frame of its is found."""
    found: dict[str, Any] = {"__name__": "asyncanalytics.somewhere", "error": InvalidCall}
    source = "def fail(secret):\n    raise error('track', 'a', 'b')\n"
    exec(compile(source, "asyncanalytics/somewhere.py", "exec"), found)  # noqa: S102 - written above
    with pytest.raises(InvalidCall):
        found["fail"](lab.MARK)
    assert "local secret" in no_canary_shows.verdict()[0]


# ------------------------------------------------------------------------------------------ keys


@pytest.mark.parametrize(
    "make",
    [
        AsyncClient,
        lambda key: AsyncClient(key, endpoint="nowhere"),
        lambda key: AsyncClient(key, destinations=[]),
        Client,
        lambda key: Client(key, endpoint="nowhere"),
        Destination,
        lambda key: Destination(key, name="All"),
        lambda key: Destination(key.encode()),
        analytics.Client,
        lambda key: analytics.Client(key, host="nowhere"),
        lambda key: analytics.Client("k", oauth_client_key=key),
    ],
)
def test_a_constructor_that_fails_shows_no_key(make: Callable[[Any], object]) -> None:
    """Not in the message, and not in the locals of any frame of the package."""
    with pytest.raises(ConfigurationError) as caught:
        make(BAD_KEY)
    assert BAD_KEY.strip() not in shown(caught.value)


def test_the_drop_ins_module_shows_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is a global of the module, and a failing first call does not show it."""
    monkeypatch.setattr(analytics, "default_client", None)
    monkeypatch.setattr(analytics, "write_key", BAD_KEY)
    with pytest.raises(ConfigurationError) as caught:
        analytics.track("u", "Ordered", {"a": 1})
    assert BAD_KEY.strip() not in shown(caught.value)


async def test_a_request_that_fails_shows_neither_key_nor_call(lab: Lab) -> None:
    """Whatever a user's own HTTP client raises, and where the task is cancelled in the middle."""

    async def fail(request: httpx.Request) -> None:
        raise LookupError(request.url.host)

    own = httpx.AsyncClient(event_hooks={"request": [fail]})
    destination = Destination(lab.KEY, endpoint=endpoints.custom("http://127.0.0.1:9"))
    client = lab.client(destinations=[destination], sending=Sending(http_client=own))
    async with client, own:
        receipt = (await lab.track(client))[0]
        await asyncio.sleep(0.01)
        await client.aclose(0)
    assert (await receipt.settled()).reason == "closed"


def test_a_secret_shows_nothing() -> None:
    """Neither by its repr nor by a pickle; a copy of it is itself."""
    secret = Secret("it")
    assert (repr(secret), str(secret), f"{[secret]}") == ("<Secret>", "<Secret>", "[<Secret>]")
    assert copy.copy(secret) is copy.deepcopy(secret) is secret
    assert Secret(secret).text() == "it"
    with pytest.raises(TypeError, match="holds a key or calls"):
        pickle.dumps(secret)


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
async def test_what_is_alive_is_not_copied(lab: Lab, copied: Callable[[object], object]) -> None:
    """Clients, receipts and destinations say where they belong."""
    async with lab.client(lab.script()) as client:
        receipt = (await lab.track(client))[0]
        plain, drop_in = Client(lab.KEY), analytics.Client(lab.KEY)
        alive = (client, client.bind(user_id=1), receipt, plain, drop_in, Destination(lab.KEY))
        for each in alive:
            with pytest.raises(TypeError, match=f"a {type(each).__name__} holds a key or calls"):
                copied(each)


# ----------------------------------------------------------------------------------------- calls

BAD_CALLS: list[dict[str, Any]] = [
    {"context": {"ip": {}}},
    {"timestamp": "never"},
    {"message_id": ""},
    {"user_id": ""},
    {"properties": 1},
    {"properties": "ODD"},
    {"properties": "BROKEN"},
    {"properties": "CARELESS"},
    {"properties": "NESTED"},
    {"properties": "LARGE"},
]


def spoilt(mark: str, bad: dict[str, Any]) -> dict[str, Any]:
    """Return a call's fields with a mark all over them and one thing wrong."""
    deep: dict[str, Any] = {"mark": mark}
    for _ in range(300):
        deep = {"mark": mark, "in": deep}
    made: dict[str, object] = {
        "BROKEN": {"mark": mark, "a": Broken(mark)},
        "CARELESS": Careless(secret=mark),
        "NESTED": deep,
        "LARGE": {"mark": mark * 2_000},
        "ODD": {"mark": mark, "a": object()},
    }
    context = {"traits": {"mark": mark}, **bad.get("context", {})}
    whole = {"user_id": mark, "properties": {"mark": mark}, **bad, "context": context}
    if isinstance(whole["properties"], str):
        whole["properties"] = made[whole["properties"]]
    return whole


@pytest.fixture
def verbs(lab: Lab) -> Iterator[dict[str, Any]]:
    """Every way to make a call, by name; the sync ones are of clients that send nothing."""
    with Client(lab.KEY, disabled=True) as plain:
        drop_in = analytics.Client(lab.KEY, send=False)
        yield {
            "plain": lambda **f: plain.track("Ordered", **f),
            "plain send": lambda **f: plain.send(Track(event="Ordered", **f)),
            "drop-in": lambda user_id, **f: drop_in.track(user_id, "Ordered", **f),
        }
        drop_in.join()


@pytest.mark.parametrize("bad", BAD_CALLS)
async def test_a_call_that_is_refused_shows_no_payload(
    lab: Lab, verbs: dict[str, Any], bad: dict[str, Any]
) -> None:
    """By whatever verb, with and without middleware: the frames are there and hold nothing."""
    plain = lab.client(lab.script())
    model = lab.client(lab.script(), middleware=[lambda call: call])
    async with plain, model:
        bound = plain.bind(context={"traits": {"mark": lab.MARK}})
        verbs |= {f"{n} nowait": each.track_nowait for n, each in enumerate((plain, model, bound))}
        for name, verb in verbs.items():
            given = ("Ordered",) if "nowait" in name else ()
            if name == "plain send":
                continue
            with pytest.raises((InvalidCall, Unserialisable)) as caught:
                verb(*given, **spoilt(lab.MARK, bad))
            assert lab.MARK not in shown(caught.value), name
            assert caught.value.__context__ is None
        for client in (plain, model, bound):
            with pytest.raises(InvalidCall) as caught:
                await client.track("Ordered", **spoilt(lab.MARK, bad))
            assert lab.MARK not in shown(caught.value)
            frames = traceback.extract_tb(caught.value.__traceback__)
            assert frames[-1].filename != __file__  # where it was found is still told


async def test_what_the_caller_was_handling_is_still_told(lab: Lab) -> None:
    """A refusal within a handler keeps the error that was being handled as its context."""

    async def handle() -> None:
        try:
            {}["of the caller's own"]
        except LookupError:
            await client.track("", user_id="u")

    async with lab.client(lab.script()) as client:
        with pytest.raises(InvalidCall) as caught:
            await handle()
    assert isinstance(caught.value.__context__, LookupError)
    assert not caught.value.__suppress_context__


async def test_a_full_queue_and_a_cancelled_wait_show_no_payload(lab: Lab) -> None:
    """Nor does what comes out of a verb that waits."""
    server = lab.script(then=lab.reply(200, delay=0.2))
    async with lab.client(server, queueing=Queueing(max_events=1)) as client:
        await lab.track(client)
        with pytest.raises(QueueFull) as full:
            client.track_nowait("Ordered", user_id="u", properties={"mark": lab.MARK})
        waiting = asyncio.create_task(
            client.track("Ordered", user_id="u", properties={"mark": lab.MARK})
        )
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await waiting
    assert lab.MARK not in shown(full.value) + shown(cancelled.value)


def test_a_model_shows_what_it_has_and_not_what_that_says(lab: Lab) -> None:
    """A call in a log line or a frame of a middleware says which fields are set."""
    call = Track(
        event="Ordered",
        user_id=lab.MARK,
        properties={"mark": lab.MARK},
        context={"ip": lab.MARK, "more": lab.MARK},  # type: ignore[arg-type]
        more=lab.MARK,  # type: ignore[call-arg]
    )
    assert lab.MARK not in f"{call!r} {call!s} {call.context!r}"
    assert repr(call) == (
        "Track(type='track', user_id=…, context=…, event='Ordered', properties=…, more=…)"
    )
    assert call.wire()["properties"] == {"mark": lab.MARK}


async def test_a_file_that_cannot_be_written_shows_no_payload(lab: Lab, tmp_path: Path) -> None:
    """An error of the disk leaves its thread without the lines that were to be written."""
    destination = FileDestination(tmp_path / "missing" / "a.jsonl")
    async with lab.client(destinations=[destination], shutdown_timeout=0.05) as client:
        await lab.track(client, 3)
        await asyncio.sleep(0.02)


# ------------------------------------------------------------------------------------- the shell

CHILD = """
import logging, sys
logging.basicConfig(level=logging.NOTSET)
sys.argv = ["asyncanalytics", "track", "Ordered", "--user-id", "u", "--write-key", {key!r},
            "--property", {mark!r}, "--endpoint", {url!r}, "--timeout", "5"]
from asyncanalytics.__main__ import main
main()
"""


@pytest.mark.long
def test_the_command_line_shows_neither(live: Live, lab: Lab) -> None:
    """Not even with every log record of every library, and asyncio in debug mode."""
    pytest.importorskip("typer")
    source = CHILD.format(key=lab.KEY, mark=f"mark={lab.MARK}", url=live.url)
    done = subprocess.run(  # noqa: S603 - the command is written above
        [sys.executable, "-X", "dev", "-c", source],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=live.environ,
    )
    assert done.returncode == 0, done.stderr
    assert "DEBUG:httpcore" in done.stderr
    assert lab.MARK not in done.stdout + done.stderr
    assert [event["properties"] for event in live.wait_for(1)] == [{"mark": lab.MARK}]


def test_an_error_keeps_nothing_alive(lab: Lab) -> None:
    """No frame holds the error that holds it: what the caller had goes when the caller does."""

    class Held:
        pass

    def call() -> weakref.ref[Held]:
        held = Held()
        client = AsyncClient(lab.KEY)
        with suppress(NotStarted):
            client.track_nowait("Ordered", user_id="u1")
        return weakref.ref(held)

    gc.disable()
    try:
        found = [call() for _ in range(10)]
        assert [each() for each in found] == [None] * 10
    finally:
        gc.enable()


async def test_one_error_raised_again_and_again(lab: Lab) -> None:
    """A user's own client may raise the same object each time: other tasks that met it go on."""
    single = ConnectionError("the circuit is open")
    went_on = asyncio.Event()

    async def refuse(_: object) -> None:
        raise single

    async def other() -> None:
        try:
            await refuse(None)
        except ConnectionError:
            await went_on.wait()

    http = httpx.AsyncClient(event_hooks={"request": [refuse]})
    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    retrying = Retrying(base=0, cap=0, max_attempts=2)
    async with lab.client(lab.script(), sending={"http_client": http}, retrying=retrying) as client:
        (receipt,) = await lab.track(client)
        assert (await receipt.settled()).reason == "expired"
    went_on.set()
    await task
    await http.aclose()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Track(event="", user_id="u1"),
        lambda: OAuth(client_id="id", key_id="key", private_key="wrong"),
        lambda: AsyncClient("key", endpoint="nowhere"),
    ],
    ids=["a call", "OAuth", "a client"],
)
def test_what_is_half_made_can_be_shown(make: Callable[[], object]) -> None:
    """Tools that report an error ask each local for its repr, also those of a constructor."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - each has its own
        make()
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert "repr() failed" not in "".join(shown.format())


async def test_what_is_bound_does_not_show(lab: Lab) -> None:
    """A context that is wrong is refused without the others' values."""
    context = {"traits": {"mark": lab.MARK}, "page": 3}
    async with lab.client(lab.script()) as client:
        with pytest.raises(ConfigurationError, match="page"):
            client.bind(user_id="u1", context=context)
        with pytest.raises(ConfigurationError, match="page"), bound_context(context=context):
            pass
        with pytest.raises(InvalidCall):
            await client.page("", category=lab.MARK)
