"""What the exit code of a command means."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The same of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_STARTED = 3
    CHANGES = 10
    BAD_CONFIG = 78
