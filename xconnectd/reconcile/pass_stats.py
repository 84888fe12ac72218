"""What a daemon has done since its start, counted: for ``status`` and for metrics. Pure."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any, Final

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Seconds of a pass: a rewired link takes about one millisecond, a start with 1,000 some tenths."""


@dataclass(slots=True)
class Tally:
    """``repairs`` counts links put back after drift; passes are counted by ``passed``."""

    repairs: int = 0
    _seconds: float = 0.0
    _passes: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))

    def passed(self, seconds: float) -> None:
        self._passes[bisect_left(BOUNDS, seconds)] += 1
        self._seconds += seconds

    def as_json(self) -> dict[str, Any]:
        """``le_s`` has for each bound how many passes took no longer."""
        so_far = 0
        at_most = {}
        for bound, passes in zip(BOUNDS, self._passes, strict=False):
            so_far += passes
            at_most[str(bound)] = so_far
        count = sum(self._passes)
        return {
            "repairs": self.repairs,
            "passes": {"count": count, "sum_s": round(self._seconds, 6), "le_s": at_most},
        }
