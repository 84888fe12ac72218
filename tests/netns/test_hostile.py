"""A hostile life: odd files, full disks, lost mounts, floods, flapping, many reloads."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest

from .lab import BPFFS, Lab, holds, poll, run
from .service import Daemon, Event, document
from .test_config_changes import cut, wired
from .test_invariants import _entries, _settled, assert_as_found
from .traffic import OFFLOADS, Stream, Tap

Start = Callable[..., Daemon]
PAIR = {"va": "vb"}
OTHER = {"va": "vc"}
RELOADS = int(os.environ.get("XCONNECTD_RELOADS") or 2000)


# ---------------------------------------------------------------------- what stands for the file


def _huge(path: Path) -> None:
    path.unlink()
    with path.open("w") as file:
        file.write("links:\n  va: vb\nx-pad:\n")
        for _ in range(50):
            file.write("  - " + "x" * ((1 << 20) - 5) + "\n")


def _huge_links(path: Path) -> None:
    """As many lines as 50 MB hold."""
    path.unlink()
    with path.open("w") as file:
        file.write("links:\n")
        for n in range(50):
            file.write("".join(f"  a{n}x{k}: b{n}x{k}\n" for k in range(50_000)))


def _dense(path: Path) -> None:
    """Not too large, but of millions of values."""
    path.unlink()
    path.write_text("links: {va: vb}\nx-pad: [" + "a," * (3 << 20) + "]\n")


def _sparse(path: Path) -> None:
    path.unlink()
    with path.open("wb") as file:
        file.truncate(50 << 20)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _directory(path: Path) -> None:
    """It has no file in it; a daemon that was given a file was not given this."""
    path.unlink()
    path.mkdir()


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _terminal(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/tty")


def _socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


ODD_FILES = [_huge, _huge_links, _dense, _sparse, _fifo, _directory, _dangling, _circle, _device]
ODD_FILES += [_terminal, _socket]


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()


@pytest.mark.parametrize("make", ODD_FILES, ids=lambda x: x.__name__.strip("_"))
def test_what_is_no_file_for_us_is_refused_and_harms_nobody(
    lab: Lab, daemon: Start, make: Callable[[Path], None]
) -> None:
    """The wire goes on, the daemon answers meanwhile and says why; the next good file is taken."""
    a, b, c = lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    with Stream(a, b, rate=500) as stream:
        poll(stream.flows)
        make(running.config)
        poll(lambda: running.ask("status")["config"]["state"] != "loaded", what="refused")
        config = running.ask("status")["config"]
        assert config["state"] in ("rejected", "missing")
        assert config["problems"], config
        assert running.link("va", "vb")["state"] == "connected"
        checked = running.cli("check", str(running.config))
        assert checked.returncode == 78, checked
        assert "Traceback" not in checked.stderr
        assert running.rss() < 120 << 20, "it was read into memory"
        assert running.cli("reload").returncode == 78
    stream.assert_perfect()
    _clear(running.config)
    running.write(OTHER)
    poll(lambda: wired(a, c))
    running.stop()


@pytest.mark.parametrize(
    "make", [_huge, _fifo, _directory, _dangling, _device], ids=lambda x: x.__name__.strip("_")
)
def test_what_is_no_file_for_us_at_the_start(lab: Lab, make: Callable[[Path], None]) -> None:
    a, b, c = lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    running = Daemon(lab, PAIR).start()
    with Stream(a, b) as stream:
        poll(stream.flows)
        running.kill()
        make(running.config)
        running.start()
        assert running.ask("status")["config"]["state"] in ("rejected", "missing")
        time.sleep(0.5)
    stream.assert_perfect()
    _clear(running.config)
    running.write(OTHER)
    poll(lambda: wired(a, c))
    assert cut(a, b)
    running.stop()


def test_a_fifo_somebody_writes_to_is_never_read(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR)
    _fifo(running.config)
    writer = os.open(running.config, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(writer, document(OTHER).encode())
        poll(lambda: running.ask("status")["config"]["state"] == "rejected")
        holds(lambda: running.ask("status")["config"]["state"] == "rejected", 1.5)
        assert wired(a, b)
    finally:
        os.close(writer)


def test_a_file_that_is_lost_and_comes_back_again_and_again(lab: Lab, daemon: Start) -> None:
    """As permissions lost and back: root reads what has no permissions, so a link dangles."""
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    real = running.config.with_name("real.yaml")
    with Stream(a, b) as stream:
        poll(stream.flows)
        for n in range(6):
            _dangling(running.config)
            if n % 2:
                poll(lambda: running.ask("status")["config"]["state"] == "missing")
            real.write_text(document(PAIR))
            fresh = running.config.with_name("fresh")
            fresh.symlink_to(real)
            fresh.rename(running.config)
            poll(lambda: running.ask("status")["config"]["state"] == "loaded")
            running.write(PAIR)
    stream.assert_perfect()
    running.stop()


def test_a_file_that_may_not_be_read(lab: Lab) -> None:
    """Without CAP_DAC_OVERRIDE root is an ordinary user; then the permission comes back."""
    a, b, c = lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    running = Daemon(lab, PAIR)
    enter, net, *command = running._command()
    lose = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    patched = lambda *args: [enter, net, *lose, *command, *args]  # noqa: E731
    running._command = patched  # type: ignore[method-assign]
    running.start()
    running.wait_link("connected", "va", "vb")
    os.chown(running.config, 65534, 65534)
    with Stream(a, b) as stream:
        poll(stream.flows)
        running.config.chmod(0o600)
        poll(lambda: running.ask("status")["config"]["state"] == "rejected")
        assert "ermission" in str(running.ask("status")["config"]["problems"])
        running.config.chmod(0o644)
        poll(lambda: running.ask("status")["config"]["state"] == "loaded")
    stream.assert_perfect()
    running.write(OTHER)
    poll(lambda: wired(a, c))


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_file_that_anybody_may_write_is_refused_or_warned_about(
    lab: Lab, daemon: Start, what: str
) -> None:
    """It hands out root's wiring."""
    lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR)
    path = running.config if what == "file" else running.config.parent
    path.chmod(0o777 if what == "directory" else 0o666)
    running.write_in_place(PAIR | {"vx": "vy"})

    def told() -> bool:
        loud = [x for x in running.events() if x.get("level") in ("warning", "error")]
        return any("writ" in str(x) and str(path) in str(x) for x in loud)

    def taken() -> bool:
        shown = running.status()["config"]
        return shown["state"] == "loaded" or "writ" in str(shown["problems"])

    poll(told, what="a warning or a refusal in the log")
    poll(taken, what="the file, or why not")


