"""Invariant 3, a wire: every frame arrives byte for byte, TCP and UDP at full speed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from .frames import BROADCAST, ether, noise, odd_frames
from .lab import Lab, Station, poll
from .service import MODES, PAIR, Daemon, Start, linked
from .traffic import (
    ALIVE,
    OFFLOADS,
    OLD_OFFLOADS,
    Tap,
    Wire,
    crosses,
    datagrams,
    exchange,
    lossless,
    transfer,
)

LINKS = {
    "generic": ("g1", "g2", "generic"),
    "tc": ("t1", "t2", "tc"),
    "tap": ("v1", "tap1", "generic"),
    "bare tap": ("v2", "tap2", "tc"),
}


@dataclass
class Bench:
    """A link of every kind, side by side."""

    lab: Lab
    daemon: Daemon
    stations: dict[str, Station | Tap]

    @contextmanager
    def ports(self, name: str) -> Iterator[list[Wire]]:
        with ExitStack() as stack:
            ends = [self.stations[end] for end in LINKS[name][:2]]
            yield [x if isinstance(x, Tap) else stack.enter_context(x.port()) for x in ends]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Lab() as lab:
        veths = ("g1", "g2", "t1", "t2", "v1", "v2")
        stations: dict[str, Station | Tap] = dict(zip(veths, lab.veths(*veths), strict=True))
        stations |= {"tap1": lab.tap("tap1"), "tap2": lab.tap("tap2", vnet_hdr=False)}
        wiring = {a: b for a, b, _ in LINKS.values()} | {"t1": {"to": "t2", "mode": "tc"}}
        daemon = Daemon(lab, wiring).start()
        for a, b, _ in LINKS.values():
            daemon.connected(a, b)
        yield Bench(lab, daemon, stations)
        daemon.stop()


@pytest.mark.parametrize("name", LINKS)
def test_odd_frames_cross_byte_for_byte(bench: Bench, name: str) -> None:
    """In the right mode. The host end is a plug: its own MAC makes no difference.

    A bare header is 14 bytes, where the driver sends it; a tc redirect drops it.
    """
    *ends, mode = LINKS[name]
    link = bench.daemon.link(*ends)
    assert (link["state"], link["mode"], link["mode_reason"] != "") == ("connected", mode, True)
    macs = [bytes.fromhex(bench.lab.link(end)["address"].replace(":", "")) for end in ends]
    with bench.ports(name) as ports:
        crosses(ports[0], ports[1], list(odd_frames().values()))
        for mac, ways in zip(macs, (ports, ports[::-1]), strict=True):
            frames = [ether(kind, noise(64), mac) for kind in (0x0800, 0x0806, 0x86DD, 0x88B6)]
            delivery = exchange(*ways, [*frames, ether(0x88B6, noise(65), source=mac)])
            assert delivery.exact, delivery
        if mode != "tc":
            assert exchange(*ports, [ether(0x88B6)]).exact


def test_the_links_do_not_mix(bench: Bench) -> None:
    """What goes into one wire comes out of no other."""
    frames = [ether(0x88B6, noise(90), BROADCAST), ether(0x88B6, noise(91))]
    with ExitStack() as stack:
        here, *ports = (x for name in LINKS for x in stack.enter_context(bench.ports(name)))
        assert exchange(here, ports[0], frames).exact
        came = [frame for port in ports[1:] for frame in port.drain()]
        assert not [frame for frame in came if frame[12:14] == b"\x88\xb6"]


@MODES
def test_jumbo_frames(lab: Lab, shared: Start, mode: str) -> None:
    a, b = lab.veth("va", mtu=9500), lab.veth("vb", mtu=9500)
    shared(linked(mode)).connected()
    with a.port() as here, b.port() as there:
        crosses(here, there, list(odd_frames(9500).values()))


def test_a_loopback_plug_sends_frames_back(lab: Lab, shared: Start) -> None:
    lab.hush()
    a, tap = lab.veth("va"), lab.tap("tap0")
    running = shared({"va": "va", "tap0": "tap0"}).connected("va", "va").connected("tap0", "tap0")
    with a.port() as port:
        for wire in (port, tap):
            delivery = exchange(wire, wire, list(odd_frames().values()))
            assert delivery.exact, delivery
    running.stop()


def test_a_macvlan_and_a_veth(lab: Lab, shared: Start) -> None:
    """One end that can do no XDP redirect with headroom: tc, and TCP at speed all the same."""
    lower, b = lab.veth("va", 1), lab.veth("vb", 2)
    lab.macvlan("mv0", "va", "passthru")
    running = shared({"mv0": "vb"}).connected("mv0", "vb")
    assert running.link("mv0", "vb")["mode"] == "tc"
    for ends in ((lower, b), (b, lower)):
        assert transfer(*ends, size=16 << 20) > ALIVE


def _carries_everything(a: Station, b: Station, size: int = 8 << 20) -> None:
    """TCP both ways at speed, UDP both ways, small, big, in fragments and cut up by the kernel."""
    for client, server in ((a, b), (b, a)):
        for v6 in (False, True):
            assert transfer(client, server, v6=v6, size=size) > ALIVE
            datagrams(client, server, (1, 100, 1400, 8000), v6=v6)
            datagrams(client, server, (24_000,), v6=v6, count=5, segment=1200)


@MODES
@pytest.mark.parametrize("mtu", [1500, 9500])
def test_tcp_and_udp_with_default_offloads(lab: Lab, shared: Start, mtu: int, mode: str) -> None:
    """And without: a container may switch them off."""
    a, b = lab.veth("va", 1, mtu=mtu), lab.veth("vb", 2, mtu=mtu)
    shared(linked(mode)).connected()
    _carries_everything(a, b, size=32 << 20)
    with lossless(a, b):
        a.ethtool("tso", "off", "gso", "off", "gro", "off", "tx", "off")
        for ends in ((a, b), (b, a)):
            assert transfer(*ends, size=8 << 20) > ALIVE
    for station in (a, b):
        assert f"mtu {mtu} " in station.ip("link show eth0"), "a container saw a change"


@pytest.mark.parametrize("vnet_hdr", [True, False], ids=["virtio", "e1000"])
@pytest.mark.parametrize("mtu", [1500, 9500])
def test_tcp_and_udp_of_a_guest(lab: Lab, shared: Start, vnet_hdr: bool, mtu: int) -> None:
    """Before and after the guest's driver asks for other offloads."""
    a = lab.veth("va", 1, mtu=mtu)
    guest = lab.guest("vb", 2, vnet_hdr=vnet_hdr, mtu=mtu)
    running = shared(PAIR).connected()
    assert running.link()["mode"] == ("generic" if vnet_hdr else "tc")
    _carries_everything(a, guest)
    for flags, mode in ((0, "tc"), (OFFLOADS, "generic")) if vnet_hdr else ():
        guest.offload(flags)
        poll(lambda mode=mode: running.link()["mode"] == mode, what=f"mode {mode}")  # type: ignore[misc]
        for ends in ((a, guest), (guest, a)):
            assert transfer(*ends, size=8 << 20) > ALIVE


