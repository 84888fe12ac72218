"""``test`` and ``doctor``: frames prove a good link, a fault is named with its remedy."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from xconnectd.dataplane.programs import Dataplane
from xconnectd.reconcile.mode_selection import FAR_READY

from .lab import PROG_TC, PROG_XDP, TC_CONTINUE, TC_DROP, XDP_DROP, Lab, Station, inside, poll, run
from .service import Daemon
from .test_invariants import _settled
from .traffic import Stream

Start = Callable[..., Daemon]
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
        assert way["corrupted"] == way["duplicated"] == way["reordered"] == 0
        least, median, most = (way["latency_us"][key] for key in ("min", "median", "max"))
        assert 0 < least <= median <= most
        assert way["redirected"]["sent"] == way["redirected"]["arrived"] > 0


def sizes(way: Json) -> dict[int, tuple[int, int]]:
    """Sent and arrived, by size."""
    return {each["size"]: (each["sent"], each["arrived"]) for each in way["sizes"]}


# ---------------------------------------------------------------------- good links


@pytest.mark.parametrize("mode", ["generic", "tc", "native"])
def test_a_good_link(lab: Lab, daemon: Start, mode: str) -> None:
    for name in ("va", "vb"):
        run(*PREPARED, namespace=lab.veth(name).namespace)
    running = daemon(f"links: {{va: {{to: vb, mode: {mode}}}}}\n")
    running.wait_link("connected", "va", "vb")
    found = probed(running, "va:vb", "--count", "3")
    assert_perfect(found, ("va", "vb"), ("vb", "va"))
    for way in found["ways"]:
        assert sizes(way) == dict.fromkeys((60, 128, 256, 512, 1024, 1514), (3, 3))
        assert way["counted"]["forwarded"] >= 18
    running.stop()


def test_jumbo_frames_and_every_spelling(lab: Lab, daemon: Start) -> None:
    lab.veth("va", mtu=9000), lab.veth("vb", mtu=9000)
    running = daemon({"va": "vb"})
    running.wait_link("connected", "va", "vb")
    for name in ("vb:va", "va:vb", "va", "vb"):
        found = probed(running, name, "--count", "1")
        assert_perfect(found, ("va", "vb"), ("vb", "va"))
        assert max(sizes(found["ways"][0])) == 9014


def test_a_plug_and_far_ends_in_the_same_namespace(lab: Lab, daemon: Start) -> None:
    lab.pair("va", "va-far"), lab.pair("vb", "vb-far")
    lab.veth("vp")
    running = daemon({"va": "vb", "vp": "vp"})
    running.wait_link("connected", "va", "vb")
    assert_perfect(probed(running, "va"), ("va", "vb"), ("vb", "va"))
    assert_perfect(probed(running, "vp"), ("vp", "vp"))


def test_a_namespace_without_a_name_is_found_by_its_processes(lab: Lab, daemon: Start) -> None:
    lab.veth("va"), lab.veth("vb")
    box = subprocess.Popen(("unshare", "--net", "sleep", "300"))
    try:
        poll(lambda: Path(f"/proc/{box.pid}/exe").readlink().name == "sleep")  # it is in there
        lab.ip("link", "add", "vc", "type", "veth", "peer", "name", "eth0", "netns", str(box.pid))
        lab.ip("link", "set", "vc", "up")
        run("nsenter", "-t", str(box.pid), "-n", "ip", "link", "set", "eth0", "up")
        running = daemon({"va": "vc"})
        running.wait_link("connected", "va", "vc")
        assert_perfect(probed(running, "va", "--count", "1"), ("va", "vc"), ("vc", "va"))
        assert f"of sleep #40;{box.pid}#41;" in running.cli("graph").stdout
    finally:
        box.kill()
        box.wait()


def test_the_traffic_is_not_disturbed_nor_taken_for_ours(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon({"va": "vb"})
    running.wait_link("connected", "va", "vb")
    with Stream(a, b) as stream:
        poll(stream.flows)
        assert_perfect(probed(running, "va"), ("va", "vb"), ("vb", "va"))
        stream.assert_perfect()


def test_a_tap_is_looked_at_and_its_counters_watched(lab: Lab, daemon: Start) -> None:
    station, tap = lab.veth("va"), lab.tap("tap0")
    running = daemon({"va": "tap0"})
    running.wait_link("connected", "va", "tap0")
    with Stream(station, tap) as stream:
        poll(stream.flows)
        found = probed(running, "va")
    assert found["ok"]
    assert not found["live"]
    assert "tap0 is a tap" in found["untested"]
    counted = [way["counted"]["forwarded"] for way in found["ways"]]
    assert all(0 < frames < stream.forth.sent for frames in counted), (counted, str(stream))
    text = running.cli("test", "va").stdout
    assert "no frames sent: tap0 is a tap" in text


# ---------------------------------------------------------------------- staged faults


@dataclass
class Bench:
    """A link whose daemon was killed, so that nobody mends what is broken."""

    lab: Lab
    daemon: Daemon
    a: Station
    b: Station
    mode: str

    def far(self, *command: str, station: Station | None = None) -> None:
        run(*command, namespace=(station or self.b).namespace)

    def plane(self, work: Callable[[Dataplane], None]) -> None:
        plane = Dataplane.open(self.lab.pins, build=False)
        try:
            inside(self.lab.host, lambda: work(plane))
        finally:
            plane.close()

    def far_program(self) -> None:
        path = self.lab.program(PROG_XDP, XDP_DROP, "drop")
        self.far("ip", "link", "set", "dev", "eth0", "xdpgeneric", "pinned", str(path))

    def foreign_program(self) -> None:
        self.lab.ip("link", "set", "dev", "va", "xdpgeneric", "off")
        self.lab.foreign_xdp("va")

    def foreign_filter(self) -> None:
        path = self.lab.program(PROG_TC, TC_CONTINUE)
        self.lab.tc("filter", "del", "dev", "va", "ingress")
        add = ("filter", "add", "dev", "va", "ingress", "pref", "1", "handle", "1", "bpf")
        self.lab.tc(*add, "da", "pinned", str(path))

    def dropping_filter(self) -> None:
        path = self.lab.program(PROG_TC, TC_DROP, "drop")
        add = ("filter", "add", "dev", "vb", "egress", "pref", "5", "bpf")
        self.lab.tc(*add, "da", "pinned", str(path))


@pytest.fixture
def bench(lab: Lab, request: pytest.FixtureRequest) -> Bench:
    mode: str = request.param
    a, b = lab.veth("va"), lab.veth("vb")
    for station in (a, b) if mode == "native" else ():
        run(*PREPARED, namespace=station.namespace)
    running = Daemon(lab, f"links: {{va: {{to: vb, mode: {mode}}}}}\n").start()
    running.wait_link("connected", "va", "vb")
    running.kill()
    return Bench(lab, running, a, b, mode)


@dataclass(frozen=True)
class Fault:
    """What is broken, the check that names it, words of its text and of the remedy.

    ``live``: frames can be sent; ``loses``: some of them do not arrive.
    """

    mode: str
    stage: Callable[[Bench], object]
    check: str
    text: str
    remedy: str
    live: bool = True
    loses: bool = True


REPAIR = "run -c"  # or systemctl, where the machine has it

FAULTS = {
    "the link is not in the file": Fault(
        "generic",
        lambda bench: bench.daemon.write({"va": "vx"}),
        *("file", "no link vb in", "below links:"),
        live=False,
    ),
    "an interface is missing": Fault(
        "generic",
        lambda bench: bench.lab.delete("vb"),
        *("interface", "vb does not exist", "ip -br link"),
        live=False,
    ),
    "the plug is pulled": Fault(
        "generic",
        lambda bench: (
            bench.daemon.write("links: {va: {to: vb, enabled: false}}\n"),
            bench.plane(lambda plane: plane.unpoint(bench.lab.ifindex("va"))),
            bench.plane(lambda plane: plane.unpoint(bench.lab.ifindex("vb"))),
        ),
        *("disabled", "enabled: false", "enabled: true"),
    ),
    "our end is down": Fault(
        "generic",
        lambda bench: bench.lab.ip("link", "set", "dev", "vb", "down"),
        *("down", "vb is administratively down", "ip link set dev vb up"),
    ),
    "the far end is down": Fault(
        "generic",
        lambda bench: bench.far("ip", "link", "set", "dev", "eth0", "down"),
        *("far end down", "eth0, the far end of vb,", "-vb ip link set dev eth0 up"),
    ),
    "an entry is missing": Fault(
        "generic",
        lambda bench: bench.plane(lambda plane: plane.unpoint(bench.lab.ifindex("va"))),
        *("entry", "no entry for va in the devmap (key {va})", REPAIR),
    ),
    "an entry leads elsewhere": Fault(
        "generic",
        lambda bench: bench.plane(lambda plane: plane.point(bench.lab.ifindex("vb"), 1)),
        *("entry", "vb (key {vb}) leads to ifindex 1, not to va ({va})", REPAIR),
    ),
    "a tc entry is missing": Fault(
        "tc",
        lambda bench: bench.plane(lambda plane: plane.unsteer(bench.lab.ifindex("vb"))),
        *("entry", "no entry for vb in the peers map (key {vb})", REPAIR),
    ),
    "our program is off": Fault(
        "generic",
        lambda bench: bench.lab.ip("link", "set", "dev", "va", "xdpgeneric", "off"),
        *("program", "no XDP program of ours on va", REPAIR),
        loses=False,  # the ingress filter takes them
    ),
    "a foreign program in its place": Fault(
        "generic",
        Bench.foreign_program,
        *("foreign program", "va runs an XDP program that is not ours", "dev va xdpgeneric off"),
        loses=False,
    ),
    "clsact is gone": Fault(
        "tc",
        lambda bench: bench.lab.tc("qdisc", "del", "dev", "vb", "clsact"),
        *("filter", "vb has lost clsact", REPAIR),
    ),
    "the ingress filter is gone": Fault(
        "tc",
        lambda bench: bench.lab.tc("filter", "del", "dev", "vb", "ingress"),
        *("filter", "vb has lost our ingress filter", REPAIR),
    ),
    "a foreign filter in its place": Fault(
        "tc",
        Bench.foreign_filter,
        *("foreign filter", "va has a tc ingress filter that is not ours", "va ingress pref 1"),
    ),
    "a foreign filter where frames leave": Fault(
        "tc",
        Bench.dropping_filter,
        *("foreign filter", "vb has a tc egress filter that is not ours", "vb egress pref 5"),
    ),
    "the far end's program drops": Fault(
        "generic",
        Bench.far_program,
        *("far end's program", "eth0, the far end of vb, runs", "-vb ip link set dev eth0 xdpgen"),
    ),
    "the far ends' MTUs differ": Fault(
        "generic",
        lambda bench: bench.far("ip", "link", "set", "eth0", "mtu", "3000", station=bench.a),
        *("mtu", "frames longer than 1518 bytes stop there", "-vb ip link set dev eth0 mtu 3000"),
    ),
    "the host end's MTU was set back": Fault(
        "generic",
        lambda bench: bench.lab.ip("link", "set", "dev", "vb", "mtu", "1000"),
        *("mtu", "the MTU of vb was set to 1000: frames longer than 1018", "vb mtu 65535"),
    ),
    "the far end does not poll": Fault(
        "native",
        lambda bench: bench.far("ethtool", "-K", "eth0", "gro", "off"),
        *("far end not polling", "vb: its far end eth0", "-vb ethtool -K eth0 gro on"),
    ),
    "checksums are left to native XDP": Fault(
        "native",
        lambda bench: bench.far("ethtool", "-K", "eth0", "tx", "on", station=bench.a),
        *("offload", "eth0, the far end of va, leaves", "-va ethtool -K eth0 gro on tx off"),
    ),
}


@pytest.mark.parametrize(
    ("bench", "fault"),
    [(each.mode, each) for each in FAULTS.values()],
    ids=FAULTS,
    indirect=["bench"],
)
def test_a_fault_is_named_with_its_remedy(bench: Bench, fault: Fault) -> None:
    numbers = {name: bench.lab.ifindex(name) for name in ("va", "vb")}
    fault.stage(bench)
    found = probed(bench.daemon, "vb", "--count", "2")
    assert not found["ok"], found
    cause = found["cause"]
    assert cause["check"] == fault.check, found
    assert fault.text.format(**numbers) in cause["text"]
    assert fault.remedy in cause["remedy"] or "systemctl" in cause["remedy"]
    assert found["live"] == fault.live
    if fault.live and fault.check != "offload":
        assert fault.loses == any(way["arrived"] < way["sent"] for way in found["ways"])
    if fault.check != "file":
        assert fault.check in {check for _, check in diagnosed(bench.daemon)} | {"offload"}


@pytest.mark.parametrize("bench", ["generic"], indirect=True)
def test_frames_that_only_a_tc_redirect_marks_do_not_cross(bench: Bench) -> None:
    """Those of every guest of vrnetlab's: XDP does not see them, and the filter is gone."""
    bench.lab.tc("filter", "del", "dev", "va", "ingress")
    found = probed(bench.daemon, "va", "--count", "2")
    forth, back = found["ways"]
    assert all(way["sent"] == way["arrived"] > 0 for way in (forth, back))
    assert (forth["redirected"]["sent"], forth["redirected"]["arrived"]) == (2, 0)
    assert (back["redirected"]["sent"], back["redirected"]["arrived"]) == (2, 2)
    assert found["cause"]["check"] == "filter"
    texts = [each["text"] for each in found["findings"] if each["check"] == "redirected"]
    assert texts == ["va → vb: 2 of 2 frames that tc redirected do not cross"]
    told = bench.daemon.cli("test", "va", "--count", "2").stdout
    assert "0 of 2 that tc redirected" in told


