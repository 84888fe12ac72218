"""From the write of the file to the first frame at the new end, between few and many links.

Beside it, in the same rounds, what a bare program takes that makes the same changes of the kernel
(``replay``): what is more than that is ours.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, Self

from tests.netns.lab import Lab, Station, inside, poll
from tests.netns.service import Daemon, document
from tests.netns.test_scale import grow
from tests.netns.traffic import ETH_P_STREAM, wired

from .pacer import pacing
from .replay import LOOKS, Replay
from .rounds import Effort, Series, interleave
from .wires import PEER, Peer, has_peer, received

_SO_TIMESTAMPNS: Final = 35
_TIMEOUT: Final = struct.pack("ll", 20, 0)
_PAUSE: Final = 0.2
"""Seconds before each rewire: the one before is over, and what it woke sleeps again."""
_PEER_MOST: Final = 200
"""xdp-xconnect takes no interface with a number above 1,023; the kernel's own part is the same
among more."""


def rewire(effort: Effort) -> list[Series]:
    """Milliseconds, and the frames that the link beside the rewired one lost meanwhile."""
    times: dict[str, list[float]] = {}
    lost: dict[str, list[float]] = {}
    for count in effort.sizes:
        figures = _among(count, effort.rewires)
        times |= figures["time"]
        lost |= figures["lost"]
    return [
        Series("From writing the file to the first frame at the new end", "ms", times),
        Series("Frames lost by another link during a rewire", "frames", lost),
    ]


def _among(count: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    with Lab() as lab, Lab() as replays, Lab() as peers:
        for host in (lab, replays, peers):
            host.hush()  # a frame of its own would stand in for a lost one
        rewires = _ours(lab, count)
        if count <= _PEER_MOST:
            rewires |= _bare(replays, count)
        if has_peer() and count <= _PEER_MOST:
            rewires |= _peers(peers, count)
        return interleave(list(rewires), rounds, lambda name, _: rewires[name]())


_Rewire = Callable[[], dict[str, float]]


class _Service(Protocol):
    def write(self, wiring: str, /) -> None: ...


def _ours(lab: Lab, count: int) -> dict[str, _Rewire]:
    up, down = Link.build(lab, "u", up=True), Link.build(lab, "d", up=False)
    site = Site([up, down], grow(lab, count - 2)[1])
    daemon = Daemon(lab, site.text()).start(120)
    daemon.idle(2)
    return {
        f"xconnectd {count:,} links, ends up": partial(site.rewire, daemon, up, down),
        f"xconnectd {count:,} links, new end down": partial(site.rewire, daemon, down, up),
    }


def _bare(lab: Lab, count: int) -> dict[str, _Rewire]:
    """One process for both; they take turns."""
    links = [Link.build(lab, name, up=True) for name in "ud"]
    site = Site(links, grow(lab, count - 2)[1])
    wirings = [site.text()]
    links[0].turn = 1
    wirings.append(site.text())
    links[0].turn = 0
    replay = Replay(lab, wirings).start(120)
    poll(lambda: all(wired(one.kept, one.here) for one in links))
    looking = _Looking(replay)
    return {
        f"bare {count:,} links, ends up": partial(site.rewire, replay, *links),
        f"bare {count:,} links, with looks": partial(site.rewire, looking, *links),
    }


@dataclass(frozen=True)
class _Looking:
    """Has the questions played, too."""

    replay: Replay

    def write(self, wiring: str) -> None:
        self.replay.write(LOOKS + wiring)


def _peers(lab: Lab, count: int) -> dict[str, _Rewire]:
    links = [Link.build(lab, name, up=True) for name in "ud"]
    site = Site(links, grow(lab, count - 2)[1])
    peer = Peer(lab, site.text())
    peer.spawn()
    peer.wait(lambda: all(wired(one.kept, one.here) for one in links))
    return {f"{PEER} {count:,} links": partial(site.rewire, peer, *links)}


@dataclass
class Link:
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
class Site:
    """Two links of which each is rewired or bystander, and others that only make the file long."""

    links: list[Link]
    others: dict[str, str]

    def pairs(self) -> dict[str, str]:
        return {one.kept.end: one.here.end for one in self.links} | self.others

    def text(self) -> str:
        return document(self.pairs())

    def rewire(self, service: _Service, link: Link, bystander: Link) -> dict[str, float]:
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
