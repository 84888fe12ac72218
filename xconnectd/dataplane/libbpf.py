"""A thin, typed binding to the system calls of libbpf: maps, programs and pins.

Owns ctypes and the kernel's structures. Knows nothing of cross-connects and imports nothing
from the package. Every refusal of the kernel is an OSError here (LoadError with the verifier's
log for programs); it is turned into an error of ours in ``programs``.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

# linux/bpf.h
MAP_HASH: Final = 1
MAP_ARRAY: Final = 2
MAP_PERF_EVENT_ARRAY: Final = 4
MAP_PERCPU_ARRAY: Final = 6
MAP_PERCPU_HASH: Final = 5
MAP_LRU_HASH: Final = 9
MAP_DEVMAP_HASH: Final = 25
PROG_SOCKET_FILTER: Final = 1
PROG_SCHED_CLS: Final = 3
PROG_XDP: Final = 6
PROG_RAW_TRACEPOINT: Final = 17
PROG_TRACING: Final = 26
PROG_NETFILTER: Final = 32
"""Linux 6.4, as its attachment."""
ATTACH_TRACEPOINT: Final = 23
"""A tracepoint whose arguments carry their types; Linux 5.5."""
ATTACH_ENTRY: Final = 24
"""The entry of a function, of the kernel or of another program; Linux 5.5."""
ATTACH_XDP: Final = 37
ATTACH_NETFILTER: Final = 45
F_NO_PREALLOC: Final = 1
F_XDP_HAS_FRAGS: Final = 1 << 5
_NOEXIST: Final = 1

_BPFFS_MAGIC: Final = 0xCAFE4A11
_LOG_SIZE: Final = 1 << 20
_MAX_MAPS: Final = 16
_BATCH: Final = 256
_ENOTSUPP: Final = 524

_LINK_CREATE: Final = 28
_SYS_BPF: Final = {"x86_64": 321, "ppc64le": 361, "s390x": 351}
_SYS_BPF_ELSEWHERE: Final = 280
"""On aarch64, riscv64 and loongarch64 (asm-generic/unistd.h)."""
PREROUTING: Final = 0
FORWARD: Final = 2
LOCAL_OUT: Final = 3
"""``enum nf_inet_hooks``, the same for IPv4 and IPv6."""
_NETFILTER: Final = struct.Struct("=IIIIIIiI")
"""``union bpf_attr`` for a link to netfilter, from ``link_create`` on."""
_FIRST: Final = -(1 << 31) + 1
"""In front of every other hook, connection tracking included (NF_IP_PRI_FIRST is refused)."""


class LoadError(OSError):
    """The kernel refused a program; ``log`` is what the verifier said, whole."""

    log: str = ""


class _MapOpts(ct.Structure):
    _fields_ = (
        ("sz", ct.c_size_t),
        ("btf_fd", ct.c_uint32),
        ("btf_key_type_id", ct.c_uint32),
        ("btf_value_type_id", ct.c_uint32),
        ("btf_vmlinux_value_type_id", ct.c_uint32),
        ("inner_map_fd", ct.c_uint32),
        ("map_flags", ct.c_uint32),
        ("map_extra", ct.c_uint64),
        ("numa_node", ct.c_uint32),
        ("map_ifindex", ct.c_uint32),
    )


class _LoadOpts(ct.Structure):
    _fields_ = (
        ("sz", ct.c_size_t),
        ("attempts", ct.c_int),
        ("expected_attach_type", ct.c_int),
        ("prog_btf_fd", ct.c_uint32),
        ("prog_flags", ct.c_uint32),
        ("prog_ifindex", ct.c_uint32),
        ("kern_version", ct.c_uint32),
        ("attach_btf_id", ct.c_uint32),
        ("attach_prog_fd", ct.c_uint32),
        ("attach_btf_obj_fd", ct.c_uint32),
        ("fd_array", ct.c_void_p),
        ("func_info", ct.c_void_p),
        ("func_info_cnt", ct.c_uint32),
        ("func_info_rec_size", ct.c_uint32),
        ("line_info", ct.c_void_p),
        ("line_info_cnt", ct.c_uint32),
        ("line_info_rec_size", ct.c_uint32),
        ("log_level", ct.c_uint32),
        ("log_size", ct.c_uint32),
        ("log_buf", ct.c_void_p),
    )


class _RunOpts(ct.Structure):
    _fields_ = (
        ("sz", ct.c_size_t),
        ("data_in", ct.c_char_p),
        ("data_out", ct.c_void_p),
        ("data_size_in", ct.c_uint32),
        ("data_size_out", ct.c_uint32),
        ("ctx_in", ct.c_void_p),
        ("ctx_out", ct.c_void_p),
        ("ctx_size_in", ct.c_uint32),
        ("ctx_size_out", ct.c_uint32),
        ("retval", ct.c_uint32),
        ("repeat", ct.c_int),
        ("duration", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("cpu", ct.c_uint32),
        ("batch_size", ct.c_uint32),
    )


class _ProgInfo(ct.Structure):
    """The head of ``struct bpf_prog_info``; the kernel fills as much as there is room for."""

    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("tag", ct.c_uint8 * 8),
        ("jited_prog_len", ct.c_uint32),
        ("xlated_prog_len", ct.c_uint32),
        ("jited_prog_insns", ct.c_uint64),
        ("xlated_prog_insns", ct.c_uint64),
        ("load_time", ct.c_uint64),
        ("created_by_uid", ct.c_uint32),
        ("nr_map_ids", ct.c_uint32),
        ("map_ids", ct.c_uint64),
        ("name", ct.c_char * 16),
        ("ifindex", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("netns_dev", ct.c_uint64),
        ("netns_ino", ct.c_uint64),
        ("nr_jited_ksyms", ct.c_uint32),
        ("nr_jited_func_lens", ct.c_uint32),
        ("jited_ksyms", ct.c_uint64),
        ("jited_func_lens", ct.c_uint64),
        ("btf_id", ct.c_uint32),
    )


class _MapInfo(ct.Structure):
    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("key_size", ct.c_uint32),
        ("value_size", ct.c_uint32),
        ("max_entries", ct.c_uint32),
        ("map_flags", ct.c_uint32),
        ("name", ct.c_char * 16),
    )


_PROTOTYPES: Final[dict[str, tuple[Any, ...]]] = {
    "bpf_map_create": (
        ct.c_int, ct.c_char_p, ct.c_uint32, ct.c_uint32, ct.c_uint32, ct.c_void_p,
    ),
    "bpf_prog_load": (
        ct.c_int, ct.c_char_p, ct.c_char_p, ct.c_void_p, ct.c_size_t, ct.c_void_p,
    ),
    "bpf_map_lookup_elem": (ct.c_int, ct.c_void_p, ct.c_void_p),
    "bpf_map_update_elem": (ct.c_int, ct.c_void_p, ct.c_void_p, ct.c_uint64),
    "bpf_map_delete_elem": (ct.c_int, ct.c_void_p),
    "bpf_map_get_next_key": (ct.c_int, ct.c_void_p, ct.c_void_p),
    "bpf_map_lookup_batch": (ct.c_int, *(ct.c_void_p,) * 6),
    "bpf_raw_tracepoint_open": (ct.c_char_p, ct.c_int),
    "bpf_obj_pin": (ct.c_int, ct.c_char_p),
    "bpf_obj_get": (ct.c_char_p,),
    "bpf_obj_get_info_by_fd": (ct.c_int, ct.c_void_p, ct.c_void_p),
    "bpf_prog_get_fd_by_id": (ct.c_uint32,),
    "bpf_prog_test_run_opts": (ct.c_int, ct.c_void_p),
    "libbpf_num_possible_cpus": (),
}  # fmt: skip


@cache
def _library() -> ct.CDLL:
    """Version 1.x; the calls used here are the same in 0.6 to 0.8 (libbpf.so.0).

    Raises OSError, without a number, where there is none, or only an older one.
    """
    try:
        library = ct.CDLL("libbpf.so.1", use_errno=True)
    except OSError:
        library = ct.CDLL("libbpf.so.0", use_errno=True)
    try:
        for name, arguments in _PROTOTYPES.items():
            getattr(library, name).argtypes = arguments
    except AttributeError as error:
        raise OSError(f"libbpf is older than 0.6 ({error})") from error
    return library


def function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """A function of libbpf with its types; AttributeError where this libbpf is too old for it."""
    found = getattr(_library(), name)
    found.restype, found.argtypes = result, arguments
    return cast("Callable[..., Any]", found)


@cache
def _function(name: str) -> Callable[..., int]:
    function: Callable[..., int] = getattr(_library(), name)
    return function


def _error(what: str) -> OSError:
    number = ct.get_errno()
    return OSError(number, os.strerror(number), what)


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise _error(what)
    return result


def version() -> str:
    """As it calls itself: ``v1.1``. Raises OSError where there is no libbpf that could be used."""
    text: bytes = function("libbpf_version_string", ct.c_char_p)()
    return text.decode()


def pointer(result: int | None, what: str) -> ct.c_void_p:
    """What a function of libbpf made; OSError if it made nothing."""
    if not result:
        raise _error(what)
    return ct.c_void_p(result)


@cache
def possible_cpus() -> int:
    """How many values a per-CPU map holds for a key (CPUs that could be plugged in count)."""
    return _checked(_function("libbpf_num_possible_cpus")(), "possible CPUs")


# --------------------------------------------------------------------------- maps


class MapFormat(NamedTuple):
    """What makes two maps interchangeable. Keys are always a u32; ``value_size`` is in bytes."""

    type: int
    value_size: int
    max_entries: int
    flags: int = 0


class Map:
    """A map from u32 to ``words`` unsigned integers of ``word`` type, by file descriptor.

    It reuses its buffers, so that an operation costs little more than its system call: one
    thread at a time. Per-CPU values come one after the other, CPU by CPU.
    """

    def __init__(self, fd: int, word: type[Any] = ct.c_uint32, words: int = 1) -> None:
        self.fd = fd
        self._key = ct.c_uint32()
        self._value = (word * words)()
        self._word, self._words = word, words
        self._key_ref = ct.byref(self._key)
        self._value_ref = ct.byref(self._value)
        self._lookup = _function("bpf_map_lookup_elem")
        self._update = _function("bpf_map_update_elem")
        self._delete = _function("bpf_map_delete_elem")
        self._next = _function("bpf_map_get_next_key")

    def set(self, key: int, value: int) -> None:
        """Creates or replaces; the first word gets ``value``."""
        self._key.value = key
        self._value[0] = value
        if self._update(self.fd, self._key_ref, self._value_ref, 0) < 0:
            raise _error("update")

    def put(self, key: int, words: Sequence[int]) -> None:
        """Creates or replaces; there are as many words as the map has."""
        self._value[:] = words
        self.set(key, words[0])

    def create(self, key: int) -> bool:
        """Creates an element of zeros; False when there is one, which stays as it is."""
        self._key.value = key
        ct.memset(self._value, 0, ct.sizeof(self._value))
        if self._update(self.fd, self._key_ref, self._value_ref, _NOEXIST) == 0:
            return True
        if ct.get_errno() == errno.EEXIST:
            return False
        raise _error("create")

    def among(self, keys: Iterable[int]) -> dict[int, int]:
        """Those of ``keys`` that are there, each with the first word of its value."""
        found = {}
        for key in keys:
            self._key.value = key
            if self._lookup(self.fd, self._key_ref, self._value_ref) == 0:
                found[key] = int(self._value[0])
            elif ct.get_errno() != errno.ENOENT:
                raise _error("lookup")
        return found

    def words(self, key: int) -> list[int]:
        """All words, an empty list without the key."""
        return list(self._value) if self.among([key]) else []

    def delete(self, key: int) -> bool:
        """False when there was nothing to delete."""
        self._key.value = key
        if self._delete(self.fd, self._key_ref) == 0:
            return True
        if ct.get_errno() == errno.ENOENT:
            return False
        raise _error("delete")

    def keys(self) -> list[int]:
        """Every key once, in no order.

        A key deleted under the walk makes the kernel start again from the first, hence the
        set. One buffer serves as the key given and the key returned: the kernel has copied the
        one before it writes the other.
        """
        found: dict[int, None] = {}
        fd, key, ref, following = self.fd, self._key, self._key_ref, self._next
        result = following(fd, None, ref)
        while result == 0:
            found[key.value] = None
            result = following(fd, ref, ref)
        if not isinstance(error := _error("walk"), FileNotFoundError):
            raise error
        return list(found)

    def items(self) -> dict[int, int]:
        """Every key with the first word of its value."""
        return self.among(self.keys())

    def batches(self) -> Iterator[tuple[list[int], list[int]]]:
        """Keys and all words of their values, many at a time.

        Hash maps can do that since Linux 5.6; others refuse with EINVAL or ENOTSUPP (524).
        """
        keys = (ct.c_uint32 * _BATCH)()
        values = (self._word * (self._words * _BATCH))()
        token, count = ct.c_uint32(), ct.c_uint32()
        token_ref, count_ref = ct.byref(token), ct.byref(count)
        lookup, resume = _function("bpf_map_lookup_batch"), None
        while True:
            count.value = _BATCH
            result = lookup(self.fd, resume, token_ref, keys, values, count_ref, None)
            if result < 0 and ct.get_errno() != errno.ENOENT:
                raise _error("batch")
            yield keys[: count.value], values[: count.value * self._words]
            if result < 0:  # that was the last
                return
            resume = token_ref

    def parts(self) -> Iterator[tuple[list[int], list[int]]]:
        """As ``batches``, also where the kernel cannot: then every key by itself."""
        try:
            yield from self.batches()
        except OSError as error:
            _demand_no_batches(error)
            keys = self.keys()
            for start in range(0, len(keys), _BATCH):
                some = {key: self.words(key) for key in keys[start : start + _BATCH]}
                there = {key: words for key, words in some.items() if words}
                yield [*there], [*chain.from_iterable(there.values())]

    def all_items(self) -> dict[int, int]:
        """As ``items``, in batches where the kernel can; for values of one word."""
        try:
            return dict(chain.from_iterable(zip(*pair, strict=True) for pair in self.batches()))
        except OSError as error:
            _demand_no_batches(error)
        return self.items()

    def all_words(self) -> dict[int, list[int]]:
        """Every key with all its words, in batches where the kernel can."""
        size = self._words
        try:
            return {
                key: words[at * size : (at + 1) * size]
                for keys, words in self.batches()
                for at, key in enumerate(keys)
            }
        except OSError as error:
            _demand_no_batches(error)
        return {key: self.words(key) for key in self.keys()}


def _demand_no_batches(error: OSError) -> None:
    """Any other reason is none to walk."""
    if error.errno not in (errno.EINVAL, _ENOTSUPP):
        raise error


def create_map(name: str, form: MapFormat) -> int:
    """Returns the new map's file descriptor."""
    opts = _MapOpts(sz=ct.sizeof(_MapOpts), map_flags=form.flags)
    create = _function("bpf_map_create")
    fd = create(
        form.type, name.encode(), 4, form.value_size, form.max_entries, ct.byref(opts)
    )  # fmt: skip
    return _checked(fd, name)


