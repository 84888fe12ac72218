"""The directory of pins in the BPF filesystem: what lies where, and that it is complete.

    peers-<format>, counters-<format>              maps that all share, named by their format
    programs-<number>-<hash>/xdp, …, entries       a generation of programs, and the maps it owns
    listeners-<hash>/drops, …                      links to tracepoints, and their maps
    guard-<hash>/guard, guarded                    the program before the host, and its counts
    building-…/                                    any of the three half made

A directory gets its name by one rename(2), so that a crash leaves nothing that could be taken
for complete; what it leaves is swept up by the next build. A map is complete once pinned.
Generations are numbered: only the newest may be written to, however many there are. Before 0.2
they had no number (so they are older than any that has), and ``entries-<format>`` lay beside them.

Knows files only: what they hold is the business of ``programs``, ``drop_monitor`` and ``guard``.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from xconnectd.dataplane import libbpf

BPFFS: Final = Path("/sys/fs/bpf")
_PROGRAMS: Final = "programs-"
_LISTENERS: Final = "listeners-"
_GUARD: Final = "guard-"
_BUILDING: Final = "building-"
_NUMBERED: Final = re.compile(rf"{_PROGRAMS}(\d{{6,}})-([0-9a-f]{{16}})")


class NoBpffsError(Exception):
    """The path lies in no BPF filesystem, and none could be mounted."""


class Pins:
    """Pins below ``root``. Every method raises OSError as the kernel does."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self) -> None:
        """Makes the directory (mode 0700, as are those it makes on the way).

        Mounts /sys/fs/bpf if that is all that is missing. Raises NoBpffsError.
        """
        self._demand_bpffs()
        for directory in (self.root.parent, self.root):
            _set_aside_if_anothers(directory)
        for directory in (*reversed(self.root.parents), self.root):
            if not directory.exists():
                directory.mkdir(mode=0o700, exist_ok=True)

    def prepare(self) -> None:
        """``make``, and nothing half made is left. Raises NoBpffsError."""
        self.make()
        self.remove(self._named(_BUILDING))

    def _demand_bpffs(self) -> None:
        below = next(path for path in (self.root, *self.root.parents) if path.exists())
        if libbpf.is_bpffs(below):
            return
        if self.root.is_relative_to(BPFFS) and BPFFS.exists():
            with suppress(OSError):
                libbpf.mount_bpffs(BPFFS)
                return
        raise NoBpffsError(str(below))

    # ------------------------------------------------------------------ maps

    def map(self, name: str, form: str) -> Path:
        return self.root / f"{name}-{form}"

    def maps(self, name: str) -> list[Path]:
        """Pins of the maps of that name that all share, in whatever format."""
        return self._named(f"{name}-")

    def other_maps(self, current: Mapping[str, str]) -> list[Path]:
        """Pins of maps in any format but the current one of their name."""
        keep = {self.map(name, form) for name, form in current.items()}
        return [path for path in self._named() if path not in keep and not path.is_dir()]

    # ------------------------------------------------------------------ programs

    def next_generation(self, made_of: str) -> Path:
        """Where the next one belongs; ``made_of`` is a hash of 16 hexadecimal digits."""
        newest = max(map(_number, self.generations()), default=0)
        return self.root / f"{_PROGRAMS}{newest + 1:06}-{made_of}"

    def generations(self) -> list[Path]:
        """The oldest first."""
        return sorted(self._named(_PROGRAMS), key=_number)

    @staticmethod
    def is_made_of(generation: Path, made_of: str) -> bool:
        numbered = _NUMBERED.fullmatch(generation.name)
        return numbered is not None and numbered[2] == made_of

    def _named(self, prefix: str = "") -> list[Path]:
        """Not glob: that takes a directory that may not be read for an empty one."""
        try:
            return sorted(path for path in self.root.iterdir() if path.name.startswith(prefix))
        except FileNotFoundError:
            return []

    def put_directory(self, place: Path, fds: Mapping[str, int]) -> None:
        """Pins all of them, or none under a name that counts."""
        building = self.root / f"{_BUILDING}{place.name}"
        if building.exists():  # of an attempt that failed
            _remove(building)
        building.mkdir(mode=0o700)
        for name, fd in fds.items():
            libbpf.pin(fd, building / name)
        building.rename(place)

    # ------------------------------------------------------------------ listeners

    def listeners(self, name: str) -> Path:
        return self.root / f"{_LISTENERS}{name}"

    def all_listeners(self) -> list[Path]:
        """Those of whatever release and whatever source; one at most."""
        return self._named(_LISTENERS)

    def put_listeners(self, place: Path, fds: Mapping[str, int]) -> None:
        """As a generation; those of another name listen no more."""
        self.remove(self._named(_LISTENERS))
        self.put_directory(place, fds)

    # ------------------------------------------------------------------ the guard

    def guard(self, name: str) -> Path:
        return self.root / f"{_GUARD}{name}"

    def put_guard(self, place: Path, fds: Mapping[str, int]) -> None:
        """In place of one of another name."""
        self.remove(self._named(_GUARD))
        self.put_directory(place, fds)

    # ------------------------------------------------------------------ clean-up

    def remove(self, paths: list[Path]) -> None:
        for path in paths:
            _remove(path)

    def remove_all(self) -> None:
        """Also the directory. Nothing there is no error."""
        if self.root.exists():
            _remove(self.root)


def _set_aside_if_anothers(directory: Path) -> None:
    """Mounted without options, a BPF filesystem lets anybody make directories (mode 1777)."""
    try:
        owner = directory.lstat().st_uid
    except FileNotFoundError:
        return
    if owner not in (0, os.geteuid()) and libbpf.is_bpffs(directory.parent):
        directory.rename(f"{directory}-of-uid-{owner}-{time.monotonic_ns()}")


def _number(generation: Path) -> int:
    numbered = _NUMBERED.fullmatch(generation.name)
    return int(numbered[1]) if numbered else 0


def _remove(path: Path) -> None:
    if path.is_dir():
        from shutil import rmtree  # 2 ms that only an end should cost

        rmtree(path)
    else:
        path.unlink(missing_ok=True)
