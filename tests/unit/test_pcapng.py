"""The file format, against the definition and against tcpdump."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from xconnectd.capture import pcapng

SECTION = pcapng.section("link a:b", hardware="x", system="Linux 6", application="xconnectd 1")
STATISTICS = pcapng.Statistics(1, 2 << 32 | 3, received=9, dropped=4, accepted=5, delivered=5)


def interface(name: str = "va", snaplen: int = 262_144, filter_: str = "") -> bytes:
    return pcapng.interface(name, f"{name} there", snaplen=snaplen, filter_=filter_)


def options(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while (head := struct.unpack_from("<HH", data, at))[0]:
        found[head[0]] = data[at + 4 : at + 4 + head[1]]
        at += 4 + head[1] + -head[1] % 4
    assert at + 4 == len(data)
    return found


def body(block: bytes) -> bytes:
    """Of a block whose length is right, at both its ends."""
    size = len(block)
    assert size % 4 == 0
    assert (
        struct.unpack_from("<I", block, 4) == struct.unpack_from("<I", block, size - 4) == (size,)
    )
    return block[8:-4]


def test_a_section_says_byte_order_version_and_who_made_it() -> None:
    """An interface has a name, a resolution and perhaps a filter."""
    content = body(SECTION)
    assert SECTION[:4] == b"\x0a\x0d\x0d\x0a"
    assert struct.unpack_from("<IHHq", content) == (0x1A2B3C4D, 1, 0, -1)
    texts = {1: b"link a:b", 2: b"x", 3: b"Linux 6", 4: b"xconnectd 1"}
    assert options(content[16:]) == texts
    content = body(interface(snaplen=96, filter_="udp"))
    assert struct.unpack_from("<HHI", content) == (1, 0, 96)
    assert options(content[8:]) == {2: b"va", 3: b"va there", 9: b"\x09", 11: b"\0udp"}
    assert 11 not in options(body(interface())[8:])


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 1500, 65_498])
def test_a_packet_is_padded_timed_and_inbound(size: int) -> None:
    data = bytes(range(256)) * 256
    block = b"".join(pcapng.packet(1, 5 << 32 | 7, data[:size], size + 10))
    content = body(block)
    assert struct.unpack_from("<IIIII", content) == (1, 5, 7, size, size + 10)
    padded = size + -size % 4
    assert content[20 : 20 + padded] == data[:size] + bytes(padded - size)
    assert options(content[20 + padded :]) == {2: b"\x01\0\0\0"}


def test_statistics_hold_the_counts() -> None:
    content = body(pcapng.statistics(1, STATISTICS))
    assert struct.unpack_from("<III", content) == (1, 2, 3)
    counts = {code: struct.pack("<Q", count) for code, count in {4: 9, 5: 4, 6: 5, 8: 5}.items()}
    times = {2: struct.pack("<II", 0, 1), 3: struct.pack("<II", 2, 3)}
    assert options(content[12:]) == times | counts


def test_tcpdump_reads_it(tmp_path: Path) -> None:
    """Two interfaces, a frame cut short, statistics in the middle and at the end."""
    frame = bytes.fromhex(
        "ffffffffffff020000000001080600010800060400010200000000010a000001"
    ) + bytes(10)
    when = 1_700_000_000_123_456_789
    parts = (
        SECTION,
        interface("va"),
        interface("vb"),
        *pcapng.packet(0, when, frame, len(frame)),
        pcapng.statistics(0, STATISTICS),
        *pcapng.packet(1, when + 1_000, frame[:20], len(frame)),
        pcapng.statistics(1, STATISTICS),
    )
    path = tmp_path / "x.pcapng"
    path.write_bytes(b"".join(parts))
    command = ("tcpdump", "-n", "-e", "-tt", "--nano", "-r", str(path))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("1700000000.123456789 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff")
    assert "who-has" in first
    assert second.startswith("1700000000.123457789 ")
    assert "length 42" in second
