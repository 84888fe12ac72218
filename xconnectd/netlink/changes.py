"""Changes to network interfaces: attach and detach programs, change and put back settings.

What the kernel refuses is a ``LinkError``, which names the interface and the action.
"""

from __future__ import annotations

import errno
import random
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from shlex import quote
from typing import Any, Final, NamedTuple

from xconnectd.errors import LinkError, NodeGoneError, XconnectError
from xconnectd.model import (
    FILTER_HANDLE,
    FILTER_PRIORITY,
    PROGRAM_NAME,
    FarSetting,
    Filter,
    Interface,
    Made,
    Mode,
    Setting,
    Tunnel,
)
from xconnectd.netlink import netns, uapi
from xconnectd.netlink.host_use import HostUse
from xconnectd.netlink.interfaces import interfaces_in
from xconnectd.netlink.transport import (
    CLSACT_HANDLE,
    CLSACT_PARENTS,
    CREATE,
    DO,
    DUMP,
    LINK_ATTRIBUTES,
    REPLACE,
    SKIP_STATISTICS,
    NetlinkError,
    Route,
    attributes_in,
    get_link_request,
    ifindex_of,
    integer,
    joined,
    link_request,
    raw,
    tc_request,
    veth_request,
    vxlan_request,
)
from xconnectd.shape import Shape

_XDP_FLAGS: Final = {
    Mode.GENERIC: uapi.XDP_FLAGS_SKB_MODE,
    Mode.NATIVE: uapi.XDP_FLAGS_DRV_MODE,
}
_ETH_P_ALL: Final = socket.htons(3)

_NUMBER: Final = struct.Struct("=I")
_DELETE: Final = link_request(uapi.RTM_DELLINK, DO)
_GET_LINKS: Final = get_link_request(DUMP, (SKIP_STATISTICS,))

_TUNNEL_TTL: Final = 64
"""Of the packets in which frames travel (RFC 1700's default), whatever the frames have."""

_set = partial(link_request, uapi.RTM_SETLINK, DO)

_GONE_ALREADY: Final = (errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT)
"""Of an address, a route, a neighbour."""


class _Gathered(NamedTuple):
    """A request that is to be sent with others, of the call of this number.

    ``joins``: it is nothing but an attribute of a link, and may share a message with others.
    ``program``: whether it puts an XDP program on or takes one off; None if it does neither.
    """

    number: int
    interface: Interface
    action: str
    request: bytes
    expected: int | None
    joins: bool
    program: bool | None


