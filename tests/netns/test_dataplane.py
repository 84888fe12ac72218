"""The BPF part on the real kernel: made, found again, replaced, and doing what it says."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from xconnectd.dataplane import compiler, counter_maps, libbpf, programs
from xconnectd.dataplane.compiler import Code
from xconnectd.dataplane.pins import Pins
from xconnectd.dataplane.programs import UNKNOWN, Dataplane, describe
from xconnectd.errors import DataplaneError, ProgramGoneError
from xconnectd.model import Counters, Left, Lost

from .frames import odd_frames
from .lab import REPO, Lab, entered, in_public, inside, poll, run
from .service import NOBODY, RIGHTLESS
from .traffic import Port, collect, crosses, exchange, passes, transfer

FRAMES: Final = list(odd_frames().values())
PINNED: Final = {*programs._SHARED, "programs", "listeners"}
_number = itertools.count(1)


def all_counters(plane: Dataplane) -> dict[int, Counters]:
    return {key: each for some in plane.counters_in_parts() for key, each in some.items()}


@pytest.fixture(scope="session")
def code() -> dict[str, Code]:
    """Compiled once, by the child."""
    directory = compiler.source_directory()
    return compiler.compile_in_child(directory, compiler.source_hash(directory))


@pytest.fixture(autouse=True)
def _apart(lab: Lab) -> Iterator[None]:
    """The doors of one namespace can be guarded by one at a time: each test has its own."""
    with entered(lab.host):
        yield


@pytest.fixture
def pins() -> Iterator[Path]:
    root = Path(f"/sys/fs/bpf/xctest-{os.getpid()}-{next(_number)}")
    yield root / "here"
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def plane(pins: Path) -> Iterator[Dataplane]:
    with closing(Dataplane.open(pins)) as built:
        yield built


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources to change; it is what gets compiled."""
    copy = tmp_path / "bpf"
    shutil.copytree(compiler.source_directory(), copy)
    (copy / "xconnect.json").unlink(missing_ok=True)
    monkeypatch.setattr(compiler, "source_directory", lambda: copy)
    monkeypatch.delenv(compiler.CODE_VARIABLE)
    return copy


def change(sources: Path, old: str = "", new: str = "/* changed */\n") -> None:
    path = sources / "xconnect.c"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@contextlib.contextmanager
def crash(at: int) -> Iterator[None]:
    """The process ends before it makes one of its pins."""
    made, pin = itertools.count(), libbpf.pin

    def counted(fd: int, path: Path) -> None:
        if next(made) == at:
            raise KeyboardInterrupt
        pin(fd, path)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(libbpf, "pin", counted)
        yield


def compile_strictly(directory: Path, *before: str) -> tuple[int, str]:
    program = (
        "from pathlib import Path; from xconnectd.dataplane.compiler import *\n"
        f"compile_source(Path({str(directory)!r}), flags=[*FLAGS, '-Werror'])"
    )
    done = run(*before, sys.executable, "-c", program, check=False, cwd=REPO)
    return done.returncode, done.stderr


def test_it_compiles_without_kernel_headers_privileges_or_a_warning(sources: Path) -> None:
    hide = "for d in /lib/modules /usr/src /sys; do test ! -d $d || mount -t tmpfs none $d; done"
    drop = "exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --reuid=65534 -- "
    bare = ("unshare", "--mount", "sh", "-c", f'{hide}; {drop}"$@"', "sh")
    assert compile_strictly(REPO / "bpf", *bare) == (0, "")
    change(sources, new="int careless(struct xdp_md *ctx)\n{\n\tint unused;\n\n\treturn 0;\n}\n")
    failed, said = compile_strictly(sources)
    assert failed
    assert "unused" in said or "careless" in said


def test_code_references_maps_by_name_and_nothing_else(code: dict[str, Code]) -> None:
    maps = {name: {map_name for _, map_name in one.relocations} for name, one in code.items()}
    xdp = {"entries", "peers", "counters", "tallies"}
    tc = {"places", "peers", "counters", "tallies"}
    assert maps == {
        **dict.fromkeys(("xdp_frags", "xdp_linear", "swap_frags", "swap_linear"), xdp),
        **dict.fromkeys(("ingress", "swap_ingress", "tunnel_ingress"), tc),
        **dict.fromkeys(("egress_drop", "tunnel_egress", "tunnel_egress_uncut"), tc - {"tallies"}),
        "audit": {"entries"},
        "audit_peers": {"peers"},
        "steer": {"places", "peers"},
        "moment": {"clock"},
    }


