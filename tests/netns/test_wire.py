"""Invariant 3, a wire: every frame arrives byte for byte, TCP and UDP at full speed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest

from .frames import BROADCAST, ether, noise, odd_frames
from .lab import Lab, Station, poll
from .service import Daemon
from .traffic import (
    ALIVE,
    OFFLOADS,
    OLD_OFFLOADS,
    Port,
    Stream,
    Tap,
    Wire,
    datagrams,
    exchange,
    transfer,
)

Start = Callable[..., Daemon]


# ---------------------------------------------------------------------- odd frames


@dataclass
class Bench:
    """Three links side by side, one of every kind, and a plug."""

    lab: Lab
    daemon: Daemon
    stations: dict[str, tuple[Station | Tap, Station | Tap]]

    def ports(self, name: str) -> tuple[Wire, Wire]:
        a, b = (x if isinstance(x, Tap) else x.port() for x in self.stations[name])
        return a, b


LINKS = {
    "generic": ("g1", "g2", "generic"),
    "tc": ("t1", "t2", "tc"),
    "tap": ("v1", "tap1", "generic"),
    "bare tap": ("v2", "tap2", "tc"),
}


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Lab() as lab:
        stations: dict[str, tuple[Station | Tap, Station | Tap]] = {
            "generic": (lab.veth("g1"), lab.veth("g2")),
            "tc": (lab.veth("t1"), lab.veth("t2")),
            "tap": (lab.veth("v1"), lab.tap("tap1")),
            "bare tap": (lab.veth("v2"), lab.tap("tap2", vnet_hdr=False)),
        }
        plain = "".join(f"  {a}: {b}\n" for a, b, _ in LINKS.values() if a != "t1")
        text = f"links:\n{plain}  t1: {{to: t2, mode: tc}}\n"
        daemon = Daemon(lab, text).start()
        for a, b, _ in LINKS.values():
            daemon.wait_link("connected", a, b)
        yield Bench(lab, daemon, stations)
        daemon.stop()


@pytest.mark.parametrize("name", LINKS)
def test_the_mode_is_the_right_one(bench: Bench, name: str) -> None:
    a, b, mode = LINKS[name]
    link = bench.daemon.link(a, b)
    assert (link["state"], link["mode"]) == ("connected", mode)
    assert link["mode_reason"]


@pytest.mark.parametrize("back", [False, True], ids=["forth", "back"])
@pytest.mark.parametrize("name", LINKS)
def test_odd_frames_cross_byte_for_byte(bench: Bench, name: str, back: bool) -> None:
    sender, receiver = reversed(bench.ports(name)) if back else bench.ports(name)
    frames = odd_frames()
    assert len(frames) >= 25
    delivery = exchange(sender, receiver, list(frames.values()))
    missing = [kind for kind, frame in frames.items() if frame in delivery.missing]
    assert delivery.exact, f"missing: {missing}\n{delivery}"
    _close(sender, receiver)


@pytest.mark.parametrize("name", LINKS)
def test_frames_to_the_hosts_own_address_cross_too(bench: Bench, name: str) -> None:
    """The host end is a plug: its MAC, or the group it listens to, makes no difference."""
    here, there = bench.ports(name)
    for end, ways in zip(LINKS[name][:2], ((here, there), (there, here)), strict=True):
        mac = bytes.fromhex(bench.lab.link(end)["address"].replace(":", ""))
        frames = [ether(kind, noise(64), mac) for kind in (0x0800, 0x0806, 0x86DD, 0x88B6)]
        frames.append(ether(0x88B6, noise(65), source=mac))
        delivery = exchange(*ways, frames)
        assert delivery.exact, delivery
    _close(here, there)


@pytest.mark.parametrize("name", ["generic", "tc", "tap"])
def test_a_bare_ethernet_header_crosses(bench: Bench, name: str) -> None:
    """14 bytes, where the driver sends it; a tc redirect drops a frame without payload."""
    here, there = bench.ports(name)
    if name != "tc":
        delivery = exchange(here, there, [ether(0x88B6)])
        assert delivery.exact, delivery
    _close(here, there)


def test_the_links_do_not_mix(bench: Bench) -> None:
    """What goes into one wire comes out of no other."""
    ports = {name: bench.ports(name) for name in LINKS}
    frames = [ether(0x88B6, noise(90), BROADCAST), ether(0x88B6, noise(91))]
    assert exchange(*ports["generic"], frames).exact
    for name in ("tc", "tap", "bare tap"):
        came = [frame for port in ports[name] for frame in port.drain()]
        assert not [frame for frame in came if frame[12:14] == b"\x88\xb6"]
    for pair in ports.values():
        _close(*pair)


def _close(*ports: Wire) -> None:
    for port in ports:
        if isinstance(port, Port):
            port.close()


@pytest.mark.parametrize("mode", ["auto", "tc"])
def test_jumbo_frames(lab: Lab, shared: Start, mode: str) -> None:
    a, b = lab.veth("va", mtu=9500), lab.veth("vb", mtu=9500)
    shared(f"links:\n  va: {{to: vb, mode: {mode}}}\n").wait_link("connected", "va", "vb")
    with a.port() as here, b.port() as there:
        for ways in ((here, there), (there, here)):
            delivery = exchange(*ways, list(odd_frames(9500).values()))
            assert delivery.exact, delivery


def test_a_loopback_plug_sends_frames_back(lab: Lab, shared: Start) -> None:
    lab.hush()
    a, tap = lab.veth("va"), lab.tap("tap0")
    running = shared({"va": "va", "tap0": "tap0"})
    for end in ("va", "tap0"):
        running.wait_link("connected", end, end)
    frames = list(odd_frames().values())
    with a.port() as port:
        for wire in (port, tap):
            assert isinstance(wire, Port | Tap)
            delivery = exchange(wire, wire, frames)
            assert delivery.exact, delivery
    running.stop()


def test_a_macvlan_and_a_veth(lab: Lab, shared: Start) -> None:
    """One end that can do no XDP redirect with headroom: tc, and TCP at speed all the same."""
    lower, b = lab.veth("va", 1), lab.veth("vb", 2)
    lab.macvlan("mv0", "va", "passthru")
    running = shared({"mv0": "vb"})
    running.wait_link("connected", "mv0", "vb")
    assert running.link("mv0", "vb")["mode"] == "tc"
    for ends in ((lower, b), (b, lower)):
        assert transfer(*ends, size=16 << 20) > ALIVE


# ---------------------------------------------------------------------- TCP and UDP


@pytest.mark.parametrize("mode", ["auto", "tc"])
@pytest.mark.parametrize("mtu", [1500, 9500])
def test_tcp_and_udp_with_default_offloads(lab: Lab, shared: Start, mtu: int, mode: str) -> None:
    a, b = lab.veth("va", 1, mtu=mtu), lab.veth("vb", 2, mtu=mtu)
    running = shared(f"links:\n  va: {{to: vb, mode: {mode}}}\n")
    running.wait_link("connected", "va", "vb")
    _carries_everything(a, b)
    for station in (a, b):
        assert f"mtu {mtu} " in station.ip("link", "show", "eth0"), "a container saw a change"


def _carries_everything(a: Station, b: Station, size: int = 32 << 20) -> None:
    """TCP both ways at speed, UDP both ways, small, big, in fragments and cut up by the kernel."""
    for client, server in ((a, b), (b, a)):
        for v6 in (False, True):
            assert transfer(client, server, v6=v6, size=size) > ALIVE
            datagrams(client, server, (1, 100, 1400, 8000), v6=v6)
            datagrams(client, server, (24_000,), v6=v6, count=5, segment=1200)


@pytest.mark.parametrize("vnet_hdr", [True, False], ids=["virtio", "e1000"])
@pytest.mark.parametrize("mtu", [1500, 9500])
def test_tcp_and_udp_between_a_container_and_a_guest(
    lab: Lab, shared: Start, vnet_hdr: bool, mtu: int
) -> None:
    a = lab.veth("va", 1, mtu=mtu)
    guest = lab.guest("tap0", 2, vnet_hdr=vnet_hdr, mtu=mtu)
    running = shared({"va": "tap0"})
    running.wait_link("connected", "va", "tap0")
    assert running.link("va", "tap0")["mode"] == ("generic" if vnet_hdr else "tc")
    _carries_everything(a, guest, size=8 << 20)


def test_a_guest_of_an_older_qemu(lab: Lab, shared: Start) -> None:
    """It takes TCP in big pieces but not UDP: whatever the mode, both arrive."""
    a, guest = lab.veth("va", 1), lab.guest("tap0", 2, offloads=OLD_OFFLOADS)
    shared({"va": "tap0"}).wait_link("connected", "va", "tap0")
    _carries_everything(a, guest, size=8 << 20)


def test_two_guests(lab: Lab, shared: Start) -> None:
    a, b = lab.guest("tap1", 1), lab.guest("tap2", 2, vnet_hdr=False)
    shared({"tap1": "tap2"}).wait_link("connected", "tap1", "tap2")
    _carries_everything(a, b, size=4 << 20)


@pytest.mark.parametrize("mode", ["auto", "tc"])
def test_vlan_tags_that_travel_as_metadata(lab: Lab, shared: Start, mode: str) -> None:
    a, b = lab.veth("va", 1), lab.veth("vb", 2)
    shared(f"links:\n  va: {{to: vb, mode: {mode}}}\n").wait_link("connected", "va", "vb")
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
    a, tap = lab.veth("va"), lab.tap("tap0")
    shared({"va": "tap0"}).wait_link("connected", "va", "tap0")
    lab.tag(a, 5)
    frame = ether(0x88B6, noise(100))
    with a.port() as port:
        tap.drain()
        port.send(frame)
        assert poll(tap.drain) == [frame[:12] + b"\x81\0\0\x05" + frame[12:]]


# ---------------------------------------------------------------------- offloads that change


def test_offloads_toggled_under_traffic_lose_nothing(lab: Lab, shared: Start) -> None:
    """The guest's driver comes and goes; the link changes its mode and no frame is lost."""
    a, tap = lab.veth("va"), lab.tap("tap0")
    running = shared({"va": "tap0"})
    running.wait_link("connected", "va", "tap0")
    assert _mode(running) == "generic"
    with Stream(a, tap) as stream:
        poll(stream.flows)
        for flags, mode in ((0, "tc"), (OFFLOADS, "generic")) * 3:
            tap.offload(flags)
            poll(lambda mode=mode: _mode(running) == mode, what=f"mode {mode}")  # type: ignore[misc]
    stream.assert_perfect()
    running.stop()


