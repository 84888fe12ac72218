"""What the host uses an interface for: addresses, routes over it, devices stacked on it.

Of addresses and routes it tells which a router advertisement made (RFC 4861), and how to delete
those. It only looks.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from shlex import quote
from typing import Final, NamedTuple

from xconnectd.model import Interface, Use
from xconnectd.netlink import uapi
from xconnectd.netlink.interfaces import Interfaces
from xconnectd.netlink.monitor import Event
from xconnectd.netlink.transport import (
    ADDRESS_ATTRIBUTES,
    LINK_ATTRIBUTES,
    ROUTE_ATTRIBUTES,
    Route,
    address_request,
    attributes_in,
    deletion,
    ifindex_of,
    integer,
    may_vanish,
    neighbour_request,
    route_request,
    text,
)

_FROM_ROUTER: Final = uapi.IFA_F_TEMPORARY | uapi.IFA_F_MANAGETEMPADDR
"""What privacy extensions make of a router's prefix, and what they make it of. Whoever adds an
address by hand has it permanent."""

_KINDS_OF_WIRES: Final = ("veth", "tun")
"""What others' devices hardly ever stand on, and what is wired in a hurry."""


class _Stacked(NamedTuple):
    """A device and the ifindexes of those it stands on."""

    name: str
    lowers: frozenset[int]


class HostUse:
    """What this host uses interfaces for, asked over ``route``.

    ``alive`` is called for every interface that is looked at.
    """

    def __init__(
        self, route: Route, interfaces: Interfaces, alive: Callable[[], None] = lambda: None
    ) -> None:
        self._route = route
        self._interfaces = interfaces
        self._alive = alive
        self._stacked: dict[int, _Stacked] | None = None

    @may_vanish
    def uses(self, interfaces: Iterable[Interface]) -> dict[int, tuple[Use, ...]]:
        """By ifindex what the host uses each for, in words: addresses, routes, devices on top.

        Raises:
            InterfaceGoneError: one of them vanished meanwhile.
        """
        interfaces = list(interfaces)
        stacked = self._stacked_on([interface.ifindex for interface in interfaces])
        if any(interface.kind not in _KINDS_OF_WIRES for interface in interfaces):
            self._add_stacked_elsewhere(stacked)
        return {
            each.ifindex: (
                *_of_addresses(own := self._addresses(each.ifindex), each),
                *(self._over(each, own) if each.up else ()),  # the kernel takes them down too
                *stacked[each.ifindex],
            )
            for each in interfaces
        }

    def _over(self, interface: Interface, own: Collection[_Address]) -> Iterator[Use]:
        """The routes that lead over it."""
        for each in self._routes(interface.ifindex, socket.AF_INET, socket.AF_INET6):
            learnt = _is_learnt(each, own)
            by_kernel = each.protocol == uapi.RTPROT_KERNEL
            if learnt or (each.kind == uapi.RTN_UNICAST and not by_kernel):
                yield Use(*_route_in_words(each, interface.name), learnt)

    @may_vanish
    def addresses(self, interface: Interface) -> tuple[Use, ...]:
        """Its addresses but for link-local ones.

        Raises:
            InterfaceGoneError: it vanished.
        """
        return _of_addresses(self._addresses(interface.ifindex), interface)

    def learnt(self, interface: Interface) -> list[bytes]:
        """Requests that delete what router advertisements made on it, and resolved neighbours.

        Addresses, routes and neighbours are read again here.
        """
        own = self._addresses(interface.ifindex)
        routes = self._routes(interface.ifindex, socket.AF_INET6)
        neighbours = self._route.ask(neighbour_request(interface.ifindex))
        gone = [(each.message, uapi.RTM_DELADDR) for each in own if each.learnt]
        gone += [(each.message, uapi.RTM_DELROUTE) for each in routes if _is_learnt(each, own)]
        gone += [(each, uapi.RTM_DELNEIGH) for each in neighbours if _is_resolved(each)]
        return [deletion(message, kind) for message, kind in gone]

    def _addresses(self, ifindex: int) -> list[_Address]:
        self._alive()
        found = map(_address, self._route.ask(address_request(), ifindex))
        return [each for each in found if each and not each.address.is_link_local]

    def _routes(self, ifindex: int, *families: int) -> list[_RouteEntry]:
        return [
            _route_entry(message)
            for family in families
            for message in self._route.ask(route_request(family, ifindex))
        ]

    # ---------------------------------------------------------------- stacked devices

    def track_stacked(self) -> None:
        """Reads which devices stand on which; from here on ``update_stacked`` keeps that true.

        It is the one thing kept from look to look: the kernel has no question for it but a dump
        of all links, 4 µs each, and a rewire among a thousand links must not take that long.
        """
        self._stacked = self._all_stacked()

    def update_stacked(self, event: Event) -> None:
        """To be called with every event since ``track_stacked``."""
        if self._stacked is None or not event.message:
            return
        self._stacked.pop(event.ifindex, None)
        if not event.gone and (stacked := _stacked(event.message)).lowers:
            self._stacked[event.ifindex] = stacked

    def _all_stacked(self) -> dict[int, _Stacked]:
        return {
            ifindex_of(message): stacked
            for message in self._interfaces.messages()
            if (stacked := _stacked(message)).lowers
        }

    def _stacked_on(self, indexes: Collection[int]) -> dict[int, list[Use]]:
        """The devices that stand on these: VLANs, macvlans, tunnels and their like."""
        found: dict[int, list[Use]] = {ifindex: [] for ifindex in indexes}
        known = self._all_stacked() if self._stacked is None else self._stacked
        for name, lowers in known.values():
            for ifindex in lowers & found.keys():
                found[ifindex].append(Use(f"{name} stands on it", f"ip link del dev {quote(name)}"))
        return found

    def _add_stacked_elsewhere(self, found: Mapping[int, list[Use]]) -> None:
        """Devices of other namespaces, as a macvlan that was handed to a container.

        A dump for each namespace; the lower device itself tells nothing of them. The dumps come
        first: our namespace gets its id from what they tell of it.
        """
        away = [message for _, message in self._interfaces.messages_elsewhere()]
        own = self._interfaces.own_nsid()
        if own is None:
            return
        for name, lowers in (_stacked(message, own) for message in away):
            for ifindex in lowers & found.keys():
                found[ifindex].append(Use(f"{name} of another namespace stands on it"))