# ---------------------------------------------------------------------- disks and mounts


@pytest.fixture
def small_disk(lab: Lab) -> Iterator[Path]:
    """A few kilobytes, for the state."""
    path = lab.directory / "disk"
    path.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=40", "none", str(path))
    yield path
    run("umount", "-l", str(path))


def _fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "fill").open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()
    with contextlib.suppress(OSError):
        for n in range(1000):
            (disk / f"fill{n}").touch()


def test_a_full_disk_stops_no_wire(lab: Lab, small_disk: Path) -> None:
    """Nothing is changed that could not be recorded first, and nothing forwarded stops."""
    a, b = lab.veth("va"), lab.veth("vb")
    lab.batch([f"link add p{n} type veth peer name q{n}" for n in range(80)])
    lab.batch([f"link set {side}{n} up" for n in range(80) for side in "pq"])
    many = {f"p{n}": f"p{n + 1}" for n in range(0, 80, 2)}
    before = _settled(lab)
    running = Daemon(lab, PAIR)
    running.state = small_disk
    running.start()
    running.wait_link("connected", "va", "vb")
    with Stream(a, b) as stream:
        poll(stream.flows)
        _fill(small_disk)
        running.write(PAIR | many)
        poll(lambda: len(running.ask("status")["links"]) == 41)
        failed = [x for x in running.ask("status")["links"] if x["state"] == "failed"]
        assert failed, "the disk was not that full"
        for link in failed:
            assert "space" in link["reason"], link
            for end in (link["a"]["name"], link["b"]["name"]):
                assert lab.link(end) == before["links"][end]
        running.signal(signal.SIGHUP)
        time.sleep(0.3)
        lab.ip("link", "set", "va", "mtu", "1500")
        poll(lambda: lab.link("va")["mtu"] == 65535, what="drift of what is recorded is repaired")
        for path in small_disk.glob("fill*"):
            path.unlink()
        poll(lambda: running.cli("status", "--check").returncode == 0, 90, "it is tried again")
        running.kill()
        running.start()
    stream.assert_perfect()
    running.stop()
    assert_as_found(lab, before)


