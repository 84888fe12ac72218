"""What guests see of their links, set by monitors that are real servers on real sockets."""

from __future__ import annotations

import gc
import json
import select
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from monitors import BANNER, GREETING, Machine, Serve, Server

from xconnectd.monitor_address import Monitor, MonitorAddress
from xconnectd.qemu import machines
from xconnectd.qemu.guest_links import GuestLinks
from xconnectd.qemu.outcome import Outcome, Pace

QUICK = Pace(timeout=0.3, first_retry=0.02, last_retry=0.1, between=0.01, look=0.02, again_off=0.2)
PATIENCE = 30.0


def poll(condition: Callable[[], object], timeout: float = PATIENCE) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Lab:
    """Monitors and those who set links by them, ended with the test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._servers: list[Server] = []
        self._guests: list[GuestLinks] = []

    def serve(self, serve: Serve, transport: str = "unix", port: int = 0) -> Server:
        path = self._directory / "monitor.sock" if transport == "unix" else None
        self._servers.append(Server(serve, path, port))
        return self._servers[-1]

    def guest_links(self, pace: Pace = QUICK) -> GuestLinks:
        self._guests.append(GuestLinks(pace))
        return self._guests[-1]

    def close(self) -> None:
        for guest in self._guests:
            if guest.fileno() >= 0:
                guest.close()
        for server in self._servers:
            server.close()
        assert not [each for each in threading.enumerate() if each.name.startswith("monitor")]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def settled(links: GuestLinks, address: MonitorAddress, outcome: Outcome) -> None:
    """Wait until that came of it, as the daemon does; a busy machine may have others before."""
    deadline = time.monotonic() + PATIENCE
    while links.outcomes().get(address) != outcome:
        assert time.monotonic() < deadline, links.outcomes()
        select.select([links], [], [], 0.5)
        links.drain()


def failed(links: GuestLinks, address: MonitorAddress, carrier: bool) -> str:
    """Wait until it could not be set; in words why."""
    poll(lambda: links.outcomes().get(address, Outcome(not carrier)).carrier is carrier)
    return links.outcomes()[address].error


TRANSPORTS = [("qmp", "unix"), ("qmp", "tcp"), ("hmp", "unix"), ("hmp", "tcp"), ("telnet", "tcp")]


@pytest.mark.parametrize(("speech", "transport"), TRANSPORTS)
def test_a_link_is_set_off_and_on(lab: Lab, speech: str, transport: str) -> None:
    machine = Machine("net0", "net1")
    server = lab.serve(getattr(machine, speech), transport)
    address = server.address(protocol=speech.replace("telnet", "hmp"))
    links = lab.guest_links()
    for carrier in (False, True, False):
        links.set({address: carrier})
        settled(links, address, Outcome(carrier))
        assert machine.netdevs == {"net0": carrier, "net1": True}


@pytest.mark.parametrize(("speech", "transport"), TRANSPORTS)
def test_a_netdev_that_is_not_there(lab: Lab, speech: str, transport: str) -> None:
    machine = Machine("net0")
    server = lab.serve(getattr(machine, speech), transport)
    protocol = speech.replace("telnet", "hmp")
    here, missing = server.address("net0", protocol), server.address("net7", protocol)
    links = lab.guest_links()
    links.set({missing: False, here: False})
    reason = "there is no netdev net7 in this machine; `info network` in HMP lists them"
    settled(links, missing, Outcome(False, reason))
    settled(links, here, Outcome(False))
    machine.netdevs["net7"] = True  # plugged in
    poll(lambda: links.outcomes()[missing] == Outcome(False))
    assert machine.netdevs == {"net0": False, "net7": False}


def test_links_of_one_machine_share_a_connection(lab: Lab) -> None:
    machine = Machine(*(f"net{number}" for number in range(64)))
    server = lab.serve(machine.qmp)
    links = lab.guest_links(QUICK._replace(again_off=60.0))
    wanted = {
        server.address(netdev): number % 2 == 0 for number, netdev in enumerate(machine.netdevs)
    }
    links.set(wanted)
    poll(lambda: len(links.outcomes()) == 64)
    assert links.outcomes() == {address: Outcome(carrier) for address, carrier in wanted.items()}
    assert server.connections == 1
    links.set(wanted | {server.address("net5"): True})
    poll(lambda: links.outcomes()[server.address("net5")] == Outcome(True))
    assert len(machine.history) == 65  # nothing is set that is known to be set


def test_the_next_client_is_served(lab: Lab) -> None:
    machine = Machine()
    server = lab.serve(machine.qmp)
    links = lab.guest_links()
    links.set({server.address(): False})
    settled(links, server.address(), Outcome(False))
    for _ in range(20):  # meanwhile it is set again and again
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(server.path))
            assert client.recv(4096) == GREETING
        time.sleep(0.02)
    poll(lambda: len(machine.history) > 2)


# --------------------------------------------------------------------------- who is away


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_a_monitor_that_is_away_is_tried_again(lab: Lab, transport: str) -> None:
    gone = lab.serve(Machine().qmp, transport)
    gone.close()
    if gone.path:
        gone.path.unlink()
    links = lab.guest_links(QUICK._replace(last_retry=PATIENCE) if gone.path else QUICK)
    address = gone.address()
    links.set({address: False})
    why = "No such file or directory" if gone.path else "Connection refused"
    reason = f"no monitor answers at {address.monitor}: {why}; it is tried again"
    settled(links, address, Outcome(False, reason))
    time.sleep(0.5)  # the waits have grown: what helps a unix socket is that its file appears
    machine = Machine()
    lab.serve(machine.qmp, transport, gone.port)
    poll(lambda: links.outcomes()[address] == Outcome(False), 10.0)
    assert machine.history == [("net0", False)]


def test_a_socket_that_nobody_listens_at_yet(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "monitor.sock"
    links = lab.guest_links(QUICK._replace(first_retry=0.2, last_retry=PATIENCE))
    address = MonitorAddress(Monitor("qmp", path=str(path)), "net0")
    links.set({address: False})
    time.sleep(1.7)  # the next attempts would be seconds away
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        poll(lambda: "refused" in failed(links, address, False))
        listener.listen(1)
        listener.settimeout(2.5)
        listener.accept()[0].close()


@pytest.mark.parametrize(("speech", "transport"), TRANSPORTS)
def test_a_machine_that_is_started_again_is_set_again(
    lab: Lab, speech: str, transport: str
) -> None:
    first, second = Machine("net0", "net1"), Machine("net0", "net1")
    server = lab.serve(getattr(first, speech), transport)
    protocol = speech.replace("telnet", "hmp")
    off, on = server.address("net0", protocol), server.address("net1", protocol)
    links = lab.guest_links(QUICK._replace(again_off=60.0) if server.path else QUICK)
    links.set({off: False, on: True})
    settled(links, off, Outcome(False))
    settled(links, on, Outcome(True))
    server.close()
    lab.serve(getattr(second, speech), transport, server.port)
    poll(lambda: second.netdevs == {"net0": False, "net1": True}, 10.0)


def test_what_is_on_is_set_again_seldom_and_what_is_off_often(lab: Lab) -> None:
    machine = Machine("net0")
    server = lab.serve(machine.qmp)
    links = lab.guest_links(QUICK._replace(again_off=0.1, again_on=0.6))
    links.set({server.address(): True})
    settled(links, server.address(), Outcome(True))
    start = time.monotonic()
    machine.netdevs["net0"] = False  # a snapshot was from when it was off
    poll(lambda: machine.netdevs["net0"])
    assert time.monotonic() - start > 0.4
    links.set({server.address(): False})
    settled(links, server.address(), Outcome(False))
    machine.history.clear()
    poll(lambda: len(machine.history) > 3)
    assert set(machine.history) == {("net0", False)}


def test_the_last_of_many_wishes_is_what_remains(lab: Lab) -> None:
    machine = Machine()
    server = lab.serve(machine.qmp)
    links = lab.guest_links(QUICK._replace(between=0.05, again_off=60.0))
    start = time.monotonic()
    for number in range(301):
        links.set({server.address(): number % 2 == 1})
        time.sleep(0.001)
    poll(lambda: links.outcomes().get(server.address()) == Outcome(False))
    poll(lambda: machine.history[-1:] == [("net0", False)])
    assert server.connections <= 2 + (time.monotonic() - start) / 0.05


# --------------------------------------------------------------------------- who is wanted no more


def test_what_is_off_and_not_wanted_any_more_is_put_back(lab: Lab) -> None:
    machine = Machine("net0", "net1", "net2")
    server = lab.serve(machine.qmp)
    off, on, other = (server.address(f"net{number}") for number in range(3))
    links = lab.guest_links(QUICK._replace(again_off=60.0))
    links.set({off: False, on: True, other: False})
    settled(links, off, Outcome(False))
    links.set({other: False})
    poll(lambda: machine.netdevs == {"net0": True, "net1": True, "net2": False})
    assert machine.history[3:] == [("net0", True)]
    assert set(links.outcomes()) == {other}


def test_what_a_killed_daemon_left_off_is_put_back_also_by_a_short_life(lab: Lab) -> None:
    machine = Machine("net0")
    machine.netdevs["net0"] = False
    server = lab.serve(machine.qmp)
    links = lab.guest_links()
    links.set({server.address(): True})
    links.set({})
    links.close()
    assert machine.netdevs == {"net0": True}


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_who_is_gone_is_not_waited_for_to_put_back(lab: Lab, transport: str) -> None:
    machine = Machine()
    server = lab.serve(machine.qmp, transport)
    links = lab.guest_links()
    links.set({server.address(): False, server.address("net7"): False})
    settled(links, server.address(), Outcome(False))
    server.close()
    links.set({})
    poll(lambda: "monitors" not in [each.name for each in threading.enumerate()])


def test_what_could_not_be_put_back_does_not_have_the_others_set_often(lab: Lab) -> None:
    machine = Machine()
    server = lab.serve(machine.qmp)
    links = lab.guest_links(QUICK._replace(again_off=0.02))
    links.set({server.address(): True, server.address("net7"): False})
    poll(lambda: "no netdev" in failed(links, server.address("net7"), False))
    links.set({server.address(): True})
    time.sleep(0.3)
    machine.history.clear()
    time.sleep(0.3)
    assert machine.history == []


def test_the_thread_ends_when_nothing_is_wanted_and_begins_again(lab: Lab) -> None:
    machine = Machine()
    server = lab.serve(machine.qmp)
    links = lab.guest_links()
    for _ in range(3):
        links.set({server.address(): False})
        settled(links, server.address(), Outcome(False))
        links.set({})
        assert links.outcomes() == {}
        poll(lambda: "monitors" not in [each.name for each in threading.enumerate()])
        assert machine.netdevs == {"net0": True}


def test_close_puts_back_what_was_given_up(lab: Lab) -> None:
    machine = Machine()
    server = lab.serve(machine.hmp)
    address = server.address(protocol="hmp")
    links = lab.guest_links()
    links.set({address: False})
    settled(links, address, Outcome(False))
    links.set({})
    links.close()
    assert machine.netdevs == {"net0": True}


@pytest.mark.parametrize("speech", ["qmp", "hmp"])
def test_close_in_the_middle_is_told_by_nobody(
    lab: Lab, speech: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = lab.serve(getattr(Machine(), speech))
    busy = Pace(between=0.0, look=0.001, again_off=0.0)
    for number in range(50):
        links = lab.guest_links(busy)
        links.set({server.address(protocol=speech): False})
        time.sleep(number / 5000)
        links.close()
        gc.collect()  # what was left open is a warning, which is an error here
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_a_fault_of_our_own_is_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    links = lab.guest_links()
    address = _at("127.0.0.1", 1)
    monkeypatch.setattr(machines._Machine, "_fail", None)
    links.set({address: False})
    error = failed(links, address, False)
    assert error.startswith("monitors cannot be talked with: TypeError")
    monkeypatch.undo()
    links.set({address: True})  # a new thread
    assert failed(links, address, True).startswith("no monitor answers")


def test_close_leaves_what_is_wanted(lab: Lab) -> None:
    machine = Machine()
    server = lab.serve(machine.qmp)
    links = lab.guest_links()
    links.set({server.address(): False})
    settled(links, server.address(), Outcome(False))
    links.close()
    assert machine.netdevs == {"net0": False}


@pytest.mark.parametrize("given_up", [False, True])
def test_close_takes_a_second_whatever_a_monitor_does(lab: Lab, given_up: bool) -> None:
    server = lab.serve(_silence)
    links = lab.guest_links(Pace())
    links.set({server.address(): False})
    poll(lambda: server.connections)
    if given_up:
        links.set({})
    start = time.monotonic()
    links.close()
    assert time.monotonic() - start < 3.0  # a busy machine's second
    poll(lambda: "monitors" not in [each.name for each in threading.enumerate()])


# --------------------------------------------------------------------------- who misbehaves


def _silence(client: socket.socket) -> None:
    while client.recv(4096):
        pass


def _hang_up(_client: socket.socket) -> None:
    pass


def _hang_up_in_the_middle(client: socket.socket) -> None:
    client.sendall(GREETING)
    client.recv(4096)
    client.sendall(b'{"return": {}, "id": "__qmp#00000"}\r\n')
    client.recv(4096)


def _refuse_to_negotiate(client: socket.socket) -> None:
    client.sendall(GREETING)
    client.recv(4096)
    client.sendall(b'{"error": {"class": "GenericError", "desc": "no"}, "id": "__qmp#00000"}\r\n')
    _silence(client)


def _flood(piece: bytes, before: bytes = b"") -> Serve:
    def flood(client: socket.socket) -> None:
        client.sendall(before)
        while True:
            client.sendall(piece)

    return flood


def _once(text: bytes) -> Serve:
    def once(client: socket.socket) -> None:
        client.sendall(text)
        _silence(client)

    return once


ANY_TIME = (
    b'{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RTC_CHANGE", "data": {}}\r\n'
)
BUSY = (
    "the monitor at {at} accepts and says nothing: QEMU serves one client at a time and another "
    "one has it, or it hangs; give the machine one more monitor, only for this"
)
NO_QMP = "what answers at {at} is no QMP monitor: "
NO_HMP = "what answers at {at} is no HMP monitor: "
AGAIN = "the monitor at {at} hung up; it is tried again"
MISBEHAVIOUR: dict[str, tuple[str, Serve, str]] = {
    "qmp says nothing": ("qmp", _silence, BUSY),
    "hmp says nothing": ("hmp", _silence, BUSY),
    "qmp hangs up": ("qmp", _hang_up, AGAIN),
    "hmp hangs up": ("hmp", _hang_up, AGAIN),
    "hangs up after the banner": ("hmp", lambda client: client.sendall(BANNER), ""),
    "hangs up after the greeting": ("qmp", lambda client: client.sendall(GREETING), ""),
    "hangs up in the middle": ("qmp", _hang_up_in_the_middle, AGAIN),
    "refuses": ("qmp", _refuse_to_negotiate, NO_QMP + "it sends no greeting of QMP's"),
    "qmp in place of hmp": ("hmp", Machine().qmp, NO_HMP + "it speaks QMP, write `qmp:` for it"),
    "hmp in place of qmp": ("qmp", Machine().hmp, NO_QMP + "it speaks HMP, write `hmp:` for it"),
    "http": (
        "qmp",
        _once(b"HTTP/1.1 400 Bad Request\r\n"),
        NO_QMP + "it sends no greeting of QMP's",
    ),
    "no object": ("qmp", _once(b"[1]\r\n"), NO_QMP + "it sends no greeting of QMP's"),
    "too deep": ("qmp", _once(b"[" * 60_000 + b"\r\n"), NO_QMP + "it sends no greeting of QMP's"),
    "no UTF-8": ("qmp", _once(b"\xff\xfe\r\n"), NO_QMP + "it sends no greeting of QMP's"),
    "a huge number": (
        "qmp",
        _once(b"9" * 50_000 + b"\n"),
        NO_QMP + "it sends no greeting of QMP's",
    ),
    "no prompt": ("hmp", _once(b"login: "), NO_HMP + "it shows no prompt"),
    "an endless line": ("qmp", _flood(b"x" * 4096), NO_QMP + "it sends no greeting of QMP's"),
    "an endless banner": ("hmp", _flood(b"QEMU " * 800), NO_HMP + "what it prints does not end"),
    "endless options": (
        "hmp",
        _flood(b"\xff\xfb\x01" * 1000),
        NO_HMP + "what it prints does not end",
    ),
    "endless events": ("qmp", _flood(ANY_TIME, GREETING), NO_QMP + "it sends no greeting of QMP's"),
    "endless answers": ("hmp", _flood(b"\n(qemu) \n" * 500, BANNER), ""),
}


@pytest.mark.parametrize("kind", MISBEHAVIOUR)
@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_whoever_misbehaves_is_told_and_harms_no_other(
    lab: Lab, kind: str, transport: str, tmp_path: Path
) -> None:
    protocol, serve, reason = MISBEHAVIOUR[kind]
    bad = lab.serve(serve, transport)
    machine = Machine()
    good = Server(machine.qmp, tmp_path / "good.sock")
    address = bad.address(protocol=protocol)
    links = lab.guest_links()
    try:
        links.set({address: False, good.address(): False})
        settled(links, good.address(), Outcome(False))
        assert failed(links, address, False)
        if reason:
            settled(links, address, Outcome(False, reason.format(at=address.monitor)))
        if reason != BUSY:
            poll(lambda: bad.connections > 2)  # it is tried again
        links.set({address: False, good.address(): True})
        settled(links, good.address(), Outcome(True))
        assert machine.netdevs == {"net0": True}
    finally:
        good.close()


def _greet_and_flood(client: socket.socket) -> None:
    client.sendall(GREETING)
    client.recv(4096)
    client.sendall(b'{"return": {}, "id": "__qmp#00000"}\r\n')
    _flood(ANY_TIME * 100)(client)


@pytest.mark.parametrize("serve", [_greet_and_flood, _flood(b"x" * 4096)])
def test_what_does_not_end_takes_no_memory(lab: Lab, serve: Serve) -> None:
    server = lab.serve(serve)
    links = lab.guest_links(QUICK._replace(timeout=1.0))
    links.set({_at("127.0.0.1", 1): True})  # imports what it takes
    tracemalloc.start()
    try:
        links.set({server.address(): False})
        assert failed(links, server.address(), False)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 3_000_000


def test_events_in_between_are_passed_over(lab: Lab) -> None:
    machine = Machine()
    machine.events = ANY_TIME * 3
    server = lab.serve(machine.qmp)
    links = lab.guest_links()
    links.set({server.address(): False})
    settled(links, server.address(), Outcome(False))


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_a_monitor_that_another_client_has(lab: Lab, transport: str) -> None:
    machine = Machine()
    server = lab.serve(machine.qmp, transport)
    place = str(server.path) if server.path else ("127.0.0.1", server.port)
    family = socket.AF_UNIX if server.path else socket.AF_INET
    with socket.socket(family) as client:
        client.connect(place)
        assert client.recv(4096) == GREETING
        links = lab.guest_links(QUICK._replace(timeout=0.1))
        links.set({server.address(): False})
        reason = BUSY.format(at=server.address().monitor)
        settled(links, server.address(), Outcome(False, reason))
        time.sleep(0.5)  # whoever gave up and came again would fill the queue now
        assert links.outcomes()[server.address()] == Outcome(False, reason)
        assert machine.history == []
        links.set({server.address(): True})
        settled(links, server.address(), Outcome(True, reason))
    poll(lambda: links.outcomes()[server.address()] == Outcome(True))
    assert machine.history == [("net0", True)]
    assert server.connections == 2


def test_a_monitor_with_a_full_queue(lab: Lab) -> None:
    server = lab.serve(_silence)
    with ExitStack() as clients:
        for _ in range(3):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(server.path))
            poll(lambda: server.connections)  # the first one is served
        links = lab.guest_links()
        links.set({server.address(): False})
        reason = BUSY.format(at=server.address().monitor)
        settled(links, server.address(), Outcome(False, reason))


def test_the_same_again_is_no_news(lab: Lab) -> None:
    machine = Machine()
    server = lab.serve(machine.qmp)
    links = lab.guest_links(QUICK._replace(again_off=0.01))
    links.set({server.address(): False})
    settled(links, server.address(), Outcome(False))
    links.drain()
    machine.history.clear()
    poll(lambda: len(machine.history) > 3)
    assert select.select([links], [], [], 0)[0] == []


def test_a_socket_that_may_not_be_written_to(lab: Lab) -> None:
    server = lab.serve(Machine().qmp)
    assert server.path
    server.path.chmod(0)
    program = (
        "import os, sys, time, xconnectd.qemu.machines\n"
        "from xconnectd.monitor_address import MonitorAddress\n"
        "from xconnectd.qemu.guest_links import GuestLinks\n"
        "os.geteuid() or os.setuid(65534)  # root may write to all of them\n"
        "links, address = GuestLinks(), MonitorAddress.parse(sys.argv[1])\n"
        "links.set({address: False})\n"
        "while not links.outcomes(): time.sleep(0.01)\n"
        "print(links.outcomes()[address].error); links.close()\n"
    )
    command = [sys.executable, "-c", program, str(server.address())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    reason = "Permission denied (the daemon's user needs the right to write to this socket)"
    told = f"no monitor answers at {server.path}: {reason}; it is tried again\n"
    assert (done.stdout, done.stderr) == (told, "")


# --------------------------------------------------------------------------- hosts


def _at(host: str, port: int) -> MonitorAddress:
    return MonitorAddress(Monitor("qmp", host=host, port=port), "net0")


def test_a_host_can_have_a_name(lab: Lab) -> None:
    machine = Machine()
    server = lab.serve(machine.qmp, "tcp")
    links = lab.guest_links()
    address = _at("localhost", server.port)
    links.set({address: False})
    settled(links, address, Outcome(False))


def test_a_name_that_nobody_knows(lab: Lab) -> None:
    links = lab.guest_links()
    address = _at("a" * 64, 4444)  # no label is that long: no name server is asked
    links.set({address: False})
    error = failed(links, address, False)
    assert error.startswith(f"no monitor answers at {address.monitor}: ")


def test_a_name_is_looked_up_each_time(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    look_up = socket.getaddrinfo

    def counted(*question: Any, **more: Any) -> Any:
        asked.append(question)
        return look_up(*question, **more)

    monkeypatch.setattr(socket, "getaddrinfo", counted)
    links = lab.guest_links()
    links.set({_at("localhost", 1): False})
    poll(lambda: len(asked) > 3)


def test_a_resolver_that_hangs_is_asked_once_and_waited_for_by_nobody(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    answer = threading.Event()

    def hang(*question: object, **_: object) -> list[object]:
        asked.append(question)
        answer.wait(PATIENCE)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    links = lab.guest_links(QUICK._replace(timeout=0.05))
    address = _at("r1", 4444)
    links.set({address: False})
    try:
        reason = "no monitor answers at r1:4444: Connection timed out; it is tried again"
        settled(links, address, Outcome(False, reason))
        time.sleep(0.5)  # several attempts
        assert len(asked) == 1
        start = time.monotonic()
        links.close()
        assert time.monotonic() - start < 3.0
    finally:
        answer.set()
    poll(lambda: "monitor-name" not in [each.name for each in threading.enumerate()])


# --------------------------------------------------------------------------- what it costs


def test_without_monitors_there_is_no_thread_and_nothing_is_imported() -> None:
    program = (
        "import json, sys, threading; from xconnectd.qemu.guest_links import GuestLinks\n"
        "links = GuestLinks(); links.set({}); links.drain(); assert not links.outcomes()\n"
        "print(json.dumps([threading.active_count(), *sys.modules])); links.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    threads, *modules = json.loads(done.stdout)
    assert threads == 1
    assert not {"asyncio", "ssl", "qemu", "qemu.qmp", "ipaddress"} & set(modules)


def test_with_monitors_encryption_is_not_imported(lab: Lab) -> None:
    server = lab.serve(Machine().qmp)
    program = (
        "import sys, time; from xconnectd.qemu.guest_links import GuestLinks\n"
        "from xconnectd.monitor_address import MonitorAddress\n"
        "links = GuestLinks(); links.set({MonitorAddress.parse(sys.argv[1]): True})\n"
        "while not links.outcomes(): time.sleep(0.01)\n"
        "print(*links.outcomes().values(), 'qemu.qmp' in sys.modules, 'ssl' in sys.modules)\n"
        "links.close()\n"
    )
    command = [sys.executable, "-c", program, str(server.address())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.stderr) == ("Outcome(carrier=True, error='') True False\n", "")


def test_without_qemu_qmp_it_is_said_what_is_missing() -> None:
    program = (
        "import sys; from xconnectd.qemu.guest_links import GuestLinks\n"
        "from xconnectd.monitor_address import MonitorAddress\n"
        "sys.modules['qemu.qmp'] = None\n"
        "links = GuestLinks(); links.set({MonitorAddress.parse('hmp:127.0.0.1:1#net0'): False})\n"
        "print(*links.outcomes().values()); links.set({}); links.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == ""
    assert "monitors cannot be talked with: ModuleNotFoundError" in done.stdout
    assert "qemu.qmp" in done.stdout
