"""Filters in tcpdump's syntax, by the library that has it: libpcap, through ctypes.

A filter judges whole frames in user space. Needs the distribution's libpcap (Debian: libpcap0.8,
which tcpdump brings along), and nothing without a filter.
"""

from __future__ import annotations

import ctypes as ct
from typing import Final

from xconnectd.errors import XconnectError

_ETHERNET: Final = 1  # DLT_EN10MB
_LONGEST: Final = 262_144
_NETMASK_UNKNOWN: Final = 0xFFFF_FFFF
_NAMES: Final = ("libpcap.so.0.8", "libpcap.so.1")
"""Debian's name for it, and everybody else's."""


class FilterError(XconnectError):
    """A filter that libpcap does not understand, or no libpcap."""


class _Program(ct.Structure):
    _fields_ = (("length", ct.c_uint), ("instructions", ct.c_void_p))


class _Header(ct.Structure):
    """``struct pcap_pkthdr``; a filter looks at the two lengths."""

    _fields_ = (
        ("seconds", ct.c_long),
        ("microseconds", ct.c_long),
        ("captured", ct.c_uint32),
        ("length", ct.c_uint32),
    )


class Filter:
    """``expression`` compiled; raises FilterError. Not for two threads at once."""

    def __init__(self, expression: str) -> None:
        library = _library()
        self._program = _Program()
        handle = ct.c_void_p(library.pcap_open_dead(_ETHERNET, _LONGEST))
        try:
            text = expression.encode()
            if library.pcap_compile(handle, ct.byref(self._program), text, 1, _NETMASK_UNKNOWN):
                reason = library.pcap_geterr(handle).decode(errors="replace")
                raise FilterError(f"filter {expression!r}: {reason}")
        finally:
            library.pcap_close(handle)
        self._judge = library.pcap_offline_filter
        self._program_ref = ct.byref(self._program)
        self._header = _Header()
        self._header_ref = ct.byref(self._header)

    def __call__(self, data: bytes, length: int) -> bool:
        """Whether a frame of ``length`` bytes, of which ``data`` was captured, passes."""
        self._header.captured, self._header.length = len(data), length
        return bool(self._judge(self._program_ref, self._header_ref, data))


def _library() -> ct.CDLL:
    for name in _NAMES:
        try:
            library = ct.CDLL(name)
        except OSError:
            continue
        library.pcap_open_dead.restype = ct.c_void_p
        library.pcap_geterr.restype = ct.c_char_p
        library.pcap_geterr.argtypes = (ct.c_void_p,)
        library.pcap_close.argtypes = (ct.c_void_p,)
        library.pcap_compile.argtypes = (
            ct.c_void_p,
            ct.c_void_p,
            ct.c_char_p,
            ct.c_int,
            ct.c_uint32,
        )
        library.pcap_offline_filter.argtypes = (ct.c_void_p, ct.c_void_p, ct.c_char_p)
        return library
    raise FilterError("a filter needs libpcap: install it (Debian: libpcap0.8), or leave it out")
