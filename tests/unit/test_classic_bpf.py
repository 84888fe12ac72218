"""Which messages the kernel hands over, by programs on real sockets: unix ones take them, too."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import pytest

from xconnectd import classic_bpf
from xconnectd.classic_bpf import Instruction
from xconnectd.diagnostics import packet_socket as of_tests
from xconnectd.diagnostics.test_frames import Series
from xconnectd.tunnels import keepalive
from xconnectd.tunnels import packet_socket as of_daemons
from xconnectd.tunnels.keepalive import Message

PROBE = keepalive.probe(1, 2)
ECHO = PROBE[:22] + bytes([keepalive.ECHO]) + PROBE[23:]
MESSAGE = keepalive.encode(Message(1, 2, 3, "a:b", "", "connected", offers=True, cause=""), 7, b"")
OTHER_TYPE = ECHO[:12] + b"\x08\x06" + ECHO[14:]
OTHER_USE = (ECHO[:14] + b"somebody" + ECHO[22:], ECHO[:18] + b"body" + ECHO[22:])
TEST_FRAME = Series(bytes(8), 0, bytes(6), bytes(6)).frame(0, 60)


@pytest.mark.parametrize(
    ("program", "given", "kept_out"),
    [
        (of_daemons._FOR_DAEMONS, [ECHO, MESSAGE], [PROBE, OTHER_TYPE, *OTHER_USE, b"short"]),
        (of_tests._TEST_FRAMES, [TEST_FRAME], [ECHO, OTHER_TYPE, b"short"]),
    ],
    ids=["daemons", "tests"],
)
def test_what_is_handed_over(
    program: Sequence[Instruction], given: list[bytes], kept_out: list[bytes]
) -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with here, there:
        classic_bpf.attach(there, program)
        for frame in (*kept_out, *given):
            here.send(frame)
        assert [there.recv(4096) for _ in given] == given
        there.setblocking(False)
        with pytest.raises(BlockingIOError):
            there.recv(4096)
        classic_bpf.detach(there)
        here.send(b"anything")
        assert there.recv(4096) == b"anything"
