"""Files that hang, are none, or lead where they should not: each costs only itself."""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .lab import Lab, poll
from .service import Folder, Start, document
from .terminal import Attempt
from .traffic import wired

FIRST = {"va": "vb"}
SECOND = {"va": "vc"}
LAB = 64_001
MNT_DETACH = 2


@contextlib.contextmanager
def dead_server(lab: Lab) -> Iterator[Path]:
    """A mount of FUSE whose server never answers, not even to the mount itself (fuse(4))."""
    libc = ctypes.CDLL(None, use_errno=True)
    mount = Path(tempfile.mkdtemp(dir=lab.directory))
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        assert libc.mount(b"dead", os.fsencode(mount), b"fuse.dead", 0, options) == 0, os.strerror(
            ctypes.get_errno()
        )
        yield mount
    finally:
        libc.umount2(os.fsencode(mount), MNT_DETACH)
        os.close(device)  # whoever waits gets ENOTCONN


def test_a_file_that_hangs_or_is_none_costs_only_itself(lab: Lab) -> None:
    """One that begins to hang keeps its links; hung at the start, it is read when it can be."""
    a, b, c, d, e = lab.veths("va", "vb", "vc", "vd", "ve")
    running = Folder(lab, {"one.yaml": FIRST, "two.yaml": {"vd": "ve"}})
    for name, target in {"kmsg.yaml": "/proc/kmsg", "zero.yaml": "/dev/zero"}.items():
        (running.config / name).symlink_to(target)
    running.start()
    good = {"one.yaml": "loaded", "two.yaml": "loaded"}
    bad = {"kmsg.yaml": "rejected", "zero.yaml": "rejected"}
    assert running.files() == good | bad
    two = running.config / "two.yaml"
    with dead_server(lab) as dead:
        fresh = running.config / ".fresh"
        fresh.symlink_to(dead / "two.yaml")
        fresh.rename(two)
        told = running.wait_event("config.unreachable", path=str(two))
        assert f"the file system at {dead} does not answer" in told["problems"][0]
        running.put("one.yaml", SECOND)
        poll(lambda: wired(a, c))
        assert wired(d, e)
        assert not wired(a, b)
        running.stop()
        running.start()
        assert wired(a, c)
        assert running.files() == good | bad | {"two.yaml": "rejected"}
        checked = running.cli("check", str(running.config))
        assert (checked.returncode, checked.stderr) == (78, "")
        for problem in (
            "kmsg.yaml:1:1: is procfs, not a file",
            "zero.yaml:1:1: is a device, not a",
        ):
            assert problem in checked.stdout
    (dead / "two.yaml").write_text(document({"vd": "ve"}))
    poll(lambda: wired(d, e), what="the file that can be read again")
    assert running.files() == good | bad
    running.stop()


def test_a_try_is_not_written_through_a_link_of_somebody_else(lab: Lab, daemon: Start) -> None:
    """Whoever owns the directory points the file's name to what only root may write."""
    a, _, c = lab.veths("va", "vb", "vc")
    running = daemon(FIRST)
    secret = lab.directory / "secret"
    secret.write_text("the_secret: 1\n")
    secret.chmod(0o600)
    os.chown(running.config.parent, LAB, LAB)
    attempt = Attempt(running, SECOND)
    assert wired(a, c)
    running.config.unlink()
    running.config.symlink_to(secret)
    os.chown(running.config, LAB, LAB, follow_symlinks=False)
    assert attempt.answer("y\n") != 0
    assert secret.read_text() == "the_secret: 1\n"
    assert "the symlink" in attempt.read()
    running.wait_event("config.rejected")
    assert "the_secret" not in running.text()
    assert "the_secret" not in running.cli("check", str(running.config)).stdout


def test_nodes_that_are_away_are_named(lab: Lab, daemon: Start) -> None:
    """Each once, where it is named first; what is missing in a node is made, so it is no loss."""
    there, gone = lab.namespace("there"), f"{lab.name}-gone"
    running = daemon({})
    draft = lab.directory / "draft.yaml"
    draft.write_text(document({f"{there}:e0": f"{gone}:e0", f"{there}:e1": f"{gone}:e1"}))
    here = running.cli("check", "--here", str(draft))
    place = f"{draft}:2:3: node {gone} is not running: there is no /run/netns/{gone}"
    (told,) = here.stdout.splitlines()[1:]
    assert (here.returncode, told.startswith(place)) == (1, True)
    draft.write_text(document({f"{there}:e0": f"{there}:e1"}))
    assert running.cli("check", "--here", str(draft)).returncode == 0


def test_a_misspelt_interface_is_told_from_one_that_is_away(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("x5-eth1")
    running = daemon({"va": "x5-eth1"})
    assert wired(a, b)
    meant = "x5-eht1 does not exist; did you mean x5-eth1?"
    draft = lab.directory / "draft.yaml"
    draft.write_text(document({"va": "x5-eht1"}))
    planned = running.cli("plan", str(draft))
    assert (planned.returncode, meant in planned.stderr) == (10, True)
    here = running.cli("check", "--here", str(draft))
    place = f"{draft}:2:3: x5-eht1 does not exist here now (did you mean x5-eth1?)"
    assert (here.returncode, here.stdout.splitlines()[1:]) == (1, [place])
    assert running.cli("check", "--here", str(running.config)).returncode == 0
    attempt = Attempt(running, {"va": "x5-eht1"})
    assert meant in attempt.read()
    assert attempt.answer("n\n") == 1
    poll(lambda: wired(a, b), what="the way back")  # else the file would be what stands
    since = running.mark()
    running.write({"va": "x5-eht1"})
    assert running.wait_link("waiting", "va", "x5-eht1", since=since)["reason"] == meant
    assert running.status()["links"][0]["reason"] == meant
    running.write({"va": "x5-eth1"})
    poll(lambda: wired(a, b))
    since = running.mark()
    lab.veth("x5-eth2")
    lab.delete("x5-eth1")
    told = running.wait_link("waiting", "va", "x5-eth1", since=since)
    assert told["reason"] == "x5-eth1 does not exist"
