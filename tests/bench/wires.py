"""The contenders: every wire in one host, each between two containers of its own.

``xconnectd`` in its three modes, the bare redirects that are their limits, a Linux bridge,
``tc mirred``, and networkop's xdp-xconnect if XDP_XCONNECT names its binary.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.netns.lab import NETNS, Lab, Station, inside, poll, run
from tests.netns.service import Daemon, Wiring, document
from tests.netns.traffic import passes

from . import bare
from .rounds import interleave

PEER_VARIABLE: Final = "XDP_XCONNECT"
PEER: Final = "xdp-xconnect"
MODES: Final = ("generic", "tc", "native")
BARE_BOTH_WAYS: Final = "bare tc, both hooks"
"""With an empty filter where ours keeps the host silent: what the hook alone costs."""
_HEADROOM: Final = "65535"


@dataclass(frozen=True)
class Wire:
    """What connects the container ``a`` with the container ``b``."""

    name: str
    a: Station
    b: Station

    @property
    def ends(self) -> tuple[str, str]:
        return self.a.end, self.b.end

    def way(self, number: int) -> tuple[Station, Station]:
        """From where to where in a round: every other one the other way."""
        return (self.b, self.a) if number % 2 else (self.a, self.b)

    def ready_for_native(self) -> None:
        for station in (self.a, self.b):
            station.ready_for_native()

    def passes(self) -> bool:
        """Whether a frame passes now."""
        with self.a.port() as here, self.b.port() as there:
            return passes(here, there, 0.002)

    def answers(self) -> bool:
        """Whether a ping is answered; both ends, and a bridge, know the addresses then."""
        ping = ("ping", "-q", "-c", "1", "-W", "1", self.b.address())
        return run(*ping, namespace=self.a.namespace, check=False).returncode == 0


class Peer:
    """A process of xdp-xconnect in a lab's host; it takes the same file of plain pairs."""

    def __init__(self, lab: Lab, wiring: Wiring) -> None:
        self._config = lab.directory / "peer.yaml"
        self._log = lab.directory / "peer.log"
        self._command = ["nsenter", f"--net={NETNS / lab.host}", os.environ[PEER_VARIABLE]]
        self._process: subprocess.Popen[bytes] | None = None
        self.write(wiring)
        lab.on_close(self.kill)

    def write(self, wiring: Wiring) -> None:
        """In place: it does not see a second rename."""
        self._config.write_text(document(wiring))

    def spawn(self) -> None:
        command = [*self._command, "-conf", str(self._config)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def wait(self, works: Callable[[], object], interval: float = 0.01) -> None:
        """Until its links work, which it does not say."""
        try:
            poll(works, interval=interval)
        except AssertionError as error:
            raise AssertionError(f"no frame through {PEER}:\n{self._log.read_text()}") from error

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)

    def rss(self) -> int:
        """Resident memory in bytes."""
        assert self._process is not None
        status = Path("/proc", str(self._process.pid), "statm").read_text()
        return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def has_peer() -> bool:
    return bool(os.environ.get(PEER_VARIABLE))


def _bare_generic(lab: Lab, wire: Wire) -> None:
    for end in wire.ends:
        lab.ip("link", "set", "dev", end, "mtu", _HEADROOM)
    bare.wire_xdp(lab, "xdpgeneric", *wire.ends)


def _bare_native(lab: Lab, wire: Wire) -> None:
    wire.ready_for_native()
    bare.wire_xdp(lab, "xdpdrv", *wire.ends)


def _peer(lab: Lab, wire: Wire) -> None:
    peer = Peer(lab, dict([wire.ends]))
    peer.spawn()
    peer.wait(wire.answers)


_OTHERS: Final[dict[str, Callable[[Lab, Wire], None]]] = {
    "bare generic": _bare_generic,
    "bare tc": lambda lab, wire: bare.wire_tc(lab, *wire.ends),
    BARE_BOTH_WAYS: lambda lab, wire: bare.wire_tc(lab, *wire.ends, egress=True),
    "bare native": _bare_native,
    "bridge": lambda lab, wire: lab.bridge("bridge0", *wire.ends),
    "mirred": lambda lab, wire: lab.mirred(*wire.ends),
}


def ours(mode: str) -> str:
    return f"xconnectd {mode}"


def _start_ours(lab: Lab, wires: Mapping[str, Wire]) -> None:
    ends = {mode: wires[ours(mode)].ends for mode in MODES}
    wires[ours("native")].ready_for_native()
    Daemon(lab, {a: {"to": b, "mode": mode} for mode, (a, b) in ends.items()}).start()


@contextmanager
def arena() -> Iterator[tuple[Lab, dict[str, Wire]]]:
    """All contenders by name, each seen to work, and the lab that they are in."""
    builders = _OTHERS | ({PEER: _peer} if has_peer() else {})
    names = [*map(ours, MODES), *builders]
    with Lab() as lab:
        lab.hush()
        wires = {
            name: Wire(name, lab.veth(f"w{number}a", 1), lab.veth(f"w{number}b", 2))
            for number, name in enumerate(names)
        }
        _start_ours(lab, wires)
        for name, build in builders.items():
            build(lab, wires[name])
        for name, wire in wires.items():
            poll(wire.answers, 10, f"an answer through {name}")
        yield lab, wires


def received(station: Station) -> int:
    """Frames that have come to the container's interface, by the kernel's own count."""
    table = inside(station.namespace, Path("/proc/thread-self/net/dev").read_text)
    rows = (line.split() for line in table.splitlines())
    return next(int(row[2]) for row in rows if row[0] == f"{station.interface}:")


def contest(rounds: int, sample: Callable[[Station, Station], float]) -> dict[str, list[float]]:
    """What ``sample`` measures of every contender in every round, from one end to the other."""
    with arena() as (_, wires):
        way = lambda name, number: {"": sample(*wires[name].way(number))}  # noqa: E731
        return interleave(list(wires), rounds, way)[""]
