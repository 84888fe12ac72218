"""Versions of what this program works with, found without loading any of it."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from xconnectd import __version__


def of_all() -> dict[str, str | None]:
    """None for what is not installed."""
    return {
        "xconnectd": __version__,
        "kernel": os.uname().release,
        "bcc": _bcc(),
        "pyroute2": of("pyroute2"),
    }


def of(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _bcc() -> str | None:
    """Read from its version file: importing bcc takes 74 MB of LLVM."""
    found = find_spec("bcc")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).with_name("version.py")
    line = path.read_text() if path.exists() else ""
    return line.partition("=")[2].strip().strip("'\"") or "unknown"
