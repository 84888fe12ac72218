"""Small frames as fast as one sender makes them; what counts is what arrives.

The far interface counts, not a socket behind it: a receiver in user space would be the
bottleneck, and the same one for all.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Final, Self

from tests.netns.lab import XDP_DROP, Lab, Station, inside
from tests.netns.test_marks import guest_behind
from tests.netns.traffic import ETH_P_STREAM

from .bare import Source, load_xdp, pinned, source
from .rounds import Effort, Series, interleave
from .wires import Wire, arena, contest, received

_PAYLOAD: Final = bytes(18)
"""With 42 bytes of headers, and the 4 of the checksum on a cable, a frame of 64 bytes."""
_BATCH: Final = 512
_LIVE_BATCH: Final = 16_384
_SIZE: Final = 60
_PORT: Final = 9  # discard


def _rate(send: Callable[[], object], receiver: Station, seconds: float) -> float:
    """Calls ``send`` for a while; returns the millions of frames a second that arrived."""
    before, begin = received(receiver), time.monotonic()
    while (took := time.monotonic() - begin) < seconds:
        send()
    return (received(receiver) - before) / took / 1e6


def udp(effort: Effort) -> list[Series]:
    """64-byte frames from a UDP socket."""

    def sample(sender: Station, receiver: Station) -> float:
        with _Datagrams(sender, receiver) as datagrams:
            return _rate(datagrams.send, receiver, effort.flood)

    rates = contest(effort.floods, sample)
    return [Series("64-byte UDP from a socket", "Mpps", rates, more_is_better=True)]


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """``struct mmsghdr``."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint32),
    )


class _Datagrams:
    """A batch of datagrams in one system call, towards a socket that nobody reads.

    Without that socket the kernel would answer each with an ICMP error.
    """

    def __init__(self, sender: Station, receiver: Station) -> None:
        self._sender, self._unread = (
            inside(station.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for station in (sender, receiver)
        )
        self._unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel's minimum
        self._unread.bind((receiver.address(), _PORT))
        self._sender.connect((receiver.address(), _PORT))
        self._sender.send(_PAYLOAD)  # has the neighbour asked for
        vector = ctypes.pointer(_Vector(_PAYLOAD, len(_PAYLOAD)))
        self._messages = (_Message * _BATCH)()
        for message in self._messages:
            message.vectors, message.vector_count = vector, 1
        self._sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg

    def send(self) -> None:
        if self._sendmmsg(self._sender.fileno(), self._messages, _BATCH, 0) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sender.close()
        self._unread.close()


def guest(effort: Effort) -> list[Series]:
    """64-byte frames that a virtual machine sends into its tap, as QEMU does: one write each.

    Tap and container's interface are joined by ``tc mirred``, as every vrnetlab node does it.
    """
    with arena() as (lab, wires):
        taps = {name: guest_behind(lab, wire.a) for name, wire in wires.items()}

        def sample(name: str, _: int) -> dict[str, float]:
            wire = wires[name]
            send = partial(taps[name].send, _frame(wire.a, wire.b))
            return {"rate": _rate(lambda: [send() for _ in range(_BATCH)], wire.b, effort.flood)}

        figures = interleave(list(wires), effort.floods, sample)
    title = "64-byte frames from a guest behind tap and mirred"
    return [Series(title, "Mpps", figures["rate"], more_is_better=True)]


def live(effort: Effort) -> list[Series]:
    """64-byte frames that enter and end as XDP frames, as between two NICs.

    They come to the host's end of a veth as a NIC hands frames to its driver's XDP program. A
    veth takes them only while it polls, so GRO is on at all host ends, whatever the wire.
    """
    with arena() as (lab, wires), ExitStack() as sources:
        try:
            ways = {name: _ways(lab, wire, sources) for name, wire in wires.items()}
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            print("live: left out, this kernel has no live frames (Linux 5.18)", file=sys.stderr)
            return []

        def sample(name: str, number: int) -> dict[str, float]:
            sender, receiver = wires[name].way(number)
            send = ways[name][number % 2].send
            flood = lambda: _rate(lambda: send(_LIVE_BATCH), receiver, effort.flood)  # noqa: E731
            return {"rate": inside(sender.namespace, flood)}

        figures = interleave(list(wires), effort.floods, sample)
    title = "64-byte XDP frames into an XDP sink"
    return [Series(title, "Mpps", figures["rate"], more_is_better=True)]


def _ways(lab: Lab, wire: Wire, sources: ExitStack) -> list[Source]:
    """Makes both containers sinks; returns the sources of one direction and of the other."""
    stations = (wire.a, wire.b)
    for end in wire.ends:
        lab.run("ethtool", "-K", end, "gro", "on")
    for station in stations:
        sink = pinned(lab, f"sink-{station.end}", load_xdp(XDP_DROP, "sink"))
        station.ip("link", "set", "dev", station.interface, "xdpdrv", "pinned", str(sink))
    return [sources.enter_context(_source(*way)) for way in (stations, stations[::-1])]


def _source(sender: Station, receiver: Station) -> AbstractContextManager[Source]:
    frame = _frame(sender, receiver)
    return source(inside(sender.namespace, lambda: socket.if_nametoindex(sender.interface)), frame)


def _frame(sender: Station, receiver: Station) -> bytes:
    return (receiver.mac + sender.mac + ETH_P_STREAM.to_bytes(2, "big")).ljust(_SIZE, b"\0")
