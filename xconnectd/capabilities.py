"""Which of Linux's capabilities a process has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_BITS: Final = {
    "CAP_NET_BROADCAST": 11,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
_PARTS_OF_SYS_ADMIN: Final = frozenset(("CAP_BPF", "CAP_PERFMON"))


def effective(process: str = "self") -> frozenset[str]:
    """Those that matter here. OSError for a process that cannot be seen."""
    status = Path("/proc", process, "status").read_text()
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    bits = int(match[1], 16) if match else 0
    return frozenset(name for name, bit in _BITS.items() if bits >> bit & 1)


def missing(*wanted: str) -> list[str]:
    """Those of them that this process lacks, in alphabetical order."""
    held = effective()
    if "CAP_SYS_ADMIN" in held:
        held |= _PARTS_OF_SYS_ADMIN
    return sorted(set(wanted) - held)
