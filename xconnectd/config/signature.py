"""What shows that a file has changed, and where a change of it would be seen. Only looks."""
# ruff: noqa: PTH112, PTH115, PTH116, PTH118, PTH120, PTH208
# Paths are text here: a look is taken each second, and Path objects would take most of its time.

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from xconnectd.mounts import MAX_SYMLINKS

Signature = tuple[int, ...]


class Step(NamedTuple):
    """A directory in which one name decides where the path leads, and which directory that is."""

    directory: str
    name: str
    device: int
    inode: int


def counts(name: str) -> bool:
    """Whether a file of this name is one of those that a directory stands for."""
    return name.endswith(".yaml") and not name.startswith(".")


def names(path: str) -> list[str] | None:
    """What is in a directory, in order; None if it is none.

    Raises OSError: it cannot be read.
    """
    try:  # a look takes a third of what a list that is refused does
        return sorted(os.listdir(path)) if stat.S_ISDIR(os.stat(path).st_mode) else None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def signature(path: str) -> Signature:
    """What differs after any change of the file; empty when there is none.

    ctime sees what mtime does not: an edit that keeps size and times, a chmod, a lost name.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def is_orphan(path: str) -> bool:
    """Whether the path leads to a file without a name."""
    try:
        return os.stat(path).st_nlink == 0
    except (OSError, ValueError):
        return False


def route(path: str) -> tuple[Step, ...]:
    """Every place where a rename changes what the path leads to, as far as it leads.

    That is the directory of each symlink on the way and that of the file itself, or the last
    directory there is; of a directory it is also the inside. A ConfigMap is updated by swapping a
    symlink in the middle.
    """
    steps = [_step(path, "")] if os.path.isdir(path) else []
    here, ahead = "/", path.split("/")[::-1]
    while ahead and len(steps) < MAX_SYMLINKS:
        name = ahead.pop()
        if name in ("", ".", ".."):
            here = os.path.dirname(here) if name == ".." else here
            continue
        target = _follow(os.path.join(here, name))
        if target is None and ahead:
            here = os.path.join(here, name)
            continue
        steps.append(_step(here, name))
        if not target:
            break
        ahead += target.split("/")[::-1]
        here = "/" if target.startswith("/") else here
    return tuple(steps)


def _follow(path: str) -> str | None:
    """Where a symlink leads; None when it is none, empty when there is nothing."""
    try:
        return os.readlink(path)
    except OSError as error:
        return None if error.errno == errno.EINVAL else ""


def _step(directory: str, name: str) -> Step:
    try:
        found = os.stat(directory)
    except OSError:
        return Step(directory, name, 0, 0)
    return Step(directory, name, found.st_dev, found.st_ino)
