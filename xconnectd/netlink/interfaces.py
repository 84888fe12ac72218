"""Network interfaces: look at them, attach and detach programs, change and put back settings.

Its requests are encoded and carried by ``netlink``; ``drivers`` knows what only a driver tells. It
knows single interfaces of the caller's namespace, never links, plans or files; refusals of the
kernel become ``LinkError`` here.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import wraps
from pathlib import Path
from shlex import quote
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from xconnectd.errors import InterfaceGoneError, LinkError
from xconnectd.model import (
    FILTER_HANDLE,
    FILTER_PRIORITY,
    PROGRAM_NAME,
    Far,
    Filter,
    Interface,
    Mode,
    Setting,
    Statistics,
    Use,
    Xdp,
    XdpFeature,
)
from xconnectd.netlink import transport
from xconnectd.netlink.monitor import LINK, Event, Events, OverrunError
from xconnectd.netlink.transport import (
    SKIP_STATS,
    TRIES,
    NetlinkError,
    Route,
    ifindex_of,
    integer,
    raw,
    text,
    walk,
    walk_all,
)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_IFF_UP: Final = 0x1
_IFF_PROMISC: Final = 0x100
_ARPHRD_ETHER: Final = 1
_LOOPBACK: Final = 1
"""The number of lo in every namespace."""

# if_link.h
_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER = 1, 3, 4, 5, 10
_LINKINFO, _AF_SPEC, _CARRIER, _LINK_NETNSID = 18, 26, 33, 37
_XDP, _MAX_MTU, _PROP_LIST = 43, 51, 52
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND = 1, 2, 4
_XDP_ATTACHED, _XDP_PROGRAM = 2, 4
_XDP_MODES: Final = {5: "native", 6: "generic", 7: "hw"}  # IFLA_XDP_{DRV,SKB,HW}_PROG_ID
_INET6_ADDR_GEN_MODE = 8
_VXLAN_LINK = 3
_NETNSA_NSID = 1
_STATS_LINK_64 = 1
_STATISTICS: Final = struct.Struct("=2Q32x2Q")
_NSID_NOT_ASSIGNED = 0xFFFFFFFF
_TUN_TYPES: Final = {1: "tun", 2: "tap"}
_MACVLAN_MODES: Final = {1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}

_XDP_FLAGS: Final = {Mode.GENERIC: 2, Mode.NATIVE: 4}
_XDP_IF_NOEXIST: Final = 1
_XDP_REPLACE: Final = 16

# if_addr.h and rtnetlink.h; IFA_PROTO is there since 5.18, and until then only flags tell
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS, _IFA_PROTO = 1, 2, 8, 11
_IFAPROT_KERNEL_RA: Final = 2
_IFA_F_PERMANENT: Final = 0x80
_IFA_F_OF_ROUTERS: Final = 0x101
"""IFA_F_TEMPORARY and IFA_F_MANAGETEMPADDR: what privacy extensions make of a router's prefix, and
what they make it of. Whoever adds an address by hand has it permanent."""
_RTPROT_KERNEL, _RTPROT_RA = 2, 9
_NUD_NOARP, _NUD_PERMANENT = 0x40, 0x80
_RTN_UNICAST: Final = 1
_RT_TABLE_MAIN: Final = 254

_CLSACT: Final = 0xFFFFFFF1
_HANDLE: Final = 0xFFFF0000
_HANDLE_BYTES: Final = struct.pack("=I", _HANDLE)
_PARENTS: Final = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_ETH_P_ALL_INFO: Final = (FILTER_PRIORITY << 16) | socket.htons(3)
_TCA_BPF_DIRECT_ACTION: Final = 1

_FEW: Final = 16
"""Up to so many interfaces are asked about singly, more in one dump of everything."""

_KINDS_TO_ASK: Final = ("", "tun")
"""NICs and taps: what their drivers can do decides the mode."""

_KINDS_OF_WIRES: Final = ("veth", "tun")
"""What others' devices hardly ever stand on, and what is wired in a hurry."""

_ALL_LINKS: Final = transport.link_request(
    transport.RTM_GETLINK, transport.DUMP, (("IFLA_EXT_MASK", SKIP_STATS),)
)


@contextmanager
def _border(interface: str, action: str) -> Iterator[None]:
    """Everything the kernel refuses behind it leaves as a ``LinkError``."""
    try:
        yield
    except OSError as error:
        raise LinkError(interface, action, error.errno or 0, error.strerror or "") from error


