"""The suite's canaries: texts that may be sent, and shown nowhere.

The tests' clients have the key `KEY`, and the calls that the laboratory makes carry the property
`MARK`. While a test runs, whatever could show them is looked at: each log record of whatever
logger, each warning, what is printed, each error that leaves the package, with its chain and the
locals of the package's frames, and the names of the files that are made. At a laboratory's end
each object of its clients is asked for its repr, and pickled where it can be.
"""

from __future__ import annotations

import base64
import dataclasses
import logging
import pickle
import subprocess
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import CodeType, TracebackType

KEY = "a-key-that-opens-nothing"
MARK = "a-value-that-no-log-line-shows"

PACKAGE = "asyncanalytics"
# What they write is the users' own: a server that stores and shows what it gets, and its page.
_SHOWS = (f"{PACKAGE}.collector", f"{PACKAGE}.cli")
# These tell of requests at the lowest level. Their records are made, looked at, and go no further.
_TALKATIVE = (
    *("aiohttp.client", "aiohttp.internal", "httpx", "hpack.hpack", "hpack.table"),
    *(f"httpcore.{name}" for name in ("connection", "http11", "http2", "proxy", "socks")),
)
# What passes an error on to the package's own next frame, or makes another of it.
_WITHIN = (PACKAGE, "contextlib", "pydantic")
_TOOL = 4  # of those of sys.monitoring: profilers, debuggers and coverage have the others


def forms(text: str) -> set[str]:
    """Return a text as it may be written: alone, and as HTTP Basic has it."""
    return {text, base64.b64encode(f"{text}:".encode()).decode()}


class Watch:
    """Looks for canaries, and keeps what showed one."""

    def __init__(self) -> None:
        self.keys: set[str] = forms(KEY)
        self.marks: set[str] = {MARK}
        self.leaks: list[str] = []

    def add(self, text: str) -> None:
        """Look for another one from now on."""
        self.keys |= forms(text)

    def look(self, where: str, text: object, *, marks: bool = True) -> None:
        """Keep a text that shows a canary."""
        said = text if isinstance(text, str) else _repr(text)
        for each in self.keys | (self.marks if marks else set()):
            if each in said:
                self.leaks.append(f"{where}: {said[:2000]}")
                return

    def look_at_error(self, where: str, error: BaseException) -> None:
        """Look at an error as a tool that reports errors would: its chain, and frames' locals."""
        left: list[BaseException | None] = [error]
        seen: set[int] = set()
        caused: set[int] = set()
        while left:
            found = left.pop()
            if found is None or id(found) in seen:
                continue
            seen.add(id(found))
            left += [found.__cause__, found.__context__, *getattr(found, "exceptions", ())]
            if _is_ours(found):
                caused |= {id(found.__cause__), id(found.__context__)}  # what ours was made of
            if found is error or _is_ours(found) or id(found) in caused:
                name = f"{where}, {type(found).__name__}"
                notes = getattr(found, "__notes__", ())
                self.look(name, f"{found!s} {found!r} {_repr(found.args)} {notes}")
            self._look_at_frames(f"{where}, {type(found).__name__}", found.__traceback__)

    def _look_at_frames(self, where: str, trace: TracebackType | None) -> None:
        while trace is not None:
            frame, trace = trace.tb_frame, trace.tb_next
            if _is_ours(frame):
                for name, value in list(frame.f_locals.items()):
                    place = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
                    self.look(f"{where}, {place}, local {name}", value)

    def look_through(self, *roots: object) -> None:
        """Look at the reprs and pickles of the package's objects, and of what they are made of."""
        left = list(roots)
        seen: set[int] = set()
        kept: list[object] = []  # so that no id is given again
        while left:
            each = left.pop()
            if id(each) in seen:
                continue
            seen.add(id(each))
            kept.append(each)
            if isinstance(each, (dict, list, tuple, set, frozenset, deque)):
                left += [*each.values()] if isinstance(each, dict) else [*each]
            elif _is_ours(each) and not isinstance(each, type):
                self._look_at_object(each)
                left += _parts(each)

    def _look_at_object(self, each: object) -> None:
        name = type(each).__name__
        self.look(f"the repr of {name}", f"{each!r} {each!s}")
        if dataclasses.is_dataclass(each) and not isinstance(each, type):
            shallow = {one.name: getattr(each, one.name, None) for one in dataclasses.fields(each)}
            self.look(f"the fields of {name}", {k: v for k, v in shallow.items() if k != "body"})
        try:
            pickled = pickle.dumps(each)
        except Exception:  # noqa: BLE001 - what refuses shows nothing
            return
        self.look(f"the pickle of {name}", pickled)

    # --------------------------------------------------------------------------------- listening

    def listen(self) -> None:
        """Look at all records and errors from now on."""
        made = logging.getLogRecordFactory()

        def record(*args: Any, **given: Any) -> logging.LogRecord:
            found = made(*args, **given)
            self._look_at_record(found)
            return found

        logging.setLogRecordFactory(record)
        for name in _TALKATIVE:
            logger = logging.getLogger(name)
            logger.setLevel(logging.DEBUG)
            logger.addFilter(lambda _: False)
        logging.getLogger(PACKAGE).setLevel(logging.DEBUG)
        self._listen_to_children()
        self._listen_to_expectations()
        if sys.version_info >= (3, 12):
            monitoring = sys.monitoring
            monitoring.use_tool_id(_TOOL, "canaries")
            event = monitoring.events.PY_UNWIND
            monitoring.register_callback(_TOOL, event, self._unwound)
            monitoring.set_events(_TOOL, event)

    def _listen_to_expectations(self) -> None:
        watch, leave = self, pytest.RaisesExc.__exit__

        def left(self: Any, kind: Any, error: Any, trace: Any) -> bool:
            if error is not None:
                watch.look_at_error("an error that a test expects", error)
            return leave(self, kind, error, trace)

        pytest.RaisesExc.__exit__ = left  # type: ignore[method-assign]

    def _listen_to_children(self) -> None:
        watch, init = self, subprocess.CompletedProcess.__init__

        def completed(
            self: Any, args: Any, code: Any, stdout: Any = None, stderr: Any = None
        ) -> None:
            init(self, args, code, stdout, stderr)
            watch.look("what a child printed", f"{stdout!s} {stderr!s}", marks=False)

        subprocess.CompletedProcess.__init__ = completed  # type: ignore[method-assign]

    def _look_at_record(self, record: logging.LogRecord) -> None:
        if record.name == "hpack.hpack" and str(record.msg).startswith("Decoded"):
            return  # by the test's own server
        where = f"a record of {record.name}"
        try:
            self.look(where, record.getMessage())
        except Exception:  # noqa: BLE001 - what was logged does not fit its format: not ours to say
            self.look(where, record.msg)
        self.look(where, record.args)
        if record.exc_info and record.exc_info[1] is not None:
            self.look_at_error(where, record.exc_info[1])

    def _unwound(self, code: CodeType, _: int, error: BaseException) -> None:
        """Look at an error that leaves the package. Python tells of it from 3.12 on."""
        if PACKAGE not in code.co_filename and "/docs/" not in code.co_filename:
            return
        frame = sys._getframe(1)
        caller = frame.f_back
        whole = "" if caller is None else _module(caller)
        if _is_ours(frame) and whole.partition(".")[0] not in _WITHIN:
            self.look_at_error("an error that left", error)

    def verdict(self) -> list[str]:
        """Return what has leaked since the last time."""
        found, self.leaks = list(dict.fromkeys(self.leaks)), []
        return found


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - an object that is half made
        return ""