def _stacked(message: bytes, nsid: int | None = None) -> _Stacked:
    """What the device of a link message stands on in the namespace ``nsid``, or in its own."""
    found = dict(attributes_in(message, LINK_ATTRIBUTES))
    info = dict(attributes_in(found.get(uapi.IFLA_LINKINFO, b"")))
    kind = text(info.get(uapi.IFLA_INFO_KIND, b""))
    lowers = set()
    # A veth's IFLA_LINK is its far end.
    if kind != "veth" and integer(found.get(uapi.IFLA_LINK_NETNSID)) == nsid:
        lowers.add(integer(found.get(uapi.IFLA_LINK)) or 0)
    if nsid is None:
        if kind == "vxlan":
            data = dict(attributes_in(info.get(uapi.IFLA_INFO_DATA, b"")))
            lowers.add(integer(data.get(uapi.IFLA_VXLAN_LINK)) or 0)
        lowers.discard(ifindex_of(message))
    return _Stacked(text(found[uapi.IFLA_IFNAME]), frozenset(lowers - {0}))


# --------------------------------------------------------------------------- reading messages


class _Address(NamedTuple):
    """``learnt`` from a router advertisement; ``message`` is how the kernel tells of it."""

    address: ipaddress.IPv4Interface | ipaddress.IPv6Interface
    learnt: bool
    message: bytes


def _of_addresses(addresses: Iterable[_Address], interface: Interface) -> tuple[Use, ...]:
    flush = f"ip addr flush dev {quote(interface.name)}"
    return tuple([Use(f"it carries {each.address}", flush, each.learnt) for each in addresses])


def _address(message: bytes) -> _Address | None:
    found = dict(attributes_in(message, ADDRESS_ATTRIBUTES))
    packed = found.get(uapi.IFA_LOCAL) or found.get(uapi.IFA_ADDRESS)
    if not packed:
        return None
    prefix_length, old_flags = struct.unpack_from("=xBB", message, 16)
    flags = integer(found.get(uapi.IFA_FLAGS)) or old_flags
    # Before 5.18 there is no IFA_PROTO, and only flags tell.
    learnt = integer(found.get(uapi.IFA_PROTO)) == uapi.IFAPROT_KERNEL_RA or (
        not flags & uapi.IFA_F_PERMANENT and bool(flags & _FROM_ROUTER)
    )
    return _Address(ipaddress.ip_interface((packed, prefix_length)), learnt, message)


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
    table: int | None
    message: bytes


def _route_entry(message: bytes) -> _RouteEntry:
    family, prefix_length, protocol, kind = struct.unpack_from("=BB3xBxB", message, 16)
    found = dict(attributes_in(message, ROUTE_ATTRIBUTES))
    destination, table = found.get(uapi.RTA_DST), integer(found.get(uapi.RTA_TABLE))
    return _RouteEntry(family, prefix_length, protocol, kind, destination, table, message)


def _is_learnt(route: _RouteEntry, own: Iterable[_Address]) -> bool:
    """Whether a router announced it: the default, or the prefix of no address but learnt ones."""
    if route.protocol == uapi.RTPROT_RA:
        return True
    if (route.protocol, route.kind) != (uapi.RTPROT_KERNEL, uapi.RTN_UNICAST):
        return False
    if route.family != socket.AF_INET6 or route.destination is None:
        return False
    prefix = ipaddress.ip_network((route.destination, route.prefix_length))
    kept = (each.address.ip for each in own if not each.learnt)
    return (
        not prefix.is_link_local
        and not prefix.is_multicast
        and not any(address in prefix for address in kept)
    )


def _route_in_words(route: _RouteEntry, interface: str) -> tuple[str, str]:
    """What it is, and the command that deletes it."""
    if route.destination is None:
        where = "default"
        words = f"{'a' if route.prefix_length else 'the default'} route leads over it"
    else:
        where = f"{ipaddress.ip_address(route.destination)}/{route.prefix_length}"
        words = f"the route to {where} leads over it"
    family = "-6 " if route.family == socket.AF_INET6 else ""
    of_table = "" if route.table in (None, uapi.RT_TABLE_MAIN) else f" table {route.table}"
    return words, f"ip {family}route del {where} dev {quote(interface)}{of_table}"
