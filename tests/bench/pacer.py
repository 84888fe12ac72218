"""Frames at a steady pace out of containers' interfaces, from a process of its own.

``python -m tests.bench.pacer NAMESPACE…`` sends by eth0 of each until its stdin is closed, and
prints how many frames it sent by each.
"""

from __future__ import annotations

import contextlib
import ctypes
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

from tests.netns.lab import REPO, Station, inside
from tests.netns.traffic import ETH_P_STREAM

INTERVAL: Final = 100e-6
"""Seconds. It is half of what a measured gap is too long by, on average."""

_FRAME: Final = b"\xff" * 6 + b"\x02\0\0\0\0\x0a" + ETH_P_STREAM.to_bytes(2, "big") + bytes(46)
_PR_SET_TIMERSLACK: Final = 29


class Pacer:
    """The process, seen from the one that measures."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def stop(self) -> int:
        """Ends the sending; returns how many frames went out of each interface."""
        return int(self._process.communicate(timeout=60)[0])


@contextlib.contextmanager
def pacing(stations: Sequence[Station]) -> Iterator[Pacer]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.pacer", *(one.namespace for one in stations)],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Pacer(process)
    finally:
        process.kill()
        process.communicate()


def main(namespaces: Sequence[str]) -> None:
    precise_sleep()
    ports = [inside(namespace, _port) for namespace in namespaces]
    sent = 0
    while is_wanted():
        for port in ports:
            port.send(_FRAME)
        sent += 1
        time.sleep(INTERVAL)
    sys.stdout.write(str(sent))


def _port() -> socket.socket:
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    port.bind(("eth0", 0))
    return port


def precise_sleep() -> None:
    """A sleep of this process is 50 µs too long otherwise."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def is_wanted() -> bool:
    """Whether stdin is open yet."""
    return not select.select([0], [], [], 0)[0]


if __name__ == "__main__":
    main(sys.argv[1:])
