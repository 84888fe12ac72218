"""The packet socket for keepalives of all tunnels in this network namespace (packet(7)).

Python's own calls name interfaces, which takes two more system calls a frame and goes wrong when
one is renamed; these go by ifindex, and receive many frames at once (recvmmsg(2)).
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import socket
import struct
from contextlib import suppress
from functools import cache
from typing import Final

from xconnectd import classic_bpf
from xconnectd.classic_bpf import LOAD_BYTE, LOAD_HALF, LOAD_WORD, give, load, unless_equal
from xconnectd.tunnels import keepalive

_SOL_PACKET: Final = 263
_PACKET_QDISC_BYPASS: Final = 20
_SO_RCVBUFFORCE: Final = 33
_ROOM: Final = 1 << 20
"""Bytes, as the kernel counts them: some hundred frames, which come while another thread works."""
_URGENT: Final = 6
"""TC_PRIO_INTERACTIVE: what the underlay's own queue holds back does not go first."""
_LONGEST: Final = 2048
_MANY: Final = 64

_MAGIC: Final = struct.unpack("!II", keepalive.MAGIC)
_FOR_DAEMONS: Final = (
    load(LOAD_HALF, 12),
    unless_equal(keepalive.ETHERTYPE, skip=9),
    load(LOAD_WORD, 14),
    unless_equal(_MAGIC[0], skip=7),
    load(LOAD_WORD, 18),
    unless_equal(_MAGIC[1], skip=5),
    load(LOAD_BYTE, 22),
    unless_equal(keepalive.ECHO, skip=1),
    give(_LONGEST),
    unless_equal(keepalive.MESSAGE, skip=1),
    give(_LONGEST),
    give(0),
)
"""Echoes and messages alone are copied to us."""


class _Address(ct.Structure):
    """struct sockaddr_ll. The protocol is in network order."""

    _fields_ = (
        ("family", ct.c_uint16),
        ("protocol", ct.c_uint16),
        ("ifindex", ct.c_int),
        ("rest", ct.c_uint8 * 12),
    )


class _Iovec(ct.Structure):
    _fields_ = (("base", ct.c_void_p), ("length", ct.c_size_t))


class _Header(ct.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ct.c_void_p),
        ("name_length", ct.c_uint32),
        ("iovec", ct.POINTER(_Iovec)),
        ("iovecs", ct.c_size_t),
        ("control", ct.c_void_p),
        ("control_length", ct.c_size_t),
        ("flags", ct.c_int),
    )


class _Message(ct.Structure):
    """struct mmsghdr."""

    _fields_ = (("header", _Header), ("length", ct.c_uint))


class PacketSocket:
    """What it sends goes past clsact egress, where what a host sends into an end is dropped.

    Raises:
        OSError: it may not be made: EPERM without CAP_NET_RAW.
    """

    def __init__(self) -> None:
        kind, protocol = socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(keepalive.ETHERTYPE)
        self._socket = socket.socket(socket.AF_PACKET, kind, protocol)
        try:
            classic_bpf.attach(self._socket, _FOR_DAEMONS)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, _URGENT)
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
        except BaseException:
            self._socket.close()
            raise
        self._libc = ct.CDLL(None, use_errno=True)
        self._frames = [ct.create_string_buffer(_LONGEST) for _ in range(_MANY)]
        self._senders = [_Address() for _ in range(_MANY)]
        self._iovecs = [_Iovec(ct.addressof(each), _LONGEST) for each in self._frames]
        self._messages = (_Message * _MANY)()
        for i, message in enumerate(self._messages):
            sender, iovec = ct.addressof(self._senders[i]), ct.pointer(self._iovecs[i])
            message.header = _Header(sender, ct.sizeof(_Address), iovec, 1)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, ifindex: int, frame: bytes) -> None:
        """Raises OSError, as the device refuses it: ENXIO when it is gone, ENETDOWN, ENOBUFS."""
        to = _address(ifindex)
        size = ct.sizeof(to)
        if self._libc.sendto(self.fileno(), frame, len(frame), 0, ct.byref(to), size) < 0:
            number = ct.get_errno()
            raise OSError(number, os.strerror(number))

    def drain(self) -> list[tuple[int, bytes]]:
        """All that has come, with the ifindex of where it came in."""
        arrived = []
        while (count := self._receive()) > 0:
            for i in range(count):
                frame = ct.string_at(self._frames[i], min(self._messages[i].length, _LONGEST))
                arrived.append((int(self._senders[i].ifindex), frame))
            if count < _MANY:
                break
        return arrived

    def _receive(self) -> int:
        while (
            count := self._libc.recvmmsg(self.fileno(), self._messages, _MANY, 0, None)
        ) < 0 and ct.get_errno() in (errno.EINTR, errno.ENETDOWN):
            continue  # a device that goes down says so once
        return int(count)

    def close(self) -> None:
        self._socket.close()


@cache
def _address(ifindex: int) -> _Address:
    return _Address(socket.AF_PACKET, socket.htons(keepalive.ETHERTYPE), ifindex)
