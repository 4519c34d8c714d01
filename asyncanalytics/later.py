"""Names of a package that are imported when they are first named: few programs name them."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


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
        module = import_module(f"{package}.{room}")
        found = module if name == room else getattr(module, name)
        vars(own)[name] = found
        return found

    return find, lambda: sorted({*vars(own), *rooms})
