"""What must not be connected, and why: lock-outs, ports, foreign programs, cycles. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from shlex import quote
from typing import Final

from xconnectd.model import (
    DROP_HANDLE,
    FILTER_HANDLE,
    FILTER_PRIORITY,
    Filter,
    Interface,
    Link,
    Mode,
    Observed,
    Use,
)


def refusal(link: Link, mode: Mode, end: Interface, other: Interface, observed: Observed) -> str:
    """Why ``end`` must not be connected to ``other`` by this link; empty when it may."""
    if observed.keeps(link, end, other):
        return _foreign(mode, end, observed)
    return refusal_to_hold(link, mode, end, observed)


def refusal_to_hold(link: Link, mode: Mode, end: Interface, observed: Observed) -> str:
    """Why ``end`` must not be taken at all, whatever its partner does.

    So an end that is held and not wired is detached again when the host comes to use it.
    """
    if words := _foreign(mode, end, observed) or _port(end):
        return words
    found = () if link.allow_addressed else uses(end, observed)
    if not found:
        return ""
    words = "; ".join(use.words for use in found)
    return f"the host uses {end.name}: {words} (allow_addressed: true overrides this)"


def warnings(link: Link, end: Interface, observed: Observed) -> list[str]:
    """What has come upon a connected end that would have refused a new one."""
    found = () if link.allow_addressed else uses(end, observed)
    words = [f"{end.name}: {use.words}" for use in found]
    if end.master:
        words.append(_port(end))
    return words if words and observed.ours[end.ifindex].held else []


def _foreign(mode: Mode, end: Interface, observed: Observed) -> str:
    """What somebody else has put where our programs must stand."""
    for xdp in end.xdp:
        if xdp not in observed.ours[end.ifindex].xdp:
            who = observed.foreign.get(xdp.program, f"id {xdp.program}")
            return f"{end.name} runs an XDP program that is not ours: {who}"
    if end.qdisc == "ingress":
        return (
            f"{end.name} has an ingress qdisc, but clsact is needed;"
            f" remove it: tc qdisc del dev {quote(end.name)} ingress"
        )
    if found := foreign_filter(mode, end, observed):
        direction, filter_ = found
        who = f"{filter_.kind} {filter_.name}".strip()
        return f"{end.name} has a tc {direction} filter that is not ours: {who}"
    return ""


def foreign_filter(mode: Mode, end: Interface, observed: Observed) -> tuple[str, Filter] | None:
    """Somebody else's filter that leaves no room for ours, and its direction."""
    ours = observed.ours[end.ifindex]
    ingress, egress = ("ingress", end.ingress, ours.ingress), ("egress", end.egress, ours.egress)
    for direction, filters, known in (ingress, egress):
        for filter_ in filters:
            if filter_ not in known and (
                (mode is Mode.TC and direction == "ingress") or _is_in_our_place(filter_)
            ):
                return direction, filter_
    return None


def _is_in_our_place(filter_: Filter) -> bool:
    """Also a filter of another kind at our priority: the kernel takes one kind at each."""
    is_alike = filter_.kind == "bpf" and filter_.handle not in (FILTER_HANDLE, DROP_HANDLE)
    return filter_.priority == FILTER_PRIORITY and not is_alike


def _port(end: Interface) -> str:
    if not end.master:
        return ""
    kind = end.master_kind or "master device"
    return f"{end.name} is a port of a {kind}; release it: {command_to_release(end)}"


def command_to_release(port: Interface) -> str:
    """What makes an interface no port any more."""
    name = quote(port.name)
    if port.master_kind == "openvswitch":
        return f"ovs-vsctl del-port {name}"
    return f"ip link set dev {name} nomaster"


_ENDS_OF_WIRES: Final = ("veth", "tun")
"""Whoever is a router behind one of these is so for the lab. Behind a NIC it is the host's own."""


def uses(end: Interface, observed: Observed) -> tuple[Use, ...]:
    """What the host itself uses an end for."""
    found = observed.uses.get(end.ifindex)
    if not found:
        return ()
    return tuple(use for use in found if not use.learnt or end.kind not in _ENDS_OF_WIRES)


def learnt(end: Interface, observed: Observed) -> tuple[Use, ...]:
    """What a router on the wire made the host believe, and what is no use by the host."""
    if end.kind not in _ENDS_OF_WIRES:
        return ()
    return tuple([use for use in observed.uses.get(end.ifindex, ()) if use.learnt])


# --------------------------------------------------------------------------- cycles


def cycles(pairs: Sequence[tuple[str, int, int]], observed: Observed) -> Mapping[str, str]:
    """The links that close a cycle through veth peers of this namespace, each with its cycle.

    ``pairs`` are (link id, ifindex, ifindex) in the file's order; of several links in one
    cycle only the last is named: without it there is none.
    """
    partner: dict[int, int] = {}
    closing: dict[str, str] = {}
    for link, a, b in pairs:  # no interface is in two of them
        partner |= {a: b, b: a}
        if path := _way_round(b, partner, observed):
            names = " → ".join(_names(path, observed))
            closing[link] = f"it closes a loop in which frames would circle for ever: {names}"
            del partner[a]
            partner.pop(b, None)  # the end of a loopback is its own partner
    return closing


def _way_round(start: int, partner: Mapping[int, int], observed: Observed) -> tuple[int, ...]:
    """Where a frame that leaves by ``start`` comes by until it leaves there again; empty if never.

    Out of an interface it comes in by its veth peer and leaves by that one's partner, which is
    the peer itself if it is a loopback. An interface has one of each at most and every
    step can be taken backwards, so a way that does not end leads round.
    """
    path = [start]
    while (peer := _veth_peer(path[-1], observed)) is not None and peer in partner:
        path += [peer, partner[peer]]
        if path[-1] == start:
            return tuple(path)
    return ()


def _veth_peer(ifindex: int, observed: Observed) -> int | None:
    interface = observed.interfaces.get(ifindex)
    if interface is None or interface.far is None or interface.far.nsid is not None:
        return None
    return interface.far.ifindex


def _names(path: Iterable[int], observed: Observed) -> list[str]:
    return [
        observed.interfaces[index].name if index in observed.interfaces else str(index)
        for index in path
    ]
