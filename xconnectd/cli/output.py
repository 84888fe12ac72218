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
    """Prints what is not JSON, without control characters: names of files may hold any.

    To the journal, what goes to stderr is marked as an error (sd-daemon(3)).
    """
    before = "<3>" if file and systemd.is_journal(file) else ""
    for text in texts:
        for line in str(text).expandtabs().split("\n"):
            print(before + printable(line), file=file)


def print_message(text: str) -> None:
    print_lines(f"xconnectd: {text}", file=sys.stderr)
    sys.stderr.flush()


def explain(error: Exception) -> str:
    """The error's own words; to who is not root and would have to be, the command with sudo."""
    if os.geteuid() == 0 or not isinstance(error, PermissionError | PrivilegeError):
        return str(error)
    told = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
    return f"{told}; only root may: sudo {shlex.join(['xconnectd', *sys.argv[1:]])}"
