"""Native mode on a NIC-like device: the virtio NICs of the guest.

Such a NIC drops what is for other addresses before XDP sees it, and its driver refuses native XDP
under conditions of its own. `run` has made the cables.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from netns.frames import ether, noise, odd_frames
from netns.lab import Lab, Station, inside, poll
from netns.service import Start
from netns.traffic import Delivery, Stream, datagrams, exchange, transfer

Cables = tuple[Station, Station]
PAIR = {"nic0": "nic1"}
MODES = {"auto": "native", "tc": "tc"}
FOREIGN = ether(0x88B6, noise(80))


def settled(lab: Lab) -> dict[str, Any]:
    """The host once its link-local addresses are there."""

    def complete() -> bool:
        shown = lab.ip("-6 address show scope link")
        return shown.count("inet6 fe80") >= 2 and "tentative" not in shown

    poll(complete, 5, "link-local addresses")
    return lab.snapshot()


def arrived(lab: Lab, station: Station, nic: str) -> int:
    """How many of 20 frames for a foreign address the NIC lets into the host."""
    with station.port() as port:
        before = lab.link_counters(nic)
        for _ in range(20):
            port.send(FOREIGN)
        with contextlib.suppress(AssertionError):
            poll(lambda: lab.link_counters(nic) - before >= 20, 0.3)
        return lab.link_counters(nic) - before


def hush(*stations: Station) -> None:
    """From now on they speak only when told to."""
    setting = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
    for station in stations:
        inside(station.namespace, lambda: setting.write_text("1"))


def whole(delivery: Delivery) -> bool:
    """Every frame is there, in any order: NICs of several queues keep that of a flow only."""
    return not (delivery.missing or delivery.extra)


def carries(a: Station, b: Station) -> None:
    for client, server in ((a, b), (b, a)):
        for v6 in (False, True):
            transfer(client, server, v6=v6)
            datagrams(client, server, (1, 100, 1400), v6=v6)


def test_nics_are_wired_natively_and_promiscuously(lab: Lab, daemon: Start, cables: Cables) -> None:
    before = settled(lab)
    assert arrived(lab, cables[0], "nic0") < 20, "this NIC has no filter: nothing is proved"
    running = daemon(PAIR).connected("nic0", "nic1")
    link = running.link("nic0", "nic1")
    assert link["mode"] == "native", link["mode_reason"]
    for nic in ("nic0", "nic1"):
        shown = lab.link(nic)
        assert shown["promiscuity"] >= 1, shown
        assert shown["xdp"]["mode"] == 1, "native"
    with cables[0].port() as here, cables[1].port() as there:
        for ways in ((here, there), (there, here)):
            assert exchange(*ways, [FOREIGN]).exact
    running.stop()
    lab.assert_as_found(before)
    assert arrived(lab, cables[0], "nic0") < 20, "the NIC was left promiscuous"


@pytest.mark.parametrize("mode", ["auto", "tc"])
def test_odd_frames_cross_byte_for_byte(daemon: Start, cables: Cables, mode: str) -> None:
    """VLAN and QinQ tags, LLDP, LACP, runts; the stations' NICs strip no tag."""
    hush(*cables)
    running = daemon(f"links:\n  nic0: {{to: nic1, mode: {mode}}}\n").connected("nic0", "nic1")
    assert running.link("nic0", "nic1")["mode"] == MODES[mode]
    frames = odd_frames()
    with cables[0].port() as here, cables[1].port() as there:
        for ways in ((here, there), (there, here)):
            delivery = exchange(*ways, list(frames.values()))
            missing = [kind for kind, frame in frames.items() if frame in delivery.missing]
            assert whole(delivery), f"missing: {missing}\n{delivery}"


@pytest.mark.parametrize("mode", ["auto", "tc"])
def test_tcp_and_udp_with_default_offloads(daemon: Start, cables: Cables, mode: str) -> None:
    running = daemon(f"links:\n  nic0: {{to: nic1, mode: {mode}}}\n").connected("nic0", "nic1")
    assert running.link("nic0", "nic1")["mode"] == MODES[mode]
    carries(*cables)


