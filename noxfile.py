# /// script
# requires-python = ">=3.11"
# dependencies = ["nox[uv]>=2026.10.20,<2027"]
# ///
"""Everything that checks the project: `uv run noxfile.py`, or `-s NAME` for one session.

Nothing needs to be there first but uv. What a session installs has the version that
constraints.txt names and a hash that it knows, the build backend included. Tests, coverage,
benchmarks and the demo run against the wheel, built once a run, and never against the checkout.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nox
from nox.command import CommandFailed

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
OLDEST = PYTHONS[0]
LOCK = "constraints.txt"
NODE_PEERS = Path("benchmarks/node")
NODE_SDKS = Path("tests/node")
TYPING_TESTS = ("tests/typing_public.py", "tests/typing_edges.py")
# A worker that is done takes tests from another, so that none is left alone with a slow file.
PARALLEL = ("--numprocesses", "auto", "--dist", "worksteal")
QUICK = ("-m", "not long")
WITHOUT_DISK = ("--ignore-glob=*/test_spool*", "--ignore-glob=*/test_faults*")

# What would bring another index than PyPI into the lock.
INDEX_VARIABLES = (
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_INDEX",
    "UV_INDEX_URL",
)

nox.needs_version = ">=2026.10.20"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "types", "tests", "tests_core", "guard"]
# A Python that is missing is skipped, also where CI is set and nox would rather fail, and none
# is ever downloaded, neither by nox nor by uv.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"
os.environ["UV_PYTHON_DOWNLOADS"] = "never"
# Without bytecode, each of the tests' many processes compiles whatever it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _offer_pyenv() -> None:
    """Put pyenv's Pythons on PATH: its shims fail for each version that is not selected."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [str(path) for each in PYTHONS for path in root.glob(f"versions/{each}.*/bin")]
    os.environ["PATH"] = os.pathsep.join([*found, os.environ.get("PATH", os.defpath)])


_offer_pyenv()


def _wheels(session: nox.Session) -> Path:
    return session.cache_dir / "wheel"


def _install_locked(session: nox.Session, *what: str) -> None:
    """Install what is asked for, and refuse whatever the lock has no hash for."""
    session.install("--require-hashes", "--constraints", LOCK, *what)


def _install_wheel(session: nox.Session, *what: str) -> None:
    """Install the dependencies from the lock, then the wheel alone, and compare the two."""
    _install_locked(session, "--requirements", "pyproject.toml", *what)
    session.install("--no-deps", *map(str, _wheels(session).glob("*.whl")))
    session.run("uv", "pip", "check", silent=True)
    # Nothing of the checkout may be imported by being the working directory or on a path.
    session.env["PYTHONSAFEPATH"] = "1"
    session.env["PYTHONPATH"] = None


def _install_node(session: nox.Session, what: Path) -> str:
    """Install a folder's packages for Node, where it is there, and return where they are."""
    folder = session.cache_dir.resolve() / "node" / what.parent
    folder.mkdir(parents=True, exist_ok=True)
    for path in what.glob("*.json"):
        shutil.copy(path, folder)
    if shutil.which("node") and shutil.which("npm"):
        # Not `npm ci`: it refuses a lock without the optional packages of other systems.
        command = ("npm", "install", "--prefix", str(folder), "--loglevel", "error")
        quiet = ("--ignore-scripts", "--no-audit", "--no-fund")
        quick = (
            "--prefer-offline",
            "--fetch-retry-mintimeout=500",
            "--fetch-retry-maxtimeout=1000",
        )
        try:
            session.run(*command, *quiet, *quick, external=True, silent=True)
        except CommandFailed:
            session.warn(f"What {what} names cannot be installed: it is left out.")
    else:
        session.warn(f"Without node and npm, what {what} names is left out.")
    return str(folder)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: every rule but those that pyproject.toml gives a reason against, and the format."""
    _install_locked(session, "--group", "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(python=OLDEST)
def build(session: nox.Session) -> None:
    """Build the sdist and, from it, the wheel that the other sessions install."""
    command = ("uv", "build", "--quiet", "--clear", "--out-dir", str(_wheels(session)))
    session.run(*command, "--build-constraints", LOCK, "--require-hashes")


@nox.session(python=OLDEST, requires=["build"])
def types(session: nox.Session) -> None:
    """Mypy over all of the package, and basedpyright over what users import from it."""
    _install_wheel(session, "--all-extras", "--group", "types")
    session.run("mypy", "asyncanalytics", *TYPING_TESTS)
    session.run("basedpyright", *TYPING_TESTS)
    session.run("basedpyright", "--verifytypes", "asyncanalytics", "--ignoreexternal")


@nox.session(python=PYTHONS, requires=["build"])
def tests(session: nox.Session) -> None:
    """The tests, on each Python that is present; those that take long, on the oldest."""
    _install_wheel(session, "--all-extras", "--group", "test", "--group", "frameworks")
    is_oldest = session.python == OLDEST
    which = () if is_oldest else QUICK
    env = {"NODE_SDKS": _install_node(session, NODE_SDKS)} if is_oldest else {}
    session.run("pytest", *PARALLEL, *which, *session.posargs, env=env)


@nox.session(python=OLDEST, requires=["build"])
def tests_core(session: nox.Session) -> None:
    """The tests that need no extra, where no extra is installed; the disk's need none anyway."""
    _install_wheel(session, "--group", "test")
    session.run("python", "-c", "import asyncanalytics")
    session.run("pytest", *PARALLEL, *QUICK, *WITHOUT_DISK, *session.posargs)


