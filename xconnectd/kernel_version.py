"""Which Linux runs here."""

from __future__ import annotations

import os
import re


def kernel_version() -> tuple[int, int]:
    """``(6, 12)`` of ``6.12.0-rc1-amd64``."""
    first, second, *_ = re.findall("[0-9]+", os.uname().release)
    return int(first), int(second)
