"""The programs and maps in the kernel: made once, pinned, found again, written and read.

Owns what every map and program is for. The pins carry what made them: an unchanged source is
opened again in a few milliseconds without a compiler, a changed one gets new programs that work
on the same maps, so that entries and counters stay and forwarding goes on.

Imports ``model``, ``errors``, ``capabilities``, ``libbpf``, ``btf``, ``pins``, ``drops``,
``digest`` and ``compiler`` (whose child imports bcc; nothing here may), and never pyroute2: who
attaches a program asks for its file descriptor.
Every failure is a DataplaneError or a PrivilegeError; the OSError behind it is its __cause__.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple, Self

from xconnectd import btf, capabilities, compiler, libbpf
from xconnectd.digest import sha256
from xconnectd.drops import Drops
from xconnectd.errors import DataplaneError, PrivilegeError, XconnectError
from xconnectd.libbpf import Map, MapFormat
from xconnectd.model import PROGRAM_NAME, Counters, Lost, Programs
from xconnectd.pins import NoBpffsError, Pins

MAX_ENDS: Final = 65_536
"""Two ends to a link: 32,768 links. The ifindexes themselves may be of any size."""

UNKNOWN: Final = 0
"""The key that counts for every interface without counters of its own; no ifindex is 0."""

_COUNTER_WORDS: Final = 5
_FORMATS: Final = {
    "entries": MapFormat(libbpf.MAP_DEVMAP_HASH, 4, MAX_ENDS),
    "peers": MapFormat(libbpf.MAP_HASH, 4, MAX_ENDS, libbpf.F_NO_PREALLOC),
    "counters": MapFormat(
        libbpf.MAP_PERCPU_HASH, 8 * _COUNTER_WORDS, MAX_ENDS, libbpf.F_NO_PREALLOC
    ),
}


class _Recipe(NamedTuple):
    """How a program of the source is loaded."""

    source: str
    kind: int
    attach: int = 0
    flags: int = 0
    described: bool = False
    """With types (BTF), so that a capture can listen at its entry; where the kernel takes them."""


_RECIPES: Final[dict[str, tuple[_Recipe, ...]]] = {
    "xdp": (
        _Recipe(
            "xdp_frags", libbpf.PROG_XDP, libbpf.ATTACH_XDP, libbpf.F_XDP_HAS_FRAGS, described=True
        ),
        _Recipe("xdp_linear", libbpf.PROG_XDP, libbpf.ATTACH_XDP, described=True),
    ),
    "ingress": (
        _Recipe("ingress", libbpf.PROG_SCHED_CLS),
        _Recipe("ingress_timeless", libbpf.PROG_SCHED_CLS),
    ),
    "egress": (_Recipe("silence", libbpf.PROG_SCHED_CLS),),
    "audit": (_Recipe("audit", libbpf.PROG_XDP, libbpf.ATTACH_XDP),),
}
"""Roles, which name the pins. The first recipe that this kernel can follow is taken."""

_OPEN: Final = "open"
_BELIEFS: Final = 256
"""How many pairs the audit program looks at in one run (MAX_BELIEFS in the source)."""
_PAIR: Final = 8
_SHORTEST_FRAME: Final = 16


class Dataplane:
    """What of ours is in the kernel. Not for two threads at once."""

    def __init__(
        self,
        pins: Pins,
        maps: Mapping[str, int],
        current: _Generation,
        drops: Drops,
        *,
        adopted: bool,
    ) -> None:
        self.adopted = adopted
        self._pins = pins
        self._current = current
        with _stage("pins", "opening older programs"):
            self._older = [
                _Generation.open_any(path)
                for path in pins.generations()
                if path.name != current.path.name
            ]
        self._entries = Map(maps["entries"])
        self._peers = Map(maps["peers"])
        self._counters = Map(
            maps["counters"], ctypes.c_uint64, _COUNTER_WORDS * libbpf.possible_cpus()
        )
        self._drops = drops
        self._gauge = _Gauge(maps["entries"])
        self._unpinned: dict[int, int] = {}

    @staticmethod
    def prepare(pins: Path) -> None:
        """Makes the directory of the pins. Raises DataplaneError, PrivilegeError."""
        with _stage("pins", "pinning programs and maps"):
            Pins(pins).make()

    @classmethod
    def open(cls, pins: Path, *, build: bool = True) -> Self:
        """Takes over what is pinned below ``pins``, and makes what is missing.

        Without ``build`` nothing is made or changed, and it is an error if nothing is pinned.
        Raises DataplaneError, PrivilegeError.
        """
        place = Pins(pins)
        if not build:
            return cls._find(place)
        try:
            return cls._build(place)
        except BaseException:  # also a signal while the compiler works
            if not place.generations():  # a start that fails leaves nothing behind
                place.remove_all()
            raise

    @classmethod
    def _build(cls, pins: Pins) -> Self:
        with _stage("pins", "pinning programs and maps"):
            pins.prepare()
        maps = _make_maps(pins)
        directory = compiler.source_directory()
        source = compiler.source_hash(directory)
        current = _Generation.adopt(pins, _generation_name(source), maps)
        adopted = current is not None
        if current is None:
            current = _make_programs(pins, compiler.code_for(directory, source), source, maps)
        drops = Drops.open(pins, maps["entries"], build=True)
        plane = cls(pins, maps, current, drops, adopted=adopted)
        plane.count(UNKNOWN)
        return plane

    @classmethod
    def _find(cls, pins: Pins) -> Self:
        with _stage(_OPEN, f"reading the pins in {pins.root}"):
            found = [_Generation.open_any(path) for path in pins.generations()]
            if not found:
                raise DataplaneError(_OPEN, f"nothing is pinned in {pins.root}")
            maps = {name: libbpf.open_pin(pins.map(name, _FORM[name])) for name in _FORMATS}
        newest = max(found, key=lambda generation: generation.ids.get("xdp", 0))
        for generation in found:
            if generation is not newest:
                generation.close()
        drops = Drops.open(pins, maps["entries"], build=False)
        return cls(pins, maps, newest, drops, adopted=True)

    # ------------------------------------------------------------------ programs

    @property
    def programs(self) -> Programs:
        """Kernel ids of the current programs; ``known`` has those of older generations."""
        ids = self._current.ids
        older = frozenset(chain.from_iterable(one.ids.values() for one in self._older))
        xdp, ingress, egress = (ids.get(role, 0) for role in ("xdp", "ingress", "egress"))
        return Programs(xdp, ingress, egress, older)

    @property
    def xdp_fd(self) -> int:
        return self._current.fds["xdp"]

    @property
    def ingress_fd(self) -> int:
        return self._current.fds["ingress"]

    @property
    def egress_fd(self) -> int:
        return self._current.fds["egress"]

    def fd_of(self, program: int) -> int | None:
        """The descriptor of one of our programs, also of an older generation, by kernel id.

        An XDP program is replaced without a gap only by naming the old one's descriptor. One
        whose pin is lost can still be had where that is permitted (CAP_SYS_ADMIN).
        """
        for generation in (self._current, *self._older):
            for role, known in generation.ids.items():
                if known == program:
                    return generation.fds[role]
        if program not in self._unpinned:
            try:
                self._unpinned[program] = libbpf.program_by_id(program)
            except OSError:
                return None
        return self._unpinned[program]

    # ------------------------------------------------------------------ entries (XDP)

    def point(self, key: int, target: int) -> None:
        """Frames that come in by ``key`` leave by ``target`` from now on (both ifindexes).

        Raises DataplaneError, also when ``target`` does not exist in this network namespace.
        """
        try:
            self._entries.set(key, target)
        except OSError as error:
            raise _refused("point", key, target, error) from error

    def unpoint(self, key: int) -> None:
        """Frames that come in by ``key`` are dropped from now on. No entry is no error."""
        try:
            self._entries.delete(key)
        except OSError as error:
            raise _refused("unpoint", key, 0, error) from error

    def entry(self, key: int) -> int | None:
        with _stage("entries", "reading the map"):
            return self._entries.get(key)

    def entries(self) -> dict[int, int]:
        """All of them: 3 µs each, since a devmap has no batch operations. See ``holds``."""
        with _stage("entries", "walking the map"):
            return self._entries.items()

    def holds(self, wanted: Mapping[int, int]) -> bool:
        """Whether ``entries()`` equals ``wanted``, for a sweep every second.

        Kernels from 6.4 on tell a map's memory, and so whether elements came or went, and our
        audit program checks 256 pairs with one system call. Others get the walk.
        """
        with _stage("entries", "checking the map"):
            reading = (len(wanted), self._gauge.read())
            audit = self._current.fds.get("audit")
            if audit and reading == self._gauge.settled:
                return _audited(audit, wanted)
            equal = self._entries.items() == dict(wanted)
            self._gauge.settled = reading if equal and self._gauge.counts else None
            return equal

    # ------------------------------------------------------------------ peers (tc)

    def steer(self, key: int, target: int) -> None:
        """As ``point``, for tc; the kernel does not look whether ``target`` exists."""
        try:
            self._peers.set(key, target)
        except OSError as error:
            raise _refused("steer", key, target, error) from error

    def unsteer(self, key: int) -> None:
        try:
            self._peers.delete(key)
        except OSError as error:
            raise _refused("unsteer", key, 0, error) from error

    def peer(self, key: int) -> int | None:
        with _stage("peers", "reading the map"):
            return self._peers.get(key)

    def peers(self) -> dict[int, int]:
        with _stage("peers", "walking the map"):
            return self._peers.all_items()

    # ------------------------------------------------------------------ counters

    def count(self, key: int) -> None:
        """Counters for ``key``, from zero; those that exist run on.

        Without them its frames are forwarded or dropped all the same, and counted for UNKNOWN.
        """
        with _stage("counters", "creating counters"):
            self._counters.create(key)

    def uncount(self, key: int) -> None:
        with _stage("counters", "deleting counters"):
            self._counters.delete(key)
            self._drops.forget(key)

    def counters(self, key: int) -> Counters:
        """Zeros where there are none."""
        with _stage("counters", "reading counters"):
            return _summed(self._counters.words(key))

    def all_counters(self) -> dict[int, Counters]:
        with _stage("counters", "walking the counters"):
            lost = self._drops.all()
            return {
                key: _summed(words)._replace(lost=lost.get(key, _NONE))
                for key, words in self._counters.all_words().items()
            }

    def listen_to_drivers(self) -> None:
        """Counts what they refuse in native mode, from the first such link on: it costs them."""
        self._drops.listen_to_drivers()

    @property
    def untold(self) -> str:
        """Why frames lost at the redirect are not counted; empty if they are."""
        return self._drops.untold

    # ------------------------------------------------------------------ life cycle

    def retire(self) -> None:
        """Unpins older generations and their maps: to be called when nothing runs them."""
        with _stage("pins", "removing older programs"):
            for generation in self._older:
                generation.close()
                self._pins.remove([generation.path])
            self._older.clear()
            self._pins.remove(self._pins.other_maps(_FORM))

    @staticmethod
    def discard(pins: Path) -> None:
        """Removes what is pinned there, whole or not. Nothing there is no error."""
        with _stage("pins", "removing the pins"):
            Pins(pins).remove_all()

    def close(self) -> None:
        """Gives the descriptors back; what is pinned or attached stays."""
        for generation in (self._current, *self._older):
            generation.close()
        self._gauge.close()
        self._drops.close()
        for one in (self._entries, self._peers, self._counters):
            os.close(one.fd)
        for fd in self._unpinned.values():
            os.close(fd)


def describe(program: int) -> str:
    """``id 42 (name)``, or ``id 42``: the name is for CAP_SYS_ADMIN, or of a program gone."""
    try:
        fd = libbpf.program_by_id(program)
    except OSError:
        return f"id {program}"
    try:
        return f"id {program} ({libbpf.program_info(fd).name})"
    finally:
        os.close(fd)


def _audited(program: int, wanted: Mapping[int, int]) -> bool:
    """Whether every wanted entry is there; it says nothing of others."""
    pairs = array("I", chain.from_iterable(wanted.items())).tobytes()
    size = _BELIEFS * _PAIR
    for start in range(0, len(pairs), size):
        frame = pairs[start : start + size]
        held = libbpf.run_program(program, frame.ljust(_SHORTEST_FRAME, b"\0"))
        if held != len(frame) // _PAIR:
            return False
    return True


_NONE: Final = Lost()


def _summed(words: list[int]) -> Counters:
    *counts, times = (words[word::_COUNTER_WORDS] for word in range(_COUNTER_WORDS))
    frames, octets, unwired, silenced = map(sum, counts)
    return Counters(frames, octets, unwired, silenced, max(times, default=0))


# --------------------------------------------------------------------------- generations


@dataclass(slots=True)
class _Generation:
    """Programs that were built together, open, by role."""

    path: Path
    fds: dict[str, int] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    maps: frozenset[int] = frozenset()

    def add(self, role: str, fd: int) -> None:
        info = libbpf.program_info(fd)
        self.fds[role], self.ids[role] = fd, info.id
        self.maps |= info.maps

    def close(self) -> None:
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()

    @classmethod
    def open_any(cls, path: Path) -> _Generation:
        """Whatever is there: an older release may have pinned other roles."""
        generation = cls(path)
        for pin in sorted(path.iterdir()):
            generation.add(pin.name, libbpf.open_pin(pin))
        return generation

    @classmethod
    def adopt(cls, pins: Pins, name: str, maps: Mapping[str, int]) -> _Generation | None:
        """None unless it is complete and works on these maps; what is not is set aside."""
        path = pins.generation(name)
        with _stage("pins", "adopting pinned programs"):
            if not path.exists():
                return None
            generation = cls.open_any(path)
            ours = frozenset(map(libbpf.map_id, maps.values()))
            if generation.fds.keys() == _RECIPES.keys() and generation.maps == ours:
                return generation
            generation.close()
            pins.set_aside(path)
            return None


def _form(form: MapFormat) -> str:
    return sha256(repr(form).encode()).hexdigest()[:8]


_FORM: Final = {name: _form(form) for name, form in _FORMATS.items()}


def _generation_name(source: str) -> str:
    made_of = (
        source,
        PROGRAM_NAME,
        compiler.LICENSE,
        sorted(_RECIPES.items()),
        sorted(_FORM.items()),
    )
    return sha256(repr(made_of).encode()).hexdigest()[:16]


def _make_maps(pins: Pins) -> dict[str, int]:
    return {name: _make_map(pins, name) for name in _FORMATS}


def _make_map(pins: Pins, name: str) -> int:
    path = pins.map(name, _FORM[name])
    with _stage("maps", "creating and pinning maps"):
        if path.exists():
            return libbpf.open_pin(path)
        fd = libbpf.create_map(f"xc_{name}", _FORMATS[name])
        libbpf.pin(fd, path)
        return fd


def _make_programs(
    pins: Pins, code: Mapping[str, compiler.Code], source: str, maps: Mapping[str, int]
) -> _Generation:
    name = _generation_name(source)
    generation = _Generation(pins.generation(name))
    with _stage("load", "loading the programs"):
        for role, recipes in _RECIPES.items():
            generation.add(role, _load(recipes, code, maps))
    with _stage("pins", "pinning the programs"):
        pins.put_generation(name, generation.fds)
    return generation


def _load(
    recipes: tuple[_Recipe, ...], code: Mapping[str, compiler.Code], maps: Mapping[str, int]
) -> int:
    """An unknown flag is EINVAL: the next recipe then, and the last one's failure counts."""
    *preferred, last = recipes
    for recipe in preferred:
        try:
            return _load_one(recipe, code, maps)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
    return _load_one(last, code, maps)


