"""A filter in tcpdump's syntax as a program for tc, which drops and counts what it matches.

libpcap makes classic BPF of an expression. That is translated here to eBPF, so that the filter sees
a frame as it is on the wire: the kernel keeps a VLAN tag beside it (all of them do that at clsact),
where classic BPF would take an inner header for the outer one. So the translation is made twice,
for frames with such a tag and without.

Only frames of the wire are judged: those whose ingress leads to this very interface. So it does not
matter in which order this and the program against the host's frames are run.

Pure, but for what calls it with descriptors.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from xconnectd.classic_bpf import Instruction

VERSION: Final = 1
"""Of the translation: a filter that an earlier one made is made anew."""

_INSTRUCTION: Final = struct.Struct("<BBhi")

# Registers: what a helper takes and returns, and what it leaves alone.
_R0, _R1, _R2, _R3, _R4, _SKB, _A, _X, _TAG, _FP = 0, 1, 2, 3, 4, 6, 7, 8, 9, 10
_WORDS: Final = 16
_SLOT: Final = 8
"""Bytes of the stack that each value has, and that are stored and loaded, though four would do. The
verifier before Linux 6.13 (b0e66977dc07), without CAP_PERFMON, takes a store to a part of what was
stored before for half of a pointer."""
_STORE, _STORE_NUMBER, _LOAD = 0x7B, 0x7A, 0x79
_SCRATCH: Final = -_WORDS * _SLOT
"""Where the words of memory of classic BPF begin on the stack."""
_BUFFER, _KEY, _START, _WORD = (_SCRATCH - _SLOT * number for number in range(1, 5))

# Fields of struct __sk_buff (linux/bpf.h).
_LEN, _TAGGED, _TCI, _PROTOCOL, _INGRESS, _IFINDEX = 0, 20, 24, 28, 36, 40

# Of classic BPF and of eBPF.
_ADD, _SUB, _DIV, _OR, _AND, _LSH, _RSH, _NEG, _MOD = (
    *(0x00, 0x10, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90),
)

_LOOKUP, _LOAD_BYTES = 1, 26
_UNSPEC, _SHOT = -1, 2
_PEERS, _COUNTERS = "peers", "counters"
_OWN_MAP: Final = 1  # BPF_PSEUDO_MAP_FD

_TAG_AT, _TAG_END = 12, 16
"""Where a tag stands in a frame."""


class UntranslatableError(Exception):
    """The expression compiles to something that is no program for tc; says why."""


class _Op(NamedTuple):
    """One eBPF instruction; ``to`` is the label that it jumps to, ``map`` a map that it loads."""

    code: int
    dst: int = 0
    src: int = 0
    offset: int = 0
    imm: int = 0
    to: str = ""
    map: str = ""


def program(filter_: Sequence[Instruction], maps: Mapping[str, int], filtered: int) -> bytes:
    """EBPF of what libpcap compiled; ``filtered`` is the offset of the count in the counters.

    Raises UntranslatableError.
    """
    code = _Assembler()
    code.is_of_wire()
    code.load_field(_R0, _TAGGED)
    code.jump("eq", _R0, 0, "plain 0")
    code.load_tag()
    for tagged in (True, False):
        prefix = "tagged" if tagged else "plain"
        for number, one in enumerate(filter_):
            code.label(f"{prefix} {number}")
            _Translation(code, prefix, number, tagged=tagged).translate(one)
    code.label("match")
    code.count(filtered)
    code.end(_SHOT)
    code.label("pass")
    code.end(_UNSPEC)
    return code.assembled(maps)


class _Assembler:
    def __init__(self) -> None:
        self._ops: list[_Op] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        self._labels[name] = len(self._ops)

    def add(self, op: _Op) -> None:
        self._ops.append(op)
        if op.map:
            self._ops.append(_Op(0))  # the upper half

    def assembled(self, maps: Mapping[str, int]) -> bytes:
        code = bytearray()
        for at, op in enumerate(self._ops):
            offset = self._labels[op.to] - at - 1 if op.to else op.offset
            imm = maps[op.map] if op.map else op.imm
            code += _INSTRUCTION.pack(op.code, op.dst | op.src << 4, offset, _signed(imm))
        return bytes(code)

    # ------------------------------------------------------------------ single instructions

    def move(self, dst: int, src: int) -> None:
        self.add(_Op(0xBF, dst, src))

    def move32(self, dst: int, src: int) -> None:
        self.add(_Op(0xBC, dst, src))

    def set(self, dst: int, value: int) -> None:
        self.add(_Op(0xB4, dst, imm=value))

    def alu(self, operation: int, dst: int, *, imm: int | None = None, src: int = 0) -> None:
        """On 32 bits, as classic BPF does it; the upper half becomes 0."""
        if imm is None:
            self.add(_Op(operation | 0x0C, dst, src))
        else:
            self.add(_Op(operation | 0x04, dst, imm=imm))

    def jump(self, how: str, dst: int, value: int, to: str) -> None:
        self.add(_Op(_JUMPS[how] | 0x06, dst, imm=value, to=to))

    def jump_by(self, how: str, dst: int, src: int, to: str) -> None:
        self.add(_Op(_JUMPS[how] | 0x0E, dst, src, to=to))

    def go(self, to: str) -> None:
        self.add(_Op(0x05, to=to))

    def load_field(self, dst: int, offset: int) -> None:
        self.add(_Op(0x61, dst, _SKB, offset))

    def call(self, helper: int) -> None:
        self.add(_Op(0x85, imm=helper))

    def end(self, value: int) -> None:
        self.add(_Op(0xB7, _R0, imm=value))
        self.add(_Op(0x95))

    # ------------------------------------------------------------------ what surrounds a filter

    def _look_up(self, map_: str) -> None:
        """By the key on the stack."""
        self.add(_Op(0x18, _R1, _OWN_MAP, map=map_))
        self.move(_R2, _FP)
        self.add(_Op(0x07, _R2, imm=_KEY))
        self.call(_LOOKUP)

    def is_of_wire(self) -> None:
        """Lets pass what no wire of ours brings here."""
        self.move(_SKB, _R1)
        self.load_field(_R1, _INGRESS)
        self.add(_Op(_STORE, _FP, _R1, _KEY))
        self._look_up(_PEERS)
        self.add(_Op(0x15, _R0, imm=0, to="pass"))
        self.add(_Op(0x61, _R1, _R0))
        self.load_field(_R2, _IFINDEX)
        self.jump_by("ne", _R1, _R2, "pass")
        self.set(_A, 0)
        self.set(_X, 0)
        self.set(_TAG, 0)
        for word in range(_WORDS):
            self.add(_Op(_STORE_NUMBER, _FP, offset=_SCRATCH + _SLOT * word))

    def load_tag(self) -> None:
        """As it stands in a frame: protocol, then priority and number."""
        self.load_field(_TAG, _PROTOCOL)
        self.add(_Op(0xDC, _TAG, imm=16))  # to host order
        self.alu(_LSH, _TAG, imm=16)
        self.load_field(_R1, _TCI)
        self.alu(_OR, _TAG, src=_R1)

    def count(self, filtered: int) -> None:
        """For the interface that it came in by, whose key is there still."""
        self._look_up(_COUNTERS)
        self.add(_Op(0x55, _R0, imm=0, to="count"))
        self.add(_Op(_STORE_NUMBER, _FP, offset=_KEY))
        self._look_up(_COUNTERS)
        self.add(_Op(0x15, _R0, imm=0, to="counted"))
        self.label("count")
        self.add(_Op(0x79, _R1, _R0, filtered))
        self.add(_Op(0x07, _R1, imm=1))
        self.add(_Op(0x7B, _R0, _R1, filtered))
        self.label("counted")


_JUMPS: Final = {"eq": 0x10, "gt": 0x20, "ge": 0x30, "set": 0x40, "ne": 0x50}
"""Of class JMP32 with the last 4 bits (Linux 5.1)."""

# Classic BPF: linux/bpf_common.h.
_SIZES: Final = {0x00: 4, 0x08: 2, 0x10: 1}
_CLASSIC_JUMPS: Final = {0x10: "eq", 0x20: "gt", 0x30: "ge", 0x40: "set"}


class _Translation:
    """One instruction of classic BPF, for frames whose tag is beside them or not."""

    def __init__(self, code: _Assembler, prefix: str, number: int, *, tagged: bool) -> None:
        self._code = code
        self._prefix = prefix
        self._number = number
        self._tagged = tagged
        self._places = 0

    def translate(self, one: Instruction) -> None:
        kind = one.code & 0x07
        match kind:
            case 0 | 1:
                self._load(one, _X if kind else _A)
            case 2 | 3:
                source = _X if kind == 3 else _A
                self._code.add(_Op(_STORE, _FP, source, _SCRATCH + _SLOT * one.k))
            case 4:
                self._arithmetic(one)
            case 5:
                self._jump(one)
            case 6:
                self._verdict(one)
            case _:
                to, source = (_A, _X) if one.code & 0x80 else (_X, _A)
                self._code.move32(to, source)

    def _label(self, further: int) -> str:
        return f"{self._prefix} {self._number + 1 + further}"

    def _new_label(self) -> str:
        self._places += 1
        return f"{self._prefix} {self._number}.{self._places}"

    # ------------------------------------------------------------------ loads

    def _load(self, one: Instruction, to: int) -> None:
        code, size = self._code, _SIZES[one.code & 0x18]
        match one.code & 0xE0:
            case 0x00:  # a constant
                code.set(to, one.k)
            case 0x20:  # at a place
                self._load_at(one.k, size)
                code.move32(to, _R0)
            case 0x40:  # so far beyond X
                self._load_beyond(one.k, size)
                code.move32(to, _R0)
            case 0x60:  # from memory
                code.add(_Op(_LOAD, to, _FP, _SCRATCH + _SLOT * one.k))
            case 0x80:  # the length of the frame
                code.load_field(to, _LEN)
                if self._tagged:
                    code.alu(_ADD, to, imm=_TAG_END - _TAG_AT)
            case _:  # the length of an IPv4 header
                self._load_at(one.k, 1)
                code.alu(_AND, _R0, imm=0x0F)
                code.alu(_LSH, _R0, imm=2)
                code.move32(_X, _R0)

    def _load_at(self, at: int, size: int) -> None:
        """What stands there in the frame on the wire, in R0; none there: no match."""
        if not self._tagged or at + size <= _TAG_AT:
            self._fetch(size, at)
        elif at >= _TAG_END:
            self._fetch(size, at - (_TAG_END - _TAG_AT))
        else:
            self._gather(size, [at + number for number in range(size)])

    def _load_beyond(self, k: int, size: int) -> None:
        """The same at X + k, which only the frame tells."""
        code = self._code
        code.move32(_R2, _X)
        code.alu(_ADD, _R2, imm=k)
        code.jump_by("gt", _X, _R2, "pass")  # beyond 32 bits
        if not self._tagged:
            self._fetch(size)
            return
        far, done = self._new_label(), self._new_label()
        code.jump("gt", _R2, _TAG_END - 1, far)
        code.add(_Op(_STORE, _FP, _R2, _START))
        self._gather(size, None)
        code.go(done)
        code.label(far)
        code.alu(_SUB, _R2, imm=_TAG_END - _TAG_AT)
        self._fetch(size)
        code.label(done)

    def _fetch(self, size: int, at: int | None = None) -> None:
        """From the packet itself; without ``at`` from where R2 says."""
        code = self._code
        if at is not None:
            code.set(_R2, at)
        code.move(_R1, _SKB)
        code.move(_R3, _FP)
        code.add(_Op(0x07, _R3, imm=_BUFFER))
        code.set(_R4, size)
        code.call(_LOAD_BYTES)
        code.add(_Op(0x55, _R0, imm=0, to="pass"))
        code.add(_Op({4: 0x61, 2: 0x69, 1: 0x71}[size], _R0, _FP, _BUFFER))
        if size > 1:
            code.add(_Op(0xDC, _R0, imm=8 * size))

    def _gather(self, size: int, places: Iterable[int] | None) -> None:
        """Byte by byte, from the packet or its tag; ``places`` is None where only the frame tells.

        Then they begin at what is on the stack, as is what has been gathered.
        """
        code = self._code
        code.add(_Op(_STORE_NUMBER, _FP, offset=_WORD))
        for number, at in enumerate([None] * size if places is None else places):
            if at is None:
                code.add(_Op(_LOAD, _R2, _FP, _START))
                code.alu(_ADD, _R2, imm=number)
                self._byte()
            elif _TAG_AT <= at < _TAG_END:
                code.move32(_R0, _TAG)
                code.alu(_RSH, _R0, imm=8 * (_TAG_END - 1 - at))
                code.alu(_AND, _R0, imm=0xFF)
            else:
                self._fetch(1, at if at < _TAG_AT else at - (_TAG_END - _TAG_AT))
            code.add(_Op(_LOAD, _R1, _FP, _WORD))
            code.alu(_LSH, _R1, imm=8)
            code.alu(_OR, _R1, src=_R0)
            code.add(_Op(_STORE, _FP, _R1, _WORD))
        code.add(_Op(_LOAD, _R0, _FP, _WORD))

    def _byte(self) -> None:
        """The one at R2."""
        code, tag, packet, done = self._code, *(self._new_label() for _ in range(3))
        code.jump("gt", _R2, _TAG_AT - 1, tag)
        code.go(packet)
        code.label(tag)
        code.alu(_SUB, _R2, imm=_TAG_END - _TAG_AT)
        code.jump("gt", _R2, _TAG_AT - 1, packet)
        # 12 to 15, less 4: the first is the highest of four.
        code.set(_R1, _TAG_AT - 1)
        code.alu(_SUB, _R1, src=_R2)
        code.alu(_LSH, _R1, imm=3)
        code.move32(_R0, _TAG)
        code.alu(_RSH, _R0, src=_R1)
        code.alu(_AND, _R0, imm=0xFF)
        code.go(done)
        code.label(packet)
        self._fetch(1)
        code.label(done)

    # ------------------------------------------------------------------ the rest

    def _arithmetic(self, one: Instruction) -> None:
        code, operation, by_x = self._code, one.code & 0xF0, one.code & 0x08
        if operation == _NEG:
            code.alu(_NEG, _A, imm=0)
        elif by_x:
            if operation in (_DIV, _MOD):
                code.jump("eq", _X, 0, "pass")
            code.alu(operation, _A, src=_X)
            if operation in (_LSH, _RSH):  # by 32 and more nothing is left
                code.jump("ge", _X, 32, off := self._new_label())
                code.go(self._label(0))
                code.label(off)
                code.set(_A, 0)
        elif operation in (_LSH, _RSH) and one.k >= 32:
            code.set(_A, 0)
        else:
            code.alu(operation, _A, imm=one.k)

    def _jump(self, one: Instruction) -> None:
        code, how = self._code, one.code & 0xF0
        if not how:
            if one.k >= 1 << 31:
                raise UntranslatableError("it loops (protochain)")
            code.go(self._label(one.k))
            return
        name = _CLASSIC_JUMPS[how]
        if one.code & 0x08:
            code.jump_by(name, _A, _X, self._label(one.jt))
        else:
            code.jump(name, _A, one.k, self._label(one.jt))
        code.go(self._label(one.jf))

    def _verdict(self, one: Instruction) -> None:
        if one.code & 0x18:
            self._code.jump("ne", _A, 0, "match")
            self._code.go("pass")
        else:
            self._code.go("match" if one.k else "pass")


def _signed(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number
