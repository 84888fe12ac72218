"""A file of JSON lines that grows by one line a change, and is whole whenever a process dies.

A start writes thousands of records; a file each would take half a millisecond each on a disk.
Each line begins with its newline, so that one torn by a crash or a full disk spoils no other.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any


def put(path: Path, text: str) -> None:
    """Writes a file for its owner alone, whole or not at all: nobody ever meets half of it."""
    scratch = path.with_name(f"{path.name}.new")
    scratch.unlink(missing_ok=True)  # a crash left it, perhaps readable by all
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(scratch, flags, 0o600), "w") as file:
        file.write(text)
    scratch.rename(path)


class Journal:
    """Raises OSError as the file system does, from every method."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None
        self.length = 0
        """Lines written or read so far: what a rewrite would save."""

    def lines(self) -> Iterator[Any]:
        """What was appended, oldest first; a torn line is passed over."""
        try:
            text = self._path.read_text(errors="replace")
        except FileNotFoundError:
            return
        for line in text.split("\n"):
            try:
                value = json.loads(line)
            except ValueError:
                continue
            self.length += 1
            yield value

    def append(self, values: Collection[Any]) -> None:
        """In one write."""
        if self._fd is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(self._path, flags, 0o600)
        lines = "\n".join(["", *map(json.dumps, values)]).encode()
        if os.write(self._fd, lines) < len(lines):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self.length += len(values)

    def rewrite(self, values: Iterable[Any]) -> None:
        """Holds just these from now on."""
        lines = [json.dumps(value) for value in values]
        put(self._path, "\n".join(lines))
        self.close()
        self.length = len(lines)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
