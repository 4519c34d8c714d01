"""Templates become answers. Everything that is put into one is escaped, without exception."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from asyncanalytics.collector.page import addresses
from asyncanalytics.collector.page.rows import members
from asyncanalytics.collector.reading import utf8_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncanalytics.collector.page.assets import Assets
    from asyncanalytics.collector.page.rows import AnyRow

_LONGEST: Final = 200  # characters of a name or an id
_FOLDER: Final = Path(__file__).with_name("templates")


class Templates:
    """The templates, with what they all need."""

    def __init__(self, assets: Assets) -> None:
        """Load none yet; each is compiled once, when it is first used."""
        self._environment = Environment(
            loader=FileSystemLoader(_FOLDER),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals |= {"url": addresses, "static": assets.address}
        self._environment.filters |= _FILTERS

    def page(self, name: str, *, status: int = 200, **values: Any) -> Response:
        """Answer with a page."""
        html = self._environment.get_template(f"{name}.html").render(**values)
        return Response(utf8_text(html), status, media_type="text/html")

    def rows(self, rows: list[AnyRow]) -> str:
        """Return rows as the live page has them, marked as new."""
        macros: Any = self._environment.get_template("macros.html").module
        return utf8_text("".join(macros.row(each, new=True) for each in rows))


def _cut(text: str) -> str:
    """Return the beginning of a text that may be as long as an event."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _clock(moment: str) -> str:
    """Return the time of day of a moment as it is stored: in UTC, with milliseconds."""
    return moment.partition("T")[2].rstrip("Z")


def _brief(moment: str) -> str:
    """Return the time of day; of another day, that day too, and no milliseconds."""
    if moment.startswith(f"{datetime.now(UTC):%Y-%m-%d}"):
        return _clock(moment)
    return f"{datetime.fromisoformat(moment):%d %b %H:%M:%S}"


def _date(moment: str) -> str:
    when = datetime.fromisoformat(moment)
    return f"{when.day} {when:%b %Y}"


def _count(number: int, one: str, many: str | None = None) -> str:
    """Say how many: `1 event`, `2 events`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _percent(share: float) -> str:
    """Say a part in percent; only the whole is 100 %."""
    return "100 %" if share == 1 else f"{min(share, 0.999):.1%}".replace("%", " %")


def _words(name: str) -> str:
    """Say a machine's name for something in words."""
    return name.replace("_", " ")


_FILTERS: Final[dict[str, Callable[..., str]]] = {
    "brief": _brief,
    "clock": _clock,
    "count": _count,
    "cut": _cut,
    "date": _date,
    "members": members,
    "percent": _percent,
    "words": _words,
}
