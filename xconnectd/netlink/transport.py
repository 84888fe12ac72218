"""The rtnetlink transport: requests encoded by pyroute2, carried over one plain socket.

It owns sockets and bytes. pyroute2's own calls take 0.5 to 0.8 ms each; a thousand links are ten
thousand requests, and a rewire has 3 ms in all. So pyroute2 encodes every *kind* of request once,
the ifindex is written into it, and of the answer only attributes that are asked for are decoded.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, Final, ParamSpec, TypeVar

from xconnectd.errors import InterfaceGoneError
from xconnectd.lazy_imports import late, without_init
from xconnectd.netlink import uapi

with without_init("pyroute2"), late("multiprocessing"):
    from pyroute2.netlink import nla, nlmsg
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.nsidmsg import nsidmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

GET: Final = 0x1
DO: Final = 0x5
DO_ECHO: Final = 0xD
CREATE: Final = 0x605  # REQUEST | ACK | CREATE | EXCL
REPLACE: Final = 0x505  # REQUEST | ACK | CREATE | REPLACE
DUMP: Final = 0x301

TRIES: Final = 3
"""So often a dump is asked for that is interrupted each time."""

RECV_SIZE: Final = 1 << 18

INDEX: Final = struct.Struct("=i")
INDEX_OFFSET: Final = 20
"""ifinfomsg, tcmsg and ifaddrmsg all keep their ifindex four bytes behind the header."""
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")

# Where the attributes begin: behind struct nlmsghdr and the message's own struct.
LINK_ATTRIBUTES: Final = 32
TC_ATTRIBUTES: Final = 36
ADDRESS_ATTRIBUTES: Final = 24
ROUTE_ATTRIBUTES: Final = 28
NSID_ATTRIBUTES: Final = 20
STATS_ATTRIBUTES: Final = 28
_ERROR_ATTRIBUTES: Final = 36

CLSACT_HANDLE: Final = uapi.TC_H_CLSACT & uapi.TC_H_MAJ_MASK
"""``ffff:``, which is that of ingress too."""
CLSACT_PARENTS: Final = {
    "ingress": CLSACT_HANDLE | uapi.TC_H_MIN_INGRESS,
    "egress": CLSACT_HANDLE | uapi.TC_H_MIN_EGRESS,
}

_P = ParamSpec("_P")
_T = TypeVar("_T")


class tcmsg(nlmsg):  # type: ignore[misc]  # noqa: N801
    """As much of linux/rtnetlink.h and linux/pkt_cls.h as is sent.

    pyroute2's own brings thirty queueing disciplines along, a tenth of the daemon's start.
    """

    prefix = "TCA_"
    fields = (
        ("family", "B"),
        ("pad1", "B"),
        ("pad2", "H"),
        ("index", "i"),
        ("handle", "I"),
        ("parent", "I"),
        ("info", "I"),
    )
    nla_map = ((1, "TCA_KIND", "asciiz"), (2, "TCA_OPTIONS", "bpf"))

    class bpf(nla):  # type: ignore[misc]  # noqa: N801
        nla_map = (
            (6, "TCA_BPF_FD", "uint32"),
            (7, "TCA_BPF_NAME", "asciiz"),
            (8, "TCA_BPF_FLAGS", "uint32"),
        )


class NetlinkError(OSError):
    """The kernel refused a request; ``strerror`` is its extended-ack text if it gave one."""


def may_vanish(question: Callable[_P, _T]) -> Callable[_P, _T]:
    """Has a function that asks several times raise InterfaceGoneError for ENODEV in between."""

    @wraps(question)
    def asked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return question(*args, **kwargs)
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                raise InterfaceGoneError(str(error)) from error
            raise

    return asked


@lru_cache(maxsize=8192)
def encode(
    message: type, kind: int, how: int, attributes: tuple[Any, ...] = (), **fields: int
) -> bytes:
    """One request, encoded by pyroute2. The same arguments are encoded once.

    ``attributes`` are (name, value) pairs; a tuple of pairs as a value nests.
    """
    request = message()
    request["header"]["type"] = kind
    request["header"]["flags"] = how
    for name, value in fields.items():
        request[name] = value
    request["attrs"] = _nest(attributes)
    request.encode()
    return bytes(request.data)


def _nest(attributes: tuple[Any, ...]) -> list[Any]:
    return [
        (name, {"attrs": _nest(value)} if isinstance(value, tuple) else value)
        for name, value in attributes
    ]


def link_request(kind: int, how: int, attributes: tuple[Any, ...] = (), **fields: int) -> bytes:
    return encode(ifinfmsg, kind, how, attributes, **fields)


def tc_request(kind: int, how: int, attributes: tuple[Any, ...] = (), **fields: int) -> bytes:
    return encode(tcmsg, kind, how, attributes, **fields)


def get_link_request(*attributes: tuple[str, Any], how: int = GET) -> bytes:
    """RTM_GETLINK without statistics: a third of the answer that nobody asks for."""
    mask = ("IFLA_EXT_MASK", uapi.RTEXT_FILTER_SKIP_STATS)
    return link_request(uapi.RTM_GETLINK, how, (*attributes, mask))


def address_request() -> bytes:
    return encode(ifaddrmsg, uapi.RTM_GETADDR, DUMP)


def route_request(family: int, ifindex: int) -> bytes:
    return encode(rtmsg, uapi.RTM_GETROUTE, DUMP, (("RTA_OIF", ifindex),), family=family)


def neighbour_request(ifindex: int) -> bytes:
    with without_init("pyroute2"):
        from pyroute2.netlink.rtnl.ndmsg import ndmsg
    return encode(ndmsg, uapi.RTM_GETNEIGH, DUMP, (("NDA_IFINDEX", ifindex),))


def deletion(message: bytes, kind: int) -> bytes:
    """A message of a dump, sent back to delete what it is about, as ``ip … flush`` does."""
    return _HEADER.pack(len(message), kind, DO, 0, 0) + message[_HEADER.size :]


def stats_request() -> bytes:
    """The counters of every interface."""
    with without_init("pyroute2"):
        from pyroute2.netlink.rtnl.ifstatsmsg import ifstatsmsg
    return encode(ifstatsmsg, uapi.RTM_GETSTATS, DUMP, filter_mask=uapi.IFLA_STATS_LINK_64)


def nsid_request(how: int, attributes: tuple[Any, ...] = ()) -> bytes:
    return encode(nsidmsg, uapi.RTM_GETNSID, how, attributes)


def attributes_in(data: bytes, start: int = 0) -> list[tuple[int, bytes]]:
    """Number and value of each attribute of ``data`` from ``start``; numbers may be repeated.

    A loop on the path of every rewire.
    """
    found = []
    unpack, mask, last = _ATTRIBUTE.unpack_from, uapi.NLA_TYPE_MASK, len(data) - 4
    while start <= last:
        length, number = unpack(data, start)
        if length < 4:
            break
        found.append((number & mask, data[start + 4 : start + length]))
        start += (length + 3) & ~3
    return found


class Route:
    """One NETLINK_ROUTE socket in the caller's network namespace, for requests and answers."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        for option in (uapi.NETLINK_EXT_ACK, uapi.NETLINK_CAP_ACK, uapi.NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(uapi.SOL_NETLINK, option, 1)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def ask(self, request: bytes, ifindex: int | None = None) -> list[bytes]:
        """Sends one request and returns the messages it is answered with.

        ``ifindex`` goes into its header. A dump that the kernel marks as interrupted by a change
        (NLM_F_DUMP_INTR) is asked for again, some times at most: while changes do not end no dump
        is free of them, and the last one counts.

        Raises:
            NetlinkError: the kernel refused.
        """
        for _ in range(TRIES - 1):
            answer, interrupted = self.exchange(request, ifindex)
            if not interrupted:
                return answer
        return self.exchange(request, ifindex)[0]

    def exchange(self, request: bytes, ifindex: int | None = None) -> tuple[list[bytes], bool]:
        """As ``ask``, once; tells also whether the kernel marks the answer as interrupted."""
        self._sequence = (self._sequence + 1) & 0x7FFFFFFF
        buffer = bytearray(request)
        struct.pack_into("=I", buffer, 8, self._sequence)
        if ifindex is not None:
            INDEX.pack_into(buffer, INDEX_OFFSET, ifindex)
        self._socket.send(buffer)
        answer: list[bytes] = []
        interrupted = False
        while True:
            for kind, flags, sequence, message in messages(self._socket.recv(RECV_SIZE)):
                if sequence != self._sequence:
                    continue  # left over from a request that was interrupted by a signal
                interrupted = interrupted or bool(flags & uapi.NLM_F_DUMP_INTR)
                if kind == uapi.NLMSG_ERROR:
                    _raise_if_refused(message, flags)
                    return answer, interrupted
                if kind == uapi.NLMSG_DONE:
                    return answer, interrupted
                answer.append(message)
                if not flags & uapi.NLM_F_MULTI:
                    return answer, interrupted


