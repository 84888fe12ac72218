"""Impairments that take sch_netem, against their numbers: in guests only, the kernels here have it.

By emulation times mean little, but which frames are lost is the same on any machine.
"""

from __future__ import annotations

import ctypes
import itertools
import socket
import statistics
import struct
import time
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import Any, Final

import pytest
from netns.lab import Lab, Station, inside, poll
from netns.service import Daemon, Start
from netns.traffic import lossless

from kernels.emulated import KERNEL

MANY: Final = 1_000_000
SOME: Final = 100_000
_SEGMENTS: Final = 50
"""Frames in one call of the sender: the kernel cuts them apart at the queue that impairs them."""
_ROUND: Final = 5_000
_SIZE: Final = 64
_PORT: Final = 7863
_LATE: Final = 0.01
"""Seconds that an emulated timer is late, in the median: seen were 3 to 6 ms."""
_UDP_SEGMENT: Final = 103
_SO_RCVBUFFORCE: Final = 33
_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_long),  # an int, and as much again: struct msghdr ends here
        ("length", ctypes.c_ulong),
    )


class Receiver:
    """Numbers out of datagrams, some hundred a call."""

    _BATCH: Final = 512

    def __init__(self, station: Station) -> None:
        self.socket = inside(
            station.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        )
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        self.socket.bind(("", _PORT))
        self._data = ctypes.create_string_buffer(self._BATCH * 8)
        begin = ctypes.addressof(self._data)
        self._vectors = (_Iovec * self._BATCH)(*((begin + 8 * n, 8) for n in range(self._BATCH)))
        self._messages = (_Message * self._BATCH)()
        for n in range(self._BATCH):
            self._messages[n].iov = ctypes.pointer(self._vectors[n])
            self._messages[n].iov_length = 1

    def drain(self) -> Iterator[int]:
        while True:
            count = _libc.recvmmsg(
                self.socket.fileno(), self._messages, self._BATCH, socket.MSG_DONTWAIT, None
            )
            if count <= 0:
                return
            yield from struct.unpack_from(f"={count}Q", self._data)


def lost(sender: Station, receiver: Station, count: int) -> list[int]:
    """The numbers of the frames that did not arrive, of so many."""
    target = (receiver.address(), _PORT)
    arrived = bytearray(count)
    taking = Receiver(receiver)
    with (
        taking.socket,
        inside(
            sender.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ) as sending,
    ):
        sending.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, _SIZE)
        for begin in range(0, count, _SEGMENTS):
            numbers = range(begin, begin + _SEGMENTS)
            sending.sendto(b"".join(struct.pack("=Q56x", n) for n in numbers), target)
            if begin % _ROUND == 0:
                for n in taking.drain():
                    arrived[n] = 1
        for _ in range(20):
            for n in taking.drain():
                arrived[n] = 1
            time.sleep(0.02)
    return [n for n in range(count) if not arrived[n]]


def runs(numbers: list[int]) -> list[int]:
    """How many follow one another, each time."""
    found = [1] if numbers else []
    for before, after in itertools.pairwise(numbers):
        if after == before + 1:
            found[-1] += 1
        else:
            found.append(1)
    return found


@pytest.fixture(autouse=True)
def _room() -> Iterator[None]:
    """Where a processor that is late drops nothing of what veths hand over (netif_rx)."""
    path = Path("/proc/sys/net/core/netdev_max_backlog")
    before = path.read_text()
    path.write_text("100000")
    yield
    path.write_text(before)


@pytest.fixture
def stations(lab: Lab) -> tuple[Station, Station]:
    """They say nothing by themselves: each frame would take a random number."""
    a, b = lab.veths("va", "vb")
    for number, station in enumerate((a, b), 1):
        station.use_address(number)
    for here, there in ((a, b), (b, a)):
        mac = there.mac.hex(":")
        here.ip(f"neigh replace {there.address()} lladdr {mac} dev eth0 nud permanent")
    return a, b


def wire(**forward: Any) -> dict[str, Any]:
    return {"va": {"to": "vb", "impair": {"forward": forward}}}


def start(daemon: Start, **forward: Any) -> Daemon:
    running = daemon(wire(**forward))
    running.wait_state("va", "vb", "connected")
    return running


def test_nothing_is_lost_by_the_measurement(
    daemon: Start, stations: tuple[Station, Station]
) -> None:
    start(daemon, delay="1us")
    assert lost(*stations, SOME) == []


@pytest.mark.parametrize("share", [0.01, 0.001])
def test_a_share_of_the_frames_is_lost(
    daemon: Start, stations: tuple[Station, Station], share: float
) -> None:
    running = start(daemon, loss=f"{share:%}")
    gone = lost(*stations, MANY)
    assert len(gone) == running.link()["a"]["dropped"]["impaired_loss"]
    print(f"loss {share:%}: {len(gone)} of {MANY}")
    deviation = sqrt(share * (1 - share) * MANY)  # by chance: there is no seed before Linux 6.6
    assert len(gone) == pytest.approx(share * MANY, abs=5 * deviation)


