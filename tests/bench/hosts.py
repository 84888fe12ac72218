"""Links between hosts: bulk TCP beside a bare VXLAN, how soon they are up, how soon a partition
is seen in the containers, and what two hundred of them take while nothing happens."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from tests.netns.hosts_lab import Hosts, many
from tests.netns.lab import Station, poll

from .bulk import stream
from .carrier import carrier_news, wait_for_carrier
from .life import processor
from .rounds import Effort, Series, interleave

UNDERLAYS: Final = (1500, 9000)
LINKS: Final = 200
_CONTAINER_MTU: Final = 1500
_SLICES: Final = 4
_PAUSE: Final = 0.5
"""Seconds between a change of the underlay and the next one."""

_Way = Callable[[int], tuple[Station, Station]]


def hosts(effort: Effort) -> list[Series]:
    return [_tcp(effort), _up(effort), _partitions(effort), _idle(effort)]


def _tcp(effort: Effort) -> Series:
    """One stream, in alternate directions; a bare VXLAN has the MTU of our containers."""
    with ExitStack() as labs:
        ways: dict[str, _Way] = {}
        for mtu in UNDERLAYS:
            found = labs.enter_context(Hosts(2, mtu=mtu))
            ways[f"xconnectd VXLAN over {mtu}"] = _alternating(*_wired(found))
            ways[f"bare VXLAN over {mtu}"] = _alternating(*_bare(found))
        figures = interleave(
            list(ways),
            effort.rounds,
            lambda name, number: stream(*ways[name](number), effort.bulk),
        )
    title = f"Bulk TCP between two hosts, containers of {_CONTAINER_MTU}"
    return Series(title, "Gbit/s", figures["speed"], more_is_better=True)


def _alternating(a: Station, b: Station) -> _Way:
    return lambda number: (b, a) if number % 2 else (a, b)


def _wired(found: Hosts) -> tuple[Station, Station]:
    """Two containers, connected, with nothing to do."""
    a = found["h1"].veth("va", 1, mtu=_CONTAINER_MTU)
    b = found["h2"].veth("vb", 2, mtu=_CONTAINER_MTU)
    found.start({"h1/va": "h2/vb"})
    found.wait_state("h1/va", "h2/vb", "connected")
    return a, b


def _bare(found: Hosts) -> tuple[Station, Station]:
    """The hosts themselves, with addresses on a VXLAN device."""
    for number, (name, other) in enumerate((("h1", "h2"), ("h2", "h1")), 1):
        tunnel = f"type vxlan id 77 remote {found[other].address} dstport 14789 nolearning"
        found[name].lab.ip(f"link add bare0 mtu {_CONTAINER_MTU} up {tunnel}")
        found[name].lab.ip(f"address add 198.51.100.{number}/24 dev bare0")
    a, b = (Station(found[x].lab.host, "", n, "bare0") for n, x in enumerate(("h1", "h2"), 1))
    return a, b


def _up(effort: Effort) -> Series:
    """Seconds from the start of the last of three daemons, whose programs are loaded already."""
    values: dict[str, list[float]] = {"from its execution": [], "from its first pass": []}
    links = {"h1/va": "h3/vb", "h2/vc": "h3/vd"}
    for _ in range(effort.starts):
        with Hosts() as found:
            for end in (*links, *links.values()):
                found[end[:2]].veth(end[3:])
            found.start({})
            last = found["h3"].daemon
            last.kill()
            found.write(found.document(links))
            poll(lambda: all(found[x].daemon.states() == {"down"} for x in ("h1", "h2")))
            since, begin = last.mark(), time.monotonic()
            last.spawn()
            last.wait_event("daemon.ready", since=since)
            ready = time.monotonic()
            poll(lambda: all(found[x].daemon.states() == {"connected"} for x in ("h1", "h2", "h3")))
            now = time.monotonic()
        values["from its execution"].append(now - begin)
        values["from its first pass"].append(now - ready)
    return Series("The last of three hosts' daemons: until all links are connected", "s", values)


def _partitions(effort: Effort) -> Series:
    """Milliseconds from a change of the underlay until both containers have its news."""
    values: dict[str, list[float]] = {}
    with Hosts(2) as found:
        a, b = _wired(found)
        with carrier_news(a) as here, carrier_news(b) as there:
            for name, way in _LOSSES.items():
                down, up = [], []
                for _ in range(max(effort.changes // 5, 5)):
                    time.sleep(_PAUSE)
                    down.append(_news(lambda way=way: way(found), False, here, there))  # type: ignore[misc]
                    time.sleep(_PAUSE)
                    up.append(_news(found.mend, True, here, there))
                values |= {f"{name}: down": down, f"{name}: up again": up}
    title = "From a loss in the underlay, or its end, to the news in both containers"
    return Series(title, "ms", values)


_LOSSES: Final[dict[str, Callable[[Hosts], object]]] = {
    "both directions": lambda hosts: hosts.partition("h1", "h2"),
    "one direction": lambda hosts: hosts.lose("h1", "h2"),
}


def _news(change: Callable[[], object], carrier: bool, *news: socket.socket) -> float:
    begin = time.monotonic()
    change()
    for one in news:
        wait_for_carrier(one, carrier=carrier)
    return 1e3 * (time.monotonic() - begin)


def _idle(effort: Effort) -> Series:
    """Keepalives over all tunnels, and nothing else to do."""
    with Hosts(2) as found:
        for name, end in (("h1", "a"), ("h2", "b")):
            many(found[name], end, LINKS)
        found.start({f"h1/a{n}": f"h2/b{n}" for n in range(LINKS)})
        daemon = found["h1"].daemon
        poll(lambda: daemon.states() == {"connected"}, interval=0.5)
        daemon.idle(2)
        shares = []
        for _ in range(_SLICES):
            before, begin = processor(daemon), time.monotonic()
            time.sleep(effort.idle / _SLICES)
            shares.append(100 * (processor(daemon) - before) / (time.monotonic() - begin))
    title = "Processor time of a daemon with tunnels to another host, idle"
    return Series(title, "% of one CPU", {f"{LINKS} tunnels": shares})
