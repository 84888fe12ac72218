"""BPF programs of the bench's own, by hand: redirects that do nothing else, a source, a sink.

A bare redirect is the limit of what a mode can do, and what our counters cost is the distance to
it. So it gets a map of the same type and size as ours, and the same flags; for tc, where no map
is needed, the target stands in the code.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.netns.lab import BPFFS, PROG_TC, Lab, code, inside
from xconnectd.dataplane import libbpf
from xconnectd.dataplane.programs import MAX_ENDS

_LIVE_FRAMES: Final = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES
_REDIRECT: Final = 23  # bpf_redirect; XDP and tc have one each, under one number
_REDIRECT_MAP: Final = 51
_INGRESS_IFINDEX: Final = 12  # in struct xdp_md
_XDP_DROP: Final = 1
_TC_ACT_UNSPEC: Final = 0xFFFFFFFF  # -1


def _set(register: int, value: int) -> int:
    return code(0xB7, register, value)


def _call(helper: int) -> int:
    return code(0x85, 0, helper)


EXIT: Final = code(0x95)
PASS_ON: Final = _set(0, _TC_ACT_UNSPEC)
"""What a filter answers that has nothing to say."""
_Code = tuple[int, ...]


def redirect(ifindex: int) -> _Code:
    """XDP or tc: everything leaves by one interface."""
    return (_set(1, ifindex), _set(2, 0), _call(_REDIRECT), EXIT)


def redirect_by(devmap: int) -> _Code:
    """XDP: everything leaves by the interface that the map (a descriptor) has for its ingress."""
    key = code(0x61, 2 | 1 << 4) | _INGRESS_IFINDEX << 16
    address = (code(0x18, 1 | 1 << 4, devmap), 0)
    return (key, *address, _set(3, _XDP_DROP), _call(_REDIRECT_MAP), EXIT)


def load_xdp(instructions: Sequence[int], name: str = "bare") -> int:
    """With frags where the kernel knows them (5.18), as ours are; returns the descriptor."""
    packed = struct.pack(f"<{len(instructions)}Q", *instructions)
    load = (libbpf.PROG_XDP, name, "GPL", packed)
    try:
        return libbpf.load_program(*load, attach=libbpf.ATTACH_XDP, flags=libbpf.F_XDP_HAS_FRAGS)
    except libbpf.LoadError:
        return libbpf.load_program(*load, attach=libbpf.ATTACH_XDP)


def pinned(lab: Lab, name: str, program: int) -> Path:
    """Where ip and tc find the program, until the lab is closed. Closes the descriptor."""
    path = BPFFS / f"{lab.name}-{name}"
    try:
        libbpf.pin(program, path)
    finally:
        os.close(program)
    lab.on_close(path.unlink, True)
    return path


def wire_xdp(lab: Lab, how: str, *ends: str) -> None:
    """``how`` is ``xdpgeneric`` or ``xdpdrv``."""
    indexes = [lab.ifindex(end) for end in ends]
    form = libbpf.MapFormat(libbpf.MAP_DEVMAP_HASH, 4, MAX_ENDS)
    devmap = libbpf.create_map("bare", form)
    try:
        entries = libbpf.Map(devmap)
        for key, target in zip(indexes, reversed(indexes), strict=True):
            inside(lab.host, lambda key=key, target=target: entries.set(key, target))  # type: ignore[misc]
        path = pinned(lab, f"{how}-{ends[0]}", load_xdp(redirect_by(devmap)))
    finally:
        os.close(devmap)
    for end in ends:
        lab.ip("link", "set", "dev", end, how, "pinned", str(path))


def wire_tc(lab: Lab, *ends: str, egress: bool = False) -> None:
    """With ``egress`` there is a filter on the way out, too, which lets all pass."""
    for end, other in zip(ends, reversed(ends), strict=True):
        path = lab.program(PROG_TC, redirect(lab.ifindex(other)), f"tc-{end}")
        lab.tc(f"qdisc add dev {end} clsact")
        lab.tc(f"filter add dev {end} ingress bpf da pinned {path}")
        if egress:
            path = lab.program(PROG_TC, (PASS_ON, EXIT), f"egress-{end}")
            lab.tc(f"filter add dev {end} egress bpf da pinned {path}")


class Source:
    """Frames that are XDP frames from their birth on (BPF_PROG_RUN, Linux 5.18)."""

    def __init__(self, program: int, frame: bytes) -> None:
        self._program, self._frame = program, frame
        self._run = libbpf._function("bpf_prog_test_run_opts")

    def send(self, count: int) -> None:
        """Some frames, from this thread and its network namespace. OSError: EINVAL before 5.18."""
        options = libbpf._RunOpts(
            sz=ctypes.sizeof(libbpf._RunOpts),
            data_in=self._frame,
            data_size_in=len(self._frame),
            repeat=count,
            flags=_LIVE_FRAMES,
        )
        if self._run(self._program, ctypes.byref(options)) < 0:
            raise libbpf._error("live frames")


@contextmanager
def source(ifindex: int, frame: bytes) -> Iterator[Source]:
    """Sends ``frame`` out of an interface of the namespace that it is used in."""
    program = load_xdp(redirect(ifindex), "source")
    try:
        yield Source(program, frame)
    finally:
        os.close(program)
