"""``status --watch`` on a real terminal, on a pipe, and what it leaves behind."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from typing import Any

import pytest

from .lab import PATIENCE, Lab, Station, poll
from .service import Daemon
from .test_scale import grow
from .traffic import Stream

Start = Callable[..., Daemon]
ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[()].|[=>78])")
FOOT = ("q quit", "type words")
LEAVE = "\x1b[?1049l"
"""Back from the alternate screen."""


class Terminal:
    """A command on a terminal of its own; what it draws is kept."""

    def __init__(self, running: Daemon, *args: str, rows: int = 24, columns: int = 80) -> None:
        self.master, self._slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self._slave)
        surroundings = running._surroundings()
        surroundings["env"] |= {"TERM": "xterm-256color"}
        surroundings["env"].pop("COLUMNS", None)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *running._command("status", "--watch", *args)],
            **surroundings,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
        )
        self.raw = ""
        running.lab.on_close(self.close)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, text: str) -> None:
        os.write(self.master, text.encode())

    def read(self) -> str:
        """All that was drawn so far."""
        os.set_blocking(self.master, False)
        with suppress(OSError):
            while data := os.read(self.master, 1 << 16):
                self.raw += data.decode(errors="replace")
        return self.raw

    def screen(self) -> list[str]:
        """The picture drawn last, line by line; none if it has no last line yet."""
        last = self.read().rpartition("\x1b[H")[2]
        lines = [line.rstrip() for line in ESCAPE.sub("", last).split("\n")]
        return lines if lines[-1].startswith(FOOT) else []

    def shows(self, *texts: str) -> list[str]:
        """Wait until all of these stand on the screen; returns it."""

        def look() -> list[str]:
            assert self.process.poll() is None, self.read()
            shown = self.screen()
            return shown if all(text in "\n".join(shown) for text in texts) else []

        try:
            return poll(look, interval=0.05)
        except AssertionError:
            raise AssertionError(f"{texts} not in:\n" + "\n".join(self.screen())) from None

    def assert_restored(self) -> None:
        assert termios.tcgetattr(self._slave) == self.before
        text = self.read()
        assert text.count("\x1b[?1049h") == text.count(LEAVE) >= 1
        assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is back"

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        for fd in (self.master, self._slave):
            os.close(fd)


@pytest.fixture
def bench(lab: Lab, daemon: Start) -> Daemon:
    lab.veth("va"), lab.veth("vb"), lab.veth("vc")
    running = daemon("links:\n  va: {to: vb, description: spine}\n  vc: nosuch\n")
    running.wait_link("connected", "va", "vb")
    return running


def links(screen: list[str]) -> list[str]:
    """The rows of the table, by their first ends."""
    return [line.split()[0] for line in screen[2:-3] if " — " in line]


def test_a_table_that_answers_to_keys(bench: Daemon) -> None:
    terminal = Terminal(bench)
    screen = terminal.shows(
        "va — vb", "connected", "vc — nosuch", "nosuch does not exist", "q quit"
    )
    assert len(screen) == 24
    assert all(len(line) <= 80 for line in screen)
    assert screen[0].startswith("2 links: 1 connected, 1 waiting")
    titles = [title for title in screen[1].split() if title != "LAST"]  # if any frame came in
    assert titles == ["LINK", "STATE", "→f/s", "→b/s", "←f/s", "←b/s", "DROPS", "WHY"]
    assert links(screen) == ["va", "vc"]
    assert screen[-3].startswith("va — vb: connected, generic")
    terminal.press("\x1b[B")
    terminal.shows("vc — nosuch: waiting")
    terminal.press("s")
    assert links(terminal.shows("by state")) == ["vc", "va"]
    terminal.press("/spi")
    assert links(terminal.shows("1 with: spi")) == ["va"]
    terminal.press("qx")
    assert links(terminal.shows("0 with: spiqx")) == []
    terminal.press("\x7f\x7f\r")
    terminal.shows("q quit", "1 with: spi")
    terminal.press("\x1b")
    assert links(terminal.shows("vc — nosuch", "q quit")) == ["vc", "va"]
    terminal.press("q")
    assert terminal.process.wait(PATIENCE) == 0
    terminal.assert_restored()


def test_rates_and_options(bench: Daemon) -> None:
    lab = bench.lab
    bench.write("links: {va: vb, vc: vd}\n")
    d = lab.veth("vd")
    bench.wait_link("connected", "vc", "vd")
    with Stream(Station(f"{lab.name}-vc", "vc"), d, rate=500) as stream:
        poll(stream.flows)
        terminal = Terminal(bench, "--sort", "rate", "--filter", "state:conn")
        screen = terminal.shows("by rate", "2 with: state:conn", "vc — vd", "LAST")

        def flows() -> bool:
            lines = [x.split() for x in terminal.screen() if x.startswith("vc — vd")]
            return any(100 < float(x[4]) < 999 and 100 < float(x[6]) < 999 for x in lines[:1])

        assert links(screen)[0] == "vc"
        poll(flows, interval=0.2)
    terminal.press("q")
    assert terminal.process.wait(PATIENCE) == 0


def test_a_new_size(bench: Daemon) -> None:
    terminal = Terminal(bench)
    terminal.shows("va — vb")
    terminal.resize(12, 50)
    screen = terminal.shows("va — vb", "q quit")
    poll(lambda: len(terminal.screen()) == 12)
    assert all(len(line) <= 50 for line in terminal.screen())
    terminal.resize(40, 160)
    poll(lambda: len(terminal.screen()) == 40)
    assert len(screen) <= 24
    terminal.press("q")
    assert terminal.process.wait(PATIENCE) == 0
    terminal.assert_restored()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 1), (signal.SIGTERM, -15), (signal.SIGHUP, -1)]
)
def test_the_terminal_is_restored(bench: Daemon, number: signal.Signals, code: int) -> None:
    terminal = Terminal(bench)
    terminal.shows("va — vb")
    if number == signal.SIGINT:
        terminal.press("\x03")
    else:
        os.kill(terminal.process.pid, number)
    assert terminal.process.wait(PATIENCE) == code
    terminal.assert_restored()
    assert "Traceback" not in terminal.read()


def test_it_stands_aside_for_the_shell(bench: Daemon) -> None:
    terminal = Terminal(bench)
    terminal.shows("va — vb")
    os.kill(terminal.process.pid, signal.SIGTSTP)
    os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED)
    terminal.assert_restored()
    seen = len(terminal.read())
    os.kill(terminal.process.pid, signal.SIGCONT)
    poll(lambda: "va — vb" in terminal.read()[seen:])
    terminal.press("q")
    assert terminal.process.wait(PATIENCE) == 0
    terminal.assert_restored()


def test_it_goes_on_when_the_daemon_dies(bench: Daemon) -> None:
    terminal = Terminal(bench)
    terminal.shows("va — vb")
    bench.kill()
    bench.lab.ip("link", "set", "va", "xdpgeneric", "off")
    terminal.shows("failed", "no program of ours on va")
    terminal.press("q")
    assert terminal.process.wait(PATIENCE) == 0


def test_a_terminal_that_goes_away_ends_it(bench: Daemon) -> None:
    terminal = Terminal(bench)
    terminal.shows("va — vb")
    os.close(terminal.master)
    os.close(terminal._slave)
    terminal.process.wait(PATIENCE)
    terminal.master, terminal._slave = pty.openpty()


def test_two_hundred_links(lab: Lab) -> None:
    _, pairs = grow(lab, 200)
    running = Daemon(lab, pairs).start(300)
    poll(lambda: len(running.events("link.connected")) == 200)
    terminal = Terminal(running)
    screen = terminal.shows("200 links: 200 connected")
    assert links(screen) == [f"v{n}" for n in range(0, 38, 2)]
    terminal.press("\x1b[6~")
    terminal.shows("v38 — v39: connected")
    terminal.press("\x1b[F")
    assert links(terminal.shows("v398 — v399: connected"))[-1] == "v398"
    terminal.press("/v39")
    assert links(terminal.shows("6 with: v39"))[0] == "v38"
    terminal.press("\rq")
    assert terminal.process.wait(PATIENCE) == 0
    running.stop()


# ---------------------------------------------------------------------- no terminal


def _piped(running: Daemon, *args: str, **env: str) -> subprocess.Popen[str]:
    surroundings: dict[str, Any] = running._surroundings()
    surroundings["env"] |= env
    process = subprocess.Popen(
        running._command("status", "--watch", *args),
        **surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running.lab.on_close(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(PATIENCE)
    for file in (process.stdout, process.stderr):
        if file:
            file.close()


def test_lines_in_a_pipe(bench: Daemon) -> None:
    process = _piped(bench, "--sort", "state")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == f"daemon: running, pid {bench.pid}\n"
    assert process.stdout.readline().startswith(f"file:   {bench.config}: loaded ")
    lines = [process.stdout.readline() for _ in range(4)]
    rates = "→ 0 frames/s 0 bit/s ← 0 frames/s 0 bit/s dropped"
    assert lines[0].startswith(f"vc — nosuch waiting auto {rates} ")
    assert "(nosuch does not exist)" in lines[0]
    assert re.fullmatch(rf"va — vb connected generic {rates} \d+\n", lines[1])
    assert lines[2].startswith("vc — nosuch waiting")
    assert "\x1b" not in "".join(lines)
    process.stdout.close()  # as head(1) does
    assert process.wait(PATIENCE) == 0
    assert process.stderr.read() == ""


def test_a_filter_in_a_pipe(bench: Daemon) -> None:
    process = _piped(bench, "--filter", "spine")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(4)]
    assert all(line.startswith("va — vb") for line in lines[2:]), "below daemon and file"
    process.kill()


def test_changes_of_daemon_and_file_in_a_pipe(bench: Daemon) -> None:
    process = _piped(bench)
    assert process.stdout is not None
    output = process.stdout

    def told() -> list[str]:
        """The next lines that are not of a link."""
        lines = iter(output.readline, "")
        first = next(line for line in lines if " — " not in line)
        return [first, *takewhile(lambda line: " — " not in line, lines)]

    assert [line.split()[0] for line in told()] == ["daemon:", "file:"]
    bench.write("links: {va: [}\n")
    _, file, problem = told()
    assert (": rejected" in file, f"{bench.config}:1:" in problem) == (True, True)
    bench.kill()
    assert told()[0] == "daemon: not running\n"


def test_no_daemon_and_no_file_in_a_pipe(lab: Lab) -> None:
    process = _piped(Daemon(lab, "links: {}\n"), "-c", str(lab.directory / "nosuch.yaml"))
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    assert lines[0] == "daemon: not running\n"
    assert lines[1].endswith("nosuch.yaml: missing\n")
    assert "there is no such file" in lines[2]


def test_what_does_not_go_together(bench: Daemon) -> None:
    for args in (("--sort", "rate"), ("--filter", "x"), ("--watch", "--json", "--filter", "x")):
        done = bench.cli("status", *args)
        assert done.returncode == 2, args
        assert "--watch" in done.stderr
