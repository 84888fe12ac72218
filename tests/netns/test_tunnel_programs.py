"""The programs on tunnels, on real VXLAN devices: keepalives, and TCP that waits to be cut."""

from __future__ import annotations

import errno
import shutil
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from xconnectd.dataplane import libbpf
from xconnectd.dataplane.programs import Dataplane

from .bulk_tcp import HEADERS, fragments, received, send_in_bulk
from .frames import ether, noise, odd_frames
from .lab import BPFFS, Lab, Station, entered, inside, poll, run
from .traffic import Port, collect, crosses, datagrams

TYPE: Final = 0x88B6
PROBE, ECHO, WORD = b"\1", b"\2", b"\3"
TO_NOBODY: Final = bytes.fromhex("02000000ffff")
"""No device's address. A frame that comes from the address of the VXLAN device it comes in by is
dropped by the kernel (vxlan_set_mac), so no keepalive comes from one."""
_SOL_PACKET: Final = 263
_PACKET_QDISC_BYPASS: Final = 20
ITS_IPV6: Final = Path("/proc/sys/net/ipv6/conf/eth0/disable_ipv6")
UNDERLAY: Final = {"IPv4": ("198.51.100.1", "198.51.100.2"), "IPv6": ("2001:db8::1", "2001:db8::2")}


def keepalive(kind: bytes, payload: bytes = b"") -> bytes:
    return ether(TYPE, b"xconnect" + kind + payload, TO_NOBODY, TO_NOBODY)


@dataclass
class Side:
    """One of two hosts: a container behind ``end``, and a tunnel to the other host."""

    namespace: str
    container: Station
    plane: Dataplane
    tunnel: Port
    """Where the daemon listens: what its programs let through, and no more."""
    ends: tuple[int, int]

    def counted(self) -> list[tuple[int, int, int]]:
        """At the container's end and at the tunnel: handed on, without an entry, the host's own."""
        counters = map(self.plane.counters, self.ends)
        return [(each.frames, each.no_entry, each.host_egress) for each in counters]

    def wire(self) -> None:
        one, other = self.ends
        self.plane.steer(one, other)
        self.plane.steer(other, one)


def _listener() -> Port:
    """As the daemon's: what it sends goes past the program that drops what the host sends."""
    port = Port("vxlan-7", TYPE)
    port._socket.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
    return port


def _attach(device: str, pins: Path, variant: str) -> None:
    run("tc", "qdisc", "add", "dev", device, "clsact")
    for way in ("ingress", "egress"):
        pin = pins / f"{variant}{way}"
        run("tc", *f"filter add dev {device} {way} bpf da object-pinned {pin}".split())


def _side(lab: Lab, stack: ExitStack, ways: tuple[str, str, str], pins: Path) -> Side:
    """A host that is made ready by hand, as a pass does it. Nothing is forwarded yet."""
    _, there, role = ways
    container = Station(lab.namespace(f"{role}-container", quiet=True), "end")
    stack.enter_context(entered(f"{lab.name}-{role}"))
    plane = stack.enter_context(closing(Dataplane.open(pins)))
    stack.callback(Dataplane.discard, pins)
    run("ip", *f"link add end type veth peer eth0 netns {container.namespace}".split())
    run("ip", *f"link add vxlan-7 type vxlan id 7 remote {there} dstport 14789 nolearning".split())
    (programs,) = pins.glob("programs-*")
    for device, variant in (("end", ""), ("vxlan-7", "tunnel_")):
        _attach(device, programs, variant)
        run("ip", "link", "set", device, "up")
    container.ip("link set eth0 up")
    ends = socket.if_nametoindex("end"), socket.if_nametoindex("vxlan-7")
    for each in ends:
        plane.count(each)
    return Side(f"{lab.name}-{role}", container, plane, stack.enter_context(_listener()), ends)


def _is_active(side: Side) -> bool:
    """An end that was set up before the other has a carrier gets its queue a moment later."""
    ends = (side.namespace, "end"), (side.container.namespace, "eth0")
    return all("state UP" in run("ip", "link", "show", x, namespace=at).stdout for at, x in ends)


@pytest.fixture(params=["IPv4", "IPv6"])
def sides(lab: Lab, request: pytest.FixtureRequest) -> Iterator[tuple[Side, Side]]:
    """Two hosts and what is between them."""
    addresses = UNDERLAY[request.param]
    hosts = [lab.namespace(role, quiet=True) for role in ("one", "other")]
    pair = f"link add eth0 netns {hosts[0]} mtu 9000 type veth peer eth0 netns {hosts[1]} mtu 9000"
    run("ip", *pair.split())
    for host, address in zip(hosts, addresses, strict=True):
        nodad = "nodad" if request.param == "IPv6" else ""
        if nodad:
            inside(host, lambda: ITS_IPV6.write_text("0"))
        run("ip", *f"address add {address}/24 dev eth0 {nodad}".split(), namespace=host)
        run("ip", "link", "set", "eth0", "up", namespace=host)
    for host, there in zip(hosts, addresses[::-1], strict=True):  # until they know each other
        run("ping", "-c", "1", "-w", "60", there, namespace=host)
    root = BPFFS / lab.name
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        one = _side(lab, stack, (*addresses, "one"), root / "one")
        other = _side(lab, stack, (*addresses[::-1], "other"), root / "other")
        for side in (one, other):
            poll(lambda side=side: _is_active(side), what="a queue that lets frames out")  # type: ignore[misc]
        yield one, other


