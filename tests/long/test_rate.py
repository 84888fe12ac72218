"""A rate is what it says, in TCP and UDP, and its first burst is two frames: ten seconds each.

Counted are the bytes of whole frames that reach the far end. A machine that has no processor for
the kernel's timers keeps no rate: of three tries one has to be good.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import pytest

from tests.netns.lab import Lab, Station, inside
from tests.netns.service import Daemon

MBIT: Final = 10**6
SECONDS: Final = 10.0
_TRIES: Final = 3
_PORT: Final = 7863
_UDP_SEGMENT: Final = 103
_SO_TIMESTAMPNS: Final = 35
_SEGMENT: Final = 1448


@pytest.fixture
def stations(lab: Lab) -> tuple[Station, Station]:
    return lab.veth("va", 1), lab.veth("vb", 2)


@contextmanager
def going_on(act: Callable[[], None]) -> Iterator[None]:
    """Again and again, by another thread."""
    over = threading.Event()

    def repeat() -> None:
        with suppress(OSError):  # the other end has gone
            while not over.is_set():
                act()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


@contextmanager
def udp(sender: Station, receiver: Station, rate: int) -> Iterator[None]:
    """Half as much again as the rate."""

    def opened() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    with inside(receiver.namespace, opened) as taking, inside(sender.namespace, opened) as sending:
        taking.bind(("", _PORT))
        sending.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, _SEGMENT)
        count = max(1, min(40, rate // (8 * _SEGMENT * 200)))
        begin, sent = time.monotonic(), 0

        def send() -> None:
            nonlocal sent
            sending.sendto(bytes(count * _SEGMENT), (receiver.address(), _PORT))
            sent += count * _SEGMENT * 8
            time.sleep(max(0.0, begin + sent / (1.5 * rate) - time.monotonic()))

        with going_on(send):
            yield


@contextmanager
def tcp(sender: Station, receiver: Station, _rate: int) -> Iterator[None]:
    def listen() -> socket.socket:
        return socket.create_server((receiver.address(), _PORT))

    def connect() -> socket.socket:
        return socket.create_connection((receiver.address(), _PORT), 10)

    with inside(receiver.namespace, listen) as server, inside(sender.namespace, connect) as client:
        taking, _ = server.accept()
        data = bytes(1 << 16)

        with taking, going_on(lambda: taking.recv(1 << 18)), going_on(lambda: client.send(data)):
            yield
            client.shutdown(socket.SHUT_RDWR)


def received(lab: Lab) -> int:
    """Bytes that have left by vb."""
    (link,) = json.loads(lab.ip("-s", "-j", "link", "show", "dev", "vb"))
    return int(link["stats64"]["tx"]["bytes"])


def measured(lab: Lab, seconds: float) -> float:
    """Bits per second."""
    before, begin = received(lab), time.monotonic()
    time.sleep(seconds)
    now, end = received(lab), time.monotonic()
    return (now - before) * 8 / (end - begin)


@pytest.mark.parametrize("rate", [1, 10, 100, 1000])
@pytest.mark.parametrize("traffic", [udp, tcp])
def test_a_rate_is_kept_within_a_hundredth(
    lab: Lab,
    stations: tuple[Station, Station],
    traffic: Callable[[Station, Station, int], object],
    rate: int,
) -> None:
    running = Daemon(lab, {"va": {"to": "vb", "impair": {"forward": {"rate": f"{rate}mbit"}}}})
    running.start().connected()
    found = []
    with traffic(*stations, rate * MBIT):  # type: ignore[attr-defined]
        time.sleep(2)
        for _ in range(_TRIES):
            found.append(measured(lab, SECONDS) / (rate * MBIT))
            if found[-1] == pytest.approx(1, abs=0.01):
                break
    print(f"{traffic.__name__} at {rate} Mbit/s: {[f'{each:.4f}' for each in found]}")
    assert found[-1] == pytest.approx(1, abs=0.01), found


@pytest.mark.parametrize("rate", [1, 10, 50])
def test_after_a_silence_two_frames_come_at_once(
    lab: Lab, stations: tuple[Station, Station], rate: int
) -> None:
    running = Daemon(lab, {"va": {"to": "vb", "impair": {"forward": {"rate": f"{rate}mbit"}}}})
    running.start().connected()
    sender, receiver = stations
    arrivals: list[float] = []
    with sender.port() as source, receiver.port() as sink:
        sink._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sink._socket.setblocking(True)
        sink._socket.settimeout(5)
        time.sleep(0.5)
        frame = b"\xff" * 12 + b"\x88\xb5" + bytes(1500)
        for _ in range(40):
            source.send(frame)
        while len(arrivals) < 40:
            data, extra, _, _ = sink._socket.recvmsg(2000, 256)
            if data[12:14] == b"\x88\xb5":
                arrivals += [_seconds(value) for _, kind, value in extra if kind == _SO_TIMESTAMPNS]
    size = len(frame) * 8
    excess = [n + 1 - (at - arrivals[0]) * rate * MBIT / size for n, at in enumerate(arrivals)]
    print(f"{rate} Mbit/s: {max(excess):.2f} frames at most above the rate")
    assert max(excess) <= 2.2


def _seconds(value: bytes) -> float:
    seconds, nanoseconds = struct.unpack("=qq", value)
    return float(seconds + nanoseconds / 1e9)
