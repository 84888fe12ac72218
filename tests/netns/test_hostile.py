"""A hostile life: odd files, full disks, lost mounts, floods, flapping, many reloads."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Self

import pytest

from .lab import BPFFS, REPO, Lab, holds, poll, run
from .service import Daemon, document
from .test_invariants import _entries
from .traffic import OFFLOADS, Stream, Tap, cut, wired

Start = Callable[..., Daemon]
PAIR = {"va": "vb"}
OTHER = {"va": "vc"}
RELOADS = int(os.environ.get("XCONNECTD_RELOADS") or 200)


# ---------------------------------------------------------------------- what stands for the file


def _huge(path: Path) -> None:
    """As many lines as 50 MB hold."""
    with path.open("w") as file:
        file.write("links:\n")
        for n in range(50):
            file.write("".join(f"  a{n}x{k}: b{n}x{k}\n" for k in range(50_000)))


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


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


LEADS_TO = {"nowhere": "nowhere", "itself": "", "a device": "/dev/zero", "a terminal": "/dev/tty"}
ODD_FILES: list[Callable[[Path], None]] = [_huge, _dense, _sparse, _fifo, Path.mkdir, _socket]
ODD_FILES += [
    lambda path, to=to: path.symlink_to(to or path.name)  # type: ignore[misc]
    for to in LEADS_TO.values()
]


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()


def test_what_is_no_file_for_us_is_refused_and_harms_nobody(lab: Lab, shared: Start) -> None:
    """The wire goes on, the daemon answers meanwhile and says why; the next good file is taken."""
    a, b, c = lab.veths("va", "vb", "vc")
    running = shared(PAIR)
    for make in ODD_FILES:
        with Stream(a, b, rate=500) as stream:
            poll(stream.flows)
            running.config.unlink()
            make(running.config)
            answer = running.ask("reload", "control")
            assert not answer["ok"], answer
            config = running.ask("status")["config"]
            assert config["state"] in ("rejected", "missing")
            assert config["problems"], config
            assert running.link("va", "vb")["state"] == "connected"
            assert running.rss() < 120 << 20, "it was read into memory"
        stream.assert_perfect()
        if make in (_dense, _fifo):
            checked = running.cli("check", str(running.config))
            assert checked.returncode == 78, checked
            assert "Traceback" not in checked.stderr
        _clear(running.config)
        for wiring, there in ((OTHER, c), (PAIR, b)):
            running.write(wiring)
            poll(lambda: wired(a, there))  # noqa: B023


def test_what_is_no_file_for_us_at_the_start(lab: Lab, shared: Start) -> None:
    a, b = lab.veths("va", "vb")
    running = shared(PAIR)
    for make in (_fifo, Path.mkdir):
        with Stream(a, b) as stream:
            poll(stream.flows)
            running.kill()
            running.config.unlink()
            make(running.config)
            running.start()
            assert running.ask("status")["config"]["state"] in ("rejected", "missing")
        stream.assert_perfect()
        _clear(running.config)
        running.write(PAIR)


def test_a_file_that_may_not_be_read(lab: Lab) -> None:
    """Without CAP_DAC_OVERRIDE root is an ordinary user; then the permission comes back."""
    a, b, c = lab.veths("va", "vb", "vc")
    lose = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    running = Daemon(lab, PAIR, through=lose).start()
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


@pytest.mark.parametrize(("what", "mode"), [("file", 0o666), ("directory", 0o777)])
def test_a_file_that_anybody_may_write_is_refused_or_warned_about(
    daemon: Start, what: str, mode: int
) -> None:
    """It hands out root's wiring; whoever may write its directory puts another in its place."""
    running = daemon(PAIR)
    path = running.config if what == "file" else running.config.parent
    path.chmod(mode)
    running.write_in_place(PAIR | {"vx": "vy"})

    def told() -> bool:
        loud = [x for x in running.events() if x.get("level") in ("warning", "error")]
        return any("writ" in str(x) and str(path) in str(x) for x in loud)

    poll(told, what="a warning or a refusal in the log")
    shown = running.ask("status")["config"]
    assert shown["state"] == "loaded" or "writ" in str(shown["problems"])


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


