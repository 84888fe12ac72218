"""One daemon a namespace, whatever others do: strangers with its name, daemons in other mounts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .lab import NETNS, Lab, Station, poll, run
from .service import NOBODY, PAIR, Daemon, Start
from .traffic import lossless, wired

PRIVATE = ("unshare", "--mount", "sh", "-c", 'umount /sys/fs/bpf; exec "$@"', "sh")
"""As below ``ip netns exec``, or in a container: the pins are others."""

TAKE_THE_NAME = """
import socket, sys, time
name = socket.socket(socket.AF_UNIX)
while True:
    try:
        name.bind("\\0xconnectd")
        break
    except OSError:
        time.sleep(0.0005)
name.listen(64)
print("taken", flush=True)
sys.stdin.read()
"""


@contextmanager
def stranger(lab: Lab) -> Iterator[subprocess.Popen[str]]:
    """A user without rights, who takes the daemon's name as soon as it is free."""
    enter = ["nsenter", f"--net={NETNS / lab.host}"]
    with subprocess.Popen(
        [*enter, *NOBODY, "/usr/bin/python3", "-Ic", TAKE_THE_NAME],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def taken(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"


@pytest.fixture
def ends(lab: Lab) -> list[Station]:
    return lab.veths("va", "vb")


def test_the_name_in_other_hands_keeps_nobody_from_starting(lab: Lab, ends: list[Station]) -> None:
    """Neither the first start, nor the one after a crash; nor a detach."""
    running = Daemon(lab, PAIR)
    with stranger(lab) as process:
        taken(process)
        running.start()
        assert wired(*ends)
        assert running.status()["daemon"]["pid"] == running.pid
        second = Daemon(lab, PAIR, name="second").spawn()
        assert second.wait() == 3
        assert f"pid {running.pid}" in second.text()
        running.kill()
        mend = running.cli("doctor").stdout
        assert "daemon: none runs in this network namespace" in mend
        assert str(process.pid) not in mend
        running.start()
        assert wired(*ends)
        running.kill()
        done = running.cli("detach", "--all")
        assert done.returncode == 0, done.stderr
    assert not lab.pins.exists()


def test_the_name_is_lost_in_a_crash_and_comes_back(lab: Lab, daemon: Start) -> None:
    running = daemon(PAIR)
    with stranger(lab) as process:
        running.kill()
        taken(process)
        running.start()
    # who may not ask is to hear that a daemon runs
    names_it = lambda: "only root may" in running.cli("reload", by=NOBODY).stderr  # noqa: E731
    poll(names_it, interval=0.2)


def test_the_records_are_held_where_the_pins_are_others(lab: Lab, ends: list[Station]) -> None:
    """As below ``ip netns exec``, which hides the pins. The records call our programs its own."""
    running = Daemon(lab, PAIR).start()
    with stranger(lab) as process, lossless(*ends):
        for name in ("named", "nameless"):
            if name == "nameless":
                running.kill()
                taken(process)
                running.start()
            second = Daemon(lab, PAIR, name=name, through=PRIVATE).spawn()
            assert second.wait() == 3, second.text()
            told = f"a daemon runs already in this network namespace, pid {running.pid}"
            assert told in second.text()
    running.stop()


def test_a_daemon_that_shares_nothing_finds_foreign_programs(lab: Lab, ends: list[Station]) -> None:
    """In a container with a BPF filesystem and a /run of its own; it can tell by the name alone."""
    first = Daemon(lab, PAIR).start()
    second = Daemon(lab, PAIR, name="second", through=PRIVATE)
    second.state = lab.directory / "own"
    assert second.spawn().wait() == 3
    assert f"pid {first.pid}" in second.text()
    with stranger(lab) as process, lossless(*ends):
        first.kill()
        taken(process)
        first.start()
        second.start()
        failed = second.wait_link("failed", "va", "vb")
        assert "program" in failed["reason"]
        second.stop()
        assert wired(*ends)
    first.stop()


def test_a_strangers_directory_is_set_aside(
    lab: Lab, ends: list[Station], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A BPF filesystem that was mounted without options lets anybody make one."""
    bpffs = tmp_path / "bpf"
    bpffs.mkdir()
    run("mount", "-t", "bpf", "bpf", str(bpffs))
    try:
        place = bpffs / "xconnectd"
        place.mkdir()
        (place / str(lab.cookie)).mkdir()
        for path in (place, place / str(lab.cookie)):
            os.chown(path, 65534, 65534)
        monkeypatch.setenv("XCONNECTD_PINS", str(place))
        running = Daemon(lab, PAIR).start()
        assert wired(*ends)
        assert place.stat().st_uid == 0
        assert place.stat().st_mode & 0o077 == 0
        running.stop()
        assert len(list(bpffs.glob("xconnectd-of-uid-65534-*"))) == 1
    finally:
        run("umount", "--lazy", str(bpffs))
