"""Odd frames: what bridges eat, what parsers stumble over, and what hosts would answer."""

from __future__ import annotations

import random
import socket
import struct
from typing import Final

SENDER: Final = bytes.fromhex("02000000aa01")
OTHER: Final = bytes.fromhex("02000000bb02")
BROADCAST: Final = b"\xff" * 6


def ether(kind: int, payload: bytes = b"", to: bytes = OTHER, source: bytes = SENDER) -> bytes:
    """An Ethernet frame; ``kind`` is the ethertype, or the length of an LLC frame."""
    return to + source + kind.to_bytes(2, "big") + payload


def noise(size: int) -> bytes:
    """Bytes that are always the same for a size, and like nothing else."""
    return random.Random(size).randbytes(size)


LLDP: Final = ether(
    0x88CC,
    b"\x02\x07\x04" + SENDER  # chassis: a MAC address
    + b"\x04\x05\x05eth1\x06\x02\0\x78"  # port eth1, for 120 s
    + b"\x0a\x05leaf1\0\0",
    bytes.fromhex("0180c200000e"),
)  # fmt: skip
"""A neighbour that calls itself leaf1."""


def odd_frames(mtu: int = 1500) -> dict[str, bytes]:
    """A frame of every odd kind, by name."""
    return {**_link_local(), **_tagged(), **_sizes(mtu), **_addresses(), **_layer3(), **_rest()}


def _multicast(last: int) -> bytes:
    """One of the addresses that a bridge never forwards."""
    return bytes.fromhex("0180c20000") + bytes([last])


def _llc(payload: bytes, to: bytes) -> bytes:
    return ether(len(payload), payload, to)


def _link_local() -> dict[str, bytes]:
    return {
        "lldp": ether(0x88CC, noise(60), _multicast(0x0E)),
        "lldp to the nearest bridge": ether(0x88CC, noise(61), _multicast(0x00)),
        "lacp": ether(0x8809, b"\x01\x01" + noise(108), _multicast(0x02)),
        "oam": ether(0x8809, b"\x03" + noise(45), _multicast(0x02)),
        "stp": _llc(b"\x42\x42\x03" + noise(35), _multicast(0x00)),
        "802.1x": ether(0x888E, b"\x01\x01\0\0" + bytes(42), _multicast(0x03)),
        "pause": ether(0x8808, b"\0\x01\xff\xff" + bytes(42), _multicast(0x01)),
        "ptp": ether(0x88F7, noise(44) + bytes(2), _multicast(0x0E)),
        "ptp forwardable": ether(0x88F7, noise(54), bytes.fromhex("011b19000000")),
        "cdp": _llc(b"\xaa\xaa\x03\0\0\x0c\x20\0" + noise(80), bytes.fromhex("01000ccccccc")),
        "cfm": ether(0x8902, noise(75), _multicast(0x35)),
        "is-is": _llc(b"\xfe\xfe\x03" + noise(97), _multicast(0x14)),
        "gvrp": _llc(b"\x42\x42\x03" + noise(50), _multicast(0x21)),
    }


def _tagged() -> dict[str, bytes]:
    tag = b"\x88\xb6" + noise(80)
    return {
        "vlan": ether(0x8100, b"\x00\x05" + tag),
        "vlan with priority and dei": ether(0x8100, b"\xff\xfe" + tag),
        "priority tag": ether(0x8100, b"\xe0\x00" + tag),
        "qinq": ether(0x88A8, b"\x00\x07\x81\x00\x00\x05" + tag),
        "qinq with 0x8100 twice": ether(0x8100, b"\x00\x07\x81\x00\x00\x05" + tag),
        "qinq with 0x9100": ether(0x9100, b"\x00\x07\x81\x00\x00\x05" + tag),
        "mpls": ether(0x8847, b"\x00\x01\x01\x40" + noise(70)),
        "mpls stack": ether(0x8847, b"\x00\x01\x00\x40\x00\x02\x01\x40" + noise(70)),
        "mpls multicast": ether(0x8848, b"\x00\x01\x01\x40" + noise(71)),
        "macsec": ether(0x88E5, b"\x2c\x00\0\0\0\x01" + noise(90)),
    }


def _sizes(mtu: int) -> dict[str, bytes]:
    runts = {f"{size} bytes": ether(0x88B6, noise(size - 14)) for size in (15, 17, 20, 42, 59)}
    lengths = {"60 bytes": 46, "one below mtu": mtu - 1, "mtu": mtu}
    tagged = ether(0x8100, b"\x00\x05\x88\xb6" + noise(mtu))
    return {
        **runts,
        **{name: ether(0x88B6, noise(size)) for name, size in lengths.items()},
        "mtu and a vlan tag": tagged,
        "llc one byte": _llc(b"\x42", OTHER),
    }


def _addresses() -> dict[str, bytes]:
    kind, zero = 0x88B6, bytes(6)
    return {
        "broadcast": ether(kind, noise(50), BROADCAST),
        "multicast": ether(kind, noise(51), bytes.fromhex("01005e7f0001")),
        "from a multicast address": ether(kind, noise(52), source=bytes.fromhex("01005e000001")),
        "from broadcast": ether(kind, noise(53), source=BROADCAST),
        "from and to zero": ether(kind, noise(54), zero, zero),
        "from and to the same": ether(kind, noise(55), SENDER, SENDER),
    }


