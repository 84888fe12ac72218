"""The side of the commands: a connection to the daemon, and what to do where none answers."""

from __future__ import annotations

import json
import math
import os
import select
import socket
import time
from pathlib import Path
from typing import Any, Final, Self

from xconnectd import remedies
from xconnectd.control import unix_sockets
from xconnectd.control.lock import running_pid
from xconnectd.control.protocol import CONTROL, Answer
from xconnectd.errors import XconnectError
from xconnectd.paths import directory

HANG_TIMEOUT: Final = 4.0
"""Seconds that a daemon may take to answer before it counts as hung."""


_AT_ONCE: Final = 1 << 18
"""Bytes that are received at once: an answer about ten thousand links has 16 MB."""


class NoDaemonError(XconnectError):
    """Nobody answers on the control channel."""


class Connection:
    """To the daemon of this network namespace; ``name`` is CONTROL or STATUS. A context manager.

    ``timeout`` is how many seconds an answer may take, None if any; one that is stopped is not
    asked, and one that hangs has HANG_TIMEOUT seconds.

    Raises:
        NoDaemonError: no daemon answers, or this user may not ask it.
    """

    def __init__(self, name: str, timeout: float | None = 60.0) -> None:
        path = directory() / name
        self._pid = running_pid()
        if is_stopped(self._pid):
            raise NoDaemonError(self._why_no_answer())
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise NoDaemonError(self._why_not(path, error)) from error
        self._file = self._socket.makefile("rb", _AT_ONCE)
        if timeout is None or timeout > HANG_TIMEOUT:
            try:
                self._wait_for_a_sign(timeout)
            except NoDaemonError:
                self.close()
                raise

    def _wait_for_a_sign(self, timeout: float | None) -> None:
        """As long as the daemon works on something else, but not while it does nothing."""
        self.send("ping")
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        spent = _processor_time(self._pid)
        while not select.select([self._socket], [], [], HANG_TIMEOUT)[0]:
            before, spent = spent, _processor_time(self._pid)
            if spent == before or time.monotonic() > deadline:
                raise NoDaemonError(self._why_no_answer())
        self.read()

    def _why_no_answer(self) -> str:
        if is_stopped(self._pid):
            return f"the daemon, pid {self._pid}, is stopped: kill -CONT {self._pid}"
        return f"the daemon, pid {self._pid}, does not answer; see xconnectd doctor"

    def _why_not(self, path: Path, error: OSError) -> str:
        """A socket that a killed daemon left behind forbids as one that is listened to."""
        pid = self._pid
        if pid is None:
            way_out = (
                "; the wires can be seen without it: sudo xconnectd status" if os.geteuid() else ""
            )
            return f"no daemon runs in this network namespace{way_out}"
        if not isinstance(error, PermissionError):
            return f"the daemon{f', pid {pid},' if pid else ''} does not answer at {path}"
        if path.name == CONTROL:
            return f"{path}: only root may: sudo xconnectd …"
        return f"{path}: only root and group {unix_sockets.GROUP} may connect"

    def ask(self, do: str, **details: Any) -> Answer:
        self.send(do, **details)
        return self.read()

    def status(self) -> Answer:
        """Its report.

        Raises:
            NoDaemonError: it does not answer, or the kernel refused it a look.
        """
        report = self.ask("status")
        if error := report.get("error"):
            raise NoDaemonError(f"the daemon cannot read the kernel's state: {error}")
        return report

    def send(self, do: str, **details: Any) -> None:
        try:
            self._socket.sendall(json.dumps({"do": do, **details}).encode() + b"\n")
        except OSError as error:
            raise NoDaemonError("the daemon has ended") from error

    def read(self) -> Answer:
        try:
            line = self._file.readline()
        except OSError as error:
            raise NoDaemonError(self._why_no_answer()) from error
        if not line:
            raise NoDaemonError("the daemon has ended")
        answer: Answer = json.loads(line)
        return answer

    def fileno(self) -> int:
        return self._socket.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def _stat(pid: int | None) -> list[str]:
    """The fields of /proc/PID/stat from the state on (proc(5)); empty where it cannot be seen."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _processor_time(pid: int | None) -> int:
    """In ticks."""
    return sum(map(int, _stat(pid)[11:13]))


def is_stopped(pid: int | None) -> bool:
    """By a signal or a debugger."""
    return _stat(pid)[:1] in (["T"], ["t"])


def repair_here(config: str) -> str:
    """The command that has a link put right: a daemon need not be replaced for that."""
    if running_pid() is not None:
        return "xconnectd reload"
    return remedies.repair(None, config, systemd=has_systemd())


def has_systemd() -> bool:
    return Path("/run/systemd/system").exists()