def test_bursts_have_their_mean_length(daemon: Start, stations: tuple[Station, Station]) -> None:
    start(daemon, loss={"mean": "1%", "burst": 5})
    gone = lost(*stations, MANY)
    mean = statistics.mean(runs(gone))
    print(f"bursts: {len(gone)} of {MANY} in runs of {mean:.3f}")
    assert mean == pytest.approx(5, rel=0.05)
    assert len(gone) == pytest.approx(0.01 * MANY, rel=0.1)


@pytest.mark.skipif(KERNEL < (6, 6), reason="before Linux 6.6 netem takes no seed")
def test_the_same_seed_loses_the_same_frames(
    daemon: Start, stations: tuple[Station, Station]
) -> None:
    running = start(daemon, loss="1%", seed=7)
    first = lost(*stations, SOME)
    running.crash()
    for seed in (8, 7):
        running.write(wire(loss="1%", seed=seed))
        poll(lambda: running.reload() and not running.seen()["differences"])
        again = lost(*stations, SOME)
        assert (first == again) == (seed == 7)
    assert first


@pytest.mark.skipif(KERNEL >= (6, 6), reason="since Linux 6.6 netem takes a seed")
@pytest.mark.usefixtures("stations")
def test_a_seed_that_netem_does_not_know_is_refused_by_name(daemon: Start) -> None:
    running = daemon(wire(loss="1%", seed=7))
    assert (
        "seed: netem takes one since Linux 6.6"
        in running.wait_state("va", "vb", "failed")["reason"]
    )


@pytest.mark.parametrize("delay", [1, 10, 100])
def test_a_delay_is_as_long_as_it_says(
    daemon: Start, stations: tuple[Station, Station], delay: int
) -> None:
    """Against the same wire without it: emulation has a delay of its own."""
    running = start(daemon, rate="1gbit")
    without = statistics.median(_one_way(*stations))
    running.write(wire(delay=f"{delay}ms"))
    poll(lambda: "netem" in running.lab.tc("qdisc show dev vb"))
    took = statistics.median(_one_way(*stations)) - without
    print(f"delay {delay} ms: {took * 1000:.2f} ms more than {without * 1000:.2f} ms")
    assert delay / 1000 * 0.98 <= took <= delay / 1000 * 1.1 + _LATE


def _one_way(sender: Station, receiver: Station) -> list[float]:
    taken = []
    with sender.port() as source, receiver.port() as sink:
        for n in range(50):
            frame = b"\xff" * 12 + b"\x88\xb5" + n.to_bytes(8, "big") + bytes(40)
            begun = time.monotonic()
            source.send(frame)
            while frame not in sink.drain():
                assert time.monotonic() - begun < 5
            taken.append(time.monotonic() - begun)
    return taken


@pytest.mark.usefixtures("stations")
def test_every_option_is_read_back_as_it_was_set(daemon: Start) -> None:
    """So nothing is done again without a change, and what is changed by hand is put right."""
    everything = {
        "delay": "20ms",
        "jitter": "2ms",
        "distribution": "normal",
        "corrupt": "1%",
        "duplicate": "2%",
        "reorder": "3%",
        "rate": "50mbit",
        "limit": 77,
        "loss": {"mean": "1%", "burst": 3},
    }
    running = start(daemon, **everything)
    lab = running.lab
    print(lab.tc("-s qdisc show dev vb"))
    assert running.seen()["differences"] == []
    for change in ("delay 30ms", "delay 20ms 2ms loss 5%", "rate 1mbit delay 20ms 2ms"):
        lab.tc(f"qdisc change dev vb parent 7863:1 handle 7865: netem {change}")
        poll(lambda: running.events("drift.repaired"))
        poll(lambda: running.seen()["differences"] == [])
    running.write(wire())
    poll(lambda: "netem" not in lab.tc("qdisc show dev vb"))
    assert "tbf" not in lab.tc("qdisc show dev vb")


@pytest.mark.usefixtures("stations")
def test_from_one_kind_to_another_and_back(daemon: Start) -> None:
    running = start(daemon, rate="10mbit")
    kinds = [
        ({"delay": "1ms"}, "netem"),
        ({"delay": "1ms", "rate": "1gbit"}, "bfifo"),
        ({"delay": "1ms"}, "netem"),
        ({"loss": "100%"}, "blackhole"),
        ({"rate": "10mbit"}, "bfifo"),
        ({"delay": "1ms", "jitter": "1ms", "distribution": "pareto"}, "netem 7866:"),
    ]
    for values, kind in kinds:
        running.write(wire(**values))
        poll(lambda kind=kind: kind in running.lab.tc("qdisc show dev vb"))
        poll(lambda: running.seen()["differences"] == [])
        assert running.link()["state"] == "connected"


def test_a_delay_that_changes_loses_no_frame(
    daemon: Start, stations: tuple[Station, Station]
) -> None:
    running = start(daemon, delay="1ms")
    with lossless(*stations, rate=200):
        for delay in ("2ms", "5ms", "7ms"):
            running.write(wire(delay=delay))
            poll(lambda delay=delay: f"delay {delay}" in running.lab.tc("qdisc show dev vb"))
