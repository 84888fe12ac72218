"""The programs and maps in the kernel: made once, pinned, found again, written and read.

Owns what every map and program is for. The pins carry what made them: an unchanged source is
opened again in a few milliseconds without a compiler, a changed one gets new programs, which take
over entries and counters, and forwarding goes on.

Never attaches a program to an interface: who does asks for its file descriptor.
Every failure is a DataplaneError or a PrivilegeError (see ``refusals``).
"""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import Final, Self

from xconnectd import pcap_filter
from xconnectd.dataplane import compiler, counter_maps, egress_filter, libbpf
from xconnectd.dataplane.drop_monitor import Drops
from xconnectd.dataplane.generations import OWN_MAPS, Generation, Recipe, Recipes
from xconnectd.dataplane.guard import Guard, Stopped
from xconnectd.dataplane.libbpf import Map, MapFormat
from xconnectd.dataplane.map_sweep import MapSweep
from xconnectd.dataplane.pins import Pins
from xconnectd.dataplane.refusals import OPEN, demand_capabilities, refusal, stage
from xconnectd.digest import sha256
from xconnectd.errors import DataplaneError, ProgramGoneError, XconnectError
from xconnectd.model import PROGRAM_NAME, Counters, Left, Programs

MAX_ENDS: Final = 65_536
"""Two ends to a link: 32,768 links. The ifindexes themselves may be of any size."""

UNKNOWN: Final = 0
"""The key that counts for every interface without counters of its own; no ifindex is 0."""

_FORMATS: Final = {
    "entries": MapFormat(libbpf.MAP_DEVMAP_HASH, 4, MAX_ENDS),
    "peers": MapFormat(libbpf.MAP_HASH, 4, MAX_ENDS, libbpf.F_NO_PREALLOC),
    "places": MapFormat(libbpf.MAP_ARRAY, 8, counter_maps.PLACES),
    **counter_maps.FORMATS,
}


def _xdp(frags: str, linear: str) -> tuple[Recipe, ...]:
    kind, hook = libbpf.PROG_XDP, libbpf.ATTACH_XDP
    return (
        Recipe(frags, kind, hook, libbpf.F_XDP_HAS_FRAGS, described=True),
        Recipe(linear, kind, hook, described=True),
    )


def _tc(*sources: str) -> tuple[Recipe, ...]:
    return tuple(Recipe(source, libbpf.PROG_SCHED_CLS) for source in sources)


_RUN_BY_US: Final = ("audit", "audit_peers", "steer", "moment")
"""The roles of programs that are attached nowhere; user space runs them."""

_RECIPES: Final[Recipes] = {
    "xdp": _xdp("xdp_frags", "xdp_linear"),
    "ingress": _tc("ingress"),
    "swap_xdp": _xdp("swap_frags", "swap_linear"),
    "swap_ingress": _tc("swap_ingress"),
    "tunnel_ingress": _tc("tunnel_ingress"),
    "egress": _tc("egress_drop"),
    "tunnel_egress": _tc("tunnel_egress", "tunnel_egress_uncut"),
    **{role: (Recipe(role, libbpf.PROG_XDP, libbpf.ATTACH_XDP),) for role in _RUN_BY_US},
}

_SWAPPING: Final = ("swap_xdp", "swap_ingress")
"""The roles of the programs that swap MACs."""
_TUNNELING: Final = ("tunnel_ingress",)
"""And of those that mind keepalives of tunnels."""

_SHARED: Final = tuple(name for name in _FORMATS if name not in OWN_MAPS)
"""Maps that all generations share."""

_MANY_FILTERS: Final = 64
"""Programs of filters that are kept for the next use."""

_OTHERS: Final = "the pins in {root} were made by another version: use that version's xconnectd"
_LOOKS: Final = 3
"""Those who only look may look while a daemon retires what was the newest."""
_SHORTEST_FRAME: Final = 16


