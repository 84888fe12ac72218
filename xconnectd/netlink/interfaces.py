"""Looks at network interfaces: what a link message tells, tc, the far end, the driver.

It knows single interfaces of the caller's namespace, and of others by their ids; never links, plans
or files. ``transport`` encodes and carries the requests, ``ethtool`` asks drivers.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from ipaddress import ip_address
from itertools import chain, filterfalse
from operator import attrgetter
from typing import Final

from xconnectd.model import (
    PROGRAM_NAME,
    Far,
    Filter,
    Interface,
    Statistics,
    Tunnel,
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
    SKIP_STATISTICS,
    STATS_ATTRIBUTES,
    TC_ATTRIBUTES,
    TRIES,
    NetlinkError,
    Question,
    Reader,
    Route,
    attributes_in,
    first_in,
    get_link_request,
    ifindex_of,
    integer,
    link_request,
    nsid_request,
    stats_request,
    tc_request,
    text,
    texts,
    with_name,
    within,
)
from xconnectd.shape import RootQdisc

_VARIANTS: Final = {
    "tun": (uapi.IFLA_TUN_TYPE, {1: "tun", 2: "tap"}),
    "macvlan": (
        uapi.IFLA_MACVLAN_MODE,
        {1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"},
    ),
}
"""By kind the attribute that refines it, and its values."""

_STATISTICS: Final = struct.Struct("=2Q32x2Q")
"""Of struct rtnl_link_stats64: packets received and sent, then dropped of either."""

_IFNAMSIZ: Final = 16
"""A name is shorter (linux/if.h), an altname may be longer."""

_NO_NSID: Final = struct.pack("=I", uapi.NETNSA_NSID_NOT_ASSIGNED)

_FEW: Final = 16
"""Up to so many interfaces are asked about singly, more in one dump of everything."""

_MANY: Final = 256
"""From so many far ends in one namespace on all interfaces there are read, which takes half as long
for each: whoever has fewer there may be one of many."""

_NONE: Final[frozenset[int]] = frozenset()

_ABSENT: Final = (errno.ENODEV, errno.EINVAL, errno.ENOENT)
"""What the kernel says where nothing has the name or number that is asked for."""

_KINDS_TO_ASK: Final = ("", "tun")
"""NICs and taps: what their drivers can do decides the mode."""

_GET_LINK: Final = get_link_request(GET, (SKIP_STATISTICS,))
_GET_LINKS: Final = get_link_request(DUMP, (SKIP_STATISTICS,))
_GET_QDISCS: Final = tc_request(uapi.RTM_GETQDISC, DUMP)
_GET_CLSACT: Final = tc_request(uapi.RTM_GETQDISC, DO_ECHO, parent=uapi.TC_H_CLSACT)
_GET_FILTERS: Final = {
    direction: tc_request(uapi.RTM_GETTFILTER, DUMP, parent=parent)
    for direction, parent in CLSACT_PARENTS.items()
}
_NAME_OF: Final = attrgetter("name")
_PLACE: Final = attrgetter("ifindex", "nsid")
_SET_NOTHING: Final = link_request(uapi.RTM_SETLINK, DO)

KIND: Final = within(uapi.IFLA_LINKINFO, uapi.IFLA_INFO_KIND)
DATA: Final = within(uapi.IFLA_LINKINFO, uapi.IFLA_INFO_DATA)
_SLAVE_KIND: Final = within(uapi.IFLA_LINKINFO, uapi.IFLA_INFO_SLAVE_KIND)
_ADDR_GEN_MODE: Final = within(uapi.IFLA_AF_SPEC, socket.AF_INET6, uapi.IFLA_INET6_ADDR_GEN_MODE)
_XDP_MODES: Final = {
    within(uapi.IFLA_XDP, uapi.IFLA_XDP_DRV_PROG_ID): "native",
    within(uapi.IFLA_XDP, uapi.IFLA_XDP_SKB_PROG_ID): "generic",
    within(uapi.IFLA_XDP, uapi.IFLA_XDP_HW_PROG_ID): "hw",
}
_BPF_ID: Final = within(uapi.TCA_OPTIONS, uapi.TCA_BPF_ID)
_BPF_NAME: Final = within(uapi.TCA_OPTIONS, uapi.TCA_BPF_NAME)
_LINK: Final = Reader(
    LINK_ATTRIBUTES,
    uapi.IFLA_IFNAME,
    uapi.IFLA_PROP_LIST,
    uapi.IFLA_ADDRESS,
    uapi.IFLA_CARRIER,
    uapi.IFLA_MTU,
    uapi.IFLA_MAX_MTU,
    uapi.IFLA_MASTER,
    uapi.IFLA_LINK,
    uapi.IFLA_LINK_NETNSID,
    KIND,
    DATA,
    _SLAVE_KIND,
    _ADDR_GEN_MODE,
    *_XDP_MODES,
)
_QDISC: Final = Reader(TC_ATTRIBUTES, uapi.TCA_KIND)
_FILTER: Final = Reader(TC_ATTRIBUTES, uapi.TCA_KIND, _BPF_ID, _BPF_NAME)
_TC_HEADER: Final = struct.Struct("=20xiI4xI")  # ifindex, handle and info of struct tcmsg


_Place = tuple[int, int | None]
"""Of a far end: its ifindex, and the id of its namespace; None is this one."""


class Interfaces:
    """The interfaces of the network namespace that ``route`` was opened in."""

    def __init__(self, route: Route) -> None:
        self._route = route

    def find(self, *wanted: str | int) -> list[Interface]:
        """Those of these names, altnames and ifindexes that are there, as in ``all``."""
        questions = [
            (_GET_LINK, each) if isinstance(each, int) else _question_by_name(each)
            for each in wanted
        ]
        answers = self._route.ask_each(questions, unless=_ABSENT)
        return interfaces_in(chain.from_iterable(answers))

    def names(self) -> list[str]:
        """Of every interface, without altnames; quicker than ``all``."""
        return [name for _, name in socket.if_nameindex()]

    def all(self) -> dict[int, Interface]:
        """Every interface, in one dump, without tc filters and features (see ``complete``)."""
        return {interface.ifindex: interface for interface in interfaces_in(self.messages())}

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
        return {i: each for some in self.statistics_in_parts() for i, each in some.items()}

    def statistics_in_parts(self) -> Iterator[dict[int, Statistics]]:
        """The same, of some interfaces at a time; others may be asked for in between."""
        with closing(Route()) as route:
            for messages in route.dump_in_parts(stats_request()):
                yield {ifindex_of(message): _statistics(message) for message in messages}

    def settle(self) -> None:
        """Waits until changes that are under way are done, by a change of nothing.

        All of them hold one lock (RTNL), and looking takes it no longer.
        """
        self._route.ask(_SET_NOTHING, uapi.LOOPBACK_IFINDEX)

    # ---------------------------------------------------------------- what a link message lacks

    def complete(self, interfaces: Iterable[Interface]) -> dict[int, Interface]:
        """By ifindex, with what a link message does not tell: far end, tc, offloads.

        A far end that has a name already is not asked for again.

        Raises:
            InterfaceGoneError: one of them vanished meanwhile.
        """
        found = {each.ifindex: each for each in interfaces}
        egress = self._filters("egress", found)
        qdiscs = self._qdiscs_of(egress)
        ingress = self._filters("ingress", [ifindex for ifindex in found if qdiscs[ifindex]])
        fars = {i: each.far for i, each in found.items() if each.far and not each.far.name}
        far = self._far_ends(fars) if fars else {}
        for ifindex, each in found.items():
            whole = each._replace(
                far=far.get(ifindex, each.far),
                qdisc=qdiscs[ifindex],
                ingress=ingress.get(ifindex, ()),
                egress=egress.get(ifindex, ()),
            )
            found[ifindex] = _with_driver(whole) if each.kind in _KINDS_TO_ASK else whole
        return found

    def roots(self, ifindexes: Collection[int]) -> dict[int, RootQdisc]:
        """What stands at the root of each of these interfaces, by ifindex."""
        from xconnectd.netlink import qdiscs

        return qdiscs.roots(self._route, ifindexes)

    def _far_ends(self, fars: Mapping[int, Far]) -> dict[int, Far]:
        """Those that may be looked at, with their names, MTUs and states."""
        places = [*map(_PLACE, fars.values())]
        answers = self._dumped(places) if len(places) >= _MANY else {}
        lacking = [*filterfalse(answers.__contains__, places)]
        questions = [_question_at(*each) for each in lacking]
        answers |= zip(lacking, self._route.ask_each(questions, errno.errorcode), strict=True)
        found = {}
        for ifindex, far in fars.items():
            for message in answers[_PLACE(far)]:
                (flags,) = struct.unpack_from("=I", message, 24)
                name = text(first_in(message, LINK_ATTRIBUTES, uapi.IFLA_IFNAME)[:-1])
                mtu = integer(first_in(message, LINK_ATTRIBUTES, uapi.IFLA_MTU))
                found[ifindex] = Far(far.ifindex, far.nsid, name, mtu, bool(flags & uapi.IFF_UP))
        return found

    def _dumped(self, places: Iterable[_Place]) -> dict[_Place, list[bytes]]:
        """The link messages of whole namespaces, where many of these are in one.

        It lacks all of a namespace that does not tell, and some of one in which interfaces come and
        go: an interrupted dump is not asked for again here.
        """
        found: dict[_Place, list[bytes]] = {}
        for nsid, count in Counter([nsid for _, nsid in places]).items():
            if count >= _MANY:
                with suppress(NetlinkError):
                    messages, _interrupted = self._route.exchange(_dump_of(nsid))
                    found.update({(ifindex_of(each), nsid): [each] for each in messages})
        return found

    def _filters(self, direction: str, ifindexes: Collection[int]) -> dict[int, tuple[Filter, ...]]:
        """By ifindex; a message without a handle is of the priority, not of a filter."""
        request = _GET_FILTERS[direction]
        answers = self._route.ask_each([(request, ifindex) for ifindex in ifindexes])
        filters: dict[int, tuple[Filter, ...]] = dict.fromkeys(ifindexes, ())
        for ifindex, answer in zip(ifindexes, answers, strict=True):
            for message in answer:
                _ifindex, handle, info = _TC_HEADER.unpack_from(message)
                if handle:
                    found = _FILTER.read(message)
                    kind, name = found.get(uapi.TCA_KIND, b""), found.get(_BPF_NAME, b"")
                    program = integer(found.get(_BPF_ID, b""))
                    filters[ifindex] += (
                        Filter(text(kind[:-1]), info >> 16, handle, program, text(name[:-1])),
                    )
        return filters

    def _qdiscs_of(self, egress: Mapping[int, tuple[Filter, ...]]) -> dict[int, str]:
        """By ifindex the qdisc at ``ffff:`` (clsact or ingress), empty where there is none.

        It must be known: an egress filter added below ``ingress`` would land on ingress. Where an
        egress filter is ours it is not asked for.
        """
        unsure = [
            ifindex
            for ifindex, filters in egress.items()
            if PROGRAM_NAME not in map(_NAME_OF, filters)
        ]
        known = dict.fromkeys(egress, "clsact")
        return known | self._qdiscs(unsure) if unsure else known

    def _qdiscs(self, ifindexes: Collection[int]) -> dict[int, str]:
        """As ``_qdiscs_of``, asked for each of these.

        The kernel answers through a notification to everybody, and to us only if we want the echo;
        where there is nothing it says ENOENT or, of late, just acknowledges. A dump tells nobody.
        """
        found = dict.fromkeys(ifindexes, "")
        if len(found) > _FEW:
            answers = [self._route.ask(_GET_QDISCS)]
        else:
            questions = [(_GET_CLSACT, ifindex) for ifindex in found]
            answers = self._route.ask_each(questions, unless=(errno.ENOENT,))
        for message in chain.from_iterable(answers):
            ifindex, handle, _info = _TC_HEADER.unpack_from(message)
            if handle == CLSACT_HANDLE and ifindex in found:
                found[ifindex] = text(_QDISC.read(message)[uapi.TCA_KIND][:-1])
        return found

    def xdp_features(self, ifindex: int) -> XdpFeature | None:
        """What the driver says it can do; None before kernel 6.3, which has no netdev family."""
        from xconnectd.netlink import ethtool

        return ethtool.xdp_features(ifindex)

    # ---------------------------------------------------------------- other namespaces

    def at(self, ifindex: int, nsid: int | None) -> Interface | None:
        """The interface of another namespace, looked at from here (never entered).

        None if it or its namespace is gone, or may not be looked at.
        """
        (answer,) = self._route.ask_each([_question_at(ifindex, nsid)], unless=errno.errorcode)
        return next(iter(interfaces_in(answer)), None)

    def elsewhere(self) -> Iterator[tuple[int, Interface]]:
        """The interfaces of every other namespace that has an id here, each with that id.

        Our own may have one too, once somebody else's device stands on one of ours.
        """
        for nsid, message in self.messages_elsewhere():
            yield from ((nsid, each) for each in interfaces_in([message]))

    def messages_elsewhere(self) -> Iterator[tuple[int, bytes]]:
        """Their link messages, in a dump for each namespace."""
        known = self._route.ask(nsid_request(DUMP))
        nsids = {nsid for message in known if (nsid := _nsid(message)) is not None}
        for nsid in sorted(nsids - {self.own_nsid()}):
            try:
                answer = self._route.ask(_dump_of(nsid))
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

    def namespace(self, path: str) -> tuple[int, int | None]:
        """The inode of the network namespace behind a file, and its id here; None if it is this.

        One that has no id here is given one, as ``ip netns set`` does. The file is open meanwhile.

        Raises:
            OSError: there is no such file, or it is no network namespace.
        """
        with netns.opened(path) as file:
            inode = os.fstat(file)
            if os.path.samestat(inode, netns.OWN.stat()):
                return inode.st_ino, None
            nsid = self.nsid_of(file)
            if nsid is None:
                self._route.ask(_new_nsid_request(file))
                nsid = self.nsid_of(file)
        return inode.st_ino, nsid

    def named(self, name: str, nsid: int) -> Interface | None:
        """The interface of that name in another namespace, looked at from here."""
        there, _ = _question_at(0, nsid)
        (answer,) = self._route.ask_each([(with_name(there, name), None)], unless=errno.errorcode)
        return next(iter(interfaces_in(answer)), None)

    def own_nsid(self) -> int | None:
        """The id that this namespace has for itself: some device elsewhere made it get one."""
        with netns.OWN.open() as file:
            return self.nsid_of(file.fileno())


# --------------------------------------------------------------------------- reading messages


def _question_by_name(wanted: str) -> Question:
    name = wanted.encode(errors="surrogateescape")
    attribute = "IFLA_IFNAME" if len(name) < _IFNAMSIZ else "IFLA_ALT_IFNAME"
    return get_link_request(GET, ((attribute, name), SKIP_STATISTICS)), None


def _new_nsid_request(fd: int) -> bytes:
    """The kernel chooses the id (rtnl_net_newid in net/core/net_namespace.c)."""
    any_id = ("NETNSA_NSID", uapi.NETNSA_NSID_NOT_ASSIGNED)
    return nsid_request(DO, (("NETNSA_FD", fd), any_id), uapi.RTM_NEWNSID)


def _question_at(ifindex: int, nsid: int | None) -> Question:
    """For an interface of another namespace; None is this one."""
    if nsid is None:
        return _GET_LINK, ifindex
    return get_link_request(GET, (("IFLA_IF_NETNSID", nsid), SKIP_STATISTICS)), ifindex


def _dump_of(nsid: int | None) -> bytes:
    """For all interfaces of another namespace; None is this one."""
    if nsid is None:
        return _GET_LINKS
    return get_link_request(DUMP, (("IFLA_IF_NETNSID", nsid), SKIP_STATISTICS))


def interfaces_in(messages: Iterable[bytes]) -> list[Interface]:
    """As link messages describe them."""
    told = [(message, _LINK.read(message)) for message in messages]
    return [_interface(message, found) for message, found in told]


def _interface(message: bytes, found: Mapping[int, bytes]) -> Interface:
    _family, hardware, ifindex, flags = struct.unpack_from("=BxHiI", message, 16)
    value = found.get
    kind = text(value(KIND, b"")[:-1])
    far, lowers = None, _NONE
    if kind != "veth":
        lowers = lowers_in(message, found)
    elif uapi.IFLA_LINK in found:
        nsid = value(uapi.IFLA_LINK_NETNSID)
        far = Far(integer(found[uapi.IFLA_LINK]), None if nsid is None else integer(nsid))
    return Interface(
        ifindex=ifindex,
        name=text(found[uapi.IFLA_IFNAME][:-1]),
        altnames=texts(found[uapi.IFLA_PROP_LIST]) if uapi.IFLA_PROP_LIST in found else (),
        kind=kind,
        variant=_variant(kind, value(DATA, b"")) if kind in _VARIANTS else "",
        ethernet=hardware == uapi.ARPHRD_ETHER,
        mac=value(uapi.IFLA_ADDRESS, b"").hex(":"),
        up=bool(flags & uapi.IFF_UP),
        carrier=integer(value(uapi.IFLA_CARRIER, b"")) == 1,
        promiscuous=bool(flags & uapi.IFF_PROMISC),
        mtu=integer(value(uapi.IFLA_MTU, b"")),
        max_mtu=integer(value(uapi.IFLA_MAX_MTU, b"")),
        addr_gen_mode=integer(found[_ADDR_GEN_MODE]) if _ADDR_GEN_MODE in found else None,
        master=integer(value(uapi.IFLA_MASTER, b"")),
        master_kind=text(value(_SLAVE_KIND, b"")[:-1]),
        far=far,
        xdp=tuple(
            [Xdp(mode, integer(found[key])) for key, mode in _XDP_MODES.items() if key in found]
        ),
        tunnel=_tunnel(value(DATA, b"")) if kind == "vxlan" else None,
        lowers=lowers,
    )


def lowers_in(
    message: bytes, found: Mapping[int, bytes], nsid: int | None = None
) -> frozenset[int]:
    """The ifindexes of those that a device stands on in the namespace ``nsid``, or in its own.

    ``found`` is what its link message tells. It is no veth: of one IFLA_LINK is the far end.
    """
    lowers = {0}
    there = found.get(uapi.IFLA_LINK_NETNSID)
    if (None if there is None else integer(there)) == nsid:
        lowers.add(integer(found.get(uapi.IFLA_LINK, b"")))
    if nsid is None:
        if found.get(KIND) == b"vxlan\0":
            lowers.add(integer(attributes_in(found.get(DATA, b"")).get(uapi.IFLA_VXLAN_LINK, b"")))
        lowers.discard(ifindex_of(message))
    return frozenset(lowers - {0})


def _variant(kind: str, data: bytes) -> str:
    number, names = _VARIANTS[kind]
    return names.get(integer(attributes_in(data).get(number, b"")), "")


def _tunnel(data: bytes) -> Tunnel:
    found = attributes_in(data)
    remote = found.get(uapi.IFLA_VXLAN_GROUP) or found.get(uapi.IFLA_VXLAN_GROUP6)
    return Tunnel(
        str(ip_address(remote)) if remote else "",
        integer(found.get(uapi.IFLA_VXLAN_ID, b"")),
        int.from_bytes(found.get(uapi.IFLA_VXLAN_PORT, b""), "big"),
    )


def _with_driver(interface: Interface) -> Interface:
    from xconnectd.netlink import ethtool

    is_nic = not interface.kind
    return interface._replace(
        features=ethtool.features(interface.name),
        xdp_features=ethtool.xdp_features(interface.ifindex) if is_nic else None,
        driver=ethtool.driver(interface.name) if is_nic else "",
    )


def _statistics(message: bytes) -> Statistics:
    """Zeros of an interface that went meanwhile."""
    counted = first_in(message, STATS_ATTRIBUTES, uapi.IFLA_STATS_LINK_64)
    if len(counted) < _STATISTICS.size:
        return Statistics()
    received, sent, not_received, not_sent = _STATISTICS.unpack_from(counted)
    return Statistics(received, sent, not_received, not_sent)


def _nsid(message: bytes) -> int | None:
    found = attributes_in(message, NSID_ATTRIBUTES)
    nsid = integer(found.get(uapi.NETNSA_NSID, _NO_NSID))
    return None if nsid == uapi.NETNSA_NSID_NOT_ASSIGNED else nsid
