"""Taps of a wire: programs beside the data path that copy every frame that comes in by an end.

Nothing of it is pinned: it works whether a daemon runs or not, costs nothing when nobody captures,
and is gone with the process. Where frames are received is described in ``bpf/capture.c``. Every
failure is a DataplaneError or a PrivilegeError.
"""

from __future__ import annotations

import bisect
import ctypes
import errno
import os
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from xconnectd import capabilities
from xconnectd.dataplane import btf, compiler, libbpf, perf_buffer
from xconnectd.dataplane.libbpf import Map, MapFormat, Target
from xconnectd.dataplane.refusals import in_words
from xconnectd.errors import DataplaneError, PrivilegeError, XconnectError
from xconnectd.paths import own_inode

PROGRAM_NAME: Final = "xcapture"
ETHERNET_HEADER: Final = 14

_CAPABILITIES: Final = ("CAP_BPF", "CAP_PERFMON")
_TRACEPOINT: Final = "netif_receive_skb"
_TALLY_WORDS: Final = 2

_RECORD: Final = struct.Struct("=IHHIQIH2sH")
"""``perf_buffer.RECORD`` and ``struct record`` of the source up to the header."""
_TAG: Final = struct.Struct(">H")

LONGEST: Final = perf_buffer.LONGEST - (_RECORD.size - perf_buffer.RECORD.size)
"""As many bytes of a frame can be had: 65,498, where a TCP segment has 65,226 at most."""


class Frame(NamedTuple):
    """``time`` is of CLOCK_MONOTONIC in ns, ``end`` from 0, ``length`` as it came in, in bytes."""

    time: int
    end: int
    length: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Tally:
    """Frames that came in by an end while a tap was attached to it, and those of them not kept."""

    received: int
    lost: int


class Capture:
    """Frames of so many ``ends`` of links. A context manager; not for two threads at once.

    ``snaplen`` is how many bytes to keep of a frame, ``room`` how many bytes of frames may wait
    to be read.
    """

    def __init__(self, *, ends: int, snaplen: int, room: int) -> None:
        self.snaplen = min(snaplen, LONGEST)
        self._kept = max(self.snaplen, ETHERNET_HEADER)
        self._taps: dict[int, ExitStack] = {}
        self._held: list[Frame] = []
        with ExitStack() as stack:
            self._code = _compiled()
            self._layout = _Layout.read()
            with _border("loading the taps"):
                maps = {name: libbpf.create_map(f"xc_{name}", form) for name, form in _maps(ends)}
                for fd in maps.values():
                    stack.callback(os.close, fd)
                self._rings = stack.enter_context(_rings(maps["ring"], room))
            self._maps = maps
            words = _TALLY_WORDS * libbpf.possible_cpus()
            self._tallies = Map(maps["tallies"], ctypes.c_uint64, words)
            self._stack = stack.pop_all()

    def fileno(self) -> int:
        """Readable when much is to be read; a few frames wait for who comes by."""
        return self._rings.fileno()

    def attach(self, end: int, ifindex: int, program: int | None = None) -> None:
        """Taps this interface from now on, and no longer another that was that end.

        Where frames go by native XDP, ``program`` is a descriptor of the program they go through.
        """
        self.detach(end)
        constants = {
            "ifindex": ifindex,
            "namespace": own_inode(),
            "end": end,
        }
        with ExitStack() as stack, _border("attaching"):
            if program is None:
                self._attach_to_tracepoint(stack, constants)
            else:
                self._attach_to_program(stack, constants, program)
            self._taps[end] = stack.pop_all()

    def detach(self, end: int) -> None:
        """Taps that end no longer. What was received can still be read."""
        if tap := self._taps.pop(end, None):
            tap.close()

    def read(self) -> list[Frame]:
        """Frames that came in before this call, in the order in which they came.

        One that comes by now on one CPU waits for those that another CPU has not shown yet.
        """
        until = time.monotonic_ns()
        for data in self._rings.drain():
            self._held += frames(data, self._kept)
        found, self._held = in_order(self._held, until)
        return found

    def tally(self, end: int) -> Tally:
        with _border("reading counters"):
            words = self._tallies.words(end)
        return Tally(*(sum(words[word::_TALLY_WORDS]) for word in range(_TALLY_WORDS)))

    def close(self) -> None:
        for end in tuple(self._taps):
            self.detach(end)
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ loading

    def _attach_to_tracepoint(self, stack: ExitStack, constants: Mapping[str, int]) -> None:
        own = {"snaplen": self._kept - ETHERNET_HEADER}
        code = self._code["received"].bound(self._maps, {**constants, **own, **self._layout.skb})
        target = Target(self._layout.tracepoint)
        _attach(stack, code, libbpf.ATTACH_TRACEPOINT, target)

    def _attach_to_program(
        self, stack: ExitStack, constants: Mapping[str, int], program: int
    ) -> None:
        """The older of two programs where the kernel does not know the newer one's helper."""
        if not libbpf.has_btf(program):
            raise DataplaneError("capture", _NO_DESCRIPTION)
        constants = {**constants, "snaplen": self._kept, **self._layout.xdp}
        target = Target(btf.ENTRY, program)
        newer, older = (
            self._code[name].bound(self._maps, constants)
            for name in ("entered_frags", "entered_linear")
        )
        try:
            _attach(stack, newer, libbpf.ATTACH_ENTRY, target)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise _not_attached(error) from error
            _attach(stack, older, libbpf.ATTACH_ENTRY, target)


