"""What a daemon has done since its start, counted: for ``status`` and for metrics. Pure."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds of a pass: a rewired link takes about one millisecond, a start with 1,000 some tenths."""


@dataclass(slots=True)
class Tally:
    """``repairs`` counts links put back after drift; ``seconds`` is what all passes took."""

    repairs: int = 0
    seconds: float = 0.0
    _passes: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def passed(self, seconds: float) -> None:
        self._passes[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    @property
    def count(self) -> int:
        return sum(self._passes)

    def at_most(self) -> dict[str, int]:
        """For each bound, written as text, how many passes took no longer."""
        return dict(zip(map(str, BOUNDS), accumulate(self._passes), strict=False))
