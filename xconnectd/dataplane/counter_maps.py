"""Where the frames of every end are counted, and how what lies there is summed up.

COUNTERS has an element for each end. Frames that cross are counted in TALLIES, an array, where a
program finds them in a tenth of the time: an end owns the element at its ifindex modulo ``PLACES``
unless another end does, in which case they, too, are counted in COUNTERS. What programs of an older
release count goes there as well, so that nothing is lost when they are replaced.

Knows maps, not who writes them. Raises OSError as the kernel does.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from operator import add, attrgetter, itemgetter
from typing import Final, NamedTuple

from xconnectd.dataplane import libbpf
from xconnectd.dataplane.libbpf import Map, MapFormat
from xconnectd.dataplane.pins import Pins
from xconnectd.model import Counters

PLACES: Final = 4096
"""How many elements the arrays have in which ends have a place (PLACES_EACH in the source).

TALLIES takes 128 KiB for each CPU that there could be.
"""

FILTERED: Final = 8 * 6
"""Where filters count, in bytes from the beginning of COUNTERS' values."""

_WORDS: Final = 7
_LAST: Final = 4
"""Which of the words in COUNTERS is a time, and not a count."""
_TALLY_WORDS: Final = 4
_OWNER: Final = 3
"""Which of the words in TALLIES is the ifindex of the end that owns it; 0 is none's."""
_FRAME: Final = bytes(16)
_FEW: Final = 256
"""So many places are looked at one by one, which costs a third of a look at all."""

FORMATS: Final = {
    "counters": MapFormat(libbpf.MAP_PERCPU_HASH, 8 * _WORDS, 65_536, libbpf.F_NO_PREALLOC),
    "tallies": MapFormat(libbpf.MAP_PERCPU_ARRAY, 8 * _TALLY_WORDS, PLACES),
    "clock": MapFormat(libbpf.MAP_ARRAY, 16, 1),
}


class _Tally(NamedTuple):
    """Of one end; ``last`` in jiffies, 0 without a frame."""

    frames: int = 0
    bytes: int = 0
    last: int = 0


_NO_TALLY: Final = _Tally()
_FRAMES: Final = attrgetter("frames")
_OCTETS: Final = attrgetter("bytes")