class Dataplane:
    """What of ours is in the kernel. Not for two threads at once.

    Attributes:
        programs: kernel ids of the current programs; ``known`` has those of older generations.
        fds: descriptors of the current programs, by role.
    """

    def __init__(
        self,
        pins: Pins,
        shared: Mapping[str, int],
        generations: Sequence[Generation],
        source: _Source,
        *,
        drops: Drops,
        guard: Guard,
        adopted: bool,
    ) -> None:
        """Of ``generations`` the last is the current one, which alone is written to."""
        self.adopted = adopted
        self._source = source
        self._pins = pins
        self._shared = shared
        *self._older, self._current = generations
        self._peers = Map(shared["peers"])
        self._counters = counter_maps.CounterMaps(shared)
        self._drops = drops
        self._guard = guard
        self._unpinned = Unpinned()
        self._filters: dict[str, int] = {}
        maps = [libbpf.map_id(shared[name]) for name in ("peers", "counters")]
        self._filter_name = ".".join(map(str, (PROGRAM_NAME, egress_filter.VERSION, *maps)))
        self._use_current()

    @staticmethod
    def prepare(pins: Path) -> None:
        """Makes the directory of the pins. Raises DataplaneError, PrivilegeError."""
        with stage("pins", "pinning programs and maps"):
            Pins(pins).make()

    @classmethod
    def open(cls, pins: Path, *, build: bool = True, kept: Path | None = None) -> Self:
        """Takes over what is pinned below ``pins``, and makes what is missing.

        Without ``build`` nothing is made or changed, and it is an error if nothing is pinned.
        ``kept`` is where ``keep_code`` puts the code and an earlier run may have put it. Raises
        DataplaneError, PrivilegeError.
        """
        place = Pins(pins)
        if not build:
            with ExitStack() as undo:
                return cls._find(place, undo)
        try:
            with ExitStack() as undo:
                return cls._build(place, _Source(kept), undo)
        except BaseException:  # also a signal while the compiler works
            if not place.generations():  # a start that fails leaves nothing behind
                place.remove_all()
            raise

    @classmethod
    def _build(cls, pins: Pins, source: _Source, undo: ExitStack) -> Self:
        with stage("pins", "pinning programs and maps"):
            pins.prepare()
        shared = {name: _kept(undo, _make_map(pins, name)) for name in _SHARED}
        with stage("pins", "opening pinned programs"):
            generations = _open_generations(pins, undo)
        adopted = _is_current(generations, source.generation, shared)
        if adopted:
            demand_capabilities()
        else:
            generations.append(_make_generation(pins, source, shared, generations))
            undo.callback(generations[-1].close)
        drops = Drops.open(pins, build=True)
        undo.callback(drops.close)
        guard = Guard.open(pins, build=True)
        undo.callback(guard.close)
        plane = cls(*(pins, shared, generations, source), drops=drops, guard=guard, adopted=adopted)
        drops.watch(plane._own_entries())
        if not adopted:
            plane._settle()
        plane.count(UNKNOWN)
        undo.pop_all()
        return plane

    @classmethod
    def _find(cls, pins: Pins, undo: ExitStack) -> Self:
        with stage(OPEN, f"reading the pins in {pins.root}"):
            for _ in range(_LOOKS):
                generations = _open_generations(pins, undo)
                if generations and generations[-1].own:
                    break
            else:
                nothing = _OTHERS if pins.generations() else "nothing is pinned in {root}"
                raise DataplaneError(OPEN, nothing.format(root=pins.root))
            if not all(pins.map(name, _FORM[name]).exists() for name in _SHARED):
                raise DataplaneError(OPEN, _OTHERS.format(root=pins.root))
            shared = {
                name: _kept(undo, libbpf.open_pin(pins.map(name, _FORM[name]))) for name in _SHARED
            }
        drops = Drops.open(pins, build=False)
        undo.callback(drops.close)
        guard = Guard.open(pins, build=False)
        undo.callback(guard.close)
        plane = cls(
            *(pins, shared, generations, _Source(None)), drops=drops, guard=guard, adopted=True
        )
        undo.pop_all()
        return plane

    def _settle(self) -> None:
        """What daemons of other releases wrote gets its place, and what they deleted loses it."""
        with stage("maps", "filling maps"):
            self._counters.settle()
        for key, target in self.peers().items():
            self.steer(key, target)

    # ------------------------------------------------------------------ programs

    def _use_current(self) -> None:
        self.fds = self._current.fds
        self._entries = Map(self._current.own["entries"])
        fds = self.fds
        self._left: Left | None = None
        self._entries_sweep = MapSweep(self._entries, fds.get("audit"))
        self._peers_sweep = MapSweep(self._peers, fds.get("audit_peers"))
        self._counters.clock_program = self.fds.get("moment", -1)
        self._note_programs()

    def _note_programs(self) -> None:
        ids = self._current.ids
        older = frozenset().union(*[one.ids.values() for one in self._older])
        roles = ("xdp", "ingress", "egress", "tunnel_egress", *_SWAPPING, *_TUNNELING)
        current = {role: ids.get(role, 0) for role in roles}
        self.programs = Programs(
            **current,
            known=older,
            swapping=self._of_roles(_SWAPPING),
            tunneling=self._of_roles(_TUNNELING),
            filter_name=self._filter_name,
        )

    def _of_roles(self, roles: tuple[str, ...]) -> frozenset[int]:
        """Ids of these programs, of all generations."""
        generations = self._generations()
        return frozenset(one.ids[role] for one in generations for role in roles if role in one.ids)

    def fd_of(self, program: int) -> int | None:
        """The descriptor of one of our programs, also of an older generation, by kernel id.

        An XDP program is replaced without a gap only by naming the old one's descriptor. One
        whose pin is lost can still be had where that is permitted (CAP_SYS_ADMIN), else it is
        None. Raises ProgramGoneError for one that runs nowhere any more.
        """
        for generation in (self._current, *self._older):
            for role, known in generation.ids.items():
                if known == program:
                    return generation.fds[role]
        return self._unpinned.fd_of(program)

    def filter(self, expression: str) -> tuple[int, int]:
        """A descriptor and the id of a program for tc that drops the wire's frames that match.

        It is no pin's; whoever attaches it names it ``programs.filter_name`` and the expression.
        Raises FilterError, DataplaneError, PrivilegeError.
        """
        if (fd := self._filters.get(expression)) is None:
            if len(self._filters) >= _MANY_FILTERS:
                os.close(self._filters.pop(next(iter(self._filters))))
            fd = self._filters[expression] = _load_filter(expression, self._shared)
        return fd, libbpf.program_info(fd).id

    # ------------------------------------------------------------------ entries (XDP)

    def point(self, key: int, target: int) -> None:
        """Frames that come in by ``key`` leave by ``target`` from now on (both ifindexes).

        For the current program alone: an older one may run on a device that has left.
        Raises DataplaneError, also when ``target`` does not exist in this network namespace.
        """
        try:
            self._entries.set(key, target)
        except OSError as error:
            raise _entry_refusal("point", key, target, error) from error

    def unpoint(self, key: int) -> None:
        """Frames that come in by ``key`` are dropped from now on. No entry is no error."""
        try:
            self._entries.delete(key)
            for generation in self._older:
                generation.remove(key)
        except OSError as error:
            raise _entry_refusal("unpoint", key, 0, error) from error

    def entries(self) -> dict[int, int]:
        """All of them: 3 µs each, since a devmap has no batch operations. See ``holds``."""
        with stage("entries", "reading the map"):
            return self._entries.items()

    # ------------------------------------------------------------------ peers (tc)

    def steer(self, key: int, target: int) -> None:
        """As ``point``, for tc; the kernel does not look whether ``target`` exists.

        With ``CLOSED`` what comes in by ``key`` is dropped, in whatever mode, as ``one_way``.
        """
        try:
            _run(self.fds["steer"], key, target, 0)
        except OSError as error:
            raise _entry_refusal("steer", key, target, error) from error

    def unsteer(self, key: int) -> None:
        try:
            with suppress(FileNotFoundError):
                _run(self.fds["steer"], key, 0, 1)
        except OSError as error:
            raise _entry_refusal("unsteer", key, 0, error) from error

    def peers(self) -> dict[int, int]:
        with stage("peers", "reading the map"):
            return self._peers.all_items()

    # ------------------------------------------------------------------ what is in all of them

    def holds(self, left: Left) -> bool:
        """Whether ``entries()`` and ``peers()`` are these, for a sweep every second.

        Cheap as long as it is given the same object.
        """
        with stage("entries", "checking the maps"):
            if left is not self._left:
                self._left = left
                self._entries_sweep.expect(left.entries)
                self._peers_sweep.expect(left.peers)
            return self._entries_sweep.finds() and self._peers_sweep.finds()

    def look_up(
        self, ends: Collection[int] | None = None
    ) -> tuple[dict[int, int], dict[int, int], frozenset[int] | None]:
        """The entries and the peers of these ends (None: all), and those that are guarded.

        Guarded is what is kept from the host's stack as it comes in; None where that cannot be.
        """
        guard = self._guard.ends
        if ends is None:
            with stage("guard", "reading the guard's map"):
                guarded = None if guard is None else frozenset(guard.keys())
                return self.entries(), self.peers(), guarded
        try:
            guarded = None if guard is None else frozenset(guard.among(ends))
            return self._entries.among(ends), self._peers.among(ends), guarded
        except OSError as error:
            raise refusal("entries", "reading the maps", error) from error

    # ------------------------------------------------------------------ counters

    def count(self, key: int) -> None:
        """Counters for ``key``, from zero; those that exist run on.

        Without them its frames are forwarded or dropped all the same, and counted for UNKNOWN.
        """
        try:
            self._counters.create(key)
        except OSError as error:
            raise refusal("counters", "creating counters", error) from error

    def uncount(self, key: int) -> None:
        try:
            self._counters.delete(key)
            self._drops.forget(key)
        except OSError as error:
            raise refusal("counters", "deleting counters", error) from error

    def counters(self, key: int) -> Counters:
        """Zeros where there are none."""
        with stage("counters", "reading counters"):
            return self._counters.of(key)

    def counts(self) -> Callable[[int], tuple[int, int]]:
        """Frames of a key that were handed on, and dropped: for another thread, until ``close``."""
        return counter_maps.CounterMaps(self._shared).handled

    def crossed_in_parts(self) -> Iterator[dict[int, Counters]]:
        """What the wires' own programs count, of some hundred ends at a time; parts may be empty.

        It lacks what is counted elsewhere: ``lost``, and what met the host's stack.
        """
        with stage("counters", "reading the counters"):
            yield from self._counters.in_parts()

    def counters_in_parts(self) -> Iterator[dict[int, Counters]]:
        """The same, and what is counted elsewhere."""
        stopped: dict[int, Stopped] = {}
        with stage("counters", "reading the counters"):
            lost = self._drops.all()
            for some in self._guard.stopped_in_parts():
                stopped |= some
                yield {}
        for counted in self.crossed_in_parts():
            for key in lost.keys() & counted.keys():
                counted[key] = counted[key]._replace(lost=lost[key])
            for key in stopped.keys() & counted.keys():
                counted[key] = _with_stopped(counted[key], stopped[key])
            yield counted

    def listen_to_drivers(self) -> None:
        """Counts what they refuse in native mode, from the first such link on: it costs them."""
        self._drops.listen_to_drivers()

    @property
    def drop_stats_unavailable(self) -> str:
        """Why frames lost at the redirect are not counted; empty if they are."""
        return self._drops.unavailable

    @property
    def guard_unavailable(self) -> str:
        """Why nothing stands between the ends and the host's stack; empty if something does."""
        return self._guard.unavailable

    # ------------------------------------------------------------------ generations

    def renew(self) -> None:
        """New programs in place of those that look up entries, with a copy of the entries.

        What runs the old ones forwards on until it got the new program, or ``empty_older``.
        Compiles where no code was kept: up to 600 ms. Raises DataplaneError, PrivilegeError.
        """
        generations = [*self._older, self._current]
        new = _make_generation(self._pins, self._source, self._shared, generations)
        self._older.append(self._current)
        self._current = new
        self._entries_sweep.close()
        self._peers_sweep.close()
        self._use_current()
        self._drops.watch(self._own_entries())
        self.keep_code()

    def keep_code(self) -> None:
        """So that ``renew`` has it at once, also after a start that adopts. Never fails."""
        with suppress(OSError):
            self._source.keep()

    def older_forward(self) -> bool:
        """Whether an older program, wherever it is, may still have entries."""
        return not all(generation.emptied for generation in self._older)

    def empty_older(self) -> None:
        """From now on older programs drop all that comes in, wherever they are."""
        with stage("entries", "emptying the maps of older programs"):
            for generation in self._older:
                if not generation.emptied:
                    generation.empty()

    def retire(self) -> None:
        """Unpins older generations and their maps: to be called when nothing runs them."""
        self.empty_older()
        with stage("pins", "removing older programs"):
            for generation in self._older:
                generation.close()
                self._pins.remove([generation.path])
            self._older.clear()
            self._note_programs()
            self._pins.remove(self._pins.other_maps({name: _FORM[name] for name in _SHARED}))
        self._drops.watch(self._own_entries())

    def _generations(self) -> tuple[Generation, ...]:
        return (self._current, *self._older)

    def _own_entries(self) -> frozenset[int]:
        """The ids of all maps by which a frame of ours may be redirected."""
        maps = (one.own.get("entries") for one in self._generations())
        return frozenset(libbpf.map_id(fd) for fd in maps if fd is not None)

    # ------------------------------------------------------------------ the host's stack

    def guard(self, key: int) -> None:
        """From now on, counting from zero; one that is guarded already counts on."""
        try:
            if (ends := self._guard.ends) is not None:
                ends.create(key)
        except OSError as error:
            raise refusal("guard", "guarding the host", error) from error

    def unguard(self, key: int) -> None:
        """What comes in by ``key`` is the host's again."""
        try:
            if (ends := self._guard.ends) is not None:
                ends.delete(key)
        except OSError as error:
            raise refusal("guard", "ending the guard of the host", error) from error

    # ------------------------------------------------------------------ life cycle

    def is_pinned(self) -> bool:
        """Whether all is there that the next start, or who only looks, is to find. Some 30 µs."""
        shared = all(self._pins.map(name, _FORM[name]).exists() for name in _SHARED)
        return shared and self._current.is_pinned and self._guard.is_pinned

    def pin_again(self) -> None:
        """Puts pins back that somebody removed. Raises DataplaneError, PrivilegeError."""
        with stage("pins", "pinning again what was removed"):
            self._pins.prepare()
            for name, fd in self._shared.items():
                path = self._pins.map(name, _FORM[name])
                if not path.exists():
                    libbpf.pin(fd, path)
            if not self._current.is_pinned:
                self._pins.remove([self._current.path])
                self._current.pin(self._pins)
            self._guard.pin_again()
        self._drops.listen_again()

    @staticmethod
    def discard(pins: Path) -> None:
        """Removes what is pinned there, whole or not. Nothing there is no error."""
        with stage("pins", "removing the pins"):
            Pins(pins).remove_all()

    def close(self) -> None:
        """Gives the descriptors back; what is pinned or attached stays."""
        for generation in self._generations():
            generation.close()
        self._entries_sweep.close()
        self._peers_sweep.close()
        self._drops.close()
        self._guard.close()
        self._unpinned.close()
        for fd in (*self._shared.values(), *self._filters.values()):
            os.close(fd)


