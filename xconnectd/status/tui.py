"""The terminal of ``status --watch``: draws the table, reads keys, and leaves all as it was found.

Sole importer of rich, which knows screens, colours and how wide characters are; keys, which it does
not read, come from termios. ``table`` says what is to be seen.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from xconnectd.errors import XconnectError
from xconnectd.status import table
from xconnectd.status.document import StatusDocument
from xconnectd.status.table import Row, View

_AROUND: Final = 5
"""Lines that are no rows: two above, and three below."""
_ENDS: Final = (signal.SIGTERM, signal.SIGHUP)


class _Ended(Exception):  # noqa: N818 - it never leaves this module
    """A signal asks for the end."""


def show(look: Callable[[], StatusDocument], view: View, every: float) -> None:
    """Shows what ``look`` tells, anew every ``every`` seconds, until the user has had enough.

    However that comes about, the terminal is as it was before. After a SIGTERM it dies of that.
    """
    number = 0
    try:
        with _signals() as wakeup, _Keyboard() as keyboard:
            console = Console()
            with Live(console=console, screen=True, auto_refresh=False) as live:
                _Watch(look, view, live=live, keyboard=keyboard, wakeup=wakeup).run(every)
    except _Ended as ended:
        number = ended.args[0]
    if number:
        os.kill(os.getpid(), number)


class _Watch:
    """One session: what was last seen, and how the user wants to see it."""

    def __init__(
        self,
        look: Callable[[], StatusDocument],
        view: View,
        *,
        live: Live,
        keyboard: _Keyboard,
        wakeup: int,
    ) -> None:
        self._look = look
        self._view = view
        self._live = live
        self._keyboard = keyboard
        self._wakeup = wakeup
        self._rows: list[Row] = []
        self._trouble = ""

    def run(self, every: float) -> None:
        due = 0.0
        while True:
            if time.monotonic() >= due:
                self._look_again()
                due = time.monotonic() + every
            self._draw()
            if not self._heed(max(0.0, due - time.monotonic())):
                return

    def _look_again(self) -> None:
        """A daemon that is being restarted, say, is no reason to end."""
        try:
            self._rows = table.rows(self._look())
            self._trouble = ""
        except XconnectError as error:
            self._trouble = str(error)

    def _heed(self, seconds: float) -> bool:
        """Waits for keys, signals or the next look; whether to go on."""
        ready, _, _ = select.select([self._wakeup, *self._keyboard.files], [], [], seconds)
        if self._wakeup in ready and signal.SIGTSTP in os.read(self._wakeup, 256):
            self._stand_aside()
        if self._keyboard.files and self._keyboard.files[0] in ready:
            for key in self._keyboard.read():
                if key in ("hung up", "q"):
                    return False
                count = len(self._view.arrange(self._rows))
                self._view = self._view.press(key, count, self._height)
        return True

    def _stand_aside(self) -> None:
        """What ^Z is for: the shell gets its terminal, until ``fg``."""
        self._live.stop()
        self._keyboard.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._keyboard.enter()
        self._live.start()

    # ------------------------------------------------------------------ drawing

    @property
    def _height(self) -> int:
        return max(1, self._live.console.height - _AROUND)

    def _draw(self) -> None:
        rows = self._view.arrange(self._rows)
        self._view = self._view.within(len(rows))
        chosen = rows[self._view.cursor] if rows else None
        parts = [self._head(len(rows)), self._body(rows), *self._foot(chosen)]
        self._live.update(Group(*parts), refresh=True)

    def _head(self, shown: int) -> RenderableType:
        view = self._view
        text = Text(table.summary(self._rows, shown, view.wanted), style="bold")
        text.append(f"   by {view.sort}", "not bold")
        return _line(text)

    def _body(self, rows: Sequence[Row]) -> RenderableType:
        first = self._view.first(len(rows), self._height)
        columns = table.columns(rows, self._live.console.width)
        body = Table(box=None, padding=(0, table.GAP, 0, 0), pad_edge=False, header_style="reverse")
        for column in columns:
            body.add_column(
                column.title,
                width=column.width,
                no_wrap=True,
                justify="right" if column.right else "left",
            )
        for place, row in enumerate(rows[first : first + self._height], first):
            cells = [Text(column.cell(row)) for column in columns]
            cells[1].stylize(table.COLOURS[row.state])
            body.add_row(*cells, style="reverse" if place == self._view.cursor else "")
        missing = self._height - min(self._height, len(rows))
        return Group(body, *[Text()] * missing)

    def _foot(self, chosen: Row | None) -> Iterator[RenderableType]:
        yield _line(Text(f"{chosen.name}: {chosen.state}, {chosen.mode}" if chosen else ""))
        yield _line(Text(self._trouble or (chosen.reason if chosen else ""), style="italic"))
        yield _line(Text("q quit  s sort  ↑↓ PgUp PgDn move", style="dim"))


def _line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


# --------------------------------------------------------------------------- the terminal


class _Keyboard:
    """Keys as they are pressed, if stdin is a terminal. A context manager."""

    def __init__(self) -> None:
        self.files = [sys.stdin.fileno()] if sys.stdin.isatty() else []
        self._found = [termios.tcgetattr(file) for file in self.files]

    def enter(self) -> None:
        for file in self.files:
            tty.setcbreak(file)

    def leave(self) -> None:
        for file, found in zip(self.files, self._found, strict=True):
            termios.tcsetattr(file, termios.TCSAFLUSH, found)

    def read(self) -> list[str]:
        """What was pressed; ``hung up`` when nothing can come any more."""
        try:
            data = os.read(self.files[0], 1024)
        except OSError:
            data = b""
        return [*table.keys(data.decode(errors="replace"))] if data else ["hung up"]

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


@contextmanager
def _signals() -> Iterator[int]:
    """SIGTERM ends as an exception does; ^Z and a new size are told by a file to read."""
    wakeup, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = {number: signal.signal(number, _end) for number in _ENDS}
    for number in (signal.SIGTSTP, signal.SIGWINCH):
        before[number] = signal.signal(number, lambda *_: None)
    waking = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield wakeup
    finally:
        signal.set_wakeup_fd(waking)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(wakeup)
        os.close(write)


def _end(number: int, _frame: FrameType | None) -> None:
    raise _Ended(number)
