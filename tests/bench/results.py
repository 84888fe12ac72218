"""The runs that are kept, a file a machine; written after each part, so no failure loses them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

from .rounds import Series

_DIGITS: Final = 4
"""That are kept of a value; its neighbours in the next round differ in the second."""


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured on one machine; ``name`` is its files', ``facts`` say what it is.

    ``parts`` says of a series that was measured in another run than most what that one was.
    """

    name: str
    facts: tuple[str, ...]
    series: tuple[Series, ...] = ()
    parts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Sequence[str]) -> Self:
        """Without any figures yet; the second to the fourth of the facts name the machine."""
        return cls(_slug(*facts[1:3]), tuple(facts))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises OSError."""
        whole = json.loads(path.read_text())
        series = tuple(Series(**one | _sizes(one)) for one in whole["series"])
        return cls(path.stem, tuple(whole["facts"]), series, whole["parts"])

    def with_series(self, more: Sequence[Series], facts: Sequence[str]) -> Run:
        """Those of the same title are replaced, in their place."""
        whole = {one.title: one for one in (*self.series, *more)}
        other = "; ".join(facts) if tuple(facts) != self.facts else ""
        parts = self.parts | {one.title: other for one in more}
        parts = {title: words for title, words in parts.items() if words}
        return replace(self, series=tuple(whole.values()), parts=parts)

    def write(self, directory: Path) -> None:
        """Whole or not at all. Raises OSError."""
        whole = {
            "facts": self.facts,
            "parts": self.parts,
            "series": [_as_json(one) for one in self.series],
        }
        new = directory / f".{self.name}.json"
        new.write_text(json.dumps(whole, indent=1) + "\n")
        new.replace(directory / f"{self.name}.json")


def kept(directory: Path) -> list[Run]:
    """All machines' runs. Raises OSError."""
    return [Run.load(path) for path in sorted(directory.glob("[!.]*.json"))]


def prepare(directory: Path) -> None:
    """Raises OSError, now and not after the first part, if nothing can be written there."""
    directory.mkdir(exist_ok=True)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"{directory} may not be written to")


def _sizes(series: Mapping[str, Any]) -> dict[str, Any]:
    """A tuple again, as it was before it became JSON."""
    return {"sizes": tuple(series.get("sizes", ()))}


def _as_json(series: Series) -> dict[str, Any]:
    values = {
        name: [float(f"{value:.{_DIGITS}g}") for value in found]
        for name, found in series.values.items()
    }
    of_growth = {"sizes": series.sizes, "cause": series.cause} if series.sizes else {}
    return {
        "title": series.title,
        "unit": series.unit,
        "values": values,
        "more_is_better": series.more_is_better,
    } | of_growth


def _slug(*facts: str) -> str:
    plain = " ".join(facts).replace("(R)", "").replace("(TM)", "").replace("x86_64", "")
    return re.sub(r"[^a-z0-9.]+", "-", plain.lower()).strip("-")