def _load_filter(expression: str, maps: Mapping[str, int]) -> int:
    try:
        code = egress_filter.program(pcap_filter.compiled(expression), maps, counter_maps.FILTERED)
    except egress_filter.UntranslatableError as error:
        raise pcap_filter.FilterError(f"filter {expression!r}: {error}") from error
    with stage("load", f"loading the filter {expression!r}"):
        return libbpf.load_program(libbpf.PROG_SCHED_CLS, PROGRAM_NAME, compiler.LICENSE, code)


class Unpinned:
    """Programs whose pins are lost, by kernel id."""

    def __init__(self) -> None:
        self._fds: dict[int, int] = {}

    def fd_of(self, program: int) -> int | None:
        """None without CAP_SYS_ADMIN.

        Raises:
            ProgramGoneError: whatever ran it runs another one now, or none.
        """
        if program not in self._fds:
            try:
                self._fds[program] = libbpf.program_by_id(program)
            except FileNotFoundError as error:
                raise ProgramGoneError(program) from error
            except OSError:
                return None
        return self._fds[program]

    def close(self) -> None:
        for fd in self._fds.values():
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


def _run(program: int, *words: int) -> None:
    """Runs one of ours on these words. Raises OSError, also for what it returns."""
    frame = array("I", words).tobytes().ljust(_SHORTEST_FRAME, b"\0")
    if number := libbpf.run_program(program, frame):
        raise OSError(number, os.strerror(number))


