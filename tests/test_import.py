"""What `import asyncanalytics` leaves for later, and that no event loop waits for it then."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import asyncanalytics
from asyncanalytics import destinations

ROOT = Path(asyncanalytics.__file__).parents[1]

HEAVY = (
    "pydantic.main",
    "anyio._backends._asyncio",
    "httpcore",
    "h2",
    "asyncanalytics.calls",
)
SENDING = ("anyio._backends._asyncio", "httpcore._backends.anyio")

PRELUDE = """
import asyncio, os, sys, threading, time
import asyncanalytics
from asyncanalytics import AsyncClient, BaseDestination, Sending

NOWHERE = "http://127.0.0.1:9"

def loaded(*names):
    return [name for name in names if name in sys.modules]
"""


def run(script: str) -> str:
    """Run a script in a process of its own, and return what it prints."""
    done = subprocess.run(  # noqa: S603 - the command is written here
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# ------------------------------------------------------------------------------------- the names


def test_the_import_leaves_out_what_takes_long() -> None:
    """Neither pydantic's models nor what httpx needs to send is imported with the package."""
    assert run(f"print(loaded{HEAVY})") == "[]"


def test_names_that_come_later_are_there() -> None:
    """All that is public can be named, and is listed before it is."""
    script = """
        import asyncanalytics.destinations as destinations
        assert not set(asyncanalytics.__all__) - set(dir(asyncanalytics))
        assert not set(destinations.__all__) - set(dir(destinations))
        assert asyncanalytics.calls.Track is asyncanalytics.Track
        assert asyncanalytics.sync.Client is asyncanalytics.Client
        assert destinations.SqliteDestination is asyncanalytics.SqliteDestination
        names = {}
        exec("from asyncanalytics import *", names)
        assert not set(asyncanalytics.__all__) - set(names)
    """
    run(script)


@pytest.mark.parametrize("package", [asyncanalytics, destinations], ids=["face", "destinations"])
def test_a_name_that_is_not_there_is_missing(package: object) -> None:
    """It raises as for any module, and the one that was meant can be suggested."""
    with pytest.raises(AttributeError, match=r"has no attribute 'Trak'") as caught:
        _ = package.Trak  # type: ignore[attr-defined]
    assert (caught.value.name, caught.value.obj) == ("Trak", package)


# --------------------------------------------------------------------------- where it is imported

CLIENTS = {
    "http": "AsyncClient('key', endpoint=NOWHERE)",
    "https": "AsyncClient('key', endpoint='https://127.0.0.1:9')",
    "http2": "AsyncClient('key', endpoint=NOWHERE, sending=Sending(http2=True))",
    "aiohttp": "AsyncClient('key', endpoint=NOWHERE, sending=Sending(http_library='aiohttp'))",
    "disabled": "AsyncClient('key', disabled=True)",
    "http_client": "AsyncClient('key', endpoint=NOWHERE, sending=Sending(http_client=OWN))",
    "sync": "Client('key', endpoint=NOWHERE, shutdown_timeout=0.0)",
}
# What a program has that is about to make such a client; it may bring some of it already.
BEFORE = {
    "http_client": "import httpx; OWN = httpx.AsyncClient()",
    "sync": "from asyncanalytics import Client",
}
IMPORTED_HERE = """
{before}
here, found, watching = threading.get_ident(), [], False

def watch(event, arguments):
    if watching and event == "import" and threading.get_ident() == here:
        found.append(arguments[0])

sys.addaudithook(watch)

def make():
    return {make}

client = make() if {outside} else None

async def main():
    global client, watching
    await asyncio.sleep(0.01)
    watching = True
    client = client or make()
    if isinstance(client, AsyncClient):
        async with client:
            client.track_nowait("e", user_id="u", properties={{"a": {{1}}}})
            await asyncio.sleep(0.05)
            assert (await client.aclose(0)).is_balanced
    else:
        client.track("e", user_id="u", properties={{"a": {{1}}}})
        assert client.close().is_balanced
    watching = False

asyncio.run(main())
print([name for name in found if name.split(".")[0] in {heavy}])
"""


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("outside", [False, True], ids=["on the loop", "outside of it"])
def test_no_loop_imports_what_takes_long(kind: str, *, outside: bool) -> None:
    """From the making of a client to its end, its loop's thread imports none of it."""
    if kind == "aiohttp":
        pytest.importorskip("aiohttp")
    heavy = {
        "aiohttp",
        "anyio",
        "concurrent",
        "h2",
        "h11",
        "hpack",
        "httpcore",
        "hyperframe",
        "pydantic",
        "yarl",
    }
    before = BEFORE.get(kind, "")
    script = IMPORTED_HERE.format(make=CLIENTS[kind], before=before, outside=outside, heavy=heavy)
    assert run(script) == "[]"