SPOILT = {
    "compiler": ("return XDP_DROP;", "return aktion;"),
    "verifier": ("*peer = there ? *there : CLOSED;", "*peer = *there;"),
}


@pytest.mark.parametrize(
    ("whose", "stage", "words"),
    [
        ("compiler", "compile: ", "undeclared identifier 'aktion'"),
        ("verifier", "load: loading the programs: ", "map_value_or_null"),
    ],
)
def test_what_the_kernel_or_the_compiler_says_comes_through_whole(
    whose: str, stage: str, words: str, sources: Path, pins: Path
) -> None:
    change(sources, *SPOILT[whose])
    with pytest.raises(DataplaneError, match=stage) as caught:
        Dataplane.open(pins)
    assert words in caught.value.log


def test_a_second_open_wants_no_code(
    plane: Dataplane, pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not plane.adopted
    plane.point(7, 1)
    monkeypatch.setattr(compiler, "code_for", lambda *_, **__: pytest.fail("it wanted code"))
    for build in (True, False):
        with closing(Dataplane.open(pins, build=build)) as again:
            assert again.adopted
            assert again.programs == plane.programs
            assert again.entries() == again.look_up([7, 8])[0] == {7: 1}
    assert "bcc" not in sys.modules
    for directory in (pins, pins.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for _ in range(2):
        Dataplane.discard(pins)
        assert not pins.exists()
    with pytest.raises(DataplaneError, match=f"open: nothing is pinned in {pins}"):
        Dataplane.open(pins, build=False)
    assert not pins.exists(), "a reader makes nothing"


def test_changed_programs_take_the_maps_over(plane: Dataplane, pins: Path, sources: Path) -> None:
    """An older generation is never taken up again: it may run on a device that has left."""
    text = (sources / "xconnect.c").read_text()
    plane.point(7, 1)
    plane.steer(8, 1)
    plane.count(7)
    change(sources)
    with closing(Dataplane.open(pins)) as new:
        assert not new.adopted
        assert new.programs.xdp not in plane.programs.ours
        assert new.programs.known > plane.programs.ours
        assert (new.entries(), new.peers()) == ({7: 1}, {8: 1})
        assert all_counters(new).keys() == {UNKNOWN, 7}
        old = new.fd_of(plane.programs.xdp)
        assert old is not None
        assert libbpf.program_info(old).id == plane.programs.xdp
    (sources / "xconnect.c").write_text(text)
    with closing(Dataplane.open(pins)) as downgraded:
        assert not downgraded.adopted
        assert downgraded.programs.xdp not in {plane.programs.xdp, new.programs.xdp}
        downgraded.retire()
        assert downgraded.programs.known == frozenset()
        assert [x.name for x in pins.glob("programs-*")] == [downgraded._current.path.name]
        assert downgraded.entries() == {7: 1}


def test_changed_maps_come_beside(
    plane: Dataplane, pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.point(7, 1)
    wider = libbpf.MapFormat(libbpf.MAP_DEVMAP_HASH, 4, 1 << 17)
    monkeypatch.setitem(programs._FORMATS, "entries", wider)
    monkeypatch.setitem(programs._FORM, "entries", programs._form(wider))
    with closing(Dataplane.open(pins)) as new:
        assert not new.adopted
        assert new.entries() == plane.entries() == {7: 1}
        assert len(list(pins.glob("programs-*/entries"))) == 2
        new.retire()
        assert {path.name.split("-")[0] for path in pins.iterdir()} == PINNED
        assert plane.entries() == {}


def test_counts_go_on_in_a_map_of_more_words(pins: Path) -> None:
    """Also of a key that has counted nothing: without counters it would count for nobody."""
    narrow = programs._FORMATS["counters"]._replace(value_size=40)
    made = pins / f"counters-{programs._form(narrow)}"
    Pins(pins).prepare()
    cpus = libbpf.possible_cpus()
    libbpf.pin(fd := libbpf.create_map("xc_counters", narrow), made)
    old = libbpf.Map(fd, ctypes.c_uint64, 5 * cpus)
    old.put(7, [1, 2, 3, 4, 5] * cpus)
    old.create(8)
    os.close(fd)
    with closing(Dataplane.open(pins)) as new:
        assert new.counters(7) == Counters(cpus, 2 * cpus, 3 * cpus, 4 * cpus, last=5)
        assert all_counters(new).keys() == {UNKNOWN, 7, 8}
        new.retire()
    assert not made.exists()


def test_counts_and_peers_of_a_release_without_places_are_taken_over(
    plane: Dataplane, pins: Path
) -> None:
    """And of one that came after ours and knew them not, so that what is there is out of date."""
    plane.steer(7, 8)
    plane.count(7)
    plane.count(8)
    libbpf.Map(plane._shared["peers"]).set(7, 9)
    libbpf.Map(plane._shared["peers"]).set(10, 9)
    plane._counters._counters.delete(8)
    plane._counters._counters.create(8 + counter_maps.PLACES)
    shutil.rmtree(next(pins.glob("programs-*")))
    with closing(Dataplane.open(pins)) as new:
        assert not new.adopted
        places = libbpf.Map(new._shared["places"], ctypes.c_uint32, 2)
        assert [places.words(key) for key in (7, 8, 10)] == [[7, 9], [0, 0], [10, 9]]
        assert new._counters._tallied([8]).keys() == {8 + counter_maps.PLACES}


def test_a_new_generation_has_entries_of_its_own_alone(plane: Dataplane, pins: Path) -> None:
    """Whatever still runs the old program has the old map, wherever it is."""
    before, old = plane.programs, plane._current
    plane.point(7, 1)
    plane.point(8, 1)
    plane.renew()
    assert plane.programs.xdp not in before.ours
    assert (plane.programs.ingress, plane.programs.egress) == (before.ingress, before.egress)
    assert before.xdp in plane.programs.known
    assert plane.fd_of(before.xdp) is not None
    plane.point(9, 1)
    plane.unpoint(8)
    assert plane.entries() == {7: 1, 9: 1}
    assert libbpf.Map(old.own["entries"]).items() == {7: 1}
    assert plane.holds(Left({7: 1, 9: 1}, {}))
    plane.empty_older()
    assert libbpf.Map(old.own["entries"]).items() == {}
    with closing(Dataplane.open(pins)) as again:
        assert again.adopted
        assert again.programs == plane.programs
        assert again.entries() == {7: 1, 9: 1}
        again.point(10, 1)
    assert libbpf.Map(old.own["entries"]).items() == {}
    plane.retire()
    assert len(list(pins.glob("programs-*"))) == 1
    with pytest.raises(ProgramGoneError):  # told apart from a lost pin
        plane.fd_of(before.xdp)


@pytest.mark.parametrize("at", range(17))
def test_a_crash_half_way_leaves_nothing_that_counts(at: int, pins: Path) -> None:
    """At the first of all starts, and when a generation comes after another."""
    with crash(at):
        Dataplane.open(pins)
        pytest.fail("it went on")
    with pytest.raises(DataplaneError, match="nothing is pinned"):
        Dataplane.open(pins, build=False)
    with closing(Dataplane.open(pins)) as plane:
        assert not plane.adopted
        assert plane.programs.known == frozenset()
        assert {path.name.split("-")[0] for path in pins.iterdir()} == PINNED | {"guard"}
        plane.point(7, 1)
        old = plane.programs.xdp
        with crash(at):
            plane.renew()
    with closing(Dataplane.open(pins)) as again:
        assert again.adopted
        assert again.entries() == {7: 1}
        # After the last of its pins a generation has its name, and counts.
        assert (again.programs.xdp == old) == (at < 12)
        again.renew()
        again.retire()
        assert len(list(pins.glob("programs-*"))) == 1
        assert not list(pins.glob("building-*"))


def test_the_entries_of_a_release_before_0_2_are_taken_over(plane: Dataplane, pins: Path) -> None:
    plane.point(7, 1)
    (generation,) = pins.glob("programs-*")
    (generation / "entries").rename(pins / "entries-0123abcd")
    generation.rename(pins / f"programs-{generation.name[-16:]}")
    with closing(Dataplane.open(pins, build=False)) as reader:
        assert reader.entries() == {7: 1}
    with closing(Dataplane.open(pins)) as new:
        assert not new.adopted
        assert plane.programs.xdp in new.programs.known
        assert new.entries() == {7: 1}
        new.retire()
        assert plane.entries() == {}
        assert not list(pins.glob("entries-*"))


def test_code_is_kept_for_an_adopting_start(
    pins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler takes half a second, in which a program that left forwards on."""
    kept = tmp_path / "kept"
    with closing(Dataplane.open(pins, kept=kept)) as plane:
        plane.keep_code()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    monkeypatch.delenv(compiler.CODE_VARIABLE)
    monkeypatch.setattr(compiler, "compile_in_child", lambda *_: pytest.fail("compiled"))
    with closing(Dataplane.open(pins, kept=kept)) as again:
        again.renew()


@pytest.mark.parametrize("lost", ["programs-*/ingress", "programs-*/entries", "counters-*"])
def test_a_lost_pin_is_made_anew_what_ran_is_known(lost: str, plane: Dataplane, pins: Path) -> None:
    next(pins.glob(lost)).unlink()
    with closing(Dataplane.open(pins)) as new:
        assert not new.adopted
        assert plane.programs.xdp in new.programs.known
        assert new.programs.xdp not in plane.programs.ours


@pytest.mark.usefixtures("plane")
def test_a_look_that_fails_leaves_no_descriptor_behind(pins: Path) -> None:
    next(pins.glob("counters-*")).unlink()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        with pytest.raises(DataplaneError, match="open: "):
            Dataplane.open(pins, build=False)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


ALONE: Final = """
import sys
from pathlib import Path
from xconnectd.dataplane.programs import Dataplane
from xconnectd.model import Left
try:
    plane = Dataplane.open(Path(sys.argv[1]), build=sys.argv[2] == "build")
    if sys.argv[2] == "build":
        plane.filter("tcp port 80 or vlan 5")
    print(plane.entries(), plane.holds(Left({7: 1}, {})), plane.counters(7).frames)
except Exception as error:
    print(type(error).__name__, error)
"""


def alone(pins: Path, how: str) -> tuple[str, ...]:
    """Open in another process."""
    return (sys.executable, "-c", ALONE, str(pins), how)


def test_a_missing_bpffs_is_mounted_or_it_is_said_what_to_do(pins: Path, tmp_path: Path) -> None:
    without = ("unshare", "--mount", "sh", "-c", 'umount /sys/fs/bpf && exec "$@"', "sh")
    assert run(*without, *alone(pins, "build"), cwd=REPO).stdout == "{} False 0\n"
    assert not pins.parent.exists()
    with pytest.raises(DataplaneError, match=r"no BPF filesystem: mount -t bpf bpf /sys/fs/bpf"):
        Dataplane.open(tmp_path / "pins")


@pytest.mark.parametrize(
    ("held", "answer"),
    [
        ("bpf,net_admin", "{} False 0"),
        ("net_admin", "PrivilegeError CAP_BPF is missing: "),
        ("bpf", "PrivilegeError CAP_NET_ADMIN is missing: "),
        ("perfmon", "PrivilegeError CAP_BPF, CAP_NET_ADMIN is missing: "),
    ],
)
def test_two_capabilities_do_and_a_missing_one_is_named(held: str, answer: str, pins: Path) -> None:
    drop = ",".join(["-all", *(f"+{name}" for name in held.split(","))])
    before = ("setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}")
    assert run(*before, *alone(pins, "build"), cwd=REPO).stdout.startswith(answer)


def test_a_reader_needs_no_capability_but_root_s_directory(plane: Dataplane, pins: Path) -> None:
    plane.point(7, 1)
    plane.count(7)
    read = alone(pins, "read")
    assert run(*RIGHTLESS, *read, cwd=REPO).stdout == "{7: 1} True 0\n"
    said = f"PrivilegeError CAP_DAC_OVERRIDE is missing: reading the pins in {pins}"
    assert run(*in_public(*NOBODY, *read)).stdout.startswith(said)


def test_what_is_not_there(plane: Dataplane) -> None:
    """No entry is no error; a target is named; counters that exist run on."""
    plane.unpoint(7)
    plane.unsteer(7)
    plane.uncount(7)
    assert plane.look_up([7])[:2] == ({}, {})
    assert plane.counters(7) == Counters()
    with pytest.raises(DataplaneError, match="no interface 1999999 here") as caught:
        plane.point(7, 1_999_999)
    assert isinstance(caught.value.__cause__, OSError)
    plane.count(7)
    plane._counters._counters.set(7, 5)
    plane.count(7)
    assert plane.counters(7).frames == 5


def refuse(_: libbpf.Map) -> NoReturn:
    raise OSError(errno.EINVAL, "Invalid argument")


def test_whole_maps_are_read(plane: Dataplane, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time as on a kernel without batch operations."""
    for key in range(1, 1001):
        plane.steer(key, key + 1)
        plane.count(key)
    plane._counters._counters.set(1000, 7)
    wanted = dict.fromkeys(range(1001), Counters()) | {1000: Counters(frames=7)}
    for _ in range(2):
        assert plane.peers() == {key: key + 1 for key in range(1, 1001)}
        assert all_counters(plane) == wanted
        monkeypatch.setattr(libbpf.Map, "batches", refuse)


@pytest.mark.parametrize("which", ["entries", "peers"])
@pytest.mark.parametrize("size", [0, 1, 3, 256, 257, 600])
def test_the_sweep_sees_every_difference(
    size: int, which: str, plane: Dataplane, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = dict.fromkeys(range(10, 10 + size), 1)
    lead, part = (
        (plane.point, plane.unpoint) if which == "entries" else (plane.steer, plane.unsteer)
    )
    left = Left(wanted, {}) if which == "entries" else Left({}, wanted)

    def holds(**more: dict[int, int]) -> bool:
        """The second time, and any time that it is as it was, the same object is looked for."""
        told = left._replace(**more) if more else left
        first = plane.holds(told)
        assert plane.holds(told) is first
        return first

    for key, target in wanted.items():
        lead(key, target)
    lead(5, 1)
    assert not holds()
    part(5)
    assert holds()
    if size:
        last = 10 + size - 1
        assert not holds(**{which: {**wanted, last: 2}})
        assert holds()
        part(last)
        assert not holds()
        lead(5, 1)  # as many as wanted
        assert not holds()
        part(5)
        lead(last, 1)
    assert holds()
    monkeypatch.setattr(libbpf.Map, "all_items", lambda _: pytest.fail("walked"))
    assert holds()


def test_of_many_ends_each_has_its_turn_in_a_sweep(plane: Dataplane) -> None:
    """What came or went is seen at once."""
    peers = dict.fromkeys(range(10, 5010), 1)
    for key in peers:
        plane.steer(key, 1)
    left = Left({}, peers)
    assert [plane.holds(left) for _ in range(5)] == [True] * 5
    plane.steer(5009, 2)
    assert False in [plane.holds(left) for _ in range(2)]
    plane.steer(5009, 1)
    assert [plane.holds(left) for _ in range(3)][1:] == [True] * 2
    plane.unsteer(10)
    assert not plane.holds(left)
    plane.steer(10, 1)
    assert [plane.holds(left) for _ in range(2)] == [True] * 2
    plane.steer(11, 2)
    assert False in [plane.holds(left) for _ in range(2)]


def test_names_are_what_people_see(plane: Dataplane) -> None:
    for program in (plane.programs.xdp, plane.programs.ingress, plane.programs.egress):
        assert describe(program) == f"id {program} (xconnectd)"
    assert describe(2**31) == f"id {2**31}"


class Wire:
    """Two containers whose host ends run our programs, one of them with a large ifindex."""

    def __init__(
        self,
        lab: Lab,
        plane: Dataplane,
        pins: Path,
        mode: str,
        *,
        ends: tuple[str, str] = ("va", "vb"),
        index: int = 2_000_000,
    ) -> None:
        lab.hush()
        self.lab, self.plane, self.pins, self.mode = lab, plane, pins, mode
        self.programs = next(pins.glob("programs-*"))
        self.stations = lab.veth(ends[0], index=index), lab.veth(ends[1])
        self.a, self.b = (lab.ifindex(name) for name in ends)
        for key, target in ((self.a, self.b), (self.b, self.a)):
            plane.count(key)
            self.lead(key, target)
        for end in ends:
            lab.tc(f"qdisc add dev {end} clsact")
            for way in ("egress", "ingress") if mode == "tc" else ("egress",):
                lab.tc(f"filter add dev {end} {way} bpf da pinned {self.programs / way}")
            if mode == "xdp":
                lab.ip(f"link set dev {end} xdpgeneric pinned {self.programs / 'xdp'}")

    def lead(self, key: int, target: int) -> None:
        """Targets are looked up in the caller's network namespace."""
        inside(self.lab.host, lambda: self.plane.point(key, target))
        self.plane.steer(key, target)

    def counted(self, key: int) -> Counters:
        """Without the time, which is never the same."""
        return self.plane.counters(key)._replace(last=0)

    def assert_carries(self, frames: list[bytes]) -> None:
        with self.stations[0].port() as here, self.stations[1].port() as there:
            crosses(here, there, frames)


@pytest.fixture(params=["xdp", "tc"])
def wire(lab: Lab, plane: Dataplane, pins: Path, request: pytest.FixtureRequest) -> Wire:
    return Wire(lab, plane, pins, request.param)


def test_frames_cross_and_are_counted(wire: Wire) -> None:
    sizes = [60, 1514, 700]
    whole = Counters(frames=3, bytes=sum(sizes))
    wire.assert_carries([bytes(12) + b"\x88\xb6" + bytes(size - 14) for size in sizes])
    assert wire.counted(wire.a) == wire.counted(wire.b) == whole
    assert wire.counted(UNKNOWN) == Counters()
    wire.plane.uncount(wire.a)
    wire.assert_carries(FRAMES)
    assert wire.plane.counters(UNKNOWN).frames == len(FRAMES)
    wire.lead(wire.a, wire.a)
    with wire.stations[0].port() as here, wire.stations[1].port() as there:
        delivery = exchange(here, here, FRAMES)
        assert delivery.exact, delivery
        assert there.drain() == []
    assert wire.counted(UNKNOWN).host_egress == 0
    wire.lead(wire.a, wire.b)
    wanted = {wire.a: wire.b, wire.b: wire.a}
    assert wire.plane.holds(Left(wanted, wanted))
    wire.lab.delete("vb")
    assert not wire.plane.holds(Left(wanted, wanted)), "an entry goes with its target"
    assert wire.plane.entries() == {wire.b: wire.a}


def test_ends_that_share_a_place_are_told_apart(wire: Wire) -> None:
    """Whoever came last has the place, whoever came first the tally: the other one is not lost."""
    lab, plane = wire.lab, wire.plane
    index = wire.a + counter_maps.PLACES
    others = Wire(lab, plane, wire.pins, wire.mode, ends=("vc", "vd"), index=index)
    for one in (wire, others):
        one.assert_carries(FRAMES)
        assert one.counted(one.a).frames == one.counted(one.b).frames == len(FRAMES)
        assert time.monotonic_ns() - plane.counters(one.a).last < 10**9
    others.lead(others.a, others.a)
    wire.assert_carries(FRAMES)
    plane.unsteer(others.a)
    plane.unpoint(others.a)
    plane.uncount(others.a)
    wire.assert_carries(FRAMES)
    assert wire.counted(wire.a).frames == 3 * len(FRAMES)
    assert wire.counted(UNKNOWN) == Counters()


def test_bytes_of_offloaded_segments_are_counted_whole(wire: Wire) -> None:
    """Most of a 64 KB segment is in fragments, which the linear part alone would miss."""
    for number, station in enumerate(wire.stations, 1):
        station.use_address(number)
        wire.lab.ip(f"link set {station.end} mtu 65535")
    transfer(*wire.stations)
    got = wire.plane.counters(wire.a)
    link = json.loads(wire.lab.ip("-s -j link show va"))[0]["stats64"]["rx"]
    assert got.bytes == pytest.approx(link["bytes"], rel=0.01)
    assert got.bytes / got.frames > 10_000
    assert abs(got.frames - link["packets"]) <= 20


def test_a_kernel_without_frags_gets_the_linear_program(
    lab: Lab, pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = libbpf.load_program

    def old_kernel(*args: Any, flags: int = 0, **more: Any) -> int:
        if flags:
            raise OSError(errno.EINVAL, "Invalid argument")
        return load(*args, **more)

    monkeypatch.setattr(libbpf, "load_program", old_kernel)
    with closing(Dataplane.open(pins)) as plane:
        Wire(lab, plane, pins, "xdp").assert_carries(FRAMES)


def test_a_miss_is_dropped_and_counted_and_nobody_answers(wire: Wire) -> None:
    wire.plane.unpoint(wire.a)
    wire.plane.unsteer(wire.a)
    wire.lab.ip("address add 198.51.100.9/24 dev va")
    wire.lab.tc("filter delete dev va egress")  # an answer would be seen
    request = bytes.fromhex(
        "ffffffffffff02000000aa010806 0001080006040001 02000000aa01c6336401 000000000000c6336409"
    ) + bytes(18)
    with wire.stations[0].port() as here, wire.stations[1].port() as there:
        for key in (wire.a, UNKNOWN):
            for _ in range(5):
                here.send(request)
            poll(lambda key=key: wire.plane.counters(key).no_entry >= 5)  # type: ignore[misc]
            assert wire.counted(key) == Counters(no_entry=5)
            wire.plane.uncount(wire.a)
        assert collect(here, 1, timeout=0.2) == there.drain() == []
        assert wire.a not in all_counters(wire.plane)
        wire.lab.ip("link set dev va xdpgeneric off")
        wire.lab.tc("qdisc delete dev va clsact")
        here.send(request)
        poll(here.drain, what="the answer of a host without our programs")


@pytest.mark.parametrize("wire", ["xdp"], indirect=True)
def test_what_still_runs_a_retired_program_forwards_nothing(wire: Wire) -> None:
    with wire.stations[0].port() as here, wire.stations[1].port() as there:
        assert passes(here, there)
        wire.plane.renew()
        assert passes(here, there)
        wire.plane.retire()
        assert not passes(here, there)


@pytest.mark.parametrize("wire", ["xdp"], indirect=True)
def test_what_is_lost_is_counted_for_our_maps_alone_and_goes_with_the_counters(wire: Wire) -> None:
    wire.lab.ip("link set vb down")
    frame = b"\xff" * 6 + bytes.fromhex("02000000aa01") + b"\x88\xb6" + bytes(46)
    with wire.stations[0].port() as here:
        here.send(frame)
        poll(lambda: all_counters(wire.plane)[wire.a].lost == Lost(egress_down=1))
        wire.plane._drops.watch(frozenset())  # as if it was somebody else's
        here.send(frame)
        poll(lambda: wire.plane.counters(wire.a).frames == 2)
    assert all_counters(wire.plane)[wire.a].lost == Lost(egress_down=1)
    wire.plane.uncount(wire.a)
    wire.plane.count(wire.a)  # for another device with that number
    assert all_counters(wire.plane)[wire.a].lost == Lost()


def test_what_the_host_says_routes_and_bridges_is_dropped_and_counted(wire: Wire) -> None:
    lab = wire.lab
    with wire.stations[0].port() as there, inside(lab.host, lambda: Port("va")) as here:
        for frame in FRAMES[:5]:
            with pytest.raises(OSError, match="No buffer space"):  # how Linux says "dropped"
                here.send(frame)
        assert collect(there, 1, timeout=0.2) == []
        assert wire.counted(wire.a) == Counters(host_egress=5)
        third = lab.veth("vc", 3)
        wire.plane.steer(lab.ifindex("vc"), wire.b)  # peered, but not with this end
        lab.ip("address add 198.51.100.254/24 dev vc")
        lab.ip("address add 203.0.113.254/24 dev va")
        lab.ip("neighbour add 203.0.113.1 lladdr 02:00:00:00:00:01 dev va")
        lab.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        third.ip("route", "add", "default", "via", "198.51.100.254")
        run("ping", "-c1", "-W1", "203.0.113.1", namespace=third.namespace, check=False)
        poll(lambda: wire.plane.counters(wire.a).host_egress > 5)
        routed = wire.plane.counters(wire.a).host_egress
        lab.bridge("br0", "vc", "va")
        with third.port() as beside:
            poll(
                lambda: (
                    passes(beside, there, 0.05) or wire.plane.counters(wire.a).host_egress > routed
                )
            )
        assert there.drain() == []
    assert wire.plane.counters(wire.a).host_egress > routed
    wire.assert_carries(FRAMES[:3])
