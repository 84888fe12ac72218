"""What the host uses an interface for: addresses, routes over it, devices stacked on it.

Of addresses and routes it tells which a router advertisement made (RFC 4861), and how to delete
those. It only looks.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from shlex import quote
from typing import Final, NamedTuple

from xconnectd.model import Interface, Use
from xconnectd.netlink import uapi
from xconnectd.netlink.interfaces import DATA, KIND, Interfaces, lowers_in
from xconnectd.netlink.monitor import Event, route_interfaces
from xconnectd.netlink.transport import (
    ADDRESS_ATTRIBUTES,
    LINK_ATTRIBUTES,
    ROUTE_ATTRIBUTES,
    Question,
    Reader,
    Route,
    address_request,
    attributes_in,
    deletion,
    ifindex_of,
    integer,
    neighbour_request,
    route_request,
    text,
)

_FROM_ROUTER: Final = uapi.IFA_F_TEMPORARY | uapi.IFA_F_MANAGETEMPADDR
"""What privacy extensions make of a router's prefix, and what they make it of. Whoever adds an
address by hand has it permanent."""

_GET_ADDRESSES: Final = address_request()
_ROUTE_TYPE: Final = 23  # where struct rtmsg has rtm_type
_IPV4_LENGTH: Final = 4
_FEW: Final = 64
"""So many interfaces at most are asked about one by one, which costs the kernel a walk through all
routes each; of more, all addresses and routes of the host are read."""
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)

_LINK: Final = Reader(
    LINK_ATTRIBUTES, uapi.IFLA_IFNAME, uapi.IFLA_LINK, uapi.IFLA_LINK_NETNSID, KIND, DATA
)
_KINDS_OF_WIRES: Final = frozenset(("veth", "tun"))
"""What others' devices hardly ever stand on, and what is wired in a hurry."""


class _Stacked(NamedTuple):
    """A device and the ifindexes of those it stands on."""

    name: str
    lowers: frozenset[int]


