"""``capture``: every frame of a wire, byte for byte, at no cost to the wire."""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from xconnectd.dataplane import btf, libbpf

from .captured import Capture, File, programs
from .frames import ether, noise, odd_frames
from .lab import PATIENCE, Lab, Station, poll, run
from .service import Daemon
from .test_invariants import _settled
from .traffic import Port, Stream, collect, compare, exchange, transfer

Start = Callable[..., Daemon]
PAIR = {"va": "vb"}


@dataclass
class Wire:
    """A link between two containers that speak only when told to."""

    daemon: Daemon
    a: Station
    b: Station

    def capture(self, *args: str, **more: object) -> Capture:
        return Capture(self.daemon, *args, **more)  # type: ignore[arg-type]

    def ports(self, back: bool = False) -> tuple[Port, Port]:
        ends = (self.b, self.a) if back else (self.a, self.b)
        return ends[0].port(), ends[1].port()


def _wire(lab: Lab, mode: str, mtu: int = 1500) -> Wire:
    a, b = lab.veth("va", mtu=mtu), lab.veth("vb", mtu=mtu)
    daemon = Daemon(lab, f"links:\n  va: {{to: vb, mode: {mode}}}\n").start()
    daemon.wait_link("connected", "va", "vb")
    return Wire(daemon, a, b)


@pytest.fixture(params=["generic", "tc"])
def wire(lab: Lab, request: pytest.FixtureRequest) -> Wire:
    return _wire(lab, request.param)


@pytest.fixture
def generic(lab: Lab) -> Wire:
    return _wire(lab, "generic")


def _send(wire: Wire, frames: list[bytes], back: bool = False) -> None:
    sender, receiver = wire.ports(back)
    with sender, receiver:
        delivery = exchange(sender, receiver, frames)
        assert delivery.exact, delivery


# ---------------------------------------------------------------------- what is in it


def test_odd_frames_both_ways_byte_for_byte(wire: Wire) -> None:
    forth = list(odd_frames().values())
    back = [frame[:12] + frame[12:14] + frame[14:][::-1] for frame in forth]
    capture = wire.capture("va")
    _send(wire, forth)
    _send(wire, back, back=True)
    file = capture.stop()
    for end, sent in (("va", forth), ("vb", back)):
        delivery = compare(sent, file.frames(end))
        assert delivery.exact, delivery
        assert file.counts[end] == (len(sent), 0)
    assert all(one.inbound and one.length == len(one.data) for one in file.packets)
    assert file.interfaces == ["va", "vb"]
    link = wire.daemon.link("va", "vb")["link"]
    assert file.comment == f"link {link}"
    assert file.descriptions == [f"link {link}, va → vb", f"link {link}, vb → va"]


def test_a_bare_ethernet_header_and_a_runt(generic: Wire) -> None:
    frames = [ether(0x88B6), ether(0x88B6, b"\x01"), ether(0x88B6, noise(20))]
    capture = generic.capture("va")
    _send(generic, frames)
    assert capture.stop().frames("va") == frames


def test_times_are_those_of_the_wall_clock_and_in_order(wire: Wire) -> None:
    capture = wire.capture("va")
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


def test_a_tag_that_travels_as_metadata_is_in_the_frame(lab: Lab, wire: Wire) -> None:
    lab.tag(wire.a, 5)
    frame = ether(0x88B6, noise(100))
    capture = wire.capture("va")
    with wire.a.port() as port:
        port.send(frame)
    with wire.b.port() as port:
        port.send(frame)
    file = poll(lambda: _read(capture, 2))
    tagged = frame[:12] + b"\x81\0\0\x05" + frame[12:]
    assert (file.frames("va"), file.frames("vb")) == ([tagged], [frame])
    assert [one.length for one in file.packets] == [118, 114]
    capture.stop()


def _read(capture: Capture, count: int) -> File | None:
    """The file while it grows, once it has so many frames; it ends with a whole block."""
    if not capture.path.exists() or not capture.path.stat().st_size:
        return None
    file = File.read(capture.path)
    return file if len(file.packets) >= count else None