def test_a_full_disk_and_a_crash(lab: Lab, small_disk: Path) -> None:
    """The next start adopts, or says that it cannot; the wires stand either way."""
    a, b = lab.veth("va"), lab.veth("vb")
    before = _settled(lab)
    running = Daemon(lab, PAIR)
    running.state = small_disk
    running.start()
    with Stream(a, b) as stream:
        poll(stream.flows)
        running.kill()
        _fill(small_disk)
        running.spawn()
        poll(lambda: running.returncode is not None or running.events("daemon.ready")[1:])
        if running.returncode is not None:
            assert running.returncode == 3, running.text()
            assert "space" in running.text()
        running.assert_no_traceback()
        for path in small_disk.glob("fill*"):
            path.unlink()
        if running.returncode is not None:
            running.start()
        running.wait_state("va", "vb", "connected")
    stream.assert_perfect()
    running.stop()
    assert_as_found(lab, before)


def test_a_disk_that_is_full_while_links_go(lab: Lab, small_disk: Path) -> None:
    """To detach needs no space."""
    lab.veth("va"), lab.veth("vb")
    before = _settled(lab)
    running = Daemon(lab, PAIR)
    running.state = small_disk
    running.start()
    _fill(small_disk)
    running.write("links: {}\n")
    running.wait_link("disconnected", "va", "vb")
    assert_as_found(lab, before)
    for path in small_disk.glob("fill*"):
        path.unlink()
    running.stop()


def test_a_state_directory_that_is_removed(lab: Lab, daemon: Start) -> None:
    """By somebody who tidies up /run."""
    a, b, c, d = (lab.veth(x) for x in ("va", "vb", "vc", "vd"))
    before = _settled(lab)
    running = daemon(PAIR)
    with Stream(a, b) as stream:
        poll(stream.flows)
        run("rm", "-r", str(running.state))
        running.write(PAIR | {"vc": "vd"})
        poll(lambda: wired(c, d))
        running.assert_no_traceback()
    stream.assert_perfect()
    running.stop()
    assert_as_found(lab, before)


class Apart(Daemon):
    """A daemon in a mount namespace of its own, so that its mounts can be taken away."""

    def _command(self, *args: str) -> list[str]:
        enter, net, *command = super()._command(*args)
        if args[0] == "run":
            return [enter, net, "unshare", "-m", "--propagation=private", *command]
        return [enter, f"--mount=/proc/{self.pid}/ns/mnt", net, *command]

    def within(self, *command: str) -> None:
        run("nsenter", f"--mount=/proc/{self.pid}/ns/mnt", *command)


def test_bpffs_unmounted_under_us(lab: Lab) -> None:
    """The maps are held by descriptors and by the programs: nothing stops, reloads work."""
    a, b, c = lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    before = _settled(lab)
    running = Apart(lab, PAIR).start()
    running.wait_link("connected", "va", "vb")
    with Stream(a, b) as stream:
        poll(stream.flows)
        running.within("umount", "-l", str(BPFFS))
        time.sleep(1.5)
        assert running.cli("reload").returncode == 0
        running.kill()
        running.start()  # in a mount namespace that has it again
        assert running.link("va", "vb")["state"] == "connected"
        running.within("umount", "-l", str(BPFFS))
    stream.assert_perfect()
    running.write(OTHER)
    poll(lambda: wired(a, c))
    assert cut(a, b)
    running.signal(signal.SIGTERM)
    assert running.wait() == 0, running.text()
    running.assert_no_traceback()
    assert_as_found(lab, before)


def test_pins_removed_under_us(lab: Lab, daemon: Start) -> None:
    a, b, c = lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    before = _settled(lab)
    running = daemon(PAIR)
    with Stream(a, b) as stream:
        poll(stream.flows)
        run("rm", "-r", str(lab.pins))
        time.sleep(1.5)
        assert running.cli("reload").returncode == 0
    stream.assert_perfect()
    running.write(OTHER)
    poll(lambda: wired(a, c))
    running.stop()
    assert_as_found(lab, before)


# ---------------------------------------------------------------------- floods