@pytest.mark.parametrize("bench", ["generic"], indirect=True)
def test_the_remedy_mends_it(bench: Bench) -> None:
    """A command is a command: it is taken from the answer and run as it stands."""
    bench.far("ip", "link", "set", "dev", "eth0", "down")
    bench.lab.ip("link", "set", "dev", "va", "down")
    bench.lab.ip("link", "set", "dev", "vb", "mtu", "1000")
    for _ in range(3):
        found = probed(bench.daemon, "va", "--count", "1")
        assert not found["ok"]
        bench.lab.run(*found["cause"]["remedy"].split())
        poll(lambda: bench.lab.link("va")["operstate"] != "DOWN")
    assert_perfect(probed(bench.daemon, "va", "--count", "1"), ("va", "vb"), ("vb", "va"))


@pytest.mark.parametrize("bench", ["generic"], indirect=True)
def test_frames_stop_where_the_mtu_says(bench: Bench) -> None:
    bench.far("ip", "link", "set", "eth0", "mtu", "3000", station=bench.a)
    forth, back = probed(bench.daemon, "va", "--count", "2")["ways"]
    arrived = {size: arrived for size, (_, arrived) in sizes(forth).items()}
    assert arrived == {60: 2, 128: 2, 256: 2, 512: 2, 1024: 2, 1514: 2, 2048: 0, 3014: 0}
    assert back["arrived"] == back["sent"]