def _may_vanish(question: Callable[_P, _T]) -> Callable[_P, _T]:
    """ENODEV in the middle of several questions says that the interface has just gone."""

    @wraps(question)
    def asked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return question(*args, **kwargs)
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                raise InterfaceGoneError(str(error)) from error
            raise

    return asked


class Links:
    """The interfaces of the network namespace it is made in.

    ``alive`` is called for every interface that is looked at: some thousands take seconds.
    """

    def __init__(self, alive: Callable[[], None] = lambda: None) -> None:
        self._route = Route()
        self._alive = alive
        self._stacks: dict[int, tuple[str, set[int]]] | None = None

    def close(self) -> None:
        self._route.close()

    # ---------------------------------------------------------------- looking

    def by_name(self, name: str) -> Interface | None:
        """The interface with this name or altname; None where there is none."""
        value = raw(name)
        attribute = "IFLA_IFNAME" if len(value) < 16 else "IFLA_ALT_IFNAME"
        return self._read(_get(((attribute, value),)), None)

    def by_index(self, ifindex: int) -> Interface | None:
        return self._read(_get(()), ifindex)

    def names(self) -> list[str]:
        """Of every interface, without altnames; quicker than ``all``."""
        return [name for _, name in socket.if_nameindex()]

    def all(self) -> dict[int, Interface]:
        """Every interface, in one dump, without tc filters and features (see ``complete``)."""
        found = map(_interface, self._messages())
        return {interface.ifindex: interface for interface in found}

    def _messages(self) -> Collection[bytes]:
        """A link message of every interface.

        Interfaces that come and go mark a dump as interrupted, each dump while they do not stop.
        On older kernels (5.10) it may then lack one that was there all the time: it goes on by
        position in a chain, which may have become shorter. So what several dumps show is there,
        but for what went meanwhile, and with what came.
        """
        answer, interrupted = self._route.exchange(_ALL_LINKS)
        if not interrupted:
            return answer
        found: dict[int, bytes] = {}
        with closing(Events(groups=(LINK,))) as events:
            for _ in range(TRIES - 1):
                answer, interrupted = self._route.exchange(_ALL_LINKS)
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

    @_may_vanish
    def complete(self, interfaces: Iterable[Interface]) -> dict[int, Interface]:
        """By ifindex, with what a link message does not tell: far end, tc, offloads.

        Raises:
            InterfaceGoneError: one of them vanished meanwhile; so with all questions below.
        """
        interfaces = list(interfaces)
        egress = {each.ifindex: self._filters(each.ifindex, "egress") for each in interfaces}
        qdiscs = self._qdiscs_below(egress)
        return {
            each.ifindex: self._complete(each, qdiscs[each.ifindex], egress[each.ifindex])
            for each in interfaces
        }

    def _complete(self, interface: Interface, qdisc: str, egress: tuple[Filter, ...]) -> Interface:
        self._alive()
        told = interface._replace(
            far=self._far(interface.far),
            qdisc=qdisc,
            ingress=self._filters(interface.ifindex, "ingress") if qdisc else (),
            egress=egress,
        )
        return _with_driver(told) if interface.kind in _KINDS_TO_ASK else told

    def _qdiscs_below(self, egress: Mapping[int, tuple[Filter, ...]]) -> dict[int, str]:
        """What carries these filters, by ifindex: where one is ours, that need not be asked."""
        unsure = [ifindex for ifindex, filters in egress.items() if not _has_ours(filters)]
        if len(unsure) > _FEW:
            found = dict.fromkeys(unsure, "") | self._qdiscs()
        else:
            found = {ifindex: self._qdisc(ifindex) for ifindex in unsure}
        return dict.fromkeys(egress, "clsact") | found

    def _read(self, request: bytes, ifindex: int | None) -> Interface | None:
        try:
            (message,) = self._route.ask(request, ifindex)
        except NetlinkError as error:
            if error.errno in (errno.ENODEV, errno.EINVAL, errno.ENOENT):
                return None
            raise
        return _interface(message)

    def _far(self, far: Far | None) -> Far | None:
        """The far end of a veth, also in a namespace that only has an id here."""
        if far is None:
            return None
        return self._far_at(far.ifindex, far.nsid) or far

    def _far_at(self, ifindex: int, nsid: int | None) -> Far | None:
        message = self._ask_at(ifindex, nsid)
        if message is None:
            return None
        found = walk(message, 32)
        (flags,) = struct.unpack_from("=I", message, 24)
        return Far(ifindex, nsid, text(found[_IFNAME]), integer(found[_MTU]), bool(flags & _IFF_UP))

    def at(self, ifindex: int, nsid: int | None) -> Interface | None:
        """The interface of another namespace, looked at from here (never entered)."""
        message = self._ask_at(ifindex, nsid)
        return None if message is None else _interface(message)

    def _ask_at(self, ifindex: int, nsid: int | None) -> bytes | None:
        """Its link message; None if it or its namespace is gone, or may not be looked at."""
        attributes = () if nsid is None else (("IFLA_IF_NETNSID", nsid),)
        try:
            (message,) = self._route.ask(_get(attributes), ifindex)
        except NetlinkError:
            return None
        return message

    def _qdisc(self, ifindex: int) -> str:
        """The qdisc at ``ffff:`` (clsact or ingress), empty where there is none.

        It must be known: an egress filter added below ``ingress`` would land on ingress. The
        kernel answers through a notification to everybody, and to us only if we want the echo;
        where there is nothing it says ENOENT or, of late, just acknowledges.
        """
        request = transport.tc_request(transport.RTM_GETQDISC, transport.DO_ECHO, parent=_CLSACT)
        try:
            answer = self._route.ask(request, ifindex)
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return ""
            raise
        return text(walk(answer[0], 36)[1]) if answer else ""

    def _qdiscs(self) -> dict[int, str]:
        """The same of all interfaces in one dump, which tells nobody."""
        request = transport.tc_request(transport.RTM_GETQDISC, transport.DUMP)
        return {
            ifindex_of(message): text(walk(message, 36)[1])
            for message in self._route.ask(request)
            if message[24:28] == _HANDLE_BYTES
        }

    def elsewhere(self) -> Iterator[tuple[int, Interface]]:
        """The interfaces of every other namespace that has an id here, each with that id.

        Our own may have one too, once somebody else's device stands on one of ours.
        """
        yield from ((nsid, _interface(message)) for nsid, message in self._messages_elsewhere())

    def _messages_elsewhere(self) -> Iterator[tuple[int, bytes]]:
        known = self._route.ask(transport.nsid_request(transport.DUMP))
        nsids = {integer(walk(message, 20)[_NETNSA_NSID]) or 0 for message in known}
        for nsid in sorted(nsids - {self._own_nsid()}):
            request = transport.link_request(
                transport.RTM_GETLINK,
                transport.DUMP,
                (("IFLA_IF_NETNSID", nsid), ("IFLA_EXT_MASK", SKIP_STATS)),
            )
            try:
                answer = self._route.ask(request)
            except NetlinkError:  # gone meanwhile, or not to be looked into
                continue
            yield from ((nsid, each) for each in answer)

    def namespace_name(self, nsid: int) -> str:
        """What ``ip netns`` calls a namespace; empty where it has no such name."""
        for path in Path("/run/netns").glob("*"):
            with suppress(OSError), path.open() as file:
                if self.nsid_of(file.fileno()) == nsid:
                    return path.name
        return ""

    def nsid_of(self, fd: int) -> int | None:
        """The id that the namespace behind a file descriptor has here; None if it has none."""
        request = transport.nsid_request(transport.GET, (("NETNSA_FD", fd),))
        (answer,) = self._route.ask(request)
        nsid = integer(walk(answer, 20).get(_NETNSA_NSID))
        return None if nsid == _NSID_NOT_ASSIGNED else nsid

    def _filters(self, ifindex: int, direction: str) -> tuple[Filter, ...]:
        request = transport.tc_request(
            transport.RTM_GETTFILTER, transport.DUMP, parent=_PARENTS[direction]
        )
        found = (_filter(message) for message in self._route.ask(request, ifindex))
        return tuple(each for each in found if each.handle)

    def xdp_features(self, ifindex: int) -> XdpFeature | None:
        """What the driver says it can do; None before kernel 6.3, which has no netdev family."""
        from xconnectd.netlink import ethtool

        return ethtool.xdp_features(ifindex)

    # ---------------------------------------------------------------- what the host uses

    @_may_vanish
    def uses(self, interfaces: Iterable[Interface]) -> dict[int, tuple[Use, ...]]:
        """By ifindex what the host uses each for, in words: addresses, routes, devices on top."""
        interfaces = list(interfaces)
        stacked = self._stacked_on([interface.ifindex for interface in interfaces])
        if any(interface.kind not in _KINDS_OF_WIRES for interface in interfaces):
            self._add_stacked_elsewhere(stacked)
        return {
            each.ifindex: (
                *_carried(own := self._addresses(each.ifindex), each),
                *(self._routes(each, own) if each.up else ()),  # the kernel takes them down too
                *stacked[each.ifindex],
            )
            for each in interfaces
        }

    @_may_vanish
    def addresses(self, interface: Interface) -> tuple[Use, ...]:
        """Its addresses but for link-local ones."""
        return tuple(_carried(self._addresses(interface.ifindex), interface))

    def _addresses(self, ifindex: int) -> list[_Address]:
        self._alive()
        found = map(_address, self._route.ask(transport.address_request(), ifindex))
        return [each for each in found if each and not each.address.is_link_local]

    def _routes(self, interface: Interface, own: Collection[_Address]) -> Iterator[Use]:
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in self._route.ask(transport.route_request(family, interface.ifindex)):
                learnt = _is_learnt(message, own)
                protocol, kind = message[21], message[23]
                if learnt or (protocol != _RTPROT_KERNEL and kind == _RTN_UNICAST):
                    words, command = _route_in_words(message, interface.name)
                    yield Use(words, command, learnt)

    def unlearn(self, interface: Interface) -> None:
        """Removes what router advertisements made, and what they told of who is on the wire.

        Addresses, routes and neighbours are read again here.

        Raises:
            LinkError: refused.
        """
        own = self._addresses(interface.ifindex)
        routes = self._route.ask(transport.route_request(socket.AF_INET6, interface.ifindex))
        gone = [(each.message, transport.RTM_DELADDR) for each in own if each.learnt]
        gone += [(each, transport.RTM_DELROUTE) for each in routes if _is_learnt(each, own)]
        neighbours = self._route.ask(transport.neighbour_request(interface.ifindex))
        gone += [(each, transport.RTM_DELNEIGH) for each in neighbours if _is_resolved(each)]
        with _border(interface.name, "remove what a router announced"):
            for message, kind in gone:
                try:
                    self._route.ask(transport.deletion(message, kind))
                except NetlinkError as error:
                    # Gone already: an address, a route, a neighbour.
                    if error.errno not in (errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT):
                        raise

    def _stacked_on(self, indexes: Collection[int]) -> dict[int, list[Use]]:
        """The devices that stand on these: VLANs, macvlans, tunnels and their like."""
        found: dict[int, list[Use]] = {ifindex: [] for ifindex in indexes}
        stacks = self._all_stacks() if self._stacks is None else self._stacks
        for name, lowers in stacks.values():
            for ifindex in lowers & found.keys():
                found[ifindex].append(Use(f"{name} stands on it", f"ip link del dev {quote(name)}"))
        return found

    def _add_stacked_elsewhere(self, found: Mapping[int, list[Use]]) -> None:
        """Devices of other namespaces, as a macvlan that was handed to a container.

        A dump for each namespace; the lower device itself tells nothing of them.
        """
        away = [message for _, message in self._messages_elsewhere()]
        own = self._own_nsid()
        for message in away:
            attributes = walk(message, 32)
            kind = text(walk(attributes.get(_LINKINFO, b"")).get(_INFO_KIND, b""))
            lower = integer(attributes.get(_LINK)) or 0
            is_ours = own is not None and integer(attributes.get(_LINK_NETNSID)) == own
            if lower in found and is_ours and kind != "veth":  # a veth's is its far end
                name = text(attributes[_IFNAME])
                found[lower].append(Use(f"{name} of another namespace stands on it"))

    def _own_nsid(self) -> int | None:
        """The id that this namespace has for itself: some device elsewhere made it get one."""
        with Path("/proc/thread-self/ns/net").open() as file:
            return self.nsid_of(file.fileno())

    def _all_stacks(self) -> dict[int, tuple[str, set[int]]]:
        return {
            ifindex_of(message): stack
            for message in self._messages()
            if (stack := _standing(message))[1]
        }

    def statistics(self) -> dict[int, Statistics]:
        """By ifindex what every interface counted, in one dump."""
        return {
            ifindex_of(message): _statistics(walk(message, 28).get(_STATS_LINK_64, b""))
            for message in self._route.ask(transport.stats_request())
        }

    def follow(self) -> None:
        """From here on ``heard`` is told of every event, after this look at what there is.

        What stands on an interface is the one thing kept from look to look: the kernel has no
        question for it but a dump of all links, 4 µs each, and a rewire among a thousand links
        must not take that long.
        """
        self._stacks = self._all_stacks()

    def heard(self, event: Event) -> None:
        if self._stacks is None or not event.message:
            return
        self._stacks.pop(event.ifindex, None)
        if not event.gone and (stack := _standing(event.message))[1]:
            self._stacks[event.ifindex] = stack

    # ---------------------------------------------------------------- changing

    def settle(self) -> None:
        """Waits until changes that are under way are done, by a change of nothing.

        All of them hold one lock (RTNL), and looking takes it no longer.
        """
        self._route.ask(transport.link_request(transport.RTM_SETLINK, transport.DO), _LOOPBACK)

    def attach(self, interface: Interface, mode: Mode, fd: int, replacing: int | None) -> None:
        """Puts an XDP program on; with ``replacing`` only over that very program's fd.

        Raises:
            LinkError: refused, also when somebody else's program is there meanwhile.
        """
        guard = _XDP_IF_NOEXIST if replacing is None else _XDP_REPLACE
        self._xdp(interface, f"attach {mode} XDP", fd, _XDP_FLAGS[mode] | guard, replacing)

    def detach(self, interface: Interface, mode: str, fd: int | None) -> None:
        """Takes an XDP program off; with ``fd`` only if it is that very program."""
        flags = _XDP_FLAGS[Mode(mode)] | (0 if fd is None else _XDP_REPLACE)
        self._xdp(interface, f"detach {mode} XDP", -1, flags, fd)

    def _xdp(
        self, interface: Interface, action: str, fd: int, flags: int, expected: int | None
    ) -> None:
        nest: tuple[Any, ...] = (("IFLA_XDP_FD", fd), ("IFLA_XDP_FLAGS", flags))
        if expected is not None:
            nest += (("IFLA_XDP_EXPECTED_FD", expected),)
        self._set(interface, action, (("IFLA_XDP", nest),))

    def change(self, interface: Interface, setting: str, value: int) -> None:
        """Gives a setting (a ``Setting`` or ``feature:NAME``) a value.

        Raises:
            LinkError: refused.
        """
        action = f"set {setting} {value}"
        match setting:
            case Setting.MTU:
                self._set(interface, action, (("IFLA_MTU", value),))
            case Setting.ADDR_GEN_MODE:
                mode = (("AF_INET6", (("IFLA_INET6_ADDR_GEN_MODE", value),)),)
                self._set(interface, action, (("IFLA_AF_SPEC", mode),))
            case Setting.UP:
                self._flag(interface, action, _IFF_UP, value)
            case Setting.PROMISCUOUS:
                self._flag(interface, action, _IFF_PROMISC, value)
            case Setting.CLSACT:
                self._clsact(interface, value)
            case _:
                self._feature(interface, setting.partition(":")[2], on=bool(value))

    def _set(self, interface: Interface, action: str, attributes: tuple[Any, ...]) -> None:
        request = transport.link_request(transport.RTM_SETLINK, transport.DO, attributes)
        with _border(interface.name, action):
            self._route.ask(request, interface.ifindex)

    def _flag(self, interface: Interface, action: str, flag: int, value: int) -> None:
        request = transport.link_request(
            transport.RTM_SETLINK, transport.DO, flags=flag if value else 0, change=flag
        )
        with _border(interface.name, action):
            self._route.ask(request, interface.ifindex)

    def _clsact(self, interface: Interface, present: int) -> None:
        request = transport.tc_request(
            transport.RTM_NEWQDISC if present else transport.RTM_DELQDISC,
            transport.CREATE if present else transport.DO,
            (("TCA_KIND", "clsact"),),
            handle=_HANDLE,
            parent=_CLSACT,
        )
        with _border(interface.name, "add clsact" if present else "delete clsact"):
            self._route.ask(request, interface.ifindex)

    def _feature(self, interface: Interface, name: str, *, on: bool) -> None:
        from xconnectd.netlink import ethtool

        with _border(interface.name, f"set {name} {'on' if on else 'off'}"):
            ethtool.change_feature(interface.name, name, on=on)

    def add_filter(self, interface: Interface, direction: str, fd: int, *, replacing: bool) -> None:
        """Adds our program to clsact; over one that stands in our place only if ``replacing``."""
        options = (
            ("TCA_BPF_FD", fd),
            ("TCA_BPF_NAME", PROGRAM_NAME),
            ("TCA_BPF_FLAGS", _TCA_BPF_DIRECT_ACTION),
        )
        request = transport.tc_request(
            transport.RTM_NEWTFILTER,
            transport.REPLACE if replacing else transport.CREATE,
            (("TCA_KIND", "bpf"), ("TCA_OPTIONS", options)),
            handle=FILTER_HANDLE,
            parent=_PARENTS[direction],
            info=_ETH_P_ALL_INFO,
        )
        with _border(interface.name, f"add the tc {direction} filter"):
            self._route.ask(request, interface.ifindex)

    def delete_filter(self, interface: Interface, direction: str, filter_: Filter) -> None:
        request = transport.tc_request(
            transport.RTM_DELTFILTER,
            transport.DO,
            (("TCA_KIND", filter_.kind),),
            handle=filter_.handle,
            parent=_PARENTS[direction],
            info=(filter_.priority << 16) | socket.htons(3),
        )
        with _border(interface.name, f"delete the tc {direction} filter"):
            self._route.ask(request, interface.ifindex)