_NO_DESCRIPTION: Final = (
    "the XDP program in the kernel cannot be captured: an older xconnectd loaded it, or the"
    " kernel knows no BTF; restart the daemon, or put the link into generic or tc mode"
)


def _attach(stack: ExitStack, code: bytes, kind: int, target: Target) -> None:
    program = libbpf.load_program(
        libbpf.PROG_TRACING, PROGRAM_NAME, compiler.LICENSE, code, attach=kind, target=target
    )
    stack.callback(os.close, program)
    stack.callback(os.close, libbpf.attach_tracing(program))


def _maps(ends: int) -> Iterator[tuple[str, MapFormat]]:
    yield "ring", MapFormat(libbpf.MAP_PERF_EVENT_ARRAY, 4, libbpf.possible_cpus())
    yield "tallies", MapFormat(libbpf.MAP_PERCPU_ARRAY, 8 * _TALLY_WORDS, ends)


def _rings(array: int, room: int) -> perf_buffer.Rings:
    try:
        return perf_buffer.Rings(array, room)
    except AttributeError as error:
        raise DataplaneError("capture", "libbpf 1.0 is needed (Debian 12 has it)") from error


def _compiled() -> compiler.Compiled:
    directory = compiler.source_directory()
    made_of = compiler.source_hash(directory, compiler.CAPTURE)
    return compiler.code_for(directory, made_of, compiler.CAPTURE)


# --------------------------------------------------------------------------- decoding


def frames(data: bytes, kept: int) -> Iterator[Frame]:
    """Out of the records of a ring, each of up to ``kept`` bytes of a frame.

    A VLAN tag that the driver took out of a frame is put back into it.
    """
    at, stop, unpack, head = 0, len(data), _RECORD.unpack_from, _RECORD.size
    while at < stop:
        kind, _, size, _, when, length, end, protocol, tag = unpack(data, at)
        if (
            kind == perf_buffer.SAMPLE
        ):  # or a note that some were lost, which the tally knows better
            begin = at + head
            frame = data[begin : begin + min(length, kept)]
            if protocol != b"\0\0":
                frame = frame[:12] + protocol + _TAG.pack(tag) + frame[12:]
                length += 4
            yield Frame(when, end, length, frame)
        at += size


