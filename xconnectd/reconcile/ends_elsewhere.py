"""Ends elsewhere: which interface of this namespace each of them is, or why there is none.

For one look. A namespace is known by its id here; nothing of it stays open.
"""

from __future__ import annotations

from typing import Protocol

from xconnectd.model import Endpoint, Far, Interface, Made, Node, NodeEnd, Tunnel
from xconnectd.reconcile.made_tunnels import device_name
from xconnectd.reconcile.made_veths import host_name
from xconnectd.reconcile.ports import Interfaces, Ledger, Nodes


class Here(Protocol):
    """Finds an interface of this namespace by its name or ifindex."""

    def __call__(self, wanted: str | int, /) -> Interface | None: ...


class EndsElsewhere:
    """Looks ends in nodes and tunnels up; what is known of a node is asked once a look."""

    def __init__(
        self, interfaces: Interfaces, nodes: Nodes, ledger: Ledger, here: Here | None = None
    ) -> None:
        """``here`` answers from what was seen already; without it the kernel is asked."""
        self._interfaces = interfaces
        self._nodes = nodes
        self._ledger = ledger
        self._here: Here = here or self._ask
        self._known: dict[Node, NodeEnd] = {}

    def _ask(self, wanted: str | int) -> Interface | None:
        return next(iter(self._interfaces.find(wanted)), None)

    def resolve(
        self, end: Endpoint, nodes: dict[str, NodeEnd], tunnels: dict[str, str]
    ) -> Interface | None:
        """The interface here that an end is; what else is known of it goes into the mappings."""
        host = None
        if end.tunnel:
            tunnels[end.name], host = self.by_tunnel(end, end.tunnel)
        elif end.node:
            nodes[end.name], host = self.in_node(end, end.node)
        return host

    def by_tunnel(self, end: Endpoint, tunnel: Tunnel) -> tuple[str, Interface | None]:
        """What is in the way of making a tunnel (empty: nothing), and the interface that it is.

        One that leads elsewhere by now is not it.
        """
        device = self._made(end) or self._held(end)
        if device and device.tunnel == tunnel:
            return "", device
        name = device_name(tunnel)
        taken = self._here(name)
        if taken is None or (device and taken.ifindex == device.ifindex):
            return "", None
        words = f"{name}, to be made for {end}, is the name of another interface, {_kind(taken)}"
        return f"{words}: rename or delete that, or give the link another vni", None

    def in_node(self, end: Endpoint, node: Node) -> tuple[NodeEnd, Interface | None]:
        """What is known of an end in ``node``, and the interface here that it is."""
        place = self._known.get(node)
        if place is None:
            place = self._known[node] = self._place_of(node)
        host = self._made(end)
        if place.refused or (place.waiting and place.certain):
            return place, None
        if place.waiting:  # who knows it cannot be asked: what is wired stays
            host = host or self._held(end)
            return place._replace(warning=place.waiting) if host else place, host
        if host and self._is_in(place, host, end):
            return place, host
        nsid = place.nsid or 0  # None is this namespace, which is refused
        there = self._interfaces.named(end.interface, nsid)
        if there is None:
            return self._missing(place, end, host), None
        host = self._other_end(there, nsid)
        if host is None:
            words = f"{end.interface} in {node.name} is no veth to here: {_what(there)}"
            words += "; delete it there, or name another"
            return place._replace(refused=words, in_the_way=there.ifindex), None
        return place, host

    def _place_of(self, node: Node) -> NodeEnd:
        found = self._nodes.find(node)
        if not found.path:
            return NodeEnd(waiting=found.reason, certain=found.certain, warning=found.warning)
        try:
            inode, nsid = self._interfaces.namespace(found.path)
        except OSError as error:
            words = f"node {node.name} cannot be looked into: {found.path}: {error.strerror}"
            return NodeEnd(waiting=words, certain=False, warning=found.warning)
        place = NodeEnd(found.path, inode, nsid, warning=found.warning)
        if nsid is None:
            words = f"{node.name} is this namespace itself: name its interfaces without the node"
            return place._replace(refused=words)
        return place

    def _made(self, end: Endpoint) -> Interface | None:
        """The interface here that we made for it."""
        made = self._ledger.made.get(end.name)
        return self.host_of(made) if made else None

    def host_of(self, made: Made) -> Interface | None:
        """Somebody else may have given the name to another."""
        host = self._here(made.name)
        return host if host and host.mac == made.mac and host.kind == made.kind else None

    def _held(self, end: Endpoint) -> Interface | None:
        """The interface that is held for it since an earlier look."""
        for ifindex in self._ledger.named.get(end.name, ()):
            host = self._here(ifindex)
            if host and self._ledger.records[ifindex].is_of(host):
                return host
        return None

    def _is_in(self, place: NodeEnd, host: Interface, end: Endpoint) -> bool:
        """Whether the far end is where it was made: a node may rename it there, or move it on.

        Nokia's SR Linux moves its ports to a namespace of its own. A node that has another
        namespace than the one that it was made into has started anew.
        """
        if host.far is None or host.far.nsid is None:
            return False
        return host.far.nsid == place.nsid or self._ledger.made[end.name].namespace == place.inode

    def _missing(self, place: NodeEnd, end: Endpoint, ours: Interface | None) -> NodeEnd:
        name = host_name(end.name)
        taken = None if ours else self._here(name)
        if taken is None:
            return place._replace(is_missing=True)
        words = f"{name}, to be made for {end.name}, is the name of another interface: rename that"
        return place._replace(refused=words)

    def _other_end(self, there: Interface, nsid: int) -> Interface | None:
        """The interface here that is the other end of a veth in the namespace ``nsid``."""
        host = self._here(there.far.ifindex) if there.far else None
        if host is None or host.kind != "veth" or host.far is None:
            return None
        return host if host.far[:2] == Far(there.ifindex, nsid)[:2] else None


def _what(device: Interface) -> str:
    if device.kind == "veth":
        return "its other end is in another namespace"
    return f"it is a {device.kind}" if device.kind else "it is no veth at all"


def _kind(device: Interface) -> str:
    if tunnel := device.tunnel:
        return f"a VXLAN device to {tunnel.remote or 'no single address'} that is not ours"
    return f"a {device.kind}" if device.kind else "a NIC"
