"""The multicast messages of rtnetlink: which interface each is about, and what it says of it.

It owns the socket that receives them, and keeps its work bounded: an interface that changes too
often is muted for a moment, in the kernel. What a change means is for others to find out.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

from xconnectd import classic_bpf
from xconnectd.classic_bpf import (
    LOAD_HALF,
    LOAD_WORD,
    Instruction,
    give,
    if_equal,
    load,
    unless_equal,
)
from xconnectd.netlink import uapi
from xconnectd.netlink.transport import (
    GET,
    HEADER,
    INDEX,
    INDEX_OFFSET,
    LINK_ATTRIBUTES,
    RECV_SIZE,
    ROUTE_ATTRIBUTES,
    SKIP_STATISTICS,
    SO_RCVBUFFORCE,
    Reader,
    attributes_in,
    get_link_request,
    integer,
    text,
    texts,
)

_GROUPS: Final = (
    uapi.RTNLGRP_LINK,
    uapi.RTNLGRP_TC,
    uapi.RTNLGRP_IPV4_IFADDR,
    uapi.RTNLGRP_IPV6_IFADDR,
)
_ROUTE_GROUPS: Final = (uapi.RTNLGRP_IPV4_ROUTE, uapi.RTNLGRP_IPV6_ROUTE)

_MOST_EVENTS: Final = 32
_INTERVAL: Final = 0.5
"""An interface that makes more events than that in so many seconds is muted for the rest of them.

To make an interface an end, or to take it back, makes some 15.
"""

MOST_MUTED: Final = 1000
"""The kernel takes programs of 4,096 instructions (BPF_MAXINSNS), and two are for one interface."""

_DROP: Final = 0
_TAKE: Final = 0xFFFFFFFF
_TYPE_OFFSET: Final = 4
_PORT_OFFSET: Final = 12

_AF_BRIDGE: Final = 7
"""Of a bridge's news of its port: RTM_DELLINK means that it left the bridge, no device went.
They come with IFLA_LINK, but without the kind and the namespace that tell what that is."""
_OF_LINKS: Final = (uapi.RTM_NEWLINK, uapi.RTM_DELLINK)
_LINK: Final = Reader(
    LINK_ATTRIBUTES,
    uapi.IFLA_IFNAME,
    uapi.IFLA_PROP_LIST,
    uapi.IFLA_ADDRESS,
    uapi.IFLA_NEW_NETNSID,
    uapi.IFLA_NEW_IFINDEX,
    uapi.IFLA_LINK_NETNSID,
)
_NEXT_HOP: Final = struct.Struct("=Hxxi")  # struct rtnexthop


class Event(NamedTuple):
    """Something happened to an interface; what it is now must be read again.

    ``name`` and ``mac`` are empty where the message carries none (tc, addresses). For a device
    that left for another namespace ``nsid`` and ``new_ifindex`` say where to. ``far_nsid`` is the
    id of the namespace that the other end of a veth is in, None if it is in this one. Without an
    ``ifindex`` it is of an end in a node, by its text. ``message`` is the whole of a link message
    that describes the device; what a bridge tells of its port does not.
    """

    ifindex: int
    name: str = ""
    gone: bool = False
    nsid: int | None = None
    new_ifindex: int | None = None
    altnames: tuple[str, ...] = ()
    mac: str = ""
    message: bytes = b""
    far_nsid: int | None = None


class OverrunError(Exception):
    """Events were lost: the kernel's buffer overflowed. Everything must be read again."""


