"""A lab as people build one: six routers in a ring, with OSPF, BFD and router advertisements.

The routers are Debian's FRR. The host has the sysctls of a fresh machine, so it would take what a
router advertises, and it is watched all the time. Whatever happens to the daemon and to a router,
the adjacencies come back without a hand, and the host learns nothing of the lab.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .lab import NETNS, PATIENCE, Lab, poll, run
from .service import Daemon, document

FRR: Final = Path("/usr/lib/frr")
SIZE: Final = 6

# eth1 leads to the next router, eth2 to the one before.
_ZEBRA: Final = """\
ip forwarding
ipv6 forwarding
interface {interface}
 ip address 198.51.100.{address}/30
 ipv6 address 2001:db8:{link}::{router}/64
 no ipv6 nd suppress-ra
 ipv6 nd ra-interval msec 300
 ipv6 nd ra-lifetime 1800
 ipv6 nd prefix 2001:db8:{link}::/64
exit
"""
_OSPF: Final = """\
interface {interface}
 ip ospf area 0
 ip ospf network point-to-point
 ip ospf hello-interval 1
 ip ospf dead-interval 4
 ip ospf retransmit-interval 3
 ip ospf bfd
 ip ospf bfd profile fast
exit
"""
_AT_ONCE: Final = """\
router ospf
 timers throttle lsa all 0
 timers lsa min-arrival 0
"""
_BFD: Final = """\
bfd
 profile fast
  detect-multiplier 3
  receive-interval 100
  transmit-interval 100
 exit
exit
"""
_DONE: Final = bytes(4)  # the end of an answer, and success


class Frr:
    """Some daemons of Debian's FRR, their files in a directory of their own. No systemd."""

    def __init__(self, lab: Lab, name: str, **files: str) -> None:
        self.lab = lab
        self.name = name
        self.directory = lab.directory / name
        self.directory.mkdir()
        shutil.chown(self.directory, "frr", "frr")
        self.daemons = tuple(files)
        for daemon, text in files.items():
            (self.directory / f"{daemon}.conf").write_text(text)

    def spawn(self, namespace: str) -> None:
        """Start the daemons there, in the order of their files: zebra is the first."""
        for daemon in self.daemons:
            own = ("-i", f"{self.directory}/{daemon}.pid", "-f", f"{self.directory}/{daemon}.conf")
            shared = ("--vty_socket", str(self.directory), "-z", f"{self.directory}/zserv.api")
            more = ("--bfdctl", f"{self.directory}/bfdd.sock") if daemon == "bfdd" else ("-P", "0")
            run(str(FRR / daemon), "-d", *own, *shared, *more, namespace=namespace)

    def kill(self) -> None:
        for daemon in self.daemons:
            os.kill(int((self.directory / f"{daemon}.pid").read_text()), signal.SIGKILL)

    def show(self, daemon: str, what: str) -> Any:
        """What vtysh would print. Its own start takes longer than everything that it asks."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(PATIENCE)
            asking.connect(str(self.directory / f"{daemon}.vty"))
            asking.sendall(f"enable\0show {what} json\0".encode())
            answer = b""
            while answer.count(_DONE) < 2:
                answer += asking.recv(65536)
        return json.loads(answer.strip(_DONE))

    def full_neighbours(self) -> set[str]:
        """The interfaces on which OSPF has one."""
        ospf = self.show("ospfd", "ip ospf neighbor")["neighbors"]
        full = (x for y in ospf.values() for x in y if x["nbrState"].startswith("Full"))
        return {x["ifaceName"].partition(":")[0] for x in full}


class Router(Frr):
    """One of the ring; ``r<n>-eth1`` and ``r<n>-eth2`` are its ends in the host."""

    def __init__(self, lab: Lab, number: int) -> None:
        own = {"interface": "eth1", "link": number, "address": 4 * number + 1, "router": number}
        back = (number - 2) % SIZE + 1
        before = {"interface": "eth2", "link": back, "address": 4 * back + 2, "router": number}
        zebra, ospf = ("".join(text.format(**x) for x in (own, before)) for text in (_ZEBRA, _OSPF))
        ospf += f"{_AT_ONCE} ospf router-id 198.51.100.{own['address']}\nexit\n"
        super().__init__(lab, f"r{number}", zebra=zebra, ospfd=ospf, bfdd=_BFD)
        self.start()

    def start(self) -> None:
        """A container comes up; one of its two ends in the host is, the other is not."""
        self.namespace = self.lab.namespace(self.name)
        for interface in ("eth1", "eth2"):
            peer = f"peer name {interface} netns {self.namespace}"
            self.lab.ip(f"link add {self.name}-{interface} type veth {peer}")
            run("ip", "link", "set", interface, "up", namespace=self.namespace)
        self.lab.ip(f"link set {self.name}-eth1 up")
        self.spawn(self.namespace)

    def delete(self) -> None:
        """The container is gone, and with it both ends of its cables."""
        self.kill()
        run("ip", "netns", "delete", self.namespace)
        ends = (f"{self.name}-eth1", f"{self.name}-eth2")
        poll(lambda: not any(x in self.lab.ip("link") for x in ends), what="the end of the veths")

    def adjacencies(self) -> int:
        """Neighbours with whom both OSPF and BFD are up."""
        up = {x["interface"] for x in self.show("bfdd", "bfd peers") if x["status"] == "up"}
        return len(up & self.full_neighbours())


class Watch:
    """``ip monitor`` in the host: what its stack learns of the lab, from the first moment."""

    OWN: Final = re.compile(
        r"^(\d+: .*scope link|.*fe80::\S+ .*proto kernel|(\S+ )?ff[0-9a-f]{2}::)"
    )

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._path = lab.directory / "monitor"
        with self._path.open("wb") as log:
            command = ["nsenter", f"--net={NETNS / lab.host}", "stdbuf", "-oL"]
            command += ["ip", "-o", "monitor", "address", "route", "neigh"]
            process = subprocess.Popen(command, stdout=log)
        lab.on_close(process.wait)
        lab.on_close(process.kill)
        self._seen = 0
        self._mark = 0
        self.learnt()

    def learnt(self) -> list[str]:
        """What has come since the last call. A mark of ours is behind all that was before."""
        self._mark += 1
        mark = f"203.0.113.{self._mark}/32"

        def has_come() -> bool:
            self._lab.ip(f"address replace {mark} dev lo")
            return mark in self._path.read_text()

        poll(has_come, what="ip monitor at work", interval=0.05)
        lines = self._path.read_text().splitlines()
        new, self._seen = lines[self._seen :], len(lines)
        return self._of_the_lab([line for line in new if not line.startswith("Deleted")])

    def believed(self) -> list[str]:
        """What the host holds of the lab now."""
        shown = [self._lab.ip("-o address"), self._lab.ip("neigh")]
        shown += [self._lab.ip(f"-o {way} route show table all") for way in ("-4", "-6")]
        return self._of_the_lab("".join(shown).splitlines())

    def default_routes(self) -> int:
        """How many of the lab's routers the host would send its traffic to."""
        return sum("default" in line or "nexthop" in line for line in self.believed())

    def wait_forgotten(self) -> None:
        """Wait until nothing of the lab is left; from now on nothing may come."""
        with contextlib.suppress(AssertionError):
            poll(lambda: not self.believed())
        assert self.believed() == []
        self.learnt()

    def assert_nothing_learnt(self) -> None:
        assert (self.learnt(), self.believed()) == ([], [])

    def _of_the_lab(self, lines: list[str]) -> list[str]:
        return [x for x in lines if "-eth" in x and not self.OWN.search(x)]


