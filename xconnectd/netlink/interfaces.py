"""Looks at network interfaces: what a link message tells, tc, the far end, the driver.

It knows single interfaces of the caller's namespace, and of others by their ids; never links, plans
or files. ``transport`` encodes and carries the requests, ``ethtool`` asks drivers.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from typing import Final

from xconnectd.model import (
    PROGRAM_NAME,
    Far,
    Filter,
    Interface,
    Statistics,
    Xdp,
    XdpFeature,
)
from xconnectd.netlink import netns, uapi
from xconnectd.netlink.monitor import Events, OverrunError
from xconnectd.netlink.transport import (
    CLSACT_HANDLE,
    CLSACT_PARENTS,
    DO,
    DO_ECHO,
    DUMP,
    GET,
    LINK_ATTRIBUTES,
    NSID_ATTRIBUTES,
    STATS_ATTRIBUTES,
    TC_ATTRIBUTES,
    TRIES,
    NetlinkError,
    Route,
    attributes_in,
    get_link_request,
    ifindex_of,
    integer,
    link_request,
    may_vanish,
    nsid_request,
    raw,
    stats_request,
    tc_request,
    text,
    texts,
)

_XDP_MODES: Final = {
    uapi.IFLA_XDP_DRV_PROG_ID: "native",
    uapi.IFLA_XDP_SKB_PROG_ID: "generic",
    uapi.IFLA_XDP_HW_PROG_ID: "hw",
}
_TUN_TYPES: Final = {1: "tun", 2: "tap"}
_MACVLAN_MODES: Final = {1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}

_STATISTICS: Final = struct.Struct("=2Q32x2Q")
"""Of struct rtnl_link_stats64: packets received and sent, then dropped of either."""

_FEW: Final = 16
"""Up to so many interfaces are asked about singly, more in one dump of everything."""

_KINDS_TO_ASK: Final = ("", "tun")
"""NICs and taps: what their drivers can do decides the mode."""

_GET_LINK: Final = get_link_request()
_GET_LINKS: Final = get_link_request(how=DUMP)
_GET_QDISCS: Final = tc_request(uapi.RTM_GETQDISC, DUMP)
_GET_CLSACT: Final = tc_request(uapi.RTM_GETQDISC, DO_ECHO, parent=uapi.TC_H_CLSACT)
_GET_FILTERS: Final = {
    direction: tc_request(uapi.RTM_GETTFILTER, DUMP, parent=parent)
    for direction, parent in CLSACT_PARENTS.items()
}
_SET_NOTHING: Final = link_request(uapi.RTM_SETLINK, DO)


class Interfaces:
    """The interfaces of the network namespace that ``route`` was opened in.

    ``alive`` is called for every interface that is looked at: some thousands take seconds.
    """

    def __init__(self, route: Route, alive: Callable[[], None] = lambda: None) -> None:
        self._route = route
        self._alive = alive

    def by_name(self, name: str) -> Interface | None:
        """The interface with this name or altname; None where there is none."""
        value = raw(name)
        attribute = "IFLA_IFNAME" if len(value) < 16 else "IFLA_ALT_IFNAME"
        return self._read(get_link_request((attribute, value)), None)

    def by_index(self, ifindex: int) -> Interface | None:
        return self._read(_GET_LINK, ifindex)

    def _read(self, request: bytes, ifindex: int | None) -> Interface | None:
        try:
            (message,) = self._route.ask(request, ifindex)
        except NetlinkError as error:
            if error.errno in (errno.ENODEV, errno.EINVAL, errno.ENOENT):
                return None
            raise
        return _interface(message)

    def names(self) -> list[str]:
        """Of every interface, without altnames; quicker than ``all``."""
        return [name for _, name in socket.if_nameindex()]

    def all(self) -> dict[int, Interface]:
        """Every interface, in one dump, without tc filters and features (see ``complete``)."""
        found = map(_interface, self.messages())
        return {interface.ifindex: interface for interface in found}

    def messages(self) -> Collection[bytes]:
        """The link message of every interface.

        Interfaces that come and go mark a dump as interrupted, each dump while they do not stop.
        On older kernels (5.10) it may then lack one that was there all the time: it goes on by
        position in a chain, which may have become shorter. So what several dumps show is there,
        but for what went meanwhile, and with what came.
        """
        answer, interrupted = self._route.exchange(_GET_LINKS)
        if not interrupted:
            return answer
        found: dict[int, bytes] = {}
        with closing(Events(groups=(uapi.RTNLGRP_LINK,))) as events:
            for _ in range(TRIES - 1):
                answer, interrupted = self._route.exchange(_GET_LINKS)
                if not interrupted:
                    return answer
                found |= {ifindex_of(message): message for message in answer}
            with suppress(OverrunError):  # too many to be told: then the dumps alone count
                for event in events.drain():
                    if event.gone:
                        found.pop(event.ifindex, None)
                    elif event.message:
                        found.setdefault(event.ifindex, event.message)
        return found.values()

    def statistics(self) -> dict[int, Statistics]:
        """By ifindex what every interface counted, in one dump."""
        return {
            ifindex_of(message): _statistics(message)
            for message in self._route.ask(stats_request())
        }

    def settle(self) -> None:
        """Waits until changes that are under way are done, by a change of nothing.

        All of them hold one lock (RTNL), and looking takes it no longer.
        """
        self._route.ask(_SET_NOTHING, uapi.LOOPBACK_IFINDEX)

    # ---------------------------------------------------------------- what a link message lacks

    @may_vanish
    def complete(self, interfaces: Iterable[Interface]) -> dict[int, Interface]:
        """By ifindex, with what a link message does not tell: far end, tc, offloads.

        Raises:
            InterfaceGoneError: one of them vanished meanwhile.
        """
        interfaces = list(interfaces)
        egress = {each.ifindex: self._filters(each.ifindex, "egress") for each in interfaces}
        qdiscs = self._qdiscs_of(egress)
        return {
            each.ifindex: self._complete(each, qdiscs[each.ifindex], egress[each.ifindex])
            for each in interfaces
        }

    def _complete(self, interface: Interface, qdisc: str, egress: tuple[Filter, ...]) -> Interface:
        self._alive()
        found = interface._replace(
            far=interface.far and self._far(interface.far),
            qdisc=qdisc,
            ingress=self._filters(interface.ifindex, "ingress") if qdisc else (),
            egress=egress,
        )
        return _with_driver(found) if interface.kind in _KINDS_TO_ASK else found

    def _far(self, far: Far) -> Far:
        """The far end of a veth, with its name, MTU and state where it may be looked at."""
        message = self._ask_at(far.ifindex, far.nsid)
        if message is None:
            return far
        found = dict(attributes_in(message, LINK_ATTRIBUTES))
        (flags,) = struct.unpack_from("=I", message, 24)
        return Far(
            far.ifindex,
            far.nsid,
            text(found[uapi.IFLA_IFNAME]),
            integer(found[uapi.IFLA_MTU]),
            bool(flags & uapi.IFF_UP),
        )

    def _filters(self, ifindex: int, direction: str) -> tuple[Filter, ...]:
        answer = self._route.ask(_GET_FILTERS[direction], ifindex)
        return tuple([found for message in answer if (found := _filter(message)).handle])

    def _qdiscs_of(self, egress: Mapping[int, tuple[Filter, ...]]) -> dict[int, str]:
        """By ifindex the qdisc of these filters: where one of them is ours, it is not asked for."""
        unsure = [
            ifindex
            for ifindex, filters in egress.items()
            if PROGRAM_NAME not in [each.name for each in filters]
        ]
        if len(unsure) > _FEW:
            found = dict.fromkeys(unsure, "") | self._qdiscs()
        else:
            found = {ifindex: self._qdisc(ifindex) for ifindex in unsure}
        return dict.fromkeys(egress, "clsact") | found

    def _qdisc(self, ifindex: int) -> str:
        """The qdisc at ``ffff:`` (clsact or ingress), empty where there is none.

        It must be known: an egress filter added below ``ingress`` would land on ingress. The
        kernel answers through a notification to everybody, and to us only if we want the echo;
        where there is nothing it says ENOENT or, of late, just acknowledges.
        """
        try:
            answer = self._route.ask(_GET_CLSACT, ifindex)
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return ""
            raise
        return _qdisc_kind(answer[0]) if answer else ""

    def _qdiscs(self) -> dict[int, str]:
        """The same of all interfaces in one dump, which tells nobody."""
        handle = struct.pack("=I", CLSACT_HANDLE)
        return {
            ifindex_of(message): _qdisc_kind(message)
            for message in self._route.ask(_GET_QDISCS)
            if message[24:28] == handle
        }

    def xdp_features(self, ifindex: int) -> XdpFeature | None:
        """What the driver says it can do; None before kernel 6.3, which has no netdev family."""
        from xconnectd.netlink import ethtool

        return ethtool.xdp_features(ifindex)

    # ---------------------------------------------------------------- other namespaces

    def at(self, ifindex: int, nsid: int | None) -> Interface | None:
        """The interface of another namespace, looked at from here (never entered)."""
        message = self._ask_at(ifindex, nsid)
        return None if message is None else _interface(message)

    def _ask_at(self, ifindex: int, nsid: int | None) -> bytes | None:
        """Its link message; None if it or its namespace is gone, or may not be looked at."""
        request = _GET_LINK if nsid is None else get_link_request(("IFLA_IF_NETNSID", nsid))
        try:
            (message,) = self._route.ask(request, ifindex)
        except NetlinkError:
            return None
        return message

    def elsewhere(self) -> Iterator[tuple[int, Interface]]:
        """The interfaces of every other namespace that has an id here, each with that id.

        Our own may have one too, once somebody else's device stands on one of ours.
        """
        yield from ((nsid, _interface(message)) for nsid, message in self.messages_elsewhere())

    def messages_elsewhere(self) -> Iterator[tuple[int, bytes]]:
        """Their link messages, in a dump for each namespace."""
        known = self._route.ask(nsid_request(DUMP))
        nsids = {nsid for message in known if (nsid := _nsid(message)) is not None}
        for nsid in sorted(nsids - {self.own_nsid()}):
            try:
                answer = self._route.ask(get_link_request(("IFLA_IF_NETNSID", nsid), how=DUMP))
            except NetlinkError:  # gone meanwhile, or not to be looked into
                continue
            yield from ((nsid, each) for each in answer)

    def namespace_name(self, nsid: int) -> str:
        """What ``ip netns`` calls a namespace; empty where it has no such name."""
        return netns.name_of(nsid, self.nsid_of)

    def nsid_of(self, fd: int) -> int | None:
        """The id that the namespace behind a file descriptor has here; None if it has none."""
        (message,) = self._route.ask(nsid_request(GET, (("NETNSA_FD", fd),)))
        return _nsid(message)

    def own_nsid(self) -> int | None:
        """The id that this namespace has for itself: some device elsewhere made it get one."""
        with netns.OWN.open() as file:
            return self.nsid_of(file.fileno())


# --------------------------------------------------------------------------- reading messages


def _interface(message: bytes) -> Interface:
    _family, hardware, ifindex, flags = struct.unpack_from("=BxHiI", message, 16)
    found = dict(attributes_in(message, LINK_ATTRIBUTES))
    info = dict(attributes_in(found.get(uapi.IFLA_LINKINFO, b"")))
    kind = text(info.get(uapi.IFLA_INFO_KIND, b""))
    return Interface(
        ifindex=ifindex,
        name=text(found[uapi.IFLA_IFNAME]),
        altnames=texts(found.get(uapi.IFLA_PROP_LIST, b"")),
        kind=kind,
        variant=_variant(kind, info.get(uapi.IFLA_INFO_DATA, b"")),
        ethernet=hardware == uapi.ARPHRD_ETHER,
        mac=found.get(uapi.IFLA_ADDRESS, b"").hex(":"),
        up=bool(flags & uapi.IFF_UP),
        carrier=integer(found.get(uapi.IFLA_CARRIER)) == 1,
        promiscuous=bool(flags & uapi.IFF_PROMISC),
        mtu=integer(found.get(uapi.IFLA_MTU)) or 0,
        max_mtu=integer(found.get(uapi.IFLA_MAX_MTU)) or 0,
        addr_gen_mode=_addr_gen_mode(found.get(uapi.IFLA_AF_SPEC, b"")),
        master=integer(found.get(uapi.IFLA_MASTER)) or 0,
        master_kind=text(info.get(uapi.IFLA_INFO_SLAVE_KIND, b"")),
        far=_far_end(found) if kind == "veth" else None,
        xdp=_xdp_programs(found.get(uapi.IFLA_XDP, b"")),
    )


def _variant(kind: str, data: bytes) -> str:
    match kind:
        case "tun":
            number, names = uapi.IFLA_TUN_TYPE, _TUN_TYPES
        case "macvlan":
            number, names = uapi.IFLA_MACVLAN_MODE, _MACVLAN_MODES
        case _:
            return ""
    return names.get(integer(dict(attributes_in(data)).get(number)) or 0, "")


def _addr_gen_mode(af_spec: bytes) -> int | None:
    inet6 = dict(attributes_in(af_spec)).get(socket.AF_INET6, b"")
    return integer(dict(attributes_in(inet6)).get(uapi.IFLA_INET6_ADDR_GEN_MODE))


def _far_end(veth: Mapping[int, bytes]) -> Far | None:
    ifindex = integer(veth.get(uapi.IFLA_LINK))
    return None if ifindex is None else Far(ifindex, integer(veth.get(uapi.IFLA_LINK_NETNSID)))


def _xdp_programs(nest: bytes) -> tuple[Xdp, ...]:
    ids = dict(attributes_in(nest))
    return tuple(
        [
            Xdp(mode, integer(ids[number]) or 0)
            for number, mode in _XDP_MODES.items()
            if number in ids
        ]
    )


def _with_driver(interface: Interface) -> Interface:
    from xconnectd.netlink import ethtool

    is_nic = not interface.kind
    return interface._replace(
        features=ethtool.features(interface.name),
        xdp_features=ethtool.xdp_features(interface.ifindex) if is_nic else None,
        driver=ethtool.driver(interface.name) if is_nic else "",
    )


def _filter(message: bytes) -> Filter:
    handle, _parent, info = struct.unpack_from("=III", message, 24)
    found = dict(attributes_in(message, TC_ATTRIBUTES))
    options = dict(attributes_in(found.get(uapi.TCA_OPTIONS, b"")))
    return Filter(
        kind=text(found.get(uapi.TCA_KIND, b"")),
        priority=info >> 16,
        handle=handle,
        program=integer(options.get(uapi.TCA_BPF_ID)) or 0,
        name=text(options.get(uapi.TCA_BPF_NAME, b"")),
    )


def _qdisc_kind(message: bytes) -> str:
    return text(dict(attributes_in(message, TC_ATTRIBUTES))[uapi.TCA_KIND])


def _statistics(message: bytes) -> Statistics:
    """Zeros of an interface that went meanwhile."""
    found = dict(attributes_in(message, STATS_ATTRIBUTES))
    counted = found.get(uapi.IFLA_STATS_LINK_64, b"")
    if len(counted) < _STATISTICS.size:
        return Statistics()
    received, sent, not_received, not_sent = _STATISTICS.unpack_from(counted)
    return Statistics(received, sent, not_received, not_sent)


def _nsid(message: bytes) -> int | None:
    nsid = integer(dict(attributes_in(message, NSID_ATTRIBUTES)).get(uapi.NETNSA_NSID))
    return None if nsid == uapi.NETNSA_NSID_NOT_ASSIGNED else nsid
