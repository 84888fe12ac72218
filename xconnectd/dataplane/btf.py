"""What the running kernel says of its own types (BTF), and what we say of our programs.

Tracing programs read kernel structures whose layout differs from kernel to kernel: ``Kernel``
tells where a field lies. Owns the layout of BTF (linux/btf.h); reads it through libbpf.

A kernel without BTF, or without a type or field, is a LookupError.
"""

from __future__ import annotations

import ctypes as ct
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple, Self

from xconnectd.dataplane import libbpf

_INT: Final = 1
_PTR: Final = 2
_STRUCT: Final = 4
_UNION: Final = 5
_TYPEDEF: Final = 8
_CONST: Final = 10
_VOLATILE: Final = 9
_RESTRICT: Final = 11
_FUNC: Final = 12
_FUNC_PROTO: Final = 13
_TYPE_TAG: Final = 18
_TRANSPARENT: Final = (_TYPEDEF, _CONST, _VOLATILE, _RESTRICT, _TYPE_TAG)

_TYPE: Final = struct.Struct("=III")  # name, info, size or type; struct btf_type
_MEMBER: Final = struct.Struct("=III")  # name, type, offset; struct btf_member
_HEADER: Final = struct.Struct("=HBBIIIII")
_MAGIC: Final = 0xEB9F
_NO_BTF: Final = "this kernel does not describe its types (CONFIG_DEBUG_INFO_BTF)"


class Field(NamedTuple):
    """Where a field lies in a structure; ``width`` is 0 but for a bit field."""

    bit: int
    width: int = 0

    @property
    def offset(self) -> int:
        """In bytes."""
        return self.bit // 8


class Kernel:
    """The types of the running kernel itself. A context manager; opening takes some 20 ms."""

    def __init__(self) -> None:
        load = libbpf.function("btf__load_vmlinux_btf", ct.c_void_p)
        try:
            self._btf = libbpf.pointer(load(), "BTF")
        except OSError as error:
            raise LookupError(_NO_BTF) from error
        self._find = libbpf.function(
            "btf__find_by_name_kind", ct.c_int32, ct.c_void_p, ct.c_char_p, ct.c_uint32
        )
        self._type = libbpf.function("btf__type_by_id", ct.c_void_p, ct.c_void_p, ct.c_uint32)
        self._name = libbpf.function("btf__name_by_offset", ct.c_char_p, ct.c_void_p, ct.c_uint32)

    def close(self) -> None:
        libbpf.function("btf__free", None, ct.c_void_p)(self._btf)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tracepoint(self, name: str) -> int:
        """The type to attach a program to, at a tracepoint that is built into the kernel."""
        return self._id(f"btf_trace_{name}", _TYPEDEF)

    def field(self, structure: str, path: str) -> Field:
        """Where ``path`` (``nd_net.net``) lies in a structure, also in an unnamed part of it."""
        bit, type_id, found = 0, self._id(structure, _STRUCT), Field(0)
        for name in path.split("."):
            hit = self._member(type_id, name)
            if hit is None:
                raise LookupError(f"struct {structure} has no {path} in this kernel")
            found, type_id = hit
            bit += found.bit
        return Field(bit, found.width)

    def offset(self, structure: str, path: str) -> int:
        """In bytes."""
        return self.field(structure, path).offset

    # ------------------------------------------------------------------ the tables

    def _id(self, name: str, kind: int) -> int:
        found = self._find(self._btf, name.encode(), kind)
        if found < 0:
            raise LookupError(f"this kernel has no {name}")
        return int(found)

    def _member(self, type_id: int, name: str) -> tuple[Field, int] | None:
        for member, inner, field in self._members(type_id):
            if member == name:
                return field, inner
            if not member and (deeper := self._member(inner, name)):
                return Field(field.bit + deeper[0].bit, deeper[0].width), deeper[1]
        return None

    def _members(self, type_id: int) -> Iterator[tuple[str, int, Field]]:
        """Name, type and place of each; nothing for what is no structure or union."""
        at, kind, info = self._resolved(type_id)
        if kind not in (_STRUCT, _UNION):
            return
        for number in range(info & 0xFFFF):
            place = at + _TYPE.size + number * _MEMBER.size
            name, inner, offset = _MEMBER.unpack(ct.string_at(place, _MEMBER.size))
            has_widths = info >> 31
            field = Field(offset & 0xFFFFFF, offset >> 24) if has_widths else Field(offset)
            yield self._name(self._btf, name).decode(), inner, field

    def _resolved(self, type_id: int) -> tuple[int, int, int]:
        """The address, kind and info of a type behind its typedefs and qualifiers."""
        while True:
            at = self._type(self._btf, type_id)
            _, info, target = _TYPE.unpack(ct.string_at(at, _TYPE.size))
            kind = info >> 24 & 0x1F
            if kind not in _TRANSPARENT:
                return at, kind, info
            type_id = target


# --------------------------------------------------------------------------- our programs

ENTRY: Final = 5
"""The type of the one function in ``describe_xdp``."""


def describe_xdp(name: str) -> bytes:
    """BTF for a program ``int name(struct xdp_md *)``: others can be attached to its entry then.

    The kernel goes by the name of the structure, not by what is in it.
    """
    strings = bytearray(b"\0")

    def text(value: str) -> int:
        strings.extend(value.encode() + b"\0")
        return len(strings) - len(value) - 1

    def kind(number: int, members: int = 0) -> int:
        return number << 24 | members

    types = b"".join(
        (
            _TYPE.pack(text("int"), kind(_INT), 4) + struct.pack("=I", 1 << 24 | 32),  # 1, signed
            _TYPE.pack(text("xdp_md"), kind(_STRUCT), 4),  # 2
            _TYPE.pack(0, kind(_PTR), 2),  # 3
            _TYPE.pack(0, kind(_FUNC_PROTO, 1), 1) + struct.pack("=II", text("ctx"), 3),  # 4
            _TYPE.pack(text(name), kind(_FUNC), 4),  # 5
        )
    )
    sizes = (0, len(types), len(types), len(strings))
    return _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, *sizes) + types + bytes(strings)