# --------------------------------------------------------------------------- reading messages


def _statistics(counted: bytes) -> Statistics:
    """From a struct rtnl_link_stats64; zeros of an interface that went meanwhile."""
    if len(counted) < _STATISTICS.size:
        return Statistics()
    received, sent, not_received, not_sent = _STATISTICS.unpack_from(counted)
    return Statistics(received, sent, not_received, not_sent)


def _get(attributes: tuple[Any, ...]) -> bytes:
    return transport.link_request(
        transport.RTM_GETLINK, transport.GET, (*attributes, ("IFLA_EXT_MASK", SKIP_STATS))
    )


def _interface(message: bytes) -> Interface:
    _family, hardware, ifindex, flags = struct.unpack_from("=BxHiI", message, 16)
    attributes = walk(message, 32)
    info = walk(attributes.get(_LINKINFO, b""))
    kind = text(info.get(_INFO_KIND, b""))
    return Interface(
        ifindex=ifindex,
        name=text(attributes[_IFNAME]),
        altnames=tuple(text(value) for _, value in walk_all(attributes.get(_PROP_LIST, b""))),
        kind=kind,
        variant=_variant(kind, walk(info.get(_INFO_DATA, b""))),
        ethernet=hardware == _ARPHRD_ETHER,
        mac=attributes.get(_ADDRESS, b"").hex(":"),
        up=bool(flags & _IFF_UP),
        carrier=integer(attributes.get(_CARRIER)) == 1,
        promiscuous=bool(flags & _IFF_PROMISC),
        mtu=integer(attributes.get(_MTU)) or 0,
        max_mtu=integer(attributes.get(_MAX_MTU)) or 0,
        addr_gen_mode=_addr_gen_mode(attributes.get(_AF_SPEC, b"")),
        master=integer(attributes.get(_MASTER)) or 0,
        master_kind=text(info.get(_INFO_SLAVE_KIND, b"")),
        far=_far_end(kind, attributes),
        xdp=_xdp_programs(attributes.get(_XDP, b"")),
    )


