"""What ``interfaces``, ``host_use`` and ``ethtool`` see of interfaces on the real kernel."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest
from pyroute2 import IPRoute

from xconnectd.dataplane import libbpf
from xconnectd.errors import LinkError
from xconnectd.model import Mode, Use
from xconnectd.netlink import ethtool
from xconnectd.netlink.changes import Changes
from xconnectd.netlink.host_use import HostUse
from xconnectd.netlink.interfaces import Interfaces
from xconnectd.netlink.transport import Route

from .lab import PROG_XDP, XDP_PASS, Lab, inside, poll, run

NO_UTF8 = os.fsdecode(b"x\xff")


@pytest.fixture
def route(lab: Lab) -> Iterator[Route]:
    with closing(inside(lab.host, Route)) as opened:
        yield opened


@pytest.fixture
def interfaces(route: Route) -> Interfaces:
    return Interfaces(route)


@pytest.fixture
def host_use(route: Route, interfaces: Interfaces) -> HostUse:
    return HostUse(route, interfaces)


def test_a_name_that_is_no_utf8_is_a_name(lab: Lab, interfaces: Interfaces) -> None:
    long = NO_UTF8 * 10
    lab.pair(NO_UTF8, "vb")
    lab.ip("link", "property", "add", "dev", NO_UTF8, "altname", long)
    (found,) = interfaces.find(NO_UTF8)
    assert (found.name, found.altnames) == (NO_UTF8, (long,))
    assert interfaces.find(long, found.ifindex) == [found, found]
    assert interfaces.find("vc", long * 5, 999) == []


def test_a_driver_is_asked_by_such_a_name(lab: Lab) -> None:
    """pyroute2 is not: what it would tell is not known then, and nothing breaks."""
    lab.tap("tap0")
    lab.ip("link", "set", "tap0", "name", NO_UTF8)
    assert inside(lab.host, lambda: ethtool.driver(NO_UTF8)) == "tun"
    assert inside(lab.host, lambda: ethtool.features(NO_UTF8)) == frozenset()
    with pytest.raises(OSError, match="UTF-8"):
        inside(lab.host, lambda: ethtool.change_feature(NO_UTF8, "rx-gro", on=False))


def test_our_own_namespace_is_not_elsewhere(
    lab: Lab, interfaces: Interfaces, host_use: HostUse
) -> None:
    """It gets an id for itself as soon as somebody looks at what stands on it from elsewhere."""
    box = lab.namespace("box")
    lab.ip("link", "add", "va", "type", "ifb")
    lab.ip("link", "add", "link", "va", "name", "mv0", "type", "macvlan")
    lab.ip("link", "set", "mv0", "netns", box)
    uses = inside(lab.host, lambda: host_use.uses(interfaces.all().values()))
    assert uses[lab.ifindex("va")] == (Use("mv0 of another namespace stands on it"),)
    assert inside(lab.host, interfaces.own_nsid) is not None
    names = inside(lab.host, lambda: sorted(each.name for _, each in interfaces.elsewhere()))
    assert names == ["lo", "mv0"]


def test_what_stands_elsewhere_on_another_device_of_that_number(
    lab: Lab, interfaces: Interfaces, host_use: HostUse
) -> None:
    """As long as ours has no id for itself, nothing of another namespace stands on it."""
    lab.ip("link", "add", "va", "index", "77", "type", "ifb")
    away = lab.namespace("away")
    lab.ip("netns", "set", away, "5")
    run("ip", "link", "add", "under", "index", "77", "type", "ifb", namespace=away)
    lower = ("link", "add", "link", "under", "name", "mv0", "type", "macvlan")
    run("ip", *lower, namespace=away)
    (found,) = interfaces.find("va")
    assert inside(lab.host, interfaces.own_nsid) is None
    assert inside(lab.host, lambda: host_use.uses([found])) == {77: ()}
    assert "mv0" in inside(lab.host, lambda: [each.name for _, each in interfaces.elsewhere()])


MANY = 2000
"""A dump of so many takes longer than it takes to make a device and to delete one."""


class Churn:
    """New devices without end (``new0``, ``new1``, …), and every tenth time one goes (``old0``, …).

    Attributes:
        rounds: how many so far.
    """

    def __init__(self, lab: Lab) -> None:
        lab.batch(f"link add old{n} type ifb" for n in range(MANY))
        self._over = multiprocessing.Event()
        self._rounds = multiprocessing.Value("L", 0)
        self._process = multiprocessing.Process(target=inside, args=(lab.host, self._run))
        self._process.start()
        lab.on_close(self.stop)
        poll(lambda: self.rounds > 2)

    @property
    def rounds(self) -> int:
        return int(self._rounds.value)

    def stop(self) -> None:
        self._over.set()
        self._process.join()

    def _run(self) -> None:
        with IPRoute() as route:
            while self.rounds < MANY and not self._over.is_set():
                route.link("add", ifname=f"new{self.rounds}", kind="ifb")
                if self.rounds % 10 == 0:
                    route.link("del", ifname=f"old{self.rounds}")
                self._rounds.value += 1
                time.sleep(0.002)


def test_a_dump_ends_while_devices_come_and_go_without_end(
    lab: Lab, interfaces: Interfaces
) -> None:
    """Every dump is marked as interrupted then; the answer lacks nothing and has nothing stale."""
    lab.hush()
    churn = Churn(lab)
    with ThreadPoolExecutor(1) as thread:
        for _ in range(4):
            rounds = churn.rounds
            asked = thread.submit(inside, lab.host, interfaces.all)
            try:
                found = {each.name for each in asked.result(20).values()}
            finally:
                ended = churn.rounds == MANY
                if not asked.done():
                    churn.stop()
            assert not ended, "it was not asked while devices came and went"
            made = {f"new{n}" for n in range(rounds)}
            left = {f"old{n}" for n in range(MANY) if n % 10 or n > churn.rounds}
            assert {"lo", *made, *left} <= found
            assert not {f"old{n}" for n in range(0, rounds, 10)} & found


def test_a_program_of_somebody_else_is_neither_replaced_nor_taken_off(
    lab: Lab, route: Route, interfaces: Interfaces, host_use: HostUse
) -> None:
    """One that came after the look: the kernel itself is told which program is meant."""
    lab.pair("va", "vb")
    ours, newer, theirs = (
        lab.program(PROG_XDP, XDP_PASS, name) for name in ("ours", "newer", "theirs")
    )
    (va,), changes = interfaces.find("va"), Changes(route, host_use)
    with ExitStack() as stack:
        fds = [libbpf.open_pin(path) for path in (ours, newer)]
        for fd in fds:
            stack.callback(os.close, fd)
        changes.attach(va, Mode.GENERIC, fds[0], None)
        lab.ip("-force", "link", "set", "dev", "va", "xdpgeneric", "pinned", str(theirs))
        before = interfaces.find("va")[0].xdp
        for change in (
            lambda: changes.detach(va, Mode.GENERIC, fds[0]),
            lambda: changes.attach(va, Mode.GENERIC, fds[1], None),
            lambda: changes.attach(va, Mode.GENERIC, fds[1], fds[0]),
        ):
            with pytest.raises(LinkError):
                change()
    assert interfaces.find("va")[0].xdp == before