def test_tcp_works_before_and_after_the_offloads_change(lab: Lab, shared: Start) -> None:
    a, guest = lab.veth("va", 1), lab.guest("tap0", 2)
    running = shared({"va": "tap0"})
    running.wait_link("connected", "va", "tap0")
    for flags, mode in ((0, "tc"), (OFFLOADS, "generic"), (0, "tc")):
        guest.offload(flags)
        poll(lambda mode=mode: _mode(running) == mode, what=f"mode {mode}")  # type: ignore[misc]
        for ends in ((a, guest), (guest, a)):
            assert transfer(*ends, size=8 << 20) > ALIVE


def test_a_container_that_switches_its_offloads_off(lab: Lab, shared: Start) -> None:
    a, b = lab.veth("va", 1), lab.veth("vb", 2)
    running = shared({"va": "vb"})
    running.wait_link("connected", "va", "vb")
    features: Sequence[str] = ("tso", "off", "gso", "off", "gro", "off", "tx", "off")
    with Stream(a, b) as stream:
        poll(stream.flows)
        a.ethtool(*features)
        assert transfer(a, b, size=8 << 20) > ALIVE
        assert transfer(b, a, size=8 << 20) > ALIVE
    stream.assert_perfect()


def _mode(daemon: Daemon) -> str:
    return str(daemon.link("va", "tap0")["mode"])


def test_a_bridge_as_an_end_is_warned_of(lab: Lab, shared: Start) -> None:
    """It hands up only what is for itself; its port by way of a veth is a wire."""
    a, b = lab.veth("va"), lab.veth("vb")
    lab.bridge("br0", "va")
    running = shared({"vb": "br0"})
    link = running.wait_state("br0", "vb", "connected")
    assert any("a port of the bridge" in text for text in link["warnings"]), link
    frame = ether(0x88B6, noise(80))
    with a.port() as here, b.port() as there:
        assert exchange(here, there, [frame], timeout=0.3).missing
        lab.pair("p0", "p1")
        lab.ip("link", "set", "dev", "p0", "master", "br0")
        running.write({"vb": "p1"})
        running.wait_link("connected", "vb", "p1")
        poll(lambda: exchange(here, there, [frame], timeout=0.3).exact, what="a frame")
    assert running.link("vb", "p1")["warnings"] == []
