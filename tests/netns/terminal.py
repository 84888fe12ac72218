"""A command on a terminal of its own, as somebody has it who types."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from contextlib import suppress

from .lab import PATIENCE, poll
from .service import Daemon, Wiring, document


class Terminal:
    """It ends with the lab. ``before`` are the terminal's settings that the command found."""

    def __init__(self, running: Daemon, *args: str, rows: int = 24, columns: int = 80) -> None:
        self._master, self._slave = pty.openpty()
        self.resize(rows, columns)
        self.before = self.settings()
        surroundings = running._surroundings()
        surroundings["env"] |= {"TERM": "xterm-256color"}
        for size in ("COLUMNS", "LINES"):  # readline sets them, and xdist's workers inherit them
            surroundings["env"].pop(size, None)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *running._command(*args)],
            **surroundings,
            **dict.fromkeys(("stdin", "stdout", "stderr"), self._slave),
        )
        self._raw = b""
        running.lab.on_close(self._end)

    def resize(self, rows: int, columns: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def settings(self) -> list[object]:
        return [*termios.tcgetattr(self._slave)]

    def press(self, text: str) -> None:
        os.write(self._master, text.encode())

    def read(self) -> str:
        """All that was written so far."""
        os.set_blocking(self._master, False)
        with suppress(OSError):
            while data := os.read(self._master, 1 << 16):
                self._raw += data
        return self._raw.decode(errors="replace")

    def until(self, text: str) -> None:
        def look() -> bool:
            assert self.process.poll() is None, self.read()
            return text in self.read()

        poll(look, what=text)

    def hang_up(self) -> None:
        """The window is closed."""
        for end in (self._master, self._slave):
            os.close(end)
        self._master = self._slave = -1

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.wait()
        if self._master >= 0:
            self.hang_up()


class Attempt(Terminal):
    """``xconnectd try`` that has asked whether the wiring is to be kept."""

    def __init__(self, running: Daemon, wiring: Wiring) -> None:
        draft = running.lab.directory / "draft.yaml"
        draft.write_text(document(wiring))
        super().__init__(running, "try", str(draft), "--timeout", "300")
        self.until("Keep this wiring?")

    def answer(self, text: str) -> int:
        self.press(text)
        return self.wait()
