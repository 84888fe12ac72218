"""Ends in nodes on the real kernel: found, made, deleted, and whole again when a node is back."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from . import fabric
from .lab import NETNS, Lab, Station, poll, run
from .service import Daemon, Start
from .traffic import lossless, transfer

END = "leaf1:eth1"
WIRE = {END: "va"}


def wiring(lab: Lab, links: fabric.Links = WIRE, **more: Any) -> str:
    return fabric.document(lab, links, **more)


@pytest.fixture
def leaf1(lab: Lab) -> str:
    """The namespace of that node."""
    return lab.namespace("leaf1", quiet=True)


@pytest.fixture
def va(lab: Lab) -> Station:
    return lab.veth("va", 2)


def eth1(namespace: str, name: str = "eth1") -> dict[str, Any]:
    """What ``ip -d link`` says of it there; empty if there is none."""
    done = run("ip", "-d", "-j", "link", "show", "dev", name, namespace=namespace, check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout) if done.returncode == 0 else [{}]
    return found[0]


def station(namespace: str, number: int = 1) -> Station:
    """The node, with an address on the interface that it was given."""
    found = Station(namespace, "leaf1-eth1", interface="eth1")
    found.use_address(number)
    return found


def ping(here: str, there: Station) -> None:
    run("ping", "-c", "1", "-W", "10", there.address(), namespace=here)


def plug(lab: Lab, namespace: str, name: str = "eth1") -> None:
    """A veth of somebody else, ``veth77`` here."""
    lab.ip(f"link add veth77 up type veth peer name {name} netns {namespace}")
    run("ip", "link", "set", name, "up", namespace=namespace)


# --------------------------------------------------------------------------- made


def test_what_is_missing_is_made_wired_and_deleted(lab: Lab, daemon: Start) -> None:
    links = {END: "spine1:eth7"}
    names = fabric.make_nodes(lab, links)
    before = lab.snapshot()
    one = daemon(wiring(lab, links))
    one.wait_state(END, "spine1:eth7", "connected")
    spine = Station(names["spine1"], "spine1-eth7", interface="eth7")
    spine.use_address(2)
    station(names["leaf1"])
    ping(names["leaf1"], spine)
    assert lab.link("leaf1-eth1")["operstate"] == "UP"
    one.write({})
    poll(lambda: not any(fabric.interfaces(each) for each in names.values()), what="no veth")
    one.stop()
    assert lab.snapshot() == before


def test_a_node_that_starts_anew_has_the_same_end_again(
    lab: Lab, daemon: Start, leaf1: str, va: Station
) -> None:
    one = daemon(wiring(lab, {END: {"to": "va", "mtu": 1400}}))
    one.wait_state(END, va.end, "connected")
    was = eth1(leaf1)
    for _ in range(3):
        fabric.stop(leaf1)
        fabric.start(leaf1)
        poll(lambda: eth1(leaf1).get("operstate") == "UP", what="it is made again")
        one.wait_state(END, va.end, "connected")
        now = eth1(leaf1)
        assert (now["address"], now["mtu"]) == (was["address"], 1400)
        station(leaf1)
        ping(leaf1, va)
    told = [each["event"] for each in one.events(node="leaf1")]
    assert told.count("node.appeared") == 3
    one.stop()
    assert not eth1(leaf1)


def test_it_is_adopted_after_crashes_while_tcp_runs(
    lab: Lab, daemon: Start, leaf1: str, va: Station
) -> None:
    one = daemon(wiring(lab))
    one.wait_state(END, va.end, "connected")
    node, number = station(leaf1), lab.ifindex("leaf1-eth1")
    with lossless(node, va), ThreadPoolExecutor(1) as beside:
        sending = beside.submit(transfer, node, va)
        for _ in range(3):
            one.crash()
        sending.result()
    assert (lab.ifindex("leaf1-eth1"), one.link(END, "va")["state"]) == (number, "connected")
    one.kill()
    one.write({})
    one.start()
    assert not eth1(leaf1), "its line went meanwhile"


def test_a_start_without_a_good_file_keeps_what_was_made(
    lab: Lab, daemon: Start, leaf1: str, va: Station
) -> None:
    one = daemon(wiring(lab))
    one.wait_state(END, va.end, "connected")
    node, number = station(leaf1), lab.ifindex("leaf1-eth1")
    with lossless(node, va):
        one.kill()
        one.write("links: [")
        one.start()
        one.wait_event("config.rejected")
        one.write(wiring(lab))
        one.wait_state(END, va.end, "connected")
    assert lab.ifindex("leaf1-eth1") == number


def test_a_kill_while_veths_are_made_leaves_none_unknown(lab: Lab) -> None:
    links = fabric.spine_leaf(2, 8)
    names = fabric.make_nodes(lab, links)
    before = lab.snapshot()
    one = Daemon(lab, wiring(lab, links))
    for made in (1, 3, 9, 20):
        one.spawn()
        poll(lambda made=made: len(lab.interfaces()) >= made, interval=0.0)
        one.kill()
    one.start()
    assert one.states() == {"connected"}
    one.stop()
    assert lab.snapshot() == before
    assert not any(any(fabric.interfaces(each)) for each in names.values())


def test_an_mtu_that_is_edited_is_set_at_either_side(
    lab: Lab, daemon: Start, leaf1: str, va: Station
) -> None:
    one = daemon(wiring(lab, {END: {"to": "va", "mode": "tc"}}))
    one.wait_state(END, va.end, "connected")
    assert (eth1(leaf1)["mtu"], lab.link("leaf1-eth1")["mtu"]) == (1500, 1500)
    one.write(wiring(lab, {END: {"to": "va", "mode": "tc", "mtu": 9000}}))
    poll(lambda: (eth1(leaf1)["mtu"], lab.link("leaf1-eth1")["mtu"]) == (9000, 9000))
    assert one.link(END, "va")["a"]["mtu"] == 9000


def test_without_the_right_to_enter_it_is_left_down_and_told(
    lab: Lab, leaf1: str, va: Station
) -> None:
    rights = ("setpriv", "--bounding-set=-all,+net_admin,+net_raw,+net_broadcast,+bpf,+perfmon")
    one = Daemon(lab, wiring(lab), through=rights).start()
    link = one.wait_state(END, va.end, "down")
    (warning,) = link["warnings"]
    assert warning.startswith(f"{END}: its network namespace cannot be entered: ")
    assert "set it up in the node, or give the daemon CAP_SYS_ADMIN" in warning
    assert one.status()["links"][0]["warnings"] == [warning], "who reads the kernel is told too"
    run("ip", "link", "set", "eth1", "up", namespace=leaf1)
    assert one.wait_state(END, "va", "connected")["warnings"] == []
    station(leaf1)
    ping(leaf1, va)
    one.stop()
    assert not eth1(leaf1), "to delete it that right is not needed"


# --------------------------------------------------------------------------- found


def test_a_veth_of_somebody_else_is_wired_and_left(
    lab: Lab, daemon: Start, leaf1: str, va: Station
) -> None:
    plug(lab, leaf1)
    before = lab.settled()
    one = daemon(wiring(lab))
    link = one.wait_state(END, "va", "connected")
    assert link["a"]["host_interface"] == "veth77"
    station(leaf1)
    ping(leaf1, va)
    one.stop()
    assert lab.settled() == before


@pytest.mark.parametrize("is_far", [True, False])
def test_a_veth_that_takes_the_place_of_something_else_is_noticed_by_its_news(
    lab: Lab, leaf1: str, va: Station, is_far: bool
) -> None:
    """A rename there tells nobody here; without CAP_NET_BROADCAST the new end here must do."""
    run("ip", "link", "add", "eth1", "type", "bridge", namespace=leaf1)
    less = () if is_far else ("setpriv", "--bounding-set=-net_broadcast")
    one = Daemon(lab, wiring(lab), through=less).start()
    link = one.wait_state(END, va.end, "failed")
    assert link["reason"].startswith("eth1 in leaf1 is no veth to here: it is a bridge; delete it")
    if is_far:
        plug(lab, leaf1, "new")
    one.idle(3.5)  # it tries again after 1, 3 and 7 s by itself
    one.signal(signal.SIGSTOP)  # else it makes one as soon as the name is free
    run("ip", "link", "set", "eth1", "name", "old", namespace=leaf1)
    if is_far:
        run("ip", "link", "set", "new", "name", "eth1", namespace=leaf1)
    else:
        plug(lab, leaf1)
    one.signal(signal.SIGCONT)
    link = one.wait_state(END, va.end, "connected", timeout=2)
    assert link["a"]["host_interface"] == "veth77"


def test_a_name_that_becomes_free_is_used(lab: Lab, daemon: Start, leaf1: str, va: Station) -> None:
    run("ip", "link", "add", "eth1", "type", "bridge", namespace=leaf1)
    one = daemon(wiring(lab))
    one.wait_state(END, va.end, "failed")
    one.idle(3.5)  # it tries again after 1, 3 and 7 s by itself
    run("ip", "link", "set", "eth1", "name", "old", namespace=leaf1)
    one.wait_state(END, va.end, "connected", timeout=2)


def test_what_a_node_renames_or_moves_on_stays_wired(
    lab: Lab, daemon: Start, leaf1: str, va: Station
) -> None:
    """Nokia's SR Linux moves its ports to a namespace of its own."""
    one = daemon(wiring(lab))
    one.wait_state(END, va.end, "connected")
    further = lab.namespace("further", quiet=True)
    run("ip", "link", "set", "eth1", "name", "e1-1", "netns", further, namespace=leaf1)
    run("ip", "link", "set", "e1-1", "up", namespace=further)
    there = Station(further, "leaf1-eth1", interface="e1-1")
    there.use_address(1)
    ping(further, va)
    assert one.reload()
    assert one.link(END, "va")["state"] == "connected"
    assert not eth1(leaf1)


