"""A wire between a container and a real virtual machine: each sees when the other goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from netns.lab import Lab, Station, holds, poll
from netns.service import Daemon

from .machine import Machine

NICS: Final = {"net0": "virtio-net-pci", "p01": "e1000"}
"""By netdev, which is also what its tap is called."""
SOON: Final = 20.0
"""Seconds; a link that is off is set again each 5, and a guest without KVM is slow."""


@dataclass
class Site:
    lab: Lab
    machine: Machine
    containers: dict[str, Station]
    """By the tap they are wired to."""
    monitors: dict[str, str]
    daemon: Daemon

    def wiring(self) -> dict[str, Any]:
        return {
            station.end: {"to": tap, "ends": {tap: {"monitor": self.monitors[tap]}}}
            for tap, station in self.containers.items()
        }

    def wait_for(self, carrier: bool) -> None:
        """Every NIC of the guest has a carrier, or none has."""
        for tap in NICS:
            self.machine.wait_for(tap, carrier, SOON)

    def set(self, state: str) -> None:
        """What the containers do to their interfaces: ``up`` or ``down``."""
        for station in self.containers.values():
            station.ip("link", "set", "eth0", state)


@pytest.fixture(scope="module")
def made() -> Iterator[Site]:
    with Lab() as lab:
        for tap in NICS:
            lab.ip("tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr")
            lab.ip("link", "set", tap, "up")
        path = lab.directory / "r1.sock"
        options = (
            *("-qmp", f"unix:{path},server=on,wait=off"),
            *("-monitor", "tcp:127.0.0.1:4001,server,nowait"),
        )
        machine = Machine(lab.directory, NICS, options, namespace=lab.host, taps=True)
        lab.on_close(machine.kill)
        containers = {"net0": lab.veth("va"), "p01": lab.veth("vb")}
        monitors = {"net0": f"qmp:{path}#net0", "p01": "hmp:127.0.0.1:4001#p01"}
        machine.start()
        machine.wait_until_ready()
        yield Site(lab, machine, containers, monitors, Daemon(lab, {}, lasting=True))


@pytest.fixture
def site(made: Site) -> Iterator[Site]:
    """With a daemon that has wired all of it; in the end it is stopped, and all is as found."""
    made.set("up")
    made.daemon.write(made.wiring())
    made.daemon.start()
    made.wait_for(True)
    yield made
    made.set("up")
    made.daemon.kill()
    made.daemon.start()
    made.daemon.stop()
    made.wait_for(True)


def carrier_of_container(station: Station) -> bool:
    return "LOWER_UP" in json.loads(station.ip("-j", "link", "show", "eth0"))[0]["flags"]


def test_the_guest_sees_that_the_container_is_down(site: Site) -> None:
    for _ in range(3):
        site.set("down")
        site.wait_for(False)
        site.set("up")
        site.wait_for(True)


def test_the_guest_sees_that_the_link_is_disabled(site: Site) -> None:
    wiring = site.wiring()
    site.daemon.write({end: {**options, "enabled": False} for end, options in wiring.items()})
    site.wait_for(False)
    site.daemon.write(wiring)
    site.wait_for(True)


def test_a_link_that_leaves_the_file_gives_the_carrier_back(site: Site) -> None:
    site.set("down")
    site.wait_for(False)
    site.daemon.write("links: {}\n")
    site.wait_for(True)


def test_a_daemon_that_stops_gives_the_carrier_back(site: Site) -> None:
    site.set("down")
    site.wait_for(False)
    site.daemon.stop()
    site.wait_for(True)
    site.daemon.start()
    site.wait_for(False)


def test_a_daemon_that_was_killed_goes_on_from_there(site: Site) -> None:
    site.set("down")
    site.wait_for(False)
    site.daemon.kill()
    told = {tap: site.machine.told(tap) for tap in NICS}
    holds(lambda: {tap: site.machine.told(tap) for tap in NICS} == told, 1.0)
    site.daemon.start()
    site.set("up")
    site.wait_for(True)


def test_the_container_sees_that_the_machine_is_gone_and_that_it_is_back(site: Site) -> None:
    site.machine.kill()
    for station in site.containers.values():
        poll(lambda station=station: not carrier_of_container(station))
    site.machine.start()
    site.machine.wait_until_ready()
    for station in site.containers.values():
        poll(lambda station=station: carrier_of_container(station))
    site.wait_for(True)


def test_a_machine_that_is_started_while_the_container_is_down_sees_none(site: Site) -> None:
    site.set("down")
    site.wait_for(False)
    site.machine.kill()
    site.machine.start()
    site.machine.wait_until_ready()
    site.wait_for(False)
    site.set("up")
    site.wait_for(True)


def test_a_netdev_that_is_not_there_is_a_warning_of_its_link(site: Site) -> None:
    wiring = site.wiring()
    wrong = f"{site.monitors['net0'].rpartition('#')[0]}#net7"
    wiring["va"]["ends"]["net0"]["monitor"] = wrong
    site.daemon.write(wiring)
    poll(lambda: "there is no netdev net7 in this machine" in _told(site))
    site.daemon.write(site.wiring())
    poll(lambda: "net7" not in _told(site))


def _told(site: Site) -> str:
    return json.dumps(site.daemon.link("va", "net0"))
