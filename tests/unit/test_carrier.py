"""What the ends of a link show: the law, and that every way through events and crashes ends in it.

The law is written here a second time, from what an operator and a container see.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from builders import link, veth, wiring
from driven import Keeper
from kernel import Crash, Kernel, Step, crash, no_trouble

from xconnectd.model import (
    Admin,
    Carrier,
    Change,
    Far,
    Interface,
    Link,
    Observed,
    Record,
    Scope,
    Setting,
    Use,
)
from xconnectd.monitor_address import MonitorAddress
from xconnectd.reconcile import carrier

FOLLOWS, INDEPENDENT = link("a", "b"), link("a", "b", carrier=Carrier.INDEPENDENT)
OF_NICS = link("a", "b", carrier_of_nics=True)
DOWN = Far(2, 0, "eth0", 1500, False)
UP = DOWN._replace(up=True)
UNKNOWN = Far(2, 0)


def tap(ifindex: int, name: str, **facts: Any) -> Interface:
    return Interface(ifindex, name, kind="tun", variant="tap", **{"up": True, **facts})


def nic(ifindex: int, name: str, **facts: Any) -> Interface:
    return Interface(ifindex, name, **{"up": True, "carrier": True, **facts})


def held(end: Interface, setting: Setting | None = None, found: int = 1) -> Record:
    changes = {setting: Change(found, 0)} if setting else {}
    return Record(end.ifindex, end.name, end.mac, changes)


A, B = veth(5, "a", far=UP), veth(6, "b", far=UP)
AWAY = B._replace(far=DOWN)
SET_DOWN = B._replace(up=False)
SAYS_DOWN = "eth0, the far end of b, is down"
IN_LEAF1 = {"a": "eth0 in leaf1 is down", "b": ""}
CLOSED = {"a": "nothing has t open", "t": ""}


def causes(one: Link, a: Interface, b: Interface, *records: Record, **more: Any) -> dict[str, str]:
    """By name why an end shows no carrier; ends that have no say are left out."""
    records_ = {each.ifindex: each for each in records}
    ends = {end.ifindex: end for end in (a, b)}
    names = {end.name: end.ifindex for end in (a, b)}
    observed = Observed(interfaces=ends, names=names, records=records_, **more).told_apart()
    shown = carrier.shown(one, a, b, "", observed)
    return {end.name: shown[end.ifindex].cause for end in (a, b) if not shown[end.ifindex].own}


@pytest.mark.parametrize(
    ("a", "b", "records", "found"),
    [
        (A, B, (), {"a": "", "b": ""}),
        (A, AWAY, (), {"a": SAYS_DOWN, "b": ""}),
        (A, AWAY._replace(far=DOWN._replace(namespace="leaf1")), (), IN_LEAF1),
        (A, SET_DOWN, (held(B),), {"a": "b is administratively down", "b": ""}),
        (A, SET_DOWN, (held(B)._replace(settled=False),), {"a": "", "b": ""}),
        (A, SET_DOWN, (held(B, Setting.UP),), {"a": "", "b": ""}),
        (A, tap(6, "t"), (), CLOSED),
        (A, tap(6, "t", carrier=True), (), {"a": "", "t": ""}),
        (A, tap(6, "t"), (held(tap(6, "t"), Setting.CARRIER),), {"a": "", "t": ""}),
        (A, tap(6, "t"), (held(tap(6, "t"), Setting.CARRIER, 0),), CLOSED),
        (A, nic(6, "n"), (), {"a": ""}),
        (A, nic(6, "n", carrier=False), (), {"a": "n has no carrier"}),
        (A, B._replace(far=UNKNOWN, carrier=False), (), {"a": "b has no carrier", "b": ""}),
    ],
    ids=[
        *("both alive", "far end down", "its namespace has a name", "set down by somebody"),
        *("found down and not set up yet", "set down by us", "a tap nobody has open"),
        *("an open tap", "a tap we took the carrier from", "one that was closed then"),
        *("a NIC has no say", "a NIC without a carrier", "a far end that cannot be read"),
    ],
)  # fmt: skip
def test_an_end_shows_what_is_behind_its_partner(
    a: Interface, b: Interface, records: tuple[Record, ...], found: dict[str, str]
) -> None:
    assert causes(FOLLOWS, a, b, *records) == found


def test_where_a_link_has_no_say() -> None:
    assert causes(INDEPENDENT, A, AWAY) == {}
    assert causes(link("a", "b", admin=Admin.KEEP), A, AWAY) == {}
    used = {
        5: (Use("it has the address 198.51.100.1/24"),),
        6: (Use("fe80::/64 by a router", learnt=True),),
    }
    assert causes(FOLLOWS, A, AWAY, uses=used) == {"b": ""}, "the host would lose its routes"


@pytest.mark.parametrize(
    ("one", "reasons"),
    [
        (link("a", "n"), ("", "it is set down only where its link itself says carrier: follow")),
        (link("a", "n", carrier_of_nics=True), ("", "")),
        (link("a", "n", carrier=Carrier.INDEPENDENT), ("carrier: independent",) * 2),
        (link("a", "n", admin=Admin.KEEP), ("admin: keep",) * 2),
    ],
)
def test_status_says_why_an_end_keeps_its_own(one: Link, reasons: tuple[str, str]) -> None:
    kernel = Kernel()
    kernel.add("a")
    kernel.add("n", "nic")
    (status,) = Keeper(kernel).start(wiring(one)).reconciler.statuses.values()
    assert (status.a.carrier_reason, status.b.carrier_reason) == reasons
    ends = [(end.shows_carrier is None) == bool(end.carrier_reason) for end in (status.a, status.b)]
    assert all(ends)


def test_a_machine_is_told_also_where_there_is_no_lever_and_what_is_wrong_is_a_warning() -> None:
    address = MonitorAddress.parse("qmp:/run/r1.sock#net0")
    one = link("a", "n", monitors=(("n", address),))
    assert causes(one, A._replace(far=DOWN), nic(6, "n"))["n"].startswith("eth0, the far end of a")
    kernel = Kernel()
    kernel.add("a")
    kernel.add("n", "nic")
    keeper = Keeper(kernel).start(wiring(one))
    assert keeper.reconciler.guest_carriers() == {address: True}
    kernel.alter("a", far=DOWN)
    keeper.settle()
    assert keeper.reconciler.guest_carriers() == {address: False}
    kernel.alter("n", up=False)
    keeper.settle()
    assert keeper.reconciler.guest_carriers() == {address: False}, "a NIC that is down may have one"
    kernel.alter("n", up=True)
    keeper.settle()
    keeper.reconciler.monitor_errors = lambda: {address: "no answer"}
    keeper.reconciler.run(Scope(keeper.reconciler.monitored), "netlink")
    (warning,) = keeper.reconciler.statuses["a:n"].warnings
    assert warning == "n: the machine behind it is not told of its carrier: no answer"
    keeper.take(wiring(link("a", "n", carrier=Carrier.INDEPENDENT)))
    assert keeper.reconciler.guest_carriers() == {}
    kernel.add("t", "tap")
    keeper.take(wiring(link("a", "t", monitors=(("t", address),))))
    assert keeper.reconciler.guest_carriers() == {address: False}
    kernel.closed.add(kernel.index("t"))
    kernel.alter("a", far=UP)
    keeper.settle()
    assert keeper.reconciler.guest_carriers() == {}, "nothing has the tap open"


def test_a_link_that_does_not_forward_shows_why() -> None:
    alone = Observed(interfaces={5: A}).told_apart()
    shown = carrier.shown(FOLLOWS, A, None, "b does not exist", alone)
    assert shown == {5: carrier.Shown(Setting.UP, "b does not exist")}
    assert carrier.shown(FOLLOWS, A, A, "", alone) == {5: carrier.Shown(Setting.UP)}


def test_two_nics_without_a_carrier_do_not_hold_each_other_down() -> None:
    a, b = nic(5, "a", carrier=False), nic(6, "b", carrier=False)
    assert causes(OF_NICS, a, b) == causes(OF_NICS, b, a) == {"a": "b has no carrier", "b": ""}
    set_down = a._replace(up=False)
    assert causes(OF_NICS, set_down, b, held(a, Setting.UP)) == {"a": "b has no carrier", "b": ""}
    alive = b._replace(carrier=True)
    assert causes(OF_NICS, set_down, alive, held(a, Setting.UP)) == {"a": "", "b": ""}


def test_an_operators_up_on_an_end_that_shows_none_is_told_as_his() -> None:
    kernel = Kernel()
    kernel.add("a")
    kernel.add("b", far=DOWN)
    keeper = Keeper(kernel).start(wiring("a:b"))
    assert not kernel.get("a").up
    kernel.alter("a", up=True)
    keeper.settle()
    assert kernel.get("a").up
    end = keeper.reconciler.statuses["a:b"].a
    assert (end.shows_carrier, end.carrier_reason) == (True, "somebody else has set it up")
    (told,) = (each for each in keeper.log if each["event"] == "carrier.shown")
    assert told["reason"] == "somebody else has set it up"


# --------------------------------------------------------------------------- every way ends in it


class Lab:
    """Two links on the fake kernel, each between a veth and another end, and who plays with them.

    ``wants_down`` are the ends that an operator set down himself, ``left_up`` those that he set up
    though they are to show nothing. ``known_open`` are taps as far as anybody can know: one that
    was open when it was given no carrier is not seen to be closed.
    """

    def __init__(self, kind: str, chance: random.Random) -> None:
        self.kernel, self.chance = Kernel(), chance
        self.names = ("a", "b", "c", "d")
        for name in self.names:
            self.kernel.add(name, kind if name in "bd" else "veth")
        self.wanted = wiring("a:b", "c:d")
        self.keeper = Keeper(self.kernel).start(self.wanted)
        self.wants_down: set[str] = set()
        self.left_up: set[str] = set()
        self.known_open = {*self.names}

    def offers(self, name: str) -> bool:
        device = self.kernel.get(name)
        if device.variant == "tap":
            return name in self.known_open if not self.law(name) else self.is_open(name)
        return bool(device.far and device.far.up)

    def is_open(self, name: str) -> bool:
        return self.kernel.index(name) not in self.kernel.closed

    def law(self, name: str) -> bool:
        one = next(each for each in self.wanted.links if name in (each.a.name, each.b.name))
        partner = one.b.name if name == one.a.name else one.a.name
        return one.enabled and partner not in self.wants_down and self.offers(partner)

    def shows(self, name: str) -> bool:
        device = self.kernel.get(name)
        return device.carrier if device.variant == "tap" else device.up

    def act(self) -> None:
        name = self.chance.choice(self.names)
        device = self.kernel.get(name)
        match self.chance.choice(("far", "far", "admin", "file", "crash", "restart")):
            case "far" if device.variant == "tap":
                opens = device.ifindex in self.kernel.closed
                self.kernel.closed ^= {device.ifindex}
                self.kernel.alter(name, carrier=opens)
                self.known_open |= {name} if opens else set()
            case "far" if device.far:
                self.kernel.alter(name, far=device.far._replace(up=not device.far.up))
            case "admin":
                self._operate(name)
            case "file":
                flipped = [
                    link(each.a.name, each.b.name, enabled=each.enabled ^ (name in each.id))
                    for each in self.wanted.links
                ]
                self.wanted = wiring(*flipped)
                self._go(lambda: self.keeper.take(self.wanted))
            case "crash":
                self.kernel.trouble = crash(self.chance.randrange(12))
            case "restart":
                self._restart()
        if self.chance.random() < 0.7:  # else the news come together with the next
            self._go(self.keeper.settle)

    def _operate(self, name: str) -> None:
        """An end that is up is set down, and the other way round, while all is quiet."""
        self._go(self.keeper.settle)
        up = not self.kernel.get(name).up
        if up and name not in self.wants_down:
            self.left_up.add(name)
        elif up:
            self.wants_down.discard(name)
        elif name in self.left_up:  # as we had it
            self.left_up.discard(name)
        else:
            self.wants_down.add(name)
        self.kernel.alter(name, up=up)
        self._go(self.keeper.settle)

    def _go(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Crash:
            self._restart()

    def _restart(self) -> None:
        self.kernel.trouble = no_trouble
        self.keeper = self.keeper.restart().start(self.wanted)
        self.keeper.settle()

    def rest(self) -> None:
        self.kernel.trouble = no_trouble
        self.keeper.settle()
        for name in self.names:
            if self.law(name):
                self.left_up.discard(name)  # what he wanted is so
                self.known_open -= set() if self.is_open(name) else {name}

    def check(self) -> None:
        for name in self.names:
            if name in self.wants_down:
                assert not self.kernel.get(name).up, f"{name} was set down by an operator"
            elif name not in self.left_up:
                assert self.shows(name) == (self.law(name) and self.is_open(name)), name


@pytest.mark.parametrize("kind", ["veth", "tap"])
@pytest.mark.parametrize("seed", range(60))
def test_every_way_ends_in_the_law(kind: str, seed: int) -> None:
    lab = Lab(kind, random.Random(seed))
    for _ in range(25):
        lab.act()
        lab.rest()
        lab.check()


def test_a_far_end_that_goes_while_its_end_is_set_up_is_seen() -> None:
    """What is read again after a change is as it was, but for what the kernel told meanwhile."""
    kernel = Kernel()
    for name in ("a", "b"):
        kernel.add(name, "veth")
    keeper = Keeper(kernel).start(wiring("a:b"))
    far_of = {name: kernel.get(name).far or UP for name in ("a", "b")}

    def far(name: str, *, up: bool) -> None:
        kernel.alter(name, far=far_of[name]._replace(up=up))

    def goes(_number: int, step: Step) -> BaseException | None:
        if step == Step("set up", kernel.index("b")):
            kernel.trouble = no_trouble
            far("b", up=False)
        return None

    far("a", up=False)
    keeper.settle()
    assert not kernel.get("b").up
    kernel.trouble = goes
    far("a", up=True)
    keeper.settle()
    assert kernel.trouble is no_trouble, "it has gone"
    assert (kernel.get("a").up, kernel.get("b").up) == (False, True)
