"""OSPF without BFD hears of a neighbour's end at once: that is what a carrier is for.

Two of Debian's FRR, neighbours by a wire. Their dead interval is 40 s, as everywhere by default.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from typing import Final

from .carrier import Card, Monitor
from .lab import Lab, poll, run
from .service import Daemon
from .test_routing import Frr

GONE: Final = 0.1
"""Seconds from the far end's last moment to the neighbour's."""

_ZEBRA: Final = """\
interface eth1
 ip address 198.51.100.{number}/30
exit
"""
_OSPF: Final = """\
log file {log}
log timestamp precision 6
interface eth1
 ip ospf area 0
 ip ospf network point-to-point
 ip ospf hello-interval 1
 ip ospf dead-interval 40
exit
router ospf
 ospf router-id 198.51.100.{number}
 log-adjacency-changes detail
exit
"""


class Router(Frr):
    """``r<n>`` is its end in the host; its own is ``eth1``."""

    def __init__(self, lab: Lab, number: int) -> None:
        name = f"r{number}"
        self.log = lab.directory / name / "ospf.log"
        ospf = _OSPF.format(number=number, log=self.log)
        super().__init__(lab, name, zebra=_ZEBRA.format(number=number), ospfd=ospf)
        self.namespace = lab.namespace(name)
        self.start()

    def start(self) -> None:
        # Two ends of one number would hear of their carriers late: see carrier.unlike_numbers.
        index = str(100 + int(self.name[1:]))
        own = ("name", self.name, "index", index, "type", "veth", "peer", "name", "eth1")
        self.lab.ip("link", "add", *own, "netns", self.namespace)
        run("ip", "link", "set", "eth1", "up", namespace=self.namespace)
        self.lab.ip("link", "set", self.name, "up")
        self.spawn(self.namespace)

    def lost(self) -> list[float]:
        """When it lost its neighbour, in seconds since the epoch."""
        lines = [x for x in self.log.read_text().splitlines() if "AdjChg" in x and "Full ->" in x]
        return [datetime.fromisoformat(x[:26].replace("/", "-")).timestamp() for x in lines]


def test_a_neighbour_that_goes_is_gone_at_once(lab: Lab, daemon: Callable[..., Daemon]) -> None:
    one, other = Router(lab, 1), Router(lab, 2)
    running = daemon({"r1": "r2"})

    def neighbours() -> bool:
        return one.full_neighbours() == other.full_neighbours() == {"eth1"}

    with closing(Card(other.namespace, "eth1")) as far:
        for _ in range(3):
            poll(neighbours, what="OSPF between the two", interval=0.1)
            before, begin = len(one.lost()), time.time()
            far.set(up=False)
            (lost,) = poll(lambda before=before: one.lost()[before:])  # type: ignore[misc]
            assert lost - begin < GONE, f"{1e3 * (lost - begin):.0f} ms"
            print(f"down: {1e3 * (lost - begin):.1f} ms")
            far.set(up=True)
    poll(neighbours, what="OSPF between the two", interval=0.1)

    # To delete a namespace takes the kernel its time: that of the veth's end counts.
    before = len(one.lost())
    monitor = Monitor(lab, lab.host, "r2")
    heard = monitor.count()
    other.kill()
    begin = time.time()
    run("ip", "netns", "delete", other.namespace)
    (lost,) = poll(lambda: one.lost()[before:])
    gone = monitor.seen()[heard].time
    print(f"deleted: {1e3 * (lost - begin):.1f} ms, of it kernel {1e3 * (gone - begin):.1f}")
    assert lost - gone < GONE, f"{1e3 * (lost - gone):.0f} ms"
    running.assert_no_traceback()