class Changes:
    """Changes interfaces of the network namespace that ``route`` was opened in.

    Every method raises LinkError where the kernel refuses.
    """

    def __init__(self, route: Route, host_use: HostUse) -> None:
        self._route = route
        self._host_use = host_use
        self._gathered: list[_Gathered] | None = None
        self._number = 0

    def each(self, calls: Sequence[Callable[[], None]]) -> dict[int, Exception]:
        """Makes many changes, each a call of a method of this; what was refused, by its number.

        What goes over rtnetlink is sent together, in the order of the calls.
        """
        gathered: list[_Gathered] = []
        refused: dict[int, Exception] = {}
        self._gathered = gathered
        try:
            for self._number, call in enumerate(calls):
                try:
                    call()
                except (XconnectError, OSError) as error:
                    refused[self._number] = error
        finally:
            self._gathered = None
        sent = _joined(gathered)
        requests = [
            (joined(each.request for each in some), some[0].interface.ifindex) for some in sent
        ]
        for at, why in self._route.do_each(requests).items():
            for number, refusal in self._apart(sent[at], why):
                refused.setdefault(number, refusal)
        return refused

    def _apart(
        self, sent: Sequence[_Gathered], why: NetlinkError
    ) -> Iterator[tuple[int, Exception]]:
        """Which changes of a refused message are, or were not made after that.

        Of more than one the kernel does not say which it refused, so they are made one by one. What
        is put back is put back also where a program cannot be taken off.
        """
        for at, each in enumerate(sent):
            try:
                if len(sent) == 1:
                    raise why
                self._route.exchange(each.request, each.interface.ifindex)
            except NetlinkError as error:
                if error.errno != each.expected:
                    refusal = _refusal(each.interface, each.action, error)
                    left = sent[at : at + 1] if each.program is False else sent[at:]
                    yield from ((one.number, refusal) for one in left)
                    if each.program is not False:
                        return

    def attach(self, interface: Interface, mode: Mode, fd: int, replacing: int | None) -> None:
        """Puts an XDP program on; with ``replacing`` only over that very program's fd.

        Raises:
            LinkError: refused, also when somebody else's program is there meanwhile.
        """
        guard = uapi.XDP_FLAGS_UPDATE_IF_NOEXIST if replacing is None else uapi.XDP_FLAGS_REPLACE
        self._xdp(interface, f"attach {mode} XDP", fd, _XDP_FLAGS[mode] | guard, replacing)

    def detach(self, interface: Interface, mode: str, fd: int | None) -> None:
        """Takes an XDP program off; with ``fd`` only if it is that very program."""
        flags = _XDP_FLAGS[Mode(mode)] | (0 if fd is None else uapi.XDP_FLAGS_REPLACE)
        self._xdp(interface, f"detach {mode} XDP", -1, flags, fd)

    def _xdp(
        self, interface: Interface, action: str, fd: int, flags: int, expected: int | None
    ) -> None:
        nest: tuple[Any, ...] = (("IFLA_XDP_FD", fd), ("IFLA_XDP_FLAGS", flags))
        if expected is not None:
            nest += (("IFLA_XDP_EXPECTED_FD", expected),)
        request = _set((("IFLA_XDP", nest),))
        self._do(interface, action, request, joins=True, program=fd >= 0)

    def change(self, interface: Interface, setting: str, value: int) -> None:
        """Gives a setting (a ``Setting`` or ``feature:NAME``) a value."""
        action = f"set {setting} {value}"
        match setting:
            case Setting.MTU:
                self._do(interface, action, _set((("IFLA_MTU", value),)), joins=True)
            case Setting.ADDR_GEN_MODE:
                mode = (("AF_INET6", (("IFLA_INET6_ADDR_GEN_MODE", value),)),)
                self._do(interface, action, _set((("IFLA_AF_SPEC", mode),)), joins=True)
            case Setting.UP | Setting.PROMISCUOUS:
                flag = uapi.IFF_UP if setting == Setting.UP else uapi.IFF_PROMISC
                self._do(interface, action, _set(flags=flag if value else 0, change=flag))
            case Setting.CARRIER:
                self._carrier(interface, action, value)
            case Setting.CLSACT:
                self._clsact(interface, value)
            case Setting.ROOT_QDISC:
                self._root_qdisc(interface)
            case _:
                self._feature(interface, setting.partition(":")[2], on=bool(value))

    def _root_qdisc(self, interface: Interface) -> None:
        """Deletes ours; the kernel puts back what it has there by itself."""
        from xconnectd.netlink import qdiscs

        self._do(interface, "delete tbf", qdiscs.removal())

    def impair(self, interface: Interface, shape: Shape) -> None:
        """Gives what stands at its root this shape; what is there of ours keeps its queue."""
        from xconnectd.netlink import qdiscs

        if lacks := qdiscs.lacks_for(shape):
            raise LinkError(interface.name, "impair", errno.EOPNOTSUPP, lacks)
        for step in qdiscs.steps(interface.root, shape):
            try:
                self._do(interface, step.action, step.request)
            except LinkError as error:
                if error.errno != errno.ENOENT:
                    raise
                why = qdiscs.why_not(step.kind)
                raise LinkError(interface.name, step.action, errno.ENOENT, why) from error

    def _carrier(self, interface: Interface, action: str, value: int) -> None:
        """A tap that nothing has open cannot have one (EPERM); it gets one when it is opened."""
        expected = errno.EPERM if value else None
        self._do(interface, action, _set((("IFLA_CARRIER", value),)), expected, joins=True)

    def _clsact(self, interface: Interface, present: int) -> None:
        request = tc_request(
            uapi.RTM_NEWQDISC if present else uapi.RTM_DELQDISC,
            CREATE if present else DO,
            (("TCA_KIND", "clsact"),),
            handle=CLSACT_HANDLE,
            parent=uapi.TC_H_CLSACT,
        )
        self._do(interface, "add clsact" if present else "delete clsact", request)

    def _feature(self, interface: Interface, name: str, *, on: bool) -> None:
        from xconnectd.netlink import ethtool

        try:
            ethtool.change_feature(interface.name, name, on=on)
        except OSError as error:
            raise _refusal(interface, f"set {name} {'on' if on else 'off'}", error) from error

    def add_filter(
        self,
        interface: Interface,
        direction: str,
        fd: int,
        *,
        replacing: bool,
        handle: int = FILTER_HANDLE,
        name: str = PROGRAM_NAME,
    ) -> None:
        """Adds our program to clsact; over one that stands in its place only if ``replacing``."""
        options = (
            ("TCA_BPF_FD", fd),
            ("TCA_BPF_NAME", name),
            ("TCA_BPF_FLAGS", uapi.TCA_BPF_FLAG_ACT_DIRECT),
        )
        request = tc_request(
            uapi.RTM_NEWTFILTER,
            REPLACE if replacing else CREATE,
            (("TCA_KIND", "bpf"), ("TCA_OPTIONS", options)),
            handle=handle,
            parent=CLSACT_PARENTS[direction],
            info=(FILTER_PRIORITY << 16) | _ETH_P_ALL,
        )
        self._do(interface, f"add the tc {direction} filter", request)

    def delete_filter(self, interface: Interface, direction: str, filter_: Filter) -> None:
        request = tc_request(
            uapi.RTM_DELTFILTER,
            DO,
            (("TCA_KIND", filter_.kind),),
            handle=filter_.handle,
            parent=CLSACT_PARENTS[direction],
            info=(filter_.priority << 16) | _ETH_P_ALL,
        )
        self._do(interface, f"delete the tc {direction} filter", request)

    def unlearn(self, interface: Interface) -> None:
        """Deletes what router advertisements made, and what they told of who is on the wire."""
        try:
            deletions = [(each, None) for each in self._host_use.learnt(interface)]
            self._route.ask_each(deletions, unless=_GONE_ALREADY)
        except OSError as error:
            raise _refusal(interface, "remove what a router announced", error) from error

    # ----------------------------------------------------------- what is made for ends elsewhere

    def make_veth(self, made: Made, path: str, far_name: str, far_mac: str) -> None:
        """Makes a veth, both ends down; the far one in the namespace with the file ``path``.

        That needs CAP_NET_ADMIN here and nothing there: a descriptor of the namespace is enough. It
        cannot be made up in the same request (ENOTCONN: it has no peer yet).

        Raises:
            NodeGoneError: there is no such namespace any more.
        """
        mtu = {uapi.IFLA_MTU: _NUMBER.pack(made.mtu)}
        try:
            with netns.opened(path) as file:
                there = {uapi.IFLA_NET_NS_FD: _NUMBER.pack(file)}
                request = veth_request(
                    {**mtu, **_named(made.name, made.mac)},
                    {**mtu, **_named(far_name, far_mac), **there},
                )
                self._do(Interface(0, made.name), f"make the veth to {made.end}", request)
        except OSError as error:
            raise NodeGoneError(f"{path}: {error.strerror}") from error

    def make_tunnel(self, made: Made, tunnel: Tunnel) -> None:
        """Makes a VXLAN device that leads to one address, down.

        Neither bound to an interface nor to an address of this host: the routes say by which way a
        frame goes, each at its time. A frame that is too long for that way is fragmented (``df``
        unset; over IPv6 the kernel does not, and it is lost).

        Raises:
            LinkError: refused, also where the name is taken, or the VNI by another device; that is
                named.
        """
        remote = ip_address(tunnel.remote)
        group = uapi.IFLA_VXLAN_GROUP if remote.version == 4 else uapi.IFLA_VXLAN_GROUP6
        request = vxlan_request(
            {uapi.IFLA_MTU: _NUMBER.pack(made.mtu), **_named(made.name, made.mac)},
            {
                uapi.IFLA_VXLAN_ID: _NUMBER.pack(tunnel.vni),
                group: remote.packed,
                uapi.IFLA_VXLAN_PORT: tunnel.port.to_bytes(2, "big"),
                uapi.IFLA_VXLAN_TTL: bytes((_TUNNEL_TTL,)),
                uapi.IFLA_VXLAN_LEARNING: b"\0",
                uapi.IFLA_VXLAN_DF: b"\0",
            },
        )
        action = f"make the tunnel to {made.end}"
        try:
            self._do(Interface(0, made.name), action, request)
        except LinkError as error:
            if error.errno != errno.EEXIST:
                raise
            words = _in_the_way(interfaces_in(self._route.ask(_GET_LINKS)), tunnel)
            raise LinkError(made.name, action, errno.EEXIST, words or error.reason) from error

    def delete_made(self, interface: Interface) -> None:
        """Deletes an interface, a veth with both ends, unless that is done."""
        self._do(interface, "delete", _DELETE, errno.ENODEV)

    def delete_together(self, made: Sequence[Interface]) -> None:
        """Deletes many at once: each by itself waits some 20 ms for the kernel's readers.

        They get a number of a group (IFLA_GROUP) that nobody else has, and that group is deleted.
        Whatever comes between leaves them as they are, for ``delete_made``.
        """
        group = random.getrandbits(31)
        in_group = _set((("IFLA_GROUP", group),))
        with suppress(NetlinkError):
            for each in made:
                self._route.exchange(in_group, each.ifindex)
            links = self._route.ask(_GET_LINKS)
            found = {ifindex_of(each) for each in links if _group_of(each) == group}
            if found == {each.ifindex for each in made}:
                delete = link_request(uapi.RTM_DELLINK, DO, (("IFLA_GROUP", group),))
                self._route.exchange(delete)

    def set_far(self, path: str, far: Sequence[FarSetting]) -> dict[int, str]:
        """Sets interfaces in the namespace with the file ``path`` up, each with its MTU.

        From inside: from here such a request would *move* an interface (IFLA_TARGET_NETNSID). That
        needs CAP_SYS_ADMIN. Returns what was refused, by the number of the setting; its words are
        empty where namespace or interface are gone meanwhile.
        """

        def work() -> dict[int, str]:
            with closing(Route()) as route:
                return dict(_set_all(route, far))

        try:
            return netns.inside(netns.Namespace(Path(path), ""), work)
        except (FileNotFoundError, InterruptedError):
            words = ""
        except OSError as error:
            words = f"its network namespace cannot be entered: {error.strerror}"
            if error.errno == errno.EPERM:
                words += "; set it up in the node, or give the daemon CAP_SYS_ADMIN (20-nodes.conf)"
        return dict.fromkeys(range(len(far)), words)

    def _do(
        self,
        interface: Interface,
        action: str,
        request: bytes,
        expected: int | None = None,
        *,
        joins: bool = False,
        program: bool | None = None,
    ) -> None:
        """``expected`` is the errno of a refusal that is none."""
        if self._gathered is not None:
            self._gathered.append(
                _Gathered(self._number, interface, action, request, expected, joins, program)
            )
            return
        try:
            self._route.exchange(request, interface.ifindex)
        except OSError as error:
            if error.errno != expected:
                raise _refusal(interface, action, error) from error


