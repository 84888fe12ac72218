"""The rtnetlink transport: requests encoded by pyroute2, carried over one plain socket.

It owns sockets and bytes. pyroute2's own calls take 0.5 to 0.8 ms each; a thousand links are ten
thousand requests, and a rewire has 3 ms in all. So pyroute2 encodes every *kind* of request once,
what differs is written into it, and of the answer only attributes that are asked for are decoded.
Every profile of a rewire leads here: its loops call nothing of ours.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from itertools import chain, pairwise
from operator import methodcaller
from typing import Any, Final, NamedTuple

from xconnectd.errors import InterfaceGoneError
from xconnectd.kernel_version import kernel_version
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

SO_RCVBUFFORCE: Final = 33
"""asm/socket.h; Python's socket does not have it."""

TRIES: Final = 3
"""So often a dump is asked for that is interrupted each time."""

RECV_SIZE: Final = 1 << 18

INDEX: Final = struct.Struct("=i")
INDEX_OFFSET: Final = 20
"""ifinfomsg, tcmsg and ifaddrmsg all keep their ifindex four bytes behind the header."""
HEADER: Final = struct.Struct("=IHHII")
_FLAGS: Final = struct.Struct("=H")
_FLAGS_OFFSET: Final = 6
_SEQUENCE: Final = struct.Struct("=I")
_SEQUENCE_OFFSET: Final = 8
_ATTRIBUTE: Final = struct.Struct("=HH")
_IFINFOMSG: Final = 16
"""Bytes of struct ifinfomsg."""

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

_LAST_SEQUENCE: Final = 0x7FFFFFFF
_TOGETHER: Final = 64
"""So many requests at most are sent in one go, and made between two calls of ``alive``: they may
wait for other users' lock. All their answers fit into the socket's buffer: a refusal takes 1 KiB of
it, an interface 4, a dump 33 (netlink_dump in net/netlink/af_netlink.c)."""
_FEW: Final = 16
"""Up to so many questions are asked one after the other, which costs them less."""
_PART: Final = 256
"""So many messages of a dump are a millisecond's work for who reads them."""
_BUFFER: Final = 4 << 20
_MOST_LAYOUTS: Final = 1024
"""So many layouts a ``Reader`` keeps at most: each is some KiB."""
_NO_ANSWER: Final = (errno.EBUSY, errno.EAGAIN, errno.ENOBUFS)
"""What the kernel says to a question that came while a dump was under way, or had no room."""

Question = tuple[bytes, int | None]
"""A request, and the ifindex that is written into its header; None if it has none to be written."""

_Answer = list[bytes] | None
"""The messages of an answer; None for one that has to be asked for alone."""


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


class qdiscmsg(nlmsg):  # type: ignore[misc]  # noqa: N801
    """With options as bytes: they are C structures, and attributes behind some of them.

    No subclass of ``tcmsg``: pyroute2 makes the map of a class but once, with its subclasses.
    """

    prefix = "TCA_"
    fields = tcmsg.fields
    nla_map = ((1, "TCA_KIND", "asciiz"), (2, "TCA_OPTIONS", "cdata"))


class NetlinkError(OSError):
    """The kernel refused a request; ``strerror`` is its extended-ack text if it gave one."""


class NoDeviceError(NetlinkError, InterfaceGoneError):
    """It did so with ENODEV: the interface is gone."""


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


link_request = partial(encode, ifinfmsg)
tc_request = partial(encode, tcmsg)
qdisc_request = partial(encode, qdiscmsg)


SKIP_STATISTICS: Final = (
    "IFLA_EXT_MASK",
    uapi.RTEXT_FILTER_SKIP_STATS if kernel_version() >= (6, 1) else 0,
)
"""They are a third of a link message, and nobody asks for them. Linux 5.10 leaves out the address
generation mode, too, which stands behind those of IPv6 (inet6_fill_ifla6_attrs()); 6.1 does not."""

get_link_request = partial(link_request, uapi.RTM_GETLINK)


def address_request() -> bytes:
    return encode(ifaddrmsg, uapi.RTM_GETADDR, DUMP)


def route_request(family: int, ifindex: int | None = None) -> bytes:
    """The routes of a family that lead over an interface, or all.

    A dump of all families at once, with RTA_OIF, ends after those of IPv4 if there are any (seen
    on Linux 6.18).
    """
    if ifindex is None:
        return encode(rtmsg, uapi.RTM_GETROUTE, DUMP, family=family)
    attributes = (("RTA_OIF", 0),)
    request = bytearray(encode(rtmsg, uapi.RTM_GETROUTE, DUMP, attributes, family=family))
    INDEX.pack_into(request, ROUTE_ATTRIBUTES + _ATTRIBUTE.size, ifindex)
    return bytes(request)


