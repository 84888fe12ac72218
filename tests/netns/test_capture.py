"""``capture``: every frame of a wire, byte for byte, at no cost to the wire."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from xconnectd.dataplane import btf, libbpf
from xconnectd.formatting import counted

from .captured import Capture, File, programs
from .frames import LLDP, ether, noise, odd_frames
from .lab import PATIENCE, Lab, Station, poll, run
from .service import RIGHTLESS, Daemon, Start, linked
from .traffic import collect, compare, exchange, lossless, transfer

ODD = list(odd_frames().values())
MODES = ("generic", "tc")


@dataclass
class Wire:
    """A link between two containers that speak only when told to."""

    daemon: Daemon
    a: Station
    b: Station

    def capture(self, *args: str, **more: object) -> Capture:
        return Capture(self.daemon, self.a.end, *args, **more)  # type: ignore[arg-type]

    def send(self, frames: list[bytes], back: bool = False) -> None:
        sender, receiver = (self.b, self.a) if back else (self.a, self.b)
        with sender.port() as here, receiver.port() as there:
            delivery = exchange(here, there, frames)
            assert delivery.exact, delivery

    def frames(self, file: File) -> tuple[list[bytes], list[bytes]]:
        return file.frames(self.a.end), file.frames(self.b.end)


@pytest.fixture(scope="module")
def wires() -> Iterator[dict[str, Wire]]:
    """A link of each mode; the tests leave them as they are."""
    with Lab() as lab:
        ends = {
            mode: (lab.veth(f"{mode}a", index=4000 + number), lab.veth(f"{mode}b"))
            for number, mode in enumerate(MODES)
        }
        wiring = {f"{mode}a": {"to": f"{mode}b", "mode": mode} for mode in MODES}
        daemon = Daemon(lab, wiring).start()
        poll(lambda: len(daemon.events("link.connected")) == len(MODES))
        yield {mode: Wire(daemon, *pair) for mode, pair in ends.items()}
        daemon.stop()


@pytest.fixture(params=MODES)
def wire(wires: dict[str, Wire], request: pytest.FixtureRequest) -> Wire:
    return wires[request.param]


@pytest.fixture
def generic(wires: dict[str, Wire]) -> Wire:
    return wires["generic"]


@pytest.fixture
def own(lab: Lab, daemon: Start, request: pytest.FixtureRequest) -> Wire:
    """One to do harm to."""
    mode = getattr(request, "param", "generic")
    mtu = 1500 if mode == "native" else 9500
    ends = lab.veth("va", mtu=mtu), lab.veth("vb", mtu=mtu)
    for station in ends if mode == "native" else ():
        station.ready_for_native()
    return Wire(daemon(linked(mode)).connected(), *ends)


each_mode = pytest.mark.parametrize("own", ["generic", "tc"], indirect=True)


def test_odd_frames_both_ways_byte_for_byte(wire: Wire) -> None:
    """A bare header too, where it crosses: a tc redirect drops it."""
    ends = wire.a.end, wire.b.end
    forth = [*ODD, ether(0x88B6)] if ends[0] == "generica" else ODD
    back = [frame[:14] + frame[14:][::-1] for frame in ODD]
    capture = wire.capture()
    wire.send(forth)
    wire.send(back, back=True)
    file = capture.stop(signal.SIGTERM)
    for end, sent in zip(ends, (forth, back), strict=True):
        delivery = compare(sent, file.frames(end))
        assert delivery.exact, delivery
        assert file.counts[end] == (len(sent), 0)
    assert all(one.inbound and one.length == len(one.data) for one in file.packets)
    assert file.interfaces == list(ends)
    link = wire.daemon.link(*ends)["link"]
    assert file.comment == f"link {link}"
    ways = ("{} → {}".format(*ends), "{} → {}".format(*ends[::-1]))
    assert file.descriptions == [f"link {link}, {way}" for way in ways]


def test_times_are_those_of_the_wall_clock_and_in_order(wire: Wire) -> None:
    capture = wire.capture()
    before = time.time_ns()
    with wire.a.port() as a, wire.b.port() as b:
        for number in range(200):
            (a if number % 2 else b).send(ether(0x88B6, number.to_bytes(50, "big")))
        collect(a, 100)
    after = time.time_ns()
    packets = capture.stop().packets
    times = [one.time for one in packets]
    assert before - 1_000_000 < times[0] <= times[-1] < after + 1_000_000
    assert times == sorted(times)
    assert [int.from_bytes(one.data[14:], "big") for one in packets] == list(range(200))


@each_mode
def test_jumbo_frames_segments_and_tags_are_whole(lab: Lab, own: Wire) -> None:
    """Whole segments, with every byte; a tag that travels as metadata is in the frame."""
    frames = list(odd_frames(9500).values())
    capture = own.capture()
    own.send(frames)
    delivery = compare(frames, capture.stop().frames("va"))
    assert delivery.exact, delivery

    for number, station in enumerate((own.a, own.b), 1):
        station.use_address(number)
    capture = own.capture("tcp", "--direction", "a")
    size = 8 << 20
    transfer(own.a, own.b, size=size)
    file = capture.stop()
    packets = file.packets
    assert max(one.length for one in packets) > 50_000
    assert all(one.length == len(one.data) for one in packets)
    assert sum(_payload(one.data) for one in packets) >= size, file.counts
    assert len(packets) < size / 9448, "cut into segments"

    lab.tag(own.a, 5)
    frame = ether(0x88B6, noise(100))
    capture = own.capture("ether", "proto", "0x88b6", "or", "vlan")
    for station in (own.a, own.b):
        with station.port() as port:
            port.send(frame)
    file = poll(lambda: _read(capture, 2))
    tagged = frame[:12] + b"\x81\0\0\x05" + frame[12:]
    assert own.frames(file) == ([tagged], [frame])
    assert [one.length for one in file.packets] == [118, 114]
    capture.stop()


def _payload(frame: bytes) -> int:
    """Bytes of TCP payload in an IPv4 frame."""
    header = (frame[14] & 15) * 4
    return len(frame) - 14 - header - (frame[14 + header + 12] >> 4) * 4


def _read(capture: Capture, count: int) -> File | None:
    """The file while it grows, once it has so many frames; it ends with a whole block."""
    if not capture.path.exists() or not capture.path.stat().st_size:
        return None
    file = File.read(capture.path)
    return file if len(file.packets) >= count else None


def test_several_at_once_see_the_same_and_what_they_asked_for(wire: Wire) -> None:
    a, b = wire.a.end, wire.b.end
    frames = [ether(0x8100, b"\0\x05\x88\xb6" + noise(n)) for n in range(50, 60)]
    others = [ether(0x8100, b"\0\x06\x88\xb6" + noise(n)) for n in range(50, 60)]
    from_b = Capture(wire.daemon, b)
    short = wire.capture("--snaplen", "60")
    ways = [Capture(wire.daemon, b, "--direction", way) for way in "ab"]
    some = Capture(wire.daemon, f"{a}:{b}", "--count", "3", "vlan", "5", "and", "greater", "72")
    wire.send(others + frames)
    wire.send(frames[:2], back=True)
    assert some.end().frames(a) == frames[4:7]
    assert wire.frames(from_b.stop()) == (others + frames, frames[:2])
    file = short.stop()
    assert file.frames(a) == [frame[:60] for frame in others + frames]
    assert [x.length for x in file.packets][:20] == [len(x) for x in others + frames]
    forth, back = (way.stop() for way in ways)
    assert (forth.interfaces, forth.frames(a)) == ([a], others + frames)
    assert (back.interfaces, back.frames(b)) == ([b], frames[:2])
    assert f"{b} → {a}: 2 frames received, 2 captured" in ways[1].errors.decode()


def test_a_plug_has_one_way(lab: Lab, daemon: Start) -> None:
    lab.hush()
    station = lab.veth("va")
    running = daemon({"va": "va"}).connected("va", "va")
    capture = Capture(running, "va", "--direction", "a")
    with station.port() as port:
        assert exchange(port, port, ODD[:5]).exact
    file = capture.stop()
    assert (file.interfaces, file.frames("va")) == (["va"], ODD[:5])


@pytest.mark.parametrize("own", ["native"], indirect=True)
def test_native_frames_byte_for_byte_or_a_reason(own: Wire) -> None:
    """Some kernels forbid attaching to a function, whoever asks: that is said then."""
    if not _functions_can_be_attached_to():
        done = own.daemon.cli("capture", "va")
        assert done.returncode == 1
        assert "native mode cannot be captured here" in done.stderr
        return
    capture = own.capture()
    own.send(ODD)
    own.send(ODD[::-1], back=True)
    file = capture.stop()
    forth, back = own.frames(file)
    assert compare(ODD, forth).exact
    assert compare(ODD[::-1], back).exact
    assert set(file.counts.values()) == {(len(ODD), 0)}


def _functions_can_be_attached_to() -> bool:
    """Found out with a function of the kernel and a program that does nothing."""
    return_0 = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
    with btf.Kernel() as kernel:
        target = libbpf.Target(kernel._id("eth_type_trans", 12))
    how = {"attach": libbpf.ATTACH_ENTRY, "target": target}
    try:
        os.close(libbpf.load_program(libbpf.PROG_TRACING, "probe", "GPL", return_0, **how))  # type: ignore[arg-type]
    except OSError as error:
        print(f"no program can be attached to a function: {error}")
        return False
    return True


def test_a_pipe_is_live_and_its_end_is_quiet(generic: Wire) -> None:
    """tcpdump reads what capture writes, and shows a frame within a tenth of a second or so."""
    capture = generic.capture(write="-")
    reader = subprocess.Popen(
        ("tcpdump", "-l", "-e", "-n", "-r", "-"),
        stdin=capture.stdout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert reader.stdout is not None
    delays, shown = [], b""
    with generic.a.port() as port:
        for number in range(5):
            start = time.monotonic()
            port.send(ether(0x88B6, noise(50 + number)))
            while b"length %d" % (64 + number) not in shown:
                ready, _, _ = select.select([reader.stdout], [], [], PATIENCE)
                assert ready, shown
                shown += os.read(reader.stdout.fileno(), 1 << 16)
            delays.append(time.monotonic() - start)
    print(f"through the pipe after {[f'{x * 1000:.0f} ms' for x in delays]}")
    assert min(delays) < 0.15
    reader.kill()
    reader.communicate()
    assert capture.closed() == (0, b"")


def test_lines_say_what_tcpdump_says_and_the_direction(own: Wire) -> None:
    """ARP, ICMP, TCP and LLDP, each of them the right way; the summary comes last."""
    for number, station in enumerate((own.a, own.b), 1):
        station.use_address(number)
    here, there = own.a.address(), own.b.address()
    capture = own.capture(write="text")
    run("ping", "-c1", "-W2", there, namespace=own.a.namespace)
    transfer(own.a, own.b, size=1000)
    with own.b.port() as port:
        port.send(LLDP)
    capture.stop()
    lines = capture.output.decode().splitlines()
    forth, back = (
        [line for line in lines if re.match(rf"[\d:]+\.\d{{6}} {way} [0-9a-f:]{{17}} > ", line)]
        for way in ("va → vb", "vb → va")
    )
    assert len(forth) + len(back) == len(lines)
    for part, words in (
        (forth, f"Request who-has {there} tell {here}"),
        (back, f"Reply {there} is-at {own.b.mac.hex(':')}"),
        (forth, f"{here} > {there}: ICMP echo request"),
        (back, f"{there} > {here}: ICMP echo reply"),
        (back, "LLDP, length 29: leaf1"),
    ):
        assert len([line for line in part if words in line]) == 1, (words, lines)
    tcp = rf"{here}\.\d+ > {there}\.\d+: Flags \[S\]"
    assert [line for line in lines if re.search(tcp, line)] == [
        line for line in forth if re.search(tcp, line)
    ]
    assert any(re.search(tcp, line) for line in forth)
    summary = capture.errors.decode().splitlines()
    assert [line.partition(" captured")[0] for line in summary] == [
        f"xconnectd: {way}: {counted(len(part), 'frame')} received, {len(part)}"
        for way, part in (("va → vb", forth), ("vb → va", back))
    ]


def test_tcpdump_keeps_up_and_an_interrupt_of_the_whole_group_loses_no_line(wire: Wire) -> None:
    """As a terminal sends it: to whoever runs in the foreground.

    Every frame has its direction, whatever tcpdump makes of it and in how many lines.
    """
    capture = wire.capture(write="text")
    for _ in range(20):
        wire.send(ODD)
        wire.send(ODD, back=True)
    os.killpg(capture.pid, signal.SIGINT)
    capture.end()
    lines = capture.output.decode(errors="replace").splitlines()
    ways = Counter(found[1] for line in lines if (found := re.match(r"[\d:.]+ (\w+ → \w+) ", line)))
    a, b = wire.a.end, wire.b.end
    assert ways == {f"{a} → {b}": 20 * len(ODD), f"{b} → {a}": 20 * len(ODD)}
    assert f"{20 * len(ODD)} captured" in capture.errors.decode()


def test_lines_end_with_their_reader_and_a_tcpdump_that_fails_is_told(generic: Wire) -> None:
    capture = generic.capture(write="text")
    assert capture.closed() == (0, b"")

    capture = generic.capture(write="text")
    (child,) = Path(f"/proc/{capture.pid}/task/{capture.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    code, said = capture.ended()
    assert code == 1
    assert b"tcpdump has failed" in said
    assert b"--plain" in said


def test_several_links_in_one_file(wires: dict[str, Wire]) -> None:
    """The leading words that name a link are links; one that is named twice counts once."""
    generic, tc = wires["generic"], wires["tc"]
    names = ("generica", "tcb", "genericb", "ether", "proto", "0x88b6")
    capture = Capture(generic.daemon, *names, ready=False)
    capture.await_taps(4)
    forth, back, other = (ether(0x88B6, noise(size)) for size in (60, 70, 80))
    generic.send([forth, ether(0x88B7, noise(60))])
    generic.send([back], back=True)
    tc.send([other])
    file = capture.stop()
    assert file.interfaces == ["generica", "genericb", "tca", "tcb"]
    found = {name: file.frames(name) for name in file.interfaces}
    assert found == {"generica": [forth], "genericb": [back], "tca": [other], "tcb": []}
    assert file.counts == {"generica": (2, 0), "genericb": (1, 0), "tca": (1, 0), "tcb": (0, 0)}
    links = [
        generic.daemon.link(*pair)["link"] for pair in (("generica", "genericb"), ("tca", "tcb"))
    ]
    assert file.comment == f"link {links[0]}, link {links[1]}"
    assert file.descriptions[2] == f"link {links[1]}, tca → tcb"
    shown = run("tcpdump", "-n", "-e", "-r", str(capture.path)).stdout.splitlines()
    lengths = [re.search(r"0x88b6\), length (\d+):", line) for line in shown]
    assert [int(found[1]) for found in lengths if found] == [74, 84, 94]


@pytest.mark.parametrize("options", [("--plain",), ()], ids=["asked for", "without tcpdump"])
def test_plain_lines(
    generic: Wire, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not options:
        nsenter = shutil.which("nsenter")
        assert nsenter
        (tmp_path / "nsenter").symlink_to(nsenter)
        monkeypatch.setenv("PATH", str(tmp_path))
    capture = generic.capture(*options, "--count", "2", write="text")
    monkeypatch.undo()
    generic.send([ether(0x8100, b"\0\x05\x08\x06" + noise(50))])
    generic.send([ether(0x88B6, noise(50))], back=True)
    capture.end()
    first, second = capture.output.decode().splitlines()
    addresses = "02:00:00:00:aa:01 > 02:00:00:00:bb:02"
    assert first.endswith(f" generica → genericb 68 bytes {addresses} vlan 5 ARP")
    assert second.endswith(f" genericb → generica 64 bytes {addresses} 0x88b6")


@each_mode
def test_it_is_no_drift_and_works_with_the_daemon_dead(own: Wire) -> None:
    mark = own.daemon.mark()
    before = own.daemon.lab.settled()
    capture = own.capture()
    assert own.daemon.lab.snapshot() == before
    own.send(ODD)
    own.daemon.idle(1.5)
    assert own.daemon.events(since=mark) == []
    own.daemon.kill()
    late = own.capture()
    own.send(ODD)
    assert capture.stop().frames("va") == ODD * 2
    assert late.stop().frames("va") == ODD


def test_a_killed_one_leaves_nothing(generic: Wire) -> None:
    captures = [generic.capture() for _ in range(3)]
    ours = set[int]().union(*(capture.programs() for capture in captures))
    assert len(ours) == 6
    assert ours <= programs()
    with lossless(generic.a, generic.b):
        for capture in captures:
            capture.kill()
        poll(lambda: not ours & programs(), what="the programs have gone")


def test_another_namespace_with_the_same_index_is_not_captured(generic: Wire) -> None:
    lab = generic.daemon.lab
    inner = lab.namespace("other", quiet=True)
    index = ("index", str(lab.ifindex("generica")))
    x0 = ("ip", "link", "add", "x0", *index, "type", "veth", "peer", "name", "x1")
    run(*x0, namespace=inner)
    for name in ("x0", "x1"):
        run("ip", "link", "set", name, "up", namespace=inner)
    capture = generic.capture()
    with Station(inner, "x0", interface="x0").port() as port:
        port.send(ether(0x88B6, noise(50)))
    time.sleep(0.2)  # nothing must come: there is nothing to poll for
    assert capture.stop().packets == []


def test_an_end_that_is_made_anew_and_a_mode_that_changes_are_followed(lab: Lab, own: Wire) -> None:
    capture = own.capture()
    own.send(ODD)
    mark = own.daemon.mark()
    lab.delete("va")
    own.daemon.wait_link("waiting", "va", "vb", since=mark)
    capture.await_taps(1)
    mark = own.daemon.mark()
    own.a = lab.veth("va", namespace=own.a.namespace)
    own.daemon.wait_link("connected", "va", "vb", since=mark)
    capture.await_taps(2)
    own.send(ODD)
    mark = own.daemon.mark()
    own.daemon.write("links:\n  va: {to: vb, mode: tc}\n")
    poll(lambda: own.daemon.link()["mode"] == "tc")
    own.daemon.wait_link("connected", "va", "vb", since=mark)
    own.send(ODD)
    kept = Counter(capture.stop().frames("va"))
    assert {frame: kept[frame] for frame in ODD} == dict.fromkeys(ODD, 3)
    said = capture.errors.decode()
    assert "va does not exist; waiting for it" in said
    assert "va is there again" in said


_BLAST = """
import socket, sys, time
port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
port.bind(("eth0", 0))
count, size, rate = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
head = bytes.fromhex("02000000bb0202000000aa0188b5")
frames = [head + n.to_bytes(4, "big") + bytes(size - 18) for n in range(1000)]
start = time.monotonic()
for n in range(count):
    port.send(frames[n % 1000])
    if not n % 100:
        while n / rate > time.monotonic() - start:
            pass
