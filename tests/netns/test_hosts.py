"""Links between hosts, on the real kernel: three daemons, one file, and an underlay that fails."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from . import fabric
from .carrier import Card
from .frames import ether, noise, odd_frames
from .hosts_lab import Hosts, many, stitch
from .lab import NETNS, Station, holds, poll
from .traffic import ALIVE, crosses, cut, datagrams, lossless, passes, transfer, wired

A, B = "h1/va", "h2/vb"
WIRE = {A: B}
KEY = "0123456789abcdef"


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two."""
    with Hosts(2) as found:
        yield found


@pytest.fixture
def three() -> Iterator[Hosts]:
    with Hosts() as found:
        yield found


def connected(hosts: Hosts, a: str = A, b: str = B) -> None:
    hosts.wait_state(a, b, "connected")


def carriers(*stations: Station) -> list[bool]:
    """Whether what is plugged into the far side of a wire shows as plugged in."""
    with ExitStack() as opened:
        cards = [opened.enter_context(closing(Card(x.namespace, "eth0"))) for x in stations]
        return [card.carrier for card in cards]


def wait_carriers(wanted: bool, *stations: Station) -> None:
    poll(lambda: set(carriers(*stations)) == {wanted}, what=f"carrier {wanted}")


def containers(hosts: Hosts, *ends: str) -> list[Station]:
    """One for each end, with the address of its place in the list."""
    found = []
    for number, end in enumerate(ends, 1):
        host, _, name = end.partition("/")
        found.append(hosts[host].veth(name, number))
    return found


def silent(hosts: Hosts, *ends: str) -> list[Station]:
    """Containers that never speak unless they are told to."""
    return [hosts[end.partition("/")[0]].veth(end.partition("/")[2]) for end in ends]


# --------------------------------------------------------------------------- whole


@pytest.mark.parametrize(("mtu", "v6"), [(1500, False), (9000, False), (9000, True)])
def test_one_file_wires_three_hosts(mtu: int, v6: bool) -> None:
    """Every frame crosses byte for byte: LACP, LLDP, QinQ, runts, and jumbo where they fit."""
    links = {A: B, "h3/vc": "h1/vd", "h2/ve": "h3/vf", "h2/tap0": "h2/tap1"}
    with Hosts(mtu=mtu, v6=v6) as hosts:
        stations = {end: silent(hosts, end)[0] for pair in links.items() for end in pair}
        for end, station in stations.items():
            station.ip(f"link set eth0 mtu {mtu}")
            hosts[end[:2]].lab.ip(f"link set dev {end[3:]} mtu {mtu}")
        hosts.start(links)
        for a, b in links.items():
            connected(hosts, a, b)
            frames = [*odd_frames(mtu - 100 if v6 else mtu).values()]
            with stations[a].port() as here, stations[b].port() as there:
                poll(lambda: passes(here, there))
                crosses(here, there, frames)
        told = {name: hosts[name].daemon.ask("status")["links"] for name in ("h1", "h3")}
        assert [len(x) for x in told.values()] == [2, 2], "a link of h2 alone"


@pytest.mark.parametrize("v6", [False, True])
def test_tcp_and_udp_are_whole(v6: bool) -> None:
    """At 1500 of underlay with containers of 1500, over IPv4; what fits, over IPv6."""
    with Hosts(2, v6=v6) as hosts:
        a, b = containers(hosts, A, B)
        if v6:
            for station in (a, b):
                station.ip("link set eth0 mtu 1430")
        hosts.start(WIRE)
        connected(hosts)
        wait_carriers(True, a, b)
        for client, server in ((a, b), (b, a)):
            assert transfer(client, server) > ALIVE
            assert transfer(client, server, v6=True) > ALIVE
            datagrams(client, server, (1, 1400, 8000, 30000))
            datagrams(client, server, (14000,), segment=1400)


def test_tags_beside_the_frame_cross(hosts: Hosts) -> None:
    """A container's driver keeps the tag of its VLAN as metadata; one more is in the frame."""
    a, b = silent(hosts, A, B)
    hosts.start(WIRE)
    connected(hosts)
    hosts["h1"].lab.tag(a, 5)
    frame = ether(0x8100, b"\0\x07\x88\xb5" + noise(80))
    with a.port() as here, b.port() as there:
        here.send(frame)
        wanted = frame[:12] + b"\x81\0\0\x05" + frame[12:]
        poll(lambda: wanted in there.drain())


# --------------------------------------------------------------------------- the underlay fails


