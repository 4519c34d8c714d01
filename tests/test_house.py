"""The house: imports run strictly downward, and each kind of work stays in its rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import asyncanalytics

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(asyncanalytics.__file__).parent

# From the ground up. A room imports from lower lines only; a folder is a family or a house of its
# own, whose rooms share its line. A room that is not drawn here does not stand.
PICTURE: list[tuple[str, set[str]]] = [
    ("ground", {"_version", "errors", "secret", "values"}),
    ("forks", {"forks"}),
    ("words", {"later", "settings", "stats"}),
    ("nouns", {"calls", "receipts"}),
    ("the nouns' quick twins", {"wire"}),
    ("places", {"binding"}),
    ("bytes", {"encoding"}),
    ("rules", {"batching", "endpoints", "paths", "retrying"}),
    ("the disk", {"spool"}),
    ("beside the loop", {"aside"}),
    ("families", {"breath", "journal", "middleware", "oauth", "pace", "transport"}),
    ("buffers", {"buffers"}),
    ("destinations", {"destinations"}),
    ("engine", {"flusher", "routing"}),
    ("verbs", {"verbs"}),
    ("other verbs", {"bound", "forwarding", "plain"}),
    ("door", {"client"}),
    ("threads' door", {"handover", "process"}),
    ("sync door", {"sync"}),
    ("face", {"asyncanalytics"}),
    ("edges", {"asgi", "relay", "signals", "testing"}),
    ("frameworks and drop-ins", {"analytics", "integrations"}),
    ("collector", {"collector"}),
    ("command line", {"cli"}),
    ("its start", {"__main__"}),
]
FLOORS = {room: floor for floor, (_, rooms) in enumerate(PICTURE) for room in rooms}
FAMILIES = FLOORS["aside"]
FACE = FLOORS["asyncanalytics"]
OPTIONAL = {
    *("aiohttp", "arq", "celery", "django", "fastapi", "faststream", "gunicorn", "litestar"),
    "taskiq",
    *("cryptography", "duckdb", "h2", "httpx2", "isal", "jinja2", "jmespath", "jwt"),
    *("rich", "starlette", "tree_sitter", "tree_sitter_toml", "typer"),
    *("uvicorn", "uvicorn_worker"),
}


@dataclass(frozen=True)
class Import:
    """One import that happens when a room is used; `late` if only when some function runs."""

    target: str
    late: bool
    guarded: bool


@dataclass(frozen=True)
class File:
    """One file of the package."""

    path: Path
    name: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The file's room: its folder's name, or its own."""
        return room_of(self.name)

    def imports(self) -> Iterator[Import]:
        """Yield what is imported at run time, within functions too."""
        yield from _imports(self.tree.body, self.name, is_package=self.path.name == "__init__.py")


