"""Ten containers without a network and a file of names: what their engine does to them, healed.

Docker and Podman are real ones, each in the host's namespace of a lab. Who is restarted comes back
to the same wire, and nobody beside it loses a frame.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from netns.carrier import Card
from netns.lab import NETNS, Lab, Station, holds, inside, poll, run
from netns.service import Daemon
from netns.traffic import Port, Stream, datagrams, lossless, passes, transfer, wait_flows, wired
from pyroute2 import IPRoute

from .engines import ENGINES, Engine, docker
from .test_hostile_container import HOSTILE_NAMES

COUNT: Final = 10
NAMES: Final = [f"leaf{number}" for number in range(COUNT)]
RING: Final = {f"{a}:eth2": f"{b}:eth1" for a, b in zip(NAMES, NAMES[1:] + NAMES[:1], strict=True)}
_CLONE_NEWNET: Final = 0x40000000
_MS_BIND: Final = 0x1000
_libc = ctypes.CDLL(None, use_errno=True)
HEALED: Final = 0.05
"""Seconds from the moment that a namespace is there until frames cross, in 99 of 100 cases."""
ROUNDS: Final = 5
TOLD: Final = {"docker": 0.0, "podman": 0.3}
"""Seconds until the engine itself tells: Podman 4.3 looks at its own log four times a second
(libpod/events/logfile.go), unless that is systemd's journal."""


class Site:
    """Ten containers in a ring, and the daemon that was given nothing but their names."""

    def __init__(self, lab: Lab, engine: Engine) -> None:
        self.lab = lab
        self.engine = engine
        for name in NAMES:
            engine.run(name)
        self.daemon = Daemon(lab, RING, through=_as_variables(engine)).start()
        self.wait_whole()

    def restore(self) -> None:
        """As it was at first, whatever a test has done to it."""
        if self.daemon.returncode is not None:
            self.daemon.start()
        there = self.engine("ps", "--format", "{{.Names}}").split()
        for name in set(NAMES) - set(there):
            self.replace(name)
        self.daemon.write(RING)
        self.wait_whole()

    def replace(self, name: str) -> None:
        """By another container with its name."""
        self.engine("rm", "--force", name, check=False)
        self.engine.run(name)

    def restart(self, name: str) -> None:
        self.engine("restart", "--time", "0", name)

    def station(self, name: str, interface: str) -> Station:
        """Of the container as it is now."""
        place = f"/proc/{self.engine.pid_of(name)}/ns/net"
        return Station(place, "", interface=interface)

    def stations(self, link: str) -> tuple[Station, Station]:
        """The two ends of a link of ``RING``, by its first one."""
        ends = [end.split(":") for end in (link, RING[link])]
        return self.station(*ends[0]), self.station(*ends[1])

    def card(self, name: str, interface: str) -> Card:
        return Card(f"/proc/{self.engine.pid_of(name)}/ns/net", interface)

    def states(self) -> dict[str, str]:
        return {x["link"]: x["state"] for x in self.daemon.ask("status")["links"]}

    def black_holes(self) -> list[str]:
        """Links that do not carry frames both ways between the containers of the file."""
        return [link for link in RING if not wired(*self.stations(link))]

    def wait_whole(self) -> None:
        wanted = {"connected"}
        try:
            poll(lambda: set(self.states().values()) == wanted, what="all links connected")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.states()}\n{self.daemon.text()}") from None
        assert self.black_holes() == []

    def ends(self, name: str) -> list[tuple[str, int]]:
        """MAC and MTU of a container's interfaces."""
        return sorted((x["address"], x["mtu"]) for x in self.links(name))

    def links(self, name: str) -> list[dict[str, Any]]:
        shown = run("ip", "-j", "link", namespace=f"/proc/{self.engine.pid_of(name)}/ns/net").stdout
        return [x for x in json.loads(shown) if x["ifname"] != "lo"]


def _as_variables(engine: Engine) -> tuple[str, ...]:
    return ("env", *(f"{name}={value}" for name, value in engine.surroundings.items()))


@pytest.fixture(scope="module", params=ENGINES)
def running(request: pytest.FixtureRequest) -> Iterator[Site]:
    with Lab() as lab, ENGINES[request.param](lab) as engine:
        yield Site(lab, engine)


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    yield running
    running.restore()
    running.daemon.assert_no_traceback()


@contextmanager
def beside(site: Site) -> Iterator[None]:
    """Meanwhile numbered frames, TCP and UDP cross between others than the first three."""
    a, b = site.stations(f"{NAMES[5]}:eth2")
    c, d = site.stations(f"{NAMES[7]}:eth2")
    c.use_address(1)
    d.use_address(2)
    over: list[bool] = []

    def talk() -> int:
        for count in itertools.count(1):
            transfer(c, d, size=1 << 20)
            datagrams(d, c)
            if over:
                return count
        raise AssertionError

    with lossless(a, b), ThreadPoolExecutor(1) as thread:
        talked = thread.submit(talk)
        try:
            yield
        finally:
            over.append(True)
            assert talked.result() > 0
    for each in (c, d):
        each.ip(f"address flush dev {each.interface}")


