"""``status --watch`` on a real terminal, and what it leaves behind.

What stands in the table is shown in ``tests/unit/test_table.py``, lines in a pipe in
``test_commands.py``.
"""

from __future__ import annotations

import os
import re
import signal

import pytest

from .lab import Lab, poll
from .service import Daemon, Start
from .terminal import Terminal
from .traffic import lossless

ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[()].|[=>78])")
FOOT = "q quit"
LEAVE = "\x1b[?1049l"
"""Back from the alternate screen."""


class Table(Terminal):
    """The command that draws it; what it draws is read as a picture."""

    def __init__(self, running: Daemon, *args: str, rows: int = 24, columns: int = 80) -> None:
        super().__init__(running, "status", "--watch", *args, rows=rows, columns=columns)

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
        assert self.settings() == self.before
        text = self.read()
        assert text.count("\x1b[?1049h") == text.count(LEAVE) >= 1
        assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is back"
        assert "Traceback" not in text

    def quit(self) -> None:
        self.press("q")
        assert self.wait() == 0
        self.assert_restored()


def links(screen: list[str]) -> list[str]:
    """The rows of the table, by their first ends."""
    return [line.split()[0] for line in screen[2:-3] if " — " in line]


@pytest.fixture
def bench(lab: Lab, shared: Start) -> Daemon:
    lab.veths("va", "vb")
    return shared("links:\n  va: {to: vb, description: spine}\n  vc: nosuch\n")


def test_a_table_that_answers_to_keys(bench: Daemon) -> None:
    table = Table(bench)
    screen = table.shows("va — vb", "connected", "vc — nosuch", "waiting")
    assert len(screen) == 24
    assert all(len(line) <= 80 for line in screen)
    assert screen[0].startswith("2 links: 1 connected, 1 waiting")
    titles = screen[1].split()
    assert titles == ["LINK", "STATE", "MODE", "→bit/s", "←bit/s", "DROPS", "REASON"]
    assert links(screen) == ["vc", "va"]
    assert screen[-3].startswith("vc — nosuch: waiting")
    assert screen[-2] == "vc and nosuch do not exist"
    table.press("\x1b[B")
    table.shows("va — vb: connected, generic")
    table.press("s")
    assert links(table.shows("by name")) == ["va", "vc"]
    table.quit()


def test_rates_order_and_filter(lab: Lab, shared: Start) -> None:
    c, d = lab.veths("vc", "vd")
    running = shared("links: {va: {to: vb, enabled: false}, vx: vy, vc: vd}\n")
    with lossless(c, d, rate=500):
        table = Table(running, "--sort", "rate", "--filter", "v", columns=160)
        assert links(table.shows("by rate", "3 with: v", "LAST"))[0] == "vc"

        def flows() -> bool:
            lines = [x.split() for x in table.screen() if x.startswith("vc — vd")]
            return any(100 < float(x[5]) < 999 and 100 < float(x[7]) < 999 for x in lines[:1])

        poll(flows, interval=0.2)
    table.quit()


def test_a_new_size_and_more_links_than_fit(shared: Start) -> None:
    running = shared({f"v{n}": f"w{n}" for n in range(200)})
    table = Table(running)
    assert links(table.shows("200 links: 200 waiting")) == [f"v{n}" for n in range(19)]
    for keys, first, last in (("\x1b[6~", "v19", "v37"), ("\x1b[F", "v181", "v199")):
        table.press(keys)
        poll(lambda first=first: links(table.screen())[:1] == [first], what=first)  # type: ignore[misc]
        assert links(table.screen())[-1] == last
    for rows, columns in ((12, 50), (40, 160)):
        table.resize(rows, columns)
        poll(lambda rows=rows: len(table.screen()) == rows, what=f"{rows} rows")  # type: ignore[misc]
        assert all(len(line) <= columns for line in table.screen())
    table.quit()


def test_the_terminal_is_restored(bench: Daemon) -> None:
    for number, code in ((None, 1), (signal.SIGTERM, -15), (signal.SIGHUP, -1)):
        table = Table(bench)
        table.shows("va — vb")
        os.kill(table.process.pid, number) if number else table.press("\x03")
        assert table.wait() == code
        table.assert_restored()


def test_it_stands_aside_for_the_shell_and_outlives_the_daemon(bench: Daemon) -> None:
    """A terminal that goes away ends it."""
    table = Table(bench)
    table.shows("va — vb")
    os.kill(table.process.pid, signal.SIGTSTP)
    os.waitid(os.P_PID, table.process.pid, os.WSTOPPED)
    table.assert_restored()
    seen = len(table.read())
    bench.kill()
    bench.lab.ip("link set va xdpgeneric off")
    os.kill(table.process.pid, signal.SIGCONT)
    poll(lambda: "our program is not attached to va" in table.read()[seen:])
    table.shows("failed")
    table.hang_up()
    table.wait()
