"""VXLAN devices on the real kernel: what it takes, refuses and tells of them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from xconnectd.errors import LinkError
from xconnectd.model import Interface, Made, Tunnel
from xconnectd.netlink.changes import Changes
from xconnectd.netlink.host_use import HostUse
from xconnectd.netlink.interfaces import Interfaces
from xconnectd.netlink.monitor import Events
from xconnectd.netlink.transport import Route

from .lab import Lab, inside, poll

TUNNEL = Tunnel("203.0.113.5", 100)
MADE = Made("vxlan-100", "02:00:00:00:01:00", "h2/b", 1450, tunnel=TUNNEL)


@pytest.fixture
def route(lab: Lab) -> Iterator[Route]:
    with closing(inside(lab.host, Route)) as opened:
        yield opened


@pytest.fixture
def interfaces(route: Route) -> Interfaces:
    return Interfaces(route)


@pytest.fixture
def changes(route: Route, interfaces: Interfaces) -> Changes:
    return Changes(route, HostUse(route, interfaces))


def found(interfaces: Interfaces, name: str = MADE.name) -> Interface:
    (device,) = interfaces.find(name)
    return device


@pytest.mark.parametrize("remote", ["203.0.113.5", "2001:db8::5"])
def test_it_is_made_as_it_was_asked_for_and_down(
    lab: Lab, changes: Changes, interfaces: Interfaces, remote: str
) -> None:
    changes.make_tunnel(MADE, TUNNEL._replace(remote=remote))
    device = found(interfaces)
    assert device.tunnel == TUNNEL._replace(remote=remote)
    assert (device.kind, device.mac, device.mtu, device.up) == ("vxlan", MADE.mac, 1450, False)
    told = lab.link(MADE.name)["linkinfo"]["info_data"]
    assert (told["learning"], told["ttl"], told.get("df", "unset")) == (False, 64, "unset")
    assert "link" not in told
    changes.change(device, "up", 1)
    assert found(interfaces).carrier
    changes.delete_made(device)
    changes.delete_made(device)
    assert not interfaces.find(MADE.name)


def test_a_vni_that_another_device_has_is_refused_and_the_device_named(
    lab: Lab, changes: Changes, interfaces: Interfaces
) -> None:
    """By VNI, port and version of IP, whatever the remote."""
    lab.ip("link add theirs type vxlan id 100 remote 203.0.113.9 dstport 14789")
    with pytest.raises(LinkError) as refused:
        changes.make_tunnel(MADE, TUNNEL)
    assert refused.value.errno == errno.EEXIST
    assert "theirs has VNI 100 at port 14789 already; delete it (ip link del theirs)" in str(
        refused.value
    )
    other = MADE._replace(name="other")
    changes.make_tunnel(other, TUNNEL._replace(port=4789))
    changes.make_tunnel(MADE, TUNNEL._replace(remote="2001:db8::5"))
    assert found(interfaces).tunnel == TUNNEL._replace(remote="2001:db8::5")


def test_a_name_that_is_taken_is_refused(lab: Lab, changes: Changes) -> None:
    lab.pair(MADE.name, "peer")
    with pytest.raises(LinkError) as refused:
        changes.make_tunnel(MADE, TUNNEL)
    assert refused.value.errno == errno.EEXIST


def test_a_port_that_another_program_has_is_refused_when_it_is_set_up(
    lab: Lab, changes: Changes, interfaces: Interfaces
) -> None:
    def taken() -> socket.socket:
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind(("", TUNNEL.port))
        return one

    changes.make_tunnel(MADE, TUNNEL)
    with inside(lab.host, taken), pytest.raises(LinkError) as refused:
        changes.change(found(interfaces), "up", 1)
    assert refused.value.errno == errno.EADDRINUSE
    assert "UDP port 14789 is another program's" in str(refused.value)
    changes.change(found(interfaces), "up", 1)


def test_one_that_is_up_and_made_to_lead_elsewhere_is_told_of(
    lab: Lab, changes: Changes, interfaces: Interfaces
) -> None:
    changes.make_tunnel(MADE, TUNNEL)
    device = found(interfaces)
    changes.change(device, "up", 1)
    with closing(inside(lab.host, Events)) as events:
        lab.ip("link set vxlan-100 type vxlan remote 203.0.113.9")
        poll(lambda: device.ifindex in [each.ifindex for each in events.drain()], what="news of it")
    assert found(interfaces).tunnel == TUNNEL._replace(remote="203.0.113.9")


def test_one_without_a_single_remote_has_none(lab: Lab, interfaces: Interfaces) -> None:
    lab.ip("link add theirs type vxlan id 7 dstport 4789")
    assert found(interfaces, "theirs").tunnel == Tunnel("", 7, 4789)
