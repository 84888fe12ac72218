"""The BPF part on the real kernel: made, found again, replaced, and doing what it says."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from xconnectd.dataplane import compiler, libbpf, programs
from xconnectd.dataplane.compiler import Code
from xconnectd.dataplane.programs import UNKNOWN, Dataplane, describe
from xconnectd.errors import DataplaneError, ProgramGoneError
from xconnectd.model import Counters, Lost

from .frames import odd_frames
from .lab import REPO, Lab, Station, in_public, inside, poll, run
from .traffic import Port, collect, exchange, passes, transfer

FRAMES: Final = list(odd_frames().values())
_number = itertools.count(1)


@pytest.fixture(scope="session")
def code() -> dict[str, Code]:
    """Compiled once, by the child."""
    directory = compiler.source_directory()
    return compiler.compile_in_child(directory, compiler.source_hash(directory))


@pytest.fixture(autouse=True)
def _compiled(code: dict[str, Code], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready-made code, so that only the tests that are about compiling compile."""
    source = compiler.source_hash(compiler.source_directory())
    text = compiler.encode({"xconnect": code}, {"xconnect": source})
    (tmp_path / "code.json").write_text(text)
    monkeypatch.setenv(compiler.CODE_VARIABLE, str(tmp_path / "code.json"))


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
    return copy


def change(sources: Path, old: str = "", new: str = "/* changed */\n") -> None:
    path = sources / "xconnect.c"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "code_for", lambda *_, **__: pytest.fail("it wanted code"))


# ---------------------------------------------------------------------- compiling

CHILD: Final = (
    "from xconnectd.dataplane.compiler import *; compile_source({!r}, flags=[*FLAGS, '-Werror'])"
)


def compile_strictly(directory: Path, *before: str) -> subprocess.CompletedProcess[str]:
    program = f"from pathlib import Path; {CHILD}".replace("{!r}", f"Path({str(directory)!r})")
    return run(*before, sys.executable, "-c", program, check=False, cwd=REPO)


def test_it_compiles_without_kernel_headers_privileges_or_a_warning() -> None:
    hide = "for d in /lib/modules /usr/src /sys; do test ! -d $d || mount -t tmpfs none $d; done"
    drop = "exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --reuid=65534 -- "
    bare = ("unshare", "--mount", "sh", "-c", f'{hide}; {drop}"$@"', "sh")
    done = compile_strictly(compiler.source_directory(), *bare)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_warning_is_an_error(sources: Path) -> None:
    with (sources / "xconnect.c").open("a") as file:
        file.write("\nint careless(struct xdp_md *ctx)\n{\n\tint unused;\n\n\treturn 0;\n}\n")
    done = compile_strictly(sources)
    assert done.returncode != 0
    assert "unused" in done.stderr


def test_code_references_maps_by_name_and_nothing_else(code: dict[str, Code]) -> None:
    maps = {name: {map_name for _, map_name in one.relocations} for name, one in code.items()}
    assert maps == {
        "xdp_frags": {"entries", "counters"},
        "xdp_linear": {"entries", "counters"},
        "ingress": {"peers", "counters"},
        "ingress_timeless": {"peers", "counters"},
        "egress_drop": {"peers", "counters"},
        "audit": {"entries"},
    }


def test_a_compile_error_comes_through_whole(sources: Path, pins: Path) -> None:
    change(sources, "return action;", "return aktion;")
    with pytest.raises(DataplaneError, match="compile: ") as caught:
        Dataplane.open(pins)
    assert "use of undeclared identifier 'aktion'" in caught.value.log


def test_the_verifiers_log_comes_through_whole(sources: Path, pins: Path) -> None:
    change(sources, "return target ? bpf_redirect(*target, 0)", "return bpf_redirect(*target, 0)")
    change(sources, "(*target, 0) : TC_ACT_SHOT;", "(*target, 0);")
    with pytest.raises(DataplaneError, match=r"load: loading the programs: ") as caught:
        Dataplane.open(pins)
    assert "R1 invalid mem access" in caught.value.log or "map_value_or_null" in caught.value.log
    assert "processed" in caught.value.log


# ---------------------------------------------------------------------- pins