def _with_driver(interface: Interface) -> Interface:
    from xconnectd.netlink import ethtool

    is_nic = not interface.kind
    return interface._replace(
        features=ethtool.features(interface.name),
        xdp_features=ethtool.xdp_features(interface.ifindex) if is_nic else None,
        driver=ethtool.driver(interface.name) if is_nic else "",
    )


def _has_ours(filters: Iterable[Filter]) -> bool:
    return any(filter_.name == PROGRAM_NAME for filter_ in filters)


def _variant(kind: str, data: dict[int, bytes]) -> str:
    value = integer(data.get(1)) or 0  # IFLA_TUN_OWNER and IFLA_MACVLAN_MODE share a number
    if kind == "tun":
        return _TUN_TYPES.get(integer(data.get(3)) or 0, "")  # IFLA_TUN_TYPE
    return _MACVLAN_MODES.get(value, "") if kind == "macvlan" else ""


def _addr_gen_mode(af_spec: bytes) -> int | None:
    return integer(walk(walk(af_spec).get(socket.AF_INET6, b"")).get(_INET6_ADDR_GEN_MODE))


def _far_end(kind: str, attributes: dict[int, bytes]) -> Far | None:
    if kind != "veth" or _LINK not in attributes:
        return None
    return Far(integer(attributes[_LINK]) or 0, integer(attributes.get(_LINK_NETNSID)))