def room_of(name: str) -> str:
    """Return the room that a module belongs to; the package itself is the face."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def _imports(
    body: list[ast.stmt], name: str, *, is_package: bool, late: bool = False, guarded: bool = False
) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for target in _targets(node, name, is_package=is_package):
                yield Import(target, late, guarded)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _imports(
                node.orelse, name, is_package=is_package, late=late, guarded=guarded
            )
            continue
        inner_late = late or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        inner_guarded = guarded or isinstance(node, ast.Try)
        for part in ("body", "orelse", "finalbody", "handlers"):
            yield from _imports(
                getattr(node, part, []),
                name,
                is_package=is_package,
                late=inner_late,
                guarded=inner_guarded,
            )


def _targets(node: ast.Import | ast.ImportFrom, name: str, *, is_package: bool) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        parts = name.split(".")
        base = ".".join([*parts[: len(parts) - node.level + is_package], *filter(None, [base])])
    return [_module(f"{base}.{alias.name}", base) for alias in node.names]


def _module(whole: str, base: str) -> str:
    """Tell a module that is imported by name from a name within a module."""
    return whole if whole in MODULES or not base.startswith("asyncanalytics") else base


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("asyncanalytics", *parts)).removesuffix(".__init__")


PATHS = sorted(ROOT.rglob("*.py"))
MODULES = {_name(path) for path in PATHS}
FILES = [File(path, _name(path), ast.parse(path.read_text("utf-8"))) for path in PATHS]
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)


def below(floor: int) -> list[File]:
    """Return the files under a floor."""
    return [file for file in FILES if FLOORS.get(file.room, 99) < floor]


# ------------------------------------------------------------------------------------- the stairs


@each_file
def test_each_room_is_drawn(file: File) -> None:
    """A new room is put into the picture first, at its floor."""
    assert file.room in FLOORS


@each_file
def test_imports_run_strictly_downward(file: File) -> None:
    """No room knows of one beside it or above it: so nothing below an edge imports an edge."""
    upward = {
        found.target
        for found in file.imports()
        if found.target.partition(".")[0] == "asyncanalytics"
        and room_of(found.target) != file.room
        and FLOORS[room_of(found.target)] >= FLOORS[file.room]
    }
    assert upward == set()


@pytest.mark.parametrize("family", ["buffers", "destinations", "integrations", "middleware"])
def test_members_of_a_family_know_only_their_base(family: str) -> None:
    """Each can be read, replaced and removed alone."""
    members = [file for file in FILES if file.room == family and "." in file.name[15:]]
    for file in members:
        siblings = {each.target for each in file.imports() if room_of(each.target) == family}
        assert siblings <= {f"asyncanalytics.{family}.base"}, file.name
    assert members


# --------------------------------------------------------------------------------- who does what


def test_only_the_transport_knows_an_http_library() -> None:
    """Another one would change one room."""
    libraries = {"aiohttp", "httpx", "httpx2"}
    knowing = {
        file.room
        for file in FILES
        if any(found.target.split(".")[0] in libraries for found in file.imports())
        or any(_names_httpx(node) for node in ast.walk(file.tree))
    }
    assert knowing == {"transport"}


def _names_httpx(node: ast.AST) -> bool:
    """Whether this is `importlib.import_module("httpx")` or the like."""
    if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith("import_module"):
        return False
    return "httpx" in ast.unparse(node)


@pytest.mark.parametrize("file", below(FAMILIES), ids=lambda file: file.name)
def test_nothing_below_the_families_logs_or_awaits(file: File) -> None:
    """Words, nouns, bytes and rules are plain functions; only a receipt is something to await."""
    assert not {each.target.split(".")[0] for each in file.imports()} & {"logging", "anyio"}
    kinds = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    waits = [node for node in ast.walk(file.tree) if isinstance(node, kinds)]
    if file.room == "receipts":
        names = {node.name for node in waits if isinstance(node, ast.AsyncFunctionDef)}
        assert names == {"settled"}
    else:
        assert waits == []
        assert "asyncio" not in {each.target for each in file.imports()}


def test_the_rules_have_no_clock_and_no_chance() -> None:
    """A rule says the same whenever it is asked: what varies is given to it."""
    for file in FILES:
        if file.room in {"batching", "endpoints", "paths", "retrying"}:
            used = {each.target.split(".")[0] for each in file.imports()}
            assert not used & {"random", "secrets", "time"}, file.name


# --------------------------------------------------------------------------------- what is needed


@pytest.mark.parametrize("file", below(FACE + 1), ids=lambda file: file.name)
def test_the_core_needs_no_optional_package(file: File) -> None:
    """What an extra brings is imported where it is used, or where its absence is handled."""
    needed = {
        found.target
        for found in file.imports()
        if found.target.split(".")[0] in OPTIONAL and not found.late and not found.guarded
    }
    assert needed == set()


WITHOUT = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {optional}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import asyncanalytics
from asyncanalytics import encoding
import gzip

assert not encoding.COMPRESSES_QUICKLY
assert gzip.decompress(encoding.compress([b"x" * 5_000])) == b"x" * 5_000
client = asyncanalytics.AsyncClient("key")
try:
    asyncanalytics.AsyncClient("key", sending=asyncanalytics.Sending(http2=True))
except asyncanalytics.MissingExtra as error:
    assert "asyncanalytics[http2]" in str(error)
else:
    raise AssertionError("HTTP/2 without its package")
try:
    asyncanalytics.AsyncClient("key", sending=asyncanalytics.Sending(http_library="aiohttp"))
except asyncanalytics.MissingExtra as error:
    assert "asyncanalytics[aiohttp]" in str(error)
else:
    raise AssertionError("aiohttp without its package")
loaded = set(sys.modules) & {edges}
assert not loaded, loaded
"""


def test_the_package_works_without_its_extras() -> None:
    """With none of the optional packages installed, the client is made and compresses."""
    edges = {f"asyncanalytics.{room}" for room, floor in FLOORS.items() if floor > FACE}
    script = WITHOUT.replace("{optional}", repr(OPTIONAL)).replace("{edges}", repr(edges))
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(  # noqa: S603 - the command is written above
        command, capture_output=True, text=True, timeout=30, check=False, cwd=ROOT.parent
    )
    assert done.returncode == 0, done.stderr
