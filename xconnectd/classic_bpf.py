"""Classic BPF: its instructions, and programs of them on sockets (linux/filter.h, socket(7)).

A program says how many bytes of a message the kernel is to hand over; of 0 nothing is told.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

LOAD_WORD: Final = 0x20
LOAD_HALF: Final = 0x28
LOAD_BYTE: Final = 0x30
JUMP_IF_EQUAL: Final = 0x15
RETURN: Final = 0x06

# asm/socket.h; Python's socket has none of them
_ATTACH_FILTER: Final = 26
_DETACH_FILTER: Final = 27

_INSTRUCTION: Final = struct.Struct("=HBBI")
_PROGRAM: Final = struct.Struct("@HP")  # struct sock_fprog


class Instruction(NamedTuple):
    """``jt`` and ``jf`` are how many instructions a jump that is taken, or is not, leaves out."""

    code: int
    jt: int
    jf: int
    k: int


def load(code: int, at: int) -> Instruction:
    """What stands there in the message, in network order."""
    return Instruction(code, 0, 0, at)


def if_equal(value: int, skip: int) -> Instruction:
    """Leaves ``skip`` instructions out if that was loaded."""
    return Instruction(JUMP_IF_EQUAL, skip, 0, value)


def unless_equal(value: int, skip: int) -> Instruction:
    """Leaves ``skip`` instructions out unless that was loaded."""
    return Instruction(JUMP_IF_EQUAL, 0, skip, value)


def give(size: int) -> Instruction:
    """Ends the program: so many bytes of the message are handed over."""
    return Instruction(RETURN, 0, 0, size)


def attach(receiver: socket.socket, program: Iterable[Instruction]) -> None:
    """In place of the one it has.

    Raises:
        OSError: it has more than 4,096 instructions (BPF_MAXINSNS), say.
    """
    code = b"".join([_INSTRUCTION.pack(*each) for each in program])
    held = ctypes.create_string_buffer(code, len(code))
    pointer = _PROGRAM.pack(len(code) // _INSTRUCTION.size, ctypes.addressof(held))
    receiver.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, pointer)


def detach(receiver: socket.socket) -> None:
    """Everything is handed over again. Raises OSError if there is none."""
    receiver.setsockopt(socket.SOL_SOCKET, _DETACH_FILTER, 0)
