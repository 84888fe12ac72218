"""What wakes the daemon's thread: a pipe that any thread may write to, and signals."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


class Wakeup:
    """A pipe for the daemon's selector. It can be read as long as ``clear`` was not called."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        return self._read

    def wake(self) -> None:
        """From any thread or signal handler."""
        with suppress(BlockingIOError):  # full: it can be read already
            os.write(self._write, b"\0")

    def on_signals(self) -> None:
        """Every signal writes to it, also one that comes just before the selector waits."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def clear(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Signals:
    """SIGHUP asks for a reload, SIGTERM and SIGINT for the end; a second of these exits at once.

    Attributes:
        stopping: whether it was told to stop.
    """

    def __init__(self) -> None:
        self.stopping = False
        self._reload = False

    def catch(self) -> None:
        """From here on the process's signals are received, also those that were blocked so far."""
        for number in SIGNALS:
            signal.signal(number, self.receive)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def receive(self, number: int, _frame: FrameType | None = None) -> None:
        if number == signal.SIGHUP:
            self._reload = True
            return
        if self.stopping:
            os._exit(1)  # the second one: whoever sends it does not want to wait
        self.stopping = True

    def take_reload(self) -> bool:
        """Whether a reload was asked for since the last call, and no end."""
        asked, self._reload = self._reload, False
        return asked and not self.stopping
