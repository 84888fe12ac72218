"""The time as the daemon sees it, and what is due at a time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The module ``time``, or what a test sets."""

    def monotonic(self) -> float: ...
    def time(self) -> float: ...


class Timer:
    """Expires once, at a time that may be moved nearer.

    Attributes:
        due: when (``monotonic``), None while it is not set.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.due: float | None = None

    def set_in(self, seconds: float) -> None:
        """Sets it, or moves it nearer; it is never put off. From any thread."""
        due = self._clock.monotonic() + seconds
        self.due = due if self.due is None else min(self.due, due)

    def expired(self) -> bool:
        """True once when its time has come; then it is no longer set."""
        if self.due is None or self._clock.monotonic() < self.due:
            return False
        self.due = None
        return True
