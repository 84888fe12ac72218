"""What passes between this process and systemd: readiness, status, the watchdog, and its plans.

The protocol is sd_notify(3), a datagram; nothing here does anything outside of systemd.
"""

from __future__ import annotations

import os
import socket
import time
from math import inf
from pathlib import Path
from typing import Final, TextIO

_PAUSE: Final = 0.5
"""Seconds between two signs of life."""

_ANSWER: Final = 2.0
"""Seconds the manager may take to say what it is doing to this unit."""


def notify(**state: str | int) -> None:
    """Tells the manager, e.g. ``notify(READY=1, STATUS="2 links")``; it may not be listening."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    text = "\n".join(f"{name}={value}" for name, value in state.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto(text.encode(), address)
        except OSError:  # the manager is restarting itself; it asks for nothing it has missed
            return


class Watchdog:
    """Signs of life for the manager, if it wants any; a few a second, however often called."""

    def __init__(self) -> None:
        wanted = watchdog_interval()
        self._pause = min(_PAUSE, wanted / 4) if wanted else inf
        self._next = -inf if wanted else inf

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._pause
            notify(WATCHDOG=1)


def is_journal(stream: TextIO) -> bool:
    """Whether the manager connected the stream to the journal: systemd.exec(5), JOURNAL_STREAM.

    A process below a service inherits the variable, and may write elsewhere.
    """
    told = os.environ.get("JOURNAL_STREAM")
    if not told:
        return False
    try:
        there = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file
        return False
    return told == f"{there.st_dev}:{there.st_ino}"


def watchdog_interval() -> float | None:
    """Seconds within which the manager wants a sign of life; None if it wants none."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    return microseconds / 1e6 or None


def is_restarting() -> bool:
    """Whether the manager stops this unit only to start it again.

    It says so in its running job (``restart`` against ``stop``), which also a package upgrade
    makes. If it cannot be asked the answer is no: better detached than left behind.
    """
    unit = _unit()
    if not unit:
        return False
    import subprocess  # 3 ms that only an end below systemd should cost

    try:
        jobs = subprocess.run(
            ["systemctl", "list-jobs", "--no-legend", "--plain", unit],
            capture_output=True,
            text=True,
            timeout=_ANSWER,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return any(line.split()[1:3] == [unit, "restart"] for line in jobs.splitlines())


def _unit() -> str:
    """The service this process is the main one of; empty outside of systemd.

    A process started by hand somewhere below a service inherits what systemd tells it.
    """
    if "INVOCATION_ID" not in os.environ:
        return ""
    if os.environ.get("SYSTEMD_EXEC_PID", str(os.getpid())) != str(os.getpid()):
        return ""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        name = line.rpartition("/")[2]
        if name.endswith(".service"):
            return name
    return ""