def _ipv4(payload: bytes, *, checksum: int, options: bytes = b"", total: int = 0) -> bytes:
    words = 5 + len(options) // 4
    head = struct.pack(
        "!BBHHHBBH", 0x40 | words, 0, total or words * 4 + len(payload), 1, 0, 64, 17, checksum
    )
    return head + bytes.fromhex("c6336401c6336402") + options + payload


def _layer3() -> dict[str, bytes]:
    v6 = bytes.fromhex("20010db8" + "0" * 22 + "01" + "20010db8" + "0" * 22 + "02")
    fragment = b"\x11\0\x05\xd9\0\0\0\x07" + noise(120)
    arp = bytes.fromhex("0001080006040001") + SENDER + bytes.fromhex("c6336401000000000000c6336402")
    return {
        "arp": ether(0x0806, arp + bytes(18), BROADCAST),
        "arp probe without an end": ether(0x0806, arp[:20], BROADCAST),
        "ipv4 with a bad checksum": ether(0x0800, _ipv4(noise(40), checksum=0xDEAD)),
        "ipv4 with options": ether(0x0800, _ipv4(noise(40), checksum=1, options=b"\x94\x04\0\0")),
        "ipv4 longer than its frame": ether(0x0800, _ipv4(noise(40), checksum=1, total=900)),
        "ipv4 shorter than its frame": ether(0x0800, _ipv4(noise(40), checksum=1, total=30)),
        "ipv4 of version 9": ether(0x0800, b"\x95" + noise(45)),
        "ipv6 fragment": ether(0x86DD, struct.pack("!IHBB", 6 << 28, 128, 44, 1) + v6 + fragment),
        "ipv6 with no next header": ether(0x86DD, struct.pack("!IHBB", 6 << 28, 0, 59, 1) + v6),
        "ipv6 router solicitation": ether(
            0x86DD,
            struct.pack("!IHBB", 6 << 28, 8, 58, 255) + v6 + b"\x85\0\xbe\xef\0\0\0\0",
            bytes.fromhex("333300000002"),
        ),
    }


def _rest() -> dict[str, bytes]:
    return {
        "pppoe discovery": ether(0x8863, b"\x11\x09\0\0\0\x04\x01\x01\0\0" + bytes(36), BROADCAST),
        "pppoe session": ether(0x8864, b"\x11\0\0\x01\0\x20\0\x21" + noise(30)),
        "loop": ether(0x9000, b"\0\0\x01\0" + noise(44), SENDER),
        "wake on lan": ether(0x0842, BROADCAST + OTHER * 16, BROADCAST),
        "avtp": ether(0x22F0, noise(46), bytes.fromhex("91e0f0000e80")),
        "ipx over snap": _llc(b"\xaa\xaa\x03\0\0\0\x81\x37" + noise(40), OTHER),
        "raw 802.3": _llc(b"\xff\xff" + noise(40), OTHER),
        "unknown ethertype": ether(0xFFFF, noise(46)),
        "ethertype zero": ether(0x0000, noise(46)),
        "length that is a lie": ether(0x05DC, noise(46)),
    }


ROUTER: Final = socket.inet_pton(socket.AF_INET6, "fe80::aa01")
PREFIX: Final = bytes.fromhex("fd00007700000000") + bytes(8)


def _checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def _icmpv6(body: bytes, group: bytes) -> bytes:
    """From a router's link-local address to a multicast one."""
    body += b"\x01\x01" + SENDER
    pseudo = ROUTER + group + struct.pack("!II", len(body), 58)
    body = body[:2] + _checksum(pseudo + body) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + ROUTER + group
    return ether(0x86DD, head + body, b"\x33\x33" + group[-4:])


def arp_request(target: str) -> bytes:
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    hosts = SENDER + socket.inet_aton("203.0.113.9") + bytes(6) + socket.inet_aton(target)
    return ether(0x0806, (head + hosts).ljust(46, b"\0"), BROADCAST)


def neighbour_solicitation(target: bytes) -> bytes:
    group = bytes.fromhex("ff02" + "0" * 18 + "01ff") + target[-3:]
    return _icmpv6(b"\x87\0\0\0\0\0\0\0" + target, group)


def router_advertisement(lifetime: int = 1800, prefix: int = 2_592_000) -> bytes:
    """As radvd and FRR send it: a default router and a prefix, on link and for addresses."""
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0)
    body += struct.pack("!BBBBIII", 3, 4, 64, 0xC0, prefix, prefix // 2, 0) + PREFIX
    return _icmpv6(body, bytes.fromhex("ff02" + "0" * 26 + "01"))


def datagram(target: str, mac: bytes, port: int = 4711) -> bytes:
    """UDP without a checksum, as IPv4 allows it."""
    body = struct.pack("!HHHH", port, port, 8 + 22, 0) + noise(22)
    hosts = socket.inet_aton("198.51.100.9") + socket.inet_aton(target)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, 17, 0) + hosts
    return ether(0x0800, head[:10] + _checksum(head) + head[12:] + body, mac)


def answers(frames: list[bytes]) -> list[bytes]:
    """ARP replies and neighbour advertisements."""
    return [x for x in frames if x[20:22] == b"\0\x02" or (len(x) > 54 and x[54] == 136)]
