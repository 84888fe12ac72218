"""What clients do with a running daemon: try, reload, events, looking without root; many files."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

import pytest

from .lab import PATIENCE, Lab, Station, holds, in_public, poll, run
from .service import Daemon, Event, Wiring, document
from .test_config_changes import cut, wired
from .traffic import Stream

Start = Callable[..., Daemon]
FIRST = {"va": "vb"}
SECOND = {"va": "vc"}
STRANGER = 54321
"""A user and a group that nobody is in."""


class Attempt:
    """``xconnectd try`` as somebody types it, with a pipe or a terminal to answer by."""

    def __init__(
        self,
        running: Daemon,
        wiring: Wiring,
        *options: str,
        timeout: int = 300,
        terminal: bool = False,
        name: str = "draft.yaml",
    ) -> None:
        self.file = running.lab.directory / name
        self.file.write_text(document(wiring))
        self._output = running.lab.directory / f"try-{name}-{time.monotonic_ns()}.log"
        command = running._command("try", str(self.file), "--timeout", str(timeout), *options)
        self._master = -1
        with self._output.open("wb") as output:
            more: dict[str, Any] = {"stdin": subprocess.PIPE}
            if terminal:
                self._master, slave = pty.openpty()
                more = {"stdin": slave, "start_new_session": True}
                command = ["setsid", "--ctty", "--wait", *command]
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, **running._surroundings(), **more
            )
            if terminal:
                os.close(slave)
        running.lab.on_close(self._end)

    def asks(self) -> Self:
        """Wait until it has asked."""

        def look() -> bool:
            assert self.process.poll() is None, self.text()
            return "Keep this wiring" in self.text()

        poll(look, what="the question")
        return self

    def answer(self, text: str) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()
        return self.wait()

    def hang_up(self) -> None:
        os.close(self._master)
        self._master = -1

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def text(self) -> str:
        return self._output.read_text()

    def _end(self) -> None:
        if self._master >= 0:
            self.hang_up()
        if self.process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


@pytest.fixture
def bench(lab: Lab, daemon: Start) -> tuple[Daemon, list[Station]]:
    """A daemon with va:vb and vd:ve, and the five stations."""
    stations = [lab.veth(end) for end in ("va", "vb", "vc", "vd", "ve")]
    running = daemon(FIRST | {"vd": "ve"})
    running.wait_link("connected", "vd", "ve")
    return running, stations


DRAFT = SECOND | {"vd": "ve"}


# ---------------------------------------------------------------------- try


def test_a_try_that_is_confirmed_stays_and_is_the_file(
    bench: tuple[Daemon, list[Station]],
) -> None:
    running, (a, b, c, d, e) = bench
    os.chown(running.config, STRANGER, STRANGER)
    running.config.chmod(0o640)
    before = running.config.read_text()
    with Stream(d, e) as stream:
        poll(stream.flows)
        attempt = Attempt(running, DRAFT).asks()
        poll(lambda: wired(a, c))
        assert cut(a, b)
        assert running.config.read_text() == before, "nothing is written before the answer"
        assert attempt.answer("y\n") == 0, attempt.text()
        assert running.config.read_text() == document(DRAFT)
        file = running.config.stat()
        assert (file.st_uid, file.st_gid, file.st_mode & 0o7777) == (STRANGER, STRANGER, 0o640)
        assert wired(a, c)
        assert running.status()["config"]["state"] == "loaded"
        assert [x.name for x in running.config.parent.iterdir()] == [running.config.name]
        running.kill()
        running.start()
        assert wired(a, c)
    stream.assert_perfect()
    running.assert_no_traceback()


def _no(attempt: Attempt) -> int:
    return attempt.answer("n\n")


def _nothing(attempt: Attempt) -> int:
    return attempt.answer("\n")


def _end_of_input(attempt: Attempt) -> int:
    assert attempt.process.stdin is not None
    attempt.process.stdin.close()
    return attempt.wait()


def _in_time(attempt: Attempt) -> int:
    return attempt.wait()


def _interrupt(attempt: Attempt) -> int:
    attempt.process.send_signal(signal.SIGINT)
    return attempt.wait()


def _terminate(attempt: Attempt) -> int:
    attempt.process.send_signal(signal.SIGTERM)
    return attempt.wait()


def _kill(attempt: Attempt) -> int:
    attempt.process.kill()
    return attempt.wait()


def _lose_the_terminal(attempt: Attempt) -> int:
    attempt.hang_up()
    return attempt.wait()


@pytest.mark.parametrize(
    "end",
    [_no, _nothing, _end_of_input, _in_time, _interrupt, _terminate, _kill, _lose_the_terminal],
    ids=lambda x: x.__name__.strip("_"),
)
def test_a_try_that_is_not_confirmed_goes_back(
    bench: tuple[Daemon, list[Station]], end: Callable[[Attempt], int]
) -> None:
    running, (a, b, c, d, e) = bench
    before = running.config.read_text()
    seconds = 5 if end is _in_time else 300
    with Stream(d, e) as stream:
        poll(stream.flows)
        lost = end is _lose_the_terminal
        attempt = Attempt(running, DRAFT, timeout=seconds, terminal=lost).asks()
        assert wired(a, c)
        assert end(attempt) != 0
        poll(lambda: wired(a, b))
        assert cut(a, c)
    stream.assert_perfect()
    assert running.config.read_text() == before
    assert running.status()["config"]["state"] == "loaded"
    (reverted,) = running.events("try.reverted")
    assert reverted["reason"] == "not confirmed", "whatever way somebody does not confirm"
    assert not running.events("config.deferred")
    assert "Traceback" not in attempt.text()
    assert Attempt(running, DRAFT).asks().answer("y\n") == 0, "the next one is not refused"


def test_where_nobody_can_answer_nothing_is_tried(bench: tuple[Daemon, list[Station]]) -> None:
    running, (a, b, c, *_) = bench
    draft = running.lab.directory / "draft.yaml"
    draft.write_text(document(DRAFT))

    def tried(*more: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        command = running._command("try", str(draft), *more)
        surroundings = running._surroundings()
        return subprocess.run(
            command, **surroundings, input=answer, capture_output=True, text=True, timeout=60
        )

    done = tried()
    assert (done.returncode, done.stdout) == (2, "")
    assert "stdin has ended; --yes keeps it" in done.stderr
    assert not running.events("try.started")
    assert tried(answer="n\n").returncode == 1
    assert wired(a, b)
    assert tried("--yes").returncode == 0
    assert wired(a, c)
    assert running.config.read_text() == document(DRAFT)
    running.write(FIRST | {"vd": "ve"})
    poll(lambda: wired(a, b))
    assert tried(answer="y\n").returncode == 0
    assert wired(a, c)


def test_who_tries_and_listens_and_hangs_up(bench: tuple[Daemon, list[Station]]) -> None:
    """It is found to have gone by an event of its own try, before anything is applied."""
    running, (a, b, c, *_) = bench
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(running.socket_path("control")))
        client.sendall(b'{"do": "events"}\n')
        client.recv(1 << 16)
        running.signal(signal.SIGSTOP)
        request = {"do": "try", "path": "x.yaml", "text": document(DRAFT), "timeout": 60}
        client.sendall(json.dumps(request).encode() + b"\n")
    running.signal(signal.SIGCONT)
    running.wait_event("try.reverted")
    poll(lambda: wired(a, b))
    assert cut(a, c)
    assert Attempt(running, DRAFT).asks().answer("y\n") == 0, "the next one is not refused"


def test_a_try_gets_a_full_answer_from_a_terminal(bench: tuple[Daemon, list[Station]]) -> None:
    running, (a, _, c, *_) = bench
    attempt = Attempt(running, DRAFT, terminal=True).asks()
    os.write(attempt._master, b"y\n")
    assert attempt.wait() == 0, attempt.text()
    assert wired(a, c)
    assert running.config.read_text() == document(DRAFT)


def test_a_bad_file_is_not_tried(bench: tuple[Daemon, list[Station]]) -> None:
    running, (a, b, *_) = bench
    with Stream(a, b) as stream:
        poll(stream.flows)
        attempt = Attempt(running, "links:\n  va: vc\n  vd: vc\n  ve: {to: va, colour: red}\n")
        assert attempt.wait() == 78
        assert f"{attempt.file}:3:" in attempt.text()
        assert f"{attempt.file}:4:" in attempt.text()
    stream.assert_perfect()
    assert running.status()["config"]["state"] == "loaded", "what was refused is no one's file"


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("missing", "1:1: there is no such file (create it"),
        ("directory", "1:1: is a directory, not a file (name the YAML file itself)"),
        ("pipe", "1:1: is a pipe, not a file (name the YAML file itself)"),
        ("binary", "2:1: is not UTF-8 text (save the file as UTF-8)"),
    ],
)
def test_what_is_no_file_to_try_is_refused(lab: Lab, kind: str, problem: str) -> None:
    file = lab.directory / "odd.yaml"
    if kind == "directory":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "binary":
        file.write_bytes(b"links: {}\n\xff\xfe\n")
    done = Daemon(lab, FIRST).cli("try", str(file))
    assert done.returncode == 78, done.stderr
    assert done.stderr.startswith(f"{file}:{problem}")


def test_a_try_without_a_daemon(lab: Lab) -> None:
    running = Daemon(lab, FIRST)
    done = running.cli("try", str(running.config))
    assert done.returncode == 1
    assert "no daemon" in done.stderr


def test_a_second_try_is_refused(bench: tuple[Daemon, list[Station]]) -> None:
    running, (a, b, c, *_) = bench
    first = Attempt(running, DRAFT).asks()
    second = Attempt(running, FIRST, name="other.yaml")
    assert second.wait() == 1
    assert "tried" in second.text()
    assert wired(a, c)
    assert _no(first) == 1
    poll(lambda: wired(a, b))


def test_a_yes_that_comes_too_late_writes_nothing(bench: tuple[Daemon, list[Station]]) -> None:
    """The client is stopped while its time runs out, as a laptop's lid does it."""
    running, (a, b, *_) = bench
    before = running.config.read_text()
    attempt = Attempt(running, DRAFT, timeout=5).asks()
    attempt.process.send_signal(signal.SIGSTOP)
    assert attempt.process.stdin is not None
    attempt.process.stdin.write(b"y\n")
    attempt.process.stdin.flush()
    running.wait_event("try.reverted")
    poll(lambda: wired(a, b))
    attempt.process.send_signal(signal.SIGCONT)
    assert attempt.wait() == 1
    assert running.config.read_text() == before
    assert running.status()["config"]["state"] == "loaded"
    assert wired(a, b)


