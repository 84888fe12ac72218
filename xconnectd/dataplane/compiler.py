"""From ``bpf/*.c`` to code that any machine can load: the only place that knows bcc.

bcc brings LLVM along (40 ms to import, and 120 MB after a compilation that never come back), so it
is imported in a short-lived child only (``python -m xconnectd.dataplane.compiler``), which prints
the code and is gone. The code names its maps, and the constants that whoever loads it puts in; it
holds nothing of this machine or kernel (it is the same on every little-endian one), and neither
compiling nor reading it needs a privilege: an image may carry the child's output as
``bpf/xconnect.json`` and do without a compiler.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from xconnectd.digest import sha256
from xconnectd.errors import DataplaneError

if TYPE_CHECKING:
    import subprocess


class Source(NamedTuple):
    """A file of C: ``name``.c, the programs in it, and what its code leaves open.

    ``maps`` and ``constants`` are in the order of the enumerations in the source, which count
    from 1. Each source has a hash of its own: one that changes makes no other be loaded anew.
    """

    name: str
    programs: tuple[str, ...]
    maps: tuple[str, ...]
    constants: tuple[str, ...] = ()


DATA_PATH: Final = Source(
    "xconnect",
    (
        *("xdp_frags", "xdp_linear", "ingress", "egress_drop"),
        *("swap_frags", "swap_linear", "swap_ingress"),
        *("tunnel_ingress", "tunnel_egress", "tunnel_egress_uncut"),
        *("audit", "audit_peers", "steer", "moment"),
    ),
    ("entries", "peers", "counters", "places", "tallies", "clock"),
)
CAPTURE: Final = Source(
    "capture",
    ("received", "entered_frags", "entered_linear"),
    ("ring", "tallies"),
    (
        *("ifindex", "namespace", "end", "snaplen"),
        *("skb_dev", "skb_len", "skb_head", "skb_mac_header"),
        *("skb_tag", "skb_tag_protocol", "skb_tagged", "skb_tagged_mask"),
        *("dev_ifindex", "dev_net", "net_inum"),
        *("xdp_rxq", "xdp_data", "xdp_data_end", "rxq_dev"),
    ),
)
DROPS: Final = Source(
    "drops",
    ("redirect_failed", "transmit_failed"),
    ("drops", "watched"),
    ("namespace", "dev_ifindex", "dev_net", "net_inum"),
)
GUARD: Final = Source("guard", ("guard",), ("guarded",), ("state_in", "state_out", "dev_ifindex"))
SENDER: Final = Source("sender", ("send_redirected",), (), ("target",))
SOURCES: Final = (DATA_PATH, CAPTURE, DROPS, GUARD, SENDER)

LICENSE: Final = "Dual MIT/GPL"
"""Of all that is compiled here, as the kernel asks for it."""

FLAGS: Final = ("-Wall", "-Wextra")
CODE_FILE: Final = "xconnect.json"
CODE_VARIABLE: Final = "XCONNECTD_CODE"
"""Environment variable: a file with compiled code, in place of ``bpf/xconnect.json``."""

_FORMAT: Final = 2
_TIMEOUT: Final = 120.0
_STDOUT: Final = "-"
_LD_IMM64: Final = 0x18
_PSEUDO_MAP_FD: Final = 1
_PSEUDO_CONSTANT: Final = 15
"""Means nothing to the kernel, which refuses code whose constants were left open."""
_INSTRUCTION: Final = struct.Struct("<BBhi")


class Code(NamedTuple):
    """One program's instructions, with zero wherever a map or a constant belongs.

    ``relocations`` says which instruction wants which map's file descriptor, ``constants`` which
    one wants which number of 64 bits.
    """

    instructions: bytes
    relocations: tuple[tuple[int, str], ...] = ()
    constants: tuple[tuple[int, str], ...] = ()

    def bound(self, maps: Mapping[str, int], constants: Mapping[str, int] | None = None) -> bytes:
        """The instructions with these maps and constants in place, as the kernel wants them."""
        code = bytearray(self.instructions)
        for index, name in self.relocations:
            struct.pack_into("<i", code, index * _INSTRUCTION.size + 4, maps[name])
        for index, name in self.constants:
            _put_constant(code, index, (constants or {})[name])
        return bytes(code)

    @classmethod
    def from_numbered(cls, code: bytes, source: Source = DATA_PATH) -> Code:
        """Takes the numbers out of what the source left where maps and constants belong."""
        bare = bytearray(code)
        found: dict[int, list[tuple[int, str]]] = {_PSEUDO_MAP_FD: [], _PSEUDO_CONSTANT: []}
        names = {_PSEUDO_MAP_FD: source.maps, _PSEUDO_CONSTANT: source.constants}
        for index, (opcode, registers, _, number) in enumerate(_INSTRUCTION.iter_unpack(code)):
            kind = registers >> 4
            if opcode == _LD_IMM64 and kind in found:
                found[kind].append((index, names[kind][number - 1]))
                struct.pack_into("<i", bare, index * _INSTRUCTION.size + 4, 0)
        return cls(bytes(bare), *map(tuple, found.values()))


def _put_constant(code: bytearray, index: int, value: int) -> None:
    """Makes a plain load of a number: its halves lie in two instructions, the kind is gone."""
    at = index * _INSTRUCTION.size
    low, high = struct.unpack("<ii", struct.pack("<Q", value))
    code[at + 1] &= 0x0F
    struct.pack_into("<i", code, at + 4, low)
    struct.pack_into("<i", code, at + _INSTRUCTION.size + 4, high)


# --------------------------------------------------------------------------- source


@cache
def source_directory() -> Path:
    """Where the C is: inside the installed package, or beside it in a checkout.

    Raises DataplaneError when the package was installed without it.
    """
    package = Path(__file__).resolve().parents[1]
    for directory in (package / "bpf", package.parent / "bpf"):
        if (directory / "xconnect.c").is_file():
            return directory
    raise DataplaneError("source", f"no bpf/xconnect.c in {package} or beside it")


def source_hash(directory: Path, source: Source = DATA_PATH) -> str:
    """Covers everything that the code depends on: source, headers, options, this format."""
    digest = sha256(repr((_FORMAT, source, FLAGS)).encode())
    for path in (directory / f"{source.name}.c", *sorted(directory.glob("include/**/*.h"))):
        digest.update(b"\0%s\0" % os.fsencode(path.relative_to(directory)))
        digest.update(path.read_bytes())
    return digest.hexdigest()


# --------------------------------------------------------------------------- code


Compiled = dict[str, Code]
"""The programs of one source, by name."""


def encode(code: Mapping[str, Compiled], hashes: Mapping[str, str]) -> str:
    """As JSON, by source; ``hashes`` are of what each was made from."""
    sources = {
        name: {
            "hash": hashes[name],
            "programs": {program: _encode_one(one) for program, one in compiled.items()},
        }
        for name, compiled in code.items()
    }
    return json.dumps({"format": _FORMAT, "sources": sources})


def _encode_one(code: Code) -> dict[str, Any]:
    return {
        "instructions": code.instructions.hex(),
        "relocations": code.relocations,
        "constants": code.constants,
    }


def decode(text: str | bytes, name: str, made_of: str) -> Compiled | None:
    """The programs of the source of that name, if that is its hash.

    None when they are missing or made from something else; ValueError when it is no code at all.
    """
    document = json.loads(text)
    try:
        if document["format"] != _FORMAT:
            return None
        found = document["sources"].get(name)
        if found is None or found["hash"] != made_of:
            return None
        return {program: _decode_one(one) for program, one in found["programs"].items()}
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not compiled code: {error!r}") from error


def _decode_one(document: Mapping[str, Any]) -> Code:
    return Code(
        bytes.fromhex(document["instructions"]),
        *(
            tuple((int(index), str(name)) for index, name in document[kind])
            for kind in ("relocations", "constants")
        ),
    )


def code_for(
    directory: Path, made_of: str, source: Source = DATA_PATH, kept: Path | None = None
) -> Compiled:
    """Ready-made code if the hash fits, or what was ``kept``, else a child compiles it.

    Raises DataplaneError.
    """
    return (
        _ready_made(directory, made_of, source)
        or (kept and _recalled(kept, made_of, source))
        or compile_in_child(directory, made_of, source)
    )


def keep(path: Path, code: Compiled, made_of: str, source: Source = DATA_PATH) -> None:
    """For who needs the same code again and cannot wait for a compiler. Raises OSError."""
    scratch = path.with_name(f"{path.name}.new")
    scratch.touch(mode=0o600)
    scratch.write_text(encode({source.name: code}, {source.name: made_of}))
    scratch.rename(path)


def _recalled(path: Path, made_of: str, source: Source) -> Compiled | None:
    try:
        return decode(path.read_bytes(), source.name, made_of)
    except (OSError, ValueError):  # none, or torn by an unclean end
        return None


def _ready_made(directory: Path, made_of: str, source: Source) -> Compiled | None:
    path = Path(os.environ.get(CODE_VARIABLE) or directory / CODE_FILE)
    try:
        return decode(path.read_bytes(), source.name, made_of)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataplaneError("code", f"{path}: {error}") from error


def found() -> str:
    """Where code would come from, in words; empty from nowhere. Raises DataplaneError."""
    directory = source_directory()
    if _ready_made(directory, source_hash(directory), DATA_PATH):
        return "a file, compiled before"
    return "bcc" if find_spec("bcc") else ""


def compile_in_child(directory: Path, made_of: str, source: Source = DATA_PATH) -> Compiled:
    """125 to 600 ms, depending on what of LLVM is in the page cache. Raises DataplaneError."""
    import subprocess  # 3 ms that only a compilation should cost

    command = [
        sys.executable,
        "-P",
        "-m",
        __name__.replace("__main__", "xconnectd.dataplane.compiler"),
    ]
    path = os.pathsep.join(
        filter(None, (str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")))
    )
    try:
        child = subprocess.run(
            [*command, str(directory), _STDOUT, source.name],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataplaneError("compile", f"the compiler did not run: {error}") from error
    return _judged(child, source.name, made_of)


def _judged(child: subprocess.CompletedProcess[str], name: str, made_of: str) -> Compiled:
    if child.returncode == _NO_BCC:
        raise DataplaneError("compile", _NO_BCC_TEXT, child.stderr)
    if child.returncode:
        how = f"the compiler ended with {child.returncode}"
        raise DataplaneError("compile", how, child.stderr)
    try:
        code = decode(child.stdout, name, made_of)
    except ValueError as error:
        raise DataplaneError("compile", f"the compiler's output: {error}", child.stderr) from error
    if code is None:
        raise DataplaneError("compile", "the source changed while it was compiled")
    return code


# --------------------------------------------------------------------------- the child

_NO_BCC: Final = 69
_NO_BCC_TEXT: Final = (
    "Python's bcc cannot be imported: install the distribution's package (Debian, Ubuntu: "
    "python3-bpfcc) and use its own Python, in a venv with --system-site-packages "
    "(the bcc on PyPI is another project)"
)


def compile_source(
    directory: Path, source: Source = DATA_PATH, flags: Sequence[str] = FLAGS
) -> Compiled:
    """Imports bcc, for good, into this process. bcc's own complaints go to stderr.

    BCC_KERNEL_SOURCE points bcc at our few stand-in headers: it needs no kernel headers then,
    and cannot pick up something of this machine's.
    """
    os.environ["BCC_KERNEL_SOURCE"] = str(directory)
    from bcc import BPF  # type: ignore[import-untyped, import-not-found, unused-ignore]

    module = BPF(text=(directory / f"{source.name}.c").read_bytes(), cflags=list(flags))
    return {
        name: Code.from_numbered(module.dump_func(name.encode()), source)
        for name in source.programs
    }


def main(arguments: Sequence[str]) -> int:
    """``python -m xconnectd.dataplane.compiler [DIRECTORY [OUTPUT [SOURCE…]]]``: code as JSON."""
    directory = Path(arguments[0]) if arguments else source_directory()
    wanted = [one for one in SOURCES if not arguments[2:] or one.name in arguments[2:]]
    try:
        code = {one.name: compile_source(directory, one) for one in wanted}
    except ImportError as error:
        print(error, file=sys.stderr)
        return _NO_BCC
    except Exception as error:  # noqa: BLE001  (bcc raises nothing more telling)
        print(error, file=sys.stderr)
        return 1
    text = encode(code, {one.name: source_hash(directory, one) for one in wanted})
    if arguments[1:] and arguments[1] != _STDOUT:
        Path(arguments[1]).write_text(text + "\n")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