class HostUse:
    """What this host uses interfaces for, asked over ``route``."""

    def __init__(self, route: Route, interfaces: Interfaces) -> None:
        self._route = route
        self._interfaces = interfaces
        self._tracks = False
        self._stacked: dict[int, _Stacked] | None = None

    def uses(
        self,
        interfaces: Iterable[Interface],
        addressed: Iterable[Interface] = (),
        everyone: Collection[Interface] = (),
    ) -> dict[int, tuple[Use, ...]]:
        """By ifindex what the host uses each for, in words: addresses, routes, devices on top.

        Link-local addresses are no use. Of those in ``addressed`` only addresses are told.
        ``everyone`` are all interfaces that there are, of a look that has read them.

        Raises:
            InterfaceGoneError: one of them vanished meanwhile.
        """
        whole = {each.ifindex: each for each in interfaces}
        every = whole | {each.ifindex: each for each in addressed}
        # The kernel takes the routes over an interface down with it.
        up = {ifindex: each for ifindex, each in whole.items() if each.up}
        addresses, routes = self._ask(every, up)
        found: dict[int, tuple[Use, ...]] = dict.fromkeys(every, ())
        for ifindex, own in addresses.items():
            found[ifindex] += _of_addresses(own, every[ifindex])
        for ifindex, over in routes.items():
            found[ifindex] += _of_routes(over, addresses.get(ifindex, ()), whole[ifindex])
        if whole or everyone:
            for ifindex, on_top in self._stacked_on(whole, everyone).items():
                found[ifindex] += on_top
        return found

    def learnt(self, interface: Interface) -> list[bytes]:
        """Requests that delete what router advertisements made on it, and resolved neighbours.

        Addresses, routes and neighbours are read again here.
        """
        ifindex = interface.ifindex
        addresses, routes = self._ask([ifindex], [ifindex], [socket.AF_INET6])
        own = addresses.get(ifindex, [])
        neighbours = self._route.ask(neighbour_request(ifindex))
        gone = [(each.message, uapi.RTM_DELADDR) for each in own if each.learnt]
        gone += [
            (each.message, uapi.RTM_DELROUTE) for each in routes[ifindex] if _is_learnt(each, own)
        ]
        gone += [(each, uapi.RTM_DELNEIGH) for each in neighbours if _is_resolved(each)]
        return [deletion(message, kind) for message, kind in gone]

    def _ask(
        self, ends: Collection[int], over: Collection[int], families: Collection[int] = _FAMILIES
    ) -> tuple[dict[int, list[_Address]], dict[int, list[_RouteEntry]]]:
        """By ifindex the addresses of each of ``ends``, and the routes over each of ``over``.

        Without link-local addresses, and unicast routes alone: no others are entered or learnt.
        """
        owners: list[int | None] = [None] if len(ends) > _FEW else [*ends]
        ways: list[int | None] = [None] if len(over) > _FEW else [*over]
        routed = [(family, ifindex) for family in families for ifindex in ways] if over else []
        questions: list[Question] = [(_GET_ADDRESSES, ifindex) for ifindex in owners]
        questions += [(route_request(*each), None) for each in routed]
        answers = self._route.ask_each(questions)
        messages = [*chain.from_iterable(answers[: len(owners)])]
        if len(ends) > _FEW:
            messages = [message for message in messages if ifindex_of(message) in ends]
        unicast = [
            (led_over, message)
            for (_, ifindex), answer in zip(routed, answers[len(owners) :], strict=True)
            for message in answer
            if message[_ROUTE_TYPE] == uapi.RTN_UNICAST
            for led_over in ([ifindex] if ifindex else route_interfaces(message))
            if led_over in over
        ]
        both = [(message, ADDRESS_ATTRIBUTES) for message in messages]
        both += [(message, ROUTE_ATTRIBUTES) for _, message in unicast]
        told = [attributes_in(*each) for each in both]
        of_addresses, of_routes = told[: len(messages)], told[len(messages) :]
        addresses: dict[int, list[_Address]] = {}
        for address in filter(None, map(_address, messages, of_addresses)):
            addresses.setdefault(ifindex_of(address.message), []).append(address)
        routes: dict[int, list[_RouteEntry]] = {ifindex: [] for ifindex in over}
        for (ifindex, message), attributes in zip(unicast, of_routes, strict=True):
            routes[ifindex].append(_route_entry(message, attributes))
        return addresses, routes

    # ---------------------------------------------------------------- stacked devices

    def track_stacked(self) -> None:
        """From here on ``update_stacked`` is called with every event.

        So what a look at all interfaces shows of which stands on which can be kept true. It is the
        one thing kept from look to look: the kernel has no question for it but a dump of all links,
        4 µs each, and a rewire among a thousand links must not take that long.
        """
        self._tracks = True

    def update_stacked(self, event: Event) -> None:
        """To be called with every event since ``track_stacked``."""
        if self._stacked is None or not event.message:
            return
        self._stacked.pop(event.ifindex, None)
        if not event.gone and (stacked := _stacked(event.message)).lowers:
            self._stacked[event.ifindex] = stacked

    def _stacked_on(
        self, interfaces: Mapping[int, Interface], everyone: Collection[Interface]
    ) -> dict[int, tuple[Use, ...]]:
        """The devices that stand on these: VLANs, macvlans, tunnels and their like."""
        found: defaultdict[int, tuple[Use, ...]] = defaultdict(tuple)
        known = self._stacked
        if everyone or known is None:
            looked_at = everyone or self._interfaces.all().values()
            known = {i.ifindex: _Stacked(i.name, i.lowers) for i in looked_at if i.lowers}
            self._stacked = known if self._tracks else None
        for name, lowers in known.values():
            for ifindex in lowers & interfaces.keys():
                use = Use(f"{name} is on top of it", f"ip link del dev {quote(name)}")
                found[ifindex] += (use,)
        if not {each.kind for each in interfaces.values()} <= _KINDS_OF_WIRES:
            for name, lowers in self._stacked_elsewhere():
                for ifindex in lowers & interfaces.keys():
                    found[ifindex] += (Use(f"{name} of another namespace is on top of it"),)
        return found

    def _stacked_elsewhere(self) -> list[_Stacked]:
        """Devices of other namespaces, as a macvlan that was handed to a container.

        A dump for each namespace; the lower device itself tells nothing of them. The dumps come
        first: our namespace gets its id from what they tell of it.
        """
        away = [message for _, message in self._interfaces.messages_elsewhere()]
        own = self._interfaces.own_nsid()
        return [] if own is None else [_stacked(message, own) for message in away]


def _stacked(message: bytes, nsid: int | None = None) -> _Stacked:
    """What the device of a link message stands on in the namespace ``nsid``, or in its own."""
    found = _LINK.read(message)
    is_veth = found.get(KIND) == b"veth\0"
    lowers = frozenset[int]() if is_veth else lowers_in(message, found, nsid)
    return _Stacked(text(found[uapi.IFLA_IFNAME][:-1]), lowers)