def test_an_edit_during_a_try_waits_for_its_end(bench: tuple[Daemon, list[Station]]) -> None:
    running, (a, b, c, d, _) = bench
    attempt = Attempt(running, DRAFT).asks()
    running.write({"va": "vd"})
    told = running.wait_event("config.deferred")
    assert "is being tried" in told["reason"]
    assert running.status()["daemon"]["try"]["edited"]
    assert "a file was changed meanwhile" in running.cli("status").stdout
    holds(lambda: wired(a, c), 0.5)
    assert len(running.events("config.deferred")) == 1
    assert _no(attempt) == 1
    poll(lambda: wired(a, d))
    assert cut(a, c)
    assert cut(a, b)


def test_a_reload_ends_a_try(bench: tuple[Daemon, list[Station]]) -> None:
    running, (a, b, *_) = bench
    before = running.config.read_text()
    attempt = Attempt(running, DRAFT).asks()
    assert running.cli("reload").returncode == 0
    poll(lambda: wired(a, b))
    assert attempt.answer("y\n") == 1
    assert running.config.read_text() == before


def test_a_daemon_that_dies_during_a_try_comes_back_with_the_file(
    bench: tuple[Daemon, list[Station]],
) -> None:
    running, (a, b, _, d, e) = bench
    before = running.config.read_text()
    with Stream(d, e) as stream:
        poll(stream.flows)
        attempt = Attempt(running, DRAFT).asks()
        running.kill()
        running.start()
        poll(lambda: wired(a, b))
        assert attempt.answer("y\n") == 1
    stream.assert_perfect()
    assert running.config.read_text() == before