def _joined(gathered: Iterable[_Gathered]) -> list[list[_Gathered]]:
    """Those that may be one message: what is changed of an interface, and its XDP program."""
    sent: list[list[_Gathered]] = []
    for each in gathered:
        if sent and _may_join(each, sent[-1]):
            sent[-1].append(each)
        else:
            sent.append([each])
    return sent


def _may_join(each: _Gathered, others: Sequence[_Gathered]) -> bool:
    """One program is put on or taken off in a message; one that is put on is its last."""
    last = others[-1]
    if not (each.joins and last.joins and each.interface is last.interface) or last.program:
        return False
    return each.program is None or all(other.program is None for other in others)


def _set_all(route: Route, far: Iterable[FarSetting]) -> Iterator[tuple[int, str]]:
    for number, each in enumerate(far):
        name = ("IFLA_IFNAME", each.name.encode(errors="surrogateescape"))
        flags = {"flags": uapi.IFF_UP, "change": uapi.IFF_UP} if each.set_up else {}
        try:
            route.exchange(_set((name, ("IFLA_MTU", each.mtu)), **flags))
        except NetlinkError as error:
            words = f"{each.name} cannot be set up or given MTU {each.mtu}: {error.strerror}"
            yield number, "" if error.errno == errno.ENODEV else words