# --------------------------------------------------------------------------- reading messages


class _Address(NamedTuple):
    """``learnt`` from a router advertisement; ``message`` is how the kernel tells of it."""

    address: ipaddress.IPv4Interface | ipaddress.IPv6Interface
    learnt: bool
    message: bytes


def _of_addresses(addresses: Iterable[_Address], interface: Interface) -> tuple[Use, ...]:
    flush = f"ip addr flush dev {quote(interface.name)}"
    return tuple(
        [Use(f"it has the address {each.address}", flush, each.learnt) for each in addresses]
    )


def _of_routes(
    routes: Iterable[_RouteEntry], own: Collection[_Address], interface: Interface
) -> tuple[Use, ...]:
    """Those that were learnt, and those that somebody entered."""
    return tuple(
        [
            Use(*_route_in_words(each, interface.name), learnt)
            for each in routes
            if (learnt := _is_learnt(each, own))
            or (each.kind == uapi.RTN_UNICAST and each.protocol != uapi.RTPROT_KERNEL)
        ]
    )


def _address(message: bytes, found: Mapping[int, bytes]) -> _Address | None:
    """None of a link-local one: to make a value of one takes 20 µs, and most ends have one."""
    packed = found.get(uapi.IFA_LOCAL) or found.get(uapi.IFA_ADDRESS)
    if not packed or _is_link_local(packed):
        return None
    prefix_length, old_flags = struct.unpack_from("=xBB", message, 16)
    flags = integer(found.get(uapi.IFA_FLAGS, b"")) or old_flags
    # Before 5.18 there is no IFA_PROTO, and only flags tell.
    learnt = integer(found.get(uapi.IFA_PROTO, b"")) == uapi.IFAPROT_KERNEL_RA or (
        not flags & uapi.IFA_F_PERMANENT and bool(flags & _FROM_ROUTER)
    )
    return _Address(ipaddress.ip_interface((packed, prefix_length)), learnt, message)


def _is_link_local(packed: bytes) -> bool:
    """Whether an address, or the begin of a prefix, is of fe80::/10 or 169.254.0.0/16."""
    if len(packed) == _IPV4_LENGTH:
        return packed[:2] == b"\xa9\xfe"
    return packed[0] == 0xFE and packed[1] & 0xC0 == 0x80


def _is_resolved(neighbour: bytes) -> bool:
    """Whether the host has asked for it or heard of it, and nobody has entered it for good."""
    (state,) = struct.unpack_from("=H", neighbour, 24)
    return not state & (uapi.NUD_NOARP | uapi.NUD_PERMANENT)


class _RouteEntry(NamedTuple):
    """A route; ``destination`` is None for the default one."""

    family: int
    prefix_length: int
    protocol: int
    kind: int
    destination: bytes | None
    table: int
    message: bytes


def _route_entry(message: bytes, found: Mapping[int, bytes]) -> _RouteEntry:
    family, prefix_length, protocol, kind = struct.unpack_from("=BB3xBxB", message, 16)
    destination = found.get(uapi.RTA_DST)
    table = integer(found.get(uapi.RTA_TABLE, b""))
    return _RouteEntry(family, prefix_length, protocol, kind, destination, table, message)


def _is_learnt(route: _RouteEntry, own: Iterable[_Address]) -> bool:
    """Whether a router announced it: the default, or the prefix of no address but learnt ones."""
    if route.protocol == uapi.RTPROT_RA:
        return True
    if (route.protocol, route.kind) != (uapi.RTPROT_KERNEL, uapi.RTN_UNICAST):
        return False
    if route.family != socket.AF_INET6 or route.destination is None:
        return False
    if _is_link_local(route.destination):
        return False
    prefix = ipaddress.ip_network((route.destination, route.prefix_length))
    kept = (each.address.ip for each in own if not each.learnt)
    return not prefix.is_multicast and not any(address in prefix for address in kept)


def _route_in_words(route: _RouteEntry, interface: str) -> tuple[str, str]:
    """What it is, and the command that deletes it."""
    if route.destination is None:
        where = "default"
        words = f"{'a' if route.prefix_length else 'the default'} route uses it"
    else:
        where = f"{ipaddress.ip_address(route.destination)}/{route.prefix_length}"
        words = f"the route to {where} uses it"
    family = "-6 " if route.family == socket.AF_INET6 else ""
    of_table = "" if route.table in (0, uapi.RT_TABLE_MAIN) else f" table {route.table}"
    return words, f"ip {family}route del {where} dev {quote(interface)}{of_table}"
