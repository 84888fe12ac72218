"""Filters in tcpdump's syntax, by the library that has it: libpcap, through ctypes.

A filter judges whole frames in user space, or is what the kernel's is made of. It needs the
distribution's libpcap (Debian: libpcap0.8, which tcpdump brings along), which is loaded for a
filter alone.
"""

from __future__ import annotations

import ctypes as ct
import re
from typing import Final

from xconnectd.classic_bpf import Instruction
from xconnectd.errors import XconnectError

_ETHERNET: Final = 1  # DLT_EN10MB
_LONGEST: Final = 262_144
_NETMASK_UNKNOWN: Final = 0xFFFF_FFFF
_NAMES: Final = ("libpcap.so.0.8", "libpcap.so.1")
"""Debian's name for it, and everybody else's."""


class FilterError(XconnectError):
    """A filter that libpcap does not understand, or no libpcap."""


class NoLibpcapError(FilterError):
    """There is no libpcap."""


class _Program(ct.Structure):
    _fields_ = (("length", ct.c_uint), ("instructions", ct.c_void_p))


class _Instruction(ct.Structure):
    _fields_ = (("code", ct.c_uint16), ("jt", ct.c_uint8), ("jf", ct.c_uint8), ("k", ct.c_uint32))


class _Header(ct.Structure):
    """``struct pcap_pkthdr``; a filter looks at the two lengths."""

    _fields_ = (
        ("seconds", ct.c_long),
        ("microseconds", ct.c_long),
        ("captured", ct.c_uint32),
        ("length", ct.c_uint32),
    )


def compiled(expression: str) -> tuple[Instruction, ...]:
    """What libpcap makes of an expression, without asking anybody for names of hosts.

    Raises FilterError.
    """
    if name := _host_name(expression):
        raise FilterError(
            f"filter {expression!r}: {name!r} is no word of a filter; a host is told by its address"
        )
    program = Filter(expression).program
    try:
        found = (_Instruction * program.length).from_address(program.instructions or 0)
        return tuple([Instruction(each.code, each.jt, each.jf, each.k) for each in found])
    finally:
        _library().pcap_freecode(ct.byref(program))


def fault(expression: str) -> str:
    """What is wrong with an expression; empty also where no libpcap can tell."""
    try:
        if any(each.code == _JA and each.k >> 31 for each in compiled(expression)):
            return "protochain makes a loop, which the kernel does not take"
    except NoLibpcapError:
        return ""
    except FilterError as error:
        return str(error).removeprefix(f"filter {expression!r}: ")
    return ""


_JA: Final = 0x05
_WORD: Final = re.compile(r"[\w.:-]+")
_NAME: Final = re.compile(r"[A-Za-z_][\w.-]*")
_KEYWORDS: Final = frozenset(
    (
        *(
            "aarp",
            "ah",
            "and",
            "arp",
            "atalk",
            "broadcast",
            "carp",
            "clnp",
            "csnp",
            "decnet",
            "dst",
        ),
        *("es-is", "esis", "esp", "ether", "fddi", "gateway", "geneve", "greater", "host", "icmp"),
        *("icmp6", "icmp6code", "icmp6type", "icmpcode", "icmptype", "igmp", "igrp", "iih", "ip"),
        *("ip6", "ipx", "is-is", "isis", "iso", "l1", "l2", "lat", "len", "length", "less", "link"),
        *("lsp", "mask", "mopdl", "moprc", "mpls", "multicast", "net", "netbeui", "not", "or"),
        *("pim", "port", "portrange", "ppp", "pppoed", "pppoes", "proto", "protochain", "psnp"),
        *("rarp", "sca", "sctp", "slip", "snp", "src", "stp", "tcp", "tcpflags", "tr", "udp"),
        *("vlan", "vrrp", "wlan"),
    )
)
_OF_FIELDS: Final = ("tcp-", "icmp-", "icmp6-")
_LOCAL: Final = ("port", "portrange", "proto", "protochain")
"""What is followed by names that are in files of this machine (/etc/services)."""


def _host_name(expression: str) -> str:
    """The first word that libpcap would ask a name server for; empty if there is none."""
    before = ""
    for word in _WORD.findall(expression):
        is_known = word in _KEYWORDS or word.startswith(_OF_FIELDS) or before in _LOCAL
        if _NAME.fullmatch(word) and not is_known:
            return str(word)
        before = word
    return ""


class Filter:
    """``expression`` compiled; raises FilterError. Not for two threads at once."""

    def __init__(self, expression: str) -> None:
        library = _library()
        self.program = _Program()
        handle = ct.c_void_p(library.pcap_open_dead(_ETHERNET, _LONGEST))
        try:
            text = expression.encode()
            if library.pcap_compile(handle, ct.byref(self.program), text, 1, _NETMASK_UNKNOWN):
                reason = library.pcap_geterr(handle).decode(errors="replace")
                raise FilterError(f"filter {expression!r}: {reason}")
        finally:
            library.pcap_close(handle)
        self._judge = library.pcap_offline_filter
        self._program_ref = ct.byref(self.program)
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
        library.pcap_freecode.argtypes = (ct.c_void_p,)
        library.pcap_compile.argtypes = (
            ct.c_void_p,
            ct.c_void_p,
            ct.c_char_p,
            ct.c_int,
            ct.c_uint32,
        )
        library.pcap_offline_filter.argtypes = (ct.c_void_p, ct.c_void_p, ct.c_char_p)
        return library
    raise NoLibpcapError("a filter needs libpcap: install it (Debian: libpcap0.8), or leave it out")