def test_a_client_that_is_made_outside_of_a_loop_has_all_of_it() -> None:
    """So forks of its process share it, and its start finds it there."""
    script = f"""
        AsyncClient("key", disabled=True)
        print(loaded{SENDING})
    """
    assert run(script) == str([*SENDING])


def test_forks_wait_for_what_takes_long() -> None:
    """A fork that comes amid one of these imports, or the reading of certificates, waits for it."""
    script = """
        import httpx
        from asyncanalytics import forks

        within = {}

        def watch(event, arguments):
            if event == "import" and arguments[0] in WATCHED:
                within[arguments[0]] = forks.loads.gate._is_owned()

        def create(*args, make=httpx.create_ssl_context):
            within["certificates"] = forks.loads.gate._is_owned()
            return make(*args)

        WATCHED = {"anyio._backends._asyncio", "httpcore._backends.anyio", "aiohttp"}
        sys.addaudithook(watch)
        httpx.create_ssl_context = create

        async def main():
            async with AsyncClient("key", sending=Sending(http_library="aiohttp")) as client:
                assert client.stats().is_balanced

        asyncio.run(main())
        assert set(within) == {*WATCHED, "certificates"}, within
        print(all(within.values()))
    """
    pytest.importorskip("aiohttp")
    assert run(script) == "True"


def test_a_client_with_middleware_has_the_models() -> None:
    """They are there before the first call, which might come on a loop."""
    script = """
        AsyncClient("key", disabled=True)
        assert not loaded("pydantic.main", "asyncanalytics.calls")
        AsyncClient("key", disabled=True, middleware=[lambda call: call])
        print(loaded("asyncanalytics.calls"))
    """
    assert run(script) == "['asyncanalytics.calls']"


SLOWLY = """
from importlib.abc import MetaPathFinder

reached = threading.Event()

class Slow(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "httpcore":
            intervals.append(sys.getswitchinterval())
            reached.set()
            time.sleep(0.3)

intervals = []
sys.meta_path.insert(0, Slow())

async def live():
    async with AsyncClient("key", endpoint=NOWHERE) as client:
        assert (await client.aclose(0)).is_balanced
"""


def test_threads_take_shorter_turns_meanwhile() -> None:
    """The loop waits less long for its turn, and after it all is as it was."""
    script = """
        usual = sys.getswitchinterval()
        asyncio.run(live())
        assert intervals == [0.001] < [usual]
        assert sys.getswitchinterval() == usual
    """
    run(SLOWLY + textwrap.dedent(script))


def test_a_program_that_sets_the_turns_meanwhile_keeps_its_own() -> None:
    """What it has set is not taken back."""
    script = """
        def set_it():
            reached.wait()
            sys.setswitchinterval(0.002)

        thread = threading.Thread(target=set_it)
        thread.start()
        asyncio.run(live())
        thread.join()
        assert sys.getswitchinterval() == 0.002
    """
    run(SLOWLY + textwrap.dedent(script))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_that_is_forked_meanwhile_can_start_a_client() -> None:
    """A fork waits for the import's end: a child would find it locked for ever."""
    script = """
        import signal, warnings
        warnings.simplefilter("ignore")  # of forks in programs with threads

        def fork():
            reached.wait()
            pid = os.fork()
            if not pid:
                signal.alarm(20)
                asyncio.run(live())
                os._exit(0)
            statuses.append(os.waitpid(pid, 0)[1])

        statuses = []
        thread = threading.Thread(target=fork)
        thread.start()
        asyncio.run(live())
        thread.join()
        assert statuses == [0]
    """
    run(SLOWLY + textwrap.dedent(script))


