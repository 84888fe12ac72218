"""A hostile life: odd files, full disks, lost mounts, floods, flapping, many reloads."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from .lab import BPFFS, REPO, Lab, entries, holds, meanwhile, poll, run
from .service import PAIR, Daemon, Start, document, paired
from .traffic import OFFLOADS, cut, lossless, wired

OTHER = {"va": "vc"}
RELOADS = int(os.environ.get("XCONNECTD_RELOADS") or 200)


def _dense(path: Path) -> None:
    """Not too large, but of millions of values."""
    path.write_text("links: {va: vb}\nx-pad: [" + "a," * (3 << 20) + "]\n")


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(50 << 20)


def _fifo(path: Path) -> None:
    """One that somebody has written a good wiring to."""
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    os.write(writer, document(PAIR | {"vb": "vc"}).encode())


def _terminal(path: Path) -> None:
    path.symlink_to("/dev/tty")


ODD_FILES: list[Callable[[Path], None]] = [_dense, _sparse, _fifo, Path.mkdir, _terminal]


def test_what_is_no_file_for_us_is_refused_and_harms_nobody(lab: Lab, shared: Start) -> None:
    """The wire goes on, the daemon answers meanwhile and says why; the next good file is taken.

    Also where a daemon finds it at its start.
    """
    a, b, c = lab.veths("va", "vb", "vc")
    running = shared(PAIR)
    for make in ODD_FILES:
        with lossless(a, b, rate=500):
            running.config.unlink()
            make(running.config)
            assert not running.reload()
            config = running.ask("status")["config"]
            assert config["state"] in ("rejected", "missing")
            assert config["problems"], config
            assert running.link()["state"] == "connected"
            assert running.rss() < 120 << 20, "it was read into memory"
            if make in (_fifo, Path.mkdir):
                running.crash()
                assert running.ask("status")["config"]["state"] in ("rejected", "missing")
        if make in (_dense, _fifo):
            checked = running.cli("check", str(running.config))
            assert checked.returncode == 78, checked
            assert "Traceback" not in checked.stderr
        running.config.rmdir() if running.config.is_dir() else running.config.unlink()
        for wiring, there in ((OTHER, c), (PAIR, b)):
            running.write(wiring)
            poll(lambda: wired(a, there))  # noqa: B023


def test_a_file_that_may_not_be_read_or_that_anybody_may_write(lab: Lab) -> None:
    """Without CAP_DAC_OVERRIDE root is an ordinary user; then the permission comes back."""
    a, b, c = lab.veths("va", "vb", "vc")
    lose = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    running = Daemon(lab, PAIR, through=lose).start()
    os.chown(running.config, 65534, 65534)
    with lossless(a, b):
        for mode, state in ((0o600, "rejected"), (0o644, "loaded")):
            running.config.chmod(mode)
            poll(lambda: running.ask("status")["config"]["state"] == state)  # noqa: B023
            problems = str(running.ask("status")["config"]["problems"])
            assert ("ermission" in problems) == (state == "rejected")
    running.write(OTHER)
    poll(lambda: wired(a, c))
    for path, mode in ((running.config, 0o666), (running.config.parent, 0o777)):
        since = running.mark()
        path.chmod(mode)
        running.write_in_place(OTHER | {"vx": f"v{mode}"})
        warned = lambda: running.events("", since, level="warning")  # noqa: B023, E731
        poll(lambda: "writ" in str(warned()) and str(path) in str(warned()), what="a warning")  # noqa: B023


def _fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    with contextlib.suppress(OSError):
        for n in range(1000):
            (disk / f"fill{n}").touch()


def test_a_full_disk_stops_no_wire(lab: Lab) -> None:
    """Nothing is changed that could not be recorded first; what is connected stays so.

    Over drift, over a crash, until its link goes: to detach needs no space.
    """
    a, b = lab.veths("va", "vb")
    lab.batch(f"link add p{n} up type veth peer name q{n}" for n in range(60))
    lab.batch(f"link set q{n} up" for n in range(60))
    many = paired([f"p{n}" for n in range(60)])
    poll(lambda: all(x["operstate"] == "UP" for n, x in lab.links().items() if n != "lo"))
    before = lab.links()
    running = Daemon(lab, PAIR)
    running.state.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=40", "none", str(running.state))
    lab.on_close(run, "umount", "-l", str(running.state))
    running.start()
    with lossless(a, b):
        _fill(running.state)
        running.write(PAIR | many)
        running.reload()
        failed = [x for x in running.ask("status")["links"] if x["state"] == "failed"]
        assert failed, "the disk was not that full"
        shown = lab.links()
        for link in failed:
            assert "space" in link["reason"], link
            for end in (link["a"]["name"], link["b"]["name"]):
                assert shown[end] == before[end]
        lab.ip("link set va mtu 1500")
        poll(lambda: lab.link("va")["mtu"] == 65535, what="drift of what is recorded is repaired")
        told = running.cli("doctor").stdout
        assert "fix: xconnectd reload" in told
        assert "kill" not in told, "that would take every wire down"
        running.crash()
        assert running.link()["state"] == "connected"
    running.write("links: {}\n")
    running.wait_link("disconnected", "va", "vb")
    assert lab.links() == before
    for path in running.state.glob("fill*"):
        path.unlink()
    running.write(PAIR | many)
    assert running.reload()
    assert running.states() == {"connected"}
    running.stop()
    assert lab.links() == before


def test_a_state_directory_that_is_removed(lab: Lab, shared: Start) -> None:
    """By somebody who tidies up /run."""
    a, b, c, d = lab.veths("va", "vb", "vc", "vd")
    before = lab.settled()
    running = shared(PAIR)
    with lossless(a, b):
        run("rm", "-r", str(running.state))
        running.write(PAIR | {"vc": "vd"})
        poll(lambda: wired(c, d))
    running.stop()
    lab.assert_as_found(before)


class Apart(Daemon):
    """A daemon in a mount namespace of its own, so that its mounts can be taken away."""

    def _command(self, *args: str) -> list[str]:
        enter, net, *command = super()._command(*args)
        if args[0] == "run":
            return [enter, net, "unshare", "-m", "--propagation=private", *command]
        return [enter, f"--mount=/proc/{self.pid}/ns/mnt", net, *command]

    def lose_bpffs(self) -> None:
        run("nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "umount", "-l", str(BPFFS))


def test_bpffs_unmounted_under_us(lab: Lab) -> None:
    """The maps are held by descriptors and by the programs: nothing stops, reloads work."""
    a, b, c = lab.veths("va", "vb", "vc")
    before = lab.settled()
    running = Apart(lab, PAIR).start()
    with lossless(a, b):
        running.lose_bpffs()
        running.wait_event("pins.lost")
        assert running.cli("reload").returncode == 0
        running.crash()  # in a mount namespace that has it again
        assert running.link()["state"] == "connected"
        running.lose_bpffs()
    running.write(OTHER)
    poll(lambda: wired(a, c))
    assert cut(a, b)
    running.stop()
    lab.assert_as_found(before)


def test_five_thousand_link_events_at_once(lab: Lab, shared: Start) -> None:
    """They are read in one go, or are too many; what changed meanwhile is found.

    As after a suspend: the daemon does not run while all that happens.
    """
    a, b, c, d, e = lab.veths("va", "vb", "vc", "vd", "ve")
    running = shared(PAIR | {"vc": "vd"}).connected("vc", "vd")
    lab.pair("dummy", "dummy2", up=False)
    with lossless(a, b, rate=500):
        spent = running.cpu()
        running.signal(signal.SIGSTOP)
        lab.batch(f"link set dummy alias a{n}" for n in range(5000))
        lab.delete("vd")
        lab.veth("vd", namespace=d.namespace)
        lab.ip("link set vc xdpgeneric off")
        running.write(PAIR | {"vc": "ve", "vd": "vx"})
        running.signal(signal.SIGCONT)
        poll(lambda: wired(c, e))
        running.write(PAIR | {"vc": "vd"})
        poll(lambda: wired(c, d))
        lab.batch(f"link set dummy alias c{n}" for n in range(2000))
        assert running.ask("status")["daemon"]["pid"] == running.pid
        assert running.cpu() - spent < 5


def test_a_guest_that_changes_its_offloads_without_end(lab: Lab, shared: Start) -> None:
    """Most of it never reaches the daemon (they cost a core before), and how it ends is seen."""
    tap = lab.tap("tap0")
    lab.veths("va", "vb", "vc")
    running = shared({"tap0": "va", "vb": "vc"}).connected("vb", "vc")

    def flip() -> None:
        for flags in (OFFLOADS, 0) * 100:
            tap.offload(flags)

    with meanwhile(flip) as times:
        (before,), spent = times(), running.cpu()
        poll(lambda: times()[0] - before > 250)
        spent = running.cpu() - spent
        lab.ip("link set vb mtu 1500")
        poll(lambda: lab.link("vb")["mtu"] == 65535, what="another's drift is put back")
    assert spent < 0.4, f"{spent:.2f} s of a processor"
    for flags, mode in ((0, "tc"), (OFFLOADS, "generic")):
        tap.offload(flags)
        poll(lambda: running.link("tap0", "va")["mode"] == mode, what=mode)  # noqa: B023


def test_rtnl_held_for_seconds(lab: Lab, shared: Start) -> None:
    """Other tools keep the kernel's lock: we wait, answer late, and lose nothing."""
    a, b, c, d = lab.veths("va", "vb", "vc", "vd")
    running = shared(PAIR)
    busy = lab.namespace("busy")

    def hold(names: str) -> None:
        add = [f"link add {names}{n} type veth peer name p{names}{n}\n" for n in range(100)]
        delete = [f"link delete {names}{n}\n" for n in range(100)]
        run("ip", "-batch", "-", namespace=busy, text="".join(add + delete), check=False)

    with lossless(a, b, rate=500), meanwhile(lambda: hold("b"), lambda: hold("c")):
        for more, state in (({"vc": "vd"}, wired), ({}, cut)):
            running.write(PAIR | more)
            poll(lambda: state(c, d))  # noqa: B023
        assert running.ask("status")["daemon"]["pid"] == running.pid