def test_tcp_over_a_vlan(daemon: Start, cables: Cables) -> None:
    daemon(PAIR).wait_link("connected", "nic0", "nic1")
    tagged = []
    for station in cables:
        device = f"{station.interface}.5"
        station.ip(
            *("link", "add", "link", station.interface, "name", device),
            *("type", "vlan", "id", "5"),
        )
        inner = Station(station.namespace, station.end, (station.number or 0) + 50, device)
        station.ip("address", "add", f"{inner.address()}/32", "dev", device)
        station.ip(f"link set {device} up")
        tagged.append(inner)
    for one, other in (tagged, reversed(tagged)):
        one.ip("route", "add", f"{other.address()}/32", "dev", one.interface, "src", one.address())
    for one, other in (tagged, reversed(tagged)):
        transfer(one, other)


def test_a_nic_and_a_veth_go_by_tc(lab: Lab, daemon: Start, cables: Cables) -> None:
    a, b = cables[0], lab.veth("va", 9)
    before = settled(lab)
    running = daemon({"nic0": "va"}).connected("nic0", "va")
    link = running.link("nic0", "va")
    assert link["mode"] == "tc", link["mode_reason"]
    assert lab.link("nic0")["promiscuity"] >= 1
    carries(a, b)
    hush(a, b)
    with a.port() as here, b.port() as there:
        for ways in ((here, there), (there, here)):
            delivery = exchange(*ways, list(odd_frames().values()))
            assert whole(delivery), delivery
    running.stop()
    lab.assert_as_found(before)


def test_a_crash_loses_nothing_and_is_mended(lab: Lab, daemon: Start, cables: Cables) -> None:
    before = settled(lab)
    running = daemon(PAIR).connected("nic0", "nic1")
    with Stream(*cables, rate=200) as stream:
        poll(stream.flows)
        running.kill()
        received = stream.forth.received
        poll(lambda: stream.forth.received > received + 50)
        running.start()
    stream.assert_whole()
    running.stop()
    lab.assert_as_found(before)


def test_what_native_xdp_refuses_goes_by_tc(lab: Lab, daemon: Start, cables: Cables) -> None:
    """A page holds no more than some 3,500 bytes; jumbo frames cross all the same."""
    for station in cables:
        station.ip(f"link set {station.interface} mtu 9000")
        lab.ip(f"link set {station.end} mtu 9000")
    running = daemon(PAIR).connected("nic0", "nic1")
    frames = [ether(0x88B6, noise(size)) for size in (1500, 4000, 9000)]
    with cables[0].port() as here, cables[1].port() as there:
        for ways in ((here, there), (there, here)):
            delivery = exchange(*ways, frames)
            assert whole(delivery), (running.link("nic0", "nic1"), str(delivery))


@pytest.mark.usefixtures("cables")
def test_a_program_of_somebody_else_stays(lab: Lab, daemon: Start) -> None:
    program = lab.foreign_xdp("nic1")
    running = daemon(PAIR)
    link = running.wait_state("nic0", "nic1", "failed")
    assert str(program) in link["reason"]
    assert lab.xdp("nic0") == 0
    assert lab.link("nic0")["promiscuity"] == 0
    assert lab.xdp("nic1") == program


@pytest.mark.parametrize("kind", ["vlan", "bond"])
def test_what_stands_on_a_nic_takes_frames_for_everybody(
    lab: Lab, daemon: Start, cables: Cables, kind: str
) -> None:
    """The NIC below drops them unless the flag reaches it; it is not found promiscuous later."""
    outside, inner = cables[0], lab.veth("va")
    frame = FOREIGN
    if kind == "vlan":
        lab.ip("link add link nic0 name end type vlan id 5")
        frame = FOREIGN[:12] + b"\x81\x00\x00\x05" + FOREIGN[12:]
    else:
        lab.ip("link add name end type bond mode active-backup")
        lab.ip("link set dev nic0 down")
        lab.ip("link set dev nic0 master end")
    lab.ip("link set dev end up")
    poll(lambda: "LOWER_UP" in lab.link("end")["flags"], 5, "a carrier")
    hush(outside, inner)
    running = daemon({"end": "va"}).connected("end", "va")
    with outside.port() as here, inner.port() as there:
        here.send(frame)
        poll(lambda: FOREIGN in there.drain(), 2, "a frame for another address")
        there.send(FOREIGN)
        poll(lambda: frame in here.drain(), 2, "its answer")
    running.stop()
    assert lab.link("nic0")["promiscuity"] == 0
