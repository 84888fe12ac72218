"""What clients do with a running daemon: try, reload, events, looking without root.

The rules of all this are shown in ``tests/unit/test_daemon.py`` and ``test_commands.py``; here are
processes with signals, terminals, users and mounts of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess

import pytest

from .lab import PATIENCE, Lab, Station, in_public, poll, run
from .service import PAIR, Daemon, Start, document
from .terminal import Attempt
from .traffic import cut, lossless, wired

DRAFT = {"va": "vc", "vd": "ve"}
Bench = tuple[Daemon, list[Station]]
STRANGER = 54321
"""A user and a group that nobody is in."""


@pytest.fixture
def bench(lab: Lab, shared: Start) -> Bench:
    """A daemon with va:vb and vd:ve, and the five stations."""
    stations = lab.veths("va", "vb", "vc", "vd", "ve")
    return shared(PAIR | {"vd": "ve"}), stations


def test_a_try_that_is_confirmed_on_a_terminal_stays_and_is_the_file(bench: Bench) -> None:
    """Of the same owner and mode as before; also for the next daemon."""
    running, (a, b, c, d, e) = bench
    os.chown(running.config, STRANGER, STRANGER)
    running.config.chmod(0o640)
    before = running.config.read_text()
    with lossless(d, e):
        attempt = Attempt(running, DRAFT)
        assert wired(a, c)
        assert cut(a, b)
        assert running.config.read_text() == before, "nothing is written before the answer"
        tested = running.cli("test", "va:vc", "--count", "1")
        assert tested.returncode == 0, tested.stdout + tested.stderr
        assert running.cli("doctor", "--json").stdout.count('"fail"') == 0
        assert attempt.answer("y\n") == 0, attempt.read()
        file = running.config.stat()
        assert (file.st_uid, file.st_gid, file.st_mode & 0o7777) == (STRANGER, STRANGER, 0o640)
        assert running.config.read_text() == document(DRAFT)
        assert running.ask("status")["config"]["state"] == "loaded"
        assert [x.name for x in running.config.parent.iterdir()] == [running.config.name]
        running.crash()
        assert wired(a, c)


def test_a_try_ends_with_its_client(bench: Bench) -> None:
    """By a signal, or as its window is closed."""
    running, (a, b, c, *_) = bench
    before = running.config.read_text()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, None):
        since, attempt = running.mark(), Attempt(running, DRAFT)
        assert wired(a, c)
        attempt.process.send_signal(number) if number else attempt.hang_up()
        assert attempt.wait() != 0
        assert number is None or "Traceback" not in attempt.read()
        reverted = running.wait_event("try.reverted", since=since)
        assert reverted["reason"] == "not confirmed"
        poll(lambda: wired(a, b))
        assert running.config.read_text() == before


@pytest.mark.parametrize("read_only", [False, True], ids=["", "in a read-only directory"])
def test_a_bind_mounted_file_is_kept_in_place(bench: Bench, read_only: bool) -> None:
    """As in a container with a single file: nothing can be renamed over a mount."""
    running, (a, b, c, *_) = bench
    outside = running.lab.directory / "outside.yaml"
    outside.write_text(running.config.read_text())
    mounts = [(outside, running.config, "rw")]
    if read_only:
        mounts.insert(0, (running.config.parent, running.config.parent, "ro"))
    with contextlib.ExitStack() as undo:
        for source, target, how in mounts:
            run("mount", "--bind", "-o", how, str(source), str(target))
            undo.callback(run, "umount", "-l", str(target))
        assert os.statvfs(running.config.parent).f_flag & os.ST_RDONLY == read_only
        assert Attempt(running, DRAFT).answer("y\n") == 0
        assert outside.read_text() == document(DRAFT)
        assert running.ask("status")["config"]["state"] == "loaded"
        assert wired(a, c)
        assert cut(a, b)
        assert [x.name for x in running.config.parent.iterdir()] == [running.config.name]


def _as_member(running: Daemon, *args: str) -> list[str]:
    """A command as somebody who is not root, and is in the group that the socket belongs to."""
    enter, net, *command = running._command(*args)
    drop = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", f"--groups={STRANGER}"]
    return [enter, net, *in_public(*drop, "--inh-caps=-all", "--bounding-set=-all", *command)]


def test_who_may_use_which_socket(bench: Bench) -> None:
    """And what those are told who may not."""
    running, _ = bench
    control, looking = running.socket_path("control"), running.socket_path("status")
    assert (control.stat().st_mode & 0o7777, control.stat().st_uid) == (0o600, 0)
    assert looking.stat().st_mode & 0o7777 == 0o660
    group = run("getent", "group", "xconnectd", check=False).stdout
    assert looking.stat().st_gid == (int(group.split(":")[2]) if group else 0)

    def member(*args: str) -> subprocess.CompletedProcess[str]:
        surroundings = running._surroundings() | {"capture_output": True, "text": True}
        return subprocess.run(_as_member(running, *args), **surroundings, timeout=PATIENCE)

    assert "only root and group xconnectd may connect" in member("status").stderr
    os.chown(looking, -1, STRANGER)
    try:
        shown = member("status", "--json", "--check")
        assert shown.returncode == 0, shown.stderr
        assert [x["state"] for x in json.loads(shown.stdout)["links"]] == ["connected"] * 2
        assert member("wait", "--timeout", "0", "nosuch").returncode == 1
        for command in (("reload",), ("try", "config/xconnect.yaml")):
            refused = member(*command)
            assert "control.sock: only root may: sudo xconnectd …" in refused.stderr
        assert "only root may: sudo xconnectd detach --all" in member("detach", "--all").stderr
        with subprocess.Popen(
            _as_member(running, "events", "--json"),
            **running._surroundings(),
            stdout=subprocess.PIPE,
            text=True,
        ) as listener:
            assert listener.stdout is not None
            os.set_blocking(listener.stdout.fileno(), False)

            def heard() -> str:
                running.signal(signal.SIGHUP)
                return listener.stdout.readline() if listener.stdout else ""

            assert json.loads(poll(heard, interval=0.1))["event"]
            listener.kill()
    finally:
        os.chown(looking, -1, 0)
    running.kill()
    assert looking.exists(), "the dead daemon's, closed to strangers"
    for name in ("status", "reload"):
        done = member(name)
        way_out = "; the wires can be seen without it: sudo xconnectd status\n"
        assert done.stderr == f"xconnectd: no daemon runs in this network namespace{way_out}"
        assert done.returncode == 1