@pytest.mark.parametrize("bench", ["generic"], indirect=True)
def test_unequal_far_ends_are_a_warning_of_doctor(bench: Bench) -> None:
    bench.far("ip", "link", "set", "eth0", "mtu", "3000", station=bench.a)
    found = diagnosed(bench.daemon)["va:vb", "mtu"]
    assert found["level"] == "warn"
    assert "MTU 1500, the other side of the wire 3000" in found["text"]


def test_a_tap_without_a_carrier(lab: Lab, daemon: Start) -> None:
    lab.veth("va"), lab.tap("tap0")
    running = daemon({"va": "tap0"})
    running.wait_link("connected", "va", "tap0")
    lab.ip("link", "set", "dev", "tap0", "carrier", "off")
    found = probed(running, "tap0")
    assert not found["live"]
    assert found["cause"]["check"] == "carrier"
    lab.run(*found["cause"]["remedy"].partition("#")[0].split())
    assert probed(running, "tap0")["ok"]


def test_a_link_that_would_be_a_loop(lab: Lab, daemon: Start) -> None:
    lab.pair("va", "vb")
    running = daemon({"va": "vb"})
    running.wait_link("failed", "va", "vb")
    found = probed(running, "va", "--count", "1")
    assert found["cause"]["check"] == "refused"
    assert "frames would circle for ever: " in found["cause"]["text"]


