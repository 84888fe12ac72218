"""What the commands print, and how an error is told.

Who reads it may leave (``| head``): a command then goes on to its end, which is its exit code.
Those that go on until they are left print by themselves.
"""

from __future__ import annotations

import codecs
import io
import os
import shlex
import sys
from typing import Final, TextIO

from xconnectd.daemon import systemd
from xconnectd.errors import PrivilegeError
from xconnectd.formatting import printable

_ASCII: Final = str.maketrans("—→←↑↓…·µ�", "-><^v~*u?")
"""What stands for characters of ours where they cannot be written; as wide as they are."""


def print_everywhere() -> None:
    """From here on no character is an error: not every terminal has those of Unicode."""
    codecs.register_error("xconnectd", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="xconnectd")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_ASCII)
    return text.encode("ascii", "replace").decode(), error.end


def print_as_it_is(text: str, *, end: str = "\n", file: TextIO | None = None) -> None:
    """For JSON, and for what has colours."""
    try:
        print(text, end=end, file=file, flush=file is not None)
    except BrokenPipeError:
        discard(file or sys.stdout)


def discard(stream: TextIO) -> None:
    """What is still buffered goes nowhere, so that Python's own flush at the end succeeds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_lines(*texts: object, file: TextIO | None = None) -> None:
    """Prints what is not JSON, without control characters: names of files may hold any.

    To the journal, what goes to stderr is marked as an error (sd-daemon(3)).
    """
    before = "<3>" if file and systemd.is_journal(file) else ""
    for text in texts:
        for line in str(text).expandtabs().split("\n"):
            print_as_it_is(before + printable(line), file=file)


def print_message(text: str) -> None:
    print_lines(f"xconnectd: {text}", file=sys.stderr)


def explain(error: Exception) -> str:
    """The error's own words; to who is not root and would have to be, the command with sudo."""
    told = str(error)
    if isinstance(error, OSError) and error.strerror:
        told = ": ".join(map(str, filter(None, (error.filename, error.strerror))))
    if os.geteuid() == 0 or not isinstance(error, PermissionError | PrivilegeError):
        return told
    return f"{told}; only root may: sudo {shlex.join(['xconnectd', *sys.argv[1:]])}"