def test_a_start_needs_no_thread_of_its_loop() -> None:
    """All of those may be taken for long, and a client starts beside them."""
    script = """
        from concurrent.futures import ThreadPoolExecutor

        async def main():
            free = threading.Event()
            loop = asyncio.get_running_loop()
            loop.set_default_executor(ThreadPoolExecutor(1))
            taken = loop.run_in_executor(None, free.wait)
            await asyncio.wait_for(live(), 20)
            free.set()
            await taken

        asyncio.run(main())
    """
    run(SLOWLY + textwrap.dedent(script))


HANDLED = """
import signal

def handle(*_):
    client = asyncanalytics.Client("key", endpoint=NOWHERE, shutdown_timeout=0.1)
    client.track("e", user_id="u")
    assert client.close().is_balanced
    handled.append(loaded("httpcore._backends.anyio"))

handled = []
signal.signal(signal.SIGINT, handle)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals come otherwise there")
def test_a_signal_handler_can_use_a_client_meanwhile() -> None:
    """It comes into the main thread, which waits for the import, and waits for its own client."""
    script = """
        def interrupt():
            reached.wait()
            signal.raise_signal(signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        AsyncClient("key", disabled=True)
        thread.join()
        assert handled == [["httpcore._backends.anyio"]]
    """
    run(SLOWLY + HANDLED + textwrap.dedent(script))


def test_the_sync_client_has_all_of_it_once_it_is_named() -> None:
    """A handler that uses one waits for no import that it may have come into the midst of."""
    script = f"""
        from asyncanalytics import Client
        print(loaded{SENDING})
    """
    assert run(script) == str([*SENDING])


# ------------------------------------------------------------------------------ names, in bad times


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 2), reason="this Python starts no thread any more then"
)
def test_the_sync_client_can_be_named_when_the_main_thread_has_ended() -> None:
    """Threads that outlive it may be the first that need one."""
    script = """
        def outlive():
            threading.main_thread().join()
            client = asyncanalytics.Client("key", endpoint=NOWHERE, shutdown_timeout=0.1)
            client.track("e", user_id="u")
            print(client.close().is_balanced)

        threading.Thread(target=outlive).start()
    """
    assert run(script) == "True"


def test_what_a_test_has_put_in_a_name_s_place_goes_again() -> None:
    """It does not stay because the name was used for the first time then."""
    script = """
        from unittest import mock

        with mock.patch("asyncanalytics.sync.Client") as fake:
            assert asyncanalytics.Client is fake
        assert asyncanalytics.Client is asyncanalytics.sync.Client is not fake
    """
    run(script)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.parametrize(
    "need",
    ["asyncanalytics.Track", "AsyncClient('key', disabled=True, middleware=[print])"],
    ids=["name", "middleware"],
)
def test_a_child_that_is_forked_amid_a_late_import_has_it(need: str) -> None:
    """A fork waits for the end of that one too."""
    script = f"""
        import signal, warnings
        warnings.simplefilter("ignore")  # of forks in programs with threads

        def name():
            {need}

        thread = threading.Thread(target=name)
        thread.start()
        reached.wait()
        pid = os.fork()
        if not pid:
            signal.alarm(20)
            name()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        thread.join()
    """
    run(SLOWLY.replace('"httpcore"', '"asyncanalytics.calls"') + textwrap.dedent(script))


@pytest.mark.skipif(sys.platform == "win32", reason="signals come otherwise there")
def test_a_handler_that_comes_amid_the_same_import_does_not_wait_for_ever() -> None:
    """The program imports what a client needs itself, and a handler makes its first client."""
    script = """
        import signal
        from asyncanalytics.transport import loading

        def handle(*_):
            AsyncClient("key", disabled=True)
            handled.append(loaded("httpcore._backends.anyio"))

        class Interrupted(MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name == "httpcore._api" and not handled:
                    signal.raise_signal(signal.SIGINT)

        loading._PATIENCE = 0.1
        handled = []
        signal.signal(signal.SIGINT, handle)
        sys.meta_path.insert(0, Interrupted())
        import httpcore
        assert handled == [[]]
        asyncio.run(live())
    """
    run(SLOWLY + textwrap.dedent(script))
