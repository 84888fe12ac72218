"""One file on disk: found with care, read without waiting for it, parsed by ``parser``.

A file may lie where others can write, and be read by root. So a symlink is followed only if it
belongs to root, to who reads, or to the owner of what it leads to (as fs.protected_symlinks has
it); what is no file on a disk is refused by what it is; and words of a file are repeated in
messages only if the owner of its directory could have read them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, Self

from xconnectd import pcap_filter
from xconnectd.config import edit, keys, parser, yaml_tree
from xconnectd.errors import ConfigError, Problem
from xconnectd.formatting import printable
from xconnectd.model import Wiring
from xconnectd.mounts import MAX_SYMLINKS

STDIN: Final = "<stdin>"
"""What messages call standard input."""

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""O_NONBLOCK: whatever may have come into a file's place meanwhile is not waited for."""
_NOT_ON_DISK: Final = {
    0x9FA0: "procfs",
    0x62656572: "sysfs",
    0x64626720: "debugfs",
    0x74726163: "tracefs",
    0x73636673: "securityfs",
    0x62656570: "configfs",
    0x0027E0EB: "cgroup",
    0x63677270: "cgroup2",
    0xCAFE4A11: "bpffs",
    0x6165676C: "pstore",
    0xDE5E81E4: "efivarfs",
    0x6E736673: "nsfs",
}
"""File systems that make their contents up (statfs(2), linux/magic.h). A read of them may wait for
an event, or take one away from who waits for it."""


class ConfigMissing(ConfigError):  # noqa: N818 - a kind of ConfigError, as its name says
    """There is no file, which may well come to be; everything else is there but refused."""


class Content(NamedTuple):
    """What was read, or the one problem that kept it from being read; ``missing``: it is not there.

    ``barred`` is the user who owns its directory and could not have read it, None for nobody.
    """

    data: bytes = b""
    problem: Problem | None = None
    missing: bool = False
    barred: int | None = None
    warnings: tuple[str, ...] = ()

    def checked(self) -> Self:
        """Itself.

        Raises:
            ConfigMissing, ConfigError: there is a problem.
        """
        if self.problem:
            raise (ConfigMissing if self.missing else ConfigError)([self.problem])
        return self


