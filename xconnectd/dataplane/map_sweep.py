"""Whether a map is as it was left, looked at each second.

Knows maps of ifindexes to ifindexes, and the programs that check them; not what they are for.
Raises OSError as the kernel does.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping
from itertools import chain
from typing import Final

from xconnectd.dataplane import libbpf
from xconnectd.dataplane.libbpf import Map
from xconnectd.kernel_version import kernel_version

_EXPECTED: Final = 256
"""How many entries an audit program looks at in one run (MAX_EXPECTED in the source), no fewer."""
_PAIR: Final = 8
_A_SWEEP: Final = 16 * _EXPECTED * _PAIR
"""Bytes of pairs that one sweep looks for: half a millisecond, and all ends of 2,048 links."""


class MapSweep:
    """Looks each second whether a map has what it is to have, and nothing else.

    Kernels from 6.4 on tell a map's memory, and so whether elements came or went, and our
    ``audit`` program (None: there is none) checks 256 pairs with one system call. Of more ends
    than a sweep has time for, the next ones have their turn in the next. Others get the walk.
    """

    def __init__(self, looked_at: Map, audit: int | None) -> None:
        self._map = looked_at
        self._audit = audit
        self._gauge = _Gauge(looked_at.fd)
        self._settled: tuple[int, bytes] | None = None
        self._wanted: Mapping[int, int] = {}
        self._pairs = b""
        self._next = 0

    def expect(self, wanted: Mapping[int, int]) -> None:
        """From now on, until this is called again."""
        self._wanted = wanted
        self._pairs = array("I", chain.from_iterable(wanted.items())).tobytes()

    def finds(self) -> bool:
        reading = (len(self._wanted), self._gauge.read())
        if self._audit and reading == self._settled:
            return self._audited(self._audit)
        equal = self._map.all_items() == dict(self._wanted)
        self._settled = reading if equal and self._gauge.counts else None
        return equal

    def _audited(self, program: int) -> bool:
        """Whether every wanted entry whose turn it is is there; it says nothing of others."""
        begin, size = self._next, _EXPECTED * _PAIR
        pairs = self._pairs[begin : begin + _A_SWEEP]
        self._next = begin + _A_SWEEP if begin + _A_SWEEP < len(self._pairs) else 0
        for start in range(0, len(pairs), size):
            frame = pairs[start : start + size]
            if libbpf.run_program(program, frame.ljust(size, b"\0")) != len(frame) // _PAIR:
                return False
        return True

    def close(self) -> None:
        self._gauge.close()


class _Gauge:
    """How much memory a map takes, which tells how many elements it has.

    /proc/self/fdinfo gives a devmap's elements since Linux 6.4 (dev_map_mem_usage), and those of a
    hash that is not allocated beforehand (htab_map_mem_usage); before, a constant. A read costs
    1.3 µs once the file is open; offset 0 makes the kernel look again.
    """

    def __init__(self, fd: int) -> None:
        self.counts = kernel_version() >= (6, 4)
        self._file = -1
        try:
            self._file = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.counts = False

    def read(self) -> bytes:
        return os.pread(self._file, 1024, 0) if self.counts else b""

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