def test_a_partition_ends_carrier_on_both_sides_and_what_is_not_of_it_stays(three: Hosts) -> None:
    a, b, x, y = silent(three, A, B, "h1/vx", "h3/vy")
    three.start({A: B, "h1/vx": "h3/vy"})
    connected(three)
    connected(three, "h1/vx", "h3/vy")
    wait_carriers(True, a, b, x, y)
    with lossless(x, y):
        for _ in range(3):
            three.partition("h1", "h2")
            wait_carriers(False, a, b)
            three.wait_state(A, B, "down", reason="does not answer")
            assert cut(a, b)
            three.mend()
            connected(three)
            wait_carriers(True, a, b)
            poll(lambda: wired(a, b))


@pytest.mark.parametrize("way", [("h1", "h2"), ("h2", "h1")])
def test_loss_of_one_direction_ends_both(hosts: Hosts, way: tuple[str, str]) -> None:
    a, b = silent(hosts, A, B)
    hosts.start(WIRE)
    connected(hosts)
    poll(lambda: wired(a, b))
    hosts.lose(*way)
    sender, receiver = way
    hosts.wait_state(A, B, "down", sender, reason="does not get what is sent to it")
    hosts.wait_state(A, B, "down", receiver, reason="does not answer")
    wait_carriers(False, a, b)
    holds(lambda: cut(a, b), 1)
    hosts.mend()
    connected(hosts)
    poll(lambda: wired(a, b))


def test_a_cable_that_is_pulled(hosts: Hosts) -> None:
    """The host itself sees its underlay go down, and come back."""
    a, b = silent(hosts, A, B)
    hosts.start(WIRE)
    connected(hosts)
    hosts.set_cable("h1", "down")
    hosts.wait_state(A, B, "down", reason="does not answer")
    wait_carriers(False, a, b)
    hosts.set_cable("h1", "up")
    connected(hosts)
    poll(lambda: wired(a, b))


# --------------------------------------------------------------------------- containers and daemons


def test_a_far_container_that_goes_down(hosts: Hosts) -> None:
    a, b = silent(hosts, A, B)
    hosts.start(WIRE)
    connected(hosts)
    wait_carriers(True, a, b)
    b.ip("link set eth0 down")
    wait_carriers(False, a)
    hosts.wait_state(A, B, "down", "h1", reason="h2")
    b.ip("link set eth0 up")
    wait_carriers(True, a, b)
    connected(hosts)
    hosts["h2"].lab.delete("vb")
    wait_carriers(False, a)
    hosts["h2"].veth("vb", namespace=b.namespace)
    wait_carriers(True, a, b)
    poll(lambda: wired(a, b))


def test_both_containers_that_go_down_come_back(hosts: Hosts) -> None:
    """Neither host waits for the other to be up first."""
    a, b = silent(hosts, A, B)
    hosts.start(WIRE)
    connected(hosts)
    for station in (a, b):
        station.ip("link set eth0 down")
    hosts.wait_state(A, B, "down")
    for station in (a, b):
        station.ip("link set eth0 up")
    connected(hosts)
    wait_carriers(True, a, b)


def test_a_daemon_that_is_killed_leaves_the_wire_until_hold_is_over(hosts: Hosts) -> None:
    a, b = silent(hosts, A, B)
    hosts.start({A: {"to": B, "hold": "6s"}})
    connected(hosts)
    wait_carriers(True, a, b)
    with lossless(a, b):
        hosts["h2"].daemon.kill()
        time.sleep(1)
    hosts.wait_state(A, B, "down", "h1", reason="its daemon has said nothing for")
    wait_carriers(False, a)
    assert cut(a, b)
    hosts["h2"].daemon.start()
    connected(hosts)
    wait_carriers(True, a, b)


def test_a_daemon_that_is_started_anew_loses_no_frame(hosts: Hosts) -> None:
    """On either host: what stands is adopted, and nobody takes the silence for an end."""
    a, b = silent(hosts, A, B)
    hosts.start(WIRE)
    connected(hosts)
    wait_carriers(True, a, b)
    with lossless(a, b):
        for name in ("h1", "h2"):
            hosts[name].daemon.crash()
            connected(hosts)


def test_a_daemon_that_gets_no_processor_is_no_daemon_that_is_gone(hosts: Hosts) -> None:
    """It was asked for nothing that its kernel did not answer, and judges nobody by its own gap."""
    a, b = silent(hosts, A, B)
    hosts.start(WIRE)
    connected(hosts)
    wait_carriers(True, a, b)
    with lossless(a, b):
        for name in ("h1", "h2"):
            hosts[name].daemon.signal(signal.SIGSTOP)
            time.sleep(1.5)
            hosts[name].daemon.signal(signal.SIGCONT)
        time.sleep(0.5)


