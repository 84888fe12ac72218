"""Ends that are held: an interface that the file names is silent from the moment it is seen.

Whatever its partner does, unless the host uses it. What a router on the wire made the host
believe is no use.
"""

from __future__ import annotations

import json
import time
from contextlib import closing

import pytest

from .frames import answers, arp_request, neighbour_solicitation, router_advertisement
from .lab import Lab, holds, poll
from .service import Start, linked
from .test_silence import HOST, link_local
from .traffic import Port, exchange

OFF = (("ve", "vf", "auto"), ("vg", "vh", "tc"))


def believed(lab: Lab, end: str) -> list[str]:
    """What the host has on an end but for its link-local address: addresses, routes, routers."""
    addresses = json.loads(lab.ip(f"-j -6 address show dev {end} scope global"))
    routes = json.loads(lab.ip(f"-j -6 route show dev {end}"))
    found = [each["local"] for one in addresses for each in one["addr_info"] if each]
    found += [each["dst"] for each in routes if not each["dst"].startswith("fe80")]
    neighbours = json.loads(lab.ip(f"-j -6 neighbour show dev {end}"))
    return [*found, *(each["dst"] for each in neighbours if "router" in each)]


def teach(lab: Lab, port: Port, end: str, **lifetimes: int) -> None:
    def has_learnt() -> bool:
        port.send(router_advertisement(**lifetimes))
        return len(believed(lab, end)) >= 4  # an address, its prefix, the default route, its router

    poll(has_learnt, what="the host believes a router", interval=0.1)


def assert_silent(lab: Lab, here: Port, questions: list[bytes]) -> None:
    """And deaf: it believes no router. Also when a program of the host speaks."""
    here.drain()
    for frame in [*questions, router_advertisement()]:
        here.send(frame)
    lab.run("ping", "-6", "-c1", "-W0.2", "-I", "va", "ff02::1", check=False)
    holds(lambda: not here.drain() and not believed(lab, "va"), 0.4)


@pytest.mark.parametrize("why", ["waiting", "disabled", "failed"])
def test_the_end_that_is_there_is_silent_and_drops(lab: Lab, shared: Start, why: str) -> None:
    """The link waits, is disabled with one end missing, or failed for the partner's sake."""
    a = lab.veth("va")
    lab.ip(f"address add {HOST}/32 dev lo")
    questions = [arp_request(HOST), neighbour_solicitation(link_local(lab, "va"))]
    if why == "failed":
        lab.veth("vb")
        lab.bridge("br0", "vb")
    with a.port() as here:
        for question in questions:
            here.send(question)
            assert poll(lambda: answers(here.drain())), "the host should answer while nothing is"
        running = shared(linked(enabled=why != "disabled", carrier="independent"))
        link = running.wait_state("va", "vb", why)
        assert (link["a"]["attached"], link["b"]["attached"]) == (True, False)
        assert_silent(lab, here, questions)
        poll(lambda: running.link()["drops"] != link["drops"], what="drops are counted")
        if why == "disabled":
            assert running.cli("doctor").returncode == 0, "a plug that is pulled is no fault"
        for _ in range(2 if why == "waiting" else 0):  # a container that restarts
            since = running.mark()
            b = lab.veth("vb")
            running.wait_link("connected", "va", "vb", since=since)
            with b.port() as there:
                assert exchange(here, there, questions).exact
            lab.delete("vb")
            here.send(router_advertisement())
            running.wait_link("waiting", "va", "vb", since=since)
            assert_silent(lab, here, questions)
            lab.run("ip", "netns", "delete", b.namespace)
        assert running.events("interface.ra_removed") == []
        running.write("links: {}\n")
        running.wait_event("link.disconnected")
        here.send(questions[0])
        assert poll(lambda: answers(here.drain()), what="an answer of the host, as found")


