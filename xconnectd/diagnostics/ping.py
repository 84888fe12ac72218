"""Whether a host answers at all, for where nothing comes back through a tunnel: ICMP alone.

An echo request is sent. What is received besides is what the host says to packets of others, and
so to keepalives, of which there are some twenty a second: that the port is closed.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import Final, NamedTuple

from xconnectd.diagnostics.facts import Answer

_LISTEN: Final = 1.3
"""Seconds. A host says once a second that a port is closed (icmp_ratelimit)."""
_AGAIN: Final = 0.6
"""Seconds until a second request."""
_HEADER: Final = struct.Struct("!BBHHH")
_PORTS: Final = struct.Struct("!HH")


class _Protocol(NamedTuple):
    """Numbers of RFC 792 or RFC 4443; ``header`` is that of IP, in bytes, where it is told."""

    number: int
    request: int
    reply: int
    closed: tuple[int, int]
    header: int


_V4: Final = _Protocol(socket.IPPROTO_ICMP, 8, 0, (3, 3), 0)
_V6: Final = _Protocol(socket.IPPROTO_ICMPV6, 128, 129, (1, 4), 40)


def ask(address: str, port: int) -> Answer | None:
    """None where this user may not ask, or there is no route."""
    is_v6 = ":" in address
    protocol = _V6 if is_v6 else _V4
    mark = os.urandom(8)
    message = _HEADER.pack(protocol.request, 0, 0, 1, 1) + mark
    if not is_v6:  # of ICMPv6 the kernel makes the checksum
        message = _HEADER.pack(protocol.request, 0, _checksum(message), 1, 1) + mark
    found = Answer.NOTHING
    try:
        with socket.socket(
            socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_RAW, protocol.number
        ) as icmp:
            icmp.connect((address, 0))
            begun, sent = time.monotonic(), 0
            while (passed := time.monotonic() - begun) < _LISTEN:
                if passed >= sent * _AGAIN:
                    icmp.send(message)
                    sent += 1
                icmp.settimeout(0.1)
                try:
                    data = icmp.recv(1024)
                except TimeoutError:
                    continue
                if not is_v6:
                    data = data[(data[0] & 0xF) * 4 :]  # behind the IP header
                if _is_closed(data, protocol, port):
                    return Answer.CLOSED
                if data[0] == protocol.reply and data.endswith(mark):
                    found = Answer.PING
    except OSError:
        return None
    return found


def _is_closed(data: bytes, protocol: _Protocol, port: int) -> bool:
    """Whether a message says so; behind its header is that of the packet that it speaks of."""
    if (data[0], data[1]) != protocol.closed or len(data) < _HEADER.size + 1:
        return False
    packet = data[_HEADER.size :]
    at = protocol.header or (packet[0] & 0xF) * 4
    return len(packet) >= at + _PORTS.size and _PORTS.unpack_from(packet, at)[1] == port


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
