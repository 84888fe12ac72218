"""The MTU of the way to another host: the tunnel has it, and bulk is cut to it."""

from __future__ import annotations

import pytest

from .bulk_tcp import fragments, received, send_in_bulk
from .frames import noise
from .hosts_lab import Hosts
from .lab import poll, run
from .traffic import wired

A, B = "h1/va", "h2/vb"


@pytest.mark.parametrize(("v6", "overhead"), [(False, 50), (True, 70)], ids=["IPv4", "IPv6"])
def test_a_tunnel_has_the_mtu_of_its_way_whatever_becomes_of_that(v6: bool, overhead: int) -> None:
    """By its interface, by a route, and by what was learnt on the way, of which no event tells."""
    with Hosts(2, v6=v6) as hosts:
        for name, end in (("h1", "va"), ("h2", "vb")):
            hosts[name].veth(end)
        hosts.start({A: B})
        hosts.wait_state(A, B, "connected")
        lab = hosts["h1"].lab
        (device,) = [name for name in lab.interfaces() if name.startswith("vxlan-")]

        def has(mtu: int) -> None:
            poll(lambda: lab.link(device)["mtu"] == mtu - overhead, what=f"{device}: {mtu}")

        has(1500)
        default = lab.ip("-6" if v6 else "-4", "route", "show", "default").split()[2]
        lab.ip(f"route add {hosts['h2'].address} via {default} mtu 1400")
        has(1400)
        lab.ip(f"route delete {hosts['h2'].address}")
        has(1500)
        lab.ip("link set under0 mtu 1450")
        has(1450)
        lab.ip("link set under0 mtu 1500")
        has(1500)
        run("ip", "link", "set", "h2", "mtu", "1400", namespace=hosts.underlay)
        lab.run(*f"ping -c 1 -W 1 -M do -s 1420 {hosts['h2'].address}".split(), check=False)
        has(1400)
        hosts.wait_state(A, B, "connected")


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_64_kb_of_a_container_cross_in_no_fragments(v6: bool) -> None:
    """Of MTU 1500, over an underlay of 1500."""
    with Hosts(2, v6=v6) as hosts:
        a, b = hosts["h1"].veth("va"), hosts["h2"].veth("vb")
        hosts.start({A: B})
        hosts.wait_state(A, B, "connected")
        poll(lambda: wired(a, b), what="queues that let frames out")
        data = noise(64_000)
        for one, other in ((a, b), (b, a)):
            with other.port() as there:
                send_in_bulk(one, 4, data, 1460)
                assert received(4, there, len(data))[0] == data
        assert [fragments(hosts[name].lab.host) for name in ("h1", "h2")] == [0, 0]
