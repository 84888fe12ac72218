"""Whether probes come back: of one tunnel, or of all tunnels to one host together. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

ECHO_TIMEOUT: Final = 0.04
"""Seconds for an echo, beside two round trips."""
LOST: Final = 3
"""So many probes in a row without an echo: nothing comes back. So many echoes: it does again."""
FIRST: Final = 1.0
"""Seconds for the very first echo: until then nothing is known."""
_REMEMBERED: Final = 64
"""Probes whose echo would be known."""


class Liveness:
    """``alive`` is None until the first echo, or for ``FIRST`` seconds without one."""

    __slots__ = ("_begun", "_extended", "_in_a_row", "_not_before", "_unanswered", "alive")

    def __init__(self, now: float) -> None:
        self.alive: bool | None = None
        self._begun = now
        self._unanswered: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._in_a_row = 0
        self._extended = False
        self._not_before = now

    def sent(self, number: int, now: float) -> None:
        self._unanswered.append((number, now))

    def answered(self, number: int) -> float | None:
        """When that probe was sent; None if it was not, or has been answered or overtaken."""
        if all(number != each for each, _ in self._unanswered):
            return None
        self._extended = False
        self._in_a_row += 1
        while (first := self._unanswered.popleft())[0] != number:
            self._in_a_row = 1
        if self.alive is None or self._in_a_row >= LOST:
            self.alive = True
        return first[1]

    def due(self, timeout: float) -> float:
        """When ``judge`` finds that nothing comes back, if no echo comes before."""
        if len(self._unanswered) >= LOST and self.alive is not False:
            return max(self._not_before, self._unanswered[LOST - 1][1] + timeout)
        return float("inf")

    def judge(self, now: float, timeout: float) -> None:
        """To be called when all echoes that have come were told."""
        silent = self.alive is None and now - self._begun >= FIRST
        if silent or (self.alive and self.due(timeout) <= now):
            self.alive = False
            self._in_a_row = 0

    def extend(self, now: float) -> None:
        """More time to whoever is late, but not again before an echo comes."""
        if not self._extended:
            self._extended = True
            self._not_before = now + ECHO_TIMEOUT

    def forget_unanswered(self) -> None:
        """What was sent until now says nothing."""
        self._unanswered.clear()
