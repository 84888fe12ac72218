"""The MTU of the way to another host: what the tunnel makes of it, and what is said of it."""

from __future__ import annotations

import pytest

from .hosts_lab import Hosts
from .lab import poll, run

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