def _xdp_programs(value: bytes) -> tuple[Xdp, ...]:
    nest = walk(value)
    return tuple(
        Xdp(mode, integer(nest[number]) or 0)
        for number, mode in _XDP_MODES.items()
        if number in nest
    )


def _standing(message: bytes) -> tuple[str, set[int]]:
    """A device's name and the ifindexes of this namespace that it stands on."""
    attributes = walk(message, 32)
    info = walk(attributes.get(_LINKINFO, b""))
    kind = text(info.get(_INFO_KIND, b""))
    lowers = set()
    if kind != "veth" and _LINK_NETNSID not in attributes:  # a veth's IFLA_LINK is its far end
        lowers.add(integer(attributes.get(_LINK)) or 0)
    if kind == "vxlan":
        lowers.add(integer(walk(info.get(_INFO_DATA, b"")).get(_VXLAN_LINK)) or 0)
    return text(attributes[_IFNAME]), lowers - {0, ifindex_of(message)}


def _filter(message: bytes) -> Filter:
    handle, _parent, info = struct.unpack_from("=III", message, 24)
    attributes = walk(message, 36)
    options = walk(attributes.get(2, b""))
    return Filter(
        kind=text(attributes.get(1, b"")),
        priority=info >> 16,
        handle=handle,
        program=integer(options.get(11)) or 0,  # TCA_BPF_ID
        name=text(options.get(7, b"")),  # TCA_BPF_NAME
    )


