"""`kill -9` in 200 rounds: nothing acknowledged is lost. `pytest tests/soak` prints the figures.

The machinery is that of the short form, tests/test_spool_kill.py.
"""

from __future__ import annotations

import json
import os
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Live

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here"),
    pytest.mark.timeout(3_600),
]

ROUNDS = 200


def short_form() -> Any:
    """Return the module beside this folder: tests are no package, so it is loaded by its path."""
    path = Path(__file__).parents[1] / "test_spool_kill.py"
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"is_often_down": True},
        {"is_often_down": True, "destinations": 2},
        {"is_often_down": True, "kinds": ("plain", "small", "threads")},
    ],
    ids=["up", "often down", "two destinations", "threads too"],
)
def test_two_hundred_kills(
    live: Live, tmp_path: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The seed is another one each time; what is asserted is not."""
    seed = int.from_bytes(os.urandom(4))
    found = short_form().kill_in_a_loop(live, tmp_path / "spool", ROUNDS, seed=seed, **settings)
    with capsys.disabled():
        print(f"\n{ROUNDS} rounds, seed {seed}, {settings}: {json.dumps(found)}")  # noqa: T201
    assert found["acknowledged"] > 10 * ROUNDS
