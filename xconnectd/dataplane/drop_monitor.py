"""Frames lost at the redirect, by reason: listeners at the kernel's XDP tracepoints.

Their links are pinned beside the maps, so they count on while no daemon runs, whatever generation
of programs loses a frame. They are no part of the wire: without them frames cross as ever, and
``unavailable`` says why nobody counts.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from xconnectd.dataplane import btf, compiler, libbpf
from xconnectd.dataplane.libbpf import Map, MapFormat
from xconnectd.dataplane.pins import Pins
from xconnectd.digest import sha256
from xconnectd.errors import DataplaneError
from xconnectd.model import PROGRAM_NAME, Lost
from xconnectd.paths import own_inode

_FORMAT: Final = MapFormat(libbpf.MAP_LRU_HASH, 8 * len(Lost._fields), 4096)
"""Preallocated, as the kernel asks of maps that tracing programs write: half a megabyte."""

_WATCHED_FORMAT: Final = MapFormat(libbpf.MAP_HASH, 4, 1024)
"""One for each generation of programs that is not retired yet."""

_MAP: Final = "drops"
_WATCHED: Final = "watched"
_AT_REDIRECT: Final = ("redirect_failed", "xdp_redirect_err")
_AT_DRIVERS: Final = ("transmit_failed", "xdp_devmap_xmit")
"""Programs, and the tracepoints they listen at."""

_UNAVAILABLE: Final = {
    errno.EPERM: "frames dropped in the redirect are not counted: CAP_PERFMON is missing",
    errno.EACCES: "frames dropped in the redirect are not counted: CAP_PERFMON is missing",
    errno.EINVAL: "frames dropped in the redirect are not counted: Linux 5.13 is needed",
}


class Drops:
    """What was lost by ingress ifindex. Not for two threads at once. Nothing of it ever fails."""

    def __init__(self, pins: Pins) -> None:
        self._pins = pins
        self._directory = compiler.source_directory()
        self._made_of = compiler.source_hash(self._directory, compiler.DROPS)
        made_of = (self._made_of, _FORMAT, _WATCHED_FORMAT)
        self._place = pins.listeners(sha256(repr(made_of).encode()).hexdigest()[:16])
        self._map: Map | None = None
        self._watched: Map | None = None
        self._listens_to_drivers = False
        self.unavailable = (
            "frames dropped in the redirect are not counted: no daemon has started to"
        )
        """Why nothing is counted; empty if it is."""

    @classmethod
    def open(cls, pins: Pins, *, build: bool) -> Drops:
        """Without ``build`` only what is pinned is used, whichever release has pinned it."""
        drops = cls(pins)
        try:
            if build and not drops._place.exists():
                drops._listen()
            elif not build:
                drops._place = next(iter(pins.all_listeners()), drops._place)
            drops._use()
        except DataplaneError as error:
            drops.unavailable = str(error)
        except FileNotFoundError:
            pass
        except OSError as error:
            why = _UNAVAILABLE.get(error.errno or 0)
            drops.unavailable = why or f"frames dropped in the redirect are not counted: {error}"
        return drops

    def _use(self) -> None:
        drops = libbpf.open_pin(self._place / _MAP)
        if libbpf.value_size(drops) != _FORMAT.value_size:
            os.close(drops)
            others = "frames dropped in the redirect are counted by another version"
            raise DataplaneError("drops", f"{others}: use that version's xconnectd status")
        self._map = Map(drops, ctypes.c_uint64, len(Lost._fields))
        if (self._place / _WATCHED).exists():  # a release before had none
            self._watched = Map(libbpf.open_pin(self._place / _WATCHED))
        self.unavailable = ""

    def watch(self, maps: frozenset[int]) -> None:
        """Counts what is lost by redirects through these DEVMAPs, by their ids, and no others."""
        if self._watched is None:
            return
        with suppress(OSError):
            known = set(self._watched.keys())
            for one in maps - known:
                self._watched.set(one, 1)
            for one in known - maps:
                self._watched.delete(one)

    def _listen(self) -> None:
        """Listens at the redirect, in place of the listeners of an earlier release."""
        maps = {_MAP: libbpf.create_map("xc_drops", _FORMAT)}
        try:
            maps[_WATCHED] = libbpf.create_map("xc_watched", _WATCHED_FORMAT)
            self._pin(maps)
        finally:
            for fd in maps.values():
                os.close(fd)

    def _pin(self, maps: Mapping[str, int]) -> None:
        name, _ = _AT_REDIRECT
        link = self._attached(_AT_REDIRECT, maps, {})
        try:
            self._pins.put_listeners(self._place, {**maps, name: link})
        finally:
            os.close(link)

    def listen_again(self) -> None:
        """With the counts there are: a listener leaves when its pin is removed."""
        if self._map is None or self._watched is None or self._place.exists():
            return
        with suppress(OSError, DataplaneError):
            self._pin({_MAP: self._map.fd, _WATCHED: self._watched.fd})
            if self._listens_to_drivers:
                self.listen_to_drivers()

    def listen_to_drivers(self) -> None:
        """Also counts what drivers refuse, in native mode; a kernel without BTF does not tell."""
        name, _ = _AT_DRIVERS
        self._listens_to_drivers = True
        if self._map is None or (self._place / name).exists():
            return
        with suppress(OSError, LookupError, DataplaneError):
            link = self._attached(_AT_DRIVERS, {_MAP: self._map.fd}, _layout())
            try:
                libbpf.pin(link, self._place / name)
            finally:
                os.close(link)

    def _attached(
        self, listener: tuple[str, str], maps: Mapping[str, int], layout: Mapping[str, int]
    ) -> int:
        """The link of a program to its tracepoint, which it leaves when the link goes."""
        name, tracepoint = listener
        code = compiler.code_for(self._directory, self._made_of, compiler.DROPS)[name]
        bound = code.bound(maps, layout)
        kind = libbpf.PROG_RAW_TRACEPOINT
        program = libbpf.load_program(kind, PROGRAM_NAME, compiler.LICENSE, bound)
        try:
            return libbpf.attach_tracing(program, tracepoint)
        finally:
            os.close(program)

    def all(self) -> Mapping[int, Lost]:
        if self._map is None:
            return {}
        return {key: Lost(*words) for key, words in self._map.all_words().items()}

    def forget(self, ifindex: int) -> None:
        """An ifindex comes again, for another interface."""
        if self._map is not None:
            self._map.delete(ifindex)

    def close(self) -> None:
        for one in (self._map, self._watched):
            if one is not None:
                os.close(one.fd)


def _layout() -> dict[str, int]:
    with btf.Kernel() as kernel:
        return {
            "namespace": own_inode(),
            "dev_ifindex": kernel.offset("net_device", "ifindex"),
            "dev_net": kernel.offset("net_device", "nd_net.net"),
            "net_inum": kernel.offset("net", "ns.inum"),
        }
