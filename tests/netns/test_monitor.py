"""The feed of events on the real kernel: what is muted, and what is told all the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from xconnectd.netlink.changes import Changes
from xconnectd.netlink.host_use import HostUse
from xconnectd.netlink.interfaces import Interfaces
from xconnectd.netlink.monitor import Event, Events, OverrunError
from xconnectd.netlink.transport import Route

from .lab import Lab, inside, poll
from .service import Daemon, Start
from .traffic import OFFLOADS, Tap

FLIPS = 2000


@pytest.fixture
def events(lab: Lab) -> Iterator[Events]:
    with closing(inside(lab.host, Events)) as opened:
        yield opened


def _flip(tap: Tap) -> None:
    """What any guest can do; it ends with the offloads on."""
    for _ in range(FLIPS):
        tap.offload(0)
        tap.offload(OFFLOADS)


def _of(ifindex: int, told: list[Event]) -> list[Event]:
    return [each for each in told if each.ifindex == ifindex]


def test_who_changes_too_often_is_muted_and_asked_afterwards(lab: Lab, events: Events) -> None:
    tap, other = lab.tap("tap0"), lab.tap("tap1")
    noisy, quiet = lab.ifindex("tap0"), lab.ifindex("tap1")
    time.sleep(0.5)  # what they make while they are made is of another interval
    events.drain()
    for _ in range(10):
        _flip(tap)
        if told := _of(noisy, events.drain()):
            break
    assert 0 < len(told) < 100, "as many as were made"
    other.offload(0)
    lab.ip("link set tap0 alias new")
    assert [each.name for each in _of(quiet, events.drain())] == ["tap1"], "others are heard"
    assert events.due is not None
    poll(events.is_due)
    (last,) = events.drain()
    assert last.name == "tap0"
    assert b"new" in last.message
    other.offload(OFFLOADS)
    tap.offload(0)
    assert {each.ifindex for each in events.drain()} == {quiet, noisy}, "both are heard again"


def test_that_the_muted_are_gone_is_told(lab: Lab, events: Events) -> None:
    tap = lab.tap("tap0")
    number = lab.ifindex("tap0")
    _flip(tap)
    events.drain()
    assert events.due is not None
    tap.close()
    assert [each.gone for each in _of(number, events.drain())][-1:] == [True]
    assert events.due is None
    lab.ip(f"link add tap0 index {number} type ifb")
    assert _of(number, events.drain()), "a new device with this number is another one"


def test_events_for_which_there_is_no_room_are_told_as_lost(lab: Lab) -> None:
    lab.pair("va", "vb")
    with closing(inside(lab.host, lambda: Events(buffer_bytes=1 << 14))) as events:
        lab.batch(f"link set va alias a{n}" for n in range(100))
        with pytest.raises(OverrunError):
            events.drain()
        lab.ip("link set vb alias new")
        assert _of(lab.ifindex("vb"), events.drain()), "it goes on"


def test_what_was_changed_of_tc_over_ones_own_socket_is_no_news(lab: Lab) -> None:
    """Of links all is told: the kernel does not say over which socket their settings changed."""
    lab.ip("link add i0 type ifb")
    with (
        closing(inside(lab.host, Route)) as route,
        closing(inside(lab.host, lambda: Events(own=route.port))) as events,
    ):
        interfaces = Interfaces(route)
        (i0,) = interfaces.find("i0")
        changes = Changes(route, HostUse(route, interfaces))
        changes.change(i0, "clsact", 1)
        assert events.drain() == []
        lab.tc("qdisc del dev i0 clsact")
        assert events.drain() == [Event(i0.ifindex)]
        changes.change(i0, "mtu", 1400)
        assert [each.name for each in events.drain()] == ["i0"]
        changes.delete_made(i0)
        assert [each.gone for each in events.drain()] == [True]


def test_a_port_that_leaves_its_bridge_is_not_gone(lab: Lab, events: Events) -> None:
    """That is an RTM_DELLINK too, of the family of bridges."""
    lab.pair("va", "vb")
    lab.bridge("br0", "va")
    events.drain()
    lab.ip("link set va nomaster")
    lab.delete("br0")
    told = events.drain()
    assert [each.gone for each in _of(lab.ifindex("va"), told)] == [False]
    assert [each for each in told if each.gone]


def test_a_pass_looks_at_its_own_changes_itself(lab: Lab, daemon: Start) -> None:
    """Their news is received before the last look, so it makes no other pass.

    That a carrier has come may be told a second late, and makes one.
    """
    for name in ("va", "vb", "vc"):
        lab.veth(name)
    keeper = daemon({"va": "vb"})
    assert min(_passes_of_a_rewire(keeper, target) for target in ("vc", "vb", "vc")) == 1
    since = keeper.mark()
    lab.ip("link set vc mtu 1400")
    keeper.wait_event("drift.repaired", since=since)
    lab.ip("link del va")
    keeper.wait_link("waiting", "va", "vc", since=since)


def _passes_of_a_rewire(keeper: Daemon, target: str) -> int:
    keeper.idle()
    before, since = _passes(keeper), keeper.mark()
    keeper.write({"va": target})
    keeper.wait_link("rewired", "va", target, since=since)
    keeper.idle()
    return _passes(keeper) - before


def _passes(keeper: Daemon) -> int:
    count: int = keeper.status()["daemon"]["passes"]["count"]
    return count