def test_a_clock_that_jumps(lab: Lab) -> None:
    """time.time() alone: the kernel keeps others from setting the monotonic one.

    The machine's clock is not ours to set, so a module that is loaded first fakes it.
    """
    a, b, c, *_ = lab.veths("va", "vb", "vc", "vf", "vg")
    lab.foreign_xdp("vf")
    jump = lab.directory / "jump"
    jump.write_text("0")
    (lab.directory / "sitecustomize.py").write_text(
        "import time\n"
        "real = time.time\n"
        f"time.time = lambda: real() + 3600 * int(open({str(jump)!r}).read() or 0)\n"
    )
    faked = ("env", f"PYTHONPATH={lab.directory}:{REPO}")
    running = Daemon(lab, PAIR | {"vf": "vg"}, through=faked).start()
    failed = lambda: running.link("vf", "vg")  # noqa: E731
    with lossless(a, b):
        for hours in (48, -48):
            spent = running.cpu()
            jump.write_text(str(hours))
            holds(lambda: 0 <= running.ask("status")["daemon"]["uptime_s"] < 600, 1.2, 0.2)
            assert running.cpu() - spent < 0.6, "it spins"
            assert failed()["state"] == "failed"
            poll(lambda: 0 <= failed()["retry_in_s"] <= 60, what="it is tried again")
    running.write(OTHER | {"vf": "vg"})
    poll(lambda: wired(a, c))
    lab.ip("link set dev vf xdpgeneric off")
    running.wait_state("vf", "vg", "connected")


