"""What came of setting a link in a machine, and how often that is done. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple


class Outcome(NamedTuple):
    """The carrier that was to be set, and in words why it could not be; empty where it was.

    QEMU tells no link's state and accepts the command for adapters without one, so that it was
    set says that QEMU took it, not that the guest saw it.
    """

    carrier: bool
    error: str = ""


class Pace(NamedTuple):
    """Seconds."""

    timeout: float = 2.0
    """For each answer of a monitor."""
    first_retry: float = 0.2
    """After a failure; doubled after each one that follows."""
    last_retry: float = 5.0
    between: float = 0.05
    """From the end of one connection to the next, however often the wish changes."""
    look: float = 0.25
    """Between two looks at whether a unix socket is another one."""
    again_off: float = 5.0
    """Until what is off is set again: a machine that was started again begins with all on."""
    again_on: float = 60.0
    """Until what is on is set again: a snapshot may have been from when it was off."""


DEFAULT_PACE: Final = Pace()
