"""From a TOML file, or data, to a checked configuration: all that is wrong at once, and where.

`${NAME}` in any text is a variable of the environment, `${NAME:-else}` one that may be missing, and
`$${` is `${` itself. No problem shows a value: many of them are keys.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import BaseModel, ValidationError

from asyncanalytics.collector.pipelines import building, config
from asyncanalytics.collector.pipelines.config import TAG, Config, Integration
from asyncanalytics.collector.pipelines.groups import given
from asyncanalytics.collector.pipelines.pointing import list_of_tables, member_of, needed
from asyncanalytics.collector.pipelines.positions import Position, Positions
from asyncanalytics.collector.pipelines.suggestions import unknown
from asyncanalytics.collector.problems import InvalidConfiguration, Problem
from asyncanalytics.errors import ConfigurationError
from asyncanalytics.secret import discreet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic_core import ErrorDetails

    from asyncanalytics.collector.pipelines.positions import Path as Place

Source = str | os.PathLike[str] | Mapping[str, Any] | Config
"""The path of a TOML file, or data of the same form."""

_VARIABLE: Final = re.compile(r"(\$?)\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_TOML_PLACE: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and the folder in which its paths begin."""

    config: Config
    folder: Path


@discreet
def load(source: Source) -> Loaded:
    """Read a file, or take data of the same form; raise `InvalidConfiguration`."""
    try:
        return _loaded(source)
    except RecursionError:
        raise InvalidConfiguration([Problem(path="", message="it is nested too deeply")]) from None


