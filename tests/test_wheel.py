"""What is installed is whole, and it is what the tests run against."""

import os
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

import asyncanalytics
from asyncanalytics import _version

PACKAGE = Path(asyncanalytics.__file__).parent


@pytest.mark.skipif("NOX_CURRENT_SESSION" not in os.environ, reason="nox installs the wheel")
def test_the_installed_package_is_tested() -> None:
    """Under nox the package comes from the environment's own packages, not from the checkout."""
    assert PACKAGE.parent == Path(sysconfig.get_path("purelib"))


def test_types_are_shipped() -> None:
    """The marker file that tells type checkers to read the package's annotations is there."""
    assert (PACKAGE / "py.typed").is_file()


@pytest.mark.skipif("NOX_CURRENT_SESSION" not in os.environ, reason="nox installs the wheel")
def test_version_is_single_sourced() -> None:
    """What the wheel's metadata says is what the code says."""
    assert metadata.version("asyncanalytics") == _version.__version__


@pytest.mark.skipif("NOX_CURRENT_SESSION" not in os.environ, reason="nox installs the wheel")
def test_the_core_is_small() -> None:
    """Without an extra, two small wheels beside httpx, anyio, pydantic and what those bring."""
    required = metadata.requires("asyncanalytics") or []
    core = [each for each in required if "extra ==" not in each]
    names = {each.partition(">")[0].partition("<")[0] for each in core}
    assert names == {"anyio", "httpx", "orjson", "pydantic", "uuid-utils"}