def _load_one(recipe: _Recipe, code: Mapping[str, compiler.Code], maps: Mapping[str, int]) -> int:
    with _description() if recipe.described else nullcontext() as description:
        return libbpf.load_program(
            recipe.kind,
            PROGRAM_NAME,
            compiler.LICENSE,
            code[recipe.source].bound(maps),
            attach=recipe.attach,
            flags=recipe.flags,
            described=description,
        )


@contextmanager
def _description() -> Iterator[libbpf.Description | None]:
    """The types of an XDP program; None on a kernel that takes none, which is no reason to fail."""
    try:
        types = libbpf.load_btf(btf.describe_xdp(PROGRAM_NAME))
    except OSError:
        yield None
        return
    try:
        yield libbpf.Description(types, btf.ENTRY)
    finally:
        os.close(types)


# --------------------------------------------------------------------------- the gauge


class _Gauge:
    """How much memory a map takes, which tells how many elements it has.

    /proc/self/fdinfo gives a devmap's elements since Linux 6.4 (dev_map_mem_usage); before, a
    constant. A read costs 1.3 µs once the file is open; offset 0 makes the kernel look again.
    """

    def __init__(self, fd: int) -> None:
        self.counts = _kernel() >= (6, 4)
        self.settled: tuple[int, bytes] | None = None
        self._file = -1
        try:
            self._file = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.counts = False

    def read(self) -> bytes:
        return os.pread(self._file, 1024, 0) if self.counts else b""

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)


