"""Tunnels on the real kernel: what it takes and refuses of VXLAN devices, and links by them.

The other side is a device made by hand, so nobody has to be heard.
"""

from __future__ import annotations

import errno
import socket
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from xconnectd.errors import LinkError
from xconnectd.model import Interface, Made, Tunnel
from xconnectd.netlink.changes import Changes
from xconnectd.netlink.host_use import HostUse
from xconnectd.netlink.interfaces import Interfaces
from xconnectd.netlink.monitor import Events
from xconnectd.netlink.transport import Route

from .frames import odd_frames
from .lab import Lab, Station, inside, poll, run
from .service import Daemon, Start
from .traffic import ALIVE, crosses, lossless, transfer, wired

TUNNEL = Tunnel("203.0.113.5", 100)
MADE = Made("vxlan-100", "02:00:00:00:01:00", "h2/b", 1450, tunnel=TUNNEL)


@pytest.fixture
def changes(route: Route, host_use: HostUse) -> Changes:
    return Changes(route, host_use)


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


# --------------------------------------------------------------------------- links


_LEAST_FOR_U32: Final = 18
"""Bytes of a frame that a filter of tc's u32 takes: it has to have what is compared."""

NO_IPV6_OF_UNDER0: Final = Path("/proc/sys/net/ipv6/conf/under0/disable_ipv6")
ADDRESSES: Final = {"IPv4": ("203.0.113.1", "203.0.113.2"), "IPv6": ("fd00::1", "fd00::2")}


@dataclass
class Site:
    """Another machine, and in it the station ``there`` is a device made by hand."""

    lab: Lab
    namespace: str
    remote: str
    device: str
    va: Station

    def link(self, **more: Any) -> dict[str, Any]:
        """What leads from ``va`` to it."""
        tunnel = {"remote": self.remote, "vni": 7, "port": 4789}
        return {"va": {"to": {"vxlan": tunnel}, **more}}

    @property
    def end(self) -> str:
        remote = f"[{self.remote}]" if ":" in self.remote else self.remote
        return f"vxlan7@{remote}:4789"

    @property
    def there(self) -> Station:
        return Station(self.namespace, "vx", interface="vx")

    def ip(self, *words: str) -> None:
        run("ip", *words[0].split(), namespace=self.namespace)


@pytest.fixture
def site(lab: Lab, request: pytest.FixtureRequest) -> Site:
    """With an underlay of 1600 bytes over IPv6, where what is too long is lost."""
    family = getattr(request, "param", "IPv4")
    here, there = ADDRESSES[family]
    lab.hush()
    namespace = lab.namespace("there", quiet=family == "IPv4")
    site = Site(lab, namespace, there, "vx", lab.veth("va"))
    mtu, length, more = (1500, 24, "") if family == "IPv4" else (1600, 64, "nodad")
    lab.ip(f"link add under0 mtu {mtu} type veth peer name under0 mtu {mtu} netns {namespace}")
    if family == "IPv6":
        inside(lab.host, lambda: NO_IPV6_OF_UNDER0.write_text("0"))
    lab.ip("link set under0 up")
    site.ip("link set under0 up")
    lab.ip(f"address add {here}/{length} dev under0 {more}")
    site.ip(f"address add {there}/{length} dev under0 {more}")
    remote = f"id 7 dstport 4789 remote {here} nolearning"
    site.ip(f"link add vx mtu 1500 type vxlan {remote}")
    if family == "IPv6":
        site.ip("link set vx addrgenmode none")
    site.ip("link set vx up")
    return site


def connected(site: Site, daemon: Start, **more: Any) -> Daemon:
    one = daemon(site.link(**more))
    one.wait_state("va", site.end, "connected")
    return one


def vxlan(site: Site) -> dict[str, Any]:
    """What the kernel says of our tunnel."""
    found: dict[str, Any] = site.lab.link("vxlan-7")
    return found


@pytest.mark.parametrize("site", ADDRESSES, indirect=True)
def test_every_odd_frame_crosses_byte_for_byte(site: Site, daemon: Start) -> None:
    """Also those that are two packets on the way."""
    one = connected(site, daemon)
    with site.va.port() as here, site.there.port() as there:
        crosses(here, there, list(odd_frames().values()))
    assert one.link("va", site.end)["mode"] == "tc"
    one.stop()