def _in_the_way(found: Iterable[Interface], tunnel: Tunnel) -> str:
    """Which device has this VNI at this port already; empty if none here has.

    The kernel tells them apart by those two, and by the version of IP: vxlan_vni_in_use in
    drivers/net/vxlan/vxlan_core.c.
    """
    for device in found:
        known = device.tunnel
        if known and known[1:] == tunnel[1:] and (":" in known.remote) is (":" in tunnel.remote):
            name = quote(device.name)
            return (
                f"{device.name} has VNI {tunnel.vni} at port {tunnel.port} already; delete it"
                f" (ip link del {name}), or give the link another vni"
            )
    return ""


def _group_of(message: bytes) -> int:
    return integer(attributes_in(message, LINK_ATTRIBUTES).get(uapi.IFLA_GROUP, b""))


def _named(name: str, mac: str) -> dict[int, bytes]:
    return {
        uapi.IFLA_IFNAME: raw(name) + b"\0",
        uapi.IFLA_ADDRESS: bytes.fromhex(mac.replace(":", "")),
    }


def _refusal(interface: Interface, action: str, error: OSError) -> LinkError:
    words = error.strerror or ""
    if error.errno == errno.EADDRINUSE and interface.tunnel:  # a tunnel opens it when it is set up
        port = interface.tunnel.port
        words = f"UDP port {port} is another program's, see: ss -ulnp sport = :{port}"
    return LinkError(interface.name, action, error.errno or 0, words)
