"""The numbered frames of a link test: made, recognised and counted. Pure.

Their ethertype is IEEE's local experimental one, which no stack listens to, and they go to the far
end's own address: whoever is there drops them unread.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from xconnectd.diagnostics.test_result import Lengths

ETHERTYPE: Final = 0x88B5
HEADER: Final = 14
SHORTEST: Final = 60
"""Bytes: what an Ethernet frame has at least, without its checksum."""

_LABEL: Final = struct.Struct("!14s8sBI")
_MAGIC: Final = b"xconnectd test"


def sizes(mtu: int, other_mtu: int) -> tuple[int, ...]:
    """What lengths to try from a far end with this MTU to one with another, in bytes."""
    longest = mtu + HEADER
    powers = (1 << bit for bit in range(7, 16))
    tried = {SHORTEST, *powers, longest, other_mtu + HEADER}
    return tuple(sorted(size for size in tried if SHORTEST <= size <= longest))


@dataclass(frozen=True, slots=True)
class Series:
    """All frames of one direction. ``run`` (8 bytes) tells them from another test's.

    ``swapped``: they arrive with their addresses swapped.
    """

    run: bytes
    way: int
    source: bytes
    target: bytes
    swapped: bool = False

    def frame(self, number: int, size: int) -> bytes:
        label = _LABEL.pack(_MAGIC, self.run, self.way, number)
        head = self.target + self.source + ETHERTYPE.to_bytes(2, "big") + label
        return head + random.Random(number).randbytes(size - len(head))  # noqa: S311 (no secret)

    def expected(self, number: int, size: int) -> bytes:
        """That frame as it is to arrive."""
        frame = self.frame(number, size)
        return frame[6:12] + frame[:6] + frame[12:] if self.swapped else frame

    def number(self, frame: bytes) -> int | None:
        """Which of these frames it is, whatever else became of it; None for another's."""
        if len(frame) < HEADER + _LABEL.size:
            return None
        magic, run, way, number = _LABEL.unpack_from(frame, HEADER)
        ours = (magic, run, way) == (_MAGIC, self.run, self.way)
        return int(number) if ours else None


@dataclass(slots=True)
class Count:
    """What became of a series. ``delays`` are seconds, of every frame that arrived whole."""

    series: Series
    delays: list[float] = field(default_factory=list)
    _sent: list[tuple[int, float]] = field(default_factory=list)
    _whole: set[int] = field(default_factory=set)
    _corrupted: list[int] = field(default_factory=list)
    _duplicated: list[int] = field(default_factory=list)
    _reordered: list[int] = field(default_factory=list)

    def next(self, size: int, now: float) -> bytes:
        """The next frame to send; ``now`` is on the clock of ``arrived``."""
        self._sent.append((size, now))
        return self.series.frame(len(self._sent) - 1, size)

    def arrived(self, frame: bytes, when: float) -> None:
        number = self.series.number(frame)
        if number is None or number >= len(self._sent):
            return
        size, sent = self._sent[number]
        if frame != self.series.expected(number, size):
            self._corrupted.append(size)
        elif number in self._whole:
            self._duplicated.append(size)
        else:
            if self._whole and number < max(self._whole):
                self._reordered.append(size)
            self._whole.add(number)
            self.delays.append(when - sent)

    @property
    def is_complete(self) -> bool:
        return len(self._whole) + len(self._corrupted) >= len(self._sent)

    def lengths(self) -> tuple[Lengths, ...]:
        sent = [size for size, _ in self._sent]
        whole = [sent[number] for number in self._whole]
        return tuple(
            Lengths(
                size,
                sent.count(size),
                whole.count(size),
                self._corrupted.count(size),
                self._duplicated.count(size),
                self._reordered.count(size),
            )
            for size in sorted(set(sent))
        )


def spread(delays: Iterable[float]) -> tuple[float, float, float] | None:
    """Shortest, median and longest; None of nothing."""
    ordered = sorted(delays)
    return (ordered[0], ordered[len(ordered) // 2], ordered[-1]) if ordered else None
