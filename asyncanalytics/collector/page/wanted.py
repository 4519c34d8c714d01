"""What a reader wants to see, as it stands in the address of a page.

An address that says something else shows what of it can be understood: a bookmark never fails.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from asyncanalytics.collector.judge import CALLS
from asyncanalytics.collector.records import Filter

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_DIGITS = 18  # of a position, which has 63 bits


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Each field is one parameter of an address. What is empty leaves nothing out."""

    call: str = ""
    event: str = ""
    """A name, of a tracked event or of a page, a screen or a group."""
    user: str = ""
    text: str = ""
    verdict: Literal["", "good", "bad"] = ""
    before: int = 0

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        """Read the parameters of an address."""
        call, verdict = query.get("call", ""), query.get("verdict", "")
        return cls(
            call=call if call in CALLS else "",
            event=query.get("event", ""),
            user=query.get("user", ""),
            text=query.get("text", ""),
            verdict="good" if verdict == "good" else "bad" if verdict == "bad" else "",
            before=number(query.get("before", "")),
        )

    @property
    def any(self) -> bool:
        """Whether anything is left out."""
        return self != Wanted()

    @property
    def refusals(self) -> bool:
        """Whether requests that were refused as a whole are meant too; no filter fits these."""
        return self.verdict != "good" and not (self.call or self.event or self.user or self.text)

    def parameters(self, **other: Any) -> dict[str, Any]:
        """Return what stands in the address, some of it replaced."""
        return asdict(self) | other

    def filter(self) -> Filter:
        """Return what the store understands."""
        return Filter(
            type=self.call or None,
            name=self.event or None,
            user=self.user or None,
            text=self.text or None,
            verdict=self.verdict or None,
            before=self.before or None,
        )


def number(text: str) -> int:
    """Read a number of an address; 0 for text that is none."""
    return int(text) if text.isdecimal() and len(text) <= _MAX_DIGITS else 0
