"""Frames lost at the redirect, by reason: a listener at the kernel's XDP tracepoints.

Its link is pinned beside the maps, so it counts on while no daemon runs. It is no part of the
wire: where tracing is not permitted frames cross as ever, and ``untold`` says why nobody counts.

Imports ``libbpf``, ``pins``, ``compiler``, ``model`` and ``errors``.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from xconnectd import compiler, libbpf
from xconnectd.errors import DataplaneError
from xconnectd.libbpf import Map, MapFormat
from xconnectd.model import Lost
from xconnectd.pins import Pins

_FORMAT: Final = MapFormat(libbpf.MAP_LRU_HASH, 8 * len(Lost._fields), 4096)
"""Preallocated, as the kernel asks of maps that tracing programs write: half a megabyte."""

_MAP: Final = "drops"
_TRACEPOINTS: Final = {"redirect_failed": "xdp_redirect_err"}
_LICENSE: Final = "Dual MIT/GPL"

_UNTOLD: Final = {
    errno.EPERM: "counting frames lost at the redirect needs CAP_PERFMON",
    errno.EACCES: "counting frames lost at the redirect needs CAP_PERFMON",
    errno.EINVAL: "this kernel does not say why frames are lost at the redirect (Linux 5.13 does)",
}


class Drops:
    """What was lost by ingress ifindex. Not for two threads at once."""

    def __init__(self, fd: int | None, untold: str = "") -> None:
        self._map = None if fd is None else Map(fd, ctypes.c_uint64, len(Lost._fields))
        self.untold = untold
        """Why nothing is counted; empty if it is."""

    @classmethod
    def open(cls, pins: Pins, entries: int, *, build: bool) -> Drops:
        """``entries`` is our DEVMAP. Without ``build`` only what is pinned is used.

        Never fails: it makes ``untold`` instead.
        """
        directory = compiler.source_directory()
        made_of = compiler.source_hash(directory, compiler.DROPS)
        place = pins.listeners(_digest(made_of, libbpf.map_id(entries)))
        try:
            if build and not place.exists():
                _listen(pins, place, directory, made_of, entries)
            return cls(libbpf.open_pin(place / _MAP))
        except DataplaneError as error:
            return cls(None, str(error))
        except OSError as error:
            if not build and isinstance(error, FileNotFoundError):
                return cls(None, "no daemon has begun to count frames lost at the redirect")
            return cls(None, _UNTOLD.get(error.errno or 0, f"frames lost are not counted: {error}"))

    def all(self) -> Mapping[int, Lost]:
        if self._map is None:
            return {}
        return {key: Lost(*words) for key, words in self._map.all_words().items()}

    def forget(self, ifindex: int) -> None:
        """An ifindex comes again, for another interface."""
        if self._map is not None:
            self._map.delete(ifindex)

    def close(self) -> None:
        if self._map is not None:
            os.close(self._map.fd)


def _digest(made_of: str, entries: int) -> str:
    return hashlib.sha256(repr((made_of, entries, _FORMAT)).encode()).hexdigest()[:16]


def _listen(pins: Pins, place: Path, directory: Path, made_of: str, entries: int) -> None:
    """Loads and attaches the programs, and pins them in place of those of an earlier release."""
    code = compiler.code_for(directory, made_of, compiler.DROPS)
    fds: dict[str, int] = {}
    try:
        fds[_MAP] = libbpf.create_map("xc_drops", _FORMAT)
        for name, tracepoint in _TRACEPOINTS.items():
            bound = code[name].bound({"drops": fds[_MAP]}, {"entries": libbpf.map_id(entries)})
            program = libbpf.load_program(libbpf.PROG_RAW_TRACEPOINT, "xconnectd", _LICENSE, bound)
            try:
                fds[name] = libbpf.attach_tracepoint(tracepoint, program)
            finally:
                os.close(program)
        pins.put_listeners(place, fds)
    finally:
        for fd in fds.values():
            with suppress(OSError):
                os.close(fd)
