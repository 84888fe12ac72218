"""The nodes of a chaos run: namespaces that come, go and change their names, and what is in them.

What an end in a node is to be is read from the kernel: a veth with that name in there whose other
end is in the host, or nothing, or something else.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from .lab import NETNS, Lab, Station, run
from .traffic import Wire

INTERFACES: Final = ("eth1", "eth2")
_PLUGGED: Final = "plug"
"""What the names of veths begin with that were plugged into a node by somebody else."""


@dataclass
class Node:
    """A namespace as the file names it; it has ``entry`` in its ``nodes``."""

    name: str
    namespace: str
    entry: str = ""
    aside: bool = False

    @property
    def path(self) -> Path:
        return NETNS / self.namespace

    @property
    def is_there(self) -> bool:
        return self.path.exists()

    def ip(self, *lines: str) -> None:
        """Commands of ``ip`` in there, each as far as it can be done."""
        text = "\n".join(lines) + "\n"
        run("ip", "-force", "-batch", "-", namespace=self.namespace, text=text, check=False)

    def links(self) -> dict[str, dict[str, Any]]:
        with suppress(AssertionError):  # it has just gone
            shown = json.loads(run("ip", "-d", "-j", "link", namespace=self.namespace).stdout)
            return {link["ifname"]: link for link in shown}
        return {}


class Far(NamedTuple):
    """The end inside, as it was when it was looked at."""

    up: bool


@dataclass
class NodeEnd:
    """An end in a node that is a veth to the host, called ``host`` there; see ``chaos.Device``.

    ``renamed`` is what it was made to be called in its node since. ``down_of`` is the ``number`` of
    the veth whose end in there somebody has set down.
    """

    node: Node
    interface: str
    host: str = ""
    number: int = 0
    renamed: str = ""
    is_plugged: bool = False
    down_of: int = 0
    wire: Wire | None = None
    far: Far | None = None
    far_link: Mapping[str, Any] = field(default_factory=dict)
    where: str = "gone"
    foreign: Path | None = None
    mtus: set[int] = field(default_factory=lambda: {1500, 9000})
    set_to: str = ""
    was_down: bool = True
    is_occupied: bool = False
    mac: str = ""

    @property
    def name(self) -> str:
        return f"{self.node.name}:{self.interface}"

    @property
    def station(self) -> Station:
        return Station(self.node.namespace, self.host, interface=self.far_link["ifname"])

    def look(self, links: Mapping[str, dict[str, Any]]) -> None:
        """At what it is now; ``links`` are those of the host."""
        self.close()
        there = self.node.links() if self.node.is_there else {}
        far = there.get(self.renamed or self.interface)
        if far is None and self.renamed:
            self.renamed = ""
            far = there.get(self.interface)
        host = _other_end(far, links) if far else None
        self.is_occupied = far is not None and host is None
        self.where = "host" if host else "gone"
        if far is None or host is None:
            return
        if host["ifindex"] != self.number:
            self.number, self.set_to = host["ifindex"], ""
        self.host, self.far_link = host["ifname"], far
        self.is_plugged = self.host.startswith(_PLUGGED)
        self.far = Far("UP" in far["flags"])
        with suppress(OSError):
            self.wire = self.station.port()

    def close(self) -> None:
        """Nothing of ours is to keep its namespace alive."""
        if self.wire:
            self.wire.close()
        self.wire = None


def _other_end(
    far: Mapping[str, Any], links: Mapping[str, dict[str, Any]]
) -> dict[str, Any] | None:
    """Of a veth in a node, in the host."""
    if far.get("linkinfo", {}).get("info_kind") != "veth" or "link_index" not in far:
        return None
    for link in links.values():
        same = (link["ifindex"], link.get("link_index")) == (far["link_index"], far["ifindex"])
        if same and "link_netnsid" in link and "link_netnsid" in far:
            return link
    return None


class Nodes:
    """All of a run, and what is done to them."""

    def __init__(self, lab: Lab, chance: random.Random) -> None:
        self._lab = lab
        self._random = chance
        self._count = 0
        self.nodes = []
        for name in ("p0", "p1", "p2"):
            namespace = lab.namespace(name)
            by_entry = name != "p2"
            entry = f"netns: {NETNS / namespace}" if by_entry else ""
            self.nodes.append(Node(name if by_entry else namespace, namespace, entry))
        self._aside = lab.namespace("aside")
        run("ip", "netns", "delete", self._aside)
        self.ends = {
            end.name: end for node in self.nodes for end in (NodeEnd(node, x) for x in INTERFACES)
        }
        lab.on_close(lambda: [end.close() for end in self.ends.values()])

    def section(self) -> str:
        """Of the file."""
        lines = (f"  {x.name}: {{{x.entry}}}\n" for x in self.nodes if x.entry)
        return "nodes:\n" + "".join(lines)

    def look(self, links: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The interfaces here that are ends in nodes, by the text of the file."""
        for end in self.ends.values():
            end.look(links)
        return {end.name: links[end.host] for end in self.here.values()}

    @property
    def here(self) -> dict[str, NodeEnd]:
        return {name: end for name, end in self.ends.items() if end.where == "host"}

    def call_by_text(self, seen: dict[str, Any]) -> None:
        """Ends of wires that a daemon without a good file has taken over by their names here.

        A text of the file is to it the name of the one veth that was made for it, and leads to no
        other that is there meanwhile.
        """
        texts = {end.host: name for name, end in self.here.items()}
        for link in seen["links"]:
            for end in (link["a"], link["b"]):
                name = end["name"] = texts.get(end["name"], end["name"])
                if name in self.here and self.here[name].number != end["ifindex"]:
                    end["name"] = f"what {name} was"

    @property
    def occupied(self) -> set[str]:
        """Ends in whose place there is something else."""
        return {name for name, end in self.ends.items() if end.is_occupied}

    def problems(self, wanted: Mapping[str, int], strange: set[str]) -> Iterator[str]:
        """What is made while no link asks for it, or is not as its link asks.

        ``wanted`` has the MTU of each end that a link names, ``strange`` are interfaces of the
        host that nobody but the daemon can have made.
        """
        asked = {end.host for end in self.here.values() if end.name in wanted}
        for name in strange - asked:
            if not name.startswith(_PLUGGED):
                yield f"{name}: an interface that no link asks for"
        for end in self.ends.values():
            if end.name in wanted and end.node.is_there and end.where == "gone":
                if not end.is_occupied:
                    yield f"{end.name} is not made"
            elif end.name in wanted and end.where == "host" and not end.is_plugged:
                yield from self._wrong(end, wanted[end.name])

    def _wrong(self, end: NodeEnd, mtu: int) -> Iterator[str]:
        if end.far_link["mtu"] != mtu:
            yield f"{end.name}: mtu {end.far_link['mtu']} in its node, not {mtu}"
        if end.down_of != end.number and "UP" not in end.far_link["flags"]:
            yield f"{end.name} was made and is down in its node"
        end.mac = end.mac or end.far_link["address"]
        if end.far_link["address"] != end.mac:
            yield f"{end.name}: {end.far_link['address']} now, {end.mac} before"

    # ------------------------------------------------------------------ harms

    def harms(self) -> dict[str, tuple[int, Sequence[Any], Any]]:
        there = [x for x in self.nodes if x.is_there]
        aside = [x for x in self.nodes if x.aside and not x.is_there]
        ends = [x for x in self.ends.values() if x.node.is_there]
        plugged = [x for x in self._lab.links() if x.startswith(_PLUGGED)]
        return {
            "node add": (10, [x for x in self.nodes if not x.is_there], self._add),
            "node delete": (5, there, self._delete),
            "node anew": (5, there, self._renew),
            "node aside": (2, there if not any(x.aside for x in self.nodes) else [], self._move),
            "node back": (8, aside, self._bring_back),
            "end plug": (3, ends, self._plug),
            "end occupy": (2, ends, self._occupy),
            "end vacate": (6, [x for x in ends if x.is_occupied or x.is_plugged], self._vacate),
            "end delete": (3, ends, self._delete_end),
            "end rename": (2, ends, self._rename_inside),
            "end far": (5, ends, self._far),
            "end host": (2, ends, self._rename_here),
            "unplug": (4, plugged, self._unplug),
        }

    def _add(self, node: Node) -> str:
        run("ip", "netns", "add", node.namespace)
        return node.name

    def _delete(self, node: Node) -> str:
        self._close(node)
        run("ip", "netns", "delete", node.namespace)
        return node.name

    def _renew(self, node: Node) -> str:
        self._delete(node)
        return self._add(node)

    def _close(self, node: Node) -> None:
        for end in self.ends.values():
            if end.node is node:
                end.close()

    def _move(self, node: Node) -> str:
        """To another name, as ``docker rename`` does."""
        self._close(node)
        (NETNS / self._aside).touch()
        run("mount", "--bind", str(node.path), str(NETNS / self._aside))
        run("ip", "netns", "delete", node.namespace)
        node.aside = True
        return node.name

    def _bring_back(self, node: Node) -> str:
        node.path.touch()
        run("mount", "--bind", str(NETNS / self._aside), str(node.path))
        run("ip", "netns", "delete", self._aside)
        node.aside = False
        return node.name

    def _plug(self, end: NodeEnd) -> str:
        """Somebody is quicker than the daemon, or is not."""
        self._count += 1
        host = f"{_PLUGGED}{self._count}"
        end.node.ip(f"link delete {end.interface}")
        peer = f"type veth peer name {end.interface} netns {end.node.namespace}"
        self._lab.ip(f"link add name {host} up {peer}", check=False)
        end.node.ip(f"link set {end.interface} up")
        return f"{end.name} {host}"

    def _occupy(self, end: NodeEnd) -> str:
        end.node.ip(
            f"link delete {end.interface}",
            f"link add {end.interface} type veth peer name its{end.interface}",
        )
        return end.name

    def _vacate(self, end: NodeEnd) -> str:
        end.node.ip(f"link delete {end.interface}")
        return end.name

    _delete_end = _vacate

    def _rename_inside(self, end: NodeEnd) -> str:
        """What was made stays what it is; what was plugged is another end then."""
        if end.renamed or end.is_plugged or end.where == "gone":
            return self._vacate(end)
        other = f"my{end.interface}"
        end.node.ip(f"link set {end.interface} down", f"link set {end.interface} name {other}")
        end.node.ip(f"link set {other} up")
        end.renamed, end.down_of = other, 0
        return f"{end.name} {other}"

    def _far(self, end: NodeEnd) -> str:
        state = self._random.choice(("down", "up", "up"))
        name = end.renamed or end.interface
        end.node.ip(f"link set {name} {state}")
        far = end.node.links().get(name, {})
        end.down_of = far.get("link_index", 0) if state == "down" else 0
        return f"{end.name} {state}"

    def _rename_here(self, end: NodeEnd) -> str:
        self._count += 1
        name = f"was{self._count}"
        if not end.is_plugged and end.host:
            self._lab.ip(f"link set {end.host} name {name}", check=False)
        return f"{end.host} {name}"

    def _unplug(self, host: str) -> str:
        self._lab.ip(f"link delete {host}", check=False)
        return host