def test_a_second_open_adopts_without_code_or_bcc(
    plane: Dataplane, pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not plane.adopted
    plane.point(7, 1)
    no_compiler(monkeypatch)
    with closing(Dataplane.open(pins)) as again:
        assert again.adopted
        assert again.programs == plane.programs
        assert again.entries() == {7: 1}
    assert "bcc" not in sys.modules


def test_a_reader_opens_what_is_there(plane: Dataplane, pins: Path) -> None:
    plane.point(7, 1)
    with closing(Dataplane.open(pins, build=False)) as reader:
        assert reader.programs == plane.programs
        assert reader.look_up([7, 8])[0] == {7: 1}


def test_a_reader_makes_nothing(pins: Path) -> None:
    with pytest.raises(DataplaneError, match=f"open: nothing is pinned in {pins}"):
        Dataplane.open(pins, build=False)
    assert not pins.parent.exists()


def test_pins_are_for_root_alone(plane: Dataplane, pins: Path) -> None:
    assert plane.programs.xdp
    for directory in (pins, pins.parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_changed_programs_take_over_what_is_in_the_maps(
    plane: Dataplane, pins: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(compiler.CODE_VARIABLE)
    plane.point(7, 1)
    plane.steer(8, 1)
    plane.count(7)
    change(sources)
    with closing(Dataplane.open(pins)) as new:
        assert not new.adopted
        assert new.programs.xdp not in plane.programs.ours
        assert new.programs.known > plane.programs.ours
        assert (new.entries(), new.peers()) == ({7: 1}, {8: 1})
        assert new.all_counters().keys() == {UNKNOWN, 7}
        old = new.fd_of(plane.programs.xdp)
        assert old is not None
        assert libbpf.program_info(old).id == plane.programs.xdp
        new.retire()
        assert new.programs.known == frozenset()
        assert [path.name for path in pins.glob("programs-*")] == [new._current.path.name]
        assert new.entries() == {7: 1}


def test_changed_maps_come_beside_the_old_ones(
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
        assert len(list(pins.iterdir())) == 4
        assert plane.entries() == {}


def test_a_new_generation_has_its_own_entries_and_the_old_one_gets_none(
    plane: Dataplane, pins: Path
) -> None:
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
    assert plane.holds({7: 1, 9: 1})
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


def test_a_program_that_is_freed_cannot_be_named(plane: Dataplane) -> None:
    """What cannot be named is detached whatever it is, so this is told apart from a lost pin."""
    before = plane.programs.xdp
    plane.renew()
    plane.retire()
    with pytest.raises(ProgramGoneError):
        plane.fd_of(before)


@pytest.mark.parametrize("whole", range(7))
def test_a_crash_half_way_through_a_new_generation_leaves_the_old_one(
    whole: int, plane: Dataplane, pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last of its pins it has its name, and counts."""
    plane.point(7, 1)
    old, made, pin = plane.programs.xdp, itertools.count(), libbpf.pin

    def crash(fd: int, path: Path) -> None:
        if next(made) == whole:
            raise KeyboardInterrupt
        pin(fd, path)

    with monkeypatch.context() as patch:
        patch.setattr(libbpf, "pin", crash)
        with suppress(KeyboardInterrupt):
            plane.renew()
    with closing(Dataplane.open(pins)) as again:
        assert again.adopted
        assert again.entries() == {7: 1}
        assert (again.programs.xdp == old) == (whole < 5)
        again.renew()
        again.retire()
        assert len(list(pins.glob("programs-*"))) == 1
        assert not list(pins.glob("building-*"))


def test_an_older_generation_is_never_taken_up_again(
    plane: Dataplane, pins: Path, sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may run on a device that has left; so a downgrade makes a new one of the old source."""
    text = (sources / "xconnect.c").read_text()
    monkeypatch.delenv(compiler.CODE_VARIABLE)
    change(sources)
    with closing(Dataplane.open(pins)) as newer:
        newer.point(7, 1)
    (sources / "xconnect.c").write_text(text)
    with closing(Dataplane.open(pins)) as downgraded:
        assert not downgraded.adopted
        assert downgraded.programs.xdp not in {plane.programs.xdp, newer.programs.xdp}
        assert downgraded.entries() == {7: 1}


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


def test_code_is_kept_for_a_start_that_adopts(
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


@pytest.mark.usefixtures("plane")
def test_a_look_that_fails_leaves_no_descriptor_behind(pins: Path) -> None:
    def opened() -> list[str]:
        return sorted(path.name for path in Path("/proc/self/fd").iterdir())

    next(pins.glob("counters-*")).unlink()
    before = opened()
    for _ in range(50):
        with pytest.raises(DataplaneError, match="open: "):
            Dataplane.open(pins, build=False)
    assert len(opened()) == len(before)


@pytest.mark.parametrize("whole", range(7))
def test_a_crash_half_way_leaves_nothing_that_counts(
    whole: int, pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = itertools.count()
    pin = libbpf.pin

    def crash(fd: int, path: Path) -> None:
        if next(made) == whole:
            raise KeyboardInterrupt
        pin(fd, path)

    with monkeypatch.context() as patch:
        patch.setattr(libbpf, "pin", crash)
        with pytest.raises(KeyboardInterrupt):
            Dataplane.open(pins)
    with pytest.raises(DataplaneError, match="nothing is pinned"):
        Dataplane.open(pins, build=False)
    with closing(Dataplane.open(pins)) as plane:
        assert not plane.adopted
        assert plane.programs.known == frozenset()
        assert {path.name.split("-")[0] for path in pins.iterdir()} == {
            *("peers", "counters", "programs", "listeners", "guard"),
        }


@pytest.mark.parametrize("lost", ["programs-*/ingress", "programs-*/entries", "counters-*"])
def test_a_lost_pin_is_made_anew_and_what_ran_stays_known(
    lost: str, plane: Dataplane, pins: Path
) -> None:
    next(pins.glob(lost)).unlink()
    with closing(Dataplane.open(pins)) as new:
        assert not new.adopted
        assert plane.programs.xdp in new.programs.known
        assert new.programs.xdp not in plane.programs.ours


def test_discard_leaves_nothing(plane: Dataplane, pins: Path) -> None:
    assert plane.adopted is False
    for _ in range(2):
        Dataplane.discard(pins)
        assert not pins.exists()


def test_a_path_outside_of_bpffs_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataplaneError, match=r"no BPF filesystem: mount -t bpf bpf /sys/fs/bpf"):
        Dataplane.open(tmp_path / "pins")


ALONE: Final = (
    "import sys; from pathlib import Path; from xconnectd.dataplane.programs import Dataplane\n"
    "try: print(Dataplane.open(Path(sys.argv[1])).programs.xdp > 0)\n"
    "except Exception as error: print(type(error).__name__, error)"
)


def alone(pins: Path, *before: str) -> str:
    """Open in another process."""
    return run(*before, sys.executable, "-c", ALONE, str(pins), cwd=REPO).stdout.strip()


def test_a_missing_bpffs_is_mounted(pins: Path) -> None:
    without = ("unshare", "--mount", "sh", "-c", 'umount /sys/fs/bpf && exec "$@"', "sh")
    assert alone(pins, *without) == "True"
    assert not pins.parent.exists()


@pytest.mark.parametrize(
    ("held", "answer"),
    [
        ("bpf,net_admin", "True"),
        ("net_admin", "PrivilegeError CAP_BPF is missing: "),
        ("bpf", "PrivilegeError CAP_NET_ADMIN is missing: "),
        ("perfmon", "PrivilegeError CAP_BPF, CAP_NET_ADMIN is missing: "),
    ],
)
def test_two_capabilities_do_and_what_is_missing_is_named(
    held: str, answer: str, pins: Path
) -> None:
    drop = ",".join(["-all", *(f"+{name}" for name in held.split(","))])
    assert alone(pins, "setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}").startswith(answer)


def test_a_reader_needs_no_capability_but_root_s_directory(plane: Dataplane, pins: Path) -> None:
    plane.point(7, 1)
    plane.count(7)
    reads = (
        "import sys; from pathlib import Path; from xconnectd.dataplane.programs import Dataplane\n"
        "try:\n  plane = Dataplane.open(Path(sys.argv[1]), build=False)\n"
        "  print(plane.entries(), plane.holds({7: 1}), plane.counters(7).frames)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    child = (sys.executable, "-c", reads, str(pins))
    bare = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    assert run(*bare, *child, cwd=REPO).stdout.strip() == "{7: 1} True 0"
    nobody = ("setpriv", "--reuid=65534", "--clear-groups")
    answer = run(*in_public(*nobody, *child)).stdout.strip()
    assert answer.startswith(
        f"PrivilegeError CAP_DAC_OVERRIDE is missing: reading the pins in {pins}"
    )


# ---------------------------------------------------------------------- maps


def test_no_entry_is_no_error(plane: Dataplane) -> None:
    plane.unpoint(7)
    plane.unsteer(7)
    plane.uncount(7)
    assert plane.look_up([7])[:2] == ({}, {})
    assert plane.counters(7) == Counters()


def test_a_target_that_is_not_there_is_named(plane: Dataplane) -> None:
    with pytest.raises(DataplaneError, match="no interface 1999999 here") as caught:
        plane.point(7, 1_999_999)
    assert isinstance(caught.value.__cause__, OSError)


def test_counters_that_exist_run_on(plane: Dataplane) -> None:
    plane.count(7)
    plane._counters.set(7, 5)
    plane.count(7)
    assert plane.counters(7).frames == 5


def refuse(_: libbpf.Map) -> NoReturn:
    raise OSError(errno.EINVAL, "Invalid argument")


@pytest.mark.parametrize("batches", [True, False])
def test_whole_maps_are_read(
    batches: bool, plane: Dataplane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time as on a kernel without batch operations."""
    for key in range(1, 1001):
        plane.steer(key, key + 1)
        plane.count(key)
    plane._counters.set(1000, 7)
    if not batches:
        monkeypatch.setattr(libbpf.Map, "batches", refuse)
    assert plane.peers() == {key: key + 1 for key in range(1, 1001)}
    counters = plane.all_counters()
    assert counters.keys() == set(range(1001))
    assert counters[1000] == Counters(frames=7)
    assert counters[1] == Counters()


@pytest.mark.parametrize("size", [0, 1, 3, 256, 257, 600])
def test_the_sweep_sees_every_difference(size: int, plane: Dataplane) -> None:
    wanted = dict.fromkeys(range(10, 10 + size), 1)
    for key, target in wanted.items():
        plane.point(key, target)
    for _ in range(2):
        assert plane.holds(wanted)

    plane.point(5, 1)
    assert not plane.holds(wanted)
    plane.unpoint(5)
    assert plane.holds(wanted)
    if size:
        last = 10 + size - 1
        plane.unpoint(last)
        assert not plane.holds(wanted)
        plane.point(5, 1)  # as many as wanted
        assert not plane.holds(wanted)
        plane.unpoint(5)
        plane.point(last, 1)
        assert plane.holds(wanted)
        assert not plane.holds({**wanted, last: 2})
    assert plane.holds(wanted)


def test_the_sweep_does_not_walk(plane: Dataplane, monkeypatch: pytest.MonkeyPatch) -> None:
    plane.point(7, 1)
    assert plane.holds({7: 1})
    monkeypatch.setattr(libbpf.Map, "items", lambda _: pytest.fail("walked"))
    assert plane.holds({7: 1})


def test_names_are_what_people_see(plane: Dataplane) -> None:
    for program in (plane.programs.xdp, plane.programs.ingress, plane.programs.egress):
        assert describe(program) == f"id {program} (xconnectd)"
    assert describe(2**31) == f"id {2**31}"


# ---------------------------------------------------------------------- frames


class Wire:
    """Two containers whose host ends run our programs; the wiring is up to the test."""

    def __init__(self, lab: Lab, plane: Dataplane, pins: Path, **options: int) -> None:
        lab.hush()
        self.lab, self.plane = lab, plane
        self.programs = next(pins.glob("programs-*"))
        self.stations = lab.veth("va", **options), lab.veth("vb")
        self.a, self.b = (lab.ifindex(name) for name in ("va", "vb"))
        for key in (self.a, self.b):
            plane.count(key)

    def xdp(self, *ends: str) -> None:
        for end in ends:
            pinned = ("pinned", str(self.programs / "xdp"))
            self.lab.ip("link", "set", "dev", end, "xdpgeneric", *pinned)

    def tc(self, way: str, *ends: str) -> None:
        for end in ends:
            self.lab.tc("qdisc", "add", "dev", end, "clsact", check=False)
            pinned = ("pinned", str(self.programs / way))
            self.lab.tc("filter", "add", "dev", end, way, "bpf", "direct-action", *pinned)

    def point(self, key: int, target: int) -> None:
        """Targets are looked up in the caller's network namespace."""
        inside(self.lab.host, lambda: self.plane.point(key, target))

    def wire_xdp(self) -> None:
        self.xdp("va", "vb")
        self.point(self.a, self.b)
        self.point(self.b, self.a)

    def wire_tc(self) -> None:
        self.tc("ingress", "va", "vb")
        self.tc("egress", "va", "vb")
        self.plane.steer(self.a, self.b)
        self.plane.steer(self.b, self.a)


@pytest.fixture
def wire(lab: Lab, plane: Dataplane, pins: Path) -> Wire:
    return Wire(lab, plane, pins)


WIRINGS: Final[dict[str, Callable[[Wire], None]]] = {"xdp": Wire.wire_xdp, "tc": Wire.wire_tc}
both = pytest.mark.parametrize("wiring", WIRINGS)


def counted_at(wire: Wire, key: int) -> Counters:
    """Without the time, which is never the same."""
    return wire.plane.counters(key)._replace(last=0)


def assert_crossed(wire: Wire, one: Station, other: Station) -> None:
    with one.port() as here, other.port() as there:
        for ends in ((here, there), (there, here)):
            delivery = exchange(*ends, FRAMES)
            assert delivery.exact, delivery
    counted = Counters(frames=len(FRAMES), bytes=sum(map(len, FRAMES)))
    for key in (wire.a, wire.b):
        got = wire.plane.counters(key)
        assert (got.frames, got.no_entry, got.host_egress) == (counted.frames, 0, 0)
    assert counted_at(wire, UNKNOWN) == Counters()


@both
def test_frames_cross_byte_for_byte(wiring: str, wire: Wire) -> None:
    WIRINGS[wiring](wire)
    assert_crossed(wire, *wire.stations)


@both
def test_bytes_are_counted_whole(wiring: str, wire: Wire) -> None:
    WIRINGS[wiring](wire)
    sizes = [60, 1514, 700]
    with wire.stations[0].port() as here, wire.stations[1].port() as there:
        assert exchange(here, there, [bytes(12) + b"\x88\xb6" + bytes(n - 14) for n in sizes]).exact
    assert counted_at(wire, wire.a) == Counters(frames=3, bytes=sum(sizes))


@both
def test_bytes_of_offloaded_segments_are_counted_whole(wiring: str, lab: Lab, wire: Wire) -> None:
    """Most of a 64 KB segment is in fragments, which the linear part alone would miss."""
    WIRINGS[wiring](wire)
    for number, station in enumerate(wire.stations, 1):
        station.number = number
        station.ip("address", "add", f"{station.address()}/24", "dev", "eth0")
        lab.ip("link", "set", station.end, "mtu", "65535")
    transfer(*wire.stations)
    got = wire.plane.counters(wire.a)
    link = json.loads(lab.ip("-s", "-j", "link", "show", "va"))[0]["stats64"]["rx"]
    assert 32 << 20 < got.bytes < 34 << 20
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
        wire = Wire(lab, plane, pins)
        wire.wire_xdp()
        assert_crossed(wire, *wire.stations)


@pytest.mark.parametrize("counted", [True, False])
@both
def test_a_miss_is_dropped_and_counted_and_nobody_answers(
    wiring: str, counted: bool, lab: Lab, wire: Wire
) -> None:
    lab.ip("address", "add", "198.51.100.9/24", "dev", "va")
    station = wire.stations[0]
    station.ip("address", "add", "198.51.100.1/24", "dev", "eth0")
    request = bytes.fromhex(
        "ffffffffffff02000000aa010806 0001080006040001 02000000aa01c6336401 000000000000c6336409"
    ) + bytes(18)
    with station.port() as here, wire.stations[1].port() as there:
        here.send(request)
        poll(here.drain, what="the answer of a host without our programs")
        WIRINGS[wiring](wire)
        wire.plane.unpoint(wire.a)
        wire.plane.unsteer(wire.a)
        if not counted:
            wire.plane.uncount(wire.a)
        there.drain()
        for _ in range(5):
            here.send(request)
        key = wire.a if counted else UNKNOWN
        poll(lambda: wire.plane.counters(key).no_entry >= 5)
        assert counted_at(wire, key) == Counters(no_entry=5)
        assert here.drain() == []
        assert there.drain() == []
        if not counted:
            assert wire.a not in wire.plane.all_counters()


@both
def test_frames_cross_without_counters_of_their_own(wiring: str, wire: Wire) -> None:
    WIRINGS[wiring](wire)
    wire.plane.uncount(wire.a)
    with wire.stations[0].port() as here, wire.stations[1].port() as there:
        assert exchange(here, there, FRAMES).exact
    assert wire.plane.counters(UNKNOWN).frames == len(FRAMES)


@both
def test_a_loopback_plug_gives_frames_back(wiring: str, wire: Wire) -> None:
    WIRINGS[wiring](wire)
    wire.point(wire.a, wire.a)
    wire.plane.steer(wire.a, wire.a)
    with wire.stations[0].port() as here, wire.stations[1].port() as there:
        assert exchange(here, here, FRAMES).exact
        assert there.drain() == []
    assert wire.plane.counters(wire.a).host_egress == 0


@both
def test_an_ifindex_may_be_large(wiring: str, lab: Lab, plane: Dataplane, pins: Path) -> None:
    wire = Wire(lab, plane, pins, index=2_000_000)
    assert wire.a == 2_000_000
    WIRINGS[wiring](wire)
    assert_crossed(wire, *wire.stations)


def test_an_entry_goes_with_its_target_and_the_sweep_sees_it(lab: Lab, wire: Wire) -> None:
    wire.wire_xdp()
    wanted = {wire.a: wire.b, wire.b: wire.a}
    assert wire.plane.holds(wanted)
    lab.delete("vb")
    assert not wire.plane.holds(wanted)
    assert wire.plane.entries() == {wire.b: wire.a}


# ---------------------------------------------------------------------- egress drop


def with_egress_drop(wire: Wire, wiring: str) -> None:
    WIRINGS[wiring](wire)
    if wiring == "xdp":
        wire.tc("egress", "va", "vb")


def test_what_is_lost_is_counted_for_our_maps_alone_and_goes_with_the_counters(
    lab: Lab, wire: Wire
) -> None:
    wire.wire_xdp()
    lab.ip("link", "set", "vb", "down")
    frame = b"\xff" * 6 + bytes.fromhex("02000000aa01") + b"\x88\xb6" + bytes(46)
    with wire.stations[0].port() as here:
        here.send(frame)
        poll(lambda: wire.plane.all_counters()[wire.a].lost == Lost(egress_down=1))
        wire.plane._drops.watch(frozenset())  # as if it was somebody else's
        here.send(frame)
        poll(lambda: wire.plane.counters(wire.a).frames == 2)
    assert wire.plane.all_counters()[wire.a].lost == Lost(egress_down=1)
    wire.plane.uncount(wire.a)
    wire.plane.count(wire.a)  # for another device with that number
    assert wire.plane.all_counters()[wire.a].lost == Lost()


@both
def test_what_the_host_says_is_dropped_and_counted(wiring: str, lab: Lab, wire: Wire) -> None:
    with_egress_drop(wire, wiring)
    with wire.stations[0].port() as there, inside(lab.host, lambda: Port("va")) as here:
        for frame in FRAMES[:5]:
            with pytest.raises(OSError, match="No buffer space"):  # how Linux says "dropped"
                here.send(frame)
        assert collect(there, 1, timeout=0.2) == []
    assert counted_at(wire, wire.a) == Counters(host_egress=5)
    with wire.stations[0].port() as here, wire.stations[1].port() as there:
        assert passes(here, there)
        assert passes(there, here)


@both
def test_what_the_host_routes_is_dropped(wiring: str, lab: Lab, wire: Wire) -> None:
    with_egress_drop(wire, wiring)
    third = lab.veth("vc", 3)
    lab.ip("address", "add", "198.51.100.254/24", "dev", "vc")
    lab.ip("address", "add", "203.0.113.254/24", "dev", "va")
    lab.ip("neighbour", "add", "203.0.113.1", "lladdr", "02:00:00:00:00:01", "dev", "va")
    lab.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    third.ip("route", "add", "default", "via", "198.51.100.254")
    with wire.stations[0].port() as there:
        run("ping", "-c1", "-W1", "203.0.113.1", namespace=third.namespace, check=False)
        poll(lambda: wire.plane.counters(wire.a).host_egress)
        assert there.drain() == []


@both
def test_what_the_host_bridges_is_dropped(wiring: str, lab: Lab, wire: Wire) -> None:
    with_egress_drop(wire, wiring)
    third = lab.veth("vc")
    lab.bridge("br0", "vc", "va")
    with third.port() as here, wire.stations[0].port() as there:
        poll(lambda: passes(here, there, 0.05) or wire.plane.counters(wire.a).host_egress)
        assert there.drain() == []
    assert wire.plane.counters(wire.a).host_egress
