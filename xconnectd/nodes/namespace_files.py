"""Files of network namespaces: bind mounts, as ``ip netns`` makes them, and /proc/PID/ns/net.

None stays open: whoever holds one keeps the namespace alive. Imports nothing from the package.
"""

from __future__ import annotations

import fcntl
import os
import stat
from errno import EINVAL
from functools import cache
from typing import Final

Identity = tuple[int, int]
"""What tells the namespace of a file from the one before it."""

_NS_GET_NSTYPE: Final = 0xB703
_CLONE_NEWNET: Final = 0x40000000
_STATE: Final = 0
_START_TIME: Final = 19
"""Where /proc/PID/stat has them, counted behind the command: fields 3 and 22 of proc(5)."""
_ENDED: Final = (b"Z", b"X")
"""States of a process that has left its namespaces, and of which only the end is to be told."""


def identity(path: str) -> Identity:
    """Of the namespace (of any kind) whose file this is. Opens nothing, so a FIFO cannot hold it.

    The kernel gives the number of a namespace to the next one at once. A bind mount's inode was
    made with its namespace, or when that was mounted first. Below /proc it is made for every look,
    so that its time says nothing there.

    Raises:
        OSError: there is none; EINVAL if the file is something else.
    """
    found = os.lstat(path)
    made = found.st_ctime_ns
    if stat.S_ISLNK(found.st_mode):
        found, made = os.stat(path), 0  # noqa: PTH116 (of 500 nodes, each second)
    if found.st_dev != _nsfs():
        raise OSError(EINVAL, "it is no namespace's file", path)
    return found.st_ino, made


def require_network(path: str) -> None:
    """Raises OSError where this is the file of no network namespace (EINVAL), or may not be opened.

    To be asked of what has an ``identity``. If somebody puts a FIFO there meanwhile, it is opened
    without waiting.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if os.fstat(file).st_dev != _nsfs() or fcntl.ioctl(file, _NS_GET_NSTYPE) != _CLONE_NEWNET:
            raise OSError(EINVAL, "it is a namespace's file, but of no network namespace", path)
    finally:
        os.close(file)


def of_process(pid: int) -> str:
    """The file of the namespace that a process is in."""
    return f"/proc/{pid}/ns/net"


def start_of_process(pid: int) -> int | None:
    """When it was started, in ticks since the machine's start; None if it does not run.

    With it a process is told from a later one of the same number.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 (each second)
            text = file.read()
    except OSError:
        return None
    fields = text.rpartition(b")")[2].split()
    return None if fields[_STATE] in _ENDED else int(fields[_START_TIME])


@cache
def _nsfs() -> int:
    """The device of nsfs, which all files of namespaces lie on. It has but one (fs/nsfs.c)."""
    return os.stat("/proc/self/ns/net").st_dev  # noqa: PTH116
