"""Files that lie where a look may never end, looked at by a process that can be left behind.

A dead server of FUSE, NFS or 9p holds whoever asks it for a file in the kernel, where no signal
reaches. What leads into a file system that is not known to be local is therefore asked of a helper
process, one for each mount, which has a deadline. While it is late nothing is asked through it.
"""

from __future__ import annotations

import errno
import os
import pickle
import re
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, Final, TypeVar

_Answer = TypeVar("_Answer")

_LOCAL: Final = frozenset({
    "bcachefs", "bpf", "btrfs", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs",
    "efivarfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fusectl", "hugetlbfs", "iso9660",
    "jfs", "mqueue", "nsfs", "overlay", "proc", "pstore", "ramfs", "reiserfs", "rootfs",
    "securityfs", "squashfs", "sysfs", "tmpfs", "tracefs", "ubifs", "udf", "vfat", "xfs", "zfs",
})  # fmt: skip
"""File systems (as /proc/self/mountinfo calls them) that wait for a disk at most."""

_TIMEOUT: Final = 0.5
"""Seconds that an answer may take; one that comes later is taken at the next look."""
_START: Final = 5.0
"""Seconds that a helper may take to start."""
_GREETING: Final = b"hello"
"""The question that a helper answers first, unasked, as soon as it runs."""
MAX_SYMLINKS: Final = 40
"""As the kernel's MAXSYMLINKS (linux/namei.h)."""
_HEAD: Final = struct.Struct("=Q")


class UnreachableError(OSError):
    """Who keeps a file does not answer."""

    def __init__(self, mount: str) -> None:
        super().__init__(errno.ETIMEDOUT, f"the file system at {mount} does not answer")


class Disk:
    """Looks at paths, and never waits long for one."""

    def __init__(self) -> None:
        self._mounts = _Mounts()
        self._helpers: dict[str, _Helper] = {}
        self._lock = Lock()

    def ask(self, look: Callable[[str], _Answer], path: str) -> _Answer:
        """What ``look``, a function of a module, returns for an absolute path. In any thread.

        Raises:
            UnreachableError: there is no answer yet.
            Exception: whatever ``look`` raises.
        """
        with self._lock:
            if mount := self._mounts.on_the_way(path):
                return self._ask_at(mount, look, path)
        return look(path)

    def _ask_at(self, mount: str, look: Callable[[str], _Answer], path: str) -> _Answer:
        if mount not in self._helpers:
            self._helpers[mount] = _Helper(mount)
        try:
            answer: _Answer = self._helpers[mount].ask(look, path)
        except ConnectionError:  # somebody killed it; the next one is asked at the next look
            self._helpers.pop(mount).close()
            raise UnreachableError(mount) from None
        return answer

    def close(self) -> None:
        """Leaves the helpers to end by themselves, as soon as they can."""
        for helper in self._helpers.values():
            helper.close()
        self._helpers.clear()
        self._mounts.close()


class _Mounts:
    """The mounts of this process that are not known to be local; read again whenever they change.

    poll(2) tells of a change of /proc/self/mountinfo (proc(5)).
    """

    def __init__(self) -> None:
        self._file = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._changes = select.poll()
        self._changes.register(self._file, select.POLLPRI)
        self._remote = self._read()

    def close(self) -> None:
        os.close(self._file)

    def on_the_way(self, path: str) -> str:
        """The first of them that ``path`` leads into; empty if it leads into none."""
        if self._changes.poll(0):
            self._remote = self._read()
        return _entered(path, self._remote) if self._remote else ""

    def _read(self) -> frozenset[str]:
        os.lseek(self._file, 0, os.SEEK_SET)
        text = b""
        while part := os.read(self._file, 1 << 16):
            text += part
        kinds: dict[str, str] = {}
        for line in os.fsdecode(text).splitlines():
            mount, _, kind = line.partition(" - ")
            kinds[_plain(mount.split(" ")[4])] = kind.split(" ")[0]  # the last one covers others
        return frozenset(mount for mount, kind in kinds.items() if kind not in _LOCAL)


def _plain(mount: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), mount)


def _entered(path: str, mounts: frozenset[str]) -> str:
    """The first of ``mounts`` on the way, found without a look at anything in it."""
    here, ahead, links = "/", path.split("/")[::-1], 0
    while ahead and here not in mounts:
        name = ahead.pop()
        if name in ("", ".", ".."):
            here = os.path.dirname(here) if name == ".." else here  # noqa: PTH120
            continue
        step = f"{here.rstrip('/')}/{name}"
        if step in mounts:
            return step
        target = _target(step) if links < MAX_SYMLINKS else None
        if target is None:
            here = step
            continue
        links += 1
        ahead += target.split("/")[::-1]
        here = "/" if target.startswith("/") else here
    return here if here in mounts else ""


def _target(path: str) -> str | None:
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return None


# --------------------------------------------------------------------------- the helper


class _Helper:
    """A process that looks, and the answer that it owes."""

    def __init__(self, mount: str) -> None:
        import subprocess  # 3 ms that only a mount that may hang should cost

        self._mount = mount
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                (sys.executable, "-m", __name__),
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,  # nobody waits for the end of what it could say
                cwd="/",
                env=_surroundings(),
                start_new_session=True,  # ^C is for us
            )
        self._owed = _GREETING
        self._got = bytearray()

    def ask(self, look: Callable[[str], Any], path: str) -> Any:
        """What ``look(path)`` gives there; an answer that came late if this was the question."""
        question = pickle.dumps((look, path))
        if owed := self._owed:
            answer = self._receive(_START if owed is _GREETING else 0)
            if owed == question:
                return _result(answer)
        self._socket.sendall(_HEAD.pack(len(question)) + question)
        self._owed = question
        return _result(self._receive(_TIMEOUT))

    def _receive(self, timeout: float) -> bytes:
        """The answer that is owed.

        Raises:
            UnreachableError: it is not here by then.
            ConnectionError: it will never be, the process has ended.
        """
        deadline = time.monotonic() + timeout
        while (size := self._size()) is None or len(self._got) < size:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._socket], [], [], left)[0]:
                raise UnreachableError(self._mount)
            if not (part := self._socket.recv(1 << 20)):
                raise ConnectionResetError
            self._got += part
        answer = bytes(self._got[_HEAD.size :])
        self._got.clear()
        self._owed = b""
        return answer

    def _size(self) -> int | None:
        """Of the whole answer, once its head is here."""
        if len(self._got) < _HEAD.size:
            return None
        return _HEAD.size + int(_HEAD.unpack_from(self._got)[0])

    def close(self) -> None:
        """One that is held in the kernel ends when it comes back from there."""
        self._socket.close()
        self._process.kill()
        self._process.poll()


def _surroundings() -> dict[str, str]:
    """So that the helper finds this very package, wherever it was started."""
    package = str(Path(__file__).parents[1])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def _result(answer: bytes) -> Any:
    result, error = pickle.loads(answer)  # noqa: S301 (of this very program)
    if error is not None:
        raise error
    return result


def _serve() -> None:
    """The helper: a question, an answer, and so on until nobody asks."""
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(_HEAD.pack(0))
    answers.flush()
    while len(head := questions.read(_HEAD.size)) == _HEAD.size:
        look, path = pickle.loads(questions.read(*_HEAD.unpack(head)))  # noqa: S301 (as above)
        try:
            answer = pickle.dumps((look(path), None))
        except Exception as error:  # noqa: BLE001 - it is raised where the question comes from
            answer = pickle.dumps((None, error))
        answers.write(_HEAD.pack(len(answer)) + answer)
        answers.flush()


if __name__ == "__main__":
    _serve()