def test_a_probe_comes_back_and_a_word_is_handed_on(sides: tuple[Side, Side]) -> None:
    """Also while nothing is forwarded: whether a path works is asked of ends that are held."""
    for here, there in (sides, sides[::-1]):
        for payload in (b"", noise(40), noise(1400)):
            here.tunnel.send(keepalive(PROBE, payload))
            assert collect(here.tunnel, 1) == [keepalive(ECHO, payload)]
            for kind in (WORD, ECHO):
                here.tunnel.send(keepalive(kind, payload))
                assert collect(there.tunnel, 1) == [keepalive(kind, payload)]
        assert collect(here.tunnel, 1, 0.1) == []
    assert [side.counted() for side in sides] == [[(0, 0, 0)] * 2] * 2, "none is counted"


def test_all_other_frames_cross_byte_for_byte(sides: tuple[Side, Side]) -> None:
    """Those of the same type too, and one that a VLAN tag tells from a keepalive."""
    one, other = sides
    for side in sides:
        side.wire()
    tagged = keepalive(WORD, noise(30))
    tagged = tagged[:12] + bytes.fromhex("81000005") + tagged[12:]
    almost = ether(TYPE, b"xconnecs" + WORD + noise(30)), ether(TYPE, b"xconn")
    with one.container.port() as a, other.container.port() as b:
        crosses(a, b, [*odd_frames().values(), tagged, *almost])
    for side in sides:
        assert side.tunnel.drain() == []
        assert [each[1:] for each in side.counted()] == [(0, 0)] * 2


def test_nothing_else_leaves_by_a_tunnel_that_the_host_sends(sides: tuple[Side, Side]) -> None:
    """Not even what looks like an echo."""
    one, other = sides
    with entered(one.namespace), Port("vxlan-7") as plain:
        for frame in (keepalive(ECHO), keepalive(PROBE), ether(TYPE, noise(40))):
            with pytest.raises(OSError, match="No buffer space"):  # what a dropped frame looks like
                plain.send(frame)
    assert not collect(other.tunnel, 1, 0.2)
    assert one.counted() == [(0, 0, 0), (0, 0, 3)]


# --------------------------------------------------------------------------- TCP in bulk

MTU: Final = 1430
"""Of the VXLAN devices: no frame of that is too long for an underlay of 1500, also over IPv6."""
ROOM: Final = 100
"""Bytes that are left for headers where a segment is cut finer."""


def fit_underlay(sides: tuple[Side, Side], tunnel: int = MTU) -> None:
    """1500 bytes, and VXLAN devices that say so, or what they are told to."""
    for side in sides:
        for device, mtu in (("eth0", 1500), ("vxlan-7", tunnel)):
            run("ip", "link", "set", device, "mtu", str(mtu), namespace=side.namespace)
        side.wire()


@pytest.mark.parametrize("segment", [1448, 8948, 60_000])
@pytest.mark.parametrize("version", [4, 6])
def test_tcp_in_bulk_is_cut_to_what_the_way_takes(
    version: int, segment: int, sides: tuple[Side, Side]
) -> None:
    """In fragments it would be slow, and lost over IPv6: containers of MTU 1500, 9000, and more."""
    fit_underlay(sides)
    data = noise(64_000)
    for one, other in (sides, sides[::-1]):
        with other.container.port() as there:
            send_in_bulk(one.container, version, data, segment)
            assert received(version, there, len(data)) == (data, MTU - ROOM)
    assert [fragments(side.namespace) for side in sides] == [0, 0]


@pytest.mark.parametrize("version", [4, 6])
def test_tcp_in_bulk_that_fits_is_cut_no_finer(
    version: int, lab: Lab, sides: tuple[Side, Side]
) -> None:
    """With a tag beside the frame it does not fit: that is longer by four bytes."""
    fit_underlay(sides)
    one, other = (side.container for side in sides)
    fits = MTU - HEADERS[version]
    data = noise(64_000)
    for tagged in (False, True):
        if tagged:
            lab.tag(one, 5)
        with other.port() as there:
            send_in_bulk(one, version, data, fits)
            assert received(version, there, len(data)) == (data, MTU - ROOM if tagged else fits)
    assert [fragments(side.namespace) for side in sides] == [0, 0]


def test_what_fits_or_is_no_tcp_in_bulk_crosses_as_it_is(sides: tuple[Side, Side]) -> None:
    """UDP that waits to be cut is datagrams, which are cut as their sender says; QinQ is no IP."""
    fit_underlay(sides)
    one, other = (side.container for side in sides)
    for number, station in enumerate((one, other), 1):
        station.ip("link set eth0 mtu 1430")
        station.use_address(number)
    datagrams(one, other, (1, 100, 1300, 13_000), segment=1300)
    with one.port() as a, other.port() as b:
        crosses(a, b, [*odd_frames(1426).values()])
    assert [fragments(side.namespace) for side in sides] == [0, 0]


@pytest.fixture
def before_5_12(monkeypatch: pytest.MonkeyPatch) -> None:
    """No program may ask for an MTU."""
    load, check_mtu = libbpf.load_program, struct.pack("<Bxxxi", 0x85, 163)

    def older(kind: int, name: str, license_: str, code: bytes, **more: Any) -> int:
        if check_mtu in code:
            raise OSError(errno.EINVAL, "Invalid argument")
        return load(kind, name, license_, code, **more)

    monkeypatch.setattr(libbpf, "load_program", older)


@pytest.mark.usefixtures("before_5_12")
def test_a_kernel_that_tells_no_mtu_cuts_nothing_and_echoes_leave(sides: tuple[Side, Side]) -> None:
    fit_underlay(sides, 1300)
    one, other = sides
    one.tunnel.send(keepalive(PROBE))
    assert collect(one.tunnel, 1) == [keepalive(ECHO)]
    data = noise(1300 * 4)
    with other.container.port() as there:
        send_in_bulk(one.container, 4, data, 1350)
        assert received(4, there, len(data)) == (data, 1350)