def messages(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Type, flags, sequence number and the whole of each message that was received."""
    found = []
    start = 0
    while start + _HEADER.size <= len(data):
        length, kind, flags, sequence, _pid = _HEADER.unpack_from(data, start)
        found.append((kind, flags, sequence, data[start : start + length]))
        start += (length + 3) & ~3
    return found


def _raise_if_refused(message: bytes, flags: int) -> None:
    code = -INDEX.unpack_from(message, _HEADER.size)[0]
    if not code:
        return
    reason = b""
    if flags & uapi.NLM_F_ACK_TLVS:
        found = dict(attributes_in(message, _ERROR_ATTRIBUTES))
        reason = found.get(uapi.NLMSGERR_ATTR_MSG, b"")
    raise NetlinkError(code, reason.rstrip(b"\0").decode(errors="replace") or os.strerror(code))


# --------------------------------------------------------------------------- values


def ifindex_of(message: bytes) -> int:
    """Of a link, tc or address message."""
    ifindex: int = INDEX.unpack_from(message, INDEX_OFFSET)[0]
    return ifindex


def text(value: bytes) -> str:
    """A NUL-terminated string of the kernel; names are bytes and need not be UTF-8."""
    return value.rstrip(b"\0").decode(errors="surrogateescape")


def texts(nest: bytes) -> tuple[str, ...]:
    """The strings of a nest, as of IFLA_PROP_LIST (altnames)."""
    return tuple([text(value) for _, value in attributes_in(nest)])


def raw(name: str) -> bytes:
    """The bytes that ``text`` made this of."""
    return name.encode(errors="surrogateescape")


def integer(value: bytes | None) -> int | None:
    """A signed or unsigned attribute of 1, 2, 4 or 8 bytes in host order (ifindexes fit both)."""
    return None if value is None else int.from_bytes(value, sys.byteorder)