class CounterMaps:
    """Not for two threads at once. ``maps`` has a descriptor for each of FORMATS."""

    def __init__(self, maps: Mapping[str, int]) -> None:
        self._cpus = libbpf.possible_cpus()
        self._counters = Map(maps["counters"], ctypes.c_uint64, _WORDS * self._cpus)
        self._tallies = Map(maps["tallies"], ctypes.c_uint64, _TALLY_WORDS * self._cpus)
        self._clock = Map(maps["clock"], ctypes.c_uint64, 2)
        self._nothing = [0] * (_TALLY_WORDS * self._cpus)
        self.clock_program = -1
        """Writes jiffies and nanoseconds of CLOCK_MONOTONIC into the map of that name."""

    def create(self, key: int) -> None:
        """From zero; those that exist run on."""
        created = self._counters.create(key)
        owner = self._tallies.words(key % PLACES)[_OWNER]
        if key and (not owner or (owner == key and created)):
            self._tallies.put(key % PLACES, [0, 0, 0, key] * self._cpus)

    def delete(self, key: int) -> None:
        self._counters.delete(key)
        if key and self._tallies.words(key % PLACES)[_OWNER] == key:
            self._tallies.put(key % PLACES, self._nothing)

    def settle(self) -> None:
        """After daemons of a release that knows no TALLIES: who is gone owns none."""
        keys = self._counters.keys()
        for owner in set(self._tallied(range(PLACES))).difference(keys):
            self.delete(owner)
        for key in keys:
            self.create(key)

    # ------------------------------------------------------------------ what was counted

    def of(self, key: int) -> Counters:
        """Zeros where there are none."""
        words = self._counters.words(key)
        tallies = self._tallied([key % PLACES])
        return self._summed([key], words, tallies)[key] if words else Counters()

    def handled(self, key: int) -> tuple[int, int]:
        """Frames that were handed on, and that had nowhere to go; asks no clock."""
        words = self._counters.words(key)
        frames, no_entry, one_way = (sum(words[word::_WORDS]) for word in (0, 2, 5))
        tally = self._tallied([key % PLACES]).get(key, _Tally())
        return frames + tally.frames, no_entry + one_way

    def in_parts(self) -> Iterator[dict[int, Counters]]:
        """All there are, of some hundred ends at a time; some parts are empty."""
        parts = []
        for part in self._counters.parts():
            parts.append(part)
            yield {}
        tallies = self._tallied({key % PLACES for keys, _ in parts for key in keys})
        for keys, words in parts:
            yield self._summed(keys, words, tallies)

    def _summed(
        self, keys: Sequence[int], words: Sequence[int], tallies: Mapping[int, _Tally]
    ) -> dict[int, Counters]:
        """``words`` are those of all keys, one after the other."""
        by_word = _by_word(words, _WORDS, self._cpus)
        sums = [map(max if word == _LAST else sum, by_word[word]) for word in range(_WORDS)]
        frames, octets, no_entry, host_egress, last, one_way, filtered = sums
        jiffies, now, tick = self._time()
        owned = [tallies.get(key, _NO_TALLY) for key in keys]
        times = [now - (jiffies - each.last) * tick if each.last else 0 for each in owned]
        counted = map(
            Counters,
            map(add, frames, map(_FRAMES, owned)),
            map(add, octets, map(_OCTETS, owned)),
            no_entry,
            host_egress,
            map(max, last, times),
            one_way,
            filtered,
        )
        return dict(zip(keys, counted, strict=True))

    def _tallied(self, places: Collection[int]) -> dict[int, _Tally]:
        """By owner, of those places that have one; of all there are in place of many."""
        if len(places) <= _FEW:
            return self._owned([word for each in places for word in self._tallies.words(each)])
        of_parts = (self._owned(words).items() for _, words in self._tallies.parts())
        return dict(chain.from_iterable(of_parts))

    def _owned(self, words: Sequence[int]) -> dict[int, _Tally]:
        frames, octets, last, owners = _by_word(words, _TALLY_WORDS, self._cpus)
        tallies = map(_Tally, map(sum, frames), map(sum, octets), map(max, last))
        owned = dict(zip(map(itemgetter(0), owners), tallies, strict=True))
        owned.pop(0, None)
        return owned

    def _time(self) -> tuple[int, int, int]:
        """Jiffies, the same moment in ns (CLOCK_MONOTONIC), and how many ns a jiffy lasts.

        Who may not run programs takes the moment that the daemon found last: both clocks go
        alike, but where the kernel has no high-resolution timers (tick_do_update_jiffies64).
        """
        with suppress(PermissionError):
            libbpf.run_program(self.clock_program, _FRAME)
        jiffies, now = self._clock.words(0)
        return jiffies, now, round(time.clock_getres(_COARSE) * 1e9)


def _by_word(words: Sequence[int], size: int, cpus: int) -> list[list[tuple[int, ...]]]:
    """Of values one after the other, by word, what each CPU has of it in each value."""
    return [
        [*zip(*(words[cpu * size + word :: size * cpus] for cpu in range(cpus)), strict=True)]
        for word in range(size)
    ]


_COARSE: Final = 6
"""CLOCK_MONOTONIC_COARSE, which advances once a jiffy."""


def take_over(pins: Pins, counters: int) -> None:
    """From the map of an earlier release, which had fewer words in front of what came since.

    Without counters of its own an end would count for nobody.
    """
    cpus = libbpf.possible_cpus()
    new = Map(counters, ctypes.c_uint64, _WORDS * cpus)
    for pin in pins.maps("counters"):
        fd = libbpf.open_pin(pin)
        try:
            width = libbpf.value_size(fd) // 8
            if width > _WORDS:
                continue
            added = [0] * (_WORDS - width)
            for key, words in Map(fd, ctypes.c_uint64, width * cpus).all_words().items():
                of_cpus = (words[cpu * width : (cpu + 1) * width] for cpu in range(cpus))
                new.put(key, [word for of_cpu in of_cpus for word in (*of_cpu, *added)])
        finally:
            os.close(fd)