def _loaded(source: Source) -> Loaded:
    if isinstance(source, Config):
        _refuse([*_doubles(_names_of(source), Path.cwd()), *_unbuilt(source)], None)
        return Loaded(source, Path.cwd())
    if not isinstance(source, str | os.PathLike):
        return Loaded(_checked(dict(source), None, Path.cwd()), Path.cwd())
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except OSError as error:
        raise InvalidConfiguration(
            [Problem(path="", message=f"the file cannot be read: {error.strerror}")]
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfiguration([_no_toml(error)]) from None
    except UnicodeDecodeError:
        raise InvalidConfiguration([Problem(path="", message="the file is not UTF-8")]) from None
    folder = path.absolute().parent
    return Loaded(_checked(data, Positions(text), folder), folder)


def _no_toml(error: tomllib.TOMLDecodeError) -> Problem:
    text = str(error)
    found = _TOML_PLACE.search(text)
    line, column = (int(each) if each else None for each in (found.groups() if found else (0, 0)))
    message = f"no TOML: {_lowered(_TOML_PLACE.sub('', text))}"
    return Problem(path="", message=message, line=line, column=column)


def _checked(data: dict[str, Any], positions: Positions | None, folder: Path) -> Config:
    filled = _expanded(data)
    found = []
    for place, problem in _unset(data):
        if not _is_off(filled, place):
            found.append((place, problem))
    made = None
    try:
        made = Config.model_validate(filled)
    except ValidationError as error:
        # What may be wrong only because a variable is not set is not said too.
        unset = {place[:end] for place, _ in found for end in range(len(place) + 1)}
        problems = map(_plain, error.errors(include_url=False, include_input=False))
        found += [each for each in problems if each[0] not in unset]
    found += _doubles(filled, folder)
    if made is not None:
        found += _unbuilt(made)
    _refuse(found, positions)
    assert made is not None  # noqa: S101 - else there was something to refuse
    return made


def _refuse(found: list[tuple[Place, str]], positions: Positions | None) -> None:
    if found:
        raise InvalidConfiguration(_located(found, positions))


def _located(found: list[tuple[Place, str]], positions: Positions | None) -> list[Problem]:
    placed = [
        (positions.of(place) if positions else None, place, message) for place, message in found
    ]
    placed.sort(key=lambda each: each[0] or Position(0, 0))
    return [
        Problem(
            path=_written(place),
            message=message,
            line=position and position.line,
            column=position and position.column,
        )
        for position, place, message in placed
    ]


def _written(place: Place) -> str:
    names = (f"[{each}]" if isinstance(each, int) else f".{each}" for each in place)
    return "".join(names).removeprefix(".")


# ----------------------------------------------------------------------------------- environment


def _texts(value: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    if isinstance(value, str):
        yield place, value
    for name, inner in _members(value):
        yield from _texts(inner, (*place, name))


def _members(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _unset(data: Any) -> Iterator[tuple[Place, str]]:
    for place, text in _texts(data):
        for escaped, name, default in _VARIABLE.findall(text):
            if not escaped and name not in os.environ and f"{{{name}:-{default}}}" not in text:
                yield place, f"the environment has no variable {name}: set it before the start"


def _is_off(filled: dict[str, Any], place: Place) -> bool:
    """Whether a place is in an integration that is off, which is then without what is not set."""
    if len(place) < 5 or (place[0], place[2]) != ("pipelines", "integrations"):
        return False
    integrations = filled["pipelines"][place[1]]["integrations"]
    integration = integrations[place[3]]
    if not isinstance(integration, dict) or integration.get("enabled") is not False:
        return False
    name = integration.get("name", "")
    integrations[place[3]] = {"name": name, "to": "console", "enabled": False}
    return True


def _expanded(value: Any) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(_variable, value)
    if isinstance(value, dict):
        return {name: _expanded(inner) for name, inner in value.items()}
    return [_expanded(inner) for inner in value] if isinstance(value, list) else value


def _variable(found: re.Match[str]) -> str:
    escaped, name, default = found.groups()
    if escaped:
        return found.group()[1:]
    return os.environ.get(name, default or "")


# ---------------------------------------------------------------------------------------- errors


_SAID: Final = {
    "too_short": "needs at least one, and is empty",
    "string_too_short": "is empty: write something",
    "path_type": "should be text, the path of a file or folder",
    "string_type": "should be text, in quotes",
    "string_pattern_mismatch": "should begin with a slash",
    "model_type": "should be a table",
    "dict_type": "should be a table",
}


def _plain(error: ErrorDetails) -> tuple[Place, str]:
    place = tuple(each for each in error["loc"] if not str(each).startswith(TAG))
    if error["type"] == "extra_forbidden":
        return place, unknown(str(place[-1]), _names_at(error["loc"][:-1]))
    if error["type"] == "missing":
        return place, needed(str(place[-1]))
    if error["type"] in {"list_type", "tuple_type"}:
        return place, list_of_tables(str(place[-1]))
    said = _SAID.get(error["type"]) or error["msg"].removeprefix("Value error, ")
    return place, said if error["type"] == "value_error" else _lowered(said.removeprefix("Input "))


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _names_at(place: tuple[str | int, ...]) -> list[str]:
    """Return the names that a table may have."""
    model: Any = Config
    for each in place:
        if isinstance(each, str) and each.startswith(TAG):
            model = getattr(config, each.removeprefix(TAG))
        elif isinstance(each, str) and each in getattr(model, "model_fields", ()):
            model = next(_models(model.model_fields[each].annotation), model)
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models(each)


# -------------------------------------------------------------------------------------- building


def _unbuilt(made: Config) -> Iterator[tuple[Place, str]]:
    """Find what cannot be made of tables that are sound each for itself."""
    for number, pipeline in enumerate(made.pipelines):
        place: Place = ("pipelines", number)
        broken = [
            (_blamed((*place, "integrations", index), each, problem), problem)
            for index, each in enumerate(pipeline.integrations)
            if isinstance(each, Integration) and each.enabled
            if (problem := _problem(building.destination, each, pipeline, made.server, Path()))
        ]
        whole = None if broken else _problem(building.client, pipeline, made.server, Path())
        yield from [(place, whole)] if whole else broken


def _blamed(place: Place, integration: Integration, problem: str) -> Place:
    """Return the place of what does not go with the pipeline's own settings."""
    found = member_of(problem, ("Batching", "Queueing", "Retrying"))
    if found is None:
        return place
    group = found[0].lower()
    own = given(getattr(integration, group))
    if found[1] in own:
        return (*place, group, found[1])
    return (*place, group) if own else (*place[:2], group, found[1])


def _problem(build: Callable[..., object], *args: object) -> str | None:
    try:
        build(*args)
    except ConfigurationError as error:
        return str(error)
    return None


# --------------------------------------------------------------------------------------- doubles


def _doubles(data: dict[str, Any], folder: Path) -> Iterator[tuple[Place, str]]:
    """Find what each pipeline, or each integration of one, must have for itself."""
    pipelines = data.get("pipelines")
    yield from _same(("pipelines",), pipelines, "name", str)
    yield from _same(("pipelines",), pipelines, "write_key", str)
    yield from _same(("pipelines",), pipelines, "spool", lambda spool: _spool(spool, folder))
    for number, each in _members(pipelines):
        if isinstance(each, dict):
            place = ("pipelines", number, "integrations")
            yield from _same(place, each.get("integrations"), "name", str)


def _spool(spool: Any, folder: Path) -> str | None:
    """Return the folder that is meant: one may be written in many ways."""
    own = spool.get("folder") if isinstance(spool, dict) else spool
    try:
        return str((folder / own).resolve()) if isinstance(own, str | Path) else None
    except (OSError, ValueError):
        return None  # it is no path


def _names_of(made: Config) -> dict[str, Any]:
    """Return of a configuration what each must have for itself."""
    return {
        "pipelines": [
            {
                "name": each.name,
                "write_key": each.write_key.get_secret_value(),
                "spool": each.spool and each.spool.folder,
                "integrations": [{"name": getattr(one, "name", None)} for one in each.integrations],
            }
            for each in made.pipelines
        ]
    }


def _same(
    place: Place, tables: Any, name: str, read: Callable[[Any], str | None]
) -> Iterator[tuple[Place, str]]:
    values = {
        number: read(each[name])
        for number, each in _members(tables)
        if isinstance(tables, list) and isinstance(each, dict) and name in each
    }
    often = Counter(value for value in values.values() if value is not None)
    for number, value in values.items():
        if value is not None and often[value] > 1:
            first = next(each for each, other in values.items() if other == value)
            if first != number:
                said = f"is that of {_written((*place, first))} already: each needs its own"
                yield (*place, number, name), said