class _Refusal(Exception):  # noqa: N818 - it never leaves this module
    """Why this is no file to be read; ``hint`` is the way out."""

    def __init__(self, text: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(text)


def load(path: Path, known: Wiring | None = None) -> Wiring:
    """Read and parse ``path``; ``ConfigMissing`` when it does not exist.

    ``known`` is what it held before, which makes a small edit quick.
    """
    return parsed(read(str(path)), path, known)


def parsed(content: Content, path: Path, known: Wiring | None = None) -> Wiring:
    """The wiring in what was read of ``path``.

    Raises:
        ConfigMissing, ConfigError: it could not be read, or is refused.
    """
    data = content.checked().data
    try:
        wiring = (known and edit.edited(data, known)) or parser.parse(
            data, str(path), pcap_filter.fault
        )
    except ConfigError as error:
        if content.barred is None:
            raise
        raise ConfigError(_without_words(error.problems, content.barred)) from None
    warnings = wiring.warnings if content.barred is None else ()
    return replace(wiring, warnings=(*warnings, *content.warnings))


def read(path: str) -> Content:
    """A file's bytes, no more than a file may have. Whatever is wrong is told, never raised."""
    try:
        return _read(Path(path))
    except (FileNotFoundError, NotADirectoryError):
        hint = "create it; `links: {}` alone connects nothing"
        return Content(problem=Problem.of_file(path, "there is no such file", hint), missing=True)
    except OSError as error:
        hint = (
            "make it readable for the user that xconnectd runs as"
            if isinstance(error, PermissionError)
            else ""
        )
        text = f"cannot be read: {error.strerror or error}"
        return Content(problem=Problem.of_file(path, text, hint))
    except _Refusal as refusal:
        return Content(problem=Problem.of_file(path, str(refusal), refusal.hint))
    except ValueError as error:  # a path that is none
        return Content(problem=Problem.of_file(path, str(error)))


def read_stdin() -> Content:
    """What comes by standard input, to its end, with the bounds of a file."""
    try:
        return Content(_within_bounds(sys.stdin.buffer.read(yaml_tree.MAX_BYTES + 1)))
    except _Refusal as refusal:
        return Content(problem=Problem.of_file(STDIN, str(refusal), refusal.hint))


def _read(path: Path) -> Content:
    with ExitStack() as opened:
        fd, info = _straight(opened, str(path)) or _by_name(opened, str(path))
        data = _all_of(fd)
    directory = path.parent.stat()
    barred = directory.st_uid if _is_barred(directory.st_uid, info) else None
    return Content(data, barred=barred, warnings=tuple(_open_to_all(path, info, directory)))


def _by_name(opened: ExitStack, path: str) -> tuple[int, os.stat_result]:
    """A descriptor of the file, found name by name, and what it is."""
    found = _Walk(opened).to(path)
    _demand_file(found.file)
    fd = os.open(found.name, _READ | os.O_NOFOLLOW, dir_fd=found.directory)
    opened.callback(os.close, fd)
    return fd, _demand_file(fd)


def _straight(opened: ExitStack, path: str) -> tuple[int, os.stat_result] | None:
    """The same of a file to which no symlink leads; None where that is not plain to see.

    What the kernel calls an open file (/proc/self/fd) is its path without symlinks, and by that
    link the very file is opened that was looked at. That takes half as long as to go name by name.
    """
    with suppress(OSError):
        here = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        opened.callback(os.close, here)
        link = f"/proc/self/fd/{here}"
        if stat.S_ISREG(os.fstat(here).st_mode) and os.readlink(link) == path:  # noqa: PTH115
            info = _demand_file(here)
            fd = os.open(link, _READ)
            opened.callback(os.close, fd)
            return fd, info
    return None


def _all_of(fd: int) -> bytes:
    data = bytearray()
    while len(data) <= yaml_tree.MAX_BYTES and (part := os.read(fd, yaml_tree.MAX_BYTES + 1)):
        data += part
    return _within_bounds(bytes(data))


def _within_bounds(data: bytes) -> bytes:
    if len(data) > yaml_tree.MAX_BYTES:
        raise _Refusal(f"is larger than {yaml_tree.MAX_BYTES >> 20} MiB", keys.TOO_LARGE)
    return data


def _open_to_all(path: Path, file: os.stat_result, directory: os.stat_result) -> Iterator[str]:
    """A warning, no refusal: lab trees that everyone may write to are common."""
    for place, info in ((path, file), (path.parent, directory)):
        sticky = stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
        if info.st_mode & stat.S_IWOTH and not sticky:
            yield f"{place}: writable by everyone: anybody can connect this host's interfaces"


# --------------------------------------------------------------------------- what it is


def _demand_file(fd: int) -> os.stat_result:
    info = os.fstat(fd)
    kind = "" if stat.S_ISREG(info.st_mode) else _kind(info.st_mode)
    kind = kind or _NOT_ON_DISK.get(_file_system(fd), "")
    if kind:
        raise _Refusal(f"is {kind}, not a file", "name the YAML file itself")
    return info


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _file_system(fd: int) -> int:
    """Its magic number (``f_type`` of fstatfs(2), which Python does not tell); 0 if not known."""
    buffer = ctypes.create_string_buffer(256)
    if _libc().fstatfs(fd, buffer):
        return 0
    return ctypes.c_ulong.from_buffer(buffer).value & 0xFFFFFFFF


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


# --------------------------------------------------------------------------- the way to it


class Found(NamedTuple):
    """What a path leads to: a name in a directory that is open, and itself (with O_PATH)."""

    directory: int
    name: str
    file: int


class _Link(NamedTuple):
    path: str
    owner: int
    rest: int
    """How many names stand behind it."""


class _Walk:
    """Goes a path name by name, so that what was looked at is what is opened."""

    def __init__(self, opened: ExitStack) -> None:
        self._opened = opened
        self._links: list[_Link] = []
        self._count = 0

    def to(self, path: str) -> Found:
        """Where it leads.

        Raises:
            OSError: nowhere.
            _Refusal: a symlink on the way is not to be followed.
        """
        directory = here = self._open("/" if path.startswith("/") else ".", None)
        ahead, name = path.split("/")[::-1], "."
        while ahead:
            step = ahead.pop()
            if step not in ("", "."):
                fd = self._open(step, here)
                if stat.S_ISLNK((info := os.fstat(fd)).st_mode):
                    target = self._follow(fd, step, info.st_uid, len(ahead))
                    ahead += target.split("/")[::-1]
                    here = self._open("/", None) if target.startswith("/") else here
                    continue
                directory, name, here = here, step, fd
            self._arrive(here, len(ahead))
        return Found(directory, name, here)

    def _open(self, name: str, directory: int | None) -> int:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        self._opened.callback(os.close, fd)
        return fd

    def _follow(self, fd: int, name: str, owner: int, rest: int) -> str:
        self._count += 1
        if self._count > MAX_SYMLINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        self._links.append(_Link(name, owner, rest))
        return os.readlink("", dir_fd=fd)

    def _arrive(self, here: int, rest: int) -> None:
        """Judges every symlink that leads here."""
        while self._links and self._links[-1].rest >= rest:
            link = self._links.pop()
            owner = os.fstat(here).st_uid
            if link.owner not in (0, os.geteuid(), owner):
                raise _Refusal(
                    f"the symlink {printable(link.path)} in its path belongs to user {link.owner}"
                    f" and points to what user {owner} owns",
                    "make it root's (chown -h root), or name the file itself",
                )


def pinned(path: Path) -> tuple[Path, int]:
    """A path to write ``path`` at, through its open directory, whose descriptor is to be closed.

    So nobody can turn a symlink elsewhere meanwhile. A file that is not there yet is made there.

    Raises:
        ConfigError: a symlink on the way is not to be followed.
        OSError: the directory cannot be opened.
    """
    with ExitStack() as opened:
        walk = _Walk(opened)
        try:
            found = walk.to(str(path))
            directory, name = found.directory, found.name
        except FileNotFoundError:
            directory, name = _Walk(opened).to(str(path.parent)).file, path.name
        except _Refusal as refusal:
            raise ConfigError([Problem.of_file(path, str(refusal), refusal.hint)]) from None
        kept = os.dup(directory)
    return Path(f"/proc/self/fd/{kept}", name), kept


# --------------------------------------------------------------------------- whose it is


def _is_barred(user: int, file: os.stat_result) -> bool:
    """Whether ``user`` could not read the file, which who reads it here can.

    Groups are left out: what they are is asked elsewhere, and may hang there.
    """
    if user in (0, os.geteuid()) or file.st_mode & stat.S_IROTH:
        return False
    return not (user == file.st_uid and file.st_mode & stat.S_IRUSR)


def _without_words(problems: tuple[Problem, ...], user: int) -> list[Problem]:
    """The same places, without what stands there."""
    text = f"a problem, not shown since user {user}, who owns the directory, may not read the file"
    hint = "let them read the file, or check a copy of it elsewhere"
    return [problem._replace(text=text, hint=hint) for problem in problems]