def test_two_guests_and_one_of_an_older_qemu(lab: Lab, shared: Start) -> None:
    """That takes TCP in big pieces but not UDP: whatever the mode, both arrive."""
    a, b = lab.guest("va", 1), lab.guest("vb", 2, vnet_hdr=False)
    old, c = lab.guest("vo", 3, offloads=OLD_OFFLOADS), lab.veth("vc", 4)
    shared(PAIR | {"vo": "vc"}).connected().connected("vo", "vc")
    _carries_everything(a, b, size=4 << 20)
    _carries_everything(old, c)


@MODES
def test_vlan_tags_that_travel_as_metadata(lab: Lab, shared: Start, mode: str) -> None:
    a, b = lab.veth("va", 1), lab.veth("vb", 2)
    shared(linked(mode)).connected()
    for station in (a, b):
        lab.tag(station, 5)
    for ends in ((a, b), (b, a)):
        assert transfer(*ends) > ALIVE
        assert transfer(*ends, v6=True) > ALIVE
    datagrams(a, b)
    lab.retag(b, 6)
    with pytest.raises((AssertionError, OSError)):
        transfer(a, b, timeout=0.5)


def test_a_metadata_tag_comes_out_at_a_tap(lab: Lab, shared: Start) -> None:
    a, tap = lab.veth("va"), lab.tap("vb")
    shared(PAIR).connected()
    lab.tag(a, 5)
    frame = ether(0x88B6, noise(100))
    with a.port() as port:
        tap.drain()
        port.send(frame)
        assert poll(tap.drain) == [frame[:12] + b"\x81\0\0\x05" + frame[12:]]


def test_offloads_toggled_under_traffic_lose_nothing(lab: Lab, shared: Start) -> None:
    """The guest's driver comes and goes; the link changes its mode and no frame is lost."""
    a, tap = lab.veth("va"), lab.tap("vb")
    running = shared(PAIR).connected()
    with lossless(a, tap):
        for flags, mode in ((0, "tc"), (OFFLOADS, "generic")) * 3:
            tap.offload(flags)
            poll(lambda mode=mode: running.link()["mode"] == mode, what=f"mode {mode}")  # type: ignore[misc]
    running.stop()


def test_a_bridge_as_an_end_is_warned_of(lab: Lab, shared: Start) -> None:
    """It hands up only what is for itself; its port by way of a veth is a wire."""
    a, b = lab.veths("va", "vb")
    lab.bridge("br0", "va")
    running = shared({"vb": "br0"})
    link = running.wait_state("br0", "vb", "connected")
    assert any("a port of the bridge" in text for text in link["warnings"]), link
    frame = ether(0x88B6, noise(80))
    with a.port() as here, b.port() as there:
        assert exchange(here, there, [frame], timeout=0.3).missing
        lab.pair("p0", "p1")
        lab.ip("link set dev p0 master br0")
        running.write({"vb": "p1"})
        running.connected("vb", "p1")
        poll(lambda: exchange(here, there, [frame], timeout=0.3).exact, what="a frame")
    assert running.link("vb", "p1")["warnings"] == []
