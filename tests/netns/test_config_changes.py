"""The file and the world change under a real daemon: inotify, netlink, signals and frames.

What the daemon makes of each change is shown in ``tests/unit/test_daemon.py``.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from .lab import REPO, Lab, poll, run
from .service import PAIR, Start, document
from .traffic import ALIVE, cut, lossless, transfer, wired

SECOND = {"va": "vc"}


def _rename(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_text(text)
    fresh.rename(path)


def _vim(path: Path, text: str) -> None:
    backup = path.with_name(f"{path.name}~")
    path.rename(backup)
    path.write_text(text)
    backup.unlink()


def _delete_and_create(path: Path, text: str) -> None:
    path.unlink()
    time.sleep(0.3)
    path.write_text(text)


SAVERS = [Path.write_text, _rename, _vim, _delete_and_create]


def test_every_way_of_saving_works_again_and_again(lab: Lab, shared: Start) -> None:
    """A link that nobody touches loses no frame, and has names that YAML takes for others."""
    a, b, c, d, e = lab.veths("va", "vb", "vc", "no", "12")
    untouched = {"no": "12"}
    running = shared(PAIR | untouched)
    with lossless(d, e):
        for save in SAVERS:
            for goal, there, gone in ((SECOND, c, b), (PAIR, b, c)):
                save(running.config, document(goal | untouched))
                poll(lambda there=there: wired(a, there), what=save.__name__)  # type: ignore[misc]
                assert cut(a, gone)
    running.assert_no_traceback()


def test_a_refused_file_costs_no_frame_and_is_read_again(lab: Lab, shared: Start) -> None:
    a, b, c = lab.veths("va", "vb", "vc")
    running = shared(PAIR)
    with lossless(a, b):
        running.write("links:\n  va: vb\n  vc: vb\n  vd: v/e\n")
        running.wait_event("config.rejected")
        since = running.mark()
        running.signal(signal.SIGHUP)
        problems = str(running.wait_event("config.rejected", since=since)["problems"])
        checked = running.cli("check", str(running.config))
        for line in ("3:7", "4:7"):
            assert f"{running.config}:{line}: " in problems
            assert f"{running.config}:{line}: " in checked.stdout
        assert checked.returncode == 78
        assert running.ask("status")["config"]["state"] == "rejected"
        assert running.link()["state"] == "connected"
    running.write_in_place(SECOND)
    poll(lambda: wired(a, c))


def test_an_interface_comes_goes_and_is_another(lab: Lab, shared: Start) -> None:
    """It is made, deleted and made again, renamed, and moved; the next link loses no frame."""
    a, c, d = lab.veths("va", "vc", "vd")
    running = shared(PAIR | {"vc": "vd"})
    assert "vb does not exist" in running.link()["reason"]
    assert lab.xdp("va"), "held, and silent"
    with lossless(c, d):
        b = lab.veth("vb")
        poll(lambda: wired(a, b), what="made")
        for _ in range(3):  # in an instant, as a container does that restarts
            again = f"link add vb type veth peer name eth0 netns {b.namespace}"
            lab.batch(["link delete vb", again, "link set vb up"])
            b.ip("link set eth0 up")
            poll(lambda: wired(a, b), what="made again")
        for name, new in (("vb", "veth1234"), ("veth1234", "vb")):
            lab.ip(f"link set {name} down")
            lab.ip(f"link set {name} name {new}")
            running.wait_state("va", "vb", "connected" if new == "vb" else "waiting")
        lab.move(a.namespace, "vb")
        running.wait_state("va", "vb", "waiting")
        lab.bring_back(a.namespace, "vb")
        poll(lambda: wired(a, b), what="moved back")


def test_big_interface_numbers(lab: Lab, shared: Start) -> None:
    numbers = {"va": 1024, "vb": 1031, "vc": 2_000_000, "vd": 2_000_007}
    stations = [lab.veth(name, n, index=numbers[name]) for n, name in enumerate(numbers, 1)]
    for mode in ("auto", "tc"):
        shared(f"defaults: {{mode: {mode}}}\nlinks: {{va: vb, vc: vd}}\n")
        for a, b in (stations[:2], stations[2:]):
            assert lab.ifindex(a.end) == numbers[a.end]
            assert wired(a, b), (mode, a.end)
        assert transfer(stations[2], stations[3], size=8 << 20) > ALIVE


WITHOUT_INSTANCES = """
import pathlib, sys
limit = pathlib.Path("/proc/sys/user/max_inotify_instances")
limit.write_text("0")
from xconnectd.config.watcher import ConfigWatch
watch = ConfigWatch(pathlib.Path(sys.argv[1]), print)
watch.start()
print(watch.problem)
limit.write_text("9")
watch.check()
print(watch.problem or "mended")
watch.stop()
"""


def test_out_of_inotify_instances_the_watch_says_what_to_do(tmp_path: Path) -> None:
    """They are counted by user namespace, too: one of its own harms nobody else."""
    own = ("unshare", "--user", "--map-root-user", "--mount-proc", "--fork", "--pid")
    told = run(*own, sys.executable, "-c", WITHOUT_INSTANCES, str(tmp_path), cwd=REPO).stdout
    problem, mended = told.splitlines()
    assert problem.endswith(": raise fs.inotify.max_user_instances"), told
    assert mended == "mended"