def test_five_thousand_link_events_at_once(lab: Lab, daemon: Start) -> None:
    """More than the socket's buffer holds: all is read again, and what changed meanwhile found."""
    a, b, c, d = (lab.veth(x) for x in ("va", "vb", "vc", "vd"))
    running = daemon(PAIR | {"vc": "vd"})
    running.wait_link("connected", "vc", "vd")
    lab.ip("link", "add", "dummy", "type", "veth", "peer", "name", "dummy2")
    with Stream(a, b, rate=500) as stream:
        poll(stream.flows)
        spent = running.cpu()
        running.signal(signal.SIGSTOP)
        lab.batch([f"link set dummy alias a{n}" for n in range(5000)])
        lab.delete("vd")
        lab.batch([f"link set dummy alias b{n}" for n in range(2000)])
        running.signal(signal.SIGCONT)
        running.wait_link("waiting", "vc", "vd")
        lab.veth("vd", namespace=d.namespace)
        poll(lambda: wired(c, d))
        lab.batch([f"link set dummy alias c{n}" for n in range(5000)])
        assert running.ask("status")["daemon"]["pid"] == running.pid
        assert running.cpu() - spent < 10
    stream.assert_perfect()
    running.stop()


class Flips:
    """A guest whose driver changes its offloads as fast as it can, until the block ends.

    Attributes:
        count: how often, so far.
    """

    def __init__(self, tap: Tap) -> None:
        self._made = multiprocessing.Value("L", 0)
        self._over = multiprocessing.Event()
        self._process = multiprocessing.Process(target=self._run, args=(tap,))

    def _run(self, tap: Tap) -> None:
        while not self._over.is_set():
            for flags in (OFFLOADS, 0) * 100:
                tap.offload(flags)
            self._made.value += 200

    @property
    def count(self) -> int:
        return int(self._made.value)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._process.join()


def test_a_guest_that_changes_its_offloads_without_end(lab: Lab, daemon: Start) -> None:
    """Most of it never reaches the daemon (they cost a core before), and how it ends is seen."""
    tap = lab.tap("tap0")
    lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    running = daemon({"tap0": "va", "vb": "vc"})
    running.wait_link("connected", "vb", "vc")
    with Flips(tap) as flips:
        spent, since = running.cpu(), flips.count
        poll(lambda: flips.count - since > 100_000)
        spent = running.cpu() - spent
        lab.ip("link", "set", "vb", "mtu", "1500")
        poll(lambda: lab.link("vb")["mtu"] == 65535, what="another's drift is put back")
    assert spent < 0.4, f"{spent:.2f} s of a processor"
    poll(lambda: running.link("tap0", "va")["mode"] == "tc", what="a tap without offloads")
    tap.offload(OFFLOADS)
    poll(lambda: running.link("tap0", "va")["mode"] == "generic")
    running.stop()


def test_an_end_that_flaps_fills_no_disk(lab: Lab, daemon: Start) -> None:
    """The first changes are told one by one, the rest in few lines; the state is never wrong."""
    lab.veth("va"), lab.veth("vb")
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    since = running.mark()

    def is_seen(state: str) -> bool:
        return bool(running.ask("status")["links"][0]["state"] == state)

    changes = [("down", "down"), ("up", "connected")] * 15
    for how, state in [*changes, changes[0]]:
        lab.ip("link", "set", "va", how)
        poll(lambda state=state: is_seen(state))
    running.stop()
    told = [x for x in running.events(since=since) if x["event"] in ("link.up", "link.down")]
    assert 10 < len(told) < 25, len(told)
    assert told[-1]["event"] == "link.down", "how it ended"
    assert sum(x.get("count", 1) for x in told) == 31, "each is counted"
    assert told[-1]["seconds"] > 0


def test_rtnl_held_for_seconds(lab: Lab, daemon: Start) -> None:
    """Other tools keep the kernel's lock: we wait, answer late, and lose nothing."""
    a, b, c, d = (lab.veth(x) for x in ("va", "vb", "vc", "vd"))
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    busy = lab.namespace("busy")
    over = threading.Event()

    def hold() -> None:
        while not over.is_set():
            add = "\n".join(f"link add b{n} type veth peer name c{n}" for n in range(200))
            run("ip", "-batch", "-", namespace=busy, text=add + "\n", check=False)
            gone = "\n".join(f"link delete b{n}" for n in range(200))
            run("ip", "-batch", "-", namespace=busy, text=gone + "\n", check=False)

    holders = [threading.Thread(target=hold) for _ in range(2)]
    with Stream(a, b, rate=500) as stream:
        poll(stream.flows)
        for holder in holders:
            holder.start()
        try:
            for n in range(6):
                running.write(PAIR | ({"vc": "vd"} if n % 2 == 0 else {}))
                state = wired if n % 2 == 0 else cut
                poll(lambda state=state: state(c, d))  # type: ignore[misc]
            assert running.ask("status")["daemon"]["pid"] == running.pid
        finally:
            over.set()
            for holder in holders:
                holder.join()
    stream.assert_perfect()
    running.stop()


