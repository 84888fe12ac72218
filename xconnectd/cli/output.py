"""What the commands print for people, and how an error is told. JSON goes by ``print`` as it is."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Final, TextIO

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


_SGR: Final = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "dim": 2}
"""Select Graphic Rendition (ECMA-48)."""


def is_terminal() -> bool:
    """Whether stdout goes to a terminal that knows more than lines."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def paint(text: str, colour: str) -> str:
    """In this colour on a terminal, unless NO_COLOR is set (no-color.org)."""
    if not is_terminal() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_SGR[colour]}m{text}\x1b[m"


def explain(error: Exception) -> str:
    """The error's own words; to who is not root and would have to be, the command with sudo."""
    if os.geteuid() == 0 or not isinstance(error, PermissionError | PrivilegeError):
        return str(error)
    told = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
    return f"{told}; only root may: sudo {shlex.join(['xconnectd', *sys.argv[1:]])}"
