"""Invariant 4, nothing but the wire: the host neither answers nor talks on a connected end.

Each test first lets the host be heard without the daemon, so that it proves something.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from .frames import BROADCAST, SENDER, ether, noise
from .lab import Lab, inside, poll
from .service import Daemon
from .traffic import Port, collect, exchange

Start = Callable[..., Daemon]
HOST = "203.0.113.1"
MODES = pytest.mark.parametrize("mode", ["auto", "tc"])


def _wiring(mode: str, more: str = "") -> str:
    return f"links:\n  va: {{to: vb, mode: {mode}{more}}}\n"


def arp_request(target: str = HOST) -> bytes:
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    hosts = SENDER + socket.inet_aton("203.0.113.9") + bytes(6) + socket.inet_aton(target)
    return ether(0x0806, (head + hosts).ljust(46, b"\0"), BROADCAST)


def neighbour_solicitation(target: bytes) -> bytes:
    """ICMPv6 135 for an address, from a link-local one, with its checksum."""
    source = socket.inet_pton(socket.AF_INET6, "fe80::aa01")
    group = bytes.fromhex("ff02" + "0" * 18 + "01ff") + target[-3:]
    body = b"\x87\0\0\0\0\0\0\0" + target + b"\x01\x01" + SENDER
    pseudo = source + group + struct.pack("!II", len(body), 58)
    body = body[:2] + _checksum(pseudo + body) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + group
    return ether(0x86DD, head + body, b"\x33\x33" + group[-4:])


def _checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def link_local(lab: Lab, end: str) -> bytes:
    """The host's own link-local address on an end (made by the kernel, once it is ready)."""

    def find() -> str:
        words = lab.ip("-6", "-o", "address", "show", "dev", end, "scope", "link").split()
        return "" if "tentative" in words or not words else words[3].partition("/")[0]

    return socket.inet_pton(socket.AF_INET6, poll(find, what=f"a link-local address on {end}"))


def counted(link: dict[str, Any], what: str) -> int:
    """The sum of a counter wherever it stands in what status says of a link."""
    total = 0
    for key, value in link.items():
        if isinstance(value, dict):
            total += counted(value, what)
        elif key == what:
            total += int(value)
    return total


@MODES
def test_the_host_does_not_answer(lab: Lab, daemon: Start, mode: str) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    lab.ip("address", "add", f"{HOST}/32", "dev", "lo")
    own = link_local(lab, "va")
    questions = [arp_request(), neighbour_solicitation(own)]
    with a.port() as here, b.port() as there:
        for question in questions:
            here.send(question)
            assert poll(lambda: _answers(here)), "the host should answer while nothing is wired"
        running = daemon(_wiring(mode))
        running.wait_link("connected", "va", "vb")
        here.drain()
        delivery = exchange(here, there, questions)
        assert delivery.exact, delivery
        assert collect(here, 1, 0.5) == []


def _answers(port: Port) -> list[bytes]:
    """ARP replies and neighbour advertisements."""
    return [x for x in port.drain() if x[20:22] == b"\0\x02" or (len(x) > 54 and x[54] == 136)]


@MODES
def test_the_host_is_not_heard_from_the_first_moment_on(lab: Lab, daemon: Start, mode: str) -> None:
    """Ends found down are set up: no router solicitation, no MLD, no DAD comes out."""
    a, b = lab.veth("va", up=False), lab.veth("vb", up=False)
    loud = lab.veth("vc", up=False)
    with a.port() as here, b.port() as there, loud.port() as control:
        lab.ip("link", "set", "vc", "up")
        daemon(_wiring(mode)).wait_link("connected", "va", "vb")
        poll(control.drain, what="the host talks on an interface that is not wired")
        assert here.drain() + there.drain() == []
        assert collect(here, 1, 1.5) + there.drain() == []


@MODES
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_an_end_that_is_made_again_stays_silent(
    lab: Lab, daemon: Start, mode: str, up: bool
) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(_wiring(mode))
    running.wait_link("connected", "va", "vb")
    lab.delete("va")
    running.wait_link("waiting", "va", "vb")
    since = running.mark()
    with b.port() as there:
        lab.veth("va", namespace=a.namespace, up=up)
        running.wait_link("connected", "va", "vb", since=since)
        there.drain()
        assert collect(there, 1, 1.5) == []


@MODES
def test_what_local_programs_send_is_dropped_and_counted(
    lab: Lab, daemon: Start, mode: str
) -> None:
    """lldpd and DHCP clients write to a raw socket on the host's end."""
    a, b = lab.veth("va"), lab.veth("vb")
    lldp = ether(0x88CC, noise(60), bytes.fromhex("0180c200000e"))
    discover = ether(0x0800, b"\x45" + noise(299), BROADCAST)
    speakers = [inside(lab.host, lambda end=end: Port(end)) for end in ("va", "vb")]  # type: ignore[misc]
    with a.port() as here, b.port() as there, speakers[0], speakers[1]:
        delivery = exchange(speakers[0], here, [lldp])
        assert lldp not in delivery.missing, "the sender of this test is broken"
        running = daemon(_wiring(mode))
        running.wait_link("connected", "va", "vb")
        here.drain(), there.drain()
        before = counted(running.link("va", "vb"), "host_egress")
        for speaker in speakers:
            for _ in range(10):
                _say(speaker, lldp)
                _say(speaker, discover)
        assert collect(here, 1, 0.5) + there.drain() == []
        after = counted(running.link("va", "vb"), "host_egress")
        assert after - before >= 40, "each of the 40 frames is counted"
        assert exchange(here, there, [lldp, discover]).exact, "the wire itself must carry them"
        running.stop()
        assert lldp not in exchange(speakers[0], here, [lldp]).missing


