"""The feed of far ends on the real kernel: whose news it gives, and how often."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from xconnectd.netlink.far_monitor import FarEvents

from .lab import Lab, Station, inside, poll, run

FLIPS = 100


@pytest.fixture
def stations(lab: Lab) -> list[Station]:
    """Containers whose eth0 has the same number in each."""
    return lab.veths("va", "vb", "vc")


@pytest.fixture
def events(lab: Lab, stations: list[Station]) -> Iterator[FarEvents]:
    links = [lab.link(each.end) for each in stations]
    far = {(each["link_index"], each["link_netnsid"]): each["ifindex"] for each in links}
    assert (len(far), len({index for index, _ in far})) == (3, 1)
    with closing(inside(lab.host, lambda: FarEvents(far, {}))) as opened:
        poll(lambda: not opened.drain() and opened.due is None, what="silence")
        yield opened


def flip(station: Station, times: int) -> None:
    batch = "link set eth0 down\nlink set eth0 up\n" * times
    run("ip", "-batch", "-", namespace=station.namespace, text=batch)


def wait_told(lab: Lab, events: FarEvents, *ends: str) -> None:
    """Until all of these are; others may be, too: the kernel tells of a carrier a second late."""
    waiting = {lab.ifindex(end) for end in ends}

    def are_told() -> bool:
        told = {each.ifindex for each in events.drain()}
        assert told <= {lab.ifindex(end) for end in ("va", "vb", "vc")}
        waiting.difference_update(told)
        return not waiting

    poll(are_told, what=f"news of the far ends of {ends}")


def test_a_far_end_is_told_as_our_end_and_nobody_else(
    lab: Lab, stations: list[Station], events: FarEvents
) -> None:
    lab.veth("vd")
    lab.ip("link", "set", "va", "alias", "here")
    stations[1].ip("link set eth0 down")
    wait_told(lab, events, "vb")


def test_one_that_flaps_is_told_a_few_times_and_at_the_end(
    lab: Lab, stations: list[Station], events: FarEvents
) -> None:
    """Another one with the same number in its namespace is told as before."""
    flip(stations[2], FLIPS)
    wait_told(lab, events, "vc")
    assert events.due is not None
    stations[0].ip("link set eth0 down")
    wait_told(lab, events, "va", "vc")
    poll(lambda: not events.drain() and events.due is None, what="silence")
    stations[2].ip("link set eth0 down")
    wait_told(lab, events, "vc")


def test_without_the_capability_it_says_so(lab: Lab) -> None:
    program = (
        "from xconnectd.netlink.far_monitor import FarEvents\n"
        "try: FarEvents({}, {})\n"
        "except PermissionError as error: print(error.errno)"
    )
    drop = ("setpriv", "--bounding-set=-net_broadcast", "--inh-caps=-net_broadcast")
    done = run(*drop, sys.executable, "-c", program, namespace=lab.host)
    assert done.stdout.split() == [str(errno.EPERM)]
