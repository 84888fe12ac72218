"""What shapes the frames that leave by a device: our queueing disciplines, as the kernel has them.

At the root a token bucket (TBF), which cuts GSO packets into the frames of the wire and keeps the
rate; below it netem, a black hole, or nothing but the queue of the rate. Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple

TICK: Final = 64
"""Nanoseconds: in these the kernel tells how much a bucket holds (PSCHED_SHIFT, pkt_sched.h)."""

SECOND: Final = 10**9

ROOT_HANDLE: Final = 0x7863 << 16
"""``7863:``, "xc", of our root. A root that nobody put there has the handle 0."""

NO_RATE: Final = 125 * SECOND
"""Bytes per second, 1 Tbit/s: a bucket that is never empty."""


class Netem(NamedTuple):
    """Options of sch_netem: times in ns, shares of 2**32 - 1, ``limit`` in frames.

    ``gilbert`` has the chances that a run of losses begins and that it ends, at each frame, in
    place of ``loss``. ``queue`` is the size in bytes of the queue below it, in which frames wait
    for the rate; 0 if there is none. The ``distribution`` can only be read from the handle.
    """

    delay: int = 0
    jitter: int = 0
    distribution: str = "uniform"
    loss: int = 0
    gilbert: tuple[int, int] | None = None
    corrupt: int = 0
    duplicate: int = 0
    reorder: int = 0
    limit: int = 1000
    seed: int | None = None
    queue: int = 0

    @property
    def loses(self) -> bool:
        return bool(self.loss or self.gilbert)


class Shape(NamedTuple):
    """``rate`` in bytes per second, ``bucket`` in ticks, ``limit`` in bytes.

    The limit is that of the queue, unless netem has one of its own. ``is_hole``: nothing gets
    through. The kernel does not tell the rest: ``frame``, the length in bytes of the longest frame,
    of which the limit is a multiple, and ``burst``, the bytes that the bucket holds.
    """

    rate: int = NO_RATE
    bucket: int = 0
    limit: int = 0
    netem: Netem | None = None
    is_hole: bool = False
    frame: int = 0
    burst: int = 0

    def does(self, wanted: Shape) -> bool:
        """Whether what was read does what is wanted; any seed will do where none is."""
        netem = self.netem
        if netem and wanted.netem and wanted.netem.seed is None:
            netem = netem._replace(seed=None)
        return self._replace(netem=netem, frame=wanted.frame, burst=wanted.burst) == wanted


def ticks(rate: int, size: int) -> int:
    """How long so many bytes take at so many per second, rounded as the kernel does it.

    By psched_ratecfg_precompute and psched_l2t_ns (net/sched/sch_generic.c, sch_generic.h).
    """
    factor, shift = SECOND, 0
    while not (factor // rate & 1 << 31 or factor & 1 << 63):
        factor, shift = factor << 1, shift + 1
    return (size * (factor // rate) >> shift) // TICK & 0xFFFFFFFF


class RootQdisc(NamedTuple):
    """What stands at the root of a device. ``shape`` is what ours does, None if it is not ours.

    ``losses`` are the frames that ours dropped on purpose, ``overflows`` those that found its
    queue full, since it was made.
    """

    kind: str
    handle: int
    shape: Shape | None = None
    losses: int = 0
    overflows: int = 0

    @property
    def is_foreign(self) -> bool:
        """Whether somebody else put it there: what the kernel does by itself has no handle."""
        return self.handle not in (0, ROOT_HANDLE)

    def __str__(self) -> str:
        return f"{self.kind} {self.handle >> 16:x}:"