def test_who_is_restarted_or_replaced_comes_back_to_its_wires(site: Site) -> None:
    """With the MACs and MTUs that it had; the frames of others go on."""
    name = NAMES[1]
    before = site.ends(name)
    assert len(before) == 2
    with beside(site):
        for renew in (site.restart, site.replace, site.restart):
            renew(name)
            site.wait_whole()
            assert site.ends(name) == before


def test_the_other_side_sees_its_carrier_go_and_come(site: Site) -> None:
    with closing(site.card(NAMES[2], "eth1")) as neighbour:
        assert neighbour.carrier
        site.engine("stop", "--time", "0", NAMES[1])
        poll(lambda: not neighbour.carrier, what="no carrier beside a container that is stopped")
        reason = f"node {NAMES[1]} is not running"
        poll(lambda: reason in site.daemon.link(*_ends(f"{NAMES[1]}:eth2"))["reason"], what=reason)
        assert len(site.lab.interfaces()) == 2 * COUNT - 2
        site.engine("start", NAMES[1])
        poll(lambda: neighbour.carrier, what="its carrier, when that runs again")


def _ends(end: str) -> tuple[str, str]:
    return end, RING[end]


def test_a_restart_is_healed_when_the_command_returns(site: Site) -> None:
    """What the user sees who waits for it: a wire that is no later than its engine."""
    name, end = NAMES[3], f"{NAMES[3]}:eth2"
    late = []
    for _ in range(20):
        before = site.daemon.link(*_ends(end))["a"]["ifindex"]
        site.restart(name)
        start = time.monotonic()
        poll(lambda: _is_new(site.daemon.link(*_ends(end)), before), interval=0.001)  # noqa: B023
        late.append(time.monotonic() - start)
        assert wired(*site.stations(end))
    print(f"{site.engine.name}: " + ", ".join(f"{each * 1000:.0f}" for each in late) + " ms")
    assert sorted(late)[len(late) // 2] < TOLD[site.engine.name] + HEALED


def _is_new(link: dict[str, Any], before: int) -> bool:
    return link["state"] == "connected" and link["a"]["ifindex"] != before


def test_one_node_redeployed_alone_leaves_no_black_hole(site: Site) -> None:
    """Each in its turn, as `containerlab deploy --reconfigure` of one node does (#3379)."""
    for name in NAMES:
        site.replace(name)
        poll(lambda: set(site.states().values()) == {"connected"}, what=f"links of {name}")
        assert site.black_holes() == [], name


def test_the_name_is_what_counts(site: Site) -> None:
    """A container that is renamed is another node; another one gets its wires, as soon as it has
    its name."""
    name, end = NAMES[4], f"{NAMES[4]}:eth2"
    site.engine("rename", name, "other")
    try:
        site.daemon.wait_state(*_ends(end), "waiting")
        assert site.links("other") == []
        site.engine.run(name)
        site.daemon.wait_state(*_ends(end), "connected")
        assert wired(*site.stations(end))
    finally:
        site.engine("rm", "--force", "other")


def test_a_container_that_is_paused_keeps_its_wires(site: Site) -> None:
    name = NAMES[4]
    with lossless(*site.stations(f"{name}:eth2")):
        since = site.daemon.mark()
        site.engine("pause", name)
        holds(lambda: set(site.states().values()) == {"connected"}, 0.5)
        site.engine("unpause", name)
        site.daemon.idle()
    assert not [x for x in site.daemon.events(since=since) if x["event"].startswith("link.")]


def test_frames_go_on_without_the_daemon_and_the_next_one_takes_them_over(site: Site) -> None:
    """What it made too: the very interfaces. What went meanwhile is made anew."""
    before = site.lab.links()
    with beside(site):
        site.daemon.kill()
        site.restart(NAMES[1])
        site.daemon.start()
        site.wait_whole()
    numbers = {name: link["ifindex"] for name, link in site.lab.links().items()}
    assert numbers.keys() == before.keys()
    changed = {name for name, number in numbers.items() if number != before[name]["ifindex"]}
    assert changed == {f"{NAMES[1]}-eth1", f"{NAMES[1]}-eth2"}


def test_a_crash_of_the_engine_and_its_return_are_survived(site: Site) -> None:
    """Wires carry while nobody knows of containers. Docker's are stopped by its next start, since
    nobody told it to leave them running; Podman's do not notice."""
    stream = Stream(*site.stations(f"{NAMES[5]}:eth2"))
    with stream:
        wait_flows(stream)
        site.engine.kill()
        holds(lambda: set(site.states().values()) == {"connected"}, 2)
        stream.assert_perfect()
    site.engine.start()
    for name in NAMES:
        site.engine("start", name)
    site.wait_whole()


def test_an_engine_with_live_restore_returns_to_the_same_wires(lab: Lab) -> None:
    """And tells of what happens then."""
    with docker(lab, "--live-restore") as engine:
        names = NAMES[:2]
        for name in names:
            engine.run(name)
        ends = ("leaf0:eth1", "leaf1:eth1")
        daemon = Daemon(lab, dict([ends]), through=_as_variables(engine)).start().connected(*ends)
        a, b = (Station(f"/proc/{engine.pid_of(x)}/ns/net", "", interface="eth1") for x in names)
        with lossless(a, b):
            for _ in range(3):
                engine.kill()
                time.sleep(0.5)
                engine.start()
            time.sleep(1)
        since = daemon.mark()
        engine("restart", "--time", "0", "leaf0")
        daemon.wait_link("waiting", *ends, since=since)
        daemon.wait_link("connected", *ends, since=since)
        daemon.stop()
        assert lab.interfaces() == []


def test_what_a_container_calls_its_things_reaches_no_terminal(site: Site) -> None:
    """It puts something else into the place of its interface, under names that are commands."""
    name = NAMES[6]
    place = f"/proc/{site.engine.pid_of(name)}/ns/net"
    for hostile in HOSTILE_NAMES:
        _rename(place, "eth1", hostile)
        poll(lambda: set(site.states().values()) <= {"connected", "failed", "down", "waiting"})
        for command in (("status", "-v"), ("plan",), ("graph",), ("graph", "--format", "svg")):
            done = site.daemon.cli(*command, by=_as_variables(site.engine))
            for text in (done.stdout, done.stderr):
                bad = [x for x in text if not x.isprintable() and x != "\n"]
                assert not bad, (command, hostile, text)
        _rename(place, hostile, "eth1")
    assert not [x for x in site.daemon.text() if not x.isprintable() and x != "\n"]


def _rename(place: str, old: str, new: str) -> None:
    def rename() -> None:
        with IPRoute() as route:
            (index,) = route.link_lookup(ifname=old)
            route.link("set", index=index, ifname=new)

    inside(place, rename)


def test_a_stop_takes_along_all_that_it_made(site: Site) -> None:
    site.daemon.stop()
    assert site.lab.interfaces() == []
    assert [site.links(name) for name in NAMES] == [[]] * COUNT


def test_a_host_network_is_refused(site: Site) -> None:
    site.engine.run("hosted", network="host")
    try:
        site.daemon.write({**RING, "hosted:eth1": "leaf0:eth9"})
        link = site.daemon.wait_state("hosted:eth1", "leaf0:eth9", "failed")
        assert "name its interfaces without the node" in link["reason"]
    finally:
        site.engine("rm", "--force", "hosted")


# ----------------------------------------------------------------------------- times


def test_a_namespace_that_is_back_has_its_wire_within_50_ms(lab: Lab) -> None:
    """Of 100 times, 99: from the mount of its name to a frame from in there at the other side.

    Who else uses the machine can only add to that, so the best of some rounds counts.
    """
    other = lab.veth("other")
    name = f"{lab.name}-node"
    lab.on_close(lambda: run("ip", "netns", "delete", name, check=False))
    daemon = Daemon(lab, {f"{name}:eth1": "other"}).start()

    def once(port: Port, thread: ThreadPoolExecutor) -> float:
        took = thread.submit(_first_frame, name, port).result()
        run("ip", "netns", "delete", name)
        poll(lambda: lab.interfaces() == ["other"], what="no interface of a dead namespace")
        poll(lambda: daemon.states() == {"waiting"})
        return took

    slowest = []
    with other.port() as port, ThreadPoolExecutor(1) as thread:
        while len(slowest) < ROUNDS and min(slowest, default=HEALED + 1) > HEALED:
            took = sorted(once(port, thread) for _ in range(100))
            print(f"median {took[50] * 1000:.1f} ms, 99th {took[98] * 1000:.1f}")
            slowest.append(took[98])
    assert min(slowest) <= HEALED
    daemon.stop()


def _first_frame(name: str, port: Port) -> float:
    """Seconds from the birth of a namespace until a frame of its eth1 comes out of ``port``."""
    with new_namespace(name):
        start = time.monotonic()
        poll(_has_eth1, what="eth1", interval=0.001)
        with Port("eth1") as inside_it:
            poll(lambda: passes(inside_it, port, 0), what="a frame from in there", interval=0)
        return time.monotonic() - start


def _has_eth1() -> bool:
    return any(name == "eth1" for _, name in socket.if_nameindex())


@contextmanager
def new_namespace(name: str) -> Iterator[None]:
    """As ``ip netns add`` makes it, without a process that is yet to end; the thread is inside."""
    path = NETNS / name
    path.touch()
    with Path("/proc/thread-self/ns/net").open() as here:
        _must(_libc.unshare(_CLONE_NEWNET))
        try:
            _must(_libc.mount(b"/proc/thread-self/ns/net", bytes(path), b"none", _MS_BIND, None))
            yield
        finally:
            _must(_libc.setns(here.fileno(), _CLONE_NEWNET))


def _must(answer: int) -> None:
    if answer:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
