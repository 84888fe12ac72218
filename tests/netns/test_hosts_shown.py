"""What is shown of links between hosts, on either side: as it is, and when something is wrong."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from .captured import Capture
from .frames import LLDP, ether, noise
from .hosts_lab import Host, Hosts
from .lab import Station, poll, run
from .test_metrics import PORT, connect, sample, scrape
from .traffic import exchange

A, B = "h1/a", "h2/b"
LINKS = {A: B, "h2/c": "h3/d"}
METRICS = {"metrics": {"listen": f"127.0.0.1:{PORT}"}}


ENDS = {"a": "h1", "b": "h2", "c": "h2", "d": "h3"}


@dataclass(frozen=True)
class Bench:
    """Hosts, and what is behind their ends by the names of these: it speaks when it is told to."""

    hosts: Hosts
    stations: dict[str, Station]

    def heal(self) -> None:
        """As it was: daemons that run, with their file, and a way between all of them."""
        self.hosts.mend()
        self.hosts.write(self.hosts.document(LINKS, **METRICS))
        for name in ("h1", "h2"):
            if self.hosts[name].daemon.returncode is not None:
                self.hosts[name].daemon.start()
        self.await_links()

    def await_links(self) -> None:
        self.hosts.wait_state(A, B, "connected")
        self.hosts.wait_state("h2/c", "h3/d", "connected")


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Three, with a link from the first to the second, and one from there to the third."""
    with Hosts() as hosts:
        found = Bench(hosts, {end: hosts[host].veth(end) for end, host in ENDS.items()})
        hosts.start(LINKS, **METRICS)
        found.await_links()
        yield found


@pytest.fixture
def hosts(bench: Bench) -> Iterator[Hosts]:
    yield bench.hosts
    bench.heal()


@pytest.fixture
def stations(bench: Bench) -> dict[str, Station]:
    return bench.stations


def peer(host: Host) -> dict[str, Any]:
    """What status says there of the other side of the first link."""
    (link,) = json.loads(host.daemon.cli("status", "--json", A).stdout)["links"]
    found: dict[str, Any] = link["peer"]
    return found


def doctor(host: Host) -> dict[str, str]:
    """Its findings of the first link that are not good, by their checks."""
    told = json.loads(host.daemon.cli("doctor", "--json").stdout)["findings"]
    return {x["check"]: x["text"] for x in told if A in x["where"] and x["level"] != "ok"}


def test_status_says_where_the_other_side_is_and_what_it_says(hosts: Hosts) -> None:
    one, other = hosts["h1"], hosts["h2"]
    link, there = one.daemon.link(A, B), peer(other)
    here = peer(one)
    assert (link["a"]["host"], link["b"]["host"], link["b"]["interface"]) == ("h1", "h2", "b")
    assert (here["host"], here["address"], here["port"]) == ("h2", other.address, 14789)
    assert (there["host"], there["address"]) == ("h1", one.address)
    assert here["vni"] == there["vni"]
    assert here["device"] in one.lab.interfaces()
    assert link["b"]["host_interface"] == here["device"]
    assert (here["mtu"], here["alive"], here["state"]) == (1450, True, "connected")
    assert here["digest"] == there["digest"] == link["digest"] != ""
    assert 0 < here["round_trip_ms"] < 1000
    assert here["last_heard_age_s"] < 10
    lines = one.daemon.cli("status", "-v").stdout
    assert "host:   h1\n" in lines
    assert f"tunnel by {here['device']} to {other.address}, VNI {here['vni']}" in lines
    assert re.search(r"h2: connected there, heard \d.\ds ago, round trip \d+.\d\d ms", lines)
    table = one.daemon.cli("status").stdout
    assert "PEER" in table
    assert re.search(rf"^{A} — {B} +connected tc .* [\d.]+ms", table, re.MULTILINE)
    assert one.daemon.cli("plan").stdout == "0 changes\n"


def test_what_is_counted_there_comes_back(hosts: Hosts, stations: dict[str, Station]) -> None:
    """In status, in metrics, and in a test of the way there."""
    one = hosts["h1"]
    before = peer(one)["frames"]
    frames = [ether(0x88B5, noise(100 + n)) for n in range(50)]
    with stations["a"].port() as port, stations["b"].port() as far:
        assert exchange(port, far, frames).exact
    poll(lambda: peer(one)["frames"] == before + 50)
    found = scrape(connect(one.daemon))
    labels = {"link": f"{A},{B}", "host": "h2"}
    assert sample(found, "xconnectd_tunnel_up", **labels) == 1
    assert sample(found, "xconnectd_tunnel_peer_frames", **labels) == before + 50
    assert sample(found, "xconnectd_tunnel_unverified_keepalive_frames", **labels) == 0
    done = one.daemon.cli("test", A, "--json")
    told = json.loads(done.stdout)
    (way,) = told["ways"]
    assert (told["ok"], told["live"], done.returncode) == (True, True, 0), told
    assert (way["from"], way["to"], way["counted_by"]) == (A, B, "h2")
    assert way["arrived"] == way["sent"] > 100


