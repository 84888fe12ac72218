"""Frames and bytes: raw ports, taps, numbered streams, TCP and UDP with every byte checked."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import itertools
import os
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, Self

if TYPE_CHECKING:
    from .lab import Station

ETH_P_ALL: Final = 3
ETH_P_STREAM: Final = 0x88B5
"""Local experimental ethertype: the numbered frames of a :class:`Stream`."""

_SOL_PACKET: Final = 263
_PACKET_AUXDATA: Final = 8
_PACKET_IGNORE_OUTGOING: Final = 23
_SO_RCVBUFFORCE: Final = 33
_VLAN_VALID: Final = 0x10
_VLAN_TPID_VALID: Final = 0x40
_LONGEST: Final = 70_000

ALIVE: Final = 0.01
"""Gbit/s of TCP. A wire that loses big segments or checksums does 0.0002, a good one 10 on an idle
machine and a fraction of that on a busy one; how fast it is exactly is for the bench."""


class Wire(Protocol):
    """Anything that frames can be sent into and come out of."""

    def send(self, frame: bytes) -> None: ...
    def drain(self) -> list[bytes]: ...
    def close(self) -> None: ...


_NAP: Final = 0.002


def looks(seconds: float) -> Iterator[None]:
    """As many moments as an idle machine has in that time, and more time where they are rare.

    Who gets no processor sees no frame either, so its own clock is no measure of what is lost.
    """
    for _ in range(1 + round(seconds / _NAP)):
        yield
        time.sleep(_NAP)


def collect(port: Wire, count: int, timeout: float = 2.0, quiet: float = 0.05) -> list[bytes]:
    """What arrives: until ``count`` frames are there (and then for ``quiet`` seconds more)."""
    frames: list[bytes] = []
    for _ in looks(timeout):
        frames += port.drain()
        if len(frames) >= count:
            break
    for _ in looks(quiet):
        frames += port.drain()
    return frames


@dataclass(frozen=True)
class Delivery:
    missing: list[bytes]
    extra: list[bytes]
    reordered: bool

    @property
    def exact(self) -> bool:
        return not (self.missing or self.extra or self.reordered)

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "extra": self.extra}
        shown = (
            f"{len(frames)} {kind}"
            + "".join(f"\n  {len(x)}: {x[:48].hex(' ')}" for x in frames[:10])
            for kind, frames in kinds.items()
        )
        return "\n".join((*shown, f"reordered: {self.reordered}"))


def compare(sent: Sequence[bytes], received: Sequence[bytes]) -> Delivery:
    """Set what was sent against what came, byte for byte."""
    missing = list((Counter(sent) - Counter(received)).elements())
    extra = list((Counter(received) - Counter(sent)).elements())
    return Delivery(missing, extra, not missing and not extra and list(sent) != list(received))


def exchange(
    sender: Wire, receiver: Wire, frames: Sequence[bytes], timeout: float = 2.0
) -> Delivery:
    """Send frames at one place and see what comes out at the other."""
    receiver.drain()
    for frame in frames:
        with contextlib.suppress(OSError):  # without a carrier
            sender.send(frame)
    return compare(frames, collect(receiver, len(frames), timeout))


def passes(sender: Wire, receiver: Wire, timeout: float = 0.1) -> bool:
    """Whether a frame gets from one place to the other now."""
    probe = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb6" + os.urandom(46)
    receiver.drain()
    with contextlib.suppress(OSError):  # without a carrier
        sender.send(probe)
    return any(probe in receiver.drain() for _ in looks(timeout))


def crosses(a: Wire, b: Wire, frames: Sequence[bytes]) -> None:
    """Assert that the frames arrive both ways as they were sent, and nothing else does."""
    for ways in ((a, b), (b, a)):
        delivery = exchange(*ways, frames)
        assert delivery.exact, delivery


def wired(a: Station, b: Station) -> bool:
    """Whether frames cross both ways between two stations now."""
    with a.port() as here, b.port() as there:
        return passes(here, there) and passes(there, here)


def cut(a: Station, b: Station) -> bool:
    """Whether frames cross neither way."""
    with a.port() as here, b.port() as there:
        return not passes(here, there, 0.05) and not passes(there, here, 0.05)


class Closing:
    """What is a context manager by its ``close``."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Port(Closing):
    """A raw socket on an interface of the namespace that it is made in.

    It sees what comes in, not what goes out, with VLAN tags where they belong.
    """

    def __init__(self, interface: str, protocol: int = ETH_P_ALL) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self._socket.bind((interface, protocol))

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def drain(self) -> list[bytes]:
        """Every frame that has arrived by now."""
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frames.append(self._receive())
        return frames

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> bytes:
        data, ancillary, _, _ = self._socket.recvmsg(_LONGEST, 64, socket.MSG_DONTWAIT)
        for level, kind, value in ancillary:
            if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
                return _with_tag(data, value)
        return data