def _kernel() -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))


# --------------------------------------------------------------------------- the border


@contextmanager
def _stage(stage: str, purpose: str) -> Iterator[None]:
    """Turns the kernel's refusals into our errors."""
    try:
        yield
    except NoBpffsError as error:
        raise DataplaneError(stage, _NO_BPFFS.format(path=error)) from error
    except OSError as error:
        raise _judged(stage, purpose, error) from error


_NO_BPFFS: Final = (
    "{path} is no BPF filesystem: mount -t bpf bpf /sys/fs/bpf "
    "(for a container: -v /sys/fs/bpf:{path}, or one of its own)"
)


def _judged(stage: str, purpose: str, error: OSError) -> XconnectError:
    log = error.log if isinstance(error, libbpf.LoadError) else ""
    if error.errno in (errno.EPERM, errno.EACCES):
        return _forbidden(stage, purpose, error, log)
    if error.errno is None:
        return DataplaneError(stage, f"libbpf cannot be used (Debian: libbpf1): {error}")
    if stage == "maps" and error.errno == errno.EINVAL and _kernel() < (5, 4):
        return DataplaneError(stage, f"Linux 5.4 is needed, this is {os.uname().release}")
    return DataplaneError(stage, f"{purpose}: {_words(error)}", log)


def _forbidden(stage: str, purpose: str, error: OSError, log: str) -> XconnectError:
    if stage == _OPEN:  # a reader needs nothing but to get at the files
        return PrivilegeError("CAP_DAC_OVERRIDE", f"{purpose} ({_words(error)}), which are root's")
    missing = _missing_capabilities(log)
    if missing:
        return PrivilegeError(", ".join(missing), f"{purpose} ({_words(error)})")
    if log:  # the verifier refuses with EACCES too
        return DataplaneError(stage, f"{purpose}: {_words(error)}", log)
    return DataplaneError(stage, f"{purpose}: {_words(error)}; {_NOT_A_CAPABILITY}")


_NOT_A_CAPABILITY: Final = (
    "the capabilities are there, so something else forbids it: a seccomp profile (for a "
    "container: --security-opt seccomp=unconfined), a security module, a read-only mount, "
    "a directory of another user, or before Linux 5.11 RLIMIT_MEMLOCK"
)


def _missing_capabilities(log: str) -> list[str]:
    """CAP_PERFMON is wanted for pointer arithmetic only: ``xdp_linear``, before Linux 5.18."""
    if "prohibited" in log:
        return capabilities.missing("CAP_PERFMON")
    return capabilities.missing("CAP_BPF", "CAP_NET_ADMIN")


def _refused(action: str, key: int, target: int, error: OSError) -> XconnectError:
    what = f"{key} to {target}" if target else str(key)
    hint = f" (no interface {target} here)" if error.errno == errno.EINVAL and target else ""
    return _judged(action, f"entry {what}{hint}", error)


def _words(error: OSError) -> str:
    return f"{error.strerror} ({errno.errorcode.get(error.errno or 0, error.errno)})"
