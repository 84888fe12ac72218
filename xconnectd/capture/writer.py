"""A capture of links from its start to its end: which ends are tapped, and what is written.

Follows the ends by name: one that goes and comes back is tapped again. Writes to a file descriptor
that it is handed, and says on its way what somebody should know.
"""

from __future__ import annotations

import contextlib
import os
import platform
import select
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from xconnectd import __version__
from xconnectd.capture import pcapng
from xconnectd.capture.tap import Capture, Frame, Tally
from xconnectd.formatting import printable
from xconnectd.netlink.monitor import Events, OverrunError

_LATENCY: Final = 0.05
"""Seconds that a frame may wait to be read, unless so many come that the kernel wakes us."""
_CLOCKS_MAY_DIFFER: Final = 1_000_000
"""Nanoseconds by which the wall clock may be set or drift before it is read anew."""
_STATISTICS_EVERY: Final = 1.0
"""Seconds between two notes in the file while frames are lost."""


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
    passed_by: int = 0
    """Frames that the filter refused."""
    tally: Tally = field(default=Tally(0, 0))


Accounts = dict[int, Account]
Judge = Callable[[bytes, int], bool]
Place = tuple[int, int | None]
"""Where to tap an end: its ifindex, and for native XDP a descriptor of our program."""


class Form(Protocol):
    """How a capture is written: bytes to append, for its parts."""

    def begin(self) -> bytes: ...

    def frames(self, frames: Sequence[Frame], wall: int) -> bytes:
        """``wall`` is what to add to a frame's time to have ns since the epoch."""

    def counts(self, accounts: Accounts, start: int, stop: int) -> bytes: ...


class Recording:
    """``place`` tells where the end of a name is now; None while there is none of that name.

    ``judge`` is the filter, ``count`` the number of frames to keep (0: any), ``output`` a file
    descriptor, ``reader`` that of a pipe behind it, ``say`` gets what happens on the way, in words.
    """

    def __init__(
        self,
        capture: Capture,
        ways: Iterable[Way],
        form: Form,
        *,
        output: int,
        reader: int | None = None,
        place: Callable[[str], Place | None],
        say: Callable[[str], None],
        judge: Judge | None = None,
        count: int = 0,
    ) -> None:
        self._capture = capture
        self._ways = tuple(ways)
        self._form = form
        self._output = output
        self._pipes = {output, output if reader is None else reader}
        self._place = place
        self._say = say
        self._judge = judge
        self._left = count or None
        self._places: dict[int, Place | None] = {}
        self._wall = _wall()
        self._start = time.time_ns()
        self._noted = time.monotonic()
        self._over = False
        self.accounts: Accounts = {way.end: Account() for way in self._ways}

    def stop(self) -> None:
        """To be called from a signal handler, say: the frames that came by then are still kept."""
        self._over = True

    def run(self) -> bool:
        """Until ``stop`` or the last frame wanted; False if the reader of a pipe closed it first.

        Raises DataplaneError, PrivilegeError, OSError.
        """
        with contextlib.suppress(BrokenPipeError), contextlib.closing(Events()) as events:
            self._write(self._form.begin())
            self._follow()
            waiting = select.poll()
            waiting.register(self._capture, select.POLLIN)
            waiting.register(events, select.POLLIN)
            for pipe in self._pipes:
                waiting.register(pipe, 0)  # tells all the same when a reader has gone
            while not self._over:
                ready = {fd for fd, _ in waiting.poll(_LATENCY * 1000)}
                if not self._pipes.isdisjoint(ready):
                    return False
                if events.fileno() in ready or events.is_due():
                    self._receive(events)
                self._take()
            self._end()
            return True
        return False

    def _end(self) -> None:
        """Nothing is counted any more when what is left is read, so that it adds up."""
        for way in self._ways:
            self._capture.detach(way.end)
        self._take()
        self._count()
        self._write(self._form.counts(self.accounts, self._start, time.time_ns()))

    # ------------------------------------------------------------------ ends

    def _receive(self, events: Events) -> None:
        with contextlib.suppress(OverrunError):  # what was lost does not matter: we look
            events.drain()
        self._follow()

    def _follow(self) -> None:
        for way in self._ways:
            place = self._place(way.name)
            known = self._places.get(way.end, ())
            if place == known:
                continue
            self._places[way.end] = place
            if place is None:
                self._capture.detach(way.end)
                self._say(f"{way.name} does not exist; waiting for it")
                continue
            self._capture.attach(way.end, *place)
            if known != ():
                self._say(f"{way.name} is there again or has changed: capturing it")

    # ------------------------------------------------------------------ frames

    def _take(self) -> None:
        frames = [frame for frame in self._capture.read() if self._wanted(frame)]
        if frames:
            self._write(self._form.frames(frames, self._clock()))
        self._note_losses()

    def _wanted(self, frame: Frame) -> bool:
        if self._left == 0:
            return False
        account = self.accounts[frame.end]
        if self._judge and not self._judge(frame.data, frame.length):
            account.passed_by += 1
            return False
        account.kept += 1
        if self._left is not None:
            self._left -= 1
            self._over = self._left == 0
        return True

    def _clock(self) -> int:
        """Steady, so that frames stay in order, unless somebody sets the clock."""
        now = _wall()
        if abs(now - self._wall) > _CLOCKS_MAY_DIFFER:
            self._wall = now
        return self._wall

    # ------------------------------------------------------------------ losses

    def _count(self) -> bool:
        """Whether more was lost since the last time."""
        before = self._lost()
        for way in self._ways:
            self.accounts[way.end].tally = self._capture.tally(way.end)
        return self._lost() > before

    def _lost(self) -> int:
        return sum(account.tally.lost for account in self.accounts.values())

    def _note_losses(self) -> None:
        """Into the file, for who looks at it while it grows or finds it cut short."""
        now = time.monotonic()
        if now - self._noted > _STATISTICS_EVERY:
            self._noted = now
            if self._count():
                self._write(self._form.counts(self.accounts, self._start, time.time_ns()))

    def _write(self, data: bytes) -> None:
        write_all(self._output, data)


def write_all(output: int, data: bytes) -> None:
    """To a file descriptor, however little of it a pipe takes at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(output, view) :]


def _wall() -> int:
    """What the wall clock is ahead of the steady one, in ns.

    The closest of three looks: between one clock and the other we may lose the processor.
    """

    def look() -> tuple[int, int]:
        before, now, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        return after - before, now - before

    return min(look() for _ in range(3))[1]


# --------------------------------------------------------------------------- forms


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
    """For eyes: a line for every frame, with what the wire itself has to do with."""

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