@pytest.mark.parametrize("mode", ["generic", "tc"])
def test_jumbo_frames(lab: Lab, mode: str) -> None:
    wire = _wire(lab, mode, mtu=9500)
    frames = list(odd_frames(9500).values())
    capture = wire.capture("va")
    _send(wire, frames)
    delivery = compare(frames, capture.stop().frames("va"))
    assert delivery.exact, delivery


@pytest.mark.parametrize("mode", ["generic", "tc"])
def test_offloaded_segments_are_whole_and_hold_every_byte(lab: Lab, mode: str) -> None:
    a, b = lab.veth("va", 1), lab.veth("vb", 2)
    daemon = Daemon(lab, f"links:\n  va: {{to: vb, mode: {mode}}}\n").start()
    daemon.wait_link("connected", "va", "vb")
    capture = Capture(daemon, "va", "tcp", "--direction", "a")
    size = 8 << 20
    transfer(a, b, size=size)
    packets = capture.stop().packets
    assert max(one.length for one in packets) > 60_000
    assert all(one.length == len(one.data) for one in packets)
    assert sum(_payload(one.data) for one in packets) >= size
    assert len(packets) < size / 1448, "cut into segments"


def _payload(frame: bytes) -> int:
    """Bytes of TCP payload in an IPv4 frame."""
    header = (frame[14] & 15) * 4
    return len(frame) - 14 - header - (frame[14 + header + 12] >> 4) * 4


def test_snaplen_keeps_the_length(wire: Wire) -> None:
    capture = wire.capture("va", "--snaplen", "60")
    frames = [ether(0x88B6, noise(size)) for size in (20, 46, 47, 1400)]
    _send(wire, frames)
    file = capture.stop()
    assert file.frames("va") == [frame[:60] for frame in frames]
    assert [one.length for one in file.packets] == [len(frame) for frame in frames]


def test_one_direction_a_number_of_frames_and_a_filter(wire: Wire) -> None:
    frames = [ether(0x8100, b"\0\x05\x88\xb6" + noise(n)) for n in range(50, 60)]
    others = [ether(0x8100, b"\0\x06\x88\xb6" + noise(n)) for n in range(50, 60)]
    ways = [wire.capture("vb", "--direction", way) for way in "ab"]
    some = wire.capture("va:vb", "--count", "3", "vlan", "5", "and", "greater", "72")
    _send(wire, others + frames)
    _send(wire, frames[:2], back=True)
    assert some.end().frames("va") == frames[4:7]
    a, b = (way.stop() for way in ways)
    assert (a.interfaces, a.frames("va")) == (["va"], others + frames)
    assert (b.interfaces, b.frames("vb")) == (["vb"], frames[:2])
    assert "vb → va: 2 frames came in, 2 kept" in ways[1].errors.decode()


def test_a_plug_has_one_way(lab: Lab, daemon: Start) -> None:
    lab.hush()
    station = lab.veth("va")
    running = daemon({"va": "va"})
    running.wait_link("connected", "va", "va")
    capture = Capture(running, "va", "--direction", "a")
    frames = list(odd_frames().values())[:5]
    with station.port() as port:
        assert exchange(port, port, frames).exact
    file = capture.stop()
    assert (file.interfaces, file.frames("va")) == (["va"], frames)


# ---------------------------------------------------------------------- native XDP


@pytest.fixture
def native(lab: Lab) -> Iterator[Wire]:
    a, b = lab.veth("va"), lab.veth("vb")
    for station in (a, b):
        station.ready_for_native()
    daemon = Daemon(lab, "links: {va: {to: vb, mode: native}}\n").start()
    daemon.wait_link("connected", "va", "vb")
    yield Wire(daemon, a, b)
    daemon.stop()