def _with_tag(data: bytes, auxiliary: bytes) -> bytes:
    """Put a VLAN tag that the kernel keeps beside the frame back into it."""
    status, _, _, _, _, tag, protocol = struct.unpack("IIIHHHH", auxiliary)
    if not status & _VLAN_VALID:
        return data
    kind = protocol if status & _VLAN_TPID_VALID else 0x8100
    return data[:12] + struct.pack("!HH", kind, tag) + data[12:]


_TUNSETIFF: Final = 0x400454CA
_TUNSETOFFLOAD: Final = 0x400454D0
_IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
_HEADER: Final = 10

OLD_OFFLOADS: Final = 0x01 | 0x02 | 0x04 | 0x08
"""Checksum, TSO for IPv4 and IPv6, ECN: what a guest's virtio driver asks for."""

OFFLOADS: Final = OLD_OFFLOADS | 0x20 | 0x40
"""The same with UDP segmentation for IPv4 and IPv6 (virtio and tun since Linux 6.2)."""


class Tap(Closing):
    """A tap as QEMU holds it, made in the namespace of the calling thread."""

    def __init__(self, name: str, *, vnet_hdr: bool = True, offloads: int = OFFLOADS) -> None:
        self.name = name
        self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._header = bytes(_HEADER) if vnet_hdr else b""
        flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if vnet_hdr else 0)
        fcntl.ioctl(self.fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        self.offload(offloads if vnet_hdr else 0)

    def offload(self, flags: int) -> None:
        """Say what the reader of this tap can take; ``ethtool -k`` shows it at once."""
        fcntl.ioctl(self.fd, _TUNSETOFFLOAD, flags)

    def send(self, frame: bytes) -> None:
        os.write(self.fd, self._header + frame)

    def drain(self) -> list[bytes]:
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frames.append(os.read(self.fd, _LONGEST)[len(self._header) :])
        return frames

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Pump:
    """A thread that carries frames between two taps with their virtio headers as they are."""

    def __init__(self, *taps: Tap) -> None:
        self._ways = {taps[0].fd: taps[1].fd, taps[1].fd: taps[0].fd}
        self._wake, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.close(self._stop)
        self._thread.join()
        os.close(self._wake)

    def _run(self) -> None:
        poller = select.poll()
        for fd in (*self._ways, self._wake):
            poller.register(fd, select.POLLIN)
        while True:
            for fd, events in poller.poll():
                if fd == self._wake:
                    return
                if events & select.POLLIN:
                    _move(fd, self._ways[fd])


def _move(source: int, target: int) -> None:
    """Carry what waits; a card that is down loses frames, as a real one does."""
    for _ in range(64):
        try:
            data = os.read(source, _LONGEST)
        except OSError:
            return
        with contextlib.suppress(OSError):
            os.write(target, data)


@dataclass
class Direction:
    """One way of a stream: what was sent and what arrived, by number."""

    sender: Wire
    receiver: Wire
    size: int
    mark: bytes = field(default_factory=lambda: os.urandom(8))
    sent: int = 0
    seen: Counter[int] = field(default_factory=Counter)
    last: int = -1
    reordered: int = 0

    def send(self) -> None:
        head = b"\x02\0\0\0\0\x0b\x02\0\0\0\0\x0a" + ETH_P_STREAM.to_bytes(2, "big")
        frame = head + self.mark + self.sent.to_bytes(8, "big")
        with contextlib.suppress(OSError):  # it is lost then
            self.sender.send(frame.ljust(self.size, b"\x5a"))
        self.sent += 1

    def receive(self) -> None:
        for frame in self.receiver.drain():
            if frame[14:22] != self.mark:
                continue
            number = int.from_bytes(frame[22:30], "big")
            self.seen[number] += 1
            self.reordered += number < self.last
            self.last = max(number, self.last)

    @property
    def received(self) -> int:
        return len(self.seen)

    @property
    def lost(self) -> int:
        return self.sent - len(self.seen)

    @property
    def duplicated(self) -> int:
        return sum(self.seen.values()) - len(self.seen)

    def longest_gap(self) -> int:
        """The most frames lost in a row."""
        arrived = [-1, *sorted(self.seen), self.sent]
        return max(b - a - 1 for a, b in itertools.pairwise(arrived))

    def __str__(self) -> str:
        return (
            f"{self.sent} sent, {self.lost} lost (at most {self.longest_gap()} in a row), "
            f"{self.duplicated} twice, {self.reordered} reordered"
        )


class Stream(Closing):
    """Numbered frames at a steady rate from A to B and from B to A, until it is stopped.

    One thread sends and receives; big socket buffers bridge the moments it does not run.
    """

    def __init__(
        self, a: Station | Tap, b: Station | Tap, rate: int = 2000, size: int = 64
    ) -> None:
        wires = [x if isinstance(x, Tap) else x.port(ETH_P_STREAM) for x in (a, b)]
        self._ports = [wire for wire in wires if isinstance(wire, Port)]
        self.forth = Direction(wires[0], wires[1], size)
        self.back = Direction(wires[1], wires[0], size)
        self._rate = rate
        self._took = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def ways(self) -> tuple[Direction, Direction]:
        return (self.forth, self.back)

    @property
    def rate(self) -> float:
        """Frames a second that were really sent each way."""
        return self.forth.sent / self._took

    def flows(self) -> bool:
        """Whether frames arrive both ways."""
        return all(way.received for way in self.ways)

    def stop(self) -> Self:
        """End the sending, let the last frames arrive, close the ports."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join()
            for port in self._ports:
                port.close()
        return self

    def assert_perfect(self) -> None:
        """Stop, and assert that every frame arrived once and in its turn."""
        self.assert_whole()
        assert not any(way.reordered for way in self.ways), str(self)

    def assert_whole(self) -> None:
        """Stop, and assert that every frame arrived once, in whatever order.

        For NICs of several queues: one is chosen by the CPU that the sender happens to run on.
        """
        self.stop()
        for way in self.ways:
            assert way.sent > 0
            assert way.lost == way.duplicated == 0, str(self)

    def close(self) -> None:
        self.stop()

    def __str__(self) -> str:
        return f"forth: {self.forth}; back: {self.back}"

    def _run(self) -> None:
        start = begin = time.monotonic()
        while not self._over.wait(0.001):
            due = int((time.monotonic() - start) * self._rate)
            if due - self.forth.sent > 200:  # after a stall: no burst that would fill a queue
                start = time.monotonic() - self.forth.sent / self._rate
                due = self.forth.sent + 1
            self._tick(due - self.forth.sent)
        self._took = time.monotonic() - begin
        for _ in looks(0.5):
            self._tick(0)
            if not any(way.lost for way in self.ways):
                break

    def _tick(self, count: int) -> None:
        for _ in range(count):
            for way in self.ways:
                way.send()
        for way in self.ways:
            way.receive()


@contextlib.contextmanager
def lossless(a: Station | Tap, b: Station | Tap, rate: int = 2000) -> Iterator[Stream]:
    """Meanwhile frames cross both ways; each must arrive once and in its turn."""
    with Stream(a, b, rate) as stream:
        wait_flows(stream)
        yield stream
    stream.assert_perfect()


def wait_flows(*streams: Stream) -> None:
    from .lab import poll

    poll(lambda: all(stream.flows() for stream in streams), what="frames that cross")


@functools.cache
def _noise(size: int) -> bytes:
    return os.urandom(size)


def transfer(
    client: Station, server: Station, *, v6: bool = False, size: int = 32 << 20, timeout: float = 60
) -> float:
    """Send bytes over TCP, assert that the same bytes arrive; returns Gbit/s."""
    listener = _socket(server, v6, socket.SOCK_STREAM)
    sender = _socket(client, v6, socket.SOCK_STREAM)
    data = _noise(size)
    for end in (listener, sender):
        end.settimeout(timeout)
    with listener, sender, ThreadPoolExecutor(1) as thread:
        listener.bind((server.address(v6), 0))
        listener.listen(1)
        arrived = thread.submit(_absorb, listener, timeout)
        start = time.monotonic()
        try:
            sender.connect(listener.getsockname()[:2])
            _push(sender, data, start + timeout)
        finally:
            sender.close()
            count, digest = arrived.result()
        took = time.monotonic() - start
    assert count == size, f"{count} of {size} bytes arrived"
    assert digest == hashlib.sha256(data).digest(), "the bytes are not the same"
    return size * 8 / took / 1e9


def _push(sender: socket.socket, data: bytes, deadline: float) -> None:
    view = memoryview(data)
    while view:
        assert time.monotonic() < deadline, f"TCP is too slow: {len(view)} of {len(data)} left"
        view = view[sender.send(view[: 1 << 20]) :]


def _absorb(listener: socket.socket, timeout: float) -> tuple[int, bytes]:
    digest, count = hashlib.sha256(), 0
    with contextlib.suppress(TimeoutError, ConnectionError):
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(timeout)
            while data := connection.recv(1 << 20):
                digest.update(data)
                count += len(data)
    return count, digest.digest()


def datagrams(
    client: Station,
    server: Station,
    sizes: Iterable[int] = (1, 100, 1400),
    *,
    v6: bool = False,
    count: int = 20,
    segment: int = 0,
) -> None:
    """Send UDP datagrams of some sizes and assert that each arrives whole.

    With ``segment`` the kernel is handed big ones to cut up (UDP GSO).
    """
    receiver, sender = (_socket(x, v6, socket.SOCK_DGRAM) for x in (server, client))
    with receiver, sender:
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
        receiver.bind((server.address(v6), 0))
        sender.connect(receiver.getsockname()[:2])
        _introduce(sender, receiver)
        if segment:
            sender.setsockopt(socket.IPPROTO_UDP, 103, segment)
        sent = [_noise(size)[:-1] + bytes([n]) for size in sizes for n in range(count)]
        for datagram in sent:
            sender.send(datagram)
        cut = (range(0, len(x), segment or len(x)) for x in sent)
        parts = [
            x[i : i + (segment or len(x))] for x, at in zip(sent, cut, strict=True) for i in at
        ]
        got = sorted(_gather(receiver, len(parts)))
    assert got == sorted(parts), f"{len(got)} of {len(parts)} datagrams arrived, or not as sent"


def _introduce(sender: socket.socket, receiver: socket.socket) -> None:
    """Have the neighbours known, so that no datagram is lost waiting for an answer."""
    receiver.settimeout(0.2)
    for _ in range(100):
        sender.send(b"hello")
        with contextlib.suppress(TimeoutError):
            receiver.recv(10)
            return
    raise AssertionError("no UDP datagram arrives")


def _gather(receiver: socket.socket, count: int) -> list[bytes]:
    got: list[bytes] = []
    receiver.settimeout(3)
    with contextlib.suppress(TimeoutError):
        while len(got) < count:
            if (datagram := receiver.recv(1 << 16)) != b"hello":
                got.append(datagram)
    return got


def _socket(station: Station, v6: bool, kind: socket.SocketKind) -> socket.socket:
    from .lab import inside

    family = socket.AF_INET6 if v6 else socket.AF_INET
    make: Callable[[], socket.socket] = lambda: socket.socket(family, kind)  # noqa: E731
    return inside(station.namespace, make)
