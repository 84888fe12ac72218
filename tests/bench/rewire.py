"""From the write of the file to the first frame at the new end, between few and many links."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, Self

from tests.netns.lab import Lab, Station, inside
from tests.netns.service import Daemon, document
from tests.netns.test_config_changes import wired
from tests.netns.test_scale import grow
from tests.netns.traffic import ETH_P_STREAM

from .pacer import pacing
from .rounds import Effort, Series, interleave
from .wires import PEER, Peer, has_peer, received

_SO_TIMESTAMPNS: Final = 35
_TIMEOUT: Final = struct.pack("ll", 20, 0)
_PAUSE: Final = 0.2
"""Seconds before each rewire: the one before is over, and what it woke sleeps again."""
_PEER_MOST: Final = 200
"""xdp-xconnect takes no interface with a number above 1,023."""


def rewire(effort: Effort) -> list[Series]:
    """Milliseconds, and the frames that the link beside the rewired one lost meanwhile."""
    times: dict[str, list[float]] = {}
    lost: dict[str, list[float]] = {}
    for count in effort.sizes:
        figures = _among(count, effort.rewires)
        for name in figures["time"]:
            times[f"{count:,} links, {name}"] = figures["time"][name]
            lost[f"{count:,} links, {name}"] = figures["lost"][name]
    return [
        Series("From writing the file to the first frame at the new end", "ms", times),
        Series("Frames lost by another link during a rewire", "frames", lost),
    ]


def _among(count: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    with Lab() as lab, Lab() as peers:
        for host in (lab, peers):
            host.hush()  # a frame of its own would stand in for a lost one
        rewires = _ours(lab, count)
        if has_peer() and count <= _PEER_MOST:
            rewires |= _peers(peers, count)
        return interleave(list(rewires), rounds, lambda name, _: rewires[name]())


_Rewire = Callable[[], dict[str, float]]


class _Service(Protocol):
    def write(self, wiring: str, /) -> None: ...


def _ours(lab: Lab, count: int) -> dict[str, _Rewire]:
    up, down = _Link.build(lab, "u", up=True), _Link.build(lab, "d", up=False)
    site = _Site([up, down], grow(lab, count - 2)[1])
    daemon = Daemon(lab, site.text()).start(120)
    daemon.idle(2)
    return {
        "ends up": partial(site.rewire, daemon, up, down),
        "new end found down": partial(site.rewire, daemon, down, up),
    }


def _peers(lab: Lab, count: int) -> dict[str, _Rewire]:
    links = [_Link.build(lab, name, up=True) for name in "ud"]
    site = _Site(links, grow(lab, count - 2)[1])
    peer = Peer(lab, site.text())
    peer.spawn()
    peer.wait(lambda: all(wired(one.kept, one.here) for one in links))
    return {PEER: partial(site.rewire, peer, *links)}


@dataclass
class _Link:
    """An end that is kept, and two that take turns as the other one."""

    kept: Station
    ends: tuple[Station, Station]
    turn: int = 0

    @classmethod
    def build(cls, lab: Lab, name: str, up: bool) -> Self:
        kept, *ends = (lab.veth(f"{name}{one}", up=up) for one in "abc")
        return cls(kept, (ends[0], ends[1]))

    @property
    def here(self) -> Station:
        return self.ends[self.turn]

    @property
    def there(self) -> Station:
        return self.ends[1 - self.turn]


@dataclass(frozen=True)
class _Site:
    """Two links of which each is rewired or bystander, and others that only make the file long."""

    links: list[_Link]
    others: dict[str, str]

    def text(self) -> str:
        return document({one.kept.end: one.here.end for one in self.links} | self.others)

    def rewire(self, service: _Service, link: _Link, bystander: _Link) -> dict[str, float]:
        """Milliseconds from the write to the first frame, and what the bystander lost."""
        before = received(bystander.here)
        with (
            pacing((link.kept, bystander.kept)) as pacer,
            _clock(link.here) as old,
            _clock(link.there) as new,
        ):
            _arrival(old)
            time.sleep(_PAUSE)
            link.turn = 1 - link.turn
            text = self.text()
            begin = time.time_ns()
            service.write(text)
            took = _arrival(new) - begin
            sent = pacer.stop()
        lost = sent - (received(bystander.here) - before)
        return {"time": took / 1e6, "lost": lost}


@contextmanager
def _clock(station: Station) -> Iterator[socket.socket]:
    """A receiver whose frames carry the kernel's time of arrival."""
    raw = inside(station.namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    with raw:
        raw.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
        raw.bind((station.interface, ETH_P_STREAM))
        yield raw


def _arrival(raw: socket.socket) -> int:
    """Of the first frame that is there or comes, in nanoseconds of the day's clock."""
    ancillary = raw.recvmsg(64, 64)[1]
    seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
    return int(seconds) * 10**9 + int(nanoseconds)
