"""The contract's promises, each on a real kernel."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from xconnectd.api import Xconnect
from xconnectd.netlink.transport import Route

from .frames import ether, noise
from .lab import (
    PROG_TC,
    PROG_XDP,
    TC_CONTINUE,
    XDP_PASS,
    Lab,
    delete_entry,
    entries,
    holds,
    inside,
    poll,
    run,
)
from .service import MODES, PAIR, Start, linked
from .traffic import Stream, cut, exchange, lossless, wait_flows, wired


def assert_held(lab: Lab, *ends: str) -> None:
    """Our programs are on an end and its own talk is off: silent, and dropping."""

    def is_held(end: str) -> bool:
        takes = lab.xdp(end) or "xconnectd" in lab.tc("filter", "show", "dev", end, "ingress")
        silent = "xconnectd" in lab.tc("filter", "show", "dev", end, "egress")
        return bool(takes) and silent and lab.link(end)["inet6_addr_gen_mode"] == "none"

    poll(lambda: all(map(is_held, ends)), what=f"{ends} are held")


def test_bad_links_of_every_kind_keep_no_other_from_working(lab: Lab, shared: Start) -> None:
    a, b, *_ = lab.veths("va", "vb", "foreign", "port", "lockout", *(f"x{n}" for n in range(1, 6)))
    lab.foreign_xdp("foreign")
    lab.bridge("br0", "port")
    lab.ip("address add 203.0.113.5/24 dev lockout")
    lab.pair("c1", "c2")
    lab.ip("link add link x4 name mt0 type macvtap")
    bad = {"foreign": "x1", "x4": "nosuch", "port": "x2", "lockout": "x3", "c1": "c2", "mt0": "x5"}
    running = shared(bad | PAIR).connected()
    with lossless(a, b):
        running.write(PAIR)
        poll(lambda: len(running.ask("status")["links"]) == 1)
        running.write(bad | PAIR)
        for one, other in bad.items():
            state = "waiting" if other == "nosuch" else "failed"
            assert running.wait_state(one, other, state)["reason"]
        running.crash()
        assert running.link()["state"] == "connected"


@pytest.mark.parametrize(("mode", "order"), [("auto", ("va", "vb")), ("tc", ("vb", "va"))])
def test_of_a_bad_end_the_other_is_held(
    lab: Lab, shared: Start, mode: str, order: tuple[str, str]
) -> None:
    lab.veths("va", "vb")
    program = 0
    if mode == "auto":
        program = lab.foreign_xdp("vb")
    else:
        path = lab.program(PROG_TC, XDP_PASS, "foreign")
        lab.tc("qdisc add dev vb clsact")
        lab.tc(f"filter add dev vb ingress bpf da pinned {path}")
    running = shared({order[0]: {"to": order[1], "mode": mode}})
    running.wait_state("va", "vb", "failed")
    assert_held(lab, "va")
    assert lab.xdp("vb") == program


@MODES
def test_an_end_that_goes_leaves_the_other_held(lab: Lab, shared: Start, mode: str) -> None:
    lab.veths("va", "vb")
    running = shared(linked(mode)).connected()
    assert any(map(entries, lab.wiring_maps()))
    lab.delete("vb")
    running.wait_link("waiting", "va", "vb")
    assert_held(lab, "va")
    assert not any(map(entries, lab.wiring_maps()))


def _delete_entries(lab: Lab) -> None:
    for path in lab.wiring_maps():
        for key in entries(path):
            delete_entry(path, key)


def _redirect(lab: Lab) -> None:
    """An entry that is there and leads elsewhere."""
    lab.change_maps(lambda plane: plane.point(lab.ifindex("va"), lab.ifindex("lo")))


HARMS: dict[str, str | Callable[[Lab], None]] = {
    "program": "ip link set va xdpgeneric off",
    "entries": _delete_entries,
    "elsewhere": _redirect,
    "mtu": "ip link set va mtu 1500",
    "addresses": "ip link set va addrgenmode eui64",
    "ingress": "tc filter delete dev va ingress",
    "egress": "tc filter delete dev va egress",
    "clsact": "tc qdisc delete dev va clsact",
}
DRIFT = [("auto", harm) for harm in HARMS if harm != "ingress"]
DRIFT += [("tc", harm) for harm in ("ingress", "egress", "clsact", "entries")]


@pytest.mark.parametrize(("mode", "name"), DRIFT)
def test_drift_is_repaired_in_a_second_and_told(
    lab: Lab, shared: Start, mode: str, name: str
) -> None:
    a, b = lab.veths("va", "vb")
    running = shared(linked(mode)).connected()
    before = _owned(lab)
    assert any(before["entries"]), "the daemon's maps are not where they are looked for"
    harm = HARMS[name]
    harmed = datetime.now(UTC)
    lab.run(*harm.split()) if isinstance(harm, str) else harm(lab)
    told = running.wait_event("drift.repaired")
    poll(lambda: _owned(lab) == before, what="the repair")
    assert wired(a, b)
    took = datetime.fromisoformat(told["timestamp"]) - harmed
    assert took < timedelta(seconds=1.5), took


def _owned(lab: Lab) -> dict[str, Any]:
    """What of an end the daemon looks after, without what changes with each attachment."""
    link = lab.link("va")
    show = [f"-j filter show dev va {way}" for way in ("ingress", "egress")]
    return {
        "xdp": lab.xdp("va") != 0,
        "mtu": link["mtu"],
        "addresses": link["inet6_addr_gen_mode"],
        "clsact": "clsact" in lab.tc("qdisc show dev va"),
        "filters": [lab.tc(each, check=False).count('"bpf"') for each in show],
        "entries": [entries(path) for path in lab.wiring_maps()],
    }


def test_without_drift_nothing_is_changed(lab: Lab, shared: Start) -> None:
    """The kernel announces what changes; a daemon that has nothing to do causes nothing."""
    lab.veths("va", "vb", "vc", "vd")
    running = shared(PAIR | {"vc": {"to": "vd", "mode": "tc"}}).connected("vc", "vd")
    running.idle()
    log = running.text()
    watched = lab.run("timeout", "2.2", "ip", "monitor", "link", check=False).stdout
    assert (watched, running.text()) == ("", log)


@pytest.mark.parametrize("admin", ["manage", "keep"])
def test_who_sets_an_end_down_is_not_contradicted(lab: Lab, shared: Start, admin: str) -> None:
    """Neither the operator, nor the container whose side has no carrier."""
    a, b = lab.veth("va", up=admin == "manage"), lab.veth("vb")
    is_down = lambda: "UP" not in lab.link("va")["flags"]  # noqa: E731
    running = shared(linked(admin=admin))
    if admin == "keep":
        running.wait_state("va", "vb", "down")
        holds(is_down, 0.3)
        lab.ip("link set va up")
    poll(lambda: wired(a, b))
    for ip, interface, end in ((b.ip, "eth0", "vb"), (lab.ip, "va", "va")):
        since = running.mark()
        ip(f"link set {interface} down")
        running.wait_link("down", "va", "vb", since=since)
        assert end in running.link()["reason"]
        if end == "va":
            holds(is_down, 1.2)
        assert running.events("drift.repaired", since) == []
        ip(f"link set {interface} up")
        running.wait_link("up", "va", "vb", since=since)
        poll(lambda: wired(a, b))
    lab.ip("link set va down")
    running.stop()
    assert is_down(), "what the operator set is the new found"


def test_a_foreign_program_is_not_replaced_and_its_going_seen(lab: Lab, shared: Start) -> None:
    """One that is there before us, and one that takes our place by force: also while we stop.

    Of an end that is down the kernel tells nobody until it is up, nor of ours that is taken off.
    """
    a, b = lab.veths("va", "vb")
    program = lab.foreign_xdp("vb", "somebody")
    taker = lab.program(PROG_XDP, XDP_PASS, "taker")
    running = shared(PAIR)
    link = running.wait_state("va", "vb", "failed")
    assert str(program) in link["reason"]
    assert "somebody" in link["reason"]
    running.write(PAIR | {"vc": "vd"})
    running.wait_link("waiting", "vc", "vd")
    assert lab.xdp("vb") == program
    lab.ip("link set vb xdpgeneric off")
    running.connected()
    assert wired(a, b)

    since = running.mark()
    lab.ip("link set vb down")
    running.wait_link("down", "va", "vb")
    lab.ip("link set vb xdpgeneric off")
    running.wait_event("drift.repaired")
    assert running.link()["state"] == "down"
    lab.ip(f"-force link set vb xdpgeneric pinned {taker}")
    event = running.wait_link("failed", "va", "vb", since=since)
    assert str(lab.xdp("vb")) in event["reason"]
    lab.ip("link set vb up xdpgeneric off")
    running.wait_state("va", "vb", "connected")

    lab.ip(f"-force link set vb xdpgeneric pinned {taker}")
    program = lab.xdp("vb")
    assert str(program) in running.wait_state("va", "vb", "failed")["reason"]
    assert_held(lab, "va")
    running.stop()
    assert (lab.xdp("va"), lab.xdp("vb")) == (0, program)


ALLOWABLE = {
    "address": "ip address add 203.0.113.5/28 dev {}",
    "address v6": "ip address add 2001:db8:5::5/64 dev {} nodad",
    "route": "ip route add 203.0.113.16/28 dev {}",
    "default route": "ip route add default dev {}",
    "route v6": "ip route add 2001:db8:7::/48 dev {}",
    "macvlan": "ip link add link {} name mv0 type macvlan",
    "macvlan elsewhere": "ip link add link {} name mv1 type macvlan; ip link set mv1 netns {box}",
    "vlan": "ip link add link {} name va.5 type vlan id 5",
    "vxlan": "ip link add vx0 type vxlan id 5 dstport 4789 dev {}",
}
NEVER = {
    "bridge": "ip link add br0 type bridge; ip link set {} master br0",
    "bond": "ip link add bond0 type bond; ip link set {} down; ip link set {} master bond0",
    "vrf": "ip link add vrf0 type vrf table 10; ip link set {} master vrf0",
}


def _is_known(use: str) -> bool:
    """Some kernels are built without VLANs, bonds or VRFs; ``tests/kernels`` has some with all."""
    add = ("unshare", "-n", "ip", "link", "add", "probe0", "type", use)
    may_lack = use in ("vlan", "bond", "vrf")
    return not (may_lack and "Unknown device type" in run(*add, check=False).stderr)


def test_an_interface_that_the_host_uses_is_refused_unless_allowed(lab: Lab, shared: Start) -> None:
    """And its partner is held. A changed link is judged as a new one, whatever it was allowed."""
    uses = {use: how for use, how in (ALLOWABLE | NEVER).items() if _is_known(use)}
    box, pairs = lab.namespace("box"), {use: (f"u{n}", f"w{n}") for n, use in enumerate(uses)}
    for use, (end, partner) in pairs.items():
        # whether something of another namespace stands on a veth or tap is not asked
        kind = "ifb" if use == "macvlan elsewhere" else "veth"
        lab.batch([f"link add {end} type {kind}", f"link add {partner} type veth"])
        lab.batch([f"link set {each} up" for each in lab.interfaces()])
        lab.run("sh", "-ec", uses[use].format(end, end, box=box))
    wiring = dict(pairs.values())
    running = shared(wiring)

    def assert_refused(*refused: str) -> None:
        for use in refused:
            end, partner = pairs[use]
            reason = running.wait_state(end, partner, "failed")["reason"]
            assert end in reason
            assert ("allow_addressed" in reason) is (use in ALLOWABLE), reason
            assert lab.xdp(end) == 0
            assert "clsact" not in lab.tc("qdisc", "show", "dev", end)
            assert_held(lab, partner)

    assert_refused(*uses)
    reason = running.link(*pairs["macvlan elsewhere"])["reason"]
    assert "mv1 of another namespace is on top of it" in reason
    running.write(f"defaults: {{allow_addressed: true}}\nlinks: {json.dumps(wiring)}\n")
    for use in uses.keys() & ALLOWABLE.keys():
        running.connected(*pairs[use])
    assert_refused(*uses.keys() & NEVER.keys())
    running.write(wiring)
    assert_refused(*uses)
    running.crash()
    assert running.states() == {"failed"}


def test_what_appears_on_a_connected_end_only_warns(lab: Lab, shared: Start) -> None:
    a, b = lab.veths("va", "vb")
    lab.ip("address add 203.0.113.5/24 dev va")
    running = shared(linked(allow_addressed=True)).connected()
    assert running.link()["warnings"] == [], "it is allowed"
    lab.ip("address flush dev va")
    running.write(PAIR)
    assert running.reload()
    lab.ip("link add br0 type bridge")
    for later in ("address add 203.0.113.6/24 dev va", "link set vb master br0"):
        with lossless(a, b):
            since = running.mark()
            lab.ip(later)
            poll(lambda: running.events(since=since, level="warning"), what="a warning in the log")  # noqa: B023
            link = running.link()
            assert link["warnings"]
            assert link["state"] == "connected"


def test_the_far_end_of_a_bridge_port_is_not_stood_on(lab: Lab, shared: Start) -> None:
    """What a bridge tells of its new port does not say that the port is a veth."""
    lab.pair("va", "vb"), lab.veth("vc")
    running = shared({"vc": "missing"})
    lab.bridge("br0", "va")
    running.write({"vb": "vc"})
    running.connected("vb", "vc")


ODD = {"va": "vb", "vc": {"to": "vd", "mode": "tc"}, "tap0": "tap0", "ve": "vg"}


@pytest.fixture
def odd_host(lab: Lab) -> dict[str, Any]:
    """A host whose ends are set in ways that must all come back."""
    lab.veths("va", "vb", "vd", "ve", "vg")
    lab.veth("vc", mtu=1400)
    lab.ip("link set vc down")  # once it has been up: that gives it its qdisc for good
    lab.tap("tap0")
    path = lab.program(PROG_TC, TC_CONTINUE, "accounting")
    lab.tc("qdisc add dev vd clsact")
    lab.tc(f"filter add dev vd egress bpf da pinned {path}")
    lab.ip("link set vd addrgenmode random alias untouchable")
    lab.batch(
        [
            "link set vb mtu 9000 promisc on",
            "link property add dev vd altname a-name-longer-than-fifteen",
            # Too small for IPv6: our headroom gives it to them, the kernel takes it with the MTU.
            "link set ve mtu 1279",
            "link set vg mtu 68",
        ]
    )
    return lab.settled()


def test_everything_is_as_found_in_the_end(
    lab: Lab, odd_host: dict[str, Any], shared: Start
) -> None:
    running = shared(ODD)

    def connected() -> None:
        for a, b in (("va", "vb"), ("vc", "vd"), ("tap0", "tap0"), ("ve", "vg")):
            running.wait_state(a, b, "connected")
        assert "accounting" in lab.tc("filter show dev vd egress")
        assert lab.link("ve")["inet6_addr_gen_mode"] == "none"

    connected()
    assert lab.snapshot() != odd_host
    running.write("links: {}\n")
    running.wait_link("disconnected", "tap0", "tap0")
    lab.assert_as_found(odd_host)
    running.write(ODD)
    connected()
    running.crash()
    connected()
    running.signal(signal.SIGINT)
    assert running.wait() == 0
    assert running.events()[-1]["event"] == "daemon.stopped"
    lab.assert_as_found(odd_host)
    assert not lab.pins.exists()


def test_a_setting_that_somebody_else_changed_meanwhile_stays(lab: Lab, shared: Start) -> None:
    lab.veth("va"), lab.veth("vb", up=False)
    running = shared(PAIR).connected()
    running.kill()
    lab.batch(["link set va mtu 4000", "link set vb addrgenmode random"])
    done = running.cli("detach", "--all")
    assert done.returncode == 0, done.stderr
    left = [(lab.link(x)["mtu"], lab.link(x)["inet6_addr_gen_mode"]) for x in ("va", "vb")]
    assert left == [(4000, "eui64"), (1500, "random")]


@MODES
def test_an_end_that_moves_away_takes_no_frame_along(lab: Lab, shared: Start, mode: str) -> None:
    """Its key goes at once; its number, used again, is no key of the program out there."""
    a, b = lab.veth("va"), lab.veth("vb", index=700)
    away = lab.namespace("away", quiet=True)
    running = shared(linked(mode)).connected()
    lab.move(away, "vb")
    running.wait_link("waiting", "va", "vb")
    run("ip", "link", "set", "vb", "up", namespace=away)
    frames = [ether(0x88B6, noise(80))]
    with a.port() as here, b.port() as there:
        assert exchange(there, here, frames, 0.3).missing == frames
    if mode == "auto":
        remedy = rf"vb xdp\w* off|xdp\w* off.*vb|{away}.*vb.*off"
        poll(lambda: re.search(remedy, running.text()), 2, "what to run, in the log")
        assert re.search(remedy, json.dumps(running.status())), "and in status"
    c = lab.veth("vc", index=700)
    running.write({"va": "vc"})
    poll(lambda: wired(a, c))
    with a.port() as here, b.port() as there, c.port() as third:
        assert exchange(there, here, frames, 0.3).missing == frames
        assert frames[0] not in third.drain()
    lab.delete("vc")
    running.write(linked(mode))
    run("ip", "link", "set", "vb", "netns", lab.host, namespace=away)
    poll(lambda: wired(a, b), what="it is back")


def test_a_cycle_is_failed_and_named_and_a_chain_is_none(lab: Lab, shared: Start) -> None:
    """The link that closes it, that is: the last in the file, also when it comes later."""
    a, b = lab.veths("va", "vb")
    for pair in "cdef":
        lab.pair(f"{pair}1", f"{pair}2")
    chain = {"va": "f1", "f2": "vb"}
    running = shared({"c1": "d2", "e1": "e1"} | chain).connected("c1", "d2")
    running.write({"c1": "d2", "e1": "e1"} | chain | {"c2": "d1", "e2": "e2"})
    for last, ends in ((("c2", "d1"), "c1 c2 d1 d2"), (("e2", "e2"), "e1 e2")):
        reason = running.wait_state(*last, "failed")["reason"]
        assert all(end in reason for end in ends.split()), reason
    frames = [lab.link_counters(end) for end in ("c1", "e1")]
    time.sleep(0.3)
    now = [lab.link_counters(end) for end in ("c1", "e1")]
    assert all(b - a < 50 for a, b in zip(frames, now, strict=True)), "frames circle"
    assert wired(a, b)


def test_an_altname_is_a_name_also_when_it_is_given_later(lab: Lab, shared: Start) -> None:
    """Also of an interface whose name is no UTF-8: what we see and record has that one."""
    a, b = lab.veths("va", "vb")
    name, odd = "clab-leaf1-eth1-of-my-lab", os.fsdecode(b"x\xff\x1b")
    running = shared({name: "vb"})
    running.wait_link("waiting", name, "vb")
    lab.ip(f"link property add dev va altname {name}")
    running.connected(name, "vb")
    lab.ip("link set va down")
    lab.ip(f"link set va name {odd}")
    running.wait_event("link.down")
    lab.ip(f"link set {odd} up")
    poll(lambda: wired(a, b))
    lab.ip(f"address add 203.0.113.5/24 dev {odd}")
    poll(lambda: running.link(name, "vb")["warnings"], what="a warning in status")
    assert "x��: it has the address 203.0.113.5/24" in running.cli("status").stdout
    lab.ip(f"link set {odd} down")  # before Linux 6.2 none that is up gets another name
    lab.ip(f"link set {odd} name va")  # what has the name that was noted is looked for
    lab.ip("link set va up")
    running.wait_state(name, "vb", "connected")
    running.write({"vb": "missing"})
    running.wait_link("waiting", "vb", "missing")
    assert cut(a, b)
    running.stop()
    assert lab.link("va")["altnames"] == [name]


def test_a_renamed_end_leaves_its_link(lab: Lab, shared: Start) -> None:
    a, b, _ = lab.veths("va", "vb", "vc")
    lab.ip("link property add dev va altname also-va")
    running = shared(PAIR | {"also-va": "vc"})
    assert "va" in running.wait_state("also-va", "vc", "failed")["reason"].replace("also-va", "")
    assert_held(lab, "vc")
    lab.batch(["link set vb down", "link set vb name vz", "link set vz up"])
    running.wait_link("waiting", "va", "vb")

    def found() -> tuple[int, int, str, bool]:
        link, clsact = lab.link("vz"), "clsact" in lab.tc("qdisc show dev vz")
        return lab.xdp("vz"), link["mtu"], link["inet6_addr_gen_mode"], clsact

    poll(lambda: found() == (0, 1500, "eui64", False), 10, "vz is as found")
    assert cut(a, b)
    running.write({"va": "vz"})
    poll(lambda: wired(a, b))


_WITH_RTNL = {19, 36, 37, 44, 45}
"""RTM_SETLINK, and qdiscs and filters that are made or deleted."""


def test_both_directions_work_at_once_whoever_holds_rtnl(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A move to a new end, and one that changes the mode as well; a mode alone costs no frame.

    Every change of an interface waits, as while somebody deletes thousands of them.
    """
    real = Route.exchange

    def slow(route: Route, request: bytes, ifindex: int | None = None) -> Any:
        if int.from_bytes(request[4:6], sys.byteorder) in _WITH_RTNL:
            time.sleep(0.15)
        return real(route, request, ifindex)

    monkeypatch.setattr(Route, "exchange", slow)
    monkeypatch.setenv("XCONNECTD_STATE_DIR", str(lab.directory / "state"))
    stations = {end: lab.veth(end) for end in ("va", "vb", "vc")}

    def change(wires: Xconnect, end: str, mode: str) -> Stream:
        with Stream(stations["va"], stations[end], rate=500) as stream:
            wires.update({"va": {"to": end, "mode": mode}})
            wait_flows(stream)
        return stream

    def moves() -> list[Stream]:
        with Xconnect({"va": {"to": "vb", "mode": "generic"}}) as wires:
            changes = [("vc", "generic"), ("vb", "tc"), ("vc", "generic"), ("vc", "tc")]
            return [change(wires, *each) for each in changes]

    *moved, changed = inside(lab.host, moves)
    for stream in moved:
        forth, back = (min(way.seen) for way in stream.ways)
        assert abs(forth - back) < 25, f"one way for {abs(forth - back) * 2} ms"
    changed.assert_perfect()