def neighbour_request(ifindex: int) -> bytes:
    with without_init("pyroute2"):
        from pyroute2.netlink.rtnl.ndmsg import ndmsg
    return encode(ndmsg, uapi.RTM_GETNEIGH, DUMP, (("NDA_IFINDEX", ifindex),))


def deletion(message: bytes, kind: int) -> bytes:
    """A message of a dump, sent back to delete what it is about, as ``ip … flush`` does."""
    return HEADER.pack(len(message), kind, DO, 0, 0) + message[HEADER.size :]


def stats_request() -> bytes:
    """The counters of every interface."""
    with without_init("pyroute2"):
        from pyroute2.netlink.rtnl.ifstatsmsg import ifstatsmsg
    return encode(ifstatsmsg, uapi.RTM_GETSTATS, DUMP, filter_mask=uapi.IFLA_STATS_LINK_64)


def nsid_request(how: int, attributes: tuple[Any, ...] = (), kind: int = uapi.RTM_GETNSID) -> bytes:
    return encode(nsidmsg, kind, how, attributes)


def veth_request(here: Mapping[int, bytes], there: Mapping[int, bytes]) -> bytes:
    """For a new veth: attributes of either end by their numbers.

    No two are alike, so nothing is gained by encoding it once.
    """
    peer = _nested(uapi.VETH_INFO_PEER, bytes(_IFINFOMSG) + _packed(there))
    return _creation(b"veth", here, peer)


def vxlan_request(here: Mapping[int, bytes], tunnel: Mapping[int, bytes]) -> bytes:
    """For a new VXLAN device: attributes of the device, and of its kind, by their numbers."""
    return _creation(b"vxlan", here, _packed(tunnel))


def _creation(kind: bytes, here: Mapping[int, bytes], data: bytes) -> bytes:
    of_kind = _nested(uapi.IFLA_INFO_DATA, data)
    info = _nested(uapi.IFLA_LINKINFO, _packed({uapi.IFLA_INFO_KIND: kind}) + of_kind)
    body = bytes(_IFINFOMSG) + _packed(here) + info
    return HEADER.pack(HEADER.size + len(body), uapi.RTM_NEWLINK, CREATE, 0, 0) + body


def joined(requests: Iterable[bytes]) -> bytes:
    """One request about a link with the attributes of all of these."""
    first, *others = requests
    if not others:
        return first
    body = first[HEADER.size :] + b"".join([each[LINK_ATTRIBUTES:] for each in others])
    _length, kind, how, *_ = HEADER.unpack_from(first)
    return HEADER.pack(HEADER.size + len(body), kind, how, 0, 0) + body


def with_name(request: bytes, name: str) -> bytes:
    """A request about a link, for the one that has this name."""
    body = request[HEADER.size :] + _nested(uapi.IFLA_IFNAME, raw(name) + b"\0")
    _length, kind, how, *_ = HEADER.unpack_from(request)
    return HEADER.pack(HEADER.size + len(body), kind, how, 0, 0) + body


def _packed(attributes: Mapping[int, bytes]) -> bytes:
    return b"".join([_nested(number, value) for number, value in attributes.items()])


def _nested(number: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, number) + value + bytes(-length % 4)


def within(*numbers: int) -> int:
    """The key by which ``attributes_in`` gives an attribute that is in the nests before it."""
    key = 0
    for number in numbers:
        key = key << 16 | number
    return key


