"""What this process has freed, given back to the kernel."""

from __future__ import annotations

import ctypes
from contextlib import suppress


class Spare:
    """Freed memory that the C library keeps.

    A pass over thousands of links, and the reading of their file, take as much again for as long
    as they last; glibc gives back by itself only what is at the end of its heap.
    """

    def __init__(self) -> None:
        self._last = self._returned = 0

    def give_back(self, passes: int, *, at_once: bool = False) -> None:
        """To be called each second with the number of passes so far.

        It does so once these have come to a rest (malloc_trim(3)), or ``at_once``.
        """
        before, self._last = self._last, passes
        is_at_rest = passes == before != self._returned
        if is_at_rest:
            self._returned = passes
        if is_at_rest or at_once:
            with suppress(OSError, AttributeError):  # musl has none
                ctypes.CDLL(None).malloc_trim(0)