def test_the_hosts_own_namespace_is_no_node(lab: Lab, daemon: Start, va: Station) -> None:
    nodes = {"leaf1": {"netns": str(NETNS / lab.host)}}
    one = daemon(json.dumps({"links": WIRE, "nodes": nodes}))
    reason = one.link(END, va.end)["reason"]
    assert reason == "leaf1 is this namespace itself: name its interfaces without the node"


# --------------------------------------------------------------------------- nothing is held


def test_no_namespace_is_kept_alive_and_no_descriptor_open(lab: Lab, daemon: Start) -> None:
    links = {f"leaf{n}:eth1": f"leaf{n}:eth2" for n in range(100)}
    one = daemon(wiring(lab, {}))
    names = fabric.make_nodes(lab, links)
    opened = []
    for few in (dict([*links.items()][:5]), links):
        one.write(wiring(lab, few))
        poll(lambda few=few: len(one.ask("status")["links"]) == len(few), what="it is read")
        poll(lambda: one.states() == {"connected"}, what="all of them")
        opened.append(descriptors(one))
    assert len(opened[0]) == len(opened[1])
    assert not [each for each in opened[1] if each.startswith(("net:", str(NETNS)))]
    lab.ip(f"link add witness type veth peer name witness netns {names['leaf7']}")
    fabric.stop(names["leaf7"])
    poll(lambda: "witness" not in lab.interfaces(), what="the namespace is gone")
    one.wait_state("leaf7:eth1", "leaf7:eth2", "waiting")


def descriptors(one: Daemon) -> list[str]:
    found = []
    for each in Path(f"/proc/{one.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of a look at that very moment
            found.append(str(each.readlink()))
    return found


def test_a_fabric_of_forty_nodes_is_made_from_nothing_but_the_file(lab: Lab) -> None:
    """In 3 s on a machine that has nothing else to do; here it must only be all of it."""
    lab.hush()
    links = fabric.spine_leaf()
    names = fabric.make_nodes(lab, links)
    assert (len(names), len(links)) == (40, 150)
    one = Daemon(lab, wiring(lab, links)).spawn()
    began = time.monotonic()
    assert one.cli("wait").returncode == 0
    print(f"{time.monotonic() - began:.2f} s")
    a, b = (Station(names[each], "", interface="eth1") for each in ("spine0", "leaf0"))
    a.use_address(1)
    b.use_address(2)
    ping(a.namespace, b)
    one.stop()
    assert not lab.interfaces()