def test_a_link_that_was_refused(lab: Lab, daemon: Start) -> None:
    lab.veth("va"), lab.veth("vb")
    lab.ip("address", "add", "198.51.100.7/24", "dev", "vb")
    running = daemon({"va": "vb"})
    running.wait_link("failed", "va", "vb")
    cause = probed(running, "va", "--count", "1")["cause"]
    assert cause["check"] == "in use"
    assert "198.51.100.7/24" in cause["text"]


# ---------------------------------------------------------------------- doctor


def test_doctor_of_a_healthy_host(lab: Lab, daemon: Start) -> None:
    lab.veth("va"), lab.veth("vb")
    running = daemon({"va": "vb"})
    running.wait_link("connected", "va", "vb")
    before = _settled(lab)
    found = diagnosed(running)
    assert {each["level"] for each in found.values()} <= {"ok", "warn"}, found
    assert found["va:vb", "link"]["level"] == "ok"
    assert str(running.pid) in found["host", "daemon"]["text"]
    for check in ("kernel", "capabilities", "bpf", "bpffs", "programs", "code", "libbpf", "config"):
        assert found["host", check]["level"] == "ok", found["host", check]
    assert lab.snapshot() == before
    text = running.cli("doctor").stdout
    assert "va:vb\n  ok    link: both ends up" in text