def attribute(number: int, value: bytes) -> bytes:
    """One attribute, padded, for options that are bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), number) + value + bytes(-len(value) % 4)


def attributes_in(data: bytes, start: int = 0, nests: Collection[int] = ()) -> dict[int, bytes]:
    """The value of each attribute of ``data`` from ``start`` by its number; the last of several.

    In place of each of ``nests`` stands what is in it, by the key that ``within`` makes.
    """
    found: dict[int, bytes] = {}
    unpack, mask = _ATTRIBUTE.unpack_from, uapi.NLA_TYPE_MASK
    pending = [(0, start, len(data))]
    for nest, begin, end in pending:
        at = begin
        while at + 4 <= end:
            length, number = unpack(data, at)
            if length < 4:
                break
            key = nest | number & mask
            if key in nests:
                pending.append((key << 16, at + 4, at + length))
            else:
                found[key] = data[at + 4 : at + length]
            at += (length + 3) & ~3
    return found


class Reader:
    """Reads the same few attributes of many messages, some ten times as fast as ``attributes_in``.

    Most messages of a dump have the same attributes of the same lengths. So where the wanted ones
    stand is kept for each layout that was seen. A layout is that of a message if all its headers
    are: from the first on each says where the next one is.
    """

    def __init__(self, start: int, *wanted: int) -> None:
        """``start`` is where attributes begin, ``wanted`` are numbers, or keys by ``within``."""
        self._start = start
        self._wanted = frozenset(wanted)
        self._nests = frozenset(chain.from_iterable(map(_nests_of, wanted)))
        self._layouts: dict[tuple[int, bytes], _Layout] = {}

    def read(self, message: bytes) -> dict[int, bytes]:
        """The values of those of the wanted attributes that it has; the last of several."""
        start = self._start
        guess = len(message), message[start : start + _ATTRIBUTE.size]
        layout = self._layouts.get(guess)
        if layout is None or layout.headers.unpack_from(message, start) != layout.expected:
            layout = self._layout(message)
            if len(self._layouts) >= _MOST_LAYOUTS:
                self._layouts.clear()
            self._layouts[guess] = layout
        found = {}
        for key, begin, end in layout.places:
            found[key] = message[begin:end]
        return found

    def _layout(self, message: bytes) -> _Layout:
        headers, places = set(), []
        pending = [(0, self._start, len(message))]
        for nest, begin, end in pending:
            at = begin
            while at + 4 <= end:
                length, number = _ATTRIBUTE.unpack_from(message, at)
                headers.add(at)
                if length < 4:
                    break
                key = nest | number & uapi.NLA_TYPE_MASK
                if key in self._nests:
                    pending.append((key << 16, at + 4, at + length))
                elif key in self._wanted:
                    places.append((key, at + 4, at + length))
                at += (length + 3) & ~3
        gaps = [b - a - 4 for a, b in pairwise((self._start - 4, *sorted(headers)))]
        found = struct.Struct("=" + "".join([f"{gap}xI" for gap in gaps]))
        return _Layout(found, found.unpack_from(message, self._start), places)


class _Layout(NamedTuple):
    """Where attributes stand in a message: their headers, as they are, and the wanted values."""

    headers: struct.Struct
    expected: tuple[int, ...]
    places: list[tuple[int, int, int]]


def _nests_of(key: int) -> Iterator[int]:
    """The keys of the nests that an attribute is in."""
    while key := key >> 16:
        yield key


def first_in(data: bytes, start: int, wanted: int) -> bytes:
    """The value of the first attribute of this number; empty if there is none.

    Of one that stands near the beginning it is the quickest way to know.
    """
    at, unpack = start, _ATTRIBUTE.unpack_from
    while at + 4 <= len(data):
        length, number = unpack(data, at)
        if number & uapi.NLA_TYPE_MASK == wanted:
            return data[at + 4 : at + length]
        if length < 4:
            break
        at += (length + 3) & ~3
    return b""


class Route:
    """One NETLINK_ROUTE socket in the caller's network namespace, for requests and answers.

    ``alive`` is called now and then: to ask about some thousand interfaces takes seconds.
    """

    def __init__(self, alive: Callable[[], None] = lambda: None) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        with suppress(PermissionError):  # what does not fit then is asked for alone
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER)
        self._socket.bind((0, 0))
        for option in (uapi.NETLINK_EXT_ACK, uapi.NETLINK_CAP_ACK, uapi.NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(uapi.SOL_NETLINK, option, 1)
        self._sequence = 0
        self._alive = alive

    @property
    def port(self) -> int:
        """Which stands in what the kernel tells everybody of a change that was made over this."""
        port: int = self._socket.getsockname()[0]
        return port

    def close(self) -> None:
        self._socket.close()

    def ask(self, request: bytes, ifindex: int | None = None) -> list[bytes]:
        """The messages that a request is answered with. Raises NetlinkError."""
        (answer,) = self.ask_each([(request, ifindex)])
        return answer

    def ask_each(
        self, questions: Sequence[Question], unless: Collection[int] = ()
    ) -> list[list[bytes]]:
        """The answer to each question; one that is refused with an errno of ``unless`` has none.

        Many are asked together. A dump that the kernel marks as interrupted by a change
        (NLM_F_DUMP_INTR) is asked for again, some times at most: while changes do not end no dump
        is free of them, and the last one counts.

        Raises:
            NetlinkError: the kernel refused; NoDeviceError where an interface is gone.
        """
        if len(questions) > _FEW:
            return self._ask_together(questions, unless)
        answers = []
        for request, ifindex in questions:
            answer: list[bytes] = []
            for _ in range(TRIES):
                try:
                    answer, interrupted = self.exchange(request, ifindex)
                except NetlinkError as error:
                    if error.errno not in unless:
                        raise
                    answer, interrupted = [], False
                if not interrupted:
                    break
            answers.append(answer)
        return answers

    def _ask_together(
        self, questions: Sequence[Question], unless: Collection[int]
    ) -> list[list[bytes]]:
        answers: list[list[bytes]] = []
        size = _TOGETHER
        while some := questions[len(answers) : len(answers) + size]:
            if len(some) <= _FEW:
                answers += self.ask_each(some, unless)
                continue
            found = self._answers(self._send(some), len(some), unless)
            if found.count(None) > len(some) // 2:  # dumps that have something to tell
                size = _FEW
            for question, answer in zip(some, found, strict=True):
                answers.append(self.ask_each([question], unless)[0] if answer is None else answer)
        return answers

    def dump_in_parts(self, request: bytes) -> Iterator[list[bytes]]:
        """What a dump is answered with, some messages at a time; once more if it is interrupted.

        Nothing else can be asked before its end. Raises NetlinkError.
        """
        for _ in range(TRIES):
            interrupted, some = False, []
            for _number, kind, flags, message in self._received(self._send([(request, None)]), 1):
                interrupted = interrupted or bool(flags & uapi.NLM_F_DUMP_INTR)
                if kind == uapi.NLMSG_ERROR:
                    raise _refusal(message, flags)
                if kind != uapi.NLMSG_DONE:
                    some.append(message)
                if len(some) == _PART:
                    yield some
                    some = []
            yield some
            if not interrupted:
                return

    def do_each(self, changes: Sequence[Question]) -> dict[int, NetlinkError]:
        """Makes changes in their order; what the kernel refused, by the numbers of those.

        They are sent together, and what becomes of one does not matter to the next. Where the
        kernel's word on some is lost, they count as refused (ENOBUFS).
        """
        refused: dict[int, NetlinkError] = {}
        for start in range(0, len(changes), _TOGETHER):
            some = changes[start : start + _TOGETHER]
            for number, error in self._refusals(self._send(some, quietly=True), len(some)).items():
                refused[start + number] = error
        return refused

    def _send(self, questions: Sequence[Question], *, quietly: bool = False) -> int:
        """Sends these, the answers of which are there when it returns; the number of the first.

        ``quietly``: of those that succeed only the last is acknowledged.
        """
        first = self._sequence + 1 if self._sequence + len(questions) < _LAST_SEQUENCE else 1
        if first // _TOGETHER != (first + len(questions)) // _TOGETHER:
            self._alive()
        buffer, at, flags = bytearray(), 0, 0
        for sequence, (request, ifindex) in enumerate(questions, first):
            at = len(buffer)
            buffer += request
            _SEQUENCE.pack_into(buffer, at + _SEQUENCE_OFFSET, sequence)
            if ifindex is not None:
                INDEX.pack_into(buffer, at + INDEX_OFFSET, ifindex)
            if quietly:
                (flags,) = _FLAGS.unpack_from(request, _FLAGS_OFFSET)
                _FLAGS.pack_into(buffer, at + _FLAGS_OFFSET, flags & ~uapi.NLM_F_ACK)
            buffer += bytes(-len(buffer) % 4)
        if quietly:
            _FLAGS.pack_into(buffer, at + _FLAGS_OFFSET, flags)
        self._sequence = first + len(questions) - 1
        self._socket.send(buffer)
        return first

    def _received(self, first: int, count: int) -> Iterator[tuple[int, int, int, bytes]]:
        """What waits to be read of ``count`` requests: its number from 0, kind, flags, message.

        The kernel has answered all of them when they are sent. What it had no room for is lost.
        """
        while True:
            try:
                data, start = self._socket.recv(RECV_SIZE, socket.MSG_DONTWAIT), 0
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            while start < len(data):
                length, kind, flags, sequence, _pid = HEADER.unpack_from(data, start)
                if 0 <= sequence - first < count:
                    yield sequence - first, kind, flags, data[start : start + length]
                start += (length + 3) & ~3

    def _answers(self, first: int, count: int, unless: Collection[int]) -> list[_Answer]:
        """Of each request of a batch, None for one that has to be asked for alone.

        That is one whose dump was interrupted, or did not end at once: then the kernel refuses the
        dumps behind it (EBUSY). And one whose answer was lost.
        """
        answers: list[list[bytes]] = [[] for _ in range(count)]
        whole: set[int] = set()
        interrupted: set[int] = set()
        refusals: list[NetlinkError] = []
        for number, kind, flags, message in self._received(first, count):
            if kind == uapi.NLMSG_ERROR and INDEX.unpack_from(message, HEADER.size)[0]:
                refusals.append(refusal := _refusal(message, flags))
                if refusal.errno not in _NO_ANSWER:
                    whole.add(number)
            elif kind in (uapi.NLMSG_ERROR, uapi.NLMSG_DONE):
                whole.add(number)
            else:
                answers[number].append(message)
                if not flags & uapi.NLM_F_MULTI:
                    whole.add(number)
            if flags & uapi.NLM_F_DUMP_INTR:
                interrupted.add(number)
        expected = (*unless, *_NO_ANSWER)
        for each in refusals:
            if each.errno not in expected:
                raise each
        whole -= interrupted
        return [answer if number in whole else None for number, answer in enumerate(answers)]

    def _refusals(self, first: int, count: int) -> dict[int, NetlinkError]:
        refused: dict[int, NetlinkError] = {}
        acknowledged = False
        for number, kind, flags, message in self._received(first, count):
            if kind == uapi.NLMSG_ERROR and INDEX.unpack_from(message, HEADER.size)[0]:
                refused[number] = _refusal(message, flags)
            acknowledged = acknowledged or number == count - 1
        if not acknowledged:  # what there was no room for was a refusal, of whichever
            lost = NetlinkError(errno.ENOBUFS, "the kernel's answer was lost")
            return {number: refused.get(number, lost) for number in range(count)}
        return refused

    def exchange(self, request: bytes, ifindex: int | None = None) -> tuple[list[bytes], bool]:
        """One request, once: the answer, and whether the kernel marks it as interrupted."""
        self._sequence = sequence = (self._sequence + 1) & _LAST_SEQUENCE
        if sequence % _TOGETHER == 0:
            self._alive()
        buffer = bytearray(request)
        _SEQUENCE.pack_into(buffer, _SEQUENCE_OFFSET, sequence)
        if ifindex is not None:
            INDEX.pack_into(buffer, INDEX_OFFSET, ifindex)
        self._socket.send(buffer)
        answer: list[bytes] = []
        interrupted = False
        while True:
            data, start = self._socket.recv(RECV_SIZE), 0
            while start < len(data):
                length, kind, flags, number, _pid = HEADER.unpack_from(data, start)
                message = data[start : start + length]
                start += (length + 3) & ~3
                if number != sequence:
                    continue  # left over from a request that was interrupted by a signal
                interrupted = interrupted or bool(flags & uapi.NLM_F_DUMP_INTR)
                if kind == uapi.NLMSG_ERROR and INDEX.unpack_from(message, HEADER.size)[0]:
                    raise _refusal(message, flags)
                if kind not in (uapi.NLMSG_ERROR, uapi.NLMSG_DONE):
                    answer.append(message)
                    if flags & uapi.NLM_F_MULTI:
                        continue
                return answer, interrupted


def _refusal(message: bytes, flags: int) -> NetlinkError:
    code = -INDEX.unpack_from(message, HEADER.size)[0]
    reason = b""
    if flags & uapi.NLM_F_ACK_TLVS:
        reason = attributes_in(message, _ERROR_ATTRIBUTES).get(uapi.NLMSGERR_ATTR_MSG, b"")
    kind = NoDeviceError if code == errno.ENODEV else NetlinkError
    return kind(code, reason.rstrip(b"\0").decode(errors="replace") or os.strerror(code))


# --------------------------------------------------------------------------- values


def ifindex_of(message: bytes) -> int:
    """Of a link, tc or address message."""
    ifindex: int = INDEX.unpack_from(message, INDEX_OFFSET)[0]
    return ifindex


text: Final[Callable[[bytes], str]] = methodcaller("decode", "utf-8", "surrogateescape")
"""Of a string, to be given without the NUL it ends with; names are bytes and need not be UTF-8."""


def texts(nest: bytes) -> tuple[str, ...]:
    """The strings of a nest, as of IFLA_PROP_LIST (altnames)."""
    found, at = [], 0
    while at < len(nest):
        length, _ = _ATTRIBUTE.unpack_from(nest, at)
        found.append(text(nest[at + _ATTRIBUTE.size : at + length - 1]))
        at += (length + 3) & ~3
    return tuple(found)


def raw(name: str) -> bytes:
    """The bytes that ``text`` made this of."""
    return name.encode(errors="surrogateescape")


integer: Final[Callable[[bytes], int]] = partial(int.from_bytes, byteorder=sys.byteorder)
"""Of an attribute of 1, 2, 4 or 8 bytes in host order, signed or not: ifindexes fit both. An empty
one, in place of one that is not there, is 0."""
