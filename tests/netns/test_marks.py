"""Frames that carry a mark of the kernel's: they cross like any other, and the host hears nothing.

``tc … mirred`` marks a frame as *redirected*, which generic XDP passes unseen; an ifb marks it to
skip the next classification, which is clsact's. Both marks survive a veth, so a container decides
what marks a frame of its wire carries.
"""

from __future__ import annotations

import contextlib
import socket

import pytest

from .frames import datagram, odd_frames, router_advertisement
from .lab import PROG_TC, Lab, Station, code, inside, poll, redirect_all
from .service import Daemon, Start, linked
from .traffic import Port, Pump, Tap, collect, crosses, exchange, transfer

HOST = "203.0.113.1"
BEYOND = "203.0.113.130"


def _stations(lab: Lab, mode: str) -> list[Station]:
    stations = lab.veths("va", "vb")
    for station in stations if mode == "native" else ():
        station.ready_for_native()
    return stations


def guest_behind(lab: Lab, station: Station) -> Tap:
    """A guest on a tap inside the container, joined to its eth0 by mirred, as vrnetlab does it."""
    tap = inside(station.namespace, lambda: Tap("tap0"))
    lab.on_close(tap.close)
    station.ip("link set tap0 txqueuelen 10000 up")
    for end, other in (("tap0", "eth0"), ("eth0", "tap0")):
        station.tc(f"qdisc add dev {end} clsact")
        station.tc(f"filter add dev {end} ingress {redirect_all(other)}")
    return tap


def send_through_ifb(lab: Lab, station: Station, *, twice: bool = False) -> Port:
    """A socket whose frames leave the container with the mark of an ifb; ``twice``: with both.

    An action that sees the mark takes it away, so that on the second time round the frame is
    passed by a program, which stands in front of the action and counts in the frame's mark.
    """
    station.ip("link add ifb0 up type ifb")
    eth0 = inside(station.namespace, lambda: socket.if_nametoindex("eth0"))
    path = lab.program(PROG_TC, _second_time(eth0 if twice else 0), f"ifb-{station.end}")
    station.tc("qdisc add dev eth0 clsact")
    station.tc(f"filter add dev eth0 egress pref 1 bpf da pinned {path}")
    station.tc(f"filter add dev eth0 egress pref 2 {redirect_all('ifb0')}")
    port = station.port()
    lab.on_close(port.close)
    return port


def _second_time(redirect_to: int) -> list[int]:
    """Leaves a frame to the next filter first; then passes it, or redirects it."""
    mark = 8 << 16  # in struct __sk_buff
    redirect = (code(0xB7, 1, redirect_to), code(0xB7, 2), code(0x85, 0, 23), code(0x95))
    return [
        code(0xBF, 6 | 1 << 4),  # r6 = skb
        code(0x61, 2 | 1 << 4) | mark,  # r2 = skb->mark
        code(0xBF, 3 | 2 << 4),
        code(0x07, 3, 1),
        code(0x63, 6 | 3 << 4) | mark,  # skb->mark = r2 + 1
        code(0x55, 2, 0) | 2 << 16,  # if r2 != 0: two further
        code(0xB7, 0, -1),  # TC_ACT_UNSPEC
        code(0x95),
        *((code(0x55, 2, 1) | 4 << 16, *redirect) if redirect_to else ()),
        code(0xB7, 0, 0),  # TC_ACT_OK
        code(0x95),
    ]