def test_a_file_that_is_kept_is_whole_at_every_moment(
    bench: tuple[Daemon, list[Station]],
) -> None:
    running, _ = bench
    before = running.config.read_text()
    padded = document(DRAFT) + "# padding\n" * 50_000
    attempt = Attempt(running, padded).asks()
    assert attempt.process.stdin is not None
    attempt.process.stdin.write(b"y\n")
    attempt.process.stdin.flush()
    seen = set()
    while attempt.process.poll() is None:
        seen.add(running.config.read_text())
    assert seen <= {before, padded}, "half a file was there"
    assert attempt.wait() == 0
    assert running.config.read_text() == padded


def test_a_file_behind_a_symlink_is_kept_there(bench: tuple[Daemon, list[Station]]) -> None:
    running, (a, _, c, *_) = bench
    real = running.lab.directory / "real.yaml"
    running.config.rename(real)
    running.config.symlink_to(real)
    poll(lambda: running.status()["config"]["state"] == "loaded")
    assert Attempt(running, DRAFT).asks().answer("y\n") == 0
    assert running.config.is_symlink(), "the symlink was the user's way to arrange the files"
    assert real.read_text() == document(DRAFT)
    assert wired(a, c)


@pytest.mark.parametrize("read_only", [False, True], ids=["", "in a read-only directory"])
def test_a_bind_mounted_file_is_kept_in_place(
    bench: tuple[Daemon, list[Station]], read_only: bool
) -> None:
    """As in a container with a single file: nothing can be renamed over a mount."""
    running, (a, b, c, *_) = bench
    outside = running.lab.directory / "outside.yaml"
    outside.write_text(running.config.read_text())
    mounts = [(outside, running.config, "rw")]
    if read_only:
        mounts.insert(0, (running.config.parent, running.config.parent, "ro"))
    for source, target, how in mounts:
        run("mount", "--bind", "-o", how, str(source), str(target))
        running.lab.on_close(partial(run, "umount", "-l", str(target)))
    assert os.statvfs(running.config.parent).f_flag & os.ST_RDONLY == read_only
    assert Attempt(running, DRAFT).asks().answer("y\n") == 0
    assert outside.read_text() == document(DRAFT)
    assert running.status()["config"]["state"] == "loaded"
    assert wired(a, c)
    assert cut(a, b)
    assert [x.name for x in running.config.parent.iterdir()] == [running.config.name]


# ---------------------------------------------------------------------- reload, status


def test_reload_waits_for_its_outcome(bench: tuple[Daemon, list[Station]]) -> None:
    running, (a, _, c, *_) = bench
    running.write(DRAFT)
    done = running.cli("reload")
    assert done.returncode == 0, done.stderr
    assert "2 connected" in done.stdout
    assert wired(a, c)
    running.write("links:\n  va: vb\n  va: vc\n")
    done = running.cli("reload")
    assert done.returncode == 78
    assert f"{running.config}:3:3: " in done.stdout
    assert wired(a, c)
    running.write(DRAFT)
    assert running.cli("reload").returncode == 0
    running.stop()
    done = running.cli("reload")
    assert done.returncode == 1
    assert "no daemon" in done.stderr


def test_status_tells_what_only_the_daemon_knows(bench: tuple[Daemon, list[Station]]) -> None:
    running, _ = bench
    first = running.status()["daemon"]
    assert first["pid"] == running.pid
    assert first["uptime_s"] >= 0
    assert first["last_error"] == ""
    assert abs(first["last_reload"] - time.time()) < 60
    running.write("links: [\n")
    running.wait_event("config.rejected")
    second = running.status()["daemon"]
    assert "config.rejected" in second["last_error"]
    assert second["uptime_s"] > first["uptime_s"]
    running.write(DRAFT)
    running.wait_link("connected", "va", "vc")
    assert running.status()["daemon"]["last_reload"] > first["last_reload"]
    running.kill()
    assert running.status()["daemon"] == {"running": False, "pid": None, "answers": False}


def test_status_tells_when_a_failed_link_is_tried_again(lab: Lab, daemon: Start) -> None:
    lab.veth("va"), lab.veth("vb")
    lab.foreign_xdp("vb")
    running = daemon(FIRST)
    link = running.wait_state("va", "vb", "failed")
    assert 0 <= link["retry_in_s"] <= 60


# ---------------------------------------------------------------------- events


def _awaken(running: Daemon, heard: Callable[[], object]) -> None:
    """Make events, one after the other, until a client that has just been started heard one."""

    def call() -> object:
        running.signal(signal.SIGHUP)
        return heard()

    poll(call, what="a listener", interval=0.1)


def _readable(file: IO[str] | None) -> bool:
    return bool(select.select([file], [], [], 0)[0])


