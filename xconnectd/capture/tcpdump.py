"""Frames in words, by the program that knows the protocols: tcpdump.

It reads pcapng as it comes and does not tell by which interface a frame came in (4.99): the
direction is put into its lines here. With ``--number`` the lines say which frame they are of.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import deque
from collections.abc import Sequence
from threading import Thread
from typing import IO, Final, Self, cast

from xconnectd.capture.forms import Accounts, Pcapng, Way
from xconnectd.capture.recording import write_all
from xconnectd.capture.tap import Frame
from xconnectd.errors import XconnectError

_OPTIONS: Final = ("-n", "-e", "-l", "--number", "-r", "-")
_FIRST_LINE: Final = re.compile(rb" *(\d+)  (\S+) (.*)", re.DOTALL)
"""Of a frame: its number, the time, and what it is; lines that continue it have none."""


def found() -> str | None:
    """The path of tcpdump, None where there is none."""
    return shutil.which("tcpdump")


class Directions:
    """Puts the directions of frames into the lines that tcpdump prints of them."""

    def __init__(self) -> None:
        self._due: deque[str] = deque()
        """Of the frames that were given to tcpdump and that it has not printed."""
        self._printed = 0

    def expect(self, ways: Sequence[str]) -> None:
        self._due.extend(ways)

    def put_into(self, line: bytes) -> bytes:
        match = _FIRST_LINE.fullmatch(line)
        if not match or int(match[1]) != self._printed + 1:
            return line
        self._printed += 1
        return b"%s %s %s" % (match[2], self._due.popleft().encode(), match[3])


class Decoded:
    """A form of a capture, to be written to ``stdin``: the lines appear on ``output``.

    A context manager. An interrupt of the terminal does not reach tcpdump, so that it prints what
    came before; it ends when ``stdin`` is closed, also by our death.
    """

    def __init__(self, program: str, ways: Sequence[Way], snaplen: int, output: int) -> None:
        self._pcapng = Pcapng(ways, snaplen, "")
        self._ways = [str(way) for way in ways]
        self._directions = Directions()
        self._output = output
        self._reader_has_gone = False
        self._process = subprocess.Popen(
            (program, *_OPTIONS),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
        )
        pipes = self._process.stdin, self._process.stdout, self._process.stderr
        self._stdin, self._stdout, self._stderr = (cast("IO[bytes]", pipe) for pipe in pipes)
        self.stdin = self._stdin.fileno()
        self._printer = Thread(target=self._print, daemon=True)
        self._printer.start()

    def begin(self) -> bytes:
        return self._pcapng.begin()

    def frames(self, frames: Sequence[Frame], wall: int) -> bytes:
        self._directions.expect([self._ways[frame.end] for frame in frames])
        return self._pcapng.frames(frames, wall)

    def counts(self, accounts: Accounts, start: int, stop: int) -> bytes:
        del accounts, start, stop  # said elsewhere, not between the lines
        return b""

    def finish(self) -> None:
        """Returns when the last line is printed; raises XconnectError if tcpdump has failed."""
        self._stdin.close()
        self._printer.join()
        with self._stderr as stderr:
            said = stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
        if self._process.wait() and not self._reader_has_gone:
            raise XconnectError(f"tcpdump has failed: {said} (--plain does without it)")

    def _print(self) -> None:
        with self._stdout as lines:
            try:
                for line in lines:
                    write_all(self._output, self._directions.put_into(line))
            except BrokenPipeError:
                self._reader_has_gone = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """After a failure it need not be at its end."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
