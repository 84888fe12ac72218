"""Findings of a link: every fault has its name, its remedy, and its place in the order."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest
from builders import NATIVE, SILENT, end_report, link, link_report, look_at_pair, veth, wired

from xconnectd.diagnostics import config_checks, link_checks
from xconnectd.diagnostics.facts import FarSide, LinkFacts
from xconnectd.diagnostics.finding import Finding, Level, Stops
from xconnectd.model import (
    Change,
    Far,
    Filter,
    Link,
    Mode,
    MovedEnd,
    NodeEnd,
    Record,
    Setting,
    Use,
    Xdp,
    XdpFeature,
)
from xconnectd.reconcile import evaluate

WARN, FAIL = Level.WARN, Level.FAIL
NOTHING, OFFLOADED, LONG, SOME, ALL = Stops
REPAIR = "systemctl start xconnectd"
A = wired(5, "a", mtu=65535)
B = wired(6, "b", mtu=65535, far=Far(2, 1, "eth0"))
FAR_A = FarSide(veth(2, "eth0"), "nsenter --net=/run/netns/a ")
FAR_B = FarSide(veth(2, "eth0"), "nsenter --net=/run/netns/b ")
TAP = B._replace(kind="tun", variant="tap", far=None)
NIC = B._replace(kind="", mtu=1500, far=None)
BARE = {"xdp": (), "ingress": (), "egress": ()}


def facts(one: Link | None = None, **seen: Any) -> LinkFacts:
    """A good link of ``a`` and ``b``, but for what is said: ends, what stands behind, the maps."""
    far = {5: seen.pop("far_a", FAR_A), 6: seen.pop("far_b", FAR_B)}
    failure, passed = seen.pop("failure", ""), seen.pop("passed", {})
    observed = look_at_pair(seen.pop("a", A), seen.pop("b", B), **seen)
    (judged,) = evaluate.evaluate([one or link("a", "b")], observed)
    known = {number: side for number, side in far.items() if side}
    return LinkFacts(judged, observed, known, failure, REPAIR, "/etc/x.yaml", passed=passed)


def in_tc(**seen: Any) -> LinkFacts:
    ends = {"a": wired(5, "a", "tc"), "b": wired(6, "b", "tc", far=Far(2, 1, "eth0"))}
    maps: dict[str, Any] = {"entries": {}, "peers": {5: 6, 6: 5}}
    changed = {key: ends[key]._replace(**seen.pop(key, {})) for key in ends if key in seen}
    return facts(link("a", "b", mode=Mode.TC), **{**ends, **changed, **maps, **seen})


def native(far_b: FarSide = FAR_B, **of_b: Any) -> LinkFacts:
    a, b = (wired(n, name, "native", xdp_features=NATIVE) for n, name in ((5, "a"), (6, "b")))
    return facts(link("a", "b", mode=Mode.NATIVE), a=a, b=b._replace(**of_b), far_b=far_b)


def far(side: FarSide, **changes: Any) -> FarSide:
    return replace(side, interface=side.interface._replace(**changes))


def found(seen: LinkFacts, check: str) -> Finding:
    return next(each for each in link_checks.of_link(seen) if each.check == check)


def test_a_good_link_has_one_good_word() -> None:
    (good,) = link_checks.of_link(facts())
    assert (good.level, good.check, good.remedy) == (Level.OK, "link", "")
    assert link_checks.of_link(facts(failure="it was busy")) == (good,)
    plug: dict[str, Any] = {"one": link("a", "a"), "names": {"a": 5}, "far_b": None}
    assert link_checks.of_link(facts(**plug, entries={5: 5}))[0].level is Level.OK
    walked_once = link_checks.of_link(facts(**plug, entries={}))
    assert [each.check for each in walked_once] == ["entry"]


AWAY = "node leaf is not running"
OFF = link("a", "b", enabled=False)
GONE = MovedEnd(Record(6, "b", "02:00"), "generic", 3, 9, "blue", "b")
DOWN_B = far(FAR_B, up=False)
USES = (
    "it has the address 192.0.2.1/24",
    "it has the address 192.0.2.2/24",
    "the default route uses it",
)
ENDED = ("ip addr flush dev a", "ip addr flush dev a", "ip route del default dev a")
IN_USE = {5: tuple(map(Use, USES, ENDED))}
HERE = {"a": A._replace(far=Far(6, None, "b")), "b": B._replace(far=Far(5, None, "a"))}
SUMS = replace(FAR_B, features=frozenset({"tx-checksum-ip-generic"}))
TAGS = replace(FAR_B, features=frozenset({"tx-vlan-hw-insert"}))
FREE = "ip addr flush dev a; ip route del default dev a  # or in /etc/x.yaml: allow_addressed"

Case = tuple[LinkFacts, str, Level, Stops, str, str]
CASES: list[Case] = [
    (facts(names={"a": 5}), "interface", FAIL, ALL, "b does not exist", "ip -br link  #"),
    (facts(link("a", "leaf:eth0"), names={"a": 5}, nodes={"leaf:eth0": NodeEnd(waiting=AWAY)}),
     "node", FAIL, ALL, AWAY, "start node leaf, or say in /etc/x.yaml below nodes where it is"),
    (facts(link("a", "leaf:eth0"), names={"a": 5}, nodes={"leaf:eth0": NodeEnd(is_missing=True)}),
     "node", FAIL, ALL, "leaf:eth0 does not exist", REPAIR),
    (facts(names={"a": 5}, moved_netns=(GONE,)), "interface", FAIL, ALL,
     "it was moved to the namespace blue", "ip -n blue link set dev b netns 1"),
    (facts(OFF, entries={}), "disabled", WARN, ALL, "enabled: false", "/etc/x.yaml: enabled: true"),
    (facts(OFF, entries={}, names={}), "disabled", WARN, ALL, "enabled: false", "enabled: true"),
    (facts(OFF, entries={5: 6}), "entry", WARN, NOTHING, "a (key 5) still forwards to", REPAIR),
    # Interfaces.
    (facts(b=B._replace(up=False)), "down", FAIL, ALL, "b is admin", "ip link set dev b up"),
    (facts(a=A._replace(up=False), records={5: Record(5, "a", A.mac, {Setting.UP: Change(1, 0)})}),
     "down", FAIL, ALL, "a is down: xconnectd has not set it up again", REPAIR),
    (facts(link("a", "leaf:eth0"), names={"a": 5, "leaf:eth0": 6}, b=B._replace(carrier=False),
           far_b=replace(DOWN_B, node="leaf")), "far end down", FAIL, ALL, "eth0 in leaf is admin",
     "nsenter --net=/run/netns/b ip link set dev eth0 up"),
    (facts(b=B._replace(carrier=False), far_b=DOWN_B), "far end down", FAIL, ALL,
     "eth0, the far end of b, is admin", "nsenter --net=/run/netns/b ip link set dev eth0 up"),
    (facts(b=B._replace(carrier=False), far_b=replace(DOWN_B, prefix=None)), "far end down", FAIL,
     ALL, "eth0", "# in the namespace where it is now: ip "),
    (in_tc(b={"kind": "tun", "variant": "tap", "carrier": False}, far_b=None), "carrier", FAIL, ALL,
     "b has no carrier", "ip link set dev b carrier on"),
    (in_tc(b={"kind": "", "carrier": False}, far_b=None), "carrier", FAIL, ALL,
     "b has no carrier", "cable"),
    # What is ours.
    (facts(a=A._replace(xdp=())), "program", FAIL, ALL, "our XDP program is not on a", REPAIR),
    (facts(a=A._replace(xdp=(Xdp("native", 101),))), "program", FAIL, ALL,
     "a runs our program in native mode", REPAIR),
    (facts(entries={5: 6}), "entry", FAIL, ALL, "no entry for b in the devmap (key 6)", REPAIR),
    (facts(entries={5: 9, 6: 5}), "entry", FAIL, ALL,
     "a (key 5) forwards to ifindex 9, not to b (6)",
     REPAIR),
    (in_tc(peers={5: 6}), "entry", FAIL, ALL, "no entry for b in the peers map (key 6)", REPAIR),
    (facts(peers={5: 6}), "entry", FAIL, SOME, "peers map (key 6): frames that tc", REPAIR),
    (facts(a=A._replace(ingress=())), "filter", FAIL, SOME,
     "a lacks our ingress filter: frames that tc", REPAIR),
    (in_tc(b={"ingress": ()}), "filter", FAIL, ALL, "b lacks our ingress filter", REPAIR),
    (in_tc(b={"ingress": (), "egress": (), "qdisc": ""}), "filter", FAIL, ALL,
     "b lacks clsact", REPAIR),
    (facts(a=A._replace(egress=())), "egress_drop", WARN, NOTHING,
     "the host can send into the wire", REPAIR),
    (facts(a=A._replace(xdp=()), failure="a: attach: Peer MTU is too large"), "refused", FAIL, ALL,
     "Peer MTU is too large", REPAIR),
    # What is somebody else's.
    (facts(a=A._replace(xdp=(Xdp("native", 77),)), foreign={77: "id 77 (x)"}), "foreign program",
     FAIL, ALL, "not ours: id 77 (x)", "ip link set dev a xdpdrv off  # if nobody needs it"),
    (facts(a=A._replace(xdp=(Xdp("hw", 77),))), "foreign program", FAIL, ALL, "id 77",
     "ip link set dev a xdpoffload off"),
    (in_tc(a={"ingress": (Filter("flower", 7, 1, 0),)}), "foreign filter", FAIL, ALL,
     "a has a tc ingress filter that is not ours", "tc filter del dev a ingress pref 7"),
    (in_tc(b={"egress": (SILENT, Filter("u32", 5, 1, 0))}), "foreign filter", WARN, SOME,
     "b has a tc egress filter that is not ours", "tc filter del dev b egress pref 5"),
    (facts(b=B._replace(qdisc="ingress")), "foreign filter", FAIL, ALL, "ingress qdisc",
     "tc qdisc del dev b ingress"),
    (facts(b=B._replace(**BARE, master=3, master_kind="bridge")), "port", FAIL, ALL,
     "b is a port of a bridge", "ip link set dev b nomaster"),
    (facts(b=B._replace(**BARE, master=3, master_kind="openvswitch")), "port", FAIL, ALL,
     "b is a port of a openvswitch", "ovs-vsctl del-port b"),
    (facts(a=A._replace(**BARE), uses=IN_USE), "in use", FAIL, ALL, "192.0.2.1/24", FREE),
    (facts(a=A._replace(**BARE), uses={5: (Use("mv of another namespace"),)}), "in use", FAIL, ALL,
     "another namespace", "take that off, or in /etc/x.yaml"),
    (facts(**HERE), "refused", FAIL, ALL, "circle", "change the link in /etc/x.yaml"),
    # It became a port while it was held: that is a warning, and no reason.
    (facts(**HERE | {"a": HERE["a"]._replace(master=3)}), "refused", FAIL, ALL, "circle", "/etc/x"),
    # Native mode.
    (native(xdp_features=XdpFeature.BASIC | XdpFeature.REDIRECT), "far end not polling", FAIL, ALL,
     "eth0 takes no redirected frames", "nsenter --net=/run/netns/b ethtool -K eth0 gro on"),
    (native(xdp_features=None), "refused", FAIL, ALL, "does not tell", "change the link in /etc/x"),
    (native(far_b=SUMS), "offload", FAIL, OFFLOADED, "checksums (its TCP and UDP do not work)",
     "nsenter --net=/run/netns/b ethtool -K eth0 gro on tx off"),
    (native(far_b=TAGS), "offload", FAIL, OFFLOADED, "VLAN tags (they are lost)", "txvlan off"),
    # Lengths, and far ends.
    (facts(b=B._replace(mtu=1500)), "mtu", FAIL, LONG, "longer than 1518 bytes", "dev b mtu 65535"),
    (facts(far_a=far(FAR_A, mtu=9000)), "mtu", WARN, LONG,
     "frames longer than 1518 bytes stop there", "netns/b ip link set dev eth0 mtu 9000"),
    (in_tc(b={"mtu": 600}), "mtu", FAIL, LONG,
     "the MTU of b is 600, behind it 1500: what comes from there in frames longer than 618",
     "ip link set dev b mtu 1500"),
    (in_tc(a={"mtu": 9000}, b={"kind": "", "far": None}, far_a=far(FAR_A, mtu=9000), far_b=None),
     "mtu", WARN, LONG, "b has MTU 1500", "ip link set dev b mtu 9000"),
    (facts(far_b=far(FAR_B, xdp=(Xdp("generic", 99),))), "far end's program", WARN, SOME,
     "(generic, id 99)", "nsenter --net=/run/netns/b ip link set dev eth0 xdpgeneric off"),
    (facts(passed={6: 1, 9: 4}), "passed to host", FAIL, NOTHING,
     "1 frame that came in by b bypassed all our hooks", "docs/safety.md"),
    (in_tc(passed={5: 2}), "passed to host", FAIL, NOTHING, "2 frames", "mode: generic"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]}: {case[4][:30]}")
def test_every_fault_has_its_name(case: Case) -> None:
    seen, check, level, stops, text, remedy = case
    it = found(seen, check)
    assert (it.level, it.stops) == (level, stops)
    assert text in it.text
    assert remedy in it.remedy


HELD_BY_ANOTHER = facts(a=A._replace(far=Far(7, None, "c")), far_a=far(
    FAR_A, ifindex=7, mtu=9000, xdp=A.xdp, ingress=A.ingress))  # fmt: skip
NO_FAULTS = [
    (facts(b=TAP, far_a=far(FAR_A, mtu=9000), far_b=None), "mtu"),  # a tap takes what comes
    (HELD_BY_ANOTHER, "mtu"),  # that is our headroom
    (in_tc(b={"mtu": 9000}), "mtu"),
    (native(), "offload"),  # nobody went there to look
    (facts(b=B._replace(egress=(SILENT, Filter("u32", 5, 1, 0)))), "foreign filter"),
    (facts(b=B._replace(mtu=65535)), "mtu"),
]


@pytest.mark.parametrize(("seen", "check"), NO_FAULTS)
def test_what_is_no_fault(seen: LinkFacts, check: str) -> None:
    assert check not in [each.check for each in link_checks.of_link(seen)]


def test_of_a_link_that_waits_the_end_that_is_not_held_is_named() -> None:
    waiting: dict[str, Any] = {"names": {"a": 5}, "entries": {}}
    assert [each.check for each in link_checks.of_link(facts(**waiting))] == ["interface"]
    it = found(facts(a=A._replace(**BARE), **waiting), "not held")
    assert (it.level, it.remedy) == (WARN, REPAIR)
    assert "the host uses a" in found(facts(**waiting, uses=IN_USE), "not held").text


def test_names_are_quoted_in_commands_and_send_nothing_to_the_terminal() -> None:
    name = "a;reboot $(x)'"
    seen = facts(b=B._replace(up=False, name=name), names={"a": 5, "b": 6})
    assert shlex.split(found(seen, "down").remedy) == ["ip", "link", "set", "dev", name, "up"]
    seen = facts(far_b=far(FAR_B, name="\x1b]0;\udcff", up=False))
    lines = [line for each in link_checks.of_link(seen) for line in each.lines()]
    assert all(line.isprintable() for line in lines)
    assert "�]0;" in lines[0]


def test_what_the_daemon_says_to_those_who_may_not_look() -> None:
    marked = end_report("a", passed_to_host=3)
    told = link_report(marked, "b", "failed", reason="no", warnings=("x",), mode="tc")
    failed, passed, warning = link_checks.of_report(told)
    assert (failed.level, failed.check, failed.text) == (FAIL, "failed", "failed: no")
    assert (passed.level, passed.check) == (FAIL, "passed to host")
    assert passed.text.startswith("3 frames that came in by a bypassed all our hooks")
    assert warning.level is WARN
    (good,) = link_checks.of_report(link_report("a", "b"))
    assert good.level is Level.OK
    (it,) = link_checks.of_moved_netns((GONE, GONE._replace(mode="")))
    assert it.remedy == GONE.remedy
    (bad,) = config_checks.of_problems(["x.yaml:1:1: no"], "my file.yaml")
    assert bad.remedy.startswith("xconnectd check 'my file.yaml'")
    absent = config_checks.of_absent_link("a:b", "x.yaml", "no link a:b")
    assert (absent.text, absent.remedy) == ("no link a:b", "below links: in x.yaml: a: b")
