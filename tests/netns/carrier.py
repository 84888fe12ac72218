"""The carrier of a lab's interfaces: set and read at once, and heard from inside a container."""

from __future__ import annotations

import fcntl
import itertools
import re
import socket
import struct
import subprocess
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final, NamedTuple

from .lab import NETNS, Lab, inside, poll, run
from .service import Daemon

_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_SIOCETHTOOL: Final = 0x8946
_ETHTOOL_GLINK: Final = 0x0A
_IFF_UP: Final = 1

unlike_numbers: Final = itertools.count(1000)
"""A veth whose number is that of its other end too (both are 2 in a new lab) hears of its carrier
up to a second late: linkwatch_urgent_event in net/core/link_watch.c holds it for no veth then."""


class Card:
    """An interface of a namespace, by ioctl: ``ip`` takes milliseconds for what is done in none.

    It is known by its name alone: one that is deleted and made again is the same.
    """

    def __init__(self, namespace: str, name: str) -> None:
        self.name = name
        self._socket = inside(namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    @property
    def up(self) -> bool:
        """Administratively."""
        return bool(self._flags() & _IFF_UP)

    def set(self, up: bool) -> None:
        flags = self._flags() & ~_IFF_UP | (_IFF_UP if up else 0)
        self._ask(_SIOCSIFFLAGS, struct.pack("H14x", flags))

    @property
    def carrier(self) -> bool:
        """As ``ethtool`` shows it; one that is down has none."""
        answer = array("I", (_ETHTOOL_GLINK, 0))
        self._ask(_SIOCETHTOOL, struct.pack("P8x", answer.buffer_info()[0]))
        return bool(answer[1])

    def close(self) -> None:
        self._socket.close()

    def _flags(self) -> int:
        told = self._ask(_SIOCGIFFLAGS, bytes(16))
        return int.from_bytes(told[16:18], "little")

    def _ask(self, request: int, detail: bytes) -> bytes:
        """OSError (ENODEV) without such an interface."""
        return fcntl.ioctl(self._socket, request, self.name.encode().ljust(16, b"\0") + detail)


class Seen(NamedTuple):
    """A line of ``ip monitor link``, and when it was printed, in seconds since the epoch."""

    time: float
    flags: frozenset[str]

    @property
    def carrier(self) -> bool:
        return "LOWER_UP" in self.flags and "NO-CARRIER" not in self.flags


class Monitor:
    """``ip monitor link`` in a namespace: what programs there hear of one of its interfaces."""

    _LINE: Final = re.compile(r"\[(\S+)\] (?:Deleted )?\d+: ([^@: ]+)\S*:? <(\S*)>")

    def __init__(self, lab: Lab, namespace: str, interface: str = "eth0") -> None:
        self._namespace = namespace
        self._interface = interface
        self._path = lab.directory / f"monitor-{namespace}"
        self._mtu = 60_000
        command = ["nsenter", f"--net={NETNS / namespace}", "ip", "-o", "-ts", "monitor", "link"]
        with self._path.open("wb") as log:
            process = subprocess.Popen(command, stdout=log)
        self._process = process
        lab.on_close(self.close)
        self.count()

    def count(self) -> int:
        """How many lines there are of what has happened until now."""
        self._mtu += 1
        mark = f" mtu {self._mtu} "

        def has_come() -> bool:
            run("ip", "link", "set", "lo", "mtu", "65536", namespace=self._namespace)
            run("ip", "link", "set", "lo", "mtu", str(self._mtu), namespace=self._namespace)
            return mark in self._path.read_text()

        poll(has_come, what="ip monitor at work")
        return len(self.seen())

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def seen(self) -> list[Seen]:
        found = map(self._LINE.match, self._path.read_text().splitlines())
        return [
            Seen(datetime.fromisoformat(one[1]).timestamp(), frozenset(one[3].split(",")))
            for one in found
            if one and one[2] == self._interface
        ]


class Container:
    """A veth's end in a namespace of its own. ``far`` is ``eth0`` there, ``host`` our end."""

    def __init__(self, lab: Lab, end: str) -> None:
        self._lab = lab
        self.end = end
        self.station = lab.veth(end, index=next(unlike_numbers))
        self.namespace = self.station.namespace
        self.far, self.host = Card(self.namespace, "eth0"), Card(lab.host, end)
        for card in (self.far, self.host):
            lab.on_close(card.close)
        poll(lambda: self.far.carrier, what="a carrier")
        self.monitor = Monitor(lab, self.namespace)

    def die(self) -> None:
        """The namespace is deleted, once nothing of ours is in it."""
        self.monitor.close()
        self.far.close()
        run("ip", "netns", "delete", self.namespace)

    def delete(self) -> None:
        """The veth alone; ``make`` plugs in another one."""
        self._lab.delete(self.end)

    def make(self) -> None:
        self._lab.veth(self.end, namespace=self.namespace, index=next(unlike_numbers))

    @contextmanager
    def hears(self, *, carrier: bool) -> Iterator[list[Seen]]:
        """What is done in this context is heard in the container, at last as this carrier.

        Holds what was heard when the context is left.
        """
        before = self.monitor.count()
        heard: list[Seen] = []
        yield heard

        def has_heard() -> bool:
            heard[:] = self.monitor.seen()[before:]
            return bool(heard) and heard[-1].carrier == carrier

        poll(has_heard, 10, f"{self.end}: carrier {carrier} in {self.namespace}: {heard}")


@contextmanager
def nobody_hears(running: Daemon, *containers: Container) -> Iterator[None]:
    """Nothing is heard in these containers of what is done in this context."""
    before = [each.monitor.count() for each in containers]
    yield
    running.idle(0.3)
    for each, count in zip(containers, before, strict=True):
        assert each.monitor.count() == count, (each.end, each.monitor.seen()[count:])
