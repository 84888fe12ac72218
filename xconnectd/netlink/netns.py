"""The other network namespaces of this machine: which id belongs to which, and work inside one.

The daemon knows them by their ids, and enters one only to set up an interface that it made there.
Imports nothing from the package.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shlex import quote
from typing import Final, NamedTuple, TypeVar

_T = TypeVar("_T")
_CLONE_NEWNET: Final = 0x40000000
NAMED: Final = Path("/run/netns")
OWN: Final = Path("/proc/thread-self/ns/net")


class Namespace(NamedTuple):
    """A way in (``/run/netns/NAME`` or ``/proc/PID/ns/net``) and what people call it.

    ``process`` is the PID, 0 where it has a name.
    """

    path: Path
    name: str
    process: int = 0

    @property
    def prefix(self) -> str:
        """What to write before a command to run it there. ``ip netns exec`` would hide bpffs."""
        return f"nsenter --net={quote(str(self.path))} "


def known(nsid_of: Callable[[int], int | None]) -> dict[int, Namespace]:
    """By id, those that can be found from here: the named ones, and those of processes.

    ``nsid_of`` gives the id of the namespace behind a file descriptor, None if it has none.
    Namespaces of processes that may not be looked at are left out.
    """
    found: dict[int, Namespace] = {}
    seen: set[int] = set()
    for namespace in (*_named(), *_of_processes()):
        with suppress(OSError), namespace.path.open() as file:
            inode = os.fstat(file.fileno()).st_ino
            if inode not in seen and (nsid := nsid_of(file.fileno())) is not None:
                found.setdefault(nsid, namespace)
            seen.add(inode)
    return found


def name_of(nsid: int, nsid_of: Callable[[int], int | None]) -> str:
    """What ``ip netns`` calls the namespace with this id; empty where it has no such name."""
    for namespace in _named():
        with suppress(OSError), namespace.path.open() as file:
            if nsid_of(file.fileno()) == nsid:
                return namespace.name
    return ""


def own_name() -> str:
    """What ``ip netns`` calls this namespace; empty if it has no name there, as on a bare host."""
    own = OWN.stat()
    for namespace in _named():
        with suppress(OSError):
            if os.path.samestat(own, namespace.path.stat()):
                return namespace.name
    return ""


def _named() -> Iterator[Namespace]:
    for path in sorted(NAMED.glob("*")):
        yield Namespace(path, path.name)


def _of_processes() -> Iterator[Namespace]:
    """One of each: the process with the lowest id, which is likely to live longest."""
    seen: set[int] = set()
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        with suppress(OSError):
            path = process / "ns" / "net"
            if (inode := path.stat().st_ino) not in seen:
                seen.add(inode)
                command = (process / "comm").read_text(errors="replace").strip()
                name = f"the namespace of {command} ({process.name})"
                yield Namespace(path, name, int(process.name))


@contextmanager
def opened(path: str | Path) -> Iterator[int]:
    """A descriptor of a namespace's file, for as short as may be: it keeps the namespace alive.

    What somebody else put there meanwhile, a FIFO say, is not waited for. ``ip netns add`` makes a
    plain file and then mounts the namespace over it: until then there is none.

    Raises:
        OSError: it may not be opened; FileNotFoundError if it is no namespace's file.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if os.fstat(file).st_dev != OWN.stat().st_dev:
            raise FileNotFoundError(errno.ENOENT, "it is no namespace's file", str(path))
        yield file
    finally:
        os.close(file)


def inside(namespace: Namespace | None, work: Callable[[], _T]) -> _T:
    """Does ``work`` there, in a thread that ends with the call. Sockets made there stay there.

    None is this namespace.

    Raises:
        OSError: it may not be entered (CAP_SYS_ADMIN), or is gone.
    """
    if namespace is None:
        return work()

    from concurrent.futures import ThreadPoolExecutor  # 1 ms that only work elsewhere should cost

    def enter() -> _T:
        with opened(namespace.path) as file:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(file, _CLONE_NEWNET):  # os.setns comes with Python 3.12
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(namespace.path))
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter).result()