def _with_stopped(counters: Counters, stopped: Stopped) -> Counters:
    host_egress = counters.host_egress + stopped.host_egress
    return counters._replace(host_egress=host_egress, passed_to_host=stopped.passed_to_host)


def _entry_refusal(action: str, key: int, target: int, error: OSError) -> XconnectError:
    what = f"{key} to {target}" if target else str(key)
    hint = f" (no interface {target} here)" if error.errno == errno.EINVAL and target else ""
    return refusal(action, f"entry {what}{hint}", error)


# --------------------------------------------------------------------------- generations


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


def _kept(undo: ExitStack, fd: int) -> int:
    undo.callback(os.close, fd)
    return fd


def _make_map(pins: Pins, name: str) -> int:
    path = pins.map(name, _FORM[name])
    with stage("maps", "creating and pinning maps"):
        if path.exists():
            return libbpf.open_pin(path)
        fd = libbpf.create_map(f"xc_{name}", _FORMATS[name])
        if name == "counters":
            counter_maps.take_over(pins, fd)
        libbpf.pin(fd, path)
        return fd


def _open_generations(pins: Pins, undo: ExitStack) -> list[Generation]:
    """The oldest first. One that a daemon retires meanwhile is passed over."""
    found = []
    for path in pins.generations():
        with suppress(FileNotFoundError):
            found.append(Generation.open(pins, path))
            undo.callback(found[-1].close)
    return found


