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
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from xconnectd.dataplane import compiler

from .lab import NETNS, PATIENCE, PINS, REPO, Lab, Station, inside, poll, run
from .service import MODES, PAIR, Daemon, Start, linked, paired
from .traffic import cut, lossless, wired

Moment = Callable[[Daemon], object]


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
        running = Daemon(lab, paired([f"p{n}" for n in range(40)])).spawn()
        while not told or b"READY=1" not in told[-1]:
            told.append(manager.recv(4096))
        assert told.count(b"WATCHDOG=1") > 3, told
        passed = running.wait_event("link.down", a="p0")["duration_ms"]
        assert told.count(b"WATCHDOG=1") < 5 + passed / 2, "as seldom as it may"
        running.kill()


@MODES
def test_crashes_under_traffic_lose_nothing_and_are_taken_up(lab: Lab, mode: str) -> None:
    a, b = lab.veths("va", "vb")
    before = lab.settled()
    running = Daemon(lab, linked(mode)).start()
    programs = _programs(lab)
    with lossless(a, b) as stream:
        for _ in range(2):
            running.kill()
            received = stream.forth.received
            poll(lambda: stream.forth.received > received + 200)  # noqa: B023
            since = running.mark()
            running.start()
            assert running.events("program.adopted", since)
            assert not running.events("program.loaded", since)
            assert running.states() == {"connected"}
    assert stream.rate > 400, stream.rate
    assert _programs(lab) == programs
    running.stop()
    lab.assert_as_found(before)


def _programs(lab: Lab) -> list[object]:
    shown = lab.tc("-j", "filter", "show", "dev", "va", "ingress", check=False) or "[]"
    ids = [x.get("options", {}).get("prog", {}).get("id") for x in json.loads(shown)]
    return [lab.xdp("va"), *filter(None, ids)]


