"""Crashes, restarts, upgrades, several daemons: no frame is lost and nothing stale stays."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from xconnectd.dataplane import compiler

from .lab import NETNS, PATIENCE, PINS, REPO, Lab, Station, inside, poll, run
from .service import Daemon
from .test_config_changes import cut, wired
from .test_invariants import _settled, assert_as_found
from .traffic import Stream

Start = Callable[..., Daemon]
PAIR = {"va": "vb"}
MODES = pytest.mark.parametrize("mode", ["auto", "tc"])


def _wiring(mode: str) -> str:
    return f"links:\n  va: {{to: vb, mode: {mode}}}\n"


def test_a_long_pass_gives_signs_of_life(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the manager's watchdog would end a daemon for nothing but many links."""
    lab.hush()
    lab.batch(f"link add p{n} type veth peer name q{n}" for n in range(40))
    told: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(lab.directory / "notify"))
        manager.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(lab.directory / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "8000")
        running = Daemon(lab, {f"p{n}": f"p{n + 1}" for n in range(0, 40, 2)}).spawn()
        while not told or b"READY=1" not in told[-1]:
            told.append(manager.recv(4096))
        assert told.count(b"WATCHDOG=1") > 5, told
        passed = running.wait_event("link.down", a="p0")["duration_ms"]
        assert told.count(b"WATCHDOG=1") < 5 + passed / 2, "as seldom as it may"
        running.kill()


# ---------------------------------------------------------------------- crash and start


@MODES
def test_four_crashes_under_traffic_lose_nothing(lab: Lab, mode: str) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    before = _settled(lab)
    running = Daemon(lab, _wiring(mode)).start()
    with Stream(a, b, rate=2000) as stream:
        poll(stream.flows)
        for n in range(4):
            running.kill()
            time.sleep(0.2 * n)
            since = running.mark()
            running.start()
            assert running.events("program.adopted", since)
            assert running.link("va", "vb")["state"] == "connected"
        time.sleep(0.3)
    stream.assert_perfect()
    assert stream.rate > 400, stream.rate
    running.stop()
    assert_as_found(lab, before)


