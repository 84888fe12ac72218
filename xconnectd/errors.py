"""The one small family of exceptions. They carry facts; the CLI turns them into words."""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Sequence
from typing import NamedTuple, Self


class XconnectError(Exception):
    """Base of everything this package raises on purpose."""


def is_full(error: OSError) -> bool:
    """Whether there was no room for what was to be written; what is forbidden stays so."""
    return error.errno in (_errno.ENOSPC, _errno.EDQUOT)


class Problem(NamedTuple):
    """One thing wrong in a file; line and column count from 1."""

    path: str
    line: int
    column: int
    text: str
    hint: str = ""

    @classmethod
    def of_file(cls, path: object, text: str, hint: str = "") -> Self:
        """One of the file as a whole: editors and scripts jump to its first character."""
        return cls(str(path), 1, 1, text, hint)

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.path}:{self.line}:{self.column}: {self.text}{hint}"


class ConfigError(XconnectError):
    """A file that is refused as a whole, with every problem in it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


class LinkError(XconnectError):
    """The kernel refused an action on an interface; ``reason`` is its own words."""

    def __init__(self, interface: str, action: str, errno: int, reason: str = "") -> None:
        self.interface = interface
        self.action = action
        self.errno = errno
        self.reason = reason or os.strerror(errno)
        name = _errno.errorcode.get(errno, str(errno))
        super().__init__(f"{interface}: {action}: {self.reason} ({name})")


class InterfaceGoneError(XconnectError):
    """An interface vanished while questions about it were asked; another look will not see it."""


class NodeGoneError(XconnectError):
    """A node stopped while something was done for it; another look will not see it."""


class DataplaneError(XconnectError):
    """Compiling, loading or opening the BPF part failed at ``stage``; ``log`` is shown whole."""

    def __init__(self, stage: str, reason: str, log: str = "") -> None:
        self.stage = stage
        self.reason = reason
        self.log = log
        super().__init__(f"{stage}: {reason}" + (f"\n{log}" if log else ""))


class ProgramGoneError(XconnectError):
    """A BPF program has been freed: it runs nowhere and nothing holds it."""

    def __init__(self, program: int) -> None:
        super().__init__(f"program {program} is gone")


class PrivilegeError(XconnectError):
    """A capability is missing."""

    def __init__(self, capability: str, purpose: str) -> None:
        self.capability = capability
        super().__init__(f"{capability} is missing: {purpose}")


class HiddenError(XconnectError):
    """Something of ours is in the kernel and cannot be seen from here; ``remedy`` is how it can."""

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason = f"the wires cannot be seen from here: {reason}"
        self.remedy = remedy
        super().__init__(f"{self.reason}; {remedy}")


class BusyError(XconnectError):
    """Another daemon holds this network namespace; ``pid`` is 0 where it cannot be seen."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        who = f"pid {pid}" if pid else "as a process that cannot be seen from here"
        super().__init__(f"a daemon runs already in this network namespace, {who}")