def test_a_daemon_that_was_stopped_for_a_while(lab: Lab, daemon: Start) -> None:
    """SIGSTOP, as a suspended machine: everything has changed when it goes on."""
    a, b, c, d = (lab.veth(x) for x in ("va", "vb", "vc", "vd"))
    running = daemon(PAIR)
    running.wait_link("connected", "va", "vb")
    running.signal(signal.SIGSTOP)
    running.write({"va": "vc", "vb": "vd"})
    lab.delete("vd")
    lab.veth("vd", namespace=d.namespace)
    lab.ip("link", "set", "va", "xdpgeneric", "off")
    time.sleep(1)
    running.signal(signal.SIGCONT)
    poll(lambda: wired(a, c))
    poll(lambda: wired(b, d))
    assert cut(a, b)
    running.stop()


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_clock_that_jumps(lab: Lab, tmp_path: Path, hours: int) -> None:
    """time.time() alone: the kernel keeps others from setting the monotonic one.

    The machine's clock is not ours to set, so a module that is loaded first fakes it.
    """
    a, b, c = lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    lab.veth("vf"), lab.veth("vg")
    lab.foreign_xdp("vf")
    switch = tmp_path / "jump"
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\n"
        "real = time.time\n"
        f"time.time = lambda: real() + ({hours * 3600} if os.path.exists({str(switch)!r}) else 0)\n"
    )
    running = Daemon(lab, PAIR | {"vf": "vg"})
    surroundings = running._surroundings()
    surroundings["env"]["PYTHONPATH"] += f":{tmp_path}"
    running._surroundings = lambda: surroundings  # type: ignore[method-assign]
    running.start()
    with Stream(a, b) as stream:
        poll(stream.flows)
        spent = running.cpu()
        switch.touch()
        time.sleep(2.5)
        assert running.cpu() - spent < 1, "it spins"
        link = running.link("vf", "vg")
        assert link["state"] == "failed"
        assert 0 <= link["retry_in_s"] <= 60, link
        report = running.status()
        assert report["daemon"]["uptime_s"] < 3600, "uptime is no matter of the clock"
        assert report["daemon"]["uptime_s"] >= 0
    stream.assert_perfect()
    running.write(OTHER | {"vf": "vg"})
    poll(lambda: wired(a, c))
    lab.ip("link", "set", "dev", "vf", "xdpgeneric", "off")
    running.wait_state("vf", "vg", "connected")
    running.stop()


# ---------------------------------------------------------------------- the watcher


def _threads(running: Daemon) -> list[Path]:
    return list(Path(f"/proc/{running.pid}/task").iterdir())


