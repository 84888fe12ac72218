"""What ``interfaces``, ``host_use`` and ``ethtool`` see of interfaces on the real kernel."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.sharedctypes import Synchronized

import pytest
from pyroute2 import IPRoute

from xconnectd.model import Use
from xconnectd.netlink import ethtool
from xconnectd.netlink.host_use import HostUse
from xconnectd.netlink.interfaces import Interfaces

from .lab import PROG_TC, Lab, code, inside, meanwhile, poll, run

NO_UTF8 = os.fsdecode(b"x\xff")


def test_a_name_that_is_no_utf8_is_a_name(lab: Lab, interfaces: Interfaces) -> None:
    long = NO_UTF8 * 10
    lab.pair(NO_UTF8, "vb")
    lab.ip(f"link property add dev {NO_UTF8} altname {long}")
    (found,) = interfaces.find(NO_UTF8)
    assert (found.name, found.altnames) == (NO_UTF8, (long,))
    assert interfaces.find(long, found.ifindex) == [found, found]
    assert interfaces.find("vc", long * 5, 999) == []


def test_a_driver_is_asked_by_such_a_name(lab: Lab) -> None:
    """pyroute2 is not: what it would tell is not known then, and nothing breaks."""
    lab.tap("tap0")
    lab.ip(f"link set tap0 name {NO_UTF8}")
    assert inside(lab.host, lambda: ethtool.driver(NO_UTF8)) == "tun"
    assert inside(lab.host, lambda: ethtool.features(NO_UTF8)) == frozenset()
    with pytest.raises(OSError, match="UTF-8"):
        inside(lab.host, lambda: ethtool.change_feature(NO_UTF8, "rx-gro", on=False))


def test_a_device_tells_what_it_stands_on(lab: Lab, interfaces: Interfaces) -> None:
    """In this namespace: of a veth the same attribute is its far end, of others one elsewhere."""
    box = lab.namespace("box")
    lab.pair("va", "vb")
    lab.ip("link add link va name mv0 type macvlan")
    lab.ip("link add vx0 type vxlan id 7 dstport 4789 remote 198.51.100.1 dev vb")
    lab.ip("link add vx1 type vxlan id 8 dstport 4790 remote 198.51.100.1")
    lab.ip(f"link add link vb name mv1 netns {box} type macvlan")
    lab.tap("tap0")
    known = interfaces.all()
    lowers = {each.name: [known[i].name for i in each.lowers] for each in known.values()}
    assert {name: found for name, found in lowers.items() if found} == {
        "mv0": ["va"],
        "vx0": ["vb"],
    }
    run("ip", "link", "set", "mv1", "netns", lab.host, namespace=box)
    (back,) = interfaces.find("mv1")
    assert back.lowers == {lab.ifindex("vb")}


def test_our_own_netns_is_not_elsewhere(
    lab: Lab, interfaces: Interfaces, host_use: HostUse
) -> None:
    """It gets an id for itself as soon as somebody looks at what is on top of it from elsewhere."""
    box = lab.namespace("box")
    lab.ip("link add va type ifb")
    lab.ip("link add link va name mv0 type macvlan")
    lab.ip(f"link set mv0 netns {box}")
    uses = inside(lab.host, lambda: host_use.uses(interfaces.all().values()))
    assert uses[lab.ifindex("va")] == (Use("mv0 of another namespace is on top of it"),)
    assert inside(lab.host, interfaces.own_nsid) is not None
    names = inside(lab.host, lambda: sorted(each.name for _, each in interfaces.elsewhere()))
    assert names == ["lo", "mv0"]


def test_what_stands_elsewhere_on_another_device_of_that_number(
    lab: Lab, interfaces: Interfaces, host_use: HostUse
) -> None:
    """As long as ours has no id for itself, nothing of another namespace is on top of it."""
    lab.ip("link add va index 77 type ifb")
    away = lab.namespace("away")
    lab.ip(f"netns set {away} 5")
    run("ip", "link", "add", "under", "index", "77", "type", "ifb", namespace=away)
    lower = ("link", "add", "link", "under", "name", "mv0", "type", "macvlan")
    run("ip", *lower, namespace=away)
    (found,) = interfaces.find("va")
    assert inside(lab.host, interfaces.own_nsid) is None
    assert inside(lab.host, lambda: host_use.uses([found])) == {77: ()}
    assert "mv0" in inside(lab.host, lambda: [each.name for _, each in interfaces.elsewhere()])


def test_many_are_seen_as_each_of_them_is(lab: Lab, interfaces: Interfaces) -> None:
    """Of many one dump tells what stands at ``ffff:``, and one the far ends in one namespace.

    Of these one went meanwhile, and others are elsewhere: in this namespace, or beside few others.
    """
    lab.hush()
    full, other = lab.namespace("full", quiet=True), lab.namespace("other", quiet=True)
    far = [*[full] * 300, *[other] * 30]
    lab.batch(
        f"link add a{n} type veth peer name b{n} netns {there}" for n, there in enumerate(far)
    )
    lab.batch(f"link add c{n} type veth peer name d{n}" for n in range(30))
    run("ip", "-batch", "-", namespace=full, text="link set b7 up mtu 1400\nlink set b8 up")
    passes = lab.program(PROG_TC, (code(0xB7), code(0x95)))
    lines = [f"qdisc add dev a{n} clsact" for n in range(0, 200, 2)]
    lines += [f"qdisc add dev a{n} ingress" for n in range(200, 210)]
    for place in ("a4 ingress", "a4 egress", "a6 egress", "a205 ingress", "a205 ingress pref 7"):
        lines += [f"filter add dev {place} bpf da pinned {passes}"]
    run("tc", "-batch", "-", namespace=lab.host, text="\n".join(lines) + "\n")
    known = interfaces.all()
    run("ip", "link", "set", "b9", "netns", other, namespace=full)
    found = interfaces.complete(known.values())
    alone = {ifindex: interfaces.complete([each])[ifindex] for ifindex, each in known.items()}
    assert found == alone
    by_name = {each.name: each for each in found.values()}
    assert [by_name[name].qdisc for name in ("a3", "a4", "a205")] == ["", "clsact", "ingress"]
    assert [len(by_name[name].ingress) for name in ("a2", "a4", "a205")] == [0, 1, 2]
    shown = [by_name[name].far for name in ("a7", "a9", "a310", "c3")]
    assert [(each.name, each.mtu) for each in shown if each] == [
        ("b7", 1400),
        ("", None),
        ("b310", 1500),
        ("d3", 1500),
    ]


MANY = 2000
"""A dump of so many takes longer than it takes to make a device and to delete one."""


def _churn(rounds: Synchronized[int]) -> None:
    """New devices without end (``new0``, …); every tenth time one goes (``old0``, …)."""
    with IPRoute() as route:
        while rounds.value < MANY:
            route.link("add", ifname=f"new{rounds.value}", kind="ifb")
            if rounds.value % 10 == 0:
                route.link("del", ifname=f"old{rounds.value}")
            rounds.value += 1
            time.sleep(0.002)


def test_a_dump_ends_though_devices_come_and_go(lab: Lab, interfaces: Interfaces) -> None:
    """Every dump is marked as interrupted then; the answer lacks nothing and has nothing stale."""
    lab.hush()
    lab.batch(f"link add old{n} type ifb" for n in range(MANY))
    count: Synchronized[int] = multiprocessing.Value("L", 0)
    churn = lambda: inside(lab.host, lambda: _churn(count))  # noqa: E731
    with meanwhile(churn), ThreadPoolExecutor(1) as thread:
        poll(lambda: count.value > 2)
        for _ in range(4):
            rounds = count.value
            asked = thread.submit(inside, lab.host, interfaces.all)
            found = {each.name for each in asked.result(20).values()}
            assert count.value < MANY, "it was not asked while devices came and went"
            made = {f"new{n}" for n in range(rounds)}
            left = {f"old{n}" for n in range(MANY) if n % 10 or n > count.value}
            assert {"lo", *made, *left} <= found
            assert not {f"old{n}" for n in range(0, rounds, 10)} & found
