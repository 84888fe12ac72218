"""The rings by which BPF programs hand records to user space: one per CPU, read in bulk.

Owns the layout of perf's ring buffers (linux/perf_event.h); libbpf makes and maps them. Knows
nothing of what is in a record. What the kernel refuses is an OSError.
"""

from __future__ import annotations

import ctypes as ct
import mmap
import struct
from collections.abc import Iterator
from typing import Final, Self

from xconnectd.dataplane import libbpf

RECORD: Final = struct.Struct("=IHHI")
"""In front of every sample: type, misc, size of it all in bytes, size of the rest (padded)."""
SAMPLE: Final = 9
LONGEST: Final = 0xFFF8 - RECORD.size
"""Bytes of a record's content: its size is a 16-bit number, a multiple of 8."""

_TYPE_SOFTWARE: Final = 1
_COUNT_BPF_OUTPUT: Final = 10
_SAMPLE_RAW: Final = 1 << 10
_F_WATERMARK: Final = 1 << 14
_SMALLEST: Final = 128 << 10


class _Attributes(ct.Structure):
    """``struct perf_event_attr``, as much as is needed (its first size, 64 bytes)."""

    _fields_ = (
        ("type", ct.c_uint32),
        ("size", ct.c_uint32),
        ("config", ct.c_uint64),
        ("sample_period", ct.c_uint64),
        ("sample_type", ct.c_uint64),
        ("read_format", ct.c_uint64),
        ("flags", ct.c_uint64),
        ("wakeup_watermark", ct.c_uint32),
        ("bp_type", ct.c_uint32),
        ("bp_addr", ct.c_uint64),
    )


class _Page(ct.Structure):
    """``struct perf_event_mmap_page``: ahead of the data."""

    _fields_ = (
        ("unused", ct.c_uint8 * 1024),
        ("head", ct.c_uint64),
        ("tail", ct.c_uint64),
        ("offset", ct.c_uint64),
        ("size", ct.c_uint64),
    )


class Rings:
    """A ring for every CPU, in a perf event array that a program writes to. A context manager.

    ``total`` is in bytes, for all of them together. A reader that waits for ``fileno`` is woken
    when a ring is an eighth full: who wants records sooner looks sooner.

    Raises AttributeError where libbpf is older than 1.0.
    """

    def __init__(self, array: int, total: int) -> None:
        size = _power_of_two(total // libbpf.possible_cpus())
        attributes = _Attributes(
            type=_TYPE_SOFTWARE,
            size=ct.sizeof(_Attributes),
            config=_COUNT_BPF_OUTPUT,
            sample_period=1,
            sample_type=_SAMPLE_RAW,
            flags=_F_WATERMARK,
            wakeup_watermark=size // 8,
        )
        memory = libbpf.function(
            "perf_buffer__buffer", ct.c_int, ct.c_void_p, ct.c_int, ct.c_void_p, ct.c_void_p
        )
        make = libbpf.function(
            "perf_buffer__new_raw",
            *(ct.c_void_p, ct.c_int, ct.c_size_t, ct.c_void_p, ct.c_void_p, ct.c_void_p),
            ct.c_void_p,
        )
        # No callback: libbpf opens and maps the rings, we read them.
        pages = size // mmap.PAGESIZE
        opened = make(array, pages, ct.byref(attributes), None, None, None)
        self._buffer = libbpf.pointer(opened, "ring buffers")
        count = libbpf.function("perf_buffer__buffer_cnt", ct.c_size_t, ct.c_void_p)
        base, length = ct.c_void_p(), ct.c_size_t()
        self._rings = []
        for number in range(count(self._buffer)):
            if memory(self._buffer, number, ct.byref(base), ct.byref(length)) == 0:
                self._rings.append(_Ring(base.value or 0))
        self.size = size * len(self._rings)

    def fileno(self) -> int:
        return int(libbpf.function("perf_buffer__epoll_fd", ct.c_int, ct.c_void_p)(self._buffer))

    def drain(self) -> Iterator[bytes]:
        """What lies in each ring by now: whole records one after the other."""
        for ring in self._rings:
            if data := ring.take():
                yield data

    def close(self) -> None:
        self._rings.clear()
        libbpf.function("perf_buffer__free", None, ct.c_void_p)(self._buffer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Ring:
    def __init__(self, base: int) -> None:
        self._page = _Page.from_address(base)
        self._size = self._page.size
        data = (ct.c_char * self._size).from_address(base + self._page.offset)
        self._data = memoryview(data).cast("B")

    def take(self) -> bytes:
        """Copies at once and gives the room back, so that no reader's work keeps the kernel out.

        The kernel writes ``head`` after the data, and does not touch what lies before it until
        ``tail`` says so.
        """
        head, tail = self._page.head, self._page.tail
        if head == tail:
            return b""
        start, length = tail % self._size, head - tail
        data = bytes(self._data[start : start + length])
        if len(data) < length:  # it goes on at the beginning
            data += self._data[: length - len(data)]
        self._page.tail = head
        return data


def _power_of_two(size: int) -> int:
    """The largest that is not above ``size``, and enough for the longest record."""
    return 1 << max(size, _SMALLEST).bit_length() - 1
