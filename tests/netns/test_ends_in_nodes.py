"""Ends in nodes on the real kernel: found, made, deleted, and whole again when a node is back."""

from __future__ import annotations

import json
from typing import Any

from .lab import NETNS, Lab, poll, run
from .service import Start

END = "leaf1:eth1"


def node(lab: Lab, name: str) -> str:
    """A namespace for the node of this name."""
    return lab.namespace(name, quiet=True)


def wiring(lab: Lab, links: dict[str, str | dict[str, Any]], *names: str) -> str:
    """A file in which the nodes of these names are the namespaces of this lab."""
    nodes = {name: {"netns": str(NETNS / f"{lab.name}-{name}")} for name in names or ("leaf1",)}
    return json.dumps({"links": links, "nodes": nodes})


def interface(namespace: str, name: str = "eth1") -> dict[str, Any]:
    """What ``ip -d link`` says of an interface there; empty if there is none."""
    done = run("ip", "-d", "-j", "link", "show", "dev", name, namespace=namespace, check=False)
    found: list[dict[str, Any]] = json.loads(done.stdout) if done.returncode == 0 else [{}]
    return found[0]


def restart(namespace: str) -> None:
    run("ip", "netns", "delete", namespace)
    run("ip", "netns", "add", namespace)


def pings(*stations: str) -> None:
    """One frame at least goes from the first to the last, by their addresses."""
    here, there = stations
    run("ping", "-c", "1", "-W", "5", there, namespace=here)


def address(namespace: str, number: int, name: str = "eth1") -> str:
    run("ip", "address", "add", f"198.51.100.{number}/24", "dev", name, namespace=namespace)
    return f"198.51.100.{number}"


def test_what_is_missing_is_made_wired_and_deleted(lab: Lab, daemon: Start) -> None:
    leaf1, spine1 = node(lab, "leaf1"), node(lab, "spine1")
    before = lab.snapshot()
    one = daemon(wiring(lab, {END: "spine1:eth7"}, "leaf1", "spine1"))
    one.wait_state(END, "spine1:eth7", "connected")
    address(leaf1, 1)
    pings(leaf1, address(spine1, 2, "eth7"))
    assert lab.link("leaf1-eth1")["operstate"] == "UP"
    one.write(wiring(lab, {}, "leaf1", "spine1").replace("{}", "{}"))
    poll(lambda: not interface(leaf1) and not interface(spine1, "eth7"), what="both are deleted")
    one.stop()
    assert lab.snapshot() == before


def test_a_node_that_starts_anew_has_the_same_end_again(lab: Lab, daemon: Start) -> None:
    leaf1, va = node(lab, "leaf1"), lab.veth("va", 2)
    one = daemon(wiring(lab, {END: {"to": "va", "mtu": 1400}}))
    one.wait_state(END, "va", "connected")
    was = interface(leaf1)
    for _ in range(3):
        restart(leaf1)
        poll(lambda: interface(leaf1).get("operstate") == "UP", what="it is made again")
        one.wait_state(END, "va", "connected")
        now = interface(leaf1)
        assert (now["address"], now["mtu"]) == (was["address"], 1400)
        address(leaf1, 1)
        pings(leaf1, va.address())
    one.stop()
    assert not interface(leaf1)