@nox.session(python=OLDEST, requires=["build"])
def soak(session: nox.Session) -> None:
    """What takes minutes: 200 rounds of `kill -9`, and the longer forms of other tests."""
    _install_wheel(session, "--all-extras", "--group", "test")
    session.run("pytest", "tests/soak", *session.posargs)
    longer = [
        f"tests/test_{name}.py" for name in ("spool_machine", "faults_server", "faults_process")
    ]
    session.run("pytest", *longer, env={"SOAK": "1"})


@nox.session(python=OLDEST, requires=["build"])
def coverage(session: nox.Session) -> None:
    """The lines and branches that the tests reach; fails below pyproject.toml's threshold."""
    _install_wheel(session, "--all-extras", "--group", "coverage")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


def _install_peers(session: nox.Session) -> str:
    """Make an environment for each client that ours is measured beside; return their folder."""
    folder = session.cache_dir / "peers"
    quiet = ("--quiet", "--require-hashes", "--constraints", LOCK)
    for each in nox.project.load_toml("pyproject.toml")["dependency-groups"]["peers"]:
        name = each["include-group"]
        own = str(folder / name)
        session.run("uv", "venv", "--quiet", "--clear", "--python", f"{session.bin}/python", own)
        try:
            session.run("uv", "pip", "install", *quiet, "--python", own, "--group", name)
        except CommandFailed:
            session.warn(f"{name} cannot be installed: it is not measured.")
    return str(folder)


@nox.session(python=OLDEST, requires=["build"])
def bench(session: nox.Session) -> None:
    """Each benchmark in short, or `-- full`; name some to leave out the others."""
    _install_wheel(session, "--all-extras")
    where = ("--peers", _install_peers(session), "--node", _install_node(session, NODE_PEERS))
    scripts = {path.stem: str(path) for path in sorted(Path("benchmarks").glob("[!_]*.py"))}
    del scripts["guard"]  # it gives a verdict, and has a session of its own
    options = [each for each in session.posargs if each not in scripts]
    for name in [each for each in session.posargs if each in scripts] or scripts:
        command = ("python", scripts[name], *where, *options)
        session.run(*command, env={"PYTHONPATH": "benchmarks"})


@nox.session(python=OLDEST, requires=["build"])
def guard(session: nox.Session) -> None:
    """Fail if the way of an event became slower by a fifth; `-- --keep` accepts how it is."""
    _install_wheel(session, "--all-extras")
    command = ("python", "benchmarks/guard.py", *session.posargs)
    session.run(*command, env={"PYTHONPATH": "benchmarks"})


@nox.session(python=OLDEST, requires=["build"])
def demo(session: nox.Session) -> None:
    """The main job, shown: `asyncanalytics demo` with every extra."""
    _install_wheel(session, "--all-extras")
    session.run("asyncanalytics", "demo", *session.posargs)


def _lock_node(session: nox.Session, folder: Path) -> None:
    """Write the lock of a folder's packages for Node, without the addresses that npm puts there."""
    if not shutil.which("npm"):
        session.warn(f"Without npm, the lock in {folder} stays as it is.")
        return
    command = ("npm", "install", "--prefix", str(folder), "--package-lock-only")
    quiet = ("--omit-lockfile-registry-resolved", "--no-audit", "--no-fund")
    session.run(*command, *quiet, external=True, silent=True)
    path = folder / "package-lock.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    for package in found["packages"].values():
        package.pop("funding", None)
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


@nox.session(python=OLDEST)
def lock(session: nox.Session) -> None:
    """Write the lock anew from PyPI; it keeps versions that still fit unless `-- --upgrade`."""
    options = ("--no-config", "--universal", "--generate-hashes", "--quiet")
    silent_about = ("--no-emit-index-url", "--no-emit-find-links")
    command = ("--custom-compile-command", "uv run noxfile.py -s lock")
    what = ("pyproject.toml", "--all-extras", "--group", "dev", "--output-file", LOCK)
    session.run(
        *("uv", "pip", "compile", *options, *silent_about, *command, *what, *session.posargs),
        env=dict.fromkeys(INDEX_VARIABLES),
    )
    node = (NODE_PEERS, NODE_SDKS)
    for folder in node:
        _lock_node(session, folder)
    for lock in (Path(LOCK), *(folder / "package-lock.json" for folder in node)):
        if "://" in lock.read_text(encoding="utf-8"):
            session.error(f"{lock} names an address; it must hold versions and hashes only.")


if __name__ == "__main__":
    nox.main()
