"""The contract's other promises, each on a real kernel."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from xconnectd.api import Xconnect
from xconnectd.dataplane import compiler
from xconnectd.netlink.transport import Route

from .frames import ether, noise
from .lab import PROG_TC, PROG_XDP, TC_CONTINUE, XDP_PASS, Lab, Station, holds, inside, poll, run
from .service import Daemon, Event
from .test_config_changes import cut, wired
from .traffic import Stream, exchange

Start = Callable[..., Daemon]
PAIR = {"va": "vb"}
MODES = pytest.mark.parametrize("mode", ["auto", "tc"])


def _wiring(mode: str, more: str = "") -> str:
    return f"links:\n  va: {{to: vb, mode: {mode}{more}}}\n"


def _settled(lab: Lab) -> dict[str, Any]:
    """The host as it is once the kernel has finished with carriers and link-local addresses."""

    def complete() -> bool:
        shown = [x for x in json.loads(lab.ip("-j", "-d", "address", "show")) if x]
        if any("LOWER_UP" in x["flags"] and "DOWN" in x["operstate"] for x in shown):
            return False
        ready = [x for x in shown if x["operstate"] == "UP" and _speaks_v6(lab, x["ifname"])]
        tentative = [a for x in ready for a in x["addr_info"] if a.get("tentative")]
        return not tentative and all(x["addr_info"] for x in ready)

    poll(complete, what="link-local addresses")
    return lab.snapshot()


def _speaks_v6(lab: Lab, name: str) -> bool:
    return bool(lab.link(name).get("inet6_addr_gen_mode") == "eui64")


def assert_as_found(lab: Lab, before: dict[str, Any]) -> None:
    """Compare part by part, so that a failure shows what differs and not everything."""
    with contextlib.suppress(AssertionError):
        poll(lambda: lab.snapshot() == before, 10, interval=0.1)
    now = lab.snapshot()
    for part, found in before.items():
        assert now[part] == found, part


def assert_bare(lab: Lab, end: str) -> None:
    """No program of ours and nothing of its surroundings is on an end, or soon will be."""

    def found() -> tuple[int, int, str, bool]:
        link = lab.link(end)
        clsact = "clsact" in lab.tc("qdisc", "show", "dev", end)
        return lab.xdp(end), link["mtu"], link["inet6_addr_gen_mode"], clsact

    bare = (0, 1500, "eui64", False)
    with contextlib.suppress(AssertionError):
        poll(lambda: found() == bare, 10)
    assert found() == bare


def assert_held(lab: Lab, end: str) -> None:
    """Our programs are on an end and its own talk is off: silent, and dropping."""

    def is_held() -> bool:
        takes = lab.xdp(end) or "xconnectd" in lab.tc("filter", "show", "dev", end, "ingress")
        silent = "xconnectd" in lab.tc("filter", "show", "dev", end, "egress")
        return bool(takes) and silent and lab.link(end)["inet6_addr_gen_mode"] == "none"

    poll(is_held, what=f"{end} is held")


# ---------------------------------------------------------------------- 1. independent links


def test_bad_links_of_every_kind_keep_no_other_from_working(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    for end in ("foreign", "lonely", "port", "lockout", "x1", "x2", "x3", "x4", "x5"):
        lab.veth(end)
    lab.foreign_xdp("foreign")
    lab.bridge("br0", "port")
    lab.ip("address", "add", "203.0.113.5/24", "dev", "lockout")
    lab.pair("c1", "c2")
    lab.ip("link", "add", "link", "x4", "name", "mt0", "type", "macvtap")
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    bad = {"foreign": "x1", "lonely": "nosuch", "port": "x2", "lockout": "x3", "c1": "c2"}
    bad |= {"mt0": "x5"}
    with Stream(a, b) as stream:
        poll(stream.flows)
        for _ in range(2):
            running.write(bad | PAIR)
            for one, other in bad.items():
                state = "waiting" if other == "nosuch" else "failed"
                assert running.wait_state(one, other, state)["reason"]
            running.write(PAIR)
            poll(lambda: len(running.status()["links"]) == 1, interval=0.1)
    stream.assert_perfect()
    running.kill()
    running.write(bad | PAIR)
    with Stream(a, b) as stream:
        poll(stream.flows)
        running.start()
        assert running.link("va", "vb")["state"] == "connected"
    stream.assert_perfect()


def test_a_bad_link_at_start_keeps_no_other_from_connecting(lab: Lab, daemon: Start) -> None:
    a, b, _ = lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    lab.foreign_xdp("vc")
    running = daemon({"vc": "vd", "nosuch": "neither"} | PAIR)
    running.wait_link("connected", "va", "vb")
    assert wired(a, b)


# ---------------------------------------------------------------------- 2. all or nothing


@MODES
@pytest.mark.parametrize("order", [("va", "vb"), ("vb", "va")], ids=["second", "first"])
def test_when_one_end_fails_the_other_is_held(
    lab: Lab, daemon: Start, mode: str, order: tuple[str, str]
) -> None:
    lab.veth("va"), lab.veth("vb")
    program = _foreign(lab, "vb", mode)
    running = daemon(f"links:\n  {order[0]}: {{to: {order[1]}, mode: {mode}}}\n")
    running.wait_state("va", "vb", "failed")
    assert_held(lab, "va")
    if mode == "auto":
        assert lab.xdp("vb") == program


def _foreign(lab: Lab, end: str, mode: str) -> int:
    """Put somebody else's program where xconnectd would put its own."""
    if mode == "auto":
        return lab.foreign_xdp(end)
    path = lab.program(PROG_TC, XDP_PASS, "foreign")
    lab.tc("qdisc", "add", "dev", end, "clsact")
    lab.tc("filter", "add", "dev", end, "ingress", "bpf", "da", "pinned", str(path))
    return 0