def _empty(disk: Path) -> None:
    for path in disk.glob("fill*"):
        path.unlink()


def test_a_full_disk_stops_no_wire(lab: Lab, small_disk: Path) -> None:
    """Nothing is changed that could not be recorded first; what is connected stays so.

    Over drift, over a crash, until its link goes: to detach needs no space.
    """
    a, b = lab.veths("va", "vb")
    lab.batch(f"link add p{n} type veth peer name q{n}" for n in range(60))
    lab.batch(f"link set {side}{n} up" for n in range(60) for side in "pq")
    many = {f"p{n}": f"p{n + 1}" for n in range(0, 60, 2)}
    poll(lambda: all(x["operstate"] == "UP" for n, x in lab.links().items() if n != "lo"))
    before = lab.links()
    running = Daemon(lab, PAIR)
    running.state = small_disk
    running.start()
    with Stream(a, b) as stream:
        poll(stream.flows)
        _fill(small_disk)
        running.write(PAIR | many)
        running.ask("reload", "control")
        failed = [x for x in running.ask("status")["links"] if x["state"] == "failed"]
        assert failed, "the disk was not that full"
        shown = lab.links()
        for link in failed:
            assert "space" in link["reason"], link
            for end in (link["a"]["name"], link["b"]["name"]):
                assert shown[end] == before[end]
        lab.ip("link", "set", "va", "mtu", "1500")
        poll(lambda: lab.link("va")["mtu"] == 65535, what="drift of what is recorded is repaired")
        told = running.cli("doctor").stdout
        assert "fix: xconnectd reload" in told
        assert "kill" not in told, "that would take every wire down"
        running.kill()
        running.start()
        assert running.link("va", "vb")["state"] == "connected"
    stream.assert_perfect()
    running.write("links: {}\n")
    running.wait_link("disconnected", "va", "vb")
    assert lab.links() == before
    _empty(small_disk)
    running.write(PAIR | many)
    assert running.ask("reload", "control")["ok"]
    assert {link["state"] for link in running.ask("status")["links"]} == {"connected"}
    running.stop()
    assert lab.links() == before


def test_a_state_directory_that_is_removed(lab: Lab, shared: Start) -> None:
    """By somebody who tidies up /run."""
    a, b, c, d = lab.veths("va", "vb", "vc", "vd")
    before = lab.settled()
    running = shared(PAIR)
    with Stream(a, b) as stream:
        poll(stream.flows)
        run("rm", "-r", str(running.state))
        running.write(PAIR | {"vc": "vd"})
        poll(lambda: wired(c, d))
    stream.assert_perfect()
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
    with Stream(a, b) as stream:
        poll(stream.flows)
        running.lose_bpffs()
        running.wait_event("pins.lost")
        assert running.cli("reload").returncode == 0
        running.kill()
        running.start()  # in a mount namespace that has it again
        assert running.link("va", "vb")["state"] == "connected"
        running.lose_bpffs()
    stream.assert_perfect()
    running.write(OTHER)
    poll(lambda: wired(a, c))
    assert cut(a, b)
    running.stop()
    lab.assert_as_found(before)


# ---------------------------------------------------------------------- floods


def test_five_thousand_link_events_at_once(lab: Lab, shared: Start) -> None:
    """They are read in one go, and what changed meanwhile is found.

    As after a suspend: the daemon does not run while all that happens.
    """
    a, b, c, d, e = lab.veths("va", "vb", "vc", "vd", "ve")
    running = shared(PAIR | {"vc": "vd"})
    running.wait_link("connected", "vc", "vd")
    lab.ip("link", "add", "dummy", "type", "veth", "peer", "name", "dummy2")
    with Stream(a, b, rate=500) as stream:
        poll(stream.flows)
        spent = running.cpu()
        running.signal(signal.SIGSTOP)
        lab.batch(f"link set dummy alias a{n}" for n in range(5000))
        lab.delete("vd")
        lab.veth("vd", namespace=d.namespace)
        lab.ip("link", "set", "vc", "xdpgeneric", "off")
        running.write(PAIR | {"vc": "ve", "vd": "vx"})
        running.signal(signal.SIGCONT)
        poll(lambda: wired(c, e))
        running.write(PAIR | {"vc": "vd"})
        poll(lambda: wired(c, d))
        lab.batch(f"link set dummy alias c{n}" for n in range(2000))
        assert running.ask("status")["daemon"]["pid"] == running.pid
        assert running.cpu() - spent < 5
    stream.assert_perfect()


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