def test_a_test_says_when_nobody_counts_there(hosts: Hosts) -> None:
    """A daemon that has crashed there says nothing; the wire still stands."""
    hosts["h2"].daemon.kill()
    told = json.loads(hosts["h1"].daemon.cli("test", A, "--json").stdout)
    assert told["untested"] == "the daemon on h2 says nothing"
    assert not told["live"]


def test_a_graph_has_a_box_for_each_host_and_all_links(hosts: Hosts) -> None:
    drawn = hosts["h1"].daemon.cli("graph").stdout
    boxes = re.findall(r'^  subgraph \w+\["(\w+)"\]\n((?:    .*\n)+)  end$', drawn, re.MULTILINE)
    assert [name for name, _ in boxes] == ["h1", "h2", "h3"]
    assert '["eth0<br/>a"]' in boxes[0][1], "what is behind an end is known here alone"
    assert [re.findall(r'n\d+\["(.*)"\]', body) for _, body in boxes[1:]] == [["b", "c"], ["d"]]
    crossing, other = re.findall(r"(n\d) <-->\|.*\| (n\d)$", drawn, re.MULTILINE)
    assert (crossing, other) == (("n0", "n1"), ("n2", "n3"))
    assert '|"of other hosts"| n3' in drawn
    assert hosts["h1"].daemon.cli("graph", "--format", "svg").returncode == 0


def test_a_capture_has_the_frames_of_the_wire_alone(
    hosts: Hosts, stations: dict[str, Station]
) -> None:
    """Both directions, here; and none of what the daemons say to each other."""
    one = hosts["h1"]
    capture = Capture(one.daemon, A)
    back = ether(0x88B5, noise(90))
    with stations["a"].port() as port, stations["b"].port() as far:
        assert exchange(port, far, [LLDP]).exact
        assert exchange(far, port, [back]).exact
    sent = peer(one)["keepalives"]["echoed"]
    poll(lambda: peer(one)["keepalives"]["echoed"] > sent + 3)
    file = capture.stop()
    assert (file.frames(A), file.frames(B)) == ([LLDP], [back])


@contextmanager
def filtered(hosts: Hosts) -> Iterator[None]:
    """UDP alone, as a firewall does it, in both directions."""
    rules = [f"pref 90 ipproto udp iif {name} blackhole" for name in ("h1", "h2")]
    for rule in rules:
        run("ip", "rule", "add", *rule.split(), namespace=hosts.underlay)
    try:
        yield
    finally:
        for rule in rules:
            run("ip", "rule", "delete", *rule.split(), namespace=hosts.underlay)


@contextmanager
def one_way(hosts: Hosts) -> Iterator[None]:
    hosts.lose("h1", "h2")
    yield


@contextmanager
def unreachable(hosts: Hosts) -> Iterator[None]:
    lab = hosts["h1"].lab
    route = lab.ip("route show default").strip()
    lab.ip("route del default")
    try:
        yield
    finally:
        lab.ip(f"route add {route}")


@contextmanager
def another_file(hosts: Hosts) -> Iterator[None]:
    hosts.write(hosts.document({A: {"to": B, "one_way": True}, "h2/c": "h3/d"}), "h2")
    yield


@contextmanager
def another_key(hosts: Hosts) -> Iterator[None]:
    hosts.write(hosts.document(LINKS, hosts_key="another secret of theirs"), "h2")
    yield


# What is done, and the check and the words by which doctor tells it on the first host.
Fault = Callable[[Hosts], AbstractContextManager[None]]
FAULTS: list[tuple[Fault, str, str]] = [
    (filtered, "port", ", UDP port 14789), though it answers a ping"),
    (one_way, "tunnel", "h2 is heard, but what this host sends by UDP port 14789 gets no answer"),
    (unreachable, "route", "no way to h2"),
    (another_file, "wiring", "h2 has another wiring for this link (hash "),
    (another_key, "key", "what h2 says does not verify"),
]


@pytest.mark.parametrize(("fault", "check", "words"), FAULTS)
def test_doctor_tells_what_is_wrong_between_two_hosts(
    hosts: Hosts, fault: Fault, check: str, words: str
) -> None:
    assert doctor(hosts["h1"]).keys() == {"mtu"}, "1500 behind the ends, 1450 in one packet"
    with fault(hosts):
        hosts.wait_state(A, B, "down", "h1")
        found = doctor(hosts["h1"])
    assert words in found.get(check, ""), found


def test_doctor_knows_a_port_that_is_closed_from_one_that_is_filtered(hosts: Hosts) -> None:
    """The first host has no link to the second any more: by nothing does it say so but ICMP."""
    hosts.write(hosts.document({"h2/c": "h3/d"}), "h1")
    hosts.wait_state(A, B, "down", "h2")
    found = doctor(hosts["h2"])
    assert found["tunnel"].endswith("the port is closed, no xconnectd there has a tunnel to here")


def test_without_a_daemon_here_nobody_listens(hosts: Hosts) -> None:
    """What it decided last stands, and who looks is told that it may be old."""
    daemon = hosts["h1"].daemon
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    (row,) = (x for x in daemon.cli("status").stdout.splitlines() if x.startswith(A))
    assert "connected" in row
    assert "nobody here listens to h2" in row
    assert peer(hosts["h1"])["alive"] is None
    assert "nobody here listens to h2" in doctor(hosts["h1"])["not heard"]
