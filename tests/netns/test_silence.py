"""Invariant 4, nothing but the wire: the host neither answers nor talks on a connected end.

Each test first lets the host be heard without the daemon, so that it proves something.
"""

from __future__ import annotations

import contextlib
import socket

from .frames import BROADCAST, answers, arp_request, ether, neighbour_solicitation, noise
from .lab import Lab, inside, poll
from .service import MODES, Start, linked
from .traffic import Port, collect, crosses, exchange

HOST = "203.0.113.1"
LLDP = ether(0x88CC, noise(60), bytes.fromhex("0180c200000e"))


def link_local(lab: Lab, end: str) -> bytes:
    """The host's own link-local address on an end (made by the kernel, once it is ready)."""

    def find() -> str:
        words = lab.ip(f"-6 -o address show dev {end} scope link").split()
        return "" if "tentative" in words or not words else words[3].partition("/")[0]

    return socket.inet_pton(socket.AF_INET6, poll(find, what=f"a link-local address on {end}"))


@MODES
def test_the_host_does_not_answer(lab: Lab, shared: Start, mode: str) -> None:
    """Nor on an end whose link is disabled: frames with nowhere to go are dropped and counted."""
    a, b = lab.veths("va", "vb")
    lab.ip(f"address add {HOST}/32 dev lo")
    questions = [arp_request(HOST), neighbour_solicitation(link_local(lab, "va"))]
    with a.port() as here, b.port() as there:
        for question in questions:
            here.send(question)
            assert poll(lambda: answers(here.drain())), "the host should answer while nothing is"
        running = shared(linked(mode, enabled=False, carrier="independent"))
        link = running.wait_state("va", "vb", "disabled")
        assert (link["a"]["attached"], link["b"]["attached"]) == (True, True)
        here.drain()
        assert exchange(here, there, questions, timeout=0.3).missing == questions
        poll(lambda: running.link()["a"]["dropped"]["no_entry"] == len(questions))
        assert not running.link()["a"]["passed_to_host"], "or unknown, before Linux 6.4"
        assert here.drain() == []
        running.write(linked(mode, carrier="independent"))
        running.connected()
        delivery = exchange(here, there, questions)
        assert delivery.exact, delivery
        assert collect(here, 1, 0.3) == []
        running.stop()
        here.send(neighbour_solicitation(link_local(lab, "va")))
        assert poll(lambda: answers(here.drain()), what="an answer of the host, as found")


@MODES
def test_the_host_is_not_heard_from_the_first_moment_on(lab: Lab, shared: Start, mode: str) -> None:
    """Ends are set up, or made again: no router solicitation, no MLD, no DAD comes out."""
    a, b, loud = (lab.veth(end, up=False) for end in ("va", "vb", "vc"))
    with a.port() as here, b.port() as there, loud.port() as control:
        lab.ip("link set vc up")
        running = shared(linked(mode)).connected()
        poll(control.drain, what="the host talks on an interface that is not wired")
        assert collect(here, 1, 1.2) + there.drain() == []
        for up in (True, False):
            since = running.mark()
            lab.delete("va")
            running.wait_link("waiting", "va", "vb", since=since)
            lab.veth("va", namespace=a.namespace, up=up)
            running.wait_link("connected", "va", "vb", since=since)
            there.drain()
            assert collect(there, 1, 1.2) == []


@MODES
def test_what_programs_send_is_dropped_and_counted(lab: Lab, shared: Start, mode: str) -> None:
    """lldpd and DHCP clients write to a raw socket on the host's end."""
    (a,), tap = lab.veths("va"), lab.tap("vb")
    discover = ether(0x0800, b"\x45" + noise(299), BROADCAST)
    speakers = [inside(lab.host, lambda end=end: Port(end)) for end in ("va", "vb")]  # type: ignore[misc]
    with a.port() as here, speakers[0], speakers[1]:
        assert LLDP not in exchange(speakers[0], here, [LLDP]).missing, "the sender is broken"
        running = shared(linked(mode)).connected()
        here.drain(), tap.drain()
        for speaker in speakers:
            for frame in [LLDP, discover] * 10:
                with contextlib.suppress(OSError):  # it may be told that it went nowhere
                    speaker.send(frame)
        assert collect(here, 1, 0.3) + tap.drain() == []
        link = running.link()
        counted = [link[end]["dropped"]["host_egress"] for end in "ab"]
        assert min(counted) >= 20, counted
        crosses(here, tap, [LLDP, discover])
        running.stop()
        assert LLDP not in exchange(speakers[0], here, [LLDP]).missing


@MODES
def test_what_programs_tell_everybody_is_dropped(lab: Lab, shared: Start, mode: str) -> None:
    """The kernel receives a copy of it by the interface that it leaves by, as if from the wire."""
    stations = lab.veths("va", "vb", "vc", "loud")
    lab.ip("address", "add", f"{HOST}/32", "dev", "lo")
    lab.ip("address", "add", "fd00::1/128", "dev", "lo", "nodad")
    with contextlib.ExitStack() as stack:
        here, there, waiting, loud = (stack.enter_context(each.port()) for each in stations)
        inside(lab.host, lambda: _tell_everybody("loud"))
        poll(lambda: sum(b"to everybody" in x for x in loud.drain()) == 3)
        running = shared(
            linked(mode) | {"vc": {"to": "vd", "mode": mode, "carrier": "independent"}}
        ).connected()
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