class Events:
    """The feed of link, tc and address changes in the caller's network namespace.

    And of routes that go, when asked for: a router's host may change thousands a second.

    Whoever holds a tap can change its offloads 77,000 times a second. So an interface that makes
    too many events is muted: the kernel drops what it makes, but for the news that it is gone.
    At the end of the interval it is asked for once, and the answer is an event like others.

    What was changed over the socket with the port ``own`` is no news, but for links: of these the
    kernel says by whom they are made and deleted, and not by whom they are changed.
    """

    def __init__(
        self,
        groups: Collection[int] = _GROUPS,
        buffer_bytes: int = 8 << 20,
        *,
        own: int = 0,
    ) -> None:
        self._socket = open_socket(buffer_bytes)
        self._own = own
        if own:
            mute(self._socket, (), own)
        for group in groups:
            self._socket.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_ADD_MEMBERSHIP, group)
        self._follows_routes = False
        self._since = 0.0
        self._made: Counter[int] = Counter()
        """Events of each interface since then, for as long as an interval."""
        self._muted: dict[int, float] = {}

    def follow_routes(self, wanted: bool) -> None:
        if wanted != self._follows_routes:
            option = uapi.NETLINK_ADD_MEMBERSHIP if wanted else uapi.NETLINK_DROP_MEMBERSHIP
            for group in _ROUTE_GROUPS:
                self._socket.setsockopt(uapi.SOL_NETLINK, option, group)
            self._follows_routes = wanted

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    @property
    def due(self) -> float | None:
        """When ``drain`` has more to tell (``time.monotonic``), also if nothing can be read."""
        return min(self._muted.values(), default=None)

    def is_due(self) -> bool:
        return self.due is not None and self.due <= time.monotonic()

    def drain(self) -> list[Event]:
        """What is waiting to be read; of each interface only the last, until it is gone.

        Raises:
            OverrunError: events were lost since the last call.
        """
        self._unmute()
        waiting: dict[tuple[int, int], bytes] = {}
        times_gone: Counter[int] = Counter()
        overrun: OSError | None = None
        while True:
            try:
                data, start = self._socket.recv(RECV_SIZE), 0
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                overrun = error  # what is left is read, so that who makes it is muted
                continue
            while start < len(data):
                length, kind, *_ = HEADER.unpack_from(data, start)
                message = data[start : start + length]
                start += (length + 3) & ~3
                for ifindex in self._wanted(kind, message):
                    key = (ifindex, times_gone[ifindex])
                    if kind in _OF_LINKS and message[HEADER.size] != _AF_BRIDGE:
                        waiting[key] = message
                        times_gone[ifindex] += kind == uapi.RTM_DELLINK
                    else:
                        waiting.setdefault(key, message)
        if overrun:
            raise OverrunError from overrun
        return [_event(ifindex, message) for (ifindex, _), message in waiting.items()]

    def _wanted(self, kind: int, message: bytes) -> Collection[int]:
        """The interfaces that a message is about, counted, but for one that is muted."""
        if kind == uapi.RTM_DELROUTE:
            return route_interfaces(message)
        if kind in (uapi.RTM_NEWROUTE, uapi.NLMSG_ERROR) or len(message) < INDEX_OFFSET + 4:
            return ()  # an error: who was muted is gone by now; that was told
        (ifindex,) = INDEX.unpack_from(message, INDEX_OFFSET)
        if kind == uapi.RTM_DELLINK:
            self._made.pop(ifindex, None)
            if self._muted.pop(ifindex, None):
                mute(self._socket, self._muted, self._own)
            return (ifindex,)
        if ifindex in self._muted:
            return ()  # it came before the filter
        now = time.monotonic()
        if now - self._since >= _INTERVAL:
            self._since = now
            self._made.clear()
        self._made[ifindex] += 1
        if self._made[ifindex] > _MOST_EVENTS and len(self._muted) < MOST_MUTED:
            self._muted[ifindex] = self._since + _INTERVAL
            mute(self._socket, self._muted, self._own)
        return (ifindex,)

    def _unmute(self) -> None:
        """Asks for those whose time is over as they are now."""
        if not self._muted or not self.is_due():
            return
        now = time.monotonic()
        over = [ifindex for ifindex, due in self._muted.items() if due <= now]
        for ifindex in over:
            del self._muted[ifindex]
        mute(self._socket, self._muted, self._own)
        request = bytearray(get_link_request(GET, (SKIP_STATISTICS,)))
        for ifindex in over:
            INDEX.pack_into(request, INDEX_OFFSET, ifindex)
            self._socket.send(request)


def open_socket(buffer_bytes: int) -> socket.socket:
    """A socket of rtnetlink that receives from no group yet."""
    found = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    )
    try:
        found.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer_bytes)
    except PermissionError:  # in a user namespace; the default buffer overruns sooner
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    found.bind((0, 0))
    return found


def mute(receiver: socket.socket, muted: Collection[int], own: int = 0) -> None:
    """Has the kernel drop what is about these interfaces, but for the news that one is gone.

    And what was changed over the socket with the port ``own``, but for links.
    """
    if muted or own:
        classic_bpf.attach(receiver, _without(muted, own))
    else:
        classic_bpf.detach(receiver)


def _without(muted: Iterable[int], own: int) -> Iterator[Instruction]:
    """Classic BPF reads in network order what netlink writes in that of the host."""
    yield load(LOAD_HALF, _TYPE_OFFSET)
    yield unless_equal(socket.htons(uapi.RTM_DELLINK), skip=1)
    yield give(_TAKE)
    if own:
        yield if_equal(socket.htons(uapi.RTM_NEWLINK), skip=3)
        yield load(LOAD_WORD, _PORT_OFFSET)
        yield unless_equal(socket.htonl(own), skip=1)
        yield give(_DROP)
    yield load(LOAD_WORD, INDEX_OFFSET)
    for ifindex in muted:
        yield unless_equal(socket.htonl(ifindex), skip=1)
        yield give(_DROP)
    yield give(_TAKE)


def route_interfaces(route: bytes) -> list[int]:
    """The interfaces that a route led over."""
    found = attributes_in(route, ROUTE_ATTRIBUTES)
    led_over = [integer(found[uapi.RTA_OIF])] if uapi.RTA_OIF in found else []
    hops = found.get(uapi.RTA_MULTIPATH, b"")
    while len(hops) >= _NEXT_HOP.size:
        length, ifindex = _NEXT_HOP.unpack_from(hops)
        led_over.append(ifindex)
        hops = hops[max(length, _NEXT_HOP.size) :]
    return led_over


def _event(ifindex: int, message: bytes) -> Event:
    _length, kind, *_ = HEADER.unpack_from(message)
    if kind not in _OF_LINKS:
        return Event(ifindex)
    found = _LINK.read(message)
    of_a_port = message[HEADER.size] == _AF_BRIDGE
    nsid, new_ifindex = found.get(uapi.IFLA_NEW_NETNSID), found.get(uapi.IFLA_NEW_IFINDEX)
    far_nsid = found.get(uapi.IFLA_LINK_NETNSID)
    return Event(
        ifindex,
        name=text(found.get(uapi.IFLA_IFNAME, b"")[:-1]),
        gone=kind == uapi.RTM_DELLINK and not of_a_port,
        nsid=None if nsid is None else integer(nsid),
        new_ifindex=None if new_ifindex is None else integer(new_ifindex),
        altnames=texts(found[uapi.IFLA_PROP_LIST]) if uapi.IFLA_PROP_LIST in found else (),
        mac=found.get(uapi.IFLA_ADDRESS, b"").hex(":"),
        message=b"" if of_a_port else message,
        far_nsid=None if far_nsid is None else integer(far_nsid),
    )