class Host:
    """What a host gets to hear of a wire: it has a service, routes what is not for it, and
    believes routers. ``loud`` is an interface of its own, where it hears all of that."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        for setting in ("ip_forward=1", "conf.all.rp_filter=0", "conf.default.rp_filter=0"):
            lab.run("sysctl", "-qw", f"net.ipv4.{setting}")
        self._beyond, self._loud = lab.veths("beyond", "loud")
        lab.ip(f"address add {HOST}/32 dev lo")
        lab.ip("address add 203.0.113.129/25 dev beyond")
        lab.ip(f"neighbour add {BEYOND} lladdr 02:00:00:00:00:99 dev beyond")
        self._service = inside(lab.host, self._listen)
        self._routed = self._beyond.port()
        for each in (self._service, self._routed):
            lab.on_close(each.close)

    @staticmethod
    def _listen() -> socket.socket:
        service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        service.setblocking(False)
        service.bind((HOST, 4711))
        return service

    def questions(self, end: str) -> list[bytes]:
        mac = bytes.fromhex(self._lab.link(end)["address"].replace(":", ""))
        return [datagram(HOST, mac), datagram(BEYOND, mac), router_advertisement()]

    def hears(self, end: str) -> set[str]:
        """Since it was last asked."""
        found = set()
        with contextlib.suppress(BlockingIOError):
            while self._service.recv(100):
                found.add("a service")
        if any(frame[12:14] == b"\x08\0" for frame in self._routed.drain()):
            found.add("a route on")
        if self._lab.ip(f"-6 route show default dev {end}"):
            found.add("a router")
        return found

    def prove(self) -> None:
        """All of it, where nothing is wired."""
        found: set[str] = set()
        with self._loud.port() as port:
            for frame in self.questions("loud"):
                port.send(frame)
            poll(lambda: len(found.update(self.hears("loud")) or found) == 3, what=f"{found}")  # type: ignore[func-returns-value]


def _passed(running: Daemon) -> list[int]:
    (link,) = running.ask("status")["links"]
    return [link[end]["passed_to_host"] for end in "ab"]


@pytest.mark.parametrize("mode", ["auto", "native", "tc"])
def test_frames_that_mirred_redirected_cross(lab: Lab, shared: Start, mode: str) -> None:
    """A guest on a tap in its container, as every vrnetlab node is: both ways, byte for byte."""
    host = Host(lab)
    a, b = _stations(lab, mode)
    host.prove()
    here, there = guest_behind(lab, a), guest_behind(lab, b)
    running = shared(linked(mode)).connected()
    whole = [frame for frame in odd_frames().values() if len(frame) >= 60]  # u32 wants some
    frames = [*host.questions("va"), *whole]
    crosses(here, there, frames)
    assert host.hears("va") == set()
    running.write(linked(enabled=False))
    running.wait_state("va", "vb", "disabled")
    here.send(frames[0])
    assert collect(there, 1, 0.2) == []
    assert host.hears("va") == set()


@pytest.mark.parametrize("mode", ["auto", "native"])
def test_frames_of_an_ifb_cross(lab: Lab, shared: Start, mode: str) -> None:
    """They are received by ethertype: their mark skips the sockets that take everything, too."""
    host = Host(lab)
    a, b = _stations(lab, mode)
    here = send_through_ifb(lab, a)
    shared(linked(mode)).connected()
    datagrams, advertisements = host.questions("va")[:2], host.questions("va")[2:]
    with b.port(0x0800) as v4, b.port(0x86DD) as v6:
        assert (delivery := exchange(here, v4, datagrams)).exact, delivery
        assert (delivery := exchange(here, v6, advertisements)).exact, delivery
    assert host.hears("va") == set()


@pytest.mark.parametrize(("mode", "twice"), [("tc", False), ("auto", True), ("tc", True)])
def test_what_skips_every_hook_is_stopped(lab: Lab, shared: Start, mode: str, twice: bool) -> None:
    """In tc mode an ifb's frames, in generic mode what a program redirects behind an ifb."""
    host = Host(lab)
    a, b = _stations(lab, mode)
    here = send_through_ifb(lab, a, twice=twice)
    running = shared(linked(mode)).connected()
    assert _passed(running) == [0, 0]
    frames = host.questions("va")
    with b.port() as there, b.port(0x0800) as v4:
        assert exchange(here, there, frames, timeout=0.2).missing == frames
        assert v4.drain() == []
    assert host.hears("va") == set()
    assert _passed(running) == [3, 0]
    for command in ("status", "doctor") if mode == "tc" and twice else ():
        assert "3 frames that came in by va bypassed all our hooks" in running.cli(command).stdout


def test_tcp_of_a_guest_behind_mirred_is_as_fast_as_tc(lab: Lab, shared: Start) -> None:
    """With every offload, through tap, mirred and veth, as a vrnetlab node does it."""
    guest, peer = _guest_with_an_address(lab, lab.veth("va"), 1), lab.veth("vb", 2)
    lab.mirred("va", "vb")
    yardstick = _best(guest, peer), _best(peer, guest)
    lab.unwire("va", "vb")
    shared({"va": "vb"}).wait_link("connected", "va", "vb")
    ours = _best(guest, peer), _best(peer, guest)
    ratios = [one / other for one, other in zip(ours, yardstick, strict=True)]
    print(f"from and to the guest: {ours} Gbit/s, {ratios} of tc mirred")
    assert min(ratios) > 0.2, (ours, yardstick)


def _best(client: Station, server: Station) -> float:
    """Gbit/s, of three: a busy machine only ever takes away."""
    return max(transfer(client, server, size=16 << 20) for _ in range(3))


def _guest_with_an_address(lab: Lab, container: Station, number: int) -> Station:
    inner = lab.namespace("inner")
    card = inside(inner, lambda: Tap("eth0"))
    lab.on_close(card.close)
    pump = Pump(guest_behind(lab, container), card)
    lab.on_close(pump.close)
    guest = Station(inner, container.end)
    guest.ip("link set eth0 txqueuelen 10000 up")
    guest.use_address(number)
    return guest