def _module(value: object) -> str:
    found = getattr(value, "f_globals", {}).get("__name__")
    return str(found or getattr(type(value), "__module__", ""))


def _is_package(value: object) -> bool:
    name = _module(value)
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def _is_ours(value: object) -> bool:
    """Whether a frame or an object is the package's, and not of what shows what it gets."""
    return _is_package(value) and not _module(value).startswith(_SHOWS)


def _parts(each: object) -> list[object]:
    names = [name for kind in type(each).__mro__ for name in getattr(kind, "__slots__", ())]
    found = [getattr(each, name, None) for name in names]
    return found + list(getattr(each, "__dict__", {}).values())


# ----------------------------------------------------------------------------- pytest's own hooks

watch = Watch()


def pytest_configure() -> None:
    """Begin before any test does."""
    watch.listen()


def pytest_warning_recorded(warning_message: Any) -> None:
    """Look at what warnings say."""
    watch.look("a warning", str(warning_message.message))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Look at what was printed and not read by the test."""
    report = yield
    if report.when == "teardown" and report.passed:
        watch.look("what was printed", report.capstdout + report.capstderr, marks=False)
        if leaks := watch.verdict():
            report.outcome, report.longrepr = "failed", _said(item.name, leaks)
    return report


def _said(name: str, leaks: list[str]) -> str:
    return "\n".join([f"{name} shows a canary:", *leaks])


@pytest.fixture(autouse=True)
def no_canary_shows(request: pytest.FixtureRequest) -> Iterator[Watch]:
    """After each test, nothing may have shown a key or a payload."""
    watch.verdict()
    asked = "tmp_path" in request.fixturenames
    folder: Path | None = request.getfixturevalue("tmp_path") if asked else None
    yield watch
    for path in folder.rglob("*") if folder else ():
        watch.look("a file's name", path.name)
    leaks = watch.verdict()
    assert not leaks, _said(request.node.name, leaks)