def test_a_stitch_of_mirred_at_the_other_side(site: Site, daemon: Start) -> None:
    """As containerlab's vxlan-stitch: the device and a container's veth, each into the other."""
    inner = site.lab.namespace("inner", quiet=True)
    site.ip(f"link add far up type veth peer name eth0 netns {inner}")
    run("ip", "link", "set", "eth0", "up", namespace=inner)
    for one, other in (("vx", "far"), ("far", "vx")):
        run("tc", "qdisc", "add", "dev", one, "clsact", namespace=site.namespace)
        match = ("protocol", "all", "u32", "match", "u32", "0", "0", "action", "mirred")
        words = ("dev", one, "ingress", *match, "egress", "redirect", "dev", other)
        run("tc", "filter", "add", *words, namespace=site.namespace)
    connected(site, daemon)
    with site.va.port() as here, Station(inner, "far").port() as there:
        frames = [each for each in odd_frames().values() if len(each) >= _LEAST_FOR_U32]
        crosses(here, there, frames)


def test_nothing_is_left_of_it_at_a_stop_nor_without_its_line(site: Site, daemon: Start) -> None:
    before = site.lab.snapshot()
    one = connected(site, daemon)
    one.write({})
    poll(lambda: "vxlan-7" not in site.lab.interfaces(), what="it is deleted")
    one.write(site.link())
    one.wait_state("va", site.end, "connected")
    one.stop()
    assert site.lab.snapshot() == before


def test_it_is_adopted_after_crashes_and_loses_no_frame(site: Site, daemon: Start) -> None:
    one = connected(site, daemon)
    number = vxlan(site)["ifindex"]
    with lossless(site.va, site.there):
        for _ in range(3):
            one.crash()
    assert vxlan(site)["ifindex"] == number
    assert one.link("va", site.end)["state"] == "connected"
    one.kill()
    one.write({})
    one.start()
    assert "vxlan-7" not in site.lab.interfaces(), "its line went meanwhile"


def test_a_start_without_a_good_file_keeps_it(site: Site, daemon: Start) -> None:
    one = connected(site, daemon)
    number = vxlan(site)["ifindex"]
    with lossless(site.va, site.there):
        one.kill()
        one.write("links: [")
        one.start()
        one.wait_event("config.rejected")
        one.write(site.link())
        one.wait_state("va", site.end, "connected")
    assert vxlan(site)["ifindex"] == number


def test_one_that_somebody_deletes_is_made_again(site: Site, daemon: Start) -> None:
    one = connected(site, daemon)
    mac = vxlan(site)["address"]
    for _ in range(3):
        since = one.mark()
        site.lab.delete("vxlan-7")
        one.wait_link("connected", "va", site.end, since=since)
        poll(lambda: wired(site.va, site.there), what="frames cross again")
    assert vxlan(site)["address"] == mac


def test_other_parameters_in_the_file_or_by_hand_are_another_device(
    site: Site, daemon: Start
) -> None:
    one = connected(site, daemon)
    site.lab.ip("link set vxlan-7 type vxlan remote 203.0.113.99")
    poll(lambda: wired(site.va, site.there), what="it leads where it did")
    link = site.link()
    link["va"]["to"]["vxlan"]["port"] = 14789
    one.write(link)
    one.wait_state("va", f"vxlan7@{site.remote}", "connected")
    assert vxlan(site)["linkinfo"]["info_data"]["port"] == 14789
    assert not wired(site.va, site.there)
    link["va"]["to"]["vxlan"] |= {"vni": 8}
    one.write(link)
    one.wait_state("va", f"vxlan8@{site.remote}", "connected")
    assert "vxlan-7" not in site.lab.interfaces()
    one.stop()


def test_somebody_elses_device_in_the_way_is_named_and_left_alone(
    site: Site, daemon: Start
) -> None:
    site.lab.ip(f"link add theirs type vxlan id 7 dstport 4789 remote {site.remote}")
    one = daemon(site.link())
    words = one.wait_state("va", site.end, "failed")["reason"]
    assert "theirs has VNI 7 at port 4789 already" in words
    site.lab.ip("link set theirs name vxlan-7")
    words = f"the name of another interface, a VXLAN device to {site.remote}"
    poll(lambda: words in one.link("va", site.end)["reason"], what="it is named by its new name")
    site.lab.delete("vxlan-7")
    one.wait_state("va", site.end, "connected")


def test_bulk_tcp_crosses(site: Site, daemon: Start) -> None:
    connected(site, daemon)
    there = site.there
    site.va.use_address(1)
    there.use_address(2)
    for ends in ((site.va, there), (there, site.va)):
        assert transfer(*ends, size=16 << 20) > ALIVE
