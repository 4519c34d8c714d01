"""What is wrong with a configuration: all of it at once, each with its place."""

from __future__ import annotations

from dataclasses import dataclass

from asyncanalytics.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong with a configuration."""

    path: str
    """Where it is in the data, such as `pipelines[0].integrations[1].key`."""
    message: str
    line: int | None = None
    """Where it is in the file, counted from 1."""
    column: int | None = None

    def __str__(self) -> str:
        """Say it in one line."""
        place = f"line {self.line}, column {self.column}: " if self.line else ""
        return f"{place}{self.path}: {self.message}" if self.path else f"{place}{self.message}"


class InvalidConfiguration(ConfigurationError):
    """A configuration cannot work. `problems` has all that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        """Say all of them, a line each."""
        super().__init__("\n".join(map(str, problems)))
        self.problems: tuple[Problem, ...] = tuple(problems)