def test_a_guest_that_changes_its_offloads_without_end(lab: Lab, shared: Start) -> None:
    """Most of it never reaches the daemon (they cost a core before), and how it ends is seen."""
    tap = lab.tap("tap0")
    lab.veths("va", "vb", "vc")
    running = shared({"tap0": "va", "vb": "vc"})
    running.wait_link("connected", "vb", "vc")
    with Flips(tap) as flips:
        spent, since = running.cpu(), flips.count
        poll(lambda: flips.count - since > 50_000)
        spent = running.cpu() - spent
        lab.ip("link", "set", "vb", "mtu", "1500")
        poll(lambda: lab.link("vb")["mtu"] == 65535, what="another's drift is put back")
    assert spent < 0.4, f"{spent:.2f} s of a processor"
    poll(lambda: running.link("tap0", "va")["mode"] == "tc", what="a tap without offloads")
    tap.offload(OFFLOADS)
    poll(lambda: running.link("tap0", "va")["mode"] == "generic")


def test_rtnl_held_for_seconds(lab: Lab, shared: Start) -> None:
    """Other tools keep the kernel's lock: we wait, answer late, and lose nothing."""
    a, b, c, d = lab.veths("va", "vb", "vc", "vd")
    running = shared(PAIR)
    busy = lab.namespace("busy")
    over = threading.Event()
    add = "".join(f"link add b{n} type veth peer name c{n}\n" for n in range(100))
    gone = "".join(f"link delete b{n}\n" for n in range(100))

    def hold() -> None:
        while not over.is_set():
            for text in (add, gone):
                run("ip", "-batch", "-", namespace=busy, text=text, check=False)

    holders = [threading.Thread(target=hold) for _ in range(2)]
    with Stream(a, b, rate=500) as stream:
        poll(stream.flows)
        for holder in holders:
            holder.start()
        try:
            for more, state in (({"vc": "vd"}, wired), ({}, cut)):
                running.write(PAIR | more)
                poll(lambda: state(c, d))  # noqa: B023
            assert running.ask("status")["daemon"]["pid"] == running.pid
        finally:
            over.set()
            for holder in holders:
                holder.join()
    stream.assert_perfect()


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
    with Stream(a, b) as stream:
        poll(stream.flows)
        for hours in (48, -48):
            spent = running.cpu()
            jump.write_text(str(hours))
            holds(lambda: 0 <= running.ask("status")["daemon"]["uptime_s"] < 600, 1.2, 0.2)
            assert running.cpu() - spent < 0.6, "it spins"
            assert running.link("vf", "vg")["state"] == "failed"
            poll(
                lambda: 0 <= running.link("vf", "vg")["retry_in_s"] <= 60, what="it is tried again"
            )
    stream.assert_perfect()
    running.write(OTHER | {"vf": "vg"})
    poll(lambda: wired(a, c))
    lab.ip("link", "set", "dev", "vf", "xdpgeneric", "off")
    running.wait_state("vf", "vg", "connected")


# ---------------------------------------------------------------------- the watcher


def _threads(running: Daemon) -> int:
    return len(list(Path(f"/proc/{running.pid}/task").iterdir()))


def _watch_descriptors(running: Daemon) -> int:
    links = (path.readlink() for path in Path(f"/proc/{running.pid}/fd").iterdir())
    with contextlib.suppress(OSError):
        return sum("inotify" in str(link) for link in links)
    return 99