def map_id(fd: int) -> int:
    return int(_info(fd, _MapInfo()).id)


def value_size(fd: int) -> int:
    """Of a map, in bytes."""
    return int(_info(fd, _MapInfo()).value_size)


# --------------------------------------------------------------------------- programs


class ProgramInfo(NamedTuple):
    """What the kernel tells of a loaded program; ``compiled`` by its JIT (CAP_BPF may see it)."""

    id: int
    name: str
    maps: frozenset[int]
    compiled: bool


class Target(NamedTuple):
    """What a tracing program is attached to: a type of the kernel, or of a ``program``'s BTF."""

    btf_id: int
    program: int = 0


class Description(NamedTuple):
    """Types of a program: a file descriptor of its BTF, and which type in it the program is."""

    btf: int
    function: int


def load_program(
    kind: int,
    name: str,
    license_: str,
    code: bytes,
    *,
    attach: int = 0,
    flags: int = 0,
    target: Target | None = None,
    described: Description | None = None,
) -> int:
    """Returns the file descriptor. Raises LoadError.

    libbpf asks for the verifier's log in a second attempt, so that a program that loads does
    not pay for one.
    """
    log = ct.create_string_buffer(_LOG_SIZE)
    opts = _LoadOpts(
        sz=ct.sizeof(_LoadOpts),
        expected_attach_type=attach,
        prog_flags=flags,
        log_size=_LOG_SIZE,
        log_buf=ct.addressof(log),
    )
    if target:
        opts.attach_btf_id, opts.attach_prog_fd = target.btf_id, target.program
    functions = (ct.c_uint32 * 2)(0, described.function if described else 0)
    if described:
        opts.prog_btf_fd, opts.func_info = described.btf, ct.addressof(functions)
        opts.func_info_cnt, opts.func_info_rec_size = 1, ct.sizeof(functions)
    load = _function("bpf_prog_load")
    fd = load(kind, name.encode(), license_.encode(), code, len(code) // 8, ct.byref(opts))
    if fd < 0:
        number = ct.get_errno()
        error = LoadError(number, os.strerror(number), name)
        error.log = log.value.decode(errors="replace")
        raise error
    return fd


def run_program(fd: int, data: bytes) -> int:
    """Runs the program once on a frame (14 bytes to some 3,500), returns what it returned."""
    opts = _RunOpts(sz=ct.sizeof(_RunOpts), data_in=data, data_size_in=len(data), repeat=1)
    _checked(_function("bpf_prog_test_run_opts")(fd, ct.byref(opts)), "run")
    return int(opts.retval)


def load_btf(data: bytes) -> int:
    """Returns the file descriptor. Kernels before 4.18 know no BTF."""
    load = function("bpf_btf_load", ct.c_int, ct.c_char_p, ct.c_size_t, ct.c_void_p)
    return _checked(load(data, len(data), None), "BTF")


def attach_tracing(program: int, tracepoint: str = "") -> int:
    """Attaches a tracing program to its target, or one of type RAW_TRACEPOINT to a tracepoint.

    Until the link returned is closed and unpinned.
    """
    name = tracepoint.encode() or None
    return _checked(_function("bpf_raw_tracepoint_open")(name, program), tracepoint or "attach")


def attach_netfilter(program: int, family: int, hook: int) -> int:
    """Attaches a netfilter program for AF_INET or AF_INET6 in the caller's network namespace.

    Until the link returned is closed. By system call: libbpf can do it from 1.3 on.
    """
    flags = target = 0
    attributes = _NETFILTER.pack(
        *(program, target, ATTACH_NETFILTER, flags),
        *(family, hook, _FIRST, flags),
    )
    number = _SYS_BPF.get(os.uname().machine, _SYS_BPF_ELSEWHERE)
    made = _libc().syscall(number, _LINK_CREATE, attributes, len(attributes))
    return _checked(made, "netfilter")


def program_info(fd: int) -> ProgramInfo:
    maps = (ct.c_uint32 * _MAX_MAPS)()
    info = _info(fd, _ProgInfo(nr_map_ids=_MAX_MAPS, map_ids=ct.addressof(maps)))
    used = frozenset(maps[: info.nr_map_ids])
    return ProgramInfo(info.id, info.name.decode(), used, info.jited_prog_len > 0)


def has_btf(fd: int) -> bool:
    """Whether a program came with types of its own."""
    return bool(_info(fd, _ProgInfo()).btf_id)


def program_by_id(program: int) -> int:
    """Returns a file descriptor. Needs CAP_SYS_ADMIN, whatever other capabilities there are."""
    return _checked(_function("bpf_prog_get_fd_by_id")(program), f"program {program}")


def _info(fd: int, info: Any) -> Any:
    size = ct.c_uint32(ct.sizeof(info))
    read = _function("bpf_obj_get_info_by_fd")
    _checked(read(fd, ct.byref(info), ct.byref(size)), "object info")
    return info


# --------------------------------------------------------------------------- pins


def pin(fd: int, path: Path) -> None:
    _checked(_function("bpf_obj_pin")(fd, os.fsencode(path)), str(path))


def open_pin(path: Path) -> int:
    """Returns a file descriptor of the map or program pinned there."""
    return _checked(_function("bpf_obj_get")(os.fsencode(path)), str(path))


@cache
def _libc() -> ct.CDLL:
    return ct.CDLL(None, use_errno=True)


def is_bpffs(path: Path) -> bool:
    """Whether ``path`` (which must exist) lies in a BPF filesystem."""
    answer = (ct.c_long * 64)()
    _checked(_libc().statfs(os.fsencode(path), ct.byref(answer)), str(path))
    return bool(answer[0] == _BPFFS_MAGIC)


def mount_bpffs(path: Path) -> None:
    """Mounts a BPF filesystem, for root alone as systemd does it; needs CAP_SYS_ADMIN."""
    _checked(_libc().mount(b"bpf", os.fsencode(path), b"bpf", 0, b"mode=0700"), str(path))
