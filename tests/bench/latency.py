"""Round trips of small datagrams."""

from __future__ import annotations

import socket
import statistics
import struct
import time
from typing import Final

from tests.netns.lab import Station, inside

from .rounds import Effort, Series
from .wires import contest

_TIMEOUT: Final = struct.pack("ll", 2, 0)
_PING: Final = bytes(18)


def round_trip(effort: Effort) -> list[Series]:
    """There and back with both sockets in one thread: the wire, and not the scheduler.

    On veth a frame is at the other end by the time ``send`` returns, or a soft interrupt later.
    """
    times = contest(effort.floods, lambda here, there: _median(here, there, effort.pings))
    return [Series("Round trip of a 64-byte datagram", "µs", times)]


def _median(here: Station, there: Station, count: int) -> float:
    with _socket(here) as ours, _socket(there) as theirs:
        ours.connect((there.address(), theirs.getsockname()[1]))
        theirs.connect((here.address(), ours.getsockname()[1]))
        times = [_ping(ours, theirs) for _ in range(count)]
    return statistics.median(times) / 1e3


def _ping(ours: socket.socket, theirs: socket.socket) -> int:
    """Nanoseconds there and back."""
    begin = time.perf_counter_ns()
    ours.send(_PING)
    theirs.send(theirs.recv(64))
    ours.recv(64)
    return time.perf_counter_ns() - begin


def _socket(station: Station) -> socket.socket:
    """The kernel's own timeout: Python's would cost a system call on each receipt."""
    made = inside(station.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
    made.bind((station.address(), 0))
    return made