print(count / (time.monotonic() - start))
"""


def _blast(station: Station, count: int, size: int, rate: float) -> float:
    """Frames from a process of its own; returns how many a second it were."""
    blast = (sys.executable, "-c", _BLAST, str(count), str(size), str(rate))
    return float(run(*blast, namespace=station.namespace).stdout)


def test_full_frames_are_kept(generic: Wire) -> None:
    capture = generic.capture("--direction", "a")
    reached = _blast(generic.a, 20_000, 1500, 20_000)
    file = capture.stop()
    print(f"{reached:.0f} frames/s")
    assert (file.counts["generica"], len(file.packets)) == ((20_000, 0), 20_000)


def test_what_is_kept_and_what_is_lost_is_what_was_sent(wire: Wire) -> None:
    """As fast as one sender can, into a ring that is far too small, while nobody reads."""
    capture = wire.capture("--buffer", "1", "--direction", "a")
    count = 100_000
    os.kill(capture.pid, signal.SIGSTOP)
    _blast(wire.a, count // 3, 1500, 1e9)
    os.kill(capture.pid, signal.SIGCONT)
    rate = _blast(wire.a, count - count // 3, 60, 1e9)
    file = capture.stop()
    received, lost = file.counts[wire.a.end]
    print(f"{rate:.0f} frames/s, {len(file.packets)} kept, {lost} lost")
    assert lost > 10_000
    assert (received, len(file.packets) + lost) == (count, count)
    assert f"{count} frames received, {len(file.packets)} captured" in capture.errors.decode()
    assert f"{lost} lost" in capture.errors.decode()


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("nosuch",), 1, "no link nosuch in"),
        (("generica", "port", "or"), 2, "filter 'port or': "),
        (("generica", "nosuch-a"), 2, "has no link nosuch-a)"),
        (("generica", "-w", "/no/such/place"), 1, "/no/such/place"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_requests(generic: Wire, args: tuple[str, ...], code: int, words: str) -> None:
    done = generic.daemon.cli("capture", *args)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_without_privileges_it_says_which(generic: Wire) -> None:
    done = generic.daemon.cli("capture", "generica", by=RIGHTLESS)
    assert done.returncode == 1
    assert "CAP_BPF" in done.stderr
    assert "Traceback" not in done.stderr