def test_a_lab_of_routers(lab: Lab, daemon: Callable[..., Daemon]) -> None:
    watch = Watch(lab)
    ring = [Router(lab, number) for number in range(1, SIZE)]
    wires = {f"r{number}-eth1": f"r{number % SIZE + 1}-eth2" for number in range(1, SIZE + 1)}

    def all_adjacent() -> bool:
        return [router.adjacencies() for router in ring] == [2] * SIZE

    def back_and_silent() -> None:
        poll(all_adjacent, what="OSPF and BFD between all neighbours", interval=0.1)
        watch.assert_nothing_learnt()

    # The routers are there first, one is late, and the host has learnt what it should not.
    poll(lambda: watch.default_routes() == SIZE - 1, what="the host takes what it hears")
    file = (
        f"defaults: {{carrier: independent}}\n{document(wires)}"  # else what waits sees no frames
    )
    kept = daemon(file, "--on-exit", "keep")
    watch.wait_forgotten()
    wait_frames(lab, "r5-eth1")
    watch.assert_nothing_learnt()
    ring.append(Router(lab, SIZE))
    back_and_silent()

    # The daemon crashes, and is restarted.
    kept.crash()
    back_and_silent()
    kept.stop()
    running = daemon(file)
    back_and_silent()

    # A container is deleted, the ends of its neighbours wait, and it is made again.
    ring[2].delete()
    poll(lambda: ring[1].adjacencies() == ring[3].adjacencies() == 1, what="the loss", interval=0.1)
    wait_frames(lab, "r2-eth1")
    wait_frames(lab, "r4-eth2")
    watch.assert_nothing_learnt()
    ring[2].start()
    back_and_silent()

    # The daemon is stopped: ends of four routers, which it found up, are the host's. It is started.
    running.stop()
    poll(lambda: watch.default_routes() >= SIZE - 2, what="the host takes what it hears")
    running.start()
    watch.wait_forgotten()
    back_and_silent()
    running.assert_no_traceback()


def wait_frames(lab: Lab, end: str) -> None:
    """Wait until a router has said something on an end that leads nowhere at the moment."""
    before = lab.link_counters(end)
    poll(lambda: lab.link_counters(end) > before + 3, what=f"frames of a router on {end}")
