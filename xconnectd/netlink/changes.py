"""Changes to network interfaces: attach and detach programs, change and put back settings.

What the kernel refuses is a ``LinkError``, which names the interface and the action.
"""

from __future__ import annotations

import errno
import socket
from functools import partial
from typing import Any, Final

from xconnectd.errors import LinkError
from xconnectd.model import (
    FILTER_HANDLE,
    FILTER_PRIORITY,
    PROGRAM_NAME,
    Filter,
    Interface,
    Mode,
    Setting,
)
from xconnectd.netlink import uapi
from xconnectd.netlink.host_use import HostUse
from xconnectd.netlink.transport import (
    CLSACT_HANDLE,
    CLSACT_PARENTS,
    CREATE,
    DO,
    REPLACE,
    Route,
    link_request,
    tc_request,
)

_XDP_FLAGS: Final = {
    Mode.GENERIC: uapi.XDP_FLAGS_SKB_MODE,
    Mode.NATIVE: uapi.XDP_FLAGS_DRV_MODE,
}
_ETH_P_ALL: Final = socket.htons(3)

_set = partial(link_request, uapi.RTM_SETLINK, DO)

_GONE_ALREADY: Final = (errno.EADDRNOTAVAIL, errno.ESRCH, errno.ENOENT)
"""Of an address, a route, a neighbour."""


class Changes:
    """Changes interfaces of the network namespace that ``route`` was opened in.

    Every method raises LinkError where the kernel refuses.
    """

    def __init__(self, route: Route, host_use: HostUse) -> None:
        self._route = route
        self._host_use = host_use

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
        self._do(interface, action, _set((("IFLA_XDP", nest),)))

    def change(self, interface: Interface, setting: str, value: int) -> None:
        """Gives a setting (a ``Setting`` or ``feature:NAME``) a value."""
        action = f"set {setting} {value}"
        match setting:
            case Setting.MTU:
                self._do(interface, action, _set((("IFLA_MTU", value),)))
            case Setting.ADDR_GEN_MODE:
                mode = (("AF_INET6", (("IFLA_INET6_ADDR_GEN_MODE", value),)),)
                self._do(interface, action, _set((("IFLA_AF_SPEC", mode),)))
            case Setting.UP | Setting.PROMISCUOUS:
                flag = uapi.IFF_UP if setting == Setting.UP else uapi.IFF_PROMISC
                self._do(interface, action, _set(flags=flag if value else 0, change=flag))
            case Setting.CARRIER:
                self._carrier(interface, action, value)
            case Setting.CLSACT:
                self._clsact(interface, value)
            case _:
                self._feature(interface, setting.partition(":")[2], on=bool(value))

    def _carrier(self, interface: Interface, action: str, value: int) -> None:
        """A tap that nothing has open cannot have one (EPERM); it gets one when it is opened."""
        try:
            self._do(interface, action, _set((("IFLA_CARRIER", value),)))
        except LinkError as error:
            if not value or error.errno != errno.EPERM:
                raise

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

    def add_filter(self, interface: Interface, direction: str, fd: int, *, replacing: bool) -> None:
        """Adds our program to clsact; over one that stands in our place only if ``replacing``."""
        options = (
            ("TCA_BPF_FD", fd),
            ("TCA_BPF_NAME", PROGRAM_NAME),
            ("TCA_BPF_FLAGS", uapi.TCA_BPF_FLAG_ACT_DIRECT),
        )
        request = tc_request(
            uapi.RTM_NEWTFILTER,
            REPLACE if replacing else CREATE,
            (("TCA_KIND", "bpf"), ("TCA_OPTIONS", options)),
            handle=FILTER_HANDLE,
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

    def _do(self, interface: Interface, action: str, request: bytes) -> None:
        try:
            self._route.exchange(request, interface.ifindex)
        except OSError as error:
            raise _refusal(interface, action, error) from error


def _refusal(interface: Interface, action: str, error: OSError) -> LinkError:
    return LinkError(interface.name, action, error.errno or 0, error.strerror or "")