def _is_resolved(neighbour: bytes) -> bool:
    """Whether the host has asked for it or heard of it, and nobody has entered it for good."""
    (state,) = struct.unpack_from("=H", neighbour, 24)
    return not state & (_NUD_NOARP | _NUD_PERMANENT)


class _Address(NamedTuple):
    """``learnt`` from a router's advertisement; ``message`` is how the kernel tells of it."""

    address: ipaddress.IPv4Interface | ipaddress.IPv6Interface
    learnt: bool
    message: bytes


def _carried(addresses: Iterable[_Address], interface: Interface) -> Iterator[Use]:
    flush = f"ip addr flush dev {quote(interface.name)}"
    for each in addresses:
        yield Use(f"it carries {each.address}", flush, each.learnt)


def _address(message: bytes) -> _Address | None:
    attributes = walk(message, 24)
    packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if not packed:
        return None
    flags = integer(attributes.get(_IFA_FLAGS)) or message[18]
    learnt = integer(attributes.get(_IFA_PROTO)) == _IFAPROT_KERNEL_RA or (
        not flags & _IFA_F_PERMANENT and bool(flags & _IFA_F_OF_ROUTERS)
    )
    return _Address(ipaddress.ip_interface((packed, message[17])), learnt, message)


def _is_learnt(route: bytes, own: Iterable[_Address]) -> bool:
    """Whether a router announced it: the default, or the prefix of no address but learnt ones."""
    protocol, kind = route[21], route[23]
    if protocol == _RTPROT_RA:
        return True
    destination = walk(route, 28).get(1)  # RTA_DST
    if (
        destination is None
        or len(destination) != 16
        or (protocol, kind)
        != (
            _RTPROT_KERNEL,
            _RTN_UNICAST,
        )
    ):
        return False
    prefix = ipaddress.ip_network((destination, route[17]))
    kept = (each.address.ip for each in own if not each.learnt)
    return (
        not prefix.is_link_local
        and not prefix.is_multicast
        and not any(address in prefix for address in kept)
    )


def _route_in_words(message: bytes, interface: str) -> tuple[str, str]:
    """What it is, and the command that deletes it."""
    attributes = walk(message, 28)
    destination, table = attributes.get(1), integer(attributes.get(15))  # RTA_DST, RTA_TABLE
    if destination is None:
        where = "default"
        words = "the default route leads over it" if not message[17] else "a route leads over it"
    else:
        where = f"{ipaddress.ip_address(destination)}/{message[17]}"
        words = f"the route to {where} leads over it"
    family = "-6 " if message[16] == socket.AF_INET6 else ""
    of_table = "" if table in (None, _RT_TABLE_MAIN) else f" table {table}"
    return words, f"ip {family}route del {where} dev {quote(interface)}{of_table}"