def test_a_held_end_stays_so_over_a_crash_a_bad_file_and_a_rename(lab: Lab, shared: Start) -> None:
    """Nor does one of a link that is disabled begin to forward."""
    lab.veths("va", "ve", "vf", "vg", "vh")
    found = lab.settled()
    wiring = {"va": "vb", "vc": "vd"}
    wiring |= {a: {"to": b, "mode": m, "enabled": False} for a, b, m in OFF}
    running = shared(wiring)
    held, program = lab.snapshot(), lab.xdp("va")
    assert program
    running.kill()
    running.write("links: [\n")
    running.start()
    assert lab.snapshot() == held
    assert "disabled" in running.states()
    lab.veth("vb")
    holds(lambda: lab.xdp("va") == program and not lab.xdp("vb"), 0.3)
    lab.delete("vb")
    running.kill()
    running.write(wiring)
    running.start()
    assert lab.snapshot() == held
    lab.batch(["link set va down", "link set va name vx"])
    poll(lambda: not lab.xdp("vx"), what="an end without a link is detached")
    lab.batch(["link set vx down", "link set vx name va", "link set va up"])
    poll(lambda: lab.xdp("va"), what="it is held again")
    running.stop()
    # The address that the kernel took when the end was set down comes with the next "up".
    poll(lambda: lab.snapshot()["links"] == found["links"], what="the links as found")


def test_a_host_that_uses_a_held_end_gets_it_back(lab: Lab, shared: Start) -> None:
    lab.veth("va", up=False), lab.veth("vc")
    running = shared({"va": "vb", "vc": "vd"})
    poll(lambda: lab.xdp("va") and lab.xdp("vc"))
    assert "UP" not in lab.link("va")["flags"]
    lab.ip("address add 203.0.113.7/24 dev vc")
    poll(lambda: not lab.xdp("vc"), what="the host has its interface back")
    assert "203.0.113.7" in running.link("vc", "vd")["warnings"][0]
    lab.ip("address flush dev vc")
    poll(lambda: lab.xdp("vc"), what="it is held again")
    lab.veth("vb")
    running.wait_state("va", "vb", "connected")
    assert "UP" in lab.link("va")["flags"]


@pytest.mark.parametrize(("kind", "own_default"), [("veth", True), ("tap", False)])
def test_what_a_router_taught_is_removed(
    lab: Lab, daemon: Start, kind: str, own_default: bool
) -> None:
    """It spoke before the daemon came, and between a stop and a start; accept_ra is as it is."""
    station = lab.veth("va")
    lab.veths("vb", "up0")
    if own_default:
        lab.ip("-6 address add 2001:db8::2/64 dev up0 nodad")
        lab.ip("-6 route add default via 2001:db8::1 dev up0")
    own = believed(lab, "up0")
    end = "va" if kind == "veth" else "tap0"
    with closing(station.port() if kind == "veth" else lab.tap("tap0")) as router:
        teach(lab, router, end)
        running = daemon({end: "vb"})
        (told,) = running.events("interface.ra_removed")
        assert (told["interface"], told["link"]) == (end, running.link(end, "vb")["link"])
        assert "fd00:77::" in told["reason"]
        assert "the default route uses it" in told["reason"]
        for again in (True, False):
            running.wait_state(end, "vb", "connected")
            assert believed(lab, end) == []
            router.send(router_advertisement())
            holds(lambda: not believed(lab, end), 0.2)
            assert believed(lab, "up0") == own
            if again:
                running.stop()
                teach(lab, router, end, lifetime=0xFFFF, prefix=0xFFFFFFFF)
                running.start()


def test_doctor_prints_what_frees_an_end_and_it_is_tried_at_once(lab: Lab, shared: Start) -> None:
    """Two links with an end that the host uses: by addresses of both families, and by a route."""
    lab.veths("va", "vb", "vc", "vd")
    lab.ip("address add 203.0.113.7/24 dev va")
    lab.ip("address add 2001:db8:7::7/64 dev va nodad")
    lab.ip("route add 198.51.100.0/24 via 203.0.113.9 dev va")
    lab.ip("-6 route add 2001:db8:9::/64 dev vc")
    running = shared({"va": "vb", "vc": "vd"})
    findings = json.loads(running.cli("doctor", "--json").stdout)["findings"]
    remedies = [each["remedy"] for each in findings if each["check"] == "in use"]
    time.sleep(1.5)  # its own tries are seconds apart by then
    for remedy, (a, b) in zip(remedies, (("va", "vb"), ("vc", "vd")), strict=True):
        assert f"dev {a}" in remedy
        lab.run("sh", "-c", remedy, check=False)
        started = time.monotonic()
        running.wait_link("connected", a, b)
        assert time.monotonic() - started < 0.5
    assert running.cli("wait", "--timeout", "5").returncode == 0
