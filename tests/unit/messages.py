"""Messages of rtnetlink, as the kernel writes them."""

from __future__ import annotations

import socket
import struct


def attributes(**values: bytes) -> bytes:
    """Named by their numbers: ``_8=`` is attribute 8."""
    found = b""
    for name, value in values.items():
        length = 4 + len(value)
        found += struct.pack("=HH", length, int(name[1:])) + value + bytes(-length % 4)
    return found


def link(kind: int, ifindex: int, name: str, *, family: int = 0, **more: bytes) -> bytes:
    """A link message of that kind (RTM_NEWLINK, RTM_DELLINK)."""
    body = struct.pack("=BxHiII", family, 1, ifindex, 0, 0)
    body += attributes(_3=name.encode() + b"\0", **more)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def route(destination: str, protocol: int = 2, kind: int = 1) -> bytes:
    net, _, length = destination.partition("/")
    packed = socket.inet_pton(socket.AF_INET6, net)
    head = struct.pack("=BBBBBBBBI", socket.AF_INET6, int(length), 0, 0, 254, protocol, 0, kind, 0)
    return bytes(16) + head + attributes(_1=packed, _4=struct.pack("=i", 5))
