"""Which of Linux's capabilities this process has. Imports nothing from the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_BITS: Final = {"CAP_BPF": 39, "CAP_NET_ADMIN": 12, "CAP_PERFMON": 38}
_SYS_ADMIN: Final = 21
_PARTS_OF_SYS_ADMIN: Final = frozenset(("CAP_BPF", "CAP_PERFMON"))


def missing(*wanted: str) -> list[str]:
    """Those of them that are not effective now, in alphabetical order."""
    status = Path("/proc/self/status").read_text()
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    effective = int(match[1], 16) if match else 0
    held = {name for name, bit in _BITS.items() if effective >> bit & 1}
    if effective >> _SYS_ADMIN & 1:
        held |= _PARTS_OF_SYS_ADMIN
    return sorted(set(wanted) - held)