def test_native_frames_byte_for_byte_or_a_reason(native: Wire) -> None:
    """Some kernels forbid attaching to a function, whoever asks: that is said then."""
    frames = list(odd_frames().values())
    if not _functions_can_be_attached_to():
        done = native.daemon.cli("capture", "va")
        assert done.returncode == 1
        assert "native mode cannot be captured here" in done.stderr
        return
    capture = native.capture("va")
    _send(native, frames)
    _send(native, frames[::-1], back=True)
    file = capture.stop()
    assert compare(frames, file.frames("va")).exact
    assert compare(frames[::-1], file.frames("vb")).exact
    assert file.counts == {"va": (len(frames), 0), "vb": (len(frames), 0)}


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


# ---------------------------------------------------------------------- live


def test_a_pipe_is_live_and_its_end_is_quiet(generic: Wire) -> None:
    """tcpdump reads what capture writes, and shows a frame within a tenth of a second or so."""
    capture = generic.capture("va", write="-")
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


def test_lines_for_eyes(generic: Wire) -> None:
    capture = generic.capture("va", "--count", "2", write="text")
    _send(generic, [ether(0x8100, b"\0\x05\x08\x06" + noise(50))])
    _send(generic, [ether(0x88B6, noise(50))], back=True)
    capture.end()
    first, second = capture.output.decode().splitlines()
    addresses = "02:00:00:00:aa:01 > 02:00:00:00:bb:02"
    assert first.endswith(f" va → vb 68 bytes {addresses} vlan 5 ARP")
    assert second.endswith(f" vb → va 64 bytes {addresses} 0x88b6")


def test_tcpdump_opens_it(wire: Wire) -> None:
    capture = wire.capture("va")
    _send(wire, list(odd_frames().values()))
    file = capture.stop(signal.SIGTERM)
    done = run("tcpdump", "-e", "-n", "-r", str(capture.path))
    assert "LLDP" in done.stdout
    shown = run("tcpdump", "-n", "-t", "-r", str(capture.path), "--count").stdout
    assert f"{len(file.packets)} packets" in shown


# ---------------------------------------------------------------------- what it leaves alone


def test_it_is_no_drift_and_works_with_the_daemon_dead(wire: Wire) -> None:
    frames = list(odd_frames().values())
    mark = wire.daemon.mark()
    before = _settled(wire.daemon.lab)
    capture = wire.capture("va")
    assert wire.daemon.lab.snapshot() == before
    _send(wire, frames)
    wire.daemon.idle(1.5)
    assert wire.daemon.events(since=mark) == []
    wire.daemon.kill()
    late = wire.capture("va")
    _send(wire, frames)
    assert capture.stop().frames("va") == frames * 2
    assert late.stop().frames("va") == frames


def test_a_killed_one_leaves_nothing(generic: Wire) -> None:
    before = programs()
    captures = [generic.capture("va") for _ in range(3)]
    assert len(programs() - before) == 6
    with Stream(generic.a, generic.b) as stream:
        poll(stream.flows)
        for capture in captures:
            capture.kill()
        poll(lambda: programs() <= before, what="the programs have gone")
    stream.assert_perfect()


def test_several_at_once_see_the_same(wire: Wire) -> None:
    frames = list(odd_frames().values())
    captures = [wire.capture(*args) for args in (["va"], ["vb"], ["va", "--snaplen", "20"])]
    _send(wire, frames)
    whole, same, short = (capture.stop() for capture in captures)
    assert whole.frames("va") == same.frames("va") == frames
    assert short.frames("va") == [frame[:20] for frame in frames]


def test_another_namespace_with_the_same_index_is_not_captured(lab: Lab, daemon: Start) -> None:
    lab.veth("va", index=4000)
    lab.veth("vb", index=4001)
    inner = lab.namespace("other", quiet=True)
    run(
        *("ip", "link", "add", "x0", "index", "4000", "type", "veth", "peer", "name", "x1"),
        namespace=inner,
    )
    for name in ("x0", "x1"):
        run("ip", "link", "set", name, "up", namespace=inner)
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    capture = Capture(running, "va")
    with Station(inner, "x0", interface="x1").port() as port:
        port.send(ether(0x88B6, noise(50)))
    time.sleep(0.2)  # nothing must come: there is nothing to poll for
    assert capture.stop().packets == []


# ---------------------------------------------------------------------- ends that come and go


