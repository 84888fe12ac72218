"""Ends in nodes in commands: taken and shown by what the file calls them."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from . import fabric
from .captured import Capture, File
from .frames import LLDP, ether, noise
from .lab import NETNS, Lab, Station, poll, run
from .service import Daemon, Start
from .traffic import exchange

END, OTHER = "leaf1:eth1", "spine1:eth1"
LINK = f"{END},{OTHER}"
LINKS = {END: OTHER, "va": "spine1:eth2"}


@pytest.fixture
def two_nodes(lab: Lab, daemon: Start) -> Daemon:
    """Two nodes with a link between them, and one of these with a veth that the file calls va."""
    nodes = fabric.make_nodes(lab, LINKS)
    lab.ip(f"link add va type veth peer name eth9 netns {nodes['leaf1']}")
    running = daemon(fabric.document(lab, LINKS))
    running.wait_state(END, OTHER, "connected")
    return running


def station(lab: Lab, end: str) -> Station:
    name, _, interface = end.partition(":")
    return Station(f"{lab.name}-{name}", end.replace(":", "-"), interface=interface)


def test_by_the_files_text_by_the_links_id_and_by_the_interface_here(two_nodes: Daemon) -> None:
    for name in (END, LINK, f"{OTHER},{END}", "leaf1-eth1"):
        (told,) = json.loads(two_nodes.cli("status", "--json", name).stdout)["links"]
        assert (told["link"], told["a"]["name"], told["b"]["name"]) == (LINK, END, OTHER)
        assert two_nodes.cli("wait", "--timeout", "0", name).returncode == 0
    end = {key: told["a"][key] for key in ("node", "interface", "host_interface", "far_name")}
    assert list(end.values()) == ["leaf1", "eth1", "leaf1-eth1", "eth1"]
    assert f"{END} is leaf1-eth1 here" in two_nodes.cli("status", "-v").stdout
    assert f"{END} — {OTHER} connected" in two_nodes.cli("status").stdout
    assert two_nodes.cli("plan").stdout == "0 changes\n"


def test_a_graph_has_a_box_for_each_node(lab: Lab, two_nodes: Daemon) -> None:
    """With the far end of a plain veth in it."""
    drawn = two_nodes.cli("graph").stdout
    boxes = drawn.split("  subgraph ")[1:]
    assert len(boxes) == 2
    assert all(each in boxes[0] for each in ('["leaf1"]', '["eth1"]', '["eth9<br/>va"]'))
    assert all(each in boxes[1] for each in ('["spine1"]', '["eth1"]', '["eth2"]'))
    odd = 'e<&>"{}\\n#'
    run("ip", "link", "set", "eth9", "down", "name", odd, namespace=f"{lab.name}-leaf1")
    poll(lambda: two_nodes.link("va", "spine1:eth2")["a"]["far_name"] == odd)
    svg = ET.fromstring(two_nodes.cli("graph", "--format", "svg").stdout)
    texts = [each.text for each in svg.iter() if each.tag.endswith("text")]
    assert {odd, "leaf1", "spine1", "eth1"} <= set(texts)


def test_a_capture_takes_the_end_and_goes_on_when_the_node_starts_anew(
    lab: Lab, two_nodes: Daemon
) -> None:
    here, there = station(lab, END), station(lab, OTHER)
    capture = Capture(two_nodes, END)

    def crosses(frame: bytes) -> bool:
        """Whether it crosses the link and is captured."""
        with here.port() as port, there.port() as other:
            assert not exchange(port, other, [frame]).missing  # a node speaks IPv6 of its own
        return frame in File.read(capture.path).frames(END)

    poll(lambda: crosses(LLDP))
    was = two_nodes.link(END, OTHER)["a"]["ifindex"]
    fabric.stop(here.namespace)
    fabric.start(here.namespace)
    poll(lambda: two_nodes.link(END, OTHER)["a"]["ifindex"] not in (None, was))
    two_nodes.wait_state(END, OTHER, "connected")
    poll(lambda: crosses(ether(0x88B5, noise(100))))
    capture.stop()


def test_a_test_names_the_node_and_the_command_for_it(lab: Lab, two_nodes: Daemon) -> None:
    leaf = station(lab, END)
    good = json.loads(two_nodes.cli("test", END, "--json").stdout)
    assert (good["ok"], good["live"]) == (True, True)
    assert [(way["from"], way["to"]) for way in good["ways"]] == [(END, OTHER), (OTHER, END)]
    leaf.ip("link", "set", "eth1", "down")
    two_nodes.wait_state(END, OTHER, "down")
    cause = json.loads(two_nodes.cli("test", END, "--json").stdout)["cause"]
    assert cause["text"].startswith("eth1 in leaf1 is administratively down")
    assert cause["remedy"] == f"nsenter --net={NETNS / leaf.namespace} ip link set dev eth1 up"
    reason = two_nodes.link(END, OTHER)["reason"]
    assert reason == f"no carrier is shown at {OTHER}: eth1 in leaf1 is down"
    lab.run(*cause["remedy"].split())
    two_nodes.wait_state(END, OTHER, "connected")


def test_an_end_in_a_node_is_detached_by_its_text(lab: Lab, two_nodes: Daemon) -> None:
    two_nodes.kill()
    refused = two_nodes.cli("detach", "leaf1:eth7")
    assert refused.returncode == 1
    assert f"attached: {END}, {OTHER}, spine1:eth2, va" in refused.stderr
    assert two_nodes.cli("detach", END).returncode == 0
    assert {"leaf1-eth1", "spine1-eth1"}.isdisjoint(lab.interfaces()), "which were made"
    assert lab.xdp("va"), "the other link stays"
    assert two_nodes.cli("detach", "--all").returncode == 0
