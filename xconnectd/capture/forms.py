"""How a capture is written: as pcapng, or as lines of text. Bytes to append to a file."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from xconnectd import __version__
from xconnectd.capture import pcapng
from xconnectd.capture.tap import Frame, Tally
from xconnectd.formatting import printable


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of a link: the end frames come in by, its number (from 0), and the other."""

    end: int
    link: str
    name: str
    other: str

    def __str__(self) -> str:
        return printable(f"{self.name} → {self.other}")


@dataclass(slots=True)
class Account:
    """What became of the frames that came in one way; ``kept`` of them passed the filter."""

    kept: int = 0
    filtered_out: int = 0
    """Frames that the filter refused."""
    tally: Tally = field(default=Tally(0, 0))


Accounts = dict[int, Account]


class Form(Protocol):
    """How a capture is written: bytes to append, for its parts."""

    def begin(self) -> bytes: ...

    def frames(self, frames: Sequence[Frame], wall: int) -> bytes:
        """``wall`` is what to add to a frame's time to have ns since the epoch."""

    def counts(self, accounts: Accounts, start: int, stop: int) -> bytes: ...


class Pcapng:
    """For Wireshark, tcpdump and the like: an interface for every way, of the number of its end."""

    def __init__(self, ways: Sequence[Way], snaplen: int, filter_: str) -> None:
        self._ways = ways
        self._snaplen = snaplen
        self._filter = filter_

    def begin(self) -> bytes:
        system = platform.uname()
        links = dict.fromkeys(way.link for way in self._ways)
        head = pcapng.section(
            ", ".join(f"link {link}" for link in links),
            hardware=system.machine,
            system=f"{system.system} {system.release}",
            application=f"xconnectd {__version__}",
        )
        return head + b"".join(map(self._interface, self._ways))

    def _interface(self, way: Way) -> bytes:
        text = f"link {way.link}, {way}"
        return pcapng.interface(way.name, text, snaplen=self._snaplen, filter_=self._filter)

    def frames(self, frames: Sequence[Frame], wall: int) -> bytes:
        pieces: list[bytes] = []
        snaplen, packet = self._snaplen, pcapng.packet
        for when, end, length, data in frames:
            pieces += packet(end, when + wall, data[:snaplen], length)
        return b"".join(pieces)

    def counts(self, accounts: Accounts, start: int, stop: int) -> bytes:
        return b"".join(
            pcapng.statistics(
                end,
                pcapng.Statistics(
                    start,
                    stop,
                    received=account.tally.received,
                    dropped=account.tally.lost,
                    accepted=account.kept,
                    delivered=account.kept,
                ),
            )
            for end, account in accounts.items()
        )


_ETHERTYPES: Final = {
    0x0800: "IPv4",
    0x0806: "ARP",
    0x86DD: "IPv6",
    0x8100: "VLAN",
    0x88A8: "QinQ",
    0x8809: "LACP",
    0x8847: "MPLS",
    0x888E: "802.1X",
    0x88CC: "LLDP",
    0x88F7: "PTP",
}
_TAGS: Final = (0x8100, 0x88A8)


class Lines:
    """For people without tcpdump: a line for every frame, with what the wire has to do with."""

    def __init__(self, ways: Sequence[Way]) -> None:
        self._ways = {way.end: str(way) for way in ways}

    def begin(self) -> bytes:
        return b""

    def frames(self, frames: Sequence[Frame], wall: int) -> bytes:
        return "".join(self._line(frame, frame.time + wall) for frame in frames).encode()

    def _line(self, frame: Frame, at: int) -> str:
        seconds, rest = divmod(at, 1_000_000_000)
        clock = time.strftime("%H:%M:%S", time.localtime(seconds))
        what = describe(frame.data)
        return f"{clock}.{rest // 1000:06} {self._ways[frame.end]} {frame.length} bytes {what}\n"

    def counts(self, accounts: Accounts, start: int, stop: int) -> bytes:
        del accounts, start, stop  # said elsewhere, not between the lines
        return b""


def describe(data: bytes) -> str:
    """Addresses, VLAN tags and type: ``02:…:0b > 02:…:0a vlan 5 IPv4``."""
    words = [f"{data[6:12].hex(':')} > {data[:6].hex(':')}"]
    at = 12
    while (kind := int.from_bytes(data[at : at + 2])) in _TAGS and len(data) >= at + 6:
        words.append(f"vlan {int.from_bytes(data[at + 2 : at + 4]) & 0xFFF}")
        at += 4
    name = _ETHERTYPES.get(kind) or (f"0x{kind:04x}" if kind >= 0x600 else "802.3")
    return " ".join((*words, name))