def _say(speaker: Port, frame: bytes) -> None:
    """Send; the sender may be told that its frame went nowhere."""
    with contextlib.suppress(OSError):
        speaker.send(frame)


@MODES
def test_what_local_programs_tell_everybody_is_dropped_and_counted(
    lab: Lab, daemon: Start, mode: str
) -> None:
    """The kernel receives a copy of it by the interface that it leaves by, as if from the wire."""
    stations = {end: lab.veth(end) for end in ("va", "vb", "vc", "loud")}
    lab.ip("address", "add", f"{HOST}/32", "dev", "lo")
    lab.ip("address", "add", "fd00::1/128", "dev", "lo", "nodad")
    with contextlib.ExitStack() as stack:
        here, there, waiting, loud = (
            stack.enter_context(each.port()) for each in stations.values()
        )
        inside(lab.host, lambda: _tell_everybody("loud"))
        poll(lambda: sum(b"to everybody" in x for x in loud.drain()) == 3)
        running = daemon(_wiring(mode) + f"  vc: {{to: vd, mode: {mode}}}\n")
        running.wait_link("connected", "va", "vb")
        for port in (here, there, waiting):
            port.drain()
        for end, other in (("va", "vb"), ("vc", "vd")):
            before = running.link(end, other)["a"]
            inside(lab.host, lambda end=end: _tell_everybody(end))  # type: ignore[misc]
            link = running.link(end, other)["a"]
            assert link["dropped"]["host_egress"] - before["dropped"]["host_egress"] >= 3
            assert (link["frames"], link["passed_to_host"]) == (0, 0)
            assert link["dropped"]["no_entry"] == before["dropped"]["no_entry"]
        assert collect(here, 1, 0.2) + there.drain() + waiting.drain() == []


def _tell_everybody(end: str) -> None:
    """By IPv4 multicast, broadcast and IPv6 multicast. A refusal is as good as silence."""
    index = socket.if_nametoindex(end)
    request = bytes(4) + socket.inet_aton(HOST) + index.to_bytes(4, "little")
    for family, source, target in (
        (socket.AF_INET, (HOST, 0), ("224.0.0.1", 9999)),
        (socket.AF_INET, (HOST, 0), ("255.255.255.255", 9999)),
        (socket.AF_INET6, ("fd00::1", 0), ("ff02::1", 9999, 0, index)),
    ):
        with socket.socket(family, socket.SOCK_DGRAM) as speaker:
            speaker.bind(source)
            if family == socket.AF_INET:
                speaker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
                speaker.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                speaker.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, end.encode())
            with contextlib.suppress(PermissionError):
                speaker.sendto(b"to everybody", target)


def test_a_tap_hears_nothing_of_the_host(lab: Lab, daemon: Start) -> None:
    a, tap = lab.veth("va"), lab.tap("tap0")
    lldp = ether(0x88CC, noise(60), bytes.fromhex("0180c200000e"))
    with a.port() as here, inside(lab.host, lambda: Port("tap0")) as speaker:
        daemon({"va": "tap0"}).wait_link("connected", "va", "tap0")
        tap.drain()
        _say(speaker, lldp)
        assert collect(tap, 1, 1.5) == []
        assert exchange(here, tap, [lldp]).exact


@MODES
def test_a_disabled_link_drops_and_counts(lab: Lab, daemon: Start, mode: str) -> None:
    """A frame with nowhere to go never reaches the host's stack."""
    a, b = lab.veth("va"), lab.veth("vb")
    lab.ip("address", "add", f"{HOST}/32", "dev", "lo")
    questions = [arp_request(), neighbour_solicitation(link_local(lab, "va"))]
    running = daemon(_wiring(mode, ", enabled: false"))
    running.wait_state("va", "vb", "disabled")
    with a.port() as here, b.port() as there:
        before = counted(running.link("va", "vb"), "no_entry")
        assert exchange(here, there, questions, timeout=0.5).missing == questions
        assert _answers(here) == []
        after = counted(running.link("va", "vb"), "no_entry")
        assert after - before == len(questions)
        running.write(_wiring(mode))
        running.wait_link("connected", "va", "vb")
        assert exchange(here, there, questions).exact


def test_the_host_talks_again_when_the_link_goes(lab: Lab, daemon: Start) -> None:
    a, _ = lab.veth("va"), lab.veth("vb")
    running = daemon({"va": "vb"})
    running.wait_link("connected", "va", "vb")
    running.stop()
    own = link_local(lab, "va")
    with a.port() as here:
        here.send(neighbour_solicitation(own))
        assert poll(lambda: _answers(here), what="an answer of the host, as found")
