"""What takes minutes runs by its name alone: `pytest tests/soak`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what is here, unless this folder or a file of it was named."""
    named = (Path(config.invocation_params.dir, arg.partition("::")[0]) for arg in config.args)
    is_asked_for = any(HERE in (place := each.resolve(), *place.parents) for each in named)
    return None if is_asked_for or HERE not in collection_path.parents else True
