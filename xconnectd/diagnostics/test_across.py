"""Test frames to another host: they are sent here, and the daemon there counts what arrives.

Its counters come back with what it says, once a second. They count other frames as well, and so do
ours: what of those came in here meanwhile is taken off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from xconnectd.diagnostics.packet_socket import PacketSocket
from xconnectd.diagnostics.test_frames import Series
from xconnectd.diagnostics.test_result import Lengths

_PACE: Final = 0.001
"""Seconds between two frames."""
TIMEOUT: Final = 2.5
"""Seconds for a count to come back."""
LOOK: Final = 0.05
"""Seconds between two questions for it."""


class Exchange:
    """Sends frames in one direction.

    ``here`` is how many frames have been handed to the tunnel by now, ``there`` how many have come
    out of it, as far as the other host has told.

    Attributes:
        error: what the kernel said to the sender.
    """

    def __init__(
        self,
        sender: PacketSocket,
        series: Series,
        *,
        here: Callable[[], int],
        there: Callable[[], int],
    ) -> None:
        self._sender = sender
        self._series = series
        self._here = here
        self._there = there
        self._number = 0
        self.error = ""

    def run(self, sizes: Sequence[int], rounds: int) -> tuple[Lengths, ...]:
        """``rounds`` frames of each size: all at once, and if some are lost one after the other."""
        if self._arrived(sizes, rounds) == rounds * len(sizes):
            return tuple(Lengths(size, rounds, rounds) for size in sizes)
        return tuple(Lengths(size, rounds, self._arrived((size,), rounds)) for size in sizes)

    def _arrived(self, sizes: Sequence[int], rounds: int) -> int:
        here, there = self._here(), self._there()
        for size in [*sizes] * rounds:
            try:
                self._sender.send(self._series.frame(self._number, size))
            except OSError as error:
                self.error = self.error or f"{error.strerror} ({size} bytes)"
            self._number += 1
            time.sleep(_PACE)
        deadline = time.monotonic() + TIMEOUT
        while True:
            time.sleep(LOOK)
            left, came = self._here() - here, self._there() - there
            if came >= left or time.monotonic() >= deadline:
                return arrived(len(sizes) * rounds, left, came)


def arrived(sent: int, left: int, came: int) -> int:
    """How many of the frames ``sent`` are among those that ``came``, where ``left`` were counted.

    What is counted beyond them is others'.
    """
    return max(0, min(sent, came - max(0, left - sent)))
