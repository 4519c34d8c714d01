"""What is imported when it is first needed, because few programs need it and it takes long."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from asyncanalytics import forks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType


def load(name: str) -> ModuleType:
    """Import a module that the package leaves out; forks wait for it."""
    with forks.imports.alone:
        return import_module(name)


def names(
    package: str, rooms: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's `__getattr__` and `__dir__` (PEP 562) for names by their modules.

    A module itself can be named as well. Type checkers must not see the two, or they would take
    any name for one of the package's.
    """
    own = sys.modules[package]

    def find(name: str) -> object:
        room = name if name in rooms.values() else rooms.get(name)
        if room is None:
            message = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(message, name=name, obj=own)
        module = load(f"{package}.{room}")
        # Not kept here: it may be what a test has put there for a while.
        return module if name == room else getattr(module, name)

    return find, lambda: sorted({*vars(own), *rooms})
