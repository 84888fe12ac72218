"""What keeps frames that get past every other hook from the host's own IP stack.

A program of netfilter's drops and counts packets that come in by an end all the same, and those
that the host sends into one. It stands as long as the process does: a pinned link would keep the
network namespace alive (bpf_nf_link_attach in net/netfilter/nf_bpf_link.c). Program and counts are
pinned. It is no part of the wire: where it cannot be, ``unavailable`` says why.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from itertools import product
from typing import Final, NamedTuple

from xconnectd.dataplane import btf, compiler, libbpf
from xconnectd.dataplane.libbpf import Map, MapFormat
from xconnectd.dataplane.pins import Pins
from xconnectd.digest import sha256
from xconnectd.errors import DataplaneError
from xconnectd.model import PROGRAM_NAME


class Stopped(NamedTuple):
    """Packets at an end: those that came in and got as far as the host, and the host's own."""

    passed_to_host: int = 0
    host_egress: int = 0


_FORMAT: Final = MapFormat(libbpf.MAP_HASH, 8 * len(Stopped._fields), 65_536, libbpf.F_NO_PREALLOC)
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_HOOKS: Final = (libbpf.PREROUTING, libbpf.LOCAL_OUT, libbpf.FORWARD)
_MAP: Final = "guarded"
_PROGRAM: Final = "guard"

_TOO_OLD: Final = (
    "frames that bypass our hooks reach the host's IP stack uncounted: Linux 6.4 is needed"
)
_FORBIDDEN: Final = (
    "frames that bypass our hooks reach the host's IP stack uncounted: CAP_PERFMON is missing"
)
_UNAVAILABLE: Final = {errno.EINVAL: _TOO_OLD, errno.EPERM: _FORBIDDEN, errno.EACCES: _FORBIDDEN}


class Guard:
    """The ends it guards, and how many packets it stopped there. Not for two threads at once.

    Attributes:
        unavailable: why nothing is guarded; empty if it is.
        ends: those it guards, by ifindex, from when they are put in; None where none can be.
    """

    def __init__(self, pins: Pins) -> None:
        self.unavailable = (
            "frames that bypass our hooks reach the host's IP stack uncounted: no daemon guards it"
        )
        self._pins = pins
        self._directory = compiler.source_directory()
        self._made_of = compiler.source_hash(self._directory, compiler.GUARD)
        made_of = (self._made_of, _FORMAT)
        self._place = pins.guard(sha256(repr(made_of).encode()).hexdigest()[:16])
        self.ends: Map | None = None
        self._program = -1
        self._links: list[int] = []

    @classmethod
    def open(cls, pins: Pins, *, build: bool) -> Guard:
        """Without ``build`` only the counts are read, if there are any. It never fails."""
        guard = cls(pins)
        try:
            if build:
                guard._stand()
            if guard._place.exists():
                guard.ends = Map(
                    libbpf.open_pin(guard._place / _MAP), ctypes.c_uint64, len(Stopped._fields)
                )
                guard.unavailable = ""
        except (DataplaneError, LookupError) as error:
            guard.unavailable = str(error)
        except OSError as error:
            other = f"frames that bypass our hooks reach the host's IP stack uncounted: {error}"
            guard.unavailable = _UNAVAILABLE.get(error.errno or 0, other)
        return guard

    def _stand(self) -> None:
        """Counts that nobody adds to any more are worse than none: their pins go then."""
        try:
            if not self._place.exists():
                self._make()
            self._attach()
        except BaseException:
            self._leave()
            self._pins.remove([path for path in (self._place,) if path.exists()])
            raise

    def _make(self) -> None:
        code = compiler.code_for(self._directory, self._made_of, compiler.GUARD)[_PROGRAM]
        fds = {_MAP: libbpf.create_map("xc_guarded", _FORMAT)}
        try:
            bound = code.bound(fds, _layout())
            kind, hook = libbpf.PROG_NETFILTER, libbpf.ATTACH_NETFILTER
            fds[_PROGRAM] = libbpf.load_program(
                kind, PROGRAM_NAME, compiler.LICENSE, bound, attach=hook
            )
            self._pins.put_guard(self._place, fds)
        finally:
            for fd in fds.values():
                os.close(fd)

    def _attach(self) -> None:
        self._program = libbpf.open_pin(self._place / _PROGRAM)
        for family, hook in product(_FAMILIES, _HOOKS):
            self._links.append(libbpf.attach_netfilter(self._program, family, hook))

    @property
    def is_pinned(self) -> bool:
        """Whether all of a guard that stands is there for the next start, and for who looks."""
        return not self._links or all((self._place / pin).exists() for pin in (_MAP, _PROGRAM))

    def pin_again(self) -> None:
        """Raises OSError."""
        if self.ends is not None and not self.is_pinned:
            self._pins.put_guard(self._place, {_MAP: self.ends.fd, _PROGRAM: self._program})

    def stopped_in_parts(self) -> Iterator[dict[int, Stopped]]:
        """By ifindex of every end that is guarded, of some of them at a time."""
        for keys, words in self.ends.parts() if self.ends else ():
            yield dict(zip(keys, map(Stopped, words[::2], words[1::2]), strict=True))

    def close(self) -> None:
        self._leave()
        if self.ends is not None:
            os.close(self.ends.fd)

    def _leave(self) -> None:
        for link in self._links:
            os.close(link)
        self._links.clear()
        if self._program >= 0:
            os.close(self._program)
            self._program = -1


def _layout() -> dict[str, int]:
    with btf.Kernel() as kernel:
        return {
            "state_in": kernel.offset("nf_hook_state", "in"),
            "state_out": kernel.offset("nf_hook_state", "out"),
            "dev_ifindex": kernel.offset("net_device", "ifindex"),
        }
