"""The carrier follows: when what is behind one end goes, what is behind the other sees it.

Everything here is seen from inside the other container, as ``ip monitor link`` prints it there.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from .carrier import Card, Container, nobody_hears
from .lab import Lab, inside, poll, run
from .service import Daemon
from .traffic import Tap

Shared = Callable[[str | dict[str, str]], Daemon]
WIRE = {"va": "vb"}
UNPLUGGED = "links: {va: {to: vb, enabled: false}}\n"


@pytest.fixture
def a(lab: Lab) -> Container:
    return Container(lab, "va")


@pytest.fixture
def b(lab: Lab) -> Container:
    return Container(lab, "vb")


def connected(running: Daemon, *pairs: tuple[str, str]) -> None:
    for pair in pairs or (("va", "vb"),):
        running.wait_state(*pair, "connected")


def test_a_far_end_that_is_down_takes_the_carrier_away(
    lab: Lab, shared: Shared, a: Container, b: Container
) -> None:
    with nobody_hears(running := shared(WIRE), a, b):
        connected(running)
    for one, other in ((a, b), (b, a)):
        with one.hears(carrier=False):
            other.far.set(up=False)
        why = f"eth0 in {other.namespace} is down"
        link = running.wait_state("va", "vb", "down")
        assert link["reason"] == f"no carrier is shown at {one.end}: {why}"
        ends = {link[end]["name"]: link[end] for end in ("a", "b")}
        assert ends[one.end]["shows_carrier"] is False
        assert ends[other.end]["offers"] is False
        told = running.wait_event("carrier.hidden", interface=one.end)
        assert (told["link"], told["ifindex"]) == (link["link"], lab.ifindex(one.end))
        assert why in told["reason"]
        with one.hears(carrier=True):
            other.far.set(up=True)
        running.wait_event("carrier.shown", interface=one.end)
        link = running.wait_state("va", "vb", "connected")
        assert [link[end][key] for end in "ab" for key in ("shows_carrier", "offers")] == [True] * 4
    with nobody_hears(running, a, b):
        running.signal(1)


def test_a_container_that_dies_takes_the_carrier_away(
    shared: Shared, a: Container, b: Container
) -> None:
    """And so does one that is not there yet when the daemon starts."""
    connected(running := shared(WIRE))
    with a.hears(carrier=False):
        b.delete()
    running.wait_state("va", "vb", "waiting")
    with a.hears(carrier=True):
        b.make()
    connected(running)
    with a.hears(carrier=False):
        b.die()
    with a.hears(carrier=True):
        running.stop()
    with a.hears(carrier=False):
        running.start()


def test_a_plug_that_is_pulled_in_the_file(shared: Shared, a: Container, b: Container) -> None:
    connected(running := shared(WIRE))
    with a.hears(carrier=False), b.hears(carrier=False):
        running.write(UNPLUGGED)
    running.wait_state("va", "vb", "disabled")
    with nobody_hears(running, b):
        a.far.set(up=False)
        a.far.set(up=True)
    with a.hears(carrier=True), b.hears(carrier=True):
        running.write(WIRE)
    with a.hears(carrier=False):
        b.far.set(up=False)
    with a.hears(carrier=True):
        running.write("links: {}\n")


def test_a_rewire_shows_what_is_behind_the_new_end(
    lab: Lab, shared: Shared, a: Container, b: Container
) -> None:
    c, d = Container(lab, "vc"), Container(lab, "vd")
    connected(running := shared(WIRE))
    c.far.set(up=False)
    with nobody_hears(running, b), a.hears(carrier=False):
        running.write({"va": "vc"})
    with nobody_hears(running, b, d), a.hears(carrier=True):
        running.write({"va": "vd"})
    c.far.set(up=True)
    with nobody_hears(running, a, b, c, d):
        for wiring in ({"va": "vb"}, {"va": "vc"}, {"va": "vb", "vc": "vd"}):
            running.write(wiring)
            connected(running, *wiring.items())
        for wiring in ({"va": "vd", "vc": "vb"}, {"va": "vc", "vb": "vd"}, {"vb": "va"}):
            running.write(wiring)
            connected(running, *wiring.items())


def test_a_far_end_that_gets_other_queues_is_not_gone(
    lab: Lab, shared: Shared, a: Container, b: Container
) -> None:
    """It loses its carrier for a moment (veth_set_channels in drivers/net/veth.c), but stays up."""
    a.delete()
    two = "numtxqueues 2 numrxqueues 2"
    lab.ip(f"link add va {two} type veth peer name eth0 {two} netns {a.namespace}")
    a.host.set(up=True)
    a.far.set(up=True)
    connected(running := shared(WIRE))
    heard = a.monitor.count()
    with nobody_hears(running, b):
        for count in ("1", "2", "1"):
            run("ethtool", "-L", "eth0", "rx", count, "tx", count, namespace=a.namespace)
    assert a.monitor.count() > heard


def test_news_of_far_ends_that_were_lost_change_nothing(
    lab: Lab, shared: Shared, a: Container, b: Container
) -> None:
    c, d = Container(lab, "vc"), Container(lab, "vd")
    connected(running := shared({"va": "vb", "vc": "vd"}), ("va", "vb"), ("vc", "vd"))

    def lost() -> int:
        table = inside(lab.host, Path("/proc/thread-self/net/netlink").read_text)
        return sum(int(line.split()[8]) for line in table.splitlines()[1:])

    before = lost()
    with c.hears(carrier=False), b.hears(carrier=False):
        running.signal(signal.SIGSTOP)
        while lost() == before:
            for n in range(1000):
                a.far.set(up=bool(n % 2))
        d.far.set(up=False)
        a.far.set(up=False)
        running.signal(signal.SIGCONT)
    with c.hears(carrier=True), b.hears(carrier=True):
        d.far.set(up=True)
        a.far.set(up=True)


# ---------------------------------------------------------------------- a daemon that dies


@dataclass
class Scene:
    """A link between two containers, and the daemon that keeps it."""

    running: Daemon
    a: Container
    b: Container

    def far_end_down(self) -> None:
        self.b.far.set(up=False)

    def far_end_up(self) -> None:
        self.b.far.set(up=True)

    def unplug(self) -> None:
        self.running.write(UNPLUGGED)

    def plug(self) -> None:
        self.running.write(WIRE)

    def container_dies(self) -> None:
        self.b.delete()

    def container_comes(self) -> None:
        self.b.make()

    def operator_down(self) -> None:
        self.b.host.set(up=False)

    def operator_up(self) -> None:
        self.b.host.set(up=True)


@pytest.fixture
def scene(shared: Shared, a: Container, b: Container) -> Scene:
    connected(running := shared(WIRE))
    return Scene(running, a, b)


@pytest.mark.parametrize(
    ("go", "come", "state"),
    [
        (Scene.far_end_down, Scene.far_end_up, "down"),
        (Scene.unplug, Scene.plug, "disabled"),
        (Scene.container_dies, Scene.container_comes, "waiting"),
        (Scene.operator_down, Scene.operator_up, "down"),
    ],
    ids=["far end", "disabled", "waiting", "operator"],
)
def test_a_crash_leaves_what_is_shown_and_the_next_start_takes_it_over(
    scene: Scene, go: Callable[[Scene], None], come: Callable[[Scene], None], state: str
) -> None:
    running, a, b = scene.running, scene.a, scene.b
    with a.hears(carrier=False):
        go(scene)
    running.wait_state("va", "vb", state)
    with nobody_hears(running, a):
        running.kill()
        running.start()
    assert running.link("va", "vb")["state"] == state
    with a.hears(carrier=True):
        come(scene)
    connected(running)
    with nobody_hears(running, a):
        running.kill()
        if state != "waiting":  # the kernel itself says so where there is nobody
            go(scene)
    if state == "waiting":
        go(scene)
    with a.hears(carrier=False):
        running.start()
    with nobody_hears(running, a):
        running.kill()
        come(scene)
    with a.hears(carrier=True):
        running.start()
    connected(running)
    with nobody_hears(running, a, b):
        running.stop()


@pytest.mark.parametrize("go", [Scene.far_end_down, Scene.unplug], ids=["far end", "disabled"])
def test_a_stop_puts_the_carrier_back(
    lab: Lab, shared: Shared, a: Container, b: Container, go: Callable[[Scene], None]
) -> None:
    lab.hush()
    found = lab.settled()
    connected(running := shared(WIRE))
    with a.hears(carrier=False):
        go(Scene(running, a, b))
    running.wait_state("va", "vb", "disabled" if go is Scene.unplug else "down")
    with a.hears(carrier=True):
        running.stop()
    b.far.set(up=True)
    lab.assert_as_found(found)


# ---------------------------------------------------------------------- an operator


def test_an_operator_wins(lab: Lab, shared: Shared, a: Container, b: Container) -> None:
    connected(running := shared(WIRE))
    with a.hears(carrier=False), b.hears(carrier=False):
        lab.ip("link", "set", "va", "down")
    reason = running.wait_state("va", "vb", "down")["reason"]
    assert reason == "no carrier is shown at vb: va is administratively down"
    with nobody_hears(running, a):
        b.far.set(up=False)
        b.far.set(up=True)
    assert not a.host.up, "his, and left alone"
    with a.hears(carrier=True), b.hears(carrier=True):
        lab.ip("link", "set", "va", "up")
    connected(running)
    # What we hide he may show; from the next time on that there is a carrier, it follows again.
    with a.hears(carrier=False):
        b.far.set(up=False)
    with nobody_hears(running, b), a.hears(carrier=True):
        lab.ip("link", "set", "va", "up")
    with nobody_hears(running, a):
        running.signal(1)
        running.idle(0.3)
        running.kill()
        running.start()
    with nobody_hears(running, a):
        b.far.set(up=True)
        connected(running)
    with a.hears(carrier=False):
        b.far.set(up=False)
    # A `down` on what is down says nothing to anybody: ours it is, and stays.
    lab.ip("link", "set", "va", "down")
    with a.hears(carrier=True):
        b.far.set(up=True)


# ---------------------------------------------------------------------- other kinds of ends


def test_a_loopback_shows_itself(shared: Shared, a: Container) -> None:
    with nobody_hears(running := shared({"va": "va"}), a):
        running.wait_state("va", "va", "connected")
    with a.hears(carrier=False):
        running.write("links: {va: {to: va, enabled: false}}\n")
    with a.hears(carrier=True):
        running.write({"va": "va"})
    with a.hears(carrier=True):
        a.far.set(up=False)
        running.wait_state("va", "va", "down")
        running.idle(0.2)
        assert a.host.up
        a.far.set(up=True)
    running.wait_state("va", "va", "connected")


def test_two_wires_that_a_veth_splices_pass_it_on(lab: Lab, shared: Shared, a: Container) -> None:
    """What we set on one's end is what the far end of the other's does."""
    lab.pair("vb", "vc")
    d = Container(lab, "vd")
    running = shared({"va": "vb", "vc": "vd"})
    connected(running, ("va", "vb"), ("vc", "vd"))
    for one, other in ((a, d), (d, a)):
        with one.hears(carrier=False):
            other.far.set(up=False)
        with one.hears(carrier=True):
            other.far.set(up=True)
    for _ in range(8):  # in one pass or in two, as it happens
        for end in (a, d):
            end.far.set(up=False)
            running.idle(0.2)
        for end in (a, d):
            end.far.set(up=True)
        poll(lambda: a.far.carrier and d.far.carrier, 10, "a carrier at both ends")


def test_a_tap_offers_while_it_is_open_and_shows_by_its_carrier(
    lab: Lab, shared: Shared, a: Container
) -> None:
    lab.ip("tuntap", "add", "dev", "tap0", "mode", "tap")
    lab.ip("link", "set", "tap0", "up")
    card = Card(lab.host, "tap0")
    lab.on_close(card.close)

    def shown() -> None:
        running.wait_state("tap0", "va", "connected")
        assert card.carrier

    with a.hears(carrier=False):
        running = shared({"tap0": "va"})
    with a.hears(carrier=True):
        tap = inside(lab.host, lambda: Tap("tap0"))
    lab.on_close(tap.close)
    shown()
    with a.hears(carrier=False):
        tap.close()
    with a.hears(carrier=True):
        tap = inside(lab.host, lambda: Tap("tap0"))
    lab.on_close(tap.close)
    shown()
    a.far.set(up=False)
    poll(lambda: not card.carrier, what="the tap shows none")
    assert card.up, "by its carrier alone"
    assert running.wait_state("tap0", "va", "down")["reason"].startswith("no carrier is shown at t")
    tap.close()  # to open it turns its carrier on: the kernel's doing
    tap = inside(lab.host, lambda: Tap("tap0"))
    lab.on_close(tap.close)
    poll(lambda: not card.carrier, what="the tap shows none, again")
    with nobody_hears(running, a):
        running.kill()
        running.start()
    assert not card.carrier
    a.far.set(up=True)
    poll(lambda: card.carrier, what="the tap shows it")
    shown()
    # Hidden while nobody has it open: what cannot be turned on is no failure.
    a.far.set(up=False)
    poll(lambda: not card.carrier, what="the tap shows none")
    tap.close()
    with a.hears(carrier=False):
        a.far.set(up=True)
    assert running.wait_state("tap0", "va", "down")["state"] == "down"
    with a.hears(carrier=True):
        tap = inside(lab.host, lambda: Tap("tap0"))
    lab.on_close(tap.close)
    shown()
    a.far.set(up=False)
    poll(lambda: not card.carrier, what="the tap shows none")
    running.stop()
    assert card.carrier, "as found"


def test_any_other_kind_shows_what_its_own_link_lets_it(
    lab: Lab, shared: Shared, a: Container
) -> None:
    """A macvlan stands for a NIC: what is below it gives and takes its carrier."""
    below = Container(lab, "below")
    lab.macvlan("nic", "below")
    nic = Card(lab.host, "nic")
    lab.on_close(nic.close)
    follow = "links: {nic: {to: va, carrier: follow}}\n"
    for wiring in ({"nic": "va"}, "defaults: {carrier: follow}\nlinks: {nic: va}\n", follow):
        running = shared(wiring)
        running.wait_state("nic", "va", "connected")
        with a.hears(carrier=False):
            below.far.set(up=False)
        with a.hears(carrier=True):
            below.far.set(up=True)
        running.wait_state("nic", "va", "connected")
        assert nic.up
        a.far.set(up=False)
        if wiring is follow:
            poll(lambda: not nic.up, what="a NIC that is told to shows none")
        else:
            link = running.wait_state("nic", "va", "down")
            (shows,) = (link[x]["shows_carrier"] for x in "ab" if link[x]["name"] == "nic")
            assert shows is None
            running.idle(0.3)
            assert nic.up
        a.far.set(up=True)
        running.wait_state("nic", "va", "connected")
        assert nic.up


def test_two_nics_never_hold_each_other_down(lab: Lab, shared: Shared) -> None:
    nics = []
    for number in (1, 2):
        Container(lab, f"below{number}")
        lab.macvlan(f"nic{number}", f"below{number}")
        nics.append(Card(lab.host, f"nic{number}"))
        lab.on_close(nics[-1].close)
    wire = "links: {nic1: {to: nic2, carrier: follow, enabled: %s}}\n"
    connected(running := shared(wire % "true"), ("nic1", "nic2"))
    running.write(wire % "false")
    poll(lambda: not any(nic.up for nic in nics), what="both show none")
    running.kill()
    running.write(wire % "true")
    running.start()
    poll(lambda: all(nic.up for nic in nics), what="both show it")
    connected(running, ("nic1", "nic2"))


# ---------------------------------------------------------------------- and the opposite


@pytest.mark.parametrize(
    "wiring",
    [
        "links: {va: {to: vb, carrier: independent}}\n",
        "defaults: {carrier: independent}\nlinks: {va: vb}\n",
        "links: {va: {to: vb, admin: keep}}\n",
    ],
    ids=["link", "defaults", "admin: keep"],
)
def test_who_does_not_want_it_has_each_end_by_itself(
    shared: Shared, a: Container, b: Container, wiring: str
) -> None:
    connected(running := shared(wiring))
    with nobody_hears(running, a):
        b.far.set(up=False)
        link = running.wait_state("va", "vb", "down")
        assert [link[end]["shows_carrier"] for end in "ab"] == [None, None]
        running.write(wiring.replace("vb", "vb, enabled: false", 1) if "{to" in wiring else wiring)
        running.write(wiring)
        running.kill()
        running.start()
    assert running.events("carrier.hidden") == []
    with a.hears(carrier=False):
        running.write(WIRE)
    with a.hears(carrier=True):
        running.write(wiring)
    b.far.set(up=True)
    connected(running)


def test_an_end_that_the_host_uses_shows_nothing(
    lab: Lab, shared: Shared, a: Container, b: Container
) -> None:
    lab.ip("address", "add", "203.0.113.7/24", "dev", "va")
    running = shared("links: {va: {to: vb, allow_addressed: true}}\n")
    connected(running)
    with nobody_hears(running, a):
        b.far.set(up=False)
        link = running.wait_state("va", "vb", "down")
    assert {link[x]["name"]: link[x]["shows_carrier"] for x in "ab"} == {"va": None, "vb": True}
    b.far.set(up=True)
    with b.hears(carrier=False):
        a.far.set(up=False)
    with b.hears(carrier=True):
        a.far.set(up=True)