def misled(stations: dict[str, Station], pairs: dict[str, str]) -> list[str]:
    """Where frames go otherwise than the pairs say."""
    wanted = set(pairs.items()) | {(b, a) for a, b in pairs.items()}
    marks = {os.urandom(16): end for end in stations}
    came: set[tuple[str, str]] = set()
    with contextlib.ExitStack() as stack:
        ports = {end: stack.enter_context(each.port()) for end, each in stations.items()}
        for mark, end in marks.items():
            ports[end].send(b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb6" + mark + bytes(30))

        def look() -> bool:
            for end, port in ports.items():
                senders = (marks.get(frame[14:30]) for frame in port.drain())
                came.update((sender, end) for sender in senders if sender)
            return wanted <= came

        with contextlib.suppress(AssertionError):
            poll(look, 2)
        time.sleep(0.1)  # for frames that go astray, there is nothing to poll for
        look()
    lost = [f"{a} does not reach {b}" for a, b in wanted - came]
    return lost + [f"{a} reaches {b}" for a, b in came - wanted]


def kill_at_any_moment(lab: Lab, rounds: int) -> None:
    """Of a change (all rewired, modes changed, links made and gone), a start and a stop by turns.

    The next start mends everything, and sometimes ``detach`` does before it.
    """
    ends = [f"v{n}" for n in range(8)]
    stations = {end: lab.veth(end) for end in ends}
    dice = random.Random(os.environ.get("XCONNECTD_CHAOS_SEED", "life"))
    before = lab.settled()
    running = Daemon(lab, "links: {}\n").start()
    for n in range(rounds):
        pairs = paired(dice.sample(ends, 2 * dice.choice((2, 3, 4))))
        wiring = {a: {"to": b, "mode": dice.choice(("auto", "tc"))} for a, b in pairs.items()}
        what = ("change", "stop", "start", "stop, detach")[n % 4]
        running.write(wiring)
        if what == "change":
            time.sleep(dice.uniform(0, 0.03))
        elif what == "start":
            running.kill()
            running.spawn()
            time.sleep(dice.uniform(0.1, 0.7))
        else:
            running.signal(signal.SIGTERM)
            time.sleep(dice.uniform(0, 0.04))
        running.kill()
        if what == "stop, detach":
            done = running.cli("detach", "--all")
            assert done.returncode == 0, done.stderr
            lab.assert_as_found(before)
            assert not lab.pins.exists()
        running.start()
        wrong = misled(stations, pairs)
        assert not wrong, (n, what, wiring, wrong, running.text())
        unwired = set(ends) - set(pairs) - set(pairs.values())
        assert not any(lab.xdp(end) for end in unwired)
        assert running.seen()["differences"] == []
    running.stop()
    lab.assert_as_found(before)
    assert not lab.pins.exists()


def test_a_kill_at_any_moment_is_mended_by_the_next_start(lab: Lab) -> None:
    """A few; `make test-long` has a hundred."""
    kill_at_any_moment(lab, 4)


def _records_made(running: Daemon) -> bool:
    return (running.state / str(running.lab.cookie)).exists()


MOMENTS: list[tuple[Moment, signal.Signals]] = [
    (lambda _: True, signal.SIGINT),
    (_records_made, signal.SIGTERM),
    (lambda running: running.lab.pins.exists(), signal.SIGINT),
    (lambda running: running.lab.xdp("va"), signal.SIGTERM),
]


def test_a_stop_during_the_start_leaves_nothing(lab: Lab) -> None:
    """At whatever moment it comes; an exit by the signal itself is as good before anything is."""
    lab.veths("va", "vb", "vc", "vd")
    before = lab.settled()
    running = Daemon(lab, PAIR | {"vc": "vd"})
    for moment, (has_come, number) in enumerate(MOMENTS):
        since = len(running.text())
        running.spawn()
        poll(lambda: has_come(running) or running.returncode is not None, interval=0.001)  # noqa: B023
        running.signal(number)
        assert running.wait() in (0, -number, 128 + number, 1), running.text()
        said = running.text()[since:]
        while_modules_are_loaded = said.rstrip().endswith("KeyboardInterrupt")
        assert "Traceback" not in said or while_modules_are_loaded, said
        assert not lab.pins.exists(), f"{moment}: {[*lab.pins.rglob('*')]}"
        assert not _records_made(running), moment
        lab.assert_as_found(before)


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
    a, b = lab.veths("va", "vb")
    (lab.directory / "sitecustomize.py").write_text(AT_THE_FIRST_IMPORT)
    early = ("env", f"PYTHONPATH={lab.directory}:{REPO}")
    running = Daemon(lab, PAIR, through=early).start()
    assert wired(a, b)
    poll(lambda: len(running.events("config.loaded")) == 2, what="what it asked for")
    running.signal(signal.SIGHUP)
    poll(lambda: len(running.events("config.loaded")) == 3)
    running.stop()
    other = [*early, sys.executable, "-m", "xconnectd", "version"]
    assert lab.run(*other, check=False).returncode == -signal.SIGHUP


def test_a_log_that_cannot_be_written_ends_nothing(lab: Lab) -> None:
    a, b, c = lab.veths("va", "vb", "vc")
    full = ("sh", "-c", 'exec "$@" 2>/dev/full', "sh")
    running = Daemon(lab, PAIR, through=full).spawn()
    poll(lambda: wired(a, b))
    running.write({"va": "vc"})
    poll(lambda: wired(a, c))
    running.stop()
    assert running.text() == ""


Upgrade = Callable[[str], None]


@pytest.fixture
def upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Upgrade:
    """Has every daemon be a copy of the program with more in its BPF source from its next start."""
    surroundings, checkout = Daemon._surroundings, compiler.source_directory().parent

    def install(more: str) -> None:
        new = tmp_path / str(len(list(tmp_path.iterdir())))
        for part in ("xconnectd", "bpf"):
            shutil.copytree(checkout / part, new / part, ignore=shutil.ignore_patterns("*.json"))
        with (new / "bpf" / "xconnect.c").open("a") as file:
            file.write(more)

        def elsewhere(self: Daemon) -> dict[str, object]:
            found = surroundings(self)
            return found | {"cwd": new, "env": {**found["env"], "PYTHONPATH": str(new)}}

        monkeypatch.setattr(Daemon, "_surroundings", elsewhere if more else surroundings)

    return install


@pytest.mark.parametrize(("mode", "how"), [("auto", "keep"), ("tc", "crash")])
def test_an_upgrade_and_back_loses_nothing(lab: Lab, upgrade: Upgrade, mode: str, how: str) -> None:
    """Nor one that does not load. Also the counters go on: the format of their map is the same."""
    a, b = lab.veths("va", "vb")
    before = lab.settled()
    running = Daemon(lab, linked(mode), *(("--on-exit", "keep") if how == "keep" else ())).start()
    program = _programs(lab)
    with lossless(a, b):
        for more in ("\n/* a later version */\n", ""):
            counted = running.link()["a"]["frames"]
            assert counted > 0
            running.stop() if how == "keep" else running.kill()
            upgrade("\nthis is no C\n")
            assert running.spawn().wait() == 3
            assert "cannot start" in running.text()
            upgrade(more)
            since = running.mark()
            running.start()
            assert running.events("program.loaded", since), "another program"
            assert running.link()["a"]["frames"] >= counted
            assert _programs(lab) != program
            program = _programs(lab)
    assert len(list(lab.pins.glob("programs-*"))) == 1, "older generations are gone"
    running.kill()
    assert running.cli("detach", "--all").returncode == 0
    lab.assert_as_found(before)


@MODES
def test_whatever_happens_meanwhile_is_found_by_the_next_start(lab: Lab, mode: str) -> None:
    """Ends are made again, renamed and swapped, numbers go to others, the file is another."""
    named = [f"{side}{n}" for n in range(1, 10) for side in "ab"] + ["c3", "c7"]
    stations = {end: lab.veth(end, index=600 if end == "b2" else None) for end in named}
    away = lab.namespace("away", quiet=True)
    pairs = {f"a{n}": f"b{n}" for n in range(1, 10)}
    wiring = {a: {"to": b, "mode": mode, "enabled": a != "a9"} for a, b in pairs.items()}
    running = Daemon(lab, wiring).start()
    running.kill()

    def rename(*names: str) -> None:
        downs = [f"link set {old} down" for old in names[:-1]]
        lab.batch([*downs, *(f"link set {a} name {b}" for a, b in pairwise(names))])
        lab.batch([f"link set {new} up" for new in names[1:]])

    number = lab.ifindex("b1")
    lab.delete("b1", "b2")
    del stations["b2"]
    stations["b1"] = lab.veth("b1", namespace=stations["b1"].namespace)
    assert lab.ifindex("b1") != number
    stations["z2"] = lab.veth("z2", index=600, mtu=65535)
    other = lab.settled()["links"]["z2"]
    for old, new in (("b3", "z3"), ("c3", "b3"), ("b4", "tmp"), ("b5", "b4"), ("tmp", "b5")):
        rename(old, new)
    lab.move(away, "b6")
    lab.bring_back(away, "b6")
    other_mode, told = {"auto": ("tc", "tc"), "tc": ("auto", "generic")}[mode]
    wiring["a7"] |= {"to": "c7", "mode": other_mode}
    wiring["a8"]["enabled"], wiring["a9"]["enabled"] = False, True
    running.write(wiring)
    running.start()

    wanted = {a: b for a, b in pairs.items() if a not in ("a2", "a8")}
    # by what the stations were called at first
    wanted |= {"a3": "c3", "a4": "b5", "a5": "b4", "a7": "c7"}
    poll(lambda: not misled(stations, wanted), 10)
    assert running.link("a2", "b2")["state"] == "waiting"
    assert running.link("a7", "c7")["mode"] == told
    assert lab.link("z2") == other, "it has but the number of one of ours"
    assert (lab.xdp("z3"), lab.link("z3")["mtu"]) == (0, 1500)
    running.kill()
    lab.delete(*(name for name in lab.interfaces() if name != "z2"))
    running.start()
    assert running.states() == {"waiting", "disabled"}
    assert running.status()["moved_netns"] == []
    running.stop()
    assert lab.link("z2") == other
    assert not lab.pins.exists()
    assert not _records_made(running)


def test_an_end_moved_while_the_daemon_is_dead_is_named_as_it_is_called_there(lab: Lab) -> None:
    """The command that status gives works; it takes the program off, not the MTU."""
    a, b = lab.veths("va", "vb")
    away = lab.namespace("away", quiet=True)
    running = Daemon(lab, PAIR).start()
    running.kill()
    lab.batch([f"link set vb netns {away} name eth7"])
    run("ip", "link", "set", "eth7", "up", namespace=away)
    running.start()
    assert running.link()["state"] == "waiting"
    b.end = "eth7"
    assert cut(a, b)
    (moved,) = running.status()["moved_netns"]
    run(*moved["remedy"].split())
    shown = json.loads(run("ip", "-d", "-j", "link", "show", "eth7", namespace=away).stdout)[0]
    assert "xdp" not in shown, moved
    run("ip", "link", "set", "eth7", "netns", lab.host, "name", "vb", namespace=away)
    lab.ip("link set vb up")
    poll(lambda: wired(a, b))
    running.stop()
    assert lab.link("vb")["mtu"] == 1500


def _move_on(lab: Lab, end: str, number: int) -> None:
    """Into one namespace, and from there to another, whose owner chooses the number."""
    first, second = (lab.namespace(name, quiet=True) for name in ("first", "second"))
    lab.move(first, end)
    with (NETNS / second).open() as there:
        fd = there.fileno()

        def move() -> None:
            with IPRoute() as route:
                (index,) = route.link_lookup(ifname=end)
                route.link("set", index=index, net_ns_fd=fd, IFLA_NEW_IFINDEX=number)

        inside(first, move)
    run("ip", "link", "set", end, "up", namespace=second)
    shown = json.loads(run("ip", "-d", "-j", "link", "show", end, namespace=second).stdout)[0]
    assert (shown["ifindex"], "xdp" in shown) == (number, True), "it takes our program along"


@pytest.mark.parametrize("dead", [False, True], ids=["alive", "dead"])
def test_a_program_that_was_moved_forwards_nothing(lab: Lab, shared: Start, dead: bool) -> None:
    """The number of vc, say, so that its frames would arrive behind vd."""
    a, _, c, d = lab.veths("va", "vb", "vc", "vd")
    running = shared(PAIR | {"vc": "vd"})
    with lossless(c, d):
        if dead:
            running.kill()
        _move_on(lab, "va", lab.ifindex("vc"))
        if dead:
            poll(lambda: not cut(a, d), what="nobody has repaired it yet")
            running.start()
        running.wait_link("waiting", "va", "vb")
        poll(lambda: cut(a, d))
        assert running.reload()
        assert cut(a, d)
    assert wired(c, d)


def test_ends_that_leave_and_come_back_are_as_found_after_the_stop(lab: Lab, shared: Start) -> None:
    """Two have one MAC, as VLANs of one NIC; one had lost our program before it left."""
    found = {f"v{n}": 1500 for n in range(8)} | {"v0": 1400, "v2": 1450}
    stations = [lab.veth(end, mtu=mtu) for end, mtu in found.items()]
    lab.batch(f"link set {name} address 02:00:00:00:00:77" for name in ("v0", "v2"))
    away = lab.namespace("away", quiet=True)
    running = shared(paired([*found]))

    def come_back(*ends: str) -> None:
        lab.bring_back(away, *ends)
        poll(lambda: running.states() == {"connected"})

    for _ in range(2):  # each is back while the daemon is at work on those before it
        lab.move(away, *found)
        come_back(*found)
    lab.ip("link set v4 xdpgeneric off")
    lab.move(away, *found)
    told = lambda: {each["interface"] for each in running.ask("status")["moved_netns"]}  # noqa: E731
    poll(lambda: found.keys() - {"v4"} <= told(), what="who left")
    come_back(*reversed(found))
    poll(lambda: all(wired(a, b) for a, b in zip(stations[::2], stations[1::2], strict=True)))
    running.stop()
    assert {name: lab.link(name)["mtu"] for name in found} == found


def test_what_has_left_is_remembered_over_stops_and_failures(lab: Lab) -> None:
    """It comes back with our program and our MTU, and only the records know what was there."""
    a, b = lab.veths("va", "vb")
    away = lab.namespace("away", quiet=True)
    running = Daemon(lab, PAIR)
    running.state.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=256k", "none", str(running.state))
    lab.on_close(run, "umount", str(running.state))
    running.start()
    lab.move(away, "vb")
    running.wait_event("interface.moved_netns")
    running.stop()
    assert not lab.pins.exists()

    (records,) = running.state.glob("*")
    (records / "status.sock").mkdir()
    assert running.spawn().wait() == 3
    assert (records / "moved_netns").read_text() != "[]"
    (records / "status.sock").rmdir()

    filler = running.state / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as full:
        while True:
            full.write(bytes(4096))
    since = running.mark()
    running.start()
    assert running.events("state.unwritable", since=since)
    assert [each["interface"] for each in running.ask("status")["moved_netns"]] == ["vb"]
    lab.bring_back(away, "vb")
    filler.unlink()
    poll(lambda: wired(a, b))
    running.stop()
    assert (lab.link("vb")["mtu"], lab.xdp("vb")) == (1500, 0)
    assert [path.name for path in running.state.rglob("*") if path.is_file()] == []


def test_a_stop_while_ends_vanish_is_clean(lab: Lab) -> None:
    """The interfaces of containers that end together with the daemon, as a shutdown has it."""
    names = [f"v{number}" for number in range(40)]
    lab.batch(f"link add {name} type veth peer name p{name}" for name in names)
    running = Daemon(lab, paired(names)).start()
    enter = ["nsenter", f"--net={NETNS / lab.host}"]
    with subprocess.Popen([*enter, "ip", "-batch", "-"], stdin=subprocess.PIPE, text=True) as going:
        assert going.stdin
        going.stdin.write("".join(f"link delete {name}\n" for name in names))
        going.stdin.close()
        poll(lambda: len(lab.interfaces()) < 2 * len(names), interval=0)
        running.stop()
        assert going.wait(60) == 0
    assert not lab.pins.exists()
    assert list(running.state.glob("*")) == []


def test_without_its_pins_a_dead_daemons_programs_are_ours_by_the_records(lab: Lab) -> None:
    """To the next start, and to ``detach``."""
    a, b = lab.veths("va", "vb")
    before = lab.settled()
    running = Daemon(lab, PAIR).start()
    running.kill()
    shutil.rmtree(lab.pins)
    running.start()
    assert running.states() == {"connected"}
    assert wired(a, b)
    running.kill()
    shutil.rmtree(lab.pins)
    done = running.cli("detach", "--all")
    assert (done.returncode, done.stderr) == (0, "")
    lab.assert_as_found(before)
    assert not lab.pins.exists()
    assert list(running.state.glob("*")) == []


def test_pins_that_somebody_removes_are_there_again(lab: Lab, shared: Start) -> None:
    """So that the next start adopts the wires, and who looks sees them."""
    a, b = lab.veths("va", "vb")
    running = shared(PAIR)
    program, before = lab.xdp("va"), sorted(lab.pins.rglob("*"))

    def are_back() -> bool:
        with contextlib.suppress(FileNotFoundError):  # one that is just being made
            return sorted(lab.pins.rglob("*")) == before
        return False

    for lost in ("peers-*", "programs-*/xdp", "guard-*/guarded", ""):
        next(lab.pins.glob(lost)).unlink() if lost else shutil.rmtree(lab.pins)
        poll(are_back, what=f"{lost} is back")
    assert running.wait_event("pins.lost")["reason"].endswith("they are pinned again")
    shutil.rmtree(lab.pins)
    lab.pins.symlink_to("/nowhere")
    lab.on_close(lab.pins.unlink, True)
    told = lambda: "".join(each["reason"] for each in running.events("pins.lost"))  # noqa: E731
    poll(lambda: "cannot be pinned again" in told())
    time.sleep(1.2)
    assert told().count("cannot be pinned again") == 1
    lab.pins.unlink()
    poll(are_back)
    running.kill()
    with lossless(a, b):
        since = running.mark()
        running.start()
        assert running.events("program.adopted", since=since)
        assert lab.xdp("va") == program


@pytest.mark.parametrize("text", ["", '{"ifindex": "x"}'])
def test_a_torn_state_file_stops_nobody(lab: Lab, shared: Start, text: str) -> None:
    """After an unclean end of the machine a file may be empty or half."""
    a, b = lab.veths("va", "vb")
    running = shared(PAIR)
    running.kill()
    state = running.state / str(lab.cookie)
    for path in (*state.glob("*"), *(state / "ends").glob("*")):
        if path.is_file() and path.name != "boot":
            path.write_text(text)
    with lossless(a, b):
        running.start()
        assert running.states() == {"connected"}
    running.stop()
    assert lab.xdp("va") == lab.xdp("vb") == 0


def test_a_start_that_fails_names_the_place_and_leaves_nothing(lab: Lab) -> None:
    lab.veths("va", "vb")
    before = lab.settled()
    running = Daemon(lab, PAIR)
    running.state = lab.directory / ("x" * 100)
    assert running.spawn().wait() == 3
    assert str(running.state) in running.text()
    assert "107 bytes" in running.text()
    assert not list(running.state.glob("*"))
    lab.assert_as_found(before)


def test_a_second_daemon_exits_3_and_names_the_first(lab: Lab) -> None:
    """Also when both start at once, whoever is first."""
    a, b = lab.veths("va", "vb")
    both = [Daemon(lab, PAIR, name=name).spawn() for name in ("one", "other")]
    poll(lambda: sum(x.returncode is None for x in both) == 1)
    loser, running = sorted(both, key=lambda x: x.returncode is None)
    running.wait_event("daemon.ready")
    with lossless(a, b):
        loser.write("links: {}\n")
        assert loser.returncode == loser.spawn().wait() == 3
        assert loser.text().count(str(running.pid)) >= 2
        assert running.cli("detach", "--all").returncode == 1
        assert running.cli("status", "--check").returncode == 0
    assert running.cli("reload").returncode == 0, "its sockets are still its own"


@pytest.fixture
def one_state() -> Iterator[Path]:
    """For all daemons of a test, as on a real host. The path of a socket has at most 107 bytes."""
    path = Path(tempfile.gettempdir()) / f"xc{os.getpid()}-state"
    path.mkdir()
    yield path
    shutil.rmtree(path)


def _daemon(lab: Lab, state: Path) -> Daemon:
    lab.veths("va", "vb")
    running = Daemon(lab, PAIR)
    running.state = state
    return running.start()


def _ends(lab: Lab) -> tuple[Station, Station]:
    return Station(f"{lab.name}-va", "va"), Station(f"{lab.name}-vb", "vb")


def test_daemons_in_several_namespaces_do_not_disturb_each_other(lab: Lab, one_state: Path) -> None:
    """A living namespace whose daemon is dead keeps its wires, whoever else starts and stops."""
    with Lab() as left, Lab() as right:
        first, crashed = _daemon(lab, one_state), _daemon(left, one_state)
        crashed.kill()
        with lossless(*_ends(lab)), lossless(*_ends(left)):
            second = _daemon(right, one_state)
            assert wired(*_ends(right))
            assert [len(x.status()["links"]) for x in (first, second)] == [1, 1]
            assert second.status()["daemon"]["pid"] == second.pid
            assert left.pins.exists()
            since = crashed.mark()
            crashed.start()
            assert crashed.events("program.adopted", since)
            second.stop()
            assert cut(*_ends(right))
            assert crashed.cli("detach", "--all").returncode == 1
            first.crash()
        crashed.stop()
        assert lab.pins.exists()


def test_what_dead_namespaces_left_is_swept_by_the_next_start(lab: Lab, one_state: Path) -> None:
    """The inode number of a namespace is used again, so it is no proof of life.

    When and for whom is the kernel's affair: so the record is given the number of the next start's
    namespace, which is all that a start could see of it. Cookies begin anew at each boot: what
    another boot left sweeps nothing. And a mount point anywhere may be no UTF-8.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    box = lab.namespace("box")
    with Lab() as neighbour, Lab() as dead:
        _daemon(dead, one_state).kill()
        swept, pins = one_state / str(dead.cookie), PINS / str(dead.cookie)
        assert int((swept / "namespace").read_text()) == _inode(dead.host)
        assert pins.exists()
        run("ip", "netns", "delete", dead.host)
        (swept / "namespace").write_text(str(_inode(lab.host)))
        _daemon(neighbour, neighbour.directory / "own")
        left = {"alive": (_inode(box), boot), "gone": (1, boot)}
        left |= {str(neighbour.cookie): (1, "another")}
        for name, (inode, booted) in left.items():
            (one_state / name).mkdir()
            (one_state / name / "namespace").write_text(str(inode))
            (one_state / name / "boot").write_text(json.dumps(booted))
        odd = lab.directory / os.fsdecode(b"caf\xe9")
        odd.mkdir()
        run("mount", "-t", "tmpfs", "x", str(odd))
        lab.on_close(run, "umount", str(odd))
        _daemon(lab, one_state).stop()
        assert not swept.exists(), "records of a dead namespace"
        assert not pins.exists(), "pins of a dead namespace"
        assert list(neighbour.pins.glob("programs-*")), "pins of a living namespace"
        assert [name for name in left if (one_state / name).exists()] == [*left][::2]


def _inode(namespace: str) -> int:
    return (NETNS / namespace).stat().st_ino
