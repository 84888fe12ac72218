"""Findings of a link: every fault has its name, its remedy, and its place in the order."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest
from builders import NATIVE, SILENT, link, look_at_pair, veth, wired

from xconnectd.diagnostics import config_checks, link_checks
from xconnectd.diagnostics.facts import FarSide, LinkFacts
from xconnectd.diagnostics.finding import Level, Stops
from xconnectd.model import (
    Far,
    Filter,
    Interface,
    Link,
    Mode,
    MovedEnd,
    Record,
    Use,
    Xdp,
    XdpFeature,
)
from xconnectd.reconcile import evaluate

REPAIR = "systemctl start xconnectd"
A = wired(5, "a", mtu=65535)
B = wired(6, "b", mtu=65535, far=Far(2, 1, "eth0"))
ETH0 = veth(2, "eth0")
FAR_A = FarSide(ETH0, "nsenter --net=/run/netns/a ")
FAR_B = FarSide(ETH0, "nsenter --net=/run/netns/b ")
TAP = B._replace(kind="tun", variant="tap", far=None)
NIC = B._replace(kind="", mtu=1500, far=None)


def facts(
    a: Interface = A,
    b: Interface = B,
    one: Link | None = None,
    *,
    far_a: FarSide = FAR_A,
    far_b: FarSide | None = FAR_B,
    failure: str = "",
    **seen: Any,
) -> LinkFacts:
    observed = look_at_pair(a, b, **seen)
    (judged,) = evaluate.evaluate([one or link("a", "b")], observed)
    far = {5: far_a} if far_b is None else {5: far_a, 6: far_b}
    return LinkFacts(judged, observed, far, failure, REPAIR, "/etc/x.yaml")


def far(side: FarSide, **changes: Any) -> FarSide:
    return replace(side, interface=side.interface._replace(**changes))


def native(**changes: Any) -> LinkFacts:
    a = wired(5, "a", "native", xdp_features=NATIVE)
    b = wired(6, "b", "native", **{"xdp_features": NATIVE, **changes})
    return facts(a, b, link("a", "b", mode=Mode.NATIVE))


def test_a_good_link_has_one_good_word() -> None:
    (found,) = link_checks.of_link(facts())
    assert (found.level, found.check, found.remedy) == (Level.OK, "link", "")


TC = link("a", "b", mode=Mode.TC)
TC_ENDS = {"a": wired(5, "a", "tc"), "b": wired(6, "b", "tc", far=Far(2, 1, "eth0"))}
GONE = MovedEnd(Record(6, "b", "02:00"), "generic", 3, 9, "blue", "b")

IN_USE = {
    5: (
        Use("it carries 192.0.2.1/24", "ip addr flush dev a"),
        Use("it carries 192.0.2.2/24", "ip addr flush dev a"),
        Use("the default route leads over it", "ip route del default dev a"),
    )
}


def test_of_a_link_that_waits_the_end_that_is_not_held_is_named() -> None:
    waiting: dict[str, Any] = {"names": {"a": 5}, "entries": {}}
    assert [each.check for each in link_checks.of_link(facts(**waiting))] == ["interface"]
    loose = facts(a=A._replace(xdp=(), ingress=(), egress=()), **waiting)
    (_, found) = link_checks.of_link(loose)
    assert (found.level, found.check, found.remedy) == (Level.WARN, "not held", REPAIR)
    (_, found) = link_checks.of_link(facts(**waiting, uses=IN_USE))
    assert "the host uses a" in found.text


Case = tuple[LinkFacts, Level, str, Stops, str, str]
CASES: dict[str, Case] = {
    "missing": (
        facts(names={"a": 5}),
        *(Level.FAIL, "interface", Stops.ALL, "b does not exist", "ip -br link  #"),
    ),
    "gone elsewhere": (
        facts(names={"a": 5}, moved_netns=(GONE,)),
        *(Level.FAIL, "interface", Stops.ALL, "it left for the namespace blue"),
        "ip -n blue link set dev b netns 1",
    ),
    "disabled": (
        facts(one=link("a", "b", enabled=False), entries={}),
        *(Level.WARN, "disabled", Stops.ALL, "enabled: false", "/etc/x.yaml: enabled: true"),
    ),
    "disabled and absent": (
        facts(one=link("a", "b", enabled=False), names={}),
        *(Level.WARN, "disabled", Stops.ALL, "enabled: false", "/etc/x.yaml: enabled: true"),
    ),
    "down": (
        facts(b=B._replace(up=False, carrier=False)),
        *(Level.FAIL, "down", Stops.ALL, "b is administratively down", "ip link set dev b up"),
    ),
    "far end down": (
        facts(b=B._replace(carrier=False), far_b=far(FAR_B, up=False)),
        *(Level.FAIL, "far end down", Stops.ALL, "eth0, the far end of b, is administratively"),
        "nsenter --net=/run/netns/b ip link set dev eth0 up",
    ),
    "far end down, nobody knows where": (
        facts(b=B._replace(carrier=False), far_b=replace(far(FAR_B, up=False), prefix=None)),
        *(Level.FAIL, "far end down", Stops.ALL, "eth0", "# in the namespace where it is now: ip "),
    ),
    "tap without carrier": (
        facts(b=TAP._replace(carrier=False), one=TC, far_b=None),
        *(Level.FAIL, "carrier", Stops.ALL, "b has no carrier", "ip link set dev b carrier on"),
    ),
    "nic without carrier": (
        facts(b=NIC._replace(carrier=False), one=TC, far_b=None),
        *(Level.FAIL, "carrier", Stops.ALL, "b has no carrier", "cable"),
    ),
    "no program": (
        facts(a=A._replace(xdp=())),
        *(Level.FAIL, "program", Stops.ALL, "no XDP program of ours on a", REPAIR),
    ),
    "another mode": (
        facts(a=A._replace(xdp=(Xdp("native", 101),))),
        *(Level.FAIL, "program", Stops.ALL, "a runs our program in native mode", REPAIR),
    ),
    "no entry": (
        facts(entries={5: 6}),
        *(Level.FAIL, "entry", Stops.ALL, "no entry for b in the devmap (key 6)", REPAIR),
    ),
    "another entry": (
        facts(entries={5: 9, 6: 5}),
        *(Level.FAIL, "entry", Stops.ALL, "a (key 5) leads to ifindex 9, not to b (6)", REPAIR),
    ),
    "no tc entry": (
        facts(**TC_ENDS, one=TC, entries={}, peers={5: 6}),
        *(Level.FAIL, "entry", Stops.ALL, "no entry for b in the peers map (key 6)", REPAIR),
    ),
    "no entry for what XDP does not see": (
        facts(peers={5: 6}),
        *(
            Level.FAIL,
            "entry",
            Stops.SOME,
            "the peers map (key 6): frames that a tc redirect",
        ),
        REPAIR,
    ),
    "no filter for what XDP does not see": (
        facts(a=A._replace(ingress=())),
        *(Level.FAIL, "filter", Stops.SOME, "a has lost our ingress filter: frames that a tc"),
        REPAIR,
    ),
    "no filter": (
        facts(TC_ENDS["a"], TC_ENDS["b"]._replace(ingress=()), TC, entries={}, peers={5: 6, 6: 5}),
        *(Level.FAIL, "filter", Stops.ALL, "b has lost our ingress filter", REPAIR),
    ),
    "no clsact": (
        facts(
            TC_ENDS["a"],
            TC_ENDS["b"]._replace(ingress=(), egress=(), qdisc=""),
            TC,
            entries={},
            peers={5: 6, 6: 5},
        ),
        *(Level.FAIL, "filter", Stops.ALL, "b has lost clsact", REPAIR),
    ),
    "not silent": (
        facts(a=A._replace(egress=())),
        *(Level.WARN, "egress_drop", Stops.NOTHING, "the host can talk into the wire", REPAIR),
    ),
    "an entry of a link that is off": (
        facts(one=link("a", "b", enabled=False), entries={5: 6}),
        *(Level.WARN, "entry", Stops.NOTHING, "a (key 5) still leads to ifindex 6", REPAIR),
    ),
    "foreign program": (
        facts(a=A._replace(xdp=(Xdp("native", 77),)), foreign={77: "id 77 (x)"}),
        *(Level.FAIL, "foreign program", Stops.ALL, "not ours: id 77 (x)"),
        "ip link set dev a xdpdrv off  # if nobody needs it",
    ),
    "foreign filter": (
        facts(
            TC_ENDS["a"]._replace(ingress=(Filter("flower", 7, 1, 0),)),
            TC_ENDS["b"],
            TC,
        ),
        *(Level.FAIL, "foreign filter", Stops.ALL, "a has a tc ingress filter that is not ours"),
        "tc filter del dev a ingress pref 7",
    ),
    "foreign filter where tc frames leave": (
        facts(
            TC_ENDS["a"],
            TC_ENDS["b"]._replace(egress=(SILENT, Filter("u32", 5, 1, 0))),
            TC,
            entries={},
            peers={5: 6, 6: 5},
        ),
        *(Level.WARN, "foreign filter", Stops.SOME, "b has a tc egress filter that is not ours"),
        "tc filter del dev b egress pref 5",
    ),
    "ingress qdisc": (
        facts(b=B._replace(qdisc="ingress")),
        *(Level.FAIL, "foreign filter", Stops.ALL, "ingress qdisc", "tc qdisc del dev b ingress"),
    ),
    "a port": (
        facts(b=B._replace(xdp=(), ingress=(), egress=(), master=3, master_kind="bridge")),
        *(Level.FAIL, "port", Stops.ALL, "b is a port of a bridge", "ip link set dev b nomaster"),
    ),
    "a port of Open vSwitch": (
        facts(b=B._replace(xdp=(), ingress=(), egress=(), master=3, master_kind="openvswitch")),
        *(Level.FAIL, "port", Stops.ALL, "b is a port of a openvswitch", "ovs-vsctl del-port b"),
    ),
    "in use": (
        facts(a=A._replace(xdp=(), ingress=(), egress=()), uses=IN_USE),
        *(Level.FAIL, "in use", Stops.ALL, "192.0.2.1/24"),
        "ip addr flush dev a; ip route del default dev a  # or in /etc/x.yaml: allow_addressed",
    ),
    "in use elsewhere": (
        facts(
            a=A._replace(xdp=(), ingress=(), egress=()), uses={5: (Use("mv of another namespace"),)}
        ),
        *(Level.FAIL, "in use", Stops.ALL, "another namespace", "take that off, or in /etc/x.yaml"),
    ),
    "a cycle": (
        facts(
            a=A._replace(far=Far(6, None, "b")),
            b=B._replace(far=Far(5, None, "a")),
        ),
        *(Level.FAIL, "refused", Stops.ALL, "circle", "change the link in /etc/x.yaml"),
    ),
    "the kernel's words": (
        facts(a=A._replace(xdp=()), failure="a: attach: Peer MTU is too large"),
        *(Level.FAIL, "refused", Stops.ALL, "Peer MTU is too large", REPAIR),
    ),
    "far end not polling": (
        native(xdp_features=XdpFeature.BASIC | XdpFeature.REDIRECT),
        *(Level.FAIL, "far end not polling", Stops.ALL, "b: its far end eth0 does not poll"),
        "nsenter --net=/run/netns/b ethtool -K eth0 gro on",
    ),
    "a far end of which nothing is told": (
        native(xdp_features=None),
        *(Level.FAIL, "refused", Stops.ALL, "does not tell", "change the link in /etc/x.yaml"),
    ),
    "MTU set back": (
        facts(b=B._replace(mtu=1500)),
        *(Level.FAIL, "mtu", Stops.LONG, "frames longer than 1518 bytes", "dev b mtu 65535"),
    ),
    "unequal far ends": (
        facts(far_a=far(FAR_A, mtu=9000)),
        *(Level.WARN, "mtu", Stops.LONG, "frames longer than 1518 bytes stop there"),
        "nsenter --net=/run/netns/b ip link set dev eth0 mtu 9000",
    ),
    "a NIC that takes less": (
        facts(TC_ENDS["a"], NIC, TC, far_a=far(FAR_A, mtu=9000), far_b=None),
        *(Level.WARN, "mtu", Stops.LONG, "b has MTU 1500", "ip link set dev b mtu 9000"),
    ),
    "far end's program": (
        facts(far_b=far(FAR_B, xdp=(Xdp("generic", 99),))),
        *(Level.WARN, "far end's program", Stops.SOME, "(generic, id 99)"),
        "nsenter --net=/run/netns/b ip link set dev eth0 xdpgeneric off",
    ),
    "offloads of a native link": (
        replace(
            native(),
            far={5: FAR_A, 6: replace(FAR_B, features=frozenset({"tx-checksum-ip-generic"}))},
        ),
        *(Level.FAIL, "offload", Stops.OFFLOADED, "checksums (its TCP and UDP are dead)"),
        "nsenter --net=/run/netns/b ethtool -K eth0 gro on tx off",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_fault_has_its_name(case: Case) -> None:
    seen, level, check, stops, text, remedy = case
    found = next(each for each in link_checks.of_link(seen) if each.check == check)
    assert (found.level, found.stops) == (level, stops)
    assert text in found.text
    assert remedy in found.remedy


def test_odd_names_are_quoted_in_commands() -> None:
    name = "a;reboot $(x)'"
    seen = facts(b=B._replace(up=False, name=name), names={"a": 5, "b": 6})
    found = next(each for each in link_checks.of_link(seen) if each.check == "down")
    assert shlex.split(found.remedy) == ["ip", "link", "set", "dev", name, "up"]


def test_a_name_sends_nothing_to_the_terminal() -> None:
    seen = facts(far_b=far(FAR_B, name="\x1b]0;\udcff", up=False))
    lines = [line for each in link_checks.of_link(seen) for line in each.lines()]
    assert all(line.isprintable() for line in lines)
    assert "\N{REPLACEMENT CHARACTER}]0;" in lines[0]


def test_old_failures_are_not_told_of_a_link_that_is_there() -> None:
    assert link_checks.of_link(facts(failure="it was busy"))[0].check == "link"


def test_a_plug_is_walked_once() -> None:
    plug = link("a", "a")
    found = link_checks.of_link(facts(one=plug, names={"a": 5}, entries={}, far_b=None))
    assert [each.check for each in found] == ["entry"]
    good = facts(one=plug, names={"a": 5}, entries={5: 5}, far_b=None)
    assert link_checks.of_link(good)[0].level is Level.OK


def test_a_tap_of_any_mtu_takes_what_comes() -> None:
    seen = facts(b=TAP, far_a=far(FAR_A, mtu=9000), far_b=None)
    assert not [each for each in link_checks.of_link(seen) if each.check == "mtu"]


def test_native_offloads_are_judged_only_where_they_were_seen() -> None:
    assert not [each for each in link_checks.of_link(native()) if each.check == "offload"]


def test_what_the_daemon_says_to_those_who_may_not_look() -> None:
    ends = {"mode": "tc", "a": {"name": "a", "passed_to_host": 3}, "b": {"name": "b"}}
    told = {"state": "failed", "reason": "no", "warnings": ["x"], **ends}
    failed, passed, warning = link_checks.of_report(told)
    assert (failed.level, failed.check, failed.text) == (Level.FAIL, "failed", "failed: no")
    assert (passed.level, passed.check) == (Level.FAIL, "passed to host")
    assert passed.text.startswith("3 frames that came in by a skipped every hook")
    assert warning.level is Level.WARN
    well = {"state": "connected", "reason": "", "warnings": [], **ends, "a": {"name": "a"}}
    (good,) = link_checks.of_report(well)
    assert good.level is Level.OK


def test_frames_that_got_past_the_hooks_are_a_failure() -> None:
    (found,) = link_checks.of_link(replace(facts(), passed={6: 1, 9: 4}))
    assert (found.level, found.check) == (Level.FAIL, "passed to host")
    assert found.text.startswith("1 frame that came in by b skipped every hook")
    assert found.remedy.endswith("docs/safety.md")
    (found,) = link_checks.of_link(
        replace(facts(**TC_ENDS, one=TC, entries={}, peers={5: 6, 6: 5}), passed={5: 2})
    )
    assert found.remedy.endswith("mode: generic")


def test_moved_ends_and_bad_files() -> None:
    quiet = GONE._replace(mode="")
    (found,) = link_checks.of_moved_netns((GONE, quiet))
    assert found.remedy == GONE.remedy
    (bad,) = config_checks.of_problems(["x.yaml:1:1: no"], "my file.yaml")
    assert bad.remedy.startswith("xconnectd check 'my file.yaml'")
    absent = config_checks.of_absent_link("a:b", "x.yaml", "no link a:b")
    assert absent.text == "no link a:b"
    assert absent.remedy == "below links: in x.yaml: a: b"
