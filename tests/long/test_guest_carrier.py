"""What the guest of a real virtual machine sees of its links, set by QEMU's monitors."""

from __future__ import annotations

import json
import select
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from netns.lab import PATIENCE, Lab, holds, inside, poll

from xconnectd.monitor_address import MonitorAddress
from xconnectd.qemu.guest_links import GuestLinks
from xconnectd.qemu.outcome import DEFAULT_PACE, Outcome, Pace

from .machine import Machine

NICS: Final = {"net0": "virtio-net-pci", "p01": "e1000"}
SOON: Final = 15.0
"""Seconds; a link that is off is set again each 5, and a guest without KVM is slow."""


class Guest:
    """A machine in a lab's host, with the monitors that it has, and who sets its links."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.socket = lab.directory / "r1.sock"
        self.monitors = {
            "qmp unix": f"qmp:{self.socket}",
            "qmp tcp": "qmp:127.0.0.1:4444",
            "hmp tcp": "hmp:localhost:4001",
            "hmp telnet": "hmp:[::1]:4002",
        }
        options = (
            *("-qmp", f"unix:{self.socket},server=on,wait=off"),
            *("-qmp", "tcp:127.0.0.1:4444,server=on,wait=off"),
            *("-monitor", "tcp:127.0.0.1:4001,server,nowait"),  # as vrnetlab has it
            *("-chardev", "socket,id=t,host=::1,port=4002,server=on,wait=off,telnet=on"),
            *("-mon", "chardev=t,mode=readline"),
        )
        self.machine = Machine(lab.directory, NICS, options, namespace=lab.host)
        lab.on_close(self.machine.kill)

    def address(self, netdev: str, monitor: str = "qmp unix") -> MonitorAddress:
        return MonitorAddress.parse(f"{self.monitors[monitor]}#{netdev}")

    def boot(self) -> None:
        self.machine.start()
        self.machine.wait_until_ready()

    def set(self, links: GuestLinks, wanted: dict[MonitorAddress, bool]) -> None:
        """A thread that begins here is in the machine's network namespace."""
        inside(self._lab.host, lambda: links.set(wanted))


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    with Lab() as lab:
        guest = Guest(lab)
        guest.boot()
        for netdev in NICS:
            guest.machine.wait_for(netdev, True)
        yield guest


@pytest.fixture
def guest_links(guest: Guest) -> Iterator[Callable[..., GuestLinks]]:
    """Those who set links; in the end, all are on."""
    made: list[GuestLinks] = []

    def make(pace: Pace = DEFAULT_PACE) -> GuestLinks:
        made.append(GuestLinks(pace))
        return made[-1]

    yield make
    for links in made:
        links.set({})
        links.close()
    for netdev in NICS:
        guest.machine.wait_for(netdev, True)


def settled(links: GuestLinks, address: MonitorAddress, outcome: Outcome) -> None:
    deadline = time.monotonic() + PATIENCE
    while links.outcomes().get(address) != outcome:
        assert time.monotonic() < deadline, links.outcomes()
        select.select([links], [], [], 0.5)
        links.drain()