def test_an_end_that_is_made_anew_is_followed(lab: Lab, generic: Wire) -> None:
    capture = generic.capture("va")
    frames = list(odd_frames().values())
    _send(generic, frames)
    mark = generic.daemon.mark()
    lab.delete("va")
    generic.daemon.wait_link("waiting", "va", "vb", since=mark)
    capture.await_taps(1)
    mark = generic.daemon.mark()
    generic.a = lab.veth("va", namespace=generic.a.namespace)
    generic.daemon.wait_link("connected", "va", "vb", since=mark)
    capture.await_taps(2)
    _send(generic, frames)
    kept = Counter(capture.stop().frames("va"))
    assert all(kept[frame] == 2 for frame in frames)
    said = capture.errors.decode()
    assert "va does not exist; waiting for it" in said
    assert "va is there again" in said


def test_a_mode_that_changes_is_followed(generic: Wire) -> None:
    capture = generic.capture("va")
    frames = list(odd_frames().values())
    _send(generic, frames)
    mark = generic.daemon.mark()
    generic.daemon.write("links:\n  va: {to: vb, mode: tc}\n")
    poll(lambda: generic.daemon.link("va", "vb")["mode"] == "tc")
    generic.daemon.wait_link("connected", "va", "vb", since=mark)
    _send(generic, frames)
    assert capture.stop().frames("va") == frames * 2


# ---------------------------------------------------------------------- full rate

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
    done = run(
        *(sys.executable, "-c", _BLAST, str(count), str(size), str(rate)),
        namespace=station.namespace,
    )
    return float(done.stdout)


@pytest.mark.parametrize(("rate", "may_lose"), [(20_000, False), (82_300, True)])
def test_full_frames_are_kept(generic: Wire, rate: int, may_lose: bool) -> None:
    """82,300 a second are a gigabit; of that a busy machine may lose some, but tells how many."""
    capture = generic.capture("va", "--direction", "a")
    count = 2 * rate
    reached = _blast(generic.a, count, 1500, rate)
    file = capture.stop()
    received, lost = file.counts["va"]
    print(f"{reached:.0f} frames/s, {len(file.packets)} kept, {lost} lost")
    assert (received, len(file.packets) + lost) == (count, count)
    assert may_lose or not lost


def test_what_is_kept_and_what_is_lost_is_what_was_sent(wire: Wire) -> None:
    """As fast as one sender can, into a ring that is far too small, while nobody reads."""
    capture = wire.capture("va", "--buffer", "1", "--direction", "a")
    count = 150_000
    os.kill(capture.pid, signal.SIGSTOP)
    _blast(wire.a, count // 3, 1500, 1e9)
    os.kill(capture.pid, signal.SIGCONT)
    rate = _blast(wire.a, count - count // 3, 60, 1e9)
    file = capture.stop()
    received, lost = file.counts["va"]
    print(f"{rate:.0f} frames/s, {len(file.packets)} kept, {lost} lost")
    assert lost > 10_000
    assert (received, len(file.packets) + lost) == (count, count)
    assert f"{count} frames came in, {len(file.packets)} kept" in capture.errors.decode()
    assert f"{lost} lost" in capture.errors.decode()


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("nosuch",), 1, "no link nosuch in"),
        (("va", "port", "or"), 2, "filter 'port or': "),
        (("va", "--count", "0"), 2, "0 is not a whole number from 1 on"),
        (("va", "--nosuch"), 2, "unrecognized arguments: --nosuch"),
        (("va", "-w", "/no/such/place"), 1, "/no/such/place"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_requests(generic: Wire, args: tuple[str, ...], code: int, words: str) -> None:
    done = generic.daemon.cli("capture", *args)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_without_privileges_it_says_which(generic: Wire) -> None:
    command = generic.daemon._command("capture", "va")
    bare = [*command[:2], "setpriv", "--bounding-set=-all", "--inh-caps=-all", *command[2:]]
    done = subprocess.run(
        bare, **generic.daemon._surroundings(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "CAP_BPF" in done.stderr
    assert "Traceback" not in done.stderr
