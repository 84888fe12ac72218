"""One thing that ``doctor`` or ``test`` found: how bad it is, and the command for it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from xconnectd.formatting import printable


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Stops(StrEnum):
    """Which frames get no further than what a finding speaks of."""

    NOTHING = ""
    OFFLOADED = "offloaded"
    LONG = "long"
    SOME = "some"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``check`` is a stable word for it.

    ``remedy`` is the command that fixes it, with advice behind ``#``; prose where there is none.
    """

    level: Level
    check: str
    text: str
    remedy: str = ""
    stops: Stops = Stops.NOTHING

    def as_json(self) -> dict[str, Any]:
        return {
            "level": str(self.level),
            "check": self.check,
            "text": self.text,
            "remedy": self.remedy,
            "stops": str(self.stops),
        }

    def lines(self) -> Iterator[str]:
        """For people; the remedy on a line of its own."""
        yield f"{self.level:<4}  {self.check}: {printable(self.text)}"
        if self.remedy:
            yield f"      fix: {printable(self.remedy)}"