def test_doctor_of_a_dead_daemon_and_a_bad_file(lab: Lab, daemon: Start) -> None:
    lab.veth("va"), lab.veth("vb")
    running = daemon({"va": "vb"})
    running.wait_link("connected", "va", "vb")
    running.kill()
    running.write("links: {va: vb, va: vc}\n")
    found = diagnosed(running)
    assert found["host", "daemon"]["level"] == "warn"
    assert found["host", "config"]["level"] == "fail"
    assert f"xconnectd check {running.config}" in found["host", "config"]["remedy"]
    assert found["va:vb", "link"]["level"] == "ok"  # the wire stands


def test_doctor_of_a_daemon_that_is_stopped(daemon: Start) -> None:
    running = daemon("links: {}\n")
    running.signal(signal.SIGSTOP)
    try:
        found = diagnosed(running)["host", "daemon"]
    finally:
        running.signal(signal.SIGCONT)
    assert found["level"] == "fail"
    assert f"kill -CONT {running.pid}" in found["remedy"]


def test_doctor_without_any_rights(lab: Lab, daemon: Start) -> None:
    lab.veth("va"), lab.veth("vb")
    running = daemon({"va": "vb", "vx": "vy"})
    running.wait_link("connected", "va", "vb")
    done = as_nobody(running, "doctor", "--json")
    told = json.loads(done.stdout)
    found = {(each["where"], each["check"]): each for each in told["findings"]}
    assert found["host", "kernel"]["level"] == "ok"
    for check in ("capabilities", "bpf", "programs", "config"):
        assert found["host", check]["level"] == "warn", found["host", check]
        assert found["host", check]["remedy"] == "sudo xconnectd doctor"
    refused = as_nobody(running, "test", "va")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "sudo xconnectd test" in refused.stderr


def as_nobody(daemon: Daemon, *args: str) -> subprocess.CompletedProcess[str]:
    drop = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    enter, namespace, *command = daemon._command(*args)
    surroundings = daemon._surroundings()
    return subprocess.run(
        (enter, namespace, *drop, *command),
        **surroundings,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_our_own_headroom_is_no_mtu_of_a_far_end(lab: Lab, daemon: Start) -> None:
    """Both ends of a veth are ends of links: behind each the wire goes on."""
    lab.pair("p0", "p1")
    lab.veth("va"), lab.veth("vb")
    running = daemon({"va": "p0", "p1": "vb"})
    running.wait_link("connected", "p1", "vb")
    found = diagnosed(running)
    assert not {place for place in found if place[1] == "mtu"}, found
    for link in running.status()["links"]:
        assert [link[end]["far_mtu"] for end in "ab"] == [1500, 1500], link
