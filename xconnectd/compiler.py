"""From ``bpf/xconnect.c`` to code that any machine can load: the only place that knows bcc.

bcc brings LLVM along (40 ms to import, and 120 MB after a compilation that never come back), so
it is imported nowhere but in a short-lived child, ``python -m xconnectd.compiler``, which prints
the code and is gone. The code names its maps, holds nothing of this machine or kernel (it is
the same on every little-endian one), and neither compiling nor reading it needs a privilege:
an image may carry the child's output as ``bpf/xconnect.json`` and do without a compiler.

Imports ``errors`` only.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from xconnectd.errors import DataplaneError

PROGRAMS: Final = ("xdp_frags", "xdp_linear", "ingress", "silence", "audit")
MAPS: Final = {1: "entries", 2: "peers", 3: "counters"}
"""The numbers of ``enum map`` in the source, and the names that relocations give."""

FLAGS: Final = ("-Wall", "-Wextra")
CODE_VARIABLE: Final = "XCONNECTD_CODE"
"""Environment variable: a file with compiled code, in place of ``bpf/xconnect.json``."""

_FORMAT: Final = 1
_TIMEOUT: Final = 120.0
_LD_IMM64: Final = 0x18
_PSEUDO_MAP_FD: Final = 1
_INSTRUCTION: Final = struct.Struct("<BBhi")


@dataclass(frozen=True, slots=True)
class Code:
    """One program's instructions, with zero wherever a map's file descriptor belongs.

    ``relocations`` says which instruction wants which map.
    """

    instructions: bytes
    relocations: tuple[tuple[int, str], ...] = ()

    def bound(self, descriptors: Mapping[str, int]) -> bytes:
        """The instructions with these maps in place, as the kernel wants them."""
        code = bytearray(self.instructions)
        for index, name in self.relocations:
            struct.pack_into("<i", code, index * _INSTRUCTION.size + 4, descriptors[name])
        return bytes(code)

    @classmethod
    def from_numbered(cls, code: bytes) -> Code:
        """Takes the numbers of ``MAPS`` out of what the source left in its map references."""
        bare, relocations = bytearray(code), []
        for index, (opcode, registers, _, number) in enumerate(_INSTRUCTION.iter_unpack(code)):
            if opcode == _LD_IMM64 and registers >> 4 == _PSEUDO_MAP_FD:
                relocations.append((index, MAPS[number]))
                struct.pack_into("<i", bare, index * _INSTRUCTION.size + 4, 0)
        return cls(bytes(bare), tuple(relocations))


# --------------------------------------------------------------------------- source


@cache
def source_directory() -> Path:
    """Where the C is: inside the installed package, or beside it in a checkout.

    Raises DataplaneError when the package was installed without it.
    """
    package = Path(__file__).resolve().parent
    for directory in (package / "bpf", package.parent / "bpf"):
        if (directory / "xconnect.c").is_file():
            return directory
    raise DataplaneError("source", f"no bpf/xconnect.c in {package} or beside it")


def source_hash(directory: Path) -> str:
    """Covers everything that the code depends on: source, headers, options, this format."""
    digest = hashlib.sha256(repr((_FORMAT, PROGRAMS, MAPS, FLAGS)).encode())
    for path in (directory / "xconnect.c", *sorted(directory.glob("include/**/*.h"))):
        digest.update(b"\0%s\0" % os.fsencode(path.relative_to(directory)))
        digest.update(path.read_bytes())
    return digest.hexdigest()


# --------------------------------------------------------------------------- code


def encode(code: Mapping[str, Code], source: str) -> str:
    """As JSON; ``source`` is the hash of what it was made from."""
    programs = {
        name: {"instructions": one.instructions.hex(), "relocations": one.relocations}
        for name, one in code.items()
    }
    return json.dumps({"format": _FORMAT, "source": source, "programs": programs})


def decode(text: str | bytes, source: str) -> dict[str, Code] | None:
    """None when it was made from another source; ValueError when it is no code at all."""
    document = json.loads(text)
    try:
        if (document["format"], document["source"]) != (_FORMAT, source):
            return None
        return {name: _decode_one(one) for name, one in document["programs"].items()}
    except (TypeError, KeyError) as error:
        raise ValueError(f"not compiled code: {error!r}") from error


def _decode_one(document: Mapping[str, Any]) -> Code:
    relocations = tuple((int(index), str(name)) for index, name in document["relocations"])
    return Code(bytes.fromhex(document["instructions"]), relocations)


def code_for(directory: Path, source: str) -> dict[str, Code]:
    """Ready-made code if it fits the source, else a child compiles it. Raises DataplaneError."""
    return _ready_made(directory, source) or compile_in_child(directory, source)


def _ready_made(directory: Path, source: str) -> dict[str, Code] | None:
    path = Path(os.environ.get(CODE_VARIABLE) or directory / "xconnect.json")
    try:
        return decode(path.read_bytes(), source)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataplaneError("code", f"{path}: {error}") from error


def compile_in_child(directory: Path, source: str) -> dict[str, Code]:
    """125 to 600 ms, depending on what of LLVM is in the page cache. Raises DataplaneError."""
    command = [sys.executable, "-P", "-m", __name__.replace("__main__", "xconnectd.compiler")]
    path = os.pathsep.join(
        filter(None, (str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")))
    )
    try:
        child = subprocess.run(
            [*command, str(directory)],
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
    return _judged(child, source)


def _judged(child: subprocess.CompletedProcess[str], source: str) -> dict[str, Code]:
    if child.returncode == _NO_BCC:
        raise DataplaneError("compile", _NO_BCC_TEXT, child.stderr)
    if child.returncode:
        how = f"the compiler ended with {child.returncode}"
        raise DataplaneError("compile", how, child.stderr)
    try:
        code = decode(child.stdout, source)
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


def compile_source(directory: Path, flags: Sequence[str] = FLAGS) -> dict[str, Code]:
    """Imports bcc, for good, into this process. bcc's own complaints go to stderr.

    BCC_KERNEL_SOURCE points bcc at our few stand-in headers: it needs no kernel headers then,
    and cannot pick up something of this machine's.
    """
    os.environ["BCC_KERNEL_SOURCE"] = str(directory)
    from bcc import BPF  # type: ignore[import-untyped, import-not-found, unused-ignore]

    module = BPF(text=(directory / "xconnect.c").read_bytes(), cflags=list(flags))
    return {name: Code.from_numbered(module.dump_func(name.encode())) for name in PROGRAMS}


def main(arguments: Sequence[str]) -> int:
    """``python -m xconnectd.compiler [DIRECTORY [OUTPUT]]``: code as JSON."""
    directory = Path(arguments[0]) if arguments else source_directory()
    try:
        code = compile_source(directory)
    except ImportError as error:
        print(error, file=sys.stderr)
        return _NO_BCC
    except Exception as error:  # noqa: BLE001  (bcc raises nothing more telling)
        print(error, file=sys.stderr)
        return 1
    text = encode(code, source_hash(directory))
    if len(arguments) > 1:
        Path(arguments[1]).write_text(text + "\n")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
