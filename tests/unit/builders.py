"""What many tests begin with: links, interfaces, a look at them, and what ``status`` says of them.

Everything here is as it is in a good case; a test names what it wants otherwise.
"""

from __future__ import annotations

from typing import Any

from xconnectd.model import (
    Counters,
    End,
    Endpoint,
    Far,
    Filter,
    Interface,
    Link,
    Mode,
    Node,
    Observed,
    Programs,
    State,
    Tunnel,
    Wiring,
    Xdp,
    XdpFeature,
)
from xconnectd.reconcile.link_state import LinkStatus
from xconnectd.status import document, drop_reasons
from xconnectd.status.document import StatusDocument

XDP, INGRESS, EGRESS = 101, 102, 103
SWAP_XDP, SWAP_INGRESS = 104, 105
TUNNEL_INGRESS, TUNNEL_EGRESS = 106, 107
FOREIGN = 7000
"""Program ids: ours, and one that is not."""

SWAPPING = {
    "swap_xdp": SWAP_XDP,
    "swap_ingress": SWAP_INGRESS,
    "swapping": frozenset((SWAP_XDP, SWAP_INGRESS)),
}
PROGRAMS = Programs(XDP, INGRESS, EGRESS, **SWAPPING)
TAKING = Filter("bpf", 1, 1, INGRESS, "xconnectd")
SILENT = Filter("bpf", 1, 1, EGRESS, "xconnectd")

NATIVE = XdpFeature.BASIC | XdpFeature.REDIRECT | XdpFeature.NDO_XMIT
TAP_OFFLOADS = frozenset(
    ("tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation")
)
NIC_OFFLOADS = frozenset(("rx-vlan-hw-parse", "rx-vlan-filter", "rx-lro", "rx-gro-hw"))

# --------------------------------------------------------------------------- what a file asks for


def link(a: str, b: str, **options: Any) -> Link:
    return Link(endpoint(a), endpoint(b), **options)


def endpoint(text: str) -> Endpoint:
    """``leaf1:eth1`` is an end in a node."""
    node, colon, _ = text.partition(":")
    return Endpoint(text, Node(node) if colon else None)


def crossing(**options: Any) -> Link:
    """A link of two hosts, as it is on the first of them: ``h1/a`` and ``h2/b``."""
    here = Endpoint("a", written="h1/a", host="h1")
    there = Endpoint("h2/b", host="h2", tunnel=Tunnel("198.51.100.12", 77))
    return Link(here, there, **{"digest": "1a2b3c4d", **options})


def wiring(*links: Link | str) -> Wiring:
    """Links, or texts like ``a:b`` for plain ones."""
    whole = tuple(link(*one.split(":")) if isinstance(one, str) else one for one in links)
    return Wiring(whole, text=str(hash(whole)).encode())


# --------------------------------------------------------------------------- what the kernel holds


def veth(ifindex: int, name: str, **facts: Any) -> Interface:
    """One end of a veth that nothing was done to; its far end is in another namespace."""
    good = {"kind": "veth", "max_mtu": 65535, "far": Far(2, 0, "eth0"), "up": True, "carrier": True}
    return Interface(ifindex, name, **{**good, **facts})


def wired(ifindex: int, name: str, mode: str = "generic", **facts: Any) -> Interface:
    """The same with all that an end of a link has on it."""
    ours = {"qdisc": "clsact", "ingress": (TAKING,), "egress": (SILENT,)}
    xdp = () if mode == "tc" else (Xdp(mode, XDP),)
    return veth(ifindex, name, **{**ours, "xdp": xdp, **facts})


def look(*interfaces: Interface, **facts: Any) -> Observed:
    """One look that shows these interfaces, with empty maps."""
    names = {name: each.ifindex for each in interfaces for name in (each.name, *each.altnames)}
    shown = {"interfaces": {each.ifindex: each for each in interfaces}, "names": names}
    return Observed(**{**shown, "programs": PROGRAMS, **facts}).told_apart()


def look_at_pair(a: Interface, b: Interface, **facts: Any) -> Observed:
    """One look at two ends that lead to each other."""
    entries = facts.setdefault("entries", {a.ifindex: b.ifindex, b.ifindex: a.ifindex})
    return look(a, b, **{"peers": entries, **facts})


def status(
    state: State = State.CONNECTED,
    a: str = "a",
    b: str = "b",
    *,
    numbers: tuple[int | None, int | None] = (5, 6),
    **facts: Any,
) -> LinkStatus:
    """How a link stands; ``numbers`` are the ifindexes of its ends."""
    mode = facts.get("mode", Mode.GENERIC)
    good = {"reason": "", "mode": mode, "mode_reason": f"because {mode}", "warnings": ()}
    ends = {"a": _end(a, numbers[0]), "b": _end(b, numbers[1])}
    return LinkStatus(link(a, b), state, **{**good, **ends, **facts})


def _end(name: str, ifindex: int | None) -> End:
    there = ifindex is not None
    return End(name, ifindex=ifindex, attached=there, up=there, carrier=there)


# --------------------------------------------------------------------------- what status says


NOT_LOST = drop_reasons.counted(Counters(), Counters())


def end_report(name: str, **facts: Any) -> document.End:
    """One end in a status document; ``dropped`` has the reasons that count."""
    node, _, interface = name.rpartition(":")
    facts = {"node": node, "interface": interface, "host_interface": interface} | facts
    dropped = NOT_LOST | facts.pop("dropped", {})
    there = {"ifindex": 5, "attached": True, "up": True, "carrier": True}
    rates = {"frames_per_s": 0.0, "bits_per_s": 0}
    return document.End(name, **{**there, **rates, "dropped": dropped, **facts})


def link_report(
    a: str | document.End, b: str | document.End, state: str = "connected", **facts: Any
) -> document.Link:
    """One link there, between two ends: names, or reports of their own."""
    ends = [end_report(each) if isinstance(each, str) else each for each in (a, b)]
    of_ends = {"a": ends[0], "b": ends[1], "mode": "generic", "mode_reason": "because generic"}
    comma = "," if any(each.node for each in ends) else ":"
    identity = comma.join(each.name for each in ends)
    return document.Link(identity, State(state), **{**of_ends, **facts})


def peer_report(**facts: Any) -> document.Peer:
    """Another host, whose daemon has just been heard."""
    where = {"host": "h2", "address": "198.51.100.12", "vni": 77, "port": 14789}
    way = {"device": "vxlan-77", "mtu": 1450, "alive": True, "state": "connected"}
    heard = {"digest": "1a2b3c4d", "last_heard_age_s": 0.2, "round_trip_ms": 0.31, "frames": 5}
    return document.Peer(**{**where, **way, **heard, "dropped": 0, **facts})


def crossing_report(**facts: Any) -> document.Link:
    """A link of two hosts on the first of them; ``facts`` are those of its other side."""
    here = end_report("h1/a", host="h1", interface="a", host_interface="a")
    there = end_report("h2/leaf:b", host="h2", host_interface="vxlan-77", interface="b")
    there = there._replace(node="leaf")
    identity = {"link": "h1/a,h2/leaf:b", "digest": "1a2b3c4d", "peer": peer_report(**facts)}
    return link_report(here, there)._replace(**identity)


def report(*links: document.Link, **facts: Any) -> StatusDocument:
    """The whole document of a daemon that runs and has read its file."""
    daemon = document.Daemon(running=True, answers=True, pid=7)
    file = document.File("x.yaml", "loaded")
    config = document.Config(file.path, file.state, files=(file,))
    return StatusDocument(daemon, config, links, **facts)