@MODES
def test_a_disabled_link_is_attached_at_both_ends_and_forwards_nothing(
    lab: Lab, daemon: Start, mode: str
) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(_wiring(mode, ", enabled: false"))
    link = running.wait_state("va", "vb", "disabled")
    assert link["a"]["attached"]
    assert link["b"]["attached"]
    assert cut(a, b)
    running.stop()
    assert_bare(lab, "va")


@MODES
def test_an_end_that_goes_leaves_the_other_held_and_without_an_entry(
    lab: Lab, daemon: Start, mode: str
) -> None:
    lab.veth("va"), lab.veth("vb")
    running = daemon(_wiring(mode))
    running.wait_link("connected", "va", "vb")
    lab.delete("vb")
    running.wait_link("waiting", "va", "vb")
    assert_held(lab, "va")
    assert _entries(lab) == []


def test_a_start_killed_anywhere_is_mended_by_the_next(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From source, so that some of the kills hit the compiler."""
    monkeypatch.delenv(compiler.CODE_VARIABLE)
    stations = {end: lab.veth(end) for end in ("va", "vb", "vc", "vd")}
    before = _settled(lab)
    running = Daemon(lab, {"va": "vb", "vc": "vd"})
    for n in range(12):
        running.spawn()
        time.sleep(0.1 + n * 0.06)
        running.kill()
    running.start()
    assert wired(stations["va"], stations["vb"])
    assert wired(stations["vc"], stations["vd"])
    running.stop()
    assert_as_found(lab, before)


def test_a_reload_killed_anywhere_is_mended_by_the_next(lab: Lab) -> None:
    ends = [f"v{n}" for n in range(8)]
    stations = {end: lab.veth(end) for end in ends}
    pairs = dict(zip(ends[::2], ends[1::2], strict=True))
    crossed = dict(zip(ends[:4], ends[4:], strict=True))
    before = _settled(lab)
    running = Daemon(lab, pairs).start()
    for n in range(6):
        goal, other = (crossed, pairs) if n % 2 == 0 else (pairs, crossed)
        running.write(goal)
        time.sleep(n * 0.002)
        running.kill()
        running.start()
        for a, b in goal.items():
            poll(lambda a=a, b=b: wired(stations[a], stations[b]))  # type: ignore[misc]
        assert all(cut(stations[a], stations[b]) for a, b in other.items())
    running.stop()
    assert_as_found(lab, before)


# ---------------------------------------------------------------------- 5. the file wins


def _detach(lab: Lab) -> None:
    lab.ip("link", "set", "va", "xdpgeneric", "off")


def _delete_entries(lab: Lab) -> None:
    for path, key in _entries(lab):
        run("bpftool", "map", "delete", "pinned", path, "key", *key)


def _entries(lab: Lab) -> list[tuple[str, list[str]]]:
    """Every entry of every wiring map that the daemon has pinned: where it is, and its key."""
    found = []
    # what names all ends, also those that are held
    others = ("watched", "guarded")
    pinned = (x for x in lab.pins.rglob("*") if x.is_file() and x.name not in others)
    for path in sorted(pinned):
        shown = run("bpftool", "-j", "map", "show", "pinned", str(path), check=False)
        with contextlib.suppress(ValueError):
            kind = json.loads(shown.stdout)
            if kind.get("type") in ("devmap_hash", "devmap", "hash"):
                entries = json.loads(
                    run("bpftool", "-j", "map", "dump", "pinned", str(path)).stdout
                )
                found += [(str(path), x["key"]) for x in entries if "value" in x or "values" in x]
    return found


def _lower_mtu(lab: Lab) -> None:
    lab.ip("link", "set", "va", "mtu", "1500")


def _generate_addresses(lab: Lab) -> None:
    lab.ip("link", "set", "va", "addrgenmode", "eui64")


def _delete_ingress(lab: Lab) -> None:
    lab.tc("filter", "delete", "dev", "va", "ingress")


def _delete_egress(lab: Lab) -> None:
    lab.tc("filter", "delete", "dev", "va", "egress")


def _delete_clsact(lab: Lab) -> None:
    lab.tc("qdisc", "delete", "dev", "va", "clsact")


DRIFT = [
    ("auto", _detach),
    ("auto", _delete_entries),
    ("auto", _lower_mtu),
    ("auto", _generate_addresses),
    ("auto", _delete_egress),
    ("auto", _delete_clsact),
    ("tc", _delete_ingress),
    ("tc", _delete_egress),
    ("tc", _delete_clsact),
    ("tc", _delete_entries),
]


@pytest.mark.parametrize(
    ("mode", "harm"), DRIFT, ids=lambda x: getattr(x, "__name__", x).strip("_")
)
def test_drift_is_repaired_within_a_second_and_logged(
    lab: Lab, daemon: Start, mode: str, harm: Callable[[Lab], None]
) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(_wiring(mode))
    running.wait_link("connected", "va", "vb")
    before = _owned(lab)
    assert before["entries"], "the daemon's maps are not where they are looked for"
    for _ in range(2):
        since = running.mark()
        harm(lab)
        harmed = datetime.now(UTC)
        told = running.wait_event("drift.repaired", since=since)
        poll(lambda: _owned(lab) == before, what="the repair")
        assert wired(a, b)
        took = datetime.fromisoformat(told["timestamp"]) - harmed
        assert took < timedelta(seconds=1.5), took
    running.stop()


def _owned(lab: Lab) -> dict[str, Any]:
    """What of an end the daemon looks after, without what changes with each attachment."""
    link = lab.link("va")
    filters = [
        lab.tc("-j", "filter", "show", "dev", "va", x, check=False) for x in ("ingress", "egress")
    ]
    return {
        "xdp": lab.xdp("va") != 0,
        "mtu": link["mtu"],
        "addresses": link["inet6_addr_gen_mode"],
        "clsact": "clsact" in lab.tc("qdisc", "show", "dev", "va"),
        "filters": [text.count('"bpf"') for text in filters],
        "entries": sorted((path, tuple(key)) for path, key in _entries(lab)),
    }


@MODES
def test_without_drift_nothing_is_changed(lab: Lab, daemon: Start, mode: str) -> None:
    """The kernel announces what changes; a daemon that has nothing to do causes nothing."""
    lab.veth("va"), lab.veth("vb")
    running = daemon(_wiring(mode))
    running.wait_link("connected", "va", "vb")
    running.idle()
    log = running.text()
    watched = lab.run("timeout", "3", "ip", "monitor", "link", check=False).stdout
    assert watched == ""
    assert running.text() == log


@MODES
def test_an_operators_link_down_is_no_drift(lab: Lab, daemon: Start, mode: str) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(_wiring(mode))
    running.wait_link("connected", "va", "vb")
    since = running.mark()
    lab.ip("link", "set", "va", "down")
    running.wait_link("down", "va", "vb", since=since)
    link = running.link("va", "vb")
    assert link["state"] == "down"
    assert "va" in link["reason"]
    holds(lambda: "UP" not in lab.link("va")["flags"], 1.5)
    assert running.events("drift.repaired", since) == []
    lab.ip("link", "set", "va", "up")
    running.wait_link("up", "va", "vb", since=since)
    poll(lambda: wired(a, b))
    lab.ip("link", "set", "va", "down")
    running.stop()
    assert "UP" not in lab.link("va")["flags"], "what the operator set is the new found"


def test_a_container_without_carrier_is_down(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    since = running.mark()
    b.ip("link", "set", "eth0", "down")
    running.wait_link("down", "va", "vb", since=since)
    assert "vb" in running.link("va", "vb")["reason"]
    b.ip("link", "set", "eth0", "up")
    running.wait_link("up", "va", "vb", since=since)
    poll(lambda: wired(a, b))


def test_admin_keep_never_sets_an_end_up(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va", up=False), lab.veth("vb")
    running = daemon(_wiring("auto", ", admin: keep"))
    running.wait_state("va", "vb", "down")
    holds(lambda: "UP" not in lab.link("va")["flags"], 0.5)
    lab.ip("link", "set", "va", "up")
    poll(lambda: wired(a, b))


# ---------------------------------------------------------------------- 6. foreign programs


def test_a_foreign_program_is_never_replaced_and_its_going_is_noticed(
    lab: Lab, daemon: Start
) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    program = lab.foreign_xdp("vb", "somebody")
    running = daemon(PAIR)
    link = running.wait_state("va", "vb", "failed")
    assert str(program) in link["reason"]
    assert "somebody" in link["reason"]
    running.write(PAIR | {"vc": "vd"})
    running.wait_link("waiting", "vc", "vd")
    assert lab.xdp("vb") == program
    lab.ip("link", "set", "vb", "xdpgeneric", "off")
    running.wait_link("connected", "va", "vb")
    assert wired(a, b)
    running.stop()


def test_a_foreign_program_that_took_our_place_stays(lab: Lab, daemon: Start) -> None:
    """Somebody replaced ours by force: that is theirs now, also when we stop."""
    lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    path = lab.program(PROG_XDP, XDP_PASS, "taker")
    lab.ip("-force", "link", "set", "vb", "xdpgeneric", "pinned", str(path))
    program = lab.xdp("vb")
    link = running.wait_state("va", "vb", "failed")
    assert str(program) in link["reason"]
    assert_held(lab, "va")
    running.stop()
    assert (lab.xdp("va"), lab.xdp("vb")) == (0, program)


def test_a_foreign_program_on_an_end_that_is_down_is_noticed(lab: Lab, daemon: Start) -> None:
    """The kernel tells nobody, until the end comes up; nor does it of ours that is taken off."""
    lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    lab.ip("link", "set", "vb", "down")
    running.wait_link("down", "va", "vb")
    lab.ip("link", "set", "vb", "xdpgeneric", "off")
    running.wait_event("drift.repaired")
    assert running.link("va", "vb")["state"] == "down"
    path = lab.program(PROG_XDP, XDP_PASS, "taker")
    lab.ip("-force", "link", "set", "vb", "xdpgeneric", "pinned", str(path))
    event = running.wait_link("failed", "va", "vb")
    assert str(lab.xdp("vb")) in event["reason"]
    lab.ip("link", "set", "vb", "xdpgeneric", "off")
    running.wait_link("connected", "va", "vb")
    running.stop()


def test_foreign_filters_stay_where_they_are(lab: Lab, daemon: Start) -> None:
    """A clsact that was there, with a filter of its own, is as found afterwards."""
    lab.veth("va"), lab.veth("vb")
    path = lab.program(PROG_TC, TC_CONTINUE, "accounting")
    lab.tc("qdisc", "add", "dev", "va", "clsact")
    lab.tc("filter", "add", "dev", "va", "egress", "bpf", "da", "pinned", str(path))
    before = _settled(lab)
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    assert "accounting" in lab.tc("filter", "show", "dev", "va", "egress")
    running.stop()
    assert_as_found(lab, before)


def test_lost_pins_do_not_make_our_own_program_foreign(lab: Lab) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    before = _settled(lab)
    running = Daemon(lab, PAIR).start()
    running.wait_link("connected", "va", "vb")
    running.kill()
    run("rm", "-r", str(lab.pins))
    running.start()
    assert running.wait_state("va", "vb", "connected")
    assert wired(a, b)
    running.stop()
    assert_as_found(lab, before)


# ---------------------------------------------------------------------- 7. no lock-out


def _addressed(lab: Lab) -> None:
    lab.ip("address", "add", "203.0.113.5/24", "dev", "va")


def _addressed_v6(lab: Lab) -> None:
    lab.ip("address", "add", "2001:db8:5::5/64", "dev", "va", "nodad")


def _routed(lab: Lab) -> None:
    lab.ip("route", "add", "203.0.113.0/24", "dev", "va")


def _default_route(lab: Lab) -> None:
    lab.ip("route", "add", "default", "dev", "va")


def _route_v6(lab: Lab) -> None:
    lab.ip("route", "add", "2001:db8:7::/48", "dev", "va")


def _macvlan(lab: Lab) -> None:
    lab.macvlan("mv0", "va")


def _macvlan_on_macvlan(lab: Lab) -> None:
    lab.veth("vx")
    lab.macvlan("mv0", "va")
    lab.macvlan("mv1", "mv0")


def _vlan(lab: Lab) -> None:
    lab.ip("link", "add", "link", "va", "name", "va.5", "type", "vlan", "id", "5")


def _vxlan(lab: Lab) -> None:
    lab.ip(*["link", "add", "vx0", "type", "vxlan", "id", "5", "dstport", "4789", "dev", "va"])


def _bridge(lab: Lab) -> None:
    lab.bridge("br0", "va")


def _bond(lab: Lab) -> None:
    lab.ip("link", "add", "bond0", "type", "bond")
    lab.ip("link", "set", "va", "down")
    lab.ip("link", "set", "va", "master", "bond0")


def _vrf(lab: Lab) -> None:
    lab.ip("link", "add", "vrf0", "type", "vrf", "table", "10")
    lab.ip("link", "set", "va", "master", "vrf0")


def _is_known(use: Callable[[Lab], None]) -> bool:
    """Some kernels are built without VLANs, bonds or VRFs; ``tests/kernels`` has some with all."""
    kind = {_vlan: "vlan", _bond: "bond", _vrf: "vrf"}.get(use)
    if kind is None:
        return True
    return (
        "Unknown device type"
        not in run("unshare", "-n", "ip", "link", "add", "probe0", "type", kind, check=False).stderr
    )


ALLOWABLE = [_addressed, _addressed_v6, _routed, _default_route, _route_v6, _macvlan]
ALLOWABLE += [_macvlan_on_macvlan, _vlan, _vxlan]
NEVER = [_bridge, _bond, _vrf]
USES = [use for use in ALLOWABLE + NEVER if _is_known(use)]


@pytest.mark.parametrize("use", USES, ids=lambda x: x.__name__.strip("_"))
def test_an_interface_that_the_host_uses_is_refused(
    lab: Lab, daemon: Start, use: Callable[[Lab], None]
) -> None:
    lab.veth("va"), lab.veth("vb")
    use(lab)
    running = daemon(PAIR)
    link = running.wait_state("va", "vb", "failed")
    assert "va" in link["reason"]
    if use in NEVER:
        running.write(_wiring("auto", ", allow_addressed: true"))
        holds(lambda: running.link("va", "vb")["state"] == "failed", 0.5)
    else:
        assert "allow_addressed" in link["reason"]
    assert lab.xdp("va") == 0
    assert "clsact" not in lab.tc("qdisc", "show", "dev", "va")
    assert_held(lab, "vb")


def test_what_stands_on_an_interface_may_be_in_another_namespace(lab: Lab, daemon: Start) -> None:
    """A macvlan that was handed to a container. Asked of all kinds but veth and tap."""
    lab.veth("vb")
    lab.ip("link", "add", "va", "type", "ifb")
    lab.ip("link", "set", "va", "up")
    lab.ip("link", "add", "link", "va", "name", "mv0", "type", "macvlan")
    lab.ip("link", "set", "mv0", "netns", lab.namespace("box"))
    running = daemon(PAIR)
    link = running.wait_state("va", "vb", "failed")
    assert "mv0 of another namespace stands on it" in link["reason"]
    running.write(_wiring("auto", ", allow_addressed: true"))
    running.wait_link("connected", "va", "vb")


def test_the_far_end_of_a_bridge_port_is_not_stood_on(lab: Lab, daemon: Start) -> None:
    """What a bridge tells of its new port does not say that the port is a veth."""
    lab.pair("va", "vb"), lab.veth("vc")
    running = daemon({"vc": "missing"})
    lab.bridge("br0", "va")
    running.write({"vb": "vc"})
    running.wait_link("connected", "vb", "vc")


@pytest.mark.parametrize("where", ["link", "defaults"])
@pytest.mark.parametrize("use", [_addressed, _default_route, _macvlan], ids=lambda x: x.__name__)
def test_allow_addressed_allows_it(
    lab: Lab, daemon: Start, use: Callable[[Lab], None], where: str
) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    use(lab)
    text = _wiring("auto", ", allow_addressed: true")
    if where == "defaults":
        text = "defaults: {allow_addressed: true}\nlinks: {va: vb}\n"
    running = daemon(text)
    running.wait_link("connected", "va", "vb")
    assert wired(a, b)


@pytest.mark.parametrize("to", ["vb", "vc"], ids=["the same pair", "another pair"])
def test_a_changed_link_is_judged_as_a_new_one(lab: Lab, daemon: Start, to: str) -> None:
    """What was allowed to the link before is not allowed to this one."""
    lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    _addressed(lab)
    running = daemon(_wiring("auto", ", allow_addressed: true"))
    running.wait_link("connected", "va", "vb")
    running.write({"va": to})
    link = running.wait_state("va", to, "failed")
    assert "203.0.113.5/24" in link["reason"]
    assert lab.xdp("va") == 0
    assert_held(lab, to)
    assert running.cli("status").returncode == 0
    running.kill()
    running.start()
    assert running.link("va", to)["state"] == "failed"
    running.stop()


def test_a_link_local_address_is_no_lock_out(lab: Lab, daemon: Start) -> None:
    lab.veth("va"), lab.veth("vb")
    _settled(lab)
    daemon(PAIR).wait_link("connected", "va", "vb")


@pytest.mark.parametrize("later", [_addressed, _bridge], ids=["address", "master"])
def test_what_appears_on_a_connected_end_only_warns(
    lab: Lab, daemon: Start, later: Callable[[Lab], None]
) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    with Stream(a, b) as stream:
        poll(stream.flows)
        since = running.mark()
        later(lab)
        poll(lambda: running.link("va", "vb")["warnings"], what="a warning in status", interval=0.1)
        poll(lambda: running.events(since=since, level="warning"), what="a warning in the log")
        assert running.link("va", "vb")["state"] == "connected"
    stream.assert_perfect()


# ---------------------------------------------------------------------- 8. as found


@pytest.fixture
def odd_host(lab: Lab) -> dict[str, Any]:
    """A host whose ends are set in ways that must all come back."""
    for end in ("va", "vb", "vd"):
        lab.veth(end)
    lab.veth("vc", mtu=1400)
    lab.ip("link", "set", "vc", "down")  # once it has been up: that gives it its qdisc for good
    lab.tap("tap0")
    lab.ip("link", "set", "vb", "mtu", "9000", "promisc", "on")
    lab.ip("link", "set", "vd", "addrgenmode", "random")
    lab.ip("link", "set", "vd", "alias", "do not touch")
    lab.ip("link", "property", "add", "dev", "vd", "altname", "a-name-longer-than-fifteen")
    lab.tc("qdisc", "add", "dev", "vd", "clsact")
    return _settled(lab)


ODD = "links:\n  va: vb\n  vc: {to: vd, mode: tc}\n  tap0: tap0\n"


def _connect_odd(running: Daemon) -> None:
    for a, b in (("va", "vb"), ("vc", "vd"), ("tap0", "tap0")):
        running.wait_link("connected", a, b)


def test_everything_is_as_found_after_a_stop(
    lab: Lab, daemon: Start, odd_host: dict[str, Any]
) -> None:
    running = daemon(ODD)
    _connect_odd(running)
    assert lab.snapshot() != odd_host
    running.stop()
    assert_as_found(lab, odd_host)
    assert not lab.pins.exists() or not list(lab.pins.rglob("*"))


def test_everything_is_as_found_when_the_links_go(
    lab: Lab, daemon: Start, odd_host: dict[str, Any]
) -> None:
    running = daemon(ODD)
    _connect_odd(running)
    running.write("links: {}\n")
    running.wait_link("disconnected", "tap0", "tap0")
    assert_as_found(lab, odd_host)


def test_everything_is_as_found_after_a_crash_a_start_and_a_stop(
    lab: Lab, odd_host: dict[str, Any]
) -> None:
    running = Daemon(lab, ODD).start()
    for _ in range(3):
        _connect_odd(running)
        running.kill()
        running.start()
    running.stop()
    assert_as_found(lab, odd_host)


def test_a_setting_that_somebody_else_changed_meanwhile_stays(lab: Lab) -> None:
    lab.veth("va"), lab.veth("vb", up=False)
    running = Daemon(lab, PAIR).start()
    running.wait_link("connected", "va", "vb")
    running.kill()
    lab.ip("link", "set", "va", "mtu", "4000")
    lab.ip("link", "set", "vb", "addrgenmode", "random")
    done = running.cli("detach", "--all")
    assert done.returncode == 0, done.stderr
    assert lab.link("va")["mtu"] == 4000
    assert lab.link("vb")["mtu"] == 1500
    assert lab.link("va")["inet6_addr_gen_mode"] == "eui64"
    assert lab.link("vb")["inet6_addr_gen_mode"] == "random"


def test_a_device_with_the_number_of_a_dead_one_is_not_mistaken_for_it(lab: Lab) -> None:
    """Recorded settings belong to a device, not to its number or name."""
    lab.veth("va", index=500), lab.veth("vb")
    running = Daemon(lab, PAIR).start()
    running.wait_link("connected", "va", "vb")
    running.kill()
    lab.delete("va")
    lab.batch(["link add other index 500 mtu 65535 type veth peer name other1"])
    before = lab.snapshot()["links"]["other"]
    running.start()
    running.stop()
    assert lab.snapshot()["links"]["other"] == before


@pytest.mark.parametrize("keep", [True, False], ids=["keep", "detach"])
def test_on_exit_keep_leaves_the_wires(lab: Lab, keep: bool) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    before = _settled(lab)
    running = Daemon(lab, PAIR, *(("--on-exit", "keep") if keep else ())).start()
    running.wait_link("connected", "va", "vb")
    running.stop()
    assert wired(a, b) is keep
    if keep:
        with Stream(a, b) as stream:
            poll(stream.flows)
            running.start()
        stream.assert_perfect()
        running.kill()
        assert running.cli("detach", "--all").returncode == 0
    assert_as_found(lab, before)


# ---------------------------------------------------------------------- 9. crash and adoption


@MODES
def test_forwarding_outlives_the_daemon_and_is_adopted_without_a_lost_frame(
    lab: Lab, mode: str
) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    before = _settled(lab)
    running = Daemon(lab, _wiring(mode)).start()
    running.wait_link("connected", "va", "vb")
    programs = (lab.xdp("va"), lab.xdp("vb"))
    with Stream(a, b) as stream:
        poll(stream.flows)
        for _ in range(3):
            running.kill()
            received = stream.forth.received
            poll(lambda received=received: stream.forth.received > received + 200)  # type: ignore[misc]
            since = running.mark()
            running.start()
            assert running.events("program.adopted", since)
            assert not running.events("program.loaded", since)
            time.sleep(0.2)
    stream.assert_perfect()
    assert (lab.xdp("va"), lab.xdp("vb")) == programs
    running.stop()
    assert_as_found(lab, before)


# ---------------------------------------------------------------------- ends in another netns


@MODES
def test_an_end_that_moves_away_takes_no_frame_along(lab: Lab, daemon: Start, mode: str) -> None:
    """Its key goes at once; its number, used again, is no key of the program out there."""
    a, b = lab.veth("va"), lab.veth("vb", index=700)
    away = lab.namespace("away", quiet=True)
    running = daemon(_wiring(mode))
    running.wait_link("connected", "va", "vb")
    lab.ip("link", "set", "vb", "netns", away)
    running.wait_link("waiting", "va", "vb")
    run("ip", "link", "set", "vb", "up", namespace=away)
    frames = [ether(0x88B6, noise(80))]
    with a.port() as here, b.port() as there:
        assert exchange(there, here, frames, 0.3).missing == frames
    if mode == "auto":
        remedy = rf"vb xdp\w* off|xdp\w* off.*vb|{away}.*vb.*off"
        poll(
            lambda: re.search(remedy, running.text()),
            2,
            "the moved end and what to run, in the log",
        )
        assert re.search(remedy, json.dumps(running.status())), "and in status"
        _number_can_be_used_again(lab, running, a, b)
    running.stop()


def _number_can_be_used_again(lab: Lab, running: Daemon, a: Station, moved: Station) -> None:
    """By a new device, which is wired: the moved one does not feed that wire."""
    c = lab.veth("vc", index=700)
    running.write({"va": "vc"})
    running.wait_link("connected", "va", "vc")
    poll(lambda: wired(a, c))
    frames = [ether(0x88B6, noise(81))]
    with a.port() as here, moved.port() as there, c.port() as third:
        assert exchange(there, here, frames, 0.3).missing == frames
        assert frames[0] not in third.drain()


def test_an_end_that_comes_back_is_connected_again(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    away = lab.namespace("away", quiet=True)
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    for _ in range(2):
        since = running.mark()
        lab.ip("link", "set", "vb", "netns", away)
        running.wait_link("waiting", "va", "vb", since=since)
        run("ip", "link", "set", "vb", "netns", lab.host, namespace=away)
        running.wait_link("connected", "va", "vb", since=since)
        poll(lambda: wired(a, b))


# ---------------------------------------------------------------------- cycles, names, two daemons


CYCLES = {
    "one veth": {"c1": "c2"},
    "two veths": {"c1": "d1", "c2": "d2"},
    "two veths turned": {"c1": "d2", "c2": "d1"},
    "three veths": {"c2": "d1", "d2": "e1", "e2": "c1"},
    "two plugs": {"c1": "c1", "c2": "c2"},
}


@pytest.mark.parametrize("name", CYCLES)
def test_a_cycle_is_failed_and_named(lab: Lab, daemon: Start, name: str) -> None:
    """The link that closes it, that is: the last in the file."""
    a, b = lab.veth("va"), lab.veth("vb")
    for pair in ("c", "d", "e"):
        lab.pair(f"{pair}1", f"{pair}2")
    running = daemon(CYCLES[name] | PAIR)
    running.wait_link("connected", "va", "vb")
    last = [*CYCLES[name].items()][-1]
    link = running.wait_state(*last, "failed")
    assert all(end in link["reason"] for pair in CYCLES[name].items() for end in pair), link
    frames = lab.link_counters("c1")
    time.sleep(0.3)
    assert lab.link_counters("c1") - frames < 50, "frames circle"
    assert wired(a, b)


def test_a_chain_of_veths_that_is_no_cycle_connects(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    lab.pair("c1", "c2")
    running = daemon({"va": "c1", "c2": "vb"})
    running.wait_link("connected", "va", "c1")
    running.wait_link("connected", "c2", "vb")
    assert wired(a, b)


def test_a_cycle_that_closes_later_is_not_made(lab: Lab, daemon: Start) -> None:
    lab.pair("c1", "c2")
    lab.pair("d1", "d2")
    running = daemon({"c1": "d1"})
    running.wait_link("connected", "c1", "d1")
    running.write({"c1": "d1", "c2": "d2"})
    running.wait_state("c2", "d2", "failed")
    frames = lab.link_counters("c1")
    time.sleep(0.3)
    assert lab.link_counters("c1") - frames < 50, "frames circle"


def test_altnames_are_names(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    name = "clab-leaf1-eth1-of-my-lab"
    lab.ip("link", "property", "add", "dev", "va", "altname", name)
    running = daemon({name: "vb"})
    running.wait_link("connected", name, "vb")
    assert wired(a, b)
    assert lab.link("va")["altnames"] == [name]
    running.stop()
    assert lab.link("va")["altnames"] == [name]


def test_an_altname_given_later_connects(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon({"another-long-name-of-va": "vb"})
    running.wait_link("waiting", "another-long-name-of-va", "vb")
    lab.ip("link", "property", "add", "dev", "va", "altname", "another-long-name-of-va")
    poll(lambda: wired(a, b))


def test_a_name_that_is_no_utf8_stops_nobody(lab: Lab, daemon: Start) -> None:
    """Only its altname can stand in a file, but what we see and record has the name."""
    a, b = lab.veth("va"), lab.veth("vb")
    name, odd = "altname-of-va", os.fsdecode(b"x\xff\x1b")
    lab.ip("link", "property", "add", "dev", "va", "altname", name)
    lab.ip("link", "set", "va", "name", odd)
    running = daemon({name: "vb"})
    running.wait_link("connected", name, "vb")
    since = running.mark()
    lab.ip("link", "set", odd, "down")
    running.wait_event("link.down", since=since)
    lab.ip("link", "set", odd, "up")
    poll(lambda: wired(a, b))
    lab.ip("address", "add", "203.0.113.5/24", "dev", odd)
    poll(lambda: running.link(name, "vb")["warnings"], what="a warning in status", interval=0.1)
    told = running.cli("status").stdout
    assert "x��: it carries 203.0.113.5/24" in told
    lab.ip("link", "set", odd, "name", "va")  # what has the name that was noted is looked for
    running.wait_state(name, "vb", "connected")
    running.write({"vb": "missing"})
    running.wait_link("waiting", "vb", "missing")
    assert cut(a, b)
    running.stop()


def test_two_names_of_one_interface(lab: Lab, daemon: Start) -> None:
    a, b, _ = lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    lab.ip("link", "property", "add", "dev", "va", "altname", "also-known-as-va")
    running = daemon({"va": "vb", "also-known-as-va": "vc"})
    running.wait_link("connected", "va", "vb")
    link = running.wait_state("also-known-as-va", "vc", "failed")
    assert "va" in link["reason"].replace("also-known-as-va", "")
    assert wired(a, b)
    assert_held(lab, "vc")


def test_a_renamed_end_leaves_its_link(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    since = running.mark()
    lab.batch(["link set vb down", "link set vb name vz", "link set vz up"])
    running.wait_link("waiting", "va", "vb", since=since)
    assert_bare(lab, "vz")
    assert cut(a, b)
    running.write({"va": "vz"})
    poll(lambda: wired(a, b))


def test_a_second_daemon_in_the_namespace_is_refused(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    with Stream(a, b) as stream:
        poll(stream.flows)
        second = Daemon(lab, "links: {}\n", name="second").spawn()
        assert second.wait() == 3
        assert str(running.pid) in second.text()
    stream.assert_perfect()


def test_a_daemon_in_another_namespace_is_another_matter(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    daemon(PAIR).wait_link("connected", "va", "vb")
    with Lab() as other:
        c, d = other.veth("va"), other.veth("vb")
        second = Daemon(other, PAIR).start()
        second.wait_link("connected", "va", "vb")
        assert wired(c, d)
        second.stop()
    assert wired(a, b)


# ---------------------------------------------------------------------- signals


def test_sigint_is_a_stop_too(lab: Lab, daemon: Start) -> None:
    lab.veth("va"), lab.veth("vb")
    before = _settled(lab)
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    running.signal(2)
    assert running.wait() == 0
    assert_as_found(lab, before)


def test_every_change_is_logged_with_its_fields(lab: Lab, daemon: Start) -> None:
    lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    running = daemon(PAIR)
    events: list[Event] = [running.wait_link("connected", "va", "vb")]
    running.write({"va": "vc"})
    events.append(running.wait_link("connected", "va", "vc"))
    for event, trigger in zip(events, ("start", "config"), strict=True):
        assert event["trigger"] == trigger
        assert {"link", "a_ifindex", "b_ifindex", "mode", "duration_ms"} <= set(event)
    assert events[0]["a_ifindex"] == lab.ifindex("va")
    loaded = running.events("config.loaded")
    assert loaded[-1]["config_hash"] != loaded[0]["config_hash"]
    running.stop()
    order = [x["event"] for x in running.events()]
    assert order[-1] == "daemon.stopped"
    assert order.index("config.loaded") < order.index("daemon.ready")


@pytest.mark.parametrize("mtu", [1279, 68])
def test_an_end_too_small_for_ipv6_is_left_as_found(lab: Lab, daemon: Start, mtu: int) -> None:
    """The headroom gives it IPv6, which the kernel takes off again with the MTU."""
    lab.veth("va"), lab.veth("vb")
    lab.ip("link", "set", "dev", "va", "mtu", str(mtu))
    before = _settled(lab)
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    assert lab.link("va")["inet6_addr_gen_mode"] == "none"
    running.stop()
    assert_as_found(lab, before)


# ---------------------------------------------------------------------- others hold the lock

_WITH_RTNL = {19, 36, 37, 44, 45}
"""RTM_SETLINK, and qdiscs and filters that are made or deleted."""


@pytest.fixture
def rtnl_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change of an interface waits, as while somebody deletes thousands of them."""
    real = Route.exchange

    def slow(route: Route, request: bytes, ifindex: int | None = None) -> Any:
        if int.from_bytes(request[4:6], sys.byteorder) in _WITH_RTNL:
            time.sleep(0.15)
        return real(route, request, ifindex)

    monkeypatch.setattr(Route, "exchange", slow)


@pytest.mark.usefixtures("rtnl_is_slow")
def test_a_link_works_in_both_directions_at_once_whoever_holds_the_lock(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A move to a new end, and one that changes the mode as well; a mode alone costs no frame."""
    monkeypatch.setenv("XCONNECTD_STATE_DIR", str(lab.directory / "state"))
    stations = {end: lab.veth(end) for end in ("va", "vb", "vc")}

    def change(wires: Xconnect, end: str, mode: str) -> Stream:
        with Stream(stations["va"], stations[end], rate=500) as stream:
            wires.update({"va": {"to": end, "mode": mode}})
            poll(stream.flows)
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