def _is_current(generations: Sequence[Generation], made_of: str, shared: Mapping[str, int]) -> bool:
    """Whether the newest is complete and of this source: no other may be written to again."""
    if not generations or not Pins.is_made_of(generations[-1].path, made_of):
        return False
    return generations[-1].is_complete(_RECIPES, shared)


def _make_generation(
    pins: Pins, source: _Source, shared: Mapping[str, int], older: Sequence[Generation]
) -> Generation:
    """The next one, which begins with the entries of the newest of those there are."""
    before = older[-1] if older else None
    same_code = _is_current(older, source.generation, shared)
    code = source.code()
    path = pins.next_generation(source.generation)
    with stage("load", "loading the programs"):
        generation = Generation.make(
            path, _RECIPES, code, shared, _FORMATS, before=before, same_code=same_code
        )
    try:
        with stage("pins", "pinning the programs"):
            generation.pin(pins)
    except BaseException:
        generation.close()
        raise
    return generation


class _Source:
    """What the programs are made of, read when it is asked for."""

    def __init__(self, kept: Path | None) -> None:
        self._kept = kept
        self._code: compiler.Compiled | None = None

    @cached_property
    def _hash(self) -> str:
        return compiler.source_hash(compiler.source_directory())

    @cached_property
    def generation(self) -> str:
        """What names the generations that are loaded from it."""
        return _generation_name(self._hash)

    def code(self) -> compiler.Compiled:
        if self._code is None:
            directory = compiler.source_directory()
            self._code = compiler.code_for(directory, self._hash, kept=self._kept)
        return self._code

    def keep(self) -> None:
        if self._kept and self._code and not self._kept.exists():
            compiler.keep(self._kept, self._code, self._hash)
