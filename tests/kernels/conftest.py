"""The fixtures of tests/netns, and two cables between NICs that the guest has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from netns.conftest import *  # noqa: F403
from netns.conftest import _kernel  # noqa: F401
from netns.lab import NETNS, Lab, Station, run


@pytest.fixture
def cables(lab: Lab) -> Iterator[tuple[Station, Station]]:
    """``nic0`` and ``nic1`` in the host; what is at the other end of each in a namespace.

    The NICs go back to where they came from, without what a test that failed has left on them.
    """
    if not Path("/sys/class/net/nic0").exists():
        pytest.skip("these NICs are in the guests of tests/kernels/run only")
    stations = []
    for number in (0, 1):
        station = Station(lab.namespace(f"sta{number}"), f"nic{number}", None, f"sta{number}")
        run("ip", "link", "set", f"nic{number}", "netns", str(NETNS / lab.host))
        run("ip", "link", "set", f"sta{number}", "netns", str(NETNS / station.namespace))
        lab.ip(f"link set nic{number} up")
        station.use_address(number + 1, v6=True)
        # it takes what comes
        station.ip(f"link set dev {station.interface} promisc on up")
        stations.append(station)
    yield stations[0], stations[1]
    for station in stations:
        run("ip", "link", "set", station.interface, "netns", "1", namespace=station.namespace)
        lab.ip(f"link set {station.end} netns 1")
        for xdp in ("xdpdrv", "xdpgeneric"):
            run("ip", "link", "set", station.end, xdp, "off", check=False)
        for nic in (station.end, station.interface):
            run("ip", "link", "set", nic, "mtu", "1500", "promisc", "off")
            run("tc", "qdisc", "delete", "dev", nic, "clsact", check=False)
