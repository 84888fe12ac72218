"""The packet socket that a link test sends and receives by (packet(7))."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, Self

from xconnectd import classic_bpf
from xconnectd.classic_bpf import LOAD_HALF, give, load, unless_equal
from xconnectd.diagnostics import test_frames

_ETH_P_ALL: Final = 3
_SOL_PACKET: Final = 263
_PACKET_QDISC_BYPASS: Final = 20
_PACKET_IGNORE_OUTGOING: Final = 23
_SO_TIMESTAMPNS: Final = 35
_ROOM: Final = 1 << 17
_TIMESPEC: Final = struct.Struct("@ll")
_TEST_FRAMES: Final = (
    load(LOAD_HALF, 12),
    unless_equal(test_frames.ETHERTYPE, skip=1),
    give(_ROOM),
    give(0),
)
"""Other frames are not even copied to us."""


class PacketSocket:
    """One on an interface, in the network namespace that it is made in.

    Raises:
        OSError: it may not be made (CAP_NET_RAW there), or there is no such interface.
    """

    def __init__(self, interface: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            classic_bpf.attach(self._socket, _TEST_FRAMES)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
            self._socket.bind((interface, _ETH_P_ALL))
        except BaseException:
            self.close()
            raise

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def drain(self) -> Iterator[tuple[bytes, float]]:
        """Every frame that has arrived, with its time in seconds since the epoch."""
        with suppress(BlockingIOError):
            while True:
                try:
                    yield self._receive()
                except OSError as error:
                    if error.errno != errno.ENETDOWN:  # told once, of an interface that is down
                        raise

    def _receive(self) -> tuple[bytes, float]:
        space = socket.CMSG_SPACE(_TIMESPEC.size)
        frame, ancillary, _, _ = self._socket.recvmsg(_ROOM, space, socket.MSG_DONTWAIT)
        for _, kind, data in ancillary:
            if kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(data)
                return frame, seconds + nanoseconds / 1e9
        return frame, now()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def now() -> float:
    """On the clock of the kernel's receive times."""
    return time.clock_gettime(time.CLOCK_REALTIME)
