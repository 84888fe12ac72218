"""Whether a host answers at all: an ICMP echo request, for where nothing else comes back."""

from __future__ import annotations

import os
import socket
import struct
import time
from typing import Final

_PATIENCE: Final = 0.5
"""Seconds for each of the requests."""
_TRIES: Final = 2
_HEADER: Final = struct.Struct("!BBHHH")


def answers(address: str) -> bool | None:
    """None where this user may not ask, or there is no route."""
    is_v6 = ":" in address
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    request, reply = (128, 129) if is_v6 else (8, 0)  # RFC 4443, RFC 792
    protocol = socket.IPPROTO_ICMPV6 if is_v6 else socket.IPPROTO_ICMP
    mark = os.urandom(8)
    message = _HEADER.pack(request, 0, 0, 1, 1) + mark
    if not is_v6:  # of ICMPv6 the kernel makes the checksum
        message = _HEADER.pack(request, 0, _checksum(message), 1, 1) + mark
    try:
        with socket.socket(family, socket.SOCK_RAW, protocol) as icmp:
            icmp.connect((address, 0))
            return any(_comes(icmp, message, reply, mark, is_v6=is_v6) for _ in range(_TRIES))
    except OSError:
        return None


def _comes(icmp: socket.socket, message: bytes, reply: int, mark: bytes, *, is_v6: bool) -> bool:
    icmp.send(message)
    deadline = time.monotonic() + _PATIENCE
    while (left := deadline - time.monotonic()) > 0:
        icmp.settimeout(left)
        try:
            data = icmp.recv(256)
        except TimeoutError:
            return False
        start = 0 if is_v6 else (data[0] & 0xF) * 4  # behind the IP header
        if data[start] == reply and data.endswith(mark):
            return True
    return False


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