def test_a_daemon_that_is_stopped_says_so(hosts: Hosts) -> None:
    a, b = silent(hosts, A, B)
    hosts.start(WIRE)
    connected(hosts)
    before = hosts["h2"].lab.interfaces()
    hosts["h2"].daemon.stop()
    hosts.wait_state(A, B, "down", "h1", reason="stopped")
    wait_carriers(False, a)
    assert set(before) - set(hosts["h2"].lab.interfaces()), "the tunnel is left"
    assert not hosts["h2"].lab.pins.exists()
    hosts["h2"].daemon.start()
    connected(hosts)
    poll(lambda: wired(a, b))


def test_a_daemon_with_an_older_file(hosts: Hosts) -> None:
    """Nothing crosses until both have one wiring for the link; others are not minded."""
    a, b, x, y = silent(hosts, A, B, "h1/vx", "h2/vy")
    more = {"h1/vx": "h2/vy"}
    hosts.start({A: B, **more})
    connected(hosts)
    connected(hosts, "h1/vx", "h2/vy")
    newer = hosts.document({A: {"to": B, "one_way": True}, **more})
    with lossless(x, y):
        hosts.write(newer, "h1")
        hosts.wait_state(A, B, "down", reason="another wiring")
        assert cut(a, b)
        hosts.write(newer, "h2")
        connected(hosts)
        with a.port() as here, b.port() as there:
            poll(lambda: passes(here, there))
            assert not passes(there, here)


def test_a_link_that_one_host_does_not_have(hosts: Hosts) -> None:
    a, b = silent(hosts, A, B)
    hosts.start(WIRE)
    connected(hosts)
    hosts.write(hosts.document({"h1/vx": "h2/vy"}), "h2")
    hosts.wait_state(A, B, "down", "h1")
    assert cut(a, b)
    wait_carriers(False, a)
    hosts.write(hosts.document(WIRE), "h2")
    connected(hosts)
    poll(lambda: wired(a, b))


def test_ends_in_nodes_of_two_hosts(hosts: Hosts) -> None:
    """Nodes that start anew, on either side: their interfaces are made, and have a carrier."""
    ends = {name: hosts[name].lab.namespace("node", quiet=True) for name in ("h1", "h2")}
    nodes = {f"node-{name}": {"netns": str(NETNS / each)} for name, each in ends.items()}
    one, other = "h1/node-h1:eth1", "h2/node-h2:eth1"
    hosts.start({one: other}, nodes=nodes)
    a, b = (Station(each, "", interface="eth1") for each in ends.values())
    connected(hosts, one, other)
    poll(lambda: wired(a, b))
    for name, station in zip(ends, (a, b), strict=True):
        fabric.stop(station.namespace)
        hosts.wait_state(one, other, "waiting", name)
        fabric.start(station.namespace)
        connected(hosts, one, other)
        poll(lambda: wired(a, b))


# --------------------------------------------------------------------------- a key, and others


def test_only_who_has_the_key_is_believed(hosts: Hosts) -> None:
    a, b = silent(hosts, A, B)
    hosts.start(WIRE, hosts_key=KEY)
    connected(hosts)
    hosts.write(hosts.document(WIRE, hosts_key=KEY[::-1]), "h2")
    hosts.wait_state(A, B, "down")
    assert cut(a, b)
    hosts.write(hosts.document(WIRE, hosts_key=KEY[::-1]), "h1")
    connected(hosts)
    poll(lambda: wired(a, b))


def test_the_other_end_is_somebody_elses_tunnel(hosts: Hosts) -> None:
    """A VXLAN device and ``tc mirred``, by hand; it needs no daemon there and no word of it."""
    a, b = containers(hosts, A, B)
    stitch(hosts["h2"], "vb", hosts["h1"].address, 1234)
    there = {"remote": hosts["h2"].address, "vni": 1234}
    hosts["h1"].daemon.write(hosts.document({"va": {"to": {"vxlan": there}}}))
    hosts["h1"].daemon.start()
    poll(lambda: hosts["h1"].daemon.states() == {"connected"})
    assert transfer(a, b) > ALIVE
    assert transfer(b, a) > ALIVE


def test_two_hundred_tunnels(hosts: Hosts) -> None:
    """All up, all down with the underlay, all up again; a frame crosses each."""
    count = 200
    there, here = many(hosts["h1"], "a", count), many(hosts["h2"], "b", count)
    hosts.start({f"h1/a{n}": f"h2/b{n}" for n in range(count)})
    daemons = [hosts[name].daemon for name in ("h1", "h2")]
    all_are = lambda state: all(daemon.states() == {state} for daemon in daemons)  # noqa: E731
    poll(lambda: all_are("connected"), interval=0.2)
    hosts.partition("h1", "h2")
    poll(lambda: all_are("down"), interval=0.2)
    hosts.mend()
    poll(lambda: all_are("connected"), interval=0.2)
    for one, other in zip(here, there, strict=True):
        poll(lambda: wired(one, other))  # noqa: B023