def second_client(path: Path) -> socket.socket:
    """One of the user's own, greeted by the monitor."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(str(path))
    assert b'"QMP"' in client.recv(4096)
    return client


def execute(client: socket.socket, command: str) -> None:
    client.sendall(json.dumps({"execute": command, "id": command}).encode())
    answer = b""
    while f'"id": "{command}"'.encode() not in answer:
        answer += client.recv(4096)
    assert b"error" not in answer


@pytest.mark.parametrize("netdev", NICS)
@pytest.mark.parametrize("monitor", ["qmp unix", "qmp tcp", "hmp tcp", "hmp telnet"])
def test_the_guest_sees_its_carrier_go_and_come(
    guest: Guest, guest_links: Callable[..., GuestLinks], monitor: str, netdev: str
) -> None:
    links, address = guest_links(), guest.address(netdev, monitor)
    before = {each: guest.machine.told(each) for each in NICS}
    for carrier in (False, True):
        guest.set(links, {address: carrier})
        seconds = guest.machine.wait_for(netdev, carrier)
        settled(links, address, Outcome(carrier))
        print(f"{NICS[netdev]}, {monitor}, {carrier}: seen after {seconds * 1e3:.0f} ms")
    assert guest.machine.told(netdev) == [*before[netdev], False, True]
    (other,) = NICS.keys() - {netdev}
    assert guest.machine.told(other) == before[other]


@pytest.mark.parametrize("carrier", [False, True])
def test_what_is_set_again_is_not_seen(
    guest: Guest, guest_links: Callable[..., GuestLinks], carrier: bool
) -> None:
    links = guest_links(DEFAULT_PACE._replace(again_off=0.05, again_on=0.05))
    guest.set(links, {guest.address(netdev): carrier for netdev in NICS})
    for netdev in NICS:
        guest.machine.wait_for(netdev, carrier)
    before = {netdev: guest.machine.told(netdev) for netdev in NICS}
    holds(lambda: {netdev: guest.machine.told(netdev) for netdev in NICS} == before, 3.0)


def test_what_is_missing_is_told_in_words(
    guest: Guest, guest_links: Callable[..., GuestLinks]
) -> None:
    links = guest_links()
    missing = [guest.address("net7", monitor) for monitor in guest.monitors]
    swapped = {
        "qmp:127.0.0.1:4001#p01": "no QMP monitor: it speaks HMP, write `hmp:` for it",
        "hmp:127.0.0.1:4444#p01": "no HMP monitor: it speaks QMP, write `qmp:` for it",
    }
    wrong = {MonitorAddress.parse(text): reason for text, reason in swapped.items()}
    guest.set(links, dict.fromkeys((*missing, *wrong), False))
    reason = "there is no netdev net7 in this machine; `info network` in HMP lists them"
    for address in missing:
        settled(links, address, Outcome(False, reason))
    for address, reason in wrong.items():
        where = f"what answers at {address.monitor} is {reason}"
        settled(links, address, Outcome(False, where))


def test_the_users_own_client_is_served_meanwhile(
    guest: Guest, guest_links: Callable[..., GuestLinks]
) -> None:
    links = guest_links(DEFAULT_PACE._replace(again_off=0.05))
    guest.set(links, {guest.address("net0"): False})
    guest.machine.wait_for("net0", False)
    waits = []
    for _ in range(100):
        start = time.monotonic()
        second_client(guest.socket).close()
        waits.append(time.monotonic() - start)
        time.sleep(0.02)
    median, most = statistics.median(waits) * 1e3, max(waits) * 1e3
    print(f"greeted after {median:.2f} ms in the median, {most:.0f} ms at most")
    assert most < 2000
    assert links.outcomes() == {guest.address("net0"): Outcome(False)}


def test_a_monitor_that_the_user_has(guest: Guest, guest_links: Callable[..., GuestLinks]) -> None:
    links, address = guest_links(), guest.address("net0")
    with second_client(guest.socket):
        guest.set(links, {address: False})
        poll(lambda: "another one has it" in _error(links, address))
        assert guest.machine.told("net0")[-1] is True
        time.sleep(10)  # whoever gave up and came again would fill QEMU's queue of two by now
        with socket.socket(socket.AF_UNIX) as third:
            third.setblocking(False)
            third.connect(str(guest.socket))
    assert guest.machine.wait_for("net0", False, SOON) < SOON
    settled(links, address, Outcome(False))


def _error(links: GuestLinks, address: MonitorAddress) -> str:
    outcome = links.outcomes().get(address)
    return outcome.error if outcome else ""


def test_a_link_that_is_off_stays_off_over_a_resume(
    guest: Guest, guest_links: Callable[..., GuestLinks]
) -> None:
    links = guest_links()
    guest.set(links, dict.fromkeys(map(guest.address, NICS), False))
    for netdev in NICS:
        guest.machine.wait_for(netdev, False)
    with second_client(guest.socket) as client:
        for command in ("qmp_capabilities", "stop", "cont"):
            execute(client, command)
    for netdev in NICS:
        guest.machine.wait_for(netdev, False, SOON)


def test_a_machine_that_is_started_again_has_its_link_off(
    guest: Guest, guest_links: Callable[..., GuestLinks]
) -> None:
    links = guest_links()
    wanted = {guest.address("net0", "qmp unix"): False, guest.address("p01", "hmp tcp"): False}
    guest.set(links, wanted)
    for netdev in NICS:
        guest.machine.wait_for(netdev, False)
    guest.machine.kill()
    poll(lambda: all("tried again" in _error(links, address) for address in wanted))
    guest.boot()
    for netdev in NICS:
        seconds = guest.machine.wait_for(netdev, False, SOON)
        print(f"{NICS[netdev]}: off {seconds:.2f} s after the guest was up")
    for address in wanted:
        settled(links, address, Outcome(False))


def test_close_puts_back_what_was_given_up(guest: Guest) -> None:
    links = GuestLinks()
    wanted = {guest.address("net0"): False, guest.address("p01", "hmp tcp"): False}
    guest.set(links, wanted)
    for netdev in NICS:
        guest.machine.wait_for(netdev, False)
    links.set({})
    links.close()
    for netdev in NICS:
        guest.machine.wait_for(netdev, True)
