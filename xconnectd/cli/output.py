"""What the commands print for people, and how an error is told. JSON goes by ``print`` as it is."""

from __future__ import annotations

import os
import shlex
import sys
from typing import TextIO

from xconnectd.daemon import systemd
from xconnectd.errors import PrivilegeError
from xconnectd.formatting import printable


def print_lines(*texts: object, file: TextIO | None = None) -> None:
    """The one way out for what is not JSON: names of files and interfaces are other people's."""
    before = "<3>" if file and systemd.is_journal(file) else ""  # an error
    for text in texts:
        for line in str(text).expandtabs().split("\n"):
            print(before + printable(line), file=file)


def print_message(text: str) -> None:
    print_lines(f"xconnectd: {text}", file=sys.stderr)
    sys.stderr.flush()


def explain(error: Exception) -> str:
    """With the way out for who forgot `sudo`."""
    if os.geteuid() == 0 or not isinstance(error, PermissionError | PrivilegeError):
        return str(error)
    told = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
    return f"{told}; only root may: sudo {shlex.join(['xconnectd', *sys.argv[1:]])}"