def test_a_watch_that_dies_is_mended(lab: Lab, daemon: Start) -> None:
    """The directory is moved, deleted and made again, another put in its place: all edits count."""
    a, b, c = lab.veths("va", "vb", "vc")
    running = daemon(PAIR)
    folder = running.config.parent
    for n, how in enumerate(("moved", "deleted", "replaced")):
        aside = folder.with_name(f"old{n}")
        if how == "deleted":
            run("rm", "-r", str(folder))
        else:
            folder.rename(aside)
        if how == "replaced":
            (folder.with_name("fresh")).mkdir()
            (folder.with_name("fresh") / running.config.name).write_text("links: [\n")
            folder.with_name("fresh").rename(folder)
        else:
            folder.mkdir()
        for wiring, there, gone in ((OTHER, c, b), (PAIR, b, c)):
            running.write_in_place(wiring)
            poll(lambda: wired(a, there), what=f"{how}: {wiring}")  # noqa: B023
            assert cut(a, gone)
    poll(lambda: _watch_descriptors(running) <= 2, what="no more watches than one needs")
    poll(lambda: _threads(running) < 10, what="no threads that pile up")
    running.stop()


# ---------------------------------------------------------------------- flapping


def test_flapping_is_noticed_and_held_off(lab: Lab, shared: Start) -> None:
    """Somebody sets the MTU back each time we set it: it is named, forwarding goes on."""
    a, b, c, d = lab.veths("va", "vb", "vc", "vd")
    running = shared(PAIR | {"vc": "vd"})
    over = threading.Event()

    def meddle() -> None:
        while not over.wait(0.1):
            if lab.link("va")["mtu"] != 1500:
                lab.ip("link", "set", "va", "mtu", "1500")

    meddler = threading.Thread(target=meddle)
    with Stream(a, b) as stream, Stream(c, d, rate=500) as other:
        poll(stream.flows)
        meddler.start()
        try:
            event = running.wait_event("drift.flapping")
            assert "va" in event["link"]
            assert "somebody else" in event["reason"]
            told = datetime.fromisoformat(event["timestamp"])
            holds(lambda: wired(a, b), 1.5, 0.3)
            times = [
                datetime.fromisoformat(x["timestamp"]) for x in running.events("drift.repaired")
            ]
            assert len(times) > 5
            assert max(times) <= told, "no hold-off"
            assert running.link("va", "vb")["state"] == "connected"
            lab.ip("link", "set", "va", "xdpgeneric", "off")
            poll(lambda: wired(a, b), 5, "a program that is off is put on all the same")
        finally:
            over.set()
            meddler.join()
    other.assert_perfect()


# ---------------------------------------------------------------------- many days


NOW_AND_THEN = "unreported"
"""A file of the state that is made when a pass first meets an interface that is just going."""


def _figures(lab: Lab, running: Daemon) -> dict[str, int]:
    return {
        "fds": len(list(Path(f"/proc/{running.pid}/fd").iterdir())),
        "threads": _threads(running),
        "entries": len(_entries(lab)),
        "records": sum(x.is_file() and x.name != NOW_AND_THEN for x in running.state.rglob("*")),
        "pins": sum(1 for _ in lab.pins.rglob("*")),
        "filters": len(lab.tc("filter", "show", "dev", "va", "egress", check=False).splitlines()),
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
    texts = [
        document({"va": "vb", "vd": "ve"}),
        "links:\n  va: vb\n  vc: {to: vd, enabled: false}\n",
        "links:\n  va: [\n",
        document({"va": "vb", "ve": "vf", "vc": "nosuch"}),
        document({"va": "vb", "vc": "vd"}),
    ]
    running = daemon(texts[-1])

    def reload(n: int) -> None:
        running.write(texts[n % len(texts)])
        running.ask("reload", "control", timeout=20)

    with Stream(a, b, rate=200) as stream:
        poll(stream.flows)
        _leave_no_trace(lab, running, reload, RELOADS, min(RELOADS // 4, 500))
    stream.assert_perfect()
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

    with Stream(a, b, rate=200) as stream:
        poll(stream.flows)
        _leave_no_trace(lab, running, come_and_go, max(40, RELOADS // 10), 10)
    stream.assert_perfect()
    running.stop()