def test_flapping_is_noticed_and_held_off(lab: Lab, shared: Start) -> None:
    """Somebody sets the MTU back each time we set it: it is named, forwarding goes on."""
    a, b, c, d = lab.veths("va", "vb", "vc", "vd")
    running = shared(PAIR | {"vc": "vd"})

    def meddle() -> None:
        if lab.link("va")["mtu"] != 1500:
            lab.ip("link set va mtu 1500")
        time.sleep(0.1)

    def times(name: str) -> Iterator[datetime]:
        return (datetime.fromisoformat(x["timestamp"]) for x in running.events(name))

    with lossless(c, d, rate=500), meanwhile(meddle):
        event = running.wait_event("drift.flapping")
        assert "va" in event["link"]
        assert "somebody else" in event["reason"]
        holds(lambda: wired(a, b), 1.5, 0.3)
        repaired = list(times("drift.repaired"))
        assert len(repaired) > 5
        assert max(repaired) <= next(times("drift.flapping")), "no hold-off"
        assert running.link()["state"] == "connected"
        lab.ip("link set va xdpgeneric off")
        poll(lambda: wired(a, b), 5, "a program that is off is put on all the same")


NOW_AND_THEN = "unreported"
"""A file of the state that is made when a pass first meets an interface that is just going."""


