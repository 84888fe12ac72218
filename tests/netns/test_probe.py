"""``test`` and ``doctor``: frames prove a good link, a fault is named with its remedy.

All good links are of one daemon, and all broken ones of another, which was killed before anything
was broken, so that nobody mends it.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from xconnectd.reconcile.mode_selection import FAR_READY

from .lab import (
    PROG_TC,
    PROG_XDP,
    TC_CONTINUE,
    TC_DROP,
    XDP_DROP,
    XDP_PASS,
    Lab,
    Station,
    poll,
    run,
)
from .service import NOBODY, Daemon, Start
from .traffic import Stream, Tap, lossless

Json = dict[str, Any]
PREPARED = FAR_READY.format(far="eth0").split()


def probed(daemon: Daemon, link: str, *args: str) -> Json:
    """What ``test --json`` says; its exit code must agree."""
    done = daemon.cli("test", link, "--json", *args)
    assert done.stdout, done.stderr
    found: Json = json.loads(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1)
    return found


def diagnosed(daemon: Daemon) -> dict[tuple[str, str], Json]:
    """What ``doctor --json`` finds, by place and check."""
    done = daemon.cli("doctor", "--json")
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    failed = any(each["level"] == "fail" for each in told["findings"])
    assert (told["ok"], done.returncode) == (not failed, int(failed))
    return {(each["where"], each["check"]): each for each in told["findings"]}


def assert_perfect(found: Json, *ways: tuple[str, str]) -> None:
    assert found["ok"], found
    assert found["live"], found
    assert [(way["from"], way["to"]) for way in found["ways"]] == list(ways)
    for way in found["ways"]:
        assert way["sent"] == way["arrived"] > 0
        assert way["counted"]["forwarded"] >= way["sent"]
        assert way["corrupted"] == way["duplicated"] == way["reordered"] == 0
        least, median, most = (way["latency_us"][key] for key in ("min", "median", "max"))
        assert 0 < least <= median <= most
        assert way["redirected"]["sent"] == way["redirected"]["arrived"] > 0


def sizes(way: Json) -> dict[int, tuple[int, int]]:
    """Sent and arrived, by size."""
    return {each["size"]: (each["sent"], each["arrived"]) for each in way["sizes"]}


@dataclass
class Good:
    lab: Lab
    daemon: Daemon
    stations: dict[str, Station]
    tap: Tap
    box: int
    """A process in a network namespace that has no name."""


@pytest.fixture(scope="module")
def good() -> Iterator[Good]:
    pairs = {"g1": "g2", "t1": {"to": "t2", "mode": "tc"}, "n1": {"to": "n2", "mode": "native"}}
    pairs |= {"j1": "j2", "h1": "h2", "plug": "plug", "u1": "u2", "x1": "tap0", "c1": "p0"}
    pairs |= {"p1": "c2", "loop1": "loop2", "used1": "used2"}
    with subprocess.Popen(("unshare", "--net", "sleep", "900")) as box, Lab() as lab:
        lab.on_close(box.kill)
        veths = lab.veths(
            *("g1", "g2", "t1", "t2", "n1", "n2", "plug", "u1", "x1", "c1", "c2", "used1", "used2")
        )
        stations = {station.end: station for station in veths}
        for name in ("n1", "n2"):
            run(*PREPARED, namespace=stations[name].namespace)
        lab.veth("j1", mtu=9000), lab.veth("j2", mtu=9000)
        for pair in (("h1", "h1-far"), ("h2", "h2-far"), ("p0", "p1"), ("loop1", "loop2")):
            lab.pair(*pair)
        poll(lambda: Path(f"/proc/{box.pid}/exe").readlink().name == "sleep")  # it is in there
        lab.ip(f"link add u2 up type veth peer name eth0 netns {box.pid}")
        run("nsenter", "-t", str(box.pid), "-n", "ip", "link", "set", "eth0", "up")
        lab.ip("address add 198.51.100.7/24 dev used2")
        tap = lab.tap("tap0")
        daemon = Daemon(lab, pairs).start()
        poll(lambda: len(daemon.events("link.connected")) == len(pairs) - 2)
        yield Good(lab, daemon, stations, tap, box.pid)
        daemon.stop()


@pytest.mark.parametrize(
    ("link", "ends", "longest"),
    [
        ("g1:g2", ("g1", "g2"), 1514),
        ("t2:t1", ("t1", "t2"), 1514),
        ("n1", ("n1", "n2"), 1514),
        ("j2", ("j1", "j2"), 9014),
        ("h1", ("h1", "h2"), 1514),
        ("plug", ("plug",), 1514),
        ("u1", ("u1", "u2"), 1514),
    ],
)
def test_a_good_link_by_every_spelling(
    good: Good, link: str, ends: tuple[str, ...], longest: int
) -> None:
    found = probed(good.daemon, link, "--count", "3")
    assert_perfect(found, *zip(ends, ends[::-1], strict=True))
    for way in found["ways"]:
        carried = sizes(way)
        assert set(carried.values()) == {(3, 3)}
        assert {60, 128, 256, 512, 1024, longest} <= set(carried)
        assert max(carried) == longest


def test_the_traffic_is_not_disturbed_nor_taken_for_ours(good: Good) -> None:
    with lossless(good.stations["g1"], good.stations["g2"]):
        assert_perfect(probed(good.daemon, "g1"), ("g1", "g2"), ("g2", "g1"))
    ways = probed(good.daemon, "g1", "--count", "1")["ways"]
    assert all(way["counted"]["forwarded"] < 100 for way in ways), "what was before is not counted"


def test_a_tap_is_looked_at_and_its_counters_watched(good: Good) -> None:
    with Stream(good.stations["x1"], good.tap) as stream:
        poll(stream.flows)
        found = probed(good.daemon, "x1")
    assert (found["ok"], found["live"]) == (True, False)
    assert "tap0 is a tap" in found["untested"]
    counted = [way["counted"]["forwarded"] for way in found["ways"]]
    assert all(0 < frames < stream.forth.sent for frames in counted), (counted, str(stream))
    assert "no frames sent: tap0 is a tap" in good.daemon.cli("test", "x1").stdout
    good.lab.ip("link set dev tap0 carrier off")
    found = probed(good.daemon, "tap0")
    assert (found["live"], found["cause"]["check"]) == (False, "carrier")
    good.lab.run(*found["cause"]["remedy"].partition("#")[0].split())
    assert probed(good.daemon, "tap0")["ok"]


def test_why_a_link_was_refused_or_is_left_alone(good: Good) -> None:
    for link, check, text in (
        ("loop1", "refused", "frames would circle for ever: "),
        ("used1", "in use", "198.51.100.7/24"),
    ):
        cause = probed(good.daemon, link, "--count", "1")["cause"]
        assert (cause["check"], text in cause["text"]) == (check, True)
    found = probed(good.daemon, "c1")
    assert (found["ok"], found["live"]) == (True, False)
    assert "p1, the far end of p0, is an end of a link too" in found["untested"]


def test_doctor_of_a_healthy_host(good: Good) -> None:
    before = good.lab.settled()
    found = diagnosed(good.daemon)
    bad = {place for (place, _), each in found.items() if each["level"] not in ("ok", "warn")}
    assert bad == {"loop1:loop2", "used1:used2"}, found
    assert found["g1:g2", "link"]["level"] == "ok"
    assert str(good.daemon.pid) in found["host", "daemon"]["text"]
    for check in ("kernel", "capabilities", "bpf", "bpffs", "programs", "code", "libbpf", "config"):
        assert found["host", check]["level"] == "ok", found["host", check]
    assert good.lab.snapshot() == before
    assert "g1:g2\n  ok    link: both ends up" in good.daemon.cli("doctor").stdout
    assert f"of sleep #40;{good.box}#41;" in good.daemon.cli("graph").stdout
    # Both ends of a veth are ends of links: its MTU is our own, and the wire goes on behind it.
    assert not {place for place in found if place[1] == "mtu"}, found
    for link in ("c1", "p0"), ("c2", "p1"):
        shown = good.daemon.link(*link)
        assert [shown[end]["far_mtu"] for end in "ab"] == [1500, 1500]


def test_doctor_without_any_rights(good: Good) -> None:
    told = json.loads(good.daemon.cli("doctor", "--json", by=NOBODY).stdout)
    found = {(each["where"], each["check"]): each for each in told["findings"]}
    assert found["host", "kernel"]["level"] == "ok"
    for check in ("capabilities", "bpf", "programs", "config"):
        assert found["host", check]["level"] == "warn", found["host", check]
        assert found["host", check]["remedy"] == "sudo xconnectd doctor"
    refused = good.daemon.cli("test", "g1", by=NOBODY)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "sudo xconnectd test" in refused.stderr


def test_doctor_of_a_dead_daemon_and_a_bad_file(lab: Lab, daemon: Start) -> None:
    lab.veths("va", "vb")
    running = daemon({"va": "vb"}).connected()
    running.kill()
    running.write("links: {va: vb, va: vc}\n")
    found = diagnosed(running)
    assert found["host", "daemon"]["level"] == "warn"
    assert found["host", "config"]["level"] == "fail"
    assert f"xconnectd check {running.config}" in found["host", "config"]["remedy"]
    assert found["va:vb", "link"]["level"] == "ok"  # the wire stands


class Pair(NamedTuple):
    """The stations of a link whose daemon is dead, and its ends in the host."""

    one: Station
    other: Station

    @property
    def a(self) -> str:
        return self.one.end

    @property
    def b(self) -> str:
        return self.other.end

    @property
    def names(self) -> dict[str, str]:
        """``A`` and ``B`` are the namespaces of the far ends."""
        spaces = {"A": self.one.namespace, "B": self.other.namespace}
        return {"a": self.a, "b": self.b, **spaces}


Stage = Callable[[Lab, Pair], None]


def maps(*changes: tuple[str, str, *tuple[int, ...]]) -> Stage:
    """Changes of the maps: the method, the end, and where it leads."""

    def stage(lab: Lab, link: Pair) -> None:
        for how, end, *target in changes:
            number = lab.ifindex(link.names[end])
            lab.change_maps(lambda plane: getattr(plane, how)(number, *target))  # noqa: B023

    return stage


class Fault(NamedTuple):
    """What is broken, and the check that names it; the words are held by tests/unit.

    ``names``: which end it is about, or another word. ``live``: frames can be sent; ``loses``: some
    of them do not arrive; ``line``: what the file says by then.
    """

    mode: str
    check: str
    names: str
    stage: str | Stage
    live: bool = True
    loses: bool = True
    line: str = "{a}: {{to: {b}, mode: {mode}}}"


PROGRAMS = {
    "xdp_pass": (PROG_XDP, XDP_PASS),
    "xdp_drop": (PROG_XDP, XDP_DROP),
    "tc_continue": (PROG_TC, TC_CONTINUE),
    "tc_drop": (PROG_TC, TC_DROP),
}
FAULTS = {
    "the link is not in the file": Fault("generic", "file", "b", "", live=False, line="{a}: vx"),
    "an interface is missing": Fault("generic", "interface", "b", "ip link del {b}", live=False),
    "the plug is pulled": Fault(
        *("generic", "disabled", "enabled", maps(("unpoint", "a"), ("unpoint", "b"))),
        line="{a}: {{to: {b}, enabled: false}}",
    ),
    "our end is down": Fault("generic", "down", "b", "ip link set {b} down"),
    "the far end is down": Fault("generic", "far end down", "b", "ip -n {B} link set eth0 down"),
    "an entry is missing": Fault("generic", "entry", "a", maps(("unpoint", "a"))),
    "an entry leads elsewhere": Fault("generic", "entry", "b", maps(("point", "b", 1))),
    "a tc entry is missing": Fault("tc", "entry", "b", maps(("unsteer", "b"))),
    "our program is off": Fault(  # the ingress filter takes its frames
        "generic", "program", "a", "ip link set {a} xdpgeneric off", loses=False
    ),
    "a foreign program in its place": Fault(
        *("generic", "foreign program", "a"),
        "ip link set {a} xdpgeneric off; ip link set {a} xdpgeneric pinned {xdp_pass}",
        loses=False,
    ),
    "clsact is gone": Fault("tc", "filter", "b", "tc qdisc del dev {b} clsact"),
    "the ingress filter is gone": Fault("tc", "filter", "b", "tc filter del dev {b} ingress"),
    "only the ingress filter is gone": Fault(  # and what tc redirects is lost
        "generic", "filter", "a", "tc filter del dev {a} ingress", loses=False
    ),
    "a foreign filter in its place": Fault(
        *("tc", "foreign filter", "a"),
        "tc filter del dev {a} ingress; tc filter add dev {a} ingress pref 1 handle 1 bpf da"
        " pinned {tc_continue}",
    ),
    "a foreign filter where frames leave": Fault(
        "tc", "foreign filter", "b", "tc filter add dev {b} egress pref 5 bpf da pinned {tc_drop}"
    ),
    "the far end's program drops": Fault(
        *("generic", "far end's program", "b"),
        "nsenter --net=/run/netns/{B} ip link set eth0 xdpgeneric pinned {xdp_drop}",
    ),
    "the far ends' MTUs differ": Fault("generic", "mtu", "b", "ip -n {A} link set eth0 mtu 3000"),
    "the host end's MTU was set back": Fault("generic", "mtu", "b", "ip link set {b} mtu 1000"),
    "the host end's MTU is below its far end's": Fault(
        "tc", "mtu", "b", "ip link set {b} mtu 1000"
    ),
    "the far end takes no redirected frames": Fault(
        "native", "far end not polling", "b", "ip netns exec {B} ethtool -K eth0 gro off"
    ),
    "checksums are left to native XDP": Fault(
        "native", "offload", "a", "ip netns exec {A} ethtool -K eth0 tx on"
    ),
}


@dataclass
class Broken:
    lab: Lab
    daemon: Daemon
    links: dict[str, Pair]

    def probed(self, name: str) -> Json:
        return probed(self.daemon, self.links[name].b, "--count", "2")


@pytest.fixture(scope="module")
def broken() -> Iterator[Broken]:
    faults = FAULTS | {"three faults": Fault("generic", "", "", "")}
    with Lab() as lab:
        pins = {name: lab.program(*what, name) for name, what in PROGRAMS.items()}
        links = {
            name: Pair(lab.veth(f"a{number}"), lab.veth(f"b{number}"))
            for number, name in enumerate(faults)
        }
        whole = {link.a: {"to": link.b, "mode": faults[name].mode} for name, link in links.items()}
        for name, link in links.items():
            for station in link if faults[name].mode == "native" else ():
                run(*PREPARED, namespace=station.namespace)
        daemon = Daemon(lab, whole).start()
        poll(lambda: len(daemon.events("link.connected")) == len(links))
        daemon.kill()
        for name, (_, _, _, stage, *_) in faults.items():
            if isinstance(stage, str):
                lab.run("sh", "-ec", stage.format(**links[name].names, **pins))
            else:
                stage(lab, links[name])
        lines = (
            fault.line.format(**links[name].names, mode=fault.mode)
            for name, fault in faults.items()
        )
        daemon.write("".join(f"  {line}\n" for line in ("links:", *lines)).lstrip())
        yield Broken(lab, daemon, links)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_with_its_remedy(broken: Broken, name: str) -> None:
    fault, link = FAULTS[name], broken.links[name]
    found = broken.probed(name)
    assert not found["ok"], found
    cause = found["cause"]
    assert cause["check"] == fault.check, found
    word = {"a": link.a, "b": link.b}.get(fault.names, fault.names)
    assert re.search(rf"\b{word}\b", cause["text"])
    assert cause["remedy"]
    assert found["live"] == fault.live
    if fault.live and fault.check != "offload":
        assert fault.loses == any(way["arrived"] < way["sent"] for way in found["ways"])


def test_doctor_names_them_all(broken: Broken) -> None:
    told = diagnosed(broken.daemon)
    for name, fault in FAULTS.items():
        if fault.check not in ("file", "offload"):
            link = broken.links[name]
            assert (f"{link.a}:{link.b}", fault.check) in told, (name, told)
    link = broken.links["the far ends' MTUs differ"]
    found = told[f"{link.a}:{link.b}", "mtu"]
    assert found["level"] == "warn"
    assert "MTU 1500, the other side of the wire 3000" in found["text"]


def test_frames_that_only_a_tc_redirect_marks_do_not_cross(broken: Broken) -> None:
    """Those of every guest of vrnetlab's: XDP does not see them, and the filter is gone."""
    name = "only the ingress filter is gone"
    found = broken.probed(name)
    forth, back = found["ways"]
    assert all(way["sent"] == way["arrived"] > 0 for way in (forth, back))
    assert (forth["redirected"]["sent"], forth["redirected"]["arrived"]) == (2, 0)
    assert (back["redirected"]["sent"], back["redirected"]["arrived"]) == (2, 2)
    texts = [each["text"] for each in found["findings"] if each["check"] == "redirected"]
    link = broken.links[name]
    assert texts == [f"{link.a} → {link.b}: 2 of 2 frames that tc redirected do not cross"]
    told = broken.daemon.cli("test", link.a, "--count", "2").stdout
    assert "0 of 2 redirected by tc" in told


def test_frames_stop_where_the_mtu_says(broken: Broken) -> None:
    forth, back = broken.probed("the far ends' MTUs differ")["ways"]
    arrived = {size: arrived for size, (_, arrived) in sizes(forth).items()}
    assert arrived == {60: 2, 128: 2, 256: 2, 512: 2, 1024: 2, 1514: 2, 2048: 0, 3014: 0}
    assert back["arrived"] == back["sent"]


def test_the_remedy_mends_it(broken: Broken) -> None:
    """A command is a command: it is taken from the answer and run as it stands."""
    link = broken.links["three faults"]
    link.other.ip("link set eth0 down")
    broken.lab.batch([f"link set {link.a} down", f"link set {link.b} mtu 1000"])
    for _ in range(3):
        found = broken.probed("three faults")
        assert not found["ok"]
        broken.lab.run(*found["cause"]["remedy"].split())
        poll(lambda: broken.lab.link(link.a)["operstate"] != "DOWN")
    assert_perfect(broken.probed("three faults"), (link.a, link.b), (link.b, link.a))
