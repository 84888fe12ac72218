"""Test frames to another host: they are sent here, and the daemon there counts what arrives.

Its counters come back in its keepalives. They count other frames as well, and so do ours: what of
those came in here meanwhile is taken off.
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
_PATIENCE: Final = 1.5
"""Seconds for a count to come back: the keepalives of some seven of a tunnel's five a second."""
_LOOK: Final = 0.05
"""Seconds between two questions for it."""


def exchange(
    sender: PacketSocket,
    series: Series,
    sizes: Sequence[int],
    rounds: int,
    *,
    here: Callable[[], int],
    there: Callable[[], int],
) -> tuple[tuple[Lengths, ...], str]:
    """``rounds`` frames of each size, one size after the other; and what the kernel had against it.

    ``here`` is how many frames have been handed to the tunnel by now, ``there`` how many have come
    out of it, as far as the other host has told.
    """
    lengths, numbers, refused = [], 0, ""
    for size in sizes:
        before = here(), there()
        for _ in range(rounds):
            try:
                sender.send(series.frame(numbers, size))
            except OSError as error:
                refused = refused or f"{error.strerror} ({size} bytes)"
            numbers += 1
            time.sleep(_PACE)
        deadline = time.monotonic() + _PATIENCE
        while True:
            time.sleep(_LOOK)
            left, came = here() - before[0], there() - before[1]
            if came >= left or time.monotonic() >= deadline:
                break
        lengths.append(Lengths(size, rounds, arrived(rounds, left, came)))
    return tuple(lengths), refused


def arrived(sent: int, left: int, came: int) -> int:
    """How many of the frames ``sent`` are among those that ``came``, if more than these ``left``.

    Frames that are no longer or not yet counted are not worse than none.
    """
    others = max(0, left - sent)
    return max(0, min(sent, came - others))