def _figures(lab: Lab, running: Daemon) -> dict[str, int]:
    process = Path(f"/proc/{running.pid}")
    return {
        "fds": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
        "entries": sum(len(entries(path)) for path in lab.wiring_maps()),
        "records": sum(x.is_file() and x.name != NOW_AND_THEN for x in running.state.rglob("*")),
        "pins": sum(1 for _ in lab.pins.rglob("*")),
        "filters": len(lab.tc("filter show dev va egress", check=False).splitlines()),
    }


def _steady(lab: Lab, running: Daemon) -> dict[str, int]:
    """The figures once two looks in a row agree: what was done last may be under way still."""
    running.idle(0.3)
    figures: dict[str, int] = {}
    while figures != (figures := _figures(lab, running)):
        pass
    return figures


def _leave_no_trace(
    lab: Lab, running: Daemon, do: Callable[[int], object], rounds: int, grace: int
) -> None:
    """Asserts that nothing is more after all rounds than after the first few."""
    for n in range(grace):
        do(n)
    before, memory = _steady(lab, running), running.rss()
    for n in range(grace, rounds):
        do(n)
        if n % 100 == 0:
            running._log.write_bytes(b"")  # it is the log that grows
    with contextlib.suppress(AssertionError):
        poll(lambda: _figures(lab, running) == before, 10)
    assert _figures(lab, running) == before
    grown = running.rss() - memory
    assert grown < 1 << 20, f"{grown} bytes more after {rounds} rounds"


def test_many_reloads_leave_no_trace(lab: Lab, daemon: Start) -> None:
    """Good and bad files, rewired, disabled, made, detached; nothing grows but the counters."""
    a, b, *_ = lab.veths(*(f"v{x}" for x in "abcdef"))
    wirings = [
        PAIR | {"vd": "ve"},
        PAIR | {"vc": {"to": "vd", "enabled": False}},
        "links:\n  va: [\n",
        PAIR | {"ve": "vf", "vc": "nosuch"},
        PAIR | {"vc": "vd"},
    ]
    running = daemon(wirings[-1])

    def reload(n: int) -> None:
        running.write(wirings[n % len(wirings)])
        running.ask("reload", "control", timeout=20)

    with lossless(a, b, rate=200):
        _leave_no_trace(lab, running, reload, RELOADS, min(RELOADS // 4, 500))
    running.stop()


def test_interfaces_and_clients_that_come_and_go_leave_no_trace(lab: Lab, daemon: Start) -> None:
    a, b, c = lab.veths("va", "vb", "vc")
    running = daemon(PAIR | {"vc": "vd"})

    def come_and_go(n: int) -> None:
        lab.batch([f"link add vd type veth peer name far{n} netns {c.namespace}", "link set vd up"])
        lab.delete("vd")
        assert running.returncode is None, running.text()[-1000:]
        for k in range(6):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(running.socket_path(("status", "control")[k % 2])))
                if k % 3:
                    client.sendall(b'{"do": "events"}\n' if k % 3 == 1 else b'{"do"')

    with lossless(a, b, rate=200):
        _leave_no_trace(lab, running, come_and_go, max(40, RELOADS // 10), 10)
    running.stop()