def in_order(received: list[Frame], until: int) -> tuple[list[Frame], list[Frame]]:
    """Those older than ``until``, and those that have to wait, both by their times."""
    received.sort()
    ready = bisect.bisect(received, (until,))
    return received[:ready], received[ready:]


# --------------------------------------------------------------------------- the kernel's layout


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where this kernel has what the programs look at."""

    tracepoint: int
    skb: Mapping[str, int]
    xdp: Mapping[str, int]

    @classmethod
    def read(cls) -> Self:
        try:
            with btf.Kernel() as kernel:
                device = {
                    "dev_ifindex": kernel.offset("net_device", "ifindex"),
                    "dev_net": kernel.offset("net_device", "nd_net.net"),
                    "net_inum": kernel.offset("net", "ns.inum"),
                }
                tracepoint = kernel.tracepoint(_TRACEPOINT)
                return cls(tracepoint, device | _skb(kernel), device | _xdp(kernel))
        except LookupError as error:
            reason = f"{error.args[0]}; a capture needs Linux 5.5 or newer with BTF"
            raise DataplaneError("capture", reason) from error


def _skb(kernel: btf.Kernel) -> dict[str, int]:
    tagged = _tagged(kernel)
    return {
        "skb_dev": kernel.offset("sk_buff", "dev"),
        "skb_len": kernel.offset("sk_buff", "len"),
        "skb_head": kernel.offset("sk_buff", "head"),
        "skb_mac_header": kernel.offset("sk_buff", "mac_header"),
        "skb_tag": kernel.offset("sk_buff", "vlan_tci"),
        "skb_tag_protocol": kernel.offset("sk_buff", "vlan_proto"),
        "skb_tagged": tagged.offset,
        "skb_tagged_mask": 1 << tagged.bit % 8 if tagged.width else 0xFFFF_FFFF,
    }


def _tagged(kernel: btf.Kernel) -> btf.Field:
    """A bit of its own up to Linux 6.1, then protocol and tag in one that are not both 0."""
    try:
        return kernel.field("sk_buff", "vlan_present")
    except LookupError:
        return kernel.field("sk_buff", "vlan_all")


def _xdp(kernel: btf.Kernel) -> dict[str, int]:
    return {
        "xdp_rxq": kernel.offset("xdp_buff", "rxq"),
        "xdp_data": kernel.offset("xdp_buff", "data"),
        "xdp_data_end": kernel.offset("xdp_buff", "data_end"),
        "rxq_dev": kernel.offset("xdp_rxq_info", "dev"),
    }


# --------------------------------------------------------------------------- the border


@contextmanager
def _border(purpose: str) -> Iterator[None]:
    """Turns the kernel's refusals into our errors."""
    try:
        yield
    except OSError as error:
        raise _judged(purpose, error) from error


def _not_attached(error: OSError) -> XconnectError:
    """Kernels are built or locked down so that nothing attaches to a function (EPERM, ENOTSUPP)."""
    if capabilities.missing(*_CAPABILITIES):
        return _judged("attaching", error)
    reason = (
        "native mode cannot be captured here: this kernel lets no program be attached to the entry"
        f" of another ({in_words(error)}); the generic and tc modes need no such thing"
    )
    return DataplaneError("capture", reason, getattr(error, "log", ""))


def _judged(purpose: str, error: OSError) -> XconnectError:
    lacks = capabilities.missing(*_CAPABILITIES)
    if error.errno in (errno.EPERM, errno.EACCES) and lacks:
        return PrivilegeError(", ".join(lacks), f"{purpose} ({in_words(error)})")
    hint = _MAPPING if error.errno == errno.EPERM else ""
    log = error.log if isinstance(error, libbpf.LoadError) else ""
    return DataplaneError("capture", f"{purpose}: {in_words(error)}{hint}", log)


_MAPPING: Final = "; without CAP_IPC_LOCK only a small --buffer is allowed"