def _watch_descriptors(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if "inotify" in str(path.readlink()):
                found.append(int(path.name))
    return found


def test_a_watch_that_dies_is_mended(lab: Lab, daemon: Start) -> None:
    """The directory is moved, deleted, made again, mounted over: the next edit counts."""
    a, b, c = lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    running = daemon(PAIR)
    folder = running.config.parent
    for n in range(6):
        match n % 3:
            case 0:
                folder.rename(folder.with_name(f"old{n}"))
                folder.mkdir()
            case 1:
                run("rm", "-r", str(folder))
                time.sleep(0.3)
                folder.mkdir()
            case 2:
                for path in (folder.with_name("swap"),):
                    path.mkdir(exist_ok=True)
                    (path / running.config.name).write_text("links: [\n")
                    folder.rename(folder.with_name(f"old{n}"))
                    path.rename(folder)
        wiring, there, gone = ((OTHER, c, b), (PAIR, b, c))[n % 2]
        running.write_in_place(wiring)
        poll(lambda there=there: wired(a, there), what=f"replaced {n}")  # type: ignore[misc]
        assert cut(a, gone)
        running.write_in_place(wiring if n % 2 else PAIR)
        poll(lambda: wired(a, b))
        time.sleep(1.2)
    poll(lambda: len(_watch_descriptors(running.pid)) <= 2, what="no more watches than one needs")
    poll(lambda: len(_threads(running)) < 10, what="no threads that pile up")
    running.assert_no_traceback()
    running.stop()


def test_without_inotify_changes_are_found_all_the_same(lab: Lab, tmp_path: Path) -> None:
    """Out of inotify instances, as hosts with many containers are; they come back later.

    The limit is the whole machine's, so a module that is loaded first fakes it.
    """
    a, _, c = lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    scarce = tmp_path / "scarce"
    scarce.touch()
    (tmp_path / "sitecustomize.py").write_text(
        "import ctypes, errno, os\n"
        "from watchdog.observers import inotify_c\n"
        "real = inotify_c.inotify_init\n"
        "def init():\n"
        f"    if os.path.exists({str(scarce)!r}):\n"
        "        ctypes.set_errno(errno.EMFILE)\n"
        "        return -1\n"
        "    return real()\n"
        "inotify_c.inotify_init = init\n"
    )
    running = Daemon(lab, PAIR)
    surroundings = running._surroundings()
    surroundings["env"]["PYTHONPATH"] += f":{tmp_path}"
    running._surroundings = lambda: surroundings  # type: ignore[method-assign]
    running.start()
    assert not _watch_descriptors(running.pid)
    running.write(OTHER)
    poll(lambda: wired(a, c))
    scarce.unlink()
    poll(lambda: _watch_descriptors(running.pid), what="the watch is back")
    running.write_in_place(PAIR)
    poll(lambda: cut(a, c))
    running.stop()


# ---------------------------------------------------------------------- flapping


def _repairs(running: Daemon, since: int, flapping: Event) -> tuple[int, int]:
    """How many there were until it was logged, and in the hold-off that began with it."""
    told = datetime.fromisoformat(flapping["timestamp"])
    times = [
        datetime.fromisoformat(x["timestamp"]) for x in running.events("drift.repaired", since)
    ]
    end = told + timedelta(seconds=9.5)
    return sum(x <= told for x in times), sum(told < x < end for x in times)


def test_flapping_is_noticed_and_held_off(lab: Lab, daemon: Start) -> None:
    """Somebody sets the MTU back each time we set it: it is named, forwarding goes on."""
    a, b, c, d = (lab.veth(x) for x in ("va", "vb", "vc", "vd"))
    running = daemon(PAIR | {"vc": "vd"})
    running.wait_link("connected", "va", "vb")
    over = threading.Event()

    def meddle() -> None:
        while not over.wait(0.2):
            if lab.link("va")["mtu"] != 1500:
                lab.ip("link", "set", "va", "mtu", "1500")

    meddler = threading.Thread(target=meddle)
    with Stream(a, b) as stream, Stream(c, d, rate=500) as other:
        poll(stream.flows)
        since = running.mark()
        meddler.start()
        try:
            event = running.wait_event("drift.flapping", since=since)
            assert "va" in event["link"]
            assert "somebody else" in event["reason"]
            assert _repairs(running, since, event)[0] > 5
            holds(lambda: wired(a, b), 3, 0.3)
            assert _repairs(running, since, event)[1] == 0, "no hold-off"
            assert running.link("va", "vb")["state"] == "connected"
            lab.ip("link", "set", "va", "xdpgeneric", "off")
            poll(lambda: wired(a, b), 5, "a program that is off is put on all the same")
        finally:
            over.set()
            meddler.join()
        poll(lambda: lab.link("va")["mtu"] == 65535, 90, "when it is over, ours again")
    other.assert_perfect()
    running.stop()


# ---------------------------------------------------------------------- many days


NOW_AND_THEN = "unreported"
"""A file of the state that is made when a pass first meets an interface that is just going."""


def _figures(lab: Lab, running: Daemon) -> dict[str, int]:
    return {
        "fds": _descriptors(running),
        "threads": len(_threads(running)),
        "entries": len(_entries(lab)),
        "records": sum(x.is_file() and x.name != NOW_AND_THEN for x in running.state.rglob("*")),
        "pins": sum(1 for _ in lab.pins.rglob("*")),
        "filters": len(lab.tc("filter", "show", "dev", "va", "egress").splitlines()),
    }


def _descriptors(running: Daemon) -> int:
    return len(list(Path(f"/proc/{running.pid}/fd").iterdir()))


def _steady(lab: Lab, running: Daemon) -> dict[str, int]:
    """The figures once two looks in a row agree: what was done last may be under way still."""
    figures: dict[str, int] = {}
    while figures != (figures := _figures(lab, running)):
        pass
    return figures


def _assert_no_trace(lab: Lab, running: Daemon, before: dict[str, int]) -> None:
    with contextlib.suppress(AssertionError):
        poll(lambda: _figures(lab, running) == before)
    assert _figures(lab, running) == before


def test_thousands_of_reloads_leave_no_trace(lab: Lab, daemon: Start) -> None:
    """Good and bad files, rewired, disabled, made, detached; nothing grows but the counters."""
    ends = [f"v{x}" for x in "abcdef"]
    stations = [lab.veth(end) for end in ends]
    texts = [
        document({"va": "vb", "vc": "vd"}),
        document({"va": "vb", "vd": "ve"}),
        "links:\n  va: vb\n  vc: {to: vd, enabled: false}\n",
        "links:\n  va: [\n",
        document({"va": "vb", "ve": "vf", "vc": "nosuch"}),
    ]
    running = daemon(texts[0])
    before: dict[str, Any] = {}
    memory = 0
    with Stream(stations[0], stations[1], rate=200) as stream:
        poll(stream.flows)
        for n in range(RELOADS):
            running.write(texts[n % len(texts)])
            running.ask("reload", "control", timeout=20)
            if n % len(texts) == 0 and n >= min(RELOADS // 4, 500) and not before:
                running.idle(0.3)
                before, memory = _steady(lab, running), running.rss()
            if n % 100 == 0:
                running._log.write_bytes(b"")  # it is the log that grows
        running.write(texts[0])
        running.ask("reload", "control")
        running.idle(0.3)
        _assert_no_trace(lab, running, before)
        grown = running.rss() - memory
        assert grown < 1 << 20, f"{grown} bytes more after {RELOADS} reloads"
    stream.assert_perfect()
    running.stop()


def test_interfaces_that_come_and_go_leave_no_trace(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    inner = lab.veth("vc").namespace
    running = daemon(PAIR | {"vc": "vd"})
    before: dict[str, Any] = {}
    memory = 0
    with Stream(a, b, rate=200) as stream:
        poll(stream.flows)
        for n in range(120):
            make = f"link add vd type veth peer name far{n} netns {inner}"
            lab.batch([make, "link set vd up"])
            lab.delete("vd")
            assert running.returncode is None, running.text()[-1000:]
            if n == 20:
                running.idle(0.3)
                before, memory = _steady(lab, running), running.rss()
        running.idle(0.5)
        _assert_no_trace(lab, running, before)
        assert running.rss() - memory < 1 << 20
    stream.assert_perfect()
    running.stop()


def test_clients_that_come_and_go_leave_no_trace(daemon: Start) -> None:
    running = daemon(PAIR)
    running.ask("status")
    running.idle(0.3)
    before, memory = _descriptors(running), running.rss()
    for n in range(600):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(running.socket_path(("status", "control")[n % 2])))
            if n % 3:
                client.sendall(b'{"do": "events"}\n' if n % 3 == 1 else b'{"do"')
    poll(lambda: _descriptors(running) == before)
    assert running.rss() - memory < 1 << 20
    running.stop()


def test_a_reload_tries_at_once_what_failed(lab: Lab, small_disk: Path) -> None:
    """Who has taken a cause away need not wait until it is tried again by itself."""
    lab.batch([f"link add p{n} type veth peer name q{n}" for n in range(80)])
    lab.batch([f"link set {side}{n} up" for n in range(80) for side in "pq"])
    running = Daemon(lab, "links: {}\n")
    running.state = small_disk
    running.start()
    _fill(small_disk)
    running.write({f"p{n}": f"p{n + 1}" for n in range(0, 80, 2)})

    def longest_wait() -> float:
        return max(link["retry_in_s"] or 0 for link in running.ask("status")["links"])

    poll(lambda: running.ask("status")["links"] and longest_wait() > 3, what="some patience")
    told = running.cli("doctor").stdout
    assert "fix: xconnectd reload" in told
    assert "kill" not in told, "that would take every wire down"
    for path in small_disk.glob("fill*"):
        path.unlink()
    assert running.cli("reload").stdout == "40 links: 40 connected\n"
    running.stop()
