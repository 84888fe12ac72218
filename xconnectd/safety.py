"""What must not be connected, and why: lock-outs, ports, foreign programs, cycles. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from xconnectd.model import Interface, Link, Mode, Observed

_WAYS_OUT = {
    "bridge": "ip link set {name} nomaster",
    "openvswitch": "ovs-vsctl del-port {name}",
    "bond": "ip link set {name} nomaster",
    "team": "ip link set {name} nomaster",
    "vrf": "ip link set {name} nomaster",
}


def refusal(link: Link, mode: Mode, end: Interface, observed: Observed) -> str:
    """Why this interface must not become an end of this link; empty when it may."""
    return (
        _departed_number(end, observed)
        or _foreign_program(end, observed)
        or _foreign_tc(mode, end, observed)
        or ("" if observed.is_held(end) else _port(end) or _in_use(link, end, observed))
    )


def warnings(link: Link, end: Interface, observed: Observed) -> tuple[str, ...]:
    """What has come upon a connected end that would have refused a new one."""
    if not observed.is_held(end):
        return ()
    uses = () if link.allow_addressed else observed.uses.get(end.ifindex, ())
    return (*(f"{end.name}: {use}" for use in uses), *filter(None, (_port(end),)))


def _departed_number(end: Interface, observed: Observed) -> str:
    for gone in observed.departed:
        if gone.record.ifindex == end.ifindex and gone.record.mac != end.mac:
            return (
                f"{end.name} has ifindex {end.ifindex}, and {gone.record.name} left for another"
                f" namespace with that number and our program; take it off: {gone.remedy}"
            )
    return ""


def _foreign_program(end: Interface, observed: Observed) -> str:
    for xdp in end.xdp:
        if xdp.program not in observed.programs.ours:
            who = observed.foreign.get(xdp.program, f"id {xdp.program}")
            return f"{end.name} runs an XDP program that is not ours: {who}"
    return ""


def _foreign_tc(mode: Mode, end: Interface, observed: Observed) -> str:
    if end.qdisc == "ingress":
        return (
            f"{end.name} has an ingress qdisc where clsact must stand;"
            f" take it off: tc qdisc del dev {end.name} ingress"
        )
    if mode is Mode.TC:
        for filter_ in end.ingress:
            if filter_.program not in observed.programs.ours:
                who = f"{filter_.kind} {filter_.name}".strip()
                return f"{end.name} has a tc ingress filter that is not ours: {who}"
    return ""


def _port(end: Interface) -> str:
    if not end.master:
        return ""
    kind = end.master_kind or "master device"
    way_out = _WAYS_OUT.get(kind, "ip link set {name} nomaster").format(name=end.name)
    return f"{end.name} is a port of a {kind}; release it: {way_out}"


def _in_use(link: Link, end: Interface, observed: Observed) -> str:
    uses = observed.uses.get(end.ifindex, ())
    if not uses or link.allow_addressed:
        return ""
    return f"the host uses {end.name}: {'; '.join(uses)} (allow_addressed: true overrides this)"


# --------------------------------------------------------------------------- cycles


def cycles(pairs: Sequence[tuple[str, int, int]], observed: Observed) -> Mapping[str, str]:
    """The links that close a cycle through veth peers of this namespace, each with its cycle.

    ``pairs`` are (link id, ifindex, ifindex) in the file's order; of several links in one
    cycle only the last is named: without it there is none. An interface has one link and one
    veth peer at most, so following both alternately is a walk along a path.
    """
    partner: dict[int, int] = {}
    closing: dict[str, str] = {}
    for link, a, b in pairs:
        path = _walk_away(a, b, partner, observed)
        if path is None:
            partner[a], partner[b] = b, a
        else:
            names = " → ".join(_names(path, observed))
            closing[link] = f"it closes a cycle in which frames would circle for ever: {names}"
    return closing


def _walk_away(
    a: int, b: int, partner: Mapping[int, int], observed: Observed
) -> tuple[int, ...] | None:
    """From b over its veth peer, that peer's link and so on; the path if it comes back to a."""
    path = [a, b]
    here = b
    for _ in range(2 * len(partner) + 2):
        peer = _veth_peer(here, observed)
        if peer is None:
            return None
        path.append(peer)
        if peer == a:
            return tuple(path)
        here = partner.get(peer, -1)
        if here == -1:
            return None
        path.append(here)
    return None


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