def _matrix(stations: dict[str, Station], pairs: dict[str, str]) -> list[str]:
    """Where frames go otherwise than the pairs say."""
    wanted = set(pairs.items()) | {(b, a) for a, b in pairs.items()}
    wrong = []
    ports = {end: station.port() for end, station in stations.items()}
    try:
        for port in ports.values():
            port.drain()
        marks = {end: os.urandom(16) for end in ports}
        for end, port in ports.items():
            port.send(b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb6" + marks[end] + bytes(30))
        got: dict[str, set[bytes]] = {end: set() for end in ports}

        def look() -> bool:
            for end, port in ports.items():
                got[end] |= {frame[14:30] for frame in port.drain()}
            return all(marks[sender] in got[receiver] for sender, receiver in wanted)

        with contextlib.suppress(AssertionError):
            poll(look, 2)
        time.sleep(0.1)  # for frames that go astray, there is nothing to poll for
        look()
    finally:
        for port in ports.values():
            port.close()
    for sender, mark in marks.items():
        for receiver, frames in got.items():
            if (mark in frames) != ((sender, receiver) in wanted):
                what = "reaches" if mark in frames else "does not reach"
                wrong.append(f"{sender} {what} {receiver}")
    return wrong


def test_a_kill_at_any_moment_of_a_change_is_mended_by_the_next_start(lab: Lab) -> None:
    """Twelve ends, all rewired at once, modes changed, links made and detached."""
    ends = [f"v{n}" for n in range(12)]
    stations = {end: lab.veth(end) for end in ends}
    dice = random.Random(os.environ.get("XCONNECTD_CHAOS_SEED", "life"))
    before = _settled(lab)
    running = Daemon(lab, "links: {}\n").start()
    for n in range(24):
        order = dice.sample(ends, len(ends))
        count = dice.choice((3, 4, 6))
        pairs = dict(zip(order[:count], order[count : 2 * count], strict=True))
        text = "links:\n" + "".join(
            f"  {a}: {{to: {b}, mode: {dice.choice(('auto', 'tc'))}}}\n" for a, b in pairs.items()
        )
        running.write(text)
        time.sleep(dice.uniform(0, 0.03))
        running.kill()
        running.start()
        wrong = _matrix(stations, pairs)
        assert not wrong, (n, text, wrong, running.text())
        unwired = set(ends) - set(pairs) - set(pairs.values())
        assert [lab.xdp(end) for end in unwired] == [0] * len(unwired)
        assert len(running.status()["differences"]) == 0
    running.stop()
    assert_as_found(lab, before)


def test_a_kill_at_any_moment_of_a_stop_is_mended_by_the_next_start(lab: Lab) -> None:
    ends = [f"v{n}" for n in range(8)]
    stations = {end: lab.veth(end) for end in ends}
    pairs = dict(zip(ends[::2], ends[1::2], strict=True))
    before = _settled(lab)
    running = Daemon(lab, pairs).start()
    for n in range(10):
        running.signal(signal.SIGTERM)
        time.sleep(n * 0.004)
        running.kill()
        running.start()
        assert not _matrix(stations, pairs), running.text()
    running.stop()
    assert_as_found(lab, before)
    assert not lab.pins.exists()


def test_a_kill_at_any_moment_of_a_stop_leaves_what_detach_removes(lab: Lab) -> None:
    ends = [f"v{n}" for n in range(8)]
    for end in ends:
        lab.veth(end)
    before = _settled(lab)
    running = Daemon(lab, dict(zip(ends[::2], ends[1::2], strict=True)))
    for n in range(6):
        running.start()
        running.signal(signal.SIGTERM)
        time.sleep(n * 0.006)
        running.kill()
        done = running.cli("detach", "--all")
        assert done.returncode == 0, done.stderr
        assert_as_found(lab, before)
        assert not lab.pins.exists()


# ---------------------------------------------------------------------- signals during the start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda x: x.name)
def test_a_stop_during_the_start_leaves_nothing(lab: Lab, number: signal.Signals) -> None:
    """At whatever moment it comes; an exit by the signal itself is as good before anything is."""
    for end in ("va", "vb", "vc", "vd"):
        lab.veth(end)
    before = _settled(lab)
    running = Daemon(lab, PAIR | {"vc": "vd"})
    for n in range(16):
        since = len(running.text())
        running.spawn()
        time.sleep(n * 0.04)
        running.signal(number)
        assert running.wait() in (0, -number, 128 + number, 1), running.text()
        said = running.text()[since:]
        while_modules_are_loaded = said.rstrip().endswith("KeyboardInterrupt")
        assert "Traceback" not in said or while_modules_are_loaded, said
        assert not lab.pins.exists(), f"after {n * 40} ms: {[*lab.pins.rglob('*')]}"
        assert not (running.state / str(lab.cookie)).exists(), f"after {n * 40} ms"
        assert_as_found(lab, before)


AT_THE_FIRST_IMPORT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "xconnectd.cli.main":
            os.kill(os.getpid(), signal.SIGHUP)

sys.meta_path.insert(0, Finder())
"""


def test_a_hangup_before_there_is_a_daemon_waits_for_it(lab: Lab) -> None:
    """Python imports a ``sitecustomize`` before anything of ours runs."""
    a, b = lab.veth("va"), lab.veth("vb")
    (lab.directory / "sitecustomize.py").write_text(AT_THE_FIRST_IMPORT)
    early = ("env", f"PYTHONPATH={lab.directory}:{REPO}")
    running = Daemon(lab, PAIR, through=early).start()
    assert wired(a, b)
    poll(lambda: len(running.events("config.loaded")) == 2, what="what it asked for")
    running.stop()
    other = [*running._command()[:2], *early, sys.executable, "-m", "xconnectd", "version"]
    assert subprocess.run(other, cwd=REPO, check=False).returncode == -signal.SIGHUP


def test_a_hangup_during_the_start_ends_nothing(lab: Lab) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = Daemon(lab, PAIR)
    for n in range(8):
        since = running.mark()
        running.spawn()
        poll(lambda: [x for x in running.events(since=since) if "program." in x["event"]])  # noqa: B023
        running.signal(signal.SIGHUP)
        time.sleep(0.02 * n)
        running.signal(signal.SIGHUP)
        poll(lambda: wired(a, b))
        assert running.returncode is None
        running.kill()


def test_a_log_that_cannot_be_written_ends_nothing(lab: Lab) -> None:
    a, b, c = (lab.veth(x) for x in ("va", "vb", "vc"))
    full = ("sh", "-c", 'exec "$@" 2>/dev/full', "sh")
    running = Daemon(lab, PAIR, through=full).spawn()
    poll(lambda: wired(a, b))
    running.write({"va": "vc"})
    poll(lambda: wired(a, c))
    running.stop()
    assert running.text() == ""


def test_a_second_signal_ends_at_once(lab: Lab) -> None:
    ends = [f"v{n}" for n in range(20)]
    for end in ends:
        lab.veth(end)
    running = Daemon(lab, dict(zip(ends[::2], ends[1::2], strict=True))).start()
    running.signal(signal.SIGTERM)
    started = time.monotonic()
    while running.returncode is None and time.monotonic() - started < 5:
        os.kill(running.pid, signal.SIGTERM)
        time.sleep(0.001)
    assert running.wait() in (0, 1)
    assert running.cli("detach", "--all").returncode == 0


# ---------------------------------------------------------------------- upgrades


@pytest.fixture
def upgrade(tmp_path: Path) -> Callable[[str, str], Path]:
    """A copy of the program with another BPF source; returns where its package is."""

    def make(name: str, more: str) -> Path:
        new = tmp_path / name
        for part in ("xconnectd", "bpf"):
            shutil.copytree(
                compiler.source_directory().parent / part,
                new / part,
                ignore=shutil.ignore_patterns("__pycache__", "*.json"),
            )
        with (new / "bpf" / "xconnect.c").open("a") as source:
            source.write(more)
        return new

    return make


def _changed(running: Daemon, new: Path | None, patch: pytest.MonkeyPatch) -> None:
    """Have the daemon be another build from its next start on."""
    if new is None:
        patch.undo()
        return
    patch.delenv(compiler.CODE_VARIABLE, raising=False)
    surroundings = type(running)._surroundings

    def elsewhere(self: Daemon) -> dict[str, object]:
        found = surroundings(self)
        return found | {"cwd": new, "env": {**found["env"], "PYTHONPATH": str(new)}}

    patch.setattr(running, "_surroundings", elsewhere.__get__(running))


@MODES
@pytest.mark.parametrize("how", ["keep", "crash"])
def test_an_upgrade_of_the_program_loses_nothing(
    lab: Lab,
    upgrade: Callable[[str, str], Path],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    how: str,
) -> None:
    """Also the counters go on: the format of their map is the same."""
    a, b = lab.veth("va"), lab.veth("vb")
    before = _settled(lab)
    running = Daemon(lab, _wiring(mode), *(("--on-exit", "keep") if how == "keep" else ())).start()
    news = [upgrade(f"new{n}", f"\n/* version {n} */\n") for n in range(2)]
    program = _programs(lab)
    with Stream(a, b, rate=2000) as stream:
        poll(stream.flows)
        for new in (*news, None, news[0]):
            counted = running.link("va", "vb")["a"]["frames"]
            assert counted > 0
            running.stop() if how == "keep" else running.kill()
            _changed(running, new, monkeypatch)
            since = running.mark()
            running.start()
            assert running.events("program.loaded", since), "another program"
            assert running.link("va", "vb")["a"]["frames"] >= counted
            assert _programs(lab) != program
            program = _programs(lab)
        time.sleep(0.3)
    stream.assert_perfect()
    left = [x.name for x in lab.pins.iterdir() if x.name.startswith("programs-")]
    assert len(left) == 1, f"older generations are gone: {left}"
    running.kill()
    assert running.cli("detach", "--all").returncode == 0
    assert_as_found(lab, before)


def _programs(lab: Lab) -> list[object]:
    filters = json.loads(
        lab.tc("-j", "filter", "show", "dev", "va", "ingress", check=False) or "[]"
    )
    ids = [x.get("options", {}).get("prog", {}).get("id") for x in filters]
    return [lab.xdp("va"), *filter(None, ids)]


def test_a_new_program_that_does_not_load_leaves_the_wires(
    lab: Lab, upgrade: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = Daemon(lab, PAIR, "--on-exit", "keep").start()
    broken = upgrade("broken", "\nthis is no C\n")
    with Stream(a, b) as stream:
        poll(stream.flows)
        running.stop()
        _changed(running, broken, monkeypatch)
        assert running.spawn().wait() == 3
        assert "cannot start" in running.text()
        monkeypatch.undo()
        running.start()
        assert running.link("va", "vb")["state"] == "connected"
    stream.assert_perfect()


# ---------------------------------------------------------------------- while the daemon is dead


@MODES
def test_an_end_made_again_while_the_daemon_is_dead(lab: Lab, mode: str) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    before = _settled(lab)["links"]["va"]
    running = Daemon(lab, _wiring(mode)).start()
    running.kill()
    old = lab.ifindex("vb")
    lab.delete("vb")
    lab.veth("vb", namespace=b.namespace)
    assert lab.ifindex("vb") != old
    running.start()
    assert wired(a, b)
    assert running.link("va", "vb")["state"] == "connected"
    running.stop()
    assert lab.link("va") == before
    assert lab.link("vb")["mtu"] == 1500


def test_the_number_of_an_end_given_to_another_while_the_daemon_is_dead(lab: Lab) -> None:
    """vb is gone, and vz has its number: no frame goes there, nothing of it is changed."""
    a = lab.veth("va")
    lab.veth("vb", index=600)
    running = Daemon(lab, PAIR).start()
    running.kill()
    lab.delete("vb")
    z = lab.veth("vz", index=600)
    before = _settled(lab)["links"]["vz"]
    running.start()
    assert running.link("va", "vb")["state"] == "waiting"
    assert cut(a, z)
    assert lab.link("vz") == before
    running.stop()
    assert lab.link("vz") == before


def test_an_end_renamed_while_the_daemon_is_dead(lab: Lab) -> None:
    a, b, c = lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    before = _settled(lab)
    running = Daemon(lab, PAIR).start()
    running.kill()
    lab.batch(["link set vb down", "link set vb name vz", "link set vz up"])
    lab.batch(["link set vc down", "link set vc name vb", "link set vb up"])
    running.start()
    poll(lambda: wired(a, c))
    assert cut(a, b)
    assert lab.xdp("vz") == 0
    assert lab.link("vz")["mtu"] == 1500
    running.stop()
    lab.batch(["link set vb down", "link set vb name vc", "link set vc up"])
    lab.batch(["link set vz down", "link set vz name vb", "link set vb up"])
    assert_as_found(lab, {"links": before["links"], "qdiscs": before["qdiscs"]})


def test_two_ends_that_swap_names_while_the_daemon_is_dead(lab: Lab) -> None:
    a, b, c, d = (lab.veth(x) for x in ("va", "vb", "vc", "vd"))
    running = Daemon(lab, PAIR | {"vc": "vd"}).start()
    running.kill()
    lab.batch(
        [
            *("link set vb down", "link set vd down"),
            *("link set vb name tmp", "link set vd name vb", "link set tmp name vd"),
            *("link set vb up", "link set vd up"),
        ]
    )
    running.start()
    poll(lambda: wired(a, d))
    poll(lambda: wired(c, b))
    assert cut(a, b)
    running.stop()
    assert [lab.link(x)["mtu"] for x in ("va", "vb", "vc", "vd")] == [1500] * 4


@pytest.mark.parametrize("back", [False, True], ids=["away", "back again"])
def test_an_end_moved_while_the_daemon_is_dead(lab: Lab, back: bool) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    away = lab.namespace("away", quiet=True)
    running = Daemon(lab, PAIR).start()
    running.kill()
    lab.ip("link", "set", "vb", "netns", away)
    run("ip", "link", "set", "vb", "up", namespace=away)
    if back:
        run("ip", "link", "set", "vb", "netns", lab.host, namespace=away)
        lab.ip("link", "set", "vb", "up")
        running.start()
        poll(lambda: wired(a, b))
        running.stop()
        assert lab.link("vb")["mtu"] == 1500
        return
    running.start()
    assert running.link("va", "vb")["state"] == "waiting"
    assert cut(a, b)
    moved = running.status()["moved_netns"]
    assert [x["interface"] for x in moved] == ["vb"]
    enter, *remedy = moved[0]["remedy"].split()
    assert enter == "ip"
    run("ip", *remedy)
    run("ip", "link", "set", "vb", "netns", lab.host, namespace=away)
    lab.ip("link", "set", "vb", "up")
    poll(lambda: wired(a, b))
    running.stop()
    assert lab.link("vb")["mtu"] == 1500, "the remedy took the program off, not the MTU"


def _moved_on(lab: Lab, end: str, number: int) -> str:
    """Into one namespace, and from there to another, whose owner chooses the number."""
    first, second = (lab.namespace(name, quiet=True) for name in ("first", "second"))
    lab.ip("link", "set", end, "netns", first)
    with (NETNS / second).open() as there:
        fd = there.fileno()

        def move() -> None:
            with IPRoute() as route:
                (index,) = route.link_lookup(ifname=end)
                route.link("set", index=index, net_ns_fd=fd, IFLA_NEW_IFINDEX=number)

        inside(first, move)
    run("ip", "link", "set", end, "up", namespace=second)
    shown = json.loads(run("ip", "-d", "-j", "link", "show", end, namespace=second).stdout)[0]
    assert shown["ifindex"] == number
    assert "xdp" in shown, "it takes our program along"
    return second


@pytest.mark.parametrize("dead", [False, True], ids=["alive", "dead"])
def test_a_program_that_was_moved_forwards_nothing_whatever_number_it_gets(
    lab: Lab, dead: bool
) -> None:
    """The number of vc, say, so that its frames would arrive behind vd."""
    a, _, c, d = (lab.veth(name) for name in ("va", "vb", "vc", "vd"))
    running = Daemon(lab, PAIR | {"vc": "vd"}).start()
    stream = Stream(c, d)
    poll(stream.flows)
    if dead:
        running.kill()
    _moved_on(lab, "va", lab.ifindex("vc"))
    if dead:
        assert not cut(a, d), "nobody has repaired it yet"
        running.start()
    running.wait_link("waiting", "va", "vb")
    poll(lambda: cut(a, d))
    running.signal(signal.SIGHUP)
    poll(lambda: len(running.events("config.loaded")) == 2 + dead)
    assert running.status()["daemon"]["running"]
    assert cut(a, d)
    stream.assert_perfect()
    assert wired(c, d)
    running.stop()


def _come_back(lab: Lab, end: str, away: str) -> None:
    run("ip", "link", "set", end, "netns", lab.host, namespace=away)
    lab.ip("link", "set", end, "up")


def test_ends_that_come_back_one_after_the_other_are_as_found_after_the_stop(lab: Lab) -> None:
    """Each is back while the daemon is at work on those before it."""
    ends = [f"v{number}" for number in range(12)]
    for end in ends:
        lab.veth(end)
    away = lab.namespace("away", quiet=True)
    running = Daemon(lab, dict(zip(ends[::2], ends[1::2], strict=True))).start()
    states = lambda: {link["state"] for link in running.ask("status")["links"]}  # noqa: E731
    for _ in range(2):
        lab.batch(f"link set {end} netns {away}" for end in ends)
        back = "".join(f"link set {end} netns {lab.host}\n" for end in ends)
        run("ip", "-batch", "-", namespace=away, text=back)
        poll(lambda: states() == {"connected"})
    running.stop()
    assert {lab.link(end)["mtu"] for end in ends} == {1500}


def test_ends_with_one_mac_that_leave_are_each_as_found_when_they_are_back(lab: Lab) -> None:
    """As VLANs of one NIC have it."""
    found = {"va": 1400, "vc": 1450}
    stations = [lab.veth(name, mtu=found.get(name, 1500)) for name in ("va", "vb", "vc", "vd")]
    lab.batch(f"link set {name} address 02:00:00:00:00:77" for name in found)
    away = lab.namespace("away", quiet=True)
    running = Daemon(lab, PAIR | {"vc": "vd"}).start()
    lab.batch(f"link set {name} netns {away}" for name in found)
    poll(lambda: {each["interface"] for each in running.status()["moved_netns"]} == found.keys())
    for name in reversed(found):
        _come_back(lab, name, away)
    poll(lambda: wired(*stations[:2]) and wired(*stations[2:]))
    running.stop()
    assert {name: lab.link(name)["mtu"] for name in found} == found


def test_what_has_left_is_remembered_over_a_stop_and_a_full_disk(lab: Lab) -> None:
    """It comes back with our program and our MTU, and only the records know what was there."""
    a, b = lab.veth("va"), lab.veth("vb")
    away = lab.namespace("away", quiet=True)
    running = Daemon(lab, PAIR)
    running.state.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=256k", "none", str(running.state))
    lab.on_close(run, "umount", str(running.state))
    running.start()
    running.wait_link("connected", "va", "vb")
    lab.ip("link", "set", "vb", "netns", away)
    poll(lambda: running.events("interface.moved_netns"))
    running.stop()
    assert not lab.pins.exists()

    filler = running.state / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as full:
        while True:
            full.write(bytes(4096))
    since = running.mark()
    running.start()
    assert running.events("state.unwritable", since=since)
    running.signal(signal.SIGTERM)
    assert running.wait() == 0, running.text()

    running.start()
    _come_back(lab, "vb", away)
    filler.unlink()
    poll(lambda: wired(a, b))
    running.stop()
    assert lab.link("vb")["mtu"] == 1500
    assert lab.xdp("vb") == 0
    assert [path.name for path in running.state.rglob("*") if path.is_file()] == []


def test_a_start_that_fails_keeps_what_has_left(lab: Lab) -> None:
    lab.veth("va"), lab.veth("vb")
    away = lab.namespace("away", quiet=True)
    running = Daemon(lab, PAIR).start()
    running.wait_link("connected", "va", "vb")
    lab.ip("link", "set", "vb", "netns", away)
    poll(lambda: running.events("interface.moved_netns"))
    running.stop()
    (ledger,) = running.state.glob("*")
    blocked = ledger / "status.sock"
    blocked.mkdir()
    assert running.spawn().wait() == 3
    assert (ledger / "moved_netns").read_text() != "[]"
    blocked.rmdir()
    running.start()
    assert [each["interface"] for each in running.status()["moved_netns"]] == ["vb"]
    running.stop()


def test_a_stop_while_ends_vanish_is_clean(lab: Lab) -> None:
    """The interfaces of containers that end together with the daemon, as a shutdown has it."""
    names = [f"v{number}" for number in range(60)]
    lab.batch(f"link add {name} type veth peer name p{name}" for name in names)
    running = Daemon(lab, dict(zip(names[::2], names[1::2], strict=True))).start()
    deleting = subprocess.Popen(
        ["nsenter", f"--net={NETNS / lab.host}", "ip", "-batch", "-"],
        stdin=subprocess.PIPE,
        text=True,
    )
    assert deleting.stdin
    deleting.stdin.write("".join(f"link delete {name}\n" for name in names))
    deleting.stdin.close()
    poll(lambda: len(lab.ip("-br", "link").splitlines()) < 2 * len(names), interval=0)
    running.stop()
    assert deleting.wait(60) == 0
    assert not lab.pins.exists()
    assert list(running.state.glob("*")) == []


@pytest.mark.parametrize("lost", ["pins", "nothing"])
def test_detach_puts_back_what_a_dead_daemon_left(lab: Lab, lost: str) -> None:
    """Also without its pins: the ledger knows which programs are ours."""
    lab.veth("va"), lab.veth("vb")
    before = _settled(lab)
    running = Daemon(lab, PAIR).start()
    running.wait_link("connected", "va", "vb")
    running.kill()
    if lost == "pins":
        shutil.rmtree(lab.pins)
    done = running.cli("detach", "--all")
    assert (done.returncode, done.stderr) == (0, "")
    assert_as_found(lab, before)
    assert not lab.pins.exists()
    assert list(running.state.glob("*")) == []


def test_a_moved_end_is_named_as_it_is_called_there(lab: Lab) -> None:
    """The command that status gives works, also when the move or somebody since renamed it."""
    lab.veth("va"), lab.veth("vb")
    away = lab.namespace("away", quiet=True)
    running = Daemon(lab, PAIR).start()
    running.wait_link("connected", "va", "vb")
    lab.batch([f"link set vb netns {away} name eth7"])
    poll(lambda: running.status()["moved_netns"])
    remedy = running.status()["moved_netns"][0]["remedy"].split()
    run(*remedy)
    shown = json.loads(run("ip", "-d", "-j", "link", "show", "eth7", namespace=away).stdout)[0]
    assert "xdp" not in shown, remedy
    running.stop()


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead"])
def test_an_end_that_left_without_our_program_is_as_found_when_it_is_back(
    lab: Lab, alive: bool
) -> None:
    """The MTU that we gave it went along, and is no found one when it comes home."""
    a, b = lab.veth("va"), lab.veth("vb")
    away = lab.namespace("away", quiet=True)
    running = Daemon(lab, PAIR).start()
    running.wait_link("connected", "va", "vb")
    if not alive:
        running.kill()
    lab.batch(["link set vb xdpgeneric off", f"link set vb netns {away}"])
    if alive:
        running.wait_link("waiting", "va", "vb")
        running.idle(0.3)
    else:
        running.start()
    run("ip", "link", "set", "vb", "netns", lab.host, namespace=away)
    lab.ip("link", "set", "vb", "up")
    poll(lambda: wired(a, b))
    running.stop()
    assert lab.link("vb")["mtu"] == 1500


def test_an_end_that_leaves_in_the_middle_of_a_change_is_named(lab: Lab) -> None:
    """It was there when the pass began, and is not when the pass ends."""
    ends = [f"v{n}" for n in range(8)]
    for end in ends:
        lab.veth(end)
    away = lab.namespace("away", quiet=True)
    one = dict(zip(ends[::2], ends[1::2], strict=True))
    other = dict(zip(ends[:4], ends[4:], strict=True))
    running = Daemon(lab, one).start()
    for n in range(8):
        running.write((other, one)[n % 2])
        time.sleep(0.001 * n)
        lab.ip("link", "set", "v5", "netns", away)
        running.idle(0.3)
        shown = json.loads(run("ip", "-d", "-j", "link", "show", "v5", namespace=away).stdout)[0]
        moved = ["v5"] if "xdp" in shown else []
        told = lambda: [x["interface"] for x in running.ask("status")["moved_netns"]]  # noqa: E731
        poll(lambda: told() == moved, what=f"{moved} told")  # noqa: B023
        run("ip", "link", "set", "v5", "netns", lab.host, namespace=away)
        lab.ip("link", "set", "v5", "up")
        running.idle(0.3)
    running.stop()


@MODES
def test_a_file_changed_while_the_daemon_is_dead(lab: Lab, mode: str) -> None:
    a, b, c, d = (lab.veth(x) for x in ("va", "vb", "vc", "vd"))
    before = _settled(lab)
    running = Daemon(lab, _wiring(mode) + "  vc: vd\n").start()
    running.kill()
    other = "auto" if mode == "tc" else "tc"
    running.write(f"links:\n  va: {{to: vc, mode: {other}}}\n")
    running.start()
    assert wired(a, c)
    assert cut(a, b)
    assert cut(c, d)
    assert running.link("va", "vc")["mode"] == ("generic" if other == "auto" else "tc")
    running.stop()
    assert_as_found(lab, before)


def test_a_link_disabled_while_the_daemon_is_dead(lab: Lab) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = Daemon(lab, PAIR).start()
    running.kill()
    running.write("links: {va: {to: vb, enabled: false}}\n")
    running.start()
    assert cut(a, b)
    running.kill()
    running.write(PAIR)
    running.start()
    assert wired(a, b)
    running.stop()


@pytest.mark.parametrize("mode", ["auto", "tc"])
def test_a_disabled_link_stays_so_over_a_start_without_a_good_file(lab: Lab, mode: str) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    before = _settled(lab)
    off = f"links: {{va: {{to: vb, enabled: false, mode: {mode}}}}}\n"
    running = Daemon(lab, off).start()
    running.wait_state("va", "vb", "disabled")
    attached = lab.snapshot()
    running.kill()
    running.write("links: [\n")
    running.start()
    assert running.link("va", "vb")["state"] == "disabled"
    assert lab.snapshot() == attached, "both ends as they were"
    running.write(off.replace("false", "true"))
    poll(lambda: wired(a, b))
    running.stop()
    assert_as_found(lab, before)


def test_everything_deleted_while_the_daemon_is_dead(lab: Lab) -> None:
    lab.veth("va"), lab.veth("vb")
    running = Daemon(lab, PAIR).start()
    running.kill()
    lab.delete("va", "vb")
    running.start()
    assert running.link("va", "vb")["state"] == "waiting"
    assert running.status()["moved_netns"] == []
    running.stop()
    assert not lab.pins.exists()
    assert not (running.state / str(lab.cookie)).exists()


# ---------------------------------------------------------------------- several daemons


def test_a_start_that_fails_names_the_place_and_leaves_nothing(lab: Lab) -> None:
    before = _settled(lab)
    running = Daemon(lab, PAIR)
    running.state = lab.directory / ("x" * 100)
    assert running.spawn().wait() == 3
    assert str(running.state) in running.text()
    assert "107 bytes" in running.text()
    assert not list(running.state.glob("*"))
    assert_as_found(lab, before)


def test_a_second_daemon_exits_3_and_names_the_first(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    with Stream(a, b) as stream:
        poll(stream.flows)
        for n in range(3):
            second = Daemon(lab, "links: {}\n", name=f"second{n}").spawn()
            assert second.wait() == 3
            assert str(running.pid) in second.text()
        assert running.cli("detach", "--all").returncode == 1
        assert running.cli("status", "--check").returncode == 0
    stream.assert_perfect()
    assert running.cli("reload").returncode == 0, "its sockets are still its own"
    running.stop()


def test_two_daemons_started_at_once(lab: Lab) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    before = _settled(lab)
    for n in range(4):
        both = [Daemon(lab, PAIR, name=f"{n}{k}") for k in range(2)]
        for each in both:
            each.spawn()
        poll(lambda: sum(x.returncode is None for x in both) == 1)  # noqa: B023
        loser, winner = sorted(both, key=lambda x: x.returncode is None)
        assert loser.returncode == 3, loser.text()
        assert str(winner.pid) in loser.text()
        winner.wait_event("daemon.ready")
        assert wired(a, b)
        winner.stop()
    assert_as_found(lab, before)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All daemons of the test keep their state in one directory, as on a real host."""

    def state(self: Daemon) -> Path:
        path = self.lab.directory.parent / f"{self.lab.name.split('-')[0]}-shared-state"
        path.mkdir(exist_ok=True)
        return path

    monkeypatch.setattr(Daemon, "state", property(state, lambda _self, _value: None), raising=False)
    yield
    for path in Path(os.environ.get("TMPDIR", "/tmp")).glob(f"xc{os.getpid()}-shared-state"):
        shutil.rmtree(path)


@pytest.mark.usefixtures("shared")
def test_daemons_in_several_namespaces_do_not_disturb_each_other(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    first = daemon(PAIR)
    first.wait_link("connected", "va", "vb")
    with Stream(a, b) as stream:
        poll(stream.flows)
        with Lab() as left, Lab() as right:
            others = []
            for other in (left, right):
                ends = other.veth("va"), other.veth("vb")
                others.append((Daemon(other, PAIR).start(), ends))
            for running, (c, d) in others:
                assert wired(c, d)
                assert len(running.status()["links"]) == 1
                assert running.status()["daemon"]["pid"] == running.pid
            assert len({x.pid for x, _ in others} | {first.pid}) == 3
            others[0][0].kill()
            others[0][0].start()
            others[1][0].stop()
            assert cut(*others[1][1])
            assert wired(*others[0][1])
            assert others[0][0].cli("detach", "--all").returncode == 1
            others[0][0].stop()
        assert lab.pins.exists()
        assert first.link("va", "vb")["state"] == "connected"
        first.kill()
        first.start()
    stream.assert_perfect()
    first.stop()


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("where", ["same inode", "another"])
def test_what_a_dead_namespace_left_is_swept_by_the_next_start_anywhere(
    lab: Lab, where: str
) -> None:
    """The inode number of a namespace is used again, so it is no proof of life.

    When and for whom is the kernel's affair: so the record is given the number of the next start's
    namespace, which is all that a start could see of it.
    """
    dead = Lab()
    dead.veth("va"), dead.veth("vb")
    left = Daemon(dead, PAIR).start()
    left.kill()
    number = dead.cookie
    state, pins = left.state / str(number), PINS / str(number)
    noted = state / "namespace"
    assert noted.read_text() == str(_inode(dead))
    assert pins.exists()
    try:
        run("ip", "netns", "delete", dead.host)
        if where == "same inode":
            noted.write_text(str(_inode(lab)))
        bystander = Daemon(lab, PAIR).start()
        assert not state.exists(), "records of a dead namespace"
        assert not pins.exists(), "pins of a dead namespace"
        bystander.stop()
    finally:
        dead.close()
        shutil.rmtree(pins, ignore_errors=True)
        shutil.rmtree(state, ignore_errors=True)


def test_records_of_another_boot_sweep_nothing(lab: Lab, daemon: Start) -> None:
    """The cookies of namespaces begin anew at each boot: theirs may be that of a living one."""
    lab.veth("va"), lab.veth("vb")
    daemon(PAIR)
    other = Lab()
    try:
        neighbour = Daemon(other, {})
        stale = neighbour.state / str(lab.cookie)
        stale.mkdir(parents=True)
        (stale / "namespace").write_text("1")
        (stale / "boot").write_text('"another"')
        neighbour.start().stop()
        assert list(lab.pins.glob("programs-*")), "pins of a living namespace"
        assert stale.exists()
    finally:
        other.close()


@pytest.mark.parametrize("lost", ["all", "a map", "a program", "the guard"])
def test_pins_that_somebody_removes_are_there_again(lab: Lab, lost: str) -> None:
    """So that the next start adopts the wires, and who looks sees them."""
    a, b = lab.veth("va"), lab.veth("vb")
    running = Daemon(lab, PAIR).start()
    running.wait_link("connected", "va", "vb")
    program = lab.xdp("va")
    before = sorted(lab.pins.rglob("*"))
    match lost:
        case "all":
            shutil.rmtree(lab.pins)
        case "a map":
            next(lab.pins.glob("peers-*")).unlink()
        case "a program":
            next(lab.pins.glob("programs-*/xdp")).unlink()
        case "the guard":
            next(lab.pins.glob("guard-*/guarded")).unlink()
    reason = running.wait_event("pins.lost")["reason"]
    assert reason.endswith("they are pinned again")
    assert sorted(lab.pins.rglob("*")) == before
    running.kill()
    stream = Stream(a, b)
    poll(stream.flows)
    since = running.mark()
    running.start()
    assert running.events("program.adopted", since=since)
    assert lab.xdp("va") == program
    stream.assert_perfect()
    running.stop()


def test_pins_that_cannot_be_put_back_are_told_once(lab: Lab) -> None:
    lab.veth("va"), lab.veth("vb")
    running = Daemon(lab, PAIR).start()
    shutil.rmtree(lab.pins)
    lab.pins.symlink_to("/nowhere")
    lab.on_close(lab.pins.unlink, True)
    reason = running.wait_event("pins.lost")["reason"]
    assert "cannot be pinned again" in reason
    lab.pins.unlink()
    running.wait_event("pins.lost", reason=reason.partition(";")[0] + "; they are pinned again")
    assert len(running.events("pins.lost")) == 2
    running.stop()


def _inode(lab: Lab) -> int:
    return inside(lab.host, lambda: Path("/proc/thread-self/ns/net").stat().st_ino)


@pytest.mark.usefixtures("shared")
def test_a_living_namespace_without_a_daemon_keeps_its_wires(lab: Lab) -> None:
    """A crashed daemon elsewhere: another one's start must not take its pins for leftovers."""
    with Lab() as other:
        c, d = other.veth("va"), other.veth("vb")
        crashed = Daemon(other, PAIR).start()
        crashed.kill()
        lab.veth("va"), lab.veth("vb")
        running = Daemon(lab, PAIR).start()
        assert other.pins.exists()
        assert wired(c, d)
        with Stream(c, d) as stream:
            poll(stream.flows)
            since = crashed.mark()
            crashed.start()
            assert crashed.events("program.adopted", since)
        stream.assert_perfect()
        crashed.stop()
        running.stop()


def test_a_mount_point_that_is_no_utf8_stops_no_start(lab: Lab, daemon: Start) -> None:
    """Anybody can make one in a namespace of their own, and a start looks at all mounts."""
    odd = lab.directory / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    states = lab.directory / f"state-{lab.host}"
    living = NETNS / lab.namespace("box")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for name, inode in (("gone", 1), ("alive", living.stat().st_ino)):
        (states / name).mkdir(parents=True)
        (states / name / "namespace").write_text(str(inode))
        (states / name / "boot").write_text(json.dumps(boot))
    script = 'mount -t tmpfs x "$1" && echo && cat'
    mounting = ("unshare", "--mount", "sh", "-c", script, "sh", str(odd))
    with subprocess.Popen(mounting, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as mounted:
        assert mounted.stdout
        assert mounted.stdout.readline()
        daemon(PAIR).stop()
    assert [(states / name).exists() for name in ("gone", "alive")] == [False, True]


def test_a_state_of_an_earlier_boot_is_void(lab: Lab) -> None:
    """The directory survived a reboot: what it says of interfaces is of others."""
    a, b = lab.veth("va"), lab.veth("vb")
    running = Daemon(lab, PAIR).start()
    running.kill()
    state = running.state / str(lab.cookie)
    saved = lab.directory / "saved"
    shutil.copytree(state, saved, ignore=shutil.ignore_patterns("*.sock"))
    assert running.cli("detach", "--all").returncode == 0
    for end in ("va", "vb"):
        lab.ip("link", "set", "dev", end, "mtu", "1400")
    before = _settled(lab)
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(saved, state)
    (state / "boot").write_text(json.dumps("00000000-another-boot"))
    running.start()
    assert wired(a, b)
    running.stop()
    assert_as_found(lab, before)


@pytest.mark.parametrize("text", ["", "{", "null", '{"ifindex": "x"}', "\0\0\0\0"])
def test_a_torn_state_file_stops_nobody(lab: Lab, text: str) -> None:
    """After an unclean end of the machine a file may be empty or half."""
    a, b = lab.veth("va"), lab.veth("vb")
    running = Daemon(lab, PAIR).start()
    running.kill()
    state = running.state / str(lab.cookie)
    for path in (*state.glob("*"), *(state / "ends").glob("*")):
        if path.is_file() and path.name != "boot":
            path.write_text(text)
    with Stream(a, b) as stream:
        poll(stream.flows)
        running.start()
        assert running.link("va", "vb")["state"] == "connected"
    stream.assert_perfect()
    running.stop()
    assert lab.xdp("va") == lab.xdp("vb") == 0
