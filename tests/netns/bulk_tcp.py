"""TCP in bulk, that waits to be cut into segments (GSO), and the fragments that become of it."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Final

from .frames import ether
from .lab import Station, entered, inside
from .traffic import Port, looks

_HOSTS: Final = {4: (b"\x0a\0\0\1", b"\x0a\0\0\2"), 6: (b"\xfd" + bytes(15), b"\xfe" + bytes(15))}
_TCP: Final = 6
_TCP_HEADER: Final = 20
HEADERS: Final = {4: 40, 6: 60}
"""Bytes of IP and TCP without options."""
_VIRTIO_HEADER, _ETHERNET = 10, 14
_SOL_PACKET: Final = 263
_PACKET_AUXDATA: Final = 8
_PACKET_VNET_HDR: Final = 15


def _sum(octets: bytes) -> int:
    """As the Internet's checksum has it, not inverted."""
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    return total % 0xFFFF


def _in_bulk(version: int, data: bytes, segment: int) -> bytes:
    """TCP as a container hands it to its NIC, to be cut and summed up there (a virtio header)."""
    size, hosts = _TCP_HEADER + len(data), b"".join(_HOSTS[version])
    pseudo = _sum(hosts + struct.pack("!II", size, _TCP))
    tcp = struct.pack("!HHIIBBHHH", 4000, 4001, 0, 1, 5 << 4, 0x10, 512, pseudo, 0)
    if version == 4:
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 7, 0x4000, 64, _TCP, 0) + hosts
        ip = ip[:10] + struct.pack("!H", 0xFFFF - _sum(ip)) + ip[12:]
    else:
        ip = struct.pack("!IHBB", 6 << 28, size, _TCP, 64) + hosts
    headers = ether(0x0800 if version == 4 else 0x86DD, ip)
    sizes = len(headers) + len(tcp), segment, len(headers), 16
    return struct.pack("<BBHHHH", 1, 1 if version == 4 else 4, *sizes) + headers + tcp + data


def send_in_bulk(sender: Station, version: int, data: bytes, segment: int) -> None:
    with entered(sender.namespace), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
        out.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        out.bind((sender.interface, 0))
        out.send(_in_bulk(version, data, segment))


def received(version: int, port: Port, size: int) -> tuple[bytes, int]:
    """The data that arrives, in its order, and the length of the longest segment it crossed in.

    The kernel joins segments again, and says how long they were.
    """
    port._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    port._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 0)
    parts: dict[int, bytes] = {}
    longest = 0
    for _ in looks(2.0):
        for told in port.drain():
            tcp = told[_VIRTIO_HEADER + _ETHERNET + HEADERS[version] - _TCP_HEADER :]
            number, parts[number] = int.from_bytes(tcp[4:8], "big"), tcp[_TCP_HEADER:]
            longest = max(longest, int.from_bytes(told[4:6], "little") or len(parts[number]))
        if sum(map(len, parts.values())) >= size:
            break
    return b"".join(parts[number] for number in sorted(parts)), longest


def fragments(namespace: str) -> int:
    """Of the underlay, made in this namespace so far."""
    told = inside(namespace, lambda: Path("/proc/thread-self/net/snmp").read_text())
    names, values = [line.split() for line in told.splitlines() if line.startswith("Ip:")]
    told = inside(namespace, lambda: Path("/proc/thread-self/net/snmp6").read_text())
    v6 = dict(line.split() for line in told.splitlines())["Ip6FragCreates"]
    return int(values[names.index("FragCreates")]) + int(v6)