@contextlib.contextmanager
def _listening(running: Daemon, *args: str) -> Iterator[Callable[[], list[str]]]:
    """``xconnectd events``; yields what it has printed so far, line by line."""
    path = running.lab.directory / f"events{time.monotonic_ns()}"
    with path.open("wb") as output:
        process = subprocess.Popen(
            running._command("events", *args),
            **running._surroundings(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def lines() -> list[str]:
        return path.read_text().splitlines()

    try:
        _awaken(running, lines)
        yield lines
    finally:
        process.kill()
        process.wait(10)


def _of_links(events: Iterable[Event]) -> list[Event]:
    return [x for x in events if x["event"].startswith("link.")]


def test_events_are_one_line_of_json_each(bench: tuple[Daemon, list[Station]]) -> None:
    running, _ = bench
    with _listening(running, "--json") as lines, _listening(running) as plain:
        running.write(DRAFT)
        running.wait_link("connected", "va", "vc")
        running.write(FIRST)
        running.wait_link("disconnected", "vd", "ve")
        logged = _of_links(running.events())
        poll(lambda: _of_links(map(json.loads, lines()))[-1:] == logged[-1:], what="the last one")
        poll(lambda: any("link.disconnected" in line for line in plain()))
        changes = _of_links(map(json.loads, lines()))
    about = [(x["event"], {x["a"], x["b"]}) for x in changes]
    assert about.count(("link.disconnected", {"vd", "ve"})) == 1
    assert len([x for x in about if x[1] == {"va", "vc"} and x[0] != "link.disconnected"]) == 1
    assert {"link", "a_ifindex", "b_ifindex", "mode", "trigger", "timestamp"} <= set(changes[0])
    assert changes == logged[-len(changes) :], "the same as the log"


def test_events_end_with_the_daemon(bench: tuple[Daemon, list[Station]]) -> None:
    running, _ = bench
    listener = subprocess.Popen(
        running._command("events", "--json"),
        **running._surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _awaken(running, lambda: _readable(listener.stdout))
    running.stop()
    output, complaint = listener.communicate(timeout=PATIENCE)
    assert listener.returncode == 1
    assert [json.loads(line)["event"] for line in output.splitlines()][-1] == "daemon.stopped"
    assert "daemon" in complaint
    assert "Traceback" not in complaint


def test_a_reader_of_events_that_has_seen_enough(bench: tuple[Daemon, list[Station]]) -> None:
    running, _ = bench
    listener = subprocess.Popen(
        running._command("events"),
        **running._surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with listener:
        assert listener.stdout is not None
        assert listener.stderr is not None
        _awaken(running, lambda: _readable(listener.stdout))
        assert listener.stdout.readline()
        listener.stdout.close()
        running.write(FIRST)
        assert listener.stderr.read() == ""
    assert listener.returncode == 0


def test_a_slow_reader_of_events_harms_nobody(lab: Lab, daemon: Start) -> None:
    a, b = lab.veth("va"), lab.veth("vb")
    running = daemon(FIRST)
    running.wait_link("connected", "va", "vb")
    slow = socket.socket(socket.AF_UNIX)
    slow.connect(str(running.socket_path()))
    slow.sendall(b'{"do": "events"}\n')
    with Stream(a, b) as stream, _listening(running, "--json") as lines:
        poll(stream.flows)
        memory = running.rss()
        for n in range(40):
            since = running.mark()
            running.write(FIRST | {f"x{n}no{k}": f"y{n}no{k}" for k in range(100)})
            running.wait_event("config.loaded", since=since)
        poll(lambda: any("x39no99" in line for line in lines()))
        assert running.rss() - memory < 16 << 20
    stream.assert_perfect()
    slow.close()
    running.stop()


# ---------------------------------------------------------------------- the sockets


def _as_member(running: Daemon, *args: str) -> subprocess.CompletedProcess[str]:
    """A command as somebody who is not root, and is in the group that the socket belongs to."""
    enter, net, *command = running._command(*args)
    drop = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", f"--groups={STRANGER}"]
    return subprocess.run(
        [enter, net, *in_public(*drop, "--inh-caps=-all", "--bounding-set=-all", *command)],
        **running._surroundings(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_who_may_use_which_socket(bench: tuple[Daemon, list[Station]]) -> None:
    running, _ = bench
    control, looking = running.socket_path("control"), running.socket_path("status")
    assert control.stat().st_mode & 0o7777 == 0o600
    assert control.stat().st_uid == 0
    assert looking.stat().st_mode & 0o7777 == 0o660
    group = run("getent", "group", "xconnectd", check=False).stdout
    assert looking.stat().st_gid == (int(group.split(":")[2]) if group else 0)
    assert _as_member(running, "status", "--json").returncode == 1, "not in that group"
    os.chown(looking, -1, STRANGER)
    shown = _as_member(running, "status", "--json")
    assert shown.returncode == 0, shown.stderr
    links = json.loads(shown.stdout)["links"]
    assert [x["state"] for x in links] == ["connected", "connected"]
    assert _as_member(running, "status").returncode == 0
    assert _as_member(running, "status", "--check").returncode == 0
    assert _as_member(running, "wait", "--timeout", "30").returncode == 0
    assert _as_member(running, "wait", "--timeout", "0", "nosuch").returncode == 1
    for command in (("reload",), ("try", str(running.config)), ("detach", "--all")):
        refused = _as_member(running, *command)
        assert refused.returncode == 1, (command, refused.stdout)
        assert "Traceback" not in refused.stderr
    for request in ("reload", "try", "hold", "keep"):
        answer = running.ask(request, text="links: {}", path="x.yaml")
        assert answer["ok"] is False, request
    assert [x["state"] for x in running.ask("status")["links"]] == ["connected", "connected"]


def test_what_a_user_without_rights_is_told(bench: tuple[Daemon, list[Station]]) -> None:
    running, _ = bench
    for command in (("reload",), ("try", "config/xconnect.yaml")):
        assert (
            "control.sock: only root may: sudo xconnectd …" in _as_member(running, *command).stderr
        )
    assert "only root and group xconnectd may ask" in _as_member(running, "status").stderr
    running.kill()
    assert running.socket_path().exists(), "the dead daemon's, closed to strangers"
    for command in (("status",), ("wait",), ("graph",), ("events",), ("reload",)):
        done = _as_member(running, *command)
        assert done.returncode == 1
        assert done.stderr == (
            "xconnectd: no daemon runs in this network namespace;"
            " root sees the wires: sudo xconnectd status\n"
        )


def test_a_member_of_the_group_gets_events(bench: tuple[Daemon, list[Station]]) -> None:
    running, _ = bench
    os.chown(running.socket_path(), -1, STRANGER)
    enter, net, *command = running._command("events", "--json")
    drop = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", f"--groups={STRANGER}"]
    listener = subprocess.Popen(
        [enter, net, *in_public(*drop, *command)],
        **running._surroundings(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert listener.stdout is not None
        _awaken(running, lambda: _readable(listener.stdout))
        assert json.loads(listener.stdout.readline())["event"]
    finally:
        listener.kill()
        listener.communicate()


NONSENSE: dict[str, bytes] = {
    "no json": b"hello\n",
    "binary": bytes(range(256)) + b"\n",
    "a number": b"17\n",
    "nothing": b"\n",
    "null": b'{"do": null}\n',
    "an object": b'{"do": {"a": []}}\n',
    "unknown": b'{"do": "fly"}\n',
    "deep": b"[" * 100_000 + b"\n",
    "deep objects": b'{"a":' * 100_000 + b"\n",
    "big number": b"9" * 10_000 + b"\n",
    "half": b'{"do": "sta',
    "endless": b"x" * (33 << 20),
    "many": b'{"do": "status"}\n' * 1000,
    "try without": b'{"do": "try"}\n',
    "try a number": b'{"do": "try", "text": 1, "path": 2, "timeout": 3}\n',
    "try for no time": b'{"do": "try", "text": "links: {}", "path": "x.yaml", "timeout": "x"}\n',
    "try for NaN": b'{"do": "try", "text": "links: {}", "path": "x.yaml", "timeout": NaN}\n',
    "try a surrogate": b'{"do": "try", "text": "\\ud800", "path": "x.yaml", "timeout": 1}\n',
    "try a bad path": b'{"do": "try", "text": "links: {}", "path": "\\u0000", "timeout": 1}\n',
    "keep without a try": b'{"do": "keep"}\n',
}


@pytest.mark.parametrize("name", ["status", "control"])
def test_nonsense_on_a_socket_harms_nobody(bench: tuple[Daemon, list[Station]], name: str) -> None:
    running, (a, b, *_) = bench
    for kind, data in NONSENSE.items():
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(running.socket_path(name)))
            with contextlib.suppress(OSError):
                client.sendall(data)
            time.sleep(0.05)
        time.sleep(0.05)
        assert running.returncode is None, f"{kind} ended the daemon:\n{running.text()[-2000:]}"
        assert running.ask("status")["daemon"]["pid"] == running.pid, kind
    running.assert_no_traceback()
    poll(lambda: wired(a, b))
    running.stop()


@pytest.mark.parametrize("count", [800, 2500])
def test_a_status_that_no_socket_buffer_holds(daemon: Start, count: int) -> None:
    """A big answer goes out in pieces, also to a reader that takes its time."""
    running = daemon({f"x{n}": f"y{n}" for n in range(count)})
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(running.socket_path()))
        client.sendall(b'{"do": "status"}\n')
        time.sleep(0.5)
        with client.makefile("rb") as answer:
            assert len(json.loads(answer.readline())["links"]) == count


def test_too_many_clients_harm_nobody(bench: tuple[Daemon, list[Station]]) -> None:
    """A member of the group opens connections until the daemon has no descriptor left."""
    running, (a, _, c, *_) = bench
    run("prlimit", f"--pid={running.pid}", "--nofile=128:128")
    clients = []
    try:
        for _ in range(300):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            clients.append(client)
            with contextlib.suppress(BlockingIOError):
                client.connect(str(running.socket_path()))
        time.sleep(0.5)
        spent = running.cpu()
        time.sleep(1.5)
        assert running.cpu() - spent < 0.5, "it spins"
        running.write(DRAFT)
        poll(lambda: wired(a, c))
        assert running.cli("reload").returncode == 0
    finally:
        for client in clients:
            client.close()
    running.assert_no_traceback()


SIT_THERE = """
import os, socket, sys
path, users, each = sys.argv[1], sys.argv[2:-1], int(sys.argv[-1])
there = []
for user in users:
    os.seteuid(int(user))
    for _ in range(each):
        there.append(socket.socket(socket.AF_UNIX))
        there[-1].connect(path)
    os.seteuid(0)
print("there", flush=True)
sys.stdin.read()
"""


def test_who_may_look_keeps_nobody_else_from_looking(bench: tuple[Daemon, list[Station]]) -> None:
    """One user has a quota, and all of them together leave places for root."""
    running, _ = bench
    path = running.socket_path()
    os.chown(path, -1, STRANGER)
    sit = ["setpriv", f"--regid={STRANGER}", "--clear-groups", "/usr/bin/python3", "-Ic", SIT_THERE]
    for users, served in (((STRANGER + 1,), True), (range(STRANGER + 1, STRANGER + 5), False)):
        command = [*sit, str(path), *map(str, users), "60"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as crowd:
            assert crowd.stdout is not None
            assert crowd.stdout.readline() == "there\n"
            assert (_as_member(running, "status").returncode == 0) is served
            assert running.cli("status", "--health").returncode == 0
            crowd.kill()
    poll(lambda: _as_member(running, "status").returncode == 0)


# ---------------------------------------------------------------------- a directory of files


class Folder(Daemon):
    """A daemon that was given a directory."""

    def __init__(self, lab: Lab, files: dict[str, Wiring]) -> None:
        super().__init__(lab, None, name="etc.d")
        self.config = self.config.parent
        for name, wiring in files.items():
            self.put(name, wiring)

    def put(self, name: str, wiring: Wiring, *, in_place: bool = False) -> Path:
        path = self.config / name
        fresh = path if in_place else self.config / ".fresh"
        fresh.write_text(document(wiring))
        fresh.rename(path)
        return path

    def files(self) -> dict[str, dict[str, Any]]:
        return {Path(x["path"]).name: x for x in self.status()["config"]["files"]}

    def states(self) -> dict[str, str]:
        return {name: x["state"] for name, x in self.files().items()}


@pytest.fixture
def ends(lab: Lab) -> list[Station]:
    return [lab.veth(end) for end in ("va", "vb", "vc", "vd", "ve", "vf")]


def test_every_file_of_a_directory_counts(lab: Lab, ends: list[Station]) -> None:
    a, b, c, d, e, f = ends
    running = Folder(lab, {"one.yaml": FIRST, "two.yaml": {"vc": "vd"}})
    for name in ("notes.txt", "one.yaml~", ".hidden.yaml", "three.yml", "four.yaml.bak"):
        running.put(name, {"ve": "vf"})
    running.start()
    assert wired(a, b)
    assert wired(c, d)
    assert cut(e, f)
    assert running.states() == {"one.yaml": "loaded", "two.yaml": "loaded"}
    report = running.status()
    assert report["config"]["state"] == "loaded"
    assert report["config"]["path"] == str(running.config)
    hashes = {x["hash"] for x in running.files().values()}
    assert len(hashes) == 2
    assert running.cli("check", str(running.config)).returncode == 0
    running.put("three.yaml", {"ve": "vf"})
    poll(lambda: wired(e, f))
    running.stop()


@pytest.mark.parametrize("in_place", [False, True], ids=["renamed", "in place"])
def test_a_change_in_one_file_of_a_directory(lab: Lab, ends: list[Station], in_place: bool) -> None:
    a, b, c, d, e, _ = ends
    running = Folder(lab, {"one.yaml": FIRST, "two.yaml": {"vc": "vd"}}).start()
    with Stream(a, b) as stream:
        poll(stream.flows)
        for n in range(4):
            there = (e, d)[n % 2]
            since, written = running.mark(), datetime.now(UTC)
            running.put("two.yaml", {"vc": ("ve", "vd")[n % 2]}, in_place=in_place)
            poll(lambda there=there: wired(c, there))  # type: ignore[misc]
            told = running.wait_event("config.loaded", since=since)["timestamp"]
            took = datetime.fromisoformat(told) - written
            assert took < timedelta(seconds=1), "as soon as with a single file"
    stream.assert_perfect()


@pytest.mark.usefixtures("ends")
def test_defaults_hold_for_their_file(lab: Lab) -> None:
    one = "defaults: {mode: tc}\nlinks: {va: vb}\n"
    running = Folder(lab, {"one.yaml": one, "two.yaml": {"vc": "vd"}}).start()
    assert running.link("va", "vb")["mode"] == "tc"
    assert running.link("vc", "vd")["mode"] == "generic"


def test_an_interface_in_two_files(lab: Lab, ends: list[Station]) -> None:
    a, b, _, d, e, f = ends
    running = Folder(lab, {"one.yaml": FIRST, "zero.yaml": {"ve": "vf"}}).start()
    with Stream(a, b) as stream, Stream(e, f) as other:
        poll(stream.flows)
        running.put("a-first-by-name.yaml", "links:\n  vb: vd\n")
        since = 0
        event = running.wait_event("config.rejected", since=since)
        assert f"{running.config}/a-first-by-name.yaml:2:3" in str(event["problems"])
        assert f"{running.config}/one.yaml:2:3" in str(event["problems"])
        assert running.states() == {
            "a-first-by-name.yaml": "rejected",
            "one.yaml": "loaded",
            "zero.yaml": "loaded",
        }
        assert running.status()["config"]["state"] == "rejected"
        assert cut(b, d)
        checked = running.cli("check", str(running.config))
        assert checked.returncode == 78
        running.kill()
        running.start()
        assert running.link("va", "vb")["state"] == "connected", "what stands has an owner"
    stream.assert_perfect()
    other.assert_perfect()
    running.put("one.yaml", "links: {}\n")
    poll(lambda: wired(b, d))
    assert set(running.states().values()) == {"loaded"}


def test_an_end_goes_from_one_file_to_another(lab: Lab, ends: list[Station]) -> None:
    """In two saves, and in whichever order."""
    a, b, c, *_ = ends
    running = Folder(lab, {"one.yaml": FIRST, "two.yaml": "links: {}\n"}).start()
    running.put("two.yaml", {"va": "vc"})
    running.put("one.yaml", "links: {}\n")
    poll(lambda: wired(a, c))
    running.put("two.yaml", "links: {}\n")
    running.put("one.yaml", FIRST)
    poll(lambda: wired(a, b))
    poll(lambda: set(running.states().values()) == {"loaded"})


def test_a_refused_file_keeps_its_own_links(lab: Lab, ends: list[Station]) -> None:
    a, b, c, d, e, _ = ends
    running = Folder(lab, {"one.yaml": FIRST, "two.yaml": {"vc": "vd"}}).start()
    with Stream(a, b) as stream:
        poll(stream.flows)
        running.put("one.yaml", "links: [\n")
        running.wait_event("config.rejected")
        running.put("two.yaml", {"vc": "ve"})
        poll(lambda: wired(c, e))
        assert cut(c, d)
        assert running.states() == {"one.yaml": "rejected", "two.yaml": "loaded"}
        assert running.link("va", "vb")["state"] == "connected"
        assert running.cli("reload").returncode == 78
    stream.assert_perfect()


def test_a_removed_file_takes_its_links_along(lab: Lab, ends: list[Station]) -> None:
    a, b, c, d, *_ = ends
    running = Folder(lab, {"one.yaml": FIRST, "two.yaml": {"vc": "vd"}}).start()
    with Stream(a, b) as stream:
        poll(stream.flows)
        (running.config / "two.yaml").unlink()
        running.wait_link("disconnected", "vc", "vd")
        assert cut(c, d)
    stream.assert_perfect()
    assert running.states() == {"one.yaml": "loaded"}
    (running.config / "one.yaml").unlink()
    poll(lambda: cut(a, b))
    poll(lambda: lab.xdp("va") == 0)


def test_a_start_with_one_bad_file(lab: Lab, ends: list[Station]) -> None:
    """The wires that stood stay; the good file is taken."""
    a, b, c, d, e, _ = ends
    running = Folder(lab, {"one.yaml": FIRST, "two.yaml": {"vc": "vd"}}).start()
    with Stream(a, b) as stream:
        poll(stream.flows)
        running.kill()
        running.put("one.yaml", "links: [\n")
        running.put("two.yaml", {"vc": "ve"})
        running.start()
        assert wired(c, e)
        assert cut(c, d)
        assert running.states() == {"one.yaml": "rejected", "two.yaml": "loaded"}
        assert running.link("va", "vb")["state"] == "connected"
        time.sleep(0.3)
    stream.assert_perfect()
    running.put("one.yaml", {"va": "vd"})
    poll(lambda: wired(a, d))
    assert cut(a, b)


def test_a_refused_file_that_is_deleted_takes_its_wires_along(
    lab: Lab, ends: list[Station]
) -> None:
    """The wires that it had were found at the start; the text of all others stays the same."""
    a, b, c, d, *_ = ends
    running = Folder(lab, {"one.yaml": FIRST, "two.yaml": {"vc": "vd"}}).start()
    with Stream(a, b) as stream:
        poll(stream.flows)
        running.kill()
        running.put("two.yaml", "links: [\n")
        running.start()
        assert wired(c, d)
        (running.config / "two.yaml").unlink()
        running.wait_link("disconnected", "vc", "vd")
        assert cut(c, d)
        assert lab.xdp("vc") == 0
    stream.assert_perfect()


@pytest.mark.usefixtures("ends")
def test_strict_demands_that_every_file_is_good(lab: Lab) -> None:
    running = Folder(lab, {"one.yaml": FIRST, "two.yaml": "links: [\n"})
    running._args = ("--strict",)
    assert running.spawn().wait() == 78
    assert lab.xdp("va") == 0


def test_a_directory_that_is_gone_for_a_moment_disconnects_nothing(
    lab: Lab, ends: list[Station]
) -> None:
    a, b, c, d, *_ = ends
    running = Folder(lab, {"one.yaml": FIRST}).start()
    aside = running.config.with_name("aside")
    with Stream(a, b) as stream:
        poll(stream.flows)
        running.config.rename(aside)
        poll(lambda: running.status()["config"]["state"] == "missing")
        time.sleep(1.5)
        assert running.link("va", "vb")["state"] == "connected"
        aside.rename(running.config)
        running.put("two.yaml", {"vc": "vd"})
        poll(lambda: wired(c, d))
    stream.assert_perfect()


def test_a_directory_that_is_swapped(lab: Lab, ends: list[Station]) -> None:
    a, b, c, d, e, f = ends
    running = Folder(lab, {"one.yaml": FIRST, "two.yaml": {"vc": "vd"}}).start()
    fresh = running.config.with_name("fresh.d")
    fresh.mkdir()
    (fresh / "one.yaml").write_text(document(FIRST))
    (fresh / "three.yaml").write_text(document({"ve": "vf"}))
    running.config.rename(running.config.with_name("old.d"))
    fresh.rename(running.config)
    poll(lambda: wired(e, f))
    poll(lambda: cut(c, d))
    assert wired(a, b)
    running.put("three.yaml", "links: {}\n", in_place=True)
    poll(lambda: cut(e, f))


def test_a_try_of_one_file_of_a_directory(lab: Lab, ends: list[Station]) -> None:
    a, b, c, d, e, _ = ends
    running = Folder(lab, {"one.yaml": FIRST, "two.yaml": {"vc": "vd"}}).start()
    with Stream(a, b) as stream:
        poll(stream.flows)
        attempt = Attempt(running, {"vc": "ve"}, name="two.yaml").asks()
        assert wired(c, e)
        assert _no(attempt) == 1
        poll(lambda: wired(c, d))
        attempt = Attempt(running, {"vc": "ve"}, name="two.yaml").asks()
        assert attempt.answer("y\n") == 0, attempt.text()
        assert (running.config / "two.yaml").read_text() == document({"vc": "ve"})
        assert wired(c, e)
        attempt = Attempt(running, {"vd": "vf"}, name="new.yaml").asks()
        assert attempt.answer("y\n") == 0, attempt.text()
        assert running.link("vd", "vf")["state"] == "connected"
        clash = Attempt(running, {"va": "vf"}, name="clash.yaml")
        assert clash.wait() == 78
        assert "one.yaml:2:3" in clash.text()
        assert "if the draft replaces that file: --as its name" in clash.text()
        attempt = Attempt(running, {"vc": "vd"}, "--as", "two.yaml", name="draft")
        assert attempt.wait() == 78, "vd is in new.yaml"
        (running.config / "new.yaml").unlink()
        running.wait_link("disconnected", "vd", "vf")
        attempt = Attempt(running, {"vc": "vd"}, "--as", "two.yaml", name="draft").asks()
        assert attempt.answer("y\n") == 0, attempt.text()
        assert (running.config / "two.yaml").read_text() == document({"vc": "vd"})
        assert sorted(path.name for path in running.config.iterdir()) == ["one.yaml", "two.yaml"]
    stream.assert_perfect()


def test_a_try_is_not_refused_for_another_file(lab: Lab, ends: list[Station]) -> None:
    _, _, c, d, e, _ = ends
    running = Folder(lab, {"one.yaml": "links: {va: [x\n", "two.yaml": {"vc": "vd"}}).start()
    poll(lambda: wired(c, d))
    attempt = Attempt(running, {"vc": "ve"}, name="two.yaml").asks()
    assert attempt.answer("y\n") == 0, attempt.text()
    assert wired(c, e)
    assert Attempt(running, "links: {vc: [x\n", name="one.yaml").wait() == 78


@pytest.mark.usefixtures("ends")
def test_a_plan_of_one_file_of_a_directory(lab: Lab) -> None:
    """It tells what a try of that file does: the links of the others stay."""
    running = Folder(lab, {"one.yaml": FIRST, "two.yaml": {"vc": "vd"}}).start()

    def planned(name: str, wiring: Wiring, *options: str) -> tuple[int, set[str]]:
        draft = lab.directory / name
        draft.write_text(document(wiring))
        done = running.cli("plan", "--json", str(draft), *options)
        actions = json.loads(done.stdout) if done.stdout else []
        return done.returncode, {action["interface"] for action in actions}

    assert planned("two.yaml", {"vc": "vd"}) == (0, set())
    assert planned("two.yaml", {"vc": "ve"}) == (10, {"vc", "vd", "ve"})
    assert planned("new.yaml", {"ve": "vf"}) == (10, {"ve", "vf"})
    assert planned("clash.yaml", {"va": "vf"}) == (78, set())
    assert planned("new.yml", {"ve": "vf"}) == (78, set())
    assert planned("draft", {"vc": "ve"}, "--as", "two.yaml") == (10, {"vc", "vd", "ve"})
    assert running.cli("plan").returncode == 0
    assert running.cli("plan", str(running.config)).returncode == 0
    running.put("one.yaml", "links: {va: [}\n")
    poll(lambda: running.states()["one.yaml"] == "rejected")
    assert planned("two.yaml", {"vc": "ve"}) == (10, {"vc", "vd", "ve"})


@pytest.mark.parametrize("name", ["two.yml", ".two.yaml", "draft"])
def test_a_try_whose_name_would_not_count_is_refused(
    lab: Lab, ends: list[Station], name: str
) -> None:
    a, b, c, d, *_ = ends
    running = Folder(lab, {"one.yaml": FIRST}).start()
    attempt = Attempt(running, {"vc": "vd"}, name=name)
    assert attempt.wait() != 0
    assert "name it *.yaml, without a leading dot, or say --as NAME.yaml" in attempt.text()
    assert "Keep this wiring" not in attempt.text()
    assert [x.name for x in running.config.iterdir()] == ["one.yaml"]
    assert wired(a, b)
    assert cut(c, d)


# ---------------------------------------------------------------------- looking during a try


def test_what_is_told_while_a_wiring_is_tried(bench: tuple[Daemon, list[Station]]) -> None:
    """It is what stands and what somebody is to confirm; the file speaks of something else."""
    running, (a, _, c, *_) = bench
    assert running.status()["daemon"]["try"] is None
    attempt = Attempt(running, DRAFT).asks()
    poll(lambda: wired(a, c))
    told = running.status()
    assert {link["link"]: link["state"] for link in told["links"]} == {
        "va:vc": "connected",
        "vd:ve": "connected",
    }
    assert 0 < told["daemon"]["try"]["ends_in_s"] <= 300
    assert told["daemon"]["try"]["hash"] != told["config"]["hash"]
    assert told["differences"] == []
    assert "unless it is confirmed" in running.cli("status").stdout
    assert running.cli("status", "--check").returncode == 0
    assert running.cli("wait", "--timeout", "5", "va:vc").returncode == 0
    tested = running.cli("test", "va:vc", "--count", "1")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert running.cli("doctor", "--json").stdout.count('"fail"') == 0
    assert _no(attempt) == 1
    assert running.link("va", "vb")["state"] == "connected"
    assert running.status()["daemon"]["try"] is None


@pytest.mark.parametrize("how", ["reload", "SIGHUP"])
def test_a_try_that_a_reload_ends_is_told_as_taken_back(
    bench: tuple[Daemon, list[Station]], how: str
) -> None:
    running, _ = bench
    Attempt(running, DRAFT).asks()
    if how == "reload":
        assert running.cli("reload").returncode == 0
    else:
        running.signal(signal.SIGHUP)
    assert "read again" in running.wait_event("try.reverted")["reason"]
    running.wait_link("connected", "va", "vb")


def test_without_a_daemon_no_link_is_tried_again(lab: Lab, daemon: Start) -> None:
    lab.veth("va"), lab.veth("vb")
    lab.foreign_xdp("vb")
    running = daemon(FIRST)
    running.wait_state("va", "vb", "failed")
    assert "tried again in" in running.cli("status").stdout
    running.kill()
    link = running.link("va", "vb")
    assert link["state"] == "failed"
    assert link["retry_in_s"] is None
    assert "tried again" not in running.cli("status").stdout
